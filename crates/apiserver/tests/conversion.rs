//! Kinds whose versions a webhook converts: every reader sees its own version, and the store holds one.

mod extension_server;
mod harness;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use extension_server::{ExtensionServer, Reply};
use harness::{Harness, config_map, names, next};
use serde_json::{Value, json};

const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
const DEFINITION: &str =
    "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/crontabs.stable.example.com";
const ONE: &str = "/apis/stable.example.com/v1/namespaces/default/crontabs";
const TWO: &str = "/apis/stable.example.com/v2/namespaces/default/crontabs";

/// `v1` has `hostPort`, `v2` has `host` and `port`; `v1` is stored.
fn definition(webhook: Value) -> Value {
    let text = json!({ "type": "string" });
    let version = |name: &str, fields: Value| {
        let mut properties = fields;
        properties["spec"] =
            json!({ "type": "object", "properties": { "size": { "type": "integer" } } });
        properties["status"] =
            json!({ "type": "object", "properties": { "size": { "type": "integer" } } });
        json!({
            "name": name, "served": true, "storage": name == "v1",
            "subresources": { "status": {}, "scale": { "specReplicasPath": ".spec.size", "statusReplicasPath": ".status.size" } },
            "schema": { "openAPIV3Schema": { "type": "object", "properties": properties } },
        })
    };
    let mut one = version("v1", json!({ "hostPort": text }));
    one["selectableFields"] = json!([{ "jsonPath": ".hostPort" }]);
    let mut two = version("v2", json!({ "host": text, "port": text }));
    two["selectableFields"] = json!([{ "jsonPath": ".host" }]);
    json!({
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": { "name": "crontabs.stable.example.com" },
        "spec": {
            "group": "stable.example.com",
            "scope": "Namespaced",
            "names": { "plural": "crontabs", "singular": "crontab", "kind": "CronTab" },
            "conversion": { "strategy": "Webhook", "webhook": {
                "conversionReviewVersions": ["v1"], "clientConfig": webhook } },
            "versions": [one, two],
        },
    })
}

fn one(name: &str, host_port: &str) -> Value {
    json!({ "apiVersion": "stable.example.com/v1", "kind": "CronTab", "metadata": { "name": name }, "hostPort": host_port })
}

fn two(name: &str, host: &str, port: &str) -> Value {
    json!({ "apiVersion": "stable.example.com/v2", "kind": "CronTab", "metadata": { "name": name }, "host": host, "port": port })
}

/// What upstream's sample converter does.
fn converted(object: &Value, to: &Value) -> Value {
    let mut converted = object.clone();
    assert_ne!(object["apiVersion"], *to, "what is in the wanted version is not sent");
    converted["apiVersion"] = to.clone();
    let fields = converted.as_object_mut().unwrap();
    if *to == "stable.example.com/v2" {
        let both = fields.remove("hostPort").unwrap_or_default();
        let (host, port) = both.as_str().unwrap_or_default().split_once(':').unwrap_or_default();
        fields.insert("host".to_owned(), json!(host));
        fields.insert("port".to_owned(), json!(port));
    } else {
        let text = |value: Option<Value>| {
            value.unwrap_or_default().as_str().unwrap_or_default().to_owned()
        };
        let (host, port) = (text(fields.remove("host")), text(fields.remove("port")));
        fields.insert("hostPort".to_owned(), json!(format!("{host}:{port}")));
    }
    converted
}

fn review(question: &Value, objects: Vec<Value>) -> Reply {
    Reply::Json(json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "ConversionReview",
        "response": { "uid": question["request"]["uid"], "result": { "status": "Success" }, "convertedObjects": objects },
    }))
}

fn convert(question: &Value) -> Vec<Value> {
    let request = &question["request"];
    let objects = request["objects"].as_array().unwrap();
    objects.iter().map(|object| converted(object, &request["desiredAPIVersion"])).collect()
}

/// A server with the definition, and a count of the questions that its webhook was asked.
async fn start() -> (Harness, ExtensionServer, Arc<AtomicUsize>) {
    let asked = Arc::new(AtomicUsize::new(0));
    let count = asked.clone();
    let hook = ExtensionServer::start(move |path, question| {
        assert_eq!((path, &question["kind"]), ("/convert", &json!("ConversionReview")));
        count.fetch_add(1, Ordering::Relaxed);
        review(&question, convert(&question))
    })
    .await;
    let server = Harness::start().await;
    establish(&server, definition(hook.client_config("/convert"))).await;
    (server, hook, asked)
}

