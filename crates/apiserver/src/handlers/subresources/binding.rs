//! `POST` of a Binding: the scheduler's one write, which gives a pod its node.

use axum::response::Response;
use coracle_api::kinds::{self, Kind};
use coracle_api::status::{FieldErrors, Status};
use http::StatusCode;
use serde_json::{Value, json};

use crate::admission::{AdmissionRequest, Operation, WriteOptions};
use crate::answer::Answer;
use crate::call::Call;
use crate::change::{Change, Part, change};
use crate::object::{self, entry_object, is_deleting, meta, text};

/// `POST …/pods/NAME/binding`.
pub(super) async fn bind(call: &mut Call) -> Answer<Response> {
    let binding = read(call).await?;
    let given = meta(&binding, "name");
    if !given.is_empty() && given != call.target.name {
        return Err(Status::bad_request(format!(
            "the name in the URL ({}) does not match the name in the binding ({given})",
            call.target.name
        )));
    }
    let name = call.target.name.clone();
    bind_pod(call, &name, binding).await
}

/// `POST …/bindings`: the same, with the pod's name in the body.
pub(in super::super) async fn bind_named_in_body(call: &mut Call) -> Answer<Response> {
    let binding = read(call).await?;
    let name = meta(&binding, "name").to_owned();
    bind_pod(call, &name, binding).await
}

async fn read(call: &mut Call) -> Answer<Value> {
    let json = call.read_json().await?;
    call.decode_as("", "v1", "Binding", &json)
}

async fn bind_pod(call: &mut Call, name: &str, mut binding: Value) -> Answer<Response> {
    admit(call, name, &mut binding).await?;
    let (call, binding) = (&*call, &binding);
    let pods = kinds::by_kind("", "v1", "Pod").ok_or_else(Status::no_such_path)?;
    let node = text(binding, "/target/name");
    check_target(name, binding)?;
    let what = Change {
        kind: pods,
        namespace: &call.target.namespace,
        name,
        part: Part::Subresource("binding"),
        dry_run: call.query.dry_run()?,
    };
    change(call, &what, |pod| assign(pods, pod, binding, node)).await?;
    Ok(call.answer_plain(StatusCode::CREATED, &created()))
}

/// Upstream admits the binding; what it does to the pod is then done.
pub(in super::super) async fn admit(call: &Call, name: &str, object: &mut Value) -> Answer<()> {
    let mut request = AdmissionRequest {
        operation: Operation::Create,
        kind: call.kind,
        subresource: &call.target.subresource,
        namespace: &call.target.namespace,
        name,
        object,
        old: None,
        user: &call.user,
        warnings: &call.warnings,
        dry_run: call.query.dry_run()?,
        requested: call.kind,
        options: WriteOptions::Query(&call.query),
        annotations: &call.annotations,
    };
    call.server.admission.mutate(&mut request).await?;
    call.server.admission.validate(&request).await.map(drop)
}

/// Upstream's answer to a binding and an eviction.
pub(super) fn created() -> Value {
    let mut status = Status::success(None);
    status["code"] = json!(201);
    status
}

fn check_target(name: &str, binding: &Value) -> Answer<()> {
    let mut errors = FieldErrors::new();
    let kind = text(binding, "/target/kind");
    if !kind.is_empty() && kind != "Node" {
        errors.not_supported("target.kind", kind, &["Node", "<empty>"]);
    }
    if text(binding, "/target/name").is_empty() {
        errors.required("target.name", "");
    }
    if errors.is_empty() { Ok(()) } else { Err(Status::invalid_kind("", "Binding", name, &errors)) }
}

/// The pod with its node, or the reason why it cannot have this one.
fn assign(pods: &'static Kind, pod: &Value, binding: &Value, node: &str) -> Answer<Value> {
    let name = meta(pod, "name");
    let conflict = |why: String| Err(Status::conflict(pods, name, why));
    let wanted_uid = meta(binding, "uid");
    if !wanted_uid.is_empty() && wanted_uid != meta(pod, "uid") {
        let found = meta(pod, "uid");
        return conflict(format!(
            "Precondition failed: UID in precondition: {wanted_uid}, UID in object meta: {found}"
        ));
    }
    if is_deleting(pod) {
        return conflict(format!("pod {name} is being deleted, cannot be assigned to a host"));
    }
    let assigned = text(pod, "/spec/nodeName");
    if !assigned.is_empty() {
        return conflict(format!("pod {name} is already assigned to node {assigned:?}"));
    }
    if pod
        .pointer("/spec/schedulingGates")
        .and_then(Value::as_array)
        .is_some_and(|gates| !gates.is_empty())
    {
        return conflict(format!("pod {name} has non-empty .spec.schedulingGates"));
    }
    let mut new = pod.clone();
    object::set_meta(&mut new, "resourceVersion", None);
    entry_object(&mut new, "spec").insert("nodeName".to_owned(), json!(node));
    for field in ["annotations", "labels"] {
        let Some(added) = binding.pointer(&format!("/metadata/{field}")).and_then(Value::as_object)
        else {
            continue;
        };
        let target = object::metadata_mut(&mut new).entry(field).or_insert_with(|| json!({}));
        for (key, value) in added {
            target[key] = value.clone();
        }
    }
    mark_scheduled(&mut new);
    Ok(new)
}

fn mark_scheduled(pod: &mut Value) {
    let status = entry_object(pod, "status");
    // As upstream's `ClearingNominatedNodeNameAfterBinding`: the node that was kept for it is its node, or not kept any more.
    status.remove("nominatedNodeName");
    let conditions = status.entry("conditions").or_insert_with(|| json!([]));
    let scheduled = json!({
        "type": "PodScheduled", "status": "True", "lastProbeTime": null, "lastTransitionTime": object::now(),
    });
    if let Some(conditions) = conditions.as_array_mut() {
        conditions.retain(|condition| condition["type"] != "PodScheduled");
        conditions.push(scheduled);
    }
}
