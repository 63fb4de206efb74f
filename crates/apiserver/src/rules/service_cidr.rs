//! `ServiceCIDR` and `IPAddress`.

use std::net::IpAddr;

use coracle_api::names;
use coracle_api::status::{FieldErrors, Path};
use serde_json::{Value, json};

use crate::object;
use crate::rules::checks::immutable;
use crate::rules::json::Read;
use crate::rules::{Rules, generic};

/// The one that stands for the server's own option.
pub(crate) const DEFAULT: &str = "kubernetes";
/// One for each family of addresses.
const MAX_CIDRS: usize = 2;

pub static CIDR: Rules = Rules {
    prepare_create: |cidr| {
        if cidr["metadata"]["name"] == DEFAULT {
            let ready = json!({
                "type": "Ready", "status": "True", "reason": "NetworkDefaults",
                "message": "Kubernetes default Service CIDR is ready", "lastTransitionTime": object::now(),
            });
            generic::start_status(cidr, json!({ "conditions": [ready] }));
        } else {
            generic::drop_status(cidr);
        }
    },
    validate: |cidr, errors| cidrs(cidr["spec"]["cidrs"].items(), errors),
    validate_update: |new, old, errors| {
        let path = Path::new("spec").child("cidrs");
        immutable(&new["spec"]["cidrs"], &old["spec"]["cidrs"], path, errors);
    },
    ..Rules::GENERIC
};

pub static ADDRESS: Rules = Rules {
    validate: |address, errors| {
        let (parent, path) = (&address["spec"]["parentRef"], Path::new("spec").child("parentRef"));
        if !parent.is_set() {
            errors.required(path, "");
            return;
        }
        let group = parent["group"].text();
        if !group.is_empty() {
            errors.invalid_each(path.child("group"), group, names::dns_subdomain(group));
        }
        for field in ["resource", "name"] {
            match parent[field].text() {
                "" => errors.required(path.child(field), ""),
                name => errors.invalid_each(path.child(field), name, names::path_segment(name)),
            }
        }
        let namespace = parent["namespace"].text();
        if !namespace.is_empty() {
            errors.invalid_each(path.child("namespace"), namespace, names::path_segment(namespace));
        }
    },
    validate_update: |new, old, errors| {
        let path = Path::new("spec").child("parentRef");
        immutable(&new["spec"]["parentRef"], &old["spec"]["parentRef"], path, errors);
    },
    ..Rules::GENERIC
};

fn cidrs(cidrs: &[Value], errors: &mut FieldErrors) {
    let path = Path::new("spec").child("cidrs");
    if cidrs.is_empty() {
        errors.required(path, "at least one CIDR required");
        return;
    }
    if cidrs.len() > MAX_CIDRS {
        errors.invalid(path, cidrs.to_vec(), "may only hold up to 2 values");
        return;
    }
    for (index, cidr) in cidrs.iter().enumerate() {
        if !is_cidr(cidr.text()) {
            let detail = "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)";
            errors.invalid(path.index(index), cidr.text(), detail);
        }
    }
    let is_v6 = |cidr: &Value| cidr.text().contains(':');
    if let [one, other] = cidrs
        && is_v6(one) == is_v6(other)
    {
        let detail = "may specify no more than one IP for each IP family, i.e 192.168.0.0/24 and 2001:db8::/64";
        errors.invalid(path, cidrs.to_vec(), detail);
    }
}

fn is_cidr(text: &str) -> bool {
    let Some((address, bits)) = text.split_once('/') else { return false };
    let most = match address.parse() {
        Ok(IpAddr::V4(_)) => 32,
        Ok(IpAddr::V6(_)) => 128,
        Err(_) => return false,
    };
    bits.parse::<u8>().is_ok_and(|bits| bits <= most)
}
