//! One container as the engine knows it, from its start until it is forgotten.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use coracle_runtime::{ContainerId, ContainerSpec, ContainerState, ContainerStatus, Usage};
use jiff::Timestamp;
use parking_lot::Mutex;
use tokio::sync::broadcast;
use tokio_util::sync::CancellationToken;

use crate::cpu::CpuBudget;
use crate::ending::Ending;
use crate::memory::MemoryBudget;

/// One attempt to run a container.
pub(crate) struct Container {
    pub(crate) id: ContainerId,
    pub(crate) pod_uid: String,
    name: String,
    attempt: u32,
    image_digest: Mutex<String>,
    state: Mutex<ContainerState>,
    events: broadcast::Sender<ContainerStatus>,
    /// How long it may take to end, once it is asked to.
    stop: Mutex<Option<Duration>>,
    stopping: CancellationToken,
    ended: CancellationToken,
    pub(crate) cpu: Arc<CpuBudget>,
    pub(crate) memory: Arc<MemoryBudget>,
    /// Links to mounted files.
    pub(crate) scratch: PathBuf,
}

impl Container {
    pub(crate) fn new(
        spec: &ContainerSpec,
        scratch: PathBuf,
        events: broadcast::Sender<ContainerStatus>,
    ) -> Arc<Self> {
        Arc::new(Self {
            id: spec.id.clone(),
            pod_uid: spec.pod.uid.clone(),
            name: spec.name.clone(),
            attempt: spec.attempt,
            image_digest: Mutex::default(),
            state: Mutex::new(ContainerState::Starting),
            events,
            stop: Mutex::new(None),
            stopping: CancellationToken::new(),
            ended: CancellationToken::new(),
            cpu: CpuBudget::new(spec.cpu_limit_millis),
            memory: MemoryBudget::new(spec.memory_limit_bytes),
            scratch,
        })
    }

    pub(crate) fn status(&self) -> ContainerStatus {
        ContainerStatus {
            id: self.id.clone(),
            pod_uid: self.pod_uid.clone(),
            name: self.name.clone(),
            attempt: self.attempt,
            image_digest: self.image_digest.lock().clone(),
            state: self.state.lock().clone(),
        }
    }

    pub(crate) fn set_digest(&self, digest: &str) {
        digest.clone_into(&mut self.image_digest.lock());
    }

    pub(crate) fn running(&self) {
        *self.state.lock() = ContainerState::Running { started_at: Timestamp::now() };
        self.tell();
    }

    pub(crate) fn exited(&self, ending: Ending) {
        let finished_at = Timestamp::now();
        {
            let mut state = self.state.lock();
            let started_at = match *state {
                ContainerState::Running { started_at } => started_at,
                ContainerState::Starting => finished_at,
                ContainerState::Exited { .. } => return,
            };
            *state = ContainerState::Exited {
                started_at,
                finished_at,
                exit_code: ending.exit_code,
                reason: ending.reason,
                message: ending.message,
            };
        }
        // Links only: what they lead to belongs to the kubelet. A leftover costs an empty directory.
        let _ = std::fs::remove_dir_all(&self.scratch);
        self.tell();
        self.ended.cancel();
    }

    /// It never ran: whoever waits for its end need not wait.
    pub(crate) fn not_started(&self) {
        let _ = std::fs::remove_dir_all(&self.scratch);
        self.ended.cancel();
    }

    pub(crate) fn has_exited(&self) -> bool {
        matches!(*self.state.lock(), ContainerState::Exited { .. })
    }

    pub(crate) fn usage(&self) -> Option<Usage> {
        let running = matches!(*self.state.lock(), ContainerState::Running { .. });
        running.then(|| Usage {
            cpu_nanoseconds: self.cpu.used_nanoseconds(),
            memory_bytes: self.memory.used(),
        })
    }

    /// Asks it to end. Of several graces the shortest counts, if it comes before the drain began.
    pub(crate) fn ask_to_stop(&self, grace: Duration) {
        let mut stop = self.stop.lock();
        *stop = Some(stop.map_or(grace, |before| before.min(grace)));
        drop(stop);
        self.stopping.cancel();
    }

    /// Returns the grace, once it is asked to end.
    pub(crate) async fn stop_requested(&self) -> Duration {
        self.stopping.cancelled().await;
        self.stop.lock().unwrap_or_default()
    }

    pub(crate) fn is_stopping(&self) -> bool {
        self.stopping.is_cancelled()
    }

    pub(crate) async fn until_ended(&self) {
        self.ended.cancelled().await;
    }

    fn tell(&self) {
        // Without a receiver nobody wants to know.
        let _ = self.events.send(self.status());
    }
}
