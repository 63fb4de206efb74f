//! Which ReplicaSet runs the Deployment's template, what a new one looks like, and the revisions that they record.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet, ReplicaSetSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::Value;

use super::rollout::Limits;
use crate::ownership::controlled_by;
use crate::templates::{HASH, comparable, name_with, template_hash};

/// The place of a set in the Deployment's history; on the Deployment, of its newest set.
pub(super) const REVISION: &str = "deployment.kubernetes.io/revision";
/// Revisions that the set had before it was rolled back to.
pub(super) const HISTORY: &str = "deployment.kubernetes.io/revision-history";
/// The Deployment's replicas when the set was last scaled: another number means that somebody scaled.
pub(super) const DESIRED: &str = "deployment.kubernetes.io/desired-replicas";
/// Desired replicas and surge when the set was last scaled: what proportions refer to.
pub(super) const MAXIMUM: &str = "deployment.kubernetes.io/max-replicas";
/// Annotations that mean something on the Deployment only.
const OWN: [&str; 6] = [
    "kubectl.kubernetes.io/last-applied-configuration",
    REVISION,
    HISTORY,
    DESIRED,
    MAXIMUM,
    "deprecated.deployment.rollback.to",
];
/// The longest history that a set remembers, in bytes: upstream's bound.
const LONGEST_HISTORY: usize = 2000;

/// The revision annotation.
pub(super) fn annotation(meta: &ObjectMeta) -> Option<&str> {
    get(meta, REVISION)
}

/// One of the annotations that hold a number.
pub(super) fn number(set: &ReplicaSet, name: &str) -> Option<i64> {
    get(&set.metadata, name)?.parse().ok()
}

fn get<'a>(meta: &'a ObjectMeta, name: &str) -> Option<&'a str> {
    meta.annotations.as_ref()?.get(name).map(String::as_str)
}

/// The set that runs the Deployment's template: the oldest, if there are several.
pub(super) fn find_new(deployment: &Deployment, sets: &[Arc<ReplicaSet>]) -> Option<usize> {
    let wanted = comparable(&deployment.spec.template);
    let ours = (0..sets.len()).filter(|index| runs_template(&wanted, &sets[*index]));
    ours.min_by(|a, b| age_order(&sets[*a], &sets[*b]))
}

/// Older sets first.
pub(super) fn age_order(a: &ReplicaSet, b: &ReplicaSet) -> std::cmp::Ordering {
    let key = |set: &ReplicaSet| set.metadata.creation_timestamp.as_ref().map(|time| time.0);
    key(a).cmp(&key(b)).then_with(|| a.metadata.name.cmp(&b.metadata.name))
}

/// Whether the set's template is the Deployment's.
pub(super) fn runs_template_of(deployment: &Deployment, set: &ReplicaSet) -> bool {
    runs_template(&comparable(&deployment.spec.template), set)
}

fn runs_template(wanted: &Value, set: &ReplicaSet) -> bool {
    set.spec.template.as_ref().is_some_and(|found| comparable(found) == *wanted)
}

/// The highest revision among sets.
pub(super) fn highest<'a>(sets: impl Iterator<Item = &'a Arc<ReplicaSet>>) -> i64 {
    sets.filter_map(|set| number(set, REVISION)).max().unwrap_or(0).max(0)
}

/// The annotations that the new set must bear at `revision`, or later if it already is.
pub(super) fn annotations(
    deployment: &Deployment,
    set: &ReplicaSet,
    revision: i64,
) -> BTreeMap<String, String> {
    let mut annotations = set.metadata.annotations.clone().unwrap_or_default();
    let inherited = deployment.metadata.annotations.iter().flatten();
    for (name, value) in inherited.filter(|(name, _)| !OWN.contains(&name.as_str())) {
        annotations.insert(name.clone(), value.clone());
    }
    let before = annotations.get(REVISION).cloned();
    if number(set, REVISION).unwrap_or(0) < revision {
        annotations.insert(REVISION.to_owned(), revision.to_string());
        if let Some(before) = before {
            let history = annotations.entry(HISTORY.to_owned()).or_default();
            *history = with_entry(history, &before);
        }
    }
    annotations
}

fn with_entry(history: &str, entry: &str) -> String {
    let mut entries: Vec<&str> = history.split(',').filter(|entry| !entry.is_empty()).collect();
    entries.push(entry);
    while entries.len() > 1
        && entries.iter().map(|entry| entry.len() + 1).sum::<usize>() > LONGEST_HISTORY
    {
        entries.remove(0);
    }
    entries.join(",")
}

