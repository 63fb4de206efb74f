//! How long a Job waits after failed pods before it makes another one.
//!
//! Upstream: `pkg/controller/job/backoff_utils.go`.

use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::index_pods::Failures;
use crate::pod::Pod;
use crate::pods::phase;

/// The wait after a first failed pod; it doubles with each further one. Upstream's `DefaultJobPodFailureBackOff`.
const FIRST: Duration = Duration::from_secs(10);
/// Upstream's `MaxJobPodFailureBackOff`.
const LONGEST: Duration = Duration::from_secs(600);

/// The failures since the last success.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Record {
    failures: u32,
    last: Option<Timestamp>,
}

impl Record {
    /// What pods that are still there tell, to somebody who was not there when they ended.
    pub fn of<'a>(pods: impl IntoIterator<Item = &'a Arc<Pod>>) -> Self {
        let (succeeded, failed): (Vec<&Arc<Pod>>, Vec<&Arc<Pod>>) = pods
            .into_iter()
            .filter(|pod| matches!(phase(pod), "Succeeded" | "Failed"))
            .partition(|pod| phase(pod) == "Succeeded");
        Self::default().after(&succeeded, &failed)
    }

    /// The same, after these have ended too.
    pub fn after(self, succeeded: &[&Arc<Pod>], failed: &[&Arc<Pod>]) -> Self {
        let success = succeeded.iter().filter_map(|pod| finished_at(pod)).max();
        let later = failed.iter().filter_map(|pod| finished_at(pod));
        let later: Vec<Timestamp> =
            later.filter(|at| success.is_none_or(|success| *at > success)).collect();
        let before = if success.is_some() { Self::default() } else { self };
        let number = u32::try_from(later.len()).unwrap_or(u32::MAX);
        Self {
            failures: before.failures.saturating_add(number),
            last: later.into_iter().max().or(before.last),
        }
    }

    /// How long to wait from now; `None` when nothing speaks against another pod.
    pub fn wait(self, now: Timestamp) -> Option<Duration> {
        remaining(self.failures, self.last?, now)
    }
}

/// How long the next pod of an index has to wait after this one.
pub(super) fn wait_after(failed: &Pod, now: Timestamp) -> Option<Duration> {
    let failures = Failures::before(failed).total().saturating_add(1);
    remaining(failures, finished_at(failed)?, now)
}

fn remaining(failures: u32, last: Timestamp, now: Timestamp) -> Option<Duration> {
    let doublings = failures.checked_sub(1)?.min(10);
    let wait = (FIRST * (1 << doublings)).min(LONGEST);
    let passed = now.duration_since(last);
    let left = SignedDuration::try_from(wait).unwrap_or_default() - passed;
    Duration::try_from(left).ok().filter(|left| !left.is_zero())
}

/// When the pod ended: by its containers, by its condition, by who deleted it, or else when it was made.
pub(super) fn finished_at(pod: &Pod) -> Option<Timestamp> {
    let by_containers = || {
        let ends = pod.status.container_statuses.iter().map(|container| {
            let ended = container.state.as_ref()?.terminated.as_ref()?;
            ended.finished_at.as_ref().map(|time| time.0)
        });
        ends.collect::<Option<Vec<Timestamp>>>()?.into_iter().max()
    };
    let by_condition = || {
        let mut conditions = pod.status.conditions.iter();
        let ready = conditions.find(|condition| condition.type_ == "Ready")?;
        let since = ready.last_transition_time.as_ref().map(|time| time.0);
        since.filter(|_| ready.status == "False")
    };
    let by_deletion = || {
        let deadline = pod.metadata.deletion_timestamp.as_ref()?.0;
        let grace = pod.metadata.deletion_grace_period_seconds.unwrap_or(0);
        deadline.checked_sub(SignedDuration::from_secs(grace)).ok()
    };
    let created = || pod.metadata.creation_timestamp.as_ref().map(|time| time.0);
    by_containers().or_else(by_condition).or_else(by_deletion).or_else(created)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + second).unwrap()
    }

    fn ended(phase: &str, second: i64) -> Arc<Pod> {
        let pod = json!({ "metadata": {}, "status": { "phase": phase, "containerStatuses": [
            { "state": { "terminated": { "exitCode": 1, "finishedAt": at(second).to_string() } } }] } });
        Arc::new(serde_json::from_value(pod).unwrap())
    }

    fn waits(pods: &[Arc<Pod>], now: i64) -> Option<u64> {
        Record::of(pods).wait(at(now)).map(|wait| wait.as_secs())
    }

    #[test]
    fn the_wait_doubles_up_to_its_longest_and_ends_with_a_success() {
        let failed: Vec<Arc<Pod>> = (0..9).map(|second| ended("Failed", second)).collect();
        let expected = [10, 20, 40, 80, 160, 320, 600, 600, 600];
        for (index, wait) in expected.into_iter().enumerate() {
            let now = i64::try_from(index).unwrap();
            assert_eq!(waits(&failed[..=index], now), Some(wait), "after {}", index + 1);
        }
        assert_eq!(waits(&failed[..1], 9), Some(1));
        assert_eq!(waits(&failed[..1], 10), None);
        assert_eq!(waits(&[], 0), None);
        let mixed = [ended("Failed", 1), ended("Succeeded", 5), ended("Failed", 7)];
        assert_eq!(waits(&mixed, 7), Some(10));
        assert_eq!(waits(&[ended("Failed", 1), ended("Succeeded", 5)], 5), None);
        // A clock that is behind the node's waits a little longer.
        assert_eq!(waits(&failed[..1], -5), Some(15));
    }

    #[test]
    fn what_is_known_is_carried_on() {
        let known = Record::default().after(&[], &[&ended("Failed", 0)]);
        let more = known.after(&[], &[&ended("Failed", 20)]);
        assert_eq!(more, Record { failures: 2, last: Some(at(20)) });
        assert_eq!(more.after(&[], &[]), more);
        assert_eq!(more.after(&[&ended("Succeeded", 30)], &[]), Record::default());
    }

    #[test]
    fn the_end_of_a_pod_is_told_by_what_is_known_of_it() {
        let check = |pod: Value, expected: Option<i64>| {
            let read: Pod = serde_json::from_value(pod.clone()).unwrap();
            assert_eq!(finished_at(&read), expected.map(at), "{pod}");
        };
        let text = |second: i64| at(second).to_string();
        let container = |second: i64| json!({ "state": { "terminated": { "exitCode": 0, "finishedAt": text(second) } } });
        let meta = json!({ "creationTimestamp": text(0), "deletionTimestamp": text(100),
                           "deletionGracePeriodSeconds": 30 });
        let not_ready =
            json!([{ "type": "Ready", "status": "False", "lastTransitionTime": text(50) }]);
        let status = json!({ "containerStatuses": [container(20), container(40)],
                             "conditions": not_ready });
        check(json!({ "metadata": meta, "status": status }), Some(40));
        let running = json!({ "containerStatuses": [container(20), { "state": {} }],
                              "conditions": not_ready });
        check(json!({ "metadata": meta, "status": running }), Some(50));
        check(json!({ "metadata": meta }), Some(70));
        check(json!({ "metadata": { "creationTimestamp": text(0) } }), Some(0));
        check(json!({ "metadata": {} }), None);
    }
}
