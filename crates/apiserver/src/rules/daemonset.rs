//! `DaemonSet`.

use coracle_api::status::{FieldErrors, Path};
use serde_json::{Value, json};

use crate::rules::checks::{is_nothing, none_negative, not_negative};
use crate::rules::json::{Read, default, default_zero, object};
use crate::rules::{Rules, generic, pod, workload};

pub static RULES: Rules = Rules {
    default: |set| {
        let spec = object(set, "spec");
        let strategy = object(spec, "updateStrategy");
        default_zero(strategy, "type", "RollingUpdate");
        if strategy["type"].text() == "RollingUpdate" {
            let rolling = object(strategy, "rollingUpdate");
            default(rolling, "maxUnavailable", 1);
            default(rolling, "maxSurge", 0);
        }
        default(spec, "revisionHistoryLimit", 10);
        pod::defaults::template(spec);
    },
    prepare_create: |new| {
        let status = json!({"currentNumberScheduled": 0, "numberMisscheduled": 0, "desiredNumberScheduled": 0, "numberReady": 0});
        generic::start_status(new, status);
        pod::prepare_template(&mut new["spec"]);
    },
    prepare_update: |new, old| {
        generic::keep_status(new, old);
        pod::prepare_template(&mut new["spec"]);
    },
    validate: |set, errors| {
        let (spec, path) = (&set["spec"], Path::new("spec"));
        workload::selector_and_template(spec, "DaemonSet", &path, errors);
        not_negative(&spec["minReadySeconds"], path.child("minReadySeconds"), errors);
        strategy(&spec["updateStrategy"], &path.child("updateStrategy"), errors);
        not_negative(&spec["revisionHistoryLimit"], path.child("revisionHistoryLimit"), errors);
    },
    validate_update: workload::same_selector,
    validate_status_update: |new, old, errors| {
        none_negative(&new["status"], &COUNTS, &Path::new("status"), errors);
        workload::collisions(new, old, errors);
    },
    ..Rules::GENERIC
};

const COUNTS: [&str; 9] = [
    "currentNumberScheduled",
    "numberMisscheduled",
    "desiredNumberScheduled",
    "numberReady",
    "observedGeneration",
    "updatedNumberScheduled",
    "numberAvailable",
    "numberUnavailable",
    "collisionCount",
];

fn strategy(strategy: &Value, path: &Path, errors: &mut FieldErrors) {
    let rolling = &strategy["rollingUpdate"];
    let at = path.child("rollingUpdate");
    match strategy["type"].text() {
        "OnDelete" => (),
        "RollingUpdate" if !rolling.is_set() => errors.required(at, ""),
        "RollingUpdate" => {
            workload::rolling_update(rolling, "cannot be 0 when maxSurge is 0", &at, errors);
            if !is_nothing(&rolling["maxUnavailable"]) && !is_nothing(&rolling["maxSurge"]) {
                let detail = "may not be set when maxUnavailable is non-zero";
                errors.invalid(at.child("maxSurge"), rolling["maxSurge"].clone(), detail);
            }
        }
        other => errors.not_supported(path, other, &["OnDelete", "RollingUpdate"]),
    }
}
