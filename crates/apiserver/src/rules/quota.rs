//! `ResourceQuota`.

use coracle_api::names;
use coracle_api::quantity::Quantity;
use coracle_api::status::{FieldErrors, Path};
use serde_json::{Value, json};

use crate::rules::checks::{immutable, quantity_not_negative};
use crate::rules::json::Read;
use crate::rules::{Rules, generic};

const SCOPES: [&str; 7] = [
    "BestEffort",
    "CrossNamespacePodAffinity",
    "NotBestEffort",
    "NotTerminating",
    "PriorityClass",
    "Terminating",
    "VolumeAttributesClass",
];

/// What can be counted without a domain in its name.
const STANDARD: [&str; 20] = [
    "configmaps",
    "cpu",
    "ephemeral-storage",
    "limits.cpu",
    "limits.ephemeral-storage",
    "limits.memory",
    "memory",
    "persistentvolumeclaims",
    "pods",
    "replicationcontrollers",
    "requests.cpu",
    "requests.ephemeral-storage",
    "requests.memory",
    "requests.storage",
    "resourcequotas",
    "secrets",
    "services",
    "services.loadbalancers",
    "services.nodeports",
    "resourceclaims",
];

pub static RULES: Rules = Rules {
    prepare_create: |quota| generic::start_status(quota, json!({})),
    validate: |quota, errors| {
        let (spec, path) = (&quota["spec"], Path::new("spec"));
        for (name, quantity) in spec["hard"].entries() {
            validate_amount(name, quantity, &path.child("hard").key(name), errors);
        }
        for scope in spec["scopes"].items() {
            if !SCOPES.contains(&scope.text()) {
                errors.invalid(path.child("scopes"), spec["scopes"].clone(), "unsupported scope");
            }
        }
    },
    validate_update: |new, old, errors| {
        immutable(&new["spec"]["scopes"], &old["spec"]["scopes"], "spec.scopes", errors);
    },
    ..Rules::GENERIC
};

fn validate_amount(name: &str, quantity: &Value, path: &Path, errors: &mut FieldErrors) {
    errors.invalid_each(path, name, names::qualified_name(name));
    let huge = name.contains("hugepages-");
    if !name.contains('/') && !STANDARD.contains(&name) && !huge {
        errors.invalid(path, name, "must be a standard resource for quota");
    }
    let counts = name.starts_with("count/") || (STANDARD.contains(&name) && !measures(name));
    let amount: Option<Quantity> = quantity_not_negative(quantity, path, errors);
    if counts && amount.is_some_and(|amount| !amount.is_integer()) {
        errors.invalid(path, quantity.clone(), "must be an integer");
    }
}

/// Whether amounts of it may be fractions.
fn measures(name: &str) -> bool {
    ["cpu", "memory", "storage"].iter().any(|measured| name.ends_with(measured))
}
