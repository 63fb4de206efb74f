//! What opens a connection into the cluster is admitted like a write: webhooks and policies may forbid it.

use serde_json::{Value, json};

use crate::admission::{AdmissionRequest, Operation, WriteOptions};
use crate::answer::Answer;
use crate::call::Call;

/// Asks admission whether this connection may be opened.
pub(super) async fn admit(call: &Call) -> Answer<()> {
    let mut options = options(call);
    // A port or a scheme before or after the name are for the proxy.
    let mut parts = call.target.name.split(':');
    let name = match (parts.next(), parts.next(), parts.next()) {
        (_, Some(name), Some(_)) | (Some(name), ..) => name,
        (None, ..) => "",
    };
    let mut request = AdmissionRequest {
        operation: Operation::Connect,
        kind: call.kind,
        subresource: &call.target.subresource,
        namespace: &call.target.namespace,
        name,
        object: &mut options,
        old: None,
        user: &call.user,
        warnings: &call.warnings,
        dry_run: false,
        requested: call.kind,
        options: WriteOptions::None,
        annotations: &call.annotations,
    };
    call.server.admission.mutate_by_users(&mut request).await?;
    call.server.admission.validate_by_users(&request).await
}

/// `PodExecOptions` and its like, as the query says them.
fn options(call: &Call) -> Value {
    let subresource = call.kind.subresource(&call.target.subresource);
    let kind = subresource.map_or("", |subresource| subresource.kind);
    let mut options = json!({ "kind": kind, "apiVersion": "v1" });
    match call.target.subresource.as_str() {
        "proxy" => options["path"] = json!(format!("/{}", call.target.rest)),
        "portforward" => {
            let ports = call.query.all("ports").flat_map(|ports| ports.split(','));
            let ports: Vec<u16> = ports.filter_map(|port| port.parse().ok()).collect();
            options["ports"] = json!(ports);
        }
        _ => {
            for flag in ["stdin", "stdout", "stderr", "tty"] {
                if call.query.flag(flag) {
                    options[flag] = json!(true);
                }
            }
            if let Some(container) = call.query.get("container") {
                options["container"] = json!(container);
            }
            let command: Vec<&str> = call.query.all("command").collect();
            if !command.is_empty() {
                options["command"] = json!(command);
            }
        }
    }
    options
}
