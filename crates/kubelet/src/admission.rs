//! Whether the node takes a pod that was bound to it: pure rules over what the node has left.
//!
//! The scheduler has checked this already; it is checked again because two schedulers, or a person, may bind at once.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{Pod, PodSpec};
use parking_lot::Mutex;

use crate::amounts::{Amounts, pod_requests};
use crate::status::Verdict;

/// What the node's pods have been granted.
#[derive(Clone)]
pub(crate) struct Ledger {
    capacity: Amounts,
    used: Arc<Mutex<Amounts>>,
}

/// One pod's grant. Dropping it gives it back.
pub(crate) struct Charge {
    amounts: Amounts,
    used: Arc<Mutex<Amounts>>,
}

impl Ledger {
    /// A node that has this much, and no pods.
    pub(crate) fn new(capacity: Amounts) -> Self {
        Self { capacity, used: Arc::default() }
    }

    fn charge(&self, amounts: Amounts) -> Charge {
        let mut used = self.used.lock();
        *used = used.plus(amounts);
        Charge { amounts, used: Arc::clone(&self.used) }
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        let mut used = self.used.lock();
        *used = used.minus(self.amounts);
    }
}

/// Grants a pod what it asks for, or says why not. A pod that has begun on this node before is always taken.
pub(crate) fn admit(ledger: &Ledger, pod: &Pod) -> (Option<Charge>, Option<Verdict>) {
    let status = pod.status.as_ref();
    let phase = status.and_then(|status| status.phase.as_deref());
    if matches!(phase, Some("Succeeded" | "Failed")) {
        return (None, None);
    }
    let wanted = pod_requests(pod.spec.as_ref().unwrap_or(&PodSpec::default()));
    let begun = status.is_some_and(|status| status.start_time.is_some());
    let ends = pod.metadata.deletion_timestamp.is_some();
    if !begun && !ends {
        let used = *ledger.used.lock();
        if let Some(refusal) = refusal(wanted, used, ledger.capacity) {
            return (None, Some(refusal));
        }
    }
    (Some(ledger.charge(wanted)), None)
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
}
