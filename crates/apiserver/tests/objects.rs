//! The life of objects: created, changed and deleted through real requests.

mod harness;

use harness::{Harness, config_map, next, pod};
use serde_json::{Value, json};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

#[tokio::test]
async fn a_status_is_there_from_the_start_for_patches_to_fill() {
    let server = Harness::start().await;
    let migrations = "/apis/storagemigration.k8s.io/v1/storageversionmigrations";
    let migration =
        json!({ "metadata": { "name": "m" }, "spec": { "resource": { "resource": "foo" } } });
    let created = server.post(migrations, migration).await.expect(201);
    assert_eq!(created["status"], json!({}));
    let condition = json!({ "type": "T", "status": "True", "reason": "R", "message": "m", "lastTransitionTime": "2026-01-01T00:00:00Z" });
    let add = json!([{ "op": "add", "path": "/status/conditions", "value": [condition] }]);
    let path = format!("{migrations}/m/status");
    let patched = server.patch(&path, "json-patch", add).await.expect(200);
    assert_eq!(patched["status"]["conditions"], json!([condition]));
    // What has no status gets none.
    let map = server.post(MAPS, config_map("a", json!({}))).await.expect(201);
    assert_eq!(map.get("status"), None);
}

#[tokio::test]
async fn an_object_is_created_read_changed_and_deleted() {
    let server = Harness::start().await;
    let created = server.post(MAPS, config_map("a", json!({}))).await.expect(201);
    let metadata = &created["metadata"];
    for field in ["uid", "resourceVersion", "creationTimestamp"] {
        assert!(
            metadata[field].as_str().is_some_and(|value| !value.is_empty()),
            "{field} of {metadata}"
        );
    }
    assert_eq!(metadata["namespace"], "default");
    assert_eq!(server.get(&format!("{MAPS}/a")).await.expect(200), created);

    let mut changed = created.clone();
    changed["data"]["a"] = json!("c");
    let updated = server.put(&format!("{MAPS}/a"), changed.clone()).await.expect(200);
    assert_ne!(updated["metadata"]["resourceVersion"], created["metadata"]["resourceVersion"]);
    // The same again changes nothing, not even the revision.
    assert_eq!(server.put(&format!("{MAPS}/a"), updated.clone()).await.expect(200), updated);

    changed["data"]["a"] = json!("d");
    let message = server.put(&format!("{MAPS}/a"), changed).await.refused(409, "Conflict");
    assert_eq!(
        message,
        "Operation cannot be fulfilled on configmaps \"a\": the object has been modified; please apply your changes to the \
         latest version and try again"
    );

    let gone = server.delete(&format!("{MAPS}/a"), json!({})).await.expect(200);
    assert_eq!(gone["status"], "Success");
    assert_eq!(gone["details"]["uid"], created["metadata"]["uid"]);
    assert_eq!(
        server.get(&format!("{MAPS}/a")).await.refused(404, "NotFound"),
        "configmaps \"a\" not found"
    );
}

#[tokio::test]
async fn names_are_unique_or_generated() {
    let server = Harness::start().await;
    server.post(MAPS, config_map("a", json!({}))).await.expect(201);
    let message = server.post(MAPS, config_map("a", json!({}))).await.refused(409, "AlreadyExists");
    assert_eq!(message, "configmaps \"a\" already exists");
    let generated =
        server.post(MAPS, json!({ "metadata": { "generateName": "web-" } })).await.expect(201);
    let name = generated["metadata"]["name"].as_str().unwrap();
    assert!(name.starts_with("web-") && name.len() == 9, "{name}");
    let message = server.post(MAPS, json!({ "metadata": {} })).await.refused(422, "Invalid");
    assert!(
        message.contains("metadata.name: Required value: name or generateName is required"),
        "{message}"
    );
    let message =
        server.post(MAPS, config_map("Not_A_Name", json!({}))).await.refused(422, "Invalid");
    assert!(message.contains("a lowercase RFC 1123 subdomain must consist of"), "{message}");
}

