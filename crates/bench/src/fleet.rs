//! Many nodes without machines: their kubelets run nothing, and say at once that it runs.
//!
//! To the control plane they are nodes as any: objects with leases that are renewed, pods that turn Ready and end when they
//! are told to. One watch serves all of them, and a few connections carry what they write.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use http::{Method, StatusCode};
use http_body_util::BodyExt;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, timeout};

use crate::cluster::{Cluster, Watch};
use crate::connection::Connection;

const NODES: &str = "/api/v1/nodes";
const LEASES: &str = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases";
/// Connections that requests are spread over.
const CONNECTIONS: usize = 4;
/// Requests at once: what 64 kubelets would have open.
const REQUESTS: usize = 64;
/// How often a kubelet renews its lease; upstream's.
const RENEWAL: Duration = Duration::from_secs(10);
/// How long the nodes may take to be there.
const DEADLINE: Duration = Duration::from_secs(120);

/// The nodes. They are gone when this is dropped.
pub struct Fleet {
    tasks: JoinSet<()>,
}

/// What of a node says whether pods may come.
#[derive(Deserialize)]
struct NodeEvent {
    object: Node,
}

#[derive(Deserialize)]
struct Node {
    metadata: Metadata,
    #[serde(default)]
    spec: NodeSpec,
}

#[derive(Deserialize, Default)]
struct NodeSpec {
    #[serde(default)]
    taints: Vec<Value>,
}

/// What of a pod its kubelet has to know.
#[derive(Deserialize)]
struct PodEvent {
    #[serde(rename = "type")]
    event_type: String,
    object: Pod,
}

