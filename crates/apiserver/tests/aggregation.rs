//! `APIService`: which group-versions there are, and who serves them.

mod extension_server;
mod harness;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use extension_server::{ExtensionServer, Reply};
use harness::{Harness, next};
use http::Request;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

const SERVICES: &str = "/apis/apiregistration.k8s.io/v1/apiservices";
const FLUNDERS: &str = "/apis/wardle.example.com/v1alpha1/namespaces/default/flunders";

#[tokio::test]
async fn what_we_serve_ourselves_is_registered_and_available() {
    let server = Harness::start().await;
    let list = server.get(SERVICES).await.expect(200);
    let names = harness::names(&list);
    assert!(
        names.contains(&"v1.".to_owned()) && names.contains(&"v1.apps".to_owned()),
        "{names:?}"
    );
    for service in list["items"].as_array().unwrap() {
        let condition = &service["status"]["conditions"][0];
        assert_eq!(
            (&condition["type"], &condition["status"], &condition["reason"]),
            (&"Available".into(), &"True".into(), &"Local".into()),
            "{service}"
        );
    }
}

#[tokio::test]
async fn groups_of_definitions_are_registered_while_they_are_served() {
    let server = Harness::start().await;
    let mut watch = server
        .watch(&format!("{SERVICES}?watch=true&fieldSelector=metadata.name%3Dv1.x.example.com"))
        .await;
    let definition = json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": { "name": "as.x.example.com" },
        "spec": { "group": "x.example.com", "scope": "Cluster", "names": { "plural": "as", "kind": "A" },
            "versions": [{ "name": "v1", "served": true, "storage": true, "schema": { "openAPIV3Schema": { "type": "object" } } }] },
    });
    let definitions = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
    server.post(definitions, definition).await.expect(201);
    let made = next(&mut watch).await;
    assert_eq!(made["type"], "ADDED");
    let (labels, spec) = (&made["object"]["metadata"]["labels"], &made["object"]["spec"]);
    assert_eq!(labels["kube-aggregator.kubernetes.io/automanaged"], "true");
    assert_eq!(spec["groupPriorityMinimum"], 1000);
    server.delete(&format!("{SERVICES}/v1.x.example.com"), json!({})).await.expect(200);
    assert_eq!(next(&mut watch).await["type"], "DELETED");
    assert_eq!(next(&mut watch).await["type"], "ADDED");
    server.delete(&format!("{definitions}/as.x.example.com"), json!({})).await.expect(200);
    assert_eq!(next(&mut watch).await["type"], "DELETED");
}

/// A Service whose endpoints lead to this server.
async fn lead_to(server: &Harness, extension: &ExtensionServer) {
    let port = extension.address.port();
    let service = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": { "name": "hook" },
        "spec": { "ports": [{ "port": 7443, "targetPort": port }] },
    });
    server.post("/api/v1/namespaces/default/services", service).await.expect(201);
    let slice = json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": { "name": "hook-1", "labels": { "kubernetes.io/service-name": "hook" } },
        "addressType": "IPv4",
        "endpoints": [{ "addresses": ["127.0.0.1"], "conditions": { "ready": true } }],
        "ports": [{ "name": "", "port": port, "protocol": "TCP" }],
    });
    let slices = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices";
    server.post(slices, slice).await.expect(201);
}

fn api_service(trust: Value) -> Value {
    let mut service = json!({
        "apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService",
        "metadata": { "name": "v1alpha1.wardle.example.com" },
        "spec": {
            "group": "wardle.example.com", "version": "v1alpha1",
            "groupPriorityMinimum": 2000, "versionPriority": 200,
            "service": { "namespace": "default", "name": "hook", "port": 7443 },
        },
    });
    for (field, value) in trust.as_object().unwrap() {
        service["spec"][field] = value.clone();
    }
    service
}

/// Waits until the condition has this reason.
async fn until(watch: &mut (impl futures::Stream<Item = Value> + Unpin), reason: &str) -> Value {
    loop {
        let condition =
            next(watch).await.pointer("/object/status/conditions/0").cloned().unwrap_or_default();
        if condition["reason"] == reason {
            return condition;
        }
    }
}

async fn follow(server: &Harness) -> impl futures::Stream<Item = Value> + Unpin + use<> {
    let name = "fieldSelector=metadata.name%3Dv1alpha1.wardle.example.com";
    server.watch(&format!("{SERVICES}?watch=true&{name}")).await
}

const CONSOLE: &str = "/apis/wardle.example.com/v1alpha1/namespaces/default/flunders/a/console";

