//! In which order clients see groups, and the versions of each: as the priorities of their APIServices say.
//!
//! As upstream's
//! <https://github.com/kubernetes/kubernetes/blob/master/staging/src/k8s.io/kube-aggregator/pkg/apis/apiregistration/v1/helper/helpers.go>.

use std::cmp::Reverse;
use std::collections::HashMap;

use coracle_api::kinds::{self, GroupVersion};
use serde_json::Value;

use super::Remotes;
use crate::custom_resources::{Snapshot, version_rank};

/// `groupPriorityMinimum` and `versionPriority` of an APIService.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Priority {
    pub(crate) group: i64,
    pub(crate) version: i64,
}

/// Kinds of definitions come after all of our own in clients' eyes, and among each other in the order of their versions.
pub(super) const OF_DEFINITIONS: Priority = Priority { group: 1000, version: 100 };

/// Those of metrics-server's APIService.
pub(crate) const OF_METRICS: Priority = Priority { group: 100, version: 100 };

/// Those of each group-version that we serve ourselves: upstream ranks the core group first, and its others below.
pub(crate) fn built_in() -> impl Iterator<Item = (&'static GroupVersion, Priority)> {
    const CORE: i64 = 18_000;
    const GROUPS: i64 = 17_800;
    kinds::group_versions().iter().enumerate().map(|(rank, version)| {
        let rank = i64::try_from(rank).unwrap_or_default();
        let priority = Priority {
            group: if version.group.is_empty() { CORE } else { GROUPS - 10 * rank },
            version: if version.version.contains("beta") { 9 } else { 15 },
        };
        (version, priority)
    })
}

/// The order of what is served at one moment.
pub(crate) struct Order {
    groups: HashMap<String, i64>,
    versions: HashMap<(String, String), i64>,
}

impl Order {
    /// Of these kinds and remotes.
    pub(crate) fn new(kinds: &Snapshot, remotes: &Remotes) -> Self {
        let mut order = Self { groups: HashMap::new(), versions: HashMap::new() };
        for (version, priority) in built_in() {
            order.add(version.group, version.version, priority);
        }
        for kind in kinds.custom() {
            order.add(kind.group, kind.version, OF_DEFINITIONS);
        }
        for remote in remotes.iter() {
            order.add(&remote.group, &remote.version, remote.priority);
        }
        order
    }

    fn add(&mut self, group: &str, version: &str, priority: Priority) {
        // A group is where its highest version wants it.
        let highest = self.groups.entry(group.to_owned()).or_insert(priority.group);
        *highest = (*highest).max(priority.group);
        self.versions.insert((group.to_owned(), version.to_owned()), priority.version);
    }

    /// Puts groups into their order, and the `versions` of each.
    pub(crate) fn sort(&self, groups: &mut [Value], name_of: fn(&Value) -> &str) {
        groups.sort_by_cached_key(|group| {
            let name = name_of(group);
            (Reverse(self.groups.get(name).copied().unwrap_or_default()), name.to_owned())
        });
        for group in groups {
            let name = name_of(group).to_owned();
            let Some(versions) = group["versions"].as_array_mut() else { continue };
            let rank = |version: &str| {
                let place = (name.clone(), version.to_owned());
                Reverse(self.versions.get(&place).copied().unwrap_or_default())
            };
            versions.sort_by(|one, other| {
                let text =
                    |version: &Value| version["version"].as_str().unwrap_or_default().to_owned();
                let (one, other) = (text(one), text(other));
                rank(&one)
                    .cmp(&rank(&other))
                    .then_with(|| version_rank(&one).cmp(&version_rank(&other)))
            });
        }
    }
}
