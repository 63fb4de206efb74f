//! Which pods are tried again when something changed.

use std::sync::Arc;

use k8s_openapi::api::core::v1::TopologySpreadConstraint;

use crate::claim::Claim;
use crate::cluster::{Cluster, Placed};
use crate::neighbours::Neighbours;
use crate::place::fits_alone;
use crate::pod::Pod;
use crate::profile::{DefaultSpread, Plugin, Profile};
use crate::queue::{Stage, Uid};
use crate::relations::Relations;
use crate::terms::{DO_NOT, Spread};

impl Cluster {
    /// What the rest of the cluster means for one that comes.
    pub(super) fn relations(&mut self, by: &Profile, claim: &Arc<Claim>) -> Relations {
        let neighbours = self.neighbours(by, claim);
        let part = |image: &String| {
            let having = self.images.get(image).copied().unwrap_or(0);
            share(having, self.nodes.len())
        };
        let images = match self.images.is_empty() {
            true => Vec::new(),
            false => claim.images.iter().map(part).collect(),
        };
        let volumes = self.volumes.demand(&claim.namespace, &claim.mounts);
        Relations { neighbours, volumes, images }
    }

    fn neighbours(&mut self, by: &Profile, claim: &Arc<Claim>) -> Arc<Neighbours> {
        if claim.terms.is_empty() && self.outspoken.is_empty() {
            return Arc::default();
        }
        if let Some(known) = self.shapes.get(&by.scheduler_name, claim) {
            return known;
        }
        let neighbours = Arc::new(self.count_neighbours(by, claim));
        self.shapes.insert(&by.scheduler_name, claim, neighbours.clone());
        neighbours
    }

    pub(super) fn count_neighbours(&self, by: &Profile, claim: &Claim) -> Neighbours {
        let related = |placed: &'_ Placed| {
            Neighbours::exist(claim, &placed.pod.claim, &self.namespaces)
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
        Neighbours::of(by, claim, self.nodes.values(), there.into_iter(), &self.namespaces)
    }

    /// What the pod asks for; if it says nothing about spread, with what its profile says for it.
    pub(super) fn spread_by_default(&self, by: &Profile, pod: &Pod) -> Arc<Claim> {
        let claim = &pod.claim;
        let holds =
            by.weight(Plugin::PodTopologySpread) > 0 || by.filters.has(Plugin::PodTopologySpread);
        if !holds || !claim.terms.spread.is_empty() {
            return claim.clone();
        }
        let Some(like) = self.owners.like(pod) else { return claim.clone() };
        let spread = match &by.spread {
            DefaultSpread::System => Spread::system_defaults(&like),
            DefaultSpread::List(constraints) => {
                let each = constraints.iter();
                each.map(|constraint| Spread::by_default(constraint, like.clone())).collect()
            }
        };
        let mut claim = Claim::clone(claim);
        claim.terms.spread = spread;
        Arc::new(claim)
    }

    /// What the pod asks for, as far as it keeps the pod from nodes: upstream's own defaults only make some nodes better.
    pub(super) fn required(&self, by: &Profile, pod: &Pod) -> Arc<Claim> {
        let is_required =
            |constraint: &TopologySpreadConstraint| constraint.when_unsatisfiable == DO_NOT;
        match &by.spread {
            DefaultSpread::List(constraints) if constraints.iter().any(is_required) => {
                self.spread_by_default(by, pod)
            }
            DefaultSpread::List(_) | DefaultSpread::System => pod.claim.clone(),
        }
    }

    /// Lets those parked pods try again that say something about others and that this concerns.
    pub(super) fn retry_related(&mut self, concerns: impl Fn(&Claim) -> bool) {
        let is_any_outspoken = !self.outspoken.is_empty();
        self.retry_parked(|claim| (is_any_outspoken || !claim.terms.is_empty()) && concerns(claim));
    }

    /// Lets those parked pods try again that this concerns.
    pub(super) fn retry_parked(&mut self, concerns: impl Fn(&Claim) -> bool) {
        let concerned = self.queue.parked().filter(|(_, waiting)| {
            let pod = &waiting.pod;
            concerns(&self.required(&self.profile(pod), pod))
        });
        let concerned: Vec<Uid> = concerned.map(|(uid, _)| uid.clone()).collect();
        concerned.iter().for_each(|uid| self.retry(uid));
    }

    /// A pod came to a node or left one: lets those try again that it matters to, wherever they might go.
    pub(super) fn retry_those_related_to(&mut self, other: &Claim) {
        let namespaces = std::mem::take(&mut self.namespaces);
        self.retry_related(|claim| Neighbours::reach_far(claim, other, &namespaces));
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
        let Some(mut node) = self.nodes.get(name).cloned() else { return };
        let is_kept = self.nominations.on(name).next().is_some();
        let mut woken: Vec<Uid> = Vec::new();
        let mut alike: Option<(Arc<Claim>, Relations)> = None;
        let mut queue = std::mem::take(&mut self.queue);
        for (uid, waiting) in queue.parked() {
            let by = self.profile(&waiting.pod);
            let claim = self.required(&by, &waiting.pod);
            if !fits_alone(&by, &claim, &node) {
                continue;
            }
            if is_kept {
                let mut seen = node.clone();
                // Who was woken just now is on the node already.
                let counts = |other: &Uid| other != uid && !woken.contains(other);
                self.keep_room(&mut seen, claim.priority, counts);
                if !fits_alone(&by, &claim, &seen) {
                    continue;
                }
            }
            let speaks = !claim.terms.is_empty() || !claim.mounts.is_empty();
            if speaks || !self.outspoken.is_empty() {
                // Pods of one owner wait for the same: count once for all of them.
                let is_alike = alike.as_ref().is_some_and(|(like, _)| like.relates_like(&claim));
                if !is_alike {
                    alike = Some((claim.clone(), self.relations(&by, &claim)));
                }
                let Some((_, relations)) = &mut alike else { continue };
                if relations.refusal(&by, &claim, &node).is_some() {
                    continue;
                }
                relations.count(&claim, &node, &claim, &self.namespaces, 1);
            }
            node.add(&claim);
            woken.push(uid.clone());
        }
        woken.iter().for_each(|uid| queue.wake(uid, name));
        self.queue = queue;
    }
}

#[expect(clippy::cast_precision_loss, reason = "no cluster has so many nodes")]
fn share(part: usize, whole: usize) -> f64 {
    part as f64 / whole.max(1) as f64
}
