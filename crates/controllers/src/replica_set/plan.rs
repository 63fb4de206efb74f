//! What a ReplicaSet needs next, and what its status says.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use coracle_reconcile::ObjectKey;
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{ReplicaSet, ReplicaSetCondition, ReplicaSetStatus};

use super::ranking;
use crate::api::{Unfinished, api_time};
use crate::pod::Pod;
use crate::pods::{Availability, availability, is_active, is_ready, is_terminating};

/// Pods made or deleted in one pass: upstream's `BurstReplicas`. The rest follows in the next pass,
/// so that other sets get their turn.
const BURST: usize = 500;

/// What to do.
#[derive(Debug, PartialEq)]
pub(super) enum Step {
    /// Make so many pods.
    Grow(usize),
    /// Delete these pods.
    Shrink(Vec<Arc<Pod>>),
    /// Nothing.
    Settled,
}

/// Why the set is not at its size.
#[derive(Debug)]
pub(super) enum Failure {
    /// A pod could not be made; what the API said.
    Create(String),
    /// A pod could not be deleted; what the API said.
    Delete(String),
}

impl Failure {
    /// The reason and message of the condition `ReplicaFailure`.
    fn words(&self) -> (&'static str, &str) {
        match self {
            Self::Create(cause) => ("FailedCreate", cause),
            Self::Delete(cause) => ("FailedDelete", cause),
        }
    }

    /// The same for the queue.
    pub fn into_unfinished(self, key: &ObjectKey) -> Unfinished {
        let (verb, cause) = match self {
            Self::Create(cause) => ("create", cause),
            Self::Delete(cause) => ("delete", cause),
        };
        Unfinished::Refused { attempt: format!("{verb} pods of replicaset {key}"), cause }
    }
}

/// Decides how to bring the set to its size. `related` counts the pods of the set's siblings by node.
pub(super) fn plan(
    set: &ReplicaSet,
    pods: &[Arc<Pod>],
    related: impl FnOnce() -> HashMap<String, usize>,
    now: Timestamp,
) -> Step {
    if set.metadata.deletion_timestamp.is_some() {
        return Step::Settled;
    }
    let active: Vec<Arc<Pod>> = pods.iter().filter(|pod| is_active(pod)).cloned().collect();
    let wanted = wanted(set);
    if active.len() < wanted {
        Step::Grow((wanted - active.len()).min(BURST))
    } else if active.len() > wanted {
        let surplus = (active.len() - wanted).min(BURST);
        Step::Shrink(ranking::least_missed(active, surplus, &related(), now))
    } else {
        Step::Settled
    }
}

fn wanted(set: &ReplicaSet) -> usize {
    let replicas = set.spec.replicas.unwrap_or(1);
    usize::try_from(replicas).unwrap_or(0)
}

/// What the set's status has to say.
pub(super) fn status(
    set: &ReplicaSet,
    pods: &[Arc<Pod>],
    failure: Option<&Failure>,
    now: Timestamp,
) -> ReplicaSetStatus {
    let template = set.spec.template.as_ref();
    let template_labels = template.and_then(|template| template.metadata.as_ref()?.labels.as_ref());
    let min_ready = min_ready(set);
    let (mut replicas, mut labelled, mut ready, mut available) = (0, 0, 0, 0);
    for pod in pods.iter().filter(|pod| is_active(pod)) {
        replicas += 1;
        let labels = pod.metadata.labels.as_ref();
        let mut wanted = template_labels.into_iter().flatten();
        labelled += i32::from(
            wanted.all(|(key, value)| labels.and_then(|labels| labels.get(key)) == Some(value)),
        );
        ready += i32::from(is_ready(pod));
        available += i32::from(availability(pod, min_ready, now) == Availability::Available);
    }
    let terminating = pods.iter().filter(|pod| is_terminating(pod)).count();
    ReplicaSetStatus {
        replicas,
        fully_labeled_replicas: nonzero(labelled),
        ready_replicas: nonzero(ready),
        available_replicas: nonzero(available),
        terminating_replicas: Some(i32::try_from(terminating).unwrap_or(i32::MAX)),
        observed_generation: set.metadata.generation,
        conditions: conditions(set, failure, now),
    }
}

/// Upstream leaves counts of zero out.
fn nonzero(count: i32) -> Option<i32> {
    (count != 0).then_some(count)
}

fn conditions(
    set: &ReplicaSet,
    failure: Option<&Failure>,
    now: Timestamp,
) -> Option<Vec<ReplicaSetCondition>> {
    let known =
        set.status.as_ref().and_then(|status| status.conditions.clone()).unwrap_or_default();
    let (failed, mut conditions): (Vec<_>, Vec<_>) = known
        .into_iter()
        .partition(|condition| condition.type_.as_deref() == Some("ReplicaFailure"));
    if let Some(failure) = failure {
        let (reason, message) = failure.words();
        let known = failed.into_iter().find(|known| known.reason.as_deref() == Some(reason));
        // The first message of its kind stays, so that a failure repeated with another random name is no news.
        conditions.push(known.unwrap_or_else(|| ReplicaSetCondition {
            type_: Some("ReplicaFailure".to_owned()),
            status: Some("True".to_owned()),
            last_transition_time: Some(api_time(now)),
            reason: Some(reason.to_owned()),
            message: Some(message.to_owned()),
        }));
    }
    (!conditions.is_empty()).then_some(conditions)
}

