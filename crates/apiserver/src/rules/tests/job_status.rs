//! What a Job's status may say.

use coracle_api::status::FieldErrors;
use serde_json::{Value, json};

use super::{for_kind, kind};

const TIME: &str = "2026-01-01T00:00:00Z";
const LATER: &str = "2026-01-01T00:01:00Z";

/// A Job of this spec, which says `new` after `old`.
fn check_with(spec: Value, old: Value, new: Value, want: &[&str]) {
    let rules = for_kind(kind("batch/v1", "Job"));
    let job = |status: &Value| json!({ "spec": spec, "status": status });
    let mut errors = FieldErrors::new();
    (rules.validate_status_update)(&job(&new), &job(&old), &mut errors);
    let errors: Vec<String> = errors.iter().map(ToString::to_string).collect();
    assert_eq!(errors, want, "{spec} {old} {new}");
}

fn check(old: Value, new: Value, want: &[&str]) {
    check_with(json!({}), old, new, want);
}

fn held(kinds: &[&str]) -> Value {
    kinds.iter().map(|kind| json!({ "type": kind, "status": "True" })).collect()
}

fn complete() -> Value {
    json!({ "conditions": held(&["SuccessCriteriaMet", "Complete"]),
            "startTime": TIME, "completionTime": LATER, "succeeded": 1 })
}

fn failed() -> Value {
    json!({ "conditions": held(&["FailureTarget", "Failed"]), "startTime": TIME, "failed": 1 })
}

fn with(mut status: Value, field: &str, value: Value) -> Value {
    status[field] = value;
    status
}

#[test]
fn a_job_ends_in_one_way() {
    check(json!({}), json!({ "active": 1, "startTime": TIME }), &[]);
    check(json!({}), complete(), &[]);
    check(json!({}), failed(), &[]);
    let alone = |kind: &str| json!({ "conditions": held(&[kind]), "startTime": TIME });
    check(
        json!({}),
        alone("Failed"),
        &[
            "status.conditions: Invalid value: cannot set Failed=True condition without the FailureTarget=true condition",
        ],
    );
    check(
        json!({}),
        alone("Complete"),
        &[
            "status.conditions: Invalid value: cannot set Complete=True condition without the SuccessCriteriaMet=true condition",
            "status.completionTime: Required value: completionTime is required for Complete jobs",
        ],
    );
    let both = held(&["SuccessCriteriaMet", "Complete", "FailureTarget", "Failed"]);
    check(
        json!({}),
        with(complete(), "conditions", both),
        &[
            "status.conditions: Invalid value: cannot set Complete=True and Failed=true conditions",
            "status.conditions: Invalid value: cannot set Complete=True and FailureTarget=true conditions",
            "status.conditions: Invalid value: cannot set SuccessCriteriaMet=True and Failed=true conditions",
            "status.conditions: Invalid value: cannot set SuccessCriteriaMet=True and FailureTarget=true conditions",
        ],
    );
}

#[test]
fn a_finished_job_stays_finished_and_has_no_pods() {
    let running = json!({ "startTime": TIME });
    check(
        failed(),
        with(failed(), "conditions", json!([])),
        &[
            "status.conditions: Invalid value: cannot disable the terminal Failed=True condition",
            "status.conditions: Invalid value: cannot disable the terminal FailureTarget=True condition",
        ],
    );
    check(
        json!({ "conditions": held(&["SuccessCriteriaMet"]) }),
        json!({}),
        &["status.conditions: Invalid value: cannot disable the SuccessCriteriaMet=True condition"],
    );
    let mut busy = failed();
    for (field, value) in [
        ("active", json!(1)),
        ("terminating", json!(2)),
        ("uncountedTerminatedPods", json!({ "failed": ["a"] })),
        ("startTime", Value::Null),
    ] {
        busy[field] = value;
    }
    check(
        json!({}),
        busy.clone(),
        &[
            "status.active: Invalid value: 1: active>0 is invalid for finished job",
            "status.startTime: Required value: startTime is required for finished job",
            "status.uncountedTerminatedPods: Invalid value: {\"failed\":[\"a\"]}: uncountedTerminatedPods needs to be empty for finished job",
            "status.terminating: Invalid value: 2: terminating>0 is invalid for finished job",
        ],
    );
    // Who changes something else does not answer for it.
    check(busy.clone(), with(busy, "failed", json!(2)), &[]);
    check(running, with(failed(), "failed", json!(3)), &[]);
}