#[tokio::test]
async fn body_and_path_must_agree() {
    let server = Harness::start().await;
    let mut elsewhere = config_map("a", json!({}));
    elsewhere["metadata"]["namespace"] = json!("other");
    let message = server.post(MAPS, elsewhere).await.refused(400, "BadRequest");
    assert_eq!(
        message,
        "the namespace of the provided object does not match the namespace sent on the request"
    );
    server.post(MAPS, config_map("a", json!({}))).await.expect(201);
    let message = server
        .put(&format!("{MAPS}/a"), config_map("b", json!({})))
        .await
        .refused(400, "BadRequest");
    assert_eq!(message, "the name of the object (b) does not match the name on the URL (a)");
    let message =
        server.post("/api/v1/namespaces/nowhere/configmaps", config_map("a", json!({}))).await;
    assert_eq!(message.refused(404, "NotFound"), "namespaces \"nowhere\" not found");
}

#[tokio::test]
async fn a_dry_run_leaves_no_trace() {
    let server = Harness::start().await;
    // Of the maps: the server's own upkeep may write something else at any moment.
    let mut watch = server.watch(&format!("{MAPS}?watch=true&fieldSelector=metadata.name=a")).await;
    let imagined =
        server.post(&format!("{MAPS}?dryRun=All"), config_map("a", json!({}))).await.expect(201);
    assert_eq!(imagined["metadata"]["name"], "a");
    server.get(&format!("{MAPS}/a")).await.expect(404);
    let created = server.post(MAPS, config_map("a", json!({}))).await.expect(201);
    let patch = json!({ "data": { "a": "z" } });
    let patched =
        server.patch(&format!("{MAPS}/a?dryRun=All"), "merge-patch", patch).await.expect(200);
    assert_eq!(patched["data"]["a"], "z");
    server.delete(&format!("{MAPS}/a?dryRun=All"), json!({})).await.expect(200);
    assert_eq!(server.get(&format!("{MAPS}/a")).await.expect(200), created);
    server.delete(&format!("{MAPS}/a"), json!({})).await.expect(200);
    let (first, second) = (next(&mut watch).await, next(&mut watch).await);
    assert_eq!((&first["type"], &first["object"]), (&json!("ADDED"), &created));
    assert_eq!(second["type"], "DELETED");
    server
        .post(&format!("{MAPS}?dryRun=Some"), config_map("b", json!({})))
        .await
        .refused(422, "Invalid");
}

#[tokio::test]
async fn patches_of_all_three_kinds_are_applied() {
    let server = Harness::start().await;
    server.post(MAPS, config_map("a", json!({}))).await.expect(201);
    let path = format!("{MAPS}/a");
    let patch = json!([{ "op": "add", "path": "/data/json", "value": "1" }]);
    assert_eq!(server.patch(&path, "json-patch", patch).await.expect(200)["data"]["json"], "1");
    let patch = json!({ "data": { "a": null, "merge": "1" } });
    let merged = server.patch(&path, "merge-patch", patch).await.expect(200);
    assert_eq!(merged["data"], json!({ "json": "1", "merge": "1" }));
    let patch = json!({ "metadata": { "labels": { "x": "y" } } });
    let strategic = server.patch(&path, "strategic-merge-patch", patch).await.expect(200);
    assert_eq!(strategic["metadata"]["labels"]["x"], "y");
    server.patch(&path, "unheard-of", json!({})).await.refused(415, "UnsupportedMediaType");
    let stale = json!({ "metadata": { "resourceVersion": "1" }, "data": {} });
    server.patch(&path, "merge-patch", stale).await.refused(409, "Conflict");
}

