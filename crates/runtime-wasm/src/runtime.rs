//! [`WasmRuntime`]: the engine as the kubelet sees it.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use coracle_runtime::{
    ContainerId, ContainerSpec, ContainerStatus, Image, ImageError, Logs, PullCredentials, Runtime,
    SandboxSpec, StartError, Usage,
};
use futures::future::join_all;
use parking_lot::{Mutex, RwLock};
use tokio::net::TcpStream;
use tokio::sync::broadcast;

use crate::container::Container;
use crate::engine::Engines;
use crate::images::{ImageStore, pull};
use crate::network::{Addresses, PodNetwork};
use crate::options::Options;
use crate::programs::Programs;
use crate::server::{HttpServer, NotTaken};
use crate::workers::Workers;

/// As the workspace pins it; wasmtime does not tell its version.
const WASMTIME_VERSION: &str = "48.0.8";

/// State changes that a slow receiver may lag behind; then it asks for the whole.
const EVENTS_KEPT: usize = 1024;

/// Fetches at once: each is bounded in memory, but registries dislike crowds.
const PULLS_MAX: usize = 4;

/// How long `remove_sandbox` lets containers drain: the kubelet stopped them before, if it was kind.
const REMOVE_GRACE: Duration = Duration::ZERO;

/// The Wasm engine.
pub struct WasmRuntime {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub(crate) options: Options,
    pub(crate) images: ImageStore,
    pub(crate) programs: Programs,
    pub(crate) engines: Arc<Engines>,
    pub(crate) sandboxes: Mutex<HashMap<String, Arc<Sandbox>>>,
    pub(crate) containers: Mutex<HashMap<ContainerId, Arc<Container>>>,
    pub(crate) servers: RwLock<HashMap<SocketAddr, Arc<HttpServer>>>,
    pub(crate) logs: Logs,
    pub(crate) scratch: PathBuf,
    pub(crate) workers: Workers,
    addresses: Addresses,
    events: broadcast::Sender<ContainerStatus>,
    pulls: tokio::sync::Semaphore,
}

/// A pod's network identity.
pub(crate) struct Sandbox {
    pub(crate) network: Arc<PodNetwork>,
    /// False for `hostNetwork`: that address is not ours to give back.
    own_address: bool,
}

/// Why the engine did not start.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The image store is unusable.
    #[error(transparent)]
    Images(#[from] ImageError),
    /// wasmtime refused the machine, or our settings.
    #[error("cannot start wasmtime: {0}")]
    Engine(String),
    /// Threads or directories could not be had.
    #[error("cannot {attempt}")]
    System {
        /// What was attempted.
        attempt: String,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

impl WasmRuntime {
    /// Starts the engine. Containers of an earlier process ended with it.
    pub fn new(options: Options) -> Result<Self, OpenError> {
        let system =
            |attempt: &str, source| OpenError::System { attempt: attempt.to_owned(), source };
        let engine = |error: wasmtime::Error| OpenError::Engine(format!("{error:#}"));
        raise_file_limit();
        let images = ImageStore::open(&options.data_dir)?;
        let engines = Arc::new(Engines::new().map_err(engine)?);
        let programs = Programs::open(&options.data_dir, &engines, options.compile_parallelism);
        let scratch = options.data_dir.join("mounted-files");
        match std::fs::remove_dir_all(&scratch) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(system("clear what an earlier process left", error));
            }
            _ => (),
        }
        let inner = Inner {
            images,
            programs: programs.map_err(engine)?,
            engines,
            sandboxes: Mutex::default(),
            containers: Mutex::default(),
            servers: RwLock::default(),
            logs: Logs::start().map_err(|error| system("start the log writer", error))?,
            scratch,
            workers: Workers::start(options.workers)
                .map_err(|error| system("start threads for guests", error))?,
            addresses: Addresses::new(options.pod_net),
            events: broadcast::Sender::new(EVENTS_KEPT),
            pulls: tokio::sync::Semaphore::new(PULLS_MAX),
            options,
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// The image store of this engine.
    pub fn image_store(&self) -> &ImageStore {
        &self.inner.images
    }

    /// Hands an accepted connection to the guest that serves HTTP at `address`, without a copy in between. Gives it
    /// back when no guest of this node does, or when the one that does is about to end.
    pub fn deliver(&self, address: SocketAddr, stream: TcpStream) -> Result<(), NotTaken> {
        match self.server(address) {
            Some(server) => server.deliver(stream),
            None => Err(NotTaken::NotHere(stream)),
        }
    }

    /// The same for a connection that nobody else takes: a guest that is about to end answers it too.
    pub fn deliver_even_if_ending(
        &self,
        address: SocketAddr,
        stream: TcpStream,
    ) -> Result<(), NotTaken> {
        match self.server(address) {
            Some(server) => server.deliver_even_if_ending(stream),
            None => Err(NotTaken::NotHere(stream)),
        }
    }

    fn server(&self, address: SocketAddr) -> Option<Arc<HttpServer>> {
        self.inner.servers.read().get(&address).cloned()
    }
}

impl Inner {
    fn container(&self, id: &ContainerId) -> Option<Arc<Container>> {
        self.containers.lock().get(id).cloned()
    }

    fn containers_of(&self, pod_uid: &str) -> Vec<Arc<Container>> {
        let containers = self.containers.lock();
        containers.values().filter(|container| container.pod_uid == pod_uid).cloned().collect()
    }

    /// Forgets a server that has ended, unless another has its address already.
    pub(crate) fn forget_server(&self, address: SocketAddr, ended: &Arc<HttpServer>) {
        let mut servers = self.servers.write();
        if servers.get(&address).is_some_and(|server| Arc::ptr_eq(server, ended)) {
            servers.remove(&address);
        }
    }

    /// Enters a container under its id; `None` when it is there already.
    pub(crate) fn enter(&self, spec: &ContainerSpec) -> Option<Arc<Container>> {
        let mut containers = self.containers.lock();
        if containers.contains_key(&spec.id) {
            return None;
        }
        let scratch = self.scratch.join(spec.id.as_str());
        let container = Container::new(spec, scratch, self.events.clone());
        containers.insert(spec.id.clone(), Arc::clone(&container));
        Some(container)
    }
}

/// A server has a socket and a log, and each of its connections one more; the usual limit of 1,024 open files is for
/// programs that use `select`, which we do not. Without the right to raise it, the system's refusals are told as usual.
fn raise_file_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
        if let Err(error) = setrlimit(Resource::Nofile, raised) {
            tracing::debug!(%error, "limit of open files not raised");
        }
    }
}

