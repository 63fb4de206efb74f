//! Subresources: a part of an object with a path and rights of its own.

pub(crate) mod binding;
mod connect;
mod eviction;
mod log;
pub(crate) mod parts;
mod proxy;
pub(crate) mod scale;

pub(crate) use proxy::until;

use axum::response::Response;
use coracle_api::status::{Reason, Status};
use http::StatusCode;

use super::get;
use crate::admission::{AdmissionRequest, Operation, WriteOptions};
use crate::answer::Answer;
use crate::call::Call;
use crate::change::Part;

/// Finds the handler of a subresource.
pub(super) async fn dispatch(call: &mut Call) -> Answer<Response> {
    let subresource =
        call.kind.subresource(&call.target.subresource).ok_or_else(Status::no_such_path)?;
    if !call.target.rest.is_empty() && subresource.name != "proxy" {
        return Err(Status::no_such_path());
    }
    if subresource.name == "proxy" {
        connect::admit(call).await?;
        return proxy::proxy(call).await;
    }
    if call.verb.is_empty() || !subresource.allows(call.verb) {
        return Err(Status::method_not_served());
    }
    if matches!(subresource.name, "exec" | "attach" | "portforward") {
        connect::admit(call).await?;
    }
    match (subresource.name, call.verb) {
        ("scale", _) => scale::scale(call).await,
        ("status" | "approval" | "ephemeralcontainers" | "resize", "get") => get::get(call).await,
        ("status", "update") => super::update::update(call, Part::Status).await,
        ("status", "patch") => super::patch::patch(call, Part::Status).await,
        ("approval" | "ephemeralcontainers" | "resize" | "finalize", _) => {
            parts::write(call, subresource.name).await
        }
        ("binding", "create") => binding::bind(call).await,
        ("eviction", "create") => eviction::evict(call).await,
        ("token", "create") => token(call).await,
        ("log", "get") => log::log(call).await,
        ("exec" | "attach" | "portforward", _) => Err(Status::new(
            501,
            Reason::Unknown,
            format!("{} is not implemented by this server yet", subresource.name),
        )),
        _ => Err(Status::method_not_served()),
    }
}

/// A token for a ServiceAccount.
async fn token(call: &mut Call) -> Answer<Response> {
    let json = call.read_json().await?;
    let mut request = call.decode_as("authentication.k8s.io", "v1", "TokenRequest", &json)?;
    let mut admission = AdmissionRequest {
        operation: Operation::Create,
        kind: call.kind,
        subresource: "token",
        namespace: &call.target.namespace,
        name: &call.target.name,
        object: &mut request,
        old: None,
        user: &call.user,
        warnings: &call.warnings,
        dry_run: false,
        requested: call.kind,
        options: WriteOptions::Query(&call.query),
        annotations: &call.annotations,
    };
    call.server.admission.mutate(&mut admission).await?;
    call.server.admission.validate(&admission).await?;
    let issued = call.server.tokens.issue(&call.target.namespace, &call.target.name, request)?;
    Ok(call.answer_plain(StatusCode::CREATED, &issued))
}
