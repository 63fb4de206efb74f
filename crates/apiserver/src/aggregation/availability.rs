//! Whether the servers behind APIServices answer: looked at whenever something about them changes, and from time to time.
//!
//! The order of the checks and their words are upstream's remote availability controller's.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use coracle_api::kinds::{self, GroupVersion, Kind};
use coracle_api::openapi;
use coracle_store::{Gone, Range, Watch};
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode, header};
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::registration::MANAGED;
use super::{Behind, Offer, Priority, Remote, State, Swagger, proxy};
use crate::extension::endpoints::{self, Nowhere};
use crate::extension::{Destination, Extensions};
use crate::identity::{MASTERS, User};
use crate::object::{self, text};
use crate::server::Server;
use crate::{limits, resource_metrics, storage};

/// Why an APIService is (not) available: `reason` and `message` of its condition.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Verdict {
    reason: &'static str,
    message: String,
}

/// What is known of one APIService that names a service.
struct Known {
    spec: Value,
    /// What the objects of the cluster say: the server can be asked, or why not.
    reachable: Result<(), Verdict>,
    state: State,
    /// None before the first check is over.
    verdict: Option<Verdict>,
    /// When the server is to be asked again.
    due: Instant,
    failures: u32,
    asking: bool,
}

type Checked = (String, Value, Result<Offer, String>);

/// Keeps the remotes and their conditions until the server ends.
pub(crate) async fn run(server: Arc<Server>, client: kube::Client, ends: CancellationToken) {
    let Some(kind) = kinds::by_kind("apiregistration.k8s.io", "v1", "APIService") else { return };
    let mut upkeep =
        Upkeep { server, client, kind, known: BTreeMap::new(), checks: JoinSet::new() };
    loop {
        let outcome = tokio::select! {
            outcome = upkeep.follow() => outcome,
            () = ends.cancelled() => return,
        };
        if matches!(outcome, Gone::Closed) {
            return;
        }
    }
}

/// What is known before anybody was asked: whether we tell the metrics.
pub(crate) fn begin(server: &Server) {
    let metrics = registered(server).iter().any(is_metrics_here).then(Remote::metrics);
    server.aggregator.publish(metrics.into_iter());
}

fn registered(server: &Server) -> Vec<Value> {
    let Some(kind) = kinds::by_kind("apiregistration.k8s.io", "v1", "APIService") else {
        return Vec::new();
    };
    let listing = server.store.list(&storage::range(kind, ""), None, None, None);
    let objects = listing.map(|listing| listing.objects).unwrap_or_default();
    objects.iter().filter_map(|object| storage::decode(object).ok()).collect()
}

struct Upkeep {
    server: Arc<Server>,
    client: kube::Client,
    kind: &'static Kind,
    known: BTreeMap<String, Known>,
    checks: JoinSet<Checked>,
}

impl Upkeep {
    /// Follows the APIServices, and what stands behind them while there is one, until a watch ends.
    async fn follow(&mut self) -> Gone {
        let server = self.server.clone();
        let revision = server.store.revision();
        let watch = |range: Range| server.store.watch(&range, revision);
        let mut services = match watch(storage::range(self.kind, "")) {
            Ok(watch) => watch,
            Err(gone) => return gone,
        };
        let mut behind: Vec<Watch> = Vec::new();
        loop {
            self.look().await;
            if self.known.is_empty() {
                behind.clear();
            } else if behind.is_empty() {
                for resource in ["services", "endpoints", "endpointslices.discovery.k8s.io"] {
                    match server.store.watch(&Range::all(resource), server.store.revision()) {
                        Ok(watch) => behind.push(watch),
                        Err(gone) => return gone,
                    }
                }
                // Something may have changed before these watches began.
                self.look().await;
            }
            let namespaces = self.namespaces();
            let due = self.known.values().filter(|it| it.is_waiting()).map(|it| it.due).min();
            let gone = tokio::select! {
                event = services.next() => event.err(),
                event = any_in(&namespaces, &mut behind), if !behind.is_empty() => event,
                Some(checked) = self.checks.join_next() => {
                    if let Ok(checked) = checked {
                        self.learn(checked);
                    }
                    None
                }
                () = tokio::time::sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => None,
            };
            if let Some(gone) = gone {
                return gone;
            }
        }
    }

