//! Kinds that are another spelling of what the store holds: `events.k8s.io/v1` Events are `v1` Events.

mod autoscaler;

use coracle_api::kinds::{Kind, Storage};
use serde_json::{Map, Value, json};

use crate::custom_resources;

/// Whether stored objects must be rewritten for this kind.
pub(crate) fn is_view(kind: &Kind) -> bool {
    matches!(kind.storage, Storage::View { .. }) || custom_resources::rewrites(kind)
}

/// From what is stored to what this kind shows.
pub(crate) fn read(kind: &Kind, mut stored: Value) -> Value {
    custom_resources::read(kind, &mut stored);
    convert(kind, stored, Direction::Read)
}

/// From what a client of this kind wrote to what is stored.
pub(crate) fn write(kind: &'static Kind, object: Value) -> Value {
    convert(kind, object, Direction::Write)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Direction {
    Read,
    Write,
}

fn convert(kind: &Kind, mut object: Value, direction: Direction) -> Value {
    let Storage::View { group, version, kind: stored_kind } = kind.storage else { return object };
    let (api_version, kind_name) = match direction {
        Direction::Read => (kind.api_version.to_owned(), kind.kind),
        Direction::Write => (coracle_api::kinds::api_version(group, version), stored_kind),
    };
    if let Some(fields) = object.as_object_mut() {
        fields.insert("apiVersion".to_owned(), json!(api_version));
        fields.insert("kind".to_owned(), json!(kind_name));
        if kind.kind == "Event" {
            rename_event_fields(fields, direction);
        } else if kind.kind == "HorizontalPodAutoscaler" {
            match direction {
                Direction::Read => autoscaler::read(fields),
                Direction::Write => autoscaler::write(fields),
            }
        }
    }
    object
}

/// (core/v1, events.k8s.io/v1); the rest has the same names in both.
const EVENT_FIELDS: [(&str, &str); 7] = [
    ("involvedObject", "regarding"),
    ("message", "note"),
    ("reportingComponent", "reportingController"),
    ("source", "deprecatedSource"),
    ("firstTimestamp", "deprecatedFirstTimestamp"),
    ("lastTimestamp", "deprecatedLastTimestamp"),
    ("count", "deprecatedCount"),
];

fn rename_event_fields(fields: &mut Map<String, Value>, direction: Direction) {
    for (core, events) in EVENT_FIELDS {
        let (from, to) = if direction == Direction::Read { (core, events) } else { (events, core) };
        if let Some(value) = fields.remove(from) {
            fields.insert(to.to_owned(), value);
        }
    }
}
