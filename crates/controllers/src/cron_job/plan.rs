//! What one CronJob needs now. Pure: time is an argument.

use std::cmp::Reverse;
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::batch::v1::{CronJob, CronJobStatus, Job};
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::ResourceExt;

use super::schedule::{Missed, Schedule};
use crate::api::api_time;
use crate::job::{Outcome, outcome};
use crate::ownership::controlled_by;

/// Where a Job bears the time that it was started for.
const SCHEDULED_ANNOTATION: &str = "batch.kubernetes.io/cronjob-scheduled-timestamp";
/// Upstream looks this much after the time, so that a clock that runs behind does not miss it.
const AFTER_THE_TIME: Duration = Duration::from_millis(100);

/// What to do, and then what to write.
#[derive(Debug, Default)]
pub(super) struct Decision {
    pub status: CronJobStatus,
    pub create: Option<Box<Job>>,
    pub delete: Vec<Arc<Job>>,
    pub tell: Vec<Told>,
    pub next: Option<Duration>,
}

/// What an Event says: its reason and message.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Told {
    Normal(&'static str, String),
    Warning(&'static str, String),
}

/// Decides for one CronJob; `jobs` are all that it controls.
pub(super) fn plan(cron_job: &CronJob, jobs: &[Arc<Job>], now: Timestamp) -> Decision {
    let mut decision =
        Decision { status: cron_job.status.clone().unwrap_or_default(), ..Decision::default() };
    note_ended(jobs, &mut decision);
    trim_history(cron_job, jobs, &mut decision);
    let spec = &cron_job.spec;
    if cron_job.metadata.deletion_timestamp.is_some() || spec.suspend == Some(true) {
        return decision;
    }
    let schedule = match Schedule::parse(&spec.schedule, spec.time_zone.as_deref()) {
        Ok(schedule) => schedule,
        Err(error) => {
            let text = format!("unparseable schedule: {:?} : {error}", spec.schedule);
            decision.tell.push(Told::Warning("UnparseableSchedule", text));
            return decision;
        }
    };
    decision.next = schedule.next_after(now).map(|next| {
        Duration::try_from(next.duration_since(now)).unwrap_or_default() + AFTER_THE_TIME
    });
    if let Some(missed) = schedule.missed(since(cron_job, now), now) {
        start(cron_job, jobs, &missed, now, &mut decision);
    }
    decision
}

/// Puts a Job that was started into the status.
pub(super) fn note_started(status: &mut CronJobStatus, job: &Job) {
    let active = status.active.get_or_insert_default();
    if !active.iter().any(|known| known.uid == job.metadata.uid) {
        active.push(ObjectReference {
            api_version: Some("batch/v1".to_owned()),
            kind: Some("Job".to_owned()),
            name: job.metadata.name.clone(),
            namespace: job.metadata.namespace.clone(),
            uid: job.metadata.uid.clone(),
            resource_version: job.metadata.resource_version.clone(),
            field_path: None,
        });
    }
    let time = job.annotations().get(SCHEDULED_ANNOTATION).and_then(|time| time.parse().ok());
    let newest = status.last_schedule_time.as_ref().map(|time| time.0);
    if let Some(time) = time.filter(|time| newest.is_none_or(|newest| newest < *time)) {
        status.last_schedule_time = Some(api_time(time));
    }
}

/// The moment after which a time counts as not yet started.
fn since(cron_job: &CronJob, now: Timestamp) -> Timestamp {
    let created = cron_job.metadata.creation_timestamp.as_ref().map(|time| time.0);
    let last = cron_job.status.as_ref().and_then(|status| status.last_schedule_time.as_ref());
    let since = last.map(|time| time.0).or(created).unwrap_or(now);
    let deadline = cron_job.spec.starting_deadline_seconds.map(SignedDuration::from_secs);
    let earliest = deadline.and_then(|deadline| now.checked_sub(deadline).ok());
    earliest.map_or(since, |earliest| since.max(earliest))
}

fn start(
    cron_job: &CronJob,
    jobs: &[Arc<Job>],
    missed: &Missed,
    now: Timestamp,
    decision: &mut Decision,
) {
    if missed.count > 100 {
        let text = "too many missed start times. Set or decrease .spec.startingDeadlineSeconds or \
                    check clock skew"
            .to_owned();
        decision.tell.push(Told::Warning("TooManyMissedTimes", text));
    }
    let deadline = cron_job.spec.starting_deadline_seconds.map(SignedDuration::from_secs);
    if deadline.is_some_and(|deadline| now.duration_since(missed.newest) > deadline) {
        let text = format!("Missed scheduled time to start a job: {}", missed.newest);
        decision.tell.push(Told::Warning("MissSchedule", text));
        return;
    }
    let active: Vec<&Arc<Job>> = jobs.iter().filter(|job| outcome(job).is_none()).collect();
    match cron_job.spec.concurrency_policy.as_deref() {
        Some("Forbid") if !active.is_empty() => {
            let text =
                "Not starting job because prior execution is running and concurrency policy \
                        is Forbid"
                    .to_owned();
            decision.tell.push(Told::Normal("JobAlreadyActive", text));
            return;
        }
        Some("Replace") => {
            decision.delete.extend(active.into_iter().cloned());
            decision.status.active = None;
        }
        _ => (),
    }
    let job = job_for(cron_job, missed.newest);
    if !jobs.iter().any(|known| known.metadata.name == job.metadata.name) {
        decision.create = Some(Box::new(job));
    }
}

/// The Job of one scheduled time: its name is made of the time in minutes, as upstream's `getJobName`.
fn job_for(cron_job: &CronJob, time: Timestamp) -> Job {
    let template = &cron_job.spec.job_template;
    let meta = template.metadata.clone().unwrap_or_default();
    let mut annotations = meta.annotations.unwrap_or_default();
    let zone = cron_job.spec.time_zone.as_deref().and_then(|zone| time.in_tz(zone).ok());
    let shown = match zone {
        Some(zoned) => zoned.strftime("%Y-%m-%dT%H:%M:%S%:z").to_string(),
        None => time.to_string(),
    };
    annotations.insert(SCHEDULED_ANNOTATION.to_owned(), shown);
    Job {
        metadata: ObjectMeta {
            name: Some(format!("{}-{}", cron_job.name_any(), time.as_second() / 60)),
            namespace: cron_job.metadata.namespace.clone(),
            labels: meta.labels,
            annotations: Some(annotations),
            owner_references: Some(vec![controlled_by(cron_job)]),
            ..ObjectMeta::default()
        },
        spec: template.spec.clone(),
        status: None,
    }
}

/// Takes Jobs that ended, or are gone, out of the active ones.
fn note_ended(jobs: &[Arc<Job>], decision: &mut Decision) {
    let mut active = decision.status.active.take().unwrap_or_default();
    active.retain(|known| {
        let name = known.name.clone().unwrap_or_default();
        let Some(job) = jobs.iter().find(|job| job.metadata.uid == known.uid) else {
            let text = format!("Active job went missing: {name}");
            decision.tell.push(Told::Normal("MissingJob", text));
            return false;
        };
        let Some((how, at)) = outcome(job) else { return true };
        let shown = match how {
            Outcome::Complete => "Complete",
            Outcome::Failed => "Failed",
        };
        let text = format!("Saw completed job: {name}, condition: {shown}");
        decision.tell.push(Told::Normal("SawCompletedJob", text));
        let newest = decision.status.last_successful_time.as_ref().map(|time| time.0);
        if let (Outcome::Complete, Some(at)) = (how, at)
            && newest.is_none_or(|newest| newest < at)
        {
            decision.status.last_successful_time = Some(api_time(at));
        }
        false
    });
    decision.status.active = (!active.is_empty()).then_some(active);
}

/// Deletes the oldest Jobs beyond the limits.
fn trim_history(cron_job: &CronJob, jobs: &[Arc<Job>], decision: &mut Decision) {
    let limits = [
        (Outcome::Complete, cron_job.spec.successful_jobs_history_limit.unwrap_or(3)),
        (Outcome::Failed, cron_job.spec.failed_jobs_history_limit.unwrap_or(1)),
    ];
    for (wanted, limit) in limits {
        let ended = jobs.iter().filter(|job| outcome(job).is_some_and(|(how, _)| how == wanted));
        let mut ended: Vec<&Arc<Job>> =
            ended.filter(|job| job.metadata.deletion_timestamp.is_none()).collect();
        let started = |job: &Job| {
            job.status.as_ref().and_then(|status| status.start_time.as_ref()).map(|time| time.0)
        };
        ended.sort_by_key(|job| Reverse((started(job), job.metadata.name.clone())));
        let limit = usize::try_from(limit).unwrap_or(0);
        decision.delete.extend(ended.into_iter().skip(limit).cloned());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn cron_job(extra: Value, last: Option<&str>) -> CronJob {
        let mut spec = json!({ "schedule": "*/10 * * * *",
            "jobTemplate": { "spec": { "template": { "spec": { "containers": [] } } } } });
        for (key, value) in extra.as_object().unwrap() {
            spec[key] = value.clone();
        }
        serde_json::from_value(json!({ "spec": spec, "status": { "lastScheduleTime": last },
            "metadata": { "name": "tick", "namespace": "d", "uid": "c",
                "creationTimestamp": "2026-01-01T00:00:00Z" } }))
        .unwrap()
    }

    fn job(name: &str, condition: Option<&str>, started: &str) -> Arc<Job> {
        let conditions = condition
            .map(|kind| json!([{ "type": kind, "status": "True", "lastTransitionTime": started }]));
        Arc::new(
            serde_json::from_value(json!({ "metadata": { "name": name, "uid": name },
            "status": { "startTime": started, "conditions": conditions } }))
            .unwrap(),
        )
    }

    fn at(text: &str) -> Timestamp {
        format!("2026-01-01T{text}Z").parse().unwrap()
    }

    /// The name of the Job that is started, and the reasons that are told.
    fn check(
        cron_job: &CronJob,
        jobs: &[Arc<Job>],
        now: &str,
        expected: Option<i64>,
        told: &[&str],
    ) -> Decision {
        let decision = plan(cron_job, jobs, at(now));
        let name = decision.create.as_ref().map(|job| job.name_any());
        assert_eq!(
            name,
            expected.map(|minute| format!("tick-{}", at("00:00:00").as_second() / 60 + minute))
        );
        let reasons: Vec<&str> = decision
            .tell
            .iter()
            .map(|it| match it {
                Told::Normal(reason, _) | Told::Warning(reason, _) => *reason,
            })
            .collect();
        assert_eq!(reasons, told);
        decision
    }

    #[test]
    fn a_job_is_started_at_its_time_and_not_again() {
        let decision = check(&cron_job(json!({}), None), &[], "00:09:00", None, &[]);
        assert_eq!(decision.next, Some(Duration::from_millis(60_100)));
        let decision = check(&cron_job(json!({}), None), &[], "00:10:00", Some(10), &[]);
        let started = decision.create.unwrap();
        assert_eq!(started.annotations()[SCHEDULED_ANNOTATION], "2026-01-01T00:10:00Z");
        let mut status = decision.status;
        note_started(&mut status, &started);
        assert_eq!(status.last_schedule_time, Some(api_time(at("00:10:00"))));
        check(&cron_job(json!({}), Some("2026-01-01T00:10:00Z")), &[], "00:19:59", None, &[]);
    }

    #[test]
    fn of_missed_times_the_newest_is_made_up_for_within_the_deadline() {
        let last = Some("2026-01-01T00:10:00Z");
        check(&cron_job(json!({}), last), &[], "00:45:00", Some(40), &[]);
        check(
            &cron_job(json!({ "startingDeadlineSeconds": 400 }), last),
            &[],
            "00:45:00",
            Some(40),
            &[],
        );
        check(
            &cron_job(json!({ "startingDeadlineSeconds": 60 }), last),
            &[],
            "00:45:00",
            None,
            &[],
        );
        let late = cron_job(json!({ "schedule": "* * * * *" }), last);
        check(&late, &[], "12:00:00", Some(720), &["TooManyMissedTimes"]);
    }

    #[test]
    fn the_concurrency_policy_decides_while_a_job_runs() {
        let running = [job("tick-1", None, "2026-01-01T00:00:30Z")];
        check(&cron_job(json!({}), None), &running, "00:10:00", Some(10), &[]);
        let forbid = cron_job(json!({ "concurrencyPolicy": "Forbid" }), None);
        check(&forbid, &running, "00:10:00", None, &["JobAlreadyActive"]);
        let replace = cron_job(json!({ "concurrencyPolicy": "Replace" }), None);
        let decision = check(&replace, &running, "00:10:00", Some(10), &[]);
        assert_eq!(decision.delete.len(), 1);
    }

    #[test]
    fn history_is_trimmed_and_a_suspended_cron_job_starts_nothing() {
        let mut jobs: Vec<_> = (0..5)
            .map(|it| job(&format!("s{it}"), Some("Complete"), &format!("2026-01-01T00:0{it}:00Z")))
            .collect();
        jobs.push(job("f0", Some("Failed"), "2026-01-01T00:00:00Z"));
        let suspended = cron_job(json!({ "suspend": true }), None);
        let decision = check(&suspended, &jobs, "00:30:00", None, &[]);
        let mut deleted: Vec<_> = decision.delete.iter().map(|job| job.name_any()).collect();
        deleted.sort();
        assert_eq!(deleted, ["s0", "s1"]);
    }

    #[test]
    fn a_schedule_that_cannot_be_read_is_told() {
        check(
            &cron_job(json!({ "schedule": "x" }), None),
            &[],
            "00:30:00",
            None,
            &["UnparseableSchedule"],
        );
    }
}