    /// Where the services are that APIServices name.
    fn namespaces(&self) -> BTreeSet<String> {
        self.known.values().map(|it| text(&it.spec, "/service/namespace").to_owned()).collect()
    }

    /// Looks at all of them, asks those whose time has come, and tells what is known.
    async fn look(&mut self) {
        let mut services = registered(&self.server);
        let metrics = services.iter().any(is_metrics_here).then(Remote::metrics);
        services.retain(|service| service["spec"]["service"].is_object());
        self.known
            .retain(|name, _| services.iter().any(|it| object::meta(it, "name") == name.as_str()));
        for service in &services {
            self.observe(service);
        }
        let remotes = self.known.values().map(Known::remote).chain(metrics);
        self.server.aggregator.publish(remotes);
        for service in &services {
            self.tell(service).await;
        }
    }

    fn observe(&mut self, service: &Value) {
        let (name, spec) = (object::meta(service, "name"), &service["spec"]);
        let reachable = reachable(&self.server, spec);
        let now = Instant::now();
        let is_new = self.known.get(name).is_none_or(|it| it.spec != *spec);
        if is_new || self.known.get(name).is_some_and(|it| it.reachable != reachable) {
            let before = self.known.remove(name).filter(|_| !is_new);
            let known = Known::new(spec.clone(), reachable, before, now);
            self.known.insert(name.to_owned(), known);
        }
        let Some(known) = self.known.get_mut(name) else { return };
        if known.is_waiting() && known.due <= now {
            known.asking = true;
            let (client, name) = (self.server.aggregator.client.clone(), name.to_owned());
            let spec = known.spec.clone();
            let before = match &known.state {
                State::Available(offer) => offer.swagger.clone(),
                State::Unavailable => None,
            };
            self.checks.spawn(async move {
                let found = ask(&client, &spec, before).await;
                (name, spec, found)
            });
        }
    }

    /// Takes in what a check found.
    fn learn(&mut self, (name, spec, found): Checked) {
        let Some(known) = self.known.get_mut(&name).filter(|it| it.spec == spec) else { return };
        known.asking = false;
        if known.reachable.is_err() {
            return;
        }
        match found {
            Ok(offer) => {
                known.state = State::Available(offer);
                known.failures = 0;
                known.due = Instant::now() + limits::AVAILABILITY_INTERVAL;
                let message = "all checks passed".to_owned();
                known.verdict = Some(Verdict { reason: "Passed", message });
            }
            Err(message) => {
                known.state = State::Unavailable;
                let wait = limits::AVAILABILITY_RETRY * 2_u32.saturating_pow(known.failures);
                known.due = Instant::now() + wait.min(limits::AVAILABILITY_INTERVAL);
                known.failures = (known.failures + 1).min(16);
                known.verdict = Some(Verdict { reason: "FailedDiscoveryCheck", message });
            }
        }
    }

