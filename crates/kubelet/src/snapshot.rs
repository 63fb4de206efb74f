//! What a worker shows of its pod to the kubelet's own API.

use std::collections::BTreeMap;

use coracle_runtime::ContainerId;
use k8s_openapi::api::core::v1::Pod;

use crate::record::{Activity, Record};

/// A pod's containers at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Snapshot {
    /// By name.
    pub(crate) containers: BTreeMap<String, ContainerView>,
    /// True when nothing of the pod runs or will run.
    pub(crate) ended: bool,
    /// True when the API shows the pod as this node has it, not as one before it had.
    pub(crate) told: bool,
    /// The pod's labels may matter to who reads metrics; its version tells whether it changed.
    pub(crate) version: Option<String>,
}

/// One container at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ContainerView {
    /// The number of the attempt that runs or ran last, if there was one.
    pub(crate) attempt: Option<u32>,
    /// True while that attempt runs.
    pub(crate) running: bool,
    /// That attempt.
    pub(crate) id: Option<ContainerId>,
    /// Why it waits, when it does.
    pub(crate) waiting: Option<String>,
}

impl Snapshot {
    /// What the worker knows now.
    pub(crate) fn of(pod: &Pod, records: &BTreeMap<String, Record>, ended: bool) -> Self {
        let containers =
            records.iter().map(|(name, record)| (name.clone(), ContainerView::of(record)));
        Self {
            containers: containers.collect(),
            ended,
            told: false,
            version: pod.metadata.resource_version.clone(),
        }
    }
}

impl ContainerView {
    fn of(record: &Record) -> Self {
        let running =
            matches!(record.activity, Activity::Running { .. } | Activity::Stopping { .. });
        Self {
            attempt: record.begun().checked_sub(1),
            running,
            id: record.id.clone(),
            waiting: record.waiting.as_ref().map(|waiting| waiting.reason.clone()),
        }
    }
}
