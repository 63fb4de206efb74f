//! Generic ephemeral volumes: a claim that is made for one volume of one pod, and goes with the pod.
//!
//! Upstream: `pkg/controller/volume/ephemeral/controller.go`. Deleting is the garbage collector's work.

use std::sync::Arc;

use coracle_reconcile::{Change, Next, ObjectKey, Queue, Recorder};
use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::PostParams;

use crate::api::{Unfinished, is_already_exists, is_namespace_terminating, message};
use crate::context::Context;
use crate::ownership::{controlled_by, controller_of};
use crate::pod::{Pod, Volume, ephemeral_claim_name};
use crate::pods::is_over;

/// Pods that are worked on at once; upstream's `--concurrent-ephemeralvolume-syncs` is 5.
const WORKERS: usize = 5;
/// Upstream's name for the controller, which Events bear.
const CONTROLLER: &str = "ephemeral_volume";

/// Starts the controller.
pub(crate) fn start(ctx: &Arc<Context>) {
    let queue = Queue::new();
    let changed = queue.clone();
    ctx.mirrors.pods.on_change(move |change| {
        if let Change::Applied { new, .. } = change
            && has_ephemeral(new)
        {
            changed.add(ObjectKey::of(new.as_ref()));
        }
    });
    // A claim that somebody else had under that name makes way.
    let (changed, pods) = (queue.clone(), ctx.mirrors.pods.clone());
    ctx.mirrors.claims.on_change(move |change| {
        if let Change::Deleted(claim) = change {
            let namespace = claim.metadata.namespace.as_deref().unwrap_or_default();
            let name = claim.metadata.name.as_deref().unwrap_or_default();
            for pod in pods.in_namespace(namespace) {
                let named = |volume: &Volume| {
                    volume.ephemeral.is_some() && ephemeral_claim_name(&pod, volume) == name
                };
                if pod.spec.volumes.iter().any(named) {
                    changed.add(ObjectKey::of(pod.as_ref()));
                }
            }
        }
    });
    let (shared, recorder) = (Arc::clone(ctx), ctx.recorder(CONTROLLER));
    ctx.work(&queue, CONTROLLER, WORKERS, move |key| {
        let (ctx, recorder) = (Arc::clone(&shared), recorder.clone());
        async move { reconcile(&ctx, &recorder, &key).await }
    });
}

fn has_ephemeral(pod: &Pod) -> bool {
    pod.spec.volumes.iter().any(|volume| volume.ephemeral.is_some())
}

async fn reconcile(
    ctx: &Context,
    recorder: &Recorder,
    key: &ObjectKey,
) -> Result<Next, Unfinished> {
    let Some(pod) = ctx.mirrors.pods.get(key) else { return Ok(Next::AwaitChange) };
    if pod.metadata.deletion_timestamp.is_some() || is_over(&pod) {
        return Ok(Next::AwaitChange);
    }
    for volume in &pod.spec.volumes {
        let Some(wanted) = claim(&pod, volume) else { continue };
        if let Err(cause) = ensure(ctx, &pod, wanted).await {
            let told = format!("ephemeral volume {}: {cause}", volume.name);
            recorder.warning(pod.as_ref(), "FailedBinding", told.clone());
            return Err(Unfinished::Remaining(told));
        }
    }
    Ok(Next::AwaitChange)
}

/// The claim that a volume of the pod wants.
fn claim(pod: &Pod, volume: &Volume) -> Option<PersistentVolumeClaim> {
    let template = volume.ephemeral.as_ref()?.volume_claim_template.clone()?;
    let meta = template.metadata.unwrap_or_default();
    Some(PersistentVolumeClaim {
        metadata: ObjectMeta {
            name: Some(ephemeral_claim_name(pod, volume)),
            namespace: pod.metadata.namespace.clone(),
            labels: meta.labels,
            annotations: meta.annotations,
            owner_references: Some(vec![controlled_by(pod)]),
            ..ObjectMeta::default()
        },
        spec: Some(template.spec),
        status: None,
    })
}

async fn ensure(ctx: &Context, pod: &Pod, claim: PersistentVolumeClaim) -> Result<(), String> {
    let key = ObjectKey::of(&claim);
    let api = ctx.api::<PersistentVolumeClaim>(&key.namespace);
    let found = match ctx.mirrors.claims.get(&key) {
        Some(found) => PersistentVolumeClaim::clone(&found),
        None => match api.create(&PostParams::default(), &claim).await {
            Ok(created) => {
                ctx.mirrors.claims.observe(created);
                return Ok(());
            }
            Err(error) if is_namespace_terminating(&error) => return Ok(()),
            Err(error) if is_already_exists(&error) => {
                api.get(&key.name).await.map_err(|error| message(&error))?
            }
            Err(error) => return Err(format!("create PVC {}: {}", key.name, message(&error))),
        },
    };
    let owner = controller_of(&found.metadata);
    if owner.is_some_and(|owner| Some(&owner.uid) == pod.metadata.uid.as_ref()) {
        return Ok(());
    }
    let pod = ObjectKey::of(pod);
    Err(format!("PVC {key} was not created for pod {pod} (pod is not owner)"))
}
