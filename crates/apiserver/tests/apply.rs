//! Server-side apply and the books behind it, over requests.

mod harness;

use harness::{Answer, Harness, config_map};
use http::Method;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Api, Patch, PatchParams};
use serde_json::{Value, json};

const MAPS: &str = "/api/v1/namespaces/a/configmaps";
const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/a/deployments";
const APPLY: &str = "application/apply-patch+yaml";

async fn started() -> Harness {
    let harness = Harness::start().await;
    harness.namespace("a").await;
    harness
}

async fn apply(harness: &Harness, path: &str, query: &str, config: Value) -> Answer {
    harness.send(Method::PATCH, &format!("{path}?{query}"), APPLY, Some(config)).await
}

fn map(data: Value) -> Value {
    json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "c" }, "data": data })
}

fn deployment(replicas: Option<i64>) -> Value {
    let mut object = json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": { "name": "web" },
        "spec": {
            "selector": { "matchLabels": { "app": "web" } },
            "template": {
                "metadata": { "labels": { "app": "web" } },
                "spec": { "containers": [{ "name": "main", "image": "hello:1" }] },
            },
        },
    });
    if let Some(replicas) = replicas {
        object["spec"]["replicas"] = json!(replicas);
    }
    object
}

/// `manager operation subresource: fields`, one for each entry.
fn books(object: &Value) -> Vec<String> {
    let list = object["metadata"]["managedFields"].as_array().cloned().unwrap_or_default();
    let text = |entry: &Value, field: &str| entry[field].as_str().unwrap_or_default().to_owned();
    list.iter()
        .map(|entry| {
            assert_eq!(entry["fieldsType"], "FieldsV1");
            assert!(entry["time"].is_string(), "{entry}");
            let [manager, operation, part] =
                ["manager", "operation", "subresource"].map(|field| text(entry, field));
            format!("{manager} {operation} {part}: {}", entry["fieldsV1"])
        })
        .collect()
}

