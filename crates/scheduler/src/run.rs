//! The thin part: changes in from the mirrors, decisions out to the API.

use std::collections::HashMap;
use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use coracle_reconcile::{Change, Election, Mirror, NotSynced, ObjectKey, Recorder, Tasks};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Namespace, Node, PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::api::storage::v1::StorageClass;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use kube::{Api, Client, ResourceExt};
use parking_lot::Mutex;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use crate::cluster::{Act, Cluster, Decision};
use crate::owners::{
    ReplicaSetSelector, ReplicationControllerSelector, SelectsPods, ServiceSelector,
    StatefulSetSelector,
};
use crate::place::Misfit;
use crate::pod::{PREEMPTED, Pod};
use crate::profile::Profile;
use crate::queue::BACKOFF;
use crate::volumes::SELECTED_NODE;

/// An API call that takes longer has failed.
const CALL_DEADLINE: Duration = Duration::from_secs(10);

/// How the scheduler behaves.
#[derive(Debug, Clone)]
pub struct Options {
    /// How pods are placed, by the scheduler that they name; the pods that name another are left alone.
    pub profiles: Vec<Profile>,
    /// How long a pod waits after its first failed attempt, and how long at most.
    pub backoff: (Duration, Duration),
    /// Under which name this copy asks for leadership: no other copy's, and the same after a restart if that is known.
    pub identity: String,
    /// API calls at once: enough to share the store's transactions, few enough to leave room for others.
    pub calls: usize,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            profiles: vec![Profile::default()],
            backoff: BACKOFF,
            identity: uuid::Uuid::new_v4().to_string(),
            calls: 64,
        }
    }
}

/// Why the scheduler ended before it was told to.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The API server did not answer the first lists in time.
    #[error("the scheduler cannot start")]
    NotSynced(#[from] NotSynced),
}

/// Schedules pods while this copy is the leader, until `shutdown`, and then awaits what it began.
///
/// # Errors
/// When the API server does not answer the first lists in time.
pub async fn run(
    client: Client,
    options: Options,
    shutdown: CancellationToken,
) -> Result<(), Error> {
    let election = Election::new(client.clone(), "kube-scheduler", &*options.identity);
    election.run(shutdown, |term| lead(client.clone(), options.clone(), term)).await
}

/// Schedules pods until `term` is over.
async fn lead(client: Client, options: Options, term: CancellationToken) -> Result<(), Error> {
    let tasks = Tasks::new(term);
    let nodes = Mirror::<Node>::all(&tasks, &client);
    let pods = Mirror::<Pod>::all(&tasks, &client);
    let budgets = Mirror::<PodDisruptionBudget>::all(&tasks, &client);
    let namespaces = Mirror::<Namespace>::all(&tasks, &client);
    let storage = Storage {
        claims: Mirror::all(&tasks, &client),
        volumes: Mirror::all(&tasks, &client),
        classes: Mirror::all(&tasks, &client),
    };
    let owners = Selecting {
        services: Mirror::all(&tasks, &client),
        replication_controllers: Mirror::all(&tasks, &client),
        replica_sets: Mirror::all(&tasks, &client),
        stateful_sets: Mirror::all(&tasks, &client),
    };
    let synced = async {
        nodes.synced().await?;
        pods.synced().await?;
        budgets.synced().await?;
        namespaces.synced().await?;
        storage.synced().await?;
        owners.synced().await
    };
    match tasks.until_stopped(synced).await {
        Ok(Some(())) => (),
        Ok(None) => {
            tasks.finished().await;
            return Ok(());
        }
        Err(error) => {
            tasks.shutdown().await;
            return Err(error.into());
        }
    }
    let recorders = options.profiles.iter().map(|profile| {
        let name = &profile.scheduler_name;
        (name.clone(), Recorder::new(&tasks, client.clone(), name, None))
    });
    let scheduler = Arc::new(Scheduler {
        recorders: recorders.collect(),
        client,
        pods: pods.clone(),
        cluster: Mutex::new(Cluster::new(options.profiles).backing_off(options.backoff)),
        changed: Notify::new(),
    });
    scheduler.follow_owners(&owners);
    scheduler.follow_budgets(&budgets);
    scheduler.follow_namespaces(&namespaces);
    scheduler.follow_storage(&storage);
    scheduler.follow(&nodes, &pods);
    let token = tasks.token().clone();
    tasks.spawn_to_end("schedule", scheduler.schedule(options.calls, token));
    tasks.finished().await;
    Ok(())
}

