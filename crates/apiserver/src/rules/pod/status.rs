//! What may be said of a pod's state (`ValidatePodStatusUpdate` in `pkg/apis/core/validation/validation.go`).

use std::net::IpAddr;

use coracle_api::names;
use coracle_api::status::{FieldErrors, Path};
use serde_json::Value;

use super::annotations;
use crate::rules::checks::{immutable, unique};
use crate::rules::json::{Read, is_zero};

/// Conditions that are named without a domain.
const OWN_CONDITIONS: [&str; 3] = ["PodScheduled", "Ready", "Initialized"];

/// Checks a write of a pod's status.
pub fn validate(new: &Value, old: &Value, errors: &mut FieldErrors) {
    annotations::validate_update(new, old, errors);
    let (status, before, path) = (&new["status"], &old["status"], Path::new("status"));
    for (index, condition) in status["conditions"].items().iter().enumerate() {
        let kind = condition["type"].text();
        if !OWN_CONDITIONS.contains(&kind) {
            // Upstream's path, indeed.
            let at = Path::new("metadata").child("conditions").index(index).child("Type");
            errors.invalid_each(at, kind, names::qualified_name(kind));
        }
    }
    let nominated = status["nominatedNodeName"].text();
    if !nominated.is_empty() && nominated != before["nominatedNodeName"].text() {
        let wrong = names::dns_subdomain(nominated);
        errors.invalid_each(path.child("nominatedNodeName"), nominated, wrong);
    }
    // What older servers stored without a class may get one.
    if !is_zero(&before["qosClass"]) {
        immutable(&status["qosClass"], &before["qosClass"], path.child("qosClass"), errors);
    }
    no_resurrection(old, status, &path, errors);
    claims(&status["resourceClaimStatuses"], &new["spec"], &path, errors);
    addresses(status, &path, errors);
}

/// A container that ended for good does not run again.
fn no_resurrection(old: &Value, status: &Value, path: &Path, errors: &mut FieldErrors) {
    let (spec, before) = (&old["spec"], &old["status"]);
    let sidecars: Vec<&Value> = spec["initContainers"]
        .items()
        .iter()
        .filter(|container| container["restartPolicy"] == "Always")
        .map(|container| &container["name"])
        .collect();
    let rules_of_own = |name: &Value| {
        let containers = spec["containers"].items().iter().chain(spec["initContainers"].items());
        containers
            .into_iter()
            .any(|container| container["name"] == *name && container["restartPolicy"].is_set())
    };
    let policy = spec["restartPolicy"].text();
    let lists = [
        ("containerStatuses", policy),
        ("initContainerStatuses", policy),
        // Nobody restarts these.
        ("ephemeralContainerStatuses", "Never"),
    ];
    for (list, policy) in lists.into_iter().filter(|(_, policy)| *policy != "Always") {
        for (index, was) in before[list].items().iter().enumerate() {
            let ended = &was["state"]["terminated"];
            let may_restart = policy == "OnFailure" && ended["exitCode"].int() != 0;
            let name = &was["name"];
            if !ended.is_set() || may_restart || sidecars.contains(&name) || rules_of_own(name) {
                continue;
            }
            let is = status[list].items().iter().filter(|is| is["name"] == *name);
            for _ in is.filter(|is| !is["state"]["terminated"].is_set()) {
                let at = path.child(list).index(index).child("state");
                errors.forbidden(at, "may not be transitioned to non-terminated state");
            }
        }
    }
}

fn claims(statuses: &Value, spec: &Value, path: &Path, errors: &mut FieldErrors) {
    let mut seen = Vec::new();
    for (index, status) in statuses.items().iter().enumerate() {
        let at = path.child("resourceClaimStatuses").index(index).child("name");
        let name = status["name"].text();
        if !spec["resourceClaims"].items().iter().any(|claim| claim["name"] == name) {
            let detail = "must match the name of an entry in `spec.resourceClaims`";
            errors.invalid(&at, name, detail);
        }
        unique(&mut seen, name, &at, errors);
        if status["resourceClaimName"].is_set() {
            let claim = status["resourceClaimName"].text();
            errors.invalid_each(at, claim, names::dns_subdomain(claim));
        }
    }
}

/// One address of each family at most.
fn addresses(status: &Value, path: &Path, errors: &mut FieldErrors) {
    for (list, one) in [("podIPs", "podIP"), ("hostIPs", "hostIP")] {
        let (entries, at) = (status[list].items(), path.child(list));
        for (index, entry) in entries.iter().enumerate() {
            let ip = entry["ip"].text();
            errors.invalid_each(at.index(index), ip, names::ip_address(ip));
        }
        if let Some(first) = entries.first()
            && one == "hostIP"
            && first["ip"] != status[one]
        {
            let at = at.index(0).child("ip");
            errors.invalid(at, first["ip"].clone(), "must be equal to `hostIP`");
        }
        if entries.len() < 2 {
            continue;
        }
        let is_v6 = |entry: &Value| matches!(entry["ip"].text().parse(), Ok(IpAddr::V6(_)));
        if entries.len() > 2 || is_v6(&entries[0]) == is_v6(&entries[1]) {
            let detail = "may specify no more than one IP for each IP family";
            errors.invalid(&at, status[list].clone(), detail);
        }
        for (index, entry) in entries.iter().enumerate() {
            if entries[..index].contains(entry) {
                errors.duplicate(at.index(index), entry.clone());
            }
        }
    }
}
