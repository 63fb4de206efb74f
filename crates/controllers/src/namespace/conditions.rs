//! What a terminating namespace's conditions say. Pure.
//!
//! Upstream: `pkg/controller/namespace/deletion/status_condition_utils.go`.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Namespace, NamespaceCondition, NamespaceStatus};

use super::finalizers;
use crate::api::api_time;
use crate::discovery::ServedKind;
use crate::garbage_collector::Metadata;

/// What one pass over a namespace found.
#[derive(Debug, Default)]
pub(super) struct Findings {
    /// Why discovery did not answer.
    pub undiscovered: Option<String>,
    /// Group-versions whose kinds are not known.
    pub stale: Vec<String>,
    /// What could not be deleted, in the API's words.
    pub failures: Vec<String>,
    /// Something is left of a kind that cannot be watched.
    pub unwatched: bool,
    /// How many objects of a kind are left.
    pub remaining: BTreeMap<String, usize>,
    /// How many objects wait for a finalizer.
    pub finalizers: BTreeMap<String, usize>,
}

impl Findings {
    /// Takes in the objects that are left of a kind.
    pub fn add(&mut self, kind: &ServedKind, left: &[Metadata]) {
        if left.is_empty() {
            return;
        }
        self.unwatched |= !kind.allows("watch") || kind.is_events();
        self.remaining
            .insert(format!("{}.{}", kind.resource.plural, kind.resource.group), left.len());
        for (finalizer, count) in finalizers(left) {
            *self.finalizers.entry(finalizer).or_default() += count;
        }
    }

    /// Nothing is left of what is known.
    pub fn is_empty(&self) -> bool {
        self.remaining.is_empty()
    }

    /// Why the namespace cannot be judged, if so.
    pub fn failure(&self) -> Option<String> {
        self.conditions()
            .into_iter()
            .take(3)
            .find_map(|(_, failure)| failure.map(|(_, message)| message))
    }

    /// Each condition with its reason and message, if it holds. The first three are failures.
    fn conditions(&self) -> [(&'static str, Option<(&'static str, String)>); 5] {
        let discovery = match &self.undiscovered {
            Some(cause) => Some(cause.clone()),
            None => (!self.stale.is_empty()).then(|| {
                let groups = self.stale.join(", ");
                format!("Discovery failed for some groups, {} failing: stale GroupVersion discovery: {groups}", self.stale.len())
            }),
        };
        let mut failures = self.failures.clone();
        failures.sort();
        let content = (!failures.is_empty()).then(|| {
            format!(
                "Failed to delete all resource types, {} remaining: {}",
                failures.len(),
                failures.join(", ")
            )
        });
        let list = |counts: &BTreeMap<String, usize>, verb: &str| {
            let lines = counts
                .iter()
                .map(|(name, count)| format!("{name} {verb} {count} resource instances"));
            lines.collect::<Vec<_>>().join(", ")
        };
        let remaining = (!self.remaining.is_empty())
            .then(|| format!("Some resources are remaining: {}", list(&self.remaining, "has")));
        let finalizers = (!self.finalizers.is_empty()).then(|| {
            format!(
                "Some content in the namespace has finalizers remaining: {}",
                list(&self.finalizers, "in")
            )
        });
        [
            (
                "NamespaceDeletionDiscoveryFailure",
                discovery.map(|message| ("DiscoveryFailed", message)),
            ),
            ("NamespaceDeletionGroupVersionParsingFailure", None),
            (
                "NamespaceDeletionContentFailure",
                content.map(|message| ("ContentDeletionFailed", message)),
            ),
            (
                "NamespaceContentRemaining",
                remaining.map(|message| ("SomeResourcesRemain", message)),
            ),
            (
                "NamespaceFinalizersRemaining",
                finalizers.map(|message| ("SomeFinalizersRemain", message)),
            ),
        ]
    }
}

/// The reason and message of a condition that does not hold.
fn well(type_: &str) -> (&'static str, &'static str) {
    match type_ {
        "NamespaceDeletionDiscoveryFailure" => {
            ("ResourcesDiscovered", "All resources successfully discovered")
        }
        "NamespaceDeletionGroupVersionParsingFailure" => {
            ("ParsedGroupVersions", "All legacy kube types successfully parsed")
        }
        "NamespaceDeletionContentFailure" => {
            ("ContentDeleted", "All content successfully deleted, may be waiting on finalization")
        }
        "NamespaceContentRemaining" => ("ContentRemoved", "All content successfully removed"),
        _ => ("ContentHasNoFinalizers", "All content-preserving finalizers finished"),
    }
}

