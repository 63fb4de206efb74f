//! CronJob: a Job at each time of a schedule.
//!
//! Upstream: `pkg/controller/cronjob/cronjob_controllerv2.go`. A Job's name is made
//! of its scheduled time, so the same time never starts two.

mod plan;

use std::collections::HashSet;
use std::sync::Arc;

use coracle_reconcile::{Next, ObjectKey, Queue, Recorder};
use k8s_openapi::api::batch::v1::{CronJob, Job};
use kube::Api;
use kube::api::{DeleteParams, PostParams, Preconditions};

use crate::api::{
    Attempting, Unfinished, is_already_exists, is_namespace_terminating, is_not_found, message,
};
use crate::context::Context;
use crate::ownership::{controller_key, controller_of};
use plan::{Decision, Observed, Told, plan};

/// CronJobs that are worked on at once: thousands may be due at midnight, and a Job is late while its pods are early.
/// Upstream's `--concurrent-cron-job-syncs` is 5.
const WORKERS: usize = 64;

/// Starts the controller.
pub(crate) fn start(ctx: &Arc<Context>) {
    let queue = Queue::new();
    let of_cron_jobs = queue.clone();
    ctx.mirrors.cron_jobs.on_change(move |change| {
        of_cron_jobs.add(ObjectKey::of(change.object().as_ref()));
    });
    let of_jobs = queue.clone();
    ctx.mirrors.jobs.on_change(move |change| {
        if let Some(key) = controller_key::<CronJob>(&change.object().metadata) {
            of_jobs.add(key);
        }
    });
    let recorder = ctx.recorder("cronjob-controller");
    let controller = Arc::new(Controller { ctx: Arc::clone(ctx), recorder });
    ctx.work(&queue, "cronjob", WORKERS, move |key| {
        let controller = Arc::clone(&controller);
        async move { controller.reconcile(&key).await }
    });
}

struct Controller {
    ctx: Arc<Context>,
    recorder: Recorder,
}

impl Controller {
    /// Starts the Job that is due, tidies up those that ended, and waits for the next time.
    async fn reconcile(&self, key: &ObjectKey) -> Result<Next, Unfinished> {
        let Some(cron_job) = self.ctx.mirrors.cron_jobs.get(key) else {
            return Ok(Next::AwaitChange);
        };
        let uid = cron_job.metadata.uid.as_deref().unwrap_or_default();
        let jobs = self.ctx.mirrors.jobs.owned_by(uid);
        let others = self.others(&cron_job, &jobs).await?;
        let observed = Observed { cron_job: &cron_job, jobs: &jobs, others: &others };
        let mut decision = plan(&observed, self.ctx.now());
        self.tell(&cron_job, &decision.tell);
        for job in &decision.replace {
            self.delete(&cron_job, job).await?;
        }
        if let Some(job) = decision.create.take() {
            self.create(&cron_job, &job, &mut decision).await?;
        }
        self.write_status(&cron_job, &decision).await?;
        for job in &decision.trim {
            self.delete(&cron_job, job).await?;
        }
        Ok(decision.next.map_or(Next::AwaitChange, Next::After))
    }

    /// Of the active Jobs that our mirror does not show as its own, the uids of those that are there nevertheless.
    async fn others(
        &self,
        cron_job: &CronJob,
        jobs: &[Arc<Job>],
    ) -> Result<HashSet<String>, Unfinished> {
        let active = cron_job.status.as_ref().and_then(|status| status.active.as_deref());
        let mut others = HashSet::new();
        for known in active.unwrap_or_default() {
            if jobs.iter().any(|job| job.metadata.uid == known.uid) {
                continue;
            }
            let name = known.name.as_deref().unwrap_or_default();
            let api: Api<Job> = self.ctx.api(known.namespace.as_deref().unwrap_or_default());
            let live = api.get_opt(name).await.attempting(|| format!("get job {name}"))?;
            let live = live.filter(|live| live.metadata.uid == known.uid);
            others.extend(live.and_then(|live| live.metadata.uid));
        }
        Ok(others)
    }

    async fn create(
        &self,
        cron_job: &CronJob,
        job: &Job,
        decision: &mut Decision,
    ) -> Result<(), Unfinished> {
        let key = ObjectKey::of(job);
        let api: Api<Job> = self.ctx.api(&key.namespace);
        match api.create(&PostParams::default(), job).await {
            Ok(created) => {
                let text = format!("Created job {}", key.name);
                self.recorder.normal(cron_job, "SuccessfulCreate", text);
                plan::note_started(&mut decision.status, &created);
                self.ctx.mirrors.jobs.observe(created);
                Ok(())
            }
            Err(error) if is_namespace_terminating(&error) => Ok(()),
            Err(error) if is_already_exists(&error) => {
                let there = api.get(&key.name).await.attempting(|| format!("get job {key}"))?;
                let ours = controller_of(&there.metadata)
                    .is_some_and(|owner| Some(&owner.uid) == cron_job.metadata.uid.as_ref());
                // Ours: an earlier try made it, and only the status is missing.
                if ours {
                    plan::note_started(&mut decision.status, &there);
                }
                self.ctx.mirrors.jobs.observe(there);
                Ok(())
            }
            Err(error) => {
                let text = format!("Error creating job: {}", message(&error));
                self.recorder.warning(cron_job, "FailedCreate", text);
                Err(error).attempting(|| format!("create job {key}"))
            }
        }
    }

    async fn delete(&self, cron_job: &CronJob, job: &Arc<Job>) -> Result<(), Unfinished> {
        let key = ObjectKey::of(job.as_ref());
        let api: Api<Job> = self.ctx.api(&key.namespace);
        let this = Preconditions { uid: job.metadata.uid.clone(), resource_version: None };
        match api.delete(&key.name, &DeleteParams::background().preconditions(this)).await {
            Ok(going) => {
                if let Some(going) = going.left() {
                    self.ctx.mirrors.jobs.observe(going);
                }
                let text = format!("Deleted job {}", key.name);
                self.recorder.normal(cron_job, "SuccessfulDelete", text);
                Ok(())
            }
            Err(error) if is_not_found(&error) => {
                self.ctx.mirrors.jobs.observe_gone(job);
                Ok(())
            }
            Err(error) => {
                let text = format!("Deleted job: {}", message(&error));
                self.recorder.warning(cron_job, "FailedDelete", text);
                Err(error).attempting(|| format!("delete job {key}"))
            }
        }
    }

    async fn write_status(
        &self,
        cron_job: &CronJob,
        decision: &Decision,
    ) -> Result<(), Unfinished> {
        if cron_job.status.as_ref() == Some(&decision.status) {
            return Ok(());
        }
        let mut desired = cron_job.clone();
        desired.status = Some(decision.status.clone());
        self.ctx.write_status(&self.ctx.mirrors.cron_jobs, &desired).await
    }

    fn tell(&self, cron_job: &CronJob, tell: &[Told]) {
        for told in tell {
            match told {
                Told::Normal(reason, message) => self.recorder.normal(cron_job, reason, message),
                Told::Warning(reason, message) => self.recorder.warning(cron_job, reason, message),
            }
        }
    }
}
