//! PersistentVolume and PersistentVolumeClaim: brought together, made, and given up.
//!
//! `matching.rs` says which volume fits a claim, `plan.rs` what becomes of either, `local_path.rs` makes directories of
//! nodes into volumes. A volume says first whose it is, then the claim says what it has: whoever comes second finds out.
//!
//! A claim whose class waits for its first consumer gets its node from the pod that the scheduler placed. Deliberately
//! absent: the scheduler's own choice among volumes, and the policy `Recycle`, which upstream has given up.
//!
//! Upstream: `pkg/controller/volume/persistentvolume/pv_controller.go`.

mod local_path;
mod matching;
mod plan;

use std::collections::BTreeMap;
use std::sync::Arc;

use coracle_api::nodes::{allowed_terms, matches_any};
use coracle_reconcile::{Change, Next, ObjectKey, Queue, Recorder};
use k8s_openapi::api::core::v1::{
    Node, ObjectReference, PersistentVolume, PersistentVolumeClaim, PersistentVolumeClaimStatus,
    PersistentVolumeStatus,
};
use k8s_openapi::api::storage::v1::StorageClass;
use kube::api::PostParams;
use kube::{Api, Resource, ResourceExt};

use crate::api::{Attempting, Unfinished, api_time, is_not_found};
use crate::context::Context;
use crate::pod::claim_names;
use matching::class_of_claim;
use plan::{
    BIND_COMPLETED, BY_CONTROLLER, ClaimStep, Consumer, PROVISIONED_BY, SELECTED_NODE, Told,
    VolumeStep, claim_ref, plan_claim, plan_volume, policy,
};

/// Claims and volumes that are worked on at once. Upstream has one worker for each kind; making one waits for a node.
const WORKERS: usize = 8;
/// Upstream's name for the controller, which Events bear.
const CONTROLLER: &str = "persistentvolume-controller";
/// Who makes a claim's volume, as provisioners look for it: today's annotation, and the one before.
const PROVISIONER: [&str; 2] =
    ["volume.kubernetes.io/storage-provisioner", "volume.beta.kubernetes.io/storage-provisioner"];

/// Starts the controller.
pub(crate) fn start(ctx: &Arc<Context>) {
    // Claims are namespaced and volumes are not: a key says which of them is meant.
    let queue = Queue::new();
    follow(ctx, &queue);
    let controller = Arc::new(Controller {
        ctx: Arc::clone(ctx),
        recorder: ctx.recorder(CONTROLLER),
        provisioner: ctx.recorder(local_path::NAME),
        queue: queue.clone(),
    });
    ctx.work(&queue, CONTROLLER, WORKERS, move |key| {
        let controller = Arc::clone(&controller);
        async move {
            if key.namespace.is_empty() {
                controller.reconcile_volume(&key).await
            } else {
                controller.reconcile_claim(&key).await
            }
        }
    });
}

fn follow(ctx: &Arc<Context>, queue: &Queue) {
    let mirrors = &ctx.mirrors;
    let changed = queue.clone();
    mirrors.claims.on_change(move |change| {
        let claim = change.object();
        if let Change::Applied { .. } = change {
            changed.add(ObjectKey::of(claim.as_ref()));
        }
        if let Some(volume) = volume_name(claim) {
            changed.add(ObjectKey::new("", volume));
        }
    });
    let (changed, claims) = (queue.clone(), mirrors.claims.clone());
    mirrors.volumes.on_change(move |change| {
        let volume = change.object();
        if let Change::Applied { .. } = change {
            changed.add(ObjectKey::of(volume.as_ref()));
        }
        match claim_ref(volume) {
            Some(promise) => changed.add(key_of(promise)),
            None => wake_pending(&claims.list(), &changed, matching::class_of_volume(volume)),
        }
        if let Change::Applied { old: Some(old), .. } = change
            && let Some(promise) = claim_ref(old)
        {
            changed.add(key_of(promise));
        }
    });
    let (changed, claims) = (queue.clone(), mirrors.claims.clone());
    mirrors.storage_classes.on_change(move |change| {
        wake_pending(&claims.list(), &changed, &change.object().name_any());
    });
    let changed = queue.clone();
    mirrors.pods.on_change(move |change| {
        if let Change::Applied { old, new } = change
            && old.as_ref().is_none_or(|old| old.spec.node_name != new.spec.node_name)
        {
            let namespace = new.metadata.namespace.as_deref().unwrap_or_default();
            for claim in claim_names(new) {
                changed.add(ObjectKey::new(namespace, claim));
            }
        }
    });
}

