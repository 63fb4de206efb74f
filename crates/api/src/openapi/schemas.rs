//! Definitions: which ones a document needs, lists, and the form that OpenAPI v3 wants.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use super::META;
use crate::kinds::{self, GroupVersion, Kind};
use crate::schema::Schema;

pub(super) const REFERENCE: &str = "#/definitions/";

/// Upstream's name of a kind's definition.
pub(super) fn name_of(group: &str, version: &str, kind: &str) -> Option<String> {
    let schema = Schema::get();
    match schema.kind_type(group, version, kind) {
        Some(type_id) => Some(schema.type_(type_id).name.to_owned()),
        // Groups of custom kinds are domains.
        None if group.contains('.') && kinds::by_kind(group, version, kind).is_none() => {
            Some(custom_name(group, version, kind))
        }
        None => None,
    }
}

/// `com.example.stable.v1.CronTab`.
pub(super) fn custom_name(group: &str, version: &str, kind: &str) -> String {
    let domain: Vec<&str> = group.split('.').rev().collect();
    format!("{}.{version}.{kind}", domain.join("."))
}

/// Takes out of a custom kind's schema what version 2 cannot say.
pub(super) fn reduce_kind_to_v2(schema: &mut Value) {
    if schema["x-kubernetes-preserve-unknown-fields"] == true {
        // kubectl would take every field that is not named for an error, so that none may be named.
        if let Value::Object(fields) = schema {
            fields.retain(|field, _| field == "x-kubernetes-group-version-kind");
        }
        schema["type"] = "object".into();
        return;
    }
    reduce_to_v2(schema);
}

fn reduce_to_v2(schema: &mut Value) {
    let Value::Object(fields) = schema else { return };
    let holds = |field: &str| fields.get(field) == Some(&Value::Bool(true));
    let (nullable, open) = (holds("nullable"), holds("x-kubernetes-preserve-unknown-fields"));
    for field in ["nullable", "anyOf", "oneOf", "allOf", "not"] {
        fields.remove(field);
    }
    // A reader would take null, or a field of an open object, for an error.
    if nullable {
        fields.remove("type");
    }
    if nullable || open {
        for field in ["properties", "items", "additionalProperties"] {
            fields.remove(field);
        }
    }
    for (field, value) in fields {
        match field.as_str() {
            "properties" => {
                value
                    .as_object_mut()
                    .into_iter()
                    .flatten()
                    .for_each(|(_, value)| reduce_to_v2(value));
            }
            "items" | "additionalProperties" => reduce_to_v2(value),
            _ => (),
        }
    }
}

/// `PodList` and its like, which the generated data leaves out because they are all the same.
pub(super) fn add_lists(
    definitions: &mut Map<String, Value>,
    kinds: impl Iterator<Item = &'static Kind>,
) {
    for kind in kinds.filter(|kind| kind.allows("list")) {
        let Some(name) = name_of(kind.group, kind.version, kind.kind) else { continue };
        let described = |property: &str| {
            let of_kind =
                definitions.get(&name).map(|found| &found["properties"][property]["description"]);
            json!({ "description": of_kind, "type": "string" })
        };
        let list = json!({
            "description": format!("{} is a list of {} objects.", kind.list_kind, kind.kind),
            "type": "object",
            "required": ["items"],
            "properties": {
                "apiVersion": described("apiVersion"),
                "items": {
                    "description": format!("The {} objects.", kind.kind),
                    "type": "array",
                    "items": { "$ref": format!("{REFERENCE}{name}") }
                },
                "kind": described("kind"),
                "metadata": {
                    "description": "Standard list metadata.",
                    "$ref": format!("{REFERENCE}{META}.ListMeta")
                }
            },
            "x-kubernetes-group-version-kind": [
                { "group": kind.group, "kind": kind.list_kind, "version": kind.version }
            ]
        });
        definitions.insert(format!("{name}List"), list);
    }
}

