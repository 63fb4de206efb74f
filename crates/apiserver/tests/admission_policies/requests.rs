//! Which requests policies judge, and what of them they see.

use serde_json::{Value, json};

use crate::harness::{self, Answer};
use crate::{bind, create, rules, server};

#[tokio::test]
async fn connections_are_judged_too() {
    let api = server().await;
    api.post("/api/v1/namespaces/shop/pods", harness::pod("p")).await.expect(201);
    let spec = json!({
        "matchConstraints": rules(&[""], &["pods/exec", "pods/proxy"], &["CONNECT"]),
        "validations": [{
            "expression": "request.subResource == 'proxy' ? object.path != '/secret' : !('sh' in object.command)",
            "messageExpression": "'no ' + object.kind + ' into ' + request.name", "reason": "Forbidden",
        }],
    });
    bind(&api, "Validating", "no-shell", spec, json!({})).await;
    let pod = "/api/v1/namespaces/shop/pods/p";
    let shell =
        api.post(&format!("{pod}/exec?command=sh&container=main&stdout=true"), json!({})).await;
    let message = shell.refused(403, "Forbidden");
    assert!(message.ends_with("denied request: no PodExecOptions into p"), "{message}");
    assert_ne!(api.post(&format!("{pod}/exec?command=ls&stdout=true"), json!({})).await.code, 403);
    let message = api.get(&format!("{pod}/proxy/secret")).await.refused(403, "Forbidden");
    assert!(message.ends_with("denied request: no PodProxyOptions into p"), "{message}");
    assert_ne!(api.get(&format!("{pod}/proxy/open")).await.code, 403);
}

/// A deployment of the namespace `shop`.
fn deployment() -> Value {
    json!({ "metadata": { "name": "web", "labels": { "app": "web" } }, "spec": {
        "replicas": 1, "selector": { "matchLabels": { "a": "b" } },
        "template": { "metadata": { "labels": { "a": "b" } }, "spec": harness::pod("web")["spec"] },
    } })
}

#[tokio::test]
async fn policies_see_what_subresources_carry() {
    let api = server().await;
    api.post("/api/v1/namespaces/shop/pods", harness::pod("web")).await.expect(201);
    api.post("/apis/apps/v1/namespaces/shop/deployments", deployment()).await.expect(201);
    let parts =
        ["pods/binding", "pods/eviction", "serviceaccounts/token", "deployments/scale", "bindings"];
    let kind = "request.subResource + ' ' + request.kind.group + '/' + request.kind.version + ' ' + request.kind.kind + ' ' + object.kind";
    let replicas = "(request.subResource == 'scale' ? ' ' + string(oldObject.spec.replicas) + string(object.spec.replicas) : '')";
    let told = format!("{kind} + {replicas}");
    let spec = json!({ "matchConstraints": rules(&["*"], &parts, &["CREATE", "UPDATE"]), "validations": [
        { "expression": "false", "messageExpression": told } ] });
    bind(&api, "Validating", "parts", spec, json!({})).await;
    let told = |answer: Answer| {
        let message = answer.expect(422)["message"].as_str().unwrap().to_owned();
        message.rsplit_once(": ").unwrap().1.to_owned()
    };
    let shop = "/api/v1/namespaces/shop";
    let binding =
        json!({ "metadata": { "name": "web" }, "target": { "kind": "Node", "name": "n0" } });
    let answer = api.post(&format!("{shop}/pods/web/binding"), binding.clone()).await;
    assert_eq!(told(answer), "binding /v1 Binding Binding");
    let eviction = json!({ "metadata": { "name": "web" } });
    let answer = api.post(&format!("{shop}/pods/web/eviction"), eviction).await;
    assert_eq!(told(answer), "eviction policy/v1 Eviction Eviction");
    let answer = api.post(&format!("{shop}/serviceaccounts/default/token"), json!({})).await;
    assert_eq!(told(answer), "token authentication.k8s.io/v1 TokenRequest TokenRequest");
    let scale = json!({ "spec": { "replicas": 4 } });
    let path = "/apis/apps/v1/namespaces/shop/deployments/web/scale";
    let answer = api.patch(path, "merge-patch", scale).await;
    assert_eq!(told(answer), "scale autoscaling/v1 Scale Scale 14");
}

