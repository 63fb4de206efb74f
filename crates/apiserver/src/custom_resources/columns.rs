//! Tables of custom kinds: the columns that their definitions name.

use coracle_api::kinds::Kind;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::definition::{PrinterColumn, definition_of};
use crate::table;

/// The columns of a custom kind; `None` for built-in kinds.
pub(crate) fn column_definitions(kind: &Kind) -> Option<Vec<Value>> {
    let definition = definition_of(kind)?;
    let name = json!({
        "name": "Name", "type": "string", "format": "name", "priority": 0,
        "description": "Name must be unique within a namespace.",
    });
    let columns = definition.columns.iter().map(|column| {
        json!({
            "name": column.name,
            "type": column.type_,
            "format": column.format,
            "description": if column.description.is_empty() {
                format!("Custom resource definition column (in JSONPath format): {}", column.name)
            } else {
                column.description.clone()
            },
            "priority": column.priority,
        })
    });
    Some(std::iter::once(name).chain(columns).collect())
}

/// The row of one object; `None` for built-in kinds.
pub(crate) fn cells(kind: &Kind, object: &Value, now: Timestamp) -> Option<Vec<Value>> {
    let definition = definition_of(kind)?;
    let name = object["metadata"]["name"].clone();
    let cells = definition.columns.iter().map(|column| cell(column, object, now));
    Some(std::iter::once(name).chain(cells).collect())
}

fn cell(column: &PrinterColumn, object: &Value, now: Timestamp) -> Value {
    let Some(value) = column.path.as_ref().and_then(|path| path.first(object)) else {
        return Value::Null;
    };
    match (column.type_.as_str(), value) {
        (_, Value::Null) => Value::Null,
        ("integer", Value::Number(number)) => {
            number.as_i64().or_else(|| number.as_f64().map(|float| float as i64)).into()
        }
        ("number", Value::Number(_)) | ("boolean", Value::Bool(_)) => value.clone(),
        ("date", Value::String(text)) => match text.parse::<Timestamp>() {
            Ok(at) => table::human_age(at, now).into(),
            Err(_) => "<invalid>".into(),
        },
        ("string", Value::String(text)) => text.as_str().into(),
        ("string", other) => other.to_string().into(),
        _ => Value::Null,
    }
}
