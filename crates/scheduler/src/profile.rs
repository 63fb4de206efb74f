//! How the pods of one scheduler name are placed: which rules hold for them, and what counts how much.
//!
//! The parts bear the names of upstream's plugins, because its configuration names them.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    NodeSelectorTerm, PreferredSchedulingTerm, TopologySpreadConstraint,
};

use crate::place::enough;

/// A part of the decision, by the name of upstream's plugin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Plugin {
    SchedulingGates,
    PrioritySort,
    NodeUnschedulable,
    NodeName,
    TaintToleration,
    NodeAffinity,
    NodePorts,
    NodeResourcesFit,
    VolumeRestrictions,
    NodeVolumeLimits,
    VolumeBinding,
    VolumeZone,
    PodTopologySpread,
    InterPodAffinity,
    DynamicResources,
    DefaultPreemption,
    NodeResourcesBalancedAllocation,
    ImageLocality,
    NodeDeclaredFeatures,
    DefaultBinder,
}

/// Upstream's plugins of a profile that says nothing, with the weights of those that score.
pub(crate) const DEFAULT: [(Plugin, i64); 20] = [
    (Plugin::SchedulingGates, 0),
    (Plugin::PrioritySort, 0),
    (Plugin::NodeUnschedulable, 0),
    (Plugin::NodeName, 0),
    (Plugin::TaintToleration, 3),
    (Plugin::NodeAffinity, 2),
    (Plugin::NodePorts, 0),
    (Plugin::NodeResourcesFit, 1),
    (Plugin::VolumeRestrictions, 0),
    (Plugin::NodeVolumeLimits, 0),
    (Plugin::VolumeBinding, 0),
    (Plugin::VolumeZone, 0),
    (Plugin::PodTopologySpread, 2),
    (Plugin::InterPodAffinity, 2),
    (Plugin::DynamicResources, 0),
    (Plugin::DefaultPreemption, 0),
    (Plugin::NodeResourcesBalancedAllocation, 1),
    (Plugin::ImageLocality, 1),
    (Plugin::NodeDeclaredFeatures, 0),
    (Plugin::DefaultBinder, 0),
];

/// How the pods of one scheduler name are placed.
#[derive(Debug, Clone, PartialEq)]
pub struct Profile {
    /// The pods that name this scheduler are placed so.
    pub scheduler_name: String,
    /// What keeps pods from nodes.
    pub(crate) filters: Plugins,
    /// What is tried for a pod that fits nowhere.
    pub(crate) last_resorts: Plugins,
    /// What makes one node better than another, and how much it counts.
    pub(crate) weights: BTreeMap<Plugin, i64>,
    /// What every pod of the profile asks of nodes besides its own affinity: one of these must match.
    pub(crate) added_required: Option<Vec<NodeSelectorTerm>>,
    /// What every pod of the profile would like besides.
    pub(crate) added_preferred: Vec<PreferredSchedulingTerm>,
    /// How pods are spread that say nothing about it.
    pub(crate) spread: DefaultSpread,
    /// Resources that no node need have: others see to them.
    pub(crate) ignored_resources: Vec<String>,
    /// The same for all resources whose names begin with one of these and a slash.
    pub(crate) ignored_groups: Vec<String>,
    /// How a node's use counts.
    pub(crate) strategy: Strategy,
    /// The resources that are to be used evenly.
    pub(crate) balanced: Vec<String>,
    /// How much a pod that must be near another draws it.
    pub(crate) hard_affinity: i64,
    /// Whether what pods on nodes would like counts for pods that say nothing.
    pub(crate) ignores_wishes_of_others: bool,
    /// The part of all nodes that is enough to compare; 0 is upstream's rule, which depends on how many there are.
    pub(crate) percentage: usize,
    /// How many nodes with victims are enough to compare: so many at least, and this part of all, in percent.
    pub(crate) candidates: (usize, usize),
}

/// How pods are spread that say nothing about it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum DefaultSpread {
    /// Over hosts and zones, as upstream does unless it is told otherwise.
    System,
    /// As these constraints say, which have no selector of their own.
    List(Vec<TopologySpreadConstraint>),
}

/// How a node's use counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Strategy {
    pub(crate) preference: Preference,
    /// The resources that count, with their weights.
    pub(crate) resources: Vec<(String, i64)>,
}

/// Which use of a node is the best.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Preference {
    /// The least: spreads pods.
    LeastAllocated,
    /// The most: packs them.
    MostAllocated,
    /// What these points say: the use in percent, and its score from 0 to 100.
    ByUse(Vec<(i64, i64)>),
}

/// A set of plugins; asked for each node, and so a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Plugins(u32);

impl Plugins {
    /// Whether the plugin is in the set.
    pub(crate) const fn has(self, plugin: Plugin) -> bool {
        self.0 & 1 << plugin as u32 != 0
    }
}

impl FromIterator<Plugin> for Plugins {
    fn from_iter<T: IntoIterator<Item = Plugin>>(plugins: T) -> Plugins {
        Plugins(plugins.into_iter().fold(0, |set, plugin| set | 1 << plugin as u32))
    }
}

impl Profile {
    /// Upstream's defaults, for the pods that name this scheduler.
    pub fn new(scheduler_name: impl Into<String>) -> Profile {
        let all: Plugins = DEFAULT.iter().map(|(plugin, _)| *plugin).collect();
        let both = || ["cpu", "memory"].map(str::to_owned);
        Profile {
            scheduler_name: scheduler_name.into(),
            filters: all,
            last_resorts: all,
            weights: DEFAULT.into_iter().filter(|(_, weight)| *weight > 0).collect(),
            added_required: None,
            added_preferred: Vec::new(),
            spread: DefaultSpread::System,
            ignored_resources: Vec::new(),
            ignored_groups: Vec::new(),
            strategy: Strategy {
                preference: Preference::LeastAllocated,
                resources: both().map(|name| (name, 1)).into(),
            },
            balanced: both().into(),
            hard_affinity: 1,
            ignores_wishes_of_others: false,
            percentage: 0,
            candidates: (100, 10),
        }
    }

    /// How much the plugin's score counts.
    pub(crate) fn weight(&self, plugin: Plugin) -> i64 {
        self.weights.get(&plugin).copied().unwrap_or(0)
    }

    /// Whether a pod gets an extended resource whatever its node has.
    pub(crate) fn ignores(&self, resource: &str) -> bool {
        let group = resource.split_once('/').map_or("", |(group, _)| group);
        self.ignored_resources.iter().any(|ignored| ignored == resource)
            || self.ignored_groups.iter().any(|ignored| ignored == group)
    }

    /// How many nodes that fit are worth comparing.
    pub(crate) fn enough(&self, nodes: usize) -> usize {
        match self.percentage {
            0 => enough(nodes),
            percent => (nodes * percent / 100).max(100),
        }
    }
}

impl Default for Profile {
    fn default() -> Profile {
        Profile::new("default-scheduler")
    }
}
