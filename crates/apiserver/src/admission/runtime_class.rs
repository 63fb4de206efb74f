//! RuntimeClass: a pod's class tells what its sandbox costs, and on which nodes it can run.
//!
//! As upstream's <https://github.com/kubernetes/kubernetes/blob/master/plugin/pkg/admission/runtimeclass/admission.go>.

use coracle_api::quantity::Quantity;
use coracle_api::status::{Status, go_quote};
use coracle_store::Store;
use serde_json::{Map, Value, json};

use super::{AdmissionRequest, Operation, text};
use crate::authn::stored;
use crate::object::entry_object;

const CLASSES: &str = "runtimeclasses.node.k8s.io";

/// Gives a new pod its class's overhead, node selector and tolerations.
pub(super) fn mutate(store: &Store, request: &mut AdmissionRequest<'_>) -> Result<(), Status> {
    let Some(class) = class_of(store, request)? else { return Ok(()) };
    if let Some(overhead) = overhead(&class) {
        if given_overhead(request.object).is_some_and(|given| !is_same(given, overhead)) {
            return Err(request.forbidden(MISMATCH));
        }
        entry_object(request.object, "spec")
            .insert("overhead".to_owned(), Value::Object(overhead.clone()));
    }
    let selector = class.pointer("/scheduling/nodeSelector").and_then(Value::as_object);
    for (label, value) in selector.into_iter().flatten() {
        let own = request.object.pointer("/spec/nodeSelector").and_then(|own| own.get(label));
        if let Some(given) = own.filter(|given| *given != value).and_then(Value::as_str) {
            let value = value.as_str().unwrap_or_default();
            return Err(request.forbidden(format!(
                "conflict: runtimeClass.scheduling.nodeSelector[{label}] = {value}; pod.spec.nodeSelector[{label}] = {given}"
            )));
        }
        entry_object(request.object, "spec");
        entry_object(&mut request.object["spec"], "nodeSelector")
            .insert(label.clone(), value.clone());
    }
    let more = class.pointer("/scheduling/tolerations").and_then(Value::as_array);
    for toleration in more.into_iter().flatten() {
        let spec = entry_object(request.object, "spec");
        let own = spec.entry("tolerations").or_insert_with(|| json!([]));
        if let Some(own) = own.as_array_mut()
            && !own.iter().any(|known| covers(known, toleration))
        {
            own.push(toleration.clone());
        }
    }
    Ok(())
}

/// Nobody but the class says what a sandbox costs.
pub(super) fn validate(store: &Store, request: &AdmissionRequest<'_>) -> Result<(), Status> {
    if !concerns(request) {
        return Ok(());
    }
    let class = class_of(store, request)?;
    let given = given_overhead(request.object);
    match (class.as_ref().and_then(overhead), given) {
        (Some(overhead), Some(given)) if is_same(given, overhead) => Ok(()),
        (Some(_), _) => Err(request.forbidden(MISMATCH)),
        (None, Some(_)) => Err(request.forbidden(
            "pod rejected: Pod Overhead set without corresponding RuntimeClass defined Overhead",
        )),
        (None, None) => Ok(()),
    }
}

const MISMATCH: &str = "pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead";

fn concerns(request: &AdmissionRequest<'_>) -> bool {
    request.operation == Operation::Create && request.is_core("Pod")
}

/// The class that a new pod names; an error if there is none of that name.
fn class_of(store: &Store, request: &AdmissionRequest<'_>) -> Result<Option<Value>, Status> {
    let named = text(request.object, "/spec/runtimeClassName").filter(|_| concerns(request));
    let Some(name) = named else { return Ok(None) };
    let class = stored(store, CLASSES, "", name).ok_or_else(|| {
        let name = go_quote(name);
        request.forbidden(format!("pod rejected: RuntimeClass {name} not found"))
    })?;
    serde_json::from_slice(&class.bytes).map(Some).map_err(Status::internal)
}

/// The class's overhead, which may be empty.
fn overhead(class: &Value) -> Option<&Map<String, Value>> {
    class.pointer("/overhead/podFixed").and_then(Value::as_object)
}

fn given_overhead(pod: &Value) -> Option<&Map<String, Value>> {
    pod.pointer("/spec/overhead").and_then(Value::as_object)
}