/// What is known of volumes.
struct Storage {
    claims: Mirror<PersistentVolumeClaim>,
    volumes: Mirror<PersistentVolume>,
    classes: Mirror<StorageClass>,
}

impl Storage {
    async fn synced(&self) -> Result<(), NotSynced> {
        self.claims.synced().await?;
        self.volumes.synced().await?;
        self.classes.synced().await
    }
}

/// Who selects pods.
struct Selecting {
    services: Mirror<ServiceSelector>,
    replication_controllers: Mirror<ReplicationControllerSelector>,
    replica_sets: Mirror<ReplicaSetSelector>,
    stateful_sets: Mirror<StatefulSetSelector>,
}

impl Selecting {
    async fn synced(&self) -> Result<(), NotSynced> {
        self.services.synced().await?;
        self.replication_controllers.synced().await?;
        self.replica_sets.synced().await?;
        self.stateful_sets.synced().await
    }
}

struct Scheduler {
    client: Client,
    /// By scheduler name, who writes Events.
    recorders: HashMap<String, Recorder>,
    pods: Mirror<Pod>,
    cluster: Mutex<Cluster>,
    changed: Notify,
}

impl Scheduler {
    fn follow(self: &Arc<Self>, nodes: &Mirror<Node>, pods: &Mirror<Pod>) {
        // Nodes first, so that no pod is called unschedulable for want of nodes that are just not read yet.
        let this = self.clone();
        nodes.on_change(move |change| {
            this.tell(|cluster| match change {
                Change::Applied { new, .. } => cluster.node_applied(new),
                Change::Deleted(last) => cluster.node_deleted(&last.name_any()),
            });
        });
        let this = self.clone();
        pods.on_change(move |change| {
            this.tell(|cluster| match change {
                Change::Applied { old, new } => {
                    // One name, another pod: the watch was away while the old one was deleted.
                    if let Some(old) =
                        old.as_ref().filter(|old| old.metadata.uid != new.metadata.uid)
                    {
                        cluster.pod_deleted(old);
                    }
                    cluster.pod_applied(new);
                }
                Change::Deleted(last) => cluster.pod_deleted(last),
            });
        });
    }

    fn follow_budgets(self: &Arc<Self>, budgets: &Mirror<PodDisruptionBudget>) {
        let this = self.clone();
        budgets.on_change(move |change| {
            this.tell(|cluster| match change {
                Change::Applied { new, .. } => cluster.budget_applied(new),
                Change::Deleted(last) => {
                    let key = ObjectKey::of(&**last);
                    cluster.budget_deleted(&key.namespace, &key.name);
                }
            });
        });
    }

    fn follow_namespaces(self: &Arc<Self>, namespaces: &Mirror<Namespace>) {
        let this = self.clone();
        namespaces.on_change(move |change| {
            let name = change.object().name_any();
            this.tell(|cluster| match change {
                Change::Applied { new, .. } => {
                    cluster.namespace_applied(&name, new.labels().clone());
                }
                Change::Deleted(_) => cluster.namespace_deleted(&name),
            });
        });
    }

