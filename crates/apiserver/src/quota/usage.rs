//! What an object counts for: which of a quota's names it is measured by, and how much it is.
//!
//! Pure. The names are upstream's (<https://github.com/kubernetes/kubernetes/tree/master/pkg/quota/v1/evaluator/core>).
//! Upstream stops to charge pods whose grace is long over although they are still there; here they count until they are gone.

use coracle_api::kinds::{Kind, Storage};
use coracle_api::pods::{self, QualityOfService, Resources};
use coracle_api::quantity::{Format, Quantity};
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod, PodAffinityTerm, PodSpec, Service};
use serde::Deserialize as _;
use serde_json::Value;

/// What one object takes of a quota, and which quotas that concerns.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Measured {
    /// By the names that quotas use.
    pub usage: Resources,
    /// What scopes ask about.
    pub traits: Traits,
}

/// What the scopes of a quota tell objects apart by.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) enum Traits {
    /// Nothing: no scope is about such objects.
    #[default]
    None,
    /// Of a pod.
    Pod {
        terminating: bool,
        best_effort: bool,
        priority_class: Option<String>,
        cross_namespace_affinity: bool,
    },
    /// Of a claim.
    Claim { attributes_class: Option<String> },
}

/// Whether objects of the kind can be counted at all. Events come and go by themselves.
pub(crate) fn is_counted(kind: &Kind) -> bool {
    kind.namespaced && matches!(kind.storage, Storage::Own) && kind.kind != "Event"
}

/// Whether an amount of this name is about objects of this kind.
pub(crate) fn concerns(kind: &Kind, name: &str) -> bool {
    if let Some(resource) = name.strip_prefix("count/") {
        return resource == kind.resource();
    }
    match (kind.group, kind.kind) {
        ("", "Pod") => is_pod_resource(name),
        ("", "Service") => {
            matches!(name, "services" | "services.nodeports" | "services.loadbalancers")
        }
        ("", "PersistentVolumeClaim") => {
            matches!(name, "persistentvolumeclaims" | "requests.storage")
                || name.split_once(CLASS_SUFFIX).is_some_and(|(_, what)| {
                    matches!(what, "requests.storage" | "persistentvolumeclaims")
                })
        }
        ("", "ConfigMap" | "Secret" | "ReplicationController" | "ResourceQuota") => {
            name == kind.plural
        }
        ("resource.k8s.io", "ResourceClaim") => name == kind.plural,
        _ => false,
    }
}

/// Between a storage class and what is counted of it.
const CLASS_SUFFIX: &str = ".storageclass.storage.k8s.io/";

fn is_pod_resource(name: &str) -> bool {
    match name {
        "pods" => true,
        "limits.cpu" | "limits.memory" | "limits.ephemeral-storage" => true,
        _ => {
            let (asked, name) = match name.strip_prefix("requests.") {
                Some(name) => (true, name),
                None => (false, name),
            };
            matches!(name, "cpu" | "memory" | "ephemeral-storage")
                || name.starts_with("hugepages-")
                || (asked && is_extended(name))
        }
    }
}

/// A resource that somebody else than Kubernetes defined.
fn is_extended(name: &str) -> bool {
    name.split_once('/')
        .is_some_and(|(domain, _)| domain != "kubernetes.io" && !domain.ends_with(".kubernetes.io"))
}

/// Measures an object. What cannot be read counts as one object.
pub(crate) fn measure(kind: &Kind, object: &Value) -> Measured {
    let mut usage = Resources::new();
    usage.insert(format!("count/{}", kind.resource()), ONE);
    let traits = match (kind.group, kind.kind) {
        ("", "Pod") => Pod::deserialize(object).map(|pod| of_pod(&pod, &mut usage)),
        ("", "Service") => Service::deserialize(object).map(|it| of_service(&it, &mut usage)),
        ("", "PersistentVolumeClaim") => {
            PersistentVolumeClaim::deserialize(object).map(|claim| of_claim(&claim, &mut usage))
        }
        _ => {
            if concerns(kind, kind.plural) {
                usage.insert(kind.plural.to_owned(), ONE);
            }
            Ok(Traits::None)
        }
    };
    Measured { usage, traits: traits.unwrap_or_default() }
}

const ONE: Quantity = Quantity::new(1, Format::DecimalSi);

