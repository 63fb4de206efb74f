//! Changing a stored object: the one loop that update, patch and the subresources share.
//!
//! Read the current state, make the new one from it, complete, admit and validate it, write it against the revision that was read;
//! when somebody was faster, once more from the start, unless the client named the revision it meant.

use coracle_api::kinds::Kind;
use coracle_api::status::{FieldErrors, Status};
use coracle_store::{Object, WriteError};
use serde_json::{Value, json};

use crate::admission::{AdmissionRequest, Mutated, Operation, WriteOptions};
use crate::answer::Answer;
use crate::call::Call;
use crate::custom_resources::{self, rules_of};
use crate::handlers::create::Written;
use crate::managed_fields::{self, Books};
use crate::object::{finalizers, generation, is_deleting, meta, set_meta};
use crate::quota::Reserved;
use crate::{limits, rules, storage};

/// Which part of an object a request writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    /// All but status.
    Whole,
    /// Status alone.
    Status,
    /// What a subresource of this name stands for; whoever makes the new state takes care that nothing else changes.
    Subresource(&'static str),
}

impl Part {
    /// The subresource's name, empty for the object itself.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Whole => "",
            Self::Status => "status",
            Self::Subresource(name) => name,
        }
    }
}

/// What is to be changed.
pub(crate) struct Change<'a> {
    /// The stored kind.
    pub(crate) kind: &'static Kind,
    pub(crate) namespace: &'a str,
    pub(crate) name: &'a str,
    pub(crate) part: Part,
    pub(crate) dry_run: bool,
}

/// Makes the change; `make` computes the new state from the current one, and may be called again.
pub(crate) async fn change(
    call: &Call,
    change: &Change<'_>,
    make: impl FnMut(&Value) -> Answer<Value>,
) -> Answer<Written> {
    change_with(call, change, Books::Recorded, make).await
}

/// [`change`], with a say in who wants what afterwards.
pub(crate) async fn change_with(
    call: &Call,
    change: &Change<'_>,
    books: Books,
    mut make: impl FnMut(&Value) -> Answer<Value>,
) -> Answer<Written> {
    let Change { kind, namespace, name, .. } = *change;
    let key = storage::key(kind, namespace, name);
    let mut turn = None;
    for _ in 0..limits::WRITE_ATTEMPTS {
        let current = call.server.store.get(&key).ok_or_else(|| Status::not_found(kind, name))?;
        let old = custom_resources::decoded(kind, current.clone()).await?;
        let mut new = make(&old)?;
        let names_revision = check_revision(kind, name, &new, &current)?;
        let entries = managed_fields::take(&mut new);
        complete(change, &mut new, &old);
        match books {
            Books::Recorded => {
                managed_fields::record(call, kind, change.part, &old, &mut new, entries)
            }
            Books::Brought => managed_fields::put(&mut new, entries),
        }
        managed_fields::settle(call, kind, change.part, &old, &mut new).await?;
        admit(call, change, &mut new, &old).await?;
        validate(call.kind, change, &new, &old)?;
        let reservation = call.server.addresses.allocate(kind, &mut new, Some(&old))?;
        let reserved = validate_admitted(call, change, &mut new, &old).await?;
        if change.dry_run {
            return Ok(Written::Imagined(new));
        }
        let is_same = new == old || managed_fields::differ_in_times_only(&new, &old);
        if is_same && !custom_resources::is_stale(kind, &current) {
            return Ok(Written::Stored(current));
        }
        let ends = ends_life(kind, &new);
        let stored = custom_resources::to_storage(kind, &new).await?;
        let value = storage::encode(kind, &stored);
        let (store, at) = (call.server.store.clone(), key.clone());
        let written = if ends {
            let leaving = call.server.addresses.leave(kind, &old);
            leaving.settle(async move { store.delete(at, current.revision, value).await }).await
        } else {
            let revision = current.revision;
            let write = reserved.hold(async move { store.update(at, revision, value).await });
            reservation.settle(write).await
        };
        match written {
            Ok(stored) => return Ok(Written::Stored(stored)),
            Err(WriteError::Conflict { current: Some(_) }) if !names_revision && turn.is_none() => {
                turn = call.server.turns.wait(&key).await;
            }
            Err(WriteError::Conflict { current: Some(_) }) if !names_revision => (),
            Err(error) => return Err(storage::write_failure(kind, name, &error)),
        }
    }
    Err(Status::modified(kind, name))
}

