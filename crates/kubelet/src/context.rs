//! What every part of one node's kubelet shares.

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use coracle_reconcile::{Mirror, ObjectKey, Recorder};
use coracle_runtime::Runtime;
use k8s_openapi::api::core::v1::{ObjectReference, Pod, Service};
use kube::Client;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::amounts::Amounts;
use crate::env::service_links;
use crate::fields::Surroundings;
use crate::images::Images;
use crate::memory::MemoryDirectory;
use crate::plan::Role;
use crate::sources::Sources;
use crate::volumes::PodDirectory;

/// Status writes at once: enough to fill the store's group commits, few enough to leave the API server to others.
pub(crate) const STATUS_WRITES: usize = 128;
/// Volumes that are written at once: their files come from blocking threads.
pub(crate) const VOLUME_WRITES: usize = 8;

/// What every part of one node's kubelet shares.
pub(crate) struct Context {
    /// The way to the API.
    pub(crate) client: Client,
    /// This node.
    pub(crate) node_name: String,
    /// Its address.
    pub(crate) node_ip: IpAddr,
    /// Where pods' files and logs are.
    pub(crate) data_dir: PathBuf,
    /// Where what must not reach a disk is; on disk when there is none.
    pub(crate) memory: Option<MemoryDirectory>,
    /// The engine.
    pub(crate) runtime: Arc<dyn Runtime>,
    /// The scheme of container ids, `wasm`.
    pub(crate) scheme: String,
    /// What the node can give to pods.
    pub(crate) allocatable: Amounts,
    /// Events.
    pub(crate) recorder: Recorder,
    /// Referenced ConfigMaps and Secrets.
    pub(crate) sources: Sources,
    /// Every Service, for the variables that name them.
    pub(crate) services: Mirror<Service>,
    /// The image store.
    pub(crate) images: Images,
    /// Turns for status writes.
    pub(crate) status_turns: Semaphore,
    /// Turns for volume writes.
    pub(crate) volume_turns: Semaphore,
    /// How long containers get to end when the node stops.
    pub(crate) shutdown_grace: Duration,
    /// Cancelled when the node stops.
    pub(crate) shutdown: CancellationToken,
}

impl Context {
    /// Where the pod's volumes are.
    pub(crate) fn pod_directory(&self, uid: &str) -> PodDirectory {
        let disk = self.data_dir.join("pods");
        let memory = self.memory.as_ref().map_or_else(|| disk.clone(), MemoryDirectory::pods);
        PodDirectory::new(&disk, &memory, uid)
    }

    /// Where the pod's logs are, a directory for each container.
    pub(crate) fn log_directory(&self, pod: &Pod) -> PathBuf {
        let key = ObjectKey::of(pod);
        let uid = pod.metadata.uid.as_deref().unwrap_or_default();
        self.data_dir.join("pods-logs").join(format!("{}_{}_{uid}", key.namespace, key.name))
    }

    /// What the downward API says beyond the pod itself.
    pub(crate) fn surroundings(&self, pod_ip: Option<IpAddr>) -> Surroundings {
        Surroundings { node_ip: self.node_ip, pod_ip, allocatable: self.allocatable }
    }

    /// The variables that name the Services this pod may know.
    pub(crate) fn service_links(&self, pod: &Pod) -> Vec<(String, String)> {
        let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
        let mut services = self.services.in_namespace(namespace);
        if namespace != "default" {
            services.extend(self.services.get(&ObjectKey::new("default", "kubernetes")));
        }
        let services: Vec<&Service> = services.iter().map(Arc::as_ref).collect();
        service_links(pod, &services)
    }
}

/// How an Event names one container of a pod.
pub(crate) fn container_reference(pod: &Pod, role: Role, container: &str) -> ObjectReference {
    let list = match role {
        Role::Init | Role::Sidecar => "initContainers",
        Role::Main => "containers",
    };
    let field_path = Some(format!("spec.{list}{{{container}}}"));
    ObjectReference { field_path, ..coracle_reconcile::reference(pod) }
}
