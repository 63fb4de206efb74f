//! `NetworkPolicy`, `Ingress`, `IngressClass`.

use std::net::IpAddr;

use coracle_api::names;
use coracle_api::status::{FieldErrors, Path};
use serde_json::{Value, json};

use crate::rules::checks::{immutable, label_selector, one_of, port_number_or_name};
use crate::rules::json::{Read, default, each, object, set, with};
use crate::rules::service::validation::balancer_status;
use crate::rules::{Rules, generic};

mod ingress;

/// As upstream.
const MAX_CONTROLLER_BYTES: usize = 250;

/// What is said of what is no range of addresses.
pub const NO_CIDR: &str = "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)";

pub static NETWORK_POLICY: Rules = Rules {
    default: |policy| {
        let spec = object(policy, "spec");
        object(spec, "podSelector");
        for list in ["ingress", "egress"] {
            each(spec, list, |rule: &mut Value| {
                each(rule, "ports", |port| default(port, "protocol", "TCP"))
            });
        }
        if spec["policyTypes"].size() == 0 {
            let types = if spec["egress"].size() > 0 {
                json!(["Ingress", "Egress"])
            } else {
                json!(["Ingress"])
            };
            set(spec, "policyTypes", types);
        }
    },
    validate: validate_policy,
    ..Rules::GENERIC
};

pub static INGRESS: Rules = Rules {
    prepare_create: |ingress| generic::start_status(ingress, json!({"loadBalancer": {}})),
    validate: ingress::validate,
    validate_status_update: |new, _, errors| {
        let path = Path::new("status").child("loadBalancer");
        let status = &new["status"]["loadBalancer"];
        balancer_status(status, &path, errors);
    },
    ..Rules::GENERIC
};

pub static INGRESS_CLASS: Rules = Rules {
    default: |class| {
        let spec = object(class, "spec");
        with(spec, "parameters", |parameters| default(parameters, "scope", "Cluster"));
    },
    validate: |class, errors| {
        let path = Path::new("spec").child("controller");
        let controller = class["spec"]["controller"].text();
        if controller.len() > MAX_CONTROLLER_BYTES {
            errors.too_long(&path, MAX_CONTROLLER_BYTES);
        }
        errors.invalid_each(path, controller, names::qualified_name(controller));
        class_parameters(
            &class["spec"]["parameters"],
            &Path::new("spec").child("parameters"),
            errors,
        );
    },
    validate_update: |new, old, errors| {
        immutable(
            &new["spec"]["controller"],
            &old["spec"]["controller"],
            "spec.controller",
            errors,
        );
    },
    ..Rules::GENERIC
};

/// Checks what a class of Ingresses refers to.
fn class_parameters(parameters: &Value, path: &Path, errors: &mut FieldErrors) {
    if !parameters.is_set() {
        return;
    }
    let group = parameters["apiGroup"].text();
    if !group.is_empty() {
        errors.invalid_each(path.child("apiGroup"), group, names::dns_subdomain(group));
    }
    for field in ["kind", "name"] {
        match parameters[field].text() {
            "" => errors.required(path.child(field), format!("{field} is required")),
            text => errors.invalid_each(path.child(field), text, names::path_segment(text)),
        }
    }
    let (scope, namespace) = (parameters["scope"].text(), parameters["namespace"].text());
    let at = path.child("namespace");
    match (scope, parameters["namespace"].is_set()) {
        ("", _) => errors.required(path.child("scope"), ""),
        ("Cluster", true) => errors.forbidden(at, "`parameters.scope` is set to 'Cluster'"),
        ("Namespace", false) => errors.required(at, "`parameters.scope` is set to 'Namespace'"),
        ("Namespace", true) => errors.invalid_each(at, namespace, names::dns_label(namespace)),
        ("Cluster", false) => (),
        (other, _) => {
            errors.not_supported(path.child("scope"), other, &["Cluster", "Namespace"]);
        }
    }
}

