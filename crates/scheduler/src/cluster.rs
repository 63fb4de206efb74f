//! What the scheduler knows: the nodes with their load, and the pods that have no node yet.
//!
//! Changes come in from the mirrors, decisions go out by [`Cluster::next`]. A decision counts at once: the pod is on its
//! node's load before the API knows. When a node changes or gives something back, exactly those parked pods are tried
//! again that fit it now, taken together: were all of a thousand woken by one free place, 999 would wake in vain. A pod
//! that was woken and then did not take the place passes the chance on to the next.
//!
//! Pure, but for the clock, which comes in.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::sync::Arc;

use k8s_openapi::api::core::v1::Node as ApiNode;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use tokio::time::Instant;

use crate::node::Node;
use crate::nominations::Nominations;
use crate::place::{Eviction, Misfit, Placement, fits, place, refusal};
use crate::pod::Pod;
use crate::preempt::{Budget, Candidate, make_room};
use crate::queue::{Queue, Stage, Uid, Waiting};

/// The scheduler's state.
#[derive(Debug)]
pub(crate) struct Cluster {
    scheduler_name: String,
    nodes: BTreeMap<String, Node>,
    /// The pods that have a node, or have been given one.
    placed: HashMap<Uid, Placed>,
    by_node: HashMap<String, HashSet<Uid>>,
    queue: Queue,
    nominations: Nominations,
    /// The pods that we have evicted and that are not gone yet.
    evicted: HashSet<Uid>,
    budgets: BTreeMap<(String, String), Budget>,
    /// Pods with gates whose condition is still to be written.
    gated: VecDeque<Uid>,
}

#[derive(Debug)]
struct Placed {
    node: String,
    pod: Arc<Pod>,
}

/// What to do for a pod.
#[derive(Debug, Clone)]
pub(crate) struct Decision {
    pub(crate) uid: Uid,
    pub(crate) pod: Arc<Pod>,
    pub(crate) act: Act,
    /// The node that is kept for the pod.
    pub(crate) nominated: Option<String>,
}

#[derive(Debug, Clone)]
pub(crate) enum Act {
    /// Tell the API that the pod goes to this node.
    Bind(String),
    /// Tell its owner that no node takes it.
    ReportMisfit(Misfit),
    /// The same, and evict these others for it.
    Preempt(Misfit, Vec<Arc<Pod>>),
    /// Tell its owner that its gates are closed.
    ReportGates,
}

impl Cluster {
    pub(crate) fn new(scheduler_name: &str) -> Cluster {
        Cluster {
            scheduler_name: scheduler_name.to_owned(),
            nodes: BTreeMap::new(),
            placed: HashMap::new(),
            by_node: HashMap::new(),
            queue: Queue::default(),
            nominations: Nominations::default(),
            evicted: HashSet::new(),
            budgets: BTreeMap::new(),
            gated: VecDeque::new(),
        }
    }

    /// Takes in a node's state.
    pub(crate) fn node_applied(&mut self, node: &ApiNode) {
        let mut new = Node::of(node);
        let name = new.name.clone();
        match self.nodes.get(&name) {
            Some(old) => {
                new.load = old.load.clone();
                if new == *old {
                    return; // A heartbeat.
                }
            }
            None => {
                let there = self.by_node.get(&name).into_iter().flatten();
                there
                    .filter_map(|uid| self.placed.get(uid))
                    .for_each(|placed| new.add(&placed.pod.claim));
            }
        }
        self.nodes.insert(name.clone(), new);
        self.wake(&name);
        self.retry_nominated(&name);
    }

    /// Takes in that a node is gone.
    pub(crate) fn node_deleted(&mut self, name: &str) {
        self.nodes.remove(name);
        self.retry_nominated(name);
    }

    /// Takes in a disruption budget's state.
    pub(crate) fn budget_applied(&mut self, budget: &PodDisruptionBudget) {
        let name = |name: &Option<String>| name.clone().unwrap_or_default();
        let key = (name(&budget.metadata.namespace), name(&budget.metadata.name));
        match Budget::of(budget) {
            Some(budget) => drop(self.budgets.insert(key, budget)),
            None => drop(self.budgets.remove(&key)),
        }
    }

