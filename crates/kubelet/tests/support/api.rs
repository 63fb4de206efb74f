//! As much of a Kubernetes API as a kubelet uses, over a map in memory.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::{Method, Request, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures::StreamExt;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::broadcast;
use tokio_stream::wrappers::BroadcastStream;

use super::DEADLINE;

#[derive(Clone)]
pub struct Api {
    shared: Arc<Shared>,
}

struct Shared {
    objects: Mutex<Objects>,
    changes: broadcast::Sender<(String, String, Value)>,
}

#[derive(Default)]
struct Objects {
    // By collection, `/api/v1/namespaces/default/pods`, and name.
    all: BTreeMap<(String, String), Value>,
    revision: u64,
}

impl Api {
    pub fn new() -> Self {
        Self {
            shared: Arc::new(Shared {
                objects: Mutex::default(),
                changes: broadcast::channel(65_536).0,
            }),
        }
    }

    pub fn client(&self) -> kube::Client {
        let router: Router = Router::new().fallback(handle).with_state(self.clone());
        kube::Client::new(router, "default")
    }

    /// Creates or replaces an object as its user would.
    pub fn put(&self, collection: &str, mut object: Value) {
        let name = object["metadata"]["name"].as_str().unwrap().to_owned();
        if object["metadata"]["uid"].is_null() {
            object["metadata"]["uid"] = json!(format!("uid-{name}"));
        }
        if let Some(namespace) = namespace_of(collection) {
            object["metadata"]["namespace"] = json!(namespace);
        }
        self.store(collection, &name, object);
    }

    pub fn get(&self, collection: &str, name: &str) -> Option<Value> {
        self.shared.objects.lock().all.get(&(collection.to_owned(), name.to_owned())).cloned()
    }

    pub fn list(&self, collection: &str) -> Vec<Value> {
        let objects = self.shared.objects.lock();
        objects
            .all
            .iter()
            .filter(|((of, _), _)| of == collection)
            .map(|(_, object)| object.clone())
            .collect()
    }

    /// Waits until the object is as wished, and answers it.
    pub async fn until(
        &self,
        collection: &str,
        name: &str,
        wish: impl Fn(&Value) -> bool,
    ) -> Value {
        let mut changes = self.shared.changes.subscribe();
        let wait = async {
            loop {
                if let Some(object) = self.get(collection, name).filter(|object| wish(object)) {
                    return object;
                }
                let _ = changes.recv().await;
            }
        };
        let waited = tokio::time::timeout(DEADLINE, wait).await;
        waited.unwrap_or_else(|_| {
            panic!("{name} did not become as wished: {:#?}", self.get(collection, name))
        })
    }

    pub async fn until_gone(&self, collection: &str, name: &str) {
        let mut changes = self.shared.changes.subscribe();
        let wait = async {
            while self.get(collection, name).is_some() {
                let _ = changes.recv().await;
            }
        };
        tokio::time::timeout(DEADLINE, wait).await.expect("it stayed");
    }

    /// Deletes a pod with its grace period, as its user would.
    pub fn delete_pod(&self, name: &str, grace: i64) {
        let mut pod = self.get(PODS, name).unwrap();
        pod["metadata"]["deletionTimestamp"] = json!("2026-11-23T06:00:00Z");
        pod["metadata"]["deletionGracePeriodSeconds"] = json!(grace);
        self.store(PODS, name, pod);
    }

    fn store(&self, collection: &str, name: &str, mut object: Value) -> Value {
        let mut objects = self.shared.objects.lock();
        objects.revision += 1;
        object["metadata"]["resourceVersion"] = json!(objects.revision.to_string());
        let key = (collection.to_owned(), name.to_owned());
        let kind =
            if objects.all.insert(key, object.clone()).is_some() { "MODIFIED" } else { "ADDED" };
        let _ = self.shared.changes.send((kind.to_owned(), collection.to_owned(), object.clone()));
        object
    }

    pub fn remove(&self, collection: &str, name: &str) -> Option<Value> {
        let mut objects = self.shared.objects.lock();
        objects.revision += 1;
        let revision = objects.revision;
        let mut last = objects.all.remove(&(collection.to_owned(), name.to_owned()))?;
        last["metadata"]["resourceVersion"] = json!(revision.to_string());
        let _ =
            self.shared.changes.send(("DELETED".to_owned(), collection.to_owned(), last.clone()));
        Some(last)
    }
}

pub const PODS: &str = "/api/v1/namespaces/default/pods";

fn namespace_of(collection: &str) -> Option<&str> {
    collection.split("/namespaces/").nth(1)?.split('/').next()
}

async fn handle(State(api): State<Api>, request: Request<Body>) -> Result<Response, Infallible> {
    let (parts, body) = request.into_parts();
    let body = axum::body::to_bytes(body, 1 << 20).await.unwrap();
    let body: Value = serde_json::from_slice(&body).unwrap_or_default();
    Ok(answer(
        &api,
        &parts.method,
        &parts.uri,
        parts.headers.get("content-type").map(|kind| kind.to_str().unwrap()),
        body,
    ))
}