fn of_pod(pod: &Pod, usage: &mut Resources) -> Traits {
    // A pod that has ended uses nothing any more, but is still an object.
    if !pods::is_terminated(pod) {
        usage.insert("pods".to_owned(), ONE);
        usage.extend(compute(&pods::effective_requests(pod), &pods::effective_limits(pod)));
    }
    let spec = pod.spec.as_ref();
    Traits::Pod {
        terminating: spec
            .and_then(|spec| spec.active_deadline_seconds)
            .is_some_and(|seconds| seconds >= 0),
        best_effort: pods::quality_of_service(pod) == QualityOfService::BestEffort,
        priority_class: spec
            .and_then(|spec| spec.priority_class_name.clone())
            .filter(|name| !name.is_empty()),
        cross_namespace_affinity: spec.is_some_and(looks_into_other_namespaces),
    }
}

/// Requests and limits under the names that quotas use.
pub(crate) fn compute(requests: &Resources, limits: &Resources) -> Resources {
    let mut usage = Resources::new();
    for (name, amount) in requests {
        let plain = matches!(name.as_str(), "cpu" | "memory" | "ephemeral-storage");
        if plain || name.starts_with("hugepages-") {
            usage.insert(name.clone(), *amount);
            usage.insert(format!("requests.{name}"), *amount);
        } else if is_extended(name) {
            usage.insert(format!("requests.{name}"), *amount);
        }
    }
    for (name, amount) in limits {
        if matches!(name.as_str(), "cpu" | "memory" | "ephemeral-storage") {
            usage.insert(format!("limits.{name}"), *amount);
        }
    }
    usage
}

fn looks_into_other_namespaces(spec: &PodSpec) -> bool {
    let Some(affinity) = &spec.affinity else { return false };
    let far = |term: &PodAffinityTerm| {
        term.namespaces.as_ref().is_some_and(|names| !names.is_empty())
            || term.namespace_selector.is_some()
    };
    let near = affinity.pod_affinity.iter().flat_map(|affinity| {
        let required = affinity.required_during_scheduling_ignored_during_execution.iter();
        let preferred = affinity.preferred_during_scheduling_ignored_during_execution.iter();
        required.flatten().chain(preferred.flatten().map(|term| &term.pod_affinity_term))
    });
    let anti = affinity.pod_anti_affinity.iter().flat_map(|affinity| {
        let required = affinity.required_during_scheduling_ignored_during_execution.iter();
        let preferred = affinity.preferred_during_scheduling_ignored_during_execution.iter();
        required.flatten().chain(preferred.flatten().map(|term| &term.pod_affinity_term))
    });
    near.chain(anti).any(far)
}

fn of_service(service: &Service, usage: &mut Resources) -> Traits {
    usage.insert("services".to_owned(), ONE);
    let Some(spec) = &service.spec else { return Traits::None };
    let ports = spec.ports.as_deref().unwrap_or_default();
    let all = i64::try_from(ports.len()).unwrap_or(i64::MAX);
    let chosen = ports.iter().filter(|port| port.node_port.is_some_and(|number| number != 0));
    let chosen = i64::try_from(chosen.count()).unwrap_or(i64::MAX);
    let node_ports = match spec.type_.as_deref() {
        Some("NodePort") => all,
        Some("LoadBalancer") => {
            usage.insert("services.loadbalancers".to_owned(), ONE);
            if spec.allocate_load_balancer_node_ports == Some(false) { chosen } else { all }
        }
        _ => 0,
    };
    usage.insert("services.nodeports".to_owned(), Quantity::new(node_ports, Format::DecimalSi));
    Traits::None
}

fn of_claim(claim: &PersistentVolumeClaim, usage: &mut Resources) -> Traits {
    let spec = claim.spec.as_ref();
    let class = spec.and_then(|spec| spec.storage_class_name.as_deref()).unwrap_or_default();
    let mut both = |name: &str, amount: Quantity| {
        usage.insert(name.to_owned(), amount);
        if !class.is_empty() {
            usage.insert(format!("{class}{CLASS_SUFFIX}{name}"), amount);
        }
    };
    both("persistentvolumeclaims", ONE);
    let requests = spec.and_then(|spec| spec.resources.as_ref()?.requests.as_ref());
    let asked = requests.map(pods::read).and_then(|requests| requests.get("storage").copied());
    // While a claim shrinks or grows, what it holds already counts if it is more.
    let held = claim.status.as_ref().and_then(|status| status.allocated_resources.as_ref());
    let held = held.map(pods::read).and_then(|held| held.get("storage").copied());
    if let Some(storage) = asked.max(held) {
        both("requests.storage", storage);
    }
    let attributes_class = spec.and_then(|spec| spec.volume_attributes_class_name.clone());
    Traits::Claim { attributes_class: attributes_class.filter(|name| !name.is_empty()) }
}
