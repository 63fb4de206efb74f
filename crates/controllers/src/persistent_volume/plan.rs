//! What becomes of one claim and of one volume.
//!
//! Upstream: `syncUnboundClaim`, `syncBoundClaim` and `syncVolume` in
//! `pkg/controller/volume/persistentvolume/pv_controller.go`.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{Node, ObjectReference, PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::api::storage::v1::StorageClass;

use super::matching::{Place, best, class_of_claim, is_promised, mismatch};

/// On both sides of a binding that the user did not ask for by name.
pub(super) const BY_CONTROLLER: &str = "pv.kubernetes.io/bound-by-controller";
/// On a claim that is bound.
pub(super) const BIND_COMPLETED: &str = "pv.kubernetes.io/bind-completed";
/// Who made a volume.
pub(super) const PROVISIONED_BY: &str = "pv.kubernetes.io/provisioned-by";
/// On which node a claim's first pod runs.
pub(super) const SELECTED_NODE: &str = "volume.kubernetes.io/selected-node";

/// An Event about the object of the plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Told {
    pub is_warning: bool,
    pub reason: &'static str,
    pub message: String,
}

/// Who waits for a claim.
#[derive(Debug, Clone)]
pub(super) enum Consumer {
    Nobody,
    /// These pods, which have no node yet.
    Unscheduled(Vec<String>),
    /// A pod of this node.
    On(Arc<Node>),
}

/// The next step for a claim.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum ClaimStep {
    /// It stays without volume for now, or has lost it.
    Stay { phase: &'static str, told: Option<Told> },
    /// They belong together.
    Bind(Arc<PersistentVolume>),
    /// A volume has to be made by the claim's class, for this node if there is one.
    Provision { node: Option<Arc<Node>> },
}

/// What to do about a claim.
pub(super) fn plan_claim(
    claim: &PersistentVolumeClaim,
    volumes: &[Arc<PersistentVolume>],
    class: Option<&StorageClass>,
    consumer: &Consumer,
) -> ClaimStep {
    let name = claim.spec.as_ref().and_then(|spec| spec.volume_name.as_deref());
    let name = name.filter(|name| !name.is_empty());
    let named = name.and_then(|name| {
        volumes.iter().find(|volume| volume.metadata.name.as_deref() == Some(name))
    });
    if has_annotation(claim, BIND_COMPLETED) {
        return keep(claim, name, named);
    }
    match (name, named) {
        (None, _) => find(claim, volumes, class, consumer),
        // It may come.
        (Some(_), None) => pending(None),
        (Some(name), Some(volume)) => take(claim, name, volume),
    }
}

fn find(
    claim: &PersistentVolumeClaim,
    volumes: &[Arc<PersistentVolume>],
    class: Option<&StorageClass>,
    consumer: &Consumer,
) -> ClaimStep {
    let waits = class
        .is_some_and(|class| class.volume_binding_mode.as_deref() == Some("WaitForFirstConsumer"));
    let place = match consumer {
        _ if !waits => Place::Anywhere,
        Consumer::On(node) => Place::On(node),
        Consumer::Nobody | Consumer::Unscheduled(_) => Place::Unknown,
    };
    if let Some(volume) = best(claim, volumes, place) {
        return ClaimStep::Bind(volume);
    }
    let wanted = class_of_claim(claim);
    match (consumer, class) {
        (Consumer::Nobody, _) if waits => normal(
            "WaitForFirstConsumer",
            "waiting for first consumer to be created before binding".to_owned(),
        ),
        (Consumer::Unscheduled(pods), _) if waits => {
            let pods = pods.join(",");
            let message = match pods.contains(',') {
                true => format!("waiting for pods {pods} to be scheduled"),
                false => format!("waiting for pod {pods} to be scheduled"),
            };
            normal("WaitForPodScheduled", message)
        }
        (Consumer::On(node), Some(_)) => ClaimStep::Provision { node: Some(Arc::clone(node)) },
        (_, Some(_)) => ClaimStep::Provision { node: None },
        (_, None) if wanted.is_empty() => normal(
            "FailedBinding",
            "no persistent volumes available for this claim and no storage class is set".to_owned(),
        ),
        (_, None) => warning(
            "Pending",
            "ProvisioningFailed",
            format!("storageclass.storage.k8s.io \"{wanted}\" not found"),
        ),
    }
}

/// The user asks for this volume.
fn take(claim: &PersistentVolumeClaim, name: &str, volume: &Arc<PersistentVolume>) -> ClaimStep {
    if is_promised(volume, claim) {
        return ClaimStep::Bind(Arc::clone(volume));
    }
    if claim_ref(volume).is_some() {
        let message = format!("volume \"{name}\" already bound to a different claim.");
        return warning("Pending", "FailedBinding", message);
    }
    match mismatch(volume, claim) {
        Some(why) => {
            let message = format!("Cannot bind to requested volume \"{name}\": {why}");
            warning("Pending", "VolumeMismatch", message)
        }
        None => ClaimStep::Bind(Arc::clone(volume)),
    }
}

