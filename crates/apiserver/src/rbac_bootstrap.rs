//! Upstream's default roles and bindings, brought in at every start.
//!
//! Their text is data: `roles.txt` and `controllers.txt`, a rule a line. Where we differ, and why: all our controllers
//! run as one user, `system:kube-controller-manager`, so each `system:controller:*` role is bound to that user beside
//! the account that upstream's controllers use with `--use-service-account-credentials`. It has what the
//! controllers need together, as upstream's user would have without that flag, and nothing more.

mod parse;

use std::sync::LazyLock;

use serde_json::{Value, json};

use crate::authz::aggregate;

const AUTOUPDATE: &str = "rbac.authorization.kubernetes.io/autoupdate";
const GROUP: &str = "rbac.authorization.k8s.io";

/// All default ClusterRoles, ClusterRoleBindings, Roles and RoleBindings. The namespaces kube-system and kube-public
/// must be there before the last two.
pub fn objects() -> Vec<Value> {
    static OBJECTS: LazyLock<Vec<Value>> = LazyLock::new(|| {
        let mut objects = parse::objects(include_str!("rbac_bootstrap/roles.txt"));
        objects.extend(parse::objects(include_str!("rbac_bootstrap/controllers.txt")));
        // Smaller ones first: `edit` includes `view`, and `admin` includes `edit`.
        for name in ["view", "edit", "admin"] {
            let roles: Vec<Value> =
                objects.iter().filter(|object| object["kind"] == "ClusterRole").cloned().collect();
            for object in objects.iter_mut().filter(|object| object["metadata"]["name"] == name) {
                if let Some(rules) = aggregate(object, &roles) {
                    object["rules"] = rules.into();
                }
            }
        }
        objects
    });
    OBJECTS.clone()
}

/// What to write where `existing` is stored under the wanted object's name; None when nothing is missing. Adds what
/// upgrades brought and what somebody took away, keeps what somebody added, and leaves objects alone whose annotation
/// `rbac.authorization.kubernetes.io/autoupdate` is "false".
pub fn reconcile(wanted: &Value, existing: Option<&Value>) -> Option<Value> {
    let Some(existing) = existing else {
        return Some(wanted.clone());
    };
    if existing["metadata"]["annotations"][AUTOUPDATE] == "false" {
        return None;
    }
    // A binding's role cannot be changed: upstream makes it anew, which is for whoever deletes it first.
    if wanted.get("roleRef").is_some() && !same_role(&wanted["roleRef"], &existing["roleRef"]) {
        return None;
    }
    let mut merged = existing.clone();
    for field in ["labels", "annotations"] {
        for (key, value) in wanted["metadata"][field].as_object().into_iter().flatten() {
            // Somebody's own value stays.
            if existing["metadata"][field][key].is_null() {
                merged["metadata"][field][key] = value.clone();
            }
        }
    }
    if wanted.get("aggregationRule").is_some() {
        // The rules are the aggregation's business.
        add_missing(&mut merged, wanted, "/aggregationRule/clusterRoleSelectors");
    } else if wanted.get("subjects").is_some() {
        add_missing(&mut merged, wanted, "/subjects");
    } else {
        add_missing(&mut merged, wanted, "/rules");
    }
    (merged != *existing).then_some(merged)
}

fn same_role(wanted: &Value, existing: &Value) -> bool {
    wanted["kind"] == existing["kind"] && wanted["name"] == existing["name"]
}

/// Appends the items of the wanted list that the other lacks.
fn add_missing(merged: &mut Value, wanted: &Value, path: &str) {
    let items = wanted.pointer(path).and_then(Value::as_array).cloned().unwrap_or_default();
    let mut list = merged.pointer(path).and_then(Value::as_array).cloned().unwrap_or_default();
    let before = list.len();
    for item in items {
        if !list.contains(&item) {
            list.push(item);
        }
    }
    if list.len() == before {
        return;
    }
    match path {
        "/aggregationRule/clusterRoleSelectors" => {
            merged["aggregationRule"] = json!({ "clusterRoleSelectors": list });
        }
        _ => merged[&path[1..]] = list.into(),
    }
}

#[cfg(test)]
mod tests;
