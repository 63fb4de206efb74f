//! What one Job needs now. Pure: time is an argument.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::batch::v1::{Job, JobSpec, JobStatus, UncountedTerminatedPods};

use super::condition::{Saying, find, holds, outcome, say};
use super::{bears_finalizer, indexes};
use crate::api::api_time;
use crate::pod::Pod;
use crate::pods::{is_active, is_ready, is_terminating, phase};

/// The wait after a first failed pod; it doubles with each further one. Upstream's `DefaultJobPodFailureBackOff`.
const BACKOFF_FIRST: Duration = Duration::from_secs(10);
/// Upstream's `MaxJobPodFailureBackOff`.
const BACKOFF_LONGEST: Duration = Duration::from_secs(600);
/// Uids that one status names at most; upstream's `MaxUncountedPods`.
const UNCOUNTED: usize = 500;

/// What to write, and then what to do.
#[derive(Debug, Default)]
pub(super) struct Decision {
    /// The whole status.
    pub status: JobStatus,
    /// Pods that the status names: their finalizer goes once it is stored.
    pub counted: Vec<Arc<Pod>>,
    pub delete: Vec<Arc<Pod>>,
    /// One entry a pod, with its index in an indexed Job.
    pub create: Vec<Option<u32>>,
    pub tell: Vec<Told>,
    /// When to look again although nothing changed.
    pub next: Option<Duration>,
}

/// What an Event says.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Told {
    Completed,
    Suspended,
    Resumed,
    Failed { reason: &'static str, message: String },
}

/// Why a Job fails.
struct Failure {
    reason: &'static str,
    message: String,
}

/// Decides for one Job; `pods` are all that it controls.
pub(super) fn plan(job: &Job, pods: &[Arc<Pod>], now: Timestamp) -> Decision {
    let mut decision =
        Decision { status: job.status.clone().unwrap_or_default(), ..Decision::default() };
    let Some(spec) = &job.spec else { return decision };
    if outcome(job).is_some() || job.metadata.deletion_timestamp.is_some() {
        // Nobody counts any more: nothing may be held back.
        decision.counted = pods.iter().filter(|pod| bears_finalizer(pod)).cloned().collect();
        return decision;
    }
    let suspended = spec.suspend.unwrap_or(false);
    note_suspension(&mut decision, suspended, now);
    if !suspended && decision.status.start_time.is_none() {
        decision.status.start_time = Some(api_time(now));
    }
    let count = Count::take(spec, pods, &mut decision);
    let failing = failure(spec, pods, &decision.status, &count, now);
    let succeeding = failing.is_none() && has_succeeded(spec, &count);

    if let Some(failure) = &failing {
        target(&mut decision.status, "FailureTarget", failure.reason, &failure.message, now);
    } else if succeeding {
        target(&mut decision.status, "SuccessCriteriaMet", REACHED.0, REACHED.1, now);
    }
    let ending = failing.is_some() || succeeding;
    let active: Vec<Arc<Pod>> = pods.iter().filter(|pod| is_active(pod)).cloned().collect();
    if ending || suspended {
        decision.delete.clone_from(&active);
    } else {
        manage(spec, pods, active, &count, now, &mut decision);
    }
    write_counts(&mut decision, pods, &count);
    if ending && count.all_counted && decision.delete.is_empty() && count.terminating == 0 {
        end(&mut decision, failing, now);
    }
    if !ending {
        next_deadline(spec, &decision.status.clone(), now, &mut decision.next);
    }
    decision
}

/// The condition's reason and message when the wanted number has succeeded.
const REACHED: (&str, &str) = ("CompletionsReached", "Reached expected number of succeeded pods");

