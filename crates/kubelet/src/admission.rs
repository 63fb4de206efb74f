//! Whether the node takes a pod that was bound to it: pure rules over what the node has left.
//!
//! The scheduler has checked this already; it is checked again because two schedulers, or a person, may bind at once.

use std::sync::Arc;

use coracle_api::host_ports::{HostPort, host_ports};
use k8s_openapi::api::core::v1::{Pod, PodSpec};
use parking_lot::Mutex;

use crate::amounts::{Amounts, pod_requests};
use crate::status::Verdict;

/// What the node's pods have been granted.
#[derive(Clone)]
pub(crate) struct Ledger {
    capacity: Amounts,
    used: Arc<Mutex<Used>>,
}

#[derive(Default)]
struct Used {
    amounts: Amounts,
    ports: Vec<HostPort>,
}

/// One pod's grant. Dropping it gives it back.
pub(crate) struct Charge {
    amounts: Amounts,
    ports: Vec<HostPort>,
    used: Arc<Mutex<Used>>,
}

impl Ledger {
    /// A node that has this much, and no pods.
    pub(crate) fn new(capacity: Amounts) -> Self {
        Self { capacity, used: Arc::default() }
    }

    fn charge(&self, amounts: Amounts, ports: Vec<HostPort>) -> Charge {
        let mut used = self.used.lock();
        used.amounts = used.amounts.plus(amounts);
        used.ports.extend(ports.iter().cloned());
        Charge { amounts, ports, used: Arc::clone(&self.used) }
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        let mut used = self.used.lock();
        used.amounts = used.amounts.minus(self.amounts);
        for port in &self.ports {
            if let Some(index) = used.ports.iter().position(|taken| taken == port) {
                used.ports.swap_remove(index);
            }
        }
    }
}

/// Grants a pod what it asks for, or says why not. A pod that has begun on this node before is always taken.
pub(crate) fn admit(ledger: &Ledger, pod: &Pod) -> (Option<Charge>, Option<Verdict>) {
    let status = pod.status.as_ref();
    let phase = status.and_then(|status| status.phase.as_deref());
    if matches!(phase, Some("Succeeded" | "Failed")) {
        return (None, None);
    }
    let none = PodSpec::default();
    let spec = pod.spec.as_ref().unwrap_or(&none);
    let (wanted, ports) = (pod_requests(spec), host_ports(spec));
    let begun = status.is_some_and(|status| status.start_time.is_some());
    let ends = pod.metadata.deletion_timestamp.is_some();
    if !begun && !ends {
        let used = ledger.used.lock();
        let lacking = refusal(wanted, used.amounts, ledger.capacity);
        let refusal = lacking.or_else(|| conflict(&ports, &used.ports));
        if refusal.is_some() {
            return (None, refusal);
        }
    }
    (Some(ledger.charge(wanted, ports)), None)
}

/// Two pods cannot have one port of the node.
fn conflict(wanted: &[HostPort], taken: &[HostPort]) -> Option<Verdict> {
    let conflicts = |port: &HostPort| taken.iter().any(|taken| taken.conflicts(port));
    wanted.iter().any(conflicts).then(|| Verdict {
        reason: "NodePorts".to_owned(),
        message: "Pod was rejected: Predicate NodePorts failed: \
                  node(s) didn't have free ports for the requested pod ports"
            .to_owned(),
    })
}

fn refusal(wanted: Amounts, used: Amounts, capacity: Amounts) -> Option<Verdict> {
    let checks = [
        ("pods", wanted.pods, used.pods, capacity.pods),
        ("cpu", wanted.cpu_millis, used.cpu_millis, capacity.cpu_millis),
        ("memory", wanted.memory_bytes, used.memory_bytes, capacity.memory_bytes),
    ];
    // What was not asked for is never lacking.
    let lacking = checks.iter().find(|(_, wanted, used, capacity)| {
        *wanted > 0 && used.saturating_add(*wanted) > *capacity
    });
    lacking.map(|(name, wanted, used, capacity)| Verdict {
        reason: format!("OutOf{name}"),
        message: format!(
            "Pod was rejected: Node didn't have enough resource: {name}, requested: {wanted}, used: {used}, capacity: {capacity}"
        ),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(cpu: &str, status: serde_json::Value) -> Pod {
        serde_json::from_value(json!({
            "metadata": { "name": "p", "uid": "u" },
            "spec": { "containers": [{ "name": "c", "resources": { "requests": { "cpu": cpu } } }] },
            "status": status,
        }))
        .unwrap()
    }

    #[test]
    fn a_full_node_refuses_what_does_not_fit() {
        let ledger = Ledger::new(Amounts { cpu_millis: 1000, memory_bytes: 1 << 30, pods: 2 });
        let (first, refusal) = admit(&ledger, &pod("600m", json!({})));
        assert!(first.is_some() && refusal.is_none());

        let (charge, refusal) = admit(&ledger, &pod("500m", json!({})));
        let refusal = refusal.unwrap();
        assert!(charge.is_none());
        assert_eq!(refusal.reason, "OutOfcpu");
        assert_eq!(
            refusal.message,
            "Pod was rejected: Node didn't have enough resource: cpu, requested: 500, used: 600, capacity: 1000"
        );

        let (begun, refusal) =
            admit(&ledger, &pod("500m", json!({ "startTime": "2026-01-01T00:00:00Z" })));
        assert!(begun.is_some() && refusal.is_none(), "what runs is never refused");

        let (_, refusal) = admit(&ledger, &pod("0", json!({})));
        assert_eq!(refusal.unwrap().reason, "OutOfpods");

        drop((first, begun));
        let (charge, refusal) = admit(&ledger, &pod("1", json!({})));
        assert!(charge.is_some() && refusal.is_none());
    }

    #[test]
    fn a_port_of_the_node_is_one_pods() {
        let ledger = Ledger::new(Amounts { cpu_millis: 1000, memory_bytes: 1 << 30, pods: 9 });
        let with_port = |port: i32| -> Pod {
            let ports = json!([{ "containerPort": 80, "hostPort": port, "protocol": "TCP" }]);
            serde_json::from_value(json!({
                "metadata": { "name": "p", "uid": "u" },
                "spec": { "containers": [{ "name": "c", "ports": ports }] },
            }))
            .unwrap()
        };
        let (first, refusal) = admit(&ledger, &with_port(8080));
        assert!(first.is_some() && refusal.is_none());
        assert!(admit(&ledger, &with_port(8081)).1.is_none());
        let (charge, refusal) = admit(&ledger, &with_port(8080));
        assert!(charge.is_none());
        assert_eq!(refusal.unwrap().reason, "NodePorts");
        drop(first);
        assert!(admit(&ledger, &with_port(8080)).1.is_none());
    }
}
