//! Which pods a DaemonSet needs or has too many. Pure.
//!
//! Upstream: `podsShouldBeOnNode` in `pkg/controller/daemon/daemon_controller.go` and `rollingUpdate` in `update.go`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::ByNode;
use super::fit::{Fit, hash_of};
use crate::pod::Pod;
use crate::pods::{Availability, availability, is_over, is_ready, phase};
use crate::share::share;

/// The set, the nodes, and what is there.
pub(super) struct Observed<'a> {
    pub set: &'a DaemonSet,
    /// The hash of the revision that pods should be of.
    pub hash: &'a str,
    pub nodes: &'a BTreeMap<String, Fit>,
    /// The oldest pod of a node first.
    pub pods: &'a ByNode,
    /// The nodes on which a failed pod has to be left, and for how long.
    pub held: &'a BTreeMap<String, Duration>,
}

/// What to do for one pod.
#[derive(Debug, PartialEq)]
pub(super) enum Step {
    /// Make a pod on this node.
    Create(String),
    /// Delete the pod: it should not be there, or is of an older revision.
    Delete(Arc<Pod>),
    /// Delete the pod, which has ended, so that it is made again.
    Replace { pod: Arc<Pod>, node: String },
}

/// What to do, and when to look again if nothing changes before.
#[derive(Debug, Default)]
pub(super) struct Plan {
    pub steps: Vec<Step>,
    pub recheck: Option<Duration>,
}

/// Decides what to do next.
pub(super) fn plan(observed: &Observed<'_>, now: Timestamp) -> Plan {
    let view = View::of(observed, now);
    let mut plan = Plan { steps: Vec::new(), recheck: view.recheck() };
    for (node, fit) in observed.nodes {
        view.keep(node, *fit, &mut plan.steps);
    }
    // One after the other, so that what is on its way is counted.
    let rolls = strategy(observed.set) == "RollingUpdate";
    if plan.steps.is_empty() && rolls {
        if view.most_surplus == 0 { view.replace(&mut plan) } else { view.surge(&mut plan) }
    }
    plan
}

/// Whether the pod has been ready for as long as the set wants.
pub(super) fn is_available(set: &DaemonSet, pod: &Pod, now: Timestamp) -> bool {
    availability(pod, min_ready(set), now) == Availability::Available
}

struct View<'a> {
    observed: &'a Observed<'a>,
    now: Timestamp,
    /// How many nodes should have a pod.
    desired: usize,
    /// How many of these may be without one that serves while the set is updated.
    most_unavailable: usize,
    /// How many may have a second pod meanwhile.
    most_surplus: usize,
}

/// The pods of a node that stay, at most one of each kind.
struct Pair<'a> {
    newer: Option<&'a Arc<Pod>>,
    older: Option<&'a Arc<Pod>>,
}

impl<'a> View<'a> {
    fn of(observed: &'a Observed<'a>, now: Timestamp) -> Self {
        let desired = observed.nodes.values().filter(|fit| **fit == Fit::Runs).count();
        let strategy = observed.set.spec.update_strategy.as_ref();
        let rolling = strategy.and_then(|strategy| strategy.rolling_update.as_ref());
        let count = |wanted: Option<&IntOrString>, otherwise: i32| {
            let wanted = wanted.cloned().unwrap_or(IntOrString::Int(otherwise));
            let share = share(&wanted, i32::try_from(desired).unwrap_or(i32::MAX));
            usize::try_from(share.rounded_up).unwrap_or(0)
        };
        let is_rolling = self::strategy(observed.set) == "RollingUpdate";
        let surplus = rolling.and_then(|rolling| rolling.max_surge.as_ref());
        let most_surplus = if is_rolling { count(surplus, 0) } else { 0 };
        let unavailable = rolling.and_then(|rolling| rolling.max_unavailable.as_ref());
        // With neither the update would never begin.
        let least = usize::from(most_surplus == 0);
        let most_unavailable = count(unavailable, 1).max(least);
        Self { observed, now, desired, most_unavailable, most_surplus }
    }

    /// When a pod has been ready for long enough, or a failed one may be replaced.
    fn recheck(&self) -> Option<Duration> {
        let min_ready = min_ready(self.observed.set);
        let young = self.observed.pods.values().flatten().filter_map(|pod| {
            match availability(pod, min_ready, self.now) {
                Availability::After(wait) => Some(wait),
                Availability::NotReady | Availability::Available => None,
            }
        });
        let has_failed = |node: &str| {
            self.pods_on(node).iter().any(|pod| phase(pod) == "Failed" && !is_going(pod))
        };
        let held = self.observed.held.iter().filter(|(node, _)| has_failed(node));
        young.chain(held.map(|(_, wait)| *wait)).min()
    }

    /// Sees to it that the node has the pod that it should have, and no other.
    fn keep(&self, node: &str, fit: Fit, steps: &mut Vec<Step>) {
        let pods = self.pods_on(node);
        let staying = pods.iter().filter(|pod| !is_going(pod));
        match fit {
            Fit::Refuses => steps.extend(staying.map(|pod| Step::Delete(Arc::clone(pod)))),
            Fit::Runs if pods.is_empty() => steps.push(Step::Create(node.to_owned())),
            Fit::Runs | Fit::Keeps => {
                let (over, running): (Vec<_>, Vec<_>) = staying.partition(|pod| is_over(pod));
                let is_held = self.observed.held.contains_key(node);
                let over = over.into_iter().filter(|pod| phase(pod) != "Failed" || !is_held);
                steps.extend(
                    over.map(|pod| Step::Replace { pod: Arc::clone(pod), node: node.to_owned() }),
                );
                let surplus = self.surplus(&running);
                steps.extend(surplus.into_iter().map(|pod| Step::Delete(Arc::clone(pod))));
            }
        }
    }

