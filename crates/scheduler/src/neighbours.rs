//! What the pods that are there mean for one that is to be placed: counted once, kept current as pods come and go, and
//! asked for each node. Pure.
//!
//! The rules and words are those of upstream's plugins `InterPodAffinity` and `PodTopologySpread`
//! (kubernetes/kubernetes, pkg/scheduler/framework/plugins).

use std::collections::{HashMap, HashSet};

use crate::claim::Claim;
use crate::node::Node;
use crate::place::{Refusal, is_selected, repels};
use crate::profile::{Plugin, Profile};
use crate::terms::{Namespaces, Spread, Term, Terms};

/// The topology in which every node is a place of its own.
const HOST: &str = "kubernetes.io/hostname";

/// How many pods there are, by the value of a node label.
type Counts = HashMap<String, i64>;

/// What the pods that are there mean for one pod.
#[derive(Debug, Clone, Default)]
pub(crate) struct Neighbours {
    /// For each required term, the pods that all of the terms are about.
    near: Vec<Counts>,
    /// Whether the pod itself is what its terms are about: then it may be the first.
    is_own_neighbour: bool,
    /// For each term of anti-affinity, the pods that it is about.
    far: Vec<Counts>,
    /// By topology, the pods that do not want this one near.
    repelling: HashMap<String, Counts>,
    /// By topology, how much the pod is drawn there.
    drawn: HashMap<String, Counts>,
    spread: Vec<SpreadCounts>,
    /// How much a pod that must be near this one draws it.
    hard_affinity: i64,
    /// Whether what others would like counts.
    heeds_others: bool,
}

#[derive(Debug, Clone, Default)]
struct SpreadCounts {
    /// Zero, where pods may go but there are none.
    counts: Counts,
    least: i64,
}

