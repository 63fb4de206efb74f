//! Which pods a StatefulSet needs or has too many next. Pure.
//!
//! Upstream: `updateStatefulSet` in `pkg/controller/statefulset/stateful_set_control.go`. In one thing we do better: a
//! pod that does not become ready stops an ordered set for good there, even when a new template would mend it
//! (kubernetes/kubernetes#67250); ours replaces such a pod by one of the new revision.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::ResourceExt;

use super::identity::{REVISION, labels, ordinal_of, ordinals};
use crate::pod::Pod;
use crate::pods::{Availability, availability, is_over, is_ready, phase};
use crate::share::share;

/// The set and what is there of it.
pub(super) struct Observed<'a> {
    pub set: &'a StatefulSet,
    /// The names of the revisions that pods are of before and after a rollout.
    pub current: &'a str,
    pub update: &'a str,
    pub pods: &'a [Arc<Pod>],
}

/// What to do for one pod.
#[derive(Debug, PartialEq)]
pub(super) enum Step {
    /// Make the pod of this ordinal, of the newer revision or of the one before.
    Create { ordinal: i32, is_updated: bool },
    /// Delete the pod: there are too many, or it is of an older revision.
    Delete(Arc<Pod>),
    /// Delete the pod, which has ended, so that it is made again.
    Recreate(Arc<Pod>),
    /// Give the pod the labels that its ordinal means.
    Label { pod: Arc<Pod>, ordinal: i32 },
}

/// What to do, and when to look again if nothing changes before.
#[derive(Debug, Default)]
pub(super) struct Plan {
    pub steps: Vec<Step>,
    pub recheck: Option<Duration>,
}

/// The pods of a set by ordinal.
struct Slots {
    wanted: Vec<(i32, Option<Arc<Pod>>)>,
    /// Those beyond the wanted ones, the highest ordinal first.
    condemned: Vec<(i32, Arc<Pod>)>,
}

/// Decides what to do next.
pub(super) fn plan(observed: &Observed<'_>, now: Timestamp) -> Plan {
    let Observed { set, pods, .. } = observed;
    let mut plan = Plan::default();
    if set.metadata.deletion_timestamp.is_some() {
        return plan;
    }
    let view = View { observed, min_ready: min_ready(set), now };
    plan.recheck = pods.iter().filter_map(|pod| view.wait_for(pod)).min();
    let slots = Slots::of(set, pods);
    // What an ordered set has begun has to end before the next begins.
    if view.keep(&slots, &mut plan.steps) && view.shrink(&slots, &mut plan.steps) {
        view.roll(&slots, &mut plan.steps);
    }
    plan
}

struct View<'a> {
    observed: &'a Observed<'a>,
    min_ready: Duration,
    now: Timestamp,
}

impl View<'_> {
    /// Makes what is missing, in order. `false` if an ordered set has to wait for that.
    fn keep(&self, slots: &Slots, steps: &mut Vec<Step>) -> bool {
        for (ordinal, pod) in &slots.wanted {
            let Some(pod) = pod else {
                let is_updated = self.is_updated_when_new(*ordinal);
                steps.push(Step::Create { ordinal: *ordinal, is_updated });
                if self.is_parallel() {
                    continue;
                }
                return false;
            };
            if !bears_labels(self.observed.set, pod, *ordinal) {
                steps.push(Step::Label { pod: Arc::clone(pod), ordinal: *ordinal });
            }
            if is_over(pod) && !is_going(pod) {
                steps.push(Step::Recreate(Arc::clone(pod)));
            } else if self.is_available(pod) || self.is_parallel() {
                continue;
            } else if self.is_mended_by_update(pod, *ordinal) {
                steps.push(Step::Delete(Arc::clone(pod)));
            }
            if !self.is_parallel() {
                return false;
            }
        }
        true
    }

    /// Deletes what is too much, from the highest ordinal on. `false` if an ordered set has to wait for that.
    fn shrink(&self, slots: &Slots, steps: &mut Vec<Step>) -> bool {
        let unhealthy = slots.condemned.iter().rev().find(|(_, pod)| !is_healthy(pod));
        let first_unhealthy = unhealthy.map(|(ordinal, _)| *ordinal);
        for (ordinal, pod) in &slots.condemned {
            if is_going(pod) {
                if self.is_parallel() {
                    continue;
                }
                return false;
            }
            let is_next = self.is_available(pod) || first_unhealthy == Some(*ordinal);
            if !self.is_parallel() && !is_next {
                return false;
            }
            steps.push(Step::Delete(Arc::clone(pod)));
            if !self.is_parallel() {
                return false;
            }
        }
        true
    }

    /// Deletes pods of older revisions, from the highest ordinal on, as many as may be missing at once.
    fn roll(&self, slots: &Slots, steps: &mut Vec<Step>) {
        if strategy(self.observed.set) != "RollingUpdate" {
            return;
        }
        let is_missing = |pod: &Option<Arc<Pod>>| {
            !pod.as_ref().is_some_and(|pod| self.is_available(pod) && !is_going(pod))
        };
        let missing = slots.wanted.iter().filter(|(_, pod)| is_missing(pod)).count();
        let mut budget = most_unavailable(self.observed.set).saturating_sub(missing);
        for (ordinal, pod) in slots.wanted.iter().rev() {
            let Some(pod) = pod.as_ref().filter(|pod| !is_going(pod)) else { continue };
            if !self.is_updated_when_new(*ordinal) || revision(pod) == self.observed.update {
                continue;
            }
            // A pod that does not serve can be replaced without loss.
            if self.is_available(pod) {
                if budget == 0 {
                    continue;
                }
                budget -= 1;
            }
            // One that has ended is made again anyway.
            if !is_over(pod) {
                steps.push(Step::Delete(Arc::clone(pod)));
            }
        }
    }

    fn is_parallel(&self) -> bool {
        self.observed.set.spec.pod_management_policy.as_deref() == Some("Parallel")
    }

    /// Whether a pod with this ordinal is made of the newer revision: below the partition it is not.
    fn is_updated_when_new(&self, ordinal: i32) -> bool {
        let set = self.observed.set;
        let start = ordinals(set).start;
        strategy(set) != "RollingUpdate" || ordinal >= start.saturating_add(partition(set))
    }

    /// Whether the pod does not serve, and is of an older revision than the one that it would be made of now.
    fn is_mended_by_update(&self, pod: &Pod, ordinal: i32) -> bool {
        strategy(self.observed.set) == "RollingUpdate"
            && !is_healthy(pod)
            && !is_going(pod)
            && self.is_updated_when_new(ordinal)
            && revision(pod) != self.observed.update
    }

    fn is_available(&self, pod: &Pod) -> bool {
        is_healthy(pod) && availability(pod, self.min_ready, self.now) == Availability::Available
    }

    fn wait_for(&self, pod: &Pod) -> Option<Duration> {
        match availability(pod, self.min_ready, self.now) {
            Availability::After(wait) if is_healthy(pod) => Some(wait),
            _ => None,
        }
    }
}

