//! LimitRanger: what a container gets that asks for nothing, and how much one container, pod or claim may ask for.
//!
//! As upstream's <https://github.com/kubernetes/kubernetes/blob/master/plugin/pkg/admission/limitranger/admission.go>.

use std::collections::BTreeMap;

use coracle_api::pods::{self, Resources};
use coracle_api::quantity::Quantity;
use coracle_api::status::Status;
use coracle_store::Store;
use k8s_openapi::api::core::v1::{
    Container, LimitRange, LimitRangeItem, PersistentVolumeClaim, Pod,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Written;
use serde_json::{Map, Value, json};

use super::{AdmissionRequest, Operation, in_namespace};
use crate::object::{entry_object, is_deleting, metadata_mut};

/// Where the pod says what it was given.
const ANNOTATION: &str = "kubernetes.io/limit-ranger";

/// Fills in what the namespace's ranges give by default.
pub(super) fn mutate(store: &Store, request: &mut AdmissionRequest<'_>) {
    if !concerns(request) || request.kind.kind != "Pod" {
        return;
    }
    for range in ranges(store, request) {
        give_defaults(&range, request.object);
    }
}

/// Refuses what lies outside the namespace's ranges.
pub(super) fn validate(store: &Store, request: &AdmissionRequest<'_>) -> Result<(), Status> {
    if !concerns(request) {
        return Ok(());
    }
    for range in ranges(store, request) {
        let mut wrong = Vec::new();
        match request.kind.kind {
            "Pod" => check_pod(&range, &super::read::<Pod>(request.object)?, &mut wrong),
            _ => check_claim(&range, &super::read(request.object)?, &mut wrong),
        }
        if !wrong.is_empty() {
            return Err(request.forbidden(super::joined(wrong)));
        }
    }
    Ok(())
}

/// New pods and claims, claims that change, and pods whose resources change.
fn concerns(request: &AdmissionRequest<'_>) -> bool {
    let written = match (request.kind.kind, request.subresource) {
        ("Pod", "resize") => request.operation == Operation::Update,
        // Without `resize`, what a pod's containers ask for cannot change.
        ("Pod", "") => request.operation == Operation::Create,
        ("PersistentVolumeClaim", "") => {
            matches!(request.operation, Operation::Create | Operation::Update)
        }
        _ => false,
    };
    written && request.kind.group.is_empty() && !request.old.is_some_and(is_deleting)
}

fn ranges(store: &Store, request: &AdmissionRequest<'_>) -> Vec<LimitRange> {
    in_namespace(store, "limitranges", request.namespace)
}

fn items<'a>(
    range: &'a LimitRange,
    type_: &'a str,
) -> impl Iterator<Item = &'a LimitRangeItem> + use<'a> {
    let items = range.spec.iter().flat_map(|spec| &spec.limits);
    items.filter(move |item| item.type_ == type_)
}

fn give_defaults(range: &LimitRange, pod: &mut Value) {
    let mut requests = BTreeMap::new();
    let mut limits = BTreeMap::new();
    for item in items(range, "Container") {
        requests.extend(item.default_request.iter().flatten());
        limits.extend(item.default.iter().flatten());
    }
    if requests.is_empty() && limits.is_empty() {
        return;
    }
    let mut given = Vec::new();
    for (list, called) in [("containers", "container"), ("initContainers", "init container")] {
        let containers = pod.get_mut("spec").and_then(|spec| spec.get_mut(list));
        for container in containers.and_then(Value::as_array_mut).into_iter().flatten() {
            let name = container["name"].as_str().unwrap_or_default().to_owned();
            for (field, defaults, what) in
                [("requests", &requests, "request"), ("limits", &limits, "limit")]
            {
                let added = fill_in(container, field, defaults);
                if !added.is_empty() {
                    given.push(format!("{} {what} for {called} {name}", added.join(", ")));
                }
            }
        }
    }
    if !given.is_empty() {
        let annotations = metadata_mut(pod).entry("annotations").or_insert_with(|| json!({}));
        if !annotations.is_object() {
            *annotations = json!({});
        }
        annotations[ANNOTATION] = format!("LimitRanger plugin set: {}", given.join("; ")).into();
    }
}

/// Adds what is missing to a container's requests or limits, and tells what that was.
fn fill_in(
    container: &mut Value,
    field: &str,
    defaults: &BTreeMap<&String, &Written>,
) -> Vec<String> {
    let missing = |present: Option<&Map<String, Value>>| -> Vec<(String, Value)> {
        let absent = defaults
            .iter()
            .filter(|(name, _)| !present.is_some_and(|has| has.contains_key(**name)));
        absent.map(|(name, amount)| ((*name).clone(), json!(amount.0))).collect()
    };
    let path = format!("/resources/{field}");
    let missing = missing(container.pointer(&path).and_then(Value::as_object));
    if missing.is_empty() {
        return Vec::new();
    }
    entry_object(container, "resources");
    let amounts = entry_object(&mut container["resources"], field);
    let names = missing.iter().map(|(name, _)| name.clone()).collect();
    amounts.extend(missing);
    names
}