fn answer(api: &Api, method: &Method, uri: &Uri, content: Option<&str>, body: Value) -> Response {
    let query = uri.query().unwrap_or_default();
    let path = uri.path().trim_end_matches('/');
    let plurals = [
        "pods",
        "nodes",
        "leases",
        "services",
        "configmaps",
        "secrets",
        "events",
        "serviceaccounts",
    ];
    let parts: Vec<&str> = path.split('/').collect();
    let at = parts.iter().rposition(|part| plurals.contains(part)).unwrap();
    let collection = parts[..=at].join("/");
    let (name, subresource) = (parts.get(at + 1).copied(), parts.get(at + 2).copied());
    match (method.as_str(), name, subresource) {
        ("GET", None, _) if query.contains("watch=") => watch(api, &collection, query),
        ("GET", None, _) => {
            let objects = api.shared.objects.lock();
            let items: Vec<_> = objects
                .all
                .iter()
                .filter(|((of, _), object)| matches(of, &collection, object, query))
                .map(|(_, object)| object.clone())
                .collect();
            axum::Json(json!({ "kind": "List", "apiVersion": "v1", "metadata": { "resourceVersion": objects.revision.to_string() }, "items": items })).into_response()
        }
        ("GET", Some(name), _) => found(api.get(&collection, name)),
        ("POST", Some(_), Some("token")) => {
            let mut answer = body;
            answer["status"] =
                json!({ "token": "a-token", "expirationTimestamp": "2100-01-01T00:00:00Z" });
            axum::Json(answer).into_response()
        }
        ("POST", None, _) => {
            api.put(&collection, body.clone());
            found(api.get(&collection, body["metadata"]["name"].as_str().unwrap()))
        }
        ("PATCH", Some(name), _) => {
            let Some(mut object) = api.get(&collection, name) else { return found(None) };
            if body["metadata"]["uid"].as_str().is_some_and(|uid| object["metadata"]["uid"] != *uid)
            {
                return status(StatusCode::CONFLICT, "the UID does not match");
            }
            merge(&mut object, &body, content.is_some_and(|kind| kind.contains("strategic")));
            found(Some(api.store(&collection, name, object)))
        }
        ("DELETE", Some(name), _) => found(api.remove(&collection, name)),
        _ => status(StatusCode::METHOD_NOT_ALLOWED, "not here"),
    }
}

fn found(object: Option<Value>) -> Response {
    match object {
        Some(object) => axum::Json(object).into_response(),
        None => status(StatusCode::NOT_FOUND, "not found"),
    }
}

fn status(code: StatusCode, message: &str) -> Response {
    let body = json!({ "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": message, "reason": if code == StatusCode::NOT_FOUND { "NotFound" } else { "Conflict" }, "code": code.as_u16() });
    (code, axum::Json(body)).into_response()
}

fn matches(of: &str, collection: &str, object: &Value, query: &str) -> bool {
    let plural = collection.rsplit('/').next().unwrap();
    let in_range = of == collection
        || (namespace_of(collection).is_none() && of.ends_with(&format!("/{plural}")));
    let selected = query
        .split('&')
        .find_map(|pair| pair.strip_prefix("fieldSelector="))
        .is_none_or(|selector| {
            let selector = selector.replace("%3D", "=");
            let (field, value) = selector.split_once('=').unwrap();
            object.pointer(&format!("/{}", field.replace('.', "/"))).and_then(Value::as_str)
                == Some(value)
        });
    in_range && selected
}

fn watch(api: &Api, collection: &str, query: &str) -> Response {
    let objects = api.shared.objects.lock();
    let since: u64 = query
        .split('&')
        .find_map(|pair| pair.strip_prefix("resourceVersion="))
        .unwrap()
        .parse()
        .unwrap();
    let changes = BroadcastStream::new(api.shared.changes.subscribe());
    let line = |kind: &str, object: &Value| {
        Bytes::from(format!("{}\n", json!({ "type": kind, "object": object })))
    };
    // What changed between the list and the watch.
    let version = |object: &Value| {
        object["metadata"]["resourceVersion"].as_str().unwrap().parse::<u64>().unwrap()
    };
    let missed: Vec<_> = objects
        .all
        .iter()
        .filter(|((of, _), object)| {
            version(object) > since && matches(of, collection, object, query)
        })
        .map(|(_, object)| Ok::<_, Infallible>(line("MODIFIED", object)))
        .collect();
    drop(objects);
    let (collection, query) = (collection.to_owned(), query.to_owned());
    let live = changes.filter_map(move |change| {
        let (kind, of, object) = change.unwrap();
        let told = matches(&of, &collection, &object, &query).then(|| Ok(line(&kind, &object)));
        async move { told }
    });
    Body::from_stream(futures::stream::iter(missed).chain(live)).into_response()
}

/// JSON merge; lists of conditions by their type, as a strategic merge does.
fn merge(into: &mut Value, patch: &Value, strategic: bool) {
    let (Value::Object(target), Value::Object(changes)) = (&mut *into, patch) else {
        *into = patch.clone();
        return;
    };
    for (name, value) in changes {
        if value.is_null() {
            target.remove(name);
        } else if strategic && name == "conditions" && target.get(name).is_some_and(Value::is_array)
        {
            let known = target[name].as_array_mut().unwrap();
            for condition in value.as_array().unwrap() {
                match known.iter_mut().find(|known| known["type"] == condition["type"]) {
                    Some(known) => merge(known, condition, strategic),
                    None => known.push(condition.clone()),
                }
            }
        } else if value.is_object() {
            merge(target.entry(name).or_insert_with(|| json!({})), value, strategic);
        } else {
            target.insert(name.clone(), value.clone());
        }
    }
}
