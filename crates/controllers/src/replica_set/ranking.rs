//! Which pods go first when there are too many.
//!
//! Upstream: `ActivePodsWithRanks` in `pkg/controller/controller_utils.go`.

use std::cmp::{Ordering, Reverse};
use std::collections::HashMap;
use std::sync::Arc;

use jiff::Timestamp;

use crate::pod::Pod;
use crate::pods::{is_ready, phase, ready_since};

/// The cheapest pods to lose have the lowest cost; without the annotation it is 0.
const DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";

/// The `count` pods that will be missed least. `related` counts pods that do the same work, by node.
pub(super) fn least_missed(
    pods: Vec<Arc<Pod>>,
    count: usize,
    related: &HashMap<String, usize>,
    now: Timestamp,
) -> Vec<Arc<Pod>> {
    if count >= pods.len() {
        return pods;
    }
    let mut ranked: Vec<(Rank, Arc<Pod>)> =
        pods.into_iter().map(|pod| (Rank::of(&pod, related, now), pod)).collect();
    ranked.sort_by(|(a, pod_a), (b, pod_b)| {
        a.cmp(b).then_with(|| pod_a.metadata.uid.cmp(&pod_b.metadata.uid))
    });
    ranked.into_iter().take(count).map(|(_, pod)| pod).collect()
}

/// What speaks against deleting a pod, the most important first.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Rank {
    scheduled: bool,
    phase: u8,
    ready: bool,
    cost: i32,
    neighbours: Reverse<usize>,
    ready_age: AgeBucket,
    restarts: Reverse<i32>,
    age: AgeBucket,
}

/// The logarithm of an age: a pod of 11 hours is not worth more than one of 10.
///
/// Upstream compares these so that among pods of about the same age chance (their uid) decides.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct AgeBucket(i32);

impl Rank {
    fn of(pod: &Pod, related: &HashMap<String, usize>, now: Timestamp) -> Self {
        let node = pod.spec.node_name.as_deref().unwrap_or_default();
        let ready = is_ready(pod);
        Self {
            scheduled: !node.is_empty(),
            phase: match phase(pod) {
                "Pending" | "" => 0,
                "Unknown" => 1,
                _ => 2,
            },
            ready,
            cost: deletion_cost(pod),
            neighbours: Reverse(related.get(node).copied().unwrap_or(0)),
            ready_age: if ready { AgeBucket::since(ready_since(pod), now) } else { AgeBucket(0) },
            restarts: Reverse(most_restarts(pod)),
            age: AgeBucket::since(pod.metadata.creation_timestamp.as_ref().map(|time| time.0), now),
        }
    }
}

impl AgeBucket {
    fn since(then: Option<Timestamp>, now: Timestamp) -> Self {
        let Some(then) = then else { return Self(-2) };
        let age = now.duration_since(then);
        match age.as_nanos().cmp(&0) {
            Ordering::Less | Ordering::Equal => Self(-1),
            Ordering::Greater => Self(i32::try_from(age.as_nanos().ilog2()).unwrap_or(i32::MAX)),
        }
    }
}

fn deletion_cost(pod: &Pod) -> i32 {
    let annotations = pod.metadata.annotations.as_ref();
    let text = annotations.and_then(|annotations| annotations.get(DELETION_COST));
    text.and_then(|text| text.parse().ok()).unwrap_or(0)
}

fn most_restarts(pod: &Pod) -> i32 {
    let status = &pod.status;
    let containers = status.container_statuses.iter().chain(&status.init_container_statuses);
    containers.map(|container| container.restart_count).max().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    /// Of two pods the first goes.
    fn check(first: Value, second: Value) {
        let now: Timestamp = "2026-01-02T00:00:00Z".parse().unwrap();
        let pod = |name: &str, extra: &Value| {
            let mut pod = json!({
                "metadata": { "uid": name, "creationTimestamp": "2026-01-01T00:00:00Z" },
                "spec": { "containers": [], "nodeName": "quiet" },
                "status": { "phase": "Running", "conditions": [
                    { "type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z" }] },
            });
            json_patch::merge(&mut pod, extra);
            Arc::new(serde_json::from_value::<Pod>(pod).unwrap())
        };
        let related = HashMap::from([("quiet".to_owned(), 1), ("busy".to_owned(), 5)]);
        // The uid would decide for the other one.
        let pods = vec![pod("a", &second), pod("b", &first)];
        let chosen = least_missed(pods, 1, &related, now);
        assert_eq!(chosen[0].metadata.uid.as_deref(), Some("b"), "{first} before {second}");
    }

    #[test]
    fn what_is_worth_less_goes_first() {
        let plain = || json!({});
        let status = |name: &str| json!({ "status": { "phase": name } });
        let not_ready =
            || json!({ "status": { "conditions": [{ "type": "Ready", "status": "False" }] } });
        let cost = |cost: &str| json!({ "metadata": { "annotations": { DELETION_COST: cost } } });
        let ready_since = |time: &str| json!({ "status": { "conditions": [{ "type": "Ready", "status": "True", "lastTransitionTime": time }] } });
        let restarts = |count: i32| {
            json!({ "status": { "containerStatuses":
                [{ "name": "c", "image": "", "imageID": "", "ready": true, "restartCount": count }] } })
        };
        check(json!({ "spec": { "nodeName": null } }), plain());
        check(status("Pending"), status("Unknown"));
        check(status("Unknown"), plain());
        check(not_ready(), plain());
        check(cost("-5"), plain());
        check(plain(), cost("7"));
        check(cost("nonsense"), cost("1"));
        check(json!({ "spec": { "nodeName": "busy" } }), plain());
        check(ready_since("2026-01-01T23:00:00Z"), plain());
        check(restarts(3), restarts(1));
        check(json!({ "metadata": { "creationTimestamp": "2026-01-01T23:00:00Z" } }), plain());
        // Readiness outweighs cost, cost outweighs neighbours.
        check(not_ready(), cost("-100"));
        check(cost("-1"), json!({ "spec": { "nodeName": "busy" } }));
    }
}
