//! Work that ends.

use std::collections::BTreeMap;

use coracle_tests::{Cluster, examples, test_guest};
use serde_json::{Value, json};

fn with_example(name: &str) -> Cluster {
    let cluster = Cluster::start();
    cluster.import(&examples(name).join(format!("{name}.wasm")), &format!("{name}.wasm"));
    cluster.kubectl(&["apply", "-f", examples(name).to_str().unwrap()]);
    cluster
}

#[test]
fn a_job_runs_each_of_its_completions() {
    let cluster = with_example("batch");
    cluster.kubectl(&["wait", "--for=condition=complete", "job/batch", "--timeout=60s"]);
    let job = cluster.json(&["job", "batch"]);
    assert_eq!(job["status"]["succeeded"], job["spec"]["completions"]);
    assert_eq!(job["status"]["uncountedTerminatedPods"], serde_json::json!({}));
    let logs = cluster.kubectl(&["logs", "-l", "job-name=batch", "--tail=-1"]);
    assert_eq!(logs.lines().filter(|line| line.contains("primes")).count(), 5, "{logs}");
}

#[test]
fn a_failing_job_is_retried_and_then_given_up() {
    let cluster = Cluster::start();
    cluster.import_text(coracle_tests::guests::TRAPS, "traps.wasm");
    cluster.apply(
        "apiVersion: batch/v1
kind: Job
metadata: {name: broken}
spec:
  backoffLimit: 0
  template: {spec: {restartPolicy: Never, containers: [{name: c, image: traps.wasm}]}}
",
    );
    cluster.kubectl(&["wait", "--for=condition=failed", "job/broken", "--timeout=60s"]);
    let job = cluster.json(&["job", "broken"]);
    assert_eq!(job["status"]["failed"], 1);
    let events = cluster.kubectl(&["events", "--for", "job/broken"]);
    assert!(events.contains("Job has reached the specified backoff limit"), "{events}");
}

#[test]
fn a_job_is_deleted_its_time_after_it_ended_with_its_pods() {
    let cluster = Cluster::start();
    cluster.import(&examples("tick").join("tick.wasm"), "tick.wasm");
    cluster.apply(
        "apiVersion: batch/v1
kind: Job
metadata: {name: brief}
spec:
  ttlSecondsAfterFinished: 1
  template: {spec: {restartPolicy: Never, containers: [{name: c, image: tick.wasm}]}}
",
    );
    cluster.kubectl(&["wait", "--for=delete", "job/brief", "--timeout=60s"]);
    cluster.until("the pods are gone", |cluster| {
        cluster.kubectl(&["get", "pods", "-o", "name"]).is_empty()
    });
}

#[test]
fn a_cron_job_starts_a_job_at_its_time() {
    let cluster = with_example("tick");
    // At the latest the next full minute.
    cluster.kubectl(&[
        "wait",
        "--for=jsonpath={.status.lastScheduleTime}",
        "cronjob/tick",
        "--timeout=65s",
    ]);
    let jobs = cluster.json(&["jobs"]);
    let name = jobs["items"][0]["metadata"]["name"].as_str().unwrap().to_owned();
    assert!(name.starts_with("tick-"), "{name}");
    cluster.kubectl(&["wait", "--for=condition=complete", &format!("job/{name}"), "--timeout=30s"]);
    cluster.kubectl(&[
        "wait",
        "--for=jsonpath={.status.lastSuccessfulTime}",
        "cronjob/tick",
        "--timeout=30s",
    ]);

    cluster.kubectl(&["create", "job", "now", "--from=cronjob/tick"]);
    cluster.kubectl(&["wait", "--for=condition=complete", "job/now", "--timeout=30s"]);
}

#[test]
fn a_suspended_job_runs_when_it_is_resumed() {
    let cluster = Cluster::start();
    cluster.import(&examples("tick").join("tick.wasm"), "tick.wasm");
    cluster.apply(
        "apiVersion: batch/v1
kind: Job
metadata: {name: later}
spec:
  suspend: true
  template: {spec: {restartPolicy: Never, containers: [{name: c, image: tick.wasm}]}}
",
    );
    cluster.kubectl(&["wait", "--for=condition=suspended", "job/later", "--timeout=30s"]);
    assert!(cluster.kubectl(&["get", "pods", "-o", "name"]).is_empty());
    cluster.kubectl(&["patch", "job", "later", "-p", r#"{"spec":{"suspend":false}}"#]);
    cluster.kubectl(&["wait", "--for=condition=complete", "job/later", "--timeout=30s"]);
}

/// How many pods of a Job are in each phase.
fn phases(cluster: &Cluster, job: &str) -> BTreeMap<String, usize> {
    let mut phases = BTreeMap::new();
    let pods = cluster.json(&["pods", "-l", &format!("job-name={job}")]);
    for pod in pods["items"].as_array().unwrap() {
        let phase = pod["status"]["phase"].as_str().unwrap_or_default();
        *phases.entry(phase.to_owned()).or_default() += 1;
    }
    phases
}

#[test]
fn jobs_end_exactly_right_although_the_server_is_killed_again_and_again() {
    let mut cluster = Cluster::start();
    cluster.import(&test_guest("probe"), "probe.wasm");
    let job = |name: &str, policy: &str, spec: Value| {
        let container = json!({ "name": "c", "image": "probe.wasm", "args": ["sleep", "50"] });
        let mut job = json!({ "apiVersion": "batch/v1", "kind": "Job", "metadata": { "name": name },
            "spec": { "backoffLimit": 1000, "template": { "spec": {
                "restartPolicy": policy, "containers": [container] } } } });
        for (field, value) in spec.as_object().unwrap() {
            job["spec"][field] = value.clone();
        }
        job.to_string()
    };
    let indexed = json!({ "completions": 50, "parallelism": 4, "completionMode": "Indexed" });
    cluster.apply(&job("each", "OnFailure", indexed));
    cluster.apply(&job("many", "Never", json!({ "completions": 30, "parallelism": 3 })));
    let done = |cluster: &Cluster| {
        let jobs = cluster.json(&["jobs"]);
        let counts = jobs["items"].as_array().unwrap().iter();
        counts.map(|job| job["status"]["succeeded"].as_i64().unwrap_or(0)).sum::<i64>()
    };
    for enough in [1, 12, 30, 50] {
        cluster.until("some pods are counted", |cluster| done(cluster) >= enough);
        cluster.kill();
        cluster.run();
    }
    for (name, count) in [("each", 50), ("many", 30)] {
        let job = format!("job/{name}");
        cluster.kubectl(&["wait", "--for=condition=complete", &job, "--timeout=120s"]);
        let status = cluster.json(&["job", name])["status"].clone();
        assert_eq!(status["succeeded"], count, "{name}: {status}");
        let phases = phases(&cluster, name);
        assert_eq!(phases.get("Succeeded"), Some(&count), "{name}: {phases:?}");
        let failed = status["failed"].as_u64().unwrap_or(0);
        assert_eq!(phases.get("Failed").copied().unwrap_or(0) as u64, failed, "{name}: {status}");
    }
    let status = cluster.json(&["job", "each"])["status"].clone();
    assert_eq!(status["completedIndexes"], "0-49");
    cluster.until("no pod is held back", |cluster| {
        !cluster
            .kubectl(&["get", "pods", "-o", "json"])
            .contains("batch.kubernetes.io/job-tracking")
    });
}
