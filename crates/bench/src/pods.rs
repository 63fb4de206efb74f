//! `pod` and `deployment`: how long it takes until what was created is Ready.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use http::Method;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::Settings;
use crate::cluster::{Cluster, IMAGE, Watch, is_true};
use crate::idle::mebibytes;
use crate::report::{Report, few_times, times};

const PODS: &str = "/api/v1/namespaces/default/pods";
const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/default/deployments";

/// Pods that are not counted: the first one compiles the guest.
const WARM_UP: usize = 20;
/// Pods that are measured.
const MEASURED: usize = 200;
/// Pods of the Deployment.
const REPLICAS: i64 = 1_000;
/// Deployments that are measured, each in a new cluster.
const DEPLOYMENT_RUNS: usize = 3;
/// How long any of it may take.
const DEADLINE: Duration = Duration::from_secs(120);

/// What a watch says of a pod, and when it arrived.
struct Seen {
    name: String,
    bound: bool,
    ready: bool,
    at: Instant,
}

/// How long one pod took, from the moment its request was sent.
#[derive(Default)]
struct Steps {
    answered: Duration,
    bound: Duration,
    ready: Duration,
}

/// Creates pods, each when the one before is Ready.
pub async fn one_after_another(settings: &Settings, report: &mut Report) -> Result<()> {
    let cluster = Cluster::prepared(settings).await?;
    let (mut events, watching) = watch_pods(&cluster).await?;
    let mut all = Vec::new();
    let mut before = Duration::ZERO;
    for number in 0..WARM_UP + MEASURED {
        if number == WARM_UP {
            before = cluster.process().processor_time()?;
        }
        let steps = timeout(DEADLINE, create_one(&cluster, &mut events, number)).await;
        all.push(steps.with_context(|| format!("pod {number} is not Ready in time"))??);
    }
    let worked = (cluster.process().processor_time()? - before) / MEASURED as u32;
    watching.abort();
    cluster.kill().await?;
    let measured = &all[WARM_UP..];
    let column = |step: fn(&Steps) -> Duration| times(measured.iter().map(step).collect());
    report.add(
        "pod",
        "created to Ready, one after another",
        column(|pod| pod.ready),
        "10 ms, 50 ms",
    );
    report.add("pod", "of it until the create is answered", column(|pod| pod.answered), "");
    report.add("pod", "of it until the watch shows it bound", column(|pod| pod.bound), "");
    report.add("pod", "processor time of the cluster for one", few_times(vec![worked]), "");
    Ok(())
}

async fn create_one(
    cluster: &Cluster,
    events: &mut mpsc::UnboundedReceiver<Seen>,
    number: usize,
) -> Result<Steps> {
    let name = format!("pod-{number}");
    let mut pod = pod_template();
    pod["apiVersion"] = "v1".into();
    pod["kind"] = "Pod".into();
    pod["metadata"]["name"] = name.clone().into();
    let start = Instant::now();
    cluster.json(Method::POST, PODS, Some(&pod)).await?;
    let mut steps = Steps { answered: start.elapsed(), ..Steps::default() };
    while let Some(seen) = events.recv().await {
        if seen.name != name {
            continue;
        }
        let after = seen.at.duration_since(start);
        if seen.bound && steps.bound.is_zero() {
            steps.bound = after;
        }
        if seen.ready {
            steps.ready = after;
            return Ok(steps);
        }
    }
    bail!("the watch ended before {name} was Ready")
}

/// Follows the pods on a task of its own, so that the time of an event is when it came.
async fn watch_pods(cluster: &Cluster) -> Result<(mpsc::UnboundedReceiver<Seen>, JoinHandle<()>)> {
    let mut watch = cluster.watch(&format!("{PODS}?watch=true")).await?;
    // Unbounded is bounded by the number of pods that this benchmark makes.
    let (sender, receiver) = mpsc::unbounded_channel();
    let task = tokio::spawn(async move {
        while let Ok(event) = watch.next().await {
            let pod = &event["object"];
            let seen = Seen {
                name: pod["metadata"]["name"].as_str().unwrap_or_default().to_owned(),
                bound: pod["spec"]["nodeName"].is_string(),
                ready: is_true(pod, "Ready"),
                at: Instant::now(),
            };
            if sender.send(seen).is_err() {
                break;
            }
        }
    });
    Ok((receiver, task))
}

/// Creates a Deployment and waits until its status counts every pod as Ready.
pub async fn deployment(settings: &Settings, report: &mut Report) -> Result<()> {
    let mut durations = Vec::new();
    let mut worked = Vec::new();
    let mut resident = Vec::new();
    for _ in 0..DEPLOYMENT_RUNS {
        let cluster = Cluster::prepared(settings).await?;
        // The guest is compiled once, before: this measures pods, not the compiler.
        timeout(DEADLINE, roll_out(&cluster, "warm-up", 1)).await.context("no first pod")??;
        let before = cluster.process().processor_time()?;
        let duration = timeout(DEADLINE, roll_out(&cluster, "bench", REPLICAS)).await;
        durations.push(duration.context("not all are Ready in time")??);
        worked.push(cluster.process().processor_time()? - before);
        resident.push(cluster.process().memory_bytes("VmRSS")?);
        cluster.kill().await?;
    }
    report.add("deployment", "1,000 pods created to all Ready", few_times(durations), "2000 ms");
    report.add("deployment", "processor time of the cluster for it", few_times(worked), "");
    report.add("deployment", "resident memory then", mebibytes(resident), "");
    Ok(())
}

async fn roll_out(cluster: &Cluster, name: &str, replicas: i64) -> Result<Duration> {
    let query = format!("?watch=true&fieldSelector=metadata.name%3D{name}");
    let mut watch = cluster.watch(&format!("{DEPLOYMENTS}{query}")).await?;
    let mut template = pod_template();
    template["metadata"]["labels"] = json!({ "app": name });
    let deployment = json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": { "name": name },
        "spec": {
            "replicas": replicas,
            "selector": { "matchLabels": { "app": name } },
            "template": template,
        },
    });
    let start = Instant::now();
    cluster.json(Method::POST, DEPLOYMENTS, Some(&deployment)).await?;
    until_ready(&mut watch, replicas, start).await?;
    Ok(start.elapsed())
}

async fn until_ready(watch: &mut Watch, replicas: i64, start: Instant) -> Result<()> {
    let mut shown = HashMap::new();
    loop {
        let event = watch.next().await?;
        let status = &event["object"]["status"];
        let count = |name: &str| status[name].as_i64().unwrap_or_default();
        let counts = (count("replicas"), count("readyReplicas"));
        // A line each tenth, so that a slow one shows where it is slow.
        if replicas > 1 && shown.insert(counts.1 * 10 / replicas, ()).is_none() {
            let elapsed = start.elapsed().as_millis();
            eprintln!("    {elapsed} ms: {} pods, {} Ready", counts.0, counts.1);
        }
        if counts == (replicas, replicas) {
            return Ok(());
        }
    }
}

/// A pod of the guest, without a name.
pub fn pod_template() -> Value {
    json!({
        "metadata": {},
        "spec": {
            "terminationGracePeriodSeconds": 1,
            "containers": [{
                "name": "guest",
                "image": IMAGE,
                "imagePullPolicy": "IfNotPresent",
                "ports": [{ "name": "http", "containerPort": 8080 }],
            }],
        },
    })
}
