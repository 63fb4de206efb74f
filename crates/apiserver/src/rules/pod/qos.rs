//! The quality of service that a pod's requests and limits earn it (`pkg/apis/core/helper/qos`).

use serde_json::Value;

use crate::rules::json::Read;
use crate::rules::quantities::{equal, is_positive};

/// `Guaranteed` if every container's limits of CPU and memory are set and equal its requests, `BestEffort` if there are
/// none at all, `Burstable` otherwise. Only CPU and memory count.
pub fn class(spec: &Value) -> &'static str {
    if counts(&spec["resources"]) {
        return if is_guaranteed(&spec["resources"]) { "Guaranteed" } else { "Burstable" };
    }
    let containers: Vec<&Value> = spec["containers"]
        .items()
        .iter()
        .chain(spec["initContainers"].items())
        .map(|container| &container["resources"])
        .collect();
    if !containers.iter().any(|resources| counts(resources)) {
        "BestEffort"
    } else if containers.iter().all(|resources| is_guaranteed(resources)) {
        "Guaranteed"
    } else {
        "Burstable"
    }
}

fn counts(resources: &Value) -> bool {
    ["requests", "limits"]
        .iter()
        .any(|list| ["cpu", "memory"].iter().any(|name| is_positive(&resources[*list][*name])))
}

fn is_guaranteed(resources: &Value) -> bool {
    ["cpu", "memory"].iter().all(|name| {
        let (limit, request) = (&resources["limits"][*name], &resources["requests"][*name]);
        is_positive(limit) && (!request.is_set() || equal(limit, request))
    })
}
