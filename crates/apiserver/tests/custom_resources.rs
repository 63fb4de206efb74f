//! Kinds that definitions make: from their creation through the life of their objects to their end.

mod harness;

use harness::{Harness, names, next, summary};
use serde_json::{Value, json};

const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
const CRONTABS: &str = "/apis/stable.example.com/v1/namespaces/default/crontabs";

fn definition() -> Value {
    json!({
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": { "name": "crontabs.stable.example.com" },
        "spec": {
            "group": "stable.example.com",
            "scope": "Namespaced",
            "names": { "plural": "crontabs", "singular": "crontab", "kind": "CronTab", "shortNames": ["ct"], "categories": ["all"] },
            "versions": [{
                "name": "v1", "served": true, "storage": true,
                "subresources": {
                    "status": {},
                    "scale": { "specReplicasPath": ".spec.replicas", "statusReplicasPath": ".status.replicas", "labelSelectorPath": ".status.selector" },
                },
                "additionalPrinterColumns": [
                    { "name": "Spec", "type": "string", "jsonPath": ".spec.cronSpec", "description": "When it runs" },
                    { "name": "Replicas", "type": "integer", "jsonPath": ".spec.replicas" },
                ],
                "selectableFields": [{ "jsonPath": ".spec.cronSpec" }],
                "schema": { "openAPIV3Schema": {
                    "type": "object",
                    "description": "Runs something at times.",
                    "properties": {
                        "spec": {
                            "type": "object",
                            "required": ["cronSpec"],
                            "x-kubernetes-validations": [
                                { "rule": "!has(self.image) || self.image != 'bad'", "message": "image is bad" },
                            ],
                            "properties": {
                                "cronSpec": { "type": "string", "pattern": "^[0-9*/ ]+$" },
                                "image": { "type": "string", "x-kubernetes-validations": [{ "rule": "self == oldSelf", "message": "image is immutable" }] },
                                "replicas": { "type": "integer", "minimum": 1, "maximum": 10, "default": 1 },
                            },
                        },
                        "status": { "type": "object", "properties": { "replicas": { "type": "integer" }, "selector": { "type": "string" } } },
                    },
                } },
            }],
        },
    })
}

fn crontab(name: &str, spec: Value) -> Value {
    json!({ "apiVersion": "stable.example.com/v1", "kind": "CronTab", "metadata": { "name": name }, "spec": spec })
}

/// A server on which the definition is established.
async fn start(definition: Value) -> Harness {
    let server = Harness::start().await;
    establish(&server, definition).await;
    server
}

async fn establish(server: &Harness, definition: Value) -> Value {
    let name = definition["metadata"]["name"].as_str().unwrap().to_owned();
    let mut watch = server
        .watch(&format!("{DEFINITIONS}?watch=true&fieldSelector=metadata.name%3D{name}"))
        .await;
    let started = std::time::Instant::now();
    server.post(DEFINITIONS, definition).await.expect(201);
    loop {
        let event = next(&mut watch).await;
        if condition(&event["object"], "Established") == "True" {
            assert!(started.elapsed().as_millis() < 1000, "{:?}", started.elapsed());
            return event["object"].clone();
        }
    }
}

fn condition<'a>(object: &'a Value, name: &str) -> &'a str {
    let conditions =
        object["status"]["conditions"].as_array().map(Vec::as_slice).unwrap_or_default();
    conditions
        .iter()
        .find(|found| found["type"] == name)
        .map_or("", |found| found["status"].as_str().unwrap())
}

