//! What the scheduler watches, and how it takes each change in.

use std::fmt::Debug;
use std::sync::Arc;

use coracle_reconcile::{Change, Mirror, NotSynced, ObjectKey};
use k8s_openapi::api::core::v1::{Namespace, Node, PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::api::storage::v1::StorageClass;
use kube::ResourceExt;
use serde::de::DeserializeOwned;

use super::Scheduler;
use crate::owners::{
    ReplicaSetSelector, ReplicationControllerSelector, SelectsPods, ServiceSelector,
    StatefulSetSelector,
};
use crate::pod::Pod;

/// What is known of volumes.
pub(super) struct Storage {
    pub(super) claims: Mirror<PersistentVolumeClaim>,
    pub(super) volumes: Mirror<PersistentVolume>,
    pub(super) classes: Mirror<StorageClass>,
}

impl Storage {
    pub(super) async fn synced(&self) -> Result<(), NotSynced> {
        self.claims.synced().await?;
        self.volumes.synced().await?;
        self.classes.synced().await
    }
}

/// Who selects pods.
pub(super) struct Selecting {
    pub(super) services: Mirror<ServiceSelector>,
    pub(super) replication_controllers: Mirror<ReplicationControllerSelector>,
    pub(super) replica_sets: Mirror<ReplicaSetSelector>,
    pub(super) stateful_sets: Mirror<StatefulSetSelector>,
}

impl Selecting {
    pub(super) async fn synced(&self) -> Result<(), NotSynced> {
        self.services.synced().await?;
        self.replication_controllers.synced().await?;
        self.replica_sets.synced().await?;
        self.stateful_sets.synced().await
    }
}

impl Scheduler {
    pub(super) fn follow(self: &Arc<Self>, nodes: &Mirror<Node>, pods: &Mirror<Pod>) {
        // Nodes first, so that no pod is called unschedulable for want of nodes that are just not read yet.
        let this = self.clone();
        nodes.on_change(move |change| {
            this.tell(|cluster| match change {
                Change::Applied { new, .. } => cluster.node_applied(new),
                Change::Deleted(last) => cluster.node_deleted(&last.name_any()),
            });
        });
        let this = self.clone();
        pods.on_change(move |change| {
            this.tell(|cluster| match change {
                Change::Applied { old, new } => {
                    // One name, another pod: the watch was away while the old one was deleted.
                    if let Some(old) =
                        old.as_ref().filter(|old| old.metadata.uid != new.metadata.uid)
                    {
                        cluster.pod_deleted(old);
                    }
                    cluster.pod_applied(new);
                }
                Change::Deleted(last) => cluster.pod_deleted(last),
            });
        });
    }

    pub(super) fn follow_budgets(self: &Arc<Self>, budgets: &Mirror<PodDisruptionBudget>) {
        let this = self.clone();
        budgets.on_change(move |change| {
            this.tell(|cluster| match change {
                Change::Applied { new, .. } => cluster.budget_applied(new),
                Change::Deleted(last) => {
                    let key = ObjectKey::of(&**last);
                    cluster.budget_deleted(&key.namespace, &key.name);
                }
            });
        });
    }

    pub(super) fn follow_namespaces(self: &Arc<Self>, namespaces: &Mirror<Namespace>) {
        let this = self.clone();
        namespaces.on_change(move |change| {
            let name = change.object().name_any();
            this.tell(|cluster| match change {
                Change::Applied { new, .. } => {
                    cluster.namespace_applied(&name, new.labels().clone());
                }
                Change::Deleted(_) => cluster.namespace_deleted(&name),
            });
        });
    }

    pub(super) fn follow_storage(self: &Arc<Self>, storage: &Storage) {
        let this = self.clone();
        storage.claims.on_change(move |change| {
            let key = ObjectKey::of(&**change.object());
            this.tell(|cluster| match change {
                Change::Applied { new, .. } => {
                    cluster.volumes_changed(|volumes| volumes.claim_applied(new));
                }
                Change::Deleted(_) => cluster.volumes_changed(|volumes| {
                    volumes.claim_deleted(&key.namespace, &key.name);
                    false
                }),
            });
        });
        let this = self.clone();
        storage.volumes.on_change(move |change| {
            this.tell(|cluster| match change {
                Change::Applied { new, .. } => {
                    cluster.volumes_changed(|volumes| volumes.volume_applied(new));
                }
                Change::Deleted(last) => cluster.volumes_changed(|volumes| {
                    volumes.volume_deleted(&last.name_any());
                    false
                }),
            });
        });
        let this = self.clone();
        storage.classes.on_change(move |change| {
            this.tell(|cluster| match change {
                Change::Applied { new, .. } => {
                    cluster.volumes_changed(|volumes| volumes.class_applied(new));
                }
                Change::Deleted(last) => cluster.volumes_changed(|volumes| {
                    volumes.class_deleted(&last.name_any());
                    false
                }),
            });
        });
    }

    pub(super) fn follow_owners(self: &Arc<Self>, owners: &Selecting) {
        let this = self.clone();
        owners.services.on_change(move |change| {
            let key = ObjectKey::of(&**change.object());
            this.cluster.lock().owners_changed(|owners| match change {
                Change::Applied { new, .. } => owners.service_applied(new),
                Change::Deleted(_) => owners.service_deleted(&key.namespace, &key.name),
            });
        });
        self.follow_controllers(&owners.replication_controllers);
        self.follow_controllers(&owners.replica_sets);
        self.follow_controllers(&owners.stateful_sets);
    }

    fn follow_controllers<T>(self: &Arc<Self>, controllers: &Mirror<T>)
    where
        T: SelectsPods + kube::Resource + Clone + DeserializeOwned + Debug + Send + Sync + 'static,
    {
        let this = self.clone();
        controllers.on_change(move |change| {
            let key = ObjectKey::of(&**change.object());
            this.cluster.lock().owners_changed(|owners| match change {
                Change::Applied { new, .. } => owners.controller_applied(&**new),
                Change::Deleted(_) => {
                    owners.controller_deleted(T::KIND, &key.namespace, &key.name);
                }
            });
        });
    }
}
