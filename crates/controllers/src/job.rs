//! Job: pods that run to completion, counted exactly once each.
//!
//! Upstream: `pkg/controller/job/job_controller.go`. `plan.rs` decides, `accounting.rs` says why no restart loses a pod
//! or counts it twice, `orphans.rs` frees the pods that nobody will count.

mod accounting;
mod backoff;
mod condition;
mod failure_policy;
mod index_pods;
mod indexes;
mod management;
mod orphans;
mod plan;
mod success_policy;
mod verdict;
mod view;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use coracle_reconcile::{Next, ObjectKey, Queue, Recorder};
use k8s_openapi::api::batch::v1::{Job, JobStatus};
use kube::Api;
use kube::api::{Patch, PatchParams};
use parking_lot::Mutex;
use serde_json::json;

use crate::api::{Attempting, Unfinished, is_not_found};
use crate::context::Context;
use crate::ownership::{claim, follow_children, selects, settle_marking};
use crate::pod::Pod;
use crate::pods::{PodControl, at_once, from_template, slow_start};
use backoff::Record;
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
    let controller = Arc::new(Controller {
        pods: ctx.pod_control(&recorder),
        ctx: Arc::clone(ctx),
        recorder,
        records: Mutex::default(),
    });
    ctx.work(&queue, "job", WORKERS, move |key| {
        let controller = Arc::clone(&controller);
        async move { controller.reconcile(&key).await }
    });
    orphans::start(ctx);
}

struct Controller {
    ctx: Arc<Context>,
    pods: PodControl,
    recorder: Recorder,
    /// The failures of each Job that goes on, with its uid.
    records: Mutex<HashMap<ObjectKey, (String, Record)>>,
}

impl Controller {
    /// Starts or stops pods, counts what has ended, and says so.
    async fn reconcile(&self, key: &ObjectKey) -> Result<Next, Unfinished> {
        let job = self.ctx.mirrors.jobs.get(key).filter(|job| !is_managed_elsewhere(job));
        let Some(job) = job else {
            self.records.lock().remove(key);
            return Ok(Next::AwaitChange);
        };
        if outcome(&job).is_some() {
            self.records.lock().remove(key);
            self.free_pods_of_a_job_that_has_ended(&job).await?;
            return Ok(Next::AwaitChange);
        }
        let pods = self.claim_pods(&job).await?;
        let known = self.record(key, &job);
        let mut decision = plan(&job, &pods, known, self.ctx.now());
        self.stop(&job, &decision).await?;
        let created = self.create(&job, &mut decision).await;
        self.write_status(&job, &decision.status).await?;
        let uid = job.metadata.uid.clone().unwrap_or_default();
        self.records.lock().insert(key.clone(), (uid, decision.record));
        self.tell(&job, &decision);
        // The status that names these pods is stored: from here on the finalizer is not needed.
        self.release(&decision.release).await?;
        created?;
        Ok(decision.next.map_or(Next::AwaitChange, Next::After))
    }

    /// Nobody counts any more: nothing may be held back.
    async fn free_pods_of_a_job_that_has_ended(&self, job: &Job) -> Result<(), Unfinished> {
        let uid = job.metadata.uid.as_deref().unwrap_or_default();
        self.release(&self.ctx.mirrors.pods.owned_by(uid)).await
    }

    fn record(&self, key: &ObjectKey, job: &Job) -> Option<Record> {
        let records = self.records.lock();
        let (uid, record) = records.get(key)?;
        (job.metadata.uid.as_ref() == Some(uid)).then_some(*record)
    }

    async fn claim_pods(&self, job: &Job) -> Result<Vec<Arc<Pod>>, Unfinished> {
        let Some(selector) = job.spec.as_ref().and_then(|spec| spec.selector.as_ref()) else {
            return Ok(Vec::new());
        };
        let uid = job.metadata.uid.as_deref().unwrap_or_default();
        let mut candidates = self.ctx.mirrors.pods.owned_by(uid);
        let namespace = job.metadata.namespace.as_deref().unwrap_or_default();
        candidates.extend(self.ctx.orphans.pods.in_namespace(namespace));
        let claimed = claim(job, selector, candidates);
        settle_marking(&self.ctx, job, &self.ctx.mirrors.pods, claimed, Some(FINALIZER)).await
    }

    async fn stop(&self, job: &Job, decision: &Decision) -> Result<(), Unfinished> {
        // A pod that is too many has neither succeeded nor failed: it goes uncounted.
        self.release(&decision.surplus).await?;
        let stop = |pod: Arc<Pod>| async move { self.pods.delete(job, &pod).await };
        let all = [decision.surplus.as_slice(), &decision.stop].concat();
        let deleted = at_once(all, stop).await;
        deleted.attempting(|| format!("delete pods of job {}", ObjectKey::of(job)))
    }

    /// Makes pods, and takes those that cannot be made off the status.
    async fn create(&self, job: &Job, decision: &mut Decision) -> Result<(), Unfinished> {
        let Some(template) = job.spec.as_ref().map(|spec| &spec.template) else { return Ok(()) };
        let (create, made) = (&decision.create, Arc::new(AtomicUsize::new(0)));
        let created = slow_start(create.len(), |number| {
            let mut pod = from_template(template, job);
            let finalizers = pod.metadata.finalizers.get_or_insert_default();
            if !finalizers.iter().any(|name| name == FINALIZER) {
                finalizers.push(FINALIZER.to_owned());
            }
            if let Some(place) = create.get(number).copied().flatten() {
                index_pods::give(&mut pod, job, place);
            }
            let made = Arc::clone(&made);
            async move {
                self.pods.create(job, &pod).await?;
                made.fetch_add(1, Ordering::Relaxed);
                Ok(())
            }
        })
        .await;
        decision.lack(create.len() - made.load(Ordering::Relaxed));
        created.attempting(|| format!("create pods of job {}", ObjectKey::of(job)))
    }

    async fn release(&self, pods: &[Arc<Pod>]) -> Result<(), Unfinished> {
        let release = |pod: Arc<Pod>| async move { remove_finalizer(&self.ctx, &pod).await };
        at_once(pods.iter().cloned(), release).await
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
                Told::Normal(reason, message) => self.recorder.normal(job, reason, *message),
                Told::Warning(reason, message) => self.recorder.warning(job, reason, message),
            }
        }
    }
}

/// Takes the finalizer off a pod. One without it needs no write.
async fn remove_finalizer(ctx: &Context, pod: &Arc<Pod>) -> Result<(), Unfinished> {
    if !bears_finalizer(pod) {
        return Ok(());
    }
    let key = ObjectKey::of(pod.as_ref());
    let patch = json!({ "metadata": {
        "uid": pod.metadata.uid,
        "$deleteFromPrimitiveList/finalizers": [FINALIZER],
    } });
    let api: Api<Pod> = ctx.api(&key.namespace);
    match api.patch(&key.name, &PatchParams::default(), &Patch::Strategic(patch)).await {
        Ok(freed) => ctx.mirrors.pods.observe(freed),
        Err(error) if is_not_found(&error) => ctx.mirrors.pods.observe_gone(pod),
        Err(error) => return Err(error).attempting(|| format!("release pod {key}")),
    }
    Ok(())
}

fn bears_finalizer(pod: &Pod) -> bool {
    pod.metadata.finalizers.iter().flatten().any(|name| name == FINALIZER)
}

/// Somebody else looks after the Job and its pods.
fn is_managed_elsewhere(job: &Job) -> bool {
    let manager = job.spec.as_ref().and_then(|spec| spec.managed_by.as_deref());
    manager.is_some_and(|manager| manager != MANAGER)
}
