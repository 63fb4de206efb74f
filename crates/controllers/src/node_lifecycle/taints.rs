//! The taints that a node's conditions mean. Pure.
//!
//! Upstream: `nodeConditionToTaintKeyStatusMap` and `processTaintBaseEviction` in
//! `pkg/controller/nodelifecycle/node_lifecycle_controller.go`.

use coracle_api::nodes::UNSCHEDULABLE;
use k8s_openapi::api::core::v1::{Node, Taint};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::health::ready;

const NOT_READY: &str = "node.kubernetes.io/not-ready";
const UNREACHABLE: &str = "node.kubernetes.io/unreachable";
/// A condition, its status, and the taint that keeps new pods away meanwhile.
const BY_CONDITION: [(&str, &str, &str); 6] = [
    ("Ready", "False", NOT_READY),
    ("Ready", "Unknown", UNREACHABLE),
    ("MemoryPressure", "True", "node.kubernetes.io/memory-pressure"),
    ("DiskPressure", "True", "node.kubernetes.io/disk-pressure"),
    ("PIDPressure", "True", "node.kubernetes.io/pid-pressure"),
    ("NetworkUnavailable", "True", "node.kubernetes.io/network-unavailable"),
];

/// The taints that the node should have; `None` if it has them.
pub(super) fn wanted(node: &Node, now: Time) -> Option<Vec<Taint>> {
    let evicting = match ready(node).map(|ready| ready.status.as_str()) {
        Some("True") => Some(&[] as &[&str]),
        Some("False") => Some(&[NOT_READY] as &[&str]),
        Some(_) => Some(&[UNREACHABLE] as &[&str]),
        // It has not spoken yet.
        None => None,
    };
    differing(node, evicting, now)
}

/// The same without those that evict pods.
pub(super) fn sparing_pods(node: &Node, now: Time) -> Option<Vec<Taint>> {
    differing(node, Some(&[]), now)
}

/// Whether the node should evict pods and does not yet.
pub(super) fn begins_to_evict(node: &Node) -> bool {
    let there = node.spec.as_ref().and_then(|spec| spec.taints.as_deref()).unwrap_or_default();
    let evicts = there.iter().any(|taint| {
        taint.effect == "NoExecute" && [NOT_READY, UNREACHABLE].contains(&taint.key.as_str())
    });
    ready(node).is_some_and(|ready| ready.status != "True") && !evicts
}

/// The taints that the node should have but for those that evict pods, which stay as they are.
pub(super) fn without_evicting(node: &Node, now: Time) -> Option<Vec<Taint>> {
    differing(node, None, now)
}

/// `evicting` are the keys that should bear `NoExecute`; `None` leaves these as they are.
fn differing(node: &Node, evicting: Option<&[&str]>, now: Time) -> Option<Vec<Taint>> {
    let there = node.spec.as_ref().and_then(|spec| spec.taints.as_deref()).unwrap_or_default();
    let holds = |type_: &str, status: &str| {
        super::health::condition(node, type_).is_some_and(|found| found.status == status)
    };
    let is_cordoned = node.spec.as_ref().and_then(|spec| spec.unschedulable).unwrap_or(false);
    let mut wanted: Vec<(&str, &str)> = BY_CONDITION
        .iter()
        .filter(|(type_, status, _)| holds(type_, status))
        .map(|(.., key)| (*key, "NoSchedule"))
        .chain(is_cordoned.then_some((UNSCHEDULABLE, "NoSchedule")))
        .collect();
    wanted.extend(evicting.unwrap_or_default().iter().map(|key| (*key, "NoExecute")));

    let is_ours = |taint: &Taint| {
        let key = taint.key.as_str();
        match taint.effect.as_str() {
            "NoSchedule" => {
                key == UNSCHEDULABLE || BY_CONDITION.iter().any(|(.., ours)| *ours == key)
            }
            "NoExecute" => evicting.is_some() && [NOT_READY, UNREACHABLE].contains(&key),
            _ => false,
        }
    };
    let is_wanted = |taint: &Taint| wanted.contains(&(taint.key.as_str(), taint.effect.as_str()));
    let mut taints: Vec<Taint> =
        there.iter().filter(|taint| !is_ours(taint) || is_wanted(taint)).cloned().collect();
    let kept = taints.len();
    for (key, effect) in wanted {
        if !taints.iter().any(|taint| taint.key == key && taint.effect == effect) {
            taints.push(Taint {
                key: key.to_owned(),
                effect: effect.to_owned(),
                time_added: Some(now.clone()),
                value: None,
            });
        }
    }
    (kept < there.len() || kept < taints.len()).then_some(taints)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// A node in words ("Ready=False DiskPressure=True cordoned"), its taints ("key:effect"), and those it should have.
    fn check(words: &str, taints: &[&str], expected: Option<&[&str]>) {
        let taint = |taint: &&str| {
            let (key, effect) = taint.split_once(':').unwrap();
            json!({ "key": key, "effect": effect })
        };
        let condition = |word: &str| {
            let (type_, status) = word.split_once('=')?;
            Some(json!({ "type": type_, "status": status }))
        };
        let node: Node = serde_json::from_value(json!({
            "metadata": {},
            "spec": { "unschedulable": words.contains("cordoned"), "taints": taints.iter().map(taint).collect::<Vec<_>>() },
            "status": { "conditions": words.split(' ').filter_map(condition).collect::<Vec<_>>() },
        }))
        .unwrap();
        let now = Time("2026-01-01T00:00:00Z".parse().unwrap());
        let found =
            if words.contains("dark") { sparing_pods(&node, now) } else { wanted(&node, now) };
        let found = found.map(|taints| {
            taints.iter().map(|it| format!("{}:{}", it.key, it.effect)).collect::<Vec<_>>()
        });
        let expected =
            expected.map(|all| all.iter().map(|it| (*it).to_owned()).collect::<Vec<_>>());
        assert_eq!(found, expected, "{words} {taints:?}");
    }

    #[test]
    fn conditions_mean_taints_and_those_of_others_stay() {
        const LOST: [&str; 2] = [
            "node.kubernetes.io/unreachable:NoSchedule",
            "node.kubernetes.io/unreachable:NoExecute",
        ];
        const IDLE: [&str; 2] =
            ["node.kubernetes.io/not-ready:NoSchedule", "node.kubernetes.io/not-ready:NoExecute"];
        const DISK: &str = "node.kubernetes.io/disk-pressure:NoSchedule";
        const CORDON: &str = "node.kubernetes.io/unschedulable:NoSchedule";
        check("Ready=True", &[], None);
        check("Ready=True", &["mine:NoExecute"], None);
        check("Ready=False", &[], Some(&IDLE));
        check("Ready=False", &IDLE, None);
        check("Ready=Unknown", &IDLE, Some(&LOST));
        check("Ready=True", &["mine:NoSchedule", LOST[0], LOST[1]], Some(&["mine:NoSchedule"]));
        check("Ready=True DiskPressure=True", &[], Some(&[DISK]));
        check("Ready=True DiskPressure=Unknown", &[DISK], Some(&[]));
        check("Ready=True cordoned", &[], Some(&[CORDON]));
        check("Ready=True", &[CORDON], Some(&[]));
        // Nothing was said yet: what keeps pods away goes, what evicts them is left to whoever set it.
        check("", &IDLE, Some(&IDLE[1..]));
        // With no node ready at all nobody is evicted.
        check("Ready=Unknown dark", &[], Some(&LOST[..1]));
        check("Ready=Unknown dark", &LOST, Some(&LOST[..1]));
    }
}
