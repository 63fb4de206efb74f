//! `Job`.

use coracle_api::names;
use coracle_api::selector::LabelSelector;
use coracle_api::status::{FieldErrors, Path};
use serde_json::{Value, json};

use crate::rules::checks::{immutable, label_selector, not_negative, one_of};
use crate::rules::generic::{carry, same};
use crate::rules::json::{Read, default, default_zero, each, object, set, unset, with};
use crate::rules::{Rules, generic, pod, workload};

mod failure;
mod indexes;
mod status;
mod success;

/// Upstream's label of the Job that a pod belongs to.
const CONTROLLER_UID: &str = "batch.kubernetes.io/controller-uid";
const JOB_NAME: &str = "batch.kubernetes.io/job-name";
const LEGACY_CONTROLLER_UID: &str = "controller-uid";
const LEGACY_JOB_NAME: &str = "job-name";
/// How many failures a Job with limits for each index takes in all: no limit.
const NO_LIMIT: i64 = i32::MAX as i64;
const DEFAULT_BACKOFF_LIMIT: i64 = 6;
/// More indexes than this at once, and their bookkeeping would not fit an object.
const MAX_INDEXED_PARALLELISM: i64 = 100_000;
const MAX_INDEXED_COMPLETIONS: i64 = 1_000_000_000;

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
    validate,
    validate_update,
    validate_status_update: status::validate,
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
    let limit =
        if spec["backoffLimitPerIndex"].is_set() { NO_LIMIT } else { DEFAULT_BACKOFF_LIMIT };
    default(spec, "backoffLimit", limit);
    default(spec, "completionMode", "NonIndexed");
    default(spec, "suspend", false);
    let replacement =
        if spec["podFailurePolicy"].is_set() { "Failed" } else { "TerminatingOrFailed" };
    default(spec, "podReplacementPolicy", replacement);
    default(spec, "manualSelector", false);
    default_template(spec);
}

