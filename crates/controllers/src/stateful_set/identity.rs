//! What makes a pod of a StatefulSet this one and no other: its ordinal, and the name, labels and claims that follow.
//!
//! Upstream: `pkg/controller/statefulset/stateful_set_utils.go`.

use std::collections::BTreeMap;
use std::ops::Range;

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{
    PersistentVolumeClaim, PersistentVolumeClaimVolumeSource, Pod, PodTemplateSpec, Volume,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::ownership::controlled_by;

/// The label that says which revision a pod is of.
pub(super) const REVISION: &str = "controller-revision-hash";
/// The label that selects one pod, for a Service of its own.
const POD_NAME: &str = "statefulset.kubernetes.io/pod-name";
/// The label that says which ordinal a pod has.
const POD_INDEX: &str = "apps.kubernetes.io/pod-index";

/// The ordinals that the set wants.
pub(super) fn ordinals(set: &StatefulSet) -> Range<i32> {
    let start = set.spec.ordinals.as_ref().and_then(|ordinals| ordinals.start).unwrap_or(0);
    let replicas = set.spec.replicas.unwrap_or(1).max(0);
    start..start.saturating_add(replicas)
}

/// The name of the set's pod with this ordinal.
pub(super) fn pod_name(set: &StatefulSet, ordinal: i32) -> String {
    format!("{}-{ordinal}", set.metadata.name.as_deref().unwrap_or_default())
}

/// The ordinal of a pod of this name, if it is one of the set's.
pub(super) fn ordinal_of(set: &StatefulSet, name: &str) -> Option<i32> {
    let number = name.strip_prefix(set.metadata.name.as_deref()?)?.strip_prefix('-')?;
    let ordinal: i32 = number.parse().ok()?;
    // "07" and "+7" are other names.
    (ordinal >= 0 && ordinal.to_string() == number).then_some(ordinal)
}

/// The labels that a pod's ordinal means.
pub(super) fn labels(set: &StatefulSet, ordinal: i32) -> [(String, String); 2] {
    [(POD_NAME.to_owned(), pod_name(set, ordinal)), (POD_INDEX.to_owned(), ordinal.to_string())]
}

/// The pod with this ordinal, made from the template of a revision.
pub(super) fn pod(
    set: &StatefulSet,
    template: &PodTemplateSpec,
    revision: &str,
    ordinal: i32,
) -> Pod {
    let meta = template.metadata.clone().unwrap_or_default();
    let name = pod_name(set, ordinal);
    let mut all_labels = meta.labels.unwrap_or_default();
    all_labels.extend(labels(set, ordinal));
    all_labels.insert(REVISION.to_owned(), revision.to_owned());
    let mut spec = template.spec.clone().unwrap_or_default();
    spec.hostname = Some(name.clone());
    spec.subdomain = set.spec.service_name.clone();
    let claimed: Vec<Volume> =
        claim_templates(set).iter().map(|template| volume(set, template, ordinal)).collect();
    let volumes = spec.volumes.take().unwrap_or_default();
    let others = volumes.into_iter().filter(|it| claimed.iter().all(|mine| mine.name != it.name));
    let volumes: Vec<Volume> = others.chain(claimed.iter().cloned()).collect();
    spec.volumes = Some(volumes).filter(|volumes| !volumes.is_empty());
    Pod {
        metadata: ObjectMeta {
            name: Some(name),
            namespace: set.metadata.namespace.clone(),
            labels: Some(all_labels),
            annotations: meta.annotations,
            finalizers: meta.finalizers,
            owner_references: Some(vec![controlled_by(set)]),
            ..ObjectMeta::default()
        },
        spec: Some(spec),
        status: None,
    }
}

/// What the set claims for each of its pods.
pub(super) fn claim_templates(set: &StatefulSet) -> &[PersistentVolumeClaim] {
    set.spec.volume_claim_templates.as_deref().unwrap_or_default()
}

/// The name of the claim that a template means for one pod.
pub(super) fn claim_name(
    set: &StatefulSet,
    template: &PersistentVolumeClaim,
    ordinal: i32,
) -> String {
    let template = template.metadata.name.as_deref().unwrap_or_default();
    format!("{template}-{}", pod_name(set, ordinal))
}

fn volume(set: &StatefulSet, template: &PersistentVolumeClaim, ordinal: i32) -> Volume {
    Volume {
        name: template.metadata.name.clone().unwrap_or_default(),
        persistent_volume_claim: Some(PersistentVolumeClaimVolumeSource {
            claim_name: claim_name(set, template, ordinal),
            read_only: None,
        }),
        ..Volume::default()
    }
}

/// The claim that a template means for one pod.
pub(super) fn claim(
    set: &StatefulSet,
    template: &PersistentVolumeClaim,
    ordinal: i32,
) -> PersistentVolumeClaim {
    let selected = set.spec.selector.match_labels.clone();
    let mut labels: BTreeMap<_, _> = template.metadata.labels.clone().unwrap_or_default();
    labels.extend(selected.unwrap_or_default());
    PersistentVolumeClaim {
        metadata: ObjectMeta {
            name: Some(claim_name(set, template, ordinal)),
            namespace: set.metadata.namespace.clone(),
            labels: Some(labels),
            annotations: template.metadata.annotations.clone(),
            ..ObjectMeta::default()
        },
        spec: template.spec.clone(),
        status: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn set(extra: Value) -> StatefulSet {
        let mut set = json!({
            "metadata": { "name": "db", "namespace": "default", "uid": "me" },
            "spec": { "replicas": 3, "serviceName": "dbs", "selector": { "matchLabels": { "app": "db" } },
                      "template": { "metadata": { "labels": { "app": "db" } },
                                    "spec": { "containers": [], "volumes": [
                                        { "name": "data", "emptyDir": {} }, { "name": "tmp", "emptyDir": {} }] } },
                      "volumeClaimTemplates": [{ "metadata": { "name": "data", "labels": { "tier": "disk" } } }] },
        });
        json_patch::merge(&mut set, &extra);
        serde_json::from_value(set).unwrap()
    }

    #[test]
    fn only_names_that_the_set_gives_have_an_ordinal() {
        let set = set(json!({}));
        for (name, expected) in [
            ("db-0", Some(0)),
            ("db-17", Some(17)),
            ("db-07", None),
            ("db-+7", None),
            ("db--1", None),
            ("db-", None),
            ("db", None),
            ("db-x-1", None),
            ("other-1", None),
            ("db-99999999999", None),
        ] {
            assert_eq!(ordinal_of(&set, name), expected, "{name}");
        }
        assert_eq!(ordinals(&set), 0..3);
        assert_eq!(ordinals(&self::set(json!({ "spec": { "ordinals": { "start": 5 } } }))), 5..8);
    }

    #[test]
    fn a_pod_bears_its_name_its_labels_and_its_claims() {
        let set = set(json!({}));
        let template = set.spec.template.clone();
        let pod = serde_json::to_value(pod(&set, &template, "db-abc", 2)).unwrap();
        assert_eq!(pod["metadata"]["name"], "db-2");
        assert_eq!(
            pod["metadata"]["labels"],
            json!({ "app": "db", POD_NAME: "db-2", POD_INDEX: "2", REVISION: "db-abc" })
        );
        assert_eq!(pod["spec"]["hostname"], "db-2");
        assert_eq!(pod["spec"]["subdomain"], "dbs");
        assert_eq!(
            pod["spec"]["volumes"],
            json!([{ "name": "tmp", "emptyDir": {} },
                   { "name": "data", "persistentVolumeClaim": { "claimName": "data-db-2" } }])
        );
        let claim = claim(&set, &claim_templates(&set)[0], 2);
        assert_eq!(claim.metadata.name.as_deref(), Some("data-db-2"));
        let labels = serde_json::to_value(claim.metadata.labels).unwrap();
        assert_eq!(labels, json!({ "app": "db", "tier": "disk" }));
    }
}
