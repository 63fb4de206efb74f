//! `ReplicationController`.

use coracle_api::selector::LabelSelector;
use coracle_api::status::Path;
use serde_json::{Value, json};

use crate::rules::checks::{labels, not_negative, required};
use crate::rules::json::{Read, default, object, set};
use crate::rules::{Rules, generic, pod, workload};

pub static RULES: Rules = Rules {
    default: |controller| {
        labels_of_template(controller);
        let spec = object(controller, "spec");
        default(spec, "replicas", 1);
        if spec["template"].is_set() {
            pod::defaults::template(spec);
        }
    },
    prepare_create: |new| {
        generic::start_status(new, json!({"replicas": 0}));
        pod::prepare_template(&mut new["spec"]);
    },
    prepare_update: |new, old| {
        generic::keep_status(new, old);
        pod::prepare_template(&mut new["spec"]);
    },
    fields: |controller| {
        vec![("status.replicas", controller["status"]["replicas"].int().to_string())]
    },
    validate: |controller, errors| {
        let (spec, path) = (&controller["spec"], Path::new("spec"));
        not_negative(&spec["minReadySeconds"], path.child("minReadySeconds"), errors);
        required(&spec["selector"], path.child("selector"), errors);
        labels(&spec["selector"], &path.child("selector"), errors);
        not_negative(&spec["replicas"], path.child("replicas"), errors);
        let template = path.child("template");
        if !spec["template"].is_set() {
            return errors.required(&template, "");
        }
        let selector = LabelSelector::from_map(Some(&spec["selector"]));
        workload::matches_template(&selector, spec, &path, errors);
        workload::template_of_long_running(
            &spec["template"],
            "ReplicationController",
            &template,
            errors,
        );
    },
    validate_status_update: |new, old, errors| {
        workload::replica_counts(new, old, "readyReplicas", errors);
    },
    ..Rules::GENERIC
};

/// The labels of the template serve as selector and as labels where those are missing.
fn labels_of_template(controller: &mut Value) {
    let labels = controller["spec"]["template"]["metadata"]["labels"].clone();
    if labels.size() == 0 {
        return;
    }
    if controller["spec"]["selector"].size() == 0 {
        set(object(controller, "spec"), "selector", labels.clone());
    }
    if controller["metadata"]["labels"].size() == 0 {
        set(object(controller, "metadata"), "labels", labels);
    }
}
