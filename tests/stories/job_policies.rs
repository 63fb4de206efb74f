//! What a Job's policies make of the way in which its pods end.

use coracle_tests::{Cluster, guests, test_guest};
use serde_json::{Value, json};

/// A cluster whose guest `probe.wasm` does what its words say.
fn with_probe() -> Cluster {
    let cluster = Cluster::start();
    cluster.import(&test_guest("probe"), "probe.wasm");
    cluster
}

fn job(name: &str, words: &str, spec: Value) -> String {
    let words: Vec<&str> = words.split(' ').collect();
    let mut job = json!({
        "apiVersion": "batch/v1", "kind": "Job", "metadata": { "name": name },
        "spec": { "template": { "spec": { "restartPolicy": "Never", "terminationGracePeriodSeconds": 1,
            "containers": [{ "name": "c", "image": "probe.wasm", "args": words }] } } },
    });
    for (field, value) in spec.as_object().unwrap() {
        job["spec"][field] = value.clone();
    }
    job.to_string()
}

fn wait(cluster: &Cluster, condition: &str, job: &str) -> Value {
    let condition = format!("--for=condition={condition}");
    cluster.kubectl(&["wait", &condition, &format!("job/{job}"), "--timeout=60s"]);
    cluster.json(&["job", job])["status"].clone()
}

fn message(status: &Value, kind: &str) -> String {
    let conditions = status["conditions"].as_array().unwrap();
    let found = conditions.iter().find(|condition| condition["type"] == kind).unwrap();
    format!("{}: {}", found["reason"].as_str().unwrap(), found["message"].as_str().unwrap())
}

#[test]
fn an_exit_code_fails_the_job_at_once_or_is_passed_over() {
    let cluster = with_probe();
    let rules = json!({ "rules": [{ "action": "FailJob", "onExitCodes":
        { "containerName": "c", "operator": "In", "values": [42] } }] });
    // The component model knows one code for failure; a core module has them all.
    cluster.import_text(&guests::exits(42), "exits.wasm");
    let early = job("early", "", json!({ "podFailurePolicy": rules }));
    cluster.apply(&early.replace("probe.wasm", "exits.wasm"));
    let status = wait(&cluster, "failed", "early");
    let pod = cluster.kubectl(&["get", "pods", "-l", "job-name=early", "-o", "name"]);
    let pod = pod.trim().strip_prefix("pod/").unwrap();
    let why = format!(
        "Container c for pod default/{pod} failed with exit code 42 matching FailJob rule at index 0"
    );
    assert_eq!(message(&status, "Failed"), format!("PodFailurePolicy: {why}"));
    assert_eq!(status["failed"], 1);
    let told = cluster.kubectl(&["describe", "job", "early"]);
    assert!(told.contains("PodFailurePolicy") && told.contains(&why), "{told}");

    let refused = json!({ "podFailurePolicy": rules, "template": { "spec": { "restartPolicy": "OnFailure",
        "containers": [{ "name": "c", "image": "probe.wasm" }] } } });
    let output = cluster.try_kubectl_with(&["apply", "-f", "-"], &job("wrong", "exit 1", refused));
    let text = "only \"Never\" is supported when podFailurePolicy is specified";
    assert!(output.stderr.contains(text), "{output:?}");
}

#[test]
fn indexes_fail_by_themselves_and_the_others_are_done() {
    let cluster = with_probe();
    let rules = json!({ "rules": [{ "action": "FailIndex", "onExitCodes":
        { "operator": "In", "values": [1] } }] });
    let spec = json!({ "completions": 4, "parallelism": 2, "completionMode": "Indexed",
        "backoffLimitPerIndex": 5, "podFailurePolicy": rules });
    // Index 0 exits well, and the others do not.
    cluster.apply(&job("parts", "exit $(JOB_COMPLETION_INDEX)", spec.clone()));
    let status = wait(&cluster, "failed", "parts");
    assert_eq!(message(&status, "Failed"), "FailedIndexes: Job has failed indexes");
    assert_eq!(
        (&status["completedIndexes"], &status["failedIndexes"]),
        (&json!("0"), &json!("1-3"))
    );
    assert_eq!((&status["succeeded"], &status["failed"]), (&json!(1), &json!(3)));
    let shown = cluster.kubectl(&["describe", "job", "parts"]);
    assert!(shown.contains("Completed Indexes:"), "{shown}");

    let mut few = spec;
    few["maxFailedIndexes"] = json!(1);
    cluster.apply(&job("few", "exit 1", few));
    let status = wait(&cluster, "failed", "few");
    let why = "Job has exceeded the specified maximal number of failed indexes";
    assert_eq!(message(&status, "Failed"), format!("MaxFailedIndexesExceeded: {why}"));
}

