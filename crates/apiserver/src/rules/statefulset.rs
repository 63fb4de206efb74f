//! `StatefulSet`.

use serde_json::json;

use crate::rules::json::{Read, default, default_zero, each, object};
use crate::rules::{Rules, claim, generic, pod};

pub static RULES: Rules = Rules {
    default: |set| {
        let spec = object(set, "spec");
        default_zero(spec, "podManagementPolicy", "OrderedReady");
        let strategy = object(spec, "updateStrategy");
        default_zero(strategy, "type", "RollingUpdate");
        if strategy["type"].text() == "RollingUpdate" {
            default(object(strategy, "rollingUpdate"), "partition", 0);
        }
        let retention = object(spec, "persistentVolumeClaimRetentionPolicy");
        default_zero(retention, "whenDeleted", "Retain");
        default_zero(retention, "whenScaled", "Retain");
        default(spec, "replicas", 1);
        default(spec, "revisionHistoryLimit", 10);
        pod::defaults::template(spec);
        each(spec, "volumeClaimTemplates", claim::default_template);
    },
    prepare_create: |new| {
        generic::start_status(new, json!({"replicas": 0, "availableReplicas": 0}));
        pod::prepare_template(&mut new["spec"]);
    },
    prepare_update: |new, old| {
        generic::keep_status(new, old);
        pod::prepare_template(&mut new["spec"]);
    },
    ..Rules::GENERIC
};
