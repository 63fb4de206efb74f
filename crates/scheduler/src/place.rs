//! Which node a pod goes to. Pure: a claim and the nodes in, a placement out.
//!
//! The filters, their order and their words are those of upstream's default plugins
//! (kubernetes/kubernetes, pkg/scheduler/framework/plugins).

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use k8s_openapi::api::core::v1::Taint;

use crate::claim::Claim;
use crate::constraints::{UNSCHEDULABLE, matches_any, tolerates};
use crate::node::Node;
use crate::profile::{Plugin, Plugins, Profile};
use crate::relations::Relations;
use crate::score;

/// Why a node is out of question for making room.
pub(crate) const NOT_HELPFUL: &str = "Preemption is not helpful for scheduling";
/// Why no room is made on a node.
pub(crate) const NO_VICTIMS: &str = "No preemption victims found for incoming pod";

/// Where a pod goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Placement {
    /// To this node.
    Node(String),
    /// Nowhere, for now.
    Nowhere(Misfit),
}

/// Why no node takes a pod; displayed as upstream words it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Misfit {
    nodes: usize,
    reasons: Reasons,
    /// Why none of them was asked.
    hindrance: Option<String>,
    /// On how many nodes evicting other pods would not help.
    unhelpable: usize,
    /// What was tried for want of a node; everything, if it does not say.
    last_resorts: Option<Plugins>,
    /// What came of making room by evicting others.
    pub(crate) eviction: Eviction,
}

/// What came of looking for pods to evict for another.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) enum Eviction {
    /// Where it could help, nothing of less priority is there.
    #[default]
    NoVictims,
    /// The pod may not have others evicted, and why.
    Ineligible(&'static str),
    /// On no node it is enough; how many nodes have which reason.
    Refused(Reasons),
    /// Some pods are evicted for it.
    Helps,
}

/// How many nodes have which reason.
pub(crate) type Reasons = BTreeMap<Cow<'static, str>, usize>;

/// Why one node does not take a pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) reasons: Vec<Cow<'static, str>>,
    /// Whether it would take the pod if other pods were not there.
    pub(crate) is_helped_by_eviction: bool,
}

/// Chooses the node for a pod, as its profile says: of those that can take it the one that suits it best; of equals the one with the fewest
/// pods, then the first by name. It looks no further once `enough` nodes fit.
pub fn place<'a>(
    by: &Profile,
    claim: &Claim,
    relations: &Relations,
    nodes: impl IntoIterator<Item = &'a Node>,
    enough: usize,
) -> Placement {
    let mut fitting = Vec::new();
    let eviction = match claim.never_preempts {
        true => Eviction::Ineligible("not eligible due to preemptionPolicy=Never."),
        false => Eviction::NoVictims,
    };
    let mut misfit = Misfit { last_resorts: Some(by.last_resorts), eviction, ..Misfit::default() };
    if let Some(why) = &relations.volumes.hindrance {
        let nodes = nodes.into_iter().count();
        let hindrance = Some(why.clone());
        return Placement::Nowhere(Misfit { nodes, hindrance, unhelpable: nodes, ..misfit });
    }
    for node in nodes {
        match refusal(by, claim, relations, node) {
            None => fitting.push(node),
            Some(refusal) => misfit.add(refusal),
        }
        if fitting.len() >= enough {
            break;
        }
    }
    match score::best(by, claim, relations, &fitting) {
        Some(node) => Placement::Node(node.name.clone()),
        None => Placement::Nowhere(misfit),
    }
}

/// How many nodes that fit are worth comparing, as upstream has it: all of a small cluster, a part of a large one.
pub(crate) fn enough(nodes: usize) -> usize {
    let percent = 50usize.saturating_sub(nodes / 125).max(5);
    (nodes * percent / 100).max(100)
}

/// Whether the node can take the pod.
pub(crate) fn fits(by: &Profile, claim: &Claim, relations: &Relations, node: &Node) -> bool {
    refusal(by, claim, relations, node).is_none()
}

/// Whether the node can take the pod, whatever that says about other pods and they about it.
pub(crate) fn fits_alone(by: &Profile, claim: &Claim, node: &Node) -> bool {
    own_refusal(by, claim, node).is_none()
}

/// Why the node cannot take the pod: the first filter that refuses says so.
pub(crate) fn refusal(
    by: &Profile,
    claim: &Claim,
    relations: &Relations,
    node: &Node,
) -> Option<Refusal> {
    own_refusal(by, claim, node).or_else(|| relations.refusal(by, claim, node))
}

/// Whether the node is one that the pod asks for.
pub(crate) fn is_selected(claim: &Claim, node: &Node) -> bool {
    let required = claim.required.as_ref();
    claim.node_selector.iter().all(|(key, value)| node.labels.get(key) == Some(value))
        && required.is_none_or(|terms| matches_any(terms, &node.labels, &node.name))
}

/// Whether one of the node's taints keeps the pod away.
pub(crate) fn repels(claim: &Claim, node: &Node) -> bool {
    let repels = |taint: &Taint| matches!(taint.effect.as_str(), "NoSchedule" | "NoExecute");
    node.taints.iter().any(|taint| repels(taint) && !tolerates(&claim.tolerations, taint))
}

