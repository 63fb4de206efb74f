//! Admission webhooks, asked over real TLS.

mod extension_server;
mod harness;

use std::sync::{Arc, Mutex};

use base64::Engine as _;
use extension_server::{ExtensionServer, Reply};
use harness::{Harness, config_map, pod};
use serde_json::{Value, json};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const HOOKS: &str = "/apis/admissionregistration.k8s.io/v1";

/// A review's answer.
fn review(question: &Value, mut response: Value) -> Reply {
    response["uid"] = question["request"]["uid"].clone();
    Reply::Json(json!({
        "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response,
    }))
}

fn patched(question: &Value, patch: Value) -> Reply {
    let patch = base64::prelude::BASE64_STANDARD.encode(patch.to_string());
    review(question, json!({ "allowed": true, "patch": patch, "patchType": "JSONPatch" }))
}

fn rule(operations: &[&str], resources: &[&str]) -> Value {
    json!({ "operations": operations, "apiGroups": ["*"], "apiVersions": ["*"], "resources": resources })
}

/// A configuration of one webhook, with these fields changed.
async fn configure(server: &Harness, kind: &str, name: &str, config: Value, changes: Value) {
    let mut webhook = json!({
        "name": format!("{name}.example.com"),
        "clientConfig": config,
        "rules": [rule(&["CREATE", "UPDATE"], &["configmaps"])],
        "sideEffects": "None",
        "admissionReviewVersions": ["v1"],
        "timeoutSeconds": 5,
    });
    for (field, value) in changes.as_object().unwrap() {
        webhook[field] = value.clone();
    }
    let (plural, kind) = if kind == "mutating" {
        ("mutatingwebhookconfigurations", "MutatingWebhookConfiguration")
    } else {
        ("validatingwebhookconfigurations", "ValidatingWebhookConfiguration")
    };
    let configuration = json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": kind,
        "metadata": { "name": name }, "webhooks": [webhook],
    });
    server.post(&format!("{HOOKS}/{plural}"), configuration).await.expect(201);
}

#[tokio::test]
async fn a_validating_webhook_denies_and_warns() {
    let server = Harness::start().await;
    let hook = ExtensionServer::start(|_, question| {
        let request = &question["request"];
        assert_eq!(request["userInfo"]["username"], "admin");
        let state = if request["operation"] == "DELETE" { "oldObject" } else { "object" };
        if request[state]["data"]["a"] == "bad" || request["operation"] == "DELETE" {
            let status = json!({ "message": "it is bad", "code": 403, "reason": "Forbidden" });
            return review(&question, json!({ "allowed": false, "status": status }));
        }
        review(&question, json!({ "allowed": true, "warnings": ["mind this"] }))
    })
    .await;
    let rules = json!({ "rules": [rule(&["*"], &["configmaps"])] });
    configure(&server, "validating", "judge", hook.client_config("/"), rules).await;
    let created = server.post(MAPS, config_map("good", json!({}))).await;
    assert_eq!(created.headers["warning"], "299 - \"mind this\"");
    created.expect(201);
    let mut bad = config_map("bad", json!({}));
    bad["data"]["a"] = json!("bad");
    let denied = r#"admission webhook "judge.example.com" denied the request: it is bad"#;
    assert_eq!(server.post(MAPS, bad).await.refused(403, "Forbidden"), denied);
    let patch = json!({ "data": { "a": "bad" } });
    let answer = server.patch(&format!("{MAPS}/good"), "merge-patch", patch).await;
    assert_eq!(answer.refused(403, "Forbidden"), denied);
    let answer = server.delete(&format!("{MAPS}/good"), json!({})).await;
    assert_eq!(answer.refused(403, "Forbidden"), denied);
    assert_eq!(server.delete(MAPS, json!({})).await.refused(403, "Forbidden"), denied);
    // Who judges cannot lock itself in.
    let path = format!("{HOOKS}/validatingwebhookconfigurations/judge");
    server.delete(&path, json!({})).await.expect(200);
    server.delete(&format!("{MAPS}/good"), json!({})).await.expect(200);
}

