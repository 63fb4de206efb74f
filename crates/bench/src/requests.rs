//! `objects`, `list`, `watch`: what the API server does for clients with a bearer token, as programs in a cluster have.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use http::Method;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::Settings;
use crate::cluster::Cluster;
use crate::connection::{Access, Connection};
use crate::idle::{mebibytes, settled};
use crate::load::measure;
use crate::report::{Figure, Report, few_times, median_and_p99, milliseconds, times};

const CLIENTS: [usize; 2] = [1, 64];
/// Clients that share an HTTP/2 connection.
const SHARE: usize = 16;
const BYTES: usize = 1024;
const CONFIG_MAPS: &str = "/api/v1/namespaces/default/configmaps";
const PODS: &str = "/api/v1/namespaces/default/pods";
/// Pods that are listed and held.
const HELD: u64 = 10_000;
/// Lists of which the median counts.
const LISTS: usize = 20;
/// Watchers of one kind.
const WATCHERS: [usize; 2] = [1_000, 10_000];
/// Watchers that share a connection: servers allow 250 streams on one at most, upstream's number.
const WATCHERS_PER_CONNECTION: usize = 100;
/// Writes that all watchers see, one after another.
const WRITES: usize = 100;
/// Writes that do not count.
const WARM_UP: usize = 10;
/// How long any of it may take.
const DEADLINE: Duration = Duration::from_secs(180);

/// ConfigMaps created, read and updated.
pub async fn objects(settings: &Settings, report: &mut Report) -> Result<()> {
    let creates = |clients| if clients == 64 { "10,000/s" } else { "" };
    let gets = |clients| if clients == 64 { "40,000/s" } else { "" };
    for clients in CLIENTS {
        let cluster = Cluster::prepared(settings).await?;
        let access = with_token(&cluster).await?;
        let mut connections = Vec::new();
        for _ in 0..clients.div_ceil(SHARE) {
            connections.push(Connection::secure(&access).await?);
        }
        let connections: Arc<[Connection]> = connections.into();
        let (own, payload) = (connections.clone(), payload());
        let created = measure(clients, move |client, number| {
            let body = config_map(&format!("object-{client}-{number}"), &payload);
            let connection = own[client / SHARE].clone();
            async move { connection.json_bytes(Method::POST, CONFIG_MAPS, body).await.map(drop) }
        });
        let what =
            |verb: &str| format!("ConfigMaps of 1 KiB {verb} with a token, clients: {clients}");
        report.add("objects", &what("created"), created.await?, creates(clients));

        for client in 0..clients {
            let body = config_map(&format!("own-{client}"), &self::payload());
            connections[client / SHARE].json_bytes(Method::POST, CONFIG_MAPS, body).await?;
        }
        let own = connections.clone();
        let read = measure(clients, move |client, _| {
            let connection = own[client / SHARE].clone();
            let path = format!("{CONFIG_MAPS}/own-{client}");
            async move { connection.json_bytes(Method::GET, &path, Bytes::new()).await.map(drop) }
        });
        report.add("objects", &what("read"), read.await?, gets(clients));

        let (own, payload) = (connections.clone(), self::payload());
        let updated = measure(clients, move |client, number| {
            let name = format!("own-{client}");
            let body = config_map(&name, &format!("{number}{payload}"));
            let connection = own[client / SHARE].clone();
            let path = format!("{CONFIG_MAPS}/{name}");
            async move { connection.json_bytes(Method::PUT, &path, body).await.map(drop) }
        });
        report.add("objects", &what("updated"), updated.await?, "");
        cluster.kill().await?;
    }
    Ok(())
}

/// Lists of many pods, and the memory that they take.
pub async fn list(settings: &Settings, report: &mut Report) -> Result<()> {
    let cluster = Cluster::prepared(settings).await?;
    let access = with_token(&cluster).await?;
    let connection = Connection::secure(&access).await?;
    let before = cluster.process().memory_bytes("RssAnon")?;
    let next = Arc::new(AtomicU64::new(0));
    let mut writers = JoinSet::new();
    for _ in 0..SHARE {
        let (connection, next) = (connection.clone(), next.clone());
        writers.spawn(async move {
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= HELD {
                    return anyhow::Ok(());
                }
                let body = serde_json::to_vec(&pod(number))?;
                connection.json_bytes(Method::POST, PODS, body.into()).await?;
            }
        });
    }
    while let Some(written) = writers.join_next().await {
        written??;
    }
    // What was needed to take them in, and is given back, is not what holding them costs.
    settled(&cluster).await?;
    let held = cluster.process().memory_bytes("RssAnon")?.saturating_sub(before);
    report.add("list", "memory for 10,000 pods held", mebibytes(vec![held]), "150 MiB");
    for (what, query, accept, aim) in [
        ("10,000 pods as JSON", "", "application/json", "100 ms"),
        ("10,000 pods as JSON, from the cache", "?resourceVersion=0", "application/json", ""),
        ("10,000 pods as protobuf", "", "application/vnd.kubernetes.protobuf", ""),
        ("500 of 10,000 pods as JSON", "?limit=500", "application/json", ""),
    ] {
        let mut durations = Vec::new();
        for _ in 0..LISTS {
            let start = Instant::now();
            let path = format!("{PODS}{query}");
            let headers = [("accept", accept)];
            let sending = connection.send(Method::GET, &path, &headers, Bytes::new());
            let answer = timeout(DEADLINE, sending).await.context("no list in time")??;
            if !answer.status().is_success() {
                bail!("list: {}", answer.status());
            }
            answer.into_body().collect().await?;
            durations.push(start.elapsed());
        }
        report.add("list", what, times(durations), aim);
    }
    cluster.kill().await
}