fn own_refusal(by: &Profile, claim: &Claim, node: &Node) -> Option<Refusal> {
    if node.is_cordoned && by.filters.has(Plugin::NodeUnschedulable) {
        let key = UNSCHEDULABLE.to_owned();
        let cordon = Taint { key, effect: "NoSchedule".to_owned(), ..Taint::default() };
        if !tolerates(&claim.tolerations, &cordon) {
            return Some(Refusal::lasting("node(s) were unschedulable"));
        }
    }
    if by.filters.has(Plugin::TaintToleration) && repels(claim, node) {
        return Some(Refusal::lasting("node(s) had untolerated taint(s)"));
    }
    if by.filters.has(Plugin::NodeAffinity) {
        let added = by.added_required.as_ref();
        if !added.is_none_or(|terms| matches_any(terms, &node.labels, &node.name)) {
            let reason = "node(s) didn't match scheduler-enforced node affinity";
            return Some(Refusal::lasting(reason));
        }
        if !is_selected(claim, node) {
            return Some(Refusal::lasting("node(s) didn't match Pod's node affinity/selector"));
        }
    }
    let is_taken = |port| node.load.host_ports.iter().any(|taken| taken.conflicts(port));
    if by.filters.has(Plugin::NodePorts) && claim.host_ports.iter().any(is_taken) {
        let reason = "node(s) didn't have free ports for the requested pod ports";
        return Some(Refusal::passing(reason));
    }
    by.filters.has(Plugin::NodeResourcesFit).then(|| shortage(by, claim, node)).flatten()
}

/// Which resources the node lacks.
fn shortage(by: &Profile, claim: &Claim, node: &Node) -> Option<Refusal> {
    let mut reasons = Vec::new();
    let mut is_helped_by_eviction = true;
    if node.load.pods + 1 > node.most_pods {
        reasons.push("Too many pods".into());
    }
    let mut check = |reason: Cow<'static, str>, wanted: i64, has: i64, used: i64| {
        if wanted > 0 && wanted > has - used {
            is_helped_by_eviction &= wanted <= has;
            reasons.push(reason);
        }
    };
    let (wanted, has, used) = (&claim.requests, &node.allocatable, &node.load.requests);
    check("Insufficient cpu".into(), wanted.milli_cpu, has.milli_cpu, used.milli_cpu);
    check("Insufficient memory".into(), wanted.memory_bytes, has.memory_bytes, used.memory_bytes);
    let (scratch, scratch_has) = (wanted.ephemeral_bytes, has.ephemeral_bytes);
    check("Insufficient ephemeral-storage".into(), scratch, scratch_has, used.ephemeral_bytes);
    for (name, amount) in wanted.others.iter().filter(|(name, _)| !by.ignores(name)) {
        check(format!("Insufficient {name}").into(), *amount, has.other(name), used.other(name));
    }
    (!reasons.is_empty()).then_some(Refusal { reasons, is_helped_by_eviction })
}

impl Refusal {
    /// A refusal for as long as the node and the pod are as they are.
    pub(crate) fn lasting(reason: impl Into<Cow<'static, str>>) -> Refusal {
        Refusal { reasons: vec![reason.into()], is_helped_by_eviction: false }
    }

    /// A refusal for as long as other pods are there.
    pub(crate) fn passing(reason: &'static str) -> Refusal {
        Refusal { reasons: vec![reason.into()], is_helped_by_eviction: true }
    }
}

impl Misfit {
    fn add(&mut self, refusal: Refusal) {
        self.nodes += 1;
        self.unhelpable += usize::from(!refusal.is_helped_by_eviction);
        for reason in refusal.reasons {
            *self.reasons.entry(reason).or_default() += 1;
        }
    }
}

impl fmt::Display for Misfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let nodes = self.nodes;
        if nodes == 0 {
            return f.write_str("no nodes available to schedule pods");
        }
        let reasons = self.hindrance.clone().unwrap_or_else(|| listed(&self.reasons));
        write!(f, "0/{nodes} nodes are available: {reasons}.")?;
        let tries = |plugin| self.last_resorts.is_none_or(|plugins| plugins.has(plugin));
        let mut told = Vec::new();
        // No pod here has claims on devices that could be given back.
        if tries(Plugin::DynamicResources) {
            told.push("no new claims to deallocate".to_owned());
        }
        if tries(Plugin::DefaultPreemption) {
            match self.eviction_told() {
                None => return Ok(()),
                Some(eviction) => told.push(format!("preemption: {eviction}")),
            }
        }
        let space = if told.is_empty() { "" } else { " " };
        write!(f, "{space}{}", told.join(", "))
    }
}

impl Misfit {
    /// What came of making room; nothing is said if it helps.
    fn eviction_told(&self) -> Option<String> {
        let nodes = self.nodes;
        let reasons = match &self.eviction {
            Eviction::Helps => return None,
            Eviction::Ineligible(why) => return Some((*why).to_owned()),
            Eviction::Refused(reasons) => listed(reasons),
            Eviction::NoVictims => {
                let counts =
                    [(NOT_HELPFUL, self.unhelpable), (NO_VICTIMS, nodes - self.unhelpable)];
                let counts = counts.into_iter().filter(|(_, count)| *count > 0);
                listed(&counts.map(|(reason, count)| (reason.into(), count)).collect())
            }
        };
        Some(format!("0/{nodes} nodes are available: {reasons}."))
    }
}

/// How upstream lists reasons: sorted as text, the counts included.
fn listed(reasons: &Reasons) -> String {
    let mut reasons: Vec<_> =
        reasons.iter().map(|(reason, count)| format!("{count} {reason}")).collect();
    reasons.sort();
    reasons.join(", ")
}

#[cfg(test)]
#[path = "place_tests.rs"]
mod tests;
