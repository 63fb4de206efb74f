//! Which pods make room for a more important one. Pure.
//!
//! Candidates, the order in which victims are spared, and the choice between nodes are those of upstream's
//! `DefaultPreemption` (kubernetes/kubernetes, pkg/scheduler/framework/preemption).

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;

use coracle_api::selector::LabelSelector;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;

use crate::claim::Claim;
use crate::node::Node;
use crate::place::{NO_VICTIMS, NOT_HELPFUL, Reasons, Refusal, fits, refusal};
use crate::pod::Pod;
use crate::profile::Profile;
use crate::relations::Relations;
use crate::terms::Namespaces;

/// A node that takes the pod once some others are gone from it.
#[derive(Debug, Clone)]
pub(crate) struct Candidate {
    pub(crate) node: String,
    /// The most important first.
    pub(crate) victims: Vec<Arc<Pod>>,
    /// How many of them a disruption budget would rather keep.
    pub(crate) violations: usize,
}

/// How many pods may be disrupted, of those that it selects.
#[derive(Debug, Clone)]
pub(crate) struct Budget {
    namespace: String,
    selector: LabelSelector,
    allowed: i32,
    /// The pods whose eviction has been counted already.
    disrupted: Vec<String>,
}

impl Budget {
    /// `None` for a budget that selects nothing.
    pub(crate) fn of(budget: &PodDisruptionBudget) -> Option<Budget> {
        let selector = budget.spec.as_ref()?.selector.as_ref()?;
        let selector = serde_json::to_value(selector).ok()?;
        let selector = LabelSelector::from_value(Some(&selector)).ok()?;
        let status = budget.status.clone().unwrap_or_default();
        (!selector.is_everything()).then(|| Budget {
            namespace: budget.metadata.namespace.clone().unwrap_or_default(),
            selector,
            allowed: status.disruptions_allowed.unwrap_or_default(),
            disrupted: status.disrupted_pods.into_iter().flatten().map(|(name, _)| name).collect(),
        })
    }

    fn guards(&self, pod: &Pod) -> bool {
        let claim = &pod.claim;
        let name = pod.metadata.name.as_deref().unwrap_or_default();
        self.namespace == claim.namespace
            && !claim.labels.is_empty()
            && self.selector.matches(|key| claim.labels.get(key).map(String::as_str))
            && self.disrupted.iter().all(|disrupted| disrupted != name)
    }
}

/// Chooses where room is made for a pod that fits nowhere, or says why that helps on no node.
pub(crate) fn make_room<'a>(
    by: &Profile,
    claim: &Claim,
    (relations, namespaces): (&Relations, &Namespaces),
    nodes: impl ExactSizeIterator<Item = &'a Node>,
    pods_on: impl Fn(&str) -> Vec<Arc<Pod>>,
    budgets: &[Budget],
) -> Result<Candidate, Reasons> {
    let (least, percent) = by.candidates;
    let enough = least.max(nodes.len() * percent / 100);
    let mut candidates = Vec::new();
    let mut reasons = BTreeMap::new();
    for node in nodes {
        match candidate(by, claim, (relations, namespaces), node, &pods_on, budgets) {
            Ok(candidate) => candidates.push(candidate),
            Err(refusal) => refusal
                .reasons
                .into_iter()
                .for_each(|reason| *reasons.entry(reason).or_default() += 1),
        }
        if candidates.len() >= enough {
            break;
        }
    }
    candidates.into_iter().min_by_key(cost).ok_or(reasons)
}

fn candidate(
    by: &Profile,
    claim: &Claim,
    (relations, namespaces): (&Relations, &Namespaces),
    node: &Node,
    pods_on: &impl Fn(&str) -> Vec<Arc<Pod>>,
    budgets: &[Budget],
) -> Result<Candidate, Refusal> {
    if refusal(by, claim, relations, node).is_some_and(|refusal| !refusal.is_helped_by_eviction) {
        return Err(Refusal::lasting(NOT_HELPFUL));
    }
    let mut others = pods_on(&node.name);
    others.retain(|other| other.claim.priority < claim.priority);
    if others.is_empty() {
        return Err(Refusal::lasting(NO_VICTIMS));
    }
    others.sort_by_cached_key(|pod| importance(pod));
    let (mut node, mut relations) = (node.clone(), relations.clone());
    for other in &others {
        node.remove(&other.claim);
        relations.count(claim, &node, &other.claim, namespaces, -1);
    }
    if let Some(refusal) = refusal(by, claim, &relations, &node) {
        return Err(refusal);
    }
    let (guarded, free) = by_budget(others, budgets);
    let (mut victims, mut violations) = (Vec::new(), 0);
    // Spare whom we can: first those that a budget guards, then the others, each from the most important on.
    let order = guarded.into_iter().map(|pod| (pod, 1)).chain(free.into_iter().map(|pod| (pod, 0)));
    for (other, violation) in order {
        node.add(&other.claim);
        relations.count(claim, &node, &other.claim, namespaces, 1);
        if !fits(by, claim, &relations, &node) {
            node.remove(&other.claim);
            relations.count(claim, &node, &other.claim, namespaces, -1);
            violations += violation;
            victims.push(other);
        }
    }
    victims.sort_by_cached_key(|pod| importance(pod));
    if victims.is_empty() {
        return Err(Refusal::lasting(NO_VICTIMS));
    }
    Ok(Candidate { node: node.name, victims, violations })
}

/// Splits pods, the most important first, into those whose budget does not allow it and the others.
fn by_budget(pods: Vec<Arc<Pod>>, budgets: &[Budget]) -> (Vec<Arc<Pod>>, Vec<Arc<Pod>>) {
    let mut allowed: Vec<i32> = budgets.iter().map(|budget| budget.allowed).collect();
    pods.into_iter().partition(|pod| {
        let mut is_guarded = false;
        for (budget, allowed) in budgets.iter().zip(&mut allowed) {
            if budget.guards(pod) {
                *allowed = allowed.saturating_sub(1);
                is_guarded |= *allowed < 0;
            }
        }
        is_guarded
    })
}

/// The more important first: the higher priority, then who runs longer; then by uid, so that it is always the same.
fn importance(pod: &Pod) -> impl Ord + use<> {
    let start = pod.started.map_or((true, None), |started| (false, Some(started)));
    (Reverse(pod.claim.priority), start, pod.metadata.uid.clone())
}

/// What making room costs; the least is taken, and of equals the first node.
fn cost(candidate: &Candidate) -> impl Ord + use<> {
    let highest = candidate.victims.first().map(|pod| pod.claim.priority);
    let sum: i64 = candidate
        .victims
        .iter()
        .map(|pod| i64::from(pod.claim.priority) + i64::from(i32::MAX) + 1)
        .sum();
    let most_important = candidate.victims.iter();
    let most_important = most_important.filter(|pod| Some(pod.claim.priority) == highest);
    let earliest = most_important.filter_map(|pod| pod.started).min();
    // A pod that has not started has run the shortest.
    let started = earliest.map_or((false, None), |started| (true, Some(Reverse(started))));
    (candidate.violations, highest, sum, candidate.victims.len(), started)
}

#[cfg(test)]
#[path = "preempt_tests.rs"]
mod tests;
