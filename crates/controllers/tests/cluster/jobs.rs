//! Jobs: how they end, whose pods they count, and who frees the others.

use kube::api::{DeleteParams, PostParams, PropagationPolicy};
use serde_json::{Value, json};

use crate::harness::Cluster;
use crate::text;

const FINALIZER: &str = "batch.kubernetes.io/job-tracking";

/// A Job whose pods become what `becomes` says; see the harness.
fn job(name: &str, becomes: &str, spec: Value) -> Value {
    let mut job = json!({
        "apiVersion": "batch/v1", "kind": "Job", "metadata": { "name": name },
        "spec": { "template": {
            "metadata": { "annotations": { "becomes": becomes } },
            "spec": { "restartPolicy": "Never", "containers": [{ "name": "c", "image": "one" }] } } },
    });
    for (field, value) in spec.as_object().unwrap() {
        job["spec"][field] = value.clone();
    }
    job
}

/// The conditions that hold, as `Type:Reason`.
fn conditions(job: &Value) -> Vec<String> {
    let all = job.pointer("/status/conditions").and_then(Value::as_array).cloned();
    let held = all.unwrap_or_default().into_iter().filter(|it| it["status"] == "True");
    held.map(|it| format!("{}:{}", text(&it, "/type"), text(&it, "/reason"))).collect()
}

async fn until_conditions(cluster: &Cluster, name: &str, expected: &[&str]) -> Value {
    let what = format!("job {name} has the conditions {expected:?}");
    cluster
        .until(&what, || async { conditions(&cluster.get("Job", name).await) == expected })
        .await;
    cluster.get("Job", name).await
}