#[tokio::test]
async fn mutating_webhooks_change_objects_one_after_the_other() {
    let server = Harness::start().await;
    server.namespace("shop").await;
    let hook = ExtensionServer::start(|path, question| match path {
        "/first" => {
            patched(&question, json!([{ "op": "add", "path": "/data/first", "value": "1" }]))
        }
        "/second" if question["request"]["object"]["data"]["first"] == "1" => {
            patched(&question, json!([{ "op": "add", "path": "/data/second", "value": "2" }]))
        }
        "/pod" => {
            let container = json!({ "name": "side", "image": "side:1" });
            let count =
                question["request"]["object"]["spec"]["containers"].as_array().unwrap().len();
            if count > 1 {
                return review(&question, json!({ "allowed": true }));
            }
            patched(
                &question,
                json!([{ "op": "add", "path": "/spec/containers/-", "value": container }]),
            )
        }
        _ => review(&question, json!({ "allowed": true })),
    })
    .await;
    let pods = json!({ "rules": [rule(&["CREATE"], &["pods"])], "reinvocationPolicy": "IfNeeded" });
    configure(&server, "mutating", "b", hook.client_config("/second"), json!({})).await;
    configure(&server, "mutating", "a", hook.client_config("/first"), json!({})).await;
    configure(&server, "mutating", "c", hook.client_config("/pod"), pods).await;
    let map = server.post(MAPS, config_map("m", json!({}))).await.expect(201);
    assert_eq!(map["data"], json!({ "a": "b", "first": "1", "second": "2" }));
    let made = server.post("/api/v1/namespaces/shop/pods", pod("web")).await.expect(201);
    let side = &made["spec"]["containers"][1];
    assert_eq!((&side["name"], &side["imagePullPolicy"]), (&json!("side"), &json!("IfNotPresent")));
    assert!(side["volumeMounts"][0]["mountPath"].is_string(), "{side}");
}

#[tokio::test]
async fn hostile_answers_harm_nobody() {
    let server = Harness::start().await;
    let hook = ExtensionServer::start(|path, question| match path {
        "/slow" => Reply::Never,
        "/huge" => Reply::Raw(200, vec![b'['; 20 << 20]),
        "/malformed" => Reply::Raw(200, b"{".to_vec()),
        "/missing" => Reply::Raw(404, Vec::new()),
        "/uid" => Reply::Json(json!({
            "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview",
            "response": { "uid": "other", "allowed": true },
        })),
        "/type" => patched(&question, json!([{ "op": "replace", "path": "/data", "value": 7 }])),
        "/name" => patched(
            &question,
            json!([{ "op": "replace", "path": "/metadata/name", "value": "../x" }]),
        ),
        _ => patched(&question, json!([{ "op": "remove", "path": "/no/such" }])),
    })
    .await;
    for (path, code, why) in [
        ("slow", 500, "context deadline exceeded"),
        ("huge", 500, "failed calling webhook"),
        ("malformed", 500, "failed to call webhook: "),
        ("missing", 500, "the server could not find the requested resource"),
        ("uid", 500, "received invalid webhook response: expected response.uid="),
        ("type", 500, "Internal error occurred: "),
        ("name", 422, "metadata.name"),
        ("patch", 500, "doc is missing path"),
    ] {
        let config = hook.client_config(&format!("/{path}"));
        configure(&server, "mutating", path, config, json!({ "timeoutSeconds": 1 })).await;
        let answer = server.post(MAPS, config_map("m", json!({}))).await.expect(code);
        assert!(answer["message"].as_str().unwrap().contains(why), "{path}: {answer}");
        let at = format!("{HOOKS}/mutatingwebhookconfigurations/{path}");
        server.delete(&at, json!({})).await.expect(200);
    }
    let ignore = json!({ "failurePolicy": "Ignore", "timeoutSeconds": 1 });
    configure(&server, "mutating", "slow", hook.client_config("/slow"), ignore).await;
    server.post(MAPS, config_map("m", json!({}))).await.expect(201);
}

