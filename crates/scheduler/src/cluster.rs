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
use tokio::time::Instant;

use crate::claim::Claim;
use crate::node::Node;
use crate::place::{Misfit, Placement, fits, place};
use crate::pod::Pod;
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
    /// Pods with gates whose condition is still to be written.
    gated: VecDeque<Uid>,
}

#[derive(Debug)]
struct Placed {
    node: String,
    claim: Arc<Claim>,
}

/// What to do for a pod.
#[derive(Debug, Clone)]
pub(crate) struct Decision {
    pub(crate) uid: Uid,
    pub(crate) pod: Arc<Pod>,
    pub(crate) act: Act,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Act {
    /// Tell the API that the pod goes to this node.
    Bind(String),
    /// Tell its owner that no node takes it.
    ReportMisfit(Misfit),
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
                    .for_each(|placed| new.add(&placed.claim));
            }
        }
        self.nodes.insert(name.clone(), new);
        self.wake(&name);
    }

    /// Takes in that a node is gone.
    pub(crate) fn node_deleted(&mut self, name: &str) {
        self.nodes.remove(name);
    }

    /// Takes in a pod's state.
    pub(crate) fn pod_applied(&mut self, pod: &Arc<Pod>) {
        let Some(uid) = pod.metadata.uid.clone() else { return };
        if pod.is_over {
            return self.pod_gone(&uid);
        }
        if let Some(node) = pod.node.as_deref() {
            let woken_by = self.queue.remove(&uid).and_then(|waiting| waiting.woken_by);
            self.assign(&uid, node, pod.claim.clone());
            self.pass_on(woken_by, Some(node));
            return;
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
                return Some(Decision { pod: waiting.pod.clone(), uid, act: Act::ReportGates });
            }
        }
        let uid = self.queue.first(now)?;
        let waiting = self.queue.get(&uid)?;
        let pod = waiting.pod.clone();
        let woken_by = self.queue.take_woken_by(&uid);
        let act = match place(&pod.claim, self.nodes.values()) {
            Placement::Node(node) => {
                self.queue.set_stage(&uid, Stage::Binding(node.clone()));
                self.assign(&uid, &node, pod.claim.clone());
                self.pass_on(woken_by, Some(&node));
                Act::Bind(node)
            }
            Placement::Nowhere(misfit) => {
                self.queue.set_stage(&uid, Stage::Parked);
                self.pass_on(woken_by, None);
                Act::ReportMisfit(misfit)
            }
        };
        Some(Decision { uid, pod, act })
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

    fn pod_gone(&mut self, uid: &str) {
        let woken_by = self.queue.remove(uid).and_then(|waiting| waiting.woken_by);
        let node = self.unassign(uid);
        if let Some(node) = &node {
            self.wake(node);
        }
        self.pass_on(woken_by, None);
    }

    fn assign(&mut self, uid: &str, node: &str, claim: Arc<Claim>) {
        let known = self.placed.get(uid);
        if known.is_some_and(|known| known.node == node && known.claim == claim) {
            return;
        }
        let left = self.unassign(uid);
        if let Some(node) = self.nodes.get_mut(node) {
            node.add(&claim);
        }
        self.by_node.entry(node.to_owned()).or_default().insert(uid.to_owned());
        self.placed.insert(uid.to_owned(), Placed { node: node.to_owned(), claim });
        if let Some(left) = left {
            // It was elsewhere, or it shrank where it is.
            self.wake(&left);
        }
    }

    /// Counts a pod out of its node, which is the answer.
    fn unassign(&mut self, uid: &str) -> Option<String> {
        let Placed { node, claim } = self.placed.remove(uid)?;
        if let Some(node) = self.nodes.get_mut(&node) {
            node.remove(&claim);
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
        let mut woken = Vec::new();
        for (uid, waiting) in self.queue.parked() {
            if fits(&waiting.pod.claim, &node) {
                node.add(&waiting.pod.claim);
                woken.push(uid.clone());
            }
        }
        woken.iter().for_each(|uid| self.queue.wake(uid, name));
    }
}

#[cfg(test)]
#[path = "cluster_tests.rs"]
mod tests;