#[derive(Deserialize)]
struct Pod {
    metadata: Metadata,
    #[serde(default)]
    spec: PodSpec,
    #[serde(default)]
    status: PodStatus,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Metadata {
    name: String,
    #[serde(default)]
    namespace: String,
    deletion_timestamp: Option<String>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase")]
struct PodSpec {
    node_name: Option<String>,
}

#[derive(Deserialize, Default)]
struct PodStatus {
    phase: Option<String>,
}

impl Fleet {
    /// Brings up this many nodes, and takes the cluster's own out of service.
    pub async fn start(cluster: &Cluster, nodes: usize) -> Result<Self> {
        let watch =
            cluster.watch("/api/v1/pods?watch=true&fieldSelector=spec.nodeName!%3D").await?;
        let mut fleet = Self::without_kubelets(cluster, nodes).await?;
        fleet.tasks.spawn(told("pods", obey(watch, connections(cluster).await?)));
        Ok(fleet)
    }

    /// The same, but nobody runs the pods that are bound to the nodes.
    pub async fn without_kubelets(cluster: &Cluster, nodes: usize) -> Result<Self> {
        let cordon = json!({ "spec": { "unschedulable": true } });
        cluster.patch(&format!("{NODES}/node-0"), &cordon).await?;
        create_all(cluster, NODES, nodes, node).await?;
        create_all(cluster, LEASES, nodes, |number| lease(&name(number))).await?;
        let mut tasks = JoinSet::new();
        tasks.spawn(told("leases", renew(cluster.connect().await?, nodes)));
        let watch = cluster
            .watch(&format!("{NODES}?watch=true&fieldSelector=spec.unschedulable%3Dfalse"))
            .await?;
        timeout(DEADLINE, until_schedulable(watch, nodes)).await.context("no nodes in time")??;
        Ok(Self { tasks })
    }
}

/// A kubelet that has ended makes every figure wrong, and must not go unseen.
async fn told(what: &str, work: impl Future<Output = Result<()>>) {
    if let Err(error) = work.await {
        eprintln!("    the fake nodes' {what} are not looked after any more: {error:#}");
    }
}

/// Creates many objects in a collection, several at once.
pub async fn create_all(
    cluster: &Cluster,
    path: &str,
    count: usize,
    object: impl Fn(usize) -> Value,
) -> Result<()> {
    send_all(cluster, count, |number| (Method::POST, path.to_owned(), object(number))).await
}

/// Sends many requests, several at once.
pub async fn send_all(
    cluster: &Cluster,
    count: usize,
    request: impl Fn(usize) -> (Method, String, Value),
) -> Result<()> {
    let connections = connections(cluster).await?;
    let mut requests = JoinSet::new();
    for number in 0..count {
        if requests.len() >= REQUESTS
            && let Some(created) = requests.join_next().await
        {
            created??;
        }
        let connection = connections[number % CONNECTIONS].clone();
        let (method, path, body) = request(number);
        requests.spawn(async move { send(&connection, method, &path, &body).await });
    }
    while let Some(created) = requests.join_next().await {
        created??;
    }
    Ok(())
}

async fn connections(cluster: &Cluster) -> Result<Vec<Connection>> {
    let mut connections = Vec::new();
    for _ in 0..CONNECTIONS {
        connections.push(cluster.connect().await?);
    }
    Ok(connections)
}

fn name(number: usize) -> String {
    format!("fake-{number:05}")
}

/// A node as a kubelet registers it.
fn node(number: usize) -> Value {
    let name = name(number);
    let room = json!({ "cpu": "32", "memory": "256Gi", "pods": "110", "ephemeral-storage": "1Ti" });
    let now = now();
    let conditions = ["MemoryPressure", "DiskPressure", "PIDPressure", "Ready"].map(|condition| {
        let status = if condition == "Ready" { "True" } else { "False" };
        json!({ "type": condition, "status": status, "reason": "Fake", "message": "a fake node",
                "lastHeartbeatTime": now, "lastTransitionTime": now })
    });
    json!({
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": { "name": name, "labels": { "kubernetes.io/hostname": name, "kubernetes.io/os": "linux" } },
        "status": {
            "capacity": room, "allocatable": room, "conditions": conditions,
            "addresses": [{ "type": "InternalIP", "address": address(number) }],
        },
    })
}

fn address(number: usize) -> String {
    format!("10.{}.{}.{}", number >> 16 & 255, number >> 8 & 255, number & 255)
}

fn lease(name: &str) -> Value {
    json!({
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": { "name": name },
        "spec": { "holderIdentity": name, "leaseDurationSeconds": 40, "renewTime": now_to_the_microsecond() },
    })
}

fn now() -> String {
    jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

fn now_to_the_microsecond() -> String {
    jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%S%.6fZ").to_string()
}

/// Waits until no taint keeps pods away any more: who watches over nodes has seen that they are well.
async fn until_schedulable(mut watch: Watch, nodes: usize) -> Result<()> {
    let mut open = HashSet::new();
    while open.len() < nodes {
        let NodeEvent { object } = watch.next_as().await?;
        if object.spec.taints.is_empty() {
            open.insert(object.metadata.name);
        } else {
            open.remove(&object.metadata.name);
        }
    }
    Ok(())
}

/// Renews one lease after the other, each every ten seconds.
async fn renew(connection: Connection, nodes: usize) -> Result<()> {
    let mut ticks = interval(RENEWAL / u32::try_from(nodes)?.max(1));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    for number in (0..nodes).cycle() {
        ticks.tick().await;
        let name = name(number);
        send(&connection, Method::PATCH, &format!("{LEASES}/{name}"), &lease(&name)).await?;
    }
    Ok(())
}

/// Every kubelet's work: what is there runs, what is to go is gone.
async fn obey(mut watch: Watch, connections: Vec<Connection>) -> Result<()> {
    let places = Arc::new(Semaphore::new(REQUESTS));
    let mut requests = JoinSet::new();
    let mut number = 0;
    loop {
        let event: PodEvent = watch.next_as().await?;
        while let Some(done) = requests.try_join_next() {
            done??;
        }
        let Pod { metadata, spec, status } = event.object;
        let ours = spec.node_name.is_some_and(|node| node.starts_with("fake-"));
        let path = format!("/api/v1/namespaces/{}/pods/{}", metadata.namespace, metadata.name);
        let (method, path, body) = if !ours || event.event_type == "DELETED" {
            continue;
        } else if metadata.deletion_timestamp.is_some() {
            (Method::DELETE, path, json!({ "gracePeriodSeconds": 0 }))
        } else if status.phase.as_deref() == Some("Pending") {
            (Method::PATCH, path + "/status", running(number))
        } else {
            continue;
        };
        number += 1;
        let connection = connections[number % CONNECTIONS].clone();
        let places = places.clone();
        requests.spawn(async move {
            let _place = places.acquire_owned().await?;
            send(&connection, method, &path, &body).await
        });
    }
}

/// The status of a pod whose only container runs.
fn running(number: usize) -> Value {
    let (now, address) = (now(), address(number));
    let conditions = ["PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady"]
        .map(|condition| json!({ "type": condition, "status": "True", "lastTransitionTime": now }));
    json!({ "status": {
        "phase": "Running", "startTime": now, "podIP": address, "podIPs": [{ "ip": address }],
        "conditions": conditions,
        "containerStatuses": [{
            "name": "main", "image": "fake", "imageID": "fake", "containerID": format!("fake://{number}"),
            "ready": true, "started": true, "restartCount": 0, "state": { "running": { "startedAt": now } },
        }],
    } })
}

async fn send(connection: &Connection, method: Method, path: &str, body: &Value) -> Result<()> {
    let content = match method {
        Method::PATCH => "application/strategic-merge-patch+json",
        _ => "application/json",
    };
    let body = Bytes::from(serde_json::to_vec(body)?);
    let headers = [("content-type", content), ("accept", "application/json")];
    let answer = connection.send(method.clone(), path, &headers, body).await?;
    let status = answer.status();
    let bytes = answer.into_body().collect().await?.to_bytes();
    // It may be gone already: then somebody else was faster.
    if status.is_success() || status == StatusCode::NOT_FOUND || status == StatusCode::CONFLICT {
        return Ok(());
    }
    bail!("{method} {path}: {status}: {}", String::from_utf8_lossy(&bytes));
}
