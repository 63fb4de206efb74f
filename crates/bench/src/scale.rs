//! `scheduler`, `fleet`, `rollouts`, `namespace`, `cronjobs`: what a control plane does for thousands, with fake nodes.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use http::Method;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::{sleep, timeout};

use crate::Settings;
use crate::cluster::{Cluster, Watch};
use crate::fleet::{Fleet, create_all, send_all};
use crate::report::{Figure, Report, few_times, rate, times};

const PODS: &str = "/api/v1/namespaces/default/pods";
const BOUND: &str = "/api/v1/namespaces/default/pods?watch=true&fieldSelector=spec.nodeName!%3D";
const SCHEDULER_LEASE: &str =
    "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases/kube-scheduler";
const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/default/deployments";
const CRON_JOBS: &str = "/apis/batch/v1/namespaces/default/cronjobs";
/// Nodes that the scheduler chooses from.
const MANY_NODES: usize = 5_000;
/// Nodes with room for all pods of the others, upstream's 110 on each.
const NODES: usize = 200;
/// Pods, objects and CronJobs.
const MANY: usize = 10_000;
/// What upstream's largest run of its scheduler's benchmark has.
const VERY_MANY: usize = 50_000;
/// How long a scheduler may take to see that another leads: upstream's ten seconds, and some.
const STEP_DOWN: Duration = Duration::from_secs(15);
/// Deployments that are rolled at once, and the pods of each.
const ROLLED: usize = 1_000;
const PODS_OF_EACH: i64 = 2;
/// How long nothing is done to see what an idle cluster costs, and before, until what was begun is over.
const IDLE: Duration = Duration::from_secs(20);
const SETTLING: Duration = Duration::from_secs(10);
/// How long any of it may take.
const DEADLINE: Duration = Duration::from_secs(300);

/// What of an object is looked at.
#[derive(Deserialize)]
struct Event {
    #[serde(rename = "type")]
    event_type: String,
    object: Object,
}

#[derive(Deserialize)]
struct Object {
    metadata: Metadata,
    #[serde(default)]
    spec: Spec,
    #[serde(default)]
    status: Status,
}

