//! What the controllers of pods have in common: a selector that finds the pods that the template makes.

use coracle_api::selector::{LabelSelector, SelectorError};
use coracle_api::status::{FieldErrors, Path};
use serde_json::Value;

use crate::rules::checks::{
    IMMUTABLE, at_most_all, count_or_percent, is_nothing, label_selector, none_negative, not_above,
};
use crate::rules::generic::same;
use crate::rules::json::Read;
use crate::rules::pod::spec::validate_template;

/// Checks `selector` and `template` of a spec; `kind` is the kind's name as it stands in messages.
pub fn selector_and_template(spec: &Value, kind: &str, path: &Path, errors: &mut FieldErrors) {
    let selector = &spec["selector"];
    let at = path.child("selector");
    if selector.is_set() {
        label_selector(selector, &at, errors);
        if selector["matchLabels"].size() + selector["matchExpressions"].size() == 0 {
            // Upstream shares the words of Deployment with ReplicaSet.
            let name =
                if kind == "ReplicaSet" { "deployment".to_owned() } else { kind.to_lowercase() };
            errors.invalid(&at, selector.clone(), format!("empty selector is invalid for {name}"));
        }
    } else {
        errors.required(&at, "");
    }
    if selects_template(spec, path, errors).is_err() {
        errors.invalid(&at, selector.clone(), "invalid label selector");
    }
    template_of_long_running(&spec["template"], kind, &path.child("template"), errors);
}

/// Checks that the spec's own selector finds what its template makes.
///
/// # Errors
/// When the selector cannot be read, so that nobody knows.
pub fn selects_template(
    spec: &Value,
    path: &Path,
    errors: &mut FieldErrors,
) -> Result<(), SelectorError> {
    if !spec["selector"].is_set() {
        // It selects nothing, not even what the template makes.
        mismatch(spec, path, errors);
        return Ok(());
    }
    let selector = LabelSelector::from_value(Some(&spec["selector"]))?;
    matches_template(&selector, spec, path, errors);
    Ok(())
}

/// The labels of the template must be selected, or its controller would make pods for ever.
pub fn matches_template(
    selector: &LabelSelector,
    spec: &Value,
    path: &Path,
    errors: &mut FieldErrors,
) {
    let labels = &spec["template"]["metadata"]["labels"];
    if !selector.is_everything() && !selector.matches_labels(Some(labels)) {
        mismatch(spec, path, errors);
    }
}

fn mismatch(spec: &Value, path: &Path, errors: &mut FieldErrors) {
    let at = path.child("template").child("metadata").child("labels");
    let labels = spec["template"]["metadata"]["labels"].clone();
    errors.invalid(at, labels, "`selector` does not match template `labels`");
}

/// Checks the template of pods that run until they are deleted.
pub fn template_of_long_running(
    template: &Value,
    kind: &str,
    path: &Path,
    errors: &mut FieldErrors,
) {
    validate_template(template, path, errors);
    let spec = path.child("spec");
    let policy = template["spec"]["restartPolicy"].text();
    if policy != "Always" && !policy.is_empty() {
        errors.not_supported(spec.child("restartPolicy"), policy, &["Always"]);
    }
    if template["spec"]["activeDeadlineSeconds"].is_set() {
        let detail = format!("activeDeadlineSeconds in {kind} is not Supported");
        errors.forbidden(spec.child("activeDeadlineSeconds"), detail);
    }
}

/// The selector says which pods belong to a controller; it may not change.
pub fn same_selector(new: &Value, old: &Value, errors: &mut FieldErrors) {
    let (new, old) = (&new["spec"]["selector"], &old["spec"]["selector"]);
    if !same(new, old) {
        errors.invalid("spec.selector", new.clone(), IMMUTABLE);
    }
}

/// The counts of a status that says how many of its pods are how far.
const COUNTS: [&str; 10] = [
    "replicas",
    "currentReplicas",
    "updatedReplicas",
    "fullyLabeledReplicas",
    "readyReplicas",
    "availableReplicas",
    "unavailableReplicas",
    "terminatingReplicas",
    "observedGeneration",
    "collisionCount",
];

/// Checks a status that counts replicas; `ready` is how messages call those that are ready.
pub fn replica_counts(new: &Value, old: &Value, ready: &str, errors: &mut FieldErrors) {
    const TOO_MANY: &str = "cannot be greater than status.replicas";
    let (status, path) = (&new["status"], Path::new("status"));
    none_negative(status, &COUNTS, &path, errors);
    let parts = [
        "fullyLabeledReplicas",
        "updatedReplicas",
        "readyReplicas",
        "currentReplicas",
        "availableReplicas",
    ];
    for part in parts {
        not_above(status, (part, "replicas"), TOO_MANY, &path, errors);
    }
    let detail = format!("cannot be greater than {ready}");
    not_above(status, ("availableReplicas", "readyReplicas"), &detail, &path, errors);
    collisions(new, old, errors);
}

/// The number that keeps names apart only grows.
pub fn collisions(new: &Value, old: &Value, errors: &mut FieldErrors) {
    let (count, before) = (&new["status"]["collisionCount"], &old["status"]["collisionCount"]);
    if before.is_set() && count.int() < before.int() {
        errors.invalid("status.collisionCount", count.clone(), "cannot be decremented");
    }
}

/// Checks how many pods an update may take away or add; not both may be nothing.
pub fn rolling_update(update: &Value, both_nothing: &str, path: &Path, errors: &mut FieldErrors) {
    let (unavailable, surge) = (&update["maxUnavailable"], &update["maxSurge"]);
    count_or_percent(unavailable, &path.child("maxUnavailable"), errors);
    count_or_percent(surge, &path.child("maxSurge"), errors);
    if is_nothing(unavailable) && is_nothing(surge) {
        errors.invalid(path.child("maxUnavailable"), unavailable.clone(), both_nothing);
    }
    at_most_all(unavailable, &path.child("maxUnavailable"), errors);
}
