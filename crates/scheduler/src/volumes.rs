//! Which nodes a pod's claims on volumes allow. Pure.
//!
//! The rules and words are those of upstream's `VolumeBinding` (kubernetes/kubernetes,
//! pkg/scheduler/framework/plugins/volumebinding). What differs: a claim that waits for its first consumer is told the
//! node, and the pod is bound at once; its kubelet waits for the volume.

use std::collections::HashMap;

use coracle_api::nodes::allowed_terms;
use k8s_openapi::api::core::v1::{
    NodeSelectorTerm, PersistentVolume, PersistentVolumeClaim, PodSpec,
};
use k8s_openapi::api::storage::v1::StorageClass;

use crate::constraints::matches_any;
use crate::node::Node;
use crate::place::Refusal;

/// Where a claim says which node its first consumer goes to.
pub(crate) const SELECTED_NODE: &str = "volume.kubernetes.io/selected-node";
/// The binder writes it once a claim and its volume know each other.
const BIND_COMPLETED: &str = "pv.kubernetes.io/bind-completed";
/// Where old manifests name a claim's class.
const CLASS: &str = "volume.beta.kubernetes.io/storage-class";
/// The provisioner of classes whose volumes somebody makes by hand.
const NO_PROVISIONER: &str = "kubernetes.io/no-provisioner";

/// A claim that a pod names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mount {
    pub(crate) claim: String,
    /// Whether the claim is made for this pod alone.
    is_ephemeral: bool,
}

/// What is known of claims, volumes and classes.
#[derive(Debug, Default)]
pub(crate) struct Volumes {
    claims: HashMap<(String, String), KnownClaim>,
    volumes: HashMap<String, KnownVolume>,
    classes: HashMap<String, KnownClass>,
}

#[derive(Debug, PartialEq)]
struct KnownClaim {
    volume: Option<String>,
    is_bound: bool,
    is_leaving: bool,
    class: String,
    selected: Option<String>,
}

#[derive(Debug, PartialEq)]
struct KnownVolume {
    class: String,
    is_available: bool,
    /// The nodes that reach it; all, if it does not say.
    nodes: Option<Vec<NodeSelectorTerm>>,
}

#[derive(Debug, PartialEq)]
struct KnownClass {
    awaits_consumer: bool,
    provisions: bool,
    /// The nodes that volumes may be made for; all, if it does not say.
    allowed: Vec<NodeSelectorTerm>,
}

/// What a pod's claims ask of its node.
#[derive(Debug, Clone, Default)]
pub(crate) struct Demand {
    /// Why no node will do, for now.
    pub(crate) hindrance: Option<String>,
    /// Of each bound volume that says so, the nodes that reach it.
    reachable: Vec<Vec<NodeSelectorTerm>>,
    has_lost_volume: bool,
    /// The claims that are to be told the node.
    pub(crate) undecided: Vec<String>,
    /// The nodes that such claims have been told already.
    selected: Vec<String>,
    /// For each such claim that nothing is made for everywhere, where the volumes are that it could have.
    choices: Vec<Vec<Option<Vec<NodeSelectorTerm>>>>,
}

impl Mount {
    /// The claims that a pod of this name mounts.
    pub(crate) fn all_of(spec: &PodSpec, pod: &str) -> Vec<Mount> {
        let mounts = spec.volumes.iter().flatten().filter_map(|volume| {
            if let Some(source) = &volume.persistent_volume_claim {
                let claim = source.claim_name.clone();
                return Some(Mount { claim, is_ephemeral: false });
            }
            volume.ephemeral.as_ref()?;
            Some(Mount { claim: format!("{pod}-{}", volume.name), is_ephemeral: true })
        });
        mounts.collect()
    }
}

impl Volumes {
    /// Takes in a claim; the answer is whether anything changed.
    pub(crate) fn claim_applied(&mut self, claim: &PersistentVolumeClaim) -> bool {
        let metadata = &claim.metadata;
        let spec = claim.spec.clone().unwrap_or_default();
        let annotation = |key: &str| metadata.annotations.as_ref()?.get(key).cloned();
        let known = KnownClaim {
            volume: spec.volume_name.filter(|name| !name.is_empty()),
            is_bound: annotation(BIND_COMPLETED).is_some(),
            is_leaving: metadata.deletion_timestamp.is_some(),
            class: annotation(CLASS).or(spec.storage_class_name).unwrap_or_default(),
            selected: annotation(SELECTED_NODE).filter(|node| !node.is_empty()),
        };
        let name = |name: &Option<String>| name.clone().unwrap_or_default();
        let key = (name(&metadata.namespace), name(&metadata.name));
        replace(&mut self.claims, key, known)
    }

    /// Takes in that a claim is gone.
    pub(crate) fn claim_deleted(&mut self, namespace: &str, name: &str) {
        self.claims.remove(&(namespace.to_owned(), name.to_owned()));
    }

