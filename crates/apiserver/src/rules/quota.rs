//! `ResourceQuota`.

use coracle_api::names;
use coracle_api::quantity::Quantity;
use coracle_api::status::{FieldErrors, Path};
use serde_json::{Value, json};

use crate::rules::checks::{IMMUTABLE, quantity_not_negative};
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
            applies(scope.text(), spec, &spec["scopes"], &path.child("scopes"), errors);
        }
        let scopes: Vec<&str> = spec["scopes"].items().iter().map(Read::text).collect();
        conflicts(&scopes, &spec["scopes"], &path.child("scopes"), errors);
        let selector = path.child("scopeSelector").child("matchExpressions");
        scope_selector(spec, &selector, errors);
    },
    validate_update: |new, old, errors| {
        let scopes = &new["spec"]["scopes"];
        let (mut is, mut was) = (scopes.items().to_vec(), old["spec"]["scopes"].items().to_vec());
        for set in [&mut is, &mut was] {
            set.sort_unstable_by(|one, other| one.text().cmp(other.text()));
            set.dedup();
        }
        if is != was {
            errors.invalid("spec.scopes", scopes.clone(), IMMUTABLE);
        }
    },
    validate_status_update: |new, _, errors| {
        for list in ["hard", "used"] {
            let at = Path::new("status").child(list);
            for (name, quantity) in new["status"][list].entries() {
                validate_amount(name, quantity, &at.key(name), errors);
            }
        }
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

/// Checks a scope that is chosen with an operator.
fn scope_selector(spec: &Value, path: &Path, errors: &mut FieldErrors) {
    let selector = &spec["scopeSelector"];
    let mut scopes = Vec::new();
    for requirement in selector["matchExpressions"].items() {
        let (scope, operator) = (requirement["scopeName"].text(), requirement["operator"].text());
        scopes.push(scope);
        if !SCOPES.contains(&scope) {
            errors.invalid(path.child("scopeName"), scope, "unsupported scope");
        }
        applies(scope, spec, selector, path, errors);
        if !matches!(scope, "PriorityClass" | "VolumeAttributesClass") && operator != "Exists" {
            errors.invalid(path.child("operator"), operator, ONLY_EXISTS);
        }
        let values = &requirement["values"];
        match operator {
            "In" | "NotIn" if values.size() == 0 => errors.required(
                path.child("values"),
                "must be at least one value when `operator` is 'In' or 'NotIn' for scope selector",
            ),
            "Exists" | "DoesNotExist" if values.size() > 0 => errors.invalid(
                path.child("values"),
                values.clone(),
                "must be no value when `operator` is 'Exist' or 'DoesNotExist' for scope selector",
            ),
            "In" | "NotIn" | "Exists" | "DoesNotExist" => (),
            other => errors.invalid(path.child("operator"), other, "not a valid selector operator"),
        }
    }
    conflicts(&scopes, &spec["scopes"], path, errors);
}

const ONLY_EXISTS: &str = "must be 'Exists' when scope is any of ResourceQuotaScopeTerminating, ResourceQuotaScopeNotTerminating, \
    ResourceQuotaScopeBestEffort, ResourceQuotaScopeNotBestEffort or ResourceQuotaScopeCrossNamespacePodAffinity";

/// A scope tells some objects apart; a quota of it can only limit those.
fn applies(scope: &str, spec: &Value, shown: &Value, path: &Path, errors: &mut FieldErrors) {
    const OF_PODS: [&str; 6] =
        ["cpu", "limits.cpu", "limits.memory", "memory", "requests.cpu", "requests.memory"];
    let fits = |name: &str| match scope {
        "BestEffort" => name == "pods",
        "VolumeAttributesClass" => matches!(name, "persistentvolumeclaims" | "requests.storage"),
        _ => name == "pods" || OF_PODS.contains(&name),
    };
    for (name, _) in spec["hard"].entries() {
        if STANDARD.contains(&name.as_str()) && !fits(name) {
            errors.invalid(path, shown.clone(), "unsupported scope applied to resource");
        }
    }
}

fn conflicts(scopes: &[&str], shown: &Value, path: &Path, errors: &mut FieldErrors) {
    for pair in [["BestEffort", "NotBestEffort"], ["Terminating", "NotTerminating"]] {
        if pair.iter().all(|scope| scopes.contains(scope)) {
            errors.invalid(path, shown.clone(), "conflicting scopes");
        }
    }
}
