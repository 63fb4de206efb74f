//! Keeps claims that a pod uses, and volumes that a claim has, until they are not used any more.
//!
//! Upstream: `pkg/controller/volume/pvcprotection` and `pkg/controller/volume/pvprotection`. The finalizers are put on by
//! admission, and here on what is older than it.

use std::sync::Arc;

use coracle_reconcile::{Change, Next, ObjectKey, Queue};
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Api;
use kube::api::PostParams;

use crate::api::{Attempting, Unfinished, is_not_found};
use crate::context::Context;
use crate::pod::{Pod, claim_names};

/// Objects that are worked on at once: each is one read of mirrors and at most one write.
const WORKERS: usize = 4;
const CLAIM_FINALIZER: &str = "kubernetes.io/pvc-protection";
const VOLUME_FINALIZER: &str = "kubernetes.io/pv-protection";

/// Starts both controllers.
pub(crate) fn start(ctx: &Arc<Context>) {
    let claims = Queue::new();
    let changed = claims.clone();
    ctx.mirrors.claims.on_change(move |change| {
        if let Change::Applied { new, .. } = change {
            changed.add(ObjectKey::of(new.as_ref()));
        }
    });
    let changed = claims.clone();
    ctx.mirrors.pods.on_change(move |change| {
        // Only a pod that goes can free a claim.
        if let Change::Deleted(pod) = change {
            let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
            for name in claim_names(pod) {
                changed.add(ObjectKey::new(namespace, name));
            }
        }
    });
    let shared = Arc::clone(ctx);
    ctx.work(&claims, "pvc-protection-controller", WORKERS, move |key| {
        let ctx = Arc::clone(&shared);
        async move { protect_claim(&ctx, &key).await }
    });

    let volumes = Queue::new();
    let changed = volumes.clone();
    ctx.mirrors.volumes.on_change(move |change| {
        if let Change::Applied { new, .. } = change {
            changed.add(ObjectKey::of(new.as_ref()));
        }
    });
    let shared = Arc::clone(ctx);
    ctx.work(&volumes, "pv-protection-controller", WORKERS, move |key| {
        let ctx = Arc::clone(&shared);
        async move { protect_volume(&ctx, &key).await }
    });
}

async fn protect_claim(ctx: &Context, key: &ObjectKey) -> Result<Next, Unfinished> {
    let Some(claim) = ctx.mirrors.claims.get(key) else { return Ok(Next::AwaitChange) };
    let is_used = || {
        let pods = ctx.mirrors.pods.in_namespace(&key.namespace);
        pods.iter().any(|pod| uses(pod, &key.name))
    };
    let Some(finalizers) = settled(&claim.metadata, CLAIM_FINALIZER, is_used) else {
        return Ok(Next::AwaitChange);
    };
    let mut wanted = PersistentVolumeClaim::clone(&claim);
    wanted.metadata.finalizers = finalizers;
    let api = ctx.api::<PersistentVolumeClaim>(&key.namespace);
    match api.replace(&key.name, &PostParams::default(), &wanted).await {
        Err(error) if is_not_found(&error) => (),
        refused => {
            refused.attempting(|| format!("protect persistentvolumeclaim {key}"))?;
        }
    }
    Ok(Next::AwaitChange)
}

async fn protect_volume(ctx: &Context, key: &ObjectKey) -> Result<Next, Unfinished> {
    let Some(volume) = ctx.mirrors.volumes.get(key) else { return Ok(Next::AwaitChange) };
    let is_bound = || {
        let status = volume.status.as_ref();
        status.and_then(|status| status.phase.as_deref()) == Some("Bound")
    };
    let Some(finalizers) = settled(&volume.metadata, VOLUME_FINALIZER, is_bound) else {
        return Ok(Next::AwaitChange);
    };
    let mut wanted = PersistentVolume::clone(&volume);
    wanted.metadata.finalizers = finalizers;
    let api: Api<PersistentVolume> = Api::all(ctx.client.clone());
    match api.replace(&key.name, &PostParams::default(), &wanted).await {
        Err(error) if is_not_found(&error) => (),
        refused => {
            refused.attempting(|| format!("protect persistentvolume {}", key.name))?;
        }
    }
    Ok(Next::AwaitChange)
}

/// Whether a node has or will have to do with the claim because of this pod.
fn uses(pod: &Pod, claim: &str) -> bool {
    // A pod that has no node yet will find that the claim is going, and wait.
    let is_scheduled = pod.spec.node_name.as_deref().is_some_and(|node| !node.is_empty());
    is_scheduled && claim_names(pod).any(|used| used == claim)
}

/// The finalizers that the object should have, if they are not what it has.
fn settled(
    meta: &ObjectMeta,
    ours: &str,
    is_used: impl FnOnce() -> bool,
) -> Option<Option<Vec<String>>> {
    let mut finalizers = meta.finalizers.clone().unwrap_or_default();
    let is_kept = finalizers.iter().any(|finalizer| finalizer == ours);
    if meta.deletion_timestamp.is_none() {
        if is_kept {
            return None;
        }
        finalizers.push(ours.to_owned());
    } else {
        if !is_kept || is_used() {
            return None;
        }
        finalizers.retain(|finalizer| finalizer != ours);
    }
    Some(Some(finalizers))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_is_used_is_kept() {
        let check =
            |finalizers: &[&str], is_going: bool, is_used: bool, expected: Option<&[&str]>| {
                let going = is_going.then_some("2026-01-01T00:00:00Z");
                let meta = json!({ "finalizers": finalizers, "deletionTimestamp": going });
                let meta: ObjectMeta = serde_json::from_value(meta).unwrap();
                let found = settled(&meta, "ours", || is_used).flatten();
                let expected = expected
                    .map(|list| list.iter().map(|&name| name.to_owned()).collect::<Vec<_>>());
                assert_eq!(found, expected, "{finalizers:?}");
            };
        check(&["other"], false, false, Some(&["other", "ours"]));
        check(&["ours"], false, false, None);
        check(&["ours", "other"], true, true, None);
        check(&["ours", "other"], true, false, Some(&["other"]));
        check(&["other"], true, false, None);
    }

    #[test]
    fn a_claim_is_used_by_pods_that_have_a_node() {
        let check = |node: Option<&str>, volume: serde_json::Value, expected: bool| {
            let pod = json!({ "metadata": { "name": "p" }, "spec": { "nodeName": node, "volumes": [
                { "name": "other", "emptyDir": {} }, volume] } });
            assert_eq!(uses(&serde_json::from_value(pod).unwrap(), "p-data"), expected);
        };
        check(
            Some("n"),
            json!({ "name": "v", "persistentVolumeClaim": { "claimName": "p-data" } }),
            true,
        );
        check(
            None,
            json!({ "name": "v", "persistentVolumeClaim": { "claimName": "p-data" } }),
            false,
        );
        check(
            Some("n"),
            json!({ "name": "v", "persistentVolumeClaim": { "claimName": "other" } }),
            false,
        );
        check(Some("n"), json!({ "name": "data", "ephemeral": {} }), true);
    }
}
