//! The kubelet's own HTTPS API, for the API server: logs, pods, health, metrics.
//!
//! Who may connect is decided by TLS: the configuration that we get demands the API server's client certificate.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, Query as QueryString, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Json, Response};
use axum::routing::{get, put};
use coracle_reconcile::{Mirror, Tasks};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio_rustls::TlsAcceptor;
use tokio_stream::wrappers::ReceiverStream;
use tracing::{debug, warn};

use crate::context::Context;
use crate::local_volumes;
use crate::logs::{self, Attempt, Query};
use crate::plan::containers;
use crate::pods::{Pods, find};
use crate::usage::{self, Usages};

/// Connections at once. Each followed log has one, and the API server bounds its own users.
const CONNECTIONS: usize = 2048;
/// How long a client may take for its handshake.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// The wait after the system refused a connection, most likely for want of file descriptors.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);
/// Pieces of a log that wait for a slow reader.
const PIECES: usize = 8;

/// What the handlers know.
pub(crate) struct Api {
    /// What the kubelet's parts share.
    pub(crate) ctx: Arc<Context>,
    /// The pods of this node in the API.
    pub(crate) mirror: Mirror<Pod>,
    /// Their workers.
    pub(crate) pods: Arc<Pods>,
    /// The last look at what they use.
    pub(crate) usages: Usages,
    /// Who owns what a handler leaves running.
    pub(crate) tasks: Tasks,
}

/// Every route.
pub(crate) fn router(api: Arc<Api>) -> Router {
    Router::new()
        .route("/healthz", get(|| async { "ok" }))
        .route("/pods", get(pods))
        .route("/metrics", get(metrics))
        .route("/stats/summary", get(usage::summary))
        .route("/containerLogs/{namespace}/{pod}/{container}", get(container_logs))
        .route("/localVolumes/{volume}", put(local_volumes::ensure).delete(local_volumes::remove))
        .with_state(api)
}

/// Answers until the tasks are told to stop.
pub(crate) async fn serve(
    listener: TcpListener,
    tls: Arc<rustls::ServerConfig>,
    router: Router,
    tasks: Tasks,
) {
    let acceptor = TlsAcceptor::from(tls);
    let turns = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let Ok(turn) = Arc::clone(&turns).acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, _)) => {
                let (acceptor, router, stop) =
                    (acceptor.clone(), router.clone(), tasks.token().clone());
                tasks.spawn_to_end("kubelet connection", async move {
                    tokio::select! {
                        () = stop.cancelled() => (),
                        () = connection(stream, acceptor, router) => (),
                    }
                    drop(turn);
                });
            }
            Err(error) => {
                warn!(%error, "connection not accepted");
                tokio::time::sleep(ACCEPT_AGAIN).await;
            }
        }
    }
}

async fn connection(stream: TcpStream, acceptor: TlsAcceptor, router: Router) {
    // Small pieces of a followed log must not wait for more.
    if let Err(error) = stream.set_nodelay(true) {
        debug!(%error, "cannot switch off Nagle's algorithm");
    }
    let stream = match tokio::time::timeout(HANDSHAKE, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return debug!(%error, "handshake refused"),
        Err(_) => return debug!("handshake not finished in time"),
    };
    let server = auto::Builder::new(TokioExecutor::new());
    let served =
        server.serve_connection(TokioIo::new(stream), TowerToHyperService::new(router)).await;
    if let Err(error) = served {
        debug!(error, "connection broke off");
    }
}

async fn container_logs(
    State(api): State<Arc<Api>>,
    Path((namespace, name, container)): Path<(String, String, String)>,
    QueryString(parameters): QueryString<HashMap<String, String>>,
) -> Response {
    match open_logs(&api, &namespace, &name, &container, &parameters) {
        Ok(body) => ([(header::CONTENT_TYPE, "text/plain")], body).into_response(),
        Err((status, message)) => (status, message).into_response(),
    }
}

type Refusal = (StatusCode, String);

