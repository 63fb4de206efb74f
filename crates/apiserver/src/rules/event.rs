//! `Event`, in both its groups (`pkg/apis/core/validation/events.go`).
//!
//! Objects are stored as the core group has them. Who has an `eventTime` is of the new kind and must say more of itself; who comes
//! by the group `events.k8s.io` must be of the new kind.

use coracle_api::kinds::Kind;
use coracle_api::names;
use coracle_api::status::{FieldErrors, Path};
use serde_json::Value;

use crate::rules::Rules;
use crate::rules::checks::immutable;
use crate::rules::json::{Read, is_zero};

/// Upstream's bounds of a name, an action and a reason, and of the note.
const NAME_BYTES: usize = 128;
const NOTE_BYTES: usize = 1024;
const OTHER_NAMESPACE: &str = "does not match event.namespace";
const UNSET: &str = "needs to be unset";

pub static RULES: Rules = Rules { validate, fields, ..Rules::GENERIC };

/// Whether a request for this kind is held to the rules of the new group.
pub(crate) fn is_strict(asked: &Kind) -> bool {
    asked.group == "events.k8s.io" && asked.kind == "Event"
}

/// Checks what has come by the new group, in the words of the old one.
pub(crate) fn validate_strictly(new: &Value, old: Option<&Value>, errors: &mut FieldErrors) {
    let Some(old) = old else {
        validate_series(&new["series"], errors);
        validate_new(new, errors);
        return;
    };
    if new["series"] != old["series"] {
        validate_series(&new["series"], errors);
    }
    for (field, shown) in FIXED {
        immutable(&new[field], &old[field], shown, errors);
    }
}

/// What an update by the new group may not change, and how it is called.
const FIXED: [(&str, &str); 13] = [
    ("involvedObject", "involvedObject"),
    ("reason", "reason"),
    ("message", "message"),
    ("source", "source"),
    ("firstTimestamp", "firstTimestamp"),
    ("lastTimestamp", "lastTimestamp"),
    ("count", "count"),
    ("type", "type"),
    ("eventTime", "eventTime"),
    ("action", "action"),
    ("related", "related"),
    ("reportingComponent", "reportingController"),
    ("reportingInstance", "reportingInstance"),
];

fn validate_new(event: &Value, errors: &mut FieldErrors) {
    if is_zero(&event["eventTime"]) {
        errors.required("eventTime", "");
    }
    let kind = event["type"].text();
    if !matches!(kind, "Normal" | "Warning") {
        errors.invalid("type", "", format!("has invalid value: {kind}"));
    }
    for field in ["firstTimestamp", "lastTimestamp", "count"] {
        if !is_zero(&event[field]) {
            errors.invalid(field, "", UNSET);
        }
    }
    if ["component", "host"].iter().any(|field| !is_zero(&event["source"][*field])) {
        errors.invalid("source", "", UNSET);
    }
}

fn validate_series(series: &Value, errors: &mut FieldErrors) {
    if !series.is_set() {
        return;
    }
    if series["count"].int() < 2 {
        errors.invalid("series.count", "", "should be at least 2");
    }
    if is_zero(&series["lastObservedTime"]) {
        errors.required("series.lastObservedTime", "");
    }
}

/// An Event stands in the namespace of what it is about; about things without namespace, in `default`.
fn validate(event: &Value, errors: &mut FieldErrors) {
    let about = event["involvedObject"]["namespace"].text();
    let own = event["metadata"]["namespace"].text();
    let is_new = !is_zero(&event["eventTime"]);
    let agrees = match (about.is_empty(), is_new) {
        (true, false) => matches!(own, "" | "default"),
        (true, true) => matches!(own, "default" | "kube-system"),
        (false, false) => about == own,
        (false, true) => true,
    };
    if !agrees {
        errors.invalid(Path::new("involvedObject").child("namespace"), about, OTHER_NAMESPACE);
    }
    if is_new {
        validate_reporter(event, errors);
    }
}

/// Checks who says it, and what.
fn validate_reporter(event: &Value, errors: &mut FieldErrors) {
    let controller = event["reportingComponent"].text();
    if controller.is_empty() {
        errors.required("reportingController", "");
    }
    errors.invalid_each("reportingController", controller, names::qualified_name(controller));
    for field in ["reportingInstance", "action", "reason"] {
        let text = event[field].text();
        if text.is_empty() {
            errors.required(field, "");
        }
        bounded(text, NAME_BYTES, field, errors);
    }
    bounded(event["message"].text(), NOTE_BYTES, "message", errors);
}

fn bounded(text: &str, most: usize, path: &str, errors: &mut FieldErrors) {
    if text.len() > most {
        errors.invalid(path, "", format!("can have at most {most} characters"));
    }
}

/// The two groups share their objects, but not all names of fields: both names are looked at.
fn fields(event: &Value) -> Vec<(&'static str, String)> {
    let regarding = if event["involvedObject"].is_set() {
        &event["involvedObject"]
    } else {
        &event["regarding"]
    };
    let first = |fields: &[&Value]| {
        fields
            .iter()
            .map(|field| field.text())
            .find(|text| !text.is_empty())
            .unwrap_or_default()
            .to_owned()
    };
    let component = first(&[&event["reportingComponent"], &event["reportingController"]]);
    let source = first(&[&event["source"]["component"], &event["deprecatedSource"]["component"]]);
    let source = if source.is_empty() { component.clone() } else { source };
    vec![
        ("involvedObject.kind", regarding["kind"].text().to_owned()),
        ("involvedObject.namespace", regarding["namespace"].text().to_owned()),
        ("involvedObject.name", regarding["name"].text().to_owned()),
        ("involvedObject.uid", regarding["uid"].text().to_owned()),
        ("involvedObject.apiVersion", regarding["apiVersion"].text().to_owned()),
        ("involvedObject.resourceVersion", regarding["resourceVersion"].text().to_owned()),
        ("involvedObject.fieldPath", regarding["fieldPath"].text().to_owned()),
        ("regarding.kind", regarding["kind"].text().to_owned()),
        ("regarding.namespace", regarding["namespace"].text().to_owned()),
        ("regarding.name", regarding["name"].text().to_owned()),
        ("regarding.uid", regarding["uid"].text().to_owned()),
        ("regarding.apiVersion", regarding["apiVersion"].text().to_owned()),
        ("regarding.resourceVersion", regarding["resourceVersion"].text().to_owned()),
        ("regarding.fieldPath", regarding["fieldPath"].text().to_owned()),
        ("reason", event["reason"].text().to_owned()),
        ("reportingComponent", component.clone()),
        ("reportingController", component),
        ("source", source),
        ("type", event["type"].text().to_owned()),
    ]
}
