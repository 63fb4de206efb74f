//! One ResourceQuota: what it limits, and of which objects.

use std::collections::{BTreeMap, BTreeSet};

use coracle_api::kinds::Kind;
use coracle_api::pods::{self, Resources};
use k8s_openapi::api::core::v1::{
    Pod, ResourceQuota, ResourceRequirements, ScopedResourceSelectorRequirement,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Written;

use super::usage::{Measured, Traits, compute, concerns};

/// A quota as it is enforced.
pub(crate) struct Limit {
    pub name: String,
    pub hard: Resources,
    scopes: Vec<ScopedResourceSelectorRequirement>,
}

impl Limit {
    /// Reads a quota.
    pub fn of(quota: &ResourceQuota) -> Self {
        let spec = quota.spec.as_ref();
        let plain = spec.and_then(|spec| spec.scopes.as_ref()).into_iter().flatten();
        let plain = plain.map(|scope| ScopedResourceSelectorRequirement {
            scope_name: scope.clone(),
            operator: "Exists".to_owned(),
            values: None,
        });
        let selected = spec.and_then(|spec| spec.scope_selector.as_ref());
        let selected = selected.and_then(|selector| selector.match_expressions.clone());
        Self {
            name: quota.metadata.name.clone().unwrap_or_default(),
            hard: spec.and_then(|spec| spec.hard.as_ref()).map(pods::read).unwrap_or_default(),
            scopes: plain.chain(selected.into_iter().flatten()).collect(),
        }
    }

    /// Which of the limited names are about objects of this kind.
    pub fn names(&self, kind: &Kind) -> BTreeSet<&str> {
        self.hard.keys().map(String::as_str).filter(|name| concerns(kind, name)).collect()
    }

    /// Whether the object is one of those that the quota is about.
    pub fn covers(&self, object: &Measured) -> bool {
        self.scopes.iter().all(|scope| is_in_scope(scope, &object.traits))
    }
}

fn is_in_scope(scope: &ScopedResourceSelectorRequirement, traits: &Traits) -> bool {
    match traits {
        Traits::None => false,
        Traits::Pod { terminating, best_effort, priority_class, cross_namespace_affinity } => {
            match scope.scope_name.as_str() {
                "Terminating" => *terminating,
                "NotTerminating" => !*terminating,
                "BestEffort" => *best_effort,
                "NotBestEffort" => !*best_effort,
                "PriorityClass" => selects(scope, priority_class.as_deref()),
                "CrossNamespacePodAffinity" => *cross_namespace_affinity,
                _ => false,
            }
        }
        Traits::Claim { attributes_class } => {
            scope.scope_name == "VolumeAttributesClass"
                && selects(scope, attributes_class.as_deref())
        }
    }
}

fn selects(scope: &ScopedResourceSelectorRequirement, class: Option<&str>) -> bool {
    let listed =
        class.is_some_and(|class| scope.values.iter().flatten().any(|value| value == class));
    match scope.operator.as_str() {
        "In" => listed,
        "NotIn" => !listed,
        "Exists" => class.is_some(),
        "DoesNotExist" => class.is_none(),
        _ => false,
    }
}

/// What a pod must say because the quota limits it: how else could it be counted. `None` if it says everything.
pub(crate) fn missing_of_pod(names: &BTreeSet<&str>, pod: &Pod) -> Option<String> {
    const REQUIRED: [&str; 6] =
        ["cpu", "memory", "requests.cpu", "requests.memory", "limits.cpu", "limits.memory"];
    let spec = pod.spec.as_ref()?;
    let said = |resources: Option<&ResourceRequirements>| -> Resources {
        let read = |amounts: Option<&BTreeMap<String, Written>>| {
            amounts.map(pods::read).unwrap_or_default()
        };
        resources.map_or_else(Resources::new, |it| {
            compute(&read(it.requests.as_ref()), &read(it.limits.as_ref()))
        })
    };
    let by_pod = said(spec.resources.as_ref());
    let mut missing: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for container in spec.containers.iter().chain(spec.init_containers.iter().flatten()) {
        let own = said(container.resources.as_ref());
        for name in REQUIRED.iter().filter(|name| names.contains(**name)) {
            if !own.contains_key(*name) && !by_pod.contains_key(*name) {
                missing.entry(name).or_default().insert(&container.name);
            }
        }
    }
    let each = missing.iter().map(|(name, containers)| {
        let containers: Vec<&str> = containers.iter().copied().collect();
        format!("{name} for: {}", containers.join(","))
    });
    let each: Vec<String> = each.collect();
    (!each.is_empty()).then(|| format!("must specify {}", each.join("; ")))
}
