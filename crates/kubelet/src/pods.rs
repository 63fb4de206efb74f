//! Which pods this node has: a worker for each, and their mail.

use std::collections::{BTreeSet, HashMap};
use std::path::Path;
use std::sync::{Arc, Weak};
use std::time::Duration;

use coracle_reconcile::{Change, Mirror, ObjectKey, Tasks};
use coracle_runtime::ContainerStatus;
use k8s_openapi::api::core::v1::Pod;
use parking_lot::Mutex;
use tokio::sync::{Notify, broadcast, watch};
use tracing::{info, warn};

use crate::admission::{Ledger, admit};
use crate::context::Context;
use crate::mailbox::Mailbox;
use crate::snapshot::Snapshot;
use crate::worker::{Beginning, Worker};

/// A node that cannot tell the API in this time that its pods are not ready goes on all the same, and tries again.
const TOLD: Duration = Duration::from_secs(10);

/// Every pod that this node has, by uid.
pub(crate) struct Pods {
    ctx: Arc<Context>,
    tasks: Tasks,
    ledger: Ledger,
    workers: Mutex<HashMap<String, Entry>>,
    worker_ended: Notify,
}

#[derive(Clone)]
struct Entry {
    mailbox: Arc<Mailbox>,
    snapshot: watch::Receiver<Snapshot>,
}

impl Pods {
    /// No pods yet.
    pub(crate) fn new(ctx: Arc<Context>, tasks: Tasks) -> Arc<Self> {
        let ledger = Ledger::new(ctx.allocatable);
        Arc::new(Self {
            ctx,
            tasks,
            ledger,
            workers: Mutex::default(),
            worker_ended: Notify::new(),
        })
    }

    /// Takes over what the node has, clears away what nobody wants any more, and follows the API from then on.
    pub(crate) async fn follow(self: &Arc<Self>, mirror: &Mirror<Pod>) {
        let changes = self.ctx.runtime.subscribe();
        let mut found: HashMap<String, Vec<ContainerStatus>> = HashMap::new();
        match self.ctx.runtime.containers().await {
            Ok(containers) => {
                for container in containers {
                    found.entry(container.pod_uid.clone()).or_default().push(container);
                }
            }
            Err(error) => warn!(%error, "cannot tell what the engine runs"),
        }
        let mut pods = mirror.list();
        pods.sort_by_key(|pod| pod.metadata.creation_timestamp.as_ref().map(|at| at.0));
        let wanted: BTreeSet<String> =
            pods.iter().filter_map(|pod| pod.metadata.uid.clone()).collect();
        self.clear_orphans(&wanted, found.keys()).await;
        let shown_ready: Vec<_> =
            pods.iter().filter(|pod| coracle_api::pods::is_ready(pod)).cloned().collect();
        for pod in pods {
            let found =
                pod.metadata.uid.as_ref().and_then(|uid| found.remove(uid)).unwrap_or_default();
            self.take(&pod, found);
        }
        let this = Arc::clone(self);
        // To the end of the workers: they hear of their containers' ends while they leave.
        self.tasks.spawn_to_end("container changes", async move {
            tokio::select! {
                () = this.deliver(changes) => (),
                () = this.until_left() => (),
            }
        });
        // Weak, because the mirror lives as long as its handlers do.
        let this = Arc::downgrade(self);
        mirror.on_change(move |change| hear(&this, change));
        self.until_told(&shown_ready).await;
    }

    /// What the API says of pods is what the node's last run left there: returns once it says what is so now.
    async fn until_told(&self, pods: &[Arc<Pod>]) {
        let uids = pods.iter().filter_map(|pod| pod.metadata.uid.as_deref());
        let snapshots: Vec<_> = uids.filter_map(|uid| self.snapshot(uid)).collect();
        let told = async {
            for mut snapshot in snapshots {
                // An error means that the worker has ended, and the pod with it.
                let _ = snapshot.wait_for(|snapshot| snapshot.told).await;
            }
        };
        if tokio::time::timeout(TOLD, told).await.is_err() {
            warn!("pods may be shown ready that are not");
        }
    }

    /// What the pod's worker shows, or `None` when this node does not have it.
    pub(crate) fn snapshot(&self, uid: &str) -> Option<watch::Receiver<Snapshot>> {
        self.workers.lock().get(uid).map(|entry| entry.snapshot.clone())
    }