#[tokio::test]
async fn finalizers_hold_an_object_until_the_last_is_gone() {
    let server = Harness::start().await;
    let mut held = config_map("a", json!({}));
    held["metadata"]["finalizers"] = json!(["example.com/hold"]);
    server.post(MAPS, held).await.expect(201);
    let path = format!("{MAPS}/a");
    let going = server.delete(&path, json!({})).await.expect(200);
    assert!(going["metadata"]["deletionTimestamp"].is_string(), "{going}");
    server.get(&path).await.expect(200);
    let last = server
        .patch(&path, "merge-patch", json!({ "metadata": { "finalizers": null } }))
        .await
        .expect(200);
    assert!(last["metadata"]["deletionTimestamp"].is_string());
    server.get(&path).await.expect(404);
}

#[tokio::test]
async fn deletions_keep_their_preconditions() {
    let server = Harness::start().await;
    server.post(MAPS, config_map("a", json!({}))).await.expect(201);
    let path = format!("{MAPS}/a");
    let message = server
        .delete(&path, json!({ "preconditions": { "uid": "other" } }))
        .await
        .refused(409, "Conflict");
    assert!(
        message.contains("Precondition failed: UID in precondition: other, UID in object meta: "),
        "{message}"
    );
    let wrong = json!({ "preconditions": { "resourceVersion": "1" } });
    server.delete(&path, wrong).await.refused(409, "Conflict");
    let both = json!({ "propagationPolicy": "Orphan", "orphanDependents": true });
    server.delete(&path, both).await.refused(422, "Invalid");
    server.delete(&path, json!({ "propagationPolicy": "Foreground" })).await.expect(200);
    let waiting = server.get(&path).await.expect(200);
    assert_eq!(waiting["metadata"]["finalizers"], json!(["foregroundDeletion"]));
}

#[tokio::test]
async fn a_pod_is_bound_once_and_ends_with_grace() {
    let server = Harness::start().await;
    server.namespace("work").await;
    let pods = "/api/v1/namespaces/work/pods";
    server.post(pods, pod("web")).await.expect(201);
    let binding =
        json!({ "metadata": { "name": "web" }, "target": { "kind": "Node", "name": "n0" } });
    server.post(&format!("{pods}/web/binding"), binding.clone()).await.expect(201);
    let bound = server.get(&format!("{pods}/web")).await.expect(200);
    assert_eq!(bound["spec"]["nodeName"], "n0");
    assert_eq!(bound["status"]["conditions"][0]["type"], "PodScheduled");
    let message =
        server.post(&format!("{pods}/web/binding"), binding).await.refused(409, "Conflict");
    assert!(message.contains("pod web is already assigned to node \"n0\""), "{message}");

    let going =
        server.delete(&format!("{pods}/web"), json!({ "gracePeriodSeconds": 7 })).await.expect(200);
    assert_eq!(going["metadata"]["deletionGracePeriodSeconds"], 7);
    server.delete(&format!("{pods}/web"), json!({ "gracePeriodSeconds": 0 })).await.expect(200);
    server.get(&format!("{pods}/web")).await.expect(404);
}