/// Whether the amounts are the same, however they are written.
fn is_same(one: &Map<String, Value>, other: &Map<String, Value>) -> bool {
    let equal = |(name, amount): (&String, &Value)| {
        other.get(name).is_some_and(|same| {
            Quantity::from_value(amount).ok() == Quantity::from_value(same).ok()
        })
    };
    one.len() == other.len() && one.iter().all(equal)
}

/// Whether whoever has the first toleration needs not the second.
fn covers(first: &Value, second: &Value) -> bool {
    let text = |toleration: &Value, field: &str| {
        toleration.get(field).and_then(Value::as_str).unwrap_or_default().to_owned()
    };
    let wider = |field: &str| {
        let mine = text(first, field);
        mine.is_empty() || mine == text(second, field)
    };
    let seconds = |toleration: &Value| toleration.get("tolerationSeconds").and_then(Value::as_i64);
    let lasts = match (seconds(first), seconds(second)) {
        (None, _) => true,
        (Some(_), None) => false,
        (Some(mine), Some(other)) => mine.max(0) >= other.max(0),
    };
    // Without a key, only `Exists` tolerates everything; with one, `Exists` tolerates every value.
    let exists = text(first, "operator") == "Exists";
    let values = exists
        || (text(second, "operator") != "Exists" && text(first, "value") == text(second, "value"));
    let keys =
        (text(first, "key").is_empty() && exists) || text(first, "key") == text(second, "key");
    keys && values && wider("effect") && lasts
}

#[cfg(test)]
mod tests {
    use super::super::tests::{Fixture, created_pod, fixture, refused_pod};
    use super::*;
    use crate::authz::tests::put;

    async fn with_class(more: Value) -> Fixture {
        let fixture = fixture().await;
        let mut class = json!({ "metadata": { "name": "boxed" }, "handler": "boxed" });
        class.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        put(&fixture.store, CLASSES, class).await;
        fixture
    }

    #[tokio::test]
    async fn a_pod_gets_what_its_class_says() {
        let toleration = json!({ "key": "boxed", "operator": "Exists", "effect": "NoSchedule" });
        let fixture = with_class(json!({
            "overhead": { "podFixed": { "cpu": "250m", "memory": "64Mi" } },
            "scheduling": { "nodeSelector": { "sandbox": "yes" }, "tolerations": [toleration] },
        }))
        .await;
        let spec = created_pod(
            &fixture,
            json!({ "runtimeClassName": "boxed", "nodeSelector": { "disk": "ssd" } }),
        )
        .await;
        assert_eq!(spec["overhead"], json!({ "cpu": "250m", "memory": "64Mi" }));
        assert_eq!(spec["nodeSelector"], json!({ "disk": "ssd", "sandbox": "yes" }));
        let tolerations = spec["tolerations"].as_array().unwrap();
        assert!(tolerations.contains(&toleration), "{tolerations:?}");
        let all = json!([{ "operator": "Exists" }]);
        let spec =
            created_pod(&fixture, json!({ "runtimeClassName": "boxed", "tolerations": all })).await;
        assert_eq!(spec["tolerations"], all);

        let same = json!({ "cpu": "0.25", "memory": "65536Ki" });
        created_pod(&fixture, json!({ "runtimeClassName": "boxed", "overhead": same })).await;
        assert_eq!(
            refused_pod(
                &fixture,
                json!({ "runtimeClassName": "boxed", "overhead": { "cpu": "1" } })
            )
            .await,
            r#"pods "web" is forbidden: pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead"#
        );
        assert_eq!(
            refused_pod(
                &fixture,
                json!({ "runtimeClassName": "boxed", "nodeSelector": { "sandbox": "no" } })
            )
            .await,
            r#"pods "web" is forbidden: conflict: runtimeClass.scheduling.nodeSelector[sandbox] = yes; pod.spec.nodeSelector[sandbox] = no"#
        );
    }

    #[tokio::test]
    async fn a_class_must_be_there_and_overhead_is_its_to_say() {
        let fixture = with_class(json!({})).await;
        created_pod(&fixture, json!({ "runtimeClassName": "boxed" })).await;
        assert_eq!(
            refused_pod(&fixture, json!({ "runtimeClassName": "ghost" })).await,
            r#"pods "web" is forbidden: pod rejected: RuntimeClass "ghost" not found"#
        );
        assert_eq!(
            refused_pod(&fixture, json!({ "overhead": { "cpu": "1" } })).await,
            r#"pods "web" is forbidden: pod rejected: Pod Overhead set without corresponding RuntimeClass defined Overhead"#
        );
    }
}
