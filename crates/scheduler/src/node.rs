//! A node as the scheduler sees it: what it has, and what its pods take of it.

use std::collections::BTreeMap;
use std::sync::Arc;

use coracle_api::quantity::Quantity;
use k8s_openapi::api::core::v1::{Node as ApiNode, Taint};

use crate::claim::Claim;
use crate::constraints::{HostPort, Labels};
use crate::resources::Resources;

/// A node and its load.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Node {
    /// Its name.
    pub name: String,
    /// What pods may use of it.
    pub allocatable: Resources,
    /// How many pods it takes.
    pub most_pods: i64,
    pub(crate) labels: Arc<Labels>,
    pub(crate) taints: Arc<Vec<Taint>>,
    pub(crate) is_cordoned: bool,
    /// The size of each image that it has, by name.
    pub(crate) images: Arc<BTreeMap<String, i64>>,
    /// What its pods take.
    pub(crate) load: Load,
}

/// What pods take of a node.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Load {
    pub(crate) requests: Resources,
    pub(crate) nonzero: Resources,
    pub(crate) pods: i64,
    pub(crate) host_ports: Vec<HostPort>,
}

impl Node {
    /// This node, without any pods.
    pub fn of(node: &ApiNode) -> Node {
        let spec = node.spec.clone().unwrap_or_default();
        let allocatable = node.status.as_ref().and_then(|status| status.allocatable.as_ref());
        let most_pods =
            allocatable.and_then(|amounts| amounts.get("pods")?.0.parse::<Quantity>().ok());
        Node {
            name: node.metadata.name.clone().unwrap_or_default(),
            allocatable: Resources::from_amounts(allocatable),
            most_pods: most_pods.map_or(0, |quantity| quantity.value()),
            labels: Arc::new(node.metadata.labels.clone().unwrap_or_default()),
            taints: Arc::new(spec.taints.unwrap_or_default()),
            is_cordoned: spec.unschedulable.unwrap_or_default(),
            images: Arc::new(images(node)),
            load: Load::default(),
        }
    }

    /// Counts a pod in.
    pub fn add(&mut self, claim: &Claim) {
        self.load.requests.add(&claim.requests);
        self.load.nonzero.add(&claim.nonzero);
        self.load.pods += 1;
        self.load.host_ports.extend(claim.host_ports.iter().cloned());
    }

    /// Counts a pod out.
    pub fn remove(&mut self, claim: &Claim) {
        self.load.requests.subtract(&claim.requests);
        self.load.nonzero.subtract(&claim.nonzero);
        self.load.pods -= 1;
        for port in &claim.host_ports {
            if let Some(index) = self.load.host_ports.iter().position(|taken| taken == port) {
                self.load.host_ports.swap_remove(index);
            }
        }
    }
}

fn images(node: &ApiNode) -> BTreeMap<String, i64> {
    let images = node.status.iter().flat_map(|status| status.images.iter().flatten());
    let named = images.flat_map(|image| {
        let size = image.size_bytes.unwrap_or_default();
        image.names.iter().flatten().map(move |name| (name.clone(), size))
    });
    named.collect()
}
