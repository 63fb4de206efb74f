//! The controllers against the real API, told as stories.

mod bad_connection;
mod certificates;
mod cron_jobs;
mod daemon_set;
mod election;
mod faults;
mod harness;
mod horizontal_pod_autoscaler;
mod jobs;
mod nodes;
mod persistent_volumes;
mod replication_controller;
mod stateful_set;
mod token_secrets;
mod upstream;

use std::time::Instant;

use harness::Cluster;
use kube::api::DeleteParams;
use serde_json::{Value, json};

fn deployment(replicas: i32, image: &str) -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": { "name": "web" },
        "spec": {
            "replicas": replicas, "selector": { "matchLabels": { "app": "web" } },
            "template": { "metadata": { "labels": { "app": "web" } },
                          "spec": { "containers": [{ "name": "c", "image": image }] } },
        },
    })
}

fn image(image: &str) -> Value {
    json!({ "spec": { "template": { "spec": { "containers": [{ "name": "c", "image": image }] } } } })
}

fn text<'a>(object: &'a Value, pointer: &str) -> &'a str {
    object.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

fn owned(owner: &Value, name: &str, blocks: bool) -> Value {
    json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": name, "ownerReferences": [{
        "apiVersion": owner["apiVersion"], "kind": owner["kind"], "name": owner["metadata"]["name"],
        "uid": owner["metadata"]["uid"], "blockOwnerDeletion": blocks }] } })
}