/// The defaults of a Job's spec that hold in a `CronJob`'s template as well.
pub fn default_template(spec: &mut Value) {
    pod::defaults::template(spec);
    with(spec, "podFailurePolicy", |policy| {
        each(policy, "rules", |rule| {
            each(rule, "onPodConditions", |pattern| default(pattern, "status", "True"))
        });
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
    for (label, value) in [
        (CONTROLLER_UID, &uid),
        (JOB_NAME, &name),
        (LEGACY_CONTROLLER_UID, &uid),
        (LEGACY_JOB_NAME, &name),
    ] {
        // A generated name may not be known yet.
        if !value.text().is_empty() {
            default_zero(labels, label, value.clone());
        }
    }
    let selector = object(object(spec, "selector"), "matchLabels");
    default(selector, CONTROLLER_UID, uid);
}

fn validate(job: &Value, errors: &mut FieldErrors) {
    let (spec, path) = (&job["spec"], Path::new("spec"));
    generated_selector(job, errors);
    if spec["selector"].is_set() {
        label_selector(&spec["selector"], &path.child("selector"), errors);
    } else {
        errors.required(path.child("selector"), "");
    }
    workload::selects_template(spec, &path, errors).ok();
    validate_spec(spec, &path, errors);
    hostnames(job, errors);
}

/// The pods of an indexed Job have its name and their index as hostname.
fn hostnames(job: &Value, errors: &mut FieldErrors) {
    let (spec, name) = (&job["spec"], job["metadata"]["name"].text());
    let completions = spec["completions"].int();
    if spec["completionMode"] != "Indexed" || completions <= 0 {
        return;
    }
    let longest = format!("{name}-{}", completions - 1);
    if !names::dns_label(&longest).is_empty() {
        let detail = format!("will not able to create pod with invalid DNS hostname: {longest}");
        errors.invalid("metadata.name", name, detail);
    }
}

/// Checks a Job's spec, in a `CronJob`'s template as well.
pub fn validate_spec(spec: &Value, path: &Path, errors: &mut FieldErrors) {
    for field in [
        "parallelism",
        "completions",
        "activeDeadlineSeconds",
        "backoffLimit",
        "ttlSecondsAfterFinished",
        "backoffLimitPerIndex",
        "maxFailedIndexes",
    ] {
        not_negative(&spec[field], path.child(field), errors);
    }
    completion(spec, path, errors);
    one_of(
        &spec["podReplacementPolicy"],
        &["Failed", "TerminatingOrFailed"],
        path.child("podReplacementPolicy"),
        errors,
    );
    failure::validate(spec, &path.child("podFailurePolicy"), errors);
    success::validate(spec, &path.child("successPolicy"), errors);
    managed_by(&spec["managedBy"], &path.child("managedBy"), errors);
    let template = path.child("template");
    pod::spec::validate_template(&spec["template"], &template, errors);
    let policy = spec["template"]["spec"]["restartPolicy"].text();
    let at = template.child("spec").child("restartPolicy");
    if !matches!(policy, "OnFailure" | "Never") {
        errors.required(at, "valid values: \"OnFailure\", \"Never\"");
    } else if spec["podFailurePolicy"].is_set() && policy != "Never" {
        errors.invalid(
            at,
            policy,
            "only \"Never\" is supported when podFailurePolicy is specified",
        );
    }
}

fn completion(spec: &Value, path: &Path, errors: &mut FieldErrors) {
    let mode = spec["completionMode"].text();
    one_of(
        &spec["completionMode"],
        &["Indexed", "NonIndexed"],
        path.child("completionMode"),
        errors,
    );
    if mode == "Indexed" {
        let (completions, parallelism) = (&spec["completions"], &spec["parallelism"]);
        if !completions.is_set() {
            errors.required(path.child("completions"), "when completion mode is Indexed");
        }
        for (field, value, max) in [
            ("parallelism", parallelism, MAX_INDEXED_PARALLELISM),
            ("completions", completions, MAX_INDEXED_COMPLETIONS),
        ] {
            if value.int() > max {
                let detail =
                    format!("must be less than or equal to {max} when completion mode is Indexed");
                errors.invalid(path.child(field), value.clone(), detail);
            }
        }
        indexed_failures(spec, path, errors);
        return;
    }
    if spec["backoffLimitPerIndex"].is_set() {
        let limit = spec["backoffLimitPerIndex"].clone();
        errors.invalid(
            path.child("backoffLimitPerIndex"),
            limit,
            "requires indexed completion mode",
        );
    }
    if spec["successPolicy"].is_set() {
        let policy = spec["successPolicy"].clone();
        errors.invalid(path.child("successPolicy"), policy, "requires indexed completion mode");
    }
    if spec["maxFailedIndexes"].is_set() && !spec["backoffLimitPerIndex"].is_set() {
        errors.required(path.child("backoffLimitPerIndex"), "when maxFailedIndexes is specified");
    }
}

/// The bounds of what an object can say of its failed indexes.
fn indexed_failures(spec: &Value, path: &Path, errors: &mut FieldErrors) {
    /// Above so many indexes, fewer may run and fail.
    const MANY: i64 = 100_000;
    const MAX_OF_MANY: i64 = 10_000;
    let (failures, completions) = (&spec["maxFailedIndexes"], &spec["completions"]);
    let at = path.child("maxFailedIndexes");
    if failures.is_set() && failures.int() > completions.int() {
        errors.invalid(&at, failures.clone(), "must be less than or equal to completions");
    }
    if failures.int() > MANY {
        let detail = format!("must be less than or equal to {MANY}");
        errors.invalid(&at, failures.clone(), detail);
    }
    if failures.is_set() && !spec["backoffLimitPerIndex"].is_set() {
        let at = path.child("backoffLimitPerIndex");
        errors.required(at, "when maxFailedIndexes is specified");
    }
    if !spec["backoffLimitPerIndex"].is_set() || completions.int() <= MANY {
        return;
    }
    if !failures.is_set() {
        errors.required(&at, format!("must be specified when completions is above {MANY}"));
    }
    for (field, at) in [("parallelism", path.child("parallelism")), ("maxFailedIndexes", at)] {
        if spec[field].int() > MAX_OF_MANY {
            let detail = format!(
                "must be less than or equal to {MAX_OF_MANY} when completions are above {MANY} and used with backoff limit per index"
            );
            errors.invalid(at, spec[field].clone(), detail);
        }
    }
}

/// Who runs the Job has a domain and a path.
fn managed_by(name: &Value, path: &Path, errors: &mut FieldErrors) {
    const MAX_BYTES: usize = 63;
    if !name.is_set() {
        return;
    }
    let text = name.text();
    match text.split_once('/') {
        _ if text.is_empty() => errors.required(path, ""),
        Some((domain, rest)) if !domain.is_empty() && !rest.is_empty() => {
            errors.invalid_each(path, domain, names::dns_subdomain(domain));
        }
        _ => {
            let detail = "must be a domain-prefixed path (such as \"acme.io/foo\")";
            errors.invalid(path, text, detail);
        }
    }
    if text.len() > MAX_BYTES {
        errors.too_long(path, MAX_BYTES);
    }
}

/// A selector that the server made must be the one it would make.
fn generated_selector(job: &Value, errors: &mut FieldErrors) {
    let spec = &job["spec"];
    if spec["manualSelector"].flag() || !spec["selector"].is_set() {
        return;
    }
    let uid = job["metadata"]["uid"].text();
    if uid.is_empty() {
        errors.required("metadata.uid", "");
    }
    let labels = &spec["template"]["metadata"]["labels"];
    let path = Path::from("spec.template.metadata.labels");
    for (label, want) in [
        (LEGACY_CONTROLLER_UID, uid),
        (LEGACY_JOB_NAME, job["metadata"]["name"].text()),
        (CONTROLLER_UID, uid),
        (JOB_NAME, job["metadata"]["name"].text()),
    ] {
        match labels.get(label).map(Read::text) {
            // Upstream wants the name as well. It was not known when the labels were made, if it
            // is a generated one; the selector goes by the uid.
            None if label == JOB_NAME || label == LEGACY_JOB_NAME => (),
            None => errors.required(path.key(label), format!("must be '{want}'")),
            Some(got) if got != want => {
                errors.invalid(path.key(label), got, format!("must be '{want}'"))
            }
            Some(_) => (),
        }
    }
    let selector = LabelSelector::from_value(Some(&spec["selector"]));
    if !selector.is_ok_and(|selector| selector.matches_labels(Some(labels))) {
        errors.invalid("spec.selector", spec["selector"].clone(), "`selector` not auto-generated");
    }
}

fn validate_update(new: &Value, old: &Value, errors: &mut FieldErrors) {
    let suspended = old["spec"]["suspend"].flag() && !old["status"]["startTime"].is_set();
    let (new, old, path) = (&new["spec"], &old["spec"], Path::new("spec"));
    completions_update(new, old, &path.child("completions"), errors);
    immutable(&new["selector"], &old["selector"], path.child("selector"), errors);
    let mut template = new["template"].clone();
    if suspended {
        scheduling_of_suspended(&mut template, &old["template"]);
    }
    if !same(&template, &old["template"]) {
        errors.invalid(path.child("template"), new["template"].clone(), "field is immutable");
    }
    for field in
        ["completionMode", "podFailurePolicy", "backoffLimitPerIndex", "managedBy", "successPolicy"]
    {
        immutable(&new[field], &old[field], path.child(field), errors);
    }
}

/// The number of indexes may change only along with how many run at once.
fn completions_update(new: &Value, old: &Value, path: &Path, errors: &mut FieldErrors) {
    let (completions, before) = (&new["completions"], &old["completions"]);
    if completions == before {
        return;
    }
    if old["completionMode"] != "Indexed" || !completions.is_set() || !before.is_set() {
        immutable(completions, before, path, errors);
    } else if completions != &new["parallelism"] {
        errors.invalid(
            path,
            completions.clone(),
            "can only be modified in tandem with spec.parallelism",
        );
    }
}

/// Where its pods may run, and with how much, can be changed until a suspended Job starts.
fn scheduling_of_suspended(template: &mut Value, old: &Value) {
    for field in ["labels", "annotations"] {
        if let Some(metadata) = template.get_mut("metadata") {
            carry(metadata, &old["metadata"], field);
        }
    }
    let (Some(spec), old) = (template.get_mut("spec"), &old["spec"]) else { return };
    for field in ["nodeSelector", "tolerations", "schedulingGates"] {
        carry(spec, old, field);
    }
    node_affinity_of_suspended(spec, &old["affinity"]);
    for list in ["containers", "initContainers"] {
        let containers = spec.get_mut(list).and_then(Value::as_array_mut);
        for (container, old) in containers.into_iter().flatten().zip(old[list].items()) {
            carry(container, old, "resources");
        }
    }
}

/// Of the affinity only what concerns nodes can be changed.
fn node_affinity_of_suspended(spec: &mut Value, old: &Value) {
    if spec["affinity"].size() > 0 {
        carry(&mut spec["affinity"], old, "nodeAffinity");
    } else if old["nodeAffinity"].is_set() {
        set(spec, "affinity", json!({ "nodeAffinity": old["nodeAffinity"] }));
    }
    // An empty one says as little as none.
    if spec["affinity"].size() == 0 && old.size() == 0 {
        if old.is_set() {
            set(spec, "affinity", old.clone());
        } else {
            unset(spec, "affinity");
        }
    }
}