#[derive(Deserialize)]
struct Metadata {
    name: String,
    #[serde(default)]
    generation: i64,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase")]
struct Spec {
    node_name: Option<String>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Status {
    observed_generation: i64,
    replicas: i64,
    updated_replicas: i64,
    available_replicas: i64,
}

/// Pods for 5,000 nodes: bound while they are created, as upstream's `scheduler_perf` measures it; bound when they were
/// there before; and bound and run.
pub async fn scheduler(settings: &Settings, report: &mut Report) -> Result<()> {
    for (count, what) in [
        (MANY, "10,000 pods created and bound to 5,000 nodes, none run"),
        (VERY_MANY, "50,000 pods created and bound to 5,000 nodes, none run"),
    ] {
        let cluster = Cluster::prepared(settings).await?;
        let _fleet = Fleet::without_kubelets(&cluster, MANY_NODES).await?;
        create_and_bind(&cluster, report, count, what).await?;
        cluster.kill().await?;
    }
    let cluster = Cluster::prepared(settings).await?;
    let _fleet = Fleet::without_kubelets(&cluster, MANY_NODES).await?;
    bind_those_there(&cluster, report).await?;
    cluster.kill().await?;
    let cluster = Cluster::prepared(settings).await?;
    let _fleet = Fleet::start(&cluster, MANY_NODES).await?;
    let what = "10,000 pods created, bound to 5,000 nodes and run";
    create_and_bind(&cluster, report, MANY, what).await?;
    cluster.kill().await
}

async fn create_and_bind(
    cluster: &Cluster,
    report: &mut Report,
    count: usize,
    what: &str,
) -> Result<()> {
    let watch = cluster.watch(BOUND).await?;
    let before = cluster.process().processor_time()?;
    let start = Instant::now();
    let bound = until_all(watch, count, |event| event.object.spec.node_name.is_some());
    let created = create_all(cluster, PODS, count, |number| pod(&format!("pod-{number}")));
    let (bound, created) = tokio::join!(timeout(DEADLINE, bound), created);
    created?;
    bound.context("not all are bound in time")??;
    note_rate(cluster, report, what, count, start, before)
}

/// Binds pods that are there already: until then another holds the scheduler's lease.
async fn bind_those_there(cluster: &Cluster, report: &mut Report) -> Result<()> {
    let now = jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%S%.6fZ").to_string();
    let ours = json!({ "spec": { "holderIdentity": "coracle-bench", "renewTime": now, "leaseDurationSeconds": 3600 } });
    cluster.patch(SCHEDULER_LEASE, &ours).await?;
    // Nothing tells when the scheduler has seen that it leads no more: only time does.
    sleep(STEP_DOWN).await;
    create_all(cluster, PODS, MANY, |number| pod(&format!("pod-{number}"))).await?;
    let mut watch = cluster.watch(BOUND).await?;
    let nobodys = json!({ "spec": { "holderIdentity": "", "leaseDurationSeconds": 1 } });
    cluster.patch(SCHEDULER_LEASE, &nobodys).await?;
    // From the first on: until then the new leader lists what is there.
    let _: Event = watch.next_as().await?;
    let before = cluster.process().processor_time()?;
    let start = Instant::now();
    let bound = until_all(watch, MANY - 1, |event| event.object.spec.node_name.is_some());
    timeout(DEADLINE, bound).await.context("not all are bound in time")??;
    let what = "10,000 pods that are there bound to 5,000 nodes, none run";
    note_rate(cluster, report, what, MANY, start, before)
}

fn note_rate(
    cluster: &Cluster,
    report: &mut Report,
    what: &str,
    count: usize,
    start: Instant,
    before: Duration,
) -> Result<()> {
    let figure = Figure { median: rate(count as f64 / start.elapsed().as_secs_f64()), p99: None };
    report.add("scheduler", what, figure, "5,000/s");
    let worked = cluster.process().processor_time()? - before;
    report.add("scheduler", "processor time of the cluster for it", few_times(vec![worked]), "");
    Ok(())
}

/// A Deployment of 10,000 pods, and what they cost when nothing happens.
pub async fn fleet(settings: &Settings, report: &mut Report) -> Result<()> {
    let cluster = Cluster::prepared(settings).await?;
    let fleet = Fleet::start(&cluster, NODES).await?;
    let watch = cluster.watch(&format!("{DEPLOYMENTS}?watch=true")).await?;
    let before = cluster.process().processor_time()?;
    let start = Instant::now();
    let web = deployment("web", MANY as i64);
    cluster.json(Method::POST, DEPLOYMENTS, Some(&web)).await?;
    let available = until_all(watch, 1, |event| is_complete(&event.object, MANY as i64));
    timeout(DEADLINE, available).await.context("not all are Ready in time")??;
    let took = few_times(vec![start.elapsed()]);
    report.add("fleet", "a Deployment of 10,000 pods to Ready, 200 nodes", took, "10,000 ms");
    let worked = cluster.process().processor_time()? - before;
    report.add("fleet", "processor time of the cluster for it", few_times(vec![worked]), "");
    // Nothing tells when the last write has had its consequences: only time does.
    sleep(SETTLING).await;
    let figure = share_when_idle(&cluster).await?;
    report.add("fleet", "of a core when idle, 10,000 pods, 200 leases renewed", figure, "2 %");
    // Nobody misses a kubelet for less than the grace that nodes have.
    drop(fleet);
    let figure = share_when_idle(&cluster).await?;
    report.add("fleet", "the same, and no lease renewed: the cluster's own share", figure, "");
    cluster.kill().await
}

async fn share_when_idle(cluster: &Cluster) -> Result<Figure> {
    let before = cluster.process().processor_time()?;
    sleep(IDLE).await;
    let worked = cluster.process().processor_time()? - before;
    let share = worked.as_secs_f64() / IDLE.as_secs_f64() * 100.0;
    Ok(Figure { median: format!("{share:.1} %"), p99: None })
}

/// A new template for each of 1,000 Deployments.
pub async fn rollouts(settings: &Settings, report: &mut Report) -> Result<()> {
    let cluster = Cluster::prepared(settings).await?;
    let _fleet = Fleet::start(&cluster, NODES).await?;
    let follow = async || cluster.watch(&format!("{DEPLOYMENTS}?watch=true")).await;
    let complete = |event: &Event| is_complete(&event.object, PODS_OF_EACH);
    let start = Instant::now();
    let ready = until_all(follow().await?, ROLLED, complete);
    let create = |number| deployment(&format!("web-{number}"), PODS_OF_EACH);
    let created = create_all(&cluster, DEPLOYMENTS, ROLLED, create);
    let (ready, created) = tokio::join!(timeout(DEADLINE, ready), created);
    created?;
    ready.context("not all are Ready in time")??;
    let took = few_times(vec![start.elapsed()]);
    report.add("rollouts", "1,000 Deployments of 2 pods created to Ready", took, "");
    let written = revision(&cluster).await?;
    let before = cluster.process().processor_time()?;
    let start = Instant::now();
    let rolled = until_all(follow().await?, ROLLED, |event| {
        event.object.metadata.generation > 1 && complete(event)
    });
    let image = json!({ "spec": { "template": { "metadata": { "annotations": { "v": "2" } } } } });
    let patched = send_all(&cluster, ROLLED, |number| {
        (Method::PATCH, format!("{DEPLOYMENTS}/web-{number}"), image.clone())
    });
    let (rolled, patched) = tokio::join!(timeout(DEADLINE, rolled), patched);
    patched?;
    rolled.context("not all are rolled in time")??;
    let took = few_times(vec![start.elapsed()]);
    report.add("rollouts", "1,000 Deployments of 2 pods rolled at once", took, "");
    let writes = (revision(&cluster).await? - written) as f64 / ROLLED as f64;
    let writes = Figure { median: format!("{writes:.1}"), p99: None };
    report.add("rollouts", "writes for each of them", writes, "");
    let worked = cluster.process().processor_time()? - before;
    report.add("rollouts", "processor time of the cluster for it", few_times(vec![worked]), "");
    cluster.kill().await
}

/// A namespace of 10,000 ConfigMaps goes.
pub async fn namespace(settings: &Settings, report: &mut Report) -> Result<()> {
    let cluster = Cluster::prepared(settings).await?;
    let space = json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": "large" } });
    cluster.json(Method::POST, "/api/v1/namespaces", Some(&space)).await?;
    let maps = "/api/v1/namespaces/large/configmaps";
    create_all(&cluster, maps, MANY, |number| {
        json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": format!("map-{number}") } })
    })
    .await?;
    let watch = cluster.watch("/api/v1/namespaces?watch=true").await?;
    let before = cluster.process().processor_time()?;
    let start = Instant::now();
    cluster.json(Method::DELETE, "/api/v1/namespaces/large", None).await?;
    let gone = until_all(watch, 1, |event| {
        event.event_type == "DELETED" && event.object.metadata.name == "large"
    });
    timeout(DEADLINE, gone).await.context("not gone in time")??;
    let took = few_times(vec![start.elapsed()]);
    report.add("namespace", "a namespace of 10,000 ConfigMaps deleted", took, "5,000 ms");
    let worked = cluster.process().processor_time()? - before;
    report.add("namespace", "processor time of the cluster for it", few_times(vec![worked]), "");
    cluster.kill().await
}

/// 10,000 CronJobs that are due in the same minute.
pub async fn cron_jobs(settings: &Settings, report: &mut Report) -> Result<()> {
    let cluster = Cluster::prepared(settings).await?;
    let _fleet = Fleet::start(&cluster, NODES).await?;
    // Far enough for all of them to be there before.
    let due = jiff::Timestamp::now().as_second() / 60 * 60 + 120;
    let due = jiff::Timestamp::from_second(due)?;
    let schedule = due.strftime("%-M %-H * * *").to_string();
    let create = |number| cron_job(&format!("tick-{number}"), &schedule);
    create_all(&cluster, CRON_JOBS, MANY, create).await?;
    let ahead = due.duration_since(jiff::Timestamp::now());
    if !ahead.is_positive() {
        bail!("the CronJobs took longer to be created than until they are due");
    }
    let mut watch = cluster.watch("/apis/batch/v1/namespaces/default/jobs?watch=true").await?;
    let mut names = HashSet::new();
    let mut late = Vec::new();
    let mut before = None;
    // A watch waits for a minute, and so far is it to the first one.
    sleep(ahead.unsigned_abs().saturating_sub(Duration::from_secs(1))).await;
    while names.len() < MANY {
        let event: Event = watch.next_as().await?;
        if before.is_none() {
            before = Some(cluster.process().processor_time()?);
        }
        if names.insert(event.object.metadata.name) {
            late.push(jiff::Timestamp::now().duration_since(due).unsigned_abs());
        }
    }
    let worked = cluster.process().processor_time()? - before.unwrap_or_default();
    let last = few_times(late.last().copied().into_iter().collect());
    report.add("cronjobs", "10,000 CronJobs due at once: Job made after its time", times(late), "");
    report.add("cronjobs", "the last one of them", last, "5,000 ms");
    report.add("cronjobs", "processor time of the cluster for it", few_times(vec![worked]), "");
    cluster.kill().await
}

/// Waits until this many objects have been seen as wanted, each at one time or another.
async fn until_all(mut watch: Watch, count: usize, holds: impl Fn(&Event) -> bool) -> Result<()> {
    let start = Instant::now();
    let mut seen = HashSet::new();
    let mut tenths = 0;
    while seen.len() < count {
        let event: Event = watch.next_as().await?;
        if holds(&event) && seen.insert(event.object.metadata.name) {
            // A line each tenth, so that a slow one shows where it is slow.
            if count > 1 && seen.len() * 10 / count > tenths {
                tenths = seen.len() * 10 / count;
                eprintln!("    {} ms: {}", start.elapsed().as_millis(), seen.len());
            }
        }
    }
    Ok(())
}

/// How many writes the store has seen.
async fn revision(cluster: &Cluster) -> Result<u64> {
    let listed = cluster.json(Method::GET, "/api/v1/namespaces?limit=1", None).await?;
    let revision = listed["metadata"]["resourceVersion"].as_str().context("no revision")?;
    Ok(revision.parse()?)
}

fn is_complete(deployment: &Object, replicas: i64) -> bool {
    let Object { metadata, status, .. } = deployment;
    status.observed_generation == metadata.generation
        && [status.replicas, status.updated_replicas, status.available_replicas] == [replicas; 3]
}

fn template(labels: &Value) -> Value {
    json!({
        "metadata": { "labels": labels },
        "spec": {
            "terminationGracePeriodSeconds": 1,
            "containers": [{
                "name": "main",
                "image": "registry.example.com/team/service:1.2.3",
                "resources": { "requests": { "cpu": "10m", "memory": "16Mi" } },
            }],
        },
    })
}

fn pod(name: &str) -> Value {
    let mut pod = template(&json!({ "app": "bench" }));
    pod["apiVersion"] = json!("v1");
    pod["kind"] = json!("Pod");
    pod["metadata"]["name"] = json!(name);
    pod
}

fn deployment(name: &str, replicas: i64) -> Value {
    let labels = json!({ "app": name });
    json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": { "name": name },
        "spec": { "replicas": replicas, "selector": { "matchLabels": labels }, "template": template(&labels) },
    })
}

fn cron_job(name: &str, schedule: &str) -> Value {
    let mut template = template(&json!({ "app": name }));
    template["spec"]["restartPolicy"] = json!("Never");
    json!({
        "apiVersion": "batch/v1",
        "kind": "CronJob",
        "metadata": { "name": name },
        "spec": { "schedule": schedule, "timeZone": "Etc/UTC", "jobTemplate": { "spec": { "template": template } } },
    })
}
