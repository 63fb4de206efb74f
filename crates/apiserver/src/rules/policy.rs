//! `PodDisruptionBudget` and `PriorityClass`.

use coracle_api::status::{FieldErrors, Path};
use serde_json::{Value, json};

use crate::rules::checks::{
    at_most_all, conditions, count_or_percent, immutable, label_selector, none_negative, one_of,
};
use crate::rules::json::{Read, default};
use crate::rules::{Rules, generic};

/// Above it are the priorities of what keeps a cluster alive.
const MAX_PRIORITY: i64 = 1_000_000_000;

pub static DISRUPTION_BUDGET: Rules = Rules {
    prepare_create: |budget| {
        let status = json!({"disruptionsAllowed": 0, "currentHealthy": 0, "desiredHealthy": 0, "expectedPods": 0});
        generic::start_status(budget, status);
    },
    validate: validate_budget,
    validate_status_update: |new, _, errors| {
        let (status, path) = (&new["status"], Path::new("status"));
        conditions(&status["conditions"], &path.child("conditions"), errors);
        let counts = ["disruptionsAllowed", "currentHealthy", "desiredHealthy", "expectedPods"];
        none_negative(status, &counts, &path, errors);
    },
    ..Rules::GENERIC
};

pub static PRIORITY_CLASS: Rules = Rules {
    default: |class| default(class, "preemptionPolicy", "PreemptLowerPriority"),
    validate: |class, errors| {
        let name = class["metadata"]["name"].text();
        if name.starts_with("system-") {
            if let Err(why) = known_system_class(class) {
                let detail = format!(
                    "priority class names with 'system-' prefix are reserved for system use only. error: {why}"
                );
                errors.forbidden("metadata.name", detail);
            }
        } else if class["value"].int() > MAX_PRIORITY {
            let detail =
                format!("maximum allowed value of a user defined priority is {MAX_PRIORITY}");
            errors.forbidden("value", detail);
        }
        let policies = ["PreemptLowerPriority", "Never"];
        one_of(&class["preemptionPolicy"], &policies, "preemptionPolicy", errors);
    },
    validate_update: |new, old, errors| {
        if new["value"].int() != old["value"].int() {
            errors.forbidden("value", "may not be changed in an update.");
        }
        immutable(&new["preemptionPolicy"], &old["preemptionPolicy"], "preemptionPolicy", errors);
    },
    ..Rules::GENERIC
};

/// The classes that keep a cluster alive are what they are.
fn known_system_class(class: &Value) -> Result<(), String> {
    let name = class["metadata"]["name"].text();
    let value = match name {
        "system-node-critical" => 2_000_001_000,
        "system-cluster-critical" => 2_000_000_000,
        _ => return Err(format!("{name} is not a known system priority class")),
    };
    if class["value"].int() != value {
        return Err(format!("value of {name} PriorityClass must be {value}"));
    }
    if class["globalDefault"].flag() {
        return Err(format!("globalDefault of {name} PriorityClass must be false"));
    }
    Ok(())
}

fn validate_budget(budget: &Value, errors: &mut FieldErrors) {
    let (spec, path) = (&budget["spec"], Path::new("spec"));
    if spec["minAvailable"].is_set() && spec["maxUnavailable"].is_set() {
        errors.invalid(&path, spec.clone(), "minAvailable and maxUnavailable cannot be both set");
    }
    for field in ["minAvailable", "maxUnavailable"] {
        count_or_percent(&spec[field], &path.child(field), errors);
        at_most_all(&spec[field], &path.child(field), errors);
    }
    label_selector(&spec["selector"], &path.child("selector"), errors);
    let policies = ["AlwaysAllow", "IfHealthyBudget"];
    one_of(
        &spec["unhealthyPodEvictionPolicy"],
        &policies,
        path.child("unhealthyPodEvictionPolicy"),
        errors,
    );
}