    fn follow_storage(self: &Arc<Self>, storage: &Storage) {
        let this = self.clone();
        storage.claims.on_change(move |change| {
            let key = ObjectKey::of(&**change.object());
            this.tell(|cluster| match change {
                Change::Applied { new, .. } => {
                    cluster.volumes_changed(|volumes| volumes.claim_applied(new));
                }
                Change::Deleted(_) => cluster.volumes_changed(|volumes| {
                    volumes.claim_deleted(&key.namespace, &key.name);
                    false
                }),
            });
        });
        let this = self.clone();
        storage.volumes.on_change(move |change| {
            this.tell(|cluster| match change {
                Change::Applied { new, .. } => {
                    cluster.volumes_changed(|volumes| volumes.volume_applied(new));
                }
                Change::Deleted(last) => cluster.volumes_changed(|volumes| {
                    volumes.volume_deleted(&last.name_any());
                    false
                }),
            });
        });
        let this = self.clone();
        storage.classes.on_change(move |change| {
            this.tell(|cluster| match change {
                Change::Applied { new, .. } => {
                    cluster.volumes_changed(|volumes| volumes.class_applied(new));
                }
                Change::Deleted(last) => cluster.volumes_changed(|volumes| {
                    volumes.class_deleted(&last.name_any());
                    false
                }),
            });
        });
    }

    fn follow_owners(self: &Arc<Self>, owners: &Selecting) {
        let this = self.clone();
        owners.services.on_change(move |change| {
            let key = ObjectKey::of(&**change.object());
            this.cluster.lock().owners_changed(|owners| match change {
                Change::Applied { new, .. } => owners.service_applied(new),
                Change::Deleted(_) => owners.service_deleted(&key.namespace, &key.name),
            });
        });
        self.follow_controllers(&owners.replication_controllers);
        self.follow_controllers(&owners.replica_sets);
        self.follow_controllers(&owners.stateful_sets);
    }

    fn follow_controllers<T>(self: &Arc<Self>, controllers: &Mirror<T>)
    where
        T: SelectsPods + kube::Resource + Clone + DeserializeOwned + Debug + Send + Sync + 'static,
    {
        let this = self.clone();
        controllers.on_change(move |change| {
            let key = ObjectKey::of(&**change.object());
            this.cluster.lock().owners_changed(|owners| match change {
                Change::Applied { new, .. } => owners.controller_applied(&**new),
                Change::Deleted(_) => {
                    owners.controller_deleted(T::KIND, &key.namespace, &key.name);
                }
            });
        });
    }

    /// Tells about a pod what its scheduler did; upstream's recorders bear the names of the profiles.
    fn note(&self, by: &str, write: impl FnOnce(&Recorder)) {
        if let Some(recorder) = self.recorders.get(by) {
            write(recorder);
        }
    }

    fn tell(&self, change: impl FnOnce(&mut Cluster)) {
        change(&mut self.cluster.lock());
        self.changed.notify_one();
    }

    /// Decides one pod after the other; the API calls go on meanwhile.
    async fn schedule(self: Arc<Self>, most_calls: usize, token: CancellationToken) {
        let mut calls = JoinSet::new();
        while !token.is_cancelled() {
            if calls.len() >= most_calls {
                note_end(calls.join_next().await);
                continue;
            }
            let (decision, deadline) = {
                let mut cluster = self.cluster.lock();
                (cluster.next(Instant::now()), cluster.deadline())
            };
            if let Some(decision) = decision {
                calls.spawn(self.clone().act(decision));
                tokio::task::consume_budget().await;
                continue;
            }
            tokio::select! {
                () = token.cancelled() => (),
                () = self.changed.notified() => (),
                () = until(deadline) => (),
                Some(ended) = calls.join_next() => note_end(Some(ended)),
            }
        }
        // Each call has its deadline.
        while let Some(ended) = calls.join_next().await {
            note_end(Some(ended));
        }
    }

    async fn act(self: Arc<Self>, decision: Decision) {
        let Decision { uid, pod, act, nominated, undecided } = decision;
        let nominated = nominated.as_deref();
        match act {
            Act::Bind(node) => {
                if self.select_node(&uid, &pod, &undecided, &node).await {
                    self.bind(&uid, &pod, &node).await;
                }
            }
            Act::ReportMisfit(misfit) => self.report_misfit(&pod, &misfit, nominated).await,
            Act::Preempt(misfit, victims) => {
                self.report_misfit(&pod, &misfit, nominated).await;
                for victim in victims {
                    self.evict(&victim, &pod, &uid, nominated.unwrap_or_default()).await;
                }
            }
            Act::ReportGates => {
                let message = "Scheduling is blocked due to non-empty scheduling gates";
                self.report(&pod, "SchedulingGated", message, None).await;
            }
        }
    }

