//! Amounts of what nodes have and pods ask for.

use std::collections::BTreeMap;

use coracle_api::quantity::Quantity;
use k8s_openapi::api::core::v1::{Container, PodSpec, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as ApiQuantity;

/// What a container without a CPU request counts as when nodes are compared, as upstream has it.
const DEFAULT_MILLI_CPU: i64 = 100;
/// The same for memory.
const DEFAULT_MEMORY_BYTES: i64 = 200 * 1024 * 1024;

/// An amount of each resource. What is not named is zero.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Resources {
    /// CPU, in thousandths of a core.
    pub milli_cpu: i64,
    /// Memory, in bytes.
    pub memory_bytes: i64,
    /// Local scratch storage, in bytes.
    pub ephemeral_bytes: i64,
    /// Extended resources, huge pages and whatever else a node offers.
    pub others: BTreeMap<String, i64>,
}

type Amounts = BTreeMap<String, ApiQuantity>;

impl Resources {
    /// Reads what the API writes. `pods` is not a resource here: see [`crate::Node::most_pods`].
    pub fn from_amounts(amounts: Option<&Amounts>) -> Resources {
        let mut resources = Resources::default();
        for (name, quantity) in amounts.into_iter().flatten() {
            // Validation lets nothing else in; what slips through asks for nothing.
            let Ok(quantity) = quantity.0.parse::<Quantity>() else { continue };
            match name.as_str() {
                "pods" => (),
                "cpu" => resources.milli_cpu = quantity.milli_value(),
                "memory" => resources.memory_bytes = quantity.value(),
                "ephemeral-storage" => resources.ephemeral_bytes = quantity.value(),
                _ => {
                    resources.others.insert(name.clone(), quantity.value());
                }
            }
        }
        resources
    }

    /// What a pod needs at the same time at most: its containers and sidecars, or one init container and the sidecars
    /// that started before it, whichever is more; and the overhead of its runtime.
    ///
    /// Behaves like upstream's `PodRequests` (k8s.io/component-helpers/resource).
    pub fn of_pod(spec: &PodSpec) -> Resources {
        let mut requests = combine(spec, |container| {
            Resources::from_amounts(requests_of(container.resources.as_ref()))
        });
        if let Some(of_pod) = requests_of(spec.resources.as_ref()) {
            requests.replace(of_pod);
        }
        requests.add(&Resources::from_amounts(spec.overhead.as_ref()));
        requests
    }

    /// As [`Resources::of_pod`], for comparing nodes: a container without requests still counts for something.
    pub(crate) fn of_pod_nonzero(spec: &PodSpec) -> Resources {
        let of_pod = requests_of(spec.resources.as_ref());
        let is_set = |amounts: Option<&Amounts>, name| {
            amounts.is_some_and(|amounts| amounts.contains_key(name))
        };
        let mut requests = combine(spec, |container| {
            let amounts = requests_of(container.resources.as_ref());
            let mut requests = Resources::from_amounts(amounts);
            if !is_set(amounts, "cpu") && !is_set(of_pod, "cpu") {
                requests.milli_cpu = DEFAULT_MILLI_CPU;
            }
            if !is_set(amounts, "memory") && !is_set(of_pod, "memory") {
                requests.memory_bytes = DEFAULT_MEMORY_BYTES;
            }
            requests
        });
        if let Some(of_pod) = of_pod {
            requests.replace(of_pod);
        }
        requests.add(&Resources::from_amounts(spec.overhead.as_ref()));
        requests
    }

    /// Adds another amount.
    pub fn add(&mut self, other: &Resources) {
        self.each(other, i64::saturating_add);
    }

    /// Takes another amount away.
    pub fn subtract(&mut self, other: &Resources) {
        self.each(other, i64::saturating_sub);
        self.others.retain(|_, amount| *amount != 0);
    }

    /// The amount of a resource, by its name.
    pub(crate) fn get(&self, name: &str) -> i64 {
        match name {
            "cpu" => self.milli_cpu,
            "memory" => self.memory_bytes,
            "ephemeral-storage" => self.ephemeral_bytes,
            name => self.other(name),
        }
    }

    /// The amount of an extended resource.
    pub fn other(&self, name: &str) -> i64 {
        self.others.get(name).copied().unwrap_or(0)
    }

