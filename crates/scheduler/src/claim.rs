//! What a pod asks of a node, taken out of its spec once.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    NodeSelectorTerm, Pod, PodSpec, PreferredSchedulingTerm, Toleration,
};

use crate::constraints::{HostPort, Labels, host_ports};
use crate::resources::Resources;
use crate::terms::Terms;
use crate::volumes::Mount;

/// What a pod asks of a node.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Claim {
    /// What it needs at most at once.
    pub requests: Resources,
    pub(crate) namespace: String,
    pub(crate) labels: Labels,
    /// What it says about other pods.
    pub(crate) terms: Terms,
    /// The claims on volumes that it mounts.
    pub(crate) mounts: Vec<Mount>,
    /// Whether it is being deleted.
    pub(crate) is_leaving: bool,
    /// Pods with less may be preempted for it.
    pub(crate) priority: i32,
    /// The same for comparing nodes, where asking for nothing still counts for something.
    pub(crate) nonzero: Resources,
    pub(crate) node_selector: BTreeMap<String, String>,
    /// One of these must match, if there are any.
    pub(crate) required: Option<Vec<NodeSelectorTerm>>,
    pub(crate) preferred: Vec<PreferredSchedulingTerm>,
    pub(crate) tolerations: Vec<Toleration>,
    pub(crate) host_ports: Vec<HostPort>,
    /// Whether other pods may not be preempted for it.
    pub(crate) never_preempts: bool,
    /// The images of its containers and volumes, each with its tag.
    pub(crate) images: Vec<String>,
}

impl Claim {
    /// What this pod asks for.
    pub fn of(pod: &Pod) -> Claim {
        let Some(spec) = &pod.spec else { return Claim::default() };
        let affinity = spec.affinity.as_ref().and_then(|affinity| affinity.node_affinity.as_ref());
        let required = affinity.and_then(|affinity| {
            affinity.required_during_scheduling_ignored_during_execution.as_ref()
        });
        let preferred = affinity.and_then(|affinity| {
            affinity.preferred_during_scheduling_ignored_during_execution.clone()
        });
        let namespace = pod.metadata.namespace.clone().unwrap_or_default();
        let labels = pod.metadata.labels.clone().unwrap_or_default();
        Claim {
            requests: Resources::of_pod(spec),
            terms: Terms::of(spec, &labels, &namespace),
            mounts: Mount::all_of(spec, pod.metadata.name.as_deref().unwrap_or_default()),
            is_leaving: pod.metadata.deletion_timestamp.is_some(),
            namespace,
            labels,
            priority: spec.priority.unwrap_or(0),
            nonzero: Resources::of_pod_nonzero(spec),
            node_selector: spec.node_selector.clone().unwrap_or_default(),
            required: required.map(|required| required.node_selector_terms.clone()),
            preferred: preferred.unwrap_or_default(),
            tolerations: spec.tolerations.clone().unwrap_or_default(),
            host_ports: host_ports(spec),
            never_preempts: spec.preemption_policy.as_deref() == Some("Never"),
            images: images(spec),
        }
    }

    /// Whether what other pods mean for both is the same.
    pub(crate) fn relates_like(&self, other: &Claim) -> bool {
        self.terms == other.terms
            && self.mounts == other.mounts
            && self.labels == other.labels
            && self.namespace == other.namespace
            && self.node_selector == other.node_selector
            && self.required == other.required
            && self.tolerations == other.tolerations
    }
}

/// The images that a pod brings to its node, named as nodes name them.
fn images(spec: &PodSpec) -> Vec<String> {
    let containers = spec.init_containers.iter().flatten().chain(&spec.containers);
    let volumes = spec.volumes.iter().flatten().filter_map(|volume| volume.image.as_ref());
    let named = containers.filter_map(|container| container.image.as_deref());
    let named = named.chain(volumes.filter_map(|image| image.reference.as_deref()));
    named.map(with_tag).collect()
}

/// What names no tag means the latest.
fn with_tag(image: &str) -> String {
    let last = image.rsplit('/').next().unwrap_or(image);
    if last.contains(':') { image.to_owned() } else { format!("{image}:latest") }
}
