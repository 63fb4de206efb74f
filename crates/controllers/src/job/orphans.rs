//! Frees pods that no Job will count: those of Jobs that are gone, and those that were released.
//!
//! Upstream: `syncOrphanPod` in `pkg/controller/job/job_controller.go`.

use std::sync::Arc;

use coracle_reconcile::{Change, Mirror, Next, ObjectKey, Queue};
use k8s_openapi::api::batch::v1::Job;

use super::{bears_finalizer, remove_finalizer};
use crate::api::{Attempting, Unfinished};
use crate::context::Context;
use crate::ownership::{controller_key, controller_of};
use crate::pod::Pod;

/// Pods that are freed at once.
const WORKERS: usize = 16;

/// Starts the controller.
pub(super) fn start(ctx: &Arc<Context>) {
    let queue = Queue::new();
    let (of_pods, jobs) = (queue.clone(), ctx.mirrors.jobs.clone());
    ctx.mirrors.pods.on_change(move |change| {
        if let Change::Applied { new, .. } = change
            && is_forsaken(new, &jobs)
        {
            of_pods.add(ObjectKey::of(new.as_ref()));
        }
    });
    let (of_jobs, pods) = (queue.clone(), ctx.mirrors.pods.clone());
    ctx.mirrors.jobs.on_change(move |change| {
        if let Change::Deleted(job) = change {
            let pods = pods.owned_by(job.metadata.uid.as_deref().unwrap_or_default());
            let held = pods.iter().filter(|pod| bears_finalizer(pod));
            held.for_each(|pod| of_jobs.add(ObjectKey::of(pod.as_ref())));
        }
    });
    let for_work = Arc::clone(ctx);
    ctx.work(&queue, "job-orphans", WORKERS, move |key| {
        let ctx = Arc::clone(&for_work);
        async move { reconcile(&ctx, &key).await }
    });
}

async fn reconcile(ctx: &Context, key: &ObjectKey) -> Result<Next, Unfinished> {
    let Some(pod) = ctx.mirrors.pods.get(key) else { return Ok(Next::AwaitChange) };
    if !is_forsaken(&pod, &ctx.mirrors.jobs) {
        return Ok(Next::AwaitChange);
    }
    if let Some(of) = controller_key::<Job>(&pod.metadata) {
        // Its Job may be one that our mirror does not know yet.
        let live = ctx.api::<Job>(&of.namespace).get_opt(&of.name).await;
        let live = live.attempting(|| format!("read job {of} before its pod is released"))?;
        if live.is_some_and(|live| is_controlled_by(&pod, &live)) {
            return Ok(Next::AwaitChange);
        }
    }
    remove_finalizer(ctx, &pod).await?;
    Ok(Next::AwaitChange)
}

/// Whether the pod waits to be counted and no Job is known that would.
fn is_forsaken(pod: &Pod, jobs: &Mirror<Job>) -> bool {
    if !bears_finalizer(pod) {
        return false;
    }
    match (controller_of(&pod.metadata), controller_key::<Job>(&pod.metadata)) {
        (None, _) => true,
        // Somebody else's pod, which knows why it bears our finalizer.
        (Some(_), None) => false,
        (Some(_), Some(key)) => jobs.get(&key).is_none_or(|job| !is_controlled_by(pod, &job)),
    }
}

fn is_controlled_by(pod: &Pod, job: &Job) -> bool {
    controller_of(&pod.metadata).is_some_and(|owner| Some(&owner.uid) == job.metadata.uid.as_ref())
}
