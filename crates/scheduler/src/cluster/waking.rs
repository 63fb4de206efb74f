//! Which pods are tried again when something changed.

use std::sync::Arc;

use crate::claim::Claim;
use crate::cluster::{Cluster, Placed};
use crate::place::fits_alone;
use crate::queue::{Stage, Uid};
use crate::relations::Relations;

impl Cluster {
    /// What the pods on nodes mean for one that comes.
    pub(super) fn relations(&self, claim: &Claim) -> Relations {
        let mut relations = self.neighbours(claim);
        relations.volumes = self.volumes.demand(&claim.namespace, &claim.mounts);
        relations
    }

    fn neighbours(&self, claim: &Claim) -> Relations {
        if claim.terms.is_empty() && self.outspoken.is_empty() {
            return Relations::default();
        }
        let related = |placed: &'_ Placed| {
            Relations::exist(claim, &placed.pod.claim, &self.namespaces)
                .then(|| self.nodes.get(&placed.node))
                .flatten()
        };
        let mut there = Vec::new();
        if claim.terms.is_empty() {
            let outspoken = self.outspoken.iter().filter_map(|uid| self.placed.get(uid));
            there.extend(outspoken.filter_map(|one| Some((related(one)?, &*one.pod.claim))));
        } else {
            let all = self.placed.values();
            there.extend(all.filter_map(|one| Some((related(one)?, &*one.pod.claim))));
        }
        Relations::of(claim, self.nodes.values(), there.into_iter(), &self.namespaces)
    }

    /// Lets those parked pods try again that say something about others and that this concerns.
    pub(super) fn retry_related(&mut self, concerns: impl Fn(&Claim) -> bool) {
        let is_any_outspoken = !self.outspoken.is_empty();
        self.retry_parked(|claim| (is_any_outspoken || !claim.terms.is_empty()) && concerns(claim));
    }

    /// Lets those parked pods try again that this concerns.
    pub(super) fn retry_parked(&mut self, concerns: impl Fn(&Claim) -> bool) {
        let parked = self.queue.parked();
        let concerned = parked.filter(|(_, waiting)| concerns(&waiting.pod.claim));
        let concerned: Vec<Uid> = concerned.map(|(uid, _)| uid.clone()).collect();
        concerned.iter().for_each(|uid| self.retry(uid));
    }

    /// A pod came to a node or left one: lets those try again that it matters to, wherever they might go.
    pub(super) fn retry_those_related_to(&mut self, other: &Claim) {
        let namespaces = std::mem::take(&mut self.namespaces);
        self.retry_related(|claim| Relations::reach_far(claim, other, &namespaces));
        self.namespaces = namespaces;
    }

    pub(super) fn retry(&mut self, uid: &str) {
        if self.queue.get(uid).is_some_and(|waiting| waiting.stage == Stage::Parked) {
            self.queue.set_stage(uid, Stage::Active);
        }
    }

    /// If a pod that was woken by one node ended elsewhere, the place that woke it is still free.
    pub(super) fn pass_on(&mut self, woken_by: Option<String>, taken: Option<&str>) {
        if let Some(node) = woken_by.filter(|node| Some(node.as_str()) != taken) {
            self.wake(&node);
        }
    }

    /// Lets those parked pods try again that fit this node now, all of them together.
    pub(super) fn wake(&mut self, name: &str) {
        let Some(node) = self.nodes.get(name) else { return };
        let mut node = node.clone();
        let is_kept = self.nominations.on(name).next().is_some();
        let mut woken: Vec<Uid> = Vec::new();
        let mut alike: Option<(Arc<Claim>, Relations)> = None;
        for (uid, waiting) in self.queue.parked() {
            let claim = &waiting.pod.claim;
            if !fits_alone(claim, &node) {
                continue;
            }
            if is_kept {
                let mut seen = node.clone();
                // Who was woken just now is on the node already.
                let counts = |other: &Uid| other != uid && !woken.contains(other);
                self.keep_room(&mut seen, claim.priority, counts);
                if !fits_alone(claim, &seen) {
                    continue;
                }
            }
            let speaks = !claim.terms.is_empty() || !claim.mounts.is_empty();
            if speaks || !self.outspoken.is_empty() {
                // Pods of one owner wait for the same: count once for all of them.
                let (like, relations) =
                    &mut *alike.get_or_insert_with(|| (claim.clone(), self.relations(claim)));
                if !like.relates_like(claim) {
                    (*like, *relations) = (claim.clone(), self.relations(claim));
                }
                if relations.refusal(claim, &node).is_some() {
                    continue;
                }
                relations.count(claim, &node, claim, &self.namespaces, 1);
                relations.settle(claim);
            }
            node.add(claim);
            woken.push(uid.clone());
        }
        woken.iter().for_each(|uid| self.queue.wake(uid, name));
    }
}