fn note_suspension(decision: &mut Decision, suspended: bool, now: Timestamp) {
    let was = holds(&decision.status, "Suspended");
    let (status, reason, message) = match (was, suspended) {
        (false, true) => ("True", "JobSuspended", "Job suspended"),
        (true, false) => ("False", "JobResumed", "Job resumed"),
        (true, true) | (false, false) => return,
    };
    say(&mut decision.status, Saying { kind: "Suspended", status, reason, message }, now);
    if suspended {
        decision.status.start_time = None;
        decision.tell.push(Told::Suspended);
    } else {
        // The deadline counts from the resumption.
        decision.status.start_time = Some(api_time(now));
        decision.tell.push(Told::Resumed);
    }
}

/// What has ended so far, and what of it the status names.
struct Count {
    succeeded: i32,
    failed: i32,
    completed_indexes: Option<BTreeSet<u32>>,
    /// Nothing waits for its finalizer to go.
    all_counted: bool,
    terminating: usize,
}

impl Count {
    /// Moves uids that lost their finalizer into the numbers, and names the pods that ended since.
    fn take(spec: &JobSpec, pods: &[Arc<Pod>], decision: &mut Decision) -> Self {
        let status = &mut decision.status;
        let by_uid: HashMap<&str, &Arc<Pod>> =
            pods.iter().filter_map(|pod| Some((pod.metadata.uid.as_deref()?, pod))).collect();
        let is_free =
            |uid: &String| by_uid.get(uid.as_str()).is_none_or(|pod| !bears_finalizer(pod));
        let uncounted = status.uncounted_terminated_pods.take().unwrap_or_default();
        let (done, mut succeeded): (Vec<_>, Vec<_>) =
            uncounted.succeeded.unwrap_or_default().into_iter().partition(is_free);
        let (gone, mut failed): (Vec<_>, Vec<_>) =
            uncounted.failed.unwrap_or_default().into_iter().partition(is_free);
        let mut completed = is_indexed(spec).then(|| {
            indexes::parse(
                status.completed_indexes.as_deref().unwrap_or_default(),
                completions(spec),
            )
        });
        status.failed = Some(status.failed.unwrap_or(0) + number(gone.len()));
        let counted_before = status.succeeded.unwrap_or(0) + number(done.len());

        for pod in pods.iter().filter(|pod| bears_finalizer(pod)) {
            let Some(uid) = pod.metadata.uid.clone() else { continue };
            if succeeded.contains(&uid) || failed.contains(&uid) {
                decision.counted.push(Arc::clone(pod));
                continue;
            }
            if succeeded.len() + failed.len() >= UNCOUNTED {
                break;
            }
            match fate(pod) {
                Fate::Succeeded => {
                    if let Some(completed) = &mut completed {
                        let index = indexes::of(pod).filter(|index| *index < completions(spec));
                        // A second success of one index counts for nothing.
                        completed.extend(index);
                    } else {
                        succeeded.push(uid);
                    }
                }
                Fate::Failed => failed.push(uid),
                Fate::Open => continue,
            }
            decision.counted.push(Arc::clone(pod));
        }
        let total_succeeded = match &completed {
            Some(completed) => number(completed.len()),
            None => counted_before + number(succeeded.len()),
        };
        status.succeeded = Some(match &completed {
            Some(completed) => number(completed.len()),
            None => counted_before,
        });
        let total_failed = status.failed.unwrap_or(0) + number(failed.len());
        let all_counted = succeeded.is_empty() && failed.is_empty() && decision.counted.is_empty();
        status.uncounted_terminated_pods = Some(UncountedTerminatedPods {
            succeeded: (!succeeded.is_empty()).then_some(succeeded),
            failed: (!failed.is_empty()).then_some(failed),
        });
        Self {
            succeeded: total_succeeded,
            failed: total_failed,
            completed_indexes: completed,
            all_counted,
            terminating: pods.iter().filter(|pod| is_terminating(pod)).count(),
        }
    }
}

enum Fate {
    Succeeded,
    Failed,
    Open,
}

/// A pod that is told to end counts as failed at once, and is replaced (`podReplacementPolicy: TerminatingOrFailed`).
fn fate(pod: &Pod) -> Fate {
    match phase(pod) {
        "Succeeded" => Fate::Succeeded,
        "Failed" => Fate::Failed,
        _ if pod.metadata.deletion_timestamp.is_some() => Fate::Failed,
        _ => Fate::Open,
    }
}

