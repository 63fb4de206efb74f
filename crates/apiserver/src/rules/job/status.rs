//! What may be said of how far a Job is (`ValidateJobStatusUpdate` in `pkg/apis/batch/validation/validation.go`).
//!
//! Most rules hold for what a write changes: who says something else of a Job is not answerable for what was said before.

use coracle_api::status::{ErrorType, FieldError, FieldErrors, Path};
use serde_json::Value;

use super::indexes::{intervals, shared};
use crate::rules::checks::none_negative;
use crate::rules::json::{Read, is_zero};

const COUNTS: [&str; 5] = ["active", "succeeded", "failed", "ready", "terminating"];

/// Checks a write of a Job's status.
pub fn validate(new: &Value, old: &Value, errors: &mut FieldErrors) {
    let (status, path) = (&new["status"], Path::new("status"));
    none_negative(status, &COUNTS, &path, errors);
    uncounted(&status["uncountedTerminatedPods"], &path, errors);
    let write = Write { spec: &new["spec"], status, was: &old["status"], path };
    write.conditions(errors);
    write.completion_time(errors);
    write.end(errors);
    write.indexes(errors);
    write.pods(errors);
    write.course(errors);
}

/// A status and the one before.
struct Write<'v> {
    spec: &'v Value,
    status: &'v Value,
    was: &'v Value,
    path: Path,
}

