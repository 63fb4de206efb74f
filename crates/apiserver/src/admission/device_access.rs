//! Who may claim a device for its administration: claims in namespaces that carry a label, which only administrators set.
//!
//! No plugin upstream, but a part of the claims' strategies (`pkg/registry/resource/utils.go`).

use coracle_api::kinds;
use coracle_api::status::{FieldErrors, Path, Status};
use coracle_store::Store;
use serde_json::Value;

use super::{AdmissionRequest, Operation};
use crate::storage;

const LABEL: &str = "resource.kubernetes.io/admin-access";

/// Refuses administrators' claims elsewhere.
pub(super) fn validate(store: &Store, request: &AdmissionRequest<'_>) -> Result<(), Status> {
    let requests = match (request.kind.group, request.kind.kind) {
        ("resource.k8s.io", "ResourceClaim") => "/spec/devices/requests",
        ("resource.k8s.io", "ResourceClaimTemplate") => "/spec/spec/devices/requests",
        _ => return Ok(()),
    };
    if request.operation != Operation::Create {
        return Ok(());
    }
    let requests = request.object.pointer(requests).and_then(Value::as_array);
    let mut errors = FieldErrors::new();
    for (index, wanted) in requests.into_iter().flatten().enumerate() {
        if wanted.pointer("/exactly/adminAccess") == Some(&Value::Bool(true)) {
            let path = Path::new("spec").child("devices").child("requests").index(index);
            let detail = format!(
                "admin access to devices requires the `{LABEL}: true` label on the containing namespace"
            );
            errors.forbidden(path.child("adminAccess"), detail);
        }
    }
    if errors.is_empty() || is_labelled(store, request.namespace) {
        return Ok(());
    }
    Err(Status::invalid(request.kind, request.name, &errors))
}

fn is_labelled(store: &Store, namespace: &str) -> bool {
    let found = kinds::by_kind("", "v1", "Namespace")
        .and_then(|kind| store.get(&storage::key(kind, "", namespace)))
        .and_then(|object| storage::decode(&object).ok());
    found.is_some_and(|found| found["metadata"]["labels"][LABEL] == "true")
}
