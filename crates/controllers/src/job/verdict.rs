//! Whether a Job has to end, and why.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::batch::v1::{JobCondition, JobSpec, JobStatus};

use super::condition::{Outcome, find};
use super::failure_policy::{Match, matched};
use super::success_policy;
use super::view::{View, has_failed};
use crate::pods::phase;

/// How a Job ends, and what is said of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Verdict {
    pub outcome: Outcome,
    pub reason: String,
    pub message: String,
}

impl Verdict {
    fn failed(reason: &str, message: impl Into<String>) -> Self {
        let (reason, message) = (reason.to_owned(), message.into());
        Self { outcome: Outcome::Failed, reason, message }
    }

    fn succeeded(reason: &str, message: impl Into<String>) -> Self {
        let (reason, message) = (reason.to_owned(), message.into());
        Self { outcome: Outcome::Complete, reason, message }
    }

    /// The wanted number has succeeded.
    pub fn completions_reached() -> Self {
        Self::succeeded("CompletionsReached", "Reached expected number of succeeded pods")
    }

    /// The condition that says so while pods are still going.
    pub fn target(&self) -> &'static str {
        match self.outcome {
            Outcome::Complete => "SuccessCriteriaMet",
            Outcome::Failed => "FailureTarget",
        }
    }

    /// The condition that says so in the end.
    pub fn terminal(&self) -> &'static str {
        match self.outcome {
            Outcome::Complete => "Complete",
            Outcome::Failed => "Failed",
        }
    }
}

/// Why the Job has to end whatever its pods do; `status` is what it said before.
pub(super) fn verdict(view: &View<'_>, status: &JobStatus) -> Option<Verdict> {
    pronounced(status)
        .or_else(|| by_failure_policy(view))
        .or_else(|| by_limits(view, status))
        .or_else(|| by_indexes(view))
}

/// What was said once stays.
fn pronounced(status: &JobStatus) -> Option<Verdict> {
    let held = |kind| find(status, kind).filter(|condition| condition.status == "True");
    let words = |condition: &JobCondition| {
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        (text(&condition.reason), text(&condition.message))
    };
    if let Some((reason, message)) = held("SuccessCriteriaMet").map(words) {
        return Some(Verdict { outcome: Outcome::Complete, reason, message });
    }
    let (reason, message) = held("FailureTarget").map(words)?;
    Some(Verdict { outcome: Outcome::Failed, reason, message })
}

fn by_failure_policy(view: &View<'_>) -> Option<Verdict> {
    let policy = view.spec.pod_failure_policy.as_ref()?;
    let failed = view.pods.iter().filter(|pod| has_failed(pod, view.spec));
    let mut meanings = failed.map(|pod| matched(Some(policy), pod));
    meanings.find_map(|meaning| match meaning {
        Match::FailJob(why) => Some(Verdict::failed("PodFailurePolicy", why)),
        Match::Count | Match::Ignore | Match::FailIndex => None,
    })
}

fn by_limits(view: &View<'_>, status: &JobStatus) -> Option<Verdict> {
    let limit = view.spec.backoff_limit.unwrap_or(6);
    let restarts = restarts_in_place(view);
    if view.failed > limit || (restarts > 0 && restarts >= limit) {
        let why = "Job has reached the specified backoff limit";
        return Some(Verdict::failed("BackoffLimitExceeded", why));
    }
    let deadline = deadline(view.spec, status)?;
    let why = "Job was active longer than specified deadline";
    (view.now >= deadline).then(|| Verdict::failed("DeadlineExceeded", why))
}

/// With `restartPolicy: OnFailure` failures are restarts. Upstream: `pastBackoffLimitOnFailure`.
fn restarts_in_place(view: &View<'_>) -> i32 {
    let template = view.spec.template.spec.as_ref();
    if template.and_then(|spec| spec.restart_policy.as_deref()) != Some("OnFailure") {
        return 0;
    }
    let running = view.pods.iter().filter(|pod| matches!(phase(pod), "Running" | "Pending"));
    let containers = running.flat_map(|pod| {
        pod.status.container_statuses.iter().chain(&pod.status.init_container_statuses)
    });
    containers.map(|container| container.restart_count).fold(0, i32::saturating_add)
}

fn by_indexes(view: &View<'_>) -> Option<Verdict> {
    let indexed = view.indexed.as_ref()?;
    if let Some(failed) = &indexed.failed {
        let most = view.spec.max_failed_indexes.and_then(|most| u32::try_from(most).ok());
        if most.is_some_and(|most| failed.count() > most) {
            let why = "Job has exceeded the specified maximal number of failed indexes";
            return Some(Verdict::failed("MaxFailedIndexesExceeded", why));
        }
        let settled = failed.with(&indexed.succeeded).count();
        if !failed.is_empty() && settled >= indexed.completions {
            return Some(Verdict::failed("FailedIndexes", "Job has failed indexes"));
        }
    }
    let policy = view.spec.success_policy.as_ref();
    let why = success_policy::met(policy, &indexed.succeeded, indexed.completions)?;
    Some(Verdict::succeeded("SuccessPolicy", why))
}

/// When the Job has run for long enough; a suspended one does not run.
pub(super) fn deadline(spec: &JobSpec, status: &JobStatus) -> Option<Timestamp> {
    let seconds = spec.active_deadline_seconds.filter(|_| spec.suspend != Some(true))?;
    let started = status.start_time.as_ref()?.0;
    started.checked_add(SignedDuration::from_secs(seconds)).ok()
}
