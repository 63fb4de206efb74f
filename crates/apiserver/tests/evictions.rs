//! Evictions: what a disruption budget allows, and no more.

mod harness;

use harness::{Harness, pod};
use serde_json::{Value, json};

const PODS: &str = "/api/v1/namespaces/shop/pods";
const BUDGETS: &str = "/apis/policy/v1/namespaces/shop/poddisruptionbudgets";

/// Pods that run and are ready, under one budget that allows this many disruptions.
async fn with_budget(pods: usize, allowed: i64) -> Harness {
    let server = Harness::start().await;
    server.namespace("shop").await;
    for number in 0..pods {
        running(&server, &format!("web-{number}"), "True").await;
    }
    let budget = json!({ "metadata": { "name": "b" },
        "spec": { "minAvailable": 1, "selector": { "matchLabels": { "app": "web" } } } });
    server.post(BUDGETS, budget).await.expect(201);
    allow(&server, allowed).await;
    server
}

async fn allow(server: &Harness, allowed: i64) {
    let status = json!({ "observedGeneration": 1, "disruptionsAllowed": allowed, "expectedPods": 3,
        "currentHealthy": 3, "desiredHealthy": 3 - allowed });
    let merge = json!({ "status": status });
    server.patch(&format!("{BUDGETS}/b/status"), "merge-patch", merge).await.expect(200);
}

async fn running(server: &Harness, name: &str, ready: &str) {
    let mut wanted = pod(name);
    wanted["metadata"]["labels"] = json!({ "app": "web" });
    // On a node, so that its deletion takes its time.
    wanted["spec"]["nodeName"] = json!("node-0");
    server.post(PODS, wanted).await.expect(201);
    let status = json!({ "status": { "phase": "Running", "conditions": [{ "type": "Ready", "status": ready }] } });
    server.patch(&format!("{PODS}/{name}/status"), "merge-patch", status).await.expect(200);
}

async fn evict(server: &Harness, name: &str, options: Value) -> harness::Answer {
    let eviction = json!({ "apiVersion": "policy/v1", "kind": "Eviction",
        "metadata": { "name": name, "namespace": "shop" }, "deleteOptions": options });
    server.post(&format!("{PODS}/{name}/eviction"), eviction).await
}

#[tokio::test]
async fn a_burst_takes_no_more_than_the_budget_has() {
    let server = with_budget(8, 3).await;
    let evictions = (0..8).map(|number| {
        let server = &server;
        async move { evict(server, &format!("web-{number}"), json!({})).await.code }
    });
    let codes = futures::future::join_all(evictions).await;
    assert_eq!(codes.iter().filter(|code| **code == 201).count(), 3, "{codes:?}");
    assert_eq!(codes.iter().filter(|code| **code == 429).count(), 5, "{codes:?}");
    let budget = server.get(&format!("{BUDGETS}/b")).await.expect(200);
    assert_eq!(budget["status"]["disruptionsAllowed"], 0);
    assert_eq!(budget["status"]["disruptedPods"].as_object().unwrap().len(), 3);
    let pods = server.get(PODS).await.expect(200);
    let gone = pods["items"].as_array().unwrap().iter();
    let gone: Vec<&Value> =
        gone.filter(|pod| pod["metadata"]["deletionTimestamp"].is_string()).collect();
    assert_eq!(gone.len(), 3);
    let conditions = gone[0]["status"]["conditions"].as_array().unwrap();
    assert!(conditions.iter().any(|condition| condition["reason"] == "EvictionByEvictionAPI"));
}

#[tokio::test]
async fn refusals_say_what_the_budget_lacks() {
    let server = with_budget(1, 0).await;
    let answer = evict(&server, "web-0", json!({})).await;
    let status: Value = serde_json::from_slice(&answer.bytes).unwrap();
    assert_eq!((answer.code, &status["reason"]), (429, &json!("TooManyRequests")));
    let cause = json!([{ "reason": "DisruptionBudget",
        "message": "The disruption budget b needs 3 healthy pods and has 3 currently" }]);
    assert_eq!(status["details"]["causes"], cause);
    assert_eq!(answer.headers.get("retry-after"), None);

    // A budget that changed since the controller looked at it says to come back later.
    let merge = json!({ "spec": { "minAvailable": 2 } });
    server.patch(&format!("{BUDGETS}/b"), "merge-patch", merge).await.expect(200);
    let answer = evict(&server, "web-0", json!({})).await;
    assert_eq!((answer.code, &answer.headers["retry-after"]), (429, &"10".parse().unwrap()));

    // Two budgets over one pod are not supported.
    let second = json!({ "metadata": { "name": "c" }, "spec": { "maxUnavailable": 1, "selector": { "matchLabels": { "app": "web" } } } });
    server.post(BUDGETS, second).await.expect(201);
    assert_eq!(evict(&server, "web-0", json!({})).await.code, 500);
}

#[tokio::test]
async fn what_disturbs_nobody_goes_without_a_disruption() {
    let server = with_budget(1, 1).await;
    running(&server, "unready", "False").await;
    // A dry run takes nothing.
    evict(&server, "web-0", json!({ "dryRun": ["All"] })).await.expect(201);
    // An unready pod goes while enough others are healthy.
    evict(&server, "unready", json!({})).await.expect(201);
    let budget = server.get(&format!("{BUDGETS}/b")).await.expect(200);
    assert_eq!(budget["status"]["disruptionsAllowed"], 1);
    assert_eq!(budget["status"].get("disruptedPods"), None);
    let wrong = json!({ "preconditions": { "uid": "other" } });
    assert_eq!(evict(&server, "web-0", wrong).await.code, 409);
    let beta = json!({ "apiVersion": "policy/v1beta1", "kind": "Eviction", "metadata": { "name": "web-0" } });
    server.post(&format!("{PODS}/web-0/eviction"), beta).await.expect(201);
    let budget = server.get(&format!("{BUDGETS}/b")).await.expect(200);
    assert_eq!(budget["status"]["disruptionsAllowed"], 0);
}
