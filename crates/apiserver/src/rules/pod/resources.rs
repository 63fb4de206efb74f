//! What a container requests and what it is limited to.

use coracle_api::names;
use coracle_api::quantity::Quantity;
use coracle_api::status::{FieldErrors, Path};
use serde_json::Value;

use crate::rules::checks::{quantity_not_negative, required_one_of, unique};
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

/// Checks what a change of its resources means to each container.
pub fn resize_policies(spec: &Value, path: &Path, errors: &mut FieldErrors) {
    for list in ["containers", "initContainers"] {
        for (index, container) in spec[list].items().iter().enumerate() {
            let at = path.child(list).index(index).child("resizePolicy");
            resize_policy(&container["resizePolicy"], &spec["restartPolicy"], &at, errors);
        }
    }
}

fn resize_policy(policies: &Value, of_pod: &Value, path: &Path, errors: &mut FieldErrors) {
    let mut seen = Vec::new();
    for (index, policy) in policies.items().iter().enumerate() {
        let resource = policy["resourceName"].text();
        unique(&mut seen, resource, path.index(index), errors);
        required_one_of(&policy["resourceName"], &["cpu", "memory"], path, errors);
        let restarts = ["NotRequired", "RestartContainer"];
        required_one_of(&policy["restartPolicy"], &restarts, path, errors);
        if of_pod == "Never" && policy["restartPolicy"] != "NotRequired" {
            let detail = "must be 'NotRequired' when `restartPolicy` is 'Never'";
            errors.invalid(path, policy["restartPolicy"].clone(), detail);
        }
    }
}

/// Checks what all containers of a pod get together: enough for the requests of each.
pub fn of_pod(spec: &Value, path: &Path, errors: &mut FieldErrors) {
    let resources = &spec["resources"];
    if !resources.is_set() {
        return;
    }
    validate(resources, path, errors);
    if resources["claims"].size() > 0 {
        errors.forbidden(path.child("claims"), "claims may not be set for Resources at pod-level");
    }
    for part in ["limits", "requests"] {
        for (name, _) in resources[part].entries() {
            if !matches!(name.as_str(), "cpu" | "memory") && !name.starts_with("hugepages-") {
                let at = path.child(part).key(name);
                errors.not_supported(at, name.as_str(), &["cpu", "hugepages-", "memory"]);
            }
        }
    }
    for (name, quantity) in resources["requests"].entries() {
        let asked = spec["containers"].items().iter();
        let asked = asked.filter_map(|container| {
            Quantity::from_value(&container["resources"]["requests"][name.as_str()]).ok()
        });
        let together = asked.fold(Quantity::ZERO, |sum, one| sum + one);
        if Quantity::from_value(quantity).is_ok_and(|amount| amount < together) {
            let at = path.child("requests").key(name);
            let detail = format!(
                "must be greater than or equal to aggregate container requests of {together}"
            );
            errors.invalid(at, quantity.clone(), detail);
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
