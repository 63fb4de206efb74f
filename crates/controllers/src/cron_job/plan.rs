//! What one CronJob needs now. Pure: time is an argument.

use std::cmp::Reverse;
use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use coracle_api::cron::Schedule;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::batch::v1::{CronJob, CronJobStatus, Job};
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::ResourceExt;

use crate::api::api_time;
use crate::job::{Outcome, outcome};
use crate::ownership::controlled_by;

/// Where a Job bears the time that it was started for.
const SCHEDULED_ANNOTATION: &str = "batch.kubernetes.io/cronjob-scheduled-timestamp";
/// Upstream looks this much after the time, so that a clock that runs behind does not miss it.
const AFTER_THE_TIME: Duration = Duration::from_millis(100);
/// Beyond so many missed times somebody is told of it.
const MANY_MISSED: i64 = 100;

/// What to do, and then what to write.
#[derive(Debug, Default)]
pub(super) struct Decision {
    pub status: CronJobStatus,
    pub create: Option<Box<Job>>,
    /// Jobs that make room for the one that is created.
    pub replace: Vec<Arc<Job>>,
    /// Jobs that ended too long ago.
    pub trim: Vec<Arc<Job>>,
    pub tell: Vec<Told>,
    pub next: Option<Duration>,
}

/// What an Event says: its reason and message.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Told {
    Normal(&'static str, String),
    Warning(&'static str, String),
}

/// The Jobs of a CronJob.
pub(super) struct Observed<'a> {
    pub cron_job: &'a CronJob,
    /// All that it controls.
    pub jobs: &'a [Arc<Job>],
    /// The uids of others that its status names and that are there.
    pub others: &'a HashSet<String>,
}

/// Decides for one CronJob.
pub(super) fn plan(observed: &Observed<'_>, now: Timestamp) -> Decision {
    let Observed { cron_job, jobs, .. } = *observed;
    let mut decision =
        Decision { status: cron_job.status.clone().unwrap_or_default(), ..Decision::default() };
    note_ended(observed, &mut decision);
    trim_history(cron_job, jobs, &mut decision);
    let spec = &cron_job.spec;
    if cron_job.metadata.deletion_timestamp.is_some() {
        return decision;
    }
    let zone = match &spec.time_zone {
        None => Ok(TimeZone::UTC),
        Some(name) => TimeZone::get(name).map_err(|_| name),
    };
    let zone = match zone {
        Ok(zone) => zone,
        Err(name) => {
            let text = format!("invalid timeZone: {name:?}: unknown time zone {name}");
            decision.tell.push(Told::Warning("UnknownTimeZone", text));
            return decision;
        }
    };
    if spec.suspend == Some(true) {
        return decision;
    }
    let schedule = match Schedule::parse(&spec.schedule) {
        Ok(schedule) => schedule,
        Err(error) => {
            let text = format!("unparseable schedule: {:?} : {error}", spec.schedule);
            decision.tell.push(Told::Warning("UnparseableSchedule", text));
            return decision;
        }
    };
    if schedule.next_after(now, &zone).is_none() {
        let why = "time difference between two schedules is less than 1 second";
        let text = format!("invalid schedule: {} : {why}", spec.schedule);
        decision.tell.push(Told::Warning("InvalidSchedule", text));
        return decision;
    }
    let times = Times { schedule: &schedule, zone: &zone, now };
    if let Some(time) = times.due(cron_job, &mut decision.tell) {
        start(cron_job, jobs, time, now, &mut decision);
    }
    decision.next = times.wait(cron_job);
    decision
}

/// The times of a schedule, and what time it is.
struct Times<'a> {
    schedule: &'a Schedule,
    zone: &'a TimeZone,
    now: Timestamp,
}

