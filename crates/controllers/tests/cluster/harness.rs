//! A control plane in this process: the real API on a real store, the controllers, and a node that does as it is told.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use coracle_apiserver::identity::User;
use coracle_apiserver::pki::{Pki, Sans};
use coracle_apiserver::{ApiServer, Cidr, Config, store_options};
use coracle_controllers::{Options, SigningCa};
use coracle_reconcile::{Change, Mirror, Next, ObjectKey, Queue, Tasks};
use coracle_store::Store;
use k8s_openapi::api::core::v1::{Event, Pod};
use kube::api::{
    ApiResource, DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams,
};
use kube::core::GroupVersionKind;
use kube::{Api, Client};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

use crate::faults::faulty;

/// How long anything may take before a test gives up on it.
const DEADLINE: Duration = Duration::from_secs(60);

/// A running control plane.
pub struct Cluster {
    pub client: Client,
    pub server: Arc<ApiServer>,
    node: Tasks,
    controllers: Controllers,
    manager: Client,
    options: Options,
    store: Store,
    /// How many seconds the controllers' clock is ahead.
    ahead: Arc<AtomicI64>,
    _folder: TempDir,
}

struct Controllers {
    stop: CancellationToken,
    task: tokio::task::JoinHandle<Result<(), coracle_controllers::Error>>,
}

/// A second copy of the controllers.
pub struct Copy(Controllers);

impl Copy {
    pub async fn end(self) {
        self.0.end().await;
    }
}

impl Controllers {
    fn start(client: &Client, options: &Options) -> Self {
        let stop = CancellationToken::new();
        let run = coracle_controllers::run(client.clone(), options.clone(), stop.clone());
        Self { stop, task: tokio::spawn(run) }
    }

    async fn end(self) {
        self.stop.cancel();
        self.task.await.unwrap().unwrap();
    }
}

impl Cluster {
    pub async fn start() -> Self {
        Self::start_with(|client| client).await
    }

    /// The same, and the controllers' connection to the API is bad.
    pub async fn start_over_a_bad_connection(seed: u64) -> Self {
        Self::start_with(|client| faulty(client, seed)).await
    }