/// Whether the new state names the revision it was made from; 409 if that is not the current one.
fn check_revision(kind: &'static Kind, name: &str, new: &Value, current: &Object) -> Answer<bool> {
    let wanted = meta(new, "resourceVersion");
    if wanted.is_empty() || wanted == "0" {
        return Ok(false);
    }
    let wanted = crate::query::parse_revision(Some(wanted))?;
    if wanted == Some(current.revision) { Ok(true) } else { Err(Status::modified(kind, name)) }
}

/// Takes over what the client may leave out or must not change, and numbers the new wanted state.
fn complete(change: &Change<'_>, new: &mut Value, old: &Value) {
    let Change { kind, part, .. } = *change;
    let rules = rules_of(kind);
    for field in ["uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds"] {
        if new
            .pointer("/metadata")
            .and_then(|metadata| metadata.get(field))
            .is_none_or(Value::is_null)
        {
            set_meta(
                new,
                field,
                old.pointer("/metadata").and_then(|metadata| metadata.get(field)).cloned(),
            );
        }
    }
    for field in ["generation", "resourceVersion"] {
        set_meta(
            new,
            field,
            old.pointer("/metadata").and_then(|metadata| metadata.get(field)).cloned(),
        );
    }
    set_meta(new, "selfLink", None);
    new["apiVersion"] = json!(kind.api_version);
    new["kind"] = json!(kind.kind);
    match part {
        Part::Whole => rules.prepare_update(new, old),
        Part::Status => rules.prepare_status_update(new, old),
        Part::Subresource(_) => (),
    }
    rules.default(new);
    if part != Part::Status && rules.changes_generation(kind, new, old) {
        set_meta(new, "generation", Some(json!(generation(old) + 1)));
    }
}

fn request<'a>(
    call: &'a Call,
    change: &Change<'a>,
    new: &'a mut Value,
    old: &'a Value,
) -> AdmissionRequest<'a> {
    AdmissionRequest {
        operation: Operation::Update,
        kind: change.kind,
        subresource: change.part.name(),
        namespace: change.namespace,
        name: change.name,
        object: new,
        old: Some(old),
        user: &call.user,
        warnings: &call.warnings,
        dry_run: change.dry_run,
        requested: call.kind,
        options: WriteOptions::Query(&call.query),
        annotations: &call.annotations,
    }
}

async fn admit(call: &Call, change: &Change<'_>, new: &mut Value, old: &Value) -> Answer<()> {
    let admitted = call.server.admission.mutate(&mut request(call, change, new, old)).await?;
    if admitted == Mutated::Anew {
        // What the client may not change, nobody who looks over its shoulder may change either.
        let entries = managed_fields::take(new);
        complete(change, new, old);
        managed_fields::put(new, entries);
    }
    Ok(())
}

async fn validate_admitted(
    call: &Call,
    change: &Change<'_>,
    new: &mut Value,
    old: &Value,
) -> Answer<Reserved> {
    call.server.admission.validate(&request(call, change, new, old)).await
}

fn validate(asked: &Kind, change: &Change<'_>, new: &Value, old: &Value) -> Answer<()> {
    let rules = rules_of(change.kind);
    let mut errors = FieldErrors::new();
    rules::metadata::validate_update(change.kind, new, old, &mut errors);
    match change.part {
        Part::Whole => rules.validate_update(new, old, &mut errors),
        Part::Status => rules.validate_status_update(new, old, &mut errors),
        Part::Subresource("binding") => (),
        Part::Subresource("approval") => {
            rules::certificate::validate_approval(new, old, &mut errors);
        }
        Part::Subresource(part) => rules.validate_part(part, new, old, &mut errors),
    }
    if rules::event::is_strict(asked) {
        rules::event::validate_strictly(new, Some(old), &mut errors);
    }
    if errors.is_empty() { Ok(()) } else { Err(Status::invalid(change.kind, change.name, &errors)) }
}

/// Whether this state is the last: it is being deleted, nothing waits for it, and no grace is left.
pub(crate) fn ends_life(kind: &Kind, object: &Value) -> bool {
    is_deleting(object)
        && finalizers(object).is_empty()
        && object
            .pointer("/metadata/deletionGracePeriodSeconds")
            .and_then(Value::as_i64)
            .unwrap_or(0)
            == 0
        && (kind.kind != "Namespace"
            || object
                .pointer("/spec/finalizers")
                .and_then(Value::as_array)
                .is_none_or(Vec::is_empty))
}
