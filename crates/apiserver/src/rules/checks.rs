//! Checks that many kinds share, each with upstream's message.

use coracle_api::names;
use coracle_api::quantity::Quantity;
use coracle_api::status::{FieldErrors, Path};
use serde_json::Value;

use crate::rules::generic;
use crate::rules::json::{Read, is_zero};

/// What is said of a field that changed though it may not.
pub const IMMUTABLE: &str = "field is immutable";
/// What is said of a number below zero.
pub const NEGATIVE: &str = "must be greater than or equal to 0";

/// The field may not change.
pub fn immutable(new: &Value, old: &Value, path: impl Into<Path>, errors: &mut FieldErrors) {
    if !generic::same(new, old) {
        errors.invalid(path, new.clone(), IMMUTABLE);
    }
}

/// The number, if there, is not below zero.
pub fn not_negative(value: &Value, path: impl Into<Path>, errors: &mut FieldErrors) {
    if value.int() < 0 {
        errors.invalid(path, value.clone(), NEGATIVE);
    }
}

/// None of the numbers is below zero.
pub fn none_negative(owner: &Value, fields: &[&str], path: &Path, errors: &mut FieldErrors) {
    for field in fields {
        not_negative(&owner[*field], path.child(field), errors);
    }
}

/// The number of one field is not above that of another.
pub fn not_above(
    owner: &Value,
    (field, bound): (&str, &str),
    detail: &str,
    path: &Path,
    errors: &mut FieldErrors,
) {
    if owner[field].int() > owner[bound].int() {
        errors.invalid(path.child(field), owner[field].clone(), detail);
    }
}

/// Conditions as most kinds have them (`ValidateConditions` of apimachinery).
pub fn conditions(conditions: &Value, path: &Path, errors: &mut FieldErrors) {
    let mut seen = Vec::new();
    for (index, condition) in conditions.items().iter().enumerate() {
        let at = path.index(index);
        let kind = condition["type"].text();
        unique(&mut seen, kind, at.child("type"), errors);
        match kind {
            "" => errors.required(at.child("type"), "must be set"),
            kind => errors.invalid_each(at.child("type"), kind, names::qualified_name(kind)),
        }
        let states = ["False", "True", "Unknown"];
        if !states.contains(&condition["status"].text()) {
            errors.not_supported(at.child("status"), condition["status"].text(), &states);
        }
        not_negative(&condition["observedGeneration"], at.child("observedGeneration"), errors);
        if is_zero(&condition["lastTransitionTime"]) {
            errors.required(at.child("lastTransitionTime"), "must be set");
        }
        reason(condition["reason"].text(), at.child("reason"), errors);
        if condition["message"].text().len() > MESSAGE_BYTES {
            errors.too_long(at.child("message"), MESSAGE_BYTES);
        }
    }
}

const MESSAGE_BYTES: usize = 32 * 1024;
const REASON_BYTES: usize = 1024;

fn reason(reason: &str, path: Path, errors: &mut FieldErrors) {
    let inside = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b',' | b':');
    let bytes = reason.as_bytes();
    let is_word = bytes.first().is_some_and(u8::is_ascii_alphabetic)
        && bytes.iter().all(inside)
        && bytes.last().is_some_and(|last| last.is_ascii_alphanumeric() || *last == b'_');
    if reason.is_empty() {
        errors.required(path, "must be set");
        return;
    }
    if !is_word {
        let detail = "a condition reason must start with alphabetic character, optionally followed by a string of \
            alphanumeric characters or '_,:', and must end with an alphanumeric character or '_' (e.g. 'my_name',  or \
            'MY_NAME',  or 'MyName',  or 'ReasonA,ReasonB',  or 'ReasonA:ReasonB', regex used for validation is \
            '[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?')";
        errors.invalid(&path, reason, detail);
    }
    if reason.len() > REASON_BYTES {
        errors.too_long(path, REASON_BYTES);
    }
}

/// The number, if there, is above zero.
pub fn positive(value: &Value, path: impl Into<Path>, errors: &mut FieldErrors) {
    if value.is_set() && value.int() <= 0 {
        errors.invalid(path, value.clone(), "must be greater than 0");
    }
}

/// The value, if not empty, is one of a few.
pub fn one_of(value: &Value, supported: &[&str], path: impl Into<Path>, errors: &mut FieldErrors) {
    if !is_zero(value) && !supported.contains(&value.text()) {
        errors.not_supported(path, value.clone(), supported);
    }
}

/// The value must be given, and be one of a few.
pub fn required_one_of(
    value: &Value,
    supported: &[&str],
    path: impl Into<Path>,
    errors: &mut FieldErrors,
) {
    if is_zero(value) {
        errors.required(path, "");
    } else {
        one_of(value, supported, path, errors);
    }
}

