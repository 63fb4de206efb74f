//! What may be said of how far a Job is (`ValidateJobStatus` in `pkg/apis/batch/validation/validation.go`).

use coracle_api::status::{FieldErrors, Path};
use serde_json::Value;

use crate::rules::checks::none_negative;
use crate::rules::json::{Read, is_zero};

const COUNTS: [&str; 5] = ["active", "succeeded", "failed", "ready", "terminating"];

/// Checks a write of a Job's status.
pub fn validate(new: &Value, old: &Value, errors: &mut FieldErrors) {
    let (status, path) = (&new["status"], Path::new("status"));
    none_negative(status, &COUNTS, &path, errors);
    uncounted(&status["uncountedTerminatedPods"], &path, errors);
    let conditions = path.child("conditions");
    let (complete, failed) = (has(status, "Complete"), has(status, "Failed"));
    let mut wrong = |is_wrong: bool, path: Path, shown: &Value, detail: &str| {
        if is_wrong {
            errors.invalid(path, shown.clone(), detail);
        }
    };
    let all = &status["conditions"];
    let detail = "cannot set Complete=True and Failed=true conditions";
    wrong(complete && failed, conditions.clone(), all, detail);
    let completed = &status["completionTime"];
    let detail = "completionTime cannot be set when there is no Complete=True condition";
    wrong(completed.is_set() && !complete, path.child("completionTime"), completed, detail);
    let detail = "completionTime is required for Complete jobs";
    wrong(complete && !completed.is_set(), path.child("completionTime"), completed, detail);
    let finished = complete || failed;
    let active = &status["active"];
    let detail = "active>0 is invalid for finished job";
    wrong(finished && active.int() > 0, path.child("active"), active, detail);
    let was = &old["status"];
    for (kind, detail) in [
        ("Failed", "cannot disable the terminal Failed=True condition"),
        ("Complete", "cannot disable the terminal Complete=True condition"),
        ("FailureTarget", "cannot disable the terminal FailureTarget=True condition"),
        ("SuccessCriteriaMet", "cannot disable the terminal SuccessCriteriaMet=True condition"),
    ] {
        wrong(has(was, kind) && !has(status, kind), conditions.clone(), all, detail);
    }
    let (start, before) = (&status["startTime"], &was["startTime"]);
    let resumed = new["spec"]["suspend"].flag();
    let detail = "startTime cannot be removed for unsuspended job";
    wrong(before.is_set() && !start.is_set() && !resumed, path.child("startTime"), start, detail);
    let detail = "completionTime cannot be mutated";
    let (end, ended) = (&status["completionTime"], &was["completionTime"]);
    wrong(has(was, "Complete") && end != ended, path.child("completionTime"), end, detail);
}

/// Pods are named once, and not as both.
fn uncounted(pods: &Value, path: &Path, errors: &mut FieldErrors) {
    let path = path.child("uncountedTerminatedPods");
    let mut seen: Vec<&str> = Vec::new();
    for list in ["succeeded", "failed"] {
        for (index, uid) in pods[list].items().iter().enumerate() {
            let at = path.child(list).index(index);
            if is_zero(uid) {
                errors.invalid(at, "", "must not be empty");
            } else if seen.contains(&uid.text()) {
                errors.duplicate(at, uid.text());
            }
            seen.push(uid.text());
        }
    }
}

fn has(status: &Value, kind: &str) -> bool {
    let mut conditions = status["conditions"].items().iter();
    conditions.any(|condition| condition["type"] == kind && condition["status"] == "True")
}
