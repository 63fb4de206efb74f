//! A container as an engine sees it: what to start, and what became of it.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// Names one attempt to run a container on this node; chosen by the kubelet, never reused.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ContainerId(String);

impl ContainerId {
    /// Takes the kubelet's choice: 64 lower-case hexadecimal digits, as other engines have it.
    pub fn new(id: impl Into<String>) -> Self {
        Self(id.into())
    }

    /// The bare digits, without an engine's scheme.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ContainerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The pod that a container or sandbox belongs to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PodIdentity {
    /// The pod's namespace; guests resolve short Service names in it.
    pub namespace: String,
    /// The pod's name.
    pub name: String,
    /// The pod's uid.
    pub uid: String,
}

/// The network identity of a pod.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SandboxSpec {
    /// Whose sandbox it is.
    pub pod: PodIdentity,
    /// What the pod calls itself.
    pub hostname: String,
    /// True when the pod shares the node's own address (`hostNetwork`).
    pub host_network: bool,
}

/// A directory or file of the host that the guest sees.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mount {
    /// Where it is on the host.
    pub host_path: PathBuf,
    /// Where the guest sees it.
    pub container_path: String,
    /// True when the guest may not write.
    pub read_only: bool,
}

/// All that a container gets. What is not named here, the guest cannot see.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ContainerSpec {
    /// Names this attempt.
    pub id: ContainerId,
    /// Whose container it is. Its sandbox runs already.
    pub pod: PodIdentity,
    /// The container's name in the pod.
    pub name: String,
    /// How often this container was started before in this pod.
    pub attempt: u32,
    /// The image reference as the pod names it; it is in the store already.
    pub image: String,
    /// Replaces the image's entry point when not empty.
    pub command: Vec<String>,
    /// The arguments after the command.
    pub args: Vec<String>,
    /// The whole environment, in order; of a name given twice the last value counts.
    pub env: Vec<(String, String)>,
    /// The working directory, when the pod sets one.
    pub working_dir: Option<String>,
    /// Volumes, longest path last.
    pub mounts: Vec<Mount>,
    /// TCP ports the container declares, in the pod's order. The first is where a `wasi:http` component serves.
    pub tcp_ports: Vec<u16>,
    /// The memory limit in bytes.
    pub memory_limit_bytes: Option<u64>,
    /// The CPU limit in thousandths of a core.
    pub cpu_limit_millis: Option<u64>,
    /// The file for stdout and stderr, in the CRI log format; see [`crate::LogWriter`].
    pub log_path: PathBuf,
    /// The pod's annotations: an engine's own settings live there.
    pub annotations: BTreeMap<String, String>,
}

/// Where a container is in its life.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ContainerState {
    /// Being loaded; not started yet.
    Starting,
    /// Running since then.
    Running {
        /// When it began.
        started_at: Timestamp,
    },
    /// Ended.
    Exited {
        /// When it began.
        started_at: Timestamp,
        /// When it ended.
        finished_at: Timestamp,
        /// What the guest returned; 137 when it was killed, 143 when it ended on request.
        exit_code: i32,
        /// Why it ended.
        reason: ExitReason,
        /// The trap with its symbolised backtrace, or empty.
        message: String,
    },
}

/// Why a container ended, in the words of `containerStatuses[].state.terminated.reason`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ExitReason {
    /// It returned 0.
    Completed,
    /// It returned another code, trapped or was killed.
    Error,
    /// It asked for more memory than its limit, and died of it.
    OomKilled,
}

impl ExitReason {
    /// The word that the API uses.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Completed => "Completed",
            Self::Error => "Error",
            Self::OomKilled => "OOMKilled",
        }
    }
}

/// What an engine knows of one container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerStatus {
    /// Which attempt.
    pub id: ContainerId,
    /// The pod's uid.
    pub pod_uid: String,
    /// The container's name in the pod.
    pub name: String,
    /// How often it was started before.
    pub attempt: u32,
    /// The digest of the image that runs, `sha256:…`.
    pub image_digest: String,
    /// Where it is in its life.
    pub state: ContainerState,
}

/// What a running container uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// CPU time since its start, in nanoseconds.
    pub cpu_nanoseconds: u64,
    /// Memory it holds now, in bytes.
    pub memory_bytes: u64,
}

/// Why a sandbox or a container did not start or stop.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The image is not in the store; pull it again.
    #[error("image {image} is not in the image store")]
    ImageMissing {
        /// The reference.
        image: String,
    },
    /// The bytes are no module or component that this engine can run: `CreateContainerError`.
    #[error("image {image} cannot be run: {cause}")]
    ImageInvalid {
        /// The reference.
        image: String,
        /// What is wrong with it.
        cause: String,
    },
    /// The image wants something this node does not offer: `CreateContainerError`.
    #[error("image {image} imports {import}, which this node does not offer")]
    MissingImport {
        /// The reference.
        image: String,
        /// `interface#function` or `module::name`.
        import: String,
    },
    /// The spec asks for what cannot be: a port twice, a memory limit below the module's minimum.
    #[error("{message}")]
    Refused {
        /// What, and why.
        message: String,
    },
    /// The machine failed us; trying again may help: `RunContainerError`.
    #[error("{message}")]
    Failed {
        /// What was attempted, on which object.
        message: String,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
}
