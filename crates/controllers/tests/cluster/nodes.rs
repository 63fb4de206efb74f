//! Nodes that fall silent, taints that evict, and what is left of nodes that are gone.

use serde_json::{Value, json};

use crate::daemon_set::node;
use crate::harness::Cluster;

const HOLD: &str = "example.com/hold";

/// A pod on a node, which stays to be looked at until it is let go.
fn held_pod(name: &str, node: &str, tolerations: Value) -> Value {
    json!({ "apiVersion": "v1", "kind": "Pod", "metadata": { "name": name, "finalizers": [HOLD] },
            "spec": { "nodeName": node, "containers": [{ "name": "c", "image": "one" }], "tolerations": tolerations } })
}

async fn let_go(cluster: &Cluster, name: &str) {
    cluster.patch("Pod", name, json!({ "metadata": { "finalizers": null } })).await;
    cluster.until_gone("Pod", name).await;
}

async fn until_condition(cluster: &Cluster, kind: &str, name: &str, expected: [&str; 3]) {
    cluster
        .until(&format!("{kind} {name} has {expected:?}"), || async {
            let object = cluster.get(kind, name).await;
            let conditions = object["status"]["conditions"].as_array().cloned().unwrap_or_default();
            let [type_, status, reason] = expected;
            let holds = |it: &Value| {
                it["type"] == type_
                    && it["status"] == status
                    && (reason.is_empty() || it["reason"] == reason)
            };
            conditions.iter().any(holds)
        })
        .await;
}

async fn until_taints(cluster: &Cluster, node: &str, expected: &[&str]) {
    cluster
        .until(&format!("node {node} has the taints {expected:?}"), || async {
            let node = cluster.get("Node", node).await;
            let taints = node["spec"]["taints"].as_array().cloned().unwrap_or_default();
            let word = |it: &Value| {
                format!("{}:{}", it["key"].as_str().unwrap(), it["effect"].as_str().unwrap())
            };
            taints.iter().map(word).collect::<Vec<_>>() == expected
        })
        .await;
}

async fn until_told(cluster: &Cluster, object: &str, reason: &str, message: &str) {
    cluster
        .until(message, || async {
            cluster.events(object, reason).await.contains(&message.to_owned())
        })
        .await;
}