#[tokio::test]
async fn mutating_policies_change_what_subresources_carry() {
    let api = server().await;
    api.post("/apis/apps/v1/namespaces/shop/deployments", deployment()).await.expect(201);
    let constraints = rules(&["apps"], &["deployments/scale"], &["UPDATE"]);
    let mutations = json!([
        { "patchType": "ApplyConfiguration", "applyConfiguration": {
            "expression": "Object{ spec: Object.spec{ replicas: object.spec.replicas * 2 } }" } },
        { "patchType": "JSONPatch", "jsonPatch": {
            "expression": "[JSONPatch{op: 'replace', path: '/spec/replicas', value: object.spec.replicas + 1}]" } },
    ]);
    let spec = json!({ "matchConstraints": constraints, "mutations": mutations });
    bind(&api, "Mutating", "double", spec, json!({})).await;
    let path = "/apis/apps/v1/namespaces/shop/deployments/web";
    let scale = json!({ "spec": { "replicas": 3 } });
    let scaled = api.patch(&format!("{path}/scale"), "merge-patch", scale).await.expect(200);
    assert_eq!(scaled["spec"]["replicas"], 7);
    let stored = api.get(path).await.expect(200);
    assert_eq!(
        (&stored["spec"]["replicas"], &stored["metadata"]["labels"]["app"]),
        (&json!(7), &json!("web"))
    );
}

/// What the cluster cannot work without is never asked about.
#[tokio::test]
async fn questions_about_rights_are_not_judged() {
    let api = server().await;
    let spec = json!({ "matchConstraints": rules(&["*"], &["*/*"], &["*"]), "validations": [{ "expression": "false" }] });
    bind(&api, "Validating", "nothing", spec, json!({})).await;
    create(&api, "x", json!({})).await.expect(422);
    let attributes = json!({ "spec": { "user": "alice", "resourceAttributes": { "verb": "get", "resource": "pods", "namespace": "shop" } } });
    let rights = "/apis/authorization.k8s.io/v1";
    api.post(&format!("{rights}/subjectaccessreviews"), attributes.clone()).await.expect(201);
    let local = format!("{rights}/namespaces/shop/localsubjectaccessreviews");
    api.post(&local, attributes.clone()).await.expect(201);
    let own = json!({ "spec": { "resourceAttributes": { "verb": "get", "resource": "pods" } } });
    api.post(&format!("{rights}/selfsubjectaccessreviews"), own).await.expect(201);
    let rules = json!({ "spec": { "namespace": "shop" } });
    api.post(&format!("{rights}/selfsubjectrulesreviews"), rules).await.expect(201);
    let users = "/apis/authentication.k8s.io/v1";
    api.post(&format!("{users}/selfsubjectreviews"), json!({})).await.expect(201);
    let token = json!({ "spec": { "token": "x" } });
    api.post(&format!("{users}/tokenreviews"), token).await.expect(201);
    // Nor does such a question tell which namespaces there are.
    let mut elsewhere = attributes;
    elsewhere["spec"]["resourceAttributes"]["namespace"] = json!("nowhere");
    let local = format!("{rights}/namespaces/nowhere/localsubjectaccessreviews");
    api.post(&local, elsewhere).await.expect(201);
}

/// Rules without equivalents mean the version that the client speaks.
#[tokio::test]
async fn policies_see_the_version_that_the_client_speaks() {
    let api = server().await;
    let policy = |version: &str| {
        let mut constraints = rules(&["autoscaling"], &["horizontalpodautoscalers"], &["CREATE"]);
        constraints["matchPolicy"] = json!("Exact");
        constraints["resourceRules"][0]["apiVersions"] = json!([version]);
        let told = "request.requestKind.version + ' ' + object.apiVersion";
        json!({ "matchConstraints": constraints, "validations": [{ "expression": "false", "messageExpression": told }] })
    };
    bind(&api, "Validating", "one", policy("v1"), json!({})).await;
    let scaler = |spec: Value| {
        let mut scaler = json!({ "metadata": { "name": "a" }, "spec": spec });
        scaler["spec"]["scaleTargetRef"] =
            json!({ "kind": "Deployment", "name": "web", "apiVersion": "apps/v1" });
        scaler["spec"]["maxReplicas"] = json!(3);
        scaler
    };
    let path = |version: &str| {
        format!("/apis/autoscaling/{version}/namespaces/shop/horizontalpodautoscalers")
    };
    let refused = api.post(&path("v1"), scaler(json!({}))).await.expect(422);
    let message = refused["message"].as_str().unwrap();
    assert!(message.ends_with("denied request: v1 autoscaling/v1"), "{message}");
    api.post(&path("v2"), scaler(json!({}))).await.expect(201);
}
