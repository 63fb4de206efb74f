//! Shows how what was applied becomes ready, and why it does not.

use std::collections::HashMap;
use std::io::IsTerminal;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use coracle_reconcile::{Mirror, ObjectKey, Tasks};
use indicatif::{ProgressBar, ProgressStyle};
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Client;
use tokio::sync::Notify;

use super::apply::Applied;

/// After this long we stop waiting for readiness, say what is missing, and follow the logs.
const DEADLINE: Duration = Duration::from_secs(120);

/// What runs, as far as progress and logs need to know.
pub struct World {
    pub deployments: Mirror<Deployment>,
    pub replica_sets: Mirror<ReplicaSet>,
    pub jobs: Mirror<Job>,
    pub pods: Mirror<Pod>,
    pub changed: Arc<Notify>,
}

impl World {
    /// Starts watching.
    pub fn open(tasks: &Tasks, client: &Client, _applied: &[Applied]) -> Self {
        let world = Self {
            deployments: Mirror::all(tasks, client),
            replica_sets: Mirror::all(tasks, client),
            jobs: Mirror::all(tasks, client),
            pods: Mirror::all(tasks, client),
            changed: Arc::new(Notify::new()),
        };
        let changed = Arc::clone(&world.changed);
        world.deployments.on_change(move |_| changed.notify_one());
        let changed = Arc::clone(&world.changed);
        world.replica_sets.on_change(move |_| changed.notify_one());
        let changed = Arc::clone(&world.changed);
        world.jobs.on_change(move |_| changed.notify_one());
        let changed = Arc::clone(&world.changed);
        world.pods.on_change(move |_| changed.notify_one());
        world
    }

    /// True when this pod was made, directly or not, by something that was applied.
    pub fn comes_from(&self, pod: &Pod, applied: &[Applied]) -> bool {
        let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
        let is_applied = |kind: &str, name: &str| {
            applied.iter().any(|object| {
                object.kind == kind && object.name == name && object.namespace == namespace
            })
        };
        let Some((kind, name)) = controller(&pod.metadata) else {
            return is_applied("Pod", pod.metadata.name.as_deref().unwrap_or_default());
        };
        if is_applied(kind, name) {
            return true;
        }
        let key = ObjectKey::new(namespace, name);
        let above = match kind {
            "ReplicaSet" => self.replica_sets.get(&key).map(|set| set.metadata.clone()),
            "Job" => self.jobs.get(&key).map(|job| job.metadata.clone()),
            _ => None,
        };
        above.as_ref().and_then(controller).is_some_and(|(kind, name)| is_applied(kind, name))
    }
}

fn controller(meta: &ObjectMeta) -> Option<(&str, &str)> {
    let owners = meta.owner_references.as_deref().unwrap_or_default();
    let owner = owners.iter().find(|owner| owner.controller == Some(true))?;
    Some((&owner.kind, &owner.name))
}

/// Waits until a kubelet renews its lease: it does so once the API says of its pods what is so, and not what was so
/// before the machine went down.
pub async fn until_node_lives(tasks: &Tasks, client: &Client, since: Timestamp) -> Result<()> {
    let leases: Mirror<Lease> = Mirror::all(tasks, client);
    let changed = Arc::new(Notify::new());
    let notify = Arc::clone(&changed);
    leases.on_change(move |_| notify.notify_one());
    let renewed = |lease: &Arc<Lease>| {
        let renewed_at = lease.spec.as_ref().and_then(|spec| spec.renew_time.as_ref());
        lease.metadata.namespace.as_deref() == Some("kube-node-lease")
            && renewed_at.is_some_and(|at| at.0 >= since)
    };
    let lives = async {
        while !leases.list().iter().any(renewed) {
            changed.notified().await;
        }
    };
    tokio::time::timeout(DEADLINE, lives).await.context("the node did not come up")
}

/// Waits until all that was applied is ready. What is not ready in time is named, and is no error.
pub async fn until_ready(world: &World, applied: &[Applied]) -> Result<()> {
    let waited: Vec<&Applied> = applied
        .iter()
        .filter(|object| {
            matches!(object.kind.as_str(), "Deployment" | "ReplicaSet" | "Job" | "Pod")
        })
        .collect();
    let bar = bar(waited.len());
    let mut said: HashMap<String, String> = HashMap::new();
    let all_ready = async {
        loop {
            let changed = world.changed.notified();
            let ready = waited.iter().filter(|object| is_ready(world, object)).count();
            bar.set_position(ready as u64);
            tell_troubles(world, applied, &bar, &mut said);
            if ready == waited.len() {
                return;
            }
            changed.await;
        }
    };
    let in_time = tokio::time::timeout(DEADLINE, all_ready).await;
    bar.finish_and_clear();
    if in_time.is_err() {
        for object in waited.iter().filter(|object| !is_ready(world, object)) {
            println!("{} is not ready after {} s", object.label, DEADLINE.as_secs());
        }
    } else if !waited.is_empty() {
        println!("ready");
    }
    Ok(())
}

