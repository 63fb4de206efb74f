//! Subresources that write a part of their object and leave the rest as it is: approval, ephemeral containers, resize, finalize.

use axum::response::Response;
use coracle_api::status::Status;
use http::StatusCode;
use serde_json::{Map, Value};

use super::super::apply;
use super::super::create::{answer_written, stored_kind};
use super::super::patch::Patch;
use super::super::update::check_uid;
use crate::answer::Answer;
use crate::call::Call;
use crate::change::{Change, Part, change};
use crate::object::{entry_object, meta, set_meta};
use crate::rules;

/// Writes the part that this subresource stands for.
pub(super) async fn write(call: &mut Call, subresource: &'static str) -> Answer<Response> {
    if call.verb == "patch" && apply::is_apply(call) {
        return apply::apply(call, Part::Subresource(subresource)).await;
    }
    let dry_run = call.query.dry_run()?;
    let kind = stored_kind(call)?;
    let source = match call.verb {
        "update" => Source::Object(call.read_object().await?),
        "patch" => Source::Patch(Patch::read(call).await?),
        _ => return Err(Status::method_not_served()),
    };
    let namespace = call.namespace().to_owned();
    let what = Change {
        kind,
        namespace: &namespace,
        name: &call.target.name,
        part: Part::Subresource(subresource),
        dry_run,
    };
    let written = change(call, &what, |old| {
        let wanted = match &source {
            Source::Object(object) => object.clone(),
            Source::Patch(patch) => {
                let mut patched = patch.apply(kind, old)?;
                if meta(&patched, "resourceVersion") == meta(old, "resourceVersion") {
                    set_meta(&mut patched, "resourceVersion", None);
                }
                patched
            }
        };
        check_uid(kind, &wanted, old)?;
        let mut new = old.clone();
        set_meta(&mut new, "resourceVersion", wanted.pointer("/metadata/resourceVersion").cloned());
        take_part(subresource, &mut new, &wanted);
        Ok(new)
    })
    .await?;
    answer_written(call, StatusCode::OK, written).await
}

enum Source {
    Object(Value),
    Patch(Patch),
}

/// Brings the subresource's part of the wanted state into the new one.
pub(crate) fn take_part(subresource: &str, new: &mut Value, wanted: &Value) {
    match subresource {
        "approval" => *new = rules::certificate::approve(wanted, new),
        "finalize" => take(entry_object(new, "spec"), wanted.get("spec"), "finalizers"),
        "ephemeralcontainers" => {
            take(entry_object(new, "spec"), wanted.get("spec"), "ephemeralContainers")
        }
        "resize" => resize(new, wanted),
        _ => (),
    }
}

fn take(target: &mut Map<String, Value>, source: Option<&Value>, field: &str) {
    match source.and_then(|source| source.get(field)) {
        Some(value) => drop(target.insert(field.to_owned(), value.clone())),
        None => drop(target.remove(field)),
    }
}

/// The resources of containers that both states have, by name, and those of the pod.
fn resize(new: &mut Value, wanted: &Value) {
    for list in ["containers", "initContainers"] {
        let wanted = wanted
            .pointer(&format!("/spec/{list}"))
            .and_then(Value::as_array)
            .cloned()
            .unwrap_or_default();
        let containers = entry_object(new, "spec").get_mut(list).and_then(Value::as_array_mut);
        for container in containers.into_iter().flatten().filter_map(Value::as_object_mut) {
            let same = wanted.iter().find(|other| other.get("name") == container.get("name"));
            for field in ["resources", "resizePolicy"] {
                let Some(same) = same else { continue };
                match same.get(field) {
                    Some(value) => drop(container.insert(field.to_owned(), value.clone())),
                    None => drop(container.remove(field)),
                }
            }
        }
    }
    take(entry_object(new, "spec"), wanted.get("spec"), "resources");
}
