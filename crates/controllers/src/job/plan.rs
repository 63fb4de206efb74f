//! What one Job needs now. Pure: time is an argument.
//!
//! `view.rs` says what is there, `verdict.rs` whether the Job has to end, `management.rs` which pods come and go while it
//! goes on, and `accounting.rs` what the status says of pods that have ended.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::batch::v1::{Job, JobSpec, JobStatus};

use super::accounting::{Counted, count};
use super::backoff::Record;
use super::bears_finalizer;
use super::condition::{Outcome, Saying, holds, say};
use super::index_pods::Place;
use super::management::{Changes, manage};
use super::verdict::{Verdict, deadline, verdict};
use super::view::{View, number};
use crate::api::api_time;
use crate::pod::Pod;
use crate::pods::is_ready;

/// What to do, what to write then, and what to do after that.
#[derive(Debug, Default)]
pub(super) struct Decision {
    /// Pods of a Job that ends: they are deleted, and counted before they go.
    pub stop: Vec<Arc<Pod>>,
    /// Pods that are too many: they go uncounted.
    pub surplus: Vec<Arc<Pod>>,
    /// One entry a pod, with its place in an indexed Job.
    pub create: Vec<Option<Place>>,
    /// The whole status, if all of this could be done.
    pub status: JobStatus,
    /// Pods that the status names: their finalizer goes once it is stored.
    pub release: Vec<Arc<Pod>>,
    /// What to tell once the status is stored.
    pub tell: Vec<Told>,
    /// When to look again although nothing changed.
    pub next: Option<Duration>,
    /// The failures that the next pass has to know of.
    pub record: Record,
}

impl Decision {
    /// So many pods could not be made.
    pub fn lack(&mut self, missing: usize) {
        let active = self.status.active.unwrap_or(0).saturating_sub(number(missing));
        self.status.active = Some(active).filter(|active| *active > 0);
    }
}

/// What an Event says: its reason and message.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Told {
    Normal(&'static str, &'static str),
    Warning(String, String),
}

/// Decides for one Job that has not ended; `pods` are all that it controls, and `known` what the pass before knew of failures.
pub(super) fn plan(
    job: &Job,
    pods: &[Arc<Pod>],
    known: Option<Record>,
    now: Timestamp,
) -> Decision {
    let mut status = job.status.clone().unwrap_or_default();
    let Some(spec) = &job.spec else { return Decision { status, ..Decision::default() } };
    let view = View::new(job, spec, pods, now);
    let known =
        known.unwrap_or_else(|| Record::of(pods.iter().filter(|pod| !bears_finalizer(pod))));
    let record = known.after(&view.new_succeeded, &view.new_failed);
    if status.start_time.is_none() && !view.is_suspended() {
        status.start_time = Some(api_time(now));
    }

    let mut decision = Decision { record, ..Decision::default() };
    let mut ending = verdict(&view, &status);
    let mut changes = Changes::default();
    if ending.is_some() {
        decision.stop.clone_from(&view.active);
    } else {
        let goes_on = job.metadata.deletion_timestamp.is_none();
        if goes_on {
            changes = manage(&view, record);
        }
        let active = view.active.len() + changes.create.len() - changes.surplus.len();
        if active == 0 && has_succeeded(&view) {
            ending = Some(Verdict::completions_reached());
        } else if goes_on {
            note_suspension(&view, &mut status, &mut decision.tell);
        }
        decision.next = next(spec, &status, changes.wait, now);
    }
    write_counts(&view, &changes, &decision.stop, &mut status);
    let counted = count(&view, ending.as_ref(), &changes.surplus, &mut status);
    if let Some(verdict) = ending {
        end(&view, &verdict, &counted, &mut status, &mut decision.tell);
    }
    let (surplus, create) = (changes.surplus, changes.create);
    Decision { surplus, create, status, release: counted.release, ..decision }
}

fn has_succeeded(view: &View<'_>) -> bool {
    match view.spec.completions {
        Some(completions) => view.succeeded >= completions,
        None => view.succeeded > 0,
    }
}

fn note_suspension(view: &View<'_>, status: &mut JobStatus, tell: &mut Vec<Told>) {
    let (kind, suspended) = ("Suspended", view.is_suspended());
    let (value, reason, message, event) = match (holds(status, kind), suspended) {
        (false, true) => ("True", "JobSuspended", "Job suspended", "Suspended"),
        (true, false) => ("False", "JobResumed", "Job resumed", "Resumed"),
        (true, true) | (false, false) => return,
    };
    say(status, Saying { kind, status: value, reason, message }, view.now);
    // The deadline counts from the resumption.
    status.start_time = (!suspended).then(|| api_time(view.now));
    tell.push(Told::Normal(event, message));
}

fn next(
    spec: &JobSpec,
    status: &JobStatus,
    wait: Option<Duration>,
    now: Timestamp,
) -> Option<Duration> {
    let left =
        |deadline: Timestamp| Duration::try_from(deadline.duration_since(now)).unwrap_or_default();
    deadline(spec, status).map(left).into_iter().chain(wait).min()
}

fn write_counts(view: &View<'_>, changes: &Changes, stop: &[Arc<Pod>], status: &mut JobStatus) {
    let going = changes.surplus.len() + stop.len();
    let active = view.active.len() + changes.create.len() - going;
    let ready = |pods: &[Arc<Pod>]| pods.iter().filter(|pod| is_ready(pod)).count();
    let stay_ready = ready(&view.active) - ready(&changes.surplus) - ready(stop);
    status.active = Some(number(active)).filter(|count| *count > 0);
    status.ready = Some(number(stay_ready));
    status.terminating = Some(number(view.terminating() + going));
}

/// Says that the Job ends, and that it has ended once everything is counted and nothing runs.
fn end(
    view: &View<'_>,
    verdict: &Verdict,
    counted: &Counted,
    status: &mut JobStatus,
    tell: &mut Vec<Told>,
) {
    let (reason, message) = (verdict.reason.as_str(), verdict.message.as_str());
    let saying = |kind| Saying { kind, status: "True", reason, message };
    if !holds(status, verdict.target()) {
        say(status, saying(verdict.target()), view.now);
    }
    if !counted.complete || status.terminating != Some(0) {
        return;
    }
    say(status, saying(verdict.terminal()), view.now);
    match verdict.outcome {
        Outcome::Complete => {
            status.completion_time = Some(api_time(view.now));
            if view.spec.completions.is_some_and(|wanted| status.succeeded.unwrap_or(0) > wanted) {
                let why = "Too many succeeded pods running after completion count reached";
                tell.push(Told::Warning("TooManySucceededPods".to_owned(), why.to_owned()));
            }
            tell.push(Told::Normal("Completed", "Job completed"));
        }
        Outcome::Failed => tell.push(Told::Warning(reason.to_owned(), message.to_owned())),
    }
}

#[cfg(test)]
mod tests;