/// Looks again at the claims of a class that have no volume.
fn wake_pending(claims: &[Arc<PersistentVolumeClaim>], queue: &Queue, class: &str) {
    for claim in claims {
        if class_of_claim(claim) == class && volume_name(claim).is_none() {
            queue.add(ObjectKey::of(claim.as_ref()));
        }
    }
}

fn key_of(promise: &ObjectReference) -> ObjectKey {
    ObjectKey::new(
        promise.namespace.clone().unwrap_or_default(),
        promise.name.clone().unwrap_or_default(),
    )
}

fn volume_name(claim: &PersistentVolumeClaim) -> Option<&str> {
    let name = claim.spec.as_ref()?.volume_name.as_deref();
    name.filter(|name| !name.is_empty())
}

struct Controller {
    ctx: Arc<Context>,
    recorder: Recorder,
    /// Speaks for the provisioner of local paths, which upstream has as a program of its own.
    provisioner: Recorder,
    queue: Queue,
}

impl Controller {
    async fn reconcile_claim(&self, key: &ObjectKey) -> Result<Next, Unfinished> {
        let Some(claim) = self.ctx.mirrors.claims.get(key) else { return Ok(Next::AwaitChange) };
        if claim.metadata.deletion_timestamp.is_some() && volume_name(&claim).is_none() {
            // Nothing is made for what goes.
            return Ok(Next::AwaitChange);
        }
        let class =
            self.ctx.mirrors.storage_classes.get(&ObjectKey::new("", class_of_claim(&claim)));
        let consumer = self.consumer(&claim);
        let volumes = self.ctx.mirrors.volumes.list();
        match plan_claim(&claim, &volumes, class.as_deref(), &consumer) {
            ClaimStep::Stay { phase, told } => {
                self.tell(claim.as_ref(), told);
                self.settle_claim(&claim, phase, None).await?;
            }
            ClaimStep::Bind(volume) => self.bind(&claim, &volume).await?,
            ClaimStep::Provision { node } => {
                let Some(class) = class else { return Ok(Next::AwaitChange) };
                self.settle_claim(&claim, "Pending", None).await?;
                self.provision(&claim, &class, node.as_deref()).await?;
            }
        }
        Ok(Next::AwaitChange)
    }

    async fn reconcile_volume(&self, key: &ObjectKey) -> Result<Next, Unfinished> {
        let Some(volume) = self.ctx.mirrors.volumes.get(key) else { return Ok(Next::AwaitChange) };
        let claim = claim_ref(&volume).and_then(|promise| {
            let claim = self.ctx.mirrors.claims.get(&key_of(promise));
            claim.filter(|claim| {
                promise.uid.as_deref().unwrap_or_default().is_empty()
                    || promise.uid == claim.metadata.uid
            })
        });
        match plan_volume(&volume, claim.as_deref()) {
            VolumeStep::Phase(phase) => {
                self.settle_volume(&volume, phase, None).await?;
            }
            VolumeStep::WakeClaim => {
                if let Some(claim) = claim {
                    self.queue.add(ObjectKey::of(claim.as_ref()));
                }
            }
            VolumeStep::Unbind => self.unbind(&volume).await?,
            VolumeStep::Reclaim => self.reclaim(&volume).await?,
        }
        Ok(Next::AwaitChange)
    }