/// What somebody asks for, and at most uses.
struct Asked {
    requests: Resources,
    limits: Resources,
}

impl Asked {
    fn by(container: &Container) -> Self {
        let resources = container.resources.as_ref();
        let read = |amounts: Option<&BTreeMap<String, Written>>| {
            amounts.map(pods::read).unwrap_or_default()
        };
        Self {
            requests: read(resources.and_then(|resources| resources.requests.as_ref())),
            limits: read(resources.and_then(|resources| resources.limits.as_ref())),
        }
    }
}

fn check_pod(range: &LimitRange, pod: &Pod, wrong: &mut Vec<String>) {
    let Some(spec) = &pod.spec else { return };
    for item in items(range, "Container") {
        for container in spec.containers.iter().chain(spec.init_containers.iter().flatten()) {
            check(item, &Asked::by(container), wrong);
        }
    }
    // What the sandbox costs is not the user's choice.
    let mut own = pod.clone();
    if let Some(spec) = &mut own.spec {
        spec.overhead = None;
    }
    for item in items(range, "Pod") {
        let asked = Asked {
            requests: pods::effective_requests(&own),
            limits: pods::effective_limits(&own),
        };
        check(item, &asked, wrong);
    }
}

fn check(item: &LimitRangeItem, asked: &Asked, wrong: &mut Vec<String>) {
    let kind = &item.type_;
    for (name, bound) in amounts(item.min.as_ref()) {
        wrong.extend(below_minimum(kind, &name, bound, asked));
    }
    for (name, bound) in amounts(item.max.as_ref()) {
        wrong.extend(above_maximum(kind, &name, bound, asked));
    }
    for (name, bound) in amounts(item.max_limit_request_ratio.as_ref()) {
        wrong.extend(above_ratio(kind, &name, bound, asked));
    }
}

fn check_claim(range: &LimitRange, claim: &PersistentVolumeClaim, wrong: &mut Vec<String>) {
    let spec = claim.spec.as_ref().and_then(|spec| spec.resources.as_ref());
    let requests = spec.and_then(|resources| resources.requests.as_ref());
    let asked =
        Asked { requests: requests.map(pods::read).unwrap_or_default(), limits: Resources::new() };
    for item in items(range, "PersistentVolumeClaim") {
        let kind = &item.type_;
        for (name, bound) in amounts(item.min.as_ref()) {
            wrong.extend(below_minimum(kind, &name, bound, &asked));
        }
        for (name, bound) in amounts(item.max.as_ref()) {
            let usage = format!("maximum {name} usage per {kind} is {bound}");
            wrong.extend(match asked.requests.get(&name) {
                None => Some(format!("{usage}.  No request is specified")),
                Some(request) if *request > bound => {
                    Some(format!("{usage}, but request is {request}"))
                }
                Some(_) => None,
            });
        }
    }
}

fn amounts(written: Option<&BTreeMap<String, Written>>) -> Resources {
    written.map(pods::read).unwrap_or_default()
}

fn below_minimum(kind: &str, name: &str, bound: Quantity, asked: &Asked) -> Option<String> {
    let usage = format!("minimum {name} usage per {kind} is {bound}");
    let Some(request) = asked.requests.get(name) else {
        return Some(format!("{usage}.  No request is specified"));
    };
    if *request < bound {
        return Some(format!("{usage}, but request is {request}"));
    }
    let limit = asked.limits.get(name).filter(|limit| **limit < bound)?;
    Some(format!("{usage}, but limit is {limit}"))
}

fn above_maximum(kind: &str, name: &str, bound: Quantity, asked: &Asked) -> Option<String> {
    let usage = format!("maximum {name} usage per {kind} is {bound}");
    let Some(limit) = asked.limits.get(name) else {
        return Some(format!("{usage}.  No limit is specified"));
    };
    if *limit > bound {
        return Some(format!("{usage}, but limit is {limit}"));
    }
    let request = asked.requests.get(name).filter(|request| **request > bound)?;
    Some(format!("{usage}, but request is {request}"))
}

fn above_ratio(kind: &str, name: &str, bound: Quantity, asked: &Asked) -> Option<String> {
    let rule = format!("{name} max limit to request ratio per {kind} is {bound}");
    let something = |amounts: &Resources| amounts.get(name).filter(|it| !it.is_zero()).copied();
    let Some(request) = something(&asked.requests) else {
        return Some(format!("{rule}, but no request is specified or request is 0"));
    };
    let Some(limit) = something(&asked.limits) else {
        return Some(format!("{rule}, but no limit is specified or limit is 0"));
    };
    let ratio = limit.as_f64() / request.as_f64();
    (ratio > bound.as_f64()).then(|| format!("{rule}, but provided ratio is {ratio:.6}"))
}

#[cfg(test)]
mod tests {
    use super::super::tests::{Fixture, created_pod, fixture, refused_pod, write};
    use super::*;
    use crate::authz::tests::put;

    async fn with_range(limits: Value) -> Fixture {
        let fixture = fixture().await;
        let metadata = json!({ "namespace": "shop", "name": "range" });
        let range = json!({ "metadata": metadata, "spec": { "limits": limits } });
        put(&fixture.store, "limitranges", range).await;
        fixture
    }