#[tokio::test]
async fn a_service_leads_to_its_ready_endpoints() {
    let server = Harness::start().await;
    let hook = ExtensionServer::start(|path, question| {
        assert_eq!(path, "/always-deny");
        review(&question, json!({ "allowed": false }))
    })
    .await;
    let service =
        json!({ "namespace": "default", "name": "hook", "path": "/always-deny", "port": 8443 });
    let config = json!({ "service": service, "caBundle": hook.ca_bundle });
    configure(&server, "validating", "deny", config, json!({})).await;
    let refused = |message: String, why: &str| assert!(message.contains(why), "{message}");
    let create = || server.post(MAPS, config_map("m", json!({})));
    refused(
        create().await.refused(500, "InternalError"),
        r#"failed calling webhook "deny.example.com": failed to call webhook: Post "https://hook.default.svc:8443/always-deny?timeout=5s": service "hook" not found"#,
    );
    let service = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": { "name": "hook" },
        "spec": { "ports": [{ "port": 8443, "targetPort": hook.address.port() }] },
    });
    server.post("/api/v1/namespaces/default/services", service).await.expect(201);
    let none = r#"no endpoints available for service "hook""#;
    refused(create().await.refused(500, "InternalError"), none);
    let slice = json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": { "name": "hook-1", "labels": { "kubernetes.io/service-name": "hook" } },
        "addressType": "IPv4",
        "endpoints": [{ "addresses": ["127.0.0.1"], "conditions": { "ready": true } }],
        "ports": [{ "name": "", "port": hook.address.port(), "protocol": "TCP" }],
    });
    let slices = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices";
    server.post(slices, slice).await.expect(201);
    assert_eq!(
        create().await.expect(400)["message"],
        r#"admission webhook "deny.example.com" denied the request without explanation"#
    );
}

#[tokio::test]
async fn conditions_and_dry_runs_narrow_what_is_asked() {
    let server = Harness::start().await;
    let hook = ExtensionServer::start(|_, question| {
        assert_eq!(question["request"]["dryRun"], true);
        review(&question, json!({ "allowed": false }))
    })
    .await;
    let conditions = json!({ "matchConditions": [{ "name": "not-me", "expression": "object.metadata.name != 'skip-me'" }] });
    configure(&server, "validating", "deny", hook.client_config("/"), conditions).await;
    server.post(MAPS, config_map("skip-me", json!({}))).await.expect(201);
    server.post(&format!("{MAPS}?dryRun=All"), config_map("m", json!({}))).await.expect(400);
}

/// Objects are admitted in the version that the webhook asks for, and in none if it wants exact matches.
#[tokio::test]
async fn equivalent_versions_are_shown_as_the_webhook_knows_them() {
    let server = Harness::start().await;
    let hook = ExtensionServer::start(|_, question| {
        let request = &question["request"];
        assert_eq!(request["kind"]["version"], "v2");
        assert_eq!(request["requestKind"]["version"], "v1");
        assert_eq!(request["object"]["apiVersion"], "autoscaling/v2");
        assert_eq!(request["object"]["spec"]["metrics"][0]["resource"]["name"], "cpu");
        review(&question, json!({ "allowed": false }))
    })
    .await;
    let scalers = "/apis/autoscaling/v1/namespaces/default/horizontalpodautoscalers";
    let scaler = |name: &str| {
        json!({ "apiVersion": "autoscaling/v1", "kind": "HorizontalPodAutoscaler", "metadata": { "name": name },
            "spec": { "maxReplicas": 3, "targetCPUUtilizationPercentage": 50,
                "scaleTargetRef": { "apiVersion": "apps/v1", "kind": "Deployment", "name": "web" } } })
    };
    let rules = json!([{ "operations": ["CREATE"], "apiGroups": ["autoscaling"], "apiVersions": ["v2"],
        "resources": ["horizontalpodautoscalers"] }]);
    let exact = json!({ "rules": rules, "matchPolicy": "Exact" });
    configure(&server, "validating", "exact", hook.client_config("/"), exact).await;
    server.post(scalers, scaler("a")).await.expect(201);
    let equivalent = json!({ "rules": rules });
    configure(&server, "validating", "equivalent", hook.client_config("/"), equivalent).await;
    server.post(scalers, scaler("b")).await.expect(400);
}

