//! What the scheduler keeps of a pod.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{self as api, PodCondition};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube_derive::Resource;
use serde::Deserialize;

use crate::claim::Claim;
use crate::owners::Owner;

/// The reason of a preempted pod's condition `DisruptionTarget`.
pub(crate) const PREEMPTED: &str = "PreemptionByScheduler";

/// A pod, as far as placing it goes: read from what the API says of it, most of which is dropped at once.
///
/// A cluster has many pods, and a whole one takes 20 KiB in memory.
#[derive(Debug, Clone, Deserialize, Resource)]
#[serde(from = "api::Pod")]
#[resource(inherit = "api::Pod")]
pub(crate) struct Pod {
    /// Which pod in which state; without annotations and owners, and its labels are the claim's.
    pub(crate) metadata: ObjectMeta,
    pub(crate) claim: Arc<Claim>,
    /// Who is to place it, if it says so.
    pub(crate) scheduler: Option<String>,
    /// Which controller made it, if that selects its pods.
    pub(crate) owner: Option<Owner>,
    /// Where it is.
    pub(crate) node: Option<String>,
    /// Whether it waits for its scheduling gates to open.
    pub(crate) is_gated: bool,
    /// Whether none of its containers will run again.
    pub(crate) is_over: bool,
    /// Whether it has been told to make room for another pod.
    pub(crate) is_preempted: bool,
    /// The node that other pods were preempted on for it.
    pub(crate) nominated: Option<String>,
    /// Since when its node runs it.
    pub(crate) started: Option<jiff::Timestamp>,
    /// The condition `PodScheduled`, as long as it is false.
    pub(crate) unscheduled: Option<Box<PodCondition>>,
}

impl Pod {
    /// Which scheduler is to place it.
    pub(crate) fn scheduler_name(&self) -> &str {
        self.scheduler.as_deref().unwrap_or("default-scheduler")
    }
}

impl From<api::Pod> for Pod {
    fn from(pod: api::Pod) -> Pod {
        let claim = Arc::new(Claim::of(&pod));
        let owners = pod.metadata.owner_references.as_deref();
        let owner = owners.and_then(Owner::of);
        let spec = pod.spec.unwrap_or_default();
        let status = pod.status.unwrap_or_default();
        let conditions = status.conditions.unwrap_or_default();
        Pod {
            claim,
            metadata: ObjectMeta {
                name: pod.metadata.name,
                namespace: pod.metadata.namespace,
                uid: pod.metadata.uid,
                resource_version: pod.metadata.resource_version,
                generation: pod.metadata.generation,
                deletion_timestamp: pod.metadata.deletion_timestamp,
                ..ObjectMeta::default()
            },
            scheduler: spec.scheduler_name,
            owner,
            node: spec.node_name.filter(|name| !name.is_empty()),
            is_gated: spec.scheduling_gates.is_some_and(|gates| !gates.is_empty()),
            is_over: matches!(status.phase.as_deref(), Some("Succeeded" | "Failed")),
            is_preempted: conditions.iter().any(|condition| {
                condition.type_ == "DisruptionTarget"
                    && condition.status == "True"
                    && condition.reason.as_deref() == Some(PREEMPTED)
            }),
            nominated: status.nominated_node_name.filter(|name| !name.is_empty()),
            started: status.start_time.map(|time| time.0),
            unscheduled: conditions
                .into_iter()
                .find(|condition| condition.type_ == "PodScheduled" && condition.status == "False")
                .map(Box::new),
        }
    }
}
