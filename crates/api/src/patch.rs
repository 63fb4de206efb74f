//! The three kinds of patches as pure functions on JSON.

use serde_json::Value;

use crate::schema::TypeId;
use crate::status::Status;

/// Why a patch cannot be applied.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PatchError {
    /// It is no patch: 400.
    #[error("{0}")]
    Malformed(String),
    /// It does not fit the object: 422.
    #[error("{0}")]
    Inapplicable(String),
}

impl PatchError {
    /// The answer to the request.
    pub fn status(&self) -> Status {
        match self {
            Self::Malformed(message) => Status::bad_request(message.clone()),
            Self::Inapplicable(message) => Status::unprocessable(message),
        }
    }
}

/// Applies an RFC 6902 patch.
pub fn json_patch(_original: &Value, _patch: &[u8]) -> Result<Value, PatchError> {
    Err(PatchError::Malformed("JSON patch is being written".to_owned()))
}

/// Applies an RFC 7386 merge patch.
pub fn merge_patch(_original: &Value, _patch: &[u8]) -> Result<Value, PatchError> {
    Err(PatchError::Malformed("merge patch is being written".to_owned()))
}

/// Applies a strategic merge patch to an object of the type.
pub fn strategic_merge_patch(_type_id: TypeId, _original: &Value, _patch: &[u8]) -> Result<Value, PatchError> {
    Err(PatchError::Malformed("strategic merge patch is being written".to_owned()))
}
