//! StatefulSets: names, claims, order and revisions, against the real API.

use kube::api::DeleteParams;
use serde_json::{Value, json};

use crate::harness::Cluster;
use crate::image;

const KIND: &str = "StatefulSet";

fn set(replicas: i32) -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": KIND, "metadata": { "name": "db" },
        "spec": {
            "replicas": replicas, "serviceName": "dbs", "selector": { "matchLabels": { "app": "db" } },
            "template": { "metadata": { "labels": { "app": "db" } },
                          "spec": { "containers": [{ "name": "c", "image": "one" }] } },
            "volumeClaimTemplates": [{ "metadata": { "name": "data" }, "spec": {
                "accessModes": ["ReadWriteOnce"], "resources": { "requests": { "storage": "1Mi" } } } }],
            "persistentVolumeClaimRetentionPolicy": { "whenDeleted": "Retain", "whenScaled": "Delete" },
        },
    })
}

async fn names(cluster: &Cluster, kind: &str) -> Vec<String> {
    let name = |object: Value| object["metadata"]["name"].as_str().unwrap().to_owned();
    cluster.list(kind).await.into_iter().map(name).collect()
}

async fn images(cluster: &Cluster) -> Vec<Value> {
    let image = |pod: Value| pod["spec"]["containers"][0]["image"].clone();
    cluster.list("Pod").await.into_iter().map(image).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stateful_set_keeps_names_and_claims_through_its_life() {
    let cluster = Cluster::start().await;
    cluster.create(set(3)).await;
    cluster.until_field(KIND, "db", "/status/availableReplicas", json!(3)).await;
    assert_eq!(names(&cluster, "Pod").await, ["db-0", "db-1", "db-2"]);
    let claims = ["data-db-0", "data-db-1", "data-db-2"];
    assert_eq!(names(&cluster, "PersistentVolumeClaim").await, claims);
    let first = cluster.get("Pod", "db-0").await;
    assert_eq!(first["spec"]["hostname"], "db-0");
    assert_eq!(first["spec"]["subdomain"], "dbs");
    let made = |pod: &Value| pod["metadata"]["creationTimestamp"].as_str().unwrap().to_owned();
    assert!(made(&first) <= made(&cluster.get("Pod", "db-2").await));
    let told = "create Pod db-2 in StatefulSet db successful".to_owned();
    cluster
        .until("the creation is told", || async {
            cluster.events("db", "SuccessfulCreate").await.contains(&told)
        })
        .await;

    // One that is deleted comes back under its name, with its claim.
    let uid = cluster.get("Pod", "db-1").await["metadata"]["uid"].clone();
    cluster.delete("Pod", "db-1", DeleteParams::default()).await;
    cluster
        .until("the pod is another one", || async {
            let pod = cluster.get("Pod", "db-1").await;
            !pod.is_null() && pod["metadata"]["uid"] != uid
        })
        .await;

    cluster.patch(KIND, "db", json!({ "spec": { "replicas": 1 } })).await;
    cluster.until_gone("Pod", "db-1").await;
    // The policy says so.
    cluster.until_gone("PersistentVolumeClaim", "data-db-2").await;
    cluster.until_gone("PersistentVolumeClaim", "data-db-1").await;
    cluster.delete(KIND, "db", DeleteParams::foreground()).await;
    cluster.until_gone(KIND, "db").await;
    assert_eq!(names(&cluster, "Pod").await, [""; 0]);
    assert_eq!(names(&cluster, "PersistentVolumeClaim").await, ["data-db-0"]);
    cluster
        .until("the revisions are gone", || async {
            cluster.list("ControllerRevision").await.is_empty()
        })
        .await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stateful_set_is_updated_by_canary_and_rolled_back() {
    let cluster = Cluster::start().await;
    cluster.create(set(3)).await;
    cluster.until_field(KIND, "db", "/status/readyReplicas", json!(3)).await;
    let old = cluster.get(KIND, "db").await["status"]["currentRevision"].clone();
    let partition = |number: i32| json!({ "spec": { "updateStrategy": { "rollingUpdate": { "partition": number } } } });
    cluster.patch(KIND, "db", partition(2)).await;
    cluster.patch(KIND, "db", image("two")).await;
    cluster.until_field(KIND, "db", "/status/updatedReplicas", json!(1)).await;
    cluster.until_field(KIND, "db", "/status/readyReplicas", json!(3)).await;
    assert_eq!(images(&cluster).await, ["one", "one", "two"]);
    let status = cluster.get(KIND, "db").await["status"].clone();
    assert_eq!(status["currentRevision"], old);
    assert_ne!(status["updateRevision"], old);

    cluster.patch(KIND, "db", partition(0)).await;
    cluster
        .until_field(KIND, "db", "/status/currentRevision", status["updateRevision"].clone())
        .await;
    cluster.until_field(KIND, "db", "/status/updatedReplicas", json!(3)).await;
    assert_eq!(images(&cluster).await, ["two", "two", "two"]);

    // The first template's revision is used again, under the next number.
    cluster.patch(KIND, "db", image("one")).await;
    cluster.until_field(KIND, "db", "/status/currentRevision", old.clone()).await;
    cluster.until_field(KIND, "db", "/status/readyReplicas", json!(3)).await;
    assert_eq!(images(&cluster).await, ["one", "one", "one"]);
    let revisions = cluster.list("ControllerRevision").await;
    assert_eq!(revisions.len(), 2);
    let again = revisions.iter().find(|revision| revision["metadata"]["name"] == old).unwrap();
    assert_eq!(again["revision"], 3);
    cluster.stop().await;
}
