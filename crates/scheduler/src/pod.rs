//! What the scheduler keeps of a pod.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{self as api, PodCondition};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube_derive::Resource;
use serde::Deserialize;

use crate::claim::Claim;

/// A pod, as far as placing it goes: read from what the API says of it, most of which is dropped at once.
///
/// A cluster has many pods, and a whole one takes 20 KiB in memory.
#[derive(Debug, Clone, Deserialize, Resource)]
#[serde(from = "api::Pod")]
#[resource(inherit = "api::Pod")]
pub(crate) struct Pod {
    /// Which pod in which state; without labels, annotations and owners.
    pub(crate) metadata: ObjectMeta,
    pub(crate) claim: Arc<Claim>,
    pub(crate) priority: i32,
    /// Who is to place it, if it says so.
    pub(crate) scheduler: Option<String>,
    /// Where it is.
    pub(crate) node: Option<String>,
    /// Whether it waits for its scheduling gates to open.
    pub(crate) is_gated: bool,
    /// Whether none of its containers will run again.
    pub(crate) is_over: bool,
    /// The condition `PodScheduled`, as long as it is false.
    pub(crate) unscheduled: Option<Box<PodCondition>>,
}

impl From<api::Pod> for Pod {
    fn from(pod: api::Pod) -> Pod {
        let spec = pod.spec.unwrap_or_default();
        let status = pod.status.unwrap_or_default();
        let mut conditions = status.conditions.into_iter().flatten();
        Pod {
            claim: Arc::new(Claim::of_spec(&spec)),
            metadata: ObjectMeta {
                name: pod.metadata.name,
                namespace: pod.metadata.namespace,
                uid: pod.metadata.uid,
                resource_version: pod.metadata.resource_version,
                generation: pod.metadata.generation,
                deletion_timestamp: pod.metadata.deletion_timestamp,
                ..ObjectMeta::default()
            },
            priority: spec.priority.unwrap_or(0),
            scheduler: spec.scheduler_name,
            node: spec.node_name.filter(|name| !name.is_empty()),
            is_gated: spec.scheduling_gates.is_some_and(|gates| !gates.is_empty()),
            is_over: matches!(status.phase.as_deref(), Some("Succeeded" | "Failed")),
            unscheduled: conditions
                .find(|condition| condition.type_ == "PodScheduled" && condition.status == "False")
                .map(Box::new),
        }
    }
}
