//! How well a node suits a pod, as upstream's plugins weigh it.

use std::cmp::Reverse;

use crate::claim::Claim;
use crate::constraints::{matches_term, tolerates};
use crate::node::Node;
use crate::profile::{Plugin, Preference, Profile};
use crate::relations::Relations;

/// The best that each score can be.
const MOST: i64 = 100;
/// Upstream's bounds for the size of a pod's images: below the first having them is no gain, above the second, for each
/// container, no more gain.
const SMALL_IMAGE_BYTES: i64 = 23 * 1024 * 1024;
const LARGE_IMAGE_BYTES: i64 = 1000 * 1024 * 1024;

/// The node that suits the pod best.
pub(crate) fn best<'a>(
    by: &Profile,
    claim: &Claim,
    relations: &Relations,
    nodes: &[&'a Node],
) -> Option<&'a Node> {
    if let [only] = nodes {
        return Some(only);
    }
    let scores = total(by, claim, relations, nodes);
    let scored = nodes.iter().zip(scores);
    scored
        .max_by_key(|(node, score)| (*score, Reverse(node.load.pods), Reverse(&node.name)))
        .map(|(node, _)| *node)
}

/// The weighted sum of all scores of each node.
pub(crate) fn total(
    by: &Profile,
    claim: &Claim,
    relations: &Relations,
    nodes: &[&Node],
) -> Vec<i64> {
    let mut total = vec![0; nodes.len()];
    let mut add = |plugin: Plugin, scores: &dyn Fn() -> Option<Vec<i64>>| {
        let weight = by.weight(plugin);
        let scores = (weight > 0).then(scores).flatten().unwrap_or_default();
        total.iter_mut().zip(scores).for_each(|(total, score)| *total += weight * score);
    };
    let each = |score: &dyn Fn(&Node) -> i64| nodes.iter().map(|node| score(node)).collect();
    add(Plugin::NodeAffinity, &|| {
        let any = !(claim.preferred.is_empty() && by.added_preferred.is_empty());
        any.then(|| normalize(each(&|node| preference(by, claim, node))))
    });
    add(Plugin::TaintToleration, &|| {
        let any = nodes.iter().any(|node| !node.taints.is_empty());
        let repelled = any.then(|| normalize(each(&|node| repulsion(claim, node))))?;
        Some(repelled.into_iter().map(|score| MOST - score).collect())
    });
    add(Plugin::NodeResourcesFit, &|| Some(each(&|node| usage(by, claim, node))));
    add(Plugin::NodeResourcesBalancedAllocation, &|| {
        // Upstream leaves pods that ask for nothing out: they would all gather on one balanced node.
        let asks = by.balanced.iter().any(|name| claim.requests.get(name) > 0);
        asks.then(|| each(&|node| balance(by, claim, node)))
    });
    add(Plugin::ImageLocality, &|| {
        let any = relations.images.iter().any(|part| *part > 0.0);
        any.then(|| each(&|node| images(claim, &relations.images, node)))
    });
    add(Plugin::InterPodAffinity, &|| relations.neighbours.attraction(nodes));
    add(Plugin::PodTopologySpread, &|| relations.neighbours.evenness(claim, nodes));
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
fn preference(by: &Profile, claim: &Claim, node: &Node) -> i64 {
    let met = claim.preferred.iter().chain(&by.added_preferred);
    let met = met.filter(|term| matches_term(&term.preference, &node.labels, &node.name));
    met.map(|term| i64::from(term.weight)).sum()
}

/// How many taints would rather not have the pod.
fn repulsion(claim: &Claim, node: &Node) -> i64 {
    let taints = node.taints.iter().filter(|taint| taint.effect == "PreferNoSchedule");
    let repelling = taints.filter(|taint| !tolerates(&claim.tolerations, taint));
    repelling.count().try_into().unwrap_or(i64::MAX)
}

/// How much the profile likes the node's use with the pod on it.
fn usage(by: &Profile, claim: &Claim, node: &Node) -> i64 {
    let (mut sum, mut weights) = (0, 0);
    for (name, weight) in &by.strategy.resources {
        let has = node.allocatable.get(name);
        let more = claim.nonzero.get(name);
        let is_counted = matches!(name.as_str(), "cpu" | "memory" | "ephemeral-storage");
        // A resource that the pod does not ask for says nothing about where it should go.
        if has == 0 || (more == 0 && !is_counted) {
            continue;
        }
        let used = node.load.nonzero.get(name).saturating_add(more);
        let score = match &by.strategy.preference {
            Preference::LeastAllocated if used > has => 0,
            Preference::LeastAllocated => scale(has - used, has),
            Preference::MostAllocated => scale(used.min(has), has),
            Preference::ByUse(points) => by_use(points, scale(used.min(has), has)),
        };
        let is_scored = score > 0 || !matches!(by.strategy.preference, Preference::ByUse(_));
        if is_scored {
            sum += score * weight;
            weights += weight;
        }
    }
    match (&by.strategy.preference, weights) {
        (_, 0) => 0,
        // Upstream rounds this one, and cuts the others.
        (Preference::ByUse(_), _) => (2 * sum + weights) / (2 * weights),
        _ => sum / weights,
    }
}

/// The score of a use in percent, on the line through these points.
fn by_use(points: &[(i64, i64)], used: i64) -> i64 {
    let mut before = None;
    for (at, score) in points {
        if used <= *at {
            return match before {
                None => *score,
                Some((from, low)) => low + (score - low) * (used - from) / (at - from),
            };
        }
        before = Some((*at, *score));
    }
    before.map_or(0, |(_, score)| score)
}

/// How evenly the resources are used with the pod on it: so that none runs out long before the others.
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    reason = "a score is approximate"
)]
fn balance(by: &Profile, claim: &Claim, node: &Node) -> i64 {
    let (mut count, mut sum, mut squares) = (0.0, 0.0, 0.0);
    let (mut least, mut most) = (1.0f64, 0.0f64);
    for name in &by.balanced {
        let has = node.allocatable.get(name);
        if has > 0 {
            let used = node.load.requests.get(name).saturating_add(claim.requests.get(name));
            let part = (used as f64 / has as f64).min(1.0);
            (count, sum, squares) = (count + 1.0, sum + part, squares + part * part);
            (least, most) = (least.min(part), most.max(part));
        }
    }
    let deviation = if count > 2.0 {
        (squares / count - (sum / count).powi(2)).max(0.0).sqrt()
    } else {
        // Of two it is half their distance, and of one nothing.
        (most - least).max(0.0) / 2.0
    };
    ((1.0 - deviation) * MOST as f64) as i64
}