    /// Takes in a volume; the answer is whether anything changed.
    pub(crate) fn volume_applied(&mut self, volume: &PersistentVolume) -> bool {
        let spec = volume.spec.clone().unwrap_or_default();
        let phase = volume.status.as_ref().and_then(|status| status.phase.as_deref());
        let nodes = spec.node_affinity.and_then(|affinity| affinity.required);
        let known = KnownVolume {
            class: spec.storage_class_name.unwrap_or_default(),
            is_available: phase == Some("Available") && spec.claim_ref.is_none(),
            nodes: nodes.map(|required| required.node_selector_terms),
        };
        replace(&mut self.volumes, volume.metadata.name.clone().unwrap_or_default(), known)
    }

    /// Takes in that a volume is gone.
    pub(crate) fn volume_deleted(&mut self, name: &str) {
        self.volumes.remove(name);
    }

    /// Takes in a class; the answer is whether anything changed.
    pub(crate) fn class_applied(&mut self, class: &StorageClass) -> bool {
        let known = KnownClass {
            awaits_consumer: class.volume_binding_mode.as_deref() == Some("WaitForFirstConsumer"),
            provisions: class.provisioner != NO_PROVISIONER,
            allowed: allowed_terms(class.allowed_topologies.as_deref().unwrap_or_default()),
        };
        replace(&mut self.classes, class.metadata.name.clone().unwrap_or_default(), known)
    }

    /// Takes in that a class is gone.
    pub(crate) fn class_deleted(&mut self, name: &str) {
        self.classes.remove(name);
    }

    /// Counts a claim as told the node, before the API knows.
    pub(crate) fn select(&mut self, namespace: &str, name: &str, node: &str) {
        if let Some(claim) = self.claims.get_mut(&(namespace.to_owned(), name.to_owned())) {
            claim.selected = Some(node.to_owned());
        }
    }

    /// What these claims ask of a node.
    pub(crate) fn demand(&self, namespace: &str, mounts: &[Mount]) -> Demand {
        let mut demand = Demand::default();
        for mount in mounts {
            let name = &mount.claim;
            match self.claims.get(&(namespace.to_owned(), name.clone())) {
                Some(claim) if claim.is_leaving => {
                    let why = format!("persistentvolumeclaim \"{name}\" is being deleted");
                    demand.hindrance.get_or_insert(why);
                }
                Some(claim) => self.add(&mut demand, name, claim),
                None => {
                    let why = match mount.is_ephemeral {
                        true => format!(
                            "waiting for ephemeral volume controller to create the persistentvolumeclaim \"{name}\""
                        ),
                        false => format!("persistentvolumeclaim \"{name}\" not found"),
                    };
                    demand.hindrance.get_or_insert(why);
                }
            }
        }
        demand
    }

    fn add(&self, demand: &mut Demand, name: &str, claim: &KnownClaim) {
        let class = self.classes.get(&claim.class).filter(|class| class.awaits_consumer);
        match (&claim.volume, class) {
            (Some(volume), _) if claim.is_bound => match self.volumes.get(volume) {
                Some(volume) => demand.reachable.extend(volume.nodes.clone()),
                None => demand.has_lost_volume = true,
            },
            (None, Some(class)) => {
                match &claim.selected {
                    Some(node) => demand.selected.push(node.clone()),
                    None => demand.undecided.push(name.to_owned()),
                }
                if !class.provisions || !class.allowed.is_empty() {
                    let volumes = self.volumes.values();
                    let fitting =
                        volumes.filter(|volume| volume.is_available && volume.class == claim.class);
                    let made = class.provisions.then(|| Some(class.allowed.clone()));
                    let fitting = fitting.map(|volume| volume.nodes.clone());
                    demand.choices.push(fitting.chain(made).collect());
                }
            }
            _ => {
                let why = "pod has unbound immediate PersistentVolumeClaims";
                demand.hindrance.get_or_insert(why.to_owned());
            }
        }
    }
}

impl Demand {
    /// Why the node will not do.
    pub(crate) fn refusal(&self, node: &Node) -> Option<Refusal> {
        if let Some(why) = &self.hindrance {
            return Some(Refusal::lasting(why.clone()));
        }
        let reaches = |terms: &Vec<_>| matches_any(terms, &node.labels, &node.name);
        if self.has_lost_volume {
            let reason =
                "node(s) unavailable due to one or more pvc(s) bound to non-existent pv(s)";
            return Some(Refusal::lasting(reason));
        }
        if !self.reachable.iter().all(reaches) {
            let reason = "node(s) didn't match PersistentVolume's node affinity";
            return Some(Refusal::lasting(reason));
        }
        let has_choice = |choice: &Vec<Option<Vec<_>>>| {
            choice.iter().any(|terms| terms.as_ref().is_none_or(reaches))
        };
        let is_selected = self.selected.iter().all(|selected| *selected == node.name);
        (!is_selected || !self.choices.iter().all(has_choice))
            .then(|| Refusal::lasting("node(s) didn't find available persistent volumes to bind"))
    }
}

/// Whether the new value is another than the known one.
fn replace<K: std::hash::Hash + Eq, V: PartialEq>(
    known: &mut HashMap<K, V>,
    key: K,
    value: V,
) -> bool {
    if known.get(&key) == Some(&value) {
        return false;
    }
    known.insert(key, value);
    true
}

#[cfg(test)]
#[path = "volumes_tests.rs"]
mod tests;
