//! What the rest of the cluster means for one pod that is to be placed. Pure.

use std::sync::Arc;

use crate::claim::Claim;
use crate::neighbours::Neighbours;
use crate::node::Node;
use crate::place::Refusal;
use crate::profile::{Plugin, Profile};
use crate::terms::Namespaces;
use crate::volumes::Demand;

/// What the rest of the cluster means for one pod.
#[derive(Debug, Clone, Default)]
pub struct Relations {
    /// What the pods that are there mean; shared with who keeps it current.
    pub(crate) neighbours: Arc<Neighbours>,
    /// What its claims on volumes ask of a node.
    pub(crate) volumes: Demand,
    /// Of each of its images, the part of all nodes that have it.
    pub(crate) images: Vec<f64>,
}

impl Relations {
    /// Counts the pods that are there, given with their nodes; all nodes, because empty ones count for spread.
    pub fn of<'a>(
        by: &Profile,
        claim: &Claim,
        nodes: impl Iterator<Item = &'a Node>,
        pods: impl Iterator<Item = (&'a Node, &'a Claim)>,
        namespaces: &Namespaces,
    ) -> Relations {
        let neighbours = Arc::new(Neighbours::of(by, claim, nodes, pods, namespaces));
        Relations { neighbours, ..Relations::default() }
    }

    /// Why the pod may not go to the node.
    pub(crate) fn refusal(&self, by: &Profile, claim: &Claim, node: &Node) -> Option<Refusal> {
        let volumes = by.filters.has(Plugin::VolumeBinding);
        let volumes = volumes.then(|| self.volumes.refusal(node)).flatten();
        volumes.or_else(|| self.neighbours.refusal(by, claim, node))
    }

    /// Counts a pod in, or with a negative number out.
    pub(crate) fn count(
        &mut self,
        claim: &Claim,
        node: &Node,
        other: &Claim,
        namespaces: &Namespaces,
        by: i64,
    ) {
        let neighbours = Arc::make_mut(&mut self.neighbours);
        neighbours.count(claim, node, other, namespaces, by);
        neighbours.settle(claim);
    }
}

#[cfg(test)]
#[path = "relations_tests.rs"]
mod tests;
