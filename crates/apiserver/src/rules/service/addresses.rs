//! A Service's addresses and their families: `clusterIP`, `clusterIPs`, `ipFamilies`, `ipFamilyPolicy`
//! (`ValidateServiceClusterIPsRelatedFields` in `pkg/apis/core/validation/validation.go`).

use std::net::IpAddr;

use coracle_api::names;
use coracle_api::status::{FieldErrors, Path};
use serde_json::Value;

use crate::rules::checks::{one_of, unique};
use crate::rules::json::Read;

const STAYS: &str = "may not change once set";

/// Checks the addresses of a Service that has some.
pub fn validate(spec: &Value, path: &Path, errors: &mut FieldErrors) {
    if spec["type"] == "ExternalName" {
        return;
    }
    let (one, all) = (spec["clusterIP"].text(), &spec["clusterIPs"]);
    let at = path.child("clusterIPs");
    match (one, all.items().first()) {
        ("", Some(_)) => {
            errors.invalid(&at, all.clone(), "must be empty when `clusterIP` is not specified");
        }
        ("", None) => (),
        (_, None) => errors.required(&at, ""),
        (one, Some(first)) if first.text() != one => {
            errors.invalid(&at, all.clone(), "first value must match `clusterIP`");
        }
        (_, Some(_)) => (),
    }
    let families = path.child("ipFamilies");
    let mut seen = Vec::new();
    for (index, family) in spec["ipFamilies"].items().iter().enumerate() {
        one_of(family, &["IPv4", "IPv6"], families.index(index), errors);
        unique(&mut seen, family.text(), families.index(index), errors);
    }
    let policies = ["PreferDualStack", "RequireDualStack", "SingleStack"];
    one_of(&spec["ipFamilyPolicy"], &policies, path.child("ipFamilyPolicy"), errors);
    if well_formed(all, &at, errors) {
        match_families(spec, &at, errors);
    }
    if !is_headless(spec) || spec["selector"].size() > 0 {
        configured(spec, path, errors);
    }
}

/// This cluster gives addresses of one family. Who has no address and picks its own endpoints may name both.
fn configured(spec: &Value, path: &Path, errors: &mut FieldErrors) {
    if spec["ipFamilyPolicy"] == "RequireDualStack" {
        let detail = "this cluster is not configured for dual-stack services";
        errors.invalid(path.child("ipFamilyPolicy"), spec["ipFamilyPolicy"].clone(), detail);
    }
    for (index, family) in spec["ipFamilies"].items().iter().enumerate() {
        if family == "IPv6" {
            let at = path.child("ipFamilies").index(index);
            errors.invalid(at, family.clone(), "not configured on this cluster");
        }
    }
}

/// Whether each is an address, or the only one says that there is none.
fn well_formed(all: &Value, at: &Path, errors: &mut FieldErrors) -> bool {
    let before = errors.len();
    for (index, ip) in all.items().iter().enumerate() {
        if index > 0 || ip != "None" {
            errors.invalid_each(at.index(index), ip.text(), names::ip_address(ip.text()));
        } else if all.size() > 1 {
            errors.invalid(at, all.clone(), "'None' must be the first and only value");
        }
    }
    let is_well_formed = errors.len() == before;
    if all.size() > 2 {
        errors.invalid(at, all.clone(), "may only hold up to 2 values");
    }
    is_well_formed
}

fn match_families(spec: &Value, at: &Path, errors: &mut FieldErrors) {
    let all = spec["clusterIPs"].items();
    let sixes = all.iter().filter(|ip| is_v6(ip)).count();
    if all.len() > 1 && (sixes > 1 || all.len() - sixes > 1) {
        let detail = "may specify no more than one IP for each IP family";
        errors.invalid(at, spec["clusterIPs"].clone(), detail);
    }
    if is_headless(spec) {
        return;
    }
    for (index, (ip, family)) in all.iter().zip(spec["ipFamilies"].items()).enumerate() {
        let family = family.text();
        if (family == "IPv4" && is_v6(ip)) || (family == "IPv6" && !is_v6(ip)) {
            let detail =
                format!("expected an {family} value as indicated by `ipFamilies[{index}]`");
            errors.invalid(at.index(index), ip.text(), detail);
        }
    }
}

/// A second address may come and go; the first one stays.
pub fn validate_update(new: &Value, old: &Value, errors: &mut FieldErrors) {
    if new["type"] == "ExternalName" || old["type"] == "ExternalName" {
        return;
    }
    let headless = (is_headless(new), is_headless(old));
    if headless != (true, true) {
        of_list(new, old, ("clusterIPs", "clusterIP"), errors);
    }
    if headless == (false, false) {
        of_list(new, old, ("ipFamilies", "ipFamily"), errors);
    }
}

fn of_list(new: &Value, old: &Value, names: (&str, &str), errors: &mut FieldErrors) {
    let (list, one) = names;
    let (after, before) = (new[list].items(), old[list].items());
    let path = Path::new("spec").child(list);
    if after.len() == before.len() {
        for (index, _) in before.iter().zip(after).enumerate().filter(|(_, (old, new))| old != new)
        {
            let index = if list == "ipFamilies" { 0 } else { index };
            errors.invalid(path.index(index), new[list].clone(), STAYS);
        }
        return;
    }
    let (Some(first), Some(was)) = (after.first(), before.first()) else {
        if after.is_empty() {
            let detail = format!("primary {one} can not be unset");
            errors.invalid(path.index(0), new[list].clone(), detail);
        }
        return;
    };
    if first != was {
        errors.invalid(path.index(0), new[list].clone(), STAYS);
    }
    if after.len() < before.len() && after.len() == 1 && new["ipFamilyPolicy"] != "SingleStack" {
        let detail = format!("must be set to 'SingleStack' when releasing the secondary {one}");
        errors.invalid("spec.ipFamilyPolicy", new["ipFamilyPolicy"].clone(), detail);
    }
}

fn is_headless(spec: &Value) -> bool {
    matches!(spec["clusterIPs"].items(), [one] if one == "None")
}

fn is_v6(ip: &Value) -> bool {
    matches!(ip.text().parse(), Ok(IpAddr::V6(_)))
}