    async fn report_misfit(&self, pod: &Pod, misfit: &Misfit, nominated: Option<&str>) {
        let message = misfit.to_string();
        info!(pod = %ObjectKey::of(pod), message, nominated, "no node takes the pod");
        self.note(pod.scheduler_name(), |recorder| {
            recorder.warning(pod, "FailedScheduling", &message);
        });
        self.report(pod, "Unschedulable", &message, nominated).await;
    }

    /// Marks a pod as preempted and deletes it, for the pod of this uid to take its place.
    async fn evict(&self, victim: &Pod, preemptor: &Pod, uid: &str, node: &str) {
        let key = ObjectKey::of(victim);
        let by = preemptor.scheduler_name();
        match tokio::time::timeout(CALL_DEADLINE, self.delete_victim(victim, by)).await {
            Ok(Ok(())) => {
                info!(pod = %key, node, preemptor = uid, "pod preempted");
                let message = format!("Preempted by pod {uid} on node {node}");
                return self.note(by, |recorder| recorder.normal(victim, "Preempted", message));
            }
            // It is gone already, or another pod has taken its name.
            Ok(Err(kube::Error::Api(status))) if matches!(status.code, 404 | 409) => return,
            Ok(Err(error)) => warn!(pod = %key, %error, "pod not preempted"),
            Err(_) => warn!(pod = %key, "pod not preempted in time"),
        }
        let victim = victim.metadata.uid.as_deref().unwrap_or_default();
        self.tell(|cluster| cluster.eviction_failed(victim, uid, Instant::now()));
    }

    async fn delete_victim(&self, victim: &Pod, by: &str) -> Result<(), kube::Error> {
        let key = ObjectKey::of(victim);
        let condition = json!({
            "type": "DisruptionTarget",
            "status": "True",
            "reason": PREEMPTED,
            "message": format!("{by}: preempting to accommodate a higher priority pod"),
            "lastTransitionTime": now(),
            "observedGeneration": victim.metadata.generation,
        });
        let uid = &victim.metadata.uid;
        let patch = json!({"metadata": {"uid": uid}, "status": {"conditions": [condition]}});
        let api: Api<Pod> = Api::namespaced(self.client.clone(), &key.namespace);
        api.patch_status(&key.name, &PatchParams::default(), &Patch::Strategic(patch)).await?;
        let this_pod = Preconditions { uid: uid.clone(), resource_version: None };
        api.delete(&key.name, &DeleteParams::default().preconditions(this_pod)).await?;
        Ok(())
    }

    /// Tells claims that wait for their first consumer where that goes; if that fails, the pod is tried again later.
    async fn select_node(&self, uid: &str, pod: &Pod, claims: &[String], node: &str) -> bool {
        let namespace = &pod.claim.namespace;
        let api: Api<PersistentVolumeClaim> = Api::namespaced(self.client.clone(), namespace);
        for claim in claims {
            let patch = json!({"metadata": {"annotations": {SELECTED_NODE: node}}});
            let (params, patch) = (PatchParams::default(), Patch::Merge(patch));
            let call = api.patch(claim, &params, &patch);
            let failure = match tokio::time::timeout(CALL_DEADLINE, call).await {
                Ok(Ok(_)) => continue,
                Ok(Err(error)) => error.to_string(),
                Err(_) => "the API server did not answer in time".to_owned(),
            };
            warn!(pod = %ObjectKey::of(pod), claim, node, error = failure, "claim not told its node");
            let message = format!("running PreBind plugin \"VolumeBinding\": {failure}");
            self.note(pod.scheduler_name(), |recorder| {
                recorder.warning(pod, "FailedScheduling", message);
            });
            self.tell(|cluster| cluster.bind_failed(uid, Instant::now()));
            return false;
        }
        true
    }

