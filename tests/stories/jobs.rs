//! Work that ends.

use coracle_tests::{Cluster, examples};

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
