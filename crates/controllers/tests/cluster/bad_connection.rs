//! Controllers whose connection to the API is bad end where the others do, and make no pod twice.

use std::collections::BTreeMap;

use coracle_reconcile::{Change, Mirror, Tasks};
use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};
use std::sync::{Arc, Mutex};
use tokio_util::sync::CancellationToken;

use crate::harness::Cluster;
use crate::{deployment, image};

/// The pods that were ever there, by their owner's name.
type Seen = Arc<Mutex<BTreeMap<String, Vec<String>>>>;

fn follow(tasks: &Tasks, cluster: &Cluster) -> Seen {
    let seen = Seen::default();
    let pods: Mirror<Pod> = Mirror::all(tasks, &cluster.client);
    let noted = Arc::clone(&seen);
    pods.on_change(move |change| {
        if let Change::Applied { old: None, new } = change {
            let owner = new.metadata.owner_references.iter().flatten().next().unwrap();
            let name = new.metadata.name.clone().unwrap();
            noted.lock().unwrap().entry(owner.name.clone()).or_default().push(name);
        }
    });
    seen
}

fn workload(kind: &str, name: &str, spec: Value) -> Value {
    let labels = json!({ "app": name });
    let (version, restart) =
        if kind == "Job" { ("batch/v1", "Never") } else { ("apps/v1", "Always") };
    let mut object = json!({
        "apiVersion": version, "kind": kind, "metadata": { "name": name },
        "spec": { "template": { "metadata": { "labels": labels }, "spec": {
            "restartPolicy": restart, "containers": [{ "name": "c", "image": "one" }] } } },
    });
    if kind != "Job" {
        object["spec"]["selector"] = json!({ "matchLabels": labels });
    }
    for (field, value) in spec.as_object().unwrap() {
        object["spec"][field] = value.clone();
    }
    object
}

async fn workloads_settle(seed: u64) {
    let cluster = Cluster::start_over_a_bad_connection(seed).await;
    let tasks = Tasks::new(CancellationToken::new());
    let seen = follow(&tasks, &cluster);
    cluster.create(deployment(10, "one")).await;
    cluster.create(workload("ReplicaSet", "set", json!({ "replicas": 20 }))).await;
    cluster
        .create(workload("StatefulSet", "db", json!({ "replicas": 4, "serviceName": "db" })))
        .await;
    cluster.create(workload("Job", "work", json!({ "completions": 12, "parallelism": 4 }))).await;

    cluster.until_field("Deployment", "web", "/status/availableReplicas", json!(10)).await;
    cluster.until_field("ReplicaSet", "set", "/status/availableReplicas", json!(20)).await;
    cluster.until_field("StatefulSet", "db", "/status/availableReplicas", json!(4)).await;
    cluster.until_field("Job", "work", "/status/succeeded", json!(12)).await;
    cluster.until_field("Job", "work", "/status/conditions/1/type", json!("Complete")).await;

    cluster.patch("Deployment", "web", image("two")).await;
    cluster.patch("ReplicaSet", "set", json!({ "spec": { "replicas": 5 } })).await;
    cluster.patch("StatefulSet", "db", json!({ "spec": { "replicas": 2 } })).await;
    cluster.until_field("Deployment", "web", "/status/observedGeneration", json!(2)).await;
    cluster.until_field("Deployment", "web", "/status/updatedReplicas", json!(10)).await;
    cluster.until_field("Deployment", "web", "/status/replicas", json!(10)).await;
    cluster.until_field("Deployment", "web", "/status/availableReplicas", json!(10)).await;
    cluster.until_field("ReplicaSet", "set", "/status/replicas", json!(5)).await;
    cluster.until_field("StatefulSet", "db", "/status/replicas", json!(2)).await;
    for (app, count) in [("web", 10), ("set", 5), ("db", 2), ("work", 12)] {
        cluster
            .until(&format!("of {app} there are {count} pods"), || async {
                let pods = cluster.list("Pod").await;
                pods.iter().filter(|pod| pod["metadata"]["labels"]["app"] == app).count() == count
            })
            .await;
    }

    let sets = cluster.list("ReplicaSet").await;
    let expected = sets.iter().map(|set| {
        let name = set["metadata"]["name"].as_str().unwrap().to_owned();
        let count = if name == "set" { 20 } else { 10 };
        (name, count)
    });
    let mut expected: BTreeMap<String, usize> = expected.collect();
    expected.extend([("db".to_owned(), 4), ("work".to_owned(), 12)]);
    let counts = || -> BTreeMap<String, usize> {
        seen.lock().unwrap().iter().map(|(owner, pods)| (owner.clone(), pods.len())).collect()
    };
    // All of them were told of by now, or are about to be.
    cluster.until("every pod is seen", || async { counts().values().sum::<usize>() >= 56 }).await;
    assert_eq!(counts(), expected, "seed {seed}");
    tasks.shutdown().await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_the_api_answers_the_end_is_right_and_no_pod_is_made_twice() {
    for seed in 1..=3 {
        workloads_settle(seed).await;
    }
}