/// Writes that many watchers of the same kind see.
pub async fn watch(settings: &Settings, report: &mut Report) -> Result<()> {
    for watchers in WATCHERS {
        let cluster = Cluster::prepared(settings).await?;
        let access = with_token(&cluster).await?;
        let delivered = timeout(DEADLINE, deliver(&cluster, &access, watchers)).await;
        let Delivered { latencies, worked } = delivered.context("not delivered in time")??;
        let (median, p99) = median_and_p99(latencies);
        let figure = Figure { median: milliseconds(median), p99: Some(milliseconds(p99)) };
        let aim = if watchers == 1_000 { "10 ms p99" } else { "" };
        report.add("watch", &format!("a write to each of {watchers} watchers"), figure, aim);
        let what = format!("processor time of the cluster for a write to {watchers} watchers");
        report.add("watch", &what, few_times(vec![worked]), "");
        cluster.kill().await?;
    }
    Ok(())
}

struct Delivered {
    latencies: Vec<Duration>,
    worked: Duration,
}

/// When each write was sent, in nanoseconds since the start.
type Sent = Arc<[AtomicU64]>;

async fn deliver(cluster: &Cluster, access: &Access, watchers: usize) -> Result<Delivered> {
    let writer = Connection::secure(access).await?;
    let body = config_map("watched", &payload());
    let created = writer.json_bytes(Method::POST, CONFIG_MAPS, body).await?;
    let created: Value = serde_json::from_slice(&created)?;
    let since = created["metadata"]["resourceVersion"].as_str().context("no resourceVersion")?;
    let path = format!(
        "{CONFIG_MAPS}?watch=true&fieldSelector=metadata.name%3Dwatched&resourceVersion={since}"
    );
    let start = Instant::now();
    let sent: Sent = (0..WRITES).map(|_| AtomicU64::new(0)).collect();
    let mut following = JoinSet::new();
    let mut connection = Connection::secure(access).await?;
    for watcher in 0..watchers {
        if watcher > 0 && watcher % WATCHERS_PER_CONNECTION == 0 {
            connection = Connection::secure(access).await?;
        }
        let accept = [("accept", "application/json")];
        let answer = connection.send(Method::GET, &path, &accept, Bytes::new()).await?;
        if !answer.status().is_success() {
            bail!("watch {watcher}: {}", answer.status());
        }
        following.spawn(follow(answer.into_body(), start, sent.clone()));
    }
    let mut before = Duration::ZERO;
    for write in 0..WRITES {
        if write == WARM_UP {
            before = cluster.process().processor_time()?;
        }
        let body = config_map("watched", &format!("{write}{}", payload()));
        let now = u64::try_from(start.elapsed().as_nanos())?;
        sent[write].store(now, Ordering::SeqCst);
        writer.json_bytes(Method::PUT, &format!("{CONFIG_MAPS}/watched"), body).await?;
    }
    let mut latencies = Vec::new();
    while let Some(followed) = following.join_next().await {
        latencies.extend(followed??);
    }
    let worked = cluster.process().processor_time()?.saturating_sub(before);
    Ok(Delivered { latencies, worked: worked / (WRITES - WARM_UP) as u32 })
}

/// How long after it was sent each write arrived. Each is a line, and they come in order.
async fn follow(mut body: Incoming, start: Instant, sent: Sent) -> Result<Vec<Duration>> {
    let mut latencies = Vec::with_capacity(WRITES);
    let mut write = 0;
    while write < WRITES {
        let frame = body.frame().await.context("the watch ended")??;
        let now = start.elapsed();
        let Some(data) = frame.data_ref() else { continue };
        // Counted first, which takes a tenth of the time: the client's share of the processors is in the figure.
        let lines = data.iter().filter(|byte| **byte == b'\n').count();
        for _ in 0..lines {
            let at = sent.get(write).context("more events than writes")?.load(Ordering::SeqCst);
            if write >= WARM_UP {
                latencies.push(now.saturating_sub(Duration::from_nanos(at)));
            }
            write += 1;
        }
    }
    Ok(latencies)
}

/// A ServiceAccount that may do everything, and its token.
async fn with_token(cluster: &Cluster) -> Result<Access> {
    let binding = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRoleBinding",
        "metadata": { "name": "bench" },
        "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin" },
        "subjects": [{ "kind": "ServiceAccount", "namespace": "default", "name": "default" }],
    });
    let path = "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings";
    cluster.json(Method::POST, path, Some(&binding)).await?;
    let path = "/api/v1/namespaces/default/serviceaccounts/default/token";
    let request =
        json!({ "apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {} });
    let issued = cluster.json(Method::POST, path, Some(&request)).await?;
    let token = issued["status"]["token"].as_str().context("no token")?;
    Ok(cluster.access().with_token(token))
}

fn payload() -> String {
    "x".repeat(BYTES)
}

fn config_map(name: &str, payload: &str) -> Bytes {
    format!(
        r#"{{"apiVersion":"v1","kind":"ConfigMap","metadata":{{"name":"{name}"}},"data":{{"payload":"{payload}"}}}}"#
    )
    .into()
}

/// A pod of common size that nobody schedules.
fn pod(number: u64) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": { "name": format!("pod-{number}"), "labels": { "app": "bench", "tier": "front" } },
        "spec": {
            "schedulerName": "nobody",
            "containers": [{
                "name": "main",
                "image": "registry.example.com/team/service:1.2.3",
                "args": ["--listen", "0.0.0.0:8080"],
                "env": [{ "name": "LEVEL", "value": "info" }],
                "ports": [{ "name": "http", "containerPort": 8080 }],
                "resources": { "requests": { "cpu": "10m", "memory": "16Mi" } },
            }],
        },
    })
}
