//! Kubelets see what their own pods need.

mod harness;

use coracle_apiserver::identity::User;
use harness::{Answer, Harness, config_map, pod, send};
use http::{Method, Request};
use serde_json::{Value, json};

async fn ask(client: &kube::Client, method: Method, path: &str, body: Value) -> Answer {
    let request = Request::builder().method(method).uri(path);
    let body = if body.is_null() { Vec::new() } else { body.to_string().into_bytes() };
    send(client, request.header("content-type", "application/json").body(body).unwrap()).await
}

#[tokio::test]
async fn a_node_reads_what_its_pods_use_as_long_as_they_are_there() {
    let server = Harness::start().await;
    server.namespace("shop").await;
    let core = "/api/v1/namespaces/shop";
    let mut web = pod("web");
    web["spec"]["nodeName"] = json!("n1");
    web["spec"]["containers"][0]["envFrom"] = json!([{ "secretRef": { "name": "used" } }]);
    web["spec"]["volumes"] = json!([{ "name": "v", "configMap": { "name": "map" } }]);
    server.post(&format!("{core}/configmaps"), config_map("map", json!({}))).await.expect(201);
    for name in ["used", "other"] {
        let secret = json!({ "metadata": { "name": name } });
        server.post(&format!("{core}/secrets"), secret).await.expect(201);
    }
    let made = server.post(&format!("{core}/pods"), web).await.expect(201);
    let own = server.api.client(User::node("n1"));
    let other = server.api.client(User::node("n2"));
    let get = async |client: &kube::Client, path: &str| {
        ask(client, Method::GET, &format!("{core}/{path}"), Value::Null).await
    };
    for path in ["secrets/used", "configmaps/map", "secrets?fieldSelector=metadata.name%3Dused"] {
        get(&own, path).await.expect(200);
        let why = get(&other, path).await.refused(403, "Forbidden");
        assert!(why.ends_with("no relationship found between node 'n2' and this object"), "{why}");
    }
    get(&own, "secrets/other").await.expect(403);
    let why = get(&own, "secrets").await.refused(403, "Forbidden");
    assert!(why.ends_with("can only read namespaced object of this type"), "{why}");
    ask(&own, Method::DELETE, &format!("{core}/secrets/used"), Value::Null).await.expect(403);
    // Tokens of its pods' accounts, bound to those pods.
    let token = json!({ "spec": { "boundObjectRef": {
        "apiVersion": "v1", "kind": "Pod", "name": "web", "uid": made["metadata"]["uid"],
    } } });
    let tokens = format!("{core}/serviceaccounts/default/token");
    ask(&own, Method::POST, &tokens, token.clone()).await.expect(201);
    ask(&other, Method::POST, &tokens, token).await.expect(403);
    // Its own lease, and what belongs to nobody.
    let lease = |name: &str| json!({ "metadata": { "name": name }, "spec": {} });
    let leases = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases";
    ask(&own, Method::POST, leases, lease("n1")).await.expect(201);
    ask(&other, Method::GET, &format!("{leases}/n1"), Value::Null).await.expect(403);
    ask(&own, Method::GET, &format!("{leases}/n1"), Value::Null).await.expect(200);
    ask(&own, Method::GET, "/api/v1/services", Value::Null).await.expect(200);
    ask(&own, Method::GET, "/apis/apps/v1/deployments", Value::Null).await.expect(403);
    server
        .delete(&format!("{core}/pods/web"), json!({ "gracePeriodSeconds": 0 }))
        .await
        .expect(200);
    get(&own, "secrets/used").await.expect(403);
}

#[tokio::test]
async fn a_node_reads_the_volumes_of_its_pods_claims() {
    let server = Harness::start().await;
    server.namespace("shop").await;
    let core = "/api/v1/namespaces/shop";
    let volume = json!({ "metadata": { "name": "disk" }, "spec": {
        "capacity": { "storage": "1Gi" }, "accessModes": ["ReadWriteOnce"], "hostPath": { "path": "/x" },
    } });
    server.post("/api/v1/persistentvolumes", volume).await.expect(201);
    let claim = json!({ "metadata": { "name": "data" }, "spec": {
        "accessModes": ["ReadWriteOnce"], "volumeName": "disk",
        "resources": { "requests": { "storage": "1Gi" } },
    } });
    server.post(&format!("{core}/persistentvolumeclaims"), claim).await.expect(201);
    let mut web = pod("web");
    web["spec"]["nodeName"] = json!("n1");
    web["spec"]["volumes"] =
        json!([{ "name": "v", "persistentVolumeClaim": { "claimName": "data" } }]);
    server.post(&format!("{core}/pods"), web).await.expect(201);
    for (node, code) in [("n1", 200), ("n2", 403)] {
        let client = server.api.client(User::node(node));
        for path in
            ["/api/v1/persistentvolumes/disk", &format!("{core}/persistentvolumeclaims/data")]
        {
            ask(&client, Method::GET, path, Value::Null).await.expect(code);
        }
    }
}

