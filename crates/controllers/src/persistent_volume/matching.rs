//! Which volume fits a claim.
//!
//! Upstream: `FindMatchingVolume` in `component-helpers/storage/volume/pv_helpers.go`.

use std::sync::Arc;

use coracle_api::nodes::matches_any;
use coracle_api::quantity::Quantity;
use k8s_openapi::api::core::v1::{
    Node, PersistentVolume, PersistentVolumeClaim, PersistentVolumeClaimSpec, PersistentVolumeSpec,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Written;
use kube::ResourceExt;

use crate::ownership::selects;

/// How classes were named before there was a field for them.
const CLASS_ANNOTATION: &str = "volume.beta.kubernetes.io/storage-class";

/// Where the volume has to be.
#[derive(Clone, Copy)]
pub(super) enum Place<'a> {
    /// It does not matter.
    Anywhere,
    /// Where this node can reach it.
    On(&'a Node),
    /// Nobody knows yet, so that only a volume that is meant for the claim will do.
    Unknown,
}

/// The claim's class; empty for none.
pub(super) fn class_of_claim(claim: &PersistentVolumeClaim) -> &str {
    let annotated = claim.metadata.annotations.as_ref().and_then(|all| all.get(CLASS_ANNOTATION));
    let spec = claim.spec.as_ref();
    annotated.or(spec.and_then(|spec| spec.storage_class_name.as_ref())).map_or("", String::as_str)
}

/// The volume's class; empty for none.
pub(super) fn class_of_volume(volume: &PersistentVolume) -> &str {
    let annotated = volume.metadata.annotations.as_ref().and_then(|all| all.get(CLASS_ANNOTATION));
    let spec = volume.spec.as_ref();
    annotated.or(spec.and_then(|spec| spec.storage_class_name.as_ref())).map_or("", String::as_str)
}

/// Whether the volume is promised to this claim, maybe before either had a uid.
pub(super) fn is_promised(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> bool {
    let Some(promise) = volume.spec.as_ref().and_then(|spec| spec.claim_ref.as_ref()) else {
        return false;
    };
    promise.name == claim.metadata.name
        && promise.namespace == claim.metadata.namespace
        && (promise.uid.as_deref().unwrap_or_default().is_empty()
            || promise.uid == claim.metadata.uid)
}

/// The volume that is promised to the claim, or else the smallest free one that fits.
pub(super) fn best(
    claim: &PersistentVolumeClaim,
    volumes: &[Arc<PersistentVolume>],
    place: Place<'_>,
) -> Option<Arc<PersistentVolume>> {
    let wanted = claim.spec.as_ref()?;
    let mut free = Vec::new();
    for volume in volumes {
        let Some(offered) = volume.spec.as_ref() else { continue };
        let is_going = volume.metadata.deletion_timestamp.is_some();
        if is_going
            || mode(offered.volume_mode.as_deref()) != mode(wanted.volume_mode.as_deref())
            || size(offered) < request(wanted)
            || !reachable(offered, place)
        {
            continue;
        }
        if offered.claim_ref.is_some() {
            if is_promised(volume, claim) && includes_modes(offered, wanted) {
                return Some(Arc::clone(volume));
            }
            continue;
        }
        let selected = wanted
            .selector
            .as_ref()
            .is_none_or(|selector| selects(selector, volume.metadata.labels.as_ref()));
        let phase = volume.status.as_ref().and_then(|status| status.phase.as_deref());
        if !matches!(place, Place::Unknown)
            && phase == Some("Available")
            && selected
            && class_of_volume(volume) == class_of_claim(claim)
            && attributes(offered.volume_attributes_class_name.as_ref())
                == attributes(wanted.volume_attributes_class_name.as_ref())
            && includes_modes(offered, wanted)
        {
            free.push((size(offered), volume));
        }
    }
    // Of equal ones the first by name, so that the choice does not depend on the order of the mirror.
    let smallest = free.into_iter().min_by(|(size, volume), (than, other)| {
        size.cmp(than).then_with(|| volume.metadata.name.cmp(&other.metadata.name))
    });
    smallest.map(|(_, volume)| Arc::clone(volume))
}

/// Why a volume that the claim names will not do.
pub(super) fn mismatch(
    volume: &PersistentVolume,
    claim: &PersistentVolumeClaim,
) -> Option<&'static str> {
    let (offered, wanted) = (volume.spec.as_ref()?, claim.spec.as_ref()?);
    if size(offered) < request(wanted) {
        return Some("requested PV is too small");
    }
    if class_of_volume(volume) != class_of_claim(claim) {
        return Some("storageClassName does not match");
    }
    if mode(offered.volume_mode.as_deref()) != mode(wanted.volume_mode.as_deref()) {
        return Some("incompatible volumeMode");
    }
    (!includes_modes(offered, wanted)).then_some("incompatible accessMode")
}

fn mode(written: Option<&str>) -> &str {
    written.unwrap_or("Filesystem")
}

fn attributes(written: Option<&String>) -> &str {
    written.map_or("", String::as_str)
}

fn quantity(written: Option<&Written>) -> Quantity {
    written.and_then(|written| written.0.parse().ok()).unwrap_or(Quantity::ZERO)
}

fn size(volume: &PersistentVolumeSpec) -> Quantity {
    quantity(volume.capacity.as_ref().and_then(|capacity| capacity.get("storage")))
}

fn request(claim: &PersistentVolumeClaimSpec) -> Quantity {
    let requests = claim.resources.as_ref().and_then(|resources| resources.requests.as_ref());
    quantity(requests.and_then(|requests| requests.get("storage")))
}

fn includes_modes(volume: &PersistentVolumeSpec, claim: &PersistentVolumeClaimSpec) -> bool {
    let offered = volume.access_modes.as_deref().unwrap_or_default();
    claim.access_modes.iter().flatten().all(|mode| offered.contains(mode))
}

fn reachable(volume: &PersistentVolumeSpec, place: Place<'_>) -> bool {
    let Place::On(node) = place else { return true };
    let required = volume.node_affinity.as_ref().and_then(|affinity| affinity.required.as_ref());
    let (labels, name) = (node.labels(), node.metadata.name.as_deref().unwrap_or_default());
    required.is_none_or(|required| matches_any(&required.node_selector_terms, labels, name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn claim(spec: Value) -> PersistentVolumeClaim {
        let mut wanted = json!({ "accessModes": ["ReadWriteOnce"], "storageClassName": "slow", "resources": { "requests": { "storage": "2Gi" } } });
        json_patch::merge(&mut wanted, &spec);
        let claim =
            json!({ "metadata": { "name": "c", "namespace": "n", "uid": "u" }, "spec": wanted });
        serde_json::from_value(claim).unwrap()
    }

    fn volume(name: &str, changes: Value) -> Arc<PersistentVolume> {
        let mut volume = json!({
            "metadata": { "name": name, "labels": { "disk": name } },
            "spec": { "capacity": { "storage": "5Gi" }, "accessModes": ["ReadWriteOnce", "ReadOnlyMany"], "storageClassName": "slow" },
            "status": { "phase": "Available" },
        });
        json_patch::merge(&mut volume, &changes);
        Arc::new(serde_json::from_value(volume).unwrap())
    }

    #[test]
    fn the_smallest_free_volume_that_fits_is_taken() {
        let check = |wanted: Value, others: &[Value], expected: Option<&str>| {
            let mut volumes = vec![volume("plain", json!({}))];
            let named =
                |(number, changes): (usize, &Value)| volume(&format!("v{number}"), changes.clone());
            volumes.extend(others.iter().enumerate().map(named));
            let found = best(&claim(wanted), &volumes, Place::Anywhere);
            assert_eq!(found.and_then(|found| found.metadata.name.clone()).as_deref(), expected);
        };
        let smaller = json!({ "spec": { "capacity": { "storage": "3Gi" } } });
        let one = std::slice::from_ref(&smaller);
        check(json!({}), &[], Some("plain"));
        check(json!({}), one, Some("v0"));
        check(json!({}), &[json!({ "spec": { "capacity": { "storage": "1Gi" } } })], Some("plain"));
        check(json!({ "resources": { "requests": { "storage": "6Gi" } } }), one, None);
        check(json!({ "accessModes": ["ReadWriteMany"] }), one, None);
        check(json!({ "storageClassName": "" }), one, None);
        check(json!({ "volumeMode": "Block" }), one, None);
        check(json!({ "selector": { "matchLabels": { "disk": "plain" } } }), one, Some("plain"));
        for spoil in [
            json!({ "status": { "phase": "Released" } }),
            json!({ "metadata": { "deletionTimestamp": "2026-01-01T00:00:00Z" } }),
            json!({ "spec": { "claimRef": { "namespace": "n", "name": "other" } } }),
            json!({ "spec": { "claimRef": { "namespace": "n", "name": "c", "uid": "another" } } }),
        ] {
            let mut spoiled = smaller.clone();
            json_patch::merge(&mut spoiled, &spoil);
            check(json!({}), &[spoiled], Some("plain"));
        }
        // A promise goes before size and class.
        let promised = json!({ "spec": { "storageClassName": "fast", "claimRef": { "namespace": "n", "name": "c" } } });
        check(json!({}), &[smaller, promised], Some("v1"));
    }

    #[test]
    fn a_volume_has_to_be_where_its_user_is() {
        let node = |name: &str| -> Node {
            serde_json::from_value(json!({ "metadata": { "name": name, "labels": { "kubernetes.io/hostname": name } } })).unwrap()
        };
        let here = json!({ "spec": { "nodeAffinity": { "required": { "nodeSelectorTerms": [
            { "matchExpressions": [{ "key": "kubernetes.io/hostname", "operator": "In", "values": ["here"] }] }] } } } });
        let volumes = [volume("local", here)];
        assert!(best(&claim(json!({})), &volumes, Place::On(&node("here"))).is_some());
        assert!(best(&claim(json!({})), &volumes, Place::On(&node("there"))).is_none());
        assert!(best(&claim(json!({})), &volumes, Place::Unknown).is_none());
    }
}
