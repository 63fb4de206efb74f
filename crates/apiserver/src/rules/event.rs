//! `Event`, in both its groups.

use coracle_api::status::{FieldErrors, Path};
use serde_json::Value;

use crate::rules::Rules;
use crate::rules::json::Read;

pub static RULES: Rules = Rules { validate, fields, ..Rules::GENERIC };

/// An Event stands in the namespace of what it is about; about things without namespace, in `default`.
fn validate(event: &Value, errors: &mut FieldErrors) {
    let name = if event["involvedObject"].is_set() { "involvedObject" } else { "regarding" };
    let about = event[name]["namespace"].text();
    let own = event["metadata"]["namespace"].text();
    let agrees =
        if about.is_empty() { matches!(own, "" | "default" | "kube-system") } else { about == own };
    if !agrees {
        errors.invalid(Path::new(name).child("namespace"), about, "does not match event.namespace");
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
