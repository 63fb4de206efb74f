//! Job: pods that run to completion, counted exactly once each.
//!
//! Upstream: `pkg/controller/job/job_controller.go`. A pod bears a finalizer until
//! it is counted: first its uid goes into the status, then the finalizer goes, then
//! the uid becomes a number. So a restart at any point neither loses nor doubles it.

mod condition;
mod indexes;
mod plan;

use std::sync::Arc;

use coracle_reconcile::{Next, ObjectKey, Queue, Recorder};
use k8s_openapi::api::batch::v1::{Job, JobStatus};
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::json;

use crate::api::{Attempting, Unfinished, is_not_found};
use crate::context::Context;
use crate::ownership::{claim, controller_key, follow_children, selects, settle};
use crate::pod::Pod;
use crate::pods::{PodControl, at_once, from_template, is_active, slow_start};
use plan::{Decision, Told, plan};

pub(crate) use condition::{Outcome, outcome};

/// Jobs that are worked on at once; upstream's `--concurrent-job-syncs` is 5, with one thread each.
const WORKERS: usize = 16;
/// What a pod bears until it is counted.
const FINALIZER: &str = "batch.kubernetes.io/job-tracking";
/// `spec.managedBy` of the Jobs that are ours.
const MANAGER: &str = "kubernetes.io/job-controller";

/// Starts the controller.
pub(crate) fn start(ctx: &Arc<Context>) {
    let queue = Queue::new();
    let of_jobs = queue.clone();
    ctx.mirrors.jobs.on_change(move |change| of_jobs.add(ObjectKey::of(change.object().as_ref())));
    follow_children(&ctx.mirrors.pods, &ctx.mirrors.jobs, &queue, |job, labels| {
        let selector = job.spec.as_ref().and_then(|spec| spec.selector.as_ref());
        selector.is_some_and(|selector| selects(selector, labels))
    });
    let recorder = ctx.recorder("job-controller");
    let controller =
        Arc::new(Controller { pods: ctx.pod_control(&recorder), ctx: Arc::clone(ctx), recorder });
    ctx.work(&queue, "job", WORKERS, move |key| {
        let controller = Arc::clone(&controller);
        async move { controller.reconcile(&key).await }
    });
}

struct Controller {
    ctx: Arc<Context>,
    pods: PodControl,
    recorder: Recorder,
}

impl Controller {
    /// Counts what has ended, says so, and then starts or stops pods.
    async fn reconcile(&self, key: &ObjectKey) -> Result<Next, Unfinished> {
        let Some(job) = self.ctx.mirrors.jobs.get(key) else {
            self.free_pods_of_a_job_that_is_gone(key).await?;
            return Ok(Next::AwaitChange);
        };
        let manager = job.spec.as_ref().and_then(|spec| spec.managed_by.as_deref());
        if manager.is_some_and(|manager| manager != MANAGER) {
            return Ok(Next::AwaitChange);
        }
        let pods = self.claim_pods(&job).await?;
        let decision = plan(&job, &pods, self.ctx.now());
        self.write_status(&job, &decision.status).await?;
        self.tell(&job, &decision);
        self.act(&job, &decision).await?;
        Ok(decision.next.map_or(Next::AwaitChange, Next::After))
    }

    async fn claim_pods(&self, job: &Job) -> Result<Vec<Arc<Pod>>, Unfinished> {
        let Some(selector) = job.spec.as_ref().and_then(|spec| spec.selector.as_ref()) else {
            return Ok(Vec::new());
        };
        let uid = job.metadata.uid.as_deref().unwrap_or_default();
        let mut candidates = self.ctx.mirrors.pods.owned_by(uid);
        let namespace = job.metadata.namespace.as_deref().unwrap_or_default();
        let orphans = self.ctx.orphans.pods.in_namespace(namespace);
        candidates.extend(orphans.into_iter().filter(|pod| is_active(pod)));
        settle(&self.ctx, job, &self.ctx.mirrors.pods, claim(job, selector, candidates)).await
    }