    /// The pods that are too many on one node. `running` has the oldest first.
    fn surplus(&self, running: &[&'a Arc<Pod>]) -> Vec<&'a Arc<Pod>> {
        if self.most_surplus == 0 {
            return running.iter().skip(1).copied().collect();
        }
        let (newer, older): (Vec<_>, Vec<_>) =
            running.iter().copied().partition(|pod| self.is_updated(pod));
        let mut surplus: Vec<_> = newer.iter().chain(&older).copied().collect();
        let stays = |pods: &[&'a Arc<Pod>]| pods.first().copied();
        let (newest, oldest) = (stays(&newer), stays(&older));
        surplus.retain(|pod| {
            let is = |other: Option<&Arc<Pod>>| other.is_some_and(|other| Arc::ptr_eq(other, pod));
            !is(newest) && !is(oldest)
        });
        // The older one serves until the newer one does.
        if let (Some(newer), Some(older)) = (newest, oldest)
            && (!is_ready(older) || self.is_available(newer))
        {
            surplus.push(older);
        }
        surplus
    }

    /// Deletes pods of older revisions, as many as may be missing; the next reconcile makes newer ones.
    fn replace(&self, plan: &mut Plan) {
        let mut missing = 0;
        let mut idle = Vec::new();
        let mut serving = Vec::new();
        for node in self.rolled_nodes() {
            match self.pair(node) {
                Some(Pair { newer: None, older: Some(older) }) if self.is_available(older) => {
                    serving.push(older);
                }
                // One that does not serve can be replaced without loss.
                Some(Pair { newer: None, older: Some(older) }) => idle.push(older),
                Some(Pair { newer: Some(newer), older: None }) if self.is_available(newer) => (),
                // Those that should be one are two, there is none, or it does not serve yet.
                _ => missing += 1,
            }
        }
        let allowed = self.most_unavailable.saturating_sub(missing);
        let deleted = idle.into_iter().chain(serving.into_iter().take(allowed));
        plan.steps.extend(deleted.map(|pod| Step::Delete(Arc::clone(pod))));
    }

    /// Makes pods of the newer revision beside older ones, and deletes those whose successors serve.
    fn surge(&self, plan: &mut Plan) {
        let (mut surplus, mut available) = (0, 0);
        let (mut free, mut candidates, mut misplaced) = (Vec::new(), Vec::new(), Vec::new());
        for node in self.rolled_nodes() {
            let Some(Pair { newer, older }) = self.pair(node) else {
                surplus += 1;
                continue;
            };
            let oldest = older.or(newer);
            available += usize::from(oldest.is_some_and(|pod| self.is_available(pod)));
            let Some(older) = older else { continue };
            let should_run = self.observed.nodes.get(node) == Some(&Fit::Runs);
            match newer {
                None if !self.is_available(older) && should_run => free.push(node),
                None if !self.is_available(older) => {
                    plan.steps.push(Step::Delete(Arc::clone(older)));
                }
                None if should_run => candidates.push(node),
                None => misplaced.push(older),
                Some(newer) if self.is_available(newer) => {
                    plan.steps.push(Step::Delete(Arc::clone(older)));
                }
                Some(_) => surplus += 1,
            }
        }
        // Who asks for a surplus wants no moment with too few.
        let spare = available.saturating_sub(self.desired);
        let deleted = misplaced.into_iter().take(spare).map(|pod| Step::Delete(Arc::clone(pod)));
        plan.steps.extend(deleted);
        let allowed = self.most_surplus.saturating_sub(surplus);
        let created = free.into_iter().chain(candidates.into_iter().take(allowed));
        plan.steps.extend(created.map(|node| Step::Create(node.to_owned())));
    }

    /// The nodes that should have a pod, and those that have one.
    fn rolled_nodes(&self) -> BTreeSet<&'a str> {
        let should = self.observed.nodes.iter().filter(|(_, fit)| **fit == Fit::Runs);
        let have = self.observed.pods.keys().filter(|node| self.observed.nodes.contains_key(*node));
        should.map(|(node, _)| node.as_str()).chain(have.map(String::as_str)).collect()
    }

    /// `None` when there are several of a kind.
    fn pair(&self, node: &str) -> Option<Pair<'a>> {
        let mut pair = Pair { newer: None, older: None };
        for pod in self.pods_on(node).iter().filter(|pod| !is_going(pod)) {
            let place = if self.is_updated(pod) { &mut pair.newer } else { &mut pair.older };
            if place.replace(pod).is_some() {
                return None;
            }
        }
        Some(pair)
    }

    fn pods_on(&self, node: &str) -> &'a [Arc<Pod>] {
        self.observed.pods.get(node).map(Vec::as_slice).unwrap_or_default()
    }

    fn is_updated(&self, pod: &Pod) -> bool {
        hash_of(&pod.metadata) == self.observed.hash
    }

    fn is_available(&self, pod: &Pod) -> bool {
        is_available(self.observed.set, pod, self.now)
    }
}

fn is_going(pod: &Pod) -> bool {
    pod.metadata.deletion_timestamp.is_some()
}

fn min_ready(set: &DaemonSet) -> Duration {
    let seconds = set.spec.min_ready_seconds.unwrap_or(0);
    Duration::from_secs(u64::try_from(seconds).unwrap_or(0))
}

/// How the set is updated.
fn strategy(set: &DaemonSet) -> &str {
    let strategy = set.spec.update_strategy.as_ref();
    strategy.and_then(|strategy| strategy.type_.as_deref()).unwrap_or("RollingUpdate")
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
