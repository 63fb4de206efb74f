//! `Endpoints` and `EndpointSlice`.
//!
//! Upstream forbids loopback addresses here. Without root this cluster's pods live on them, so they are allowed.

use std::net::IpAddr;

use coracle_api::names;
use coracle_api::status::{FieldErrors, Path};
use serde_json::Value;

use crate::rules::Rules;
use crate::rules::checks::{immutable, labels, required_one_of, unique};
use crate::rules::json::{Read, default, default_zero, each};

/// More than this in one object would make every change of one endpoint expensive.
const MAX_ENDPOINTS: usize = 1000;
const MAX_ADDRESSES: usize = 100;
const MAX_PORTS: usize = 20_000;
const MAX_HINTS: usize = 8;
const PROTOCOLS: [&str; 3] = ["SCTP", "TCP", "UDP"];

pub static ENDPOINTS: Rules = Rules {
    default: |endpoints| {
        each(endpoints, "subsets", |subset| {
            each(subset, "ports", |port| default_zero(port, "protocol", "TCP"))
        });
    },
    validate: |endpoints, errors| {
        for (index, subset) in endpoints["subsets"].items().iter().enumerate() {
            validate_subset(subset, &Path::new("subsets").index(index), errors);
        }
    },
    ..Rules::GENERIC
};

pub static SLICE: Rules = Rules {
    default: |slice| {
        each(slice, "ports", |port| {
            default(port, "name", "");
            default(port, "protocol", "TCP");
        });
    },
    validate: validate_slice,
    validate_update: |new, old, errors| {
        immutable(&new["addressType"], &old["addressType"], "addressType", errors)
    },
    ..Rules::GENERIC
};

fn validate_subset(subset: &Value, path: &Path, errors: &mut FieldErrors) {
    if subset["addresses"].size() + subset["notReadyAddresses"].size() == 0 {
        errors.required(path, "must specify `addresses` or `notReadyAddresses`");
    }
    for list in ["addresses", "notReadyAddresses"] {
        for (index, address) in subset[list].items().iter().enumerate() {
            let at = path.child(list).index(index);
            validate_ip(address["ip"].text(), &at.child("ip"), errors);
            let node = address["nodeName"].text();
            if address["nodeName"].is_set() {
                errors.invalid_each(at.child("nodeName"), node, names::dns_subdomain(node));
            }
            let host = address["hostname"].text();
            if !host.is_empty() {
                errors.invalid_each(at.child("hostname"), host, names::dns_label(host));
            }
        }
    }
    for (index, port) in subset["ports"].items().iter().enumerate() {
        let at = path.child("ports").index(index);
        match port["name"].text() {
            "" if subset["ports"].size() > 1 => errors.required(at.child("name"), ""),
            "" => (),
            name => errors.invalid_each(at.child("name"), name, names::dns_label(name)),
        }
        for message in names::port_number(port["port"].int()) {
            errors.invalid(at.child("port"), port["port"].int(), message);
        }
        required_one_of(&port["protocol"], &PROTOCOLS, at.child("protocol"), errors);
        let application = port["appProtocol"].text();
        if !application.is_empty() {
            let wrong = names::qualified_name(application);
            errors.invalid_each(at.child("appProtocol"), application, wrong);
        }
    }
}

/// An address that traffic can be sent to.
fn validate_ip(text: &str, path: &Path, errors: &mut FieldErrors) {
    let wrong = names::ip_address(text);
    let address: Option<IpAddr> = text.parse().ok();
    errors.invalid_each(path, text, wrong);
    let Some(address) = address else { return };
    if address.is_unspecified() {
        errors.invalid(path, text, format!("may not be unspecified ({address})"));
    }
    if address.is_multicast() {
        let detail = "may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)";
        errors.invalid(path, text, detail);
    }
    if matches!(address, IpAddr::V4(address) if address.is_link_local()) {
        errors.invalid(
            path,
            text,
            "may not be in the link-local range (169.254.0.0/16, fe80::/10)",
        );
    }
}

fn validate_slice(slice: &Value, errors: &mut FieldErrors) {
    let kind = slice["addressType"].text();
    required_one_of(&slice["addressType"], &["FQDN", "IPv4", "IPv6"], "addressType", errors);
    let endpoints = slice["endpoints"].items();
    let path = Path::new("endpoints");
    if endpoints.len() > MAX_ENDPOINTS {
        errors.too_many(&path, endpoints.len(), MAX_ENDPOINTS);
        return;
    }
    for (index, endpoint) in endpoints.iter().enumerate() {
        validate_endpoint(endpoint, kind, &path.index(index), errors);
    }
    slice_ports(slice["ports"].items(), &Path::new("ports"), errors);
}

fn validate_endpoint(endpoint: &Value, kind: &str, at: &Path, errors: &mut FieldErrors) {
    let addresses = endpoint["addresses"].items();
    let path = at.child("addresses");
    if addresses.is_empty() {
        errors.required(&path, "must contain at least 1 address");
    } else if addresses.len() > MAX_ADDRESSES {
        errors.too_many(&path, addresses.len(), MAX_ADDRESSES);
    }
    for (index, address) in addresses.iter().enumerate() {
        let (text, path) = (address.text(), path.index(index));
        match (kind, text.parse::<IpAddr>()) {
            ("FQDN", _) => errors.invalid_each(&path, text, names::dns_subdomain(text)),
            ("IPv4", Ok(IpAddr::V6(_)) | Err(_)) => {
                errors.invalid(&path, text, "must be a valid IPv4 address")
            }
            ("IPv6", Ok(IpAddr::V4(_)) | Err(_)) => {
                errors.invalid(&path, text, "must be a valid IPv6 address")
            }
            _ => validate_ip(text, &path, errors),
        }
    }
    let node = endpoint["nodeName"].text();
    if !node.is_empty() {
        errors.invalid_each(at.child("nodeName"), node, names::dns_subdomain(node));
    }
    let host = endpoint["hostname"].text();
    if !host.is_empty() {
        errors.invalid_each(at.child("hostname"), host, names::dns_label(host));
    }
    labels(&endpoint["deprecatedTopology"], &at.child("deprecatedTopology"), errors);
    for field in ["forZones", "forNodes"] {
        let (hints, path) = (&endpoint["hints"][field], at.child("hints").child(field));
        if hints.size() > MAX_HINTS {
            errors.too_many(&path, hints.size(), MAX_HINTS);
        }
        let mut seen = Vec::new();
        for (index, hint) in hints.items().iter().enumerate() {
            let (name, path) = (hint["name"].text(), path.index(index).child("name"));
            unique(&mut seen, name, &path, errors);
            errors.invalid_each(path, name, names::label_value(name));
        }
    }
}

fn slice_ports(ports: &[Value], path: &Path, errors: &mut FieldErrors) {
    if ports.len() > MAX_PORTS {
        errors.too_many(path, ports.len(), MAX_PORTS);
        return;
    }
    let mut seen = Vec::new();
    for (index, port) in ports.iter().enumerate() {
        let at = path.index(index);
        let name = port["name"].text();
        if !name.is_empty() {
            errors.invalid_each(at.child("name"), name, names::dns_label(name));
        }
        unique(&mut seen, name, at.child("name"), errors);
        required_one_of(&port["protocol"], &PROTOCOLS, at.child("protocol"), errors);
        let application = port["appProtocol"].text();
        if !application.is_empty() {
            let wrong = names::qualified_name(application);
            errors.invalid_each(at.child("appProtocol"), application, wrong);
        }
    }
}