    /// Writes the condition, if it is not there already.
    async fn tell(&self, service: &Value) {
        let name = object::meta(service, "name");
        let Some(verdict) = self.known.get(name).and_then(|known| known.verdict.as_ref()) else {
            return;
        };
        let status = if verdict.reason == "Passed" { "True" } else { "False" };
        let conditions = service["status"]["conditions"].as_array().cloned().unwrap_or_default();
        let before = conditions.iter().find(|condition| condition["type"] == "Available");
        let said = |field: &str| before.map_or("", |it| it[field].as_str().unwrap_or_default());
        if (said("status"), said("reason"), said("message"))
            == (status, verdict.reason, verdict.message.as_str())
        {
            return;
        }
        let since = if said("status") == status {
            said("lastTransitionTime").to_owned()
        } else {
            object::now()
        };
        let condition = json!({
            "type": "Available", "status": status, "reason": verdict.reason, "message": verdict.message,
            "lastTransitionTime": since,
        });
        let mut changed = service.clone();
        let others = conditions.into_iter().filter(|it| it["type"] != "Available");
        changed["status"]["conditions"] = others.chain([condition]).collect();
        let path = format!("{}/{}/{name}/status", self.kind.root_path(), self.kind.plural);
        let request = Request::builder()
            .method(Method::PUT)
            .uri(path)
            .header(header::CONTENT_TYPE, "application/json")
            .body(changed.to_string().into_bytes());
        let Ok(request) = request else { return };
        // Whoever was faster has made a change that brings us back.
        if let Err(error) = self.client.request::<Value>(request).await {
            tracing::debug!(%error, name, "the condition of an APIService was not written");
        }
    }
}

impl Known {
    fn new(
        spec: Value,
        reachable: Result<(), Verdict>,
        before: Option<Self>,
        now: Instant,
    ) -> Self {
        let verdict = reachable.clone().err();
        // While nothing says otherwise, a server that answered before is believed to go on.
        let state = match (before, &reachable) {
            (Some(before), Ok(())) => before.state,
            _ => State::Unavailable,
        };
        Self { spec, reachable, state, verdict, due: now, failures: 0, asking: false }
    }

    /// Whether a check is to come.
    const fn is_waiting(&self) -> bool {
        self.reachable.is_ok() && !self.asking
    }

    fn remote(&self) -> Remote {
        Remote {
            group: text(&self.spec, "/group").to_owned(),
            version: text(&self.spec, "/version").to_owned(),
            server: Behind::Service(
                Destination::of_api_service(&self.spec).map_err(|it| it.to_string()),
            ),
            priority: Priority {
                group: self.spec["groupPriorityMinimum"].as_i64().unwrap_or_default(),
                version: self.spec["versionPriority"].as_i64().unwrap_or_default(),
            },
            state: self.state.clone(),
        }
    }
}

/// Whether this is the APIService that says that we tell the metrics of nodes and pods: as we bring it in. Without a service and
/// without our mark it would be that of a definition.
fn is_metrics_here(service: &Value) -> bool {
    let GroupVersion { group, version, .. } = resource_metrics::SERVED;
    let spec = &service["spec"];
    (&spec["group"], &spec["version"]) == (&group.into(), &version.into())
        && spec["service"].is_null()
        && service["metadata"]["labels"][MANAGED] == "onstart"
}

/// Whether the service is there and leads somewhere.
fn reachable(server: &Server, spec: &Value) -> Result<(), Verdict> {
    let (namespace, name) = (text(spec, "/service/namespace"), text(spec, "/service/name"));
    let port = spec["service"]["port"].as_u64().and_then(|port| u16::try_from(port).ok());
    let port = port.unwrap_or(443);
    let (reason, message) = match endpoints::resolve(&server.store, namespace, name, port) {
        Ok(_) => return Ok(()),
        Err(Nowhere::UnknownService(_)) => {
            ("ServiceNotFound", format!("service/{name} in {namespace:?} is not present"))
        }
        Err(Nowhere::UnknownPort { .. }) => (
            "ServicePortError",
            format!("service/{name} in {namespace:?} is not listening on port {port}"),
        ),
        Err(Nowhere::NotReady(_)) if endpoints::are_known(&server.store, namespace, name) => (
            "MissingEndpoints",
            format!("endpoints for service/{name} in {namespace:?} have no addresses"),
        ),
        Err(Nowhere::NotReady(_)) => (
            "EndpointsNotFound",
            format!("cannot find endpoints for service/{name} in {namespace:?}"),
        ),
    };
    Err(Verdict { reason, message })
}

