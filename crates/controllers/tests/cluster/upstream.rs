//! Sequences of upstream's conformance tests, against the real API, while the controllers work.

use futures::TryStreamExt;
use kube::Api;
use kube::api::{
    ApiResource, DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams,
    WatchEvent, WatchParams,
};
use kube::core::GroupVersionKind;
use serde_json::{Value, json};

use crate::daemon_set::node;
use crate::harness::Cluster;
use crate::text;

/// A workload whose pods bear the label `app: NAME`.
fn workload(kind: &str, name: &str) -> Value {
    let version = match kind {
        "ReplicationController" => "v1",
        "Job" => "batch/v1",
        _ => "apps/v1",
    };
    let labels = json!({ "app": name });
    let mut spec = json!({ "template": { "metadata": { "labels": labels },
                                         "spec": { "containers": [{ "name": "c", "image": "one" }] } } });
    match kind {
        "Job" => spec["template"]["spec"]["restartPolicy"] = json!("Never"),
        "ReplicationController" => spec["selector"] = labels.clone(),
        _ => spec["selector"] = json!({ "matchLabels": labels }),
    }
    json!({ "apiVersion": version, "kind": kind, "metadata": { "name": name, "labels": labels }, "spec": spec })
}

fn to_json(object: &DynamicObject) -> Value {
    serde_json::to_value(object).unwrap()
}

/// Waits until a watch tells of an object whose status has a condition of this type.
async fn until_seen(api: &Api<DynamicObject>, since: &str, name: &str, condition: &str) {
    let params = WatchParams::default().fields(&format!("metadata.name={name}")).timeout(60);
    let mut events = Box::pin(api.watch(&params, since).await.unwrap());
    while let Some(event) = events.try_next().await.unwrap() {
        let (WatchEvent::Added(object) | WatchEvent::Modified(object)) = event else { continue };
        let conditions = to_json(&object)["status"]["conditions"].clone();
        if conditions.as_array().into_iter().flatten().any(|it| it["type"] == condition) {
            return;
        }
    }
    panic!("nobody saw condition {condition} of {name}");
}

