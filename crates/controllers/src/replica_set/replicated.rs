//! What a ReplicaSet and a ReplicationController have in common: all but the words of their selectors.

use std::borrow::Cow;

use coracle_reconcile::Mirror;
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::apps::v1::{ReplicaSet, ReplicaSetCondition, ReplicaSetStatus};
use k8s_openapi::api::core::v1::{
    PodTemplateSpec, ReplicationController, ReplicationControllerCondition,
    ReplicationControllerStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::Resource;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::context::Mirrors;

/// A kind that keeps a number of pods of one template. Upstream: the adapter in
/// `pkg/controller/replication/conversion.go`.
pub(super) trait Replicated:
    Resource<DynamicType = (), Scope = NamespaceResourceScope>
    + Clone
    + std::fmt::Debug
    + Serialize
    + DeserializeOwned
    + Send
    + Sync
    + 'static
{
    /// Upstream's name for the controller, which Events bear.
    const CONTROLLER: &'static str;

    /// Where the kind is mirrored.
    fn mirror(mirrors: &Mirrors) -> &Mirror<Self>;

    /// Which pods are its own.
    fn selector(&self) -> Cow<'_, LabelSelector>;

    /// What each pod looks like.
    fn template(&self) -> Option<&PodTemplateSpec>;

    /// How many pods are wanted, when somebody said.
    fn replicas(&self) -> Option<i32>;

    /// For how many seconds a pod has to serve before it counts.
    fn min_ready_seconds(&self) -> Option<i32>;

    /// What was last said.
    fn said(&self) -> Option<ReplicaSetStatus>;

    /// The same object, which says this now.
    fn saying(&self, status: ReplicaSetStatus) -> Self;
}

impl Replicated for ReplicaSet {
    const CONTROLLER: &'static str = "replicaset-controller";

    fn mirror(mirrors: &Mirrors) -> &Mirror<Self> {
        &mirrors.replica_sets
    }

    fn selector(&self) -> Cow<'_, LabelSelector> {
        Cow::Borrowed(&self.spec.selector)
    }

    fn template(&self) -> Option<&PodTemplateSpec> {
        self.spec.template.as_ref()
    }

    fn replicas(&self) -> Option<i32> {
        self.spec.replicas
    }

    fn min_ready_seconds(&self) -> Option<i32> {
        self.spec.min_ready_seconds
    }

    fn said(&self) -> Option<ReplicaSetStatus> {
        self.status.clone()
    }

    fn saying(&self, status: ReplicaSetStatus) -> Self {
        Self { status: Some(status), ..self.clone() }
    }
}

impl Replicated for ReplicationController {
    const CONTROLLER: &'static str = "replication-controller";

    fn mirror(mirrors: &Mirrors) -> &Mirror<Self> {
        &mirrors.replication_controllers
    }

    fn selector(&self) -> Cow<'_, LabelSelector> {
        let labels = self.spec.as_ref().and_then(|spec| spec.selector.clone());
        Cow::Owned(LabelSelector { match_labels: labels, match_expressions: None })
    }

    fn template(&self) -> Option<&PodTemplateSpec> {
        self.spec.as_ref().and_then(|spec| spec.template.as_ref())
    }

    fn replicas(&self) -> Option<i32> {
        self.spec.as_ref().and_then(|spec| spec.replicas)
    }

    fn min_ready_seconds(&self) -> Option<i32> {
        self.spec.as_ref().and_then(|spec| spec.min_ready_seconds)
    }

    fn said(&self) -> Option<ReplicaSetStatus> {
        let status = self.status.clone()?;
        let conditions = status.conditions.map(|conditions| {
            conditions.into_iter().map(|known| ReplicaSetCondition {
                last_transition_time: known.last_transition_time,
                message: known.message,
                reason: known.reason,
                status: Some(known.status),
                type_: Some(known.type_),
            })
        });
        Some(ReplicaSetStatus {
            available_replicas: status.available_replicas,
            conditions: conditions.map(Iterator::collect),
            fully_labeled_replicas: status.fully_labeled_replicas,
            observed_generation: status.observed_generation,
            ready_replicas: status.ready_replicas,
            replicas: status.replicas,
            terminating_replicas: None,
        })
    }

    fn saying(&self, status: ReplicaSetStatus) -> Self {
        let conditions = status.conditions.map(|conditions| {
            conditions.into_iter().map(|new| ReplicationControllerCondition {
                last_transition_time: new.last_transition_time,
                message: new.message,
                reason: new.reason,
                status: new.status.unwrap_or_default(),
                type_: new.type_.unwrap_or_default(),
            })
        });
        let status = ReplicationControllerStatus {
            available_replicas: status.available_replicas,
            conditions: conditions.map(Iterator::collect),
            fully_labeled_replicas: status.fully_labeled_replicas,
            observed_generation: status.observed_generation,
            ready_replicas: status.ready_replicas,
            replicas: status.replicas,
        };
        Self { status: Some(status), ..self.clone() }
    }
}