/// The namespace's status after a pass.
pub(super) fn status(
    namespace: &Namespace,
    findings: &Findings,
    now: Timestamp,
) -> NamespaceStatus {
    let mut status = namespace.status.clone().unwrap_or_default();
    status.phase = Some("Terminating".to_owned());
    let conditions = status.conditions.get_or_insert_default();
    for (type_, found) in findings.conditions() {
        let holds = if found.is_some() { "True" } else { "False" };
        let (reason, message) = found.unwrap_or_else(|| {
            let (reason, message) = well(type_);
            (reason, message.to_owned())
        });
        let place = conditions.iter().position(|condition| condition.type_ == type_);
        let since = place.map(|place| &conditions[place]).filter(|known| known.status == holds);
        let since = since
            .and_then(|known| known.last_transition_time.clone())
            .unwrap_or_else(|| api_time(now));
        let condition = NamespaceCondition {
            type_: type_.to_owned(),
            status: holds.to_owned(),
            last_transition_time: Some(since),
            reason: Some(reason.to_owned()),
            message: Some(message),
        };
        match place {
            Some(place) => conditions[place] = condition,
            None => conditions.push(condition),
        }
    }
    status
}

#[cfg(test)]
mod tests {
    use super::*;
    use kube::api::ApiResource;
    use kube::core::GroupVersionKind;
    use serde_json::json;

    fn kind(group: &str, kind: &str, plural: &str) -> ServedKind {
        let resource =
            ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(group, "v1", kind), plural);
        ServedKind { resource, namespaced: true, verbs: Vec::new() }
    }

    fn objects(finalizers: &[&[&str]]) -> Vec<Metadata> {
        let object = |finalizers: &&[&str]| {
            serde_json::from_value(json!({ "metadata": { "finalizers": finalizers } })).unwrap()
        };
        finalizers.iter().map(object).collect()
    }

    fn check(findings: &Findings, expected: [&str; 5]) {
        let status = status(&Namespace::default(), findings, Timestamp::UNIX_EPOCH);
        let found: Vec<String> = status
            .conditions
            .unwrap()
            .into_iter()
            .map(|condition| {
                format!(
                    "{} {}: {}",
                    condition.status,
                    condition.reason.unwrap(),
                    condition.message.unwrap()
                )
            })
            .collect();
        assert_eq!(found, expected);
    }

    const WELL: [&str; 5] = [
        "False ResourcesDiscovered: All resources successfully discovered",
        "False ParsedGroupVersions: All legacy kube types successfully parsed",
        "False ContentDeleted: All content successfully deleted, may be waiting on finalization",
        "False ContentRemoved: All content successfully removed",
        "False ContentHasNoFinalizers: All content-preserving finalizers finished",
    ];

    #[test]
    fn conditions_say_what_is_left_and_what_failed() {
        check(&Findings::default(), WELL);

        let mut left = Findings::default();
        left.add(&kind("", "Pod", "pods"), &objects(&[&["a/b"], &["a/b", "c/d"], &[]]));
        left.add(&kind("apps", "Deployment", "deployments"), &objects(&[&[]]));
        left.add(&kind("", "Secret", "secrets"), &[]);
        check(
            &left,
            [
                WELL[0],
                WELL[1],
                WELL[2],
                "True SomeResourcesRemain: Some resources are remaining: deployments.apps has 1 resource instances, pods. has 3 resource instances",
                "True SomeFinalizersRemain: Some content in the namespace has finalizers remaining: a/b in 2 resource instances, c/d in 1 resource instances",
            ],
        );
        assert_eq!(left.failure(), None);

        let failed = Findings {
            failures: vec!["b".to_owned(), "a".to_owned()],
            stale: vec!["x/v1".to_owned()],
            ..Findings::default()
        };
        check(
            &failed,
            [
                "True DiscoveryFailed: Discovery failed for some groups, 1 failing: stale GroupVersion discovery: x/v1",
                WELL[1],
                "True ContentDeletionFailed: Failed to delete all resource types, 2 remaining: a, b",
                WELL[3],
                WELL[4],
            ],
        );
        assert!(failed.failure().is_some());
    }

    #[test]
    fn a_condition_that_stays_keeps_its_time() {
        let later = Timestamp::from_second(100).unwrap();
        let mut namespace = Namespace::default();
        namespace.status = Some(status(&namespace, &Findings::default(), Timestamp::UNIX_EPOCH));
        assert_eq!(
            status(&namespace, &Findings::default(), later),
            namespace.status.clone().unwrap()
        );
        let failed = Findings { undiscovered: Some("down".to_owned()), ..Findings::default() };
        let conditions = status(&namespace, &failed, later).conditions.unwrap();
        assert_eq!(conditions[0].last_transition_time, Some(api_time(later)));
        assert_eq!(conditions[1].last_transition_time, Some(api_time(Timestamp::UNIX_EPOCH)));
    }
}
