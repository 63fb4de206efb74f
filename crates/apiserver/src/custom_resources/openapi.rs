//! The schemas of custom kinds as the OpenAPI documents publish them.

use coracle_api::kinds::Kind;
use serde_json::{Map, Value, json};

use super::definition::definition_of;

/// Adds what these kinds' objects look like to the definitions of a document; each under the name that `name_of` gives.
pub(crate) fn extend(
    kinds: &[&'static Kind],
    name_of: fn(&Kind) -> String,
    definitions: &mut Map<String, Value>,
) {
    for kind in kinds {
        if let Some(definition) = definition_of(kind) {
            definitions.insert(name_of(kind), published(kind, definition.open_api.clone()));
        }
    }
}

const META: &str = "#/definitions/io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta";

fn published(kind: &Kind, mut schema: Value) -> Value {
    if !schema.is_object() {
        schema = json!({ "type": "object" });
    }
    clean(&mut schema);
    name_fields(&mut schema);
    schema["x-kubernetes-group-version-kind"] =
        json!([{ "group": kind.group, "version": kind.version, "kind": kind.kind }]);
    schema
}

/// The fields that every object has.
fn name_fields(schema: &mut Value) {
    let properties = &mut schema["properties"];
    if !properties.is_object() {
        *properties = json!({});
    }
    properties["apiVersion"] = json!({ "type": "string", "description": API_VERSION });
    properties["kind"] = json!({ "type": "string", "description": KIND });
    properties["metadata"] = json!({ "description": METADATA, "$ref": META });
}

const API_VERSION: &str = "APIVersion defines the versioned schema of this representation of an object. Servers should convert \
    recognized schemas to the latest internal value, and may reject unrecognized values. More info: \
    https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#resources";
const KIND: &str = "Kind is a string value representing the REST resource this object represents. Servers may infer this from the \
    endpoint the client submits requests to. Cannot be updated. In CamelCase. More info: \
    https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#types-kinds";
const METADATA: &str = "Standard object's metadata. More info: \
    https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#metadata";

/// Takes out nulls, which no reader of schemas expects, and names the fields of objects inside.
fn clean(schema: &mut Value) {
    match schema {
        Value::Object(fields) => {
            fields.retain(|name, value| !value.is_null() || name == "default");
            fields.values_mut().for_each(clean);
            if fields.get("x-kubernetes-embedded-resource") == Some(&Value::Bool(true)) {
                name_fields(schema);
            }
        }
        Value::Array(items) => items.iter_mut().for_each(clean),
        _ => (),
    }
}