    /// Who waits for a claim. The node that was chosen once stays the chosen one.
    fn consumer(&self, claim: &PersistentVolumeClaim) -> Consumer {
        let node = |name: &str| self.ctx.mirrors.nodes.get(&ObjectKey::new("", name));
        let chosen = claim.metadata.annotations.as_ref().and_then(|all| all.get(SELECTED_NODE));
        if let Some(node) = chosen.and_then(|name| node(name)) {
            return Consumer::On(node);
        }
        let name = claim.metadata.name.as_deref().unwrap_or_default();
        let namespace = claim.metadata.namespace.as_deref().unwrap_or_default();
        let mut unscheduled = Vec::new();
        for pod in self.ctx.mirrors.pods.in_namespace(namespace) {
            if crate::pods::is_over(&pod) || !claim_names(&pod).any(|used| used == name) {
                continue;
            }
            match pod.spec.node_name.as_deref().filter(|name| !name.is_empty()) {
                Some(name) => {
                    if let Some(node) = node(name) {
                        return Consumer::On(node);
                    }
                }
                None => unscheduled.push(pod.name_any()),
            }
        }
        unscheduled.sort();
        if unscheduled.is_empty() { Consumer::Nobody } else { Consumer::Unscheduled(unscheduled) }
    }

    /// Makes the two say of each other that they belong together.
    async fn bind(
        &self,
        claim: &PersistentVolumeClaim,
        volume: &PersistentVolume,
    ) -> Result<(), Unfinished> {
        let mut wanted = volume.clone();
        let spec = wanted.spec.get_or_insert_default();
        if spec.claim_ref.as_ref().and_then(|found| found.uid.as_ref())
            != claim.metadata.uid.as_ref()
        {
            let asked_for = spec.claim_ref.is_some();
            spec.claim_ref = Some(ObjectReference {
                resource_version: claim.metadata.resource_version.clone(),
                ..coracle_reconcile::reference(claim)
            });
            if !asked_for {
                annotate(wanted.annotations_mut(), BY_CONTROLLER, "yes");
            }
        }
        let bound = self.write_volume(volume, wanted).await?;
        let bound = self.settle_volume(&bound, "Bound", None).await?;

        let mut wanted = claim.clone();
        if volume_name(claim).is_none() {
            wanted.spec.get_or_insert_default().volume_name = bound.metadata.name.clone();
            annotate(wanted.annotations_mut(), BY_CONTROLLER, "yes");
        }
        annotate(wanted.annotations_mut(), BIND_COMPLETED, "yes");
        let claim = self.write_claim(claim, wanted).await?;
        self.settle_claim(&claim, "Bound", Some(&bound)).await
    }

    /// Takes back a promise, but for the part of it that the user made.
    async fn unbind(&self, volume: &PersistentVolume) -> Result<(), Unfinished> {
        let mut wanted = volume.clone();
        let was_ours = wanted.annotations_mut().remove(BY_CONTROLLER).is_some();
        let spec = wanted.spec.get_or_insert_default();
        if was_ours {
            spec.claim_ref = None;
        } else if let Some(promise) = &mut spec.claim_ref {
            promise.uid = None;
        }
        let free = self.write_volume(volume, wanted).await?;
        self.settle_volume(&free, "Available", None).await.map(drop)
    }

    /// Has a volume made for the claim, by us or by whom its class names.
    async fn provision(
        &self,
        claim: &PersistentVolumeClaim,
        class: &StorageClass,
        node: Option<&Node>,
    ) -> Result<(), Unfinished> {
        let waits = class.volume_binding_mode.as_deref() == Some("WaitForFirstConsumer");
        let mut wanted = claim.clone();
        for name in PROVISIONER {
            annotate(wanted.annotations_mut(), name, &class.provisioner);
        }
        if let Some(node) = node.filter(|_| waits) {
            annotate(wanted.annotations_mut(), SELECTED_NODE, &node.name_any());
        }
        let claim = self.write_claim(claim, wanted).await?;
        match class.provisioner.as_str() {
            local_path::NAME => self.provision_local(&claim, class, node).await,
            "kubernetes.io/no-provisioner" => {
                let told = "no volume plugin matched: provisioning is not supported".to_owned();
                self.recorder.warning(&claim, "ProvisioningFailed", told);
                Ok(())
            }
            other => {
                let told = format!(
                    "Waiting for a volume to be created either by the external provisioner '{other}' or manually by \
                     the system administrator. If volume creation is delayed, please verify that the provisioner is \
                     running and correctly registered."
                );
                self.recorder.normal(&claim, "ExternalProvisioning", told);
                Ok(())
            }
        }
    }

