//! `PATCH` with `application/apply-patch+yaml`: server-side apply.

use std::sync::atomic::{AtomicBool, Ordering};

use axum::response::Response;
use coracle_api::apply::{
    self, Applied, Apply, FieldSet, Managed, Manager, Operation, unchanged_since,
};
use coracle_api::decode::FieldValidation;
use coracle_api::kinds::Kind;
use coracle_api::status::{Reason, Status};
use coracle_store::Key;
use http::StatusCode;
use serde_json::{Value, json};

use super::create::{Written, answer_written, create_object, place_in_namespace, stored_kind};
use super::subresources::parts;
use super::update::{check_create, check_name, check_uid};
use crate::answer::Answer;
use crate::call::{Call, yaml_to_json};
use crate::change::{Change, Part, change_with};
use crate::custom_resources;
use crate::managed_fields::{self, APPLY_PATCH, Books, Shape, Translated};
use crate::object::{self, meta, set_meta};
use crate::{limits, storage, views, yaml};

/// Where client-side `kubectl apply` left what it applied last.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// Whether the body is to be applied.
pub(crate) fn is_apply(call: &Call) -> bool {
    call.content_type() == APPLY_PATCH
}

/// Makes an object, or this part of it, what the client wants in all that the client mentions.
pub(super) async fn apply(call: &mut Call, part: Part) -> Answer<Response> {
    let (raw, config) = read_config(call).await?;
    let kind = stored_kind(call)?;
    let mut config = views::write(call.kind, config);
    place_in_namespace(call, &mut config)?;
    check_name(call, &mut config)?;
    let (code, written) = write(call, &Wish { kind, part, config, raw }).await?;
    answer_written(call, code, written).await
}

/// What the client wants.
pub(crate) struct Wish {
    /// The stored kind.
    pub(crate) kind: &'static Kind,
    pub(crate) part: Part,
    /// In the form of the stored kind.
    pub(crate) config: Value,
    /// As the client sent it.
    pub(crate) raw: Value,
}

/// The body as the client wrote it, and decoded as an object of the call's kind.
async fn read_config(call: &mut Call) -> Answer<(Value, Value)> {
    let json = read_json(call).await?;
    let raw: Value = coracle_api::decode::parse(&json)
        .map_err(|error| Status::bad_request(format!("error decoding YAML: {error}")))?;
    let kind = call.kind;
    check_kind(&raw, kind.group, kind.version, kind.kind)?;
    if raw.pointer("/metadata/managedFields").is_some_and(|list| !list.is_null()) {
        return Err(Status::bad_request("metadata.managedFields must be nil"));
    }
    apply::validate(Shape::of(kind).type_ref(), &raw).map_err(|what| {
        let (namespace, name) = (meta(&raw, "namespace"), meta(&raw, "name"));
        let Kind { group, version, kind, .. } = kind;
        Status::bad_request(format!(
            "failed to create typed patch object ({namespace}/{name}; {group}/{version}, Kind={kind}): {what}"
        ))
    })?;
    let config = call.decode_object(&json)?;
    Ok((raw, config))
}

/// The body as JSON text. JSON is YAML, and common: the faster reader gets it first.
pub(crate) async fn read_json(call: &mut Call) -> Answer<bytes::Bytes> {
    let body = call.read_body().await?;
    if serde_json::from_slice::<&serde_json::value::RawValue>(&body).is_ok() {
        return Ok(body);
    }
    let json = yaml_to_json(&body).map_err(|status| {
        Status::bad_request(
            status.message.replace("converting YAML to JSON: yaml", "decoding YAML"),
        )
    })?;
    check_repeated_keys(call, &body)?;
    Ok(json)
}

/// A key that a mapping has twice is an error or a warning, as the client wants.
fn check_repeated_keys(call: &mut Call, yaml: &[u8]) -> Answer<()> {
    let validation = call.field_validation()?;
    if validation == FieldValidation::Ignore {
        return Ok(());
    }
    let Some(repeated) = yaml::repeated_keys(yaml) else { return Ok(()) };
    let what = format!("error converting YAML to JSON: {repeated}");
    if validation == FieldValidation::Strict {
        return Err(Status::bad_request(format!("error strict decoding YAML: {what}")));
    }
    call.warnings.extend([what]);
    Ok(())
}

/// A configuration must say what it is about.
pub(crate) fn check_kind(raw: &Value, group: &str, version: &str, kind: &str) -> Answer<()> {
    let text = |field: &str| raw.get(field).and_then(Value::as_str).unwrap_or_default();
    let (found_group, found_version) = coracle_api::kinds::split_api_version(text("apiVersion"));
    if (found_group, found_version, text("kind")) == (group, version, kind) {
        return Ok(());
    }
    let found = text("kind");
    Err(Status::bad_request(format!(
        "invalid object type: {found_group}/{found_version}, Kind={found}"
    )))
}