#[tokio::test]
async fn status_and_the_rest_are_written_apart() {
    let server = Harness::start().await;
    server.namespace("work").await;
    let deployments = "/apis/apps/v1/namespaces/work/deployments";
    let deployment = json!({
        "metadata": { "name": "web" },
        "spec": {
            "selector": { "matchLabels": { "app": "web" } },
            "template": { "metadata": { "labels": { "app": "web" } }, "spec": { "containers": [{ "name": "a", "image": "b" }] } },
        },
        "status": { "replicas": 9 },
    });
    let created = server.post(deployments, deployment).await.expect(201);
    assert_eq!(created["metadata"]["generation"], 1);
    assert!(
        created["status"]["replicas"].as_i64().is_none_or(|replicas| replicas == 0),
        "{created}"
    );
    let patch = json!({ "spec": { "replicas": 5 }, "status": { "replicas": 3 } });
    let status = server
        .patch(&format!("{deployments}/web/status"), "merge-patch", patch.clone())
        .await
        .expect(200);
    assert_eq!(
        (&status["spec"]["replicas"], &status["status"]["replicas"]),
        (&json!(1), &json!(3))
    );
    assert_eq!(status["metadata"]["generation"], 1);
    let whole = server.patch(&format!("{deployments}/web"), "merge-patch", patch).await.expect(200);
    assert_eq!((&whole["spec"]["replicas"], &whole["status"]["replicas"]), (&json!(5), &json!(3)));
    assert_eq!(whole["metadata"]["generation"], 2);

    let scale = server.get(&format!("{deployments}/web/scale")).await.expect(200);
    assert_eq!((&scale["kind"], &scale["spec"]["replicas"]), (&json!("Scale"), &json!(5)));
    assert_eq!(scale["status"]["selector"], "app=web");
    let scaled = json!({ "metadata": { "name": "web" }, "spec": { "replicas": 2 } });
    server.put(&format!("{deployments}/web/scale"), scaled).await.expect(200);
    let patch = json!({ "spec": { "replicas": -1 } });
    server
        .patch(&format!("{deployments}/web/scale"), "merge-patch", patch)
        .await
        .refused(422, "Invalid");
    assert_eq!(server.get(&format!("{deployments}/web")).await.expect(200)["spec"]["replicas"], 2);
}

#[tokio::test]
async fn a_namespace_waits_for_its_finalizer() {
    let server = Harness::start().await;
    server.namespace("work").await;
    let path = "/api/v1/namespaces/work";
    let going = server.delete(path, json!({})).await.expect(200);
    assert_eq!(going["status"]["phase"], "Terminating");
    let message = server
        .post(&format!("{path}/configmaps"), config_map("a", json!({})))
        .await
        .refused(403, "Forbidden");
    assert!(message.contains("because it is being terminated"), "{message}");
    let mut finalized: Value = server.get(path).await.expect(200);
    finalized["spec"]["finalizers"] = json!([]);
    server.put(&format!("{path}/finalize"), finalized).await.expect(200);
    server.get(path).await.expect(404);
}

#[tokio::test]
async fn services_get_addresses_of_their_own_and_keep_them() {
    let server = Harness::start().await;
    let services = "/api/v1/namespaces/default/services";
    let service = |name: &str, spec: Value| json!({ "metadata": { "name": name }, "spec": spec });
    let ports = json!([{ "port": 80 }]);
    let plain = server.post(services, service("a", json!({ "ports": ports }))).await.expect(201);
    let address = plain["spec"]["clusterIP"].as_str().unwrap().to_owned();
    assert!(address.starts_with("10.96."), "{address}");
    assert_eq!(plain["spec"]["clusterIPs"], json!([address]));
    let taken = service("b", json!({ "clusterIP": address, "ports": ports }));
    let message = server.post(services, taken.clone()).await.refused(422, "Invalid");
    assert!(message.contains("provided IP is already allocated"), "{message}");
    let open = server
        .post(services, service("n", json!({ "type": "NodePort", "ports": ports })))
        .await
        .expect(201);
    let port = open["spec"]["ports"][0]["nodePort"].as_u64().unwrap();
    assert!((30000..=32767).contains(&port), "{port}");

    let server = server.restart().await;
    server.post(services, taken.clone()).await.refused(422, "Invalid");
    // An update without the address keeps it.
    let update = service("a", json!({ "ports": [{ "port": 81 }] }));
    assert_eq!(
        server.put(&format!("{services}/a"), update).await.expect(200)["spec"]["clusterIP"],
        address
    );
    server.delete(&format!("{services}/a"), json!({})).await.expect(200);
    server.post(services, taken).await.expect(201);
    let headless = server
        .post(services, service("h", json!({ "clusterIP": "None", "ports": ports })))
        .await
        .expect(201);
    assert_eq!(headless["spec"]["clusterIPs"], json!(["None"]));
}