    /// Whether it is no amount of anything.
    pub fn is_nothing(&self) -> bool {
        self.milli_cpu == 0
            && self.memory_bytes == 0
            && self.ephemeral_bytes == 0
            && self.others.values().all(|amount| *amount == 0)
    }

    fn at_least(&mut self, other: &Resources) {
        self.each(other, std::cmp::max);
    }

    fn each(&mut self, other: &Resources, combine: impl Fn(i64, i64) -> i64) {
        self.milli_cpu = combine(self.milli_cpu, other.milli_cpu);
        self.memory_bytes = combine(self.memory_bytes, other.memory_bytes);
        self.ephemeral_bytes = combine(self.ephemeral_bytes, other.ephemeral_bytes);
        for (name, amount) in &other.others {
            let mine = self.others.entry(name.clone()).or_default();
            *mine = combine(*mine, *amount);
        }
    }

    /// Requests of the whole pod stand in for the sum of its containers'.
    fn replace(&mut self, of_pod: &Amounts) {
        let amounts = Resources::from_amounts(Some(of_pod));
        if of_pod.contains_key("cpu") {
            self.milli_cpu = amounts.milli_cpu;
        }
        if of_pod.contains_key("memory") {
            self.memory_bytes = amounts.memory_bytes;
        }
        self.others.extend(amounts.others);
    }
}

fn requests_of(resources: Option<&ResourceRequirements>) -> Option<&Amounts> {
    resources.and_then(|resources| resources.requests.as_ref())
}

fn combine(spec: &PodSpec, requests: impl Fn(&Container) -> Resources) -> Resources {
    let mut sum = Resources::default();
    for container in &spec.containers {
        sum.add(&requests(container));
    }
    let mut sidecars = Resources::default();
    let mut most_at_start = Resources::default();
    for container in spec.init_containers.iter().flatten() {
        let own = requests(container);
        if container.restart_policy.as_deref() == Some("Always") {
            sidecars.add(&own);
            most_at_start.at_least(&sidecars);
        } else {
            let mut at_once = own;
            at_once.add(&sidecars);
            most_at_start.at_least(&at_once);
        }
    }
    sum.add(&sidecars);
    sum.at_least(&most_at_start);
    sum
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn check(spec: serde_json::Value, milli_cpu: i64, memory_bytes: i64) {
        let spec: PodSpec = serde_json::from_value(spec).unwrap();
        let requests = Resources::of_pod(&spec);
        assert_eq!((requests.milli_cpu, requests.memory_bytes), (milli_cpu, memory_bytes));
    }

    fn container(cpu: &str, memory: &str) -> serde_json::Value {
        json!({"name": "c", "resources": {"requests": {"cpu": cpu, "memory": memory}}})
    }

    fn sidecar(cpu: &str, memory: &str) -> serde_json::Value {
        let mut container = container(cpu, memory);
        container["restartPolicy"] = json!("Always");
        container
    }

    #[test]
    fn requests_are_what_a_pod_needs_at_once() {
        check(json!({"containers": []}), 0, 0);
        check(json!({"containers": [{"name": "c"}]}), 0, 0);
        check(json!({"containers": [container("100m", "1Ki"), container("1", "1k")]}), 1100, 2024);
        // An init container runs alone …
        let spec = json!({"containers": [container("1", "10")], "initContainers": [container("3", "1"), container("2", "20")]});
        check(spec, 3000, 20);
        // … except for the sidecars before it.
        let init = [container("3", "1"), sidecar("1", "5"), container("2500m", "1")];
        check(json!({"containers": [container("1", "10")], "initContainers": init}), 3500, 15);
        check(json!({"containers": [container("1", "10")], "overhead": {"cpu": "50m"}}), 1050, 10);
        let spec =
            json!({"containers": [container("1", "10")], "resources": {"requests": {"cpu": "4"}}});
        check(spec, 4000, 10);
        check(json!({"containers": [container("0.1m", "1500m")]}), 1, 2);
    }

    #[test]
    fn containers_without_requests_still_count_when_nodes_are_compared() {
        let spec = json!({"containers": [{"name": "c"}, container("1", "1")]});
        let nonzero = Resources::of_pod_nonzero(&serde_json::from_value(spec).unwrap());
        assert_eq!((nonzero.milli_cpu, nonzero.memory_bytes), (1100, DEFAULT_MEMORY_BYTES + 1));
    }
}
