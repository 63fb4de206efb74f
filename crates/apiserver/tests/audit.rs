//! The audit log as its readers find it: who did what, what was sent and answered, and how it was decided.

mod harness;

use std::path::Path;
use std::sync::Arc;

use coracle_apiserver::audit::{AuditLog, LogFile};
use coracle_apiserver::identity::User;
use coracle_apiserver::pki::{Pki, Sans};
use coracle_apiserver::{ApiServer, Config, Extras, store_options};
use coracle_store::Store;
use http::Request;
use serde_json::{Value, json};

const POLICY: &str = r#"
apiVersion: audit.k8s.io/v1
kind: Policy
rules:
- level: None
  users: [system:apiserver]
- level: Metadata
  resources: [{ group: "", resources: [secrets] }]
  omitStages: [RequestReceived]
- level: RequestResponse
  resources: [{ group: "", resources: [configmaps] }]
  omitManagedFields: true
- level: None
"#;

/// A server that records by the policy into a file of this directory.
async fn start(directory: &Path) -> Arc<ApiServer> {
    let file = LogFile { path: directory.join("audit.log"), ..LogFile::default() };
    let audit = AuditLog::open(POLICY, file).unwrap();
    let store = Store::open(store_options(directory.join("state.db"))).await.unwrap();
    let pki = Pki::open_or_create(&directory.join("pki"), &Sans::default()).unwrap();
    let config = Config {
        store,
        pki: Arc::new(pki),
        advertise: ([127, 0, 0, 1], 6443).into(),
        service_cidr: "10.96.0.0/16".parse().unwrap(),
    };
    ApiServer::start_with(config, Extras { audit: Some(audit), ..Extras::default() }).await.unwrap()
}

/// What was recorded, each event as `user resource stage`.
fn stages(events: &[Value]) -> Vec<String> {
    let told = |event: &Value| {
        let (user, resource) = (&event["user"]["username"], &event["objectRef"]["resource"]);
        format!("{user} {resource} {}", event["stage"]).replace('"', "")
    };
    events.iter().map(told).collect()
}

#[tokio::test]
async fn the_log_tells_what_its_policy_wants_and_no_more() {
    let directory = tempfile::tempdir().unwrap();
    let api = start(directory.path()).await;
    let admin = api.client(User::new("root", &["system:masters"]));
    let alice = api.client(User::new("alice", &[]));
    let post = |path: &str, body: Value| {
        Request::post(path)
            .header("content-type", "application/json")
            .header("audit-id", "my-own-id")
            .header("user-agent", "test/1")
            .body(body.to_string().into_bytes())
            .unwrap()
    };
    let secret = json!({ "metadata": { "name": "s" }, "stringData": { "word": "sesame" } });
    let secrets = "/api/v1/namespaces/default/secrets";
    let made = harness::send(&admin, post(secrets, secret)).await;
    assert_eq!(made.headers["audit-id"], "my-own-id");
    made.expect(201);
    let maps = "/api/v1/namespaces/default/configmaps";
    let map = harness::config_map("m", json!({}));
    harness::send(&alice, post(maps, map.clone())).await.expect(403);
    let acting = Request::post(maps)
        .header("content-type", "application/json")
        .header("impersonate-user", "bob")
        .header("impersonate-group", "system:masters")
        .body(map.to_string().into_bytes())
        .unwrap();
    harness::send(&admin, acting).await.expect(201);
    harness::send(&admin, Request::get("/version").body(Vec::new()).unwrap()).await.expect(200);
    drop((admin, alice));
    api.shutdown().await;

    let text = std::fs::read_to_string(directory.path().join("audit.log")).unwrap();
    assert!(!text.contains("sesame"), "{text}");
    let events: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(
        stages(&events),
        [
            "root secrets ResponseComplete",
            "alice configmaps RequestReceived",
            "alice configmaps ResponseComplete",
            "root configmaps RequestReceived",
            "root configmaps ResponseComplete",
        ]
    );
    let secret = &events[0];
    assert_eq!(
        (&secret["kind"], &secret["apiVersion"], &secret["level"], &secret["verb"]),
        (&json!("Event"), &json!("audit.k8s.io/v1"), &json!("Metadata"), &json!("create"))
    );
    assert_eq!((&secret["auditID"], &secret["userAgent"]), (&json!("my-own-id"), &json!("test/1")));
    assert_eq!(secret["requestURI"], secrets);
    assert_eq!(secret["responseStatus"]["code"], 201);
    assert_eq!(secret["annotations"]["authorization.k8s.io/decision"], "allow");
    assert!(secret["requestObject"].is_null() && secret["responseObject"].is_null());
    let refused = &events[2];
    assert_eq!(refused["annotations"]["authorization.k8s.io/decision"], "forbid");
    assert_eq!(refused["responseStatus"]["reason"], "Forbidden");
    let acted = &events[4];
    assert_eq!(acted["impersonatedUser"]["username"], "bob");
    assert_eq!(acted["requestObject"]["data"], json!({ "a": "b" }));
    assert_eq!(acted["responseObject"]["metadata"]["name"], "m");
    assert!(acted["responseObject"]["metadata"]["managedFields"].is_null());
}
