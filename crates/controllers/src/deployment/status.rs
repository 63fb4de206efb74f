//! What a Deployment's status says: counts, and the conditions Available, Progressing and ReplicaFailure.

use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::apps::v1::{
    Deployment, DeploymentCondition, DeploymentStatus, ReplicaSet, ReplicaSetCondition,
    ReplicaSetStatus,
};

use super::rollout::{self, Limits};
use crate::api::api_time;

const AVAILABLE: &str = "Available";
const PROGRESSING: &str = "Progressing";
const REPLICA_FAILURE: &str = "ReplicaFailure";

const NEW_SET_AVAILABLE: &str = "NewReplicaSetAvailable";
const TIMED_OUT: &str = "ProgressDeadlineExceeded";
const PAUSED: &str = "DeploymentPaused";

/// A deadline that has just passed must have passed for the clock that judges it, too.
const DEADLINE_MARGIN: Duration = Duration::from_millis(100);

/// What the status is computed from: the sets as they are after the writes of this pass.
pub(super) struct Progress<'a> {
    pub deployment: &'a Deployment,
    pub sets: &'a [Arc<ReplicaSet>],
    pub new: Option<usize>,
    /// Whether this pass creates it.
    pub creates: bool,
    pub limits: Limits,
    pub now: Timestamp,
}