fn validate_policy(policy: &Value, errors: &mut FieldErrors) {
    let (spec, path) = (&policy["spec"], Path::new("spec"));
    label_selector(&spec["podSelector"], &path.child("podSelector"), errors);
    for (list, peers) in [("ingress", "from"), ("egress", "to")] {
        for (index, rule) in spec[list].items().iter().enumerate() {
            let at = path.child(list).index(index);
            for (index, port) in rule["ports"].items().iter().enumerate() {
                validate_policy_port(port, &at.child("ports").index(index), errors);
            }
            for (index, peer) in rule[peers].items().iter().enumerate() {
                validate_peer(peer, &at.child(peers).index(index), errors);
            }
        }
    }
    let types = spec["policyTypes"].items();
    let at = path.child("policyTypes");
    if types.len() > 2 {
        errors.invalid(
            &at,
            spec["policyTypes"].clone(),
            "may not specify more than two policyTypes",
        );
    }
    for (index, kind) in types.iter().enumerate() {
        one_of(kind, &["Egress", "Ingress"], at.index(index), errors);
    }
}

fn validate_policy_port(port: &Value, at: &Path, errors: &mut FieldErrors) {
    one_of(&port["protocol"], &["SCTP", "TCP", "UDP"], at.child("protocol"), errors);
    let (first, last) = (&port["port"], &port["endPort"]);
    if first.is_set() {
        port_number_or_name(first, &at.child("port"), errors);
    }
    if !last.is_set() {
        return;
    }
    for message in names::port_number(last.int()) {
        errors.invalid(at.child("endPort"), last.clone(), message);
    }
    if !first.is_set() {
        errors.required(at.child("port"), "must be specified when `endPort` is specified");
    } else if first.is_string() {
        errors.invalid(
            at.child("endPort"),
            last.clone(),
            "may not be specified when `port` is non-numeric",
        );
    } else if last.int() < first.int() {
        errors.invalid(
            at.child("endPort"),
            last.clone(),
            "must be greater than or equal to `port`",
        );
    }
}

fn validate_peer(peer: &Value, at: &Path, errors: &mut FieldErrors) {
    for field in ["podSelector", "namespaceSelector"] {
        label_selector(&peer[field], &at.child(field), errors);
    }
    let selects = peer["podSelector"].is_set() || peer["namespaceSelector"].is_set();
    let block = &peer["ipBlock"];
    if block.is_set() && selects {
        errors.forbidden(at, "may not specify both ipBlock and another peer");
    } else if !block.is_set() && !selects {
        errors.required(at, "must specify a peer");
    }
    if !block.is_set() {
        return;
    }
    let path = at.child("ipBlock");
    match block["cidr"].text() {
        "" => errors.required(path.child("cidr"), ""),
        cidr if !is_cidr(cidr) => errors.invalid(path.child("cidr"), cidr, NO_CIDR),
        _ => (),
    }
    for (index, except) in block["except"].items().iter().enumerate() {
        if !is_cidr(except.text()) {
            errors.invalid(path.child("except").index(index), except.clone(), NO_CIDR);
        } else if !is_inside(except.text(), block["cidr"].text()) {
            let detail = "must be a strict subset of `cidr`";
            errors.invalid(path.child("except").index(index), except.clone(), detail);
        }
    }
}

/// Whether the inner range is a part of the outer one, and smaller.
fn is_inside(inner: &str, outer: &str) -> bool {
    let bits = |address: IpAddr| match address {
        IpAddr::V4(address) => (u128::from(u32::from(address)) << 96, false),
        IpAddr::V6(address) => (u128::from(address), true),
    };
    let read = |text: &str| {
        let (address, length) = text.split_once('/')?;
        Some((bits(address.parse().ok()?), length.parse::<u32>().ok()?))
    };
    let (Some((inner, longer)), Some((outer, shorter))) = (read(inner), read(outer)) else {
        // What is wrong with them has been said.
        return true;
    };
    let differing = (inner.0 ^ outer.0).checked_shr(128 - shorter).unwrap_or(0);
    inner.1 == outer.1 && longer > shorter && (shorter == 0 || differing == 0)
}

/// Whether the text is a range of addresses: `10.9.8.0/24`.
pub fn is_cidr(text: &str) -> bool {
    let Some((address, bits)) = text.split_once('/') else { return false };
    let max = match address.parse::<std::net::IpAddr>() {
        Ok(std::net::IpAddr::V4(_)) => 32,
        Ok(std::net::IpAddr::V6(_)) => 128,
        Err(_) => return false,
    };
    bits.parse::<u8>().is_ok_and(|bits| bits <= max)
}