/// A review may ask about a part of a collection, and so may expressions.
#[tokio::test]
async fn what_a_node_may_list_is_asked_with_selectors() {
    let server = Harness::start().await;
    let path = "/apis/authorization.k8s.io/v1/subjectaccessreviews";
    let review = |selector: Value| {
        json!({ "spec": {
            "user": "system:node:n1", "groups": ["system:nodes"],
            "resourceAttributes": { "verb": "list", "resource": "pods", "fieldSelector": selector },
        } })
    };
    let status = async |selector: Value| {
        server.post(path, review(selector)).await.expect(201)["status"].clone()
    };
    let part = |operator: &str, values: &[&str]| json!({ "requirements": [{ "key": "spec.nodeName", "operator": operator, "values": values }] });
    assert_eq!(status(json!({ "rawSelector": "spec.nodeName=n1" })).await["allowed"], true);
    assert_eq!(status(part("In", &["n1"])).await["allowed"], true);
    let refused = status(part("In", &["n1", "n2"])).await;
    assert_eq!(refused["allowed"], false);
    let why = "can only list/watch pods with spec.nodeName field selector";
    assert!(refused["reason"].as_str().unwrap().contains(why), "{refused}");
    assert_eq!(status(part("NotIn", &["n1"])).await["allowed"], false);
    assert_eq!(status(part("Fancy", &["n1"])).await["allowed"], false);
    let unread = status(json!({ "rawSelector": "spec.nodeName" })).await;
    assert_eq!(unread["allowed"], false);
    assert!(unread["evaluationError"].as_str().unwrap().contains("fieldSelector"), "{unread}");
    let both =
        json!({ "rawSelector": "a=b", "requirements": [{ "key": "a", "operator": "Exists" }] });
    let message = server.post(path, review(both)).await.refused(422, "Invalid");
    let place = "spec.resourceAttributes.fieldSelector";
    let wanted = format!(
        "{place}.rawSelector: Invalid value: \"a=b\": may not specified at the same time as requirements"
    );
    assert!(message.contains(&wanted), "{message}");
    let message = server.post(path, review(json!({}))).await.refused(422, "Invalid");
    let wanted = format!(
        "{place}.requirements: Required value: when {place} is specified, requirements or rawSelector is required"
    );
    assert!(message.contains(&wanted), "{message}");

    let node = server.api.client(User::node("n1"));
    let list = async |query: &str| {
        let request = Request::get(format!("/api/v1/pods{query}")).body(Vec::new()).unwrap();
        harness::send(&node, request).await.code
    };
    assert_eq!(list("?fieldSelector=spec.nodeName%3Dn1").await, 200);
    assert_eq!(list("?fieldSelector=spec.nodeName%3Dn2").await, 403);
    assert_eq!(list("").await, 403);

    let policies = "/apis/admissionregistration.k8s.io/v1";
    let check = |selector: &str| {
        format!(
            "authorizer.group('').resource('pods').fieldSelector('{selector}').check('list').allowed()"
        )
    };
    let expression = format!("{} && !{}", check("spec.nodeName=n1"), check("spec.nodeName=n2"));
    let policy = json!({ "metadata": { "name": "own" }, "spec": {
        "matchConstraints": { "resourceRules": [{ "apiGroups": [""], "apiVersions": ["*"], "resources": ["nodes"], "operations": ["*"] }] },
        "validations": [{ "expression": expression }],
    } });
    server.post(&format!("{policies}/validatingadmissionpolicies"), policy).await.expect(201);
    let binding = json!({ "metadata": { "name": "own" }, "spec": { "policyName": "own", "validationActions": ["Deny"] } });
    server
        .post(&format!("{policies}/validatingadmissionpolicybindings"), binding)
        .await
        .expect(201);
    let made = json!({ "metadata": { "name": "n1" } });
    let request = |client: kube::Client| {
        let request = Request::post("/api/v1/nodes").header("content-type", "application/json");
        let request = request.body(made.to_string().into_bytes()).unwrap();
        async move { harness::send(&client, request).await }
    };
    request(server.client.clone()).await.refused(422, "Invalid");
    request(node.clone()).await.expect(201);
}