async fn establish(server: &Harness, definition: Value) {
    let mut watch = server.watch(&format!("{DEFINITIONS}?watch=true")).await;
    server.post(DEFINITIONS, definition).await.expect(201);
    loop {
        let event = next(&mut watch).await;
        let conditions = event["object"]["status"]["conditions"].as_array().cloned();
        if conditions
            .into_iter()
            .flatten()
            .any(|it| it["type"] == "Established" && it["status"] == "True")
        {
            return;
        }
    }
}

#[tokio::test]
async fn every_verb_speaks_the_version_of_its_path() {
    let (server, _hook, _) = start().await;
    let made = server.post(TWO, two("a", "h", "1")).await.expect(201);
    assert_eq!(
        (&made["apiVersion"], &made["host"]),
        (&json!("stable.example.com/v2"), &json!("h"))
    );
    let stored = server.get(&format!("{ONE}/a")).await.expect(200);
    assert_eq!((&stored["hostPort"], &stored["host"]), (&json!("h:1"), &Value::Null));
    assert_eq!(stored["metadata"]["uid"], made["metadata"]["uid"]);

    let mut update = server.get(&format!("{TWO}/a")).await.expect(200);
    update["port"] = json!("2");
    let updated = server.put(&format!("{TWO}/a"), update).await.expect(200);
    assert_eq!((&updated["port"], &updated["metadata"]["generation"]), (&json!("2"), &json!(2)));
    let patched =
        server.patch(&format!("{TWO}/a"), "merge-patch", json!({ "host": "g" })).await.expect(200);
    assert_eq!((&patched["host"], &patched["port"]), (&json!("g"), &json!("2")));
    let apply = json!({ "apiVersion": "stable.example.com/v2", "kind": "CronTab",
        "metadata": { "name": "a", "labels": { "l": "1" } }, "port": "3" });
    let path = format!("{TWO}/a?fieldManager=me&force=true");
    let applied = server
        .send(http::Method::PATCH, &path, "application/apply-patch+yaml", Some(apply))
        .await
        .expect(200);
    assert_eq!((&applied["host"], &applied["port"]), (&json!("g"), &json!("3")));
    assert_eq!(server.get(&format!("{ONE}/a")).await.expect(200)["hostPort"], "g:3");

    let deleted = server.delete(&format!("{TWO}/a"), json!({})).await.expect(200);
    assert_eq!(deleted["status"], "Success");
    assert_eq!(server.get(&format!("{ONE}/a")).await.code, 404);
}

#[tokio::test]
async fn parts_of_an_object_are_written_in_any_version() {
    let (server, _hook, _) = start().await;
    server.post(ONE, one("a", "h:1")).await.expect(201);
    let status = json!({ "status": { "size": 3 }, "host": "ignored" });
    let path = format!("{TWO}/a/status");
    let answer = server.patch(&path, "merge-patch", status).await.expect(200);
    assert_eq!((&answer["host"], &answer["status"]["size"]), (&json!("h"), &json!(3)));
    let scale = json!({ "spec": { "replicas": 5 } });
    let path = format!("{TWO}/a/scale");
    let answer = server.patch(&path, "merge-patch", scale).await.expect(200);
    assert_eq!(
        (&answer["spec"]["replicas"], &answer["status"]["replicas"]),
        (&json!(5), &json!(3))
    );
    let stored = server.get(&format!("{ONE}/a")).await.expect(200);
    assert_eq!((&stored["spec"]["size"], &stored["hostPort"]), (&json!(5), &json!("h:1")));
}