impl Neighbours {
    /// Counts the pods that are there, given with their nodes; all nodes, because empty ones count for spread.
    pub(crate) fn of<'a>(
        by: &Profile,
        claim: &Claim,
        nodes: impl Iterator<Item = &'a Node>,
        pods: impl Iterator<Item = (&'a Node, &'a Claim)>,
        namespaces: &Namespaces,
    ) -> Neighbours {
        let terms = &claim.terms;
        let mut neighbours = Neighbours {
            near: vec![Counts::new(); terms.affinity.len()],
            is_own_neighbour: terms.affinity.iter().all(|term| term.matches(claim, namespaces)),
            far: vec![Counts::new(); terms.anti_affinity.len()],
            spread: vec![SpreadCounts::default(); terms.spread.len()],
            hard_affinity: by.hard_affinity,
            heeds_others: !by.ignores_wishes_of_others || !terms.preferred.is_empty(),
            ..Neighbours::default()
        };
        if terms.spread.iter().any(|spread| spread.is_required) {
            nodes.for_each(|node| neighbours.open_domains(claim, node));
        }
        pods.for_each(|(node, other)| neighbours.count(claim, node, other, namespaces, 1));
        neighbours.settle(claim);
        neighbours
    }

    /// Whether one of the pods says something about the other.
    pub(crate) fn exist(claim: &Claim, other: &Claim, namespaces: &Namespaces) -> bool {
        let says = |claim: &Claim, other: &Claim| {
            let Terms { affinity, anti_affinity, preferred, .. } = &claim.terms;
            let wishes = preferred.iter().map(|(_, term)| term);
            let mut terms = affinity.iter().chain(anti_affinity).chain(wishes);
            terms.any(|term| term.matches(other, namespaces))
        };
        let spread = || claim.terms.spread.iter().any(|spread| spread.matches(&other.labels));
        says(claim, other) || says(other, claim) || (claim.namespace == other.namespace && spread())
    }

    /// Whether the other's coming or going may let the pod go to other nodes than the other's own.
    pub(crate) fn reach_far(claim: &Claim, other: &Claim, namespaces: &Namespaces) -> bool {
        let is_about = |term: &Term, pod: &Claim| term.matches(pod, namespaces);
        let is_wide = |term: &&Term| term.topology != HOST;
        let (terms, theirs) = (&claim.terms, &other.terms);
        terms.affinity.iter().any(|term| is_about(term, other))
            || terms.anti_affinity.iter().filter(is_wide).any(|term| is_about(term, other))
            || theirs.anti_affinity.iter().filter(is_wide).any(|term| is_about(term, claim))
            || (claim.namespace == other.namespace
                && terms.spread.iter().any(|spread| spread.matches(&other.labels)))
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
        let terms = &claim.terms;
        let is_about = |pod: &Claim, term: &Term| term.matches(pod, namespaces);
        if !terms.affinity.is_empty() && terms.affinity.iter().all(|term| is_about(other, term)) {
            for (term, counts) in terms.affinity.iter().zip(&mut self.near) {
                add(counts, node, &term.topology, by);
            }
        }
        for (term, counts) in terms.anti_affinity.iter().zip(&mut self.far) {
            if is_about(other, term) {
                add(counts, node, &term.topology, by);
            }
        }
        for term in other.terms.anti_affinity.iter().filter(|term| is_about(claim, term)) {
            let counts = self.repelling.entry(term.topology.clone()).or_default();
            add(counts, node, &term.topology, by);
        }
        let mine = terms.preferred.iter().filter(|(_, term)| is_about(other, term));
        let theirs = other.terms.preferred.iter();
        let theirs = theirs.filter(|(_, term)| self.heeds_others && is_about(claim, term));
        let wishes = mine.chain(theirs).map(|(weight, term)| (*weight, term));
        let needs = other.terms.affinity.iter();
        let needs = needs.filter(|term| self.heeds_others && is_about(claim, term));
        for (weight, term) in wishes.chain(needs.map(|term| (self.hard_affinity, term))) {
            let counts = self.drawn.entry(term.topology.clone()).or_default();
            add(counts, node, &term.topology, by * weight);
        }
        if other.namespace == claim.namespace && !other.is_leaving {
            for (spread, known) in terms.spread.iter().zip(&mut self.spread) {
                if spread.matches(&other.labels) && is_counted(spread, claim, node) {
                    add(&mut known.counts, node, &spread.topology, by);
                }
            }
        }
    }

    /// Makes good what depends on all counts, after some changed.
    pub(crate) fn settle(&mut self, claim: &Claim) {
        for (spread, known) in claim.terms.spread.iter().zip(&mut self.spread) {
            known.least = if known.counts.len() < spread.min_domains {
                0
            } else {
                known.counts.values().copied().min().unwrap_or(i64::from(i32::MAX))
            };
        }
    }

    /// Why the pod may not go to the node.
    pub(crate) fn refusal(&self, by: &Profile, claim: &Claim, node: &Node) -> Option<Refusal> {
        let spread = by.filters.has(Plugin::PodTopologySpread);
        let company = by.filters.has(Plugin::InterPodAffinity);
        let too_many = spread.then(|| self.too_many(claim, node)).flatten();
        too_many.or_else(|| company.then(|| self.bad_company(claim, node)).flatten())
    }

    fn too_many(&self, claim: &Claim, node: &Node) -> Option<Refusal> {
        let spread = claim.terms.spread.iter().zip(&self.spread);
        for (spread, known) in spread.filter(|(spread, _)| spread.is_required) {
            let Some(value) = node.labels.get(&spread.topology) else {
                return Some(Refusal::lasting(
                    "node(s) didn't match pod topology spread constraints (missing required label)",
                ));
            };
            let there = known.counts.get(value).copied().unwrap_or(0);
            let own = i64::from(spread.matches(&claim.labels));
            if there + own - known.least > spread.max_skew {
                return Some(Refusal::passing(
                    "node(s) didn't match pod topology spread constraints",
                ));
            }
        }
        None
    }

    fn bad_company(&self, claim: &Claim, node: &Node) -> Option<Refusal> {
        let affinity = claim.terms.affinity.iter().zip(&self.near);
        let mut is_near_all = true;
        for (term, counts) in affinity {
            let value = node.labels.get(&term.topology);
            is_near_all &=
                value.and_then(|value| counts.get(value)).is_some_and(|count| *count > 0);
        }
        if !is_near_all {
            let has_keys =
                claim.terms.affinity.iter().all(|term| node.labels.contains_key(&term.topology));
            let mut near = self.near.iter().flat_map(Counts::values);
            let is_first = self.is_own_neighbour && near.all(|count| *count == 0);
            if !(has_keys && is_first) {
                return Some(Refusal::lasting("node(s) didn't match pod affinity rules"));
            }
        }
        let is_there = |topology: &str, counts: &Counts| {
            let value = node.labels.get(topology);
            value.and_then(|value| counts.get(value)).is_some_and(|count| *count > 0)
        };
        let mut far = claim.terms.anti_affinity.iter().zip(&self.far);
        if far.any(|(term, counts)| is_there(&term.topology, counts)) {
            return Some(Refusal::passing("node(s) didn't match pod anti-affinity rules"));
        }
        if self.repelling.iter().any(|(topology, counts)| is_there(topology, counts)) {
            let reason = "node(s) didn't satisfy existing pods anti-affinity rules";
            return Some(Refusal::passing(reason));
        }
        None
    }

    /// How much the pod is drawn to each of the nodes, from 0 to 100; `None` if to none more than to another.
    pub(crate) fn attraction(&self, nodes: &[&Node]) -> Option<Vec<i64>> {
        if self.drawn.is_empty() {
            return None;
        }
        let drawn = |node: &&Node| -> i64 {
            let values = self.drawn.iter();
            let values = values
                .filter_map(|(topology, counts)| counts.get(node.labels.get(topology)?).copied());
            values.sum()
        };
        let raw: Vec<i64> = nodes.iter().map(drawn).collect();
        let (least, most) = (raw.iter().min().copied()?, raw.iter().max().copied()?);
        (most > least)
            .then(|| raw.iter().map(|score| (score - least) * 100 / (most - least)).collect())
    }

    /// How much the pod's wishes for spread speak for each of the nodes, from 0 to 100; `None` without wishes.
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        reason = "a score is approximate"
    )]
    pub(crate) fn evenness(&self, claim: &Claim, nodes: &[&Node]) -> Option<Vec<i64>> {
        let wishes = claim.terms.spread.iter().zip(&self.spread);
        let wishes: Vec<_> = wishes.filter(|(spread, _)| !spread.is_required).collect();
        if wishes.is_empty() {
            return None;
        }
        // A pod's own constraints are for nodes that have all of their labels; upstream's defaults are for all nodes.
        let counts = |node: &&&Node| {
            let mut own = wishes.iter().filter(|(spread, _)| !spread.is_system);
            own.all(|(spread, _)| node.labels.contains_key(&spread.topology))
        };
        let is_counted: Vec<bool> = nodes.iter().map(|node| counts(&node)).collect();
        let counted = || nodes.iter().zip(&is_counted).filter(|(_, is_counted)| **is_counted);
        let weights: Vec<f64> = wishes
            .iter()
            .map(|(spread, _)| {
                let places = match spread.topology.as_str() {
                    HOST => counted().count(),
                    topology => {
                        let values = counted().map(|(node, _)| node.labels.get(topology));
                        values.collect::<HashSet<_>>().len()
                    }
                };
                (places as f64 + 2.0).ln()
            })
            .collect();
        let raw = |(node, is_counted): (&&Node, &bool)| {
            let each = wishes.iter().zip(&weights).filter_map(|((spread, known), weight)| {
                let value = node.labels.get(&spread.topology)?;
                let there = known.counts.get(value).copied().unwrap_or(0);
                Some(there as f64 * weight + (spread.max_skew - 1) as f64)
            });
            is_counted.then(|| each.sum::<f64>().round() as i64)
        };
        let raw: Vec<Option<i64>> = nodes.iter().zip(&is_counted).map(raw).collect();
        let most = raw.iter().flatten().max().copied().unwrap_or(0);
        let least = raw.iter().flatten().min().copied().unwrap_or(0);
        let scaled = |score: &Option<i64>| match score {
            None => 0,
            Some(_) if most == 0 => 100,
            Some(score) => 100 * (most + least - score) / most,
        };
        Some(raw.iter().map(scaled).collect())
    }

    fn open_domains(&mut self, claim: &Claim, node: &Node) {
        for (spread, known) in claim.terms.spread.iter().zip(&mut self.spread) {
            if spread.is_required
                && is_counted(spread, claim, node)
                && let Some(value) = node.labels.get(&spread.topology)
                && !known.counts.contains_key(value)
            {
                known.counts.insert(value.clone(), 0);
            }
        }
    }
}

/// Counts at a node's value of this label.
fn add(counts: &mut Counts, node: &Node, topology: &str, by: i64) {
    let Some(value) = node.labels.get(topology) else { return };
    match counts.get_mut(value) {
        Some(count) => *count += by,
        None => drop(counts.insert(value.clone(), by)),
    }
}

/// Whether the node counts for this constraint: it has the labels of all that are as binding, and the pod may go there.
fn is_counted(spread: &Spread, claim: &Claim, node: &Node) -> bool {
    let mut alike =
        claim.terms.spread.iter().filter(|other| other.is_required == spread.is_required);
    (spread.is_system || alike.all(|other| node.labels.contains_key(&other.topology)))
        && (!spread.honors_affinity || is_selected(claim, node))
        && (!spread.honors_taints || !repels(claim, node))
}
