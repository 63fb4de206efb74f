//! `Deployment`.

use coracle_api::status::{FieldErrors, Path};
use serde_json::{Value, json};

use crate::rules::checks::not_negative;
use crate::rules::json::{Read, default, default_zero, object, unset};
use crate::rules::{Rules, generic, pod, workload};

pub static RULES: Rules = Rules {
    default: |deployment| {
        let spec = object(deployment, "spec");
        default(spec, "replicas", 1);
        let strategy = object(spec, "strategy");
        default_zero(strategy, "type", "RollingUpdate");
        if strategy["type"].text() == "RollingUpdate" {
            let rolling = object(strategy, "rollingUpdate");
            default(rolling, "maxUnavailable", "25%");
            default(rolling, "maxSurge", "25%");
        }
        default(spec, "revisionHistoryLimit", 10);
        default(spec, "progressDeadlineSeconds", 600);
        pod::defaults::template(spec);
        // As upstream writes it: not paused is not said.
        if spec["paused"] == false {
            unset(spec, "paused");
        }
    },
    prepare_create: |new| {
        generic::start_status(new, json!({}));
        pod::prepare_template(&mut new["spec"]);
    },
    prepare_update: |new, old| {
        generic::keep_status(new, old);
        pod::prepare_template(&mut new["spec"]);
    },
    prepare_status_update: generic::take_status_keep_labels,
    validate,
    validate_update: workload::same_selector,
    validate_status_update: |new, old, errors| {
        workload::replica_counts(new, old, "readyReplicas", errors);
    },
    ..Rules::GENERIC
};

fn validate(deployment: &Value, errors: &mut FieldErrors) {
    let (spec, path) = (&deployment["spec"], Path::new("spec"));
    not_negative(&spec["replicas"], path.child("replicas"), errors);
    workload::selector_and_template(spec, "Deployment", &path, errors);
    strategy(&spec["strategy"], &path.child("strategy"), errors);
    let ready_seconds = &spec["minReadySeconds"];
    not_negative(ready_seconds, path.child("minReadySeconds"), errors);
    not_negative(&spec["revisionHistoryLimit"], path.child("revisionHistoryLimit"), errors);
    let deadline = &spec["progressDeadlineSeconds"];
    if deadline.is_set() {
        not_negative(deadline, path.child("progressDeadlineSeconds"), errors);
        if deadline.int() <= ready_seconds.int() {
            errors.invalid(
                path.child("progressDeadlineSeconds"),
                deadline.clone(),
                "must be greater than minReadySeconds",
            );
        }
    }
}

fn strategy(strategy: &Value, path: &Path, errors: &mut FieldErrors) {
    let rolling = path.child("rollingUpdate");
    match strategy["type"].text() {
        "Recreate" if strategy["rollingUpdate"].is_set() => {
            errors.forbidden(rolling, "may not be specified when strategy `type` is 'Recreate'");
        }
        "Recreate" => (),
        "RollingUpdate" => {
            let both = "may not be 0 when `maxSurge` is 0";
            workload::rolling_update(&strategy["rollingUpdate"], both, &rolling, errors);
        }
        _ => errors.not_supported(path, strategy.clone(), &["Recreate", "RollingUpdate"]),
    }
}
