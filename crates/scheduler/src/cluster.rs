//! What the scheduler knows: the nodes with their load, and the pods that have no node yet.
//!
//! Changes come in from the mirrors, decisions go out by [`Cluster::next`]. A decision counts at once: the pod is on its
//! node's load before the API knows. When a node changes or gives something back, exactly those parked pods are tried
//! again that fit it now, taken together: were all of a thousand woken by one free place, 999 would wake in vain. A pod
//! that was woken and then did not take the place passes the chance on to the next.
//!
//! Pure, but for the clock, which comes in.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Node as ApiNode;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use tokio::time::Instant;

use crate::claim::Claim;
use crate::constraints::Labels;
use crate::node::Node;
use crate::nominations::Nominations;
use crate::owners::Owners;
use crate::place::{Misfit, Placement, fits, place};
use crate::pod::Pod;
use crate::preempt::Budget;
use crate::profile::Profile;
use crate::queue::{Queue, Stage, Uid, Waiting};
use crate::relations::Relations;
use crate::shapes::Shapes;
use crate::terms::Namespaces;
use crate::volumes::Volumes;

mod room;
mod waking;

use room::seen;

/// The scheduler's state.
#[derive(Debug)]
pub(crate) struct Cluster {
    profiles: HashMap<String, Arc<Profile>>,
    nodes: BTreeMap<String, Node>,
    /// The node that was taken last: the next pod looks from there on.
    taken_last: String,
    /// The pods that have a node, or have been given one.
    placed: HashMap<Uid, Placed>,
    by_node: HashMap<String, HashSet<Uid>>,
    queue: Queue,
    nominations: Nominations,
    /// The pods that we have evicted and that are not gone yet.
    evicted: HashSet<Uid>,
    budgets: BTreeMap<(String, String), Budget>,
    namespaces: Namespaces,
    volumes: Volumes,
    /// The pods on nodes that say something about those that come.
    outspoken: HashSet<Uid>,
    owners: Owners,
    /// How many nodes have which image.
    images: HashMap<String, usize>,
    shapes: Shapes,
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
    /// The claims that are to be told the node before the pod is bound to it.
    pub(crate) undecided: Vec<String>,
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
    pub(crate) fn new(profiles: impl IntoIterator<Item = Profile>) -> Cluster {
        let profiles = profiles.into_iter();
        let profiles = profiles.map(|profile| (profile.scheduler_name.clone(), Arc::new(profile)));
        Cluster {
            profiles: profiles.collect(),
            nodes: BTreeMap::new(),
            taken_last: String::new(),
            placed: HashMap::new(),
            by_node: HashMap::new(),
            queue: Queue::default(),
            nominations: Nominations::default(),
            evicted: HashSet::new(),
            budgets: BTreeMap::new(),
            namespaces: Namespaces::new(),
            volumes: Volumes::default(),
            outspoken: HashSet::new(),
            owners: Owners::default(),
            images: HashMap::new(),
            shapes: Shapes::default(),
            gated: VecDeque::new(),
        }
    }

    /// The same with other back-offs: the first, and how long it grows.
    pub(crate) fn backing_off(self, backoffs: (Duration, Duration)) -> Cluster {
        Cluster { queue: Queue::new(backoffs), ..self }
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
        let old = self.nodes.get(&name);
        let moves_pods = match old {
            Some(old) => old.labels != new.labels || old.taints != new.taints,
            None => self.by_node.contains_key(&name),
        };
        if moves_pods || old.is_none() {
            self.shapes.clear();
        }
        let had = old.map(|old| old.images.clone()).unwrap_or_default();
        self.images_changed(&had, &new.images.clone());
        self.nodes.insert(name.clone(), new);
        self.wake(&name);
        if moves_pods {
            self.retry_related(|_| true);
        }
        self.retry_nominated(&name);
    }

    /// Takes in that a node is gone.
    pub(crate) fn node_deleted(&mut self, name: &str) {
        if let Some(node) = self.nodes.remove(name) {
            self.images_changed(&node.images, &BTreeMap::new());
        }
        self.shapes.clear();
        self.retry_nominated(name);
        self.retry_related(|_| true);
    }

    /// Takes in a namespace's labels.
    pub(crate) fn namespace_applied(&mut self, name: &str, labels: Labels) {
        if self.namespaces.get(name) != Some(&labels) {
            self.namespaces.insert(name.to_owned(), labels);
            self.shapes.clear();
            self.retry_related(|_| true);
        }
    }

    /// Takes in that a namespace is gone.
    pub(crate) fn namespace_deleted(&mut self, name: &str) {
        self.namespaces.remove(name);
        self.shapes.clear();
    }