#[test]
fn a_success_policy_ends_a_job_while_others_still_run() {
    let cluster = with_probe();
    // Index 0 sleeps no time, the others for minutes.
    let words = "sleep $(JOB_COMPLETION_INDEX)00000";
    let spec = json!({ "completions": 3, "parallelism": 3, "completionMode": "Indexed",
        "successPolicy": { "rules": [{ "succeededIndexes": "0-1", "succeededCount": 1 }] } });
    cluster.apply(&job("leader", words, spec));
    let status = wait(&cluster, "complete", "leader");
    assert_eq!(message(&status, "SuccessCriteriaMet"), "SuccessPolicy: Matched rules at index 0");
    assert_eq!((&status["succeeded"], &status["failed"]), (&json!(1), &Value::Null));
    assert_eq!(status["completedIndexes"], "0");
    let left = cluster.kubectl(&["get", "pods", "-o", "jsonpath={.items[*].status.phase}"]);
    assert_eq!(left, "Succeeded");
    let told = cluster.kubectl(&["events", "--for", "job/leader"]);
    assert!(told.contains("Completed") && told.contains("SuccessfulDelete"), "{told}");
}

#[test]
fn an_indexed_job_changes_its_size_while_it_runs() {
    let cluster = with_probe();
    let spec = json!({ "completions": 2, "parallelism": 2, "completionMode": "Indexed" });
    cluster.apply(&job("elastic", "sleep 600000", spec));
    let until_ready = |count: i32| {
        let ready = format!("--for=jsonpath={{.status.ready}}={count}");
        cluster.kubectl(&["wait", &ready, "job/elastic", "--timeout=60s"]);
    };
    until_ready(2);
    let resize =
        |size: i32| json!({ "spec": { "completions": size, "parallelism": size } }).to_string();
    cluster.kubectl(&["patch", "job", "elastic", "-p", &resize(3)]);
    until_ready(3);
    cluster.kubectl(&["patch", "job", "elastic", "-p", &resize(1)]);
    until_ready(1);
    let label = "job-name=elastic,batch.kubernetes.io/job-completion-index=0";
    cluster.until("only the first index is left", |cluster| {
        let all = cluster.kubectl(&["get", "pods", "-o", "name"]);
        all.lines().count() == 1
            && all == cluster.kubectl(&["get", "pods", "-l", label, "-o", "name"])
    });
    assert_eq!(cluster.json(&["job", "elastic"])["status"]["failed"], Value::Null);
    let apart = r#"{"spec":{"completions":4}}"#;
    let why = cluster.kubectl_refused(&["patch", "job", "elastic", "-p", apart]);
    assert!(why.contains("can only be modified in tandem with spec.parallelism"), "{why}");
}

#[test]
fn a_job_of_another_manager_waits_for_it() {
    let cluster = with_probe();
    cluster.apply(&job("theirs", "exit 0", json!({ "managedBy": "example.com/queue" })));
    cluster.apply(&job("ours", "exit 0", json!({})));
    wait(&cluster, "complete", "ours");
    assert_eq!(cluster.json(&["job", "theirs"])["status"], json!({}));
    let other = r#"{"spec":{"managedBy":"kubernetes.io/job-controller"}}"#;
    let why = cluster.kubectl_refused(&["patch", "job", "theirs", "-p", other]);
    assert!(why.contains("field is immutable"), "{why}");
    // Its manager says how it goes.
    let now = "2026-01-01T00:00:00Z";
    let condition = |kind: &str| json!({ "type": kind, "status": "True", "lastTransitionTime": now, "lastProbeTime": now });
    let done = json!({ "status": { "startTime": now, "completionTime": now, "succeeded": 1,
        "conditions": [condition("SuccessCriteriaMet"), condition("Complete")] } });
    let patch = ["patch", "job", "theirs", "--subresource=status", "--type=merge", "-p"];
    cluster.kubectl(&[&patch[..], &[&done.to_string()]].concat());
    wait(&cluster, "complete", "theirs");
}
