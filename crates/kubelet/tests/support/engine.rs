//! An engine in memory: what a container does is said by its image's name.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use coracle_runtime::{
    ContainerId, ContainerSpec, ContainerState, ContainerStatus, ExitReason, Image, ImageError,
    PullCredentials, Runtime, SandboxSpec, StartError, Usage,
};
use jiff::Timestamp;
use parking_lot::Mutex;
use tokio::sync::broadcast;

/// `serve…` runs until it is stopped, `exit-N` ends at once, `import…` wants what nobody has, `missing…` cannot be
/// pulled.
pub struct Engine {
    state: Mutex<State>,
    changes: broadcast::Sender<ContainerStatus>,
}

#[derive(Default)]
struct State {
    containers: BTreeMap<ContainerId, (ContainerSpec, ContainerStatus)>,
    sandboxes: BTreeSet<String>,
    pulls: u32,
}

impl Engine {
    pub fn new() -> Arc<Self> {
        Arc::new(Self { state: Mutex::default(), changes: broadcast::channel(4096).0 })
    }

    /// What the newest attempt of a container was started with.
    pub fn spec_of(&self, container: &str) -> Option<ContainerSpec> {
        let state = self.state.lock();
        let of_name = state.containers.values().filter(|(spec, _)| spec.name == container);
        of_name.max_by_key(|(spec, _)| spec.attempt).map(|(spec, _)| spec.clone())
    }

    pub fn sandboxes(&self) -> usize {
        self.state.lock().sandboxes.len()
    }

    /// How many containers the engine remembers, running or ended.
    pub fn containers_known(&self) -> usize {
        self.state.lock().containers.len()
    }

    pub fn pulls(&self) -> u32 {
        self.state.lock().pulls
    }

    /// Ends a running container from within, as a guest does that returns.
    pub fn end(&self, container: &str, exit_code: i32) {
        let id = self
            .state
            .lock()
            .containers
            .values()
            .find(|(spec, status)| {
                spec.name == container && matches!(status.state, ContainerState::Running { .. })
            })
            .map(|(spec, _)| spec.id.clone());
        self.exit(&id.expect("no such container runs"), exit_code);
    }

    /// Adds a line to the newest attempt's log.
    pub fn print(&self, container: &str, line: &str) {
        let path = self.spec_of(container).expect("no such container").log_path;
        let mut file = std::fs::OpenOptions::new().create(true).append(true).open(path).unwrap();
        writeln!(file, "{} stdout F {line}", Timestamp::now().strftime("%Y-%m-%dT%H:%M:%S.%9fZ"))
            .unwrap();
    }

    fn exit(&self, id: &ContainerId, exit_code: i32) {
        let mut state = self.state.lock();
        let Some((_, status)) = state.containers.get_mut(id) else { return };
        let ContainerState::Running { started_at } = status.state else { return };
        status.state = ContainerState::Exited {
            started_at,
            finished_at: Timestamp::now(),
            exit_code,
            reason: if exit_code == 0 { ExitReason::Completed } else { ExitReason::Error },
            message: String::new(),
        };
        let _ = self.changes.send(status.clone());
    }
}

#[async_trait]
impl Runtime for Engine {
    fn version(&self) -> String {
        "wasmtime://memory".to_owned()
    }

    async fn image(&self, reference: &str) -> Result<Option<Image>, ImageError> {
        let image = Image {
            references: vec![reference.to_owned()],
            digest: format!("sha256:{reference}"),
            size_bytes: 7,
        };
        Ok(Some(image).filter(|_| !reference.starts_with("missing")))
    }

    async fn pull_image(
        &self,
        reference: &str,
        _: Option<&PullCredentials>,
    ) -> Result<Image, ImageError> {
        self.state.lock().pulls += 1;
        Err(ImageError::Pull { reference: reference.to_owned(), cause: "no such host".to_owned() })
    }

    async fn images(&self) -> Result<Vec<Image>, ImageError> {
        Ok(Vec::new())
    }

    async fn remove_image(&self, _: &str) -> Result<(), ImageError> {
        Ok(())
    }

    async fn run_sandbox(&self, spec: &SandboxSpec) -> Result<IpAddr, StartError> {
        self.state.lock().sandboxes.insert(spec.pod.uid.clone());
        Ok(IpAddr::V4(Ipv4Addr::LOCALHOST))
    }

    async fn remove_sandbox(&self, pod_uid: &str) -> Result<(), StartError> {
        self.state.lock().sandboxes.remove(pod_uid);
        Ok(())
    }

    async fn start_container(&self, spec: ContainerSpec) -> Result<(), StartError> {
        if spec.image.starts_with("import") {
            return Err(StartError::MissingImport {
                image: spec.image,
                import: "env::magic".to_owned(),
            });
        }
        let status = ContainerStatus {
            id: spec.id.clone(),
            pod_uid: spec.pod.uid.clone(),
            name: spec.name.clone(),
            attempt: spec.attempt,
            image_digest: format!("sha256:{}", spec.image),
            state: ContainerState::Running { started_at: Timestamp::now() },
        };
        let id = spec.id.clone();
        let exit = spec
            .image
            .strip_prefix("exit-")
            .map(|code| code.trim_end_matches(":1").parse().unwrap());
        std::fs::File::create(&spec.log_path).expect("the kubelet made the directory");
        self.state.lock().containers.insert(id.clone(), (spec, status.clone()));
        let _ = self.changes.send(status);
        if let Some(exit) = exit {
            self.exit(&id, exit);
        }
        Ok(())
    }

    async fn stop_container(&self, id: &ContainerId, _: Duration) -> Result<(), StartError> {
        self.exit(id, 143);
        Ok(())
    }

    async fn remove_container(&self, id: &ContainerId) -> Result<(), StartError> {
        self.state.lock().containers.remove(id);
        Ok(())
    }

    async fn containers(&self) -> Result<Vec<ContainerStatus>, StartError> {
        Ok(self.state.lock().containers.values().map(|(_, status)| status.clone()).collect())
    }

    fn subscribe(&self) -> broadcast::Receiver<ContainerStatus> {
        self.changes.subscribe()
    }

    async fn usage(&self, _: &ContainerId) -> Option<Usage> {
        None
    }

    async fn shutdown(&self, _: Duration) {
        let ids: Vec<_> = self.state.lock().containers.keys().cloned().collect();
        for id in ids {
            self.exit(&id, 143);
        }
    }
}