/// Bindings, evictions, scales and connections are writes like others.
#[tokio::test]
async fn subresources_are_admitted_by_what_they_carry() {
    let server = Harness::start().await;
    server.namespace("shop").await;
    let hook = ExtensionServer::start(|_, question| {
        let request = &question["request"];
        let told = format!(
            "{} {} {} {}",
            request["operation"].as_str().unwrap(),
            request["subResource"].as_str().unwrap(),
            request["kind"]["kind"].as_str().unwrap(),
            request["object"]["kind"].as_str().unwrap(),
        );
        review(&question, json!({ "allowed": false, "status": { "message": told } }))
    })
    .await;
    let parts =
        ["pods/binding", "pods/eviction", "pods/proxy", "services/proxy", "deployments/scale"];
    let rules = json!({ "rules": [rule(&["CREATE", "UPDATE", "CONNECT"], &parts)] });
    configure(&server, "validating", "parts", hook.client_config("/"), rules).await;
    let pods = "/api/v1/namespaces/shop/pods";
    server.post(pods, pod("web")).await.expect(201);
    let deployment = json!({ "apiVersion": "apps/v1", "kind": "Deployment", "metadata": { "name": "web" },
        "spec": { "selector": { "matchLabels": { "a": "b" } }, "template": {
            "metadata": { "labels": { "a": "b" } }, "spec": pod("web")["spec"] } } });
    let deployments = "/apis/apps/v1/namespaces/shop/deployments";
    server.post(deployments, deployment).await.expect(201);
    let binding = json!({ "apiVersion": "v1", "kind": "Binding", "metadata": { "name": "web" },
        "target": { "kind": "Node", "name": "n0" } });
    let eviction =
        json!({ "apiVersion": "policy/v1", "kind": "Eviction", "metadata": { "name": "web" } });
    let told = |answer: harness::Answer| {
        let message = answer.expect(400)["message"].as_str().unwrap().to_owned();
        message.rsplit_once(": ").unwrap().1.to_owned()
    };
    let path = format!("{pods}/web");
    let answer = server.post(&format!("{path}/binding"), binding).await;
    assert_eq!(told(answer), "CREATE binding Binding Binding");
    let answer = server.post(&format!("{path}/eviction"), eviction).await;
    assert_eq!(told(answer), "CREATE eviction Eviction Eviction");
    let answer = server.get(&format!("{path}/proxy/index")).await;
    assert_eq!(told(answer), "CONNECT proxy PodProxyOptions PodProxyOptions");
    let answer = server.get("/api/v1/namespaces/shop/services/web/proxy/").await;
    assert_eq!(told(answer), "CONNECT proxy ServiceProxyOptions ServiceProxyOptions");
    let scale = json!({ "spec": { "replicas": 2 } });
    let answer = server.patch(&format!("{deployments}/web/scale"), "merge-patch", scale).await;
    assert_eq!(told(answer), "UPDATE scale Scale Scale");
}

/// A webhook that knows the old review alone is asked in it; one that knows neither cannot be configured.
#[tokio::test]
async fn reviews_are_written_in_the_webhooks_version() {
    let server = Harness::start().await;
    let hook = ExtensionServer::start(|_, question| {
        assert_eq!(question["apiVersion"], "admission.k8s.io/v1beta1");
        Reply::Json(json!({
            "apiVersion": "admission.k8s.io/v1beta1", "kind": "AdmissionReview",
            "response": { "uid": question["request"]["uid"], "allowed": false },
        }))
    })
    .await;
    let old = json!({ "admissionReviewVersions": ["v0", "v1beta1"] });
    configure(&server, "validating", "old", hook.client_config("/"), old).await;
    server.post(MAPS, config_map("m", json!({}))).await.expect(400);
    let webhook = json!({
        "name": "none.example.com", "clientConfig": hook.client_config("/"), "sideEffects": "None",
        "rules": [rule(&["CREATE"], &["configmaps"])], "admissionReviewVersions": ["v0"],
    });
    let configuration = json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingWebhookConfiguration",
        "metadata": { "name": "none" }, "webhooks": [webhook],
    });
    let path = format!("{HOOKS}/validatingwebhookconfigurations");
    let message = server.post(&path, configuration).await.refused(422, "Invalid");
    assert!(message.contains("must include at least one of v1, v1beta1"), "{message}");
}

/// Adds a label, and writes down that it was asked.
async fn labels_by(
    server: &Harness,
    name: &'static str,
    label: impl Fn(&Value) -> Option<(String, String)> + Send + Sync + 'static,
    asked: &Arc<Mutex<Vec<&'static str>>>,
    policy: &str,
) {
    let asked = asked.clone();
    let hook = ExtensionServer::start(move |_, question| {
        asked.lock().unwrap().push(name);
        let labels = &question["request"]["object"]["metadata"]["labels"];
        match label(labels) {
            Some((key, value)) => {
                let path = format!("/metadata/labels/{key}");
                patched(&question, json!([{ "op": "add", "path": path, "value": value }]))
            }
            None => review(&question, json!({ "allowed": true })),
        }
    })
    .await;
    let changes = json!({ "reinvocationPolicy": policy });
    configure(server, "mutating", name, hook.client_config("/"), changes).await;
}