async fn stop_all(containers: Vec<Arc<Container>>, grace: Duration) {
    for container in &containers {
        container.ask_to_stop(grace);
    }
    join_all(containers.iter().map(|container| container.until_ended())).await;
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ImageError> + Send + 'static,
) -> Result<T, ImageError> {
    let ended =
        |error| ImageError::Store { attempt: "read".to_owned(), source: io::Error::other(error) };
    tokio::task::spawn_blocking(work).await.map_err(ended)?
}

#[async_trait]
impl Runtime for WasmRuntime {
    fn version(&self) -> String {
        format!("wasmtime://{WASMTIME_VERSION}")
    }

    async fn image(&self, reference: &str) -> Result<Option<Image>, ImageError> {
        self.inner.images.find(reference)
    }

    async fn pull_image(
        &self,
        reference: &str,
        credentials: Option<&PullCredentials>,
    ) -> Result<Image, ImageError> {
        let Ok(_permit) = self.inner.pulls.acquire().await else {
            let cause = "the engine is shutting down".to_owned();
            return Err(ImageError::Pull { reference: reference.to_owned(), cause });
        };
        pull::pull(&self.inner.images, reference, credentials).await
    }

    async fn images(&self) -> Result<Vec<Image>, ImageError> {
        let store = self.inner.images.clone();
        blocking(move || store.list()).await
    }

    async fn remove_image(&self, reference: &str) -> Result<(), ImageError> {
        let (store, reference) = (self.inner.images.clone(), reference.to_owned());
        blocking(move || store.remove(&reference)).await
    }

    async fn run_sandbox(&self, spec: &SandboxSpec) -> Result<IpAddr, StartError> {
        let inner = &self.inner;
        let mut sandboxes = inner.sandboxes.lock();
        if let Some(sandbox) = sandboxes.get(&spec.pod.uid) {
            return Ok(sandbox.network.address());
        }
        let address = if spec.host_network {
            inner.options.node_address
        } else {
            let free = inner.addresses.take(&spec.pod.uid);
            IpAddr::V4(free.ok_or_else(|| StartError::Refused {
                message: "every pod address of this node is taken".to_owned(),
            })?)
        };
        let network = PodNetwork::new(
            Arc::clone(&inner.options.services),
            inner.options.pod_net,
            &spec.pod,
            address,
            spec.host_network,
        );
        let sandbox = Sandbox { network: Arc::new(network), own_address: !spec.host_network };
        sandboxes.insert(spec.pod.uid.clone(), Arc::new(sandbox));
        Ok(address)
    }

    async fn remove_sandbox(&self, pod_uid: &str) -> Result<(), StartError> {
        stop_all(self.inner.containers_of(pod_uid), REMOVE_GRACE).await;
        let removed = self.inner.sandboxes.lock().remove(pod_uid);
        if let Some(sandbox) = removed
            && sandbox.own_address
            && let IpAddr::V4(address) = sandbox.network.address()
        {
            self.inner.addresses.give_back(address);
        }
        Ok(())
    }

    async fn start_container(&self, spec: ContainerSpec) -> Result<(), StartError> {
        let Some(container) = self.inner.enter(&spec) else {
            return Ok(());
        };
        let id = spec.id.clone();
        let started = Arc::clone(&self.inner).start(spec, Arc::clone(&container));
        // Who waits may go away; the container starts all the same.
        let answer = self.inner.workers.batch().spawn(started).await.unwrap_or_else(|error| {
            Err(StartError::Failed {
                message: format!("cannot start container {id}"),
                source: io::Error::other(error),
            })
        });
        if answer.is_err() {
            container.not_started();
            self.inner.containers.lock().remove(&id);
        }
        answer
    }

    async fn stop_container(&self, id: &ContainerId, grace: Duration) -> Result<(), StartError> {
        if let Some(container) = self.inner.container(id) {
            stop_all(vec![container], grace).await;
        }
        Ok(())
    }

    async fn remove_container(&self, id: &ContainerId) -> Result<(), StartError> {
        let mut containers = self.inner.containers.lock();
        match containers.get(id) {
            Some(container) if !container.has_exited() => {
                Err(StartError::Refused { message: format!("container {id} has not ended") })
            }
            Some(_) => {
                containers.remove(id);
                Ok(())
            }
            None => Ok(()),
        }
    }

    async fn containers(&self) -> Result<Vec<ContainerStatus>, StartError> {
        Ok(self.inner.containers.lock().values().map(|container| container.status()).collect())
    }

    fn subscribe(&self) -> broadcast::Receiver<ContainerStatus> {
        self.inner.events.subscribe()
    }

    async fn usage(&self, id: &ContainerId) -> Option<Usage> {
        self.inner.container(id)?.usage()
    }

    async fn shutdown(&self, grace: Duration) {
        let all = self.inner.containers.lock().values().cloned().collect();
        stop_all(all, grace).await;
    }
}