    async fn bind(&self, uid: &str, pod: &Pod, node: &str) {
        let key = ObjectKey::of(pod);
        let binding = json!({
            "apiVersion": "v1",
            "kind": "Binding",
            // With the uid, a pod that took the name meanwhile is left alone.
            "metadata": {"namespace": key.namespace, "name": key.name, "uid": uid},
            "target": {"apiVersion": "v1", "kind": "Node", "name": node},
        });
        let api: Api<Pod> = Api::namespaced(self.client.clone(), &key.namespace);
        let params = PostParams::default();
        let call = api.create_subresource::<Value, Value>("binding", &key.name, &params, &binding);
        let failure = match tokio::time::timeout(CALL_DEADLINE, call).await {
            Ok(Ok(_)) => {
                info!(pod = %key, node, "pod bound");
                let message = format!("Successfully assigned {key} to {node}");
                return self.note(pod.scheduler_name(), |recorder| {
                    recorder.normal(pod, "Scheduled", message);
                });
            }
            // It is deleted; the watch tells the rest.
            Ok(Err(kube::Error::Api(status))) if status.code == 404 => {
                debug!(pod = %key, "pod gone before it was bound");
                None
            }
            Ok(Err(kube::Error::Api(status))) => Some(status.message.clone()),
            Ok(Err(error)) => Some(error.to_string()),
            Err(_) => Some("the API server did not answer in time".to_owned()),
        };
        if let Some(failure) = failure {
            warn!(pod = %key, node, error = failure, "pod not bound");
            let message =
                format!("binding rejected: running Bind plugin \"DefaultBinder\": {failure}");
            self.note(pod.scheduler_name(), |recorder| {
                recorder.warning(pod, "FailedScheduling", message);
            });
        }
        self.tell(|cluster| cluster.bind_failed(uid, Instant::now()));
    }

    /// Writes why the pod has no node, and which is kept for it, into its status, unless it says so already.
    async fn report(&self, pod: &Pod, reason: &str, message: &str, nominated: Option<&str>) {
        let known = pod.unscheduled.as_deref();
        let is_renominated = pod.nominated.as_deref() != nominated;
        if !is_renominated
            && known.is_some_and(|known| {
                known.reason.as_deref() == Some(reason) && known.message.as_deref() == Some(message)
            })
        {
            return;
        }
        let since = known.and_then(|known| known.last_transition_time.clone());
        let condition = json!({
            "type": "PodScheduled",
            "status": "False",
            "reason": reason,
            "message": message,
            "lastTransitionTime": since.map_or_else(now, |since| json!(since)),
            "observedGeneration": pod.metadata.generation,
        });
        let uid = &pod.metadata.uid;
        let mut patch = json!({"metadata": {"uid": uid}, "status": {"conditions": [condition]}});
        if is_renominated {
            patch["status"]["nominatedNodeName"] = json!(nominated);
        }
        let key = ObjectKey::of(pod);
        let api: Api<Pod> = Api::namespaced(self.client.clone(), &key.namespace);
        let (params, patch) = (PatchParams::default(), Patch::Strategic(patch));
        let call = api.patch_status(&key.name, &params, &patch);
        match tokio::time::timeout(CALL_DEADLINE, call).await {
            Ok(Ok(pod)) => self.pods.observe(pod),
            // It is deleted, or another pod has taken its name.
            Ok(Err(kube::Error::Api(status))) if matches!(status.code, 404 | 409) => (),
            Ok(Err(error)) => warn!(pod = %key, %error, "the pod's condition is not written"),
            Err(_) => warn!(pod = %key, "the pod's condition is not written in time"),
        }
    }
}

/// The present second, as the API writes times.
fn now() -> Value {
    json!(Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string())
}

async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

/// A call that panicked is a bug of ours; the other pods go on.
fn note_end(ended: Option<Result<(), tokio::task::JoinError>>) {
    if let Some(Err(error)) = ended {
        warn!(%error, "a scheduling call broke off");
    }
}
