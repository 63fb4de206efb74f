//! Annotations of pods that mean something to the cluster.

use coracle_api::status::{FieldErrors, Path};
use serde_json::Value;

use crate::rules::json::Read;

/// Marks what stands for a pod that a kubelet runs from a file.
pub const MIRROR: &str = "kubernetes.io/config.mirror";
const DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";

/// Checks the annotations of a pod, or of the template of one.
pub fn validate(annotations: &Value, spec: &Value, path: &Path, errors: &mut FieldErrors) {
    let mirror = &annotations[MIRROR];
    if mirror.is_set() && spec["nodeName"].text().is_empty() {
        let detail = "must set spec.nodeName if mirror pod annotation is set";
        errors.invalid(path.key(MIRROR), mirror.clone(), detail);
    }
    let cost = annotations[DELETION_COST].text();
    let is_number = cost.parse::<i32>().is_ok() && !cost.starts_with('+');
    let has_zeros =
        cost.trim_start_matches('-').len() > 1 && cost.trim_start_matches('-').starts_with('0');
    if !cost.is_empty() && (!is_number || has_zeros) {
        errors.invalid(path.key(DELETION_COST), cost, "must be a 32bit integer");
    }
}

/// What a pod stands for stays.
pub fn validate_update(new: &Value, old: &Value, errors: &mut FieldErrors) {
    let at = Path::new("metadata").child("annotations").key(MIRROR);
    let (new, old) =
        (&new["metadata"]["annotations"][MIRROR], &old["metadata"]["annotations"][MIRROR]);
    if new == old {
        return;
    }
    if old.is_set() {
        errors.forbidden(at, "may not remove or update mirror pod annotation");
    } else {
        errors.forbidden(at, "may not add mirror pod annotation");
    }
}
