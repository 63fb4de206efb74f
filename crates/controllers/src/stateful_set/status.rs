//! What a StatefulSet's status says.

use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::StatefulSetStatus;

use super::plan::{Observed, is_going, is_healthy, min_ready, revision, strategy};
use crate::pod::Pod;
use crate::pods::{Availability, availability};

/// Counts what is there. A rollout that is done makes the newer revision the current one.
pub(super) fn status(
    observed: &Observed<'_>,
    collisions: Option<i32>,
    now: Timestamp,
) -> StatefulSetStatus {
    let Observed { set, current, update, pods } = observed;
    let count = |holds: &dyn Fn(&Pod) -> bool| {
        let pods: &[Arc<Pod>] = pods;
        i32::try_from(pods.iter().filter(|pod| holds(pod)).count()).unwrap_or(i32::MAX)
    };
    let min_ready = min_ready(set);
    let replicas = count(&|_| true);
    let ready = count(&is_healthy);
    let is_available = |pod: &Pod| availability(pod, min_ready, now) == Availability::Available;
    let available = count(&|pod| is_healthy(pod) && is_available(pod));
    let updated = count(&|pod| !is_going(pod) && revision(pod) == *update);
    let mut current = (*current).to_owned();
    let mut currents = count(&|pod| !is_going(pod) && revision(pod) == current);
    let wanted = set.spec.replicas.unwrap_or(1);
    let is_rolled_out = updated == wanted && replicas == wanted && ready == wanted;
    if strategy(set) == "RollingUpdate" && is_rolled_out {
        (*update).clone_into(&mut current);
        currents = updated;
    }
    let before = set.status.as_ref();
    StatefulSetStatus {
        observed_generation: set.metadata.generation,
        replicas,
        ready_replicas: nonzero(ready),
        // Upstream always says this one.
        available_replicas: Some(available),
        current_replicas: nonzero(currents),
        updated_replicas: nonzero(updated),
        current_revision: Some(current),
        update_revision: Some((*update).to_owned()),
        // Upstream always has it.
        collision_count: collisions.or(Some(0)),
        conditions: before.and_then(|status| status.conditions.clone()),
    }
}

/// Upstream leaves counts of zero out.
fn nonzero(count: i32) -> Option<i32> {
    (count != 0).then_some(count)
}