    async fn act(&self, job: &Job, decision: &Decision) -> Result<(), Unfinished> {
        // The status that names these pods is stored: from here on the finalizer is not needed.
        self.release(&decision.counted).await?;
        // A pod that we stop ourselves has neither succeeded nor failed: it goes uncounted.
        self.release(&decision.delete).await?;
        let stop = |pod: Arc<Pod>| async move { self.pods.delete(job, &pod).await };
        let deleted = at_once(decision.delete.iter().cloned(), stop).await;
        deleted.attempting(|| format!("delete pods of job {}", ObjectKey::of(job)))?;
        let Some(template) = job.spec.as_ref().map(|spec| &spec.template) else { return Ok(()) };
        let create = &decision.create;
        let created = slow_start(create.len(), |number| {
            let mut pod = from_template(template, job);
            pod.metadata.finalizers.get_or_insert_default().push(FINALIZER.to_owned());
            if let Some(index) = create.get(number).copied().flatten() {
                indexes::give(&mut pod, job, index);
            }
            async move { self.pods.create(job, &pod).await }
        })
        .await;
        created.attempting(|| format!("create pods of job {}", ObjectKey::of(job)))
    }

    async fn release(&self, pods: &[Arc<Pod>]) -> Result<(), Unfinished> {
        let release = |pod: Arc<Pod>| async move { self.remove_finalizer(&pod).await };
        at_once(pods.iter().cloned(), release).await
    }

    /// A pod without the finalizer needs no write.
    async fn remove_finalizer(&self, pod: &Arc<Pod>) -> Result<(), Unfinished> {
        if !bears_finalizer(pod) {
            return Ok(());
        }
        let key = ObjectKey::of(pod.as_ref());
        let kept: Vec<&String> = finalizers(pod).filter(|name| *name != FINALIZER).collect();
        let patch = json!({ "metadata": {
            "uid": pod.metadata.uid,
            "resourceVersion": pod.metadata.resource_version,
            "finalizers": kept,
        } });
        let api: Api<Pod> = self.ctx.api(&key.namespace);
        match api.patch(&key.name, &PatchParams::default(), &Patch::Merge(patch)).await {
            Ok(freed) => self.ctx.mirrors.pods.observe(freed),
            Err(error) if is_not_found(&error) => self.ctx.mirrors.pods.observe_gone(pod),
            Err(error) => return Err(error).attempting(|| format!("release pod {key}")),
        }
        Ok(())
    }

    /// A Job that was deleted with its pods orphaned or still ending leaves nobody to count them.
    async fn free_pods_of_a_job_that_is_gone(&self, key: &ObjectKey) -> Result<(), Unfinished> {
        let pods = self.ctx.mirrors.pods.in_namespace(&key.namespace);
        let held = pods.into_iter().filter(|pod| {
            bears_finalizer(pod) && controller_key::<Job>(&pod.metadata).as_ref() == Some(key)
        });
        let held: Vec<Arc<Pod>> = held.collect();
        self.release(&held).await
    }

    async fn write_status(&self, job: &Job, status: &JobStatus) -> Result<(), Unfinished> {
        if job.status.as_ref() == Some(status) {
            return Ok(());
        }
        let mut desired = job.clone();
        desired.status = Some(status.clone());
        self.ctx.write_status(&self.ctx.mirrors.jobs, &desired).await
    }

    fn tell(&self, job: &Job, decision: &Decision) {
        for told in &decision.tell {
            match told {
                Told::Completed => self.recorder.normal(job, "Completed", "Job completed"),
                Told::Suspended => self.recorder.normal(job, "Suspended", "Job suspended"),
                Told::Resumed => self.recorder.normal(job, "Resumed", "Job resumed"),
                Told::Failed { reason, message } => self.recorder.warning(job, reason, message),
            }
        }
    }
}

fn finalizers(pod: &Pod) -> impl Iterator<Item = &String> {
    pod.metadata.finalizers.iter().flatten()
}

fn bears_finalizer(pod: &Pod) -> bool {
    finalizers(pod).any(|name| name == FINALIZER)
}
