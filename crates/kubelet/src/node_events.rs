//! What the Events of a node say, in upstream's words.
//!
//! Upstream: `recordNodeStatusEvent` in `pkg/kubelet/kubelet.go`, `pkg/kubelet/nodestatus/setters.go`.

use coracle_reconcile::Recorder;
use k8s_openapi::api::core::v1::{Node, NodeCondition, NodeStatus};

/// A condition, its status, and what it is called then.
const BY_CONDITION: [(&str, &str, &str); 8] = [
    ("MemoryPressure", "True", "NodeHasInsufficientMemory"),
    ("MemoryPressure", "False", "NodeHasSufficientMemory"),
    ("DiskPressure", "True", "NodeHasDiskPressure"),
    ("DiskPressure", "False", "NodeHasNoDiskPressure"),
    ("PIDPressure", "True", "NodeHasInsufficientPID"),
    ("PIDPressure", "False", "NodeHasSufficientPID"),
    ("Ready", "True", "NodeReady"),
    ("Ready", "False", "NodeNotReady"),
];

/// Tells that the kubelet has begun.
pub(crate) fn tell_start(recorder: &Recorder, node: &Node) {
    recorder.normal(node, "Starting", "Starting kubelet.");
}

/// Tells what of the node's conditions has become different.
pub(crate) fn tell_conditions(recorder: &Recorder, node: &Node, now: &NodeStatus) {
    let conditions = |status: Option<&NodeStatus>| {
        status.and_then(|status| status.conditions.clone()).unwrap_or_default()
    };
    for event in changes(&conditions(node.status.as_ref()), &conditions(Some(now))) {
        tell(recorder, node, event);
    }
}

/// Tells whether the node takes pods, if that has become different.
pub(crate) fn tell_schedulable(recorder: &Recorder, before: &Node, now: &Node) {
    match (is_cordoned(before), is_cordoned(now)) {
        (false, true) => tell(recorder, now, "NodeNotSchedulable"),
        (true, false) => tell(recorder, now, "NodeSchedulable"),
        (true, true) | (false, false) => (),
    }
}

fn tell(recorder: &Recorder, node: &Node, event: &str) {
    let name = node.metadata.name.as_deref().unwrap_or_default();
    recorder.normal(node, event, format!("Node {name} status is now: {event}"));
}

fn is_cordoned(node: &Node) -> bool {
    node.spec.as_ref().and_then(|spec| spec.unschedulable).unwrap_or(false)
}

fn changes(before: &[NodeCondition], now: &[NodeCondition]) -> Vec<&'static str> {
    let changed = now.iter().filter(|condition| {
        let known = before.iter().find(|known| known.type_ == condition.type_);
        known.is_none_or(|known| known.status != condition.status)
    });
    let event = |condition: &NodeCondition| {
        BY_CONDITION.iter().find_map(|(type_, status, event)| {
            (condition.type_ == *type_ && condition.status == *status).then_some(*event)
        })
    };
    changed.filter_map(event).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_become_different_is_told() {
        let conditions = |words: &str| -> Vec<NodeCondition> {
            let condition = |word: &str| {
                let (type_, status) = word.split_once('=').unwrap();
                NodeCondition {
                    type_: type_.to_owned(),
                    status: status.to_owned(),
                    ..NodeCondition::default()
                }
            };
            words.split_whitespace().map(condition).collect()
        };
        let check = |before: &str, now: &str, expected: &[&str]| {
            assert_eq!(changes(&conditions(before), &conditions(now)), expected, "{before} {now}");
        };
        let well = "MemoryPressure=False DiskPressure=False Ready=True";
        let events = ["NodeHasSufficientMemory", "NodeHasNoDiskPressure", "NodeReady"];
        check("", well, &events);
        check(well, well, &[]);
        check("Ready=Unknown MemoryPressure=Unknown", "Ready=True", &["NodeReady"]);
        check(well, "DiskPressure=True Ready=True", &["NodeHasDiskPressure"]);
    }
}
