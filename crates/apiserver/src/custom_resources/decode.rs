//! From bytes to a custom object: metadata by its own schema, the rest by the definition's.

use coracle_api::decode::{self, DecodeError, Decoded, FieldValidation};
use coracle_api::kinds::Kind;

use super::definition::Definition;
use super::values;

/// Decodes an object; fields that the definition does not know are dropped, and named as the client wishes.
pub(crate) fn decode(
    kind: &Kind,
    definition: &Definition,
    bytes: &[u8],
    validation: FieldValidation,
) -> Result<Decoded, DecodeError> {
    let mut decoded = decode::decode(kind, bytes, FieldValidation::Warn)?;
    if !definition.keeps_unknown {
        let pruned = values::prune(&mut decoded.value, &definition.schema);
        decoded.warnings.extend(pruned.iter().map(|path| format!("unknown field {path:?}")));
    }
    match validation {
        FieldValidation::Strict if !decoded.warnings.is_empty() => {
            return Err(DecodeError::strict(kind, &decoded.warnings));
        }
        FieldValidation::Ignore => decoded.warnings.clear(),
        FieldValidation::Strict | FieldValidation::Warn => (),
    }
    Ok(decoded)
}
