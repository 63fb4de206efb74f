//! Which pods are on which node.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use coracle_reconcile::{Change, Mirror, ObjectKey};
use parking_lot::Mutex;

use crate::pod::Pod;

/// An index of pods by node. Without it each change of a node would search all pods of the cluster.
pub(crate) struct Placed {
    keys: Arc<Mutex<HashMap<String, BTreeSet<ObjectKey>>>>,
    mirror: Mirror<Pod>,
}

impl Placed {
    /// Keeps the index of a mirror.
    pub fn follow(mirror: &Mirror<Pod>) -> Self {
        let keys: Arc<Mutex<HashMap<String, BTreeSet<ObjectKey>>>> = Arc::default();
        let index = Arc::clone(&keys);
        mirror.on_change(move |change| {
            let key = ObjectKey::of(change.object().as_ref());
            let (before, now) = match change {
                Change::Applied { old, new } => (old.as_ref().and_then(node), node(new)),
                Change::Deleted(last) => (node(last), None),
            };
            if before == now {
                return;
            }
            let mut index = index.lock();
            if let Some(before) = before
                && let Some(keys) = index.get_mut(before)
            {
                keys.remove(&key);
                if keys.is_empty() {
                    index.remove(before);
                }
            }
            if let Some(now) = now {
                index.entry(now.to_owned()).or_default().insert(key);
            }
        });
        Self { keys, mirror: mirror.clone() }
    }

    /// The keys of a node's pods.
    pub fn keys_on(&self, node: &str) -> Vec<ObjectKey> {
        self.keys.lock().get(node).into_iter().flatten().cloned().collect()
    }

    /// A node's pods.
    pub fn on(&self, node: &str) -> Vec<Arc<Pod>> {
        self.keys_on(node).iter().filter_map(|key| self.mirror.get(key)).collect()
    }
}

fn node(pod: &Arc<Pod>) -> Option<&str> {
    pod.spec.node_name.as_deref().filter(|node| !node.is_empty())
}
