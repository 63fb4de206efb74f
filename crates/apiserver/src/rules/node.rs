//! `Node` (`ValidateNode` in `pkg/apis/core/validation/validation.go`).

use std::net::IpAddr;

use coracle_api::names;
use coracle_api::status::{FieldErrors, Path};
use serde_json::Value;

use crate::rules::checks::quantity_not_negative;
use crate::rules::json::{Read, object, set};
use crate::rules::networking::{NO_CIDR, is_cidr};
use crate::rules::{Rules, generic, pod};

pub static RULES: Rules = Rules {
    default: |node| {
        let status = object(node, "status");
        if status["allocatable"].size() == 0 && status["capacity"].size() > 0 {
            let capacity = status["capacity"].clone();
            set(status, "allocatable", capacity);
        }
    },
    // A kubelet registers its node with a status.
    prepare_create: |_| (),
    prepare_update: generic::keep_status,
    fields: |node| vec![("spec.unschedulable", node["spec"]["unschedulable"].flag().to_string())],
    validate: |node, errors| {
        // Upstream looks for taints in the metadata.
        let taints = Path::new("metadata").child("taints");
        pod::scheduling::taints(&node["spec"]["taints"], &taints, errors);
        resources(&node["status"], errors);
        pod_cidrs(&node["spec"]["podCIDRs"], &Path::new("spec").child("podCIDRs"), errors);
    },
    validate_update,
    validate_status_update: |new, old, errors| {
        resources(&new["status"], errors);
        validate_update(new, old, errors);
    },
    ..Rules::GENERIC
};

fn validate_update(new: &Value, old: &Value, errors: &mut FieldErrors) {
    let mut seen = Vec::new();
    for (index, address) in new["status"]["addresses"].items().iter().enumerate() {
        if seen.contains(&address) {
            let at = Path::new("status").child("addresses").index(index);
            errors.duplicate(at, address.clone());
        }
        seen.push(address);
    }
    let status = &new["status"]["config"];
    for part in ["assigned", "active", "lastKnownGood"] {
        if status[part].is_set() {
            let at = Path::new("status").child("config").child(part);
            config_source(&status[part], Source::Status, &at, errors);
        }
    }
    let (new, old, path) = (&new["spec"], &old["spec"], Path::new("spec"));
    if old["podCIDRs"].size() > 0 && !generic::same(&new["podCIDRs"], &old["podCIDRs"]) {
        let detail = "node updates may not change podCIDR except from \"\" to valid";
        errors.forbidden(path.child("podCIDRs"), detail);
    }
    if !old["providerID"].text().is_empty() && new["providerID"] != old["providerID"] {
        let detail = "node updates may not change providerID except from \"\" to valid";
        errors.forbidden(path.child("providerID"), detail);
    }
    if new["configSource"].is_set() {
        config_source(&new["configSource"], Source::Spec, &path.child("configSource"), errors);
    }
    if new["externalID"].text() != old["externalID"].text() {
        errors.forbidden(path.child("externalID"), "may not be updated");
    }
}

fn resources(status: &Value, errors: &mut FieldErrors) {
    for list in ["capacity", "allocatable"] {
        for (name, quantity) in status[list].entries() {
            let at = Path::new("status").child(list).child(name);
            let amount = quantity_not_negative(quantity, &at, errors);
            let counts = name == "pods" || (name.contains('/') && !name.contains("kubernetes.io/"));
            if counts && amount.is_some_and(|amount| !amount.is_integer()) {
                errors.invalid(at, quantity.clone(), "must be an integer");
            }
        }
    }
}

fn pod_cidrs(cidrs: &Value, path: &Path, errors: &mut FieldErrors) {
    let all = cidrs.items();
    for (index, cidr) in all.iter().enumerate() {
        if !is_cidr(cidr.text()) {
            errors.invalid(path.index(index), cidr.text(), NO_CIDR);
        }
    }
    let [first, second, rest @ ..] = all else { return };
    let address = |cidr: &Value| cidr.text().split('/').next().and_then(|ip| ip.parse().ok());
    let is_v6 = |cidr: &Value| matches!(address(cidr), Some(IpAddr::V6(_)));
    if is_v6(first) == is_v6(second) || !rest.is_empty() {
        let detail = "may specify no more than one CIDR for each IP family";
        errors.invalid(path, cidrs.clone(), detail);
    }
    for (index, cidr) in all.iter().enumerate() {
        if all[..index].contains(cidr) {
            errors.duplicate(path.index(index), cidr.text());
        }
    }
}

/// Where a reference to a kubelet's configuration stands.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Source {
    Spec,
    Status,
}

/// The field is of no use any more; who sets it is held to its rules.
fn config_source(source: &Value, of: Source, path: &Path, errors: &mut FieldErrors) {
    let (map, at) = (&source["configMap"], path.child("configMap"));
    if !map.is_set() {
        errors.invalid(path, source.clone(), "exactly one reference subfield must be non-nil");
        return;
    }
    for field in ["uid", "resourceVersion"] {
        match (of, map[field].text().is_empty()) {
            (Source::Spec, false) => {
                errors.forbidden(at.child(field), format!("{field} must not be set in spec"));
            }
            (Source::Status, true) => {
                errors.required(at.child(field), format!("{field} must be set in status"));
            }
            (Source::Spec, true) | (Source::Status, false) => (),
        }
    }
    let mut check = |field: &str, problems: fn(&str) -> Vec<String>| match map[field].text() {
        "" => errors.required(at.child(field), format!("{field} must be set")),
        text => errors.invalid_each(at.child(field), text, problems(text)),
    };
    check("namespace", names::dns_label);
    check("name", names::dns_subdomain);
    check("kubeletConfigKey", names::config_key);
}