    fn take(self: &Arc<Self>, pod: &Arc<Pod>, found: Vec<ContainerStatus>) {
        let Some(uid) = pod.metadata.uid.clone() else { return };
        let mut workers = self.workers.lock();
        if let Some(entry) = workers.get(&uid) {
            entry.mailbox.pod(Arc::clone(pod));
            return;
        }
        if self.tasks.token().is_cancelled() {
            // The last words of a worker that has left come back as a change: they are no reason to start another.
            return;
        }
        let mailbox = Arc::new(Mailbox::default());
        let (shown, snapshot) = watch::channel(Snapshot::default());
        let (charge, refusal) = admit(&self.ledger, pod);
        if let Some(refusal) = &refusal {
            self.ctx.recorder.warning(pod.as_ref(), &refusal.reason, refusal.message.clone());
        }
        let beginning = Beginning { pod: Arc::clone(pod), found, refusal, charge };
        let worker = Worker::new(Arc::clone(&self.ctx), Arc::clone(&mailbox), shown, beginning);
        workers.insert(uid.clone(), Entry { mailbox, snapshot });
        drop(workers);
        let this = Arc::clone(self);
        // To its end: a worker sees the shutdown itself.
        self.tasks.spawn_to_end("pod", async move {
            worker.live().await;
            this.workers.lock().remove(&uid);
            this.worker_ended.notify_waiters();
        });
    }

    fn gone(&self, uid: &str) {
        if let Some(entry) = self.workers.lock().get(uid) {
            entry.mailbox.gone();
        }
    }

    /// Returns when the node stops and no worker is left.
    async fn until_left(&self) {
        self.tasks.token().cancelled().await;
        loop {
            let ended = self.worker_ended.notified();
            if self.workers.lock().is_empty() {
                return;
            }
            ended.await;
        }
    }

    /// Brings each change of a container to its pod's worker.
    async fn deliver(&self, mut changes: broadcast::Receiver<ContainerStatus>) {
        loop {
            match changes.recv().await {
                Ok(status) => self.tell(status),
                Err(broadcast::error::RecvError::Lagged(missed)) => {
                    info!(missed, "container changes came too fast, looking at all of them");
                    match self.ctx.runtime.containers().await {
                        Ok(containers) => {
                            containers.into_iter().for_each(|status| self.tell(status))
                        }
                        Err(error) => warn!(%error, "cannot tell what the engine runs"),
                    }
                }
                Err(broadcast::error::RecvError::Closed) => return,
            }
        }
    }

    fn tell(&self, status: ContainerStatus) {
        let mailbox =
            self.workers.lock().get(&status.pod_uid).map(|entry| Arc::clone(&entry.mailbox));
        if let Some(mailbox) = mailbox {
            mailbox.container(status);
        }
    }

    /// Removes what is left of pods that were deleted while nobody looked.
    async fn clear_orphans(&self, wanted: &BTreeSet<String>, found: impl Iterator<Item = &String>) {
        for uid in found.filter(|uid| !wanted.contains(*uid)) {
            info!(pod = uid, "removing an orphaned pod");
            if let Err(error) = self.ctx.runtime.remove_sandbox(uid).await {
                warn!(pod = uid, %error, "orphaned pod not removed");
            }
        }
        let (pods, logs) = (self.ctx.data_dir.join("pods"), self.ctx.data_dir.join("pods-logs"));
        let wanted = wanted.clone();
        let cleared = tokio::task::spawn_blocking(move || {
            clear(&pods, |name| wanted.contains(name));
            // The uid is what follows the last underscore.
            clear(&logs, |name| name.rsplit_once('_').is_some_and(|(_, uid)| wanted.contains(uid)));
        });
        if let Err(error) = cleared.await {
            warn!(%error, "orphaned files not removed");
        }
    }
}

fn hear(pods: &Weak<Pods>, change: &Change<Pod>) {
    let Some(pods) = pods.upgrade() else { return };
    let uid = |pod: &Pod| pod.metadata.uid.clone();
    match change {
        Change::Applied { old, new } => {
            // A name that was given to another pod: the watch told both at once.
            if let Some(old) =
                old.as_ref().and_then(|old| uid(old)).filter(|old| Some(old) != uid(new).as_ref())
            {
                pods.gone(&old);
            }
            pods.take(new, Vec::new());
        }
        Change::Deleted(last) => {
            if let Some(uid) = uid(last) {
                pods.gone(&uid);
            }
        }
    }
}

fn clear(directory: &Path, wanted: impl Fn(&str) -> bool) {
    let Ok(entries) = std::fs::read_dir(directory) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        if wanted(&name.to_string_lossy()) {
            continue;
        }
        if let Err(error) = std::fs::remove_dir_all(entry.path()) {
            warn!(path = %entry.path().display(), %error, "orphaned files not removed");
        }
    }
}

/// The pod's key and uid, for lookups by name.
pub(crate) fn find(mirror: &Mirror<Pod>, namespace: &str, name: &str) -> Option<Arc<Pod>> {
    mirror.get(&ObjectKey::new(namespace, name))
}