impl Times<'_> {
    /// The newest time that was not started yet, within the starting deadline. Upstream: `nextScheduleTime`.
    fn due(&self, cron_job: &CronJob, tell: &mut Vec<Told>) -> Option<Timestamp> {
        let deadline = cron_job.spec.starting_deadline_seconds.map(SignedDuration::from_secs);
        let earliest = deadline.and_then(|deadline| self.now.checked_sub(deadline).ok());
        let since = since(cron_job, self.now);
        let since = earliest.map_or(since, |earliest| since.max(earliest));
        let newest = self.schedule.newest(since, self.now, self.zone)?;
        if self.are_many(since) {
            let text = "too many missed start times. Set or decrease .spec.startingDeadlineSeconds or \
                 check clock skew";
            tell.push(Told::Warning("TooManyMissedTimes", text.to_owned()));
        }
        Some(newest)
    }

    /// Whether about more than a hundred times were missed. Upstream's estimate by the distance of the first two.
    fn are_many(&self, since: Timestamp) -> bool {
        let next = |after| self.schedule.next_after(after, self.zone);
        let Some((first, second)) = next(since).and_then(|first| Some((first, next(first)?)))
        else {
            return false;
        };
        let distance = second.duration_since(first).as_secs().max(1);
        self.now.duration_since(first).as_secs() / distance + 1 > MANY_MISSED
    }

    /// How long until the next time; `@every` counts from the one before. Upstream: `nextScheduleTimeDuration`.
    fn wait(&self, cron_job: &CronJob) -> Option<Duration> {
        let since = since(cron_job, self.now);
        let newest = self.schedule.newest(since, self.now, self.zone);
        let next = self.schedule.next_after(newest.unwrap_or(since), self.zone)?;
        let left = Duration::try_from(next.duration_since(self.now)).unwrap_or_default();
        Some(left + AFTER_THE_TIME)
    }
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
    last.map(|time| time.0).or(created).unwrap_or(now)
}

fn start(
    cron_job: &CronJob,
    jobs: &[Arc<Job>],
    time: Timestamp,
    now: Timestamp,
    decision: &mut Decision,
) {
    let deadline = cron_job.spec.starting_deadline_seconds.map(SignedDuration::from_secs);
    if deadline.is_some_and(|deadline| now.duration_since(time) > deadline) {
        let shown = time.strftime("%a, %d %b %Y %H:%M:%S +0000");
        let text = format!("Missed scheduled time to start a job: {shown}");
        decision.tell.push(Told::Warning("MissSchedule", text));
        return;
    }
    let job = job_for(cron_job, time);
    let active = decision.status.active.clone().unwrap_or_default();
    if active.iter().any(|known| known.name == job.metadata.name) {
        return;
    }
    // An earlier try made it, and only the status is missing.
    if let Some(made) = jobs.iter().find(|known| known.metadata.name == job.metadata.name) {
        note_started(&mut decision.status, made);
        return;
    }
    match cron_job.spec.concurrency_policy.as_deref() {
        Some("Forbid") if !active.is_empty() => {
            let text = "Not starting job because prior execution is running and concurrency \
                        policy is Forbid";
            decision.tell.push(Told::Normal("JobAlreadyActive", text.to_owned()));
            return;
        }
        Some("Replace") => {
            let is_active = |job: &&Arc<Job>| active.iter().any(|it| it.uid == job.metadata.uid);
            decision.replace.extend(jobs.iter().filter(is_active).cloned());
            decision.status.active = None;
        }
        _ => (),
    }
    decision.create = Some(Box::new(job));
}

