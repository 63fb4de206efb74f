//! `Job`.

use serde_json::{Value, json};

use crate::rules::json::{Read, default, each, object, set, with};
use crate::rules::{Rules, generic, pod};

/// Upstream's label of the Job that a pod belongs to.
const CONTROLLER_UID: &str = "batch.kubernetes.io/controller-uid";
const JOB_NAME: &str = "batch.kubernetes.io/job-name";
const LEGACY_CONTROLLER_UID: &str = "controller-uid";
const LEGACY_JOB_NAME: &str = "job-name";
/// How many failures a Job with limits for each index takes in all: no limit.
const NO_LIMIT: i64 = i32::MAX as i64;
const DEFAULT_BACKOFF_LIMIT: i64 = 6;

pub static RULES: Rules = Rules {
    default: default_job,
    prepare_create: |job| {
        generic::start_status(job, json!({}));
        own_pods_by_label(job);
        pod::prepare_template(&mut job["spec"]);
    },
    prepare_update: |new, old| {
        generic::keep_status(new, old);
        pod::prepare_template(&mut new["spec"]);
    },
    fields: |job| vec![("status.successful", job["status"]["succeeded"].int().to_string())],
    ..Rules::GENERIC
};

fn default_job(job: &mut Value) {
    let labels = job["spec"]["template"]["metadata"]["labels"].clone();
    if job["metadata"]["labels"].size() == 0 && labels.size() > 0 {
        set(object(job, "metadata"), "labels", labels);
    }
    let spec = object(job, "spec");
    if !spec["completions"].is_set() && !spec["parallelism"].is_set() {
        set(spec, "completions", 1);
    }
    default(spec, "parallelism", 1);
    let limit = if spec["backoffLimitPerIndex"].is_set() { NO_LIMIT } else { DEFAULT_BACKOFF_LIMIT };
    default(spec, "backoffLimit", limit);
    default(spec, "completionMode", "NonIndexed");
    default(spec, "suspend", false);
    let replacement = if spec["podFailurePolicy"].is_set() { "Failed" } else { "TerminatingOrFailed" };
    default(spec, "podReplacementPolicy", replacement);
    default(spec, "manualSelector", false);
    default_template(spec);
}

/// The defaults of a Job's spec that hold in a `CronJob`'s template as well.
pub fn default_template(spec: &mut Value) {
    pod::defaults::template(spec);
    with(spec, "podFailurePolicy", |policy| {
        each(policy, "rules", |rule| each(rule, "onPodConditions", |pattern| default(pattern, "status", "True")));
    });
}

/// A Job owns its pods by labels with its uid, which no other Job can have, unless its author manages the selector.
fn own_pods_by_label(job: &mut Value) {
    if job["spec"]["manualSelector"].flag() {
        return;
    }
    let (name, uid) = (job["metadata"]["name"].clone(), job["metadata"]["uid"].clone());
    let spec = object(job, "spec");
    let labels = object(object(object(spec, "template"), "metadata"), "labels");
    for (label, value) in
        [(CONTROLLER_UID, &uid), (JOB_NAME, &name), (LEGACY_CONTROLLER_UID, &uid), (LEGACY_JOB_NAME, &name)]
    {
        default(labels, label, value.clone());
    }
    let selector = object(object(spec, "selector"), "matchLabels");
    default(selector, CONTROLLER_UID, uid);
}