/// Writes the numbers that proportional scaling refers to.
pub(super) fn annotate_sizes(annotations: &mut BTreeMap<String, String>, limits: &Limits) {
    annotations.insert(DESIRED.to_owned(), limits.desired.to_string());
    annotations.insert(MAXIMUM.to_owned(), limits.most().to_string());
}

/// A set for the Deployment's template, without replicas.
pub(super) fn new_set(deployment: &Deployment, limits: &Limits, revision: i64) -> ReplicaSet {
    let spec = &deployment.spec;
    let collisions = deployment.status.as_ref().and_then(|status| status.collision_count);
    let hash = template_hash(&spec.template, collisions);
    let mut template = spec.template.clone();
    let labels = template.metadata.get_or_insert_default().labels.get_or_insert_default();
    labels.insert(HASH.to_owned(), hash.clone());
    let labels = labels.clone();
    let mut selector = spec.selector.clone();
    selector.match_labels.get_or_insert_default().insert(HASH.to_owned(), hash.clone());

    let mut set = ReplicaSet {
        metadata: ObjectMeta {
            name: Some(name_with(deployment.metadata.name.as_deref().unwrap_or_default(), &hash)),
            namespace: deployment.metadata.namespace.clone(),
            labels: Some(labels),
            owner_references: Some(vec![controlled_by(deployment)]),
            ..ObjectMeta::default()
        },
        spec: ReplicaSetSpec {
            replicas: Some(0),
            min_ready_seconds: spec.min_ready_seconds,
            selector,
            template: Some(template),
        },
        status: None,
    };
    let mut annotations = annotations(deployment, &set, revision);
    annotate_sizes(&mut annotations, limits);
    set.metadata.annotations = Some(annotations);
    set
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_set_is_the_new_one_despite_its_hash_and_empty_lists() {
        let check = |deployment: Value, set: Value, expected: bool| {
            let deployment: Deployment = serde_json::from_value(
                json!({ "metadata": {}, "spec": { "selector": {}, "template": deployment } }),
            )
            .unwrap();
            let set: ReplicaSet = serde_json::from_value(
                json!({ "metadata": {}, "spec": { "selector": {}, "template": set } }),
            )
            .unwrap();
            assert_eq!(runs_template_of(&deployment, &set), expected);
        };
        let container = |image: &str| json!({ "containers": [{ "name": "c", "image": image }] });
        check(
            json!({ "spec": container("a") }),
            json!({ "metadata": { "labels": { HASH: "x" } }, "spec": container("a") }),
            true,
        );
        check(json!({ "spec": container("a") }), json!({ "spec": container("b") }), false);
        check(
            json!({ "spec": { "containers": [], "volumes": [{ "name": "v", "emptyDir": {} }] } }),
            json!({ "spec": { "containers": [], "volumes": [{ "name": "v" }] } }),
            false,
        );
        check(
            json!({ "spec": { "containers": [], "volumes": [] } }),
            json!({ "spec": { "containers": [] } }),
            true,
        );
    }

    #[test]
    fn a_rolled_back_set_remembers_its_revisions() {
        let deployment: Deployment = serde_json::from_value(json!({
            "metadata": { "annotations": { REVISION: "3", "team": "blue", "kubernetes.io/change-cause": "undo" } },
            "spec": { "selector": {}, "template": {} } }))
        .unwrap();
        let check = |set: Value, revision: i64, expected: Value| {
            let set: ReplicaSet = serde_json::from_value(
                json!({ "metadata": { "annotations": set }, "spec": { "selector": {} } }),
            )
            .unwrap();
            assert_eq!(json!(annotations(&deployment, &set, revision)), expected);
        };
        let inherited = |extra: Value| {
            let mut all = json!({ "team": "blue", "kubernetes.io/change-cause": "undo" });
            json_patch::merge(&mut all, &extra);
            all
        };
        check(json!({}), 1, inherited(json!({ REVISION: "1" })));
        check(json!({ REVISION: "1" }), 4, inherited(json!({ REVISION: "4", HISTORY: "1" })));
        check(
            json!({ REVISION: "4", HISTORY: "1" }),
            6,
            inherited(json!({ REVISION: "6", HISTORY: "1,4" })),
        );
        check(json!({ REVISION: "6" }), 5, inherited(json!({ REVISION: "6" })));
        check(json!({ REVISION: "9" }), 10, inherited(json!({ REVISION: "10", HISTORY: "9" })));
    }
}