fn bar(length: usize) -> ProgressBar {
    if !std::io::stdout().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{bar:30} {pos}/{len} ready")
        .expect("the template is well-formed");
    ProgressBar::new(length as u64).with_style(style)
}

/// Says once why a container waits, when it is for a reason that does not go away by waiting.
fn tell_troubles(
    world: &World,
    applied: &[Applied],
    bar: &ProgressBar,
    said: &mut HashMap<String, String>,
) {
    for pod in world.pods.list() {
        if !world.comes_from(&pod, applied) {
            continue;
        }
        let name = pod.metadata.name.clone().unwrap_or_default();
        let Some(trouble) = trouble(&pod) else { continue };
        if said.get(&name) != Some(&trouble) {
            bar.suspend(|| println!("pod/{name}: {trouble}"));
            said.insert(name, trouble);
        }
    }
}

fn trouble(pod: &Pod) -> Option<String> {
    let status = pod.status.as_ref()?;
    let unschedulable = status.conditions.iter().flatten().find(|condition| {
        condition.type_ == "PodScheduled" && condition.reason.as_deref() == Some("Unschedulable")
    });
    if let Some(condition) = unschedulable {
        return Some(condition.message.clone().unwrap_or_default());
    }
    let containers = status.container_statuses.iter().flatten();
    let mut waiting = containers.filter_map(|container| container.state.as_ref()?.waiting.as_ref());
    let waiting = waiting.find(|waiting| {
        let reason = waiting.reason.as_deref().unwrap_or_default();
        !matches!(reason, "ContainerCreating" | "PodInitializing")
    })?;
    let reason = waiting.reason.as_deref().unwrap_or_default();
    Some(format!("{reason}: {}", waiting.message.as_deref().unwrap_or_default()))
}

fn is_ready(world: &World, object: &Applied) -> bool {
    let key = ObjectKey::new(&object.namespace, &object.name);
    match object.kind.as_str() {
        "Deployment" => world.deployments.get(&key).is_some_and(|it| {
            // Its own status may be of before the machine went down: the pods know better.
            deployment_is_ready(&it) && ready_pods(world, object) >= it.spec.replicas.unwrap_or(1)
        }),
        "ReplicaSet" => world.replica_sets.get(&key).is_some_and(|it| {
            replica_set_is_ready(&it) && ready_pods(world, object) >= it.spec.replicas.unwrap_or(1)
        }),
        "Job" => world.jobs.get(&key).is_some_and(|it| job_has_ended(&it)),
        "Pod" => world.pods.get(&key).is_some_and(|it| pod_is_ready(&it)),
        _ => true,
    }
}

fn ready_pods(world: &World, object: &Applied) -> i32 {
    let pods = world.pods.list();
    let of_it = pods.iter().filter(|pod| world.comes_from(pod, std::slice::from_ref(object)));
    i32::try_from(of_it.filter(|pod| pod_is_ready(pod)).count()).unwrap_or(i32::MAX)
}

fn deployment_is_ready(deployment: &Deployment) -> bool {
    let wanted = deployment.spec.replicas.unwrap_or(1);
    let Some(status) = &deployment.status else { return false };
    status.observed_generation >= deployment.metadata.generation
        && status.updated_replicas.unwrap_or(0) >= wanted
        && status.available_replicas.unwrap_or(0) >= wanted
}

fn replica_set_is_ready(set: &ReplicaSet) -> bool {
    let wanted = set.spec.replicas.unwrap_or(1);
    let ready = set.status.as_ref().and_then(|status| status.ready_replicas).unwrap_or(0);
    ready >= wanted
}

fn job_has_ended(job: &Job) -> bool {
    let conditions = job.status.iter().flat_map(|status| status.conditions.iter().flatten());
    let mut ended = conditions.filter(|condition| {
        matches!(condition.type_.as_str(), "Complete" | "Failed" | "Suspended")
    });
    ended.any(|condition| condition.status == "True")
}

fn pod_is_ready(pod: &Pod) -> bool {
    let Some(status) = &pod.status else { return false };
    if matches!(status.phase.as_deref(), Some("Succeeded" | "Failed")) {
        return true;
    }
    let mut conditions = status.conditions.iter().flatten();
    conditions.any(|condition| condition.type_ == "Ready" && condition.status == "True")
}