#[tokio::test]
async fn an_object_is_created_changed_and_pruned_by_applying() {
    let harness = started().await;
    let path = format!("{MAPS}/c");
    let made = apply(&harness, &path, "fieldManager=ann", map(json!({ "a": "1", "b": "1" })))
        .await
        .expect(201);
    assert_eq!(books(&made), [r#"ann Apply : {"f:data":{"f:a":{},"f:b":{}}}"#]);
    // The same again is no write.
    let again = apply(&harness, &path, "fieldManager=ann", map(json!({ "a": "1", "b": "1" })))
        .await
        .expect(200);
    assert_eq!(again, made);

    let changed =
        apply(&harness, &path, "fieldManager=ann", map(json!({ "a": "2" }))).await.expect(200);
    assert_eq!(changed["data"], json!({ "a": "2" }));
    assert_ne!(changed["metadata"]["resourceVersion"], made["metadata"]["resourceVersion"]);

    let refused =
        apply(&harness, &path, "fieldManager=bob", map(json!({ "a": "3" }))).await.expect(409);
    assert_eq!(refused["message"], "Apply failed with 1 conflict: conflict with \"ann\": .data.a");
    let cause = json!({ "reason": "FieldManagerConflict", "message": "conflict with \"ann\"", "field": ".data.a" });
    assert_eq!(refused["details"]["causes"], json!([cause]));

    let forced = apply(&harness, &path, "fieldManager=bob&force=true", map(json!({ "a": "3" })))
        .await
        .expect(200);
    assert_eq!(books(&forced), [r#"bob Apply : {"f:data":{"f:a":{}}}"#]);

    let imagined = apply(&harness, &path, "fieldManager=bob&dryRun=All", map(json!({ "z": "1" })))
        .await
        .expect(200);
    assert_eq!(imagined["data"], json!({ "z": "1" }));
    assert_eq!(harness.get(&path).await.expect(200), forced);
}

#[tokio::test]
async fn every_writer_is_in_the_books() {
    let harness = started().await;
    let path = format!("{DEPLOYMENTS}/web");
    let made = harness
        .post(&format!("{DEPLOYMENTS}?fieldManager=maker"), deployment(Some(1)))
        .await
        .expect(201);
    assert_eq!(books(&made).len(), 1);
    assert!(books(&made)[0].starts_with("maker Update : {\"f:spec\":{"), "{:?}", books(&made));

    // No write, no entry.
    let same = harness.put(&format!("{path}?fieldManager=other"), made.clone()).await.expect(200);
    assert_eq!(same, made);

    harness
        .patch(
            &format!("{path}?fieldManager=painter"),
            "merge-patch",
            json!({ "metadata": { "labels": { "x": "y" } } }),
        )
        .await
        .expect(200);
    harness
        .patch(
            &format!("{path}/scale?fieldManager=scaler"),
            "merge-patch",
            json!({ "spec": { "replicas": 2 } }),
        )
        .await
        .expect(200);
    let status = json!({ "status": { "replicas": 2 } });
    let object = harness
        .patch(&format!("{path}/status?fieldManager=controller"), "merge-patch", status)
        .await
        .expect(200);
    let found = books(&object);
    assert_eq!(found.len(), 4, "{found:#?}");
    assert!(
        found.contains(
            &r#"painter Update : {"f:metadata":{"f:labels":{".":{},"f:x":{}}}}"#.to_owned()
        ),
        "{found:#?}"
    );
    assert!(
        found.contains(&r#"scaler Update scale: {"f:spec":{"f:replicas":{}}}"#.to_owned()),
        "{found:#?}"
    );
    assert!(
        found.contains(&r#"controller Update status: {"f:status":{"f:replicas":{}}}"#.to_owned()),
        "{found:#?}"
    );

    let refused = apply(&harness, &path, "fieldManager=ann", deployment(Some(3))).await.expect(409);
    assert_eq!(
        refused["message"],
        "Apply failed with 1 conflict: conflict with \"scaler\" with subresource \"scale\" using apps/v1: .spec.replicas"
    );
    apply(&harness, &path, "fieldManager=ann", deployment(None)).await.expect(200);

    // Books can be forgotten, and stay so until somebody applies.
    let reset = json!({ "metadata": { "managedFields": [] } });
    let object = harness.patch(&path, "merge-patch", reset).await.expect(200);
    assert_eq!(books(&object), Vec::<String>::new());
    let object = apply(&harness, &path, "fieldManager=ann", deployment(None)).await.expect(200);
    let found = books(&object);
    assert!(
        found[0].starts_with("ann Apply") && found[1].starts_with("before-first-apply Update"),
        "{found:?}"
    );
}

#[tokio::test]
async fn parts_can_be_applied() {
    let harness = started().await;
    let path = format!("{DEPLOYMENTS}/web");
    apply(&harness, &path, "fieldManager=ann", deployment(None)).await.expect(201);
    let scale = json!({ "apiVersion": "autoscaling/v1", "kind": "Scale", "metadata": { "name": "web" }, "spec": { "replicas": 4 } });
    let refused =
        apply(&harness, &format!("{path}/scale"), "", scale.clone()).await.refused(422, "Invalid");
    assert_eq!(
        refused,
        "PatchOptions.meta.k8s.io \"\" is invalid: fieldManager: Required value: is required for apply patch"
    );
    let answer =
        apply(&harness, &format!("{path}/scale"), "fieldManager=hpa", scale).await.expect(200);
    assert_eq!((&answer["kind"], &answer["spec"]["replicas"]), (&json!("Scale"), &json!(4)));

    let mut status = deployment(Some(9));
    status["status"] = json!({ "observedGeneration": 1 });
    let object =
        apply(&harness, &format!("{path}/status"), "fieldManager=ctl", status).await.expect(200);
    assert_eq!(
        (&object["spec"]["replicas"], &object["status"]["observedGeneration"]),
        (&json!(4), &json!(1))
    );
    let found = books(&object);
    assert!(
        found.contains(&r#"hpa Apply scale: {"f:spec":{"f:replicas":{}}}"#.to_owned()),
        "{found:?}"
    );
    assert!(
        found.contains(&r#"ctl Apply status: {"f:status":{"f:observedGeneration":{}}}"#.to_owned()),
        "{found:?}"
    );

    // The status is out of reach for the object itself, which is no write then.
    let mut whole = deployment(None);
    whole["status"] = json!({ "observedGeneration": 7 });
    assert_eq!(apply(&harness, &path, "fieldManager=ann", whole).await.expect(200), object);
}

#[tokio::test]
async fn client_side_apply_becomes_server_side_apply() {
    let harness = started().await;
    let last = map(json!({ "a": "1" })).to_string();
    let mut object = map(json!({ "a": "1" }));
    object["metadata"]["annotations"] =
        json!({ "kubectl.kubernetes.io/last-applied-configuration": last });
    harness
        .post(&format!("{MAPS}?fieldManager=kubectl-client-side-apply"), object)
        .await
        .expect(201);
    let path = format!("{MAPS}/c");
    let refused =
        apply(&harness, &path, "fieldManager=ci", map(json!({ "a": "2" }))).await.expect(409);
    assert_eq!(
        refused["message"],
        "Apply failed with 1 conflict: conflict with \"kubectl-client-side-apply\" using v1: .data.a"
    );
    let object =
        apply(&harness, &path, "fieldManager=kubectl", map(json!({ "a": "2" }))).await.expect(200);
    assert_eq!(object["data"]["a"], "2");
    let text =
        object["metadata"]["annotations"]["kubectl.kubernetes.io/last-applied-configuration"]
            .as_str()
            .unwrap();
    assert_eq!(serde_json::from_str::<Value>(text).unwrap(), map(json!({ "a": "2" })));
}

#[tokio::test]
async fn what_cannot_be_applied_is_refused() {
    let harness = started().await;
    let path = format!("{MAPS}/c");
    let refused = async |query: &str, config: Value, code: u16| {
        let answer = apply(&harness, &path, query, config).await.expect(code);
        answer["message"].as_str().unwrap().to_owned()
    };
    let mut other = map(json!({}));
    other["kind"] = json!("Secret");
    assert_eq!(
        refused("fieldManager=a", other, 400).await,
        "invalid object type: /v1, Kind=Secret"
    );
    let mut unknown = map(json!({}));
    unknown["foo"] = json!(1);
    assert_eq!(
        refused("fieldManager=a", unknown, 400).await,
        "failed to create typed patch object (/c; /v1, Kind=ConfigMap): .foo: field not declared in schema"
    );
    let mut owned = map(json!({}));
    owned["metadata"]["managedFields"] = json!([]);
    assert_eq!(refused("fieldManager=a", owned, 400).await, "metadata.managedFields must be nil");
    let mut named = map(json!({}));
    named["metadata"]["name"] = json!("d");
    assert_eq!(
        refused("fieldManager=a", named, 400).await,
        "the name of the object (d) does not match the name on the URL (c)"
    );
    let answer = harness.patch(&format!("{path}?force=true"), "merge-patch", json!({})).await;
    assert_eq!(
        answer.refused(422, "Invalid"),
        "PatchOptions.meta.k8s.io \"\" is invalid: force: Forbidden: may not be specified for non-apply patch"
    );
    let text = "x".repeat(129);
    let answer =
        harness.post(&format!("{MAPS}?fieldManager={text}"), config_map("e", json!({}))).await;
    assert_eq!(
        answer.refused(422, "Invalid"),
        "CreateOptions.meta.k8s.io \"\" is invalid: fieldManager: Too long: may not be more than 128 bytes"
    );
}

#[tokio::test]
async fn yaml_is_applied_and_kube_applies() {
    let harness = started().await;
    let yaml = "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: c\n  creationTimestamp: null\ndata:\n  a: '1'\n";
    let request = http::Request::patch(format!("{MAPS}/c?fieldManager=ann"))
        .header("content-type", APPLY)
        .body(yaml.as_bytes().to_vec())
        .unwrap();
    let made = harness::send(&harness.client, request).await.expect(201);
    assert_eq!(books(&made), [r#"ann Apply : {"f:data":{"f:a":{}}}"#]);

    let maps: Api<ConfigMap> = Api::namespaced(harness.client.clone(), "a");
    let patch = Patch::Apply(map(json!({ "b": "1" })));
    let object = maps.patch("c", &PatchParams::apply("bob"), &patch).await.unwrap();
    assert_eq!(object.data.unwrap().len(), 2);
    let error = maps
        .patch("c", &PatchParams::apply("bob"), &Patch::Apply(map(json!({ "a": "9" }))))
        .await
        .unwrap_err();
    assert!(matches!(&error, kube::Error::Api(status) if status.code == 409), "{error:?}");
    maps.patch("c", &PatchParams::apply("bob").force(), &Patch::Apply(map(json!({ "a": "9" }))))
        .await
        .unwrap();
}

#[tokio::test]
async fn appliers_at_once_all_get_their_way() {
    let harness = started().await;
    let maps: Api<ConfigMap> = Api::namespaced(harness.client.clone(), "a");
    let appliers = (0..20).map(|number| {
        let maps = maps.clone();
        async move {
            let patch = Patch::Apply(map(json!({ format!("k{number}"): "v" })));
            maps.patch("c", &PatchParams::apply(&format!("m{number}")), &patch).await.unwrap();
        }
    });
    futures::future::join_all(appliers).await;
    let object = maps.get("c").await.unwrap();
    assert_eq!(object.data.unwrap().len(), 20);
    assert_eq!(object.metadata.managed_fields.unwrap().len(), 20);
}

#[tokio::test]
async fn custom_objects_are_merged_as_their_definition_says() {
    let harness = started().await;
    let items = json!({
        "type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"],
        "items": {
            "type": "object", "required": ["name"],
            "properties": { "name": { "type": "string" }, "size": { "type": "integer" } },
        },
    });
    let spec = json!({ "type": "object", "properties": { "items": items } });
    let schema = json!({ "type": "object", "properties": { "spec": spec } });
    let definition = json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": { "name": "boats.example.com" },
        "spec": {
            "group": "example.com", "scope": "Namespaced",
            "names": { "plural": "boats", "singular": "boat", "kind": "Boat", "listKind": "BoatList" },
            "versions": [{ "name": "v1", "served": true, "storage": true, "schema": { "openAPIV3Schema": schema } }],
        },
    });
    let definitions = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
    let mut watch = harness.watch(&format!("{definitions}?watch=true")).await;
    harness.post(definitions, definition).await.expect(201);
    loop {
        let event = harness::next(&mut watch).await;
        let conditions = event["object"]["status"]["conditions"].as_array().cloned();
        if conditions.is_some_and(|all| {
            all.iter().any(|one| one["type"] == "Established" && one["status"] == "True")
        }) {
            break;
        }
    }
    let boat = |items: Value| json!({ "apiVersion": "example.com/v1", "kind": "Boat", "metadata": { "name": "b" }, "spec": { "items": items } });
    let path = "/apis/example.com/v1/namespaces/a/boats/b";
    let oar = json!([{ "name": "oar", "size": 2 }]);
    apply(&harness, path, "fieldManager=ann", boat(oar.clone())).await.expect(201);
    let sail = boat(json!([{ "name": "sail", "size": 1 }]));
    let both = apply(&harness, path, "fieldManager=bob", sail).await.expect(200);
    assert_eq!(both["spec"]["items"].as_array().unwrap().len(), 2, "{both}");
    let smaller = boat(json!([{ "name": "oar", "size": 1 }]));
    let refused = apply(&harness, path, "fieldManager=bob", smaller).await.expect(409);
    assert_eq!(
        refused["message"],
        "Apply failed with 1 conflict: conflict with \"ann\": .spec.items[name=\"oar\"].size"
    );
    let left = apply(&harness, path, "fieldManager=bob", boat(json!([]))).await.expect(200);
    assert_eq!(left["spec"]["items"], oar);
}

#[tokio::test]
async fn parts_with_a_path_of_their_own_are_applied_too() {
    let server = Harness::start().await;
    server.namespace("work").await;
    let pods = "/api/v1/namespaces/work/pods";
    let mut web = harness::pod("web");
    web["spec"]["containers"][0]["resources"] = json!({ "requests": { "cpu": "50m" } });
    server.post(pods, web).await.expect(201);
    let apply = async |part: &str, spec: Value| {
        let path = format!("{pods}/web/{part}?fieldManager=mine&force=true");
        let config = json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": { "name": "web" }, "spec": spec,
        });
        server.send(http::Method::PATCH, &path, "application/apply-patch+yaml", Some(config)).await
    };
    let debugger = json!({ "name": "debug", "image": "debug:1" });
    let spec = json!({ "ephemeralContainers": [debugger], "nodeName": "elsewhere" });
    let pod = apply("ephemeralcontainers", spec).await.expect(200);
    assert_eq!(pod["spec"]["ephemeralContainers"][0]["name"], "debug");
    // What the part does not stand for stays as it is.
    assert!(pod["spec"].get("nodeName").is_none(), "{pod}");
    let entries = pod["metadata"]["managedFields"].as_array().unwrap();
    let entry = entries.iter().find(|entry| entry["manager"] == "mine").unwrap();
    assert_eq!(
        (&entry["operation"], &entry["subresource"]),
        (&json!("Apply"), &json!("ephemeralcontainers"))
    );

    let resources = json!({ "requests": { "cpu": "100m" } });
    let spec =
        json!({ "containers": [{ "name": "main", "resources": resources, "image": "other:1" }] });
    let pod = apply("resize", spec).await.expect(200);
    let container = &pod["spec"]["containers"][0];
    assert_eq!(container["resources"]["requests"]["cpu"], "100m");
    assert_eq!(container["image"], "hello:1");
}
