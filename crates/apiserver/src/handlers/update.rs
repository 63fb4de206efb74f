//! `PUT` of an object.

use axum::response::Response;
use coracle_api::kinds::Kind;
use coracle_api::status::{FieldErrors, Status};
use http::StatusCode;
use serde_json::{Value, json};

use super::create::{answer_written, create_object, place_in_namespace, stored_kind};
use crate::answer::Answer;
use crate::authz;
use crate::call::Call;
use crate::change::{Change, Part, change};
use crate::managed_fields::{self, Books};
use crate::object::{meta, set_meta};
use crate::{storage, views};

/// Replaces an object, or this part of it.
pub(crate) async fn update(call: &mut Call, part: Part) -> Answer<Response> {
    let dry_run = call.query.dry_run()?;
    managed_fields::check_options(call, "UpdateOptions")?;
    let body = call.read_object().await?;
    let mut object = views::write(call.kind, body);
    let kind = stored_kind(call)?;
    place_in_namespace(call, &mut object)?;
    check_name(call, &mut object)?;
    let key = storage::key(kind, call.namespace(), &call.target.name);
    if part == Part::Whole && call.server.store.get(&key).is_none() && allows_create_on_update(kind)
    {
        return create_instead(call, object, dry_run).await;
    }
    if meta(&object, "resourceVersion").is_empty() && !allows_unconditional_update(kind) {
        let mut errors = FieldErrors::new();
        errors.invalid("metadata.resourceVersion", json!(0), "must be specified for an update");
        return Err(Status::invalid(kind, &call.target.name, &errors));
    }
    let what = Change { kind, namespace: call.namespace(), name: &call.target.name, part, dry_run };
    let written = change(call, &what, |old| {
        check_uid(kind, &object, old)?;
        Ok(object.clone())
    })
    .await?;
    answer_written(call, StatusCode::OK, written).await
}

/// The name in the path decides; one in the body must agree.
pub(super) fn check_name(call: &Call, object: &mut Value) -> Answer<()> {
    let given = meta(object, "name");
    if given.is_empty() {
        set_meta(object, "name", Some(json!(call.target.name)));
    } else if given != call.target.name {
        return Err(Status::bad_request(format!(
            "the name of the object ({given}) does not match the name on the URL ({})",
            call.target.name
        )));
    }
    Ok(())
}

/// A uid in the body means that very object, not its namesake.
pub(crate) fn check_uid(kind: &'static Kind, object: &Value, old: &Value) -> Answer<()> {
    let (wanted, found) = (meta(object, "uid"), meta(old, "uid"));
    if wanted.is_empty() || wanted == found {
        return Ok(());
    }
    let why =
        format!("Precondition failed: UID in precondition: {wanted}, UID in object meta: {found}");
    Err(Status::conflict(kind, meta(old, "name"), why))
}

/// Whoever updates what does not exist needs the right to create it.
async fn create_instead(call: &mut Call, object: Value, dry_run: bool) -> Answer<Response> {
    if !meta(&object, "resourceVersion").is_empty() || !meta(&object, "uid").is_empty() {
        return Err(Status::not_found(call.kind, &call.target.name));
    }
    check_create(call)?;
    let written = create_object(call, object, dry_run, Books::Recorded).await?;
    answer_written(call, StatusCode::CREATED, written).await
}

/// Whether the user may create the object that the path names.
pub(super) fn check_create(call: &Call) -> Answer<()> {
    call.server.authorizer.check(&authz::Attributes {
        user: &call.user,
        fields: &[],
        verb: "create",
        target: authz::Target::Resource {
            group: &call.target.group,
            resource: &call.target.resource,
            subresource: "",
            namespace: &call.target.namespace,
            name: &call.target.name,
        },
    })
}

/// As upstream's strategies have it.
fn allows_create_on_update(kind: &Kind) -> bool {
    match kind.group {
        "" => matches!(kind.kind, "Service" | "Endpoints" | "Event" | "LimitRange"),
        "rbac.authorization.k8s.io" => true,
        "coordination.k8s.io" => kind.kind == "Lease",
        _ => false,
    }
}

/// Kinds whose updates must say which state they were made from, as upstream's strategies have it.
fn allows_unconditional_update(kind: &Kind) -> bool {
    kind.custom.is_none()
        && !matches!(
            (kind.group, kind.kind),
            ("coordination.k8s.io", "Lease")
                | ("policy", "PodDisruptionBudget")
                | (
                    "apiextensions.k8s.io"
                        | "apiregistration.k8s.io"
                        | "admissionregistration.k8s.io"
                        | "flowcontrol.apiserver.k8s.io",
                    _
                )
                | ("node.k8s.io", "RuntimeClass")
                | ("networking.k8s.io", "NetworkPolicy")
                | (
                    "storage.k8s.io",
                    "CSIDriver" | "CSINode" | "CSIStorageCapacity" | "VolumeAttachment"
                )
        )
}
