//! What waits for a pod's worker: the newest of each thing, so that a slow worker never piles anything up.

use std::collections::BTreeMap;
use std::sync::Arc;

use coracle_runtime::{ContainerId, ContainerStatus};
use k8s_openapi::api::core::v1::Pod;
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::sources::Listener;

/// A pod's mailbox.
#[derive(Default)]
pub(crate) struct Mailbox {
    mail: Mutex<Mail>,
    arrived: Notify,
}

/// What was in it.
#[derive(Default)]
pub(crate) struct Mail {
    /// The pod as the API has it now.
    pub(crate) pod: Option<Arc<Pod>>,
    /// True when the API has it no more.
    pub(crate) gone: bool,
    /// The newest state of each of its containers that changed. There are as many as it has attempts under way.
    pub(crate) containers: BTreeMap<ContainerId, ContainerStatus>,
    /// True when something it refers to changed.
    pub(crate) objects_changed: bool,
}

impl Mailbox {
    /// The API has a new state of the pod.
    pub(crate) fn pod(&self, pod: Arc<Pod>) {
        self.mail.lock().pod = Some(pod);
        self.arrived.notify_one();
    }

    /// The API has the pod no more.
    pub(crate) fn gone(&self) {
        self.mail.lock().gone = true;
        self.arrived.notify_one();
    }

    /// A container of the pod changed its state.
    pub(crate) fn container(&self, status: ContainerStatus) {
        self.mail.lock().containers.insert(status.id.clone(), status);
        self.arrived.notify_one();
    }

    /// Empties it.
    pub(crate) fn take(&self) -> Mail {
        std::mem::take(&mut self.mail.lock())
    }

    /// Returns when something is in it that came since the last call.
    pub(crate) async fn arrived(&self) {
        self.arrived.notified().await;
    }
}

impl Listener for Mailbox {
    fn objects_changed(&self) {
        self.mail.lock().objects_changed = true;
        self.arrived.notify_one();
    }
}