impl Slots {
    fn of(set: &StatefulSet, pods: &[Arc<Pod>]) -> Self {
        let wanted = ordinals(set);
        let mut by_ordinal: BTreeMap<i32, Arc<Pod>> = pods
            .iter()
            .filter_map(|pod| Some((ordinal_of(set, &pod.name_any())?, Arc::clone(pod))))
            .collect();
        let wanted = wanted.map(|ordinal| (ordinal, by_ordinal.remove(&ordinal))).collect();
        Self { wanted, condemned: by_ordinal.into_iter().rev().collect() }
    }
}

/// For how long a pod has to be ready before it counts.
pub(super) fn min_ready(set: &StatefulSet) -> Duration {
    let seconds = set.spec.min_ready_seconds.unwrap_or(0);
    Duration::from_secs(u64::try_from(seconds).unwrap_or(0))
}

/// Which revision the pod is of.
pub(super) fn revision(pod: &Pod) -> &str {
    let labels = pod.metadata.labels.as_ref();
    labels.and_then(|labels| labels.get(REVISION)).map(String::as_str).unwrap_or_default()
}

/// The pod runs, is ready, and stays.
pub(super) fn is_healthy(pod: &Pod) -> bool {
    phase(pod) == "Running" && is_ready(pod) && !is_going(pod)
}

/// The pod is being deleted.
pub(super) fn is_going(pod: &Pod) -> bool {
    pod.metadata.deletion_timestamp.is_some()
}

/// How the set is updated.
pub(super) fn strategy(set: &StatefulSet) -> &str {
    let strategy = set.spec.update_strategy.as_ref();
    strategy.and_then(|strategy| strategy.type_.as_deref()).unwrap_or("RollingUpdate")
}

/// How many pods of the lowest ordinals keep the older revision.
fn partition(set: &StatefulSet) -> i32 {
    let strategy = set.spec.update_strategy.as_ref();
    let rolling = strategy.and_then(|strategy| strategy.rolling_update.as_ref());
    rolling.and_then(|rolling| rolling.partition).unwrap_or(0).max(0)
}

/// How many pods may be missing during an update; at least one, or it would never begin.
fn most_unavailable(set: &StatefulSet) -> usize {
    let strategy = set.spec.update_strategy.as_ref();
    let rolling = strategy.and_then(|strategy| strategy.rolling_update.as_ref());
    let wanted = rolling.and_then(|rolling| rolling.max_unavailable.clone());
    let replicas = set.spec.replicas.unwrap_or(1);
    let most = share(&wanted.unwrap_or(IntOrString::Int(1)), replicas).rounded_down;
    usize::try_from(most.max(1)).unwrap_or(1)
}

fn bears_labels(set: &StatefulSet, pod: &Pod, ordinal: i32) -> bool {
    let found = pod.metadata.labels.as_ref();
    labels(set, ordinal)
        .iter()
        .all(|(key, value)| found.and_then(|found| found.get(key)) == Some(value))
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
