//! The PersistentVolumeClaims of a StatefulSet's pods: made before the pod, kept or deleted as the set says.
//!
//! Upstream: `createPersistentVolumeClaims` and `UpdatePodClaimForRetentionPolicy` in
//! `pkg/controller/statefulset/stateful_pod_control.go`. Deleting is the garbage collector's work: a claim that has to
//! go with its set or its pod is owned by it.

use std::sync::Arc;

use coracle_reconcile::{ObjectKey, Recorder};
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Resource, ResourceExt};
use serde_json::json;

use super::identity::{claim, claim_name, claim_templates, ordinals, pod_name};
use crate::api::{Attempting, Unfinished, is_already_exists, is_not_found, message};
use crate::context::Context;
use crate::pod::Pod;

/// Makes the claims that a pod needs, where they are not there.
pub(super) async fn ensure(
    ctx: &Context,
    recorder: &Recorder,
    set: &StatefulSet,
    ordinal: i32,
) -> Result<(), Unfinished> {
    for template in claim_templates(set) {
        let mut claim = claim(set, template, ordinal);
        let key = ObjectKey::of(&claim);
        if let Some(there) = ctx.mirrors.claims.get(&key) {
            if there.metadata.deletion_timestamp.is_some() {
                return Err(Unfinished::Remaining(format!("pvc {} is being deleted", key.name)));
            }
            continue;
        }
        claim.metadata.owner_references = Some(owners(set, None, ordinal, Vec::new()));
        let api = ctx.api::<PersistentVolumeClaim>(&key.namespace);
        let (pod, name) = (pod_name(set, ordinal), set.name_any());
        let told = format!("create Claim {} Pod {pod} in StatefulSet {name}", key.name);
        match api.create(&PostParams::default(), &claim).await {
            Ok(created) => {
                ctx.mirrors.claims.observe(created);
                recorder.normal(set, "SuccessfulCreate", format!("{told} success"));
            }
            Err(error) if is_already_exists(&error) => (),
            Err(error) => {
                let told = format!("{told} failed error: {}", message(&error));
                recorder.warning(set, "FailedCreate", told);
                return Err(error).attempting(|| format!("create persistentvolumeclaim {key}"));
            }
        }
    }
    Ok(())
}

/// Makes a pod's claims belong to whom the set's retention policy says.
pub(super) async fn assign(
    ctx: &Context,
    set: &StatefulSet,
    pod: &Pod,
    ordinal: i32,
) -> Result<(), Unfinished> {
    for template in claim_templates(set) {
        let name = claim_name(set, template, ordinal);
        let key = ObjectKey::new(set.namespace().unwrap_or_default(), name);
        let Some(claim) = ctx.mirrors.claims.get(&key) else { continue };
        let found = claim.metadata.owner_references.clone().unwrap_or_default();
        let wanted = owners(set, Some(pod), ordinal, found.clone());
        if wanted != found {
            write_owners(ctx, &claim, &wanted).await?;
        }
    }
    Ok(())
}

/// Who should own a claim: those who do for other reasons, and the set or the pod with which it has to go.
fn owners(
    set: &StatefulSet,
    pod: Option<&Pod>,
    ordinal: i32,
    mut found: Vec<OwnerReference>,
) -> Vec<OwnerReference> {
    let policy = set.spec.persistent_volume_claim_retention_policy.as_ref();
    let deletes = |when: Option<&String>| when.map(String::as_str) == Some("Delete");
    let when_deleted = deletes(policy.and_then(|policy| policy.when_deleted.as_ref()));
    let when_scaled = deletes(policy.and_then(|policy| policy.when_scaled.as_ref()));
    let is_condemned = !ordinals(set).contains(&ordinal);
    let pod_name = pod_name(set, ordinal);
    found.retain(|owner| {
        let is_set = owner.kind == "StatefulSet" && Some(&owner.name) == set.metadata.name.as_ref();
        let is_pod = owner.kind == "Pod" && owner.name == pod_name;
        !is_set && !is_pod
    });
    if is_condemned && when_scaled {
        found.extend(pod.map(owned_by));
    } else if when_deleted {
        found.push(owned_by(set));
    }
    found
}

fn owned_by<K: Resource<DynamicType = ()>>(owner: &K) -> OwnerReference {
    OwnerReference {
        api_version: K::api_version(&()).into_owned(),
        kind: K::kind(&()).into_owned(),
        name: owner.meta().name.clone().unwrap_or_default(),
        uid: owner.meta().uid.clone().unwrap_or_default(),
        controller: Some(true),
        block_owner_deletion: None,
    }
}

async fn write_owners(
    ctx: &Context,
    claim: &Arc<PersistentVolumeClaim>,
    owners: &[OwnerReference],
) -> Result<(), Unfinished> {
    let key = ObjectKey::of(claim.as_ref());
    let owners = if owners.is_empty() { None } else { Some(owners) };
    let patch = json!({ "metadata": {
        "uid": claim.metadata.uid,
        "resourceVersion": claim.metadata.resource_version,
        "ownerReferences": owners,
    } });
    let api = ctx.api::<PersistentVolumeClaim>(&key.namespace);
    match api.patch(&key.name, &PatchParams::default(), &Patch::Merge(patch)).await {
        Ok(written) => ctx.mirrors.claims.observe(written),
        Err(error) if is_not_found(&error) => (),
        refused => {
            refused.attempting(|| format!("write the owners of persistentvolumeclaim {key}"))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    /// Who owns the claim of `ordinal` in a set of two, under a policy.
    fn check(policy: Value, ordinal: i32, found: &[&str], expected: &[&str]) {
        let set: StatefulSet = serde_json::from_value(json!({
            "metadata": { "name": "db", "uid": "set" },
            "spec": { "replicas": 2, "selector": {}, "template": {},
                      "persistentVolumeClaimRetentionPolicy": policy },
        }))
        .unwrap();
        let pod: Pod = serde_json::from_value(
            json!({ "metadata": { "name": format!("db-{ordinal}"), "uid": "pod" } }),
        )
        .unwrap();
        let reference = |uid: &&str| OwnerReference {
            kind: match *uid {
                "set" => "StatefulSet".to_owned(),
                "pod" => "Pod".to_owned(),
                _ => "ConfigMap".to_owned(),
            },
            name: if *uid == "pod" { format!("db-{ordinal}") } else { "db".to_owned() },
            uid: (*uid).to_owned(),
            ..OwnerReference::default()
        };
        let found = found.iter().map(reference).collect();
        let owners = owners(&set, Some(&pod), ordinal, found);
        let uids: Vec<_> = owners.iter().map(|owner| owner.uid.as_str()).collect();
        assert_eq!(uids, expected, "{policy} {ordinal}");
    }

    #[test]
    fn the_retention_policy_says_who_owns_a_claim() {
        let policy =
            |deleted: &str, scaled: &str| json!({ "whenDeleted": deleted, "whenScaled": scaled });
        check(json!(null), 0, &["other"], &["other"]);
        check(policy("Retain", "Retain"), 0, &["set"], &[]);
        check(policy("Retain", "Retain"), 5, &["pod"], &[]);
        check(policy("Delete", "Retain"), 0, &["other"], &["other", "set"]);
        check(policy("Delete", "Retain"), 5, &[], &["set"]);
        check(policy("Retain", "Delete"), 0, &["pod"], &[]);
        check(policy("Retain", "Delete"), 5, &[], &["pod"]);
        check(policy("Delete", "Delete"), 0, &["pod"], &["set"]);
        check(policy("Delete", "Delete"), 5, &["set"], &["pod"]);
    }
}
