//! What a pod says about other pods: affinity, anti-affinity and topology spread, read once.

use std::collections::{BTreeSet, HashMap};

use coracle_api::selector::{LabelSelector, Operator, Requirement};
use k8s_openapi::api::core::v1::{PodAffinityTerm, PodSpec, TopologySpreadConstraint};
use serde::Serialize;

use crate::claim::Claim;
use crate::constraints::Labels;

/// The labels of every namespace, by its name.
pub type Namespaces = HashMap<String, Labels>;

/// What a constraint on spread says that keeps pods waiting.
pub(crate) const DO_NOT: &str = "DoNotSchedule";

/// What a pod says about other pods.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Terms {
    /// Pods that must be near: each of them.
    pub(crate) affinity: Vec<Term>,
    /// Pods that must not be near: any of them.
    pub(crate) anti_affinity: Vec<Term>,
    /// Pods that it would like near, or with a negative weight far.
    pub(crate) preferred: Vec<(i64, Term)>,
    pub(crate) spread: Vec<Spread>,
}

/// Some pods, and what near means.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Term {
    /// The nodes whose label of this key has the same value are near to each other.
    pub(crate) topology: String,
    namespaces: BTreeSet<String>,
    namespace_selector: LabelSelector,
    selector: LabelSelector,
}

/// How evenly pods are to be spread.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Spread {
    pub(crate) topology: String,
    pub(crate) max_skew: i64,
    pub(crate) min_domains: usize,
    /// Whether the pod rather waits than goes where there are too many.
    pub(crate) is_required: bool,
    /// Whether only nodes count that the pod's node selector and affinity allow.
    pub(crate) honors_affinity: bool,
    /// Whether only nodes count whose taints the pod tolerates.
    pub(crate) honors_taints: bool,
    /// Whether it holds because nobody said anything, and then for nodes without the label too.
    pub(crate) is_system: bool,
    selector: LabelSelector,
}

impl Terms {
    /// What the spec of a pod with these labels in this namespace says.
    pub(crate) fn of(spec: &PodSpec, labels: &Labels, namespace: &str) -> Terms {
        let mut terms = Terms::default();
        let term = |term: &PodAffinityTerm| Term::of(term, labels, namespace);
        let affinity = spec.affinity.clone().unwrap_or_default();
        if let Some(near) = affinity.pod_affinity {
            let required = near.required_during_scheduling_ignored_during_execution;
            terms.affinity = required.iter().flatten().map(term).collect();
            let preferred = near.preferred_during_scheduling_ignored_during_execution;
            let preferred = preferred.iter().flatten();
            terms.preferred.extend(
                preferred.map(|wish| (i64::from(wish.weight), term(&wish.pod_affinity_term))),
            );
        }
        if let Some(far) = affinity.pod_anti_affinity {
            let required = far.required_during_scheduling_ignored_during_execution;
            terms.anti_affinity = required.iter().flatten().map(term).collect();
            let preferred = far.preferred_during_scheduling_ignored_during_execution;
            let preferred = preferred.iter().flatten();
            terms.preferred.extend(
                preferred.map(|wish| (-i64::from(wish.weight), term(&wish.pod_affinity_term))),
            );
        }
        let spread = spec.topology_spread_constraints.iter().flatten();
        terms.spread = spread.map(|constraint| Spread::of(constraint, labels)).collect();
        terms
    }

    /// Whether the pod says nothing about others.
    pub(crate) fn is_empty(&self) -> bool {
        !self.has_affinity() && self.spread.is_empty()
    }

    /// Whether the pod says something that counts for those that come after it, too.
    pub(crate) fn has_affinity(&self) -> bool {
        !(self.affinity.is_empty() && self.anti_affinity.is_empty() && self.preferred.is_empty())
    }
}