fn failure(
    spec: &JobSpec,
    pods: &[Arc<Pod>],
    status: &JobStatus,
    count: &Count,
    now: Timestamp,
) -> Option<Failure> {
    if let Some(known) = find(status, "FailureTarget").filter(|known| known.status == "True") {
        let reason = match known.reason.as_deref() {
            Some("DeadlineExceeded") => "DeadlineExceeded",
            _ => "BackoffLimitExceeded",
        };
        return Some(Failure { reason, message: known.message.clone().unwrap_or_default() });
    }
    let limit = spec.backoff_limit.unwrap_or(6);
    let restarts = restarts_in_place(spec, pods);
    if count.failed > limit || (restarts > 0 && restarts >= limit.max(1)) {
        let message = "Job has reached the specified backoff limit".to_owned();
        return Some(Failure { reason: "BackoffLimitExceeded", message });
    }
    let deadline = deadline(spec, status)?;
    (now >= deadline).then(|| Failure {
        reason: "DeadlineExceeded",
        message: "Job was active longer than specified deadline".to_owned(),
    })
}

/// With `restartPolicy: OnFailure` failures are restarts. Upstream: `pastBackoffLimitOnFailure`.
fn restarts_in_place(spec: &JobSpec, pods: &[Arc<Pod>]) -> i32 {
    let policy = spec.template.spec.as_ref().and_then(|spec| spec.restart_policy.as_deref());
    if policy != Some("OnFailure") {
        return 0;
    }
    let running = pods.iter().filter(|pod| matches!(phase(pod), "Running" | "Pending"));
    running
        .flat_map(|pod| {
            let status = &pod.status;
            status.container_statuses.iter().chain(&status.init_container_statuses)
        })
        .map(|container| container.restart_count)
        .sum()
}

fn has_succeeded(spec: &JobSpec, count: &Count) -> bool {
    match spec.completions {
        Some(completions) => count.succeeded >= completions,
        // A work queue: one success means that there is no more work; the rest may finish.
        None => false,
    }
}

fn target(status: &mut JobStatus, kind: &str, reason: &str, message: &str, now: Timestamp) {
    if !holds(status, kind) {
        say(status, Saying { kind, status: "True", reason, message }, now);
    }
}

/// Starts what is missing and stops what is too much.
fn manage(
    spec: &JobSpec,
    pods: &[Arc<Pod>],
    mut active: Vec<Arc<Pod>>,
    count: &Count,
    now: Timestamp,
    decision: &mut Decision,
) {
    let parallelism = spec.parallelism.unwrap_or(1);
    let wanted = match spec.completions {
        Some(completions) => parallelism.min(completions - count.succeeded).max(0),
        None if count.succeeded > 0 => number(active.len()).min(parallelism),
        None => parallelism,
    };
    if spec.completions.is_none() && count.succeeded > 0 && active.is_empty() {
        target(&mut decision.status, "SuccessCriteriaMet", REACHED.0, REACHED.1, now);
        if count.all_counted && count.terminating == 0 {
            end(decision, None, now);
        }
        return;
    }
    let wanted = usize::try_from(wanted).unwrap_or(0);
    if active.len() > wanted {
        // The least far along go first.
        active.sort_by_key(|pod| (is_ready(pod), phase(pod) == "Running"));
        active.truncate(active.len() - wanted);
        decision.delete = active;
        return;
    }
    let missing = wanted - active.len();
    if missing == 0 {
        return;
    }
    if let Some(wait) = backoff(pods, now) {
        decision.next = Some(wait);
        return;
    }
    decision.create = match &count.completed_indexes {
        None => vec![None; missing],
        Some(completed) => {
            let running: BTreeSet<u32> = active.iter().filter_map(|pod| indexes::of(pod)).collect();
            let open = (0..completions(spec))
                .filter(|index| !completed.contains(index) && !running.contains(index));
            open.take(missing).map(Some).collect()
        }
    };
}

