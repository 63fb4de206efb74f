//! Priority and fairness as clients see it: what every cluster has, where requests are put, and who is asked to come again.

mod harness;

use harness::{Harness, next};
use http::Request;
use serde_json::{Value, json};

const API: &str = "/apis/flowcontrol.apiserver.k8s.io/v1";

async fn uid(server: &Harness, path: &str) -> String {
    let object = server.get(&format!("{API}/{path}")).await.expect(200);
    object["metadata"]["uid"].as_str().unwrap().to_owned()
}

/// A schema that takes whatever this user does.
fn schema(name: &str, level: &str, user: &str) -> Value {
    json!({
        "metadata": { "name": name },
        "spec": {
            "priorityLevelConfiguration": { "name": level },
            "matchingPrecedence": 3,
            "rules": [{
                "subjects": [{ "kind": "User", "user": { "name": user } }],
                "resourceRules": [{
                    "verbs": ["*"], "apiGroups": ["*"], "resources": ["*"],
                    "clusterScope": true, "namespaces": ["*"],
                }],
            }],
        },
    })
}

/// Waits until the schema says whether its level exists.
async fn until_dangling(server: &Harness, name: &str, status: &str) -> Value {
    let path = format!("{API}/flowschemas?watch=true&fieldSelector=metadata.name={name}");
    let mut watch = server.watch(&path).await;
    loop {
        let event = next(&mut watch).await;
        let conditions = event["object"]["status"]["conditions"].as_array();
        let found = conditions.into_iter().flatten().find(|found| found["type"] == "Dangling");
        if let Some(found) = found.filter(|found| found["status"] == status) {
            return found.clone();
        }
    }
}

#[tokio::test]
async fn every_answer_says_where_its_request_was_put() {
    let server = Harness::start().await;
    let schemas = server.get(&format!("{API}/flowschemas")).await.expect(200);
    assert_eq!(schemas["items"].as_array().unwrap().len(), 13);
    let levels = server.get(&format!("{API}/prioritylevelconfigurations")).await.expect(200);
    assert_eq!(levels["items"].as_array().unwrap().len(), 8);
    let check = async |user: &str, path: &str, schema: &str, level: &str| {
        let client = server.api.client(coracle_apiserver::identity::User::new(user, &[]));
        let request = Request::get(path).body(Vec::new()).unwrap();
        let answer = harness::send(&client, request).await;
        let expected = uid(&server, &format!("flowschemas/{schema}")).await;
        assert_eq!(answer.headers["x-kubernetes-pf-flowschema-uid"], expected.as_str());
        let expected = uid(&server, &format!("prioritylevelconfigurations/{level}")).await;
        assert_eq!(answer.headers["x-kubernetes-pf-prioritylevel-uid"], expected.as_str());
    };
    // Who may not is told so with the same headers.
    check("alice", "/api/v1/secrets", "global-default", "global-default").await;
    check("alice", "/readyz", "probes", "exempt").await;
    check("system:kube-scheduler", "/api/v1/pods", "kube-scheduler", "workload-high").await;
    let metrics = server.get("/metrics").await;
    let metrics = String::from_utf8(metrics.bytes).unwrap();
    let dispatched = "apiserver_flowcontrol_dispatched_requests_total{flow_schema=\"kube-scheduler\",priority_level=\"workload-high\"} 1";
    assert!(metrics.contains(dispatched), "{metrics}");
}

#[tokio::test]
async fn a_full_level_without_queues_refuses_and_others_go_on() {
    let server = Harness::start().await;
    let none = json!({
        "metadata": { "name": "closed" },
        "spec": { "type": "Limited", "limited": {
            "nominalConcurrencyShares": 0,
            "borrowingLimitPercent": 0,
            "limitResponse": { "type": "Reject" },
        } },
    });
    server.post(&format!("{API}/prioritylevelconfigurations"), none).await.expect(201);
    server.post(&format!("{API}/flowschemas"), schema("mine", "closed", "alice")).await.expect(201);
    until_dangling(&server, "mine", "False").await;
    let client = server.api.client(coracle_apiserver::identity::User::new("alice", &[]));
    let ask = || Request::get("/api/v1/pods").body(Vec::new()).unwrap();
    let answer = harness::send(&client, ask()).await;
    assert_eq!(answer.headers["retry-after"], "1");
    let expected = uid(&server, "flowschemas/mine").await;
    assert_eq!(answer.headers["x-kubernetes-pf-flowschema-uid"], expected.as_str());
    let message = answer.refused(429, "TooManyRequests");
    assert_eq!(message, "Too many requests, please try again later.");
    server.get("/api/v1/pods").await.expect(200);

    server
        .delete(&format!("{API}/prioritylevelconfigurations/closed"), json!({}))
        .await
        .expect(200);
    let condition = until_dangling(&server, "mine", "True").await;
    assert_eq!(condition["reason"], "NotFound");
    harness::send(&client, ask()).await.refused(403, "Forbidden");
}

#[tokio::test]
async fn mandatory_objects_come_back() {
    let server = Harness::start().await;
    let path = format!("{API}/flowschemas?watch=true&fieldSelector=metadata.name=catch-all");
    let mut watch = server.watch(&path).await;
    server.delete(&format!("{API}/flowschemas/catch-all"), json!({})).await.expect(200);
    loop {
        let event = next(&mut watch).await;
        if event["type"] == "DELETED" {
            break;
        }
    }
    assert_eq!(next(&mut watch).await["type"], "ADDED");
}

#[tokio::test]
async fn who_looks_for_the_cause_of_a_wait_is_shown_the_levels() {
    let server = Harness::start().await;
    let dump = async |name: &str| {
        let answer = server.get(&format!("/debug/api_priority_and_fairness/{name}")).await;
        String::from_utf8(answer.bytes).unwrap()
    };
    let levels = dump("dump_priority_levels").await;
    let header = levels.lines().next().unwrap();
    assert!(
        header.starts_with("PriorityLevelName, ") && header.contains("ExecutingRequests,"),
        "{levels}"
    );
    assert_eq!(levels.lines().count(), 9, "{levels}");
    assert!(dump("dump_queues").await.contains("workload-low"));
    assert_eq!(dump("dump_requests").await.lines().count(), 1);
    // Administrators only.
    let client = server.api.client(coracle_apiserver::identity::User::new("alice", &[]));
    let path = "/debug/api_priority_and_fairness/dump_requests";
    let request = Request::get(path).body(Vec::new()).unwrap();
    harness::send(&client, request).await.refused(403, "Forbidden");
    server.get("/debug/pprof").await.refused(404, "NotFound");
}
