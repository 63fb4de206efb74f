//! A Job's conditions: how it stands, and how it ended.

use jiff::Timestamp;
use k8s_openapi::api::batch::v1::{Job, JobCondition, JobStatus};

use crate::api::api_time;

/// How a Job ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    Complete,
    Failed,
}

/// How the Job ended, if it has, and when.
pub(crate) fn outcome(job: &Job) -> Option<(Outcome, Option<Timestamp>)> {
    let status = job.status.as_ref()?;
    let ended = |kind| find(status, kind).filter(|condition| condition.status == "True");
    let time =
        |condition: &JobCondition| condition.last_transition_time.as_ref().map(|time| time.0);
    if let Some(condition) = ended("Complete") {
        return Some((Outcome::Complete, time(condition)));
    }
    ended("Failed").map(|condition| (Outcome::Failed, time(condition)))
}

/// Whether the condition holds.
pub(super) fn holds(status: &JobStatus, kind: &str) -> bool {
    find(status, kind).is_some_and(|condition| condition.status == "True")
}

/// The condition of this type.
pub(super) fn find<'a>(status: &'a JobStatus, kind: &str) -> Option<&'a JobCondition> {
    status.conditions.iter().flatten().find(|condition| condition.type_ == kind)
}

/// What is said of a condition.
#[derive(Debug, Clone, Copy)]
pub(super) struct Saying<'a> {
    pub kind: &'a str,
    pub status: &'a str,
    pub reason: &'a str,
    pub message: &'a str,
}

/// Sets a condition; its transition time changes only with its status.
pub(super) fn say(status: &mut JobStatus, saying: Saying<'_>, now: Timestamp) {
    let now = api_time(now);
    let before = find(status, saying.kind);
    let since = before
        .filter(|before| before.status == saying.status)
        .and_then(|before| before.last_transition_time.clone())
        .unwrap_or_else(|| now.clone());
    let condition = JobCondition {
        type_: saying.kind.to_owned(),
        status: saying.status.to_owned(),
        reason: Some(saying.reason.to_owned()),
        message: Some(saying.message.to_owned()),
        last_probe_time: Some(since.clone()),
        last_transition_time: Some(since),
    };
    let conditions = status.conditions.get_or_insert_default();
    match conditions.iter_mut().find(|known| known.type_ == saying.kind) {
        Some(known) => *known = condition,
        None => conditions.push(condition),
    }
}
