//! The FlowSchemas and PriorityLevelConfigurations that every cluster has, as upstream's
//! (<https://github.com/kubernetes/kubernetes/blob/master/staging/src/k8s.io/apiserver/pkg/apis/flowcontrol/bootstrap/default.go>).
//!
//! Four are mandatory: whoever changes or deletes them gets them back. The others are suggestions: they are brought in when they are
//! missing, and kept up to date as long as their annotation says so.

use serde_json::{Value, json};

use crate::object::meta;

const API_VERSION: &str = "flowcontrol.apiserver.k8s.io/v1";
const AUTOUPDATE: &str = "apf.kubernetes.io/autoupdate-spec";

/// The names that both the mandatory schemas and the mandatory levels have.
const MANDATORY: [&str; 2] = [EXEMPT, CATCH_ALL];
pub(super) const EXEMPT: &str = "exempt";
pub(super) const CATCH_ALL: &str = "catch-all";

/// All of them, levels first.
pub(crate) fn objects() -> Vec<Value> {
    levels().into_iter().chain(schemas()).collect()
}

/// What to write where `existing` is stored under the wanted object's name; `None` when it may stay as it is.
pub(crate) fn reconcile(wanted: &Value, existing: Option<&Value>) -> Option<Value> {
    let Some(existing) = existing else { return Some(wanted.clone()) };
    let mut merged = existing.clone();
    if is_mandatory(wanted) {
        let mut spec = wanted["spec"].clone();
        // How many seats others may borrow of the exempt ones is for the administrator to say.
        if let Some(exempt) = existing["spec"].get("exempt").filter(|_| spec["type"] == "Exempt") {
            spec["exempt"] = exempt.clone();
        }
        merged["spec"] = spec;
    } else {
        // Without the annotation, an object that nobody has changed since it was made is taken for ours.
        let annotation = existing["metadata"]["annotations"][AUTOUPDATE].as_str();
        let is_ours =
            annotation.map_or(existing["metadata"]["generation"] == 1, |value| value == "true");
        if is_ours {
            merged["spec"] = wanted["spec"].clone();
        }
        if annotation.is_none() {
            merged["metadata"]["annotations"][AUTOUPDATE] = json!(is_ours.to_string());
        }
    }
    (merged != *existing).then_some(merged)
}

/// Whether an object of this kind and name is mandatory.
fn is_mandatory(object: &Value) -> bool {
    MANDATORY.contains(&meta(object, "name"))
}

/// The mandatory objects of one kind: what holds although the store lacks them.
pub(crate) fn mandatory(kind: &str) -> Vec<Value> {
    objects().into_iter().filter(|object| object["kind"] == kind && is_mandatory(object)).collect()
}

fn levels() -> Vec<Value> {
    let level = |name: &str, spec: Value| object("PriorityLevelConfiguration", name, spec);
    let exempt = json!({
        "type": "Exempt",
        "exempt": { "nominalConcurrencyShares": 0, "lendablePercent": 0 },
    });
    let catch_all = json!({
        "type": "Limited",
        "limited": {
            "nominalConcurrencyShares": 5,
            "lendablePercent": 0,
            "limitResponse": { "type": "Reject" },
        },
    });
    let queued = |name: &str, shares: u32, lendable: u32, queues: u32, hand: u32| {
        let queuing = json!({ "queues": queues, "handSize": hand, "queueLengthLimit": 50 });
        let limited = json!({
            "nominalConcurrencyShares": shares,
            "lendablePercent": lendable,
            "limitResponse": { "type": "Queue", "queuing": queuing },
        });
        level(name, json!({ "type": "Limited", "limited": limited }))
    };
    vec![
        level(EXEMPT, exempt),
        level(CATCH_ALL, catch_all),
        queued("system", 30, 33, 64, 6),
        queued("node-high", 40, 25, 64, 6),
        queued("leader-election", 10, 0, 16, 4),
        queued("workload-high", 40, 50, 128, 6),
        queued("workload-low", 100, 90, 128, 6),
        queued("global-default", 20, 50, 128, 6),
    ]
}

