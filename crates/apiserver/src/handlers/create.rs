//! `POST` to a collection.

use std::sync::Arc;

use axum::response::Response;
use coracle_api::kinds::Kind;
use coracle_api::status::{FieldErrors, Reason, Status};
use coracle_store::{Object, WriteError};
use http::StatusCode;
use rand::Rng as _;
use serde_json::{Value, json};

use crate::admission::{AdmissionRequest, Mutated, Operation, WriteOptions};
use crate::answer::Answer;
use crate::call::Call;
use crate::custom_resources::{self, rules_of};
use crate::managed_fields::{self, Books};
use crate::object::{self, meta, set_meta};
use crate::quota::Reserved;
use crate::{limits, rules, storage, views};

/// What became of a write: stored, or only thought through.
pub(crate) enum Written {
    /// It is on disk.
    Stored(Arc<Object>),
    /// A dry run: what would have been stored.
    Imagined(Value),
}

/// Creates an object: decode, admit, complete, validate, store, answer.
pub(crate) async fn create(call: &mut Call) -> Answer<Response> {
    let dry_run = call.query.dry_run()?;
    managed_fields::check_options(call, "CreateOptions")?;
    let body = call.read_object().await?;
    let object = views::write(call.kind, body);
    let written = create_object(call, object, dry_run, Books::Recorded).await?;
    answer_written(call, StatusCode::CREATED, written).await
}

/// The answer to a write, in the kind that the client speaks.
pub(crate) async fn answer_written(
    call: &Call,
    code: StatusCode,
    written: Written,
) -> Answer<Response> {
    match written {
        Written::Stored(object) => call.answer_stored(code, object).await,
        Written::Imagined(object) => call.answer_value(code, views::read(call.kind, object)),
    }
}

/// The part of creating that does not depend on how the object came here.
pub(crate) async fn create_object(
    call: &mut Call,
    mut object: Value,
    dry_run: bool,
    books: Books,
) -> Answer<Written> {
    let kind = stored_kind(call)?;
    let rules = rules_of(kind);
    place_in_namespace(call, &mut object)?;
    if !meta(&object, "resourceVersion").is_empty() {
        return Err(Status::new(
            500,
            Reason::Unknown,
            "resourceVersion should not be set on objects to be created",
        ));
    }
    let entries = managed_fields::take(&mut object);
    begin_life(kind, &mut object);
    rules.default(&mut object);
    match books {
        Books::Recorded => managed_fields::begin(call, kind, &mut object, entries),
        Books::Brought => managed_fields::put(&mut object, entries),
    }
    let name = meta(&object, "name").to_owned();
    let mut request = AdmissionRequest {
        operation: Operation::Create,
        kind,
        subresource: "",
        namespace: &call.target.namespace,
        name: &name,
        object: &mut object,
        old: None,
        user: &call.user,
        warnings: &call.warnings,
        dry_run,
        requested: call.kind,
        options: WriteOptions::Query(&call.query),
        annotations: &call.annotations,
    };
    if call.server.admission.mutate(&mut request).await? == Mutated::Anew {
        place_in_namespace(call, &mut object)?;
    }
    prepare(kind, &mut object);
    if rules.has_generation(kind) {
        set_meta(&mut object, "generation", Some(json!(1)));
    }
    store_under_a_free_name(call, kind, object, dry_run).await
}

/// Takes away what a creator may not set, and fills in what only the server knows.
fn prepare(kind: &Kind, object: &mut Value) {
    let rules = rules_of(kind);
    rules.prepare_create(object);
    rules.default(object);
    // As Go writes it: JSON patches put their conditions into a status that is there, if empty.
    if object["status"].is_null() && always_has_status(kind) {
        object["status"] = json!({});
    }
}

/// Whether a status belongs to every object of the kind, because it is a struct and no pointer in Go.
pub(super) fn always_has_status(kind: &Kind) -> bool {
    kind.custom.is_none() && kind.subresource("status").is_some()
}

/// Where objects of the call's kind are stored.
pub(crate) fn stored_kind(call: &Call) -> Answer<&'static Kind> {
    call.kind.stored_as().ok_or_else(|| Status::method_not_allowed(call.kind, call.verb))
}