impl Term {
    fn of(term: &PodAffinityTerm, labels: &Labels, namespace: &str) -> Term {
        let mut selector = selector(term.label_selector.as_ref());
        restrict(&mut selector, labels, term.match_label_keys.as_deref(), Operator::In);
        restrict(&mut selector, labels, term.mismatch_label_keys.as_deref(), Operator::NotIn);
        let mut namespaces: BTreeSet<_> = term.namespaces.iter().flatten().cloned().collect();
        if namespaces.is_empty() && term.namespace_selector.is_none() {
            namespaces.insert(namespace.to_owned());
        }
        Term {
            topology: term.topology_key.clone(),
            namespaces,
            namespace_selector: self::selector(term.namespace_selector.as_ref()),
            selector,
        }
    }

    /// Whether it is about this pod.
    pub(crate) fn matches(&self, other: &Claim, namespaces: &Namespaces) -> bool {
        self.selector.matches(|key| other.labels.get(key).map(String::as_str))
            && (self.namespaces.contains(&other.namespace)
                || self
                    .namespace_selector
                    .matches(|key| namespaces.get(&other.namespace)?.get(key).map(String::as_str)))
    }
}

impl Spread {
    fn of(constraint: &TopologySpreadConstraint, labels: &Labels) -> Spread {
        let mut selector = selector(constraint.label_selector.as_ref());
        restrict(&mut selector, labels, constraint.match_label_keys.as_deref(), Operator::In);
        let min_domains = constraint.min_domains.unwrap_or(1);
        Spread {
            topology: constraint.topology_key.clone(),
            max_skew: i64::from(constraint.max_skew),
            min_domains: usize::try_from(min_domains).unwrap_or(1),
            is_required: constraint.when_unsatisfiable == DO_NOT,
            honors_affinity: constraint.node_affinity_policy.as_deref() != Some("Ignore"),
            honors_taints: constraint.node_taints_policy.as_deref() == Some("Honor"),
            is_system: false,
            selector,
        }
    }

    /// What a profile's constraint, which has no selector of its own, says about the pods that this one selects.
    pub(crate) fn by_default(
        constraint: &TopologySpreadConstraint,
        selector: LabelSelector,
    ) -> Spread {
        Spread { selector, ..Spread::of(constraint, &Labels::new()) }
    }

    /// What upstream's own defaults say about the pods that this selects.
    pub(crate) fn system_defaults(selector: &LabelSelector) -> Vec<Spread> {
        let each = [("kubernetes.io/hostname", 3), ("topology.kubernetes.io/zone", 5)];
        let spread = |(topology, max_skew): (&str, i64)| Spread {
            topology: topology.to_owned(),
            max_skew,
            min_domains: 1,
            is_required: false,
            honors_affinity: true,
            honors_taints: false,
            is_system: true,
            selector: selector.clone(),
        };
        each.map(spread).into()
    }

    /// Whether a pod of the same namespace with these labels is one of those to spread.
    pub(crate) fn matches(&self, labels: &Labels) -> bool {
        !self.selector.is_everything()
            && self.selector.matches(|key| labels.get(key).map(String::as_str))
    }
}

/// An absent selector selects nothing; so does one that cannot be read, which validation lets not in.
fn selector(selector: Option<&impl Serialize>) -> LabelSelector {
    let selector = selector.and_then(|selector| serde_json::to_value(selector).ok());
    LabelSelector::from_value(selector.as_ref()).unwrap_or(LabelSelector::Nothing)
}

/// Selects only pods that agree with these labels, or differ, in each of the keys.
fn restrict(
    selector: &mut LabelSelector,
    labels: &Labels,
    keys: Option<&[String]>,
    operator: fn(BTreeSet<String>) -> Operator,
) {
    let LabelSelector::All(requirements) = selector else { return };
    for key in keys.unwrap_or_default() {
        if let Some(value) = labels.get(key) {
            let operator = operator(BTreeSet::from([value.clone()]));
            requirements.push(Requirement { key: key.clone(), operator });
        }
    }
}
