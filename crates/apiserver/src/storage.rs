//! Between objects and the store: keys, encoding, and what the store's refusals mean to a client.

use std::sync::Arc;

use coracle_api::kinds::{self, Kind};
use coracle_api::status::Status;
use coracle_store::{Attributes, Key, Object, Range, WriteError};
use serde_json::Value;

use crate::rules;

/// The store's key of an object of this kind.
pub(crate) fn key(kind: &'static Kind, namespace: &str, name: &str) -> Key {
    let kind = kind.stored_as().unwrap_or(kind);
    let namespace = if kind.namespaced { namespace } else { "" };
    Key::new(resource_of(kind), namespace, name)
}

/// The store's range for a collection; an empty namespace means all.
pub(crate) fn range(kind: &'static Kind, namespace: &str) -> Range {
    let kind = kind.stored_as().unwrap_or(kind);
    if kind.namespaced && !namespace.is_empty() {
        Range::namespace(resource_of(kind), namespace)
    } else {
        Range::all(resource_of(kind))
    }
}

/// `pods`, `deployments.apps`; shared, so that millions of keys hold one string a kind.
fn resource_of(kind: &Kind) -> Arc<str> {
    use std::collections::HashMap;
    use std::sync::LazyLock;
    static NAMES: LazyLock<HashMap<(&str, &str), Arc<str>>> = LazyLock::new(|| {
        kinds::all()
            .iter()
            .map(|kind| ((kind.group, kind.plural), Arc::from(kind.resource())))
            .collect()
    });
    NAMES.get(&(kind.group, kind.plural)).cloned().unwrap_or_else(|| Arc::from(kind.resource()))
}

/// The kind whose objects have such keys.
pub(crate) fn kind_of(resource: &str) -> Option<&'static Kind> {
    let (plural, group) = resource.split_once('.').unwrap_or((resource, ""));
    kinds::all().iter().find(|kind| {
        kind.group == group && kind.plural == plural && matches!(kind.storage, kinds::Storage::Own)
    })
}

/// The object as the store keeps it: JSON with a place for its own revision. Custom objects are in their storage version by now.
pub(crate) fn encode(kind: &'static Kind, object: &Value) -> coracle_store::Value {
    let mut bytes = Vec::with_capacity(1024);
    let mut revision_at = 0;
    bytes.push(b'{');
    let empty = serde_json::Map::new();
    let mut written_metadata = false;
    for (field, value) in object.as_object().unwrap_or(&empty) {
        separate(&mut bytes);
        write_name(&mut bytes, field);
        if field == "metadata" {
            revision_at = encode_metadata(&mut bytes, value.as_object().unwrap_or(&empty));
            written_metadata = true;
        } else {
            write_value(&mut bytes, value);
        }
    }
    if !written_metadata {
        separate(&mut bytes);
        write_name(&mut bytes, "metadata");
        revision_at = encode_metadata(&mut bytes, &empty);
    }
    bytes.push(b'}');
    bytes.shrink_to_fit();
    coracle_store::Value { bytes, revision_at, attributes: attributes_of(kind, object) }
}

/// Writes `metadata` and answers where the revision goes.
fn encode_metadata(bytes: &mut Vec<u8>, metadata: &serde_json::Map<String, Value>) -> usize {
    bytes.push(b'{');
    for (field, value) in metadata.iter().filter(|(field, _)| field.as_str() != "resourceVersion") {
        separate(bytes);
        write_name(bytes, field);
        write_value(bytes, value);
    }
    separate(bytes);
    bytes.extend_from_slice(b"\"resourceVersion\":\"");
    let revision_at = bytes.len();
    bytes.extend_from_slice(b"\"}");
    revision_at
}

fn separate(bytes: &mut Vec<u8>) {
    if bytes.last() != Some(&b'{') {
        bytes.push(b',');
    }
}

fn write_name(bytes: &mut Vec<u8>, name: &str) {
    serde_json::to_writer(&mut *bytes, name)
        .expect("a string is always JSON, and a Vec takes every byte");
    bytes.push(b':');
}

fn write_value(bytes: &mut Vec<u8>, value: &Value) {
    serde_json::to_writer(&mut *bytes, value)
        .expect("a Value is always JSON, and a Vec takes every byte");
}

/// What selectors match on, from a decoded object.
pub(crate) fn attributes_of(kind: &'static Kind, object: &Value) -> Attributes {
    let labels = labels_of(object);
    if kind.custom.is_some() {
        return Attributes { labels, fields: Box::default() };
    }
    let fields = (rules::for_kind(kind).fields)(object);
    let fields = fields.into_iter().map(|(name, value)| (name, value.into_boxed_str())).collect();
    Attributes { labels, fields }
}

fn labels_of(object: &Value) -> Box<[(Box<str>, Box<str>)]> {
    let labels = object.pointer("/metadata/labels").and_then(Value::as_object);
    let labels = labels.into_iter().flatten();
    labels
        .filter_map(|(name, value)| Some((name.as_str().into(), value.as_str()?.into())))
        .collect()
}

/// What selectors match on, from stored bytes: what a [`coracle_store::Store`] is opened with.
pub(crate) fn attributes(key: &Key, bytes: &[u8]) -> Attributes {
    match (kind_of(&key.resource), serde_json::from_slice::<Value>(bytes)) {
        (Some(kind), Ok(object)) => attributes_of(kind, &object),
        // A custom kind: what its definition lets be selected is found when somebody asks.
        (None, Ok(object)) => Attributes { labels: labels_of(&object), fields: Box::default() },
        (_, Err(_)) => Attributes::default(),
    }
}

/// How the API server's store is opened: in this file, made when it is missing.
pub fn store_options(path: impl Into<std::path::PathBuf>) -> coracle_store::Options {
    coracle_store::Options::sqlite(path, attributes)
}

/// A stored object, decoded.
pub(crate) fn decode(object: &Object) -> Result<Value, Status> {
    serde_json::from_slice(&object.bytes).map_err(|error| {
        Status::internal(format!("stored object {} cannot be decoded: {error}", object.key))
    })
}

/// What a refused write means to the client.
pub(crate) fn write_failure(kind: &'static Kind, name: &str, error: &WriteError) -> Status {
    match error {
        WriteError::Exists(_) => Status::already_exists(kind, name),
        WriteError::Conflict { current: Some(_) } => Status::modified(kind, name),
        WriteError::Conflict { current: None } => Status::not_found(kind, name),
        WriteError::Unavailable(_) | WriteError::Closed | WriteError::Poisoned(_) => {
            Status::service_unavailable(format!("cannot write: {error}"))
        }
        WriteError::Misplaced | WriteError::Unknown(_) => {
            Status::internal(format!("cannot write: {error}"))
        }
    }
}