#[tokio::test]
async fn a_definition_makes_a_kind() {
    let server = Harness::start().await;
    assert_eq!(server.get(CRONTABS).await.code, 404);
    let established = establish(&server, definition()).await;
    assert_eq!(condition(&established, "NamesAccepted"), "True");
    assert_eq!(established["status"]["storedVersions"], json!(["v1"]));

    let created =
        server.post(CRONTABS, crontab("a", json!({ "cronSpec": "* * *" }))).await.expect(201);
    assert_eq!(created["spec"], json!({ "cronSpec": "* * *", "replicas": 1 }));
    assert_eq!(created["metadata"]["generation"], 1);
    let list = server.get(CRONTABS).await.expect(200);
    assert_eq!((list["kind"].as_str(), names(&list)), (Some("CronTabList"), vec!["a".to_owned()]));
    let mut watch = server.watch("/apis/stable.example.com/v1/crontabs?watch=true").await;
    assert_eq!(summary(&next(&mut watch).await), "ADDED a");

    let path = format!("{CRONTABS}/a");
    let patched =
        server.patch(&path, "merge-patch", json!({ "spec": { "replicas": 3 } })).await.expect(200);
    assert_eq!(patched["metadata"]["generation"], 2);
    assert_eq!(summary(&next(&mut watch).await), "MODIFIED a");
    let answer =
        server.patch(&path, "strategic-merge-patch", json!({ "spec": { "replicas": 3 } })).await;
    assert_eq!(answer.code, 415);
    server.delete(&path, json!({})).await.expect(200);
    assert_eq!(summary(&next(&mut watch).await), "DELETED a");
}

