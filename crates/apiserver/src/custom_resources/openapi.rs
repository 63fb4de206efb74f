//! The schemas of custom kinds as the OpenAPI documents publish them.

use coracle_api::kinds::Kind;
use coracle_store::Store;
use serde_json::{Map, Value, json};

use super::definition::definition_of;
use crate::storage;

/// Adds what these kinds' objects look like to the definitions of a document; each under the name that `name_of` gives.
pub(crate) fn extend(
    store: &Store,
    kinds: &[&'static Kind],
    name_of: fn(&Kind) -> String,
    definitions: &mut Map<String, Value>,
) {
    let Some(of_definitions) =
        coracle_api::kinds::by_kind("apiextensions.k8s.io", "v1", "CustomResourceDefinition")
    else {
        return;
    };
    for kind in kinds {
        let Some(definition) = definition_of(kind) else { continue };
        let key = storage::key(of_definitions, "", &definition.name);
        let Some(Ok(stored)) = store.get(&key).map(|object| storage::decode(&object)) else {
            continue;
        };
        let mut versions = stored["spec"]["versions"].as_array().into_iter().flatten();
        let version = versions.find(|version| version["name"] == kind.version);
        let schema = version.map(|version| version["schema"]["openAPIV3Schema"].clone());
        definitions.insert(name_of(kind), published(kind, schema.unwrap_or(Value::Null)));
    }
}

const META: &str = "#/definitions/io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta";

fn published(kind: &Kind, mut schema: Value) -> Value {
    if !schema.is_object() {
        schema = json!({ "type": "object" });
    }
    clean(&mut schema);
    let open =
        schema["x-kubernetes-preserve-unknown-fields"] == true && !schema["properties"].is_object();
    if !open || !schema["properties"].is_object() {
        let properties = &mut schema["properties"];
        if !properties.is_object() {
            *properties = json!({});
        }
        properties["apiVersion"] = json!({ "type": "string", "description": API_VERSION });
        properties["kind"] = json!({ "type": "string", "description": KIND });
        properties["metadata"] = json!({ "description": METADATA, "$ref": META });
    }
    schema["x-kubernetes-group-version-kind"] =
        json!([{ "group": kind.group, "version": kind.version, "kind": kind.kind }]);
    schema
}

const API_VERSION: &str = "APIVersion defines the versioned schema of this representation of an object. Servers should convert \
    recognized schemas to the latest internal value, and may reject unrecognized values. More info: \
    https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#resources";
const KIND: &str = "Kind is a string value representing the REST resource this object represents. Servers may infer this from the \
    endpoint the client submits requests to. Cannot be updated. In CamelCase. More info: \
    https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#types-kinds";
const METADATA: &str = "Standard object's metadata. More info: \
    https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#metadata";

/// Takes out nulls, which no reader of schemas expects.
fn clean(schema: &mut Value) {
    match schema {
        Value::Object(fields) => {
            fields.retain(|name, value| !value.is_null() || name == "default");
            fields.values_mut().for_each(clean);
        }
        Value::Array(items) => items.iter_mut().for_each(clean),
        _ => (),
    }
}
