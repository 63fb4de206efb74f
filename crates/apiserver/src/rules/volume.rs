//! `PersistentVolume`.

use serde_json::json;

use crate::rules::json::{default, default_zero, object};
use crate::rules::{Rules, generic, pod};

pub static RULES: Rules = Rules {
    default: |volume| {
        default_zero(object(volume, "status"), "phase", "Pending");
        let spec = object(volume, "spec");
        default_zero(spec, "persistentVolumeReclaimPolicy", "Retain");
        default(spec, "volumeMode", "Filesystem");
        pod::defaults::volume_source(spec);
    },
    prepare_create: |volume| {
        let now = jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
        generic::start_status(volume, json!({"phase": "Pending", "lastPhaseTransitionTime": now}));
    },
    ..Rules::GENERIC
};
