//! ReplicationControllers: upstream's conformance tests of them, against the real API.

use kube::api::DeleteParams;
use serde_json::{Value, json};

use crate::harness::Cluster;

const KIND: &str = "ReplicationController";

fn controller(replicas: i32) -> Value {
    json!({
        "apiVersion": "v1", "kind": KIND, "metadata": { "name": "old" },
        "spec": { "replicas": replicas, "selector": { "app": "old" },
                  "template": { "metadata": { "labels": { "app": "old" } },
                                "spec": { "containers": [{ "name": "c", "image": "one" }] } } },
    })
}

fn owner(pod: &Value) -> &Value {
    &pod["metadata"]["ownerReferences"][0]["name"]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replication_controller_adopts_scales_and_releases() {
    let cluster = Cluster::start().await;
    cluster
        .create(json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": { "name": "orphan", "labels": { "app": "old" } },
            "spec": { "containers": [{ "name": "c", "image": "one" }] },
        }))
        .await;
    cluster.create(controller(2)).await;
    // The pods' watch may be behind that of the controllers: then one pod too many is made and taken back.
    cluster
        .until("two pods, both its own", || async {
            let pods = cluster.list("Pod").await;
            pods.len() == 2 && pods.iter().all(|pod| owner(pod) == "old")
        })
        .await;
    cluster.until_field(KIND, "old", "/status/readyReplicas", json!(2)).await;
    cluster
        .until("the creation is told", || async {
            let created = cluster.events("old", "SuccessfulCreate").await;
            created.iter().any(|message| message.starts_with("Created pod: old-"))
        })
        .await;

    // A pod whose labels no longer match goes its own way, and another takes its place.
    let free = cluster.list("Pod").await.remove(0)["metadata"]["name"].clone();
    let free = free.as_str().unwrap();
    cluster.patch("Pod", free, json!({ "metadata": { "labels": { "app": "free" } } })).await;
    cluster
        .until("the pod is released", || async {
            owner(&cluster.get("Pod", free).await).is_null() && cluster.list("Pod").await.len() == 3
        })
        .await;

    cluster.patch(KIND, "old", json!({ "spec": { "replicas": 0 } })).await;
    cluster.until_field(KIND, "old", "/status/replicas", json!(0)).await;
    cluster.delete(KIND, "old", DeleteParams::foreground()).await;
    cluster.until_gone(KIND, "old").await;
    assert!(!cluster.get("Pod", free).await.is_null());
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_quota_that_is_used_up_is_a_condition_until_there_is_room() {
    let cluster = Cluster::start().await;
    let quota = json!({ "apiVersion": "v1", "kind": "ResourceQuota", "metadata": { "name": "few" },
                        "spec": { "hard": { "pods": "2" } } });
    cluster.create(quota).await;
    cluster.create(controller(3)).await;
    cluster.until_field(KIND, "old", "/status/conditions/0/type", json!("ReplicaFailure")).await;
    let failed = cluster.get(KIND, "old").await;
    assert_eq!(failed["status"]["conditions"][0]["reason"], "FailedCreate");
    let message = failed["status"]["conditions"][0]["message"].as_str().unwrap();
    assert!(message.contains("exceeded quota: few"), "{message}");
    cluster.patch(KIND, "old", json!({ "spec": { "replicas": 2 } })).await;
    cluster.until_field(KIND, "old", "/status/conditions", Value::Null).await;
    cluster.until_field(KIND, "old", "/status/readyReplicas", json!(2)).await;
    cluster.stop().await;
}
