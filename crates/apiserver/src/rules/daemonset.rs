//! `DaemonSet`.

use serde_json::json;

use crate::rules::json::{Read, default, default_zero, object};
use crate::rules::{Rules, generic, pod};

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
    ..Rules::GENERIC
};
