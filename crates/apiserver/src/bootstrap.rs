//! What every cluster has: brought in at each start through the server's own door, where it is missing.

use coracle_api::kinds::{self, GroupVersion};
use coracle_api::status::Status;
use futures::{StreamExt as _, TryStreamExt as _};
use http::{Method, Request, header};
use serde_json::{Value, json};

use crate::aggregation::{self, Priority};
use crate::object::meta;
use crate::pki::Pki;
use crate::rules::service_cidr;
use crate::server::{Server, StartError};
use crate::{fairness, limits, rbac_bootstrap, resource_metrics, storage};

/// Installs all of it.
pub(crate) async fn install(
    server: &Server,
    client: &kube::Client,
    pki: &Pki,
) -> Result<(), StartError> {
    install_all(server, client, namespaces().into_iter().map(Wanted::once).collect()).await?;
    let roles = rbac_bootstrap::objects()
        .into_iter()
        .map(|role| Wanted { object: role, merge: rbac_bootstrap::reconcile });
    let plain = priority_classes().into_iter().chain([storage_class()]).chain(api_services());
    let rest = plain.map(Wanted::once).chain([service_cidr(server), authentication(server, pki)]);
    let rest = rest.chain(fairness_objects()).chain(kubernetes_service(server));
    install_all(server, client, roles.chain(rest).collect()).await
}

/// Installs the `kubernetes` Service and its endpoints where they are not as they should be.
pub(crate) async fn install_kubernetes_service(
    server: &Server,
    client: &kube::Client,
) -> Result<(), StartError> {
    install_all(server, client, kubernetes_service(server)).await
}

/// Installs the default FlowSchemas and priority levels where they are not as they should be.
pub(crate) async fn install_fairness(
    server: &Server,
    client: &kube::Client,
) -> Result<(), StartError> {
    install_all(server, client, fairness_objects()).await
}

fn fairness_objects() -> Vec<Wanted> {
    let wanted = |object| Wanted { object, merge: fairness::reconcile };
    fairness::default_objects().into_iter().map(wanted).collect()
}

async fn install_all(
    server: &Server,
    client: &kube::Client,
    objects: Vec<Wanted>,
) -> Result<(), StartError> {
    let writes = objects.into_iter().map(|wanted| bring_in(server, client, wanted));
    futures::stream::iter(writes)
        .buffer_unordered(limits::BOOTSTRAP_WRITES)
        .try_collect::<()>()
        .await
}

/// An object, and what to write where there is one already.
struct Wanted {
    object: Value,
    merge: fn(wanted: &Value, existing: Option<&Value>) -> Option<Value>,
}

impl Wanted {
    /// Brought in when it is missing, and left alone afterwards.
    fn once(object: Value) -> Self {
        Self { object, merge: |wanted, existing| existing.is_none().then(|| wanted.clone()) }
    }
}

async fn bring_in(
    server: &Server,
    client: &kube::Client,
    wanted: Wanted,
) -> Result<(), StartError> {
    let what = format!(
        "{} {}",
        wanted.object["kind"].as_str().unwrap_or_default(),
        meta(&wanted.object, "name")
    );
    let failed =
        |status: Status| StartError::Bootstrap { what: what.clone(), status: Box::new(status) };
    let kind = kinds::by_api_version(
        wanted.object["apiVersion"].as_str().unwrap_or_default(),
        wanted.object["kind"].as_str().unwrap_or_default(),
    )
    .ok_or_else(|| failed(Status::no_such_path()))?;
    let (namespace, name) = (meta(&wanted.object, "namespace"), meta(&wanted.object, "name"));
    let existing = server.store.get(&storage::key(kind, namespace, name));
    let existing = existing.map(|object| storage::decode(&object)).transpose().map_err(failed)?;
    let Some(object) = (wanted.merge)(&wanted.object, existing.as_ref()) else { return Ok(()) };
    let collection = if kind.namespaced {
        format!("{}/namespaces/{namespace}/{}", kind.root_path(), kind.plural)
    } else {
        format!("{}/{}", kind.root_path(), kind.plural)
    };
    let (method, path) = if existing.is_some() {
        (Method::PUT, format!("{collection}/{name}"))
    } else {
        (Method::POST, collection)
    };
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header(header::CONTENT_TYPE, "application/json")
        .body(object.to_string().into_bytes())
        .map_err(|error| failed(Status::internal(error)))?;
    client
        .request::<Value>(request)
        .await
        .map(drop)
        .map_err(|error| failed(Status::internal(error)))
}

fn namespaces() -> Vec<Value> {
    ["default", "kube-node-lease", "kube-public", "kube-system"]
        .map(
            |name| json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": name } }),
        )
        .into()
}

fn priority_classes() -> Vec<Value> {
    [
        (
            "system-cluster-critical",
            2_000_000_000,
            "Used for system critical pods that must run in the cluster, but can be moved to another node if necessary.",
        ),
        (
            "system-node-critical",
            2_000_001_000,
            "Used for system critical pods that must not be moved from their current node.",
        ),
    ]
    .map(|(name, value, description)| {
        json!({
            "apiVersion": "scheduling.k8s.io/v1",
            "kind": "PriorityClass",
            "metadata": { "name": name },
            "value": value,
            "description": description,
        })
    })
    .into()
}

