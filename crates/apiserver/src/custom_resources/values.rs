//! Pruning and defaulting: what a schema makes of a value before anybody checks it.

use coracle_api::decode::{self, FieldValidation};
use coracle_api::schema::Schema;
use serde_json::{Map, Value};

use super::schema::{Additional, Node};

/// Fields of every object that no schema has to name.
const ROOT_FIELDS: [&str; 3] = ["apiVersion", "kind", "metadata"];

/// Takes out the fields of an object that its schema does not know, and names them: `spec.a[0].b`.
pub(crate) fn prune(object: &mut Value, schema: &Node) -> Vec<String> {
    let mut pruned = Vec::new();
    prune_at(object, schema, true, &mut String::new(), &mut pruned);
    pruned
}

fn prune_at(
    value: &mut Value,
    node: &Node,
    is_root: bool,
    path: &mut String,
    pruned: &mut Vec<String>,
) {
    match value {
        Value::Object(fields) => prune_fields(fields, node, is_root, path, pruned),
        Value::Array(items) => {
            let anything = Node { preserve_unknown: true, ..Node::default() };
            let item_node = node.items.as_deref().or(node.preserve_unknown.then_some(&anything));
            let unknown = Node::default();
            for (index, item) in items.iter_mut().enumerate() {
                let length = path.len();
                path.push_str(&format!("[{index}]"));
                prune_at(item, item_node.unwrap_or(&unknown), false, path, pruned);
                path.truncate(length);
            }
        }
        _ => (),
    }
}

fn prune_fields(
    fields: &mut Map<String, Value>,
    node: &Node,
    is_root: bool,
    path: &mut String,
    pruned: &mut Vec<String>,
) {
    let is_resource = is_root || node.embedded_resource;
    fields.retain(|name, value| {
        if is_root && ROOT_FIELDS.contains(&name.as_str()) {
            return true;
        }
        let length = path.len();
        if !path.is_empty() {
            path.push('.');
        }
        path.push_str(name);
        if is_resource && ROOT_FIELDS.contains(&name.as_str()) {
            if name == "metadata" {
                pruned.extend(prune_metadata(value).iter().map(|inner| format!("{path}.{inner}")));
            }
            path.truncate(length);
            return true;
        }
        let keep = match node.property(name) {
            Some(child) => {
                prune_at(value, child, false, path, pruned);
                true
            }
            None => node.preserve_unknown || matches!(node.additional, Additional::Anything),
        };
        if !keep {
            pruned.push(path.clone());
        }
        path.truncate(length);
        keep
    });
}

/// Takes out what no metadata has. What is of a wrong type stays, for the checks to refuse.
fn prune_metadata(metadata: &mut Value) -> Vec<String> {
    let id = Schema::get().by_name("io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta");
    let known = id.and_then(|id| {
        decode::decode_type(id, metadata.to_string().as_bytes(), FieldValidation::Warn).ok()
    });
    let Some(known) = known.filter(|known| known.value.is_object()) else { return Vec::new() };
    *metadata = known.value;
    let named = known.warnings.iter().filter_map(|warning| warning.strip_prefix("unknown field "));
    named.map(|path| path.trim_matches('"').to_owned()).collect()
}

/// Fills in what the schema has defaults for, and drops nulls where null is no value.
pub(crate) fn default(value: &mut Value, node: &Node) {
    match value {
        Value::Object(fields) => {
            for (name, child) in &node.properties {
                let missing = match fields.get(name) {
                    None => true,
                    Some(Value::Null) if !child.nullable => {
                        fields.remove(name);
                        true
                    }
                    Some(_) => false,
                };
                if missing && let Some(default) = &child.default {
                    fields.insert(name.clone(), default.clone());
                }
                if let Some(value) = fields.get_mut(name) {
                    default_child(value, child);
                }
            }
            if let Additional::Each(child) = &node.additional {
                for (_, value) in
                    fields.iter_mut().filter(|(name, _)| !node.properties.contains_key(*name))
                {
                    default_null(value, child);
                    default_child(value, child);
                }
            }
        }
        Value::Array(items) => {
            if let Some(child) = &node.items {
                for value in items {
                    default_null(value, child);
                    default_child(value, child);
                }
            }
        }
        _ => (),
    }
}

fn default_child(value: &mut Value, child: &Node) {
    if !value.is_null() {
        default(value, child);
    }
}

fn default_null(value: &mut Value, child: &Node) {
    if value.is_null()
        && !child.nullable
        && let Some(default) = &child.default
    {
        *value = default.clone();
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn schema() -> Node {
        Node::read(&json!({ "type": "object", "properties": {
            "spec": { "type": "object", "default": {}, "properties": {
                "size": { "type": "integer", "default": 1 },
                "note": { "type": "string", "nullable": true },
                "free": { "type": "object", "x-kubernetes-preserve-unknown-fields": true,
                    "properties": { "known": { "type": "object", "properties": {} } } },
                "map": { "type": "object", "additionalProperties": { "type": "object", "properties": { "a": { "type": "string" } } } },
                "list": { "type": "array", "items": { "type": "object", "properties": {
                    "port": { "type": "integer" }, "protocol": { "type": "string", "default": "TCP" } } } },
                "pod": { "type": "object", "x-kubernetes-embedded-resource": true,
                    "properties": { "spec": { "type": "object" } } },
            } },
        } }))
    }

    #[test]
    fn unknown_fields_go_and_are_named() {
        let mut object = json!({ "apiVersion": "a/v1", "kind": "A", "metadata": { "name": "a", "x": 1 }, "top": 1, "spec": {
            "size": 2, "what": 1, "free": { "any": { "thing": 1 }, "known": { "gone": 1 } }, "map": { "k": { "a": "", "b": 1 } },
            "list": [{ "port": 1, "z": 1 }], "pod": { "kind": "Pod", "metadata": { "name": "p", "odd": 1 }, "spec": {}, "status": {} } } });
        let mut pruned = prune(&mut object, &schema());
        pruned.sort();
        assert_eq!(
            pruned,
            [
                "spec.free.known.gone",
                "spec.list[0].z",
                "spec.map.k.b",
                "spec.pod.metadata.odd",
                "spec.pod.status",
                "spec.what",
                "top"
            ]
        );
        assert_eq!(
            object,
            json!({ "apiVersion": "a/v1", "kind": "A", "metadata": { "name": "a", "x": 1 }, "spec": {
                "size": 2, "free": { "any": { "thing": 1 }, "known": {} }, "map": { "k": { "a": "" } }, "list": [{ "port": 1 }],
                "pod": { "kind": "Pod", "metadata": { "name": "p" }, "spec": {} } } })
        );
    }

    #[test]
    fn what_is_missing_is_filled_in() {
        let check = |given: Value, wanted: Value| {
            let mut object = given;
            default(&mut object, &schema());
            assert_eq!(object, wanted);
        };
        check(json!({}), json!({ "spec": { "size": 1 } }));
        check(
            json!({ "spec": { "size": null, "note": null, "list": [{ "port": 1 }, { "protocol": "UDP" }] } }),
            json!({ "spec": { "size": 1, "note": null, "list": [{ "port": 1, "protocol": "TCP" }, { "protocol": "UDP" }] } }),
        );
        check(
            json!({ "spec": { "free": null, "map": { "a": {} } } }),
            json!({ "spec": { "size": 1, "map": { "a": {} } } }),
        );
    }
}
