//! Small readers of `metadata` over JSON objects.

use jiff::Timestamp;
use serde_json::{Map, Value};

use crate::time;

/// `metadata` of an object; `Null` if it has none.
pub fn metadata(object: &Value) -> &Value {
    &object["metadata"]
}

/// `metadata` as a map to write to; it is made if absent. Panics only if `object` is no JSON object, which decoding
/// rules out.
pub fn metadata_mut(object: &mut Value) -> &mut Map<String, Value> {
    let metadata = &mut object["metadata"];
    if !metadata.is_object() {
        *metadata = Value::Object(Map::new());
    }
    metadata.as_object_mut().expect("it was just made an object")
}

/// `metadata.name`, empty if absent.
pub fn name(object: &Value) -> &str {
    text(object, "name")
}

/// `metadata.generateName`, empty if absent.
pub fn generate_name(object: &Value) -> &str {
    text(object, "generateName")
}

/// `metadata.namespace`, empty if absent.
pub fn namespace(object: &Value) -> &str {
    text(object, "namespace")
}

/// `metadata.uid`, empty if absent.
pub fn uid(object: &Value) -> &str {
    text(object, "uid")
}

/// `metadata.resourceVersion`, empty if absent.
pub fn resource_version(object: &Value) -> &str {
    text(object, "resourceVersion")
}

/// `metadata.creationTimestamp`.
pub fn creation_timestamp(object: &Value) -> Option<Timestamp> {
    time::parse(text(object, "creationTimestamp"))
}

/// `metadata.deletionTimestamp`: set means that the object is on its way out.
pub fn deletion_timestamp(object: &Value) -> Option<Timestamp> {
    time::parse(text(object, "deletionTimestamp"))
}

/// Whether the object is on its way out.
pub fn is_deleting(object: &Value) -> bool {
    !text(object, "deletionTimestamp").is_empty()
}

/// `metadata.deletionGracePeriodSeconds`.
pub fn deletion_grace_period_seconds(object: &Value) -> Option<i64> {
    metadata(object).get("deletionGracePeriodSeconds")?.as_i64()
}

/// `metadata.generation`, 0 if absent.
pub fn generation(object: &Value) -> i64 {
    metadata(object).get("generation").and_then(Value::as_i64).unwrap_or(0)
}

/// `metadata.labels`, to be passed to [`crate::selector::LabelSelector::matches_labels`].
pub fn labels(object: &Value) -> Option<&Value> {
    metadata(object).get("labels")
}

/// One label.
pub fn label<'a>(object: &'a Value, key: &str) -> Option<&'a str> {
    metadata(object).get("labels")?.get(key)?.as_str()
}

/// Every label.
pub fn label_pairs(object: &Value) -> impl Iterator<Item = (&str, &str)> {
    pairs(object, "labels")
}

/// One annotation.
pub fn annotation<'a>(object: &'a Value, key: &str) -> Option<&'a str> {
    metadata(object).get("annotations")?.get(key)?.as_str()
}

/// Every annotation.
pub fn annotation_pairs(object: &Value) -> impl Iterator<Item = (&str, &str)> {
    pairs(object, "annotations")
}

/// `metadata.finalizers`.
pub fn finalizers(object: &Value) -> Vec<&str> {
    let list = metadata(object).get("finalizers").and_then(Value::as_array);
    list.into_iter().flatten().filter_map(Value::as_str).collect()
}

/// Whether the object has this finalizer.
pub fn has_finalizer(object: &Value, finalizer: &str) -> bool {
    finalizers(object).contains(&finalizer)
}

/// One of `metadata.ownerReferences`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OwnerReference<'a> {
    /// Group and version of the owner.
    pub api_version: &'a str,
    /// Kind of the owner.
    pub kind: &'a str,
    /// Name of the owner.
    pub name: &'a str,
    /// Uid of the owner.
    pub uid: &'a str,
    /// Whether it is the owner that manages the object.
    pub controller: bool,
    /// Whether a foreground deletion of the owner waits for the object.
    pub block_owner_deletion: bool,
}

/// `metadata.ownerReferences`.
pub fn owner_references(object: &Value) -> Vec<OwnerReference<'_>> {
    let list = metadata(object).get("ownerReferences").and_then(Value::as_array);
    list.into_iter()
        .flatten()
        .map(|reference| {
            let text = |key: &str| reference.get(key).and_then(Value::as_str).unwrap_or_default();
            let flag = |key: &str| reference.get(key).and_then(Value::as_bool).unwrap_or_default();
            OwnerReference {
                api_version: text("apiVersion"),
                kind: text("kind"),
                name: text("name"),
                uid: text("uid"),
                controller: flag("controller"),
                block_owner_deletion: flag("blockOwnerDeletion"),
            }
        })
        .collect()
}

/// The owner that manages the object.
pub fn controller(object: &Value) -> Option<OwnerReference<'_>> {
    owner_references(object).into_iter().find(|reference| reference.controller)
}

fn text<'a>(object: &'a Value, key: &str) -> &'a str {
    metadata(object).get(key).and_then(Value::as_str).unwrap_or_default()
}

fn pairs<'a>(object: &'a Value, key: &str) -> impl Iterator<Item = (&'a str, &'a str)> {
    let map = metadata(object).get(key).and_then(Value::as_object);
    map.into_iter().flatten().filter_map(|(key, value)| Some((key.as_str(), value.as_str()?)))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn metadata_is_read_as_it_stands() {
        let object = json!({ "metadata": {
            "name": "web", "namespace": "default", "uid": "u", "resourceVersion": "7", "generation": 2,
            "creationTimestamp": "2026-11-23T06:00:00Z", "deletionTimestamp": "2026-11-23T06:00:30Z", "deletionGracePeriodSeconds": 30,
            "labels": { "app": "web" }, "annotations": { "a": "b" }, "finalizers": ["x"],
            "ownerReferences": [
                { "apiVersion": "v1", "kind": "Node", "name": "n", "uid": "1" },
                { "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "r", "uid": "2", "controller": true, "blockOwnerDeletion": true }
            ]
        } });
        assert_eq!(
            (name(&object), namespace(&object), uid(&object), resource_version(&object)),
            ("web", "default", "u", "7")
        );
        assert_eq!((generation(&object), deletion_grace_period_seconds(&object)), (2, Some(30)));
        assert_eq!(
            deletion_timestamp(&object)
                .zip(creation_timestamp(&object))
                .map(|(end, start)| end.as_second() - start.as_second()),
            Some(30)
        );
        assert!(
            is_deleting(&object) && has_finalizer(&object, "x") && !has_finalizer(&object, "y")
        );
        assert_eq!(
            (label(&object, "app"), label(&object, "x"), annotation(&object, "a")),
            (Some("web"), None, Some("b"))
        );
        assert_eq!(label_pairs(&object).collect::<Vec<_>>(), [("app", "web")]);
        assert_eq!(
            controller(&object).map(|owner| (owner.kind, owner.uid)),
            Some(("ReplicaSet", "2"))
        );
        assert_eq!(owner_references(&object).len(), 2);
    }

    #[test]
    fn absent_metadata_is_empty_and_can_be_made() {
        let mut object = json!({});
        assert_eq!((name(&object), generation(&object), is_deleting(&object)), ("", 0, false));
        assert!(
            finalizers(&object).is_empty()
                && controller(&object).is_none()
                && labels(&object).is_none()
        );
        metadata_mut(&mut object).insert("name".to_owned(), "web".into());
        assert_eq!(name(&object), "web");
    }
}