#[tokio::test]
async fn objects_keep_to_the_schema() {
    let server = start(definition()).await;
    let refused = |spec: Value| {
        let server = &server;
        async move { server.post(CRONTABS, crontab("x", spec)).await.refused(422, "Invalid") }
    };
    assert_eq!(
        refused(json!({ "cronSpec": "* *", "replicas": "2" })).await,
        "CronTab.stable.example.com \"x\" is invalid: [spec.replicas: Invalid value: \"string\": spec.replicas in body must be of type \
         integer: \"string\", <nil>: Invalid value: null: some validation rules were not checked because the object was invalid; \
         correct the existing errors to complete validation]"
    );
    assert_eq!(
        refused(json!({ "cronSpec": "daily" })).await,
        "CronTab.stable.example.com \"x\" is invalid: spec.cronSpec: Invalid value: \"daily\": spec.cronSpec in body should match \
         '^[0-9*/ ]+$'"
    );
    assert_eq!(
        refused(json!({ "cronSpec": "*", "image": "bad" })).await,
        "CronTab.stable.example.com \"x\" is invalid: spec: Invalid value: image is bad"
    );
    // Unknown fields: dropped with a warning, or refused.
    let answer = server
        .post(CRONTABS, crontab("a", json!({ "cronSpec": "*", "image": "one", "what": 1 })))
        .await;
    assert_eq!(answer.headers["warning"], "299 - \"unknown field \\\"spec.what\\\"\"");
    assert_eq!(answer.expect(201)["spec"]["what"], Value::Null);
    let strict = format!("{CRONTABS}?fieldValidation=Strict");
    let message = server
        .post(&strict, crontab("b", json!({ "cronSpec": "*", "what": 1 })))
        .await
        .refused(400, "BadRequest");
    assert_eq!(
        message,
        "CronTab in version \"v1\" cannot be handled as a CronTab: strict decoding error: unknown field \"spec.what\""
    );
    let request = http::Request::post(&strict)
        .header("content-type", "application/json")
        .body(br#"{"metadata":{"name":"d"},"spec":{"cronSpec":"*","cronSpec":"1"}}"#.to_vec())
        .unwrap();
    let message = harness::send(&server.client, request).await.refused(400, "BadRequest");
    assert!(
        message.ends_with("strict decoding error: duplicate field \"spec.cronSpec\""),
        "{message}"
    );
    let change = json!({ "spec": { "image": "two" } });
    let message =
        server.patch(&format!("{CRONTABS}/a"), "merge-patch", change).await.refused(422, "Invalid");
    assert!(
        message.contains("spec.image: Invalid value: \"two\": image is immutable"),
        "{message}"
    );
}

#[tokio::test]
async fn status_and_scale_are_written_by_themselves() {
    let server = start(definition()).await;
    let mut object = crontab("a", json!({ "cronSpec": "*" }));
    object["status"] = json!({ "replicas": 5 });
    let created = server.post(CRONTABS, object).await.expect(201);
    assert_eq!(created["status"], Value::Null);
    let path = format!("{CRONTABS}/a");
    let status =
        json!({ "spec": { "replicas": 9 }, "status": { "replicas": 2, "selector": "app=a" } });
    let written = server.patch(&format!("{path}/status"), "merge-patch", status).await.expect(200);
    assert_eq!(
        (&written["spec"]["replicas"], &written["status"]["replicas"]),
        (&json!(1), &json!(2))
    );
    assert_eq!(written["metadata"]["generation"], 1);

    let scale = server.get(&format!("{path}/scale")).await.expect(200);
    assert_eq!(scale["spec"], json!({ "replicas": 1 }));
    assert_eq!(scale["status"], json!({ "replicas": 2, "selector": "app=a" }));
    let wanted = json!({ "spec": { "replicas": 4 } });
    let scale = server.patch(&format!("{path}/scale"), "merge-patch", wanted).await.expect(200);
    assert_eq!(scale["spec"], json!({ "replicas": 4 }));
    let scaled = server.get(&path).await.expect(200);
    assert_eq!(
        (&scaled["spec"]["replicas"], &scaled["metadata"]["generation"]),
        (&json!(4), &json!(2))
    );
    let message = server
        .patch(&format!("{path}/scale"), "merge-patch", json!({ "spec": { "replicas": 40 } }))
        .await
        .refused(422, "Invalid");
    assert!(message.contains("should be less than or equal to 10"), "{message}");
}

#[tokio::test]
async fn clients_find_the_kind_and_its_columns() {
    let server = start(definition()).await;
    let groups = server.get("/apis").await.expect(200);
    assert!(
        groups["groups"]
            .as_array()
            .unwrap()
            .iter()
            .any(|group| group["name"] == "stable.example.com")
    );
    let resources = server.get("/apis/stable.example.com/v1").await.expect(200);
    let found: Vec<&str> = resources["resources"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| one["name"].as_str().unwrap())
        .collect();
    assert_eq!(found, ["crontabs", "crontabs/scale", "crontabs/status"]);

    let index = server.get("/openapi/v3").await.expect(200);
    let address =
        index["paths"]["apis/stable.example.com/v1"]["serverRelativeURL"].as_str().unwrap();
    let document = server.get(address).await.expect(200);
    let schema = &document["components"]["schemas"]["com.example.stable.v1.CronTab"];
    assert_eq!(schema["description"], "Runs something at times.");
    assert_eq!(schema["x-kubernetes-group-version-kind"][0]["kind"], "CronTab");
    assert!(document["components"]["schemas"]["com.example.stable.v1.CronTabList"].is_object());
    let object = "/apis/stable.example.com/v1/namespaces/{namespace}/crontabs/{name}";
    let patches = document["paths"][object]["patch"]["requestBody"]["content"].as_object().unwrap();
    // kubectl apply believes it.
    assert!(!patches.contains_key("application/strategic-merge-patch+json"));
    let document = server.get("/openapi/v2").await.expect(200);
    assert!(document["definitions"]["com.example.stable.v1.CronTab"].is_object());
    // kubectl asks by the old name and is answered by the new one.
    let message = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf";
    let ask = |tag: Option<http::HeaderValue>| {
        let request = http::Request::get("/openapi/v2").header("accept", message);
        request.header("if-none-match", tag.unwrap_or(http::HeaderValue::from_static("\"none\"")))
    };
    let answer = harness::send(&server.client, ask(None).body(Vec::new()).unwrap()).await;
    let media_type = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";
    assert_eq!((answer.code, &answer.headers["content-type"]), (200, &media_type.parse().unwrap()));
    let text = String::from_utf8_lossy(&answer.bytes);
    assert!(text.contains("com.example.stable.v1.CronTab") && !text.starts_with('{'));
    let tag = answer.headers["etag"].clone();
    harness::send(&server.client, ask(Some(tag)).body(Vec::new()).unwrap()).await.expect(304);

    for (name, spec) in [("a", "1 *"), ("b", "2 *")] {
        server.post(CRONTABS, crontab(name, json!({ "cronSpec": spec }))).await.expect(201);
    }
    let request = http::Request::get(CRONTABS)
        .header("accept", "application/json;as=Table;v=v1;g=meta.k8s.io")
        .body(Vec::new())
        .unwrap();
    let table = harness::send(&server.client, request).await.expect(200);
    let columns: Vec<&str> = table["columnDefinitions"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| one["name"].as_str().unwrap())
        .collect();
    assert_eq!(columns, ["Name", "Spec", "Replicas"]);
    assert_eq!(table["rows"][1]["cells"], json!(["b", "2 *", 1]));
    let selected =
        server.get(&format!("{CRONTABS}?fieldSelector=spec.cronSpec%3D2+*")).await.expect(200);
    assert_eq!(names(&selected), ["b"]);
    assert_eq!(server.get(&format!("{CRONTABS}?fieldSelector=spec.image%3Da")).await.code, 400);
}

#[tokio::test]
async fn versions_show_the_same_objects() {
    let mut two = definition();
    let mut beta = two["spec"]["versions"][0].clone();
    beta["name"] = json!("v1beta1");
    beta["storage"] = json!(false);
    beta["deprecated"] = json!(true);
    beta["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]["note"] =
        json!({ "type": "string", "default": "none" });
    two["spec"]["versions"].as_array_mut().unwrap().push(beta);
    let server = start(two).await;
    let old = CRONTABS.replace("/v1/", "/v1beta1/");
    let mut object = crontab("a", json!({ "cronSpec": "*" }));
    object["apiVersion"] = json!("stable.example.com/v1beta1");
    let answer = server.post(&old, object).await;
    assert_eq!(
        answer.headers["warning"],
        "299 - \"stable.example.com/v1beta1 CronTab is deprecated\""
    );
    let created = answer.expect(201);
    // What the stored version does not know is not kept, and stored objects get the defaults of the version they are stored in.
    assert_eq!(
        (&created["apiVersion"], &created["spec"]["note"]),
        (&json!("stable.example.com/v1beta1"), &Value::Null)
    );
    let shown = server.get(&format!("{CRONTABS}/a")).await.expect(200);
    assert_eq!(
        (&shown["apiVersion"], &shown["spec"]["note"]),
        (&json!("stable.example.com/v1"), &Value::Null)
    );
    let list = server.get(&old).await.expect(200);
    assert_eq!(list["items"][0]["apiVersion"], "stable.example.com/v1beta1");
    let stored = server
        .store
        .get(&coracle_store::Key::new("crontabs.stable.example.com", "default", "a"))
        .unwrap();
    assert!(String::from_utf8_lossy(&stored.bytes).contains("\"stable.example.com/v1\""));
}

#[tokio::test]
async fn a_changed_definition_changes_what_is_served() {
    let server = start(definition()).await;
    server.post(CRONTABS, crontab("a", json!({ "cronSpec": "*" }))).await.expect(201);
    let path = format!("{DEFINITIONS}/crontabs.stable.example.com");
    let mut changed = server.get(&path).await.expect(200);
    let spec = &mut changed["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
        ["properties"];
    spec["color"] = json!({ "type": "string", "default": "red" });
    server.put(&path, changed).await.expect(200);
    for _ in 0..100 {
        let shown = server.get(&format!("{CRONTABS}/a")).await.expect(200);
        if shown["spec"]["color"] == "red" {
            return;
        }
        tokio::task::yield_now().await;
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    panic!("the new default is not shown");
}

#[tokio::test]
async fn a_deleted_definition_takes_its_objects_along() {
    let server = start(definition()).await;
    server.post(CRONTABS, crontab("a", json!({ "cronSpec": "*" }))).await.expect(201);
    let mut waits = crontab("b", json!({ "cronSpec": "*" }));
    waits["metadata"]["finalizers"] = json!(["example.com/wait"]);
    server.post(CRONTABS, waits).await.expect(201);
    let mut objects = server.watch("/apis/stable.example.com/v1/crontabs?watch=true").await;
    assert_eq!(summary(&next(&mut objects).await), "ADDED a");
    assert_eq!(summary(&next(&mut objects).await), "ADDED b");
    let mut definitions = server.watch(&format!("{DEFINITIONS}?watch=true")).await;
    next(&mut definitions).await;

    let path = format!("{DEFINITIONS}/crontabs.stable.example.com");
    let going = server.delete(&path, json!({})).await.expect(200);
    assert_eq!(condition(&going, "Terminating"), "True");
    assert_eq!(summary(&next(&mut objects).await), "DELETED a");
    assert_eq!(summary(&next(&mut objects).await), "MODIFIED b");
    assert_eq!(server.post(CRONTABS, crontab("c", json!({ "cronSpec": "*" }))).await.code, 405);
    let free = json!({ "metadata": { "finalizers": null } });
    server.patch(&format!("{CRONTABS}/b"), "merge-patch", free).await.expect(200);
    loop {
        if summary(&next(&mut definitions).await) == "DELETED crontabs.stable.example.com" {
            break;
        }
    }
    assert_eq!(server.get(&path).await.code, 404);
    // A new one finds nothing of the old one.
    establish(&server, definition()).await;
    assert!(names(&server.get(CRONTABS).await.expect(200)).is_empty());
}

#[tokio::test]
async fn names_are_given_once() {
    let server = start(definition()).await;
    let mut other = definition();
    other["metadata"]["name"] = json!("tabs.stable.example.com");
    other["spec"]["names"]["plural"] = json!("tabs");
    other["spec"]["names"]["singular"] = json!("tab");
    let mut watch = server
        .watch(&format!(
            "{DEFINITIONS}?watch=true&fieldSelector=metadata.name%3Dtabs.stable.example.com"
        ))
        .await;
    server.post(DEFINITIONS, other).await.expect(201);
    let refused = loop {
        let event = next(&mut watch).await;
        if condition(&event["object"], "NamesAccepted") == "False" {
            break event["object"].clone();
        }
    };
    assert_eq!(condition(&refused, "Established"), "False");
    assert_eq!(server.get("/apis/stable.example.com/v1/tabs").await.code, 404);
}

#[tokio::test]
async fn kinds_survive_a_restart() {
    let server = start(definition()).await;
    let mut object = crontab("a", json!({ "cronSpec": "*" }));
    object["metadata"]["labels"] = json!({ "app": "a" });
    server.post(CRONTABS, object).await.expect(201);
    let server = server.restart().await;
    let list = server.get(&format!("{CRONTABS}?labelSelector=app%3Da")).await.expect(200);
    assert_eq!(names(&list), ["a"]);
}

#[tokio::test]
async fn bad_definitions_are_refused() {
    let server = Harness::start().await;
    let mut bad = definition();
    let schema = &mut bad["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
    schema["properties"]["spec"]["properties"]["list"] = json!({ "type": "array" });
    let message = server.post(DEFINITIONS, bad).await.refused(422, "Invalid");
    assert!(
        message.contains(
            "spec.versions[0].schema.openAPIV3Schema.properties[spec].properties[list].items: Required value: must be specified"
        ),
        "{message}"
    );
}

/// The definition with this as the schema of `spec`.
fn with_spec(spec: Value) -> Value {
    let mut definition = definition();
    let version = &mut definition["spec"]["versions"][0];
    version["schema"]["openAPIV3Schema"]["properties"]["spec"] = spec;
    for field in ["subresources", "additionalPrinterColumns", "selectableFields"] {
        version.as_object_mut().unwrap().remove(field);
    }
    definition
}

#[tokio::test]
async fn rules_are_compiled_and_costed_before_they_are_stored() {
    let server = Harness::start().await;
    let below = "spec.versions[0].schema.openAPIV3Schema.properties[spec]";
    let check = async |spec: Value, wanted: &[(&str, &str)]| {
        let answer =
            server.post(&format!("{DEFINITIONS}?dryRun=All"), with_spec(spec.clone())).await;
        let body = answer.expect(if wanted.is_empty() { 201 } else { 422 });
        let mut causes = body["details"]["causes"].as_array().cloned().unwrap_or_default();
        // What a single rule costs is told about the whole schema as well.
        causes
            .retain(|cause| cause["field"].as_str().is_some_and(|field| field.starts_with(below)));
        assert_eq!(causes.len(), wanted.len(), "{spec}: {causes:?}");
        for (cause, (field, message)) in causes.iter().zip(wanted) {
            assert_eq!(cause["field"], format!("{below}{field}"));
            assert!(cause["message"].as_str().unwrap().contains(message), "{cause}");
        }
    };
    let rules = |rules: Value, list: Value, items: Value| {
        let mut list = list;
        list["type"] = json!("array");
        list["items"] = items;
        json!({ "type": "object", "x-kubernetes-validations": rules, "properties": { "list": list, "name": { "type": "string" } } })
    };
    let text = || json!({ "type": "string" });
    let pairs = json!([{ "rule": "self.list.all(x, self.list.all(y, x == y))" }]);
    let at = ".x-kubernetes-validations[0].rule";
    check(
        rules(pairs.clone(), json!({}), text()),
        &[(at, "estimated rule cost exceeds budget by factor of more than 100x (try simplifying the rule, or adding maxItems")],
    )
    .await;
    let short = json!({ "type": "string", "maxLength": 63 });
    check(rules(pairs, json!({ "maxItems": 32 }), short), &[]).await;
    check(
        rules(json!([{ "rule": "self.name > 1" }]), json!({}), text()),
        &[(at, "found no matching overload for '_>_' applied to '(string, int)'")],
    )
    .await;
    check(
        rules(json!([{ "rule": "self.nothing" }]), json!({}), text()),
        &[(at, "undefined field 'nothing'")],
    )
    .await;
    check(
        rules(json!([{ "rule": "self.name" }]), json!({}), text()),
        &[(at, "cel expression must evaluate to a bool")],
    )
    .await;
    check(
        rules(json!([{ "rule": "true", "messageExpression": "1", "reason": "Odd", "fieldPath": "a", "optionalOldSelf": true }]), json!({}), text()),
        &[
            (".x-kubernetes-validations[0].messageExpression", "messageExpression must evaluate to a string"),
            (".x-kubernetes-validations[0].optionalOldSelf", "may not be set if oldSelf is not used"),
            (".x-kubernetes-validations[0].reason", "supported values: \"FieldValueDuplicate\""),
            (".x-kubernetes-validations[0].fieldPath", "fieldPath must be a valid path"),
        ],
    )
    .await;
    let transition = json!({ "type": "string", "maxLength": 9, "x-kubernetes-validations": [{ "rule": "self == oldSelf" }] });
    check(
        rules(json!([]), json!({ "maxItems": 9 }), transition),
        &[(
            ".properties[list].items.x-kubernetes-validations[0].rule",
            "oldSelf cannot be used on the uncorrelatable portion of the schema",
        )],
    )
    .await;
}

#[tokio::test]
async fn rules_as_people_write_them_compile() {
    let server = Harness::start().await;
    let name = |bytes: u64| json!({ "type": "string", "maxLength": bytes });
    let reference = json!({ "type": "object", "required": ["name"], "properties": {
        "group": name(253), "kind": name(63), "name": name(253), "namespace": name(63), "sectionName": name(253),
        "port": { "type": "integer", "format": "int32" } } });
    let timeouts = json!({ "type": "object", "properties": { "request": name(40), "backendRequest": name(40) },
        "x-kubernetes-validations": [{ "rule": "!(has(self.request) && has(self.backendRequest) && duration(self.request) != duration('0s') && duration(self.backendRequest) > duration(self.request))" }] });
    let path = json!({ "type": "object", "properties": { "type": { "type": "string", "enum": ["Exact", "PathPrefix"] }, "value": name(1024) },
        "x-kubernetes-validations": [
            { "rule": "(self.type in ['Exact','PathPrefix']) ? self.value.startsWith('/') : true" },
            { "rule": "(self.type in ['Exact','PathPrefix']) ? !self.value.contains('//') : true" },
            { "rule": r#"(self.type in ['Exact','PathPrefix']) ? self.value.matches(r"""^(?:[-A-Za-z0-9/._~!$&'()*+,;=:@]|[%][0-9a-fA-F]{2})+$""") : true"# },
        ] });
    let spec = json!({ "type": "object", "properties": {
        "parentRefs": { "type": "array", "maxItems": 32, "items": reference, "x-kubernetes-validations": [
            { "rule": "self.all(p1, self.all(p2, p1.group == p2.group && p1.kind == p2.kind && p1.name == p2.name && (((!has(p1.__namespace__) || p1.__namespace__ == '') && (!has(p2.__namespace__) || p2.__namespace__ == '')) || (has(p1.__namespace__) && has(p2.__namespace__) && p1.__namespace__ == p2.__namespace__)) ? ((!has(p1.sectionName) || p1.sectionName == '') == (!has(p2.sectionName) || p2.sectionName == '')) : true))" },
            { "rule": "self.exists_one(p, p.name != '') || self.size() != 1" },
        ] },
        "rules": { "type": "array", "maxItems": 16, "items": { "type": "object", "properties": {
            "matches": { "type": "array", "maxItems": 64, "items": { "type": "object", "properties": { "path": path } } },
            "timeouts": timeouts,
        } } },
        "amount": { "x-kubernetes-int-or-string": true, "x-kubernetes-validations": [
            { "rule": "type(self) == int ? self >= 0 : isQuantity(self) && quantity(self).sign() >= 0" } ] },
        "labels": { "type": "object", "maxProperties": 16, "additionalProperties": name(63), "x-kubernetes-validations": [
            { "rule": "self.all(key, key.size() <= 63 && !key.startsWith('kubernetes.io'))" }, { "rule": "!('x' in self) || self['x'] == '1'" } ] },
        "kind": { "type": "string", "x-kubernetes-validations": [{ "rule": "oldSelf.hasValue() ? oldSelf.value() == self : true", "optionalOldSelf": true }] },
        "choice": { "type": "object", "properties": { "a": name(9), "b": name(9) }, "x-kubernetes-validations": [
            { "rule": "[has(self.a), has(self.b)].filter(x, x == true).size() == 1", "message": "exactly one of a and b" } ] },
    } });
    establish(&server, with_spec(spec)).await;
    let make = |name: &str, spec: Value| server.post(CRONTABS, crontab(name, spec));
    make("good", json!({
        "parentRefs": [{ "name": "a", "group": "", "kind": "Gateway" }], "amount": "2Gi", "labels": { "y": "2" }, "kind": "k",
        "choice": { "a": "1" }, "rules": [{ "matches": [{ "path": { "type": "Exact", "value": "/a%20b" } }], "timeouts": { "request": "2s", "backendRequest": "1s" } }],
    }))
    .await
    .expect(201);
    let check = async |spec: Value, wanted: &str| {
        let message = make("bad", spec).await.refused(422, "Invalid");
        assert!(message.contains(wanted), "{message}");
    };
    check(json!({ "choice": {} }), "exactly one of a and b").await;
    check(json!({ "amount": -1 }), "type(self) == int").await;
    check(json!({ "labels": { "x": "2" } }), "!('x' in self) || self['x'] == '1'").await;
    check(
        json!({ "rules": [{ "timeouts": { "request": "1s", "backendRequest": "2s" } }] }),
        "duration(self.request)",
    )
    .await;
    check(
        json!({ "rules": [{ "matches": [{ "path": { "type": "Exact", "value": "a" } }] }] }),
        "startsWith('/')",
    )
    .await;
}

/// A definition whose schema is this one, and the path of its objects.
async fn open_kind(server: &Harness, schema: Value) -> &'static str {
    let object = json!({
        "metadata": { "name": "foos.open.example.com" },
        "spec": {
            "group": "open.example.com", "scope": "Cluster", "names": { "plural": "foos", "kind": "Foo" },
            "versions": [{ "name": "v1", "served": true, "storage": true, "schema": { "openAPIV3Schema": schema } }],
        },
    });
    server.post(DEFINITIONS, object).await.expect(201);
    let mut watch = server.watch(&format!("{DEFINITIONS}?watch=true")).await;
    loop {
        let event = harness::next(&mut watch).await;
        let conditions = event["object"]["status"]["conditions"].as_array().cloned();
        let established =
            |condition: &Value| condition["type"] == "Established" && condition["status"] == "True";
        if conditions.unwrap_or_default().iter().any(established) {
            return "/apis/open.example.com/v1/foos";
        }
    }
}

#[tokio::test]
async fn a_key_that_is_there_twice_is_named_with_its_line_when_applied() {
    let server = Harness::start().await;
    let open = json!({ "type": "object", "x-kubernetes-preserve-unknown-fields": true });
    let foos =
        open_kind(&server, json!({ "type": "object", "properties": { "spec": open } })).await;
    let body = "\napiVersion: open.example.com/v1\nkind: Foo\nmetadata:\n  name: a\n  finalizers:\n  - e2e/test\nspec:\n  unknown: uk1\n  foo: foo1\n  foo: foo2\n  unknown: uk2\n";
    let apply = |validation: &str| {
        let path = format!("{foos}/a?fieldManager=me&fieldValidation={validation}");
        let request =
            http::Request::patch(path).header("content-type", "application/apply-patch+yaml");
        harness::send(&server.client, request.body(body.as_bytes().to_vec()).unwrap())
    };
    let twice = "unmarshal errors:\n  line 11: key \"foo\" already set in map\n  line 12: key \"unknown\" already set in map";
    let message = apply("Strict").await.refused(400, "BadRequest");
    assert!(
        message.ends_with(twice)
            && message.contains("error strict decoding YAML: error converting"),
        "{message}"
    );
    let create = |validation: &str| {
        let request = http::Request::post(format!("{foos}?fieldValidation={validation}"))
            .header("content-type", "application/yaml");
        harness::send(&server.client, request.body(body.as_bytes().to_vec()).unwrap())
    };
    let message = create("Strict").await.refused(400, "BadRequest");
    let strict = "Foo in version \"v1\" cannot be handled as a Foo: strict decoding error: yaml: ";
    assert!(message.starts_with(strict) && message.ends_with(twice), "{message}");
    let warned = apply("Warn").await;
    assert!(
        warned.headers["warning"].to_str().unwrap().contains("already set in map"),
        "{warned:?}"
    );
    assert_eq!(warned.expect(201)["spec"]["foo"], "foo2");
    assert!(apply("Ignore").await.headers.get("warning").is_none());
}

#[tokio::test]
async fn an_open_object_is_published_without_its_fields() {
    let server = Harness::start().await;
    let schema = json!({ "description": "open", "type": "object", "x-kubernetes-preserve-unknown-fields": true,
        "properties": { "spec": { "type": "object" } } });
    open_kind(&server, schema).await;
    let kind = json!([{ "group": "open.example.com", "kind": "Foo", "version": "v1" }]);
    let document = server.get("/openapi/v2").await.expect(200);
    assert_eq!(
        document["definitions"]["com.example.open.v1.Foo"],
        json!({ "type": "object", "x-kubernetes-group-version-kind": kind })
    );
}