/// Creates the object or changes it, whichever is due when the write succeeds.
pub(crate) async fn write(call: &mut Call, wish: &Wish) -> Answer<(StatusCode, Written)> {
    managed_fields::check_options(call, "PatchOptions")?;
    let (name, dry_run) = (call.target.name.clone(), call.query.dry_run()?);
    let namespace = call.namespace().to_owned();
    let key = storage::key(wish.kind, &namespace, &name);
    for _ in 0..limits::WRITE_ATTEMPTS {
        if call.server.store.get(&key).is_some() {
            let Wish { kind, part, .. } = *wish;
            let what = Change { kind, namespace: &namespace, name: &name, part, dry_run };
            let translated = translate(call, wish, &key).await?;
            let is_late = AtomicBool::new(false);
            let written = change_with(call, &what, Books::Brought, |old| {
                let translated = translated.as_ref().filter(|translated| translated.is_of(old));
                if translated.is_none() && managed_fields::has_elsewhere(kind, old) {
                    is_late.store(true, Ordering::Relaxed);
                    return Err(Status::modified(kind, &name));
                }
                applied(call, wish, old, translated)
            })
            .await;
            match written {
                // Somebody wrote since the translation: it has to be made again.
                Err(_) if is_late.load(Ordering::Relaxed) => (),
                Err(status) if status.reason == Reason::NotFound && wish.part == Part::Whole => (),
                written => return Ok((StatusCode::OK, written?)),
            }
            continue;
        }
        if wish.part != Part::Whole {
            return Err(Status::not_found(wish.kind, &name));
        }
        match create(call, wish, dry_run).await {
            Err(status) if status.reason == Reason::AlreadyExists => (),
            written => return Ok((StatusCode::CREATED, written?)),
        }
    }
    Err(Status::modified(wish.kind, &name))
}

/// Who wants what in the object as it is, if some say so in another version than the wish.
async fn translate(call: &Call, wish: &Wish, key: &Key) -> Answer<Option<Translated>> {
    let Some(current) = call.server.store.get(key).filter(|_| wish.kind.custom.is_some()) else {
        return Ok(None);
    };
    let live = custom_resources::decoded(wish.kind, current).await?;
    Translated::of(call, wish.kind, &live).await
}

async fn create(call: &mut Call, wish: &Wish, dry_run: bool) -> Answer<Written> {
    let uid = meta(&wish.config, "uid");
    if !uid.is_empty() {
        let why = format!(
            "uid mismatch: the provided object specified uid {uid}, and no existing object was found"
        );
        return Err(Status::conflict(wish.kind, &call.target.name, why));
    }
    if !meta(&wish.config, "resourceVersion").is_empty() {
        return Err(Status::modified(wish.kind, &call.target.name));
    }
    check_create(call)?;
    let Applied { mut object, managed } = merge(call, wish, &json!({}), Managed::default())
        .map_err(|conflicts| conflicts.status())?;
    managed_fields::put(&mut object, managed.to_json());
    create_object(call, object, dry_run, Books::Brought).await
}

/// The state that the wish makes of the current one.
fn applied(
    call: &Call,
    wish: &Wish,
    old: &Value,
    translated: Option<&Translated>,
) -> Answer<Value> {
    check_uid(wish.kind, &wish.config, old)?;
    let mut live = old.clone();
    let managed = managed_fields::take(&mut live);
    let managed = managed.as_ref().and_then(Managed::read).unwrap_or_default();
    let managed = translated.map_or(managed, |translated| translated.managed.clone());
    let merged = match merge(call, wish, &live, managed.clone()) {
        Err(conflicts) if is_kubectl(call) => {
            let allowed = from_client_side(wish.kind, &live);
            let left = conflicts.without(&allowed);
            if !left.0.is_empty() {
                return Err(left.status());
            }
            merge_as(call, wish, &live, managed, true)
        }
        merged => merged,
    };
    let Applied { mut object, managed } = merged.map_err(|conflicts| conflicts.status())?;
    // Who scales wishes for nothing but the scale.
    if let Part::Subresource(subresource) = wish.part
        && subresource != "scale"
    {
        let mut new = live.clone();
        let revision = object.pointer("/metadata/resourceVersion").cloned();
        set_meta(&mut new, "resourceVersion", revision);
        parts::take_part(subresource, &mut new, &object);
        object = new;
    }
    if is_kubectl(call) && last_applied(&live).is_some() {
        let mut text = wish.raw.to_string();
        text.push('\n');
        object["metadata"]["annotations"][LAST_APPLIED] = json!(text);
    }
    if meta(&wish.config, "resourceVersion").is_empty() {
        set_meta(&mut object, "resourceVersion", None);
    }
    let managed = match translated {
        Some(translated) => translated.restore(managed),
        None => managed,
    };
    managed_fields::put(&mut object, managed.to_json());
    Ok(object)
}

fn merge(
    call: &Call,
    wish: &Wish,
    live: &Value,
    managed: Managed,
) -> Result<Applied, apply::Conflicts> {
    merge_as(call, wish, live, managed, call.query.flag("force"))
}

fn merge_as(
    call: &Call,
    wish: &Wish,
    live: &Value,
    managed: Managed,
    force: bool,
) -> Result<Applied, apply::Conflicts> {
    let manager: Manager = managed_fields::writer(call, wish.kind, wish.part, Operation::Apply);
    apply::apply(Apply {
        type_ref: Shape::of(wish.kind).type_ref(),
        live,
        config: &wish.config,
        managed,
        manager,
        force,
        ignored: &managed_fields::out_of_reach(wish.kind, wish.part),
        now: &object::now(),
    })
}

/// kubectl's own name among managers: it may take over from its client-side self.
fn is_kubectl(call: &Call) -> bool {
    call.query.get("fieldManager") == Some("kubectl")
}

fn last_applied(live: &Value) -> Option<&str> {
    let text = live.get("metadata")?.get("annotations")?.get(LAST_APPLIED)?.as_str()?;
    Some(text).filter(|text| !text.is_empty())
}

/// The fields that client-side apply set and nobody has changed since.
fn from_client_side(kind: &'static Kind, live: &Value) -> FieldSet {
    let last = last_applied(live).and_then(|text| serde_json::from_str::<Value>(text).ok());
    match last.filter(|last| last.get("apiVersion") == live.get("apiVersion")) {
        Some(last) => unchanged_since(Shape::of(kind).type_ref(), &last, live),
        None => FieldSet::default(),
    }
}