/// Directories of the node on which a claim's first pod runs: what claims get that name no class.
fn storage_class() -> Value {
    json!({
        "apiVersion": "storage.k8s.io/v1",
        "kind": "StorageClass",
        "metadata": {
            "name": "local-path",
            "annotations": { "storageclass.kubernetes.io/is-default-class": "true" },
        },
        "provisioner": "coracle.dev/local-path",
        "reclaimPolicy": "Delete",
        "volumeBindingMode": "WaitForFirstConsumer",
    })
}

/// One `APIService` for each group-version that we serve ourselves, as upstream registers them.
fn api_services() -> Vec<Value> {
    let local = |(version, priority): (&GroupVersion, Priority)| {
        let mut spec = json!({
            "version": version.version,
            "groupPriorityMinimum": priority.group,
            "versionPriority": priority.version,
        });
        if !version.group.is_empty() {
            spec["group"] = json!(version.group);
        }
        json!({
            "apiVersion": "apiregistration.k8s.io/v1",
            "kind": "APIService",
            "metadata": {
                "name": format!("{}.{}", version.version, version.group),
                "labels": { "kube-aggregator.kubernetes.io/automanaged": "onstart" },
            },
            "spec": spec,
        })
    };
    let metrics = (&resource_metrics::SERVED, aggregation::OF_METRICS);
    aggregation::built_in().chain([metrics]).map(local).collect()
}

/// Where the addresses of Services come from, as upstream's object says it; the server's own option decides.
fn service_cidr(server: &Server) -> Wanted {
    let object = json!({
        "apiVersion": "networking.k8s.io/v1",
        "kind": "ServiceCIDR",
        "metadata": { "name": service_cidr::DEFAULT },
        "spec": { "cidrs": [server.addresses.range().to_string()] },
    });
    Wanted::once(object)
}

/// What extension servers need to know in order to believe us, and our users' certificates.
fn authentication(server: &Server, pki: &Pki) -> Wanted {
    let mut object = json!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": { "name": "extension-apiserver-authentication", "namespace": "kube-system" },
        "data": { "client-ca-file": pki.ca_pem() },
    });
    for (key, value) in server.authenticator.proxies().published() {
        object["data"][key] = json!(value);
    }
    Wanted { object, merge: |wanted, existing| keep_part(wanted, existing, &["/data"]) }
}

/// The Service through which pods find this server, and where it leads.
fn kubernetes_service(server: &Server) -> Vec<Wanted> {
    let (address, port) = (server.advertise.ip(), server.advertise.port());
    let cluster_address = server.addresses.range().first_address().to_string();
    let labels = json!({ "component": "apiserver", "provider": "kubernetes" });
    let service = json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": { "name": "kubernetes", "namespace": "default", "labels": labels },
        "spec": {
            "type": "ClusterIP",
            "clusterIP": cluster_address,
            "sessionAffinity": "None",
            "ports": [{ "name": "https", "protocol": "TCP", "port": 443, "targetPort": port }],
        },
    });
    let endpoints = json!({
        "apiVersion": "v1",
        "kind": "Endpoints",
        "metadata": {
            "name": "kubernetes",
            "namespace": "default",
            "labels": { "endpointslice.kubernetes.io/skip-mirror": "true" },
        },
        "subsets": [{
            "addresses": [{ "ip": address.to_string() }],
            "ports": [{ "name": "https", "port": port, "protocol": "TCP" }],
        }],
    });
    let slice = json!({
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": "kubernetes",
            "namespace": "default",
            "labels": { "kubernetes.io/service-name": "kubernetes" },
        },
        "addressType": if address.is_ipv4() { "IPv4" } else { "IPv6" },
        "endpoints": [{ "addresses": [address.to_string()], "conditions": { "ready": true } }],
        "ports": [{ "name": "https", "port": port, "protocol": "TCP" }],
    });
    vec![
        Wanted {
            object: service,
            merge: |wanted, existing| keep_part(wanted, existing, &["/spec/ports/0/targetPort"]),
        },
        Wanted {
            object: endpoints,
            merge: |wanted, existing| keep_part(wanted, existing, &["/subsets"]),
        },
        Wanted {
            object: slice,
            merge: |wanted, existing| {
                keep_part(wanted, existing, &["/endpoints/0/addresses", "/ports/0/port"])
            },
        },
    ]
}

/// Writes these parts anew when they differ, and nothing else: the server may have moved to another address.
fn keep_part(wanted: &Value, existing: Option<&Value>, parts: &[&str]) -> Option<Value> {
    let Some(existing) = existing else { return Some(wanted.clone()) };
    if parts.iter().all(|part| wanted.pointer(part) == existing.pointer(part)) {
        return None;
    }
    let mut merged = existing.clone();
    for part in parts {
        match (merged.pointer_mut(part), wanted.pointer(part)) {
            (Some(slot), Some(value)) => slot.clone_from(value),
            // Somebody changed its form: it is ours, so it becomes what we want.
            _ => {
                let mut replaced = wanted.clone();
                replaced["metadata"] = existing["metadata"].clone();
                return Some(replaced);
            }
        }
    }
    Some(merged)
}
