//! Whether a node is heard of. Pure.
//!
//! Upstream: `tryUpdateNodeHealth` in `pkg/controller/nodelifecycle/node_lifecycle_controller.go`.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, NodeCondition};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

/// Upstream's `--node-monitor-grace-period`: five of a kubelet's renewals.
const GRACE: Duration = Duration::from_secs(50);
/// Upstream's `--node-startup-grace-period`: for a node that has not said how it is yet.
const STARTUP_GRACE: Duration = Duration::from_secs(60);

/// When a node was heard of, by our clock, and what it said, by its own.
#[derive(Debug, Clone)]
pub(super) struct Beats {
    at: Timestamp,
    reported: Option<Timestamp>,
    renewed: Option<Timestamp>,
}

/// Whether a node is heard of.
#[derive(Debug, PartialEq)]
pub(super) enum Health {
    /// It is, and has to be again within this time.
    Heard { wait: Duration },
    /// It is not, for too long.
    Silent,
}

impl Beats {
    /// Nothing is known of the node yet; it gets the time that it would have after a beat.
    pub fn begin(now: Timestamp) -> Self {
        Self { at: now, reported: None, renewed: None }
    }

    /// The node's status bears this heartbeat.
    pub fn reported(&mut self, heartbeat: Option<Timestamp>, now: Timestamp) {
        if self.reported != heartbeat {
            self.reported = heartbeat;
            self.at = now;
        }
    }

    /// The node's lease was renewed then.
    pub fn renewed(&mut self, renewed: Option<Timestamp>, now: Timestamp) {
        if self.renewed < renewed {
            self.renewed = renewed;
            self.at = now;
        }
    }

    /// Whether the node is heard of.
    pub fn health(&self, node: &Node, now: Timestamp) -> Health {
        let (since, grace) = if ready(node).is_some() || self.renewed.is_some() {
            (self.at, GRACE)
        } else {
            let made = node.metadata.creation_timestamp.as_ref();
            (made.map_or(self.at, |made| made.0), STARTUP_GRACE)
        };
        let silent_for = Duration::try_from(now.duration_since(since)).unwrap_or_default();
        match grace.checked_sub(silent_for) {
            None | Some(Duration::ZERO) => Health::Silent,
            Some(wait) => Health::Heard { wait },
        }
    }
}

/// What the node says about being ready.
pub(super) fn ready(node: &Node) -> Option<&NodeCondition> {
    condition(node, "Ready")
}

/// A condition of a node.
pub(super) fn condition<'a>(node: &'a Node, type_: &str) -> Option<&'a NodeCondition> {
    let conditions = node.status.as_ref().and_then(|status| status.conditions.as_deref());
    conditions.unwrap_or_default().iter().find(|condition| condition.type_ == type_)
}

/// The conditions of a node that is silent; `None` if they say so already.
pub(super) fn unknown(node: &Node, now: &Time) -> Option<Vec<NodeCondition>> {
    const KEPT_BY_KUBELETS: [&str; 4] = ["Ready", "MemoryPressure", "DiskPressure", "PIDPressure"];
    let status = node.status.as_ref();
    let mut conditions = status.and_then(|status| status.conditions.clone()).unwrap_or_default();
    let mut differs = false;
    for type_ in KEPT_BY_KUBELETS {
        let there = conditions.iter_mut().find(|condition| condition.type_ == type_);
        let (reason, message) = if there.is_some() {
            ("NodeStatusUnknown", "Kubelet stopped posting node status.")
        } else {
            ("NodeStatusNeverUpdated", "Kubelet never posted node status.")
        };
        let unknown = |last_heartbeat_time| NodeCondition {
            type_: type_.to_owned(),
            status: "Unknown".to_owned(),
            reason: Some(reason.to_owned()),
            message: Some(message.to_owned()),
            last_heartbeat_time,
            last_transition_time: Some(now.clone()),
        };
        match there {
            Some(there) if there.status == "Unknown" => continue,
            Some(there) => *there = unknown(there.last_heartbeat_time.clone()),
            None => conditions.push(unknown(node.metadata.creation_timestamp.clone())),
        }
        differs = true;
    }
    differs.then_some(conditions)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn node(conditions: Value) -> Node {
        serde_json::from_value(json!({
            "metadata": { "name": "a", "creationTimestamp": at(0) }, "status": { "conditions": conditions },
        }))
        .unwrap()
    }

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(seconds).unwrap()
    }

    #[test]
    fn a_node_is_heard_of_by_either_sign_of_life() {
        let ready = node(json!([{ "type": "Ready", "status": "True" }]));
        let mute = node(json!([]));
        let wait = |beats: &Beats, node: &Node, seconds: i64| match beats.health(node, at(seconds))
        {
            Health::Heard { wait } => Some(wait.as_secs()),
            Health::Silent => None,
        };
        let mut beats = Beats::begin(at(100));
        assert_eq!(wait(&beats, &ready, 100), Some(50));
        assert_eq!((wait(&beats, &ready, 149), wait(&beats, &ready, 150)), (Some(1), None));
        // Since it was made: this controller may have begun later.
        assert_eq!((wait(&beats, &mute, 59), wait(&beats, &mute, 60)), (Some(1), None));
        beats.renewed(Some(at(7)), at(140));
        assert_eq!(wait(&beats, &ready, 150), Some(40));
        assert_eq!(wait(&beats, &mute, 150), Some(40));
        // Hearing the same again is no sign of life, and what an older lease says neither.
        beats.renewed(Some(at(7)), at(160));
        beats.renewed(Some(at(6)), at(160));
        beats.reported(None, at(160));
        assert_eq!(wait(&beats, &ready, 160), Some(30));
        beats.reported(Some(at(9)), at(170));
        assert_eq!(wait(&beats, &ready, 180), Some(40));
    }

    #[test]
    fn a_silent_nodes_conditions_are_unknown() {
        let now = Time(at(500));
        let spoke = node(json!([
            { "type": "Ready", "status": "True", "reason": "KubeletReady", "lastHeartbeatTime": at(9), "lastTransitionTime": at(1) },
            { "type": "NetworkUnavailable", "status": "False" },
        ]));
        let found = serde_json::to_value(unknown(&spoke, &now)).unwrap();
        assert_eq!(
            found[0],
            json!({ "type": "Ready", "status": "Unknown", "reason": "NodeStatusUnknown",
                    "message": "Kubelet stopped posting node status.",
                    "lastHeartbeatTime": at(9), "lastTransitionTime": at(500) })
        );
        assert_eq!(found[1], json!({ "type": "NetworkUnavailable", "status": "False" }));
        assert_eq!(
            found[2],
            json!({ "type": "MemoryPressure", "status": "Unknown", "reason": "NodeStatusNeverUpdated",
                    "message": "Kubelet never posted node status.",
                    "lastHeartbeatTime": at(0), "lastTransitionTime": at(500) })
        );
        assert_eq!(found.as_array().map(Vec::len), Some(5));
        assert_eq!(unknown(&node(found), &Time(at(900))), None);
    }
}
