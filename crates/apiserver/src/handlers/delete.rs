//! `DELETE` of an object.

use std::sync::Arc;

use axum::response::Response;
use bytes::Bytes;
use coracle_api::decode::{FieldValidation, decode_body};
use coracle_api::kinds::Kind;
use coracle_api::status::Status;
use coracle_store::{Object, WriteError};
use http::StatusCode;
use serde_json::{Value, json};

use super::create::{Written, answer_written, stored_kind};
use crate::admission::{AdmissionRequest, Operation, WriteOptions};
use crate::answer::Answer;
use crate::call::Call;
use crate::deletion::{DeleteOptions, Step, plan};
use crate::object::{is_deleting, meta, set_meta};
use crate::{custom_resources, limits, storage};

/// What became of a deletion.
pub(crate) enum Deleted {
    /// It is gone; this was its last state.
    Gone(Value),
    /// It is on its way.
    Going(Arc<Object>),
    /// A dry run: what would be left of it.
    Imagined(Value),
}

/// Deletes an object, or starts to.
pub(crate) async fn delete(call: &mut Call) -> Answer<Response> {
    let options = read_options(call).await?;
    let kind = stored_kind(call)?;
    let (namespace, name) = (call.namespace().to_owned(), call.target.name.clone());
    let deleted = delete_object(call, kind, &namespace, &name, &options).await?;
    answer_deleted(call, &name, deleted).await
}

/// `DeleteOptions`, from the body and the query.
pub(crate) async fn read_options(call: &mut Call) -> Answer<DeleteOptions> {
    let body = call.read_json().await?;
    let body = if body.is_empty() {
        Value::Null
    } else {
        decode_body("", "v1", "DeleteOptions", &of_no_group(body), FieldValidation::Ignore)
            .map_err(|error| error.status())?
            .value
    };
    DeleteOptions::read(&body, &call.query)
}

/// Every group has `DeleteOptions` of its own, all the same: typed clients name that of the object.
fn of_no_group(body: Bytes) -> Bytes {
    match serde_json::from_slice::<Value>(&body) {
        Ok(mut options) if options["kind"] == "DeleteOptions" => {
            options["apiVersion"] = json!("v1");
            Bytes::from(options.to_string())
        }
        _ => body,
    }
}

/// The part of deleting that collections and evictions share.
pub(crate) async fn delete_object(
    call: &Call,
    kind: &'static Kind,
    namespace: &str,
    name: &str,
    options: &DeleteOptions,
) -> Answer<Deleted> {
    let store = &call.server.store;
    let key = storage::key(kind, namespace, name);
    let mut turn = None;
    for _ in 0..limits::WRITE_ATTEMPTS {
        let current = store.get(&key).ok_or_else(|| Status::not_found(kind, name))?;
        let old = custom_resources::decoded(kind, current.clone()).await?;
        options.check_preconditions(kind, name, &old)?;
        admit(call, kind, namespace, name, &old, options).await?;
        let written = match plan(kind, &old, options) {
            Step::Wait => return Ok(Deleted::Going(current)),
            Step::Mark(next) | Step::Remove(next) if options.dry_run => {
                return Ok(Deleted::Imagined(next));
            }
            Step::Mark(next) => store
                .update(key.clone(), current.revision, encoded(kind, &next).await?)
                .await
                .map(Deleted::Going),
            Step::Remove(last) => {
                let (store, at) = (store.clone(), key.clone());
                let value = encoded(kind, &last).await?;
                let leaving = call.server.addresses.leave(kind, &old);
                let removed = leaving
                    .settle(async move { store.delete(at, current.revision, value).await })
                    .await;
                removed.map(|object| Deleted::Gone(with_revision(last, &object)))
            }
        };
        match written {
            Err(WriteError::Conflict { current: Some(_) }) if turn.is_none() => {
                turn = call.server.turns.wait(&key).await
            }
            Err(WriteError::Conflict { current: Some(_) }) => (),
            Ok(deleted) => return Ok(deleted),
            Err(error) => return Err(storage::write_failure(kind, name, &error)),
        }
    }
    Err(Status::modified(kind, name))
}

/// The state as it is stored.
async fn encoded(kind: &'static Kind, object: &Value) -> Answer<coracle_store::Value> {
    let stored = custom_resources::to_storage(kind, object).await?;
    Ok(storage::encode(kind, &stored))
}

/// The last state, with the revision of the deletion.
fn with_revision(mut last: Value, stored: &Object) -> Value {
    set_meta(&mut last, "resourceVersion", Some(json!(stored.revision.to_string())));
    last
}

async fn answer_deleted(call: &Call, name: &str, deleted: Deleted) -> Answer<Response> {
    match deleted {
        Deleted::Gone(last) if returns_object(call.kind) => call.answer_value(StatusCode::OK, last),
        Deleted::Gone(last) => Ok(call
            .answer_plain(StatusCode::OK, &Status::deleted(call.kind, name, meta(&last, "uid")))),
        Deleted::Going(object) => {
            answer_written(call, StatusCode::OK, Written::Stored(object)).await
        }
        Deleted::Imagined(next) if is_deleting(&next) => {
            answer_written(call, StatusCode::OK, Written::Imagined(next)).await
        }
        Deleted::Imagined(last) => Ok(call
            .answer_plain(StatusCode::OK, &Status::deleted(call.kind, name, meta(&last, "uid")))),
    }
}

/// Kinds whose deletion upstream answers with the object and not with a Status.
fn returns_object(kind: &Kind) -> bool {
    kind.group.is_empty()
        && matches!(
            kind.kind,
            "Pod"
                | "Service"
                | "ServiceAccount"
                | "PodTemplate"
                | "ResourceQuota"
                | "PersistentVolume"
                | "PersistentVolumeClaim"
        )
}

async fn admit(
    call: &Call,
    kind: &'static Kind,
    namespace: &str,
    name: &str,
    old: &Value,
    options: &DeleteOptions,
) -> Answer<()> {
    let mut nothing = json!(null);
    let mut request = AdmissionRequest {
        operation: Operation::Delete,
        kind,
        subresource: &call.target.subresource,
        namespace,
        name,
        object: &mut nothing,
        old: Some(old),
        user: &call.user,
        warnings: &call.warnings,
        dry_run: options.dry_run,
        requested: call.kind,
        options: WriteOptions::Deletion(options),
        annotations: &call.annotations,
    };
    call.server.admission.mutate_by_users(&mut request).await?;
    call.server.admission.validate(&request).await.map(drop)
}