/// The Job of one scheduled time: its name is made of the time in minutes, as upstream's `getJobName`.
fn job_for(cron_job: &CronJob, time: Timestamp) -> Job {
    let template = &cron_job.spec.job_template;
    let meta = template.metadata.clone().unwrap_or_default();
    let mut annotations = meta.annotations.unwrap_or_default();
    let zone = cron_job.spec.time_zone.as_deref().and_then(|zone| time.in_tz(zone).ok());
    let shown = match zone.filter(|zoned| !zoned.offset().is_zero()) {
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

/// Takes Jobs that ended, or are gone, out of the active ones, and notes when the last one succeeded.
fn note_ended(observed: &Observed<'_>, decision: &mut Decision) {
    let Decision { status, tell, .. } = decision;
    let mut active = status.active.take().unwrap_or_default();
    for job in observed.jobs {
        let name = job.name_any();
        let known = active.iter().position(|known| known.uid == job.metadata.uid);
        match (outcome(job), known) {
            (None, Some(_)) => (),
            (None, None) => {
                let text =
                    format!("Saw a job that the controller did not create or forgot: {name}");
                tell.push(Told::Warning("UnexpectedJob", text));
            }
            (Some((how, _)), known) => {
                if let Some(known) = known {
                    active.remove(known);
                    let shown = match how {
                        Outcome::Complete => "Complete",
                        Outcome::Failed => "Failed",
                    };
                    let text = format!("Saw completed job: {name}, condition: {shown}");
                    tell.push(Told::Normal("SawCompletedJob", text));
                }
                let end = job.status.as_ref().and_then(|status| status.completion_time.clone());
                let newest = status.last_successful_time.clone();
                if how == Outcome::Complete && newest.map(|at| at.0) < end.clone().map(|at| at.0) {
                    status.last_successful_time = end;
                }
            }
        }
    }
    active.retain(|known| {
        let is_there = observed.jobs.iter().any(|job| job.metadata.uid == known.uid)
            || known.uid.as_ref().is_some_and(|uid| observed.others.contains(uid));
        if !is_there {
            let name = known.name.as_deref().unwrap_or_default();
            tell.push(Told::Normal("MissingJob", format!("Active job went missing: {name}")));
        }
        is_there
    });
    status.active = (!active.is_empty()).then_some(active);
}

/// Deletes the oldest Jobs beyond the limits.
fn trim_history(cron_job: &CronJob, jobs: &[Arc<Job>], decision: &mut Decision) {
    let limits = [
        (Outcome::Complete, cron_job.spec.successful_jobs_history_limit),
        (Outcome::Failed, cron_job.spec.failed_jobs_history_limit),
    ];
    for (wanted, limit) in limits {
        let Some(limit) = limit.and_then(|limit| usize::try_from(limit).ok()) else { continue };
        let ended = jobs.iter().filter(|job| outcome(job).is_some_and(|(how, _)| how == wanted));
        let mut ended: Vec<&Arc<Job>> =
            ended.filter(|job| job.metadata.deletion_timestamp.is_none()).collect();
        let started = |job: &Job| {
            job.status.as_ref().and_then(|status| status.start_time.as_ref()).map(|time| time.0)
        };
        // One that never started is the newest.
        ended.sort_by_cached_key(|job| {
            Reverse((started(job).is_none(), started(job), job.metadata.name.clone()))
        });
        decision.trim.extend(ended.into_iter().skip(limit).cloned());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn cron_job(extra: Value, last: Option<&str>) -> CronJob {
        let mut spec = json!({ "schedule": "*/10 * * * *",
            "successfulJobsHistoryLimit": 3, "failedJobsHistoryLimit": 1, "jobTemplate": { "spec": { "template": { "spec": { "containers": [] } } } } });
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
            "status": { "startTime": started, "conditions": conditions,
                "completionTime": (condition == Some("Complete")).then_some(started) } }))
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
        let observed = Observed { cron_job, jobs, others: &HashSet::new() };
        let decision = plan(&observed, at(now));
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

    /// A CronJob whose status names a Job of this name and uid.
    fn running(extra: Value, job: &str) -> CronJob {
        let mut cron_job = cron_job(extra, None);
        let status = json!({ "active": [{ "name": job, "uid": job }] });
        cron_job.status = Some(serde_json::from_value(status).unwrap());
        cron_job
    }

    #[test]
    fn the_concurrency_policy_decides_while_a_job_runs() {
        let there = [job("tick-1", None, "2026-01-01T00:00:30Z")];
        check(&running(json!({}), "tick-1"), &there, "00:10:00", Some(10), &[]);
        let forbid = running(json!({ "concurrencyPolicy": "Forbid" }), "tick-1");
        check(&forbid, &there, "00:10:00", None, &["JobAlreadyActive"]);
        let replace = running(json!({ "concurrencyPolicy": "Replace" }), "tick-1");
        let decision = check(&replace, &there, "00:10:00", Some(10), &[]);
        assert_eq!((decision.replace.len(), decision.status.active), (1, None));
        // Jobs that it did not start do not count.
        let forbid = cron_job(json!({ "concurrencyPolicy": "Forbid" }), None);
        check(&forbid, &there, "00:10:00", Some(10), &["UnexpectedJob"]);
    }

    #[test]
    fn what_became_of_the_jobs_is_noted() {
        let ended = [job("tick-1", Some("Complete"), "2026-01-01T00:05:00Z")];
        let decision =
            check(&running(json!({}), "tick-1"), &ended, "00:06:00", None, &["SawCompletedJob"]);
        assert_eq!(decision.status.active, None);
        assert_eq!(decision.status.last_successful_time, Some(api_time(at("00:05:00"))));
        // Somebody started it by hand: it succeeded all the same.
        let decision = check(&cron_job(json!({}), None), &ended, "00:06:00", None, &[]);
        assert_eq!(decision.status.last_successful_time, Some(api_time(at("00:05:00"))));
        let missing = check(&running(json!({}), "gone"), &[], "00:06:00", None, &["MissingJob"]);
        assert_eq!(missing.status.active, None);
        let others = HashSet::from(["gone".to_owned()]);
        let cron_job = running(json!({}), "gone");
        let observed = Observed { cron_job: &cron_job, jobs: &[], others: &others };
        assert!(plan(&observed, at("00:06:00")).tell.is_empty());
    }

    #[test]
    fn a_job_that_was_made_and_not_noted_is_noted_and_not_made_again() {
        let name = format!("tick-{}", at("00:10:00").as_second() / 60);
        let mut made = Job::clone(&job(&name, None, "2026-01-01T00:10:00Z"));
        made.annotations_mut().insert(SCHEDULED_ANNOTATION.to_owned(), at("00:10:00").to_string());
        let forbid = cron_job(json!({ "concurrencyPolicy": "Forbid" }), None);
        let decision = check(&forbid, &[Arc::new(made)], "00:10:01", None, &["UnexpectedJob"]);
        assert_eq!(decision.status.last_schedule_time, Some(api_time(at("00:10:00"))));
        assert_eq!(decision.status.active.unwrap()[0].name, Some(name));
    }

    #[test]
    fn every_goes_on_from_the_last_time() {
        let every = cron_job(json!({ "schedule": "@every 7m" }), Some("2026-01-01T00:01:30Z"));
        let decision = check(&every, &[], "00:08:00", None, &[]);
        assert_eq!(decision.next, Some(Duration::from_millis(30_100)));
        let decision = check(&every, &[], "00:17:00", Some(15), &[]);
        assert_eq!(decision.next, Some(Duration::from_millis(5 * 60_000 + 30_100)));
    }

    #[test]
    fn the_scheduled_time_is_told_in_the_time_zone() {
        let shown = |zone: &str| {
            let decision =
                check(&cron_job(json!({ "timeZone": zone }), None), &[], "00:10:00", Some(10), &[]);
            decision.create.unwrap().annotations()[SCHEDULED_ANNOTATION].clone()
        };
        assert_eq!(shown("Asia/Tokyo"), "2026-01-01T09:10:00+09:00");
        assert_eq!(shown("Etc/UTC"), "2026-01-01T00:10:00Z");
    }

    #[test]
    fn history_is_trimmed_and_a_suspended_cron_job_starts_nothing() {
        let mut jobs: Vec<_> = (0..5)
            .map(|it| job(&format!("s{it}"), Some("Complete"), &format!("2026-01-01T00:0{it}:00Z")))
            .collect();
        jobs.push(job("f0", Some("Failed"), "2026-01-01T00:00:00Z"));
        let suspended = cron_job(json!({ "suspend": true }), None);
        let decision = check(&suspended, &jobs, "00:30:00", None, &[]);
        let mut deleted: Vec<_> = decision.trim.iter().map(|job| job.name_any()).collect();
        deleted.sort();
        assert_eq!(deleted, ["s0", "s1"]);
    }

    #[test]
    fn a_schedule_without_a_time_is_told() {
        let check_told = |extra: Value, expected: Told| {
            let cron_job = cron_job(extra, None);
            let observed = Observed { cron_job: &cron_job, jobs: &[], others: &HashSet::new() };
            let decision = plan(&observed, at("00:30:00"));
            assert_eq!((decision.next, decision.tell), (None, vec![expected]));
        };
        let text = "unparseable schedule: \"x\" : expected exactly 5 fields, found 1: [x]";
        check_told(
            json!({ "schedule": "x" }),
            Told::Warning("UnparseableSchedule", text.to_owned()),
        );
        let text = "invalid schedule: 30 2 31 2 * : time difference between two schedules is less than 1 second";
        let told = Told::Warning("InvalidSchedule", text.to_owned());
        check_told(json!({ "schedule": "30 2 31 2 *" }), told);
        let text = "invalid timeZone: \"Mars/Olympus\": unknown time zone Mars/Olympus";
        let told = Told::Warning("UnknownTimeZone", text.to_owned());
        check_told(json!({ "timeZone": "Mars/Olympus" }), told);
    }
}