fn open_logs(
    api: &Arc<Api>,
    namespace: &str,
    name: &str,
    container: &str,
    parameters: &HashMap<String, String>,
) -> Result<Body, Refusal> {
    let bad = |message: String| (StatusCode::BAD_REQUEST, message);
    let query = parse_query(parameters, Timestamp::now()).map_err(bad)?;
    let previous = flag(parameters, "previous").map_err(bad)?;
    let pod = find(&api.mirror, namespace, name)
        .ok_or_else(|| (StatusCode::NOT_FOUND, format!("pod \"{name}\" does not exist")))?;
    let known = pod
        .spec
        .as_ref()
        .is_some_and(|spec| containers(spec).any(|(_, known)| known.name == container));
    if !known {
        return Err((
            StatusCode::NOT_FOUND,
            format!("container \"{container}\" not found in pod \"{name}\""),
        ));
    }
    let uid = pod.metadata.uid.as_deref().unwrap_or_default();
    let snapshot = api.pods.snapshot(uid);
    let snapshot = snapshot.ok_or_else(|| {
        bad(format!("container \"{container}\" in pod \"{name}\" is not available"))
    })?;
    let view = snapshot.borrow().containers.get(container).cloned();
    let newest = view.as_ref().and_then(|view| view.attempt);
    let number = if previous {
        newest.and_then(|newest| newest.checked_sub(1)).ok_or_else(|| {
            bad(format!(
                "previous terminated container \"{container}\" in pod \"{name}\" not found"
            ))
        })?
    } else {
        let waiting =
            view.and_then(|view| view.waiting).unwrap_or_else(|| first_wait(&pod).to_owned());
        newest.ok_or_else(|| {
            bad(format!(
                "container \"{container}\" in pod \"{name}\" is waiting to start: {}",
                spelled(&waiting)
            ))
        })?
    };
    let path = api.ctx.log_directory(&pod).join(container).join(format!("{number}.log"));
    if !path.exists() {
        let what = if previous { "previous terminated container" } else { "log of container" };
        return Err(bad(format!("{what} \"{container}\" in pod \"{name}\" not found")));
    }
    let attempt = Attempt { container: container.to_owned(), number, pod: snapshot };
    let (pieces, body) = mpsc::channel(PIECES);
    api.tasks.spawn("container log", logs::send(path, query, attempt, pieces));
    Ok(Body::from_stream(ReceiverStream::new(body)))
}

/// Why a container waits that has not been tried yet.
fn first_wait(pod: &Pod) -> &'static str {
    let init = pod.spec.as_ref().and_then(|spec| spec.init_containers.as_ref());
    if init.is_some_and(|init| !init.is_empty()) { "PodInitializing" } else { "ContainerCreating" }
}

/// Upstream's words for the reasons that have some.
fn spelled(waiting: &str) -> &str {
    match waiting {
        "ErrImagePull" => "image can't be pulled",
        "ImagePullBackOff" => "trying and failing to pull image",
        other => other,
    }
}

fn parse_query(parameters: &HashMap<String, String>, now: Timestamp) -> Result<Query, String> {
    let number = |name: &str| match parameters.get(name).filter(|value| !value.is_empty()) {
        None => Ok(None),
        Some(value) => {
            value.parse::<u64>().map(Some).map_err(|_| format!("invalid {name} {value:?}"))
        }
    };
    let seconds = number("sinceSeconds")?;
    let since_time = parameters.get("sinceTime").filter(|value| !value.is_empty());
    let since_time = since_time.map(|value| {
        value.parse::<Timestamp>().map_err(|_| format!("invalid sinceTime {value:?}"))
    });
    let ago = seconds.map(|seconds| {
        now - SignedDuration::from_secs(i64::try_from(seconds).unwrap_or(i64::MAX / 4).min(1 << 32))
    });
    Ok(Query {
        follow: flag(parameters, "follow")?,
        tail_lines: number("tailLines")?,
        since: since_time.transpose()?.or(ago),
        timestamps: flag(parameters, "timestamps")?,
        limit_bytes: number("limitBytes")?,
    })
}

fn flag(parameters: &HashMap<String, String>, name: &str) -> Result<bool, String> {
    match parameters.get(name).map(String::as_str) {
        None | Some("" | "false" | "0" | "f" | "F" | "False" | "FALSE") => Ok(false),
        Some("true" | "1" | "t" | "T" | "True" | "TRUE") => Ok(true),
        Some(other) => Err(format!("invalid {name} {other:?}")),
    }
}

async fn pods(State(api): State<Arc<Api>>) -> Json<Value> {
    let pods: Vec<Arc<Pod>> = api.mirror.list();
    let items: Vec<&Pod> = pods.iter().map(Arc::as_ref).collect();
    Json(json!({ "kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": items }))
}

async fn metrics(State(api): State<Arc<Api>>) -> Response {
    let (mut running, mut containers) = (0, 0);
    for pod in api.mirror.list() {
        let Some(snapshot) = pod.metadata.uid.as_deref().and_then(|uid| api.pods.snapshot(uid))
        else {
            continue;
        };
        let of_pod = snapshot.borrow().containers.values().filter(|view| view.running).count();
        running += usize::from(of_pod > 0);
        containers += of_pod;
    }
    let mut text = String::new();
    let gauges = [
        (
            "kubelet_desired_pods",
            "Number of pods that the API wants on this node.",
            api.mirror.list().len(),
        ),
        ("kubelet_running_pods", "Number of pods that have a running container.", running),
        ("kubelet_running_containers", "Number of running containers.", containers),
    ];
    for (name, help, value) in gauges {
        // Writing into a String cannot fail.
        let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} gauge\n{name} {value}");
    }
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], text).into_response()
}