async fn config_map(cluster: &Cluster, name: &str) -> Value {
    let created = cluster
        .create(json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": name } }))
        .await;
    serde_json::to_value(created).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deployment_rolls_forward_back_and_to_another_size() {
    let cluster = Cluster::start().await;
    cluster.create(deployment(3, "one")).await;
    cluster.until_field("Deployment", "web", "/status/availableReplicas", json!(3)).await;
    cluster
        .until_field(
            "Deployment",
            "web",
            "/status/conditions/1/reason",
            json!("NewReplicaSetAvailable"),
        )
        .await;
    let first = cluster.list("ReplicaSet").await.remove(0);
    let first_name = text(&first, "/metadata/name").to_owned();
    assert_eq!(text(&first, "/metadata/annotations/deployment.kubernetes.io~1revision"), "1");
    let scaled = format!("Scaled up replica set {first_name} from 0 to 3");
    cluster
        .until("the scaling is told", || async {
            cluster.events("web", "ScalingReplicaSet").await.contains(&scaled)
        })
        .await;
    cluster
        .until("each pod is told", || async {
            cluster.events(&first_name, "SuccessfulCreate").await.len() == 3
        })
        .await;

    cluster.patch("Deployment", "web", image("two")).await;
    cluster
        .until_field(
            "Deployment",
            "web",
            "/metadata/annotations/deployment.kubernetes.io~1revision",
            json!("2"),
        )
        .await;
    cluster.until_field("Deployment", "web", "/status/updatedReplicas", json!(3)).await;
    cluster.until_field("ReplicaSet", &first_name, "/status/replicas", json!(0)).await;
    let pods = cluster.list("Pod").await;
    assert!(pods.iter().all(|pod| text(pod, "/spec/containers/0/image") == "two"), "{pods:#?}");

    cluster.patch("Deployment", "web", image("one")).await;
    cluster.until_field("ReplicaSet", &first_name, "/status/availableReplicas", json!(3)).await;
    cluster
        .until_field(
            "Deployment",
            "web",
            "/metadata/annotations/deployment.kubernetes.io~1revision",
            json!("3"),
        )
        .await;
    let first = cluster.get("ReplicaSet", &first_name).await;
    assert_eq!(
        text(&first, "/metadata/annotations/deployment.kubernetes.io~1revision-history"),
        "1"
    );
    assert_eq!(cluster.list("ReplicaSet").await.len(), 2);

    cluster.patch("Deployment", "web", json!({ "spec": { "replicas": 5 } })).await;
    cluster.until_field("Deployment", "web", "/status/availableReplicas", json!(5)).await;
    cluster.patch("Deployment", "web", json!({ "spec": { "replicas": 0 } })).await;
    cluster.until("no pod is left", || async { cluster.list("Pod").await.is_empty() }).await;
    cluster.until_field("Deployment", "web", "/status/replicas", Value::Null).await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pods_are_adopted_replaced_and_released() {
    let cluster = Cluster::start().await;
    cluster.create(json!({ "apiVersion": "v1", "kind": "Pod", "metadata": { "name": "stray", "labels": { "app": "web" } },
                           "spec": { "containers": [{ "name": "c", "image": "one" }] } })).await;
    cluster.create(deployment(2, "one")).await;
    let set = json!({ "apiVersion": "apps/v1", "kind": "ReplicaSet", "metadata": { "name": "set" }, "spec": {
        "replicas": 2, "selector": { "matchLabels": { "app": "web" }, "matchExpressions": [{ "key": "pod-template-hash", "operator": "DoesNotExist" }] },
        "template": { "metadata": { "labels": { "app": "web" } }, "spec": { "containers": [{ "name": "c", "image": "one" }] } } } });
    cluster.create(set).await;
    cluster.until_field("Pod", "stray", "/metadata/ownerReferences/0/name", json!("set")).await;
    cluster.until_field("ReplicaSet", "set", "/status/readyReplicas", json!(2)).await;
    cluster.delete("Pod", "stray", DeleteParams::default()).await;
    cluster.until_gone("Pod", "stray").await;
    cluster.until_field("ReplicaSet", "set", "/status/readyReplicas", json!(2)).await;

    let mine = |pod: &Value| text(pod, "/metadata/ownerReferences/0/name") == "set";
    let pod = cluster.list("Pod").await.into_iter().find(mine).unwrap();
    let name = text(&pod, "/metadata/name").to_owned();
    cluster.patch("Pod", &name, json!({ "metadata": { "labels": { "app": "debug" } } })).await;
    cluster.until_field("Pod", &name, "/metadata/ownerReferences", Value::Null).await;
    cluster
        .until("it is replaced", || async {
            cluster.list("Pod").await.iter().filter(|pod| mine(pod)).count() == 2
        })
        .await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dependents_go_wait_or_stay_as_the_deletion_says() {
    let cluster = Cluster::start().await;
    // Background.
    let owner = config_map(&cluster, "background").await;
    cluster.create(owned(&owner, "background-child", true)).await;
    cluster.delete("ConfigMap", "background", DeleteParams::background()).await;
    cluster.until_gone("ConfigMap", "background-child").await;
    // Foreground: a child with a finalizer holds its owner back.
    let owner = config_map(&cluster, "foreground").await;
    let mut child = owned(&owner, "foreground-child", true);
    child["metadata"]["finalizers"] = json!(["example.com/hold"]);
    cluster.create(child).await;
    cluster.delete("ConfigMap", "foreground", DeleteParams::foreground()).await;
    cluster
        .until("the child is going", || async {
            !cluster.get("ConfigMap", "foreground-child").await["metadata"]["deletionTimestamp"]
                .is_null()
        })
        .await;
    assert!(!cluster.get("ConfigMap", "foreground").await.is_null());
    cluster
        .patch("ConfigMap", "foreground-child", json!({ "metadata": { "finalizers": null } }))
        .await;
    cluster.until_gone("ConfigMap", "foreground").await;
    // Orphan.
    let owner = config_map(&cluster, "orphan").await;
    cluster.create(owned(&owner, "orphan-child", true)).await;
    cluster.delete("ConfigMap", "orphan", DeleteParams::orphan()).await;
    cluster.until_gone("ConfigMap", "orphan").await;
    let child = cluster.get("ConfigMap", "orphan-child").await;
    assert!(child["metadata"]["ownerReferences"].is_null(), "{child:#}");
    // Two owners: one is enough.
    let (a, b) = (config_map(&cluster, "a").await, config_map(&cluster, "b").await);
    let mut child = owned(&a, "shared", false);
    let second = owned(&b, "shared", false)["metadata"]["ownerReferences"][0].clone();
    child["metadata"]["ownerReferences"].as_array_mut().unwrap().push(second);
    cluster.create(child).await;
    cluster.delete("ConfigMap", "a", DeleteParams::default()).await;
    cluster
        .until_field("ConfigMap", "shared", "/metadata/ownerReferences/0/name", json!("b"))
        .await;
    // An owner that never was.
    let mut ghost = a.clone();
    ghost["metadata"]["uid"] = json!("00000000-0000-0000-0000-000000000000");
    cluster.create(owned(&ghost, "ghost-child", false)).await;
    cluster.until_gone("ConfigMap", "ghost-child").await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deployment_is_deleted_in_each_way() {
    let cluster = Cluster::start().await;
    for (policy, remains) in [
        (DeleteParams::background(), 0),
        (DeleteParams::foreground(), 0),
        (DeleteParams::orphan(), 2),
    ] {
        cluster.create(deployment(2, "one")).await;
        cluster.until_field("Deployment", "web", "/status/availableReplicas", json!(2)).await;
        cluster.delete("Deployment", "web", policy).await;
        cluster.until_gone("Deployment", "web").await;
        cluster
            .until("its pods are as they should be", || async {
                let pods = cluster.list("Pod").await;
                let sets = cluster.list("ReplicaSet").await;
                pods.len() == remains && sets.len() == remains / 2
            })
            .await;
    }
    // What was orphaned is found again.
    cluster.create(deployment(2, "one")).await;
    cluster.until_field("Deployment", "web", "/status/availableReplicas", json!(2)).await;
    assert_eq!(cluster.list("ReplicaSet").await.len(), 1);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_namespace_has_what_it_needs_and_leaves_nothing_behind() {
    let cluster = Cluster::start().await;
    cluster
        .create(json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": "team" } }))
        .await;
    let api = |kind: &str| {
        let resource =
            kube::api::ApiResource::from_gvk(&kube::core::GroupVersionKind::gvk("", "v1", kind));
        kube::Api::<kube::api::DynamicObject>::namespaced_with(
            cluster.client.clone(),
            "team",
            &resource,
        )
    };
    let (accounts, maps, secrets) = (api("ServiceAccount"), api("ConfigMap"), api("Secret"));
    cluster
        .until("the account is there", || async {
            accounts.get_opt("default").await.unwrap().is_some()
        })
        .await;
    cluster
        .until("the CA is there", || async {
            maps.get_opt("kube-root-ca.crt").await.unwrap().is_some()
        })
        .await;
    maps.delete("kube-root-ca.crt", &DeleteParams::default()).await.unwrap();
    cluster
        .until("the CA is back", || async {
            maps.get_opt("kube-root-ca.crt").await.unwrap().is_some()
        })
        .await;
    accounts.delete("default", &DeleteParams::default()).await.unwrap();
    cluster
        .until("the account is back", || async {
            accounts.get_opt("default").await.unwrap().is_some()
        })
        .await;

    for index in 0..20 {
        let secret = json!({ "apiVersion": "v1", "kind": "Secret", "metadata": { "name": format!("s{index}") } });
        let secret = serde_json::from_value(secret).unwrap();
        secrets.create(&Default::default(), &secret).await.unwrap();
    }
    let held = json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "held", "finalizers": ["example.com/hold"] } });
    maps.create(&Default::default(), &serde_json::from_value(held).unwrap()).await.unwrap();
    cluster.delete("Namespace", "team", DeleteParams::default()).await;
    cluster
        .until_field(
            "Namespace",
            "team",
            "/status/conditions/3/message",
            json!("Some resources are remaining: configmaps. has 1 resource instances"),
        )
        .await;
    let namespace = cluster.get("Namespace", "team").await;
    assert_eq!(text(&namespace, "/status/phase"), "Terminating");
    assert_eq!(
        text(&namespace, "/status/conditions/4/message"),
        "Some content in the namespace has finalizers remaining: example.com/hold in 1 resource instances"
    );
    assert!(secrets.list(&Default::default()).await.unwrap().items.is_empty());
    let free = json!({ "metadata": { "finalizers": null } });
    maps.patch("held", &Default::default(), &kube::api::Patch::Merge(free)).await.unwrap();
    cluster.until_gone("Namespace", "team").await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_made_is_told_and_made_once_it_can() {
    let cluster = Cluster::start().await;
    let mut web = deployment(2, "one");
    web["spec"]["template"]["spec"]["serviceAccountName"] = json!("missing");
    cluster.create(web).await;
    cluster
        .until("the Deployment says what failed", || async {
            let web = cluster.get("Deployment", "web").await;
            let conditions = web.pointer("/status/conditions").and_then(Value::as_array).cloned();
            conditions.unwrap_or_default().iter().any(|condition| {
                text(condition, "/type") == "ReplicaFailure"
                    && text(condition, "/reason") == "FailedCreate"
            })
        })
        .await;
    let set = cluster.list("ReplicaSet").await.remove(0);
    let set = text(&set, "/metadata/name");
    cluster
        .until("an Event tells why", || async {
            let told = cluster.events(set, "FailedCreate").await;
            told.iter().any(|message| {
                message.starts_with("Error creating: ") && message.contains("missing")
            })
        })
        .await;
    cluster.create(json!({ "apiVersion": "v1", "kind": "ServiceAccount", "metadata": { "name": "missing" } })).await;
    cluster.until_field("Deployment", "web", "/status/availableReplicas", json!(2)).await;
    cluster
        .until("the condition is gone", || async {
            let web = cluster.get("Deployment", "web").await;
            !web["status"]["conditions"].to_string().contains("ReplicaFailure")
        })
        .await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn controllers_that_are_ended_in_the_middle_make_no_pod_twice() {
    let mut cluster = Cluster::start().await;
    cluster.create(deployment(200, "one")).await;
    for made in [1, 40, 120] {
        cluster
            .until("some pods are there", || async { cluster.list("Pod").await.len() >= made })
            .await;
        cluster.restart_controllers().await;
    }
    cluster.until_field("Deployment", "web", "/status/availableReplicas", json!(200)).await;
    assert_eq!(cluster.list("Pod").await.len(), 200);
    let set = cluster.list("ReplicaSet").await.remove(0);
    assert!(cluster.events(text(&set, "/metadata/name"), "SuccessfulDelete").await.is_empty());
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_pods_come_and_go() {
    let cluster = Cluster::start().await;
    let (began, before) = (Instant::now(), cluster.writes());
    cluster.create(deployment(1000, "one")).await;
    cluster.until_field("Deployment", "web", "/status/availableReplicas", json!(1000)).await;
    println!(
        "1000 pods ready after {:?} and {} writes",
        began.elapsed(),
        cluster.writes() - before
    );
    assert_eq!(cluster.list("Pod").await.len(), 1000, "not one pod too many was made");
    let (began, before) = (Instant::now(), cluster.writes());
    cluster.delete("Deployment", "web", DeleteParams::background()).await;
    cluster.until("all pods are gone", || async { cluster.list("Pod").await.is_empty() }).await;
    println!("1000 pods gone after {:?} and {} writes", began.elapsed(), cluster.writes() - before);
    cluster.stop().await;
}
