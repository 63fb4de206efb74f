//! The three kinds of patches as pure functions on JSON.
//!
//! What comes out still has to pass [`crate::decode::check`]: a patch can write anything anywhere.

use serde_json::{Map, Value};

use crate::decode;
use crate::schema::TypeId;
use crate::status::Status;

mod json;
mod strategic;

/// Why a patch cannot be applied.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PatchError {
    /// It is no patch: 400.
    #[error("{0}")]
    Malformed(String),
    /// It does not fit the object: 422.
    #[error("{0}")]
    Inapplicable(String),
    /// It asks for more work than we do for one request: 413.
    #[error("{0}")]
    TooLarge(String),
}

impl PatchError {
    /// The answer to the request.
    pub fn status(&self) -> Status {
        match self {
            Self::Malformed(message) => Status::bad_request(message.clone()),
            Self::Inapplicable(message) => Status::unprocessable(message),
            Self::TooLarge(message) => {
                let reason = crate::status::Reason::RequestEntityTooLarge;
                Status::new(413, reason, format!("Request entity too large: {message}"))
            }
        }
    }
}

/// Applies an RFC 6902 patch.
pub fn json_patch(original: &Value, patch: &[u8]) -> Result<Value, PatchError> {
    json::apply(original.clone(), &parse(patch)?)
}

/// Applies an RFC 7386 merge patch.
pub fn merge_patch(original: &Value, patch: &[u8]) -> Result<Value, PatchError> {
    let patch = parse(patch)?;
    if !patch.is_object() {
        return Err(PatchError::Malformed("Invalid JSON Patch".to_owned()));
    }
    let mut merged = original.clone();
    merge(&mut merged, patch);
    Ok(merged)
}

/// Applies a strategic merge patch to an object of the type. Without a type (a kind made at run time) upstream
/// answers 415 instead.
pub fn strategic_merge_patch(
    type_id: TypeId,
    original: &Value,
    patch: &[u8],
) -> Result<Value, PatchError> {
    match (original.clone(), parse(patch)?) {
        (Value::Object(original), Value::Object(patch)) => {
            strategic::apply(type_id, original, patch)
        }
        _ => Err(PatchError::Malformed("Invalid JSON document".to_owned())),
    }
}

fn parse(patch: &[u8]) -> Result<Value, PatchError> {
    decode::parse(patch)
        .map_err(|wrong| PatchError::Malformed(format!("error decoding patch: {wrong}")))
}

fn merge(target: &mut Value, patch: Value) {
    let Value::Object(patch) = patch else {
        *target = patch;
        return;
    };
    if !target.is_object() {
        *target = Value::Object(Map::new());
    }
    let Some(target) = target.as_object_mut() else { return };
    for (key, value) in patch {
        if value.is_null() {
            target.remove(&key);
        } else {
            merge(target.entry(key).or_insert(Value::Null), value);
        }
    }
}

#[cfg(test)]
mod tests;