    async fn start_with(connection: impl FnOnce(Client) -> Client) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(store_options(folder.path().join("state.db"))).await.unwrap();
        let loopback = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let sans = Sans { names: Vec::new(), addresses: vec![loopback] };
        let pki = Arc::new(Pki::open_or_create(&folder.path().join("pki"), &sans).unwrap());
        let config = Config {
            store: store.clone(),
            pki: Arc::clone(&pki),
            advertise: SocketAddr::new(loopback, 6443),
            service_cidr: Cidr::new(Ipv4Addr::new(127, 201, 0, 0), 16),
        };
        let api = ApiServer::start(config).await.unwrap();
        let manager = connection(api.client(User::controller_manager()));
        let ca = SigningCa::new(pki.ca_pem(), &pki.ca_key_pem()).unwrap();
        let ahead = Arc::new(AtomicI64::new(0));
        let offset = Arc::clone(&ahead);
        let clock = move || {
            jiff::Timestamp::now() + jiff::SignedDuration::from_secs(offset.load(Ordering::SeqCst))
        };
        let mut options =
            Options::new(pki.ca_pem()).signing_with(ca).identified_as("first".to_owned());
        options.clock = Arc::new(clock);
        let controllers = Controllers::start(&manager, &options);
        let client = api.client(User::admin());
        let node = Tasks::new(CancellationToken::new());
        obey(&node, &client);
        Self {
            client,
            server: api,
            node,
            controllers,
            manager,
            options,
            store,
            ahead,
            _folder: folder,
        }
    }

    /// The controllers' clock goes forward. What waits for a time has to be touched to be looked at before.
    pub fn advance(&self, seconds: i64) {
        self.ahead.fetch_add(seconds, Ordering::SeqCst);
    }

    /// Ends the controllers in the middle of what they do, and starts them anew.
    pub async fn restart_controllers(&mut self) {
        self.end_controllers().await;
        self.start_controllers();
    }

    /// Ends the controllers in the middle of what they do. They give their lease back.
    pub async fn end_controllers(&mut self) {
        self.controllers.stop.cancel();
        (&mut self.controllers.task).await.unwrap().unwrap();
    }

    /// The controllers die without a word, as in a crash.
    pub async fn kill_controllers(&mut self) {
        self.controllers.task.abort();
        assert!((&mut self.controllers.task).await.unwrap_err().is_cancelled());
        // What the task had begun belongs to its term, which nobody would end any more.
        self.controllers.stop.cancel();
    }

    /// Starts the controllers again, under the name that they had.
    pub fn start_controllers(&mut self) {
        self.controllers = Controllers::start(&self.manager, &self.options);
    }

    /// One more copy of the controllers, which asks for leadership under this name.
    pub fn another_copy(&self, identity: &str) -> Copy {
        let options = self.options.clone().identified_as(identity.to_owned());
        Copy(Controllers::start(&self.manager, &options))
    }

    /// Ends everything; nothing may be left.
    pub async fn stop(self) {
        self.controllers.end().await;
        self.node.shutdown().await;
        self.store.close().await;
    }

    /// How many writes the store has seen.
    pub fn writes(&self) -> u64 {
        self.store.revision().to_string().parse().unwrap()
    }

    pub fn api(&self, kind: &str) -> Api<DynamicObject> {
        let (group, version, name) = match kind {
            "Deployment" | "ReplicaSet" | "StatefulSet" | "DaemonSet" | "ControllerRevision" => {
                ("apps", "v1", kind)
            }
            "Lease" => ("coordination.k8s.io", "v1", kind),
            "Job" | "CronJob" => ("batch", "v1", kind),
            "StorageClass" => ("storage.k8s.io", "v1", kind),
            "HorizontalPodAutoscaler" => ("autoscaling", "v2", kind),
            _ => ("", "v1", kind),
        };
        let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, name));
        match kind {
            "Namespace" | "Node" | "PersistentVolume" | "StorageClass" => {
                Api::all_with(self.client.clone(), &resource)
            }
            "Lease" => Api::namespaced_with(self.client.clone(), "kube-system", &resource),
            _ => Api::namespaced_with(self.client.clone(), "default", &resource),
        }
    }

    pub async fn create(&self, object: Value) -> DynamicObject {
        let object: DynamicObject = serde_json::from_value(object).unwrap();
        let kind = object.types.clone().unwrap().kind;
        self.api(&kind).create(&PostParams::default(), &object).await.unwrap()
    }

    pub async fn patch(&self, kind: &str, name: &str, patch: Value) {
        self.api(kind).patch(name, &PatchParams::default(), &Patch::Merge(patch)).await.unwrap();
    }

    /// Writes the status as who runs the object would.
    pub async fn patch_status(&self, kind: &str, name: &str, patch: Value) {
        let params = PatchParams::default();
        self.api(kind).patch_status(name, &params, &Patch::Merge(patch)).await.unwrap();
    }

    pub async fn delete(&self, kind: &str, name: &str, params: DeleteParams) {
        self.api(kind).delete(name, &params).await.unwrap();
    }

    /// One object as JSON; null if it is not there.
    pub async fn get(&self, kind: &str, name: &str) -> Value {
        let found = self.api(kind).get_opt(name).await.unwrap();
        found.map_or(Value::Null, |found| serde_json::to_value(found).unwrap())
    }

    /// Every object of a kind in the namespace `default`.
    pub async fn list(&self, kind: &str) -> Vec<Value> {
        let found = self.api(kind).list(&ListParams::default()).await.unwrap();
        found.items.into_iter().map(|object| serde_json::to_value(object).unwrap()).collect()
    }

    /// The messages of an object's Events with this reason.
    pub async fn events(&self, object: &str, reason: &str) -> Vec<String> {
        let events: Api<Event> = Api::namespaced(self.client.clone(), "default");
        let all = events.list(&ListParams::default()).await.unwrap().items;
        let about = |event: &Event| {
            event.involved_object.name.as_deref() == Some(object)
                && event.reason.as_deref() == Some(reason)
        };
        all.into_iter().filter(about).map(|event| event.message.unwrap_or_default()).collect()
    }

    /// Waits until `condition` holds.
    pub async fn until<F: Future<Output = bool>>(&self, what: &str, condition: impl Fn() -> F) {
        let wait = async {
            while !condition().await {
                // The conditions are many and of all kinds; looking again costs microseconds here.
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        assert!(tokio::time::timeout(DEADLINE, wait).await.is_ok(), "not in time: {what}");
    }

    pub async fn until_field(&self, kind: &str, name: &str, pointer: &str, expected: Value) {
        let last = std::sync::Mutex::new(Value::Null);
        let wait = async {
            loop {
                let object = self.get(kind, name).await;
                let found = object.pointer(pointer).cloned().unwrap_or_default();
                if found == expected {
                    return;
                }
                *last.lock().unwrap() = object;
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let outcome = tokio::time::timeout(DEADLINE, wait).await;
        assert!(
            outcome.is_ok(),
            "{kind} {name}: {pointer} is not {expected}: {:#}",
            last.lock().unwrap()
        );
    }

    pub async fn until_gone(&self, kind: &str, name: &str) {
        self.until(&format!("{kind} {name} is gone"), || async {
            self.get(kind, name).await.is_null()
        })
        .await;
    }
}

/// A node in a few lines: a pod that is there runs and is ready, a Job's succeeds; one that is going is gone.
fn obey(tasks: &Tasks, client: &Client) {
    let pods: Mirror<Pod> = Mirror::all(tasks, client);
    let queue = Queue::new();
    let changed = queue.clone();
    pods.on_change(move |change| {
        if let Change::Applied { new, .. } = change {
            changed.add(ObjectKey::of(new.as_ref()));
        }
    });
    let client = client.clone();
    queue.run(tasks, "node", 64, move |key| {
        let (client, pods) = (client.clone(), pods.clone());
        async move {
            let Some(pod) = pods.get(&key) else { return Ok(Next::AwaitChange) };
            let api: Api<Pod> = Api::namespaced(client, &key.namespace);
            let phase =
                pod.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or_default();
            let outcome = if pod.metadata.deletion_timestamp.is_some() {
                api.delete(&key.name, &DeleteParams::default().grace_period(0)).await.map(|_| ())
            } else if phase.is_empty() || phase == "Pending" {
                let status = json!({ "status": first_status(&pod) });
                api.patch_status(&key.name, &PatchParams::default(), &Patch::Merge(status))
                    .await
                    .map(|_| ())
            } else {
                Ok(())
            };
            match outcome {
                Err(kube::Error::Api(status)) if status.code == 404 => Ok(Next::AwaitChange),
                outcome => outcome.map(|()| Next::AwaitChange),
            }
        }
    });
}

/// What becomes of a pod at once. One of a Job succeeds, unless its annotation `becomes` says `Running`, or names the exit
/// code with which it fails: `3`, or `3 at 1` for the one at index 1.
fn first_status(pod: &Pod) -> Value {
    let meta =
        |name: &str| pod.metadata.annotations.as_ref().and_then(|all| all.get(name)).cloned();
    let is_of_a_job = pod.metadata.labels.iter().flatten().any(|(name, _)| name == "job-name");
    let becomes = meta("becomes").unwrap_or_default();
    let index = meta("batch.kubernetes.io/job-completion-index").unwrap_or_default();
    let (code, at) = becomes.split_once(" at ").unwrap_or((&becomes, &index));
    let code = code.parse().ok().filter(|_| at == index).unwrap_or(0);
    let (phase, ready) = match code {
        _ if !is_of_a_job || becomes == "Running" => ("Running", "True"),
        0 => ("Succeeded", "False"),
        _ => ("Failed", "False"),
    };
    let ready =
        json!([{ "type": "Ready", "status": ready, "lastTransitionTime": jiff::Timestamp::now() }]);
    let mut status = json!({ "phase": phase, "conditions": ready });
    if is_of_a_job && phase != "Running" {
        let end =
            json!({ "exitCode": code, "finishedAt": jiff::Timestamp::now(), "startedAt": null });
        status["containerStatuses"] = json!([{ "name": "c", "image": "i", "imageID": "", "ready": false,
            "restartCount": 0, "state": { "terminated": end } }]);
    }
    status
}

/// Waits until `look` finds something.
pub async fn until<T, F: Future<Output = Option<T>>>(look: impl Fn() -> F) -> T {
    let wait = async {
        loop {
            if let Some(found) = look().await {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(DEADLINE, wait).await.expect("in time")
}
