//! `PATCH` of an object: JSON patch, merge patch and strategic merge patch; what is applied goes on to [`apply`].

use std::borrow::Cow;

use axum::response::Response;
use bytes::Bytes;
use coracle_api::decode::{self, FieldValidation};
use coracle_api::kinds::Kind;
use coracle_api::patch::{json_patch, merge_patch, strategic_merge_patch};
use coracle_api::schema::Schema;
use coracle_api::status::Status;
use http::StatusCode;
use serde_json::{Value, json};

use super::apply;
use super::create::{always_has_status, answer_written, stored_kind};
use super::update::check_uid;
use crate::answer::Answer;
use crate::call::Call;
use crate::change::{Change, Part, change};
use crate::managed_fields::{self, APPLY_PATCH};
use crate::object::{meta, set_meta};
use crate::{custom_resources, views};

/// The media types of the patches we apply.
const PATCHES: [&str; 4] = [
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
    APPLY_PATCH,
];

/// A patch, not yet applied.
pub(crate) struct Patch {
    format: Format,
    bytes: Bytes,
}

enum Format {
    Json,
    Merge,
    Strategic,
}

/// Changes an object, or this part of it, by what the client wants different.
pub(crate) async fn patch(call: &mut Call, part: Part) -> Answer<Response> {
    if apply::is_apply(call) {
        return apply::apply(call, part).await;
    }
    let dry_run = call.query.dry_run()?;
    managed_fields::check_options(call, "PatchOptions")?;
    let validation = call.field_validation()?;
    let patch = Patch::read(call).await?;
    let kind = stored_kind(call)?;
    let what = Change { kind, namespace: call.namespace(), name: &call.target.name, part, dry_run };
    let written = change(call, &what, |old| {
        let patched = patch.apply(call.kind, &views::read(call.kind, old.clone()))?;
        let (mut new, found) = check(call.kind, &patched, validation)?;
        call.warnings.extend(found);
        check_identity(kind, &new, old)?;
        if meta(&new, "resourceVersion") == meta(old, "resourceVersion") {
            // The patch did not name a revision, or named this one: it may be applied to the next one as well.
            set_meta(&mut new, "resourceVersion", None);
        }
        Ok(views::write(call.kind, new))
    })
    .await?;
    answer_written(call, StatusCode::OK, written).await
}

impl Patch {
    /// Reads the body, or answers 415.
    pub(crate) async fn read(call: &mut Call) -> Answer<Self> {
        let format = match call.content_type() {
            "application/json-patch+json" => Format::Json,
            "application/merge-patch+json" => Format::Merge,
            "application/strategic-merge-patch+json" => Format::Strategic,
            _ => return Err(Status::unsupported_media_type(&PATCHES)),
        };
        Ok(Self { format, bytes: call.read_body().await? })
    }

    /// The object with the patch applied.
    pub(crate) fn apply(&self, kind: &Kind, original: &Value) -> Answer<Value> {
        let mut original = Cow::Borrowed(original);
        // Objects of older servers may have none.
        if original["status"].is_null() && always_has_status(kind) {
            original.to_mut()["status"] = json!({});
        }
        self.apply_to(kind.group, kind.version, kind.kind, &original)
    }

    /// The same for kinds outside the table, such as `Scale`.
    pub(crate) fn apply_to(
        &self,
        group: &str,
        version: &str,
        kind: &str,
        original: &Value,
    ) -> Answer<Value> {
        let patched = match self.format {
            Format::Json => json_patch(original, &self.bytes),
            Format::Merge => merge_patch(original, &self.bytes),
            Format::Strategic => match Schema::get().kind_type(group, version, kind) {
                Some(type_id) => strategic_merge_patch(type_id, original, &self.bytes),
                None => return Err(Status::unsupported_media_type(&PATCHES[..2])),
            },
        };
        patched.map_err(|error| error.status())
    }
}

fn check(
    kind: &Kind,
    patched: &Value,
    validation: FieldValidation,
) -> Answer<(Value, Vec<String>)> {
    let checked = match custom_resources::definition_of(kind) {
        None => decode::check(kind, patched, validation),
        Some(definition) => {
            let bytes = patched.to_string();
            custom_resources::decode(kind, &definition, bytes.as_bytes(), validation)
        }
    };
    match checked {
        Ok(decoded) => Ok((decoded.value, decoded.warnings)),
        Err(error) => Err(error.patch_status(&patched.to_string())),
    }
}

/// A patch cannot turn an object into another one.
fn check_identity(kind: &'static Kind, new: &Value, old: &Value) -> Answer<()> {
    check_uid(kind, new, old)?;
    if meta(new, "name") != meta(old, "name") {
        let (given, wanted) = (meta(new, "name"), meta(old, "name"));
        return Err(Status::bad_request(format!(
            "the name of the object ({given}) does not match the name on the URL ({wanted})"
        )));
    }
    if meta(new, "namespace") != meta(old, "namespace") {
        return Err(Status::bad_request(
            "the namespace of the provided object does not match the namespace sent on the request",
        ));
    }
    Ok(())
}