/// The text must be given.
pub fn required(value: &Value, path: impl Into<Path>, errors: &mut FieldErrors) {
    if is_zero(value) {
        errors.required(path, "");
    }
}

/// The text must be given and obey a check of [`names`].
pub fn required_name(
    value: &Value,
    check: fn(&str) -> Vec<String>,
    path: impl Into<Path>,
    errors: &mut FieldErrors,
) {
    if value.text().is_empty() {
        errors.required(path, "");
    } else {
        errors.invalid_each(path, value.text(), check(value.text()));
    }
}

/// Keys and values of labels.
pub fn labels(labels: &Value, path: &Path, errors: &mut FieldErrors) {
    for (key, value) in labels.entries() {
        errors.invalid_each(path, key, names::qualified_name(key));
        errors.invalid_each(path, value.text(), names::label_value(value.text()));
    }
}

/// A `metav1.LabelSelector`.
pub fn label_selector(selector: &Value, path: &Path, errors: &mut FieldErrors) {
    labels(&selector["matchLabels"], &path.child("matchLabels"), errors);
    for (index, expression) in selector["matchExpressions"].items().iter().enumerate() {
        let at = path.child("matchExpressions").index(index);
        selector_requirement(expression, &at, errors);
    }
}

fn selector_requirement(expression: &Value, at: &Path, errors: &mut FieldErrors) {
    match expression["operator"].text() {
        "In" | "NotIn" if expression["values"].size() == 0 => {
            errors.required(
                at.child("values"),
                "must be specified when `operator` is 'In' or 'NotIn'",
            );
        }
        "Exists" | "DoesNotExist" if expression["values"].size() > 0 => {
            errors.forbidden(
                at.child("values"),
                "may not be specified when `operator` is 'Exists' or 'DoesNotExist'",
            );
        }
        "In" | "NotIn" | "Exists" | "DoesNotExist" => (),
        other => errors.invalid(at.child("operator"), other, "not a valid selector operator"),
    }
    let key = expression["key"].text();
    errors.invalid_each(at.child("key"), key, names::qualified_name(key));
    for (index, value) in expression["values"].items().iter().enumerate() {
        errors.invalid_each(
            at.child("values").index(index),
            value.text(),
            names::label_value(value.text()),
        );
    }
}

/// A quantity: well written, and not below zero.
pub fn quantity_not_negative(
    value: &Value,
    path: &Path,
    errors: &mut FieldErrors,
) -> Option<Quantity> {
    match Quantity::from_value(value) {
        Ok(amount) => {
            if amount.is_negative() {
                errors.invalid(path, value.clone(), NEGATIVE);
            }
            Some(amount)
        }
        Err(error) => {
            errors.invalid(path, value.clone(), error.to_string());
            None
        }
    }
}

/// A count or a percentage: `3`, `"25%"`.
pub fn count_or_percent(value: &Value, path: &Path, errors: &mut FieldErrors) {
    match value {
        Value::Number(_) => not_negative(value, path, errors),
        Value::String(text) => errors.invalid_each(path, text, names::percent(text)),
        _ => (),
    }
}

/// A percentage above 100 is too much.
pub fn at_most_all(value: &Value, path: &Path, errors: &mut FieldErrors) {
    if percent_of(value).is_some_and(|percent| percent > 100) {
        errors.invalid(path, value.clone(), "must not be greater than 100%");
    }
}

/// Whether a count or percentage is plainly zero.
pub fn is_nothing(value: &Value) -> bool {
    match value {
        Value::Number(_) => value.int() == 0,
        Value::String(_) => percent_of(value) == Some(0),
        _ => true,
    }
}

fn percent_of(value: &Value) -> Option<i64> {
    value.text().strip_suffix('%')?.parse().ok()
}

/// The number of a port, or the name of one.
pub fn port_number_or_name(value: &Value, path: &Path, errors: &mut FieldErrors) {
    match value {
        Value::String(name) => errors.invalid_each(path, name, names::port_name(name)),
        other => number_each(other, names::port_number(other.int()), path, errors),
    }
}

/// One `invalid` for each message about a number.
pub fn number_each(value: &Value, messages: Vec<String>, path: &Path, errors: &mut FieldErrors) {
    let shown = if value.is_number() { value.clone() } else { Value::from(0) };
    for message in messages {
        errors.invalid(path, shown.clone(), message);
    }
}

/// Tells of a name that another item of the list has.
pub fn unique<'v>(
    seen: &mut Vec<&'v str>,
    name: &'v str,
    path: impl Into<Path>,
    errors: &mut FieldErrors,
) {
    if seen.contains(&name) {
        errors.duplicate(path, name);
    } else {
        seen.push(name);
    }
}
