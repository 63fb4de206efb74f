//! What was counted for the last few kinds of pods, kept current as pods come and go.
//!
//! The pods of one owner are alike: what the pods that are there mean for one of them is counted once, and then only
//! what changes. Without this each of a thousand pods would look at all others.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::claim::Claim;
use crate::neighbours::Neighbours;
use crate::node::Node;
use crate::terms::Namespaces;

/// Kinds of pods that are remembered: as many as are rolled out at once in a busy moment, few enough that keeping all of
/// them current costs less than a placement.
const MOST: usize = 16;

/// The last few kinds of pods, the last asked for first.
#[derive(Debug, Default)]
pub(crate) struct Shapes {
    known: VecDeque<Shape>,
}

#[derive(Debug)]
struct Shape {
    scheduler: String,
    claim: Arc<Claim>,
    neighbours: Arc<Neighbours>,
    is_settled: bool,
}

impl Shapes {
    /// What is known for pods like this one.
    pub(crate) fn get(&mut self, scheduler: &str, claim: &Claim) -> Option<Arc<Neighbours>> {
        let is_alike =
            |shape: &Shape| shape.scheduler == scheduler && shape.claim.relates_like(claim);
        let index = self.known.iter().position(is_alike)?;
        let mut shape = self.known.remove(index)?;
        if !shape.is_settled {
            Arc::make_mut(&mut shape.neighbours).settle(&shape.claim);
            shape.is_settled = true;
        }
        let neighbours = shape.neighbours.clone();
        self.known.push_front(shape);
        Some(neighbours)
    }

    /// Remembers what was counted for such pods.
    pub(crate) fn insert(
        &mut self,
        scheduler: &str,
        claim: &Arc<Claim>,
        neighbours: Arc<Neighbours>,
    ) {
        self.known.truncate(MOST - 1);
        let (scheduler, claim) = (scheduler.to_owned(), claim.clone());
        self.known.push_front(Shape { scheduler, claim, neighbours, is_settled: true });
    }

    /// Counts a pod in, or with a negative number out.
    pub(crate) fn count(&mut self, node: &Node, other: &Claim, namespaces: &Namespaces, by: i64) {
        for shape in &mut self.known {
            if Neighbours::exist(&shape.claim, other, namespaces) {
                let neighbours = Arc::make_mut(&mut shape.neighbours);
                neighbours.count(&shape.claim, node, other, namespaces, by);
                shape.is_settled = false;
            }
        }
    }

    /// Forgets everything: the nodes or namespaces are others than those that were counted.
    pub(crate) fn clear(&mut self) {
        self.known.clear();
    }
}