    async fn provision_local(
        &self,
        claim: &PersistentVolumeClaim,
        class: &StorageClass,
        node: Option<&Node>,
    ) -> Result<(), Unfinished> {
        let key = ObjectKey::of(claim);
        let told = format!("External provisioner is provisioning volume for claim \"{key}\"");
        self.provisioner.normal(claim, "Provisioning", told);
        // A class that does not wait takes any node that it allows, and the pods have to follow the volume.
        let any = if node.is_none() { self.any_node(class) } else { None };
        let node = node.or(any.as_deref());
        match local_path::provision(&self.ctx, claim, class, node).await {
            Ok(volume) => {
                let told = format!("Successfully provisioned volume {}", volume.name_any());
                self.provisioner.normal(claim, "ProvisioningSucceeded", told);
                self.ctx.mirrors.volumes.observe(volume);
                Ok(())
            }
            Err(failure) => {
                let told = format!(
                    "failed to provision volume with StorageClass \"{}\": {failure}",
                    class.name_any()
                );
                self.provisioner.warning(claim, "ProvisioningFailed", told);
                if failure.is_final() {
                    return Ok(());
                }
                Err(Unfinished::Remaining(format!("provision a volume for {key}: {failure}")))
            }
        }
    }

    /// The first node by name for which the class lets volumes be made.
    fn any_node(&self, class: &StorageClass) -> Option<Arc<Node>> {
        let allowed = allowed_terms(class.allowed_topologies.as_deref().unwrap_or_default());
        let nodes = self.ctx.mirrors.nodes.list().into_iter().filter(|node| {
            allowed.is_empty() || matches_any(&allowed, node.labels(), &node.name_any())
        });
        nodes.min_by(|one, other| one.metadata.name.cmp(&other.metadata.name))
    }

    /// The claim is gone: keeps the volume for whom it may concern, or does away with it.
    async fn reclaim(&self, volume: &PersistentVolume) -> Result<(), Unfinished> {
        let phase = volume.status.as_ref().and_then(|status| status.phase.as_deref());
        let volume = match phase {
            Some("Released" | "Failed") => volume.clone(),
            _ => self.settle_volume(volume, "Released", None).await?,
        };
        if policy(&volume) != "Delete" {
            return Ok(());
        }
        let made_by = volume.metadata.annotations.as_ref().and_then(|all| all.get(PROVISIONED_BY));
        let failed = match made_by.map(String::as_str) {
            // Its maker looks after it.
            Some(maker) if maker != local_path::NAME => return Ok(()),
            Some(_) => match local_path::remove(&self.ctx, &volume).await {
                Ok(()) => return Ok(()),
                Err(failure) => failure.to_string(),
            },
            None => {
                let name = volume.name_any();
                format!(
                    "error getting deleter volume plugin for volume \"{name}\": no deletable volume plugin matched"
                )
            }
        };
        self.recorder.warning(&volume, "VolumeFailedDelete", failed.clone());
        self.settle_volume(&volume, "Failed", Some(failed.clone())).await?;
        if made_by.is_none() {
            return Ok(());
        }
        Err(Unfinished::Remaining(format!("remove volume {}: {failed}", volume.name_any())))
    }

    fn tell<K: Resource<DynamicType = ()>>(&self, about: &K, told: Option<Told>) {
        match told {
            Some(Told { is_warning: true, reason, message }) => {
                self.recorder.warning(about, reason, message);
            }
            Some(Told { is_warning: false, reason, message }) => {
                self.recorder.normal(about, reason, message);
            }
            None => (),
        }
    }