    /// Takes in that a disruption budget is gone.
    pub(crate) fn budget_deleted(&mut self, namespace: &str, name: &str) {
        self.budgets.remove(&(namespace.to_owned(), name.to_owned()));
    }

    /// Takes in a pod's state.
    pub(crate) fn pod_applied(&mut self, pod: &Arc<Pod>) {
        let Some(uid) = pod.metadata.uid.clone() else { return };
        if pod.is_over {
            return self.pod_gone(&uid);
        }
        if let Some(node) = pod.node.as_deref() {
            let woken_by = self.queue.remove(&uid).and_then(|waiting| waiting.woken_by);
            self.assign(&uid, node, pod);
            self.pass_on(woken_by, Some(node));
            return self.denominate(&uid, Some(node));
        }
        if let Some(waiting) = self.queue.get(&uid) {
            let (stage, changed) = (waiting.stage.clone(), waiting.pod.claim != pod.claim);
            if matches!(stage, Stage::Binding(_)) {
                // What was decided counts until the API has answered.
                return self.queue.refresh(&uid, pod.clone());
            }
            if pod.metadata.deletion_timestamp.is_some() {
                return self.pod_gone(&uid);
            }
            self.queue.refresh(&uid, pod.clone());
            let opened = stage == Stage::Gated && !pod.is_gated;
            if opened || (changed && stage == Stage::Parked) {
                self.queue.set_stage(&uid, Stage::Active);
            }
            return;
        }
        let is_ours =
            pod.scheduler.as_deref().unwrap_or("default-scheduler") == self.scheduler_name;
        if !is_ours || pod.metadata.deletion_timestamp.is_some() || self.placed.contains_key(&uid) {
            return;
        }
        let stage = if pod.is_gated { Stage::Gated } else { Stage::Active };
        if stage == Stage::Gated {
            self.gated.push_back(uid.clone());
        }
        if let Some(node) = &pod.nominated {
            self.nominations.insert(&uid, node, pod.claim.clone());
        }
        self.queue.insert(uid, pod.clone(), stage);
    }

    /// Takes in that a pod is deleted.
    pub(crate) fn pod_deleted(&mut self, pod: &Pod) {
        if let Some(uid) = &pod.metadata.uid {
            self.pod_gone(uid);
        }
    }

    /// Decides for the pod whose turn it is.
    pub(crate) fn next(&mut self, now: Instant) -> Option<Decision> {
        while let Some(uid) = self.gated.pop_front() {
            if let Some(waiting) =
                self.queue.get(&uid).filter(|waiting| waiting.stage == Stage::Gated)
            {
                let (pod, nominated) = (waiting.pod.clone(), None);
                return Some(Decision { pod, uid, act: Act::ReportGates, nominated });
            }
        }
        let uid = self.queue.first(now)?;
        let waiting = self.queue.get(&uid)?;
        let pod = waiting.pod.clone();
        let woken_by = self.queue.take_woken_by(&uid);
        let kept = self.kept_from(&uid, &pod);
        let act = match self.placement(&uid, &pod, &kept) {
            Placement::Node(node) => {
                self.queue.set_stage(&uid, Stage::Binding(node.clone()));
                self.assign(&uid, &node, &pod);
                self.pass_on(woken_by, Some(&node));
                self.denominate(&uid, Some(&node));
                Act::Bind(node)
            }
            Placement::Nowhere(misfit) => {
                self.queue.set_stage(&uid, Stage::Parked);
                let act = self.preempt(&uid, &pod, misfit, &kept);
                self.pass_on(woken_by, None);
                act
            }
        };
        let nominated = self.nominations.of(&uid).map(str::to_owned);
        Some(Decision { uid, pod, act, nominated })
    }

    /// Takes in that the API did not evict a pod: the one that it was to make room for is tried again later.
    pub(crate) fn eviction_failed(&mut self, victim: &str, uid: &str, now: Instant) {
        self.evicted.remove(victim);
        if self.queue.get(uid).is_some_and(|waiting| waiting.stage == Stage::Parked) {
            self.queue.back_off(uid, now);
        }
        self.denominate(uid, None);
    }