/// A policy that writes down how many labels it has seen.
async fn counting_policy(server: &Harness) {
    let expression = "[JSONPatch{op: 'add', path: '/metadata/labels/count', value: string(object.metadata.labels.size())}]";
    let policy = json!({
        "metadata": { "name": "count" },
        "spec": {
            "matchConstraints": { "resourceRules": [rule(&["CREATE"], &["configmaps"])] },
            "reinvocationPolicy": "IfNeeded",
            "mutations": [{ "patchType": "JSONPatch", "jsonPatch": { "expression": expression } }],
        },
    });
    server.post(&format!("{HOOKS}/mutatingadmissionpolicies"), policy).await.expect(201);
    let binding = json!({ "metadata": { "name": "count" }, "spec": { "policyName": "count" } });
    server.post(&format!("{HOOKS}/mutatingadmissionpolicybindings"), binding).await.expect(201);
}

#[tokio::test]
async fn who_wants_is_asked_again_after_later_changes_and_nobody_else() {
    let server = Harness::start().await;
    let asked = Arc::default();
    counting_policy(&server).await;
    let none = |_: &Value| None;
    labels_by(&server, "a", none, &asked, "IfNeeded").await;
    labels_by(&server, "b", none, &asked, "Never").await;
    let one = |labels: &Value| {
        labels["c"]
            .is_null()
            .then(|| ("c".to_owned(), labels["count"].as_str().unwrap().to_owned()))
    };
    labels_by(&server, "c", one, &asked, "Never").await;
    labels_by(&server, "d", none, &asked, "IfNeeded").await;
    let made = server.post(MAPS, config_map("x", json!({ "app": "x" }))).await.expect(201);
    // The policy saw one label, and three when it was asked again. Its second change is after everybody: all who want are asked.
    assert_eq!(made["metadata"]["labels"], json!({ "app": "x", "c": "1", "count": "3" }));
    assert_eq!(*asked.lock().unwrap(), ["a", "b", "c", "d", "a", "d"]);
}

#[tokio::test]
async fn a_change_of_the_second_round_is_shown_once_more_and_no_further() {
    let server = Harness::start().await;
    let asked = Arc::default();
    let first =
        |labels: &Value| labels["b"].is_string().then(|| ("a".to_owned(), "saw-b".to_owned()));
    labels_by(&server, "a", first, &asked, "IfNeeded").await;
    let second = |_: &Value| Some(("b".to_owned(), "1".to_owned()));
    labels_by(&server, "b", second, &asked, "IfNeeded").await;
    labels_by(&server, "c", |_: &Value| None, &asked, "IfNeeded").await;
    let made = server.post(MAPS, config_map("x", json!({ "app": "x" }))).await.expect(201);
    assert_eq!(made["metadata"]["labels"], json!({ "app": "x", "b": "1", "a": "saw-b" }));
    // The second change is after the others, and nobody is asked a third time.
    assert_eq!(*asked.lock().unwrap(), ["a", "b", "c", "a", "b", "c"]);
}

#[tokio::test]
async fn calls_are_counted() {
    let server = Harness::start().await;
    let hook = ExtensionServer::start(|_, question| {
        let bad = question["request"]["object"]["data"]["a"] == "bad";
        review(&question, json!({ "allowed": !bad, "status": { "code": 418 } }))
    })
    .await;
    configure(&server, "validating", "judge", hook.client_config("/"), json!({})).await;
    let nobody = json!({ "url": "https://127.0.0.1:1/" });
    configure(&server, "mutating", "gone", nobody, json!({ "failurePolicy": "Ignore" })).await;
    server.post(MAPS, config_map("good", json!({}))).await.expect(201);
    let mut bad = config_map("bad", json!({}));
    bad["data"]["a"] = json!("bad");
    server.post(MAPS, bad).await.expect(418);
    let metrics = String::from_utf8(server.get("/metrics").await.bytes).unwrap();
    let call = r#"name="judge.example.com",type="validating",operation="CREATE""#;
    let gone = r#"name="gone.example.com",type="admit""#;
    for line in [
        format!(
            r#"apiserver_admission_webhook_request_total{{{call},code="200",rejected="false"}} 1"#
        ),
        format!(
            r#"apiserver_admission_webhook_request_total{{{call},code="418",rejected="true"}} 1"#
        ),
        format!(
            r#"apiserver_admission_webhook_rejection_count{{{call},error_type="no_error",rejection_code="418"}} 1"#
        ),
        format!(
            r#"apiserver_admission_webhook_admission_duration_seconds_count{{{call},rejected="true"}} 1"#
        ),
        format!(r"apiserver_admission_webhook_fail_open_count{{{gone}}} 2"),
    ] {
        assert!(metrics.contains(&line), "{line} in {metrics}");
    }
}