fn schemas() -> Vec<Value> {
    let everybody = || groups(&["system:unauthenticated", "system:authenticated"]);
    let manager = || user("system:kube-controller-manager");
    let accounts = |name: &str| service_account("kube-system", name);
    let leases = || resources(&["get", "create", "update"], "coordination.k8s.io", &["leases"]);
    let probes =
        json!([{ "verbs": ["get"], "nonResourceURLs": ["/healthz", "/readyz", "/livez"] }]);
    vec![
        schema(EXEMPT, EXEMPT, 1, "", everything(groups(&["system:masters"]))),
        schema(CATCH_ALL, CATCH_ALL, 10_000, "ByUser", everything(everybody())),
        schema("system-nodes", "system", 500, "ByUser", everything(groups(&["system:nodes"]))),
        schema("system-node-high", "node-high", 400, "ByUser", {
            let nodes = json!({
                "verbs": ["*"], "apiGroups": [""], "resources": ["nodes", "nodes/status"],
                "clusterScope": true, "namespaces": ["*"],
            });
            let leases = resources(&["*"], "coordination.k8s.io", &["leases"]);
            json!({ "subjects": groups(&["system:nodes"]), "resourceRules": [nodes, leases] })
        }),
        schema("system-leader-election", "leader-election", 100, "ByUser", {
            let subjects = [manager(), user("system:kube-scheduler"), accounts("*")];
            json!({ "subjects": subjects, "resourceRules": [leases()] })
        }),
        schema("endpoint-controller", "workload-high", 150, "ByUser", {
            let mirroring = accounts("endpointslicemirroring-controller");
            let subjects = [manager(), accounts("endpoint-controller"), mirroring];
            let endpoints = resources(&["get", "create", "update"], "", &["endpoints"]);
            json!({ "subjects": subjects, "resourceRules": [endpoints] })
        }),
        schema("workload-leader-election", "leader-election", 200, "ByUser", {
            json!({ "subjects": [accounts("*")], "resourceRules": [leases()] })
        }),
        schema(
            "kube-controller-manager",
            "workload-high",
            800,
            "ByNamespace",
            everything(json!([manager()])),
        ),
        schema(
            "kube-scheduler",
            "workload-high",
            800,
            "ByNamespace",
            everything(json!([user("system:kube-scheduler")])),
        ),
        schema(
            "kube-system-service-accounts",
            "workload-high",
            900,
            "ByNamespace",
            everything(json!([accounts("*")])),
        ),
        schema(
            "service-accounts",
            "workload-low",
            9000,
            "ByUser",
            everything(groups(&["system:serviceaccounts"])),
        ),
        schema("global-default", "global-default", 9900, "ByUser", everything(everybody())),
        schema(
            "probes",
            EXEMPT,
            2,
            "",
            json!({ "subjects": everybody(), "nonResourceRules": probes }),
        ),
    ]
}

fn object(kind: &str, name: &str, spec: Value) -> Value {
    let mut object = json!({
        "apiVersion": API_VERSION, "kind": kind, "metadata": { "name": name }, "spec": spec,
    });
    if !is_mandatory(&object) {
        object["metadata"]["annotations"] = json!({ AUTOUPDATE: "true" });
    }
    object
}

fn schema(name: &str, level: &str, precedence: u32, distinguisher: &str, rules: Value) -> Value {
    let mut spec = json!({
        "priorityLevelConfiguration": { "name": level },
        "matchingPrecedence": precedence,
        "rules": [rules],
    });
    if !distinguisher.is_empty() {
        spec["distinguisherMethod"] = json!({ "type": distinguisher });
    }
    object("FlowSchema", name, spec)
}

fn groups(names: &[&str]) -> Value {
    names.iter().map(|name| json!({ "kind": "Group", "group": { "name": name } })).collect()
}

fn user(name: &str) -> Value {
    json!({ "kind": "User", "user": { "name": name } })
}

fn service_account(namespace: &str, name: &str) -> Value {
    json!({
        "kind": "ServiceAccount",
        "serviceAccount": { "namespace": namespace, "name": name },
    })
}

fn resources(verbs: &[&str], group: &str, resources: &[&str]) -> Value {
    json!({ "verbs": verbs, "apiGroups": [group], "resources": resources, "namespaces": ["*"] })
}

/// Whatever these do.
fn everything(subjects: Value) -> Value {
    json!({
        "subjects": subjects,
        "resourceRules": [{
            "verbs": ["*"], "apiGroups": ["*"], "resources": ["*"],
            "clusterScope": true, "namespaces": ["*"],
        }],
        "nonResourceRules": [{ "verbs": ["*"], "nonResourceURLs": ["*"] }],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find(name: &str, kind: &str) -> Value {
        let found = objects()
            .into_iter()
            .find(|object| object["kind"] == kind && object["metadata"]["name"] == name);
        found.unwrap()
    }

    #[test]
    fn mandatory_objects_come_back_and_suggestions_may_be_refused() {
        let wanted = find("catch-all", "PriorityLevelConfiguration");
        let mut changed = wanted.clone();
        changed["spec"]["limited"]["nominalConcurrencyShares"] = json!(50);
        assert_eq!(reconcile(&wanted, Some(&changed)), Some(wanted.clone()));
        assert_eq!(reconcile(&wanted, Some(&wanted)), None);
        assert_eq!(reconcile(&wanted, None), Some(wanted));

        let wanted = find("exempt", "PriorityLevelConfiguration");
        let mut lends = wanted.clone();
        lends["spec"]["exempt"]["nominalConcurrencyShares"] = json!(10);
        assert_eq!(reconcile(&wanted, Some(&lends)), None);

        let wanted = find("service-accounts", "FlowSchema");
        let mut changed = wanted.clone();
        changed["spec"]["matchingPrecedence"] = json!(8000);
        assert_eq!(reconcile(&wanted, Some(&changed)), Some(wanted.clone()));
        changed["metadata"]["annotations"][AUTOUPDATE] = json!("false");
        assert_eq!(reconcile(&wanted, Some(&changed)), None);
        changed["metadata"]["annotations"] = json!({});
        changed["metadata"]["generation"] = json!(2);
        let kept = reconcile(&wanted, Some(&changed)).unwrap();
        assert_eq!(kept["spec"]["matchingPrecedence"], 8000);
        assert_eq!(kept["metadata"]["annotations"][AUTOUPDATE], "false");
    }
}