#[tokio::test]
async fn writers_that_race_lose_no_change() {
    let server = Harness::start().await;
    server.post(MAPS, config_map("a", json!({}))).await.expect(201);
    let path = format!("{MAPS}/a");
    let patches = (0..50).map(|number| {
        let (server, path) = (&server, &path);
        async move {
            server
                .patch(path, "merge-patch", json!({ "data": { format!("k{number}"): "v" } }))
                .await
                .expect(200)
        }
    });
    futures::future::join_all(patches).await;
    let map = server.get(&path).await.expect(200);
    assert_eq!(map["data"].as_object().unwrap().len(), 51);
}

#[tokio::test]
async fn collections_are_deleted_by_selector() {
    let server = Harness::start().await;
    for name in ["a", "b", "c"] {
        let app = if name == "c" { "other" } else { "web" };
        server.post(MAPS, config_map(name, json!({ "app": app }))).await.expect(201);
    }
    let gone =
        server.delete(&format!("{MAPS}?labelSelector=app%3Dweb"), json!({})).await.expect(200);
    assert_eq!(gone["items"].as_array().unwrap().len(), 2);
    assert_eq!(harness::names(&server.get(MAPS).await.expect(200)), ["c"]);
}

#[tokio::test]
async fn the_kubernetes_service_comes_back() {
    let server = Harness::start().await;
    let path = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices";
    let revision = server.store.revision();
    let mut watch = server.watch(&format!("{path}?watch=true&resourceVersion={revision}")).await;
    server.delete(&format!("{path}/kubernetes"), json!({})).await.expect(200);
    assert_eq!(harness::summary(&harness::next(&mut watch).await), "DELETED kubernetes");
    let back = harness::next(&mut watch).await;
    assert_eq!(harness::summary(&back), "ADDED kubernetes");
    assert_eq!(back["object"]["endpoints"][0]["addresses"], json!(["127.0.0.1"]));
    assert_eq!(back["object"]["ports"][0]["port"], 6443);
}

#[tokio::test]
async fn delete_options_may_be_of_the_objects_own_group() {
    let server = Harness::start().await;
    let roles = "/apis/rbac.authorization.k8s.io/v1/namespaces/default/roles";
    server.post(roles, json!({ "metadata": { "name": "r" }, "rules": [] })).await.expect(201);
    let options = json!({
        "kind": "DeleteOptions", "apiVersion": "rbac.authorization.k8s.io/v1", "preconditions": { "uid": "other" },
    });
    server.delete(&format!("{roles}/r"), options).await.refused(409, "Conflict");
    let options = json!({ "kind": "DeleteOptions", "apiVersion": "rbac.authorization.k8s.io/v1" });
    server.delete(&format!("{roles}/r"), options).await.expect(200);
}

#[tokio::test]
async fn an_autoscaler_is_the_same_in_both_versions() {
    let server = Harness::start().await;
    let path = |version: &str| {
        format!("/apis/autoscaling/{version}/namespaces/default/horizontalpodautoscalers")
    };
    let target = json!({ "apiVersion": "apps/v1", "kind": "Deployment", "name": "web" });
    let first = json!({
        "apiVersion": "autoscaling/v1", "kind": "HorizontalPodAutoscaler", "metadata": { "name": "web" },
        "spec": { "scaleTargetRef": target, "maxReplicas": 3, "targetCPUUtilizationPercentage": 50 },
    });
    let created = server.post(&path("v1"), first).await.expect(201);
    assert_eq!(created["apiVersion"], "autoscaling/v1");
    assert_eq!(created["spec"]["targetCPUUtilizationPercentage"], 50);
    let second = server.get(&format!("{}/web", path("v2"))).await.expect(200);
    assert_eq!(second["apiVersion"], "autoscaling/v2");
    assert_eq!(
        second["spec"]["metrics"],
        json!([{ "type": "Resource", "resource": { "name": "cpu", "target": { "type": "Utilization", "averageUtilization": 50 } } }])
    );
    let list = server.get(&path("v1")).await.expect(200);
    assert_eq!(list["items"][0]["spec"]["targetCPUUtilizationPercentage"], 50);
    let patch = json!({ "spec": { "targetCPUUtilizationPercentage": 70 } });
    server.patch(&format!("{}/web", path("v1")), "merge-patch", patch).await.expect(200);
    let second = server.get(&format!("{}/web", path("v2"))).await.expect(200);
    assert_eq!(second["spec"]["metrics"][0]["resource"]["target"]["averageUtilization"], 70);
}