/// The claim was bound: is it still?
fn keep(
    claim: &PersistentVolumeClaim,
    name: Option<&str>,
    named: Option<&Arc<PersistentVolume>>,
) -> ClaimStep {
    let lost = |reason, message: &str| warning("Lost", reason, message.to_owned());
    if name.is_none() {
        return lost(
            "ClaimLost",
            "Bound claim has lost reference to PersistentVolume. Data on the volume is lost!",
        );
    }
    let Some(volume) = named else {
        return lost(
            "ClaimLost",
            "Bound claim has lost its PersistentVolume. Data on the volume is lost!",
        );
    };
    if claim_ref(volume).is_none() || is_promised(volume, claim) {
        return ClaimStep::Bind(Arc::clone(volume));
    }
    lost("ClaimMisbound", "Two claims are bound to the same volume, this one is bound incorrectly")
}

/// The next step for a volume.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum VolumeStep {
    /// It is in this phase.
    Phase(&'static str),
    /// Its claim has still to take it.
    WakeClaim,
    /// Its claim has another one: it is free again.
    Unbind,
    /// Its claim is gone: it is released, and then what its policy says.
    Reclaim,
}

/// What to do about a volume; `claim` is the one of the name that it is promised to.
pub(super) fn plan_volume(
    volume: &PersistentVolume,
    claim: Option<&PersistentVolumeClaim>,
) -> VolumeStep {
    let Some(promise) = claim_ref(volume) else { return VolumeStep::Phase("Available") };
    if promise.uid.as_deref().unwrap_or_default().is_empty() {
        // Its claim will come, or is about to take it.
        return match claim {
            Some(_) => VolumeStep::WakeClaim,
            None => VolumeStep::Phase("Available"),
        };
    }
    let Some(claim) = claim.filter(|claim| claim.metadata.uid == promise.uid) else {
        return VolumeStep::Reclaim;
    };
    let taken = claim.spec.as_ref().and_then(|spec| spec.volume_name.as_deref());
    match taken.filter(|taken| !taken.is_empty()) {
        None => VolumeStep::WakeClaim,
        Some(taken) if volume.metadata.name.as_deref() == Some(taken) => VolumeStep::Phase("Bound"),
        Some(_) if is_made(volume) && policy(volume) == "Delete" => VolumeStep::Reclaim,
        Some(_) => VolumeStep::Unbind,
    }
}

/// To which claim a volume is promised.
pub(super) fn claim_ref(volume: &PersistentVolume) -> Option<&ObjectReference> {
    volume.spec.as_ref()?.claim_ref.as_ref()
}

/// What becomes of the volume without its claim.
pub(super) fn policy(volume: &PersistentVolume) -> &str {
    let spec = volume.spec.as_ref();
    spec.and_then(|spec| spec.persistent_volume_reclaim_policy.as_deref()).unwrap_or("Retain")
}

/// Whether the volume was made for a claim.
fn is_made(volume: &PersistentVolume) -> bool {
    volume.metadata.annotations.as_ref().is_some_and(|all| all.contains_key(PROVISIONED_BY))
}

fn has_annotation(claim: &PersistentVolumeClaim, name: &str) -> bool {
    claim.metadata.annotations.as_ref().is_some_and(|all| all.contains_key(name))
}

fn pending(told: Option<Told>) -> ClaimStep {
    ClaimStep::Stay { phase: "Pending", told }
}

fn normal(reason: &'static str, message: String) -> ClaimStep {
    pending(Some(Told { is_warning: false, reason, message }))
}

