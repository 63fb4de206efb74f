//! `ReplicationController`.

use serde_json::{Value, json};

use crate::rules::json::{Read, default, object, set};
use crate::rules::{Rules, generic, pod};

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
    fields: |controller| vec![("status.replicas", controller["status"]["replicas"].int().to_string())],
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
