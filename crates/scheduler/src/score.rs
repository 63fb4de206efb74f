//! How well a node suits a pod, as upstream's default plugins weigh it.

use std::cmp::Reverse;

use crate::claim::Claim;
use crate::constraints::{matches_term, tolerates};
use crate::node::Node;
use crate::relations::Relations;

/// The best that each score can be.
const MOST: i64 = 100;

/// Upstream's default weights.
const TAINTS: i64 = 3;
const AFFINITY: i64 = 2;
const LEAST_ALLOCATED: i64 = 1;
const BALANCED: i64 = 1;
const ATTRACTION: i64 = 2;
const EVENNESS: i64 = 2;

/// The node that suits the pod best.
pub(crate) fn best<'a>(
    claim: &Claim,
    relations: &Relations,
    nodes: &[&'a Node],
) -> Option<&'a Node> {
    if let [only] = nodes {
        return Some(only);
    }
    let scores = total(claim, relations, nodes);
    let scored = nodes.iter().zip(scores);
    scored
        .max_by_key(|(node, score)| (*score, Reverse(node.load.pods), Reverse(&node.name)))
        .map(|(node, _)| *node)
}

/// The weighted sum of all scores of each node.
pub(crate) fn total(claim: &Claim, relations: &Relations, nodes: &[&Node]) -> Vec<i64> {
    let preferred = normalize(nodes.iter().map(|node| preference(claim, node)).collect());
    let repelled = normalize(nodes.iter().map(|node| repulsion(claim, node)).collect());
    let others = preferred.iter().zip(repelled);
    let each = nodes.iter().zip(others).map(|(node, (preferred, repelled))| {
        AFFINITY * preferred
            + TAINTS * (MOST - repelled)
            + LEAST_ALLOCATED * least_allocated(claim, node)
            + BALANCED * balanced(claim, node)
    });
    let mut total: Vec<i64> = each.collect();
    let attraction = relations.attraction(nodes).map(|scores| (ATTRACTION, scores));
    let evenness = relations.evenness(claim, nodes).map(|scores| (EVENNESS, scores));
    for (weight, scores) in attraction.into_iter().chain(evenness) {
        total.iter_mut().zip(scores).for_each(|(total, score)| *total += weight * score);
    }
    total
}

/// Scales scores so that the highest is the most there is.
fn normalize(mut scores: Vec<i64>) -> Vec<i64> {
    let highest = scores.iter().copied().max().unwrap_or(0);
    if highest > 0 {
        scores.iter_mut().for_each(|score| *score = *score * MOST / highest);
    }
    scores
}

/// The weights of the preferences that the node meets.
fn preference(claim: &Claim, node: &Node) -> i64 {
    let met = claim.preferred.iter();
    let met = met.filter(|term| matches_term(&term.preference, &node.labels, &node.name));
    met.map(|term| i64::from(term.weight)).sum()
}

/// How many taints would rather not have the pod.
fn repulsion(claim: &Claim, node: &Node) -> i64 {
    let taints = node.taints.iter().filter(|taint| taint.effect == "PreferNoSchedule");
    let repelling = taints.filter(|taint| !tolerates(&claim.tolerations, taint));
    repelling.count().try_into().unwrap_or(i64::MAX)
}

/// The part of the node that stays free with the pod on it: spreads pods.
fn least_allocated(claim: &Claim, node: &Node) -> i64 {
    let parts = usage(claim, node).into_iter().flatten();
    let free = parts.map(|(used, has)| if used > has { 0 } else { scale(has - used, has) });
    let free: Vec<i64> = free.collect();
    let count = i64::try_from(free.len()).unwrap_or(i64::MAX);
    if count == 0 { 0 } else { free.iter().sum::<i64>() / count }
}

/// How evenly CPU and memory are used with the pod on it: so that neither runs out long before the other.
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    reason = "a score is approximate"
)]
fn balanced(claim: &Claim, node: &Node) -> i64 {
    let mut load = node.load.requests.clone();
    load.add(&claim.requests);
    let has = &node.allocatable;
    let part =
        |used: i64, has: i64| if has > 0 { (used as f64 / has as f64).min(1.0) } else { 0.0 };
    let cpu = part(load.milli_cpu, has.milli_cpu);
    let memory = part(load.memory_bytes, has.memory_bytes);
    // The standard deviation of two values is half their distance.
    ((1.0 - (cpu - memory).abs() / 2.0) * MOST as f64) as i64
}

/// CPU and memory with the pod on it: used, and there at all; `None` for what the node does not have.
fn usage(claim: &Claim, node: &Node) -> [Option<(i64, i64)>; 2] {
    let (load, has) = (&node.load.nonzero, &node.allocatable);
    let part =
        |used: i64, more: i64, has: i64| (has > 0).then_some((used.saturating_add(more), has));
    [
        part(load.milli_cpu, claim.nonzero.milli_cpu, has.milli_cpu),
        part(load.memory_bytes, claim.nonzero.memory_bytes, has.memory_bytes),
    ]
}

fn scale(part: i64, whole: i64) -> i64 {
    i64::try_from(i128::from(part) * i128::from(MOST) / i128::from(whole)).unwrap_or(MOST)
}