    /// Writes the volume's phase where it is another one.
    async fn settle_volume(
        &self,
        volume: &PersistentVolume,
        phase: &str,
        message: Option<String>,
    ) -> Result<PersistentVolume, Unfinished> {
        let found = volume.status.clone().unwrap_or_default();
        if found.phase.as_deref() == Some(phase) && (message.is_none() || found.message == message)
        {
            return Ok(volume.clone());
        }
        let last_phase_transition_time = Some(api_time(self.ctx.now()));
        let status = PersistentVolumeStatus {
            phase: Some(phase.to_owned()),
            message,
            last_phase_transition_time,
            ..found
        };
        let name = volume.name_any();
        let wanted = PersistentVolume { status: Some(status), ..volume.clone() };
        let api: Api<PersistentVolume> = Api::all(self.ctx.client.clone());
        let written = api.replace_status(&name, &PostParams::default(), &wanted).await;
        let written =
            written.attempting(|| format!("write the status of persistentvolume {name}"))?;
        self.ctx.mirrors.volumes.observe(written.clone());
        Ok(written)
    }

    /// Writes the claim's phase, and what it has of its volume, where they are other ones.
    async fn settle_claim(
        &self,
        claim: &PersistentVolumeClaim,
        phase: &str,
        volume: Option<&PersistentVolume>,
    ) -> Result<(), Unfinished> {
        let found = claim.status.clone().unwrap_or_default();
        let has = volume.and_then(|volume| volume.spec.as_ref());
        let status = PersistentVolumeClaimStatus {
            phase: Some(phase.to_owned()),
            access_modes: has.and_then(|spec| spec.access_modes.clone()),
            // What a claim grew to is its provisioner's to say.
            capacity: match found.phase.as_deref() {
                Some("Bound") if phase == "Bound" && found.capacity.is_some() => {
                    found.capacity.clone()
                }
                _ => has.and_then(|spec| spec.capacity.clone()),
            },
            ..found.clone()
        };
        if status == found {
            return Ok(());
        }
        let key = ObjectKey::of(claim);
        let wanted = PersistentVolumeClaim { status: Some(status), ..claim.clone() };
        let api = self.ctx.api::<PersistentVolumeClaim>(&key.namespace);
        match api.replace_status(&key.name, &PostParams::default(), &wanted).await {
            Ok(written) => self.ctx.mirrors.claims.observe(written),
            Err(error) if is_not_found(&error) => (),
            refused => {
                refused
                    .attempting(|| format!("write the status of persistentvolumeclaim {key}"))?;
            }
        }
        Ok(())
    }

    async fn write_volume(
        &self,
        found: &PersistentVolume,
        wanted: PersistentVolume,
    ) -> Result<PersistentVolume, Unfinished> {
        if *found == wanted {
            return Ok(wanted);
        }
        let name = wanted.name_any();
        let api: Api<PersistentVolume> = Api::all(self.ctx.client.clone());
        let written = api.replace(&name, &PostParams::default(), &wanted).await;
        let written = written.attempting(|| format!("write persistentvolume {name}"))?;
        self.ctx.mirrors.volumes.observe(written.clone());
        Ok(written)
    }

    async fn write_claim(
        &self,
        found: &PersistentVolumeClaim,
        wanted: PersistentVolumeClaim,
    ) -> Result<PersistentVolumeClaim, Unfinished> {
        if *found == wanted {
            return Ok(wanted);
        }
        let key = ObjectKey::of(&wanted);
        let api = self.ctx.api::<PersistentVolumeClaim>(&key.namespace);
        let written = api.replace(&key.name, &PostParams::default(), &wanted).await;
        let written = written.attempting(|| format!("write persistentvolumeclaim {key}"))?;
        self.ctx.mirrors.claims.observe(written.clone());
        Ok(written)
    }
}

fn annotate(annotations: &mut BTreeMap<String, String>, name: &str, value: &str) {
    annotations.insert(name.to_owned(), value.to_owned());
}