/// Asks the server what it offers in its group-version.
async fn ask(
    client: &Extensions,
    spec: &Value,
    before: Option<Arc<Swagger>>,
) -> Result<Offer, String> {
    let destination = Destination::of_api_service(spec).map_err(|error| error.to_string())?;
    let (group, version) = (text(spec, "/group"), text(spec, "/version"));
    let path = format!("/apis/{group}/{version}");
    let mut headers = HeaderMap::new();
    headers.insert(header::ACCEPT, HeaderValue::from_static("application/json"));
    headers.insert(header::USER_AGENT, HeaderValue::from_static("kube-aggregator"));
    proxy::identify(&mut headers, &User::new("system:kube-aggregator", &[MASTERS]));
    let timeout = limits::AVAILABILITY_TIMEOUT;
    let list = client.fetch(&destination, &path, headers.clone(), timeout).await;
    let list = list.map_err(|why| {
        format!("failing or missing response from {}: {why}", destination.shown(&path))
    })?;
    let list: Value = serde_json::from_slice(&list).unwrap_or_default();
    // Not every server has OpenAPI, and none has to.
    let index = client.fetch(&destination, "/openapi/v3", headers.clone(), timeout);
    let below = format!("{path}/");
    let (index, swagger) =
        tokio::join!(index, swagger(client, &destination, &below, headers, before));
    let index: Value =
        index.ok().and_then(|index| serde_json::from_slice(&index).ok()).unwrap_or_default();
    let address = index["paths"][path.trim_start_matches('/')]["serverRelativeURL"].as_str();
    Ok(Offer {
        resources: list["resources"].as_array().cloned().unwrap_or_default(),
        open_api: address.filter(|address| address.starts_with("/openapi/v3/")).map(str::to_owned),
        swagger,
    })
}

/// What the server's OpenAPI v2 document says of paths below this one: the same as `before` if the server says so, or does not
/// answer this time.
async fn swagger(
    client: &Extensions,
    destination: &Destination,
    below: &str,
    mut headers: HeaderMap,
    before: Option<Arc<Swagger>>,
) -> Option<Arc<Swagger>> {
    if let Some(tag) = before.as_ref().and_then(|before| before.tag.clone()) {
        headers.insert(header::IF_NONE_MATCH, tag);
    }
    let timeout = limits::AVAILABILITY_TIMEOUT;
    let answer = client.fetch_document(destination, "/openapi/v2", headers, timeout).await;
    let (code, tag, body) = match answer {
        Ok(answer) => answer,
        Err(cause) => {
            tracing::debug!(cause, "no OpenAPI v2 of an aggregated server");
            return before;
        }
    };
    match code {
        StatusCode::OK => (),
        StatusCode::NOT_FOUND | StatusCode::NOT_ACCEPTABLE => return None,
        _ => return before,
    }
    let below = below.to_owned();
    // Aside: a large document takes long enough to be noticed by other requests.
    let read = move || {
        let document = serde_json::from_slice(&body).ok()?;
        Some(openapi::v2_part(document, &below))
    };
    let part = tokio::task::spawn_blocking(read).await.ok()??;
    let swagger = Swagger { tag, part };
    Some(before.filter(|before| **before == swagger).unwrap_or_else(|| Arc::new(swagger)))
}

/// Returns when one of the watches tells of something in these namespaces, or has ended, and then why.
async fn any_in(namespaces: &BTreeSet<String>, watches: &mut [Watch]) -> Option<Gone> {
    loop {
        let next = watches.iter_mut().map(|watch| Box::pin(watch.next()));
        match futures::future::select_all(next).await.0 {
            Ok(event) if namespaces.contains(&*event.object().key.namespace) => return None,
            // Pods come and go elsewhere all the time.
            Ok(_) => (),
            Err(gone) => return Some(gone),
        }
    }
}
