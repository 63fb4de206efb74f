//! What each kind defaults, checks and protects: one file a kind, or a small family of kinds.
//!
//! Start reading at [`for_kind`]. Every function sees the whole object as JSON, decoded by schema: types are right, unknown
//! fields are gone, nulls too. As in Go's types, an absent field and an empty one mean the same unless a rule says otherwise.
//! `metadata` is the same for all kinds and is checked by [`metadata`].

use coracle_api::kinds::Kind;
use coracle_api::status::FieldErrors;
use serde_json::Value;

mod generic;

/// The rules of one kind. Every function sees the whole object, decoded and with known fields only.
pub struct Rules {
    /// Fills in what the user left out.
    pub default: fn(&mut Value),
    /// Clears what a creator may not set (status), and fills in what only the server knows; `metadata.uid` is set before.
    pub prepare_create: fn(&mut Value),
    /// Takes over from the old state what an update of the main resource may not change.
    pub prepare_update: fn(new: &mut Value, old: &Value),
    /// Takes over from the old state what an update of `status` may not change: all but status.
    pub prepare_status_update: fn(new: &mut Value, old: &Value),
    /// Checks a new object, metadata apart.
    pub validate: fn(&Value, &mut FieldErrors),
    /// Checks a new state against the old one: immutable fields and transitions; `validate` runs as well.
    pub validate_update: fn(new: &Value, old: &Value, &mut FieldErrors),
    /// Checks a write of `status`.
    pub validate_status_update: fn(new: &Value, old: &Value, &mut FieldErrors),
    /// Field selectors beyond `metadata.name` and `metadata.namespace`: every field the kind supports, empty ones too.
    pub fields: fn(&Value) -> Vec<(&'static str, String)>,
}

impl Rules {
    /// The rules of a kind of which nothing special is known: `status` is kept apart from the rest.
    pub const GENERIC: Rules = Rules {
        default: |_| (),
        prepare_create: generic::drop_status,
        prepare_update: generic::keep_status,
        prepare_status_update: generic::take_status,
        validate: |_, _| (),
        validate_update: |_, _, _| (),
        validate_status_update: |_, _, _| (),
        fields: |_| Vec::new(),
    };
}

/// The rules of a kind; kinds without their own get [`Rules::GENERIC`].
pub fn for_kind(kind: &Kind) -> &'static Rules {
    match (kind.group, kind.kind) {
        _ => &Rules::GENERIC,
    }
}

/// Whether an update raises `metadata.generation`: the wanted state (all but metadata and status) changed.
///
/// Kinds for which upstream keeps no generation (`ConfigMap`, `Secret`, `Service`, …) answer no.
pub fn changes_generation(kind: &Kind, new: &Value, old: &Value) -> bool {
    has_generation(kind) && generic::wanted_differs(new, old)
}

/// Whether upstream numbers the wanted states of this kind in `metadata.generation`, starting from 1.
pub fn has_generation(kind: &Kind) -> bool {
    generic::has_generation(kind.group, kind.kind)
}
