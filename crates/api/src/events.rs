//! The two views of one stored Event: `v1`, in which it is stored, and `events.k8s.io/v1`.

use serde_json::{Map, Value};

use crate::kinds::Kind;

const CORE: &str = "v1";
const EVENTS: &str = "events.k8s.io/v1";

/// Names of the same field in `v1` and in `events.k8s.io/v1`.
const RENAMED: [(&str, &str); 7] = [
    ("involvedObject", "regarding"),
    ("message", "note"),
    ("reportingComponent", "reportingController"),
    ("source", "deprecatedSource"),
    ("firstTimestamp", "deprecatedFirstTimestamp"),
    ("lastTimestamp", "deprecatedLastTimestamp"),
    ("count", "deprecatedCount"),
];

/// The Event as `kind` shows it; anything that is no Event is left as it is.
pub fn to_view(kind: &Kind, event: &mut Value) {
    match (kind.kind, kind.api_version) {
        ("Event", CORE) => to_core(event),
        ("Event", EVENTS) => to_events(event),
        _ => (),
    }
}

/// From `events.k8s.io/v1` to `v1`; an Event that is one already stays as it is.
pub fn to_core(event: &mut Value) {
    rename(event, CORE, |(core, events)| (events, core));
}

/// From `v1` to `events.k8s.io/v1`; an Event that is one already stays as it is.
pub fn to_events(event: &mut Value) {
    rename(event, EVENTS, |(core, events)| (core, events));
}

/// The name in `v1` of a field of `events.k8s.io/v1`, for field selectors: `regarding.name` is `involvedObject.name`.
pub fn core_field(field: &str) -> String {
    let (first, rest) =
        field.split_once('.').map_or((field, None), |(first, rest)| (first, Some(rest)));
    let core = RENAMED.iter().find(|(_, events)| *events == first).map_or(first, |(core, _)| core);
    match rest {
        Some(rest) => format!("{core}.{rest}"),
        None => core.to_owned(),
    }
}

fn rename(
    event: &mut Value,
    version: &str,
    direction: fn((&'static str, &'static str)) -> (&'static str, &'static str),
) {
    let Some(object) = event.as_object_mut() else { return };
    let moved: Map<String, Value> = RENAMED
        .iter()
        .map(|pair| direction(*pair))
        .filter_map(|(from, to)| Some((to.to_owned(), object.remove(from)?)))
        .collect();
    object.extend(moved);
    object.insert("apiVersion".to_owned(), version.into());
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::decode::{FieldValidation, decode};
    use crate::kinds;

    fn event() -> Value {
        json!({
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": { "name": "web.1", "namespace": "default" },
            "involvedObject": { "kind": "Pod", "name": "web" },
            "reason": "Started",
            "message": "Started container",
            "source": { "component": "kubelet" },
            "firstTimestamp": "2026-11-23T06:00:00Z",
            "lastTimestamp": "2026-11-23T06:00:01Z",
            "count": 2,
            "type": "Normal",
            "reportingComponent": "kubelet",
            "reportingInstance": "node-0"
        })
    }

    #[test]
    fn each_view_fits_the_schema_of_its_kind_and_leads_back() {
        let core = kinds::by_kind("", "v1", "Event").unwrap();
        let events = kinds::by_kind("events.k8s.io", "v1", "Event").unwrap();
        assert_eq!(events.stored_as(), Some(core));
        let mut view = event();
        to_view(events, &mut view);
        assert_eq!(view["regarding"]["name"], "web");
        assert_eq!(view["note"], "Started container");
        assert_eq!(view["deprecatedCount"], 2);
        let decoded = decode(events, view.to_string().as_bytes(), FieldValidation::Strict).unwrap();
        assert_eq!(decoded.value, view);
        let again = view.clone();
        to_view(events, &mut view);
        assert_eq!(view, again, "a view of a view is the same view");
        to_view(core, &mut view);
        assert_eq!(view, event());
        assert!(decode(core, view.to_string().as_bytes(), FieldValidation::Strict).is_ok());
    }

    #[test]
    fn fields_of_selectors_are_those_of_the_stored_kind() {
        assert_eq!(core_field("regarding.name"), "involvedObject.name");
        assert_eq!(core_field("reportingController"), "reportingComponent");
        assert_eq!(core_field("metadata.name"), "metadata.name");
    }
}
