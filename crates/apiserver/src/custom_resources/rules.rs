//! What a kind defaults, checks and protects, whether it is built in or custom: what handlers ask.

use std::sync::Arc;

use coracle_api::kinds::Kind;
use coracle_api::status::{ErrorType, FieldError, FieldErrors, Path};
use serde_json::Value;

use super::definition::{Definition, definition_of};
use super::{cel, validate, values};
use crate::rules::{self, Rules};

/// The rules of a kind.
pub(crate) enum ObjectRules {
    /// Written by hand.
    BuiltIn(&'static Rules),
    /// Read from a definition.
    Custom(Arc<Definition>),
}

/// The rules of this kind.
pub(crate) fn rules_of(kind: &Kind) -> ObjectRules {
    match definition_of(kind) {
        Some(definition) => ObjectRules::Custom(definition),
        None => ObjectRules::BuiltIn(rules::for_kind(kind)),
    }
}

impl ObjectRules {
    /// Fills in what the user left out.
    pub(crate) fn default(&self, object: &mut Value) {
        match self {
            Self::BuiltIn(rules) => (rules.default)(object),
            Self::Custom(definition) => values::default(object, &definition.schema),
        }
    }

    /// Clears what a creator may not set.
    pub(crate) fn prepare_create(&self, object: &mut Value) {
        match self {
            Self::BuiltIn(rules) => (rules.prepare_create)(object),
            Self::Custom(definition) if definition.has_status => {
                (Rules::GENERIC.prepare_create)(object);
            }
            Self::Custom(_) => (),
        }
    }

    /// Takes over what an update of the main resource may not change.
    pub(crate) fn prepare_update(&self, new: &mut Value, old: &Value) {
        match self {
            Self::BuiltIn(rules) => (rules.prepare_update)(new, old),
            Self::Custom(definition) if definition.has_status => {
                (Rules::GENERIC.prepare_update)(new, old);
            }
            Self::Custom(_) => (),
        }
    }

    /// Takes over what an update of `status` may not change; for custom kinds that is all but who wrote what.
    pub(crate) fn prepare_status_update(&self, new: &mut Value, old: &Value) {
        match self {
            Self::BuiltIn(rules) => (rules.prepare_status_update)(new, old),
            Self::Custom(_) => {
                let status = new.get("status").cloned();
                let managers = new["metadata"].get("managedFields").cloned();
                *new = old.clone();
                put(new, "status", status);
                put(&mut new["metadata"], "managedFields", managers);
            }
        }
    }

    /// Checks a new object, or the new state of one.
    pub(crate) fn validate(&self, object: &Value, errors: &mut FieldErrors) {
        match self {
            Self::BuiltIn(rules) => (rules.validate)(object, errors),
            Self::Custom(definition) => validate_custom(definition, object, None, errors),
        }
    }

    /// Checks a new state, by itself and against the old one.
    pub(crate) fn validate_update(&self, new: &Value, old: &Value, errors: &mut FieldErrors) {
        match self {
            Self::BuiltIn(rules) => {
                (rules.validate)(new, errors);
                (rules.validate_update)(new, old, errors);
            }
            Self::Custom(definition) => validate_custom(definition, new, Some(old), errors),
        }
    }

    /// Checks a write of `status`.
    pub(crate) fn validate_status_update(
        &self,
        new: &Value,
        old: &Value,
        errors: &mut FieldErrors,
    ) {
        match self {
            Self::BuiltIn(rules) => (rules.validate_status_update)(new, old, errors),
            Self::Custom(definition) => validate_custom(definition, new, Some(old), errors),
        }
    }

    /// Checks what a subresource other than `status` wrote.
    pub(crate) fn validate_part(
        &self,
        part: &str,
        new: &Value,
        old: &Value,
        errors: &mut FieldErrors,
    ) {
        match self {
            Self::BuiltIn(rules) => {
                (rules.validate)(new, errors);
                (rules.validate_part)(part, new, old, errors);
            }
            Self::Custom(definition) => validate_custom(definition, new, Some(old), errors),
        }
    }

    /// Whether wanted states are numbered.
    pub(crate) fn has_generation(&self, kind: &Kind) -> bool {
        match self {
            Self::BuiltIn(_) => rules::has_generation(kind),
            Self::Custom(_) => true,
        }
    }

    /// Whether the wanted state changed: all but metadata, and but status if that is written by itself.
    pub(crate) fn changes_generation(&self, kind: &Kind, new: &Value, old: &Value) -> bool {
        let Self::Custom(definition) = self else {
            return rules::changes_generation(kind, new, old);
        };
        let is_wanted = |name: &str| {
            name != "metadata"
                && name != "apiVersion"
                && !(name == "status" && definition.has_status)
        };
        let differs = |one: &Value, other: &Value| {
            one.as_object()
                .into_iter()
                .flatten()
                .any(|(name, value)| is_wanted(name) && other.get(name) != Some(value))
        };
        differs(new, old) || differs(old, new)
    }
}

fn put(object: &mut Value, field: &str, value: Option<Value>) {
    let Some(object) = object.as_object_mut() else { return };
    match value {
        Some(value) => drop(object.insert(field.to_owned(), value)),
        None => drop(object.remove(field)),
    }
}

fn validate_custom(
    definition: &Definition,
    object: &Value,
    old: Option<&Value>,
    errors: &mut FieldErrors,
) {
    let mut found = FieldErrors::new();
    validate::validate(&definition.schema, object, old, &mut found);
    if definition.schema.has_rules {
        if validate::blocks_rules(&found) {
            found.push(FieldError {
                kind: ErrorType::InvalidWhole,
                path: Path::from(""),
                value: Value::Null,
                detail: UNCHECKED.to_owned(),
            });
        } else {
            cel::check(&definition.schema, object, old, &mut found);
        }
    }
    errors.extend(found);
}

const UNCHECKED: &str = "null: some validation rules were not checked because the object was invalid; correct the existing errors to \
    complete validation";
