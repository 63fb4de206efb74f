//! How the scheduler makes room for a pod, and keeps it until its victims are gone.

use std::collections::HashMap;
use std::sync::Arc;

use crate::claim::Claim;
use crate::cluster::{Act, Cluster};
use crate::node::Node;
use crate::place::{Eviction, Misfit, refusal};
use crate::pod::Pod;
use crate::preempt::{Candidate, make_room};
use crate::profile::{Plugin, Profile};
use crate::queue::Uid;
use crate::relations::Relations;

impl Cluster {
    /// The nodes as this pod sees them where room is kept for others that are as important.
    pub(super) fn kept_from(&self, uid: &str, pod: &Pod) -> HashMap<String, Node> {
        let nodes = self.nominations.nodes().filter_map(|name| self.nodes.get(name));
        let seen = nodes.map(|node| {
            let mut node = node.clone();
            self.keep_room(&mut node, pod.claim.priority, |other| other != uid);
            (node.name.clone(), node)
        });
        seen.collect()
    }

    pub(super) fn keep_room(&self, node: &mut Node, priority: i32, counts: impl Fn(&Uid) -> bool) {
        let name = node.name.clone();
        let others = self.nominations.on(&name);
        let others = others.filter(|(other, claim)| counts(other) && claim.priority >= priority);
        others.for_each(|(_, claim)| node.add(claim));
    }

    /// Has others evicted for a pod that fits nowhere, if that helps.
    pub(super) fn preempt(
        &mut self,
        uid: &str,
        pod: &Pod,
        mut misfit: Misfit,
        kept: &HashMap<String, Node>,
    ) -> Act {
        let by = self.profile(pod);
        if pod.claim.never_preempts || !by.last_resorts.has(Plugin::DefaultPreemption) {
            return Act::ReportMisfit(misfit);
        }
        let claim = self.required(&by, pod);
        let relations = self.relations(&by, &claim);
        if self.awaits_victims(uid, &by, &claim, &relations, kept) {
            misfit.eviction = Eviction::Ineligible(
                "not eligible due to a terminating pod on the nominated node.",
            );
            return Act::ReportMisfit(misfit);
        }
        let nodes: Vec<_> = self.nodes.values().map(|node| seen(node, kept)).collect();
        let budgets: Vec<_> = self.budgets.values().cloned().collect();
        let pods_on = |node: &str| self.pods_on(node).cloned().collect();
        let related = (&relations, &self.namespaces);
        let made = make_room(&by, &claim, related, nodes.into_iter(), pods_on, &budgets);
        match made {
            Ok(Candidate { node, mut victims, .. }) => {
                misfit.eviction = Eviction::Helps;
                self.nominate(uid, pod, &node);
                // Who leaves already need not be told.
                victims.retain(|victim| {
                    let is_leaving = victim.metadata.deletion_timestamp.is_some();
                    let victim = victim.metadata.uid.clone().unwrap_or_default();
                    !is_leaving && self.evicted.insert(victim)
                });
                Act::Preempt(misfit, victims)
            }
            Err(reasons) => {
                misfit.eviction = Eviction::Refused(reasons);
                self.denominate(uid, None);
                Act::ReportMisfit(misfit)
            }
        }
    }

    /// Whether pods are still leaving the node that is kept for this pod.
    pub(super) fn awaits_victims(
        &self,
        uid: &str,
        by: &Profile,
        claim: &Claim,
        relations: &Relations,
        kept: &HashMap<String, Node>,
    ) -> bool {
        let node = self.nominations.of(uid).and_then(|name| self.nodes.get(name));
        let Some(node) = node.map(|node| seen(node, kept)) else { return false };
        let is_leaving = |other: &Pod| {
            let is_evicted =
                other.metadata.uid.as_ref().is_some_and(|uid| self.evicted.contains(uid));
            is_evicted || (other.is_preempted && other.metadata.deletion_timestamp.is_some())
        };
        let refusal = refusal(by, claim, relations, node);
        refusal.is_some_and(|refusal| refusal.is_helped_by_eviction)
            && self
                .pods_on(&node.name)
                .any(|other| other.claim.priority < claim.priority && is_leaving(other))
    }

    pub(super) fn pods_on(&self, node: &str) -> impl Iterator<Item = &Arc<Pod>> {
        let there = self.by_node.get(node).into_iter().flatten();
        there.filter_map(|uid| self.placed.get(uid)).map(|placed| &placed.pod)
    }

    /// Keeps room for the pod; the less important that it was kept for before may go elsewhere.
    pub(super) fn nominate(&mut self, uid: &str, pod: &Pod, node: &str) {
        let there = self.nominations.on(node);
        let lower = there.filter(|(_, claim)| claim.priority < pod.claim.priority);
        let lower: Vec<Uid> = lower.map(|(other, _)| other.clone()).collect();
        for other in lower {
            self.nominations.remove(&other);
            self.retry(&other);
        }
        self.nominations.insert(uid, node, pod.claim.clone());
    }

    /// Keeps no room for the pod any more; if it did not take it, others may.
    pub(super) fn denominate(&mut self, uid: &str, taken: Option<&str>) {
        let left = self.nominations.remove(uid);
        self.pass_on(left, taken);
    }

    /// Lets the pods try again that the node is kept for, once nobody that they wait for is left there.
    pub(super) fn retry_nominated(&mut self, node: &str) {
        let kept_for: Vec<_> = self.nominations.on(node).map(|(uid, _)| uid.clone()).collect();
        for uid in kept_for {
            let Some(pod) = self.queue.get(&uid).map(|waiting| waiting.pod.clone()) else {
                continue;
            };
            let by = self.profile(&pod);
            let claim = self.required(&by, &pod);
            let relations = self.relations(&by, &claim);
            let kept = self.kept_from(&uid, &pod);
            if !self.awaits_victims(&uid, &by, &claim, &relations, &kept) {
                self.retry(&uid);
            }
        }
    }
}

/// A node as a pod sees it.
pub(super) fn seen<'a>(node: &'a Node, kept: &'a HashMap<String, Node>) -> &'a Node {
    kept.get(&node.name).unwrap_or(node)
}