    fn one(resources: Value) -> Value {
        json!({ "containers": [{ "name": "c", "resources": resources }] })
    }

    #[tokio::test]
    async fn who_asks_for_nothing_gets_the_defaults_and_is_told() {
        let fixture = with_range(json!([{
            "type": "Container", "default": { "cpu": "500m", "memory": "1Gi" }, "defaultRequest": { "cpu": "100m" },
        }]))
        .await;
        let pod = json!({
            "metadata": { "namespace": "shop", "name": "web" },
            "spec": {
                "containers": [{ "name": "c" }, { "name": "own", "resources": { "requests": { "cpu": "1" }, "limits": { "cpu": "2", "memory": "2Gi" } } }],
                "initContainers": [{ "name": "i", "resources": { "limits": { "memory": "1Mi" } } }],
            },
        });
        let pod = write("v1", "Pod").run(&fixture, pod).await.unwrap();
        assert_eq!(
            pod["metadata"]["annotations"][ANNOTATION],
            "LimitRanger plugin set: cpu request for container c; cpu, memory limit for container c; cpu request for init container i; cpu limit for init container i"
        );
        let of = |list: &str, index: usize| pod["spec"][list][index]["resources"].clone();
        assert_eq!(
            of("containers", 0),
            json!({ "requests": { "cpu": "100m" }, "limits": { "cpu": "500m", "memory": "1Gi" } })
        );
        assert_eq!(
            of("containers", 1),
            json!({ "requests": { "cpu": "1" }, "limits": { "cpu": "2", "memory": "2Gi" } })
        );
        assert_eq!(of("initContainers", 0)["limits"], json!({ "cpu": "500m", "memory": "1Mi" }));
    }

    #[tokio::test]
    async fn a_container_stays_within_its_range() {
        let fixture = with_range(json!([{
            "type": "Container", "min": { "cpu": "100m" }, "max": { "cpu": "1" }, "maxLimitRequestRatio": { "cpu": "2" },
        }]))
        .await;
        let of = |request: &str, limit: &str| {
            one(json!({ "requests": { "cpu": request }, "limits": { "cpu": limit } }))
        };
        created_pod(&fixture, of("500m", "1")).await;
        let refusal = async |request: &str, limit: &str| {
            let message = refused_pod(&fixture, of(request, limit)).await;
            message.strip_prefix(r#"pods "web" is forbidden: "#).unwrap().to_owned()
        };
        assert_eq!(
            refusal("50m", "100m").await,
            "minimum cpu usage per Container is 100m, but request is 50m"
        );
        assert_eq!(refusal("1", "2").await, "maximum cpu usage per Container is 1, but limit is 2");
        assert_eq!(
            refusal("300m", "1").await,
            "cpu max limit to request ratio per Container is 2, but provided ratio is 3.333333"
        );
        assert_eq!(
            refused_pod(&fixture, one(json!({}))).await,
            "pods \"web\" is forbidden: [minimum cpu usage per Container is 100m.  No request is specified, \
             maximum cpu usage per Container is 1.  No limit is specified, \
             cpu max limit to request ratio per Container is 2, but no request is specified or request is 0]"
        );
    }

    #[tokio::test]
    async fn all_containers_of_a_pod_count_together() {
        let fixture = with_range(json!([{ "type": "Pod", "max": { "memory": "1Gi" } }])).await;
        let container = |name: &str| json!({ "name": name, "resources": { "requests": { "memory": "600Mi" }, "limits": { "memory": "600Mi" } } });
        created_pod(&fixture, json!({ "containers": [container("a")] })).await;
        assert_eq!(
            refused_pod(&fixture, json!({ "containers": [container("a"), container("b")] })).await,
            r#"pods "web" is forbidden: maximum memory usage per Pod is 1Gi, but limit is 1200Mi"#
        );
    }

    #[tokio::test]
    async fn a_claim_stays_within_its_range() {
        let fixture = with_range(json!([{
            "type": "PersistentVolumeClaim", "min": { "storage": "1Gi" }, "max": { "storage": "2Gi" },
        }]))
        .await;
        let claim = |storage: &str| json!({ "metadata": { "namespace": "shop", "name": "data" }, "spec": { "resources": { "requests": { "storage": storage } } } });
        let create = || write("v1", "PersistentVolumeClaim");
        create().run(&fixture, claim("2Gi")).await.unwrap();
        assert_eq!(
            create().run(&fixture, claim("3Gi")).await.unwrap_err().message,
            r#"persistentvolumeclaims "data" is forbidden: maximum storage usage per PersistentVolumeClaim is 2Gi, but request is 3Gi"#
        );
        let grown = create().update(claim("1Gi")).run(&fixture, claim("500Mi")).await;
        assert_eq!(
            grown.unwrap_err().message,
            r#"persistentvolumeclaims "data" is forbidden: minimum storage usage per PersistentVolumeClaim is 1Gi, but request is 500Mi"#
        );
    }
}
