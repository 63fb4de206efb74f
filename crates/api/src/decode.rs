//! From bytes to an object of a kind, driven by the schema.

use serde_json::Value;

use crate::kinds::Kind;
use crate::schema::TypeId;
use crate::status::Status;

/// What to do about unknown and duplicate fields.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum FieldValidation {
    /// Drop them silently.
    Ignore,
    /// Drop them, and say so.
    #[default]
    Warn,
    /// Refuse the object.
    Strict,
}

/// An object that has the right shape.
#[derive(Debug, Clone, PartialEq)]
pub struct Decoded {
    /// The object, with `apiVersion` and `kind`.
    pub value: Value,
    /// One for each unknown or duplicate field, for `Warning` headers.
    pub warnings: Vec<String>,
}

/// Why bytes are no object of the kind.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct DecodeError {
    message: String,
}

impl DecodeError {
    /// The answer to a create or update with these bytes.
    pub fn status(&self) -> Status {
        Status::bad_request(self.message.clone())
    }

    /// The answer to a patch whose result, `patched`, is no object of the kind.
    pub fn patch_status(&self, patched: &str) -> Status {
        Status::bad_request(format!("{patched}: {}", self.message))
    }
}

impl FieldValidation {
    /// Reads the query parameter; absent or empty is [`FieldValidation::Warn`].
    pub fn parse(text: Option<&str>) -> Option<Self> {
        match text.unwrap_or_default() {
            "" | "Warn" => Some(Self::Warn),
            "Strict" => Some(Self::Strict),
            "Ignore" => Some(Self::Ignore),
            _ => None,
        }
    }
}

/// Decodes an object of `kind`; absent `apiVersion` and `kind` are filled in.
pub fn decode(kind: &Kind, bytes: &[u8], validation: FieldValidation) -> Result<Decoded, DecodeError> {
    decode_body(kind.group, kind.version, kind.kind, bytes, validation)
}

/// Decodes an object of a kind outside the table: `Scale`, `Eviction`, `TokenRequest`, `DeleteOptions`.
pub fn decode_body(
    _group: &str,
    _version: &str,
    _kind: &str,
    bytes: &[u8],
    _validation: FieldValidation,
) -> Result<Decoded, DecodeError> {
    serde_json::from_slice(bytes)
        .map(|value| Decoded { value, warnings: Vec::new() })
        .map_err(|error| DecodeError { message: error.to_string() })
}

/// Checks an object that a patch made, as if it had come in as bytes.
pub fn check(kind: &Kind, value: &Value, validation: FieldValidation) -> Result<Decoded, DecodeError> {
    decode(kind, &serde_json::to_vec(value).unwrap_or_default(), validation)
}

/// Decodes a value of any type of the schema.
pub fn decode_type(_type_id: TypeId, bytes: &[u8], validation: FieldValidation) -> Result<Decoded, DecodeError> {
    decode_body("", "", "", bytes, validation)
}
