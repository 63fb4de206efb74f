//! DaemonSets against the real API, where no scheduler runs.

use serde_json::{Value, json};

use crate::harness::Cluster;
use crate::{image, text};

const KIND: &str = "DaemonSet";

fn set() -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": KIND, "metadata": { "name": "logs" },
        "spec": {
            "selector": { "matchLabels": { "app": "logs" } },
            "template": { "metadata": { "labels": { "app": "logs" } },
                          "spec": { "containers": [{ "name": "c", "image": "one" }] } },
        },
    })
}

pub fn node(name: &str) -> Value {
    json!({ "apiVersion": "v1", "kind": "Node", "metadata": { "name": name },
            "status": { "conditions": [{ "type": "Ready", "status": "True" }] } })
}

/// Where the pods are and what they run, in the order of the nodes.
async fn placed(cluster: &Cluster) -> Vec<(String, String)> {
    let pods = cluster.list("Pod").await;
    let place = |pod: &Value| {
        let read = |path: &str| text(pod, path).to_owned();
        (read("/spec/nodeName"), read("/spec/containers/0/image"))
    };
    let mut placed: Vec<_> = pods.iter().map(place).collect();
    placed.sort();
    placed
}

async fn until_placed(cluster: &Cluster, expected: &[(&str, &str)]) {
    let own = |(node, image): &(&str, &str)| ((*node).to_owned(), (*image).to_owned());
    let expected: Vec<_> = expected.iter().map(own).collect();
    cluster
        .until(&format!("the pods are {expected:?}"), || async {
            placed(cluster).await == expected
        })
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_daemon_set_follows_the_nodes_without_a_scheduler() {
    let cluster = Cluster::start().await;
    cluster.create(node("a")).await;
    cluster.create(node("b")).await;
    cluster.create(set()).await;
    cluster.until_field(KIND, "logs", "/status/numberAvailable", json!(2)).await;
    until_placed(&cluster, &[("a", "one"), ("b", "one")]).await;
    cluster
        .until("each pod is told", || async {
            cluster.events("logs", "SuccessfulCreate").await.len() == 2
        })
        .await;

    cluster.create(node("c")).await;
    until_placed(&cluster, &[("a", "one"), ("b", "one"), ("c", "one")]).await;
    // A label that nobody has yet.
    let selector =
        |value: Value| json!({ "spec": { "template": { "spec": { "nodeSelector": value } } } });
    cluster.patch(KIND, "logs", selector(json!({ "color": "blue" }))).await;
    until_placed(&cluster, &[]).await;
    cluster.until_field(KIND, "logs", "/status/desiredNumberScheduled", json!(0)).await;
    cluster.patch("Node", "b", json!({ "metadata": { "labels": { "color": "blue" } } })).await;
    until_placed(&cluster, &[("b", "one")]).await;
    cluster.patch(KIND, "logs", selector(Value::Null)).await;
    until_placed(&cluster, &[("a", "one"), ("b", "one"), ("c", "one")]).await;
    let taint = json!([{ "key": "k", "effect": "NoExecute" }]);
    cluster.patch("Node", "a", json!({ "spec": { "taints": taint } })).await;
    until_placed(&cluster, &[("b", "one"), ("c", "one")]).await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_daemon_set_is_updated_and_rolled_back_and_a_failed_pod_is_made_again() {
    let cluster = Cluster::start().await;
    for name in ["a", "b", "c"] {
        cluster.create(node(name)).await;
    }
    cluster.create(set()).await;
    cluster.until_field(KIND, "logs", "/status/numberAvailable", json!(3)).await;
    cluster.patch(KIND, "logs", image("two")).await;
    until_placed(&cluster, &[("a", "two"), ("b", "two"), ("c", "two")]).await;
    cluster.until_field(KIND, "logs", "/status/numberAvailable", json!(3)).await;
    cluster.until_field(KIND, "logs", "/status/updatedNumberScheduled", json!(3)).await;

    // The first template's revision is used again, under the next number, and its hash is the pods'.
    cluster.patch(KIND, "logs", image("one")).await;
    until_placed(&cluster, &[("a", "one"), ("b", "one"), ("c", "one")]).await;
    cluster.until_field(KIND, "logs", "/status/numberAvailable", json!(3)).await;
    let revisions = cluster.list("ControllerRevision").await;
    assert_eq!(revisions.len(), 2);
    let newest = revisions.iter().find(|revision| revision["revision"] == 3).unwrap();
    let hash = "/metadata/labels/controller-revision-hash";
    let pods = cluster.list("Pod").await;
    assert!(pods.iter().all(|pod| text(pod, hash) == text(newest, hash)), "{pods:#?}");

    let victim = pods.iter().find(|pod| pod["spec"]["nodeName"] == "b").unwrap();
    let name = text(victim, "/metadata/name");
    let failed = json!({ "status": { "phase": "Failed" } });
    cluster.patch_status("Pod", name, failed).await;
    cluster.until_gone("Pod", name).await;
    until_placed(&cluster, &[("a", "one"), ("b", "one"), ("c", "one")]).await;
    let told = format!("Found failed daemon pod default/{name} on node b, will try to kill it");
    cluster
        .until("the failure is told", || async {
            cluster.events("logs", "FailedDaemonPod").await.contains(&told)
        })
        .await;
    cluster.stop().await;
}
