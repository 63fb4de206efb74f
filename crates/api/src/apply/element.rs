//! One step of a path, as it stands in `FieldsV1`: `f:name`, `k:{"name":"web"}`, `v:"a"`, `i:0`.
//!
//! Elements are kept as this text everywhere: equal steps are equal texts, because they are written in one way only.

use serde_json::{Map, Value};

use crate::status::go_quote;

/// What marks a node itself as a member where it has children, too.
pub(super) const SELF: &str = ".";

pub(super) fn field(name: &str) -> String {
    format!("f:{name}")
}

pub(super) fn key(fields: &Map<String, Value>) -> String {
    let mut text = "k:".to_owned();
    text.push_str(&Value::Object(fields.clone()).to_string());
    text
}

pub(super) fn value(item: &Value) -> String {
    format!("v:{item}")
}

pub(super) fn index(at: usize) -> String {
    format!("i:{at}")
}

/// The name that a step of a struct or map follows.
pub(super) fn field_name(element: &str) -> Option<&str> {
    element.strip_prefix("f:")
}

/// Text that a client wrote, written in our way; `None` if it is no element that we know.
pub(super) fn canonical(text: &str) -> Option<Box<str>> {
    match text.get(..2)? {
        "f:" => Some(text.into()),
        "k:" => {
            let fields: Map<String, Value> = serde_json::from_str(&text[2..]).ok()?;
            Some(key(&fields).into())
        }
        "v:" => {
            let item: Value = serde_json::from_str(&text[2..]).ok()?;
            Some(value(&item).into())
        }
        "i:" => Some(index(text[2..].parse().ok()?).into()),
        _ => None,
    }
}

/// As messages show it: `.name`, `[name="web"]`, `[="a"]`, `[0]`.
pub(super) fn display(element: &str) -> String {
    let (kind, rest) = element.split_at_checked(2).unwrap_or_default();
    match kind {
        "f:" => format!(".{rest}"),
        "k:" => {
            let fields: Map<String, Value> = serde_json::from_str(rest).unwrap_or_default();
            let fields: Vec<String> =
                fields.iter().map(|(name, value)| format!("{name}={}", show(value))).collect();
            format!("[{}]", fields.join(","))
        }
        "v:" => {
            let item: Value = serde_json::from_str(rest).unwrap_or_default();
            format!("[={}]", show(&item))
        }
        _ => format!("[{rest}]"),
    }
}

fn show(value: &Value) -> String {
    match value {
        Value::String(text) => go_quote(text),
        other => other.to_string(),
    }
}