/// `DeleteOptions` and `WatchEvent` are kinds of every group-version.
pub(super) fn add_shared_kinds(definitions: &mut Map<String, Value>, versions: &[GroupVersion]) {
    for shared in ["DeleteOptions", "WatchEvent"] {
        let kinds: Vec<Value> = versions
            .iter()
            .map(|served| json!({ "group": served.group, "kind": shared, "version": served.version }))
            .collect();
        if let Some(definition) = definitions.get_mut(&format!("{META}.{shared}")) {
            definition["x-kubernetes-group-version-kind"] = kinds.into();
        }
    }
}

/// The definitions that `roots` refer to, directly or not, and the roots.
pub(super) fn reachable(definitions: &Map<String, Value>, roots: Vec<String>) -> BTreeSet<String> {
    let mut found: BTreeSet<String> = roots.iter().cloned().collect();
    let mut queue = roots;
    while let Some(name) = queue.pop() {
        let mut names = Vec::new();
        if let Some(definition) = definitions.get(&name) {
            references(definition, &mut names);
        }
        queue.extend(names.into_iter().filter(|name| found.insert(name.clone())));
    }
    found
}

pub(super) fn references(schema: &Value, found: &mut Vec<String>) {
    match schema {
        Value::Object(object) => {
            if let Some(name) = object.get("$ref").and_then(Value::as_str) {
                found.push(name.trim_start_matches(REFERENCE).to_owned());
            }
            object.values().for_each(|value| references(value, found));
        }
        Value::Array(items) => items.iter().for_each(|value| references(value, found)),
        _ => (),
    }
}

/// The definitions called `names` in OpenAPI v3's form.
pub(super) fn as_v3(
    definitions: &Map<String, Value>,
    names: &BTreeSet<String>,
) -> Map<String, Value> {
    names
        .iter()
        .filter_map(|name| Some((name.clone(), definitions.get(name)?)))
        .map(|(name, definition)| {
            let mut schema = schema_as_v3(definition);
            let either = |types: [&str; 2]| types.map(|name| json!({ "type": name }));
            // Version 3 can say what version 2 could not.
            if name.ends_with(".intstr.IntOrString") {
                schema["oneOf"] = json!(either(["integer", "string"]));
                schema.as_object_mut().map(|schema| schema.remove("type"));
            } else if name.ends_with(".resource.Quantity") {
                schema["oneOf"] = json!(either(["string", "number"]));
                schema.as_object_mut().map(|schema| schema.remove("type"));
            }
            (name, schema)
        })
        .collect()
}

/// In version 3 a reference has no neighbours: with a description, it becomes one of `allOf`.
fn schema_as_v3(schema: &Value) -> Value {
    let Value::Object(object) = schema else { return schema.clone() };
    let mut converted = Map::new();
    for (key, value) in object {
        let value = match (key.as_str(), value) {
            ("$ref", Value::String(_)) => continue,
            ("properties", Value::Object(properties)) => {
                let properties = properties
                    .iter()
                    .map(|(name, property)| (name.clone(), schema_as_v3(property)));
                Value::Object(properties.collect())
            }
            ("items" | "additionalProperties", value) => schema_as_v3(value),
            (_, value) => value.clone(),
        };
        converted.insert(key.clone(), value);
    }
    if let Some(name) = object.get("$ref").and_then(Value::as_str) {
        let reference = json!({ "$ref": v3_reference(name.trim_start_matches(REFERENCE)) });
        if converted.is_empty() {
            return reference;
        }
        converted.insert("allOf".to_owned(), json!([reference]));
    }
    Value::Object(converted)
}

/// Where version 3 keeps a definition.
pub(super) fn v3_reference(name: &str) -> String {
    format!("#/components/schemas/{name}")
}

/// Where version 2 keeps a definition.
pub(super) fn v2_reference(name: &str) -> String {
    format!("{REFERENCE}{name}")
}