impl Write<'_> {
    fn has(&self, kind: &str) -> bool {
        has(self.status, kind)
    }

    fn is_finished(&self) -> bool {
        self.has("Complete") || self.has("Failed")
    }

    fn changes_condition(&self, kind: &str) -> bool {
        has(self.was, kind) != self.has(kind)
    }

    fn finishes(&self) -> bool {
        self.is_finished() != (has(self.was, "Complete") || has(self.was, "Failed"))
    }

    fn changes(&self, field: &str) -> bool {
        let (new, old) = (&self.status[field], &self.was[field]);
        new != old && !(is_zero(new) && is_zero(old))
    }

    fn wrong(&self, errors: &mut FieldErrors, field: &str, detail: &str) {
        errors.invalid(self.path.child(field), self.status[field].clone(), detail);
    }

    /// Upstream does not show conditions.
    fn wrong_conditions(&self, errors: &mut FieldErrors, detail: impl Into<String>) {
        errors.push(FieldError {
            kind: ErrorType::InvalidWhole,
            path: self.path.child("conditions"),
            value: Value::Null,
            detail: detail.into(),
        });
    }

    /// Conditions that exclude or presume each other.
    fn conditions(&self, errors: &mut FieldErrors) {
        let (complete, failed) = (self.has("Complete"), self.has("Failed"));
        let (met, target) = (self.has("SuccessCriteriaMet"), self.has("FailureTarget"));
        let completes = self.changes_condition("Complete");
        let rules = [
            (
                complete && failed && (completes || self.changes_condition("Failed")),
                "cannot set Complete=True and Failed=true conditions",
            ),
            (
                complete && target && (completes || self.changes_condition("FailureTarget")),
                "cannot set Complete=True and FailureTarget=true conditions",
            ),
            (
                failed && !target && self.changes_condition("Failed"),
                "cannot set Failed=True condition without the FailureTarget=true condition",
            ),
            (
                complete && !met && completes,
                "cannot set Complete=True condition without the SuccessCriteriaMet=true condition",
            ),
            (met && failed, "cannot set SuccessCriteriaMet=True and Failed=true conditions"),
            (met && target, "cannot set SuccessCriteriaMet=True and FailureTarget=true conditions"),
            (
                complete && !met && self.spec["successPolicy"].is_set(),
                "cannot set Complete=True for Job with SuccessPolicy unless SuccessCriteriaMet=True",
            ),
        ];
        for (is_wrong, detail) in rules {
            if is_wrong {
                self.wrong_conditions(errors, detail);
            }
        }
    }

    fn completion_time(&self, errors: &mut FieldErrors) {
        let field = "completionTime";
        let (start, end) = (&self.status["startTime"], &self.status[field]);
        let complete = self.has("Complete");
        let is_new = self.changes_condition("Complete") || self.changes(field);
        if end.is_set() && !complete && is_new {
            let detail = "cannot set completionTime when there is no Complete=True condition";
            self.wrong(errors, field, detail);
        }
        if !end.is_set() && complete && is_new {
            let detail = "completionTime is required for Complete jobs";
            errors.required(self.path.child(field), detail);
        }
        let moves = self.changes("startTime") || self.changes(field);
        // Times are written in UTC and whole seconds: earlier ones sort before later ones.
        if moves && start.is_set() && end.is_set() && end.text() < start.text() {
            self.wrong(errors, field, "completionTime cannot be set before startTime");
        }
        let before = &self.was[field];
        if end.is_set() && before.is_set() && end != before {
            self.wrong(errors, field, "completionTime cannot be mutated");
        }
    }

    /// A Job that has ended has no pods left, and has begun.
    fn end(&self, errors: &mut FieldErrors) {
        if !self.is_finished() {
            return;
        }
        let is_new = |field: &str| self.finishes() || self.changes(field);
        if self.status["active"].int() > 0 && is_new("active") {
            self.wrong(errors, "active", "active>0 is invalid for finished job");
        }
        if !self.status["startTime"].is_set() && is_new("startTime") {
            let detail = "startTime is required for finished job";
            errors.required(self.path.child("startTime"), detail);
        }
        let uncounted = &self.status["uncountedTerminatedPods"];
        let named = uncounted["succeeded"].size() + uncounted["failed"].size();
        if named > 0 && is_new("uncountedTerminatedPods") {
            let detail = "uncountedTerminatedPods needs to be empty for finished job";
            self.wrong(errors, "uncountedTerminatedPods", detail);
        }
        if self.status["terminating"].int() > 0 && is_new("terminating") {
            self.wrong(errors, "terminating", "terminating>0 is invalid for finished job");
        }
    }

    fn indexes(&self, errors: &mut FieldErrors) {
        let (completions, limit) = (&self.spec["completions"], &self.spec["backoffLimitPerIndex"]);
        let (completed, failed) = (&self.status["completedIndexes"], &self.status["failedIndexes"]);
        let read = |text: &Value| intervals(text.text(), completions.int());
        let (completed_changes, failed_changes) = (
            self.changes("completedIndexes"),
            self.status["failedIndexes"] != self.was["failedIndexes"],
        );
        let has_limit = limit.is_set() && failed.is_set();
        for (field, is_read) in [
            ("completedIndexes", completed_changes),
            ("failedIndexes", failed_changes && has_limit),
        ] {
            let is_read = is_read && completions.is_set();
            if let Some(why) = read(&self.status[field]).err().filter(|_| is_read) {
                self.wrong(errors, field, &format!("error parsing {field}: {why}"));
            }
        }
        if completed_changes
            && !completed.text().is_empty()
            && self.spec["completionMode"] != "Indexed"
        {
            let detail = "cannot set non-empty completedIndexes when non-indexed completion mode";
            self.wrong(errors, "completedIndexes", detail);
        }
        if failed_changes && failed.is_set() && !limit.is_set() {
            let detail = "cannot set non-null failedIndexes when backoffLimitPerIndex is null";
            self.wrong(errors, "failedIndexes", detail);
        }
        if (completed_changes || failed_changes) && completions.is_set() && failed.is_set() {
            let both = read(completed).ok().zip(read(failed).ok());
            if let Some(index) = both.and_then(|(completed, failed)| shared(&completed, &failed)) {
                let detail =
                    format!("failedIndexes and completedIndexes overlap at index: {index}");
                self.wrong(errors, "failedIndexes", &detail);
            }
        }
    }

    fn pods(&self, errors: &mut FieldErrors) {
        let (ready, active) = (&self.status["ready"], &self.status["active"]);
        if ready.int() > active.int() && (self.changes("ready") || self.changes("active")) {
            self.wrong(errors, "ready", "cannot set more ready pods than active");
        }
    }

    /// What was said once and cannot be taken back.
    fn course(&self, errors: &mut FieldErrors) {
        for kind in ["Failed", "Complete", "FailureTarget"] {
            if has(self.was, kind) && !self.has(kind) {
                let detail = format!("cannot disable the terminal {kind}=True condition");
                self.wrong_conditions(errors, detail);
            }
        }
        // An indexed Job that may change its size loses what succeeded beyond it.
        let may_shrink = self.spec["completionMode"] == "Indexed"
            && self.spec["completions"] == self.spec["parallelism"];
        for (field, fixed) in [("failed", true), ("succeeded", !may_shrink)] {
            if fixed && self.status[field].int() < self.was[field].int() {
                let (at, count) = (self.path.child(field), self.status[field].int());
                errors.invalid(at, count, format!("cannot decrease the {field} counter"));
            }
        }
        let began = &self.was["startTime"];
        let runs = !self.spec["suspend"].flag();
        if runs && began.is_set() && self.status["startTime"] != *began {
            let detail = "startTime cannot be removed for unsuspended job";
            errors.required(self.path.child("startTime"), detail);
        }
        let (met, was_met) = (self.has("SuccessCriteriaMet"), has(self.was, "SuccessCriteriaMet"));
        if was_met && !met {
            self.wrong_conditions(errors, "cannot disable the SuccessCriteriaMet=True condition");
        }
        if has(self.was, "Complete") && !was_met && met {
            let detail =
                "cannot set SuccessCriteriaMet=True for Job already has Complete=true conditions";
            self.wrong_conditions(errors, detail);
        }
    }
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
