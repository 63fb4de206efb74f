//! What each kind defaults, checks and protects: one file a kind.

use coracle_api::kinds::Kind;
use coracle_api::status::FieldErrors;
use serde_json::Value;

/// The rules of one kind. Every function sees the whole object, decoded and with known fields only.
pub struct Rules {
    /// Fills in what the user left out.
    pub default: fn(&mut Value),
    /// Clears what a creator may not set (status, generation stays with the caller).
    pub prepare_create: fn(&mut Value),
    /// Takes over from the old state what an update of the main resource may not change.
    pub prepare_update: fn(new: &mut Value, old: &Value),
    /// Takes over from the old state what an update of `status` may not change: all but status.
    pub prepare_status_update: fn(new: &mut Value, old: &Value),
    /// Checks a new object, metadata apart.
    pub validate: fn(&Value, &mut FieldErrors),
    /// Checks a new state against the old one: immutable fields and transitions; `validate` runs as well.
    pub validate_update: fn(new: &Value, old: &Value, &mut FieldErrors),
    /// Field selectors beyond `metadata.name` and `metadata.namespace`.
    pub fields: fn(&Value) -> Vec<(&'static str, String)>,
}