/// How much of what the pod's images weigh the node has already. An image counts by the part of all nodes that have it,
/// so that not every pod goes to the first node that pulled it.
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    reason = "a score is approximate"
)]
fn images(claim: &Claim, parts: &[f64], node: &Node) -> i64 {
    let there = claim.images.iter().zip(parts);
    let there = there.filter_map(|(image, part)| Some((*node.images.get(image)?, part)));
    let sum: i64 = there.map(|(size, part)| (size as f64 * part) as i64).sum();
    let containers = i64::try_from(claim.images.len()).unwrap_or(i64::MAX).max(1);
    let most = LARGE_IMAGE_BYTES.saturating_mul(containers);
    scale(sum.clamp(SMALL_IMAGE_BYTES, most) - SMALL_IMAGE_BYTES, most - SMALL_IMAGE_BYTES)
}

/// A part of a whole in percent. Asked for each node: wide numbers only where they must be.
fn scale(part: i64, whole: i64) -> i64 {
    match part.checked_mul(MOST) {
        Some(scaled) => scaled / whole,
        None => {
            i64::try_from(i128::from(part) * i128::from(MOST) / i128::from(whole)).unwrap_or(MOST)
        }
    }
}

#[cfg(test)]
#[path = "score_tests.rs"]
mod tests;
