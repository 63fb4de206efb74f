//! The `scale` of whatever has replicas: one small kind, the same for all of them.

use axum::response::Response;
use std::sync::Arc;

use coracle_api::decode::{FieldValidation, decode_body};
use coracle_api::kinds::Kind;
use coracle_api::selector::LabelSelector;
use coracle_api::status::{FieldErrors, Status};
use http::StatusCode;
use serde_json::{Value, json};

use super::super::apply::{self, Wish};
use super::super::create::{Written, stored_kind};
use super::super::patch::Patch;
use crate::answer::{self, Answer};
use crate::call::Call;
use crate::change::{Change, Part, change};
use crate::custom_resources::{self, Definition, JsonPath};
use crate::object::{entry_object, meta, set_meta, text};
use crate::printing::Include;
use crate::{storage, views};

/// Reads or writes the scale of an object.
pub(super) async fn scale(call: &mut Call) -> Answer<Response> {
    let kind = stored_kind(call)?;
    let name = call.target.name.clone();
    let dry_run = call.query.dry_run()?;
    let source = match call.verb {
        "get" => {
            let object = call.server.store.get(&storage::key(kind, call.namespace(), &name));
            let object = object.ok_or_else(|| Status::not_found(kind, &name))?;
            let object = custom_resources::bring(call.kind, object).await?;
            let object = views::read(call.kind, storage::decode(&object)?);
            return answer_scale(call, &object);
        }
        "update" => {
            let json = call.read_json().await?;
            Source::Scale(call.decode_as("autoscaling", "v1", "Scale", &json)?)
        }
        "patch" if apply::is_apply(call) => return apply_scale(call, kind).await,
        "patch" => Source::Patch(Patch::read(call).await?),
        _ => return Err(Status::method_not_served()),
    };
    let namespace = call.namespace().to_owned();
    let what = Change {
        kind,
        namespace: &namespace,
        name: &name,
        part: Part::Subresource("scale"),
        dry_run,
    };
    let written = change(call, &what, |old| {
        let scale = match &source {
            Source::Scale(scale) => scale.clone(),
            Source::Patch(patch) => patched_scale(patch, kind, old)?,
        };
        with_scale(&scale, kind, &name, old)
    })
    .await?;
    answer_written_scale(call, written).await
}

async fn answer_written_scale(call: &Call, written: Written) -> Answer<Response> {
    match written {
        Written::Stored(object) => {
            answer_scale(call, &custom_resources::decoded(call.kind, object).await?)
        }
        Written::Imagined(object) => answer_scale(call, &object),
    }
}

/// A scale that is applied is an object of which nothing but the replicas is said.
async fn apply_scale(call: &mut Call, kind: &'static Kind) -> Answer<Response> {
    let json = apply::read_json(call).await?;
    let scale = call.decode_as("autoscaling", "v1", "Scale", &json)?;
    let mut config = json!({
        "apiVersion": kind.api_version, "kind": kind.kind, "metadata": scale["metadata"],
    });
    if let Some(replicas) = scale.pointer("/spec/replicas") {
        match custom_scale(kind).as_ref().and_then(|definition| definition.scale.as_ref()) {
            Some(scale) => scale.spec_replicas.set(&mut config, replicas.clone()),
            None => config["spec"] = json!({ "replicas": replicas }),
        }
    }
    let part = Part::Subresource("scale");
    let wish = Wish { kind, part, raw: config.clone(), config };
    let (_, written) = apply::write(call, &wish).await?;
    answer_written_scale(call, written).await
}

enum Source {
    Scale(Value),
    Patch(Patch),
}

fn patched_scale(patch: &Patch, kind: &Kind, old: &Value) -> Answer<Value> {
    let patched = patch.apply_to("autoscaling", "v1", "Scale", &scale_of(kind, old))?;
    let bytes = patched.to_string();
    let decoded =
        decode_body("autoscaling", "v1", "Scale", bytes.as_bytes(), FieldValidation::Ignore);
    let mut scale = decoded.map_err(|error| error.patch_status(&bytes))?.value;
    if meta(&scale, "resourceVersion") == meta(old, "resourceVersion") {
        set_meta(&mut scale, "resourceVersion", None);
    }
    Ok(scale)
}

/// The object with the replicas that the scale wants.
pub(crate) fn with_scale(scale: &Value, kind: &Kind, name: &str, old: &Value) -> Answer<Value> {
    let replicas = scale.pointer("/spec/replicas").and_then(Value::as_i64).unwrap_or(0);
    let mut errors = FieldErrors::new();
    if replicas < 0 {
        errors.invalid("spec.replicas", replicas, "must be greater than or equal to 0");
    }
    if !errors.is_empty() {
        return Err(Status::invalid_kind("autoscaling", "Scale", name, &errors));
    }
    let mut new = old.clone();
    set_meta(&mut new, "resourceVersion", scale.pointer("/metadata/resourceVersion").cloned());
    match custom_scale(kind) {
        Some(definition) => {
            if let Some(scale) = &definition.scale {
                scale.spec_replicas.set(&mut new, json!(replicas));
            }
        }
        None => drop(entry_object(&mut new, "spec").insert("replicas".to_owned(), json!(replicas))),
    }
    Ok(new)
}

fn answer_scale(call: &Call, object: &Value) -> Answer<Response> {
    // A Scale has no table of its own: the generic one shows its name.
    let representation = call.representation;
    Ok(answer::shown(
        representation,
        Include::read(&call.query)?,
        StatusCode::OK,
        call.kind,
        scale_of(call.kind, object),
    ))
}

/// The definition that says where the scale of this custom kind is.
fn custom_scale(kind: &Kind) -> Option<Arc<Definition>> {
    custom_resources::definition_of(kind).filter(|definition| definition.scale.is_some())
}

/// The scale of an object.
pub(crate) fn scale_of(kind: &Kind, object: &Value) -> Value {
    let mut metadata = json!({});
    for field in ["name", "namespace", "uid", "resourceVersion", "creationTimestamp"] {
        if let Some(value) = object.pointer("/metadata").and_then(|metadata| metadata.get(field)) {
            metadata[field] = value.clone();
        }
    }
    let number = |pointer: &str| object.pointer(pointer).and_then(Value::as_i64).unwrap_or(0);
    let (wanted, found, selector) = match custom_scale(kind)
        .as_deref()
        .and_then(|definition| definition.scale.as_ref())
    {
        Some(scale) => {
            let number = |path: &JsonPath| path.first(object).and_then(Value::as_i64).unwrap_or(0);
            let selector = scale.selector.as_ref().and_then(|path| path.first(object)?.as_str());
            (
                number(&scale.spec_replicas),
                number(&scale.status_replicas),
                selector.unwrap_or_default().to_owned(),
            )
        }
        None => (number("/spec/replicas"), number("/status/replicas"), selector_text(object)),
    };
    let mut scale = json!({
        "kind": "Scale",
        "apiVersion": "autoscaling/v1",
        "metadata": metadata,
        "spec": { "replicas": wanted },
        "status": { "replicas": found },
    });
    if !selector.is_empty() {
        scale["status"]["selector"] = json!(selector);
    }
    scale
}

/// The selector in the form that clients put into a query.
fn selector_text(object: &Value) -> String {
    let selector = object.pointer("/spec/selector");
    let parsed = if text(object, "/kind") == "ReplicationController" {
        Ok(LabelSelector::from_map(selector))
    } else {
        LabelSelector::from_value(selector)
    };
    parsed.map(|selector| selector.to_string()).unwrap_or_default()
}
