//! Which nodes are kept for pods that others were preempted for.
//!
//! Until its victims are gone such a pod waits like any other; what it asks for counts on its nominated node for all
//! pods that are not more important than it.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use crate::claim::Claim;
use crate::queue::Uid;

/// The nominated nodes of pods that wait.
#[derive(Debug, Default)]
pub(crate) struct Nominations {
    by_pod: HashMap<Uid, String>,
    by_node: HashMap<String, BTreeMap<Uid, Arc<Claim>>>,
}

impl Nominations {
    /// Keeps room for the pod on this node, and nowhere else.
    pub(crate) fn insert(&mut self, uid: &str, node: &str, claim: Arc<Claim>) {
        self.remove(uid);
        self.by_pod.insert(uid.to_owned(), node.to_owned());
        self.by_node.entry(node.to_owned()).or_default().insert(uid.to_owned(), claim);
    }

    /// Gives the pod's nomination up; the answer is the node.
    pub(crate) fn remove(&mut self, uid: &str) -> Option<String> {
        let node = self.by_pod.remove(uid)?;
        if let Some(there) = self.by_node.get_mut(&node) {
            there.remove(uid);
            if there.is_empty() {
                self.by_node.remove(&node);
            }
        }
        Some(node)
    }

    /// The node that is kept for the pod.
    pub(crate) fn of(&self, uid: &str) -> Option<&str> {
        self.by_pod.get(uid).map(String::as_str)
    }

    /// The pods that this node is kept for.
    pub(crate) fn on(&self, node: &str) -> impl Iterator<Item = (&Uid, &Arc<Claim>)> {
        self.by_node.get(node).into_iter().flatten()
    }

    /// The nodes that are kept for anybody.
    pub(crate) fn nodes(&self) -> impl Iterator<Item = &str> {
        self.by_node.keys().map(String::as_str)
    }
}