impl Progress<'_> {
    /// The status of a Deployment that does not roll: counts, availability, paused or resumed.
    pub fn counted(&self) -> DeploymentStatus {
        let mut status = self.counts();
        let enough = status.available_replicas.unwrap_or(0) >= self.limits.fewest_available();
        let available = if enough {
            self.condition(
                AVAILABLE,
                "True",
                "MinimumReplicasAvailable",
                "Deployment has minimum availability.",
            )
        } else {
            let message = "Deployment does not have minimum availability.";
            self.condition(AVAILABLE, "False", "MinimumReplicasUnavailable", message)
        };
        let mut conditions = self
            .deployment
            .status
            .as_ref()
            .and_then(|status| status.conditions.clone())
            .unwrap_or_default();
        set(&mut conditions, available);
        self.note_pause(&mut conditions);
        if let Some(new) = self.new_set().filter(|_| self.deadline().is_some()) {
            if self.creates {
                let message = format!("Created new replica set {:?}", name(new));
                set(
                    &mut conditions,
                    self.condition(PROGRESSING, "True", "NewReplicaSetCreated", &message),
                );
            } else if get(&conditions, PROGRESSING).is_none() {
                let message = format!("Found new replica set {:?}", name(new));
                set(
                    &mut conditions,
                    self.condition(PROGRESSING, "True", "FoundNewReplicaSet", &message),
                );
            }
        }
        status.conditions = Some(conditions);
        status
    }

    /// The status of a Deployment that rolls, and when to look at its deadline.
    pub fn during_rollout(&self) -> (DeploymentStatus, Option<Duration>) {
        let mut status = self.counted();
        let mut conditions = status.conditions.take().unwrap_or_default();
        match self.deadline() {
            None => conditions.retain(|condition| !is(condition, PROGRESSING)),
            Some(deadline) if !self.was_complete(&status, &conditions) => {
                self.judge(&mut conditions, &status, deadline);
            }
            Some(_) => (),
        }
        conditions.retain(|condition| !is(condition, REPLICA_FAILURE));
        conditions.extend(self.replica_failure());
        let recheck = self.recheck(&conditions, &status);
        status.conditions = Some(conditions);
        (status, recheck)
    }

    fn new_set(&self) -> Option<&ReplicaSet> {
        self.new.map(|index| self.sets[index].as_ref())
    }

    /// The set's name in messages, or the Deployment's.
    fn subject(&self) -> String {
        match self.new_set() {
            Some(set) => format!("ReplicaSet {:?}", name(set)),
            None => format!(
                "Deployment {:?}",
                self.deployment.metadata.name.as_deref().unwrap_or_default()
            ),
        }
    }

    fn counts(&self) -> DeploymentStatus {
        let status = |set: &Arc<ReplicaSet>| set.status.clone().unwrap_or_default();
        let sum = |count: fn(&ReplicaSetStatus) -> i32| {
            self.sets.iter().map(|set| count(&status(set))).sum::<i32>()
        };
        let wanted: i32 = self.sets.iter().map(|set| rollout::replicas(set)).sum();
        let available = sum(|status| status.available_replicas.unwrap_or(0));
        let updated =
            self.new_set().and_then(|set| set.status.as_ref()).map_or(0, |status| status.replicas);
        DeploymentStatus {
            observed_generation: self.deployment.metadata.generation,
            replicas: nonzero(sum(|status| status.replicas)),
            updated_replicas: nonzero(updated),
            ready_replicas: nonzero(sum(|status| status.ready_replicas.unwrap_or(0))),
            available_replicas: nonzero(available),
            unavailable_replicas: nonzero((wanted - available).max(0)),
            terminating_replicas: Some(sum(|status| status.terminating_replicas.unwrap_or(0))),
            collision_count: self
                .deployment
                .status
                .as_ref()
                .and_then(|status| status.collision_count),
            conditions: None,
        }
    }

    /// Time does not run against a rollout while it is paused.
    fn note_pause(&self, conditions: &mut Vec<DeploymentCondition>) {
        let known = get(conditions, PROGRESSING).and_then(|condition| condition.reason.clone());
        if self.deadline().is_none() || known.as_deref() == Some(TIMED_OUT) {
            return;
        }
        let paused = self.deployment.spec.paused == Some(true);
        let was_paused = known.as_deref() == Some(PAUSED);
        if paused && !was_paused {
            set(conditions, self.condition(PROGRESSING, "Unknown", PAUSED, "Deployment is paused"));
        } else if !paused && was_paused {
            set(
                conditions,
                self.condition(
                    PROGRESSING,
                    "Unknown",
                    "DeploymentResumed",
                    "Deployment is resumed",
                ),
            );
        }
    }

    /// The rollout was over before, and still is.
    fn was_complete(&self, status: &DeploymentStatus, conditions: &[DeploymentCondition]) -> bool {
        let reason = get(conditions, PROGRESSING).and_then(|condition| condition.reason.as_deref());
        status.replicas == status.updated_replicas
            && reason == Some(NEW_SET_AVAILABLE)
            && !self.creates
    }

    fn judge(
        &self,
        conditions: &mut Vec<DeploymentCondition>,
        status: &DeploymentStatus,
        deadline: SignedDuration,
    ) {
        if is_complete(self.deployment, status) {
            let message = format!("{} has successfully progressed.", self.subject());
            set(conditions, self.condition(PROGRESSING, "True", NEW_SET_AVAILABLE, &message));
        } else if self.has_progressed(status) {
            let message = format!("{} is progressing.", self.subject());
            let mut progressing =
                self.condition(PROGRESSING, "True", "ReplicaSetUpdated", &message);
            // Here the same reason again is news: each step starts the deadline anew.
            if let Some(known) =
                get(conditions, PROGRESSING).filter(|known| known.status == progressing.status)
            {
                progressing.last_transition_time.clone_from(&known.last_transition_time);
            }
            conditions.retain(|condition| !is(condition, PROGRESSING));
            conditions.push(progressing);
        } else if self.is_late(conditions, deadline) {
            let message = format!("{} has timed out progressing.", self.subject());
            set(conditions, self.condition(PROGRESSING, "False", TIMED_OUT, &message));
        }
    }

    fn has_progressed(&self, status: &DeploymentStatus) -> bool {
        let before = self.deployment.status.clone().unwrap_or_default();
        let count = |count: Option<i32>| count.unwrap_or(0);
        let old =
            |status: &DeploymentStatus| count(status.replicas) - count(status.updated_replicas);
        count(status.updated_replicas) > count(before.updated_replicas)
            || old(status) < old(&before)
            || count(status.ready_replicas) > count(before.ready_replicas)
            || count(status.available_replicas) > count(before.available_replicas)
    }

    fn is_late(&self, conditions: &[DeploymentCondition], deadline: SignedDuration) -> bool {
        let Some(known) = get(conditions, PROGRESSING) else { return false };
        match known.reason.as_deref() {
            Some(NEW_SET_AVAILABLE) => false,
            Some(TIMED_OUT) => true,
            _ => known
                .last_update_time
                .as_ref()
                .is_some_and(|since| self.now.duration_since(since.0) > deadline),
        }
    }

    fn recheck(
        &self,
        conditions: &[DeploymentCondition],
        status: &DeploymentStatus,
    ) -> Option<Duration> {
        let deadline = self.deadline()?;
        let known = get(conditions, PROGRESSING)?;
        let over = matches!(known.reason.as_deref(), Some(TIMED_OUT | NEW_SET_AVAILABLE));
        if over || is_complete(self.deployment, status) {
            return None;
        }
        let left = deadline - self.now.duration_since(known.last_update_time.as_ref()?.0);
        Some(Duration::try_from(left).unwrap_or_default() + DEADLINE_MARGIN)
    }

    fn deadline(&self) -> Option<SignedDuration> {
        let seconds = self.deployment.spec.progress_deadline_seconds?;
        (seconds != i32::MAX).then(|| SignedDuration::from_secs(seconds.into()))
    }

    /// The failure of a set's controller to make or delete pods; the new set's comes first.
    fn replica_failure(&self) -> Option<DeploymentCondition> {
        let failure = |set: &ReplicaSet| -> Option<ReplicaSetCondition> {
            let conditions = set.status.as_ref()?.conditions.as_deref()?;
            conditions
                .iter()
                .find(|condition| condition.type_.as_deref() == Some(REPLICA_FAILURE))
                .cloned()
        };
        let sets = self.new_set().into_iter().chain(self.sets.iter().map(AsRef::as_ref));
        sets.filter_map(failure).next().map(|failure| DeploymentCondition {
            type_: failure.type_,
            status: failure.status,
            reason: failure.reason,
            message: failure.message,
            last_update_time: failure.last_transition_time.clone(),
            last_transition_time: failure.last_transition_time,
        })
    }

    fn condition(
        &self,
        type_: &str,
        status: &str,
        reason: &str,
        message: &str,
    ) -> DeploymentCondition {
        condition(type_, status, reason, message, self.now)
    }
}