fn warning(phase: &'static str, reason: &'static str, message: String) -> ClaimStep {
    ClaimStep::Stay { phase, told: Some(Told { is_warning: true, reason, message }) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn read<T: serde::de::DeserializeOwned>(base: Value, changes: &Value) -> T {
        let mut object = base;
        json_patch::merge(&mut object, changes);
        serde_json::from_value(object).unwrap()
    }

    fn claim(changes: &Value) -> PersistentVolumeClaim {
        let base = json!({
            "metadata": { "name": "c", "namespace": "n", "uid": "u" },
            "spec": { "accessModes": ["ReadWriteOnce"], "resources": { "requests": { "storage": "1Gi" } } },
        });
        read(base, changes)
    }

    fn volume(changes: &Value) -> Arc<PersistentVolume> {
        let base = json!({
            "metadata": { "name": "v" },
            "spec": { "capacity": { "storage": "1Gi" }, "accessModes": ["ReadWriteOnce"] },
            "status": { "phase": "Available" },
        });
        Arc::new(read(base, changes))
    }

    fn class(mode: &str) -> StorageClass {
        let class =
            json!({ "metadata": { "name": "k" }, "provisioner": "p", "volumeBindingMode": mode });
        serde_json::from_value(class).unwrap()
    }

    /// The step in a word: the volume to bind, `provision NODE`, or the reason that is told.
    fn step(step: ClaimStep) -> String {
        match step {
            ClaimStep::Bind(volume) => format!("bind {}", volume.metadata.name.clone().unwrap()),
            ClaimStep::Provision { node } => {
                format!(
                    "provision {}",
                    node.map(|node| node.metadata.name.clone().unwrap()).unwrap_or_default()
                )
            }
            ClaimStep::Stay { phase, told } => {
                format!("{phase} {}", told.map(|told| told.reason).unwrap_or_default())
            }
        }
    }

    #[test]
    fn a_claim_finds_its_volume_or_waits() {
        let node: Node = serde_json::from_value(json!({ "metadata": { "name": "node" } })).unwrap();
        let on = Consumer::On(Arc::new(node));
        let check = |changes: Value,
                     volumes: &[Value],
                     mode: Option<&str>,
                     consumer: &Consumer,
                     expected: &str| {
            let volumes: Vec<_> = volumes.iter().map(volume).collect();
            let class = mode.map(class);
            let found = plan_claim(&claim(&changes), &volumes, class.as_ref(), consumer);
            assert_eq!(step(found), expected, "{changes}");
        };
        let (nobody, waiting) = (Consumer::Nobody, Consumer::Unscheduled(vec!["p".to_owned()]));
        check(json!({}), &[], None, &nobody, "Pending FailedBinding");
        check(json!({}), &[json!({})], None, &nobody, "bind v");
        let classy = json!({ "spec": { "storageClassName": "k" } });
        let one = std::slice::from_ref(&classy);
        check(classy.clone(), &[json!({})], None, &nobody, "Pending ProvisioningFailed");
        check(classy.clone(), &[], Some("Immediate"), &nobody, "provision ");
        check(classy.clone(), one, Some("Immediate"), &nobody, "bind v");
        let late = Some("WaitForFirstConsumer");
        check(classy.clone(), one, late, &nobody, "Pending WaitForFirstConsumer");
        check(classy.clone(), &[], late, &waiting, "Pending WaitForPodScheduled");
        check(classy.clone(), &[], late, &on, "provision node");
        check(classy.clone(), &[classy], late, &on, "bind v");

        let names = |volume: &str| json!({ "spec": { "volumeName": volume } });
        check(names("w"), &[json!({})], None, &nobody, "Pending ");
        check(names("v"), &[json!({})], None, &nobody, "bind v");
        let small = json!({ "spec": { "capacity": { "storage": "1Mi" } } });
        check(names("v"), &[small], None, &nobody, "Pending VolumeMismatch");
        let promised = |uid: &str| json!({ "spec": { "claimRef": { "namespace": "n", "name": "c", "uid": uid } } });
        check(names("v"), &[promised("u")], None, &nobody, "bind v");
        check(names("v"), &[promised("other")], None, &nobody, "Pending FailedBinding");

        let bound = |volume: Value| json!({ "metadata": { "annotations": { BIND_COMPLETED: "yes" } }, "spec": { "volumeName": volume } });
        check(bound(Value::Null), &[json!({})], None, &nobody, "Lost ClaimLost");
        check(bound(json!("w")), &[json!({})], None, &nobody, "Lost ClaimLost");
        check(bound(json!("v")), &[promised("u")], None, &nobody, "bind v");
        check(bound(json!("v")), &[promised("other")], None, &nobody, "Lost ClaimMisbound");
    }

    #[test]
    fn a_volume_follows_its_claim() {
        let check = |changes: Value, claims: Option<Value>, expected: VolumeStep| {
            let claim = claims.as_ref().map(claim);
            assert_eq!(plan_volume(&volume(&changes), claim.as_ref()), expected, "{changes}");
        };
        let promised = |uid: &str| json!({ "spec": { "claimRef": { "namespace": "n", "name": "c", "uid": uid } } });
        let takes = |volume: &str| Some(json!({ "spec": { "volumeName": volume } }));
        check(json!({}), None, VolumeStep::Phase("Available"));
        check(promised(""), None, VolumeStep::Phase("Available"));
        check(promised(""), Some(json!({})), VolumeStep::WakeClaim);
        check(promised("u"), Some(json!({})), VolumeStep::WakeClaim);
        check(promised("u"), takes("v"), VolumeStep::Phase("Bound"));
        check(promised("u"), takes("w"), VolumeStep::Unbind);
        check(promised("u"), None, VolumeStep::Reclaim);
        check(promised("before"), takes("v"), VolumeStep::Reclaim);
    }
}
