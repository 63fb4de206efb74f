//! Policies that change objects.

use serde_json::json;

use crate::harness;
use crate::{bind, create, rules, server};

#[tokio::test]
async fn mutating_policies_merge_and_patch() {
    let api = server().await;
    let spec = json!({ "mutations": [
        { "patchType": "ApplyConfiguration", "applyConfiguration": { "expression":
            "Object{ metadata: Object.metadata{ annotations: { 'mutated-by': 'policy' }, labels: { 'size': string(object.data.size()) } } }" } },
        { "patchType": "JSONPatch", "jsonPatch": { "expression":
            "[JSONPatch{op: 'test', path: '/data/a', value: '1'}, JSONPatch{op: 'add', path: '/metadata/labels/' + jsonpatch.escapeKey('example.com/x'), value: object.metadata.labels.size}]" } },
    ] });
    bind(&api, "Mutating", "stamp", spec, json!({})).await;
    let made = create(&api, "a", json!({ "a": "1" })).await.expect(201);
    assert_eq!(made["metadata"]["annotations"], json!({ "mutated-by": "policy" }));
    assert_eq!(
        made["metadata"]["labels"],
        json!({ "app": "a", "size": "1", "example.com/x": "1" })
    );
    let message = create(&api, "b", json!({ "a": "2" })).await.refused(403, "Invalid");
    assert!(
        message.starts_with("policy 'stamp' with binding 'stamp' denied request: JSON Patch:"),
        "{message}"
    );
}

#[tokio::test]
async fn mutating_policies_merge_lists_by_their_keys() {
    let api = server().await;
    let spec = json!({ "matchConstraints": rules(&[""], &["pods"], &["CREATE"]), "mutations": [
        { "patchType": "ApplyConfiguration", "applyConfiguration": { "expression":
            "Object{ spec: Object.spec{ containers: object.spec.containers.map(c, Object.spec.containers{ name: c.name, env: [Object.spec.containers.env{ name: 'ADDED', value: c.image }] }) } }" } },
    ] });
    bind(&api, "Mutating", "env", spec, json!({})).await;
    let mut pod = harness::pod("p");
    pod["spec"]["containers"][0]["env"] = json!([{ "name": "OWN", "value": "1" }]);
    let made = api.post("/api/v1/namespaces/shop/pods", pod).await.expect(201);
    assert_eq!(
        made["spec"]["containers"][0]["env"],
        json!([{ "name": "OWN", "value": "1" }, { "name": "ADDED", "value": "hello:1" }])
    );
    // What would be replaced as a whole is refused, and so are parts that stand in the wrong place.
    let check = async |name: &str, expression: &str, wanted: &str| {
        let spec = json!({ "mutations": [{ "patchType": "ApplyConfiguration", "applyConfiguration": { "expression": expression } }],
            "matchConditions": [{ "name": "mine", "expression": format!("object.metadata.name == '{name}'") }] });
        bind(&api, "Mutating", name, spec, json!({})).await;
        let message = create(&api, name, json!({})).await.refused(403, "Invalid");
        assert!(message.ends_with(wanted), "{message}");
    };
    check(
        "wrong-place",
        "Object{ metadata: Object.spec{ a: 1 } }",
        "type mismatch: unexpected type name \"Object.spec\", expected \"Object.metadata\", which matches field name path from root Object type",
    )
    .await;
    check(
        "unknown-field",
        "Object{ nothing: 1 }",
        "error applying patch: failed to convert patch object to typed object: .nothing: field not declared in schema",
    )
    .await;
}

#[tokio::test]
async fn mutating_policies_have_parameters_and_an_order() {
    let api = server().await;
    create(&api, "settings", json!({ "team": "blue" })).await.expect(201);
    let label = |expression: &str| json!({ "patchType": "ApplyConfiguration", "applyConfiguration": { "expression": format!("Object{{ metadata: Object.metadata{{ labels: {expression} }} }}") } });
    let spec = json!({ "paramKind": { "apiVersion": "v1", "kind": "ConfigMap" }, "mutations": [label("{ 'team': params.data.team }")] });
    let named = json!({ "paramRef": { "name": "settings", "namespace": "shop", "parameterNotFoundAction": "Deny" } });
    bind(&api, "Mutating", "a-team", spec, named).await;
    bind(
        &api,
        "Mutating",
        "b-copy",
        json!({ "mutations": [label("{ 'copy': object.metadata.labels.team }")] }),
        json!({}),
    )
    .await;
    let made = create(&api, "x", json!({})).await.expect(201);
    assert_eq!(made["metadata"]["labels"], json!({ "app": "x", "team": "blue", "copy": "blue" }));
}

#[tokio::test]
async fn mutating_policies_are_asked_again_if_they_want() {
    let api = server().await;
    let label = |expression: &str| json!([{ "patchType": "ApplyConfiguration", "applyConfiguration": { "expression": format!("Object{{ metadata: Object.metadata{{ labels: {expression} }} }}") } }]);
    let count =
        |name: &str| label(&format!("{{ '{name}': string(object.metadata.labels.size()) }}"));
    bind(
        &api,
        "Mutating",
        "a",
        json!({ "mutations": count("again"), "reinvocationPolicy": "IfNeeded" }),
        json!({}),
    )
    .await;
    bind(&api, "Mutating", "b", json!({ "mutations": count("once") }), json!({})).await;
    let made = create(&api, "x", json!({})).await.expect(201);
    // First one label, then two; and three when the first is asked again.
    assert_eq!(made["metadata"]["labels"], json!({ "app": "x", "once": "2", "again": "3" }));
}