/// Changes an object as upstream's tests do: read, change, write, and again after a conflict.
async fn update_status(api: &Api<DynamicObject>, name: &str, change: impl Fn(&mut Value)) -> Value {
    loop {
        let mut object = api.get_status(name).await.unwrap();
        change(&mut object.data);
        match api.replace_status(name, &PostParams::default(), &object).await {
            Err(kube::Error::Api(status)) if status.code == 409 => (),
            written => return to_json(&written.unwrap()),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_status_is_read_updated_patched_and_watched() {
    let cluster = Cluster::start().await;
    cluster.create(node("a")).await;
    for kind in ["Deployment", "ReplicaSet", "StatefulSet", "DaemonSet", "ReplicationController"] {
        let name = kind.to_ascii_lowercase();
        cluster.create(workload(kind, &name)).await;
        let ready =
            if kind == "DaemonSet" { "/status/numberReady" } else { "/status/readyReplicas" };
        cluster.until_field(kind, &name, ready, json!(1)).await;
        let api = cluster.api(kind);
        let since = api.list(&ListParams::default()).await.unwrap().metadata.resource_version;
        let since = since.unwrap();
        let condition = json!({ "type": "StatusUpdate", "status": "True", "reason": "E2E",
                                "message": "Set from e2e test" });
        let written = update_status(&api, &name, |object| {
            let conditions = object["status"].as_object_mut().unwrap().entry("conditions");
            let conditions = conditions.or_insert(json!([]));
            conditions.as_array_mut().unwrap().push(condition.clone());
        })
        .await;
        let conditions = written["status"]["conditions"].as_array().unwrap();
        assert!(conditions.iter().any(|it| it["type"] == "StatusUpdate"), "{written:#}");
        until_seen(&api, &since, &name, "StatusUpdate").await;
        let patch =
            json!({ "status": { "conditions": [{ "type": "StatusPatched", "status": "True" }] } });
        let params = PatchParams::default();
        let patched = api.patch_status(&name, &params, &Patch::Merge(patch)).await.unwrap();
        assert_eq!(
            text(&to_json(&patched), "/status/conditions/0/type"),
            "StatusPatched",
            "{kind} {patched:?}"
        );
        until_seen(&api, &since, &name, "StatusPatched").await;
    }
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_jobs_start_and_annotations_are_patched_with_its_status() {
    let cluster = Cluster::start().await;
    let mut job = workload("Job", "work");
    job["spec"]["template"]["metadata"]["labels"] = json!({});
    // Of one that runs the start stays what it is.
    job["spec"]["suspend"] = json!(true);
    job["spec"].as_object_mut().unwrap().remove("selector");
    cluster.create(job).await;
    cluster.until_field("Job", "work", "/metadata/generation", json!(1)).await;
    let api = cluster.api("Job");
    let [first, second] = ["2030-01-01T00:00:00Z", "2030-01-02T00:00:00Z"];
    let patch = json!({ "metadata": { "annotations": { "patchedstatus": "true" } },
                        "status": { "startTime": first } });
    let params = PatchParams::default();
    let patched = api.patch_status("work", &params, &Patch::Merge(patch)).await.unwrap();
    assert_eq!(text(&to_json(&patched), "/status/startTime"), first);
    assert_eq!(text(&to_json(&patched), "/metadata/annotations/patchedstatus"), "true");
    let written =
        update_status(&api, "work", |object| object["status"]["startTime"] = json!(second)).await;
    assert_eq!(text(&written, "/status/startTime"), second);
    let found = api.get_status("work").await.unwrap();
    assert_eq!(found.metadata.uid, patched.metadata.uid);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn collections_are_listed_and_deleted_with_their_pods() {
    let cluster = Cluster::start().await;
    cluster.create(node("a")).await;
    for kind in ["ReplicaSet", "StatefulSet", "DaemonSet", "Deployment"] {
        let name = kind.to_ascii_lowercase();
        cluster.create(workload(kind, &name)).await;
        let mut kept = workload(kind, &format!("{name}-kept"));
        kept["metadata"]["labels"] = json!({ "keep": "me" });
        cluster.create(kept).await;
        let pods = format!("app={name}");
        let pods = ListParams::default().labels(&pods);
        cluster
            .until("it has a pod", || async {
                !cluster.api("Pod").list(&pods).await.unwrap().items.is_empty()
            })
            .await;
        let resource = ApiResource::from_gvk(&GroupVersionKind::gvk("apps", "v1", kind));
        let everywhere: Api<DynamicObject> = Api::all_with(cluster.client.clone(), &resource);
        assert_eq!(everywhere.list(&pods).await.unwrap().items.len(), 1);
        let deleted = cluster.api(kind).delete_collection(&DeleteParams::default(), &pods).await;
        deleted.unwrap();
        cluster.until_gone(kind, &name).await;
        cluster
            .until("its pods are gone", || async {
                cluster.api("Pod").list(&pods).await.unwrap().items.is_empty()
            })
            .await;
        assert!(!cluster.get(kind, &format!("{name}-kept")).await.is_null());
    }
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_scale_is_read_updated_and_patched() {
    let cluster = Cluster::start().await;
    for kind in ["Deployment", "ReplicaSet", "StatefulSet", "ReplicationController"] {
        let name = kind.to_ascii_lowercase();
        cluster.create(workload(kind, &name)).await;
        cluster.until_field(kind, &name, "/status/readyReplicas", json!(1)).await;
        let api = cluster.api(kind);
        let mut scale = api.get_scale(&name).await.unwrap();
        let found = serde_json::to_value(&scale).unwrap();
        assert_eq!(found["spec"]["replicas"], 1);
        assert_eq!(found["status"], json!({ "replicas": 1, "selector": format!("app={name}") }));
        // Without a version it holds whatever was written meanwhile, as upstream's tests have it.
        scale.metadata.resource_version = None;
        let spec = scale.spec.as_mut().unwrap();
        spec.replicas = Some(2);
        let written = api.replace_scale(&name, &PostParams::default(), &scale).await.unwrap();
        assert_eq!(written.spec.unwrap().replicas, Some(2));
        cluster.until_field(kind, &name, "/status/readyReplicas", json!(2)).await;
        let patch = Patch::Merge(json!({ "spec": { "replicas": 4 } }));
        let patched = api.patch_scale(&name, &PatchParams::default(), &patch).await.unwrap();
        assert_eq!(patched.spec.unwrap().replicas, Some(4));
        cluster.until_field(kind, &name, "/status/readyReplicas", json!(4)).await;
        assert_eq!(cluster.get(kind, &name).await["spec"]["replicas"], 4);
    }
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn revisions_are_made_labelled_and_deleted_by_hand_too() {
    let cluster = Cluster::start().await;
    cluster.create(node("a")).await;
    cluster.create(workload("DaemonSet", "logs")).await;
    cluster.until_field("DaemonSet", "logs", "/status/numberReady", json!(1)).await;
    let revisions = || cluster.list("ControllerRevision");
    let first = revisions().await.remove(0);
    assert_eq!(text(&first, "/metadata/labels/app"), "logs");
    let first_name = text(&first, "/metadata/name");
    cluster
        .patch(
            "ControllerRevision",
            first_name,
            json!({ "metadata": { "labels": { "my": "patched" } } }),
        )
        .await;
    // One of the same template under another name, which the set takes for its own from now on.
    let mut second = first.clone();
    second["metadata"] = json!({
        "name": "logs-by-hand", "ownerReferences": first["metadata"]["ownerReferences"],
        "labels": { "app": "logs", "controller-revision-hash": "by-hand" } });
    second["revision"] = json!(2);
    cluster.create(second).await;
    // The set may have taken back the one that is too much before.
    match cluster.api("ControllerRevision").delete(first_name, &DeleteParams::default()).await {
        Err(kube::Error::Api(status)) if status.code == 404 => (),
        deleted => {
            deleted.unwrap();
        }
    }
    assert_eq!(revisions().await.len(), 1);

    let grace =
        json!({ "spec": { "template": { "spec": { "terminationGracePeriodSeconds": 1 } } } });
    cluster.patch("DaemonSet", "logs", grace).await;
    cluster.until("a revision is made", || async { revisions().await.len() == 2 }).await;
    let by_hand = ListParams::default().labels("controller-revision-hash=by-hand");
    let api = cluster.api("ControllerRevision");
    api.delete_collection(&DeleteParams::default(), &by_hand).await.unwrap();
    let left = revisions().await;
    assert_eq!(left.len(), 1);
    assert_eq!(left[0]["revision"], 3);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_revisions_of_a_template_one_stays_and_no_pod_is_made_again() {
    let cluster = Cluster::start().await;
    cluster.create(node("a")).await;
    cluster.create(workload("DaemonSet", "logs")).await;
    cluster.until_field("DaemonSet", "logs", "/status/numberReady", json!(1)).await;
    let first = cluster.list("ControllerRevision").await.remove(0);
    let uid = cluster.list("Pod").await[0]["metadata"]["uid"].clone();
    let mut second = first.clone();
    second["metadata"] = json!({
        "name": "logs-by-hand", "ownerReferences": first["metadata"]["ownerReferences"],
        "labels": { "app": "logs", "controller-revision-hash": "by-hand" } });
    second["revision"] = json!(2);
    cluster.create(second).await;
    // Something that makes the set look, and means nothing to its pods.
    cluster
        .patch(
            "DaemonSet",
            "logs",
            json!({ "spec": { "minReadySeconds": 0, "revisionHistoryLimit": 7 } }),
        )
        .await;
    cluster.until_gone("ControllerRevision", text(&first, "/metadata/name")).await;
    cluster.until_field("DaemonSet", "logs", "/status/observedGeneration", json!(2)).await;
    let pods = cluster.list("Pod").await;
    assert_eq!(pods.len(), 1, "{pods:#?}");
    assert_eq!(pods[0]["metadata"]["uid"], uid);
    assert_eq!(text(&pods[0], "/metadata/labels/controller-revision-hash"), "by-hand");
    assert_eq!(cluster.get("DaemonSet", "logs").await["status"]["updatedNumberScheduled"], 1);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_namespaces_pods_go_before_all_else() {
    let cluster = Cluster::start().await;
    let named = |kind: &str, name: &str| json!({ "apiVersion": "v1", "kind": kind, "metadata": { "name": name } });
    cluster.create(named("Namespace", "team")).await;
    let api = |kind: &str| -> Api<DynamicObject> {
        let resource = ApiResource::from_gvk(&GroupVersionKind::gvk("", "v1", kind));
        Api::namespaced_with(cluster.client.clone(), "team", &resource)
    };
    let mut pod = named("Pod", "held");
    pod["metadata"]["finalizers"] = json!(["example.com/hold"]);
    pod["spec"] = json!({ "containers": [{ "name": "c", "image": "one" }] });
    for (kind, object) in [("Pod", pod), ("ConfigMap", named("ConfigMap", "needed"))] {
        let object = serde_json::from_value(object).unwrap();
        api(kind).create(&PostParams::default(), &object).await.unwrap();
    }
    cluster.delete("Namespace", "team", DeleteParams::default()).await;
    let remaining = "Some resources are remaining: pods. has 1 resource instances";
    cluster
        .until_field("Namespace", "team", "/status/conditions/3/message", json!(remaining))
        .await;
    let going = |object: DynamicObject| object.metadata.deletion_timestamp.is_some();
    assert!(going(api("Pod").get("held").await.unwrap()));
    assert!(!going(api("ConfigMap").get("needed").await.unwrap()));
    let free = Patch::Merge(json!({ "metadata": { "finalizers": null } }));
    api("Pod").patch("held", &PatchParams::default(), &free).await.unwrap();
    cluster.until_gone("Namespace", "team").await;
    cluster.stop().await;
}

fn pod_of(name: &str, owners: &Value) -> Value {
    json!({ "apiVersion": "v1", "kind": "Pod",
            "metadata": { "name": name, "labels": { "app": "first" }, "ownerReferences": owners },
            "spec": { "containers": [{ "name": "c", "image": "one" }] } })
}

fn reference(owner: &DynamicObject, controller: bool) -> Value {
    let types = owner.types.clone().unwrap();
    json!({ "apiVersion": types.api_version, "kind": types.kind, "name": owner.metadata.name,
            "uid": owner.metadata.uid, "controller": controller, "blockOwnerDeletion": true })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn owners_in_a_circle_go_together() {
    let cluster = Cluster::start().await;
    let mut pods = Vec::new();
    for name in ["a", "b", "c"] {
        pods.push(cluster.create(pod_of(name, &json!([]))).await);
    }
    for (pod, owner) in [("a", 2), ("b", 0), ("c", 1)] {
        let owners = json!({ "metadata": { "ownerReferences": [reference(&pods[owner], false)] } });
        cluster.patch("Pod", pod, owners).await;
    }
    cluster.delete("Pod", "a", DeleteParams::foreground()).await;
    cluster.until("all of them are gone", || async { cluster.list("Pod").await.is_empty() }).await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dependent_that_another_owner_needs_stays_when_one_is_deleted_in_the_foreground() {
    let cluster = Cluster::start().await;
    let mut first = workload("ReplicationController", "first");
    first["spec"]["replicas"] = json!(4);
    cluster.create(first).await;
    cluster.until_field("ReplicationController", "first", "/status/readyReplicas", json!(4)).await;
    let mut second = workload("ReplicationController", "second");
    second["spec"]["replicas"] = json!(0);
    let second = cluster.create(second).await;
    let pods = cluster.list("Pod").await;
    for pod in &pods[..2] {
        let mut owners = pod["metadata"]["ownerReferences"].as_array().unwrap().clone();
        owners.push(reference(&second, false));
        let patch = json!({ "metadata": { "ownerReferences": owners } });
        cluster.patch("Pod", text(pod, "/metadata/name"), patch).await;
    }
    cluster.delete("ReplicationController", "first", DeleteParams::foreground()).await;
    cluster.until_gone("ReplicationController", "first").await;
    let left = cluster.list("Pod").await;
    let names = |pods: &[Value]| -> Vec<String> {
        pods.iter().map(|pod| text(pod, "/metadata/name").to_owned()).collect()
    };
    assert_eq!(names(&left), names(&pods[..2]));
    for pod in &left {
        assert!(pod["metadata"]["deletionTimestamp"].is_null(), "{pod:#}");
        let owners = pod["metadata"]["ownerReferences"].as_array().unwrap();
        assert_eq!(owners.len(), 1, "{pod:#}");
        assert_eq!(owners[0]["name"], "second");
    }
    cluster.stop().await;
}
