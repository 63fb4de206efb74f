//! What is done about a request for an object or a collection: a file per verb, and one per subresource.

pub(crate) mod apply;
pub(crate) mod create;
pub(crate) mod delete;
pub(crate) mod delete_collection;
pub(crate) mod encoded;
mod get;
pub(crate) mod list;
pub(crate) mod patch;
pub(crate) mod subresources;
pub(crate) mod update;
mod watch;
mod watch_events;

pub(crate) use subresources::scale;

use axum::response::Response;
use coracle_api::kinds::{Kind, Storage};
use coracle_api::status::Status;
use http::{StatusCode, header};
use serde_json::json;

use crate::answer::Answer;
use crate::call::Call;
use crate::change::Part;
use crate::custom_resources;
use crate::negotiate::{Form, OFFERED};
use crate::request_info::ResourcePath;
use crate::server::Server;

/// The kind that a path means, if the path has the form that the kind's objects have; 404 otherwise.
pub(crate) fn kind_at(server: &Server, target: &ResourcePath) -> Answer<&'static Kind> {
    let kind = server
        .kinds
        .by_resource(&target.group, &target.version, &target.resource)
        .ok_or_else(Status::no_such_path)?;
    let is_namespace = kind.group.is_empty() && kind.kind == "Namespace";
    if !kind.namespaced && !target.namespace.is_empty() && !is_namespace {
        return Err(Status::no_such_path());
    }
    if kind.namespaced && target.namespace.is_empty() && !target.subresource.is_empty() {
        return Err(Status::no_such_path());
    }
    Ok(kind)
}

/// Finds the handler. The request is authenticated and authorized.
pub(crate) async fn dispatch(call: &mut Call) -> Answer<Response> {
    call.warnings.extend(deprecation(call.kind).map(str::to_owned));
    if let Some(definition) = custom_resources::definition_of(call.kind) {
        call.warnings.extend(definition.deprecation.clone());
    }
    if !call.target.subresource.is_empty() {
        return subresources::dispatch(call).await;
    }
    if call.verb.is_empty() || !call.kind.allows(call.verb) {
        return Err(Status::method_not_served());
    }
    let crosses_namespaces = call.kind.namespaced && call.target.namespace.is_empty();
    if crosses_namespaces
        && !matches!(call.verb, "list" | "watch")
        && !matches!(call.kind.storage, Storage::None)
    {
        return Err(Status::method_not_served());
    }
    if call.kind.storage == Storage::None {
        return answer_and_forget(call).await;
    }
    match call.verb {
        "get" => get::get(call).await,
        "list" => list::list(call).await,
        "watch" => watch::watch(call).await,
        "create" => create::create(call).await,
        "update" => update::update(call, Part::Whole).await,
        "patch" => patch::patch(call, Part::Whole).await,
        "delete" => delete::delete(call).await,
        "deletecollection" => delete_collection::delete_collection(call).await,
        _ => Err(Status::method_not_served()),
    }
}

/// What upstream tells users of kinds that have a successor.
fn deprecation(kind: &Kind) -> Option<&'static str> {
    match (kind.group, kind.kind) {
        ("", "Endpoints") => {
            Some("v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice")
        }
        ("", "ComponentStatus") => Some("v1 ComponentStatus is deprecated in v1.19+"),
        _ => None,
    }
}

/// Kinds of which nothing is kept: reviews, bindings, and the states of components.
async fn answer_and_forget(call: &mut Call) -> Answer<Response> {
    if call.verb == "create" {
        refuse_table(call)?;
    }
    match (call.kind.group, call.kind.kind, call.verb) {
        ("", "Binding", "create") => subresources::binding::bind_named_in_body(call).await,
        ("", "ComponentStatus", _) => component_status(call),
        (_, _, "create") => {
            let mut review = call.read_object().await?;
            subresources::binding::admit(call, "", &mut review).await?;
            let namespace = call.namespace().to_owned();
            if call.kind.kind == "TokenReview" {
                let token = review["spec"]["token"].as_str().unwrap_or_default();
                call.server.authenticator.prepare(token).await;
            }
            let answer =
                call.server.reviews.review(call.kind.kind, &namespace, &call.user, review)?;
            call.answer_value(StatusCode::CREATED, answer)
        }
        _ => Err(Status::method_not_served()),
    }
}

/// What is answered and forgotten has no table: whoever takes nothing else gets 406.
fn refuse_table(call: &mut Call) -> Answer<()> {
    if !matches!(call.representation.form, Form::Table(_)) {
        return Ok(());
    }
    let accept = call.headers.get(header::ACCEPT).and_then(|value| value.to_str().ok());
    if accept.unwrap_or_default().split(',').all(|range| range.contains("as=")) {
        return Err(Status::not_acceptable(&OFFERED));
    }
    call.representation.form = Form::Whole;
    Ok(())
}

/// The long deprecated `kubectl get componentstatuses`. Whoever gets an answer at all talks to a healthy store; scheduler and
/// controllers prove their health by their leases.
fn component_status(call: &Call) -> Answer<Response> {
    let status = |name: &str| {
        json!({
            "kind": "ComponentStatus",
            "apiVersion": "v1",
            "metadata": { "name": name },
            "conditions": [{ "type": "Healthy", "status": "True", "message": "ok" }],
        })
    };
    const STORE: &str = "etcd-0";
    match call.verb {
        "list" => {
            let list = json!({
                "kind": "ComponentStatusList", "apiVersion": "v1", "metadata": {}, "items": [status(STORE)],
            });
            Ok(call.answer_plain(StatusCode::OK, &list))
        }
        "get" if call.target.name == STORE => call.answer_value(StatusCode::OK, status(STORE)),
        _ => Err(Status::not_found(call.kind, &call.target.name)),
    }
}