    /// Takes in what changes of those who select pods: it counts from the next decision on.
    pub(crate) fn owners_changed(&mut self, change: impl FnOnce(&mut Owners)) {
        change(&mut self.owners);
    }

    /// Takes in what changes of claims, volumes or classes; pods that mount any are tried again if it says so.
    pub(crate) fn volumes_changed(&mut self, change: impl FnOnce(&mut Volumes) -> bool) {
        if change(&mut self.volumes) {
            self.retry_parked(|claim| !claim.mounts.is_empty());
        }
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
        let is_ours = self.profiles.contains_key(pod.scheduler_name());
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
                let undecided = Vec::new();
                return Some(Decision { pod, uid, act: Act::ReportGates, nominated, undecided });
            }
        }
        let uid = self.queue.first(now)?;
        let waiting = self.queue.get(&uid)?;
        let pod = waiting.pod.clone();
        let woken_by = self.queue.take_woken_by(&uid);
        let by = self.profile(&pod);
        let kept = self.kept_from(&uid, &pod);
        let claim = self.spread_by_default(&by, &pod);
        let relations = self.relations(&by, &claim);
        let placement = self.placement(&uid, &by, &claim, &relations, &kept);
        // Those who keep the counts current hold them alone from here on.
        let undecided = relations.volumes.undecided;
        drop(relations.neighbours);
        let act = match placement {
            Placement::Node(node) => {
                self.queue.set_stage(&uid, Stage::Binding(node.clone()));
                self.assign(&uid, &node, &pod);
                self.pass_on(woken_by, Some(&node));
                self.denominate(&uid, Some(&node));
                for claim in &undecided {
                    self.volumes.select(&pod.claim.namespace, claim, &node);
                }
                self.taken_last.clone_from(&node);
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
        Some(Decision { uid, pod, act, nominated, undecided })
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

    /// The node that is kept for the pod, if that takes it now, or else the best.
    fn placement(
        &self,
        uid: &str,
        by: &Profile,
        claim: &Claim,
        relations: &Relations,
        kept: &HashMap<String, Node>,
    ) -> Placement {
        let seen = |node| seen(node, kept);
        let nominated = self.nominations.of(uid).and_then(|name| self.nodes.get(name)).map(seen);
        match nominated.filter(|node| fits(by, claim, relations, node)) {
            Some(node) => Placement::Node(node.name.clone()),
            None => {
                let last = self.taken_last.as_str();
                let after = (Bound::Excluded(last), Bound::Unbounded);
                let until = (Bound::Unbounded, Bound::Included(last));
                let nodes =
                    self.nodes.range::<str, _>(after).chain(self.nodes.range::<str, _>(until));
                let nodes = nodes.map(|(_, node)| seen(node));
                place(by, claim, relations, nodes, by.enough(self.nodes.len()))
            }
        }
    }

    /// How the pod is to be placed. Who is in the queue names one of the profiles.
    fn profile(&self, pod: &Pod) -> Arc<Profile> {
        self.profiles.get(pod.scheduler_name()).cloned().unwrap_or_default()
    }

    fn images_changed(&mut self, before: &BTreeMap<String, i64>, after: &BTreeMap<String, i64>) {
        for name in after.keys().filter(|name| !before.contains_key(*name)) {
            *self.images.entry(name.clone()).or_default() += 1;
        }
        for name in before.keys().filter(|name| !after.contains_key(*name)) {
            if let Some(count) = self.images.get_mut(name) {
                *count -= 1;
                if *count == 0 {
                    self.images.remove(name);
                }
            }
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
            self.shapes.count(node, &pod.claim, &self.namespaces, 1);
        }
        if pod.claim.terms.has_affinity() {
            self.outspoken.insert(uid.to_owned());
        }
        self.by_node.entry(node.to_owned()).or_default().insert(uid.to_owned());
        self.placed.insert(uid.to_owned(), Placed { node: node.to_owned(), pod: pod.clone() });
        if let Some(left) = left {
            // It was elsewhere, or it shrank where it is.
            self.wake(&left);
        }
        self.retry_those_related_to(&pod.claim);
    }

    /// Counts a pod out of its node, which is the answer.
    fn unassign(&mut self, uid: &str) -> Option<String> {
        let Placed { node, pod } = self.placed.remove(uid)?;
        if let Some(node) = self.nodes.get_mut(&node) {
            node.remove(&pod.claim);
            self.shapes.count(node, &pod.claim, &self.namespaces, -1);
        }
        if let Some(there) = self.by_node.get_mut(&node) {
            there.remove(uid);
            if there.is_empty() {
                self.by_node.remove(&node);
            }
        }
        self.retry_those_related_to(&pod.claim);
        self.outspoken.remove(uid);
        Some(node)
    }
}

#[cfg(test)]
#[path = "cluster_tests.rs"]
mod tests;
