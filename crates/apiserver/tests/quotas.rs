//! ResourceQuotas as clients meet them.

mod harness;

use std::time::Duration;

use harness::{Harness, config_map, next};
use serde_json::{Value, json};

const MAPS: &str = "/api/v1/namespaces/shop/configmaps";
const QUOTA: &str = "/api/v1/namespaces/shop/resourcequotas";

async fn with_quota(hard: Value) -> Harness {
    let server = Harness::start().await;
    server.namespace("shop").await;
    let quota = json!({ "metadata": { "name": "q" }, "spec": { "hard": hard } });
    server.post(QUOTA, quota).await.expect(201);
    server
}

/// Waits until the quota shows this.
async fn until_used(server: &Harness, used: Value) {
    // It begins with the quota as it is.
    let mut watch = server.watch(&format!("{QUOTA}?watch=true")).await;
    let shown = async { while next(&mut watch).await["object"]["status"]["used"] != used {} };
    let in_time = tokio::time::timeout(Duration::from_secs(10), shown).await;
    assert!(in_time.is_ok(), "{:?}", server.get(&format!("{QUOTA}/q")).await.expect(200)["status"]);
}

#[tokio::test]
async fn the_status_shows_what_is_used() {
    let server =
        with_quota(json!({ "configmaps": "2", "count/leases.coordination.k8s.io": "1" })).await;
    let leases = "count/leases.coordination.k8s.io";
    until_used(&server, json!({ "configmaps": "0", leases: "0" })).await;
    server.post(MAPS, config_map("a", json!({}))).await.expect(201);
    server.post(MAPS, config_map("b", json!({}))).await.expect(201);
    until_used(&server, json!({ "configmaps": "2", leases: "0" })).await;
    assert_eq!(
        server.post(MAPS, config_map("c", json!({}))).await.refused(403, "Forbidden"),
        r#"configmaps "c" is forbidden: exceeded quota: q, requested: configmaps=1, used: configmaps=2, limited: configmaps=2"#
    );
    server.delete(&format!("{MAPS}/a"), json!({})).await.expect(200);
    until_used(&server, json!({ "configmaps": "1", leases: "0" })).await;
    server.post(MAPS, config_map("c", json!({}))).await.expect(201);
    // Another quota about another kind, and a changed one, show theirs too.
    let merge = json!({ "spec": { "hard": { "configmaps": "5", "secrets": "1" } } });
    server.patch(&format!("{QUOTA}/q"), "merge-patch", merge).await.expect(200);
    until_used(&server, json!({ "configmaps": "2", leases: "0", "secrets": "0" })).await;
}

#[tokio::test]
async fn many_at_once_never_exceed_a_quota() {
    let server = with_quota(json!({ "count/configmaps": "7" })).await;
    let creates = (0..40).map(|number| {
        let server = &server;
        async move { server.post(MAPS, config_map(&format!("m{number}"), json!({}))).await.code }
    });
    let outcomes = futures::future::join_all(creates).await;
    assert_eq!(outcomes.iter().filter(|status| **status == 201).count(), 7, "{outcomes:?}");
    assert_eq!(outcomes.iter().filter(|status| **status == 403).count(), 33);
    until_used(&server, json!({ "count/configmaps": "7" })).await;
    let all = server.get(MAPS).await.expect(200);
    assert_eq!(all["items"].as_array().unwrap().len(), 7);
}

#[tokio::test]
async fn custom_objects_count_as_soon_as_their_kind_is_there() {
    let server = with_quota(json!({ "count/boats.sea.example": "1", "count/secrets": "1" })).await;
    until_used(&server, json!({ "count/secrets": "0" })).await;
    let definition = json!({
        "metadata": { "name": "boats.sea.example" },
        "spec": {
            "group": "sea.example", "scope": "Namespaced", "names": { "plural": "boats", "kind": "Boat" },
            "versions": [{ "name": "v1", "served": true, "storage": true,
                "schema": { "openAPIV3Schema": { "type": "object" } } }],
        },
    });
    let definitions = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
    server.post(definitions, definition).await.expect(201);
    until_used(&server, json!({ "count/boats.sea.example": "0", "count/secrets": "0" })).await;
    let boats = "/apis/sea.example/v1/namespaces/shop/boats";
    let boat = |name: &str| json!({ "apiVersion": "sea.example/v1", "kind": "Boat", "metadata": { "name": name } });
    server.post(boats, boat("a")).await.expect(201);
    until_used(&server, json!({ "count/boats.sea.example": "1", "count/secrets": "0" })).await;
    assert_eq!(server.post(boats, boat("b")).await.code, 403);
}
