//! Reading and filling JSON as Go's structs are read: what is absent is empty, and indexing never fails.

use serde_json::{Map, Value};

/// Reads a value that may be absent (`Null`) or, in a badly typed object, of another type: both read as empty.
pub(crate) trait Read {
    /// The string, or `""`.
    fn text(&self) -> &str;
    /// The integer, or 0.
    fn int(&self) -> i64;
    /// The boolean, or false.
    fn flag(&self) -> bool;
    /// The items of the list, or none.
    fn items(&self) -> &[Value];
    /// The entries of the map or object, or none.
    fn entries(&self) -> impl Iterator<Item = (&String, &Value)>;
    /// Whether the field is present at all: a Go pointer that is not nil.
    fn is_set(&self) -> bool;
    /// How many items or entries there are.
    fn size(&self) -> usize;
}

impl Read for Value {
    fn text(&self) -> &str {
        self.as_str().unwrap_or_default()
    }

    fn int(&self) -> i64 {
        self.as_i64().unwrap_or_default()
    }

    fn flag(&self) -> bool {
        self.as_bool().unwrap_or_default()
    }

    fn items(&self) -> &[Value] {
        self.as_array().map(Vec::as_slice).unwrap_or_default()
    }

    fn entries(&self) -> impl Iterator<Item = (&String, &Value)> {
        self.as_object().into_iter().flatten()
    }

    fn is_set(&self) -> bool {
        !self.is_null()
    }

    fn size(&self) -> usize {
        match self {
            Value::Array(items) => items.len(),
            Value::Object(entries) => entries.len(),
            _ => 0,
        }
    }
}

/// Whether a value is what Go calls zero: absent, `""`, 0, false, or an empty list or map.
pub(crate) fn is_zero(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::Bool(true) => false,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(entries) => entries.is_empty(),
    }
}

/// The object in a field, made if it is absent.
pub(crate) fn object<'v>(parent: &'v mut Value, field: &str) -> &'v mut Value {
    let parent = as_object(parent);
    // Most objects are there already, and `entry` would copy the name of the field to find out.
    if parent.get(field).is_none_or(Value::is_null) {
        parent.insert(field.to_owned(), Value::Object(Map::new()));
    }
    parent.get_mut(field).expect("it was just made, if it was not there")
}

/// The object in a field, if it is there.
pub(crate) fn present<'v>(parent: &'v mut Value, field: &str) -> Option<&'v mut Value> {
    parent.get_mut(field).filter(|value| value.is_object())
}

/// Runs `fill` on the object in a field, if it is there.
pub(crate) fn with(parent: &mut Value, field: &str, fill: impl FnOnce(&mut Value)) {
    if let Some(child) = present(parent, field) {
        fill(child);
    }
}

/// Runs `fill` on every item of the list in a field.
pub(crate) fn each(parent: &mut Value, field: &str, fill: impl FnMut(&mut Value)) {
    if let Some(items) = parent.get_mut(field).and_then(Value::as_array_mut) {
        items.iter_mut().for_each(fill);
    }
}

/// Sets a field that is absent: a nil pointer's default.
pub(crate) fn default(parent: &mut Value, field: &str, value: impl Into<Value>) {
    let parent = as_object(parent);
    if parent.get(field).is_none_or(Value::is_null) {
        parent.insert(field.to_owned(), value.into());
    }
}

/// Sets a field that is absent or zero: a plain value's default.
pub(crate) fn default_zero(parent: &mut Value, field: &str, value: impl Into<Value>) {
    let parent = as_object(parent);
    if parent.get(field).is_none_or(is_zero) {
        parent.insert(field.to_owned(), value.into());
    }
}

/// Sets a field.
pub(crate) fn set(parent: &mut Value, field: &str, value: impl Into<Value>) {
    as_object(parent).insert(field.to_owned(), value.into());
}

/// Takes a field away.
pub(crate) fn unset(parent: &mut Value, field: &str) {
    if let Some(parent) = parent.as_object_mut() {
        parent.remove(field);
    }
}

fn as_object(value: &mut Value) -> &mut Map<String, Value> {
    if !value.is_object() {
        *value = Value::Object(Map::new());
    }
    value.as_object_mut().expect("made an object above")
}
