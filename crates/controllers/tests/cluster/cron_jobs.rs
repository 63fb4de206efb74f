//! CronJobs: the Jobs that they start, replace, leave alone and forget.

use serde_json::{Value, json};

use crate::harness::Cluster;
use crate::text;

/// A CronJob of every week whose pods become what `becomes` says; see the harness.
fn cron_job(name: &str, becomes: &str, spec: Value) -> Value {
    let mut cron_job = json!({
        "apiVersion": "batch/v1", "kind": "CronJob", "metadata": { "name": name },
        "spec": { "schedule": "@weekly", "jobTemplate": { "spec": { "template": {
            "metadata": { "annotations": { "becomes": becomes } },
            "spec": { "restartPolicy": "Never", "containers": [{ "name": "c", "image": "one" }] } } } } },
    });
    for (field, value) in spec.as_object().unwrap() {
        cron_job["spec"][field] = value.clone();
    }
    cron_job
}

/// The Jobs of a CronJob, the oldest first.
async fn jobs_of(cluster: &Cluster, cron_job: &str) -> Vec<Value> {
    let mut jobs = cluster.list("Job").await;
    jobs.retain(|job| text(job, "/metadata/ownerReferences/0/name") == cron_job);
    jobs.sort_by_key(|job| text(job, "/metadata/name").to_owned());
    jobs
}

async fn until_jobs(cluster: &Cluster, cron_job: &str, count: usize) -> Vec<Value> {
    cluster
        .until(&format!("{cron_job} has {count} jobs"), || async {
            jobs_of(cluster, cron_job).await.len() == count
        })
        .await;
    jobs_of(cluster, cron_job).await
}

/// A week passes, in which one time comes, and every CronJob is looked at.
async fn a_week_later(cluster: &Cluster, names: &[&str], week: i64) {
    cluster.advance(7 * 24 * 3600);
    for name in names {
        let touch = json!({ "metadata": { "annotations": { "week": week.to_string() } } });
        cluster.patch("CronJob", name, touch).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_concurrency_policy_says_what_becomes_of_a_job_that_still_runs() {
    let cluster = Cluster::start().await;
    let names = ["many", "one", "newest"];
    for (name, policy) in names.iter().zip(["Allow", "Forbid", "Replace"]) {
        let spec = json!({ "concurrencyPolicy": policy });
        cluster.create(cron_job(name, "Running", spec)).await;
    }
    a_week_later(&cluster, &names, 1).await;
    let mut first = String::new();
    for name in names {
        let jobs = until_jobs(&cluster, name, 1).await;
        text(&jobs[0], "/metadata/name").clone_into(&mut first);
        cluster.until_field("CronJob", name, "/status/active/0/name", json!(first)).await;
    }
    a_week_later(&cluster, &names, 2).await;
    until_jobs(&cluster, "many", 2).await;
    let why =
        "Not starting job because prior execution is running and concurrency policy is Forbid";
    cluster
        .until("it is told", || async {
            cluster.events("one", "JobAlreadyActive").await.iter().any(|told| told == why)
        })
        .await;
    assert_eq!(jobs_of(&cluster, "one").await.len(), 1);
    cluster.until_gone("Job", &first).await;
    let second = until_jobs(&cluster, "newest", 1).await.remove(0);
    let second = text(&second, "/metadata/name");
    cluster.until_field("CronJob", "newest", "/status/active/0/name", json!(second)).await;
    cluster.until_field("CronJob", "newest", "/status/active/1", Value::Null).await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_time_is_started_once_although_the_controllers_die() {
    let mut cluster = Cluster::start().await;
    let history = json!({ "successfulJobsHistoryLimit": 2 });
    cluster.create(cron_job("tick", "", history)).await;
    let mut seen = std::collections::BTreeSet::new();
    for week in 1..=4 {
        let before = seen.len();
        a_week_later(&cluster, &["tick"], week).await;
        cluster
            .until("a new job is there", || async {
                let jobs = jobs_of(&cluster, "tick").await;
                jobs.iter().any(|job| !seen.contains(text(job, "/metadata/name")))
            })
            .await;
        cluster.kill_controllers().await;
        let jobs = jobs_of(&cluster, "tick").await;
        seen.extend(jobs.iter().map(|job| text(job, "/metadata/name").to_owned()));
        assert_eq!(seen.len(), before + 1, "one job a week");
        cluster.start_controllers();
        let newest = seen.last().cloned().unwrap_or_default();
        cluster.until_field("Job", &newest, "/status/succeeded", json!(1)).await;
    }
    cluster.until_field("CronJob", "tick", "/status/active", Value::Null).await;
    let kept = until_jobs(&cluster, "tick", 2).await;
    let newest: Vec<&str> = seen.iter().rev().take(2).rev().map(String::as_str).collect();
    let kept: Vec<&str> = kept.iter().map(|job| text(job, "/metadata/name")).collect();
    assert_eq!(kept, newest);
    let status = cluster.get("CronJob", "tick").await["status"].clone();
    assert!(status["lastSuccessfulTime"].is_string(), "{status}");
    let minutes: i64 = newest[1].rsplit('-').next().unwrap().parse().unwrap();
    let time = jiff::Timestamp::from_second(minutes * 60).unwrap().to_string();
    assert_eq!(status["lastScheduleTime"], json!(time));
    cluster.stop().await;
}
