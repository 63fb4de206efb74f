//! Claims and volumes: bound, protected, released, against the real API.

use kube::api::DeleteParams;
use serde_json::{Value, json};

use crate::harness::Cluster;

const CLAIM: &str = "PersistentVolumeClaim";
const VOLUME: &str = "PersistentVolume";

fn volume(name: &str, size: &str, policy: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": VOLUME, "metadata": { "name": name },
        "spec": { "capacity": { "storage": size }, "accessModes": ["ReadWriteOnce"], "storageClassName": "manual",
                  "persistentVolumeReclaimPolicy": policy, "hostPath": { "path": "/nowhere" } },
    })
}

fn claim(name: &str, class: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": CLAIM, "metadata": { "name": name },
        "spec": { "accessModes": ["ReadWriteOnce"], "storageClassName": class,
                  "resources": { "requests": { "storage": "1Gi" } } },
    })
}

fn pod(name: &str, node: Option<&str>, volume: Value) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": { "name": name },
        "spec": { "nodeName": node, "volumes": [volume], "containers": [{ "name": "c", "image": "one" }] },
    })
}

async fn until_told(cluster: &Cluster, name: &str, reason: &str, message: &str) {
    let told = || async { cluster.events(name, reason).await.iter().any(|told| told == message) };
    cluster.until(message, told).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_claim_takes_the_smallest_volume_and_leaves_it_released() {
    let cluster = Cluster::start().await;
    cluster.create(volume("big", "5Gi", "Retain")).await;
    cluster.create(volume("small", "2Gi", "Retain")).await;
    for name in ["big", "small"] {
        cluster.until_field(VOLUME, name, "/status/phase", json!("Available")).await;
    }
    cluster.create(claim("data", "manual")).await;
    cluster.until_field(CLAIM, "data", "/status/phase", json!("Bound")).await;
    let bound = cluster.get(CLAIM, "data").await;
    assert_eq!(bound["spec"]["volumeName"], "small");
    assert_eq!(bound["status"]["capacity"]["storage"], "2Gi");
    let annotations = &bound["metadata"]["annotations"];
    assert_eq!(annotations["pv.kubernetes.io/bind-completed"], "yes");
    assert_eq!(annotations["pv.kubernetes.io/bound-by-controller"], "yes");
    let taken = cluster.get(VOLUME, "small").await;
    assert_eq!(taken["status"]["phase"], "Bound");
    assert_eq!(taken["spec"]["claimRef"]["uid"], bound["metadata"]["uid"]);

    // Neither goes while it is used.
    let mounted = json!({ "name": "v", "persistentVolumeClaim": { "claimName": "data" } });
    cluster.create(pod("user", Some("n"), mounted)).await;
    cluster.until_field("Pod", "user", "/status/phase", json!("Running")).await;
    cluster.delete(VOLUME, "small", DeleteParams::default()).await;
    cluster.delete(CLAIM, "data", DeleteParams::default()).await;
    assert!(!cluster.get(CLAIM, "data").await.is_null());
    cluster.delete("Pod", "user", DeleteParams::default()).await;
    cluster.until_gone(CLAIM, "data").await;
    cluster.until_gone(VOLUME, "small").await;

    cluster.create(claim("data", "manual")).await;
    cluster.until_field(VOLUME, "big", "/status/phase", json!("Bound")).await;
    cluster.delete(CLAIM, "data", DeleteParams::default()).await;
    cluster.until_field(VOLUME, "big", "/status/phase", json!("Released")).await;
    // Nobody else gets what somebody left there, until an administrator says so.
    cluster.create(claim("other", "manual")).await;
    let missing = "storageclass.storage.k8s.io \"manual\" not found";
    until_told(&cluster, "other", "ProvisioningFailed", missing).await;
    cluster.patch(VOLUME, "big", json!({ "spec": { "claimRef": null } })).await;
    cluster.until_field(CLAIM, "other", "/status/phase", json!("Bound")).await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn claims_without_volume_say_what_they_wait_for() {
    let cluster = Cluster::start().await;
    cluster.create(claim("none", "")).await;
    let none = "no persistent volumes available for this claim and no storage class is set";
    until_told(&cluster, "none", "FailedBinding", none).await;

    // The class that every cluster has waits for the first pod.
    let mut default = claim("late", "");
    default["spec"].as_object_mut().unwrap().remove("storageClassName");
    cluster.create(default).await;
    assert_eq!(cluster.get(CLAIM, "late").await["spec"]["storageClassName"], "local-path");
    let waiting = "waiting for first consumer to be created before binding";
    until_told(&cluster, "late", "WaitForFirstConsumer", waiting).await;
    let mounted = json!({ "name": "v", "persistentVolumeClaim": { "claimName": "late" } });
    cluster.create(pod("user", None, mounted)).await;

    cluster
        .create(json!({ "apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "metadata": { "name": "far" },
                        "provisioner": "example.com/far" }))
        .await;
    cluster.create(claim("far", "far")).await;
    let by = "/metadata/annotations/volume.kubernetes.io~1storage-provisioner";
    cluster.until_field(CLAIM, "far", by, json!("example.com/far")).await;
    cluster
        .until("the provisioner is waited for", || async {
            !cluster.events("far", "ExternalProvisioning").await.is_empty()
        })
        .await;

    // A volume that nobody here can remove.
    cluster.create(volume("stuck", "1Gi", "Delete")).await;
    cluster.create(claim("mine", "manual")).await;
    cluster.until_field(CLAIM, "mine", "/status/phase", json!("Bound")).await;
    cluster.delete(CLAIM, "mine", DeleteParams::default()).await;
    cluster.until_field(VOLUME, "stuck", "/status/phase", json!("Failed")).await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_ephemeral_volume_has_a_claim_of_its_own() {
    let cluster = Cluster::start().await;
    let template = json!({ "metadata": { "labels": { "made": "for-pod" } }, "spec": {
        "accessModes": ["ReadWriteOnce"], "storageClassName": "manual", "resources": { "requests": { "storage": "1Gi" } } } });
    let scratch = json!({ "name": "scratch", "ephemeral": { "volumeClaimTemplate": template } });
    cluster.create(claim("taken-scratch", "manual")).await;
    cluster.create(pod("taken", None, scratch.clone())).await;
    let refused = "ephemeral volume scratch: PVC default/taken-scratch was not created for pod default/taken (pod is not owner)";
    until_told(&cluster, "taken", "FailedBinding", refused).await;

    cluster.create(pod("user", None, scratch)).await;
    let owner = "/metadata/ownerReferences/0/name";
    cluster.until_field(CLAIM, "user-scratch", owner, json!("user")).await;
    let made = cluster.get(CLAIM, "user-scratch").await;
    assert_eq!(made["metadata"]["labels"]["made"], "for-pod");
    cluster.delete("Pod", "user", DeleteParams::default()).await;
    cluster.until_gone(CLAIM, "user-scratch").await;
    cluster.stop().await;
}