fn swagger() -> Value {
    let reference = |name: &str| json!({ "$ref": format!("#/definitions/{name}") });
    let get = |name: &str| {
        json!({ "get": {
        "operationId": "read", "responses": { "200": { "description": "OK", "schema": reference(name) } },
    } })
    };
    json!({
        "swagger": "2.0", "info": { "title": "wardle", "version": "v0" },
        "paths": {
            FLUNDERS: get("com.example.wardle.Flunder"),
            "/apis/apps/v1/namespaces/{namespace}/deployments": get("Stolen"),
        },
        "definitions": {
            "com.example.wardle.Flunder": { "type": "object", "properties": {
                "metadata": reference("io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta") } },
            "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta": { "type": "object", "description": "of another version" },
            "Stolen": { "type": "object" },
        },
    })
}

/// Upstream's sample API server, as far as one sees from outside.
fn sample(parts: &http::request::Parts, body: Value) -> Reply {
    let header = |name: &str| parts.headers.get(name).map_or("", |value| value.to_str().unwrap());
    assert_eq!(header("authorization"), "");
    match (parts.method.as_str(), parts.uri.path()) {
        ("GET", "/apis/wardle.example.com/v1alpha1") => Reply::Json(json!({
            "kind": "APIResourceList", "apiVersion": "v1", "groupVersion": "wardle.example.com/v1alpha1",
            "resources": [{ "name": "flunders", "singularName": "flunder", "namespaced": true, "kind": "Flunder",
                "verbs": ["create", "get", "list"] }],
        })),
        ("GET", "/openapi/v2") => Reply::Json(swagger()),
        ("GET", CONSOLE) if header("upgrade") == "shout" && header("x-remote-user") == "admin" => {
            Reply::Shout
        }
        ("GET", "/openapi/v3") => Reply::Json(json!({ "paths": {
            "apis/wardle.example.com/v1alpha1": { "serverRelativeURL": "/openapi/v3/apis/wardle.example.com/v1alpha1?hash=1" },
            "apis/other": { "serverRelativeURL": "https://evil.example.com" } } })),
        ("GET", "/openapi/v3/apis/wardle.example.com/v1alpha1") => {
            Reply::Json(json!({ "openapi": "3.0.0" }))
        }
        ("POST", FLUNDERS) => {
            let mut made = body;
            made["by"] = json!([header("x-remote-user"), header("x-remote-group")]);
            made["query"] = json!(parts.uri.query());
            Reply::Json(made)
        }
        _ => Reply::Raw(404, b"none of mine".to_vec()),
    }
}