#[test]
fn times_and_counters_go_forward() {
    check(
        json!({}),
        json!({ "startTime": TIME, "completionTime": TIME }),
        &[
            "status.completionTime: Invalid value: \"2026-01-01T00:00:00Z\": cannot set completionTime when there is no Complete=True condition",
        ],
    );
    check(json!({ "startTime": LATER }), with(complete(), "startTime", json!(LATER)), &[]);
    check(
        json!({}),
        with(with(complete(), "startTime", json!(LATER)), "completionTime", json!(TIME)),
        &[
            "status.completionTime: Invalid value: \"2026-01-01T00:00:00Z\": completionTime cannot be set before startTime",
        ],
    );
    check(
        complete(),
        with(complete(), "completionTime", json!("2026-01-01T00:02:00Z")),
        &[
            "status.completionTime: Invalid value: \"2026-01-01T00:02:00Z\": completionTime cannot be mutated",
        ],
    );
    check(
        json!({ "failed": 2, "succeeded": 2, "startTime": TIME }),
        json!({ "failed": 1, "startTime": LATER }),
        &[
            "status.failed: Invalid value: 1: cannot decrease the failed counter",
            "status.succeeded: Invalid value: 0: cannot decrease the succeeded counter",
            "status.startTime: Required value: startTime cannot be removed for unsuspended job",
        ],
    );
    check_with(json!({ "suspend": true }), json!({ "startTime": TIME }), json!({}), &[]);
    let elastic = json!({ "completionMode": "Indexed", "completions": 2, "parallelism": 2 });
    check_with(elastic, json!({ "succeeded": 3 }), json!({ "succeeded": 2 }), &[]);
    check(
        json!({}),
        json!({ "ready": 2, "active": 1 }),
        &["status.ready: Invalid value: 2: cannot set more ready pods than active"],
    );
}

#[test]
fn indexes_are_well_written_and_end_in_one_way() {
    let spec =
        || json!({ "completionMode": "Indexed", "completions": 10, "backoffLimitPerIndex": 1 });
    let indexes = |completed: &str, failed: &str| json!({ "completedIndexes": completed, "failedIndexes": failed });
    check_with(spec(), json!({}), indexes("0,3-5", "1"), &[]);
    check_with(
        spec(),
        json!({}),
        indexes("0,12", "x"),
        &[
            "status.completedIndexes: Invalid value: \"0,12\": error parsing completedIndexes: too large index: \"12\"",
            "status.failedIndexes: Invalid value: \"x\": error parsing failedIndexes: cannot convert string to integer for index: \"x\"",
        ],
    );
    check_with(
        spec(),
        json!({}),
        indexes("0,3-5", "2,4"),
        &[
            "status.failedIndexes: Invalid value: \"2,4\": failedIndexes and completedIndexes overlap at index: 4",
        ],
    );
    check(
        json!({}),
        indexes("1", ""),
        &[
            "status.completedIndexes: Invalid value: \"1\": cannot set non-empty completedIndexes when non-indexed completion mode",
            "status.failedIndexes: Invalid value: \"\": cannot set non-null failedIndexes when backoffLimitPerIndex is null",
        ],
    );
}

#[test]
fn pods_are_named_once() {
    check(
        json!({}),
        json!({"uncountedTerminatedPods": {"succeeded": ["a", "a"], "failed": [""]}}),
        &[
            "status.uncountedTerminatedPods.succeeded[1]: Duplicate value: \"a\"",
            "status.uncountedTerminatedPods.failed[0]: Invalid value: \"\": must not be empty",
        ],
    );
}