#[tokio::test]
async fn a_pod_is_resized_within_its_quality_of_service() {
    let server = Harness::start().await;
    server.namespace("shop").await;
    let pods = "/api/v1/namespaces/shop/pods";
    let mut web = pod("web");
    web["spec"]["containers"][0]["resources"] = json!({ "requests": { "cpu": "100m" } });
    let name = web["spec"]["containers"][0]["name"].clone();
    server.post(pods, web).await.expect(201);
    let patch = |resources: Value| json!({ "spec": { "containers": [{ "name": name, "resources": resources }] } });
    let resize = format!("{pods}/web/resize");
    let grown = patch(json!({ "requests": { "cpu": "200m" } }));
    let grown = server.patch(&resize, "strategic-merge-patch", grown).await.expect(200);
    assert_eq!(grown["spec"]["containers"][0]["resources"]["requests"]["cpu"], "200m");
    assert_eq!(grown["metadata"]["generation"], 2);
    let all = json!({ "cpu": "200m", "memory": "1Mi" });
    let guaranteed = patch(json!({ "requests": all, "limits": all }));
    let why = server.patch(&resize, "strategic-merge-patch", guaranteed).await;
    let why = why.refused(422, "Invalid");
    assert!(why.ends_with("Pod QOS Class may not change as a result of resizing"), "{why}");
    let none = patch(json!({ "requests": { "cpu": null } }));
    let why = server.patch(&resize, "strategic-merge-patch", none).await.refused(422, "Invalid");
    assert!(why.contains("resource requests cannot be removed"), "{why}");
}

#[tokio::test]
async fn events_are_held_to_the_rules_of_the_group_they_come_by() {
    let server = Harness::start().await;
    let event = json!({
        "metadata": { "name": "e", "namespace": "default" },
        "regarding": { "kind": "Pod", "name": "p", "namespace": "default" },
        "note": "something", "type": "Normal",
    });
    let path = "/apis/events.k8s.io/v1/namespaces/default/events";
    let why = server.post(path, event.clone()).await.refused(422, "Invalid");
    assert!(why.contains("eventTime: Required value"), "{why}");
    let mut whole = event;
    whole["eventTime"] = json!("2026-01-01T00:00:00.000000Z");
    let why = server.post(path, whole.clone()).await.refused(422, "Invalid");
    for part in
        ["reportingController: Required value", "action: Required value", "reason: Required value"]
    {
        assert!(why.contains(part), "{why}");
    }
    for (field, value) in [
        ("reportingController", "example.com/c"),
        ("reportingInstance", "c-0"),
        ("action", "Doing"),
        ("reason", "Because"),
    ] {
        whole[field] = json!(value);
    }
    server.post(path, whole).await.expect(201);
    let note = json!({ "note": "another" });
    let why = server.patch(&format!("{path}/e"), "merge-patch", note).await.refused(422, "Invalid");
    assert!(why.contains("message: Invalid value: \"another\": field is immutable"), "{why}");
    // The old group asks for less, of old Events.
    let old =
        json!({ "metadata": { "name": "old" }, "involvedObject": { "namespace": "default" } });
    server.post("/api/v1/namespaces/default/events", old).await.expect(201);
}
