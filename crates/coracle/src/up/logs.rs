//! Follows the logs of the pods that come from what was applied.

use std::collections::HashSet;
use std::sync::Arc;

use anyhow::Result;
use coracle_reconcile::Tasks;
use futures::{AsyncBufReadExt, TryStreamExt};
use k8s_openapi::api::core::v1::Pod;
use kube::api::LogParams;
use kube::{Api, Client};
use parking_lot::Mutex;
use tracing::debug;

use super::apply::Applied;
use super::progress::World;

/// Logs followed at once. More would not be read by anybody, and each is a connection.
const FOLLOWED: usize = 100;

/// One run of one container.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Run {
    namespace: String,
    pod: String,
    uid: String,
    container: String,
    restarts: i32,
}

/// Prints every line, behind its pod's and container's name, until cancelled.
pub async fn follow(
    tasks: &Tasks,
    client: &Client,
    world: &World,
    applied: &[Applied],
) -> Result<()> {
    let following: Arc<Mutex<HashSet<Run>>> = Arc::default();
    let mut begun: HashSet<Run> = HashSet::new();
    loop {
        let changed = world.changed.notified();
        let pods = world.pods.list();
        let pods = pods.iter().filter(|pod| world.comes_from(pod, applied));
        let runs: HashSet<Run> = pods.flat_map(|pod| started(pod)).collect();
        begun.retain(|run| runs.contains(run));
        for run in runs {
            if begun.contains(&run) || following.lock().len() >= FOLLOWED {
                continue;
            }
            begun.insert(run.clone());
            following.lock().insert(run.clone());
            let following = Arc::clone(&following);
            let pods: Api<Pod> = Api::namespaced(client.clone(), &run.namespace);
            tasks.spawn("log", async move {
                if let Err(error) = print(&pods, &run).await {
                    debug!(%error, pod = run.pod, "log ended early");
                }
                following.lock().remove(&run);
            });
        }
        changed.await;
    }
}

/// The runs of a pod's containers that have a log.
fn started(pod: &Pod) -> Vec<Run> {
    let status = pod.status.iter();
    let containers = status.flat_map(|status| status.container_statuses.iter().flatten());
    let started = containers.filter(|container| {
        let state = container.state.as_ref();
        state.is_some_and(|state| state.running.is_some() || state.terminated.is_some())
    });
    started
        .map(|container| Run {
            namespace: pod.metadata.namespace.clone().unwrap_or_default(),
            pod: pod.metadata.name.clone().unwrap_or_default(),
            uid: pod.metadata.uid.clone().unwrap_or_default(),
            container: container.name.clone(),
            restarts: container.restart_count,
        })
        .collect()
}

async fn print(pods: &Api<Pod>, run: &Run) -> Result<()> {
    let params =
        LogParams { follow: true, container: Some(run.container.clone()), ..LogParams::default() };
    let mut lines = pods.log_stream(&run.pod, &params).await?.lines();
    while let Some(line) = lines.try_next().await? {
        println!("[{}/{}] {line}", run.pod, run.container);
    }
    Ok(())
}