#[tokio::test]
async fn a_list_shows_one_version_whatever_is_stored() {
    let (server, _hook, asked) = start().await;
    for (name, at) in [("a", "h:1"), ("b", "h:2"), ("c", "g:3")] {
        server.post(ONE, one(name, at)).await.expect(201);
    }
    let swap = json!([
        { "op": "replace", "path": "/spec/versions/0/storage", "value": false },
        { "op": "replace", "path": "/spec/versions/1/storage", "value": true },
    ]);
    let mut watch = server.watch(&format!("{DEFINITIONS}?watch=true")).await;
    let swapped = server.patch(DEFINITION, "json-patch", swap).await.expect(200);
    assert_eq!(swapped["status"]["storedVersions"], json!(["v1", "v2"]));
    next(&mut watch).await;
    server.post(TWO, two("d", "g", "4")).await.expect(201);

    let before = asked.load(Ordering::Relaxed);
    let list = server.get(TWO).await.expect(200);
    let hosts: Vec<&Value> =
        list["items"].as_array().unwrap().iter().map(|it| &it["host"]).collect();
    assert_eq!(
        (hosts, &list["apiVersion"]),
        (
            [&json!("h"), &json!("h"), &json!("g"), &json!("g")].to_vec(),
            &json!("stable.example.com/v2"),
        )
    );
    assert!(asked.load(Ordering::Relaxed) <= before + 1, "one question for a list");
    server.get(TWO).await.expect(200);
    assert!(asked.load(Ordering::Relaxed) <= before + 1, "none for the next one");
    let list = server.get(ONE).await.expect(200);
    let all: Vec<&Value> =
        list["items"].as_array().unwrap().iter().map(|it| &it["hostPort"]).collect();
    assert_eq!(all, ["h:1", "h:2", "g:3", "g:4"]);

    // Selectors mean what the version of the path says.
    let list = server.get(&format!("{TWO}?fieldSelector=host%3Dg")).await.expect(200);
    assert_eq!(names(&list), ["c", "d"]);
    let page = server.get(&format!("{TWO}?limit=1&fieldSelector=host%3Dg")).await.expect(200);
    assert_eq!(names(&page), ["c"]);

    // A write that changes nothing still moves the object to the new version.
    let same = server.get(&format!("{TWO}/a")).await.expect(200);
    let moved = server.put(&format!("{TWO}/a"), same.clone()).await.expect(200);
    assert_ne!(moved["metadata"]["resourceVersion"], same["metadata"]["resourceVersion"]);
    let again = server.put(&format!("{TWO}/a"), moved.clone()).await.expect(200);
    assert_eq!(moved["metadata"]["resourceVersion"], again["metadata"]["resourceVersion"]);

    server.delete(TWO, json!({})).await.expect(200);
    assert!(names(&server.get(ONE).await.expect(200)).is_empty());
}

#[tokio::test]
async fn watchers_see_their_own_version() {
    let (server, _hook, _) = start().await;
    server.post(ONE, one("a", "h:1")).await.expect(201);
    let mut all = server.watch(&format!("{TWO}?watch=true")).await;
    let mut some = server.watch(&format!("{TWO}?watch=true&fieldSelector=host%3Dh")).await;
    let tell = |event: Value| {
        let object = &event["object"];
        assert_eq!(object["apiVersion"], "stable.example.com/v2", "{event}");
        format!("{} {} {}", event["type"], object["host"], object["port"]).replace('"', "")
    };
    assert_eq!(tell(next(&mut all).await), "ADDED h 1");
    assert_eq!(tell(next(&mut some).await), "ADDED h 1");
    let path = format!("{ONE}/a");
    server.patch(&path, "merge-patch", json!({ "hostPort": "h:2" })).await.expect(200);
    server.patch(&path, "merge-patch", json!({ "hostPort": "g:2" })).await.expect(200);
    server.delete(&path, json!({})).await.expect(200);
    for wanted in ["MODIFIED h 2", "MODIFIED g 2", "DELETED g 2"] {
        assert_eq!(tell(next(&mut all).await), wanted);
    }
    for wanted in ["MODIFIED h 2", "DELETED h 2"] {
        assert_eq!(tell(next(&mut some).await), wanted);
    }
}

#[tokio::test]
async fn what_the_webhook_says_is_not_believed() {
    let broken = Arc::new(AtomicBool::new(false));
    let breaks = broken.clone();
    let hook = ExtensionServer::start(move |_, question| {
        let mut objects = convert(&question);
        let name = objects[0]["metadata"]["name"].as_str().unwrap().to_owned();
        if !breaks.load(Ordering::Relaxed) {
            return review(&question, objects);
        }
        match name.as_str() {
            "less" => return review(&question, Vec::new()),
            "renamed" => objects[0]["metadata"]["name"] = json!("other"),
            "down" => return Reply::Raw(500, Vec::new()),
            "garbage" => return Reply::Raw(200, b"{".to_vec()),
            "failed" => {
                return Reply::Json(json!({
                    "apiVersion": "apiextensions.k8s.io/v1", "kind": "ConversionReview",
                    "response": { "uid": question["request"]["uid"], "result": { "status": "Failed", "message": "not today" } },
                }));
            }
            _ => {
                objects[0]["metadata"]["finalizers"] = json!(["mine"]);
                objects[0]["metadata"]["labels"] = json!({ "l": "1" });
                objects[0]["unknown"] = json!(1);
            }
        }
        review(&question, objects)
    })
    .await;
    let server = Harness::start().await;
    establish(&server, definition(hook.client_config("/"))).await;
    for name in ["less", "renamed", "down", "garbage", "failed", "good"] {
        server.post(ONE, one(name, "h:1")).await.expect(201);
    }
    broken.store(true, Ordering::Relaxed);
    for (name, why) in [
        ("less", "returned 0 objects, expected 1"),
        ("renamed", "returned invalid object: must have the same name: renamed != other"),
        (
            "down",
            "failed: an error on the server (\"unknown\") has prevented the request from succeeding",
        ),
        ("garbage", "failed: couldn't get version/kind; json parse error: "),
        ("failed", "failed: not today"),
    ] {
        let status = server.get(&format!("{TWO}/{name}")).await.expect(500);
        let wanted = format!("conversion webhook for stable.example.com/v1, Kind=CronTab {why}");
        assert!(status["message"].as_str().unwrap().starts_with(&wanted), "{status}");
        // Its own version is not the webhook's business.
        server.get(&format!("{ONE}/{name}")).await.expect(200);
    }
    let good = server.get(&format!("{TWO}/good")).await.expect(200);
    assert_eq!((&good["metadata"]["finalizers"], &good["unknown"]), (&Value::Null, &Value::Null));
    assert_eq!(good["metadata"]["labels"], json!({ "l": "1" }));
    let mut watch = server.watch(&format!("{TWO}/good?watch=true&resourceVersion=1")).await;
    let event = next(&mut watch).await;
    assert!(matches!(event["type"].as_str(), Some("ADDED" | "ERROR")), "{event}");
    // Other kinds do not notice.
    let maps = "/api/v1/namespaces/default/configmaps";
    server.post(maps, config_map("m", json!({}))).await.expect(201);
}

