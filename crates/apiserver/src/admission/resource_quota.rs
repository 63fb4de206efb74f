//! ResourceQuota: nothing is stored that would exceed what its namespace may hold.

use std::sync::Arc;

use coracle_api::status::Status;

use super::{AdmissionRequest, Operation};
use crate::quota::{Quotas, Reserved, Write};

/// Takes what the write needs of the namespace's quotas, for as long as the answer is kept.
pub(super) fn reserve(
    quotas: &Arc<Quotas>,
    request: &AdmissionRequest<'_>,
) -> Result<Reserved, Status> {
    let core = request.kind.group.is_empty();
    let counts = match (request.operation, request.subresource) {
        (Operation::Create, "") => true,
        // Only these can grow while they exist.
        (Operation::Update, "") => {
            core && matches!(request.kind.kind, "Service" | "PersistentVolumeClaim")
        }
        (Operation::Update, "resize") => core && request.kind.kind == "Pod",
        _ => false,
    };
    if !counts || request.namespace.is_empty() {
        return Ok(Reserved::default());
    }
    let write = Write {
        kind: request.kind,
        namespace: request.namespace,
        name: request.name,
        new: request.object,
        old: request.old,
        dry_run: request.dry_run,
    };
    quotas.reserve(&write).map_err(|why| request.forbidden(why))
}
