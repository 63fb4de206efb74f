//! What a DaemonSet's status says.

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::DaemonSetStatus;

use super::fit::{Fit, hash_of};
use super::plan::{Observed, is_available};
use crate::pods::is_ready;

/// Counts nodes. Of several pods on a node the oldest one counts.
pub(super) fn status(
    observed: &Observed<'_>,
    collisions: Option<i32>,
    now: Timestamp,
) -> DaemonSetStatus {
    let set = observed.set;
    let mut status = DaemonSetStatus {
        observed_generation: set.metadata.generation,
        collision_count: collisions,
        conditions: set.status.as_ref().and_then(|status| status.conditions.clone()),
        ..DaemonSetStatus::default()
    };
    let (mut updated, mut available) = (0, 0);
    for (node, fit) in observed.nodes {
        let oldest = observed.pods.get(node).and_then(|pods| pods.first());
        if *fit != Fit::Runs {
            status.number_misscheduled += i32::from(oldest.is_some());
            continue;
        }
        status.desired_number_scheduled += 1;
        let Some(pod) = oldest else { continue };
        status.current_number_scheduled += 1;
        status.number_ready += i32::from(is_ready(pod));
        available += i32::from(is_available(set, pod, now));
        updated += i32::from(hash_of(&pod.metadata) == observed.hash);
    }
    // Upstream leaves these out when they are zero.
    let shown = |count: i32| (count != 0).then_some(count);
    status.updated_number_scheduled = shown(updated);
    status.number_available = shown(available);
    status.number_unavailable = shown(status.desired_number_scheduled - available);
    status
}
