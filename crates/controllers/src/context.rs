//! What all controllers share: the client, the mirrors, the clock, the owner of their tasks.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use coracle_reconcile::{Mirror, Next, NotSynced, ObjectKey, Queue, Recorder, Selection, Tasks};
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{
    ControllerRevision, DaemonSet, Deployment, ReplicaSet, StatefulSet,
};
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use k8s_openapi::api::batch::v1::{CronJob, Job};
use k8s_openapi::api::certificates::v1::{CertificateSigningRequest, PodCertificateRequest};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{
    ConfigMap, Endpoints, Namespace, Node, PersistentVolume, PersistentVolumeClaim,
    ReplicationController, Secret, Service, ServiceAccount,
};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::api::storage::v1::StorageClass;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::PostParams;
use kube::{Api, Client};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio_util::sync::CancellationToken;

use crate::Options;
use crate::api::{Attempting, Unfinished, is_not_found};
use crate::garbage_collector::Graph;
use crate::ownership::Orphans;
use crate::placed::Placed;
use crate::pod::Pod;
use crate::pods::PodControl;

/// A reconcile that takes longer is given up and tried again: upstream's request timeout.
const RECONCILE_DEADLINE: Duration = Duration::from_secs(60);

/// What a controller works with.
pub(crate) struct Context {
    pub client: Client,
    pub options: Options,
    pub tasks: Tasks,
    pub mirrors: Mirrors,
    /// What nobody controls and may be adopted.
    pub orphans: OrphanIndexes,
    /// Which pods are on which node.
    pub placed: Placed,
    /// Who owns whom, over all kinds; the garbage collector fills it.
    pub graph: Arc<Graph>,
}

/// Each kind that controllers look at in full, watched once.
pub(crate) struct Mirrors {
    pub namespaces: Mirror<Namespace>,
    pub nodes: Mirror<Node>,
    /// By which nodes say that they live.
    pub node_leases: Mirror<Lease>,
    pub pods: Mirror<Pod>,
    pub services: Mirror<Service>,
    pub endpoints: Mirror<Endpoints>,
    pub endpoint_slices: Mirror<EndpointSlice>,
    pub replica_sets: Mirror<ReplicaSet>,
    pub replication_controllers: Mirror<ReplicationController>,
    pub deployments: Mirror<Deployment>,
    pub stateful_sets: Mirror<StatefulSet>,
    pub daemon_sets: Mirror<DaemonSet>,
    pub controller_revisions: Mirror<ControllerRevision>,
    pub claims: Mirror<PersistentVolumeClaim>,
    pub volumes: Mirror<PersistentVolume>,
    pub storage_classes: Mirror<StorageClass>,
    pub jobs: Mirror<Job>,
    pub cron_jobs: Mirror<CronJob>,
    pub budgets: Mirror<PodDisruptionBudget>,
    pub autoscalers: Mirror<HorizontalPodAutoscaler>,
    pub certificate_requests: Mirror<CertificateSigningRequest>,
    pub pod_certificate_requests: Mirror<PodCertificateRequest>,
    pub service_accounts: Mirror<ServiceAccount>,
    /// Only those that hold the token of a ServiceAccount.
    pub token_secrets: Mirror<Secret>,
    /// Only those that let machines join.
    pub bootstrap_tokens: Mirror<Secret>,
    /// Only those called `kube-root-ca.crt`.
    pub root_cas: Mirror<ConfigMap>,
}

/// See [`Orphans`].
pub(crate) struct OrphanIndexes {
    pub pods: Orphans<Pod>,
    pub replica_sets: Orphans<ReplicaSet>,
    pub controller_revisions: Orphans<ControllerRevision>,
}

impl Context {
    /// Begins to watch. The mirrors are filled once [`Mirrors::synced`] answers.
    pub fn start(client: Client, options: Options, shutdown: CancellationToken) -> Arc<Self> {
        let tasks = Tasks::new(shutdown);
        let mirrors = Mirrors::start(&tasks, &client);
        let orphans = OrphanIndexes {
            pods: Orphans::follow(&mirrors.pods),
            replica_sets: Orphans::follow(&mirrors.replica_sets),
            controller_revisions: Orphans::follow(&mirrors.controller_revisions),
        };
        let placed = Placed::follow(&mirrors.pods);
        Arc::new(Self { client, options, tasks, mirrors, orphans, placed, graph: Arc::default() })
    }

    /// What time it is.
    pub fn now(&self) -> Timestamp {
        (self.options.clock)()
    }

    /// A recorder that speaks for one controller, under upstream's name for it.
    pub fn recorder(&self, component: &str) -> Recorder {
        Recorder::new(&self.tasks, self.client.clone(), component, None)
    }

    /// The API of a kind in one namespace.
    pub fn api<K>(&self, namespace: &str) -> Api<K>
    where
        K: kube::Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>,
    {
        Api::namespaced(self.client.clone(), namespace)
    }

    /// Whether the object's namespace is being deleted, so that nothing new can be made in it.
    pub fn is_terminating(&self, meta: &ObjectMeta) -> bool {
        let namespace = ObjectKey::new("", meta.namespace.clone().unwrap_or_default());
        let namespace = self.mirrors.namespaces.get(&namespace);
        namespace.is_some_and(|namespace| namespace.metadata.deletion_timestamp.is_some())
    }

