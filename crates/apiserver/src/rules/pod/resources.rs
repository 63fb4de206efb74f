//! What a container requests and what it is limited to.

use coracle_api::names;
use coracle_api::quantity::Quantity;
use coracle_api::status::{FieldErrors, Path};
use serde_json::Value;

use crate::rules::checks::quantity_not_negative;
use crate::rules::json::Read;

/// Checks `resources`: known names, no negative amounts, no request above its limit.
pub fn validate(resources: &Value, path: &Path, errors: &mut FieldErrors) {
    for (name, quantity) in resources["limits"].entries() {
        one(name, quantity, &path.child("limits").key(name), errors);
    }
    let requests = path.child("requests");
    for (name, quantity) in resources["requests"].entries() {
        let Some(amount) = one(name, quantity, &requests.key(name), errors) else { continue };
        match resources["limits"].get(name).and_then(|limit| Quantity::from_value(limit).ok()) {
            Some(limit) if amount != limit && !can_overcommit(name) => {
                let detail = format!("must be equal to {name} limit of {limit}");
                errors.invalid(&requests, amount.to_string(), detail);
            }
            Some(limit) if amount > limit => {
                let detail = format!("must be less than or equal to {name} limit of {limit}");
                errors.invalid(&requests, amount.to_string(), detail);
            }
            None if !can_overcommit(name) => {
                errors.required(
                    path.child("limits"),
                    "Limit must be set for non overcommitable resources",
                );
            }
            _ => (),
        }
    }
}

fn one(name: &str, quantity: &Value, path: &Path, errors: &mut FieldErrors) -> Option<Quantity> {
    errors.invalid_each(path, name, names::qualified_name(name));
    if !name.contains('/') && !is_standard(name) {
        errors.invalid(path, name, "must be a standard resource for containers");
    }
    let amount = quantity_not_negative(quantity, path, errors)?;
    if is_extended(name) && !amount.is_integer() {
        errors.invalid(path, quantity.clone(), "must be an integer");
    }
    Some(amount)
}

fn is_standard(name: &str) -> bool {
    matches!(name, "cpu" | "memory" | "ephemeral-storage") || name.starts_with("hugepages-")
}

fn is_extended(name: &str) -> bool {
    name.contains('/') && !name.contains("kubernetes.io/")
}

fn can_overcommit(name: &str) -> bool {
    (!name.contains('/') || name.contains("kubernetes.io/")) && !name.starts_with("hugepages-")
}