/// Every replica is of the current template, and available.
pub(super) fn is_complete(deployment: &Deployment, status: &DeploymentStatus) -> bool {
    let desired = deployment.spec.replicas.unwrap_or(1);
    let all = |count: Option<i32>| count.unwrap_or(0) == desired;
    all(status.updated_replicas)
        && all(status.replicas)
        && all(status.available_replicas)
        && status.observed_generation >= deployment.metadata.generation
}

/// The status after the new set's name turned out to be taken: the next one gets another hash.
pub(super) fn collided(deployment: &Deployment) -> DeploymentStatus {
    let mut status = deployment.status.clone().unwrap_or_default();
    status.collision_count = Some(status.collision_count.unwrap_or(0) + 1);
    status
}

/// The status after the new set could not be created.
pub(super) fn creation_failed(
    deployment: &Deployment,
    why: &str,
    now: Timestamp,
) -> DeploymentStatus {
    let mut status = deployment.status.clone().unwrap_or_default();
    let seconds = deployment.spec.progress_deadline_seconds;
    if seconds.is_some_and(|seconds| seconds != i32::MAX) {
        let failed = condition(PROGRESSING, "False", "ReplicaSetCreateError", why, now);
        set(status.conditions.get_or_insert_default(), failed);
    }
    status
}

fn condition(
    type_: &str,
    status: &str,
    reason: &str,
    message: &str,
    now: Timestamp,
) -> DeploymentCondition {
    DeploymentCondition {
        type_: Some(type_.to_owned()),
        status: Some(status.to_owned()),
        reason: Some(reason.to_owned()),
        message: Some(message.to_owned()),
        last_update_time: Some(api_time(now)),
        last_transition_time: Some(api_time(now)),
    }
}

/// Takes a condition in, unless it says what is known already.
fn set(conditions: &mut Vec<DeploymentCondition>, mut new: DeploymentCondition) {
    let place = conditions.iter().position(|known| known.type_ == new.type_);
    if let Some(known) = place.map(|place| &conditions[place]) {
        if known.status == new.status && known.reason == new.reason {
            return;
        }
        if known.status == new.status {
            new.last_transition_time.clone_from(&known.last_transition_time);
        }
    }
    conditions.retain(|known| known.type_ != new.type_);
    conditions.push(new);
}

fn get<'a>(conditions: &'a [DeploymentCondition], type_: &str) -> Option<&'a DeploymentCondition> {
    conditions.iter().find(|condition| is(condition, type_))
}

fn is(condition: &DeploymentCondition, type_: &str) -> bool {
    condition.type_.as_deref() == Some(type_)
}

fn name(set: &ReplicaSet) -> &str {
    set.metadata.name.as_deref().unwrap_or_default()
}

/// Upstream leaves counts of zero out.
fn nonzero(count: i32) -> Option<i32> {
    (count != 0).then_some(count)
}
