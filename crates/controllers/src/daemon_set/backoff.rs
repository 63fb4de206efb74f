//! How long a failed pod is left before another takes its place on the node.
//!
//! The queue's own back-off is for a reconcile that failed; here all goes well, except that the pod which a kubelet
//! refuses would be made and deleted as fast as the API allows. Upstream: `failedPodsBackoff`.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use coracle_reconcile::ObjectKey;
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::DaemonSet;
use parking_lot::Mutex;

/// Upstream's first wait; it doubles from there.
const FIRST: Duration = Duration::from_secs(1);
/// Upstream's longest wait. After twice this time without a failure all is forgotten.
const LONGEST: Duration = Duration::from_secs(15 * 60);

/// When failed pods were replaced, by set and node. As many entries as there are pods that fail.
#[derive(Default)]
pub(super) struct Backoff {
    sets: Mutex<HashMap<ObjectKey, OfSet>>,
}

#[derive(Default)]
struct OfSet {
    uid: Option<String>,
    generation: Option<i64>,
    nodes: HashMap<String, Replacement>,
}

struct Replacement {
    at: Timestamp,
    wait: Duration,
}

impl Replacement {
    fn age(&self, now: Timestamp) -> Duration {
        Duration::try_from(now.duration_since(self.at)).unwrap_or_default()
    }
}

impl Backoff {
    /// The nodes on which a failed pod has to be left, and for how long yet.
    pub fn held(&self, set: &DaemonSet, now: Timestamp) -> BTreeMap<String, Duration> {
        let mut sets = self.sets.lock();
        let Some(of_set) = sets.get_mut(&ObjectKey::of(set)) else { return BTreeMap::new() };
        of_set.start_anew_if_changed(set);
        of_set.nodes.retain(|_, replaced| replaced.age(now) <= LONGEST * 2);
        let left = |replaced: &Replacement| replaced.wait.checked_sub(replaced.age(now));
        let held = of_set.nodes.iter().filter_map(|(node, it)| Some((node.clone(), left(it)?)));
        held.filter(|(_, left)| !left.is_zero()).collect()
    }

    /// A failed pod of the set is replaced on this node now.
    pub fn replaced(&self, set: &DaemonSet, node: &str, now: Timestamp) {
        let mut sets = self.sets.lock();
        let of_set = sets.entry(ObjectKey::of(set)).or_default();
        of_set.start_anew_if_changed(set);
        let before = of_set.nodes.get(node).map(|replaced| replaced.wait);
        let wait = before.map_or(FIRST, |wait| (wait * 2).min(LONGEST));
        of_set.nodes.insert(node.to_owned(), Replacement { at: now, wait });
    }

    /// The set is gone.
    pub fn forget(&self, key: &ObjectKey) {
        self.sets.lock().remove(key);
    }
}

impl OfSet {
    /// What failed under another template may work under this one.
    fn start_anew_if_changed(&mut self, set: &DaemonSet) {
        let generation = set.metadata.generation;
        if self.uid != set.metadata.uid || self.generation != generation {
            *self = Self { uid: set.metadata.uid.clone(), generation, nodes: HashMap::new() };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_wait_doubles_until_the_template_changes_or_all_is_well_for_long() {
        let set = |generation: i64| -> DaemonSet {
            serde_json::from_value(
                json!({ "metadata": { "name": "logs", "uid": "me", "generation": generation } }),
            )
            .unwrap()
        };
        let backoff = Backoff::default();
        let at = |seconds: i64| Timestamp::from_second(seconds).unwrap();
        let held = |generation: i64, seconds: i64| {
            let held = backoff.held(&set(generation), at(seconds));
            held.get("a").map(Duration::as_secs)
        };
        assert_eq!(held(1, 0), None);
        backoff.replaced(&set(1), "a", at(0));
        assert_eq!((held(1, 0), held(1, 1)), (Some(1), None));
        backoff.replaced(&set(1), "a", at(1));
        assert_eq!((held(1, 1), held(1, 2), held(1, 3)), (Some(2), Some(1), None));
        for _ in 0..20 {
            backoff.replaced(&set(1), "a", at(10));
        }
        assert_eq!(held(1, 10), Some(900));
        assert_eq!(held(2, 10), None);
        backoff.replaced(&set(2), "a", at(10));
        assert_eq!(held(2, 10), Some(1));
        assert_eq!(held(2, 10_000), None);
        backoff.replaced(&set(2), "a", at(10_000));
        assert_eq!(held(2, 10_000), Some(1));
    }
}