/// The time until the next ready pod becomes available, if one is under way to that.
pub(super) fn next_availability(
    set: &ReplicaSet,
    pods: &[Arc<Pod>],
    now: Timestamp,
) -> Option<Duration> {
    let min_ready = min_ready(set);
    let waits = pods.iter().filter(|pod| is_active(pod)).filter_map(|pod| {
        match availability(pod, min_ready, now) {
            Availability::After(wait) => Some(wait),
            Availability::NotReady | Availability::Available => None,
        }
    });
    waits.min()
}

fn min_ready(set: &ReplicaSet) -> Duration {
    let seconds = set.spec.min_ready_seconds.unwrap_or(0);
    Duration::from_secs(u64::try_from(seconds).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn now() -> Timestamp {
        "2026-01-01T01:00:00Z".parse().unwrap()
    }

    fn set(replicas: i32, extra: Value) -> ReplicaSet {
        let mut set = json!({
            "metadata": { "name": "web", "namespace": "default", "uid": "me", "generation": 3 },
            "spec": { "replicas": replicas, "minReadySeconds": 30,
                      "selector": { "matchLabels": { "app": "web" } },
                      "template": { "metadata": { "labels": { "app": "web", "v": "1" } } } },
        });
        json_patch::merge(&mut set, &extra);
        serde_json::from_value(set).unwrap()
    }

    fn pod(name: &str, extra: Value) -> Arc<Pod> {
        let mut pod = json!({
            "metadata": { "name": name, "uid": name, "labels": { "app": "web", "v": "1" } },
            "spec": { "containers": [], "nodeName": "n" }, "status": { "phase": "Running" },
        });
        json_patch::merge(&mut pod, &extra);
        Arc::new(serde_json::from_value(pod).unwrap())
    }

    fn ready(seconds_ago: i64) -> Value {
        let since = now() - jiff::SignedDuration::from_secs(seconds_ago);
        json!({ "status": { "conditions": [{ "type": "Ready", "status": "True", "lastTransitionTime": since }] } })
    }

    fn going() -> Value {
        json!({ "metadata": { "deletionTimestamp": now() } })
    }

    fn over(phase: &str) -> Value {
        json!({ "status": { "phase": phase } })
    }

    /// The step for a set of this size and these pods: "+n", "-name,name" or "=".
    fn check(set: &ReplicaSet, pods: &[Arc<Pod>], expected: &str) {
        let found = match plan(set, pods, HashMap::new, now()) {
            Step::Grow(count) => format!("+{count}"),
            Step::Shrink(pods) => {
                let names: Vec<_> =
                    pods.iter().map(|pod| pod.metadata.name.clone().unwrap()).collect();
                format!("-{}", names.join(","))
            }
            Step::Settled => "=".to_owned(),
        };
        assert_eq!(found, expected);
    }

    #[test]
    fn only_active_pods_count_towards_the_size() {
        let none = json!({});
        check(&set(3, none.clone()), &[], "+3");
        check(&set(1000, none.clone()), &[], "+500");
        check(&set(0, none.clone()), &[], "=");
        check(&set(1, none.clone()), &[pod("a", none.clone())], "=");
        check(&set(1, none.clone()), &[pod("a", going())], "+1");
        check(&set(1, none.clone()), &[pod("a", over("Failed"))], "+1");
        check(&set(1, none.clone()), &[pod("a", over("Succeeded")), pod("b", none.clone())], "=");
        check(&set(0, none.clone()), &[pod("a", none.clone()), pod("b", going())], "-a");
        check(&set(1, none), &[pod("a", ready(60)), pod("b", over("Pending"))], "-b");
        check(&set(5, going()), &[], "=");
    }

    #[test]
    fn the_status_counts_what_is_there() {
        let set = set(4, json!({}));
        let pods = [
            pod("available", ready(60)),
            pod("young", ready(10)),
            pod("old-labels", json!({ "metadata": { "labels": { "v": "0" } } })),
            pod("going", going()),
            pod("over", over("Failed")),
        ];
        let status = status(&set, &pods, None, now());
        assert_eq!(
            serde_json::to_value(&status).unwrap(),
            json!({ "replicas": 3, "fullyLabeledReplicas": 2, "readyReplicas": 2, "availableReplicas": 1,
                    "terminatingReplicas": 1, "observedGeneration": 3 })
        );
        assert_eq!(next_availability(&set, &pods, now()), Some(Duration::from_secs(20)));
        assert_eq!(next_availability(&set, &pods[..1], now()), None);
    }

    #[test]
    fn a_failure_becomes_a_condition_and_leaves_with_its_cause() {
        let quota = Failure::Create("exceeded quota".to_owned());
        let mut set = set(1, json!({}));
        let failed = status(&set, &[], Some(&quota), now());
        let condition = failed.conditions.clone().unwrap().remove(0);
        assert_eq!(
            (condition.type_.as_deref(), condition.status.as_deref()),
            (Some("ReplicaFailure"), Some("True"))
        );
        assert_eq!(condition.reason.as_deref(), Some("FailedCreate"));
        assert_eq!(condition.message.as_deref(), Some("exceeded quota"));

        set.status = Some(failed.clone());
        let later = now() + jiff::SignedDuration::from_secs(60);
        assert_eq!(status(&set, &[], Some(&quota), later), failed, "a repeated failure is no news");
        assert_eq!(status(&set, &[], None, later).conditions, None);
    }
}
