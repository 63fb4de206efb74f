//! NodeRestriction: a kubelet touches its own node and its own pods, and nothing else.
//!
//! RBAC gives all kubelets the same role; this plugin keeps one that was taken over from harming the others. As
//! upstream's <https://github.com/kubernetes/kubernetes/blob/master/plugin/pkg/admission/noderestriction/admission.go>.

use coracle_api::status::{Status, go_quote};
use coracle_store::Store;
use serde_json::Value;

use super::{AdmissionRequest, Operation, text};
use crate::authn::stored;

/// Labels with these prefixes belong to the operator: pods are kept apart by them.
const RESTRICTED: &str = "node-restriction.kubernetes.io/";
const LEASES: &str = "kube-node-lease";

/// Judges what a kubelet writes; anybody else may pass.
pub(super) fn validate(store: &Store, request: &AdmissionRequest<'_>) -> Result<(), Status> {
    let Some(node) = request.user.node_name() else {
        return Ok(());
    };
    match (request.kind.group, request.kind.kind, request.subresource) {
        ("", "Pod", "") => pod(request, node),
        ("", "Pod", "status") => pod_status(request, node),
        ("", "Pod", "eviction") => own_pod(request, node, "create evictions for"),
        ("", "Node", "" | "status") => own_node(request, node),
        ("", "ServiceAccount", "token") => token(store, request, node),
        ("coordination.k8s.io", "Lease", "") => lease(request, node),
        ("storage.k8s.io", "CSINode", "") if request.name != node => {
            Err(request
                .forbidden("can only access CSINode with the same name as the requesting node"))
        }
        _ => Ok(()),
    }
}

fn pod(request: &AdmissionRequest<'_>, node: &str) -> Result<(), Status> {
    match request.operation {
        Operation::Create => {
            let annotations = request.object.pointer("/metadata/annotations");
            if annotations
                .and_then(|annotations| annotations.get("kubernetes.io/config.mirror"))
                .is_none()
            {
                let why = format!(
                    "pod does not have {} annotation, node {} can only create mirror pods",
                    go_quote("kubernetes.io/config.mirror"),
                    go_quote(node)
                );
                return Err(request.forbidden(why));
            }
            if text(request.object, "/spec/nodeName") != Some(node) {
                let why = format!(
                    "node {} can only create pods with spec.nodeName set to itself",
                    go_quote(node)
                );
                return Err(request.forbidden(why));
            }
            Ok(())
        }
        Operation::Delete => own_pod(request, node, "delete"),
        Operation::Update => {
            Err(request.forbidden(format!("unexpected operation {}", go_quote("UPDATE"))))
        }
        Operation::Connect => Ok(()),
    }
}

fn pod_status(request: &AdmissionRequest<'_>, node: &str) -> Result<(), Status> {
    own_pod(request, node, "update pod status for")?;
    let labels = |object: &Value| {
        object.pointer("/metadata/labels").filter(|labels| !labels.is_null()).cloned()
    };
    if request.old.is_some_and(|old| labels(old) != labels(request.object)) {
        let why = format!("node {} cannot update labels through pod status", go_quote(node));
        return Err(request.forbidden(why));
    }
    Ok(())
}

/// The pod as it was must be bound to the node.
fn own_pod(request: &AdmissionRequest<'_>, node: &str, doing: &str) -> Result<(), Status> {
    let Some(old) = request.old else {
        return Ok(());
    };
    if text(old, "/spec/nodeName") == Some(node) {
        return Ok(());
    }
    let why =
        format!("node {} can only {doing} pods with spec.nodeName set to itself", go_quote(node));
    Err(request.forbidden(why))
}

fn own_node(request: &AdmissionRequest<'_>, node: &str) -> Result<(), Status> {
    if request.shown_name() != node {
        let why = format!(
            "node {} is not allowed to modify node {}",
            go_quote(node),
            go_quote(request.shown_name())
        );
        return Err(request.forbidden(why));
    }
    if request.operation == Operation::Delete {
        return Ok(()); // For RBAC to decide.
    }
    let changed = changed_labels(request);
    if !changed.is_empty() {
        let verb = if request.operation == Operation::Create { "set" } else { "modify" };
        let why = format!("is not allowed to {verb} the following labels: {}", changed.join(", "));
        return Err(request.forbidden(format!("node {} {why}", go_quote(node))));
    }
    let Some(old) = request.old else {
        return Ok(());
    };
    let differs = |place: &str| {
        let part = |object: &Value| {
            let part = object.pointer(place).filter(|part| !part.is_null());
            part.filter(|part| part.as_array().is_none_or(|list| !list.is_empty())).cloned()
        };
        part(old) != part(request.object)
    };
    if differs("/spec/taints") {
        return Err(
            request.forbidden(format!("node {} is not allowed to modify taints", go_quote(node)))
        );
    }
    if differs("/metadata/ownerReferences") {
        return Err(request.forbidden(format!(
            "node {} is not allowed to modify ownerReferences",
            go_quote(node)
        )));
    }
    Ok(())
}

/// The restricted labels that the write sets, changes or takes away.
fn changed_labels(request: &AdmissionRequest<'_>) -> Vec<String> {
    let restricted = |object: Option<&Value>| {
        let labels =
            object.and_then(|object| object.pointer("/metadata/labels")).and_then(Value::as_object);
        let labels = labels.into_iter().flatten().filter(|(label, _)| is_restricted(label));
        labels.map(|(label, value)| (label.clone(), value.clone())).collect::<Vec<_>>()
    };
    let (old, new) = (restricted(request.old), restricted(Some(request.object)));
    let mut changed: Vec<String> = Vec::new();
    for (label, value) in old.iter().chain(&new) {
        let pair = (label.clone(), value.clone());
        let is_same = old.contains(&pair) && new.contains(&pair);
        if !is_same && !changed.contains(label) {
            changed.push(label.clone());
        }
    }
    changed.sort();
    changed
}

fn is_restricted(label: &str) -> bool {
    label.starts_with(RESTRICTED) || label.contains(&format!(".{RESTRICTED}"))
}

fn lease(request: &AdmissionRequest<'_>, node: &str) -> Result<(), Status> {
    if request.namespace != LEASES {
        let why = format!("can only access leases in the {} system namespace", go_quote(LEASES));
        return Err(request.forbidden(why));
    }
    if request.shown_name() != node {
        return Err(request
            .forbidden("can only access node lease with the same name as the requesting node"));
    }
    Ok(())
}

/// `object` is the TokenRequest: it must be bound to a pod of this node.
fn token(store: &Store, request: &AdmissionRequest<'_>, node: &str) -> Result<(), Status> {
    let reference = &request.object["spec"]["boundObjectRef"];
    let field = |name: &str| reference[name].as_str().unwrap_or_default();
    if field("apiVersion") != "v1" || field("kind") != "Pod" || field("name").is_empty() {
        return Err(request.forbidden("node requested token not bound to a pod"));
    }
    if field("uid").is_empty() {
        return Err(request.forbidden("node requested token with a pod binding without a uid"));
    }
    let pod = stored(store, "pods", request.namespace, field("name"));
    let pod: Value =
        pod.and_then(|pod| serde_json::from_slice(&pod.bytes).ok()).unwrap_or_default();
    if text(&pod, "/metadata/uid") != Some(field("uid")) {
        return Err(request
            .forbidden("the UID in the bound object reference does not match the UID in record"));
    }
    if text(&pod, "/spec/nodeName") != Some(node) {
        return Err(
            request.forbidden("node requested token bound to a pod scheduled on a different node")
        );
    }
    Ok(())
}
