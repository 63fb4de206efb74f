//! What the kubelet says to an engine, and what an engine answers.
//!
//! Start at [`Runtime`]. Everything that crosses it is plain data or a byte
//! stream, so that an engine may one day live in another process.
//!
//! Always true: nothing above this trait knows which engine runs a container.
//! Deliberately absent: pods as the API knows them. Env, volumes and commands
//! arrive resolved; an engine reads no ConfigMap and asks no API.

mod container;
mod image;
pub mod log;
pub mod suite;

use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::broadcast;

pub use container::{
    ContainerId, ContainerSpec, ContainerState, ContainerStatus, ExitReason, Mount, PodIdentity,
    SandboxSpec, StartError, Usage,
};
pub use image::{Image, ImageError, PullCredentials};
pub use log::{LogLimits, LogLine, LogStream, LogWriter, Logs};

/// One engine that runs containers: Wasm or Docker.
///
/// Every method is safe to repeat. Dropping a returned future cancels the wait, never the container.
#[async_trait]
pub trait Runtime: Send + Sync + 'static {
    /// The engine's name and version as `node.status.nodeInfo.containerRuntimeVersion` shows it, `wasmtime://48.0.8`.
    fn version(&self) -> String;

    /// What is in the image store under this name, or `None`.
    async fn image(&self, reference: &str) -> Result<Option<Image>, ImageError>;

    /// Fetches an image from its registry into the image store, even when a copy is there.
    async fn pull_image(
        &self,
        reference: &str,
        credentials: Option<&PullCredentials>,
    ) -> Result<Image, ImageError>;

    /// Every image of the store.
    async fn images(&self) -> Result<Vec<Image>, ImageError>;

    /// Removes an image from the store; it is no error when it is not there.
    async fn remove_image(&self, reference: &str) -> Result<(), ImageError>;

    /// Gives a pod its network identity and answers its address. Repeating it answers the same address.
    async fn run_sandbox(&self, spec: &SandboxSpec) -> Result<std::net::IpAddr, StartError>;

    /// Stops every container of the pod, and gives its address back.
    async fn remove_sandbox(&self, pod_uid: &str) -> Result<(), StartError>;

    /// Loads the image and starts the container. Returns once it runs (for a server: once it listens).
    async fn start_container(&self, spec: ContainerSpec) -> Result<(), StartError>;

    /// Asks the container to stop, and kills it after `grace`. Returns once it has ended.
    async fn stop_container(&self, id: &ContainerId, grace: Duration) -> Result<(), StartError>;

    /// Forgets an ended container. Its log file stays: it belongs to the kubelet.
    async fn remove_container(&self, id: &ContainerId) -> Result<(), StartError>;

    /// Every container the engine knows, running or ended: what a restarted kubelet adopts.
    async fn containers(&self) -> Result<Vec<ContainerStatus>, StartError>;

    /// Each change of a container's state, as it happens. A receiver that lagged calls [`Runtime::containers`].
    fn subscribe(&self) -> broadcast::Receiver<ContainerStatus>;

    /// CPU time and memory of a running container, or `None` when it does not run.
    async fn usage(&self, id: &ContainerId) -> Option<Usage>;

    /// Ends everything this engine runs, each within `grace`.
    async fn shutdown(&self, grace: Duration);
}