/// How long to wait before the next pod, after failures since the last success.
fn backoff(pods: &[Arc<Pod>], now: Timestamp) -> Option<Duration> {
    let mut ended: Vec<(Timestamp, bool)> = pods
        .iter()
        .filter_map(|pod| match phase(pod) {
            "Failed" => Some((finished_at(pod)?, false)),
            "Succeeded" => Some((finished_at(pod)?, true)),
            _ => None,
        })
        .collect();
    ended.sort_unstable();
    let failures = ended.iter().rev().take_while(|(_, succeeded)| !succeeded).count();
    let (last, _) = ended.last()?;
    let doublings = u32::try_from(failures).ok()?.checked_sub(1)?.min(10);
    let wait = (BACKOFF_FIRST * (1 << doublings)).min(BACKOFF_LONGEST);
    let passed = Duration::try_from(now.duration_since(*last)).unwrap_or_default();
    wait.checked_sub(passed).filter(|left| !left.is_zero())
}

fn finished_at(pod: &Pod) -> Option<Timestamp> {
    let ends = pod.status.container_statuses.iter().filter_map(|container| {
        container.state.as_ref()?.terminated.as_ref()?.finished_at.as_ref().map(|time| time.0)
    });
    ends.max().or_else(|| pod.metadata.creation_timestamp.as_ref().map(|time| time.0))
}

fn write_counts(decision: &mut Decision, pods: &[Arc<Pod>], count: &Count) {
    let active = pods.iter().filter(|pod| is_active(pod));
    let ready = pods.iter().filter(|pod| is_active(pod) && is_ready(pod)).count();
    let kept = active.count() - decision.delete.len() + decision.create.len();
    let status = &mut decision.status;
    status.active = Some(number(kept)).filter(|count| *count > 0);
    status.ready = Some(number(ready));
    status.terminating = Some(number(count.terminating + decision.delete.len()));
    status.succeeded = status.succeeded.filter(|count| *count > 0);
    status.failed = status.failed.filter(|count| *count > 0);
    if let Some(completed) = &count.completed_indexes {
        status.completed_indexes = Some(indexes::format(completed)).filter(|text| !text.is_empty());
    }
}

/// Everything is counted and nothing runs: says how it ended.
fn end(decision: &mut Decision, failing: Option<Failure>, now: Timestamp) {
    let status = &mut decision.status;
    status.active = None;
    match failing {
        Some(Failure { reason, message }) => {
            say(status, Saying { kind: "Failed", status: "True", reason, message: &message }, now);
            decision.tell.push(Told::Failed { reason, message });
        }
        None => {
            let (reason, message) = REACHED;
            say(status, Saying { kind: "Complete", status: "True", reason, message }, now);
            status.completion_time = Some(api_time(now));
            decision.tell.push(Told::Completed);
        }
    }
}

fn next_deadline(spec: &JobSpec, status: &JobStatus, now: Timestamp, next: &mut Option<Duration>) {
    if let Some(deadline) = deadline(spec, status) {
        let left = Duration::try_from(deadline.duration_since(now)).unwrap_or_default();
        *next = Some(next.map_or(left, |known| known.min(left)));
    }
}

fn deadline(spec: &JobSpec, status: &JobStatus) -> Option<Timestamp> {
    let seconds = spec.active_deadline_seconds?;
    let started = status.start_time.as_ref()?.0;
    started.checked_add(jiff::SignedDuration::from_secs(seconds)).ok()
}

fn is_indexed(spec: &JobSpec) -> bool {
    spec.completion_mode.as_deref() == Some("Indexed")
}

fn completions(spec: &JobSpec) -> u32 {
    spec.completions.and_then(|completions| u32::try_from(completions).ok()).unwrap_or(0)
}

fn number(count: usize) -> i32 {
    i32::try_from(count).unwrap_or(i32::MAX)
}

#[cfg(test)]
mod tests;