    /// When [`Cluster::next`] will have something without a change before.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.queue.deadline()
    }

    /// Takes in that the API did not bind the pod: it gives its node back, and is tried again later.
    pub(crate) fn bind_failed(&mut self, uid: &str, now: Instant) {
        // If the watch told meanwhile that it is bound or gone, then that counts.
        let Some(Stage::Binding(node)) = self.queue.get(uid).map(|waiting| waiting.stage.clone())
        else {
            return;
        };
        let is_deleted = |waiting: &Waiting| waiting.pod.metadata.deletion_timestamp.is_some();
        if self.queue.get(uid).is_some_and(is_deleted) {
            return self.pod_gone(uid);
        }
        self.unassign(uid);
        self.queue.back_off(uid, now);
        self.wake(&node);
    }

    /// The nodes as this pod sees them where room is kept for others that are as important.
    fn kept_from(&self, uid: &str, pod: &Pod) -> HashMap<String, Node> {
        let nodes = self.nominations.nodes().filter_map(|name| self.nodes.get(name));
        let seen = nodes.map(|node| {
            let mut node = node.clone();
            self.keep_room(&mut node, pod.claim.priority, |other| other != uid);
            (node.name.clone(), node)
        });
        seen.collect()
    }

    fn keep_room(&self, node: &mut Node, priority: i32, counts: impl Fn(&Uid) -> bool) {
        let name = node.name.clone();
        let others = self.nominations.on(&name);
        let others = others.filter(|(other, claim)| counts(other) && claim.priority >= priority);
        others.for_each(|(_, claim)| node.add(claim));
    }

    /// The node that is kept for the pod, if that takes it now, or else the best.
    fn placement(&self, uid: &str, pod: &Pod, kept: &HashMap<String, Node>) -> Placement {
        let seen = |node| seen(node, kept);
        let nominated = self.nominations.of(uid).and_then(|name| self.nodes.get(name)).map(seen);
        match nominated.filter(|node| fits(&pod.claim, node)) {
            Some(node) => Placement::Node(node.name.clone()),
            None => place(&pod.claim, self.nodes.values().map(seen)),
        }
    }

    /// Has others evicted for a pod that fits nowhere, if that helps.
    fn preempt(
        &mut self,
        uid: &str,
        pod: &Pod,
        mut misfit: Misfit,
        kept: &HashMap<String, Node>,
    ) -> Act {
        if pod.claim.never_preempts {
            return Act::ReportMisfit(misfit);
        }
        if self.awaits_victims(uid, pod, kept) {
            misfit.eviction = Eviction::Ineligible(
                "not eligible due to a terminating pod on the nominated node.",
            );
            return Act::ReportMisfit(misfit);
        }
        let nodes: Vec<_> = self.nodes.values().map(|node| seen(node, kept)).collect();
        let budgets: Vec<_> = self.budgets.values().cloned().collect();
        let pods_on = |node: &str| self.pods_on(node).cloned().collect();
        match make_room(&pod.claim, nodes.into_iter(), pods_on, &budgets) {
            Ok(Candidate { node, mut victims, .. }) => {
                misfit.eviction = Eviction::Helps;
                self.nominate(uid, pod, &node);
                victims.retain(|victim| {
                    let victim = victim.metadata.uid.clone().unwrap_or_default();
                    self.evicted.insert(victim)
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
    fn awaits_victims(&self, uid: &str, pod: &Pod, kept: &HashMap<String, Node>) -> bool {
        let node = self.nominations.of(uid).and_then(|name| self.nodes.get(name));
        let Some(node) = node.map(|node| seen(node, kept)) else { return false };
        let is_leaving = |other: &Pod| {
            let is_evicted =
                other.metadata.uid.as_ref().is_some_and(|uid| self.evicted.contains(uid));
            is_evicted || (other.is_preempted && other.metadata.deletion_timestamp.is_some())
        };
        refusal(&pod.claim, node).is_some_and(|refusal| refusal.is_helped_by_eviction)
            && self
                .pods_on(&node.name)
                .any(|other| other.claim.priority < pod.claim.priority && is_leaving(other))
    }

    fn pods_on(&self, node: &str) -> impl Iterator<Item = &Arc<Pod>> {
        let there = self.by_node.get(node).into_iter().flatten();
        there.filter_map(|uid| self.placed.get(uid)).map(|placed| &placed.pod)
    }

    /// Keeps room for the pod; the less important that it was kept for before may go elsewhere.
    fn nominate(&mut self, uid: &str, pod: &Pod, node: &str) {
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
    fn denominate(&mut self, uid: &str, taken: Option<&str>) {
        let left = self.nominations.remove(uid);
        self.pass_on(left, taken);
    }

    /// Lets the pods try again that the node is kept for, once nobody that they wait for is left there.
    fn retry_nominated(&mut self, node: &str) {
        let kept_for: Vec<_> = self.nominations.on(node).map(|(uid, _)| uid.clone()).collect();
        for uid in kept_for {
            let Some(pod) = self.queue.get(&uid).map(|waiting| waiting.pod.clone()) else {
                continue;
            };
            if !self.awaits_victims(&uid, &pod, &self.kept_from(&uid, &pod)) {
                self.retry(&uid);
            }
        }
    }

    fn retry(&mut self, uid: &str) {
        if self.queue.get(uid).is_some_and(|waiting| waiting.stage == Stage::Parked) {
            self.queue.set_stage(uid, Stage::Active);
        }
    }

    fn pod_gone(&mut self, uid: &str) {
        self.evicted.remove(uid);
        let woken_by = self.queue.remove(uid).and_then(|waiting| waiting.woken_by);
        let node = self.unassign(uid);
        if let Some(node) = &node {
            self.wake(node);
            self.retry_nominated(node);
        }
        self.pass_on(woken_by, None);
        self.denominate(uid, None);
    }

    fn assign(&mut self, uid: &str, node: &str, pod: &Arc<Pod>) {
        if let Some(known) = self.placed.get_mut(uid)
            && known.node == node
            && known.pod.claim == pod.claim
        {
            known.pod = pod.clone();
            return;
        }
        let left = self.unassign(uid);
        if let Some(node) = self.nodes.get_mut(node) {
            node.add(&pod.claim);
        }
        self.by_node.entry(node.to_owned()).or_default().insert(uid.to_owned());
        self.placed.insert(uid.to_owned(), Placed { node: node.to_owned(), pod: pod.clone() });
        if let Some(left) = left {
            // It was elsewhere, or it shrank where it is.
            self.wake(&left);
        }
    }

    /// Counts a pod out of its node, which is the answer.
    fn unassign(&mut self, uid: &str) -> Option<String> {
        let Placed { node, pod } = self.placed.remove(uid)?;
        if let Some(node) = self.nodes.get_mut(&node) {
            node.remove(&pod.claim);
        }
        if let Some(there) = self.by_node.get_mut(&node) {
            there.remove(uid);
            if there.is_empty() {
                self.by_node.remove(&node);
            }
        }
        Some(node)
    }

    /// If a pod that was woken by one node ended elsewhere, the place that woke it is still free.
    fn pass_on(&mut self, woken_by: Option<String>, taken: Option<&str>) {
        if let Some(node) = woken_by.filter(|node| Some(node.as_str()) != taken) {
            self.wake(&node);
        }
    }

    /// Lets those parked pods try again that fit this node now, all of them together.
    fn wake(&mut self, name: &str) {
        let Some(node) = self.nodes.get(name) else { return };
        let mut node = node.clone();
        let is_kept = self.nominations.on(name).next().is_some();
        let mut woken: Vec<Uid> = Vec::new();
        for (uid, waiting) in self.queue.parked() {
            let claim = &waiting.pod.claim;
            if !fits(claim, &node) {
                continue;
            }
            if is_kept {
                let mut seen = node.clone();
                // Who was woken just now is on the node already.
                let counts = |other: &Uid| other != uid && !woken.contains(other);
                self.keep_room(&mut seen, claim.priority, counts);
                if !fits(claim, &seen) {
                    continue;
                }
            }
            node.add(claim);
            woken.push(uid.clone());
        }
        woken.iter().for_each(|uid| self.queue.wake(uid, name));
    }
}

/// A node as a pod sees it.
fn seen<'a>(node: &'a Node, kept: &'a HashMap<String, Node>) -> &'a Node {
    kept.get(&node.name).unwrap_or(node)
}

#[cfg(test)]
#[path = "cluster_tests.rs"]
mod tests;