/// `MANAGER VERSION: FIELDS` of each entry.
fn managers(object: &Value) -> Vec<String> {
    let entries = object["metadata"]["managedFields"].as_array().into_iter().flatten();
    let mut told: Vec<String> = entries
        .map(|entry| {
            let fields: Vec<&str> =
                entry["fieldsV1"].as_object().unwrap().keys().map(String::as_str).collect();
            let (_, version) = entry["apiVersion"].as_str().unwrap().split_once('/').unwrap();
            format!("{} {version}: {}", entry["manager"].as_str().unwrap(), fields.join(" "))
        })
        .collect();
    told.sort();
    told
}

async fn apply(server: &Harness, path: &str, by: &str, config: Value) -> harness::Answer {
    let path = format!("{path}/a?fieldManager={by}");
    server.send(http::Method::PATCH, &path, "application/apply-patch+yaml", Some(config)).await
}

#[tokio::test]
async fn a_manager_of_one_version_loses_what_another_version_changes() {
    let (server, _hook, _) = start().await;
    let made = apply(&server, ONE, "first", one("a", "h:1")).await.expect(201);
    assert_eq!(managers(&made), ["first v1: f:hostPort"]);
    // A write of something else is none of its business.
    let size = json!({ "spec": { "size": 3 } });
    let other = server.patch(&format!("{TWO}/a?fieldManager=other"), "merge-patch", size).await;
    assert_eq!(managers(&other.expect(200)), ["first v1: f:hostPort", "other v2: f:spec"]);
    let port = json!({ "port": "2" });
    let taken = server.patch(&format!("{TWO}/a?fieldManager=other"), "merge-patch", port).await;
    assert_eq!(managers(&taken.expect(200)), ["other v2: f:port f:spec"]);
}

#[tokio::test]
async fn who_applies_in_two_versions_conflicts_and_shares_across_them() {
    let (server, _hook, _) = start().await;
    apply(&server, ONE, "first", one("a", "h:1")).await.expect(201);
    let message = apply(&server, TWO, "second", two("a", "h", "2")).await.refused(409, "Conflict");
    assert_eq!(message, "Apply failed with 1 conflict: conflict with \"first\": .port");
    // What is wanted alike is shared.
    let shared = apply(&server, TWO, "second", two("a", "h", "1")).await.expect(200);
    assert_eq!(managers(&shared), ["first v1: f:hostPort", "second v2: f:host f:port"]);
    let forced = format!("{TWO}/a?fieldManager=second&force=true");
    let config = Some(two("a", "h", "2"));
    let apply_patch = "application/apply-patch+yaml";
    let forced = server.send(http::Method::PATCH, &forced, apply_patch, config).await.expect(200);
    assert_eq!(managers(&forced), ["second v2: f:host f:port"]);
    assert_eq!(server.get(&format!("{ONE}/a")).await.expect(200)["hostPort"], "h:2");
}

#[tokio::test]
async fn a_manager_may_go_on_in_another_version() {
    let (server, _hook, _) = start().await;
    let mut config = one("a", "h:1");
    config["spec"] = json!({ "size": 2 });
    apply(&server, ONE, "first", config).await.expect(201);
    let moved = apply(&server, TWO, "first", two("a", "h", "1")).await.expect(200);
    assert_eq!(managers(&moved), ["first v2: f:host f:port"]);
    // What it does not want any longer is gone with its wish.
    assert_eq!(moved["spec"], Value::Null);
    assert_eq!((&moved["host"], &moved["port"]), (&json!("h"), &json!("1")));
}