/// The namespace in the path decides; one in the body must agree.
pub(crate) fn place_in_namespace(call: &Call, object: &mut Value) -> Answer<()> {
    let wanted = call.namespace();
    let given = meta(object, "namespace");
    if !given.is_empty() && given != wanted {
        return Err(Status::bad_request(
            "the namespace of the provided object does not match the namespace sent on the request",
        ));
    }
    set_meta(
        object,
        "namespace",
        Some(wanted).filter(|namespace| !namespace.is_empty()).map(|namespace| json!(namespace)),
    );
    Ok(())
}

/// The metadata that only the server may set.
fn begin_life(kind: &Kind, object: &mut Value) {
    for field in ["selfLink", "deletionTimestamp", "deletionGracePeriodSeconds", "generation"] {
        set_meta(object, field, None);
    }
    set_meta(object, "uid", Some(json!(uuid::Uuid::new_v4().to_string())));
    set_meta(object, "creationTimestamp", Some(json!(object::now())));
    object["apiVersion"] = json!(kind.api_version);
    object["kind"] = json!(kind.kind);
}

/// Validates and stores; a generated name that is taken is generated again.
async fn store_under_a_free_name(
    call: &mut Call,
    kind: &'static Kind,
    mut object: Value,
    dry_run: bool,
) -> Answer<Written> {
    let prefix = meta(&object, "generateName").to_owned();
    let generates = meta(&object, "name").is_empty() && !prefix.is_empty();
    let mut name = meta(&object, "name").to_owned();
    for _ in 0..limits::NAME_ATTEMPTS {
        if generates {
            name = generate_name(&prefix);
            set_meta(&mut object, "name", Some(json!(name)));
            // Labels that hold the name wait for it; both are safe to repeat.
            prepare(kind, &mut object);
        }
        validate(call.kind, kind, &name, &object)?;
        let reserved = admit(call, kind, &name, &mut object, dry_run).await?;
        let key = storage::key(kind, call.namespace(), &name);
        if dry_run {
            if call.server.store.get(&key).is_some() {
                return Err(Status::already_exists(kind, &name));
            }
            call.server.addresses.allocate(kind, &mut object, None)?;
            return Ok(Written::Imagined(object));
        }
        let reservation = call.server.addresses.allocate(kind, &mut object, None)?;
        let stored = custom_resources::to_storage(kind, &object).await?;
        let (store, value) = (call.server.store.clone(), storage::encode(kind, &stored));
        let write = reserved.hold(async move { store.create(key, value).await });
        match reservation.settle(write).await {
            Ok(stored) => return Ok(Written::Stored(stored)),
            Err(WriteError::Exists(_)) if generates => (),
            Err(error) => return Err(storage::write_failure(kind, &name, &error)),
        }
    }
    Err(Status::generate_name_conflict(kind, &name))
}

fn validate(asked: &Kind, kind: &'static Kind, name: &str, object: &Value) -> Answer<()> {
    let mut errors = FieldErrors::new();
    rules::metadata::validate(kind, object, &mut errors);
    rules_of(kind).validate(object, &mut errors);
    if rules::event::is_strict(asked) {
        rules::event::validate_strictly(object, None, &mut errors);
    }
    if errors.is_empty() { Ok(()) } else { Err(Status::invalid(kind, name, &errors)) }
}

async fn admit(
    call: &Call,
    kind: &'static Kind,
    name: &str,
    object: &mut Value,
    dry_run: bool,
) -> Answer<Reserved> {
    let request = AdmissionRequest {
        operation: Operation::Create,
        kind,
        subresource: "",
        namespace: &call.target.namespace,
        name,
        object,
        old: None,
        user: &call.user,
        warnings: &call.warnings,
        dry_run,
        requested: call.kind,
        options: WriteOptions::Query(&call.query),
        annotations: &call.annotations,
    };
    call.server.admission.validate(&request).await
}

/// The prefix and five characters out of upstream's alphabet, which spells no words.
pub(crate) fn generate_name(prefix: &str) -> String {
    const ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
    const SUFFIX_CHARS: usize = 5;
    const NAME_CHARS: usize = 63;
    let mut name: String = prefix.chars().take(NAME_CHARS - SUFFIX_CHARS).collect();
    let mut random = rand::rng();
    name.extend(
        (0..SUFFIX_CHARS).map(|_| char::from(ALPHABET[random.random_range(0..ALPHABET.len())])),
    );
    name
}
