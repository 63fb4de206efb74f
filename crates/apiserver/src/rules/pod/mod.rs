//! `Pod`, and the templates of pods in other kinds.

use coracle_api::status::Path;
use serde_json::{Value, json};

use crate::rules::Rules;
use crate::rules::generic::{carry, keep_status, start_status, take_status_keep_owners};
use crate::rules::json::{Read, default_zero, object, set};

mod annotations;
mod claims;
mod containers;
pub mod defaults;
mod environment;
mod host;
mod label_keys;
mod mounts;
mod parts;
mod probes;
mod qos;
mod resources;
pub mod scheduling;
pub mod spec;
mod status;
mod update;
pub mod volumes;

pub static RULES: Rules = Rules {
    default: defaults::pod,
    prepare_create,
    prepare_update: |new, old| {
        keep_status(new, old);
        defaults::service_account_names(object(new, "spec"));
    },
    prepare_status_update,
    validate: |pod, errors| {
        let at = Path::new("metadata").child("annotations");
        annotations::validate(&pod["metadata"]["annotations"], &pod["spec"], &at, errors);
        spec::validate(&pod["spec"], &Path::new("spec"), errors);
        if pod["metadata"]["resourceVersion"].text().is_empty() {
            spec::validate_new(&pod["spec"], &Path::new("spec"), errors);
        }
    },
    validate_update: update::validate,
    validate_status_update: status::validate,
    validate_part: parts::validate,
    fields,
};

/// `PodTemplate`, an object that holds nothing but the template of a pod.
pub static TEMPLATE_RULES: Rules = Rules {
    default: defaults::template,
    prepare_create: |_| (),
    prepare_update: |_, _| (),
    validate: |object, errors| {
        spec::validate_template(&object["template"], &Path::new("template"), errors)
    },
    ..Rules::GENERIC
};

/// What the server sees to in a template, in the field `template` of `parent`, after admission.
pub fn prepare_template(parent: &mut Value) {
    if let Some(spec) = parent.get_mut("template").and_then(|template| template.get_mut("spec")) {
        defaults::service_account_names(spec);
    }
}

fn prepare_create(pod: &mut Value) {
    defaults::service_account_names(object(pod, "spec"));
    label_keys::merge(pod);
    let mut status = json!({"phase": "Pending", "qosClass": qos::class(&pod["spec"])});
    if pod["spec"]["schedulingGates"].size() > 0 {
        let condition = json!({
            "type": "PodScheduled",
            "status": "False",
            "reason": "SchedulingGated",
            "message": "Scheduling is blocked due to non-empty scheduling gates",
        });
        set(&mut status, "conditions", vec![condition]);
    }
    start_status(pod, status);
}

fn prepare_status_update(new: &mut Value, old: &Value) {
    take_status_keep_owners(new, old);
    if let Some(metadata) = new.get_mut("metadata") {
        carry(metadata, &old["metadata"], "deletionTimestamp");
        carry(metadata, &old["metadata"], "deletionGracePeriodSeconds");
    }
    let status = object(new, "status");
    default_zero(status, "qosClass", old["status"]["qosClass"].clone());
    one_and_all(status, "podIP", "podIPs");
    one_and_all(status, "hostIP", "hostIPs");
}

/// A pod's first address stands by itself as well: writers of either field mean both.
fn one_and_all(status: &mut Value, one: &str, all: &str) {
    let first = status[one].text().to_owned();
    if first.is_empty() {
        if let Some(ip) = status[all].items().first().map(|entry| entry["ip"].clone()) {
            set(status, one, ip);
        }
    } else if status[all].items().first().is_none_or(|entry| entry["ip"].text() != first) {
        set(status, all, json!([{"ip": first}]));
    }
}

fn fields(pod: &Value) -> Vec<(&'static str, String)> {
    let (spec, status) = (&pod["spec"], &pod["status"]);
    let pod_ip = match status["podIPs"].items().first() {
        Some(entry) => entry["ip"].text(),
        None => status["podIP"].text(),
    };
    vec![
        ("spec.nodeName", spec["nodeName"].text().to_owned()),
        ("spec.restartPolicy", spec["restartPolicy"].text().to_owned()),
        ("spec.schedulerName", spec["schedulerName"].text().to_owned()),
        ("spec.serviceAccountName", spec["serviceAccountName"].text().to_owned()),
        ("spec.hostNetwork", spec["hostNetwork"].flag().to_string()),
        ("status.phase", status["phase"].text().to_owned()),
        ("status.podIP", pod_ip.to_owned()),
        ("status.podIPs", pod_ip.to_owned()),
        ("status.nominatedNodeName", status["nominatedNodeName"].text().to_owned()),
    ]
}