#[tokio::test]
async fn another_server_serves_its_group_behind_our_door() {
    let server = Harness::start().await;
    let map = "/api/v1/namespaces/kube-system/configmaps/extension-apiserver-authentication";
    let map = server.get(map).await.expect(200);
    assert_eq!(map["data"]["requestheader-allowed-names"], r#"["front-proxy-client"]"#);
    let ca = map["data"]["requestheader-client-ca-file"].as_str().unwrap();
    let extension = ExtensionServer::start_for(ca, sample).await;

    let mut watch = follow(&server).await;
    let trust = json!({ "caBundle": extension.ca_bundle });
    server.post(SERVICES, api_service(trust)).await.expect(201);
    let condition = until(&mut watch, "ServiceNotFound").await;
    assert_eq!(condition["message"], r#"service/hook in "default" is not present"#);
    assert_eq!(condition["status"], "False");
    let refused = server.get(FLUNDERS).await;
    assert_eq!(
        (refused.code, refused.bytes.as_slice()),
        (503, b"service unavailable\n".as_slice())
    );

    lead_to(&server, &extension).await;
    let condition = until(&mut watch, "Passed").await;
    assert_eq!(
        (&condition["status"], &condition["message"]),
        (&json!("True"), &json!("all checks passed"))
    );

    let path = format!("{FLUNDERS}?dryRun=All");
    let made = server.post(&path, json!({ "kind": "Flunder" })).await.expect(200);
    assert_eq!(made["by"], json!(["admin", "system:masters"]));
    assert_eq!(made["query"], "dryRun=All");
    assert_eq!(server.get(&format!("{FLUNDERS}/none")).await.code, 404);

    let group = server.get("/apis/wardle.example.com").await.expect(200);
    assert_eq!(group["preferredVersion"]["groupVersion"], "wardle.example.com/v1alpha1");
    let list = server.get("/apis/wardle.example.com/v1alpha1").await.expect(200);
    assert_eq!(list["resources"][0]["name"], "flunders");
    let index = server.get("/openapi/v3").await.expect(200);
    let address = index["paths"]["apis/wardle.example.com/v1alpha1"]["serverRelativeURL"].as_str();
    assert_eq!(server.get(address.unwrap()).await.expect(200)["openapi"], "3.0.0");

    server.delete(&format!("{SERVICES}/v1alpha1.wardle.example.com"), json!({})).await.expect(200);
    let mut groups = server.get("/apis").await.expect(200);
    let gone = || async {
        server.get(FLUNDERS).await.body["message"]
            == "the server could not find the requested resource"
    };
    tokio::time::timeout(std::time::Duration::from_secs(10), async {
        while !gone().await {
            tokio::task::yield_now().await;
        }
        groups = server.get("/apis").await.expect(200);
    })
    .await
    .unwrap();
    let groups = groups["groups"].as_array().unwrap();
    assert!(!groups.iter().any(|group| group["name"] == "wardle.example.com"));
}

#[tokio::test]
async fn a_server_that_fails_its_check_is_not_asked_until_it_passes() {
    let server = Harness::start().await;
    let healthy = Arc::new(AtomicBool::new(false));
    let well = healthy.clone();
    let extension = ExtensionServer::start(move |_, _| {
        if well.load(Ordering::Relaxed) {
            Reply::Json(json!({ "resources": [] }))
        } else {
            Reply::Raw(500, Vec::new())
        }
    })
    .await;
    lead_to(&server, &extension).await;
    let mut watch = follow(&server).await;
    server.post(SERVICES, api_service(json!({}))).await.expect(201);
    let condition = until(&mut watch, "FailedDiscoveryCheck").await;
    let message = condition["message"].as_str().unwrap();
    assert!(message.contains("x509: certificate signed by unknown authority"), "{message}");
    let path = format!("{SERVICES}/v1alpha1.wardle.example.com");
    let careless = json!({ "spec": { "insecureSkipTLSVerify": true } });
    server.patch(&path, "merge-patch", careless).await.expect(200);
    let message = loop {
        let condition = until(&mut watch, "FailedDiscoveryCheck").await;
        let message = condition["message"].as_str().unwrap().to_owned();
        if !message.contains("x509") {
            break message;
        }
    };
    let wanted = "failing or missing response from https://hook.default.svc:7443/apis/wardle.example.com/v1alpha1: bad status from";
    assert!(message.starts_with(wanted) && message.ends_with("500"), "{message}");
    assert_eq!(server.get(FLUNDERS).await.code, 503);
    healthy.store(true, Ordering::Relaxed);
    until(&mut watch, "Passed").await;
    server.get(FLUNDERS).await.expect(200);
    server.delete("/api/v1/namespaces/default/services/hook", json!({})).await.expect(200);
    until(&mut watch, "ServiceNotFound").await;
}

/// Brings the sample server behind our door.
async fn sample_behind(server: &Harness) {
    let extension = ExtensionServer::start_for(&front_proxy_ca(server).await, sample).await;
    lead_to(server, &extension).await;
    let mut watch = follow(server).await;
    let service = api_service(json!({ "caBundle": extension.ca_bundle }));
    server.post(SERVICES, service).await.expect(201);
    until(&mut watch, "Passed").await;
}

async fn front_proxy_ca(server: &Harness) -> String {
    let map = "/api/v1/namespaces/kube-system/configmaps/extension-apiserver-authentication";
    let map = server.get(map).await.expect(200);
    map["data"]["requestheader-client-ca-file"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn what_a_server_says_in_openapi_v2_is_part_of_ours() {
    let server = Harness::start().await;
    let before = server.get("/openapi/v2").await;
    let meta = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta";
    sample_behind(&server).await;
    let after = server.get("/openapi/v2").await;
    assert_ne!(after.headers["etag"], before.headers["etag"]);
    let document = after.expect(200);
    assert_eq!(document["paths"][FLUNDERS]["get"]["operationId"], "read");
    let flunder = &document["definitions"]["com.example.wardle.Flunder"];
    // Theirs is another one, and ours stays what it was.
    assert_eq!(flunder["properties"]["metadata"]["$ref"], format!("#/definitions/{meta}_v2"));
    assert_eq!(document["definitions"][format!("{meta}_v2")]["description"], "of another version");
    assert_eq!(document["definitions"][meta], before.body["definitions"][meta]);
    // Nobody describes what others serve.
    let deployments = "/apis/apps/v1/namespaces/{namespace}/deployments";
    assert_eq!(document["paths"][deployments], before.body["paths"][deployments]);
    assert!(document["definitions"].get("Stolen").is_none());
    let message = Request::get("/openapi/v2")
        .header("accept", "application/com.github.proto-openapi.spec.v2@v1.0+protobuf")
        .body(Vec::new())
        .unwrap();
    let message = harness::send(&server.client, message).await;
    assert_eq!(message.code, 200);
    let name = b"com.example.wardle.Flunder";
    assert!(message.bytes.windows(name.len()).any(|window| window == name));
    server.delete(&format!("{SERVICES}/v1alpha1.wardle.example.com"), json!({})).await.expect(200);
    tokio::time::timeout(Duration::from_secs(20), async {
        while server.get("/openapi/v2").await.headers["etag"] != before.headers["etag"] {
            tokio::task::yield_now().await;
        }
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn groups_and_versions_come_in_the_order_of_their_priorities() {
    let server = Harness::start().await;
    let mut follows = follow(&server).await;
    for (version, priority) in [("v1", 10), ("v1alpha1", 200), ("v2", 10)] {
        let mut service = api_service(json!({ "insecureSkipTLSVerify": true }));
        service["metadata"]["name"] = json!(format!("{version}.wardle.example.com"));
        service["spec"]["version"] = json!(version);
        service["spec"]["versionPriority"] = json!(priority);
        server.post(SERVICES, service).await.expect(201);
    }
    let accept = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";
    // What clients see: `group: versions` in both forms.
    let seen = async || {
        let told = |items: &Value, name: &str| -> Vec<String> {
            let version = |it: &Value| it["version"].as_str().unwrap().to_owned();
            let one = |item: &Value| {
                let versions: Vec<String> =
                    item["versions"].as_array().unwrap().iter().map(version).collect();
                format!("{}: {}", item.pointer(name).unwrap().as_str().unwrap(), versions.join(" "))
            };
            items.as_array().unwrap().iter().map(one).collect()
        };
        let groups = server.get("/apis").await.expect(200)["groups"].clone();
        let request = Request::get("/apis").header("accept", accept).body(Vec::new()).unwrap();
        let items = harness::send(&server.client, request).await.expect(200)["items"].clone();
        let (plain, aggregated) = (told(&groups, "/name"), told(&items, "/metadata/name"));
        let own = groups.as_array().unwrap().iter().find(|it| it["name"] == "wardle.example.com");
        let preferred = own.map(|own| own["preferredVersion"]["version"].clone());
        (plain, aggregated, preferred)
    };
    let name = "wardle.example.com: v1alpha1 v2 v1".to_owned();
    let (plain, aggregated) = tokio::time::timeout(Duration::from_secs(20), async {
        loop {
            let (plain, aggregated, preferred) = seen().await;
            // Behind it are the metrics of nodes and pods alone.
            let last = |groups: &[String]| groups.iter().nth_back(1) == Some(&name);
            if last(&plain) && last(&aggregated) {
                assert_eq!(preferred, Some(json!("v1alpha1")));
                return (plain, aggregated);
            }
            tokio::task::yield_now().await;
        }
    })
    .await
    .unwrap();
    assert_eq!(plain.len(), aggregated.len());
    until(&mut follows, "ServiceNotFound").await;
    let first = json!({ "spec": { "groupPriorityMinimum": 19_000 } });
    let path = format!("{SERVICES}/v1.wardle.example.com");
    server.patch(&path, "merge-patch", first).await.expect(200);
    tokio::time::timeout(Duration::from_secs(20), async {
        loop {
            let (plain, aggregated, _) = seen().await;
            if plain[0] == name && aggregated[0] == name {
                break;
            }
            tokio::task::yield_now().await;
        }
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn a_connection_that_speaks_another_protocol_is_handed_on_to_the_server() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = Harness::start_in(tempfile::tempdir().unwrap(), address).await;
    let stop = CancellationToken::new();
    let (api, ends) = (server.api.clone(), stop.clone());
    let serving = tokio::spawn(async move { api.serve(listener, ends).await.unwrap() });
    sample_behind(&server).await;
    let mut stream = harness::upgrade(&server, address, CONSOLE, "shout").await;
    stream.write_all(b"ahoy").await.unwrap();
    let mut heard = [0; 4];
    stream.read_exact(&mut heard).await.unwrap();
    assert_eq!(&heard, b"AHOY");
    stop.cancel();
    let rest = tokio::time::timeout(Duration::from_secs(10), stream.read(&mut heard));
    assert!(matches!(rest.await.expect("the tunnel ends"), Ok(0) | Err(_)));
    serving.await.unwrap();
    server.api.shutdown().await;
}
