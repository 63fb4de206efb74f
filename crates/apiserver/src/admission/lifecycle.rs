//! NamespaceLifecycle: objects need a namespace that is there to stay, and some namespaces always are.

use coracle_api::status::{Cause, GroupResource, Status};
use coracle_store::Store;
use serde::Deserialize;

use super::{AdmissionRequest, Operation};
use crate::authn::stored;

/// Without these the cluster itself would not work.
const IMMORTAL: [&str; 3] = ["default", "kube-public", "kube-system"];

#[derive(Deserialize)]
struct Namespace {
    metadata: Metadata,
    #[serde(default)]
    status: Option<NamespaceStatus>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Metadata {
    #[serde(default)]
    deletion_timestamp: Option<String>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct NamespaceStatus {
    phase: Option<String>,
}

/// Refuses writes into namespaces that are not there, and new objects in those that are going.
pub(super) fn require_namespace(
    store: &Store,
    request: &AdmissionRequest<'_>,
) -> Result<(), Status> {
    if !request.kind.namespaced
        || request.namespace.is_empty()
        || request.operation == Operation::Delete
        // Whoever asks what he may do must learn nothing of which namespaces there are.
        || request.kind.kind == "LocalSubjectAccessReview"
    {
        return Ok(());
    }
    let name = request.namespace;
    let namespaces = GroupResource { group: "", resource: "namespaces" };
    let object =
        stored(store, "namespaces", "", name).ok_or_else(|| Status::not_found(namespaces, name))?;
    if request.operation != Operation::Create {
        return Ok(());
    }
    let namespace: Namespace = serde_json::from_slice(&object.bytes).map_err(Status::internal)?;
    let phase = namespace.status.unwrap_or_default().phase;
    if namespace.metadata.deletion_timestamp.is_none() && phase.as_deref() != Some("Terminating") {
        return Ok(());
    }
    let why =
        format!("unable to create new content in namespace {name} because it is being terminated");
    Err(request.forbidden(why).with_cause(Cause {
        reason: "NamespaceTerminating".to_owned(),
        message: format!("namespace {name} is being terminated"),
        field: "metadata.namespace".to_owned(),
    }))
}

/// Refuses to delete the immortal.
pub(super) fn protect_namespaces(request: &AdmissionRequest<'_>) -> Result<(), Status> {
    let deleted = request.operation == Operation::Delete && request.is_core("Namespace");
    if deleted && IMMORTAL.contains(&request.name) {
        return Err(request.forbidden("this namespace may not be deleted"));
    }
    Ok(())
}