/// The node says that it is ready, at this time of its own clock.
async fn beat(cluster: &Cluster, node: &str, time: &str) {
    let ready = json!({ "type": "Ready", "status": "True", "lastHeartbeatTime": time });
    cluster.patch_status("Node", node, json!({ "status": { "conditions": [ready] } })).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_falls_silent_loses_its_pods_and_comes_back() {
    let cluster = Cluster::start().await;
    cluster.create(node("a")).await;
    cluster.create(node("b")).await;
    until_told(&cluster, "a", "RegisteredNode", "Node a event: Registered Node a in Controller")
        .await;
    let brief = json!([{ "key": "node.kubernetes.io/unreachable", "operator": "Exists",
                         "effect": "NoExecute", "tolerationSeconds": 1 }]);
    cluster.create(held_pod("brief", "a", brief)).await;
    cluster.create(held_pod("patient", "a", json!([]))).await;
    for pod in ["brief", "patient"] {
        until_condition(&cluster, "Pod", pod, ["Ready", "True", ""]).await;
    }

    cluster.advance(60);
    beat(&cluster, "b", "2026-01-01T00:00:00Z").await;
    cluster.patch("Node", "a", json!({ "metadata": { "labels": { "look": "now" } } })).await;
    until_condition(&cluster, "Node", "a", ["Ready", "Unknown", "NodeStatusUnknown"]).await;
    until_condition(&cluster, "Node", "a", ["DiskPressure", "Unknown", "NodeStatusNeverUpdated"])
        .await;
    until_taints(
        &cluster,
        "a",
        &["node.kubernetes.io/unreachable:NoSchedule", "node.kubernetes.io/unreachable:NoExecute"],
    )
    .await;
    until_told(&cluster, "a", "NodeNotReady", "Node a status is now: NodeNotReady").await;
    until_condition(&cluster, "Pod", "patient", ["Ready", "False", ""]).await;
    until_told(&cluster, "patient", "NodeNotReady", "Node is not ready").await;
    until_condition(
        &cluster,
        "Pod",
        "brief",
        ["DisruptionTarget", "True", "DeletionByTaintManager"],
    )
    .await;
    let told = "Marking for deletion Pod default/brief";
    until_told(&cluster, "brief", "TaintManagerEviction", told).await;
    let_go(&cluster, "brief").await;

    beat(&cluster, "a", "2026-01-01T00:01:00Z").await;
    until_taints(&cluster, "a", &[]).await;
    let told = "Cancelling deletion of Pod default/patient";
    until_told(&cluster, "patient", "TaintManagerEviction", told).await;
    let patient = cluster.get("Pod", "patient").await;
    assert_eq!(patient["metadata"]["deletionTimestamp"], Value::Null);

    // Of a cluster of which nothing is heard nobody is evicted.
    cluster.advance(60);
    for name in ["a", "b"] {
        cluster.patch("Node", name, json!({ "metadata": { "labels": { "look": "again" } } })).await;
    }
    for name in ["a", "b"] {
        until_taints(&cluster, name, &["node.kubernetes.io/unreachable:NoSchedule"]).await;
    }
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_that_fail_together_do_not_all_lose_their_pods_at_once() {
    const KEPT_AWAY: &str = "node.kubernetes.io/not-ready:NoSchedule";
    let cluster = Cluster::start().await;
    let say = async |name: &str, ready: &str| {
        let condition = json!({ "type": "Ready", "status": ready });
        let status = json!({ "status": { "conditions": [condition] } });
        cluster.patch_status("Node", name, status).await;
    };
    for name in ["a", "b", "c"] {
        cluster.create(node(name)).await;
        say(name, "True").await;
    }
    say("a", "False").await;
    until_taints(&cluster, "a", &[KEPT_AWAY, "node.kubernetes.io/not-ready:NoExecute"]).await;
    say("b", "False").await;
    until_taints(&cluster, "b", &[KEPT_AWAY]).await;
    cluster.advance(10);
    cluster.patch("Node", "b", json!({ "metadata": { "labels": { "look": "now" } } })).await;
    until_taints(&cluster, "b", &[KEPT_AWAY, "node.kubernetes.io/not-ready:NoExecute"]).await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cordoned_node_and_one_under_pressure_take_no_pods() {
    let cluster = Cluster::start().await;
    cluster.create(node("a")).await;
    cluster.patch("Node", "a", json!({ "spec": { "unschedulable": true } })).await;
    until_taints(&cluster, "a", &["node.kubernetes.io/unschedulable:NoSchedule"]).await;
    let conditions = json!([{ "type": "Ready", "status": "True" }, { "type": "MemoryPressure", "status": "True" }]);
    cluster.patch_status("Node", "a", json!({ "status": { "conditions": conditions } })).await;
    cluster.patch("Node", "a", json!({ "spec": { "unschedulable": null } })).await;
    until_taints(&cluster, "a", &["node.kubernetes.io/memory-pressure:NoSchedule"]).await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pods_go_when_their_node_is_gone_for_long_or_out_of_service() {
    let cluster = Cluster::start().await;
    cluster.create(node("a")).await;
    cluster.create(held_pod("lost", "gone", json!([]))).await;
    cluster.create(held_pod("stuck", "a", json!([]))).await;
    for pod in ["lost", "stuck"] {
        until_condition(&cluster, "Pod", pod, ["Ready", "True", ""]).await;
    }
    cluster.advance(30);
    cluster.patch("Pod", "lost", json!({ "metadata": { "labels": { "look": "early" } } })).await;
    cluster.advance(11);
    cluster.patch("Pod", "lost", json!({ "metadata": { "labels": { "look": "now" } } })).await;
    until_condition(&cluster, "Pod", "lost", ["DisruptionTarget", "True", "DeletionByPodGC"]).await;
    assert_eq!(cluster.get("Pod", "lost").await["status"]["phase"], "Failed");
    let_go(&cluster, "lost").await;

    let out = json!({ "spec": { "taints": [{ "key": "node.kubernetes.io/out-of-service", "effect": "NoExecute" }] } });
    cluster.patch("Node", "a", out).await;
    until_condition(
        &cluster,
        "Pod",
        "stuck",
        ["DisruptionTarget", "True", "DeletionByTaintManager"],
    )
    .await;
    let dark = json!({ "status": { "conditions": [{ "type": "Ready", "status": "False" }] } });
    cluster.patch_status("Node", "a", dark).await;
    cluster.until_field("Pod", "stuck", "/status/phase", json!("Failed")).await;
    let_go(&cluster, "stuck").await;
    cluster.stop().await;
}
