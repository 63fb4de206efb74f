//! `ReplicaSet`.

use coracle_api::status::Path;
use serde_json::json;

use crate::rules::checks::not_negative;
use crate::rules::json::{Read, default, object};
use crate::rules::{Rules, generic, pod, workload};

pub static RULES: Rules = Rules {
    default: |set| {
        let spec = object(set, "spec");
        default(spec, "replicas", 1);
        pod::defaults::template(spec);
    },
    prepare_create: |new| {
        generic::start_status(new, json!({"replicas": 0}));
        pod::prepare_template(&mut new["spec"]);
    },
    prepare_update: |new, old| {
        generic::keep_status(new, old);
        pod::prepare_template(&mut new["spec"]);
    },
    fields: |set| vec![("status.replicas", set["status"]["replicas"].int().to_string())],
    validate: |set, errors| {
        let (spec, path) = (&set["spec"], Path::new("spec"));
        not_negative(&spec["replicas"], path.child("replicas"), errors);
        not_negative(&spec["minReadySeconds"], path.child("minReadySeconds"), errors);
        workload::selector_and_template(spec, "ReplicaSet", &path, errors);
    },
    validate_update: workload::same_selector,
    validate_status_update: |new, old, errors| {
        workload::replica_counts(new, old, "readyReplicas", errors);
    },
    ..Rules::GENERIC
};
