//! Deletes Jobs some time after they ended: `spec.ttlSecondsAfterFinished`.
//!
//! Upstream: `pkg/controller/ttlafterfinished/ttlafterfinished_controller.go`.

use std::sync::Arc;
use std::time::Duration;

use coracle_reconcile::{Next, ObjectKey, Queue};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::batch::v1::Job;
use kube::Api;
use kube::api::{DeleteParams, Preconditions};

use crate::api::{Attempting, Unfinished, is_conflict, is_not_found};
use crate::context::Context;
use crate::job::outcome;

/// Jobs that are deleted at once; upstream's `--concurrent-ttl-after-finished-syncs`.
const WORKERS: usize = 5;

/// Starts the controller.
pub(crate) fn start(ctx: &Arc<Context>) {
    let queue = Queue::new();
    let of_jobs = queue.clone();
    ctx.mirrors.jobs.on_change(move |change| of_jobs.add(ObjectKey::of(change.object().as_ref())));
    let ctx = Arc::clone(ctx);
    let for_work = Arc::clone(&ctx);
    ctx.work(&queue, "ttl-after-finished", WORKERS, move |key| {
        let ctx = Arc::clone(&for_work);
        async move { reconcile(&ctx, &key).await }
    });
}

async fn reconcile(ctx: &Context, key: &ObjectKey) -> Result<Next, Unfinished> {
    let Some(job) = ctx.mirrors.jobs.get(key) else { return Ok(Next::AwaitChange) };
    let Some(expiry) = expiry(&job) else { return Ok(Next::AwaitChange) };
    let now = ctx.now();
    if now < expiry {
        let left = Duration::try_from(expiry.duration_since(now)).unwrap_or_default();
        return Ok(Next::After(left));
    }
    // The Job may have been given more time since our mirror saw it: then its version differs.
    let this = Preconditions {
        uid: job.metadata.uid.clone(),
        resource_version: job.metadata.resource_version.clone(),
    };
    let api: Api<Job> = ctx.api(&key.namespace);
    match api.delete(&key.name, &DeleteParams::foreground().preconditions(this)).await {
        Ok(going) => {
            if let Some(going) = going.left() {
                ctx.mirrors.jobs.observe(going);
            }
            Ok(Next::AwaitChange)
        }
        Err(error) if is_not_found(&error) || is_conflict(&error) => Ok(Next::AwaitChange),
        Err(error) => Err(error).attempting(|| format!("delete job {key}")),
    }
}

/// When the Job has to go: `None` while it runs, or for ever.
fn expiry(job: &Job) -> Option<Timestamp> {
    if job.metadata.deletion_timestamp.is_some() {
        return None;
    }
    let seconds = job.spec.as_ref()?.ttl_seconds_after_finished?;
    let (_, ended) = outcome(job)?;
    ended?.checked_add(SignedDuration::from_secs(i64::from(seconds))).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_job_expires_its_time_after_its_end() {
        let check = |ttl: Option<i32>, condition: &str, expected: Option<&str>| {
            let job: Job = serde_json::from_value(json!({ "metadata": { "name": "a" },
                "spec": { "ttlSecondsAfterFinished": ttl, "template": {} },
                "status": { "conditions": [{ "type": condition, "status": "True",
                    "lastTransitionTime": "2026-01-01T00:00:00Z" }] } }))
            .unwrap();
            assert_eq!(expiry(&job), expected.map(|time| time.parse().unwrap()));
        };
        check(Some(60), "Complete", Some("2026-01-01T00:01:00Z"));
        check(Some(0), "Failed", Some("2026-01-01T00:00:00Z"));
        check(Some(60), "Suspended", None);
        check(None, "Complete", None);
    }
}
