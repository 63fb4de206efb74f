//! `Deployment`.

use serde_json::json;

use crate::rules::json::{Read, default, default_zero, object, unset};
use crate::rules::{Rules, generic, pod};

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
    ..Rules::GENERIC
};
