//! `podFailurePolicy`: what a pod's failure means to its Job.

use coracle_api::names;
use coracle_api::status::{FieldErrors, Path};
use serde_json::Value;

use crate::rules::checks::one_of;
use crate::rules::json::Read;

/// As upstream: rules are tried one after another for every failed pod.
const MAX_RULES: usize = 20;
const MAX_CODES: usize = 255;
const MAX_CONDITIONS: usize = 20;
const ACTIONS: [&str; 4] = ["Count", "FailIndex", "FailJob", "Ignore"];

/// Checks the policy of a Job's spec.
pub fn validate(spec: &Value, path: &Path, errors: &mut FieldErrors) {
    let rules = &spec["podFailurePolicy"]["rules"];
    if rules.size() > MAX_RULES {
        errors.too_many(path.child("rules"), rules.size(), MAX_RULES);
    }
    for (index, rule) in rules.items().iter().enumerate() {
        let at = path.child("rules").index(index);
        one_rule(rule, spec, &at, errors);
    }
}

fn one_rule(rule: &Value, spec: &Value, at: &Path, errors: &mut FieldErrors) {
    let action = &rule["action"];
    required_of(action, &ACTIONS, &at.child("action"), errors);
    if action == "FailIndex" && !spec["backoffLimitPerIndex"].is_set() {
        let detail = "requires the backoffLimitPerIndex to be set";
        errors.invalid(at.child("action"), action.clone(), detail);
    }
    let (codes, conditions) = (&rule["onExitCodes"], &rule["onPodConditions"]);
    if codes.is_set() {
        exit_codes(codes, spec, &at.child("onExitCodes"), errors);
    }
    if conditions.size() > 0 {
        pod_conditions(conditions, &at.child("onPodConditions"), errors);
    }
    match (codes.is_set(), conditions.size() > 0) {
        (true, true) => {
            let detail = "specifying both OnExitCodes and OnPodConditions is not supported";
            errors.invalid(at, "", detail);
        }
        (false, false) => {
            let detail = "specifying one of OnExitCodes and OnPodConditions is required";
            errors.invalid(at, "", detail);
        }
        _ => (),
    }
}

/// As upstream words it where nothing is said.
fn required_of(value: &Value, supported: &[&str], path: &Path, errors: &mut FieldErrors) {
    if value.text().is_empty() {
        let quoted: Vec<String> = supported.iter().map(|value| format!("{value:?}")).collect();
        errors.required(path, format!("valid values: [{}]", quoted.join(" ")));
    } else {
        one_of(value, supported, path, errors);
    }
}

fn exit_codes(codes: &Value, spec: &Value, at: &Path, errors: &mut FieldErrors) {
    let operator = &codes["operator"];
    required_of(operator, &["In", "NotIn"], &at.child("operator"), errors);
    let name = &codes["containerName"];
    let pod = &spec["template"]["spec"];
    let known = |list: &str| pod[list].items().iter().any(|one| one["name"] == *name);
    if name.is_set() && !known("containers") && !known("initContainers") {
        let detail = "must be one of the container or initContainer names in the pod template";
        errors.invalid(at.child("containerName"), name.clone(), detail);
    }
    let (values, path) = (codes["values"].items(), at.child("values"));
    if values.is_empty() {
        errors.invalid(&path, codes["values"].clone(), "at least one value is required");
    } else if values.len() > MAX_CODES {
        errors.too_many(&path, values.len(), MAX_CODES);
    }
    for (index, code) in values.iter().enumerate() {
        if code.int() == 0 && operator == "In" {
            errors.invalid(path.index(index), 0, "must not be 0 for the In operator");
        }
        if values[..index].contains(code) {
            errors.duplicate(path.index(index), code.clone());
        }
    }
    if !values.is_sorted_by_key(Read::int) {
        errors.invalid(path, codes["values"].clone(), "must be ordered");
    }
}

fn pod_conditions(conditions: &Value, path: &Path, errors: &mut FieldErrors) {
    if conditions.size() > MAX_CONDITIONS {
        errors.too_many(path, conditions.size(), MAX_CONDITIONS);
    }
    for (index, pattern) in conditions.items().iter().enumerate() {
        let at = path.index(index);
        let kind = pattern["type"].text();
        errors.invalid_each(at.child("type"), kind, names::qualified_name(kind));
        let states = ["False", "True", "Unknown"];
        required_of(&pattern["status"], &states, &at.child("status"), errors);
    }
}