    /// What makes and deletes pods in the name of one controller.
    pub fn pod_control(&self, recorder: &Recorder) -> PodControl {
        PodControl {
            client: self.client.clone(),
            mirror: self.mirrors.pods.clone(),
            recorder: recorder.clone(),
        }
    }

    /// Writes the status that `desired` bears; an object that is gone needs none. The mirror has it when this answers.
    pub async fn write_status<K>(&self, mirror: &Mirror<K>, desired: &K) -> Result<(), Unfinished>
    where
        K: kube::Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>
            + Clone
            + std::fmt::Debug
            + Serialize
            + DeserializeOwned
            + Send
            + Sync
            + 'static,
    {
        let key = ObjectKey::of(desired);
        let api = self.api::<K>(&key.namespace);
        match api.replace_status(&key.name, &PostParams::default(), desired).await {
            Ok(written) => mirror.observe(written),
            Err(error) if is_not_found(&error) => (),
            refused => {
                let kind = K::kind(&()).to_ascii_lowercase();
                refused.attempting(|| format!("write the status of {kind} {key}"))?;
            }
        }
        Ok(())
    }

    /// Starts `workers` that reconcile the queue's keys, each within a deadline.
    pub fn work<F, R>(&self, queue: &Queue, name: &'static str, workers: usize, reconcile: F)
    where
        F: Fn(ObjectKey) -> R + Send + Sync + 'static,
        R: Future<Output = Result<Next, Unfinished>> + Send + 'static,
    {
        queue.run(&self.tasks, name, workers, move |key| {
            let work = reconcile(key);
            async move {
                match tokio::time::timeout(RECONCILE_DEADLINE, work).await {
                    Ok(outcome) => outcome,
                    Err(_) => Err(Unfinished::timed_out(RECONCILE_DEADLINE)),
                }
            }
        });
    }
}

impl Mirrors {
    fn start(tasks: &Tasks, client: &Client) -> Self {
        Self {
            namespaces: Mirror::all(tasks, client),
            nodes: Mirror::all(tasks, client),
            node_leases: Mirror::start(
                tasks,
                Api::namespaced(client.clone(), crate::node_lifecycle::LEASES),
                Selection::default(),
            ),
            pods: Mirror::all(tasks, client),
            services: Mirror::all(tasks, client),
            endpoints: Mirror::all(tasks, client),
            endpoint_slices: Mirror::all(tasks, client),
            replica_sets: Mirror::all(tasks, client),
            replication_controllers: Mirror::all(tasks, client),
            deployments: Mirror::all(tasks, client),
            stateful_sets: Mirror::all(tasks, client),
            daemon_sets: Mirror::all(tasks, client),
            controller_revisions: Mirror::all(tasks, client),
            claims: Mirror::all(tasks, client),
            volumes: Mirror::all(tasks, client),
            storage_classes: Mirror::all(tasks, client),
            jobs: Mirror::all(tasks, client),
            cron_jobs: Mirror::all(tasks, client),
            budgets: Mirror::all(tasks, client),
            autoscalers: Mirror::all(tasks, client),
            certificate_requests: Mirror::all(tasks, client),
            pod_certificate_requests: Mirror::all(tasks, client),
            service_accounts: Mirror::all(tasks, client),
            token_secrets: Mirror::start(
                tasks,
                Api::all(client.clone()),
                fields(&format!("type={}", crate::token_secrets::TYPE)),
            ),
            bootstrap_tokens: Mirror::start(
                tasks,
                Api::namespaced(client.clone(), crate::bootstrap_tokens::NAMESPACE),
                fields(&format!("type={}", crate::bootstrap_tokens::TYPE)),
            ),
            root_cas: Mirror::start(
                tasks,
                Api::all(client.clone()),
                fields(&format!("metadata.name={}", crate::root_ca::NAME)),
            ),
        }
    }

    /// Waits until every mirror has its first list.
    pub async fn synced(&self) -> Result<(), NotSynced> {
        self.namespaces.synced().await?;
        self.nodes.synced().await?;
        self.node_leases.synced().await?;
        self.pods.synced().await?;
        self.services.synced().await?;
        self.endpoints.synced().await?;
        self.endpoint_slices.synced().await?;
        self.replica_sets.synced().await?;
        self.replication_controllers.synced().await?;
        self.deployments.synced().await?;
        self.stateful_sets.synced().await?;
        self.daemon_sets.synced().await?;
        self.controller_revisions.synced().await?;
        self.claims.synced().await?;
        self.volumes.synced().await?;
        self.storage_classes.synced().await?;
        self.jobs.synced().await?;
        self.cron_jobs.synced().await?;
        self.budgets.synced().await?;
        self.autoscalers.synced().await?;
        self.certificate_requests.synced().await?;
        self.pod_certificate_requests.synced().await?;
        self.service_accounts.synced().await?;
        self.token_secrets.synced().await?;
        self.bootstrap_tokens.synced().await?;
        self.root_cas.synced().await
    }
}

fn fields(selector: &str) -> Selection {
    Selection { labels: None, fields: Some(selector.to_owned()) }
}
