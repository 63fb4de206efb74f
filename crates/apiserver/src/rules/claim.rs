//! `PersistentVolumeClaim`, and the templates of claims in other kinds.

use serde_json::{Value, json};

use crate::rules::generic::{keep_status, start_status};
use crate::rules::json::{Read, default, default_zero, object, set};
use crate::rules::{Rules, generic};

pub static RULES: Rules = Rules {
    default: |claim| {
        default_spec(object(claim, "spec"));
        default_zero(object(claim, "status"), "phase", "Pending");
    },
    prepare_create: |claim| {
        start_status(claim, json!({"phase": "Pending"}));
        join_data_sources(object(claim, "spec"));
    },
    prepare_update: |new, old| {
        keep_status(new, old);
        join_data_sources(object(new, "spec"));
    },
    prepare_status_update: generic::take_status,
    ..Rules::GENERIC
};

/// The defaults of a claim's spec, wherever the claim stands.
pub fn default_spec(spec: &mut Value) {
    default(spec, "volumeMode", "Filesystem");
    object(spec, "resources");
}

/// The defaults of a claim in a list of templates (`StatefulSet`).
pub fn default_template(claim: &mut Value) {
    default_zero(claim, "apiVersion", "v1");
    default_zero(claim, "kind", "PersistentVolumeClaim");
    (RULES.default)(claim);
}

/// A claim's source has two fields, the older of them without namespace: one given, the other follows.
fn join_data_sources(spec: &mut Value) {
    let (source, reference) = (spec["dataSource"].clone(), spec["dataSourceRef"].clone());
    if source.is_set() && !reference.is_set() {
        set(spec, "dataSourceRef", source);
    } else if reference.is_set() && !source.is_set() && reference["namespace"].text().is_empty() {
        set(spec, "dataSource", reference);
    }
}
