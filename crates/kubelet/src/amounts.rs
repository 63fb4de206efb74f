//! Amounts of cpu, memory and pods in the numbers that the kubelet counts with.

use k8s_openapi::api::core::v1::{Container, PodSpec};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use crate::plan::{Role, containers};

/// What a node has or a pod asks for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Amounts {
    /// Thousandths of a core.
    pub cpu_millis: u64,
    /// Bytes of memory.
    pub memory_bytes: u64,
    /// How many pods.
    pub pods: u64,
}

/// A quantity in thousandths of its unit, rounded up.
pub(crate) fn millis(quantity: &Quantity) -> Result<u64, String> {
    let parsed: coracle_api::quantity::Quantity =
        quantity.0.parse().map_err(|error| format!("quantity \"{}\": {error}", quantity.0))?;
    Ok(u64::try_from(parsed.milli_value()).unwrap_or(0))
}

/// A quantity in whole units, rounded up.
pub(crate) fn units(quantity: &Quantity) -> Result<u64, String> {
    let parsed: coracle_api::quantity::Quantity =
        quantity.0.parse().map_err(|error| format!("quantity \"{}\": {error}", quantity.0))?;
    Ok(u64::try_from(parsed.value()).unwrap_or(0))
}

/// What the scheduler and the kubelet count for a pod: upstream's `PodRequests` (pkg/api/v1/resource).
pub(crate) fn pod_requests(spec: &PodSpec) -> Amounts {
    let mut sidecars = Amounts::default();
    let mut init_peak = Amounts::default();
    let mut mains = Amounts::default();
    for (role, container) in containers(spec) {
        let own = requests(container);
        match role {
            Role::Sidecar => {
                sidecars = sidecars.plus(own);
                init_peak = init_peak.max(sidecars);
            }
            Role::Init => init_peak = init_peak.max(sidecars.plus(own)),
            Role::Main => mains = mains.plus(own),
        }
    }
    let overhead = spec.overhead.as_ref().map(|overhead| Amounts {
        cpu_millis: overhead.get("cpu").map_or(0, |cpu| millis(cpu).unwrap_or(0)),
        memory_bytes: overhead.get("memory").map_or(0, |memory| units(memory).unwrap_or(0)),
        pods: 0,
    });
    let mut all = mains.plus(sidecars).max(init_peak).plus(overhead.unwrap_or_default());
    all.pods = 1;
    all
}

fn requests(container: &Container) -> Amounts {
    let set = container.resources.as_ref().and_then(|resources| resources.requests.as_ref());
    let of = |name: &str| set.and_then(|set| set.get(name));
    Amounts {
        cpu_millis: of("cpu").map_or(0, |cpu| millis(cpu).unwrap_or(0)),
        memory_bytes: of("memory").map_or(0, |memory| units(memory).unwrap_or(0)),
        pods: 0,
    }
}

impl Amounts {
    pub(crate) fn plus(self, other: Self) -> Self {
        Self {
            cpu_millis: self.cpu_millis.saturating_add(other.cpu_millis),
            memory_bytes: self.memory_bytes.saturating_add(other.memory_bytes),
            pods: self.pods.saturating_add(other.pods),
        }
    }

    pub(crate) fn minus(self, other: Self) -> Self {
        Self {
            cpu_millis: self.cpu_millis.saturating_sub(other.cpu_millis),
            memory_bytes: self.memory_bytes.saturating_sub(other.memory_bytes),
            pods: self.pods.saturating_sub(other.pods),
        }
    }

    fn max(self, other: Self) -> Self {
        Self {
            cpu_millis: self.cpu_millis.max(other.cpu_millis),
            memory_bytes: self.memory_bytes.max(other.memory_bytes),
            pods: self.pods.max(other.pods),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_are_read_as_upstream_writes_them() {
        let cases = [
            ("1", 1000),
            ("250m", 250),
            ("0.5", 500),
            ("1.5Gi", 1_610_612_736_000),
            ("64Mi", 67_108_864_000),
            ("1e3", 1_000_000),
            ("100k", 100_000_000),
            ("1n", 1),
            ("0", 0),
        ];
        for (text, expected) in cases {
            assert_eq!(millis(&Quantity(text.to_owned())).unwrap(), expected, "{text}");
        }
        assert!(millis(&Quantity("ten".to_owned())).is_err());
    }

    #[test]
    fn a_pod_asks_for_the_larger_of_its_beginning_and_its_life() {
        let spec: PodSpec = serde_json::from_value(serde_json::json!({
            "initContainers": [
                { "name": "proxy", "restartPolicy": "Always", "resources": { "requests": { "cpu": "100m" } } },
                { "name": "setup", "resources": { "requests": { "cpu": "500m", "memory": "10Mi" } } },
            ],
            "containers": [
                { "name": "a", "resources": { "requests": { "cpu": "200m", "memory": "20Mi" } } },
                { "name": "b", "resources": { "requests": { "cpu": "50m" } } },
            ],
        }))
        .unwrap();
        assert_eq!(
            pod_requests(&spec),
            Amounts { cpu_millis: 600, memory_bytes: 20 << 20, pods: 1 }
        );
    }
}
