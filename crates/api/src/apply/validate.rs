//! Whether what a client applies can be merged.

use std::collections::HashSet;

use serde_json::Value;

use super::element;
use super::types::{Atom, TypeRef};
use crate::schema::{Schema, Shape};

/// Checks a configuration against its type. Whoever applies must say what it means: unknown fields and double items are errors.
pub fn validate(type_ref: TypeRef<'_>, config: &Value) -> Result<(), String> {
    let mut errors = Vec::new();
    walk(type_ref, config, "", &mut errors);
    match errors.as_slice() {
        [] => Ok(()),
        [only] => Err(only.clone()),
        several => Err(format!("errors:\n  {}", several.join("\n  "))),
    }
}

/// The lists and maps in a configuration that would replace what is there as a whole.
pub fn atomics(type_ref: TypeRef<'_>, config: &Value) -> Vec<String> {
    let mut found = Vec::new();
    walk_atomics(type_ref, config, "", &mut found);
    found
}

fn walk_atomics(type_ref: TypeRef<'_>, value: &Value, path: &str, found: &mut Vec<String>) {
    match (type_ref.resolve(value), value) {
        (Atom::Map(entries), Value::Object(fields)) => {
            for (name, value) in fields {
                let child = entries.child(name).type_ref;
                walk_atomics(child, value, &format!("{path}.{name}"), found);
            }
        }
        (Atom::List(items), Value::Array(list)) => {
            for (index, item) in list.iter().enumerate() {
                walk_atomics(items.item, item, &format!("{path}[{index}]"), found);
            }
        }
        (Atom::Leaf, Value::Array(_) | Value::Object(_))
            if !matches!(type_ref, TypeRef::Deduced | TypeRef::Leaf) =>
        {
            found.push(path.to_owned());
        }
        _ => (),
    }
}

fn walk(type_ref: TypeRef<'_>, value: &Value, path: &str, errors: &mut Vec<String>) {
    let mut fail = |at: &str, what: String| {
        errors.push(if at.is_empty() { what } else { format!("{at}: {what}") });
    };
    match (type_ref.resolve(value), value) {
        (Atom::Map(entries), Value::Object(fields)) => {
            for (name, value) in fields {
                let (child, at) = (entries.child(name), format!("{path}.{name}"));
                if child.is_allowed {
                    walk(child.type_ref, value, &at, errors);
                } else {
                    errors.push(format!("{at}: field not declared in schema"));
                }
            }
        }
        (Atom::List(items), Value::Array(list)) => {
            let mut seen = HashSet::new();
            for (index, item) in list.iter().enumerate() {
                match items.element(item) {
                    Err(what) => errors.push(format!("{path}: element {index}: {what}")),
                    Ok(name) => {
                        let shown = element::display(&name);
                        walk(items.item, item, &format!("{path}{shown}"), errors);
                        if !seen.insert(name) {
                            errors.push(format!("{path}: duplicate entries for key {shown}"));
                        }
                    }
                }
            }
        }
        (_, Value::Null) => (),
        (Atom::Map(_), other) => fail(path, format!("expected map, got &{{{other}}}")),
        (Atom::List(_), other) => fail(path, format!("expected list, got &{{{other}}}")),
        (Atom::Leaf, value) => leaf(type_ref, value, path, errors),
    }
}

/// Values that count as a whole still have a type.
fn leaf(type_ref: TypeRef<'_>, value: &Value, path: &str, errors: &mut Vec<String>) {
    let TypeRef::Known { type_id, .. } = type_ref else { return };
    let expected = match (&Schema::get().type_(type_id).shape, value) {
        (Shape::List { item }, Value::Array(list)) => {
            let item = TypeRef::Known { type_id: *item, field: None };
            for (index, value) in list.iter().enumerate() {
                walk(item, value, &format!("{path}[{index}]"), errors);
            }
            return;
        }
        (Shape::Object(fields), Value::Object(values)) => {
            for (name, value) in values {
                let at = format!("{path}.{name}");
                match fields.get(name) {
                    Some(field) => {
                        let child = TypeRef::Known { type_id: field.type_id, field: Some(field) };
                        walk(child, value, &at, errors);
                    }
                    None => errors.push(format!("{at}: field not declared in schema")),
                }
            }
            return;
        }
        (Shape::Int32 | Shape::Int64 | Shape::Number, value) if !value.is_number() => {
            "numeric (int or float)"
        }
        (Shape::Bool, value) if !value.is_boolean() => "boolean",
        (Shape::String | Shape::Bytes | Shape::Time | Shape::MicroTime, value)
            if !value.is_string() =>
        {
            "string"
        }
        (Shape::List { .. }, _) => "list",
        (Shape::Object(_) | Shape::Map { .. }, value) if !value.is_object() => "map",
        _ => return,
    };
    errors.push(format!("{path}: expected {expected}, got &{{{value}}}"));
}
