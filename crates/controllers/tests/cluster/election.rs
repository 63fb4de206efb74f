//! Of several copies of the controllers one acts.

use serde_json::json;

use crate::deployment;
use crate::harness::Cluster;

const LEASE: &str = "kube-controller-manager";
const HOLDER: &str = "/spec/holderIdentity";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_the_leader_acts_and_the_next_follows_at_once_when_it_goes() {
    let mut cluster = Cluster::start().await;
    cluster.until_field("Lease", LEASE, HOLDER, json!("first")).await;
    let second = cluster.another_copy("second");
    cluster.create(deployment(20, "one")).await;
    cluster.until_field("Deployment", "web", "/status/readyReplicas", json!(20)).await;
    assert_eq!(cluster.list("Pod").await.len(), 20);
    assert_eq!(cluster.get("Lease", LEASE).await.pointer(HOLDER), Some(&json!("first")));

    // It gives the lease back, and gets in line again.
    cluster.end_controllers().await;
    cluster.until_field("Lease", LEASE, HOLDER, json!("second")).await;
    cluster.start_controllers();
    let transitions = cluster.get("Lease", LEASE).await["spec"]["leaseTransitions"].clone();
    assert_eq!(transitions, json!(1));
    cluster.patch("Deployment", "web", json!({ "spec": { "replicas": 30 } })).await;
    cluster.until_field("Deployment", "web", "/status/readyReplicas", json!(30)).await;
    assert_eq!(cluster.list("Pod").await.len(), 30);

    second.end().await;
    cluster.until_field("Lease", LEASE, HOLDER, json!("first")).await;
    cluster.patch("Deployment", "web", json!({ "spec": { "replicas": 2 } })).await;
    cluster.until_field("Deployment", "web", "/status/readyReplicas", json!(2)).await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_crashed_leads_again_at_once() {
    let mut cluster = Cluster::start().await;
    cluster.create(deployment(3, "one")).await;
    cluster.until_field("Deployment", "web", "/status/readyReplicas", json!(3)).await;
    cluster.kill_controllers().await;
    assert_eq!(cluster.get("Lease", LEASE).await.pointer(HOLDER), Some(&json!("first")));
    cluster.start_controllers();
    cluster.patch("Deployment", "web", json!({ "spec": { "replicas": 5 } })).await;
    let before = std::time::Instant::now();
    cluster.until_field("Deployment", "web", "/status/readyReplicas", json!(5)).await;
    // Not after the 15 s that the lease of another one would take to run out.
    assert!(before.elapsed().as_secs() < 10, "{:?}", before.elapsed());
    cluster.stop().await;
}