fn holds(pod: &Value) -> bool {
    pod["metadata"]["finalizers"].to_string().contains(FINALIZER)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failure_policy_ends_a_job_at_its_first_failure() {
    let cluster = Cluster::start().await;
    let rules =
        json!([{ "action": "FailJob", "onExitCodes": { "operator": "In", "values": [42] } }]);
    let spec =
        json!({ "completions": 3, "parallelism": 1, "podFailurePolicy": { "rules": rules } });
    cluster.create(job("broken", "42", spec)).await;
    let ended = ["FailureTarget:PodFailurePolicy", "Failed:PodFailurePolicy"];
    let found = until_conditions(&cluster, "broken", &ended).await;
    assert_eq!(found["status"]["failed"], 1);
    let pod = cluster.list("Pod").await.remove(0);
    let why = format!(
        "Container c for pod default/{} failed with exit code 42 matching FailJob rule at index 0",
        text(&pod, "/metadata/name")
    );
    assert_eq!(text(&found, "/status/conditions/1/message"), why);
    cluster
        .until("it is told", || async {
            cluster.events("broken", "PodFailurePolicy").await == [why.clone()]
        })
        .await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_indexes_of_a_job_fail_by_themselves() {
    let cluster = Cluster::start().await;
    let rules =
        json!([{ "action": "FailIndex", "onExitCodes": { "operator": "In", "values": [7] } }]);
    let indexed = json!({ "completions": 4, "parallelism": 2, "completionMode": "Indexed",
        "backoffLimitPerIndex": 3, "podFailurePolicy": { "rules": rules } });
    cluster.create(job("parts", "7 at 1", indexed)).await;
    let ended = ["FailureTarget:FailedIndexes", "Failed:FailedIndexes"];
    let found = until_conditions(&cluster, "parts", &ended).await;
    let status = &found["status"];
    assert_eq!((text(status, "/completedIndexes"), text(status, "/failedIndexes")), ("0,2,3", "1"));
    assert_eq!((&status["succeeded"], &status["failed"]), (&json!(3), &json!(1)));

    let enough = json!({ "completions": 3, "parallelism": 3, "completionMode": "Indexed",
        "backoffLimitPerIndex": 0, "successPolicy": { "rules": [{ "succeededIndexes": "0" }] } });
    cluster.create(job("leader", "Running", enough)).await;
    cluster.until_field("Job", "leader", "/status/ready", json!(3)).await;
    let leader = |pod: &Value| {
        let labels = &pod["metadata"]["labels"];
        labels["job-name"] == "leader" && labels["batch.kubernetes.io/job-completion-index"] == "0"
    };
    let pod = cluster.list("Pod").await.into_iter().find(leader).unwrap();
    let done = json!({ "status": { "phase": "Succeeded" } });
    cluster.patch_status("Pod", text(&pod, "/metadata/name"), done).await;
    let ended = ["SuccessCriteriaMet:SuccessPolicy", "Complete:SuccessPolicy"];
    let found = until_conditions(&cluster, "leader", &ended).await;
    assert_eq!(
        (&found["status"]["succeeded"], &found["status"]["failed"]),
        (&json!(1), &json!(null))
    );
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_adopts_orphans_and_frees_what_is_not_its_own_any_more() {
    let cluster = Cluster::start().await;
    cluster.create(job("work", "Running", json!({ "parallelism": 2 }))).await;
    cluster.until_field("Job", "work", "/status/ready", json!(2)).await;
    let pods = cluster.list("Pod").await;
    assert!(pods.iter().all(holds));
    let names: Vec<&str> = pods.iter().map(|pod| text(pod, "/metadata/name")).collect();
    // Without an owner it is adopted again.
    let orphan = json!({ "metadata": { "ownerReferences": null, "finalizers": null } });
    cluster.patch("Pod", names[0], orphan).await;
    let owner = "/metadata/ownerReferences/0/name";
    cluster.until_field("Pod", names[0], owner, json!("work")).await;
    assert!(holds(&cluster.get("Pod", names[0]).await));
    // Without its labels it is let go, and another one takes its place.
    let other = json!({ "metadata": { "labels": null } });
    cluster.patch("Pod", names[1], other).await;
    cluster.until_field("Pod", names[1], owner, Value::Null).await;
    assert!(!holds(&cluster.get("Pod", names[1]).await));
    cluster.until("there are three pods", || async { cluster.list("Pod").await.len() == 3 }).await;
    cluster.until_field("Job", "work", "/status/ready", json!(2)).await;
    assert_eq!(cluster.get("Job", "work").await["status"]["failed"], Value::Null);
    // When the Job goes and leaves its pods, nothing holds them.
    let orphans = DeleteParams {
        propagation_policy: Some(PropagationPolicy::Orphan),
        ..DeleteParams::default()
    };
    cluster.delete("Job", "work", orphans).await;
    cluster
        .until("no pod is held", || async { !cluster.list("Pod").await.iter().any(holds) })
        .await;
    assert_eq!(cluster.list("Pod").await.len(), 3);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_of_another_manager_is_left_alone() {
    let cluster = Cluster::start().await;
    cluster.create(job("theirs", "", json!({ "managedBy": "example.com/queue" }))).await;
    // What was made later is done first.
    cluster.create(job("ours", "", json!({ "managedBy": "kubernetes.io/job-controller" }))).await;
    let ended = ["SuccessCriteriaMet:CompletionsReached", "Complete:CompletionsReached"];
    until_conditions(&cluster, "ours", &ended).await;
    assert_eq!(cluster.get("Job", "theirs").await["status"], json!({}));
    let mine = |pod: &Value| text(pod, "/metadata/ownerReferences/0/name") == "ours";
    assert!(cluster.list("Pod").await.iter().all(mine));
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_is_suspended_and_resumed() {
    let cluster = Cluster::start().await;
    cluster.create(job("work", "Running", json!({ "parallelism": 2, "completions": 2 }))).await;
    cluster.until_field("Job", "work", "/status/ready", json!(2)).await;
    cluster.patch("Job", "work", json!({ "spec": { "suspend": true } })).await;
    until_conditions(&cluster, "work", &["Suspended:JobSuspended"]).await;
    cluster.until("its pods are gone", || async { cluster.list("Pod").await.is_empty() }).await;
    cluster.until_field("Job", "work", "/status/terminating", json!(0)).await;
    let status = cluster.get("Job", "work").await["status"].clone();
    assert_eq!((&status["startTime"], &status["failed"]), (&Value::Null, &Value::Null));
    cluster.patch("Job", "work", json!({ "spec": { "suspend": false } })).await;
    cluster.until_field("Job", "work", "/status/ready", json!(2)).await;
    for (reason, message) in [("Suspended", "Job suspended"), ("Resumed", "Job resumed")] {
        cluster
            .until("it is told", || async { cluster.events("work", reason).await == [message] })
            .await;
    }
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pods_that_cannot_be_made_are_not_said_to_be_active() {
    let cluster = Cluster::start().await;
    let quota = json!({ "apiVersion": "v1", "kind": "ResourceQuota", "metadata": { "name": "few" },
                        "spec": { "hard": { "pods": "1" } } });
    cluster.create(quota).await;
    cluster
        .patch_status(
            "ResourceQuota",
            "few",
            json!({ "status": { "hard": { "pods": "1" },
                         "used": { "pods": "0" } } }),
        )
        .await;
    cluster.create(job("work", "Running", json!({ "parallelism": 3, "completions": 3 }))).await;
    cluster
        .until("the refusal is told", || async {
            let told = cluster.events("work", "FailedCreate").await;
            told.iter().any(|why| why.starts_with("Error creating: pods \"work-"))
        })
        .await;
    cluster.until_field("Job", "work", "/status/active", json!(1)).await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn controllers_that_die_again_and_again_count_each_pod_once() {
    let mut cluster = Cluster::start().await;
    let spec = json!({ "completions": 150, "parallelism": 20 });
    cluster.create(job("many", "", spec)).await;
    let indexed = json!({ "completions": 60, "parallelism": 10, "completionMode": "Indexed" });
    cluster.create(job("each", "", indexed)).await;
    for done in [1, 20, 70, 120] {
        cluster
            .until("some are done", || async {
                cluster.get("Job", "many").await["status"]["succeeded"].as_i64() >= Some(done)
            })
            .await;
        cluster.kill_controllers().await;
        cluster.start_controllers();
    }
    let ended = ["SuccessCriteriaMet:CompletionsReached", "Complete:CompletionsReached"];
    for (name, count) in [("many", 150), ("each", 60)] {
        let found = until_conditions(&cluster, name, &ended).await;
        assert_eq!(
            (&found["status"]["succeeded"], &found["status"]["failed"]),
            (&json!(count), &Value::Null)
        );
        let pods = cluster.list("Pod").await;
        let of_it = pods.iter().filter(|pod| pod["metadata"]["labels"]["job-name"] == name);
        assert_eq!(of_it.count(), count, "of {name}");
    }
    cluster
        .until("no pod is held", || async { !cluster.list("Pod").await.iter().any(holds) })
        .await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_of_the_same_name_does_not_inherit_pods() {
    let cluster = Cluster::start().await;
    cluster.create(job("work", "Running", json!({}))).await;
    cluster.until_field("Job", "work", "/status/ready", json!(1)).await;
    let first = cluster.list("Pod").await.remove(0);
    cluster.delete("Job", "work", DeleteParams::background()).await;
    let again = serde_json::from_value(job("work", "", json!({}))).unwrap();
    cluster
        .until("the name is free", || async {
            cluster.api("Job").create(&PostParams::default(), &again).await.is_ok()
        })
        .await;
    until_conditions(
        &cluster,
        "work",
        &["SuccessCriteriaMet:CompletionsReached", "Complete:CompletionsReached"],
    )
    .await;
    cluster.until_gone("Pod", text(&first, "/metadata/name")).await;
    cluster.stop().await;
}
