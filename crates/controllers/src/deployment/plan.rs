//! What a Deployment needs next. Pure: state and time in, writes out.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{Deployment, DeploymentStatus, ReplicaSet};

use super::revision;
use super::rollout::{self, Limits, Rollout};
use super::status::{self, Progress};

/// What is known of a Deployment.
pub(super) struct Observed<'a> {
    pub deployment: &'a Deployment,
    /// The ReplicaSets that it controls.
    pub sets: Vec<Arc<ReplicaSet>>,
    /// For the strategy `Recreate`: how many pods of a set (by uid) may still run a container.
    pub running_pods: HashMap<String, usize>,
}

/// What to write. Each object is written once at most.
#[derive(Debug, Default)]
pub(super) struct Plan {
    /// The new set, when there is none.
    pub create: Option<ReplicaSet>,
    /// Sets before and after.
    pub updates: Vec<(Arc<ReplicaSet>, Arc<ReplicaSet>)>,
    /// Sets beyond the history limit.
    pub deletions: Vec<Arc<ReplicaSet>>,
    /// What the status has to say.
    pub status: DeploymentStatus,
    /// The revision of the new set, which the Deployment repeats.
    pub revision: Option<String>,
    /// When to look again although nothing changed: the progress deadline.
    pub recheck: Option<Duration>,
}

impl Plan {
    /// Nothing but a status.
    pub fn only_status(status: DeploymentStatus) -> Self {
        Self { status, ..Self::default() }
    }
}

/// What is done with the sets in this pass.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    /// The Deployment is going: only tell what is there.
    Watch,
    /// It is paused, or was scaled: keep proportions, start nothing new.
    Scale,
    /// Roll to the template.
    Roll,
}

/// Decides what a Deployment needs next.
pub(super) fn plan(observed: &Observed<'_>, now: Timestamp) -> Plan {
    let deployment = observed.deployment;
    let mut before = observed.sets.clone();
    before.sort_by(|a, b| revision::age_order(a, b));
    let recreate = rollout::is_recreate(deployment);
    let mut rollout = Rollout {
        limits: Limits::of(deployment),
        new: revision::find_new(deployment, &before),
        sets: before.clone(),
    };
    let mode = mode(deployment, &rollout);

    let next_revision = revision::highest(rollout.old().map(|index| &rollout.sets[index])) + 1;
    if mode != Mode::Watch {
        sync_new(deployment, &mut rollout, next_revision);
    }
    match mode {
        Mode::Watch => (),
        Mode::Scale => rollout.scale(recreate),
        Mode::Roll if recreate => {
            let retired = rollout.retire_old();
            if !retired && !runs_old_pods(observed, &rollout) {
                add_missing(deployment, &mut rollout, next_revision);
                rollout.fill_new();
            }
        }
        Mode::Roll => {
            add_missing(deployment, &mut rollout, next_revision);
            rollout.roll();
        }
    }

    let deletions = deletions(deployment, &rollout, mode);
    let new_set = rollout.new.map(|index| &rollout.sets[index]);
    let revision = new_set.and_then(|set| revision::annotation(&set.metadata)).map(str::to_owned);
    let create = rollout.sets.get(before.len()).map(|set| set.as_ref().clone());
    let updates: Vec<_> = before
        .into_iter()
        .zip(rollout.sets.iter().cloned())
        .filter(|(old, new)| old != new)
        .collect();
    let progress = Progress {
        deployment,
        sets: &rollout.sets,
        new: rollout.new,
        creates: create.is_some(),
        limits: rollout.limits,
        now,
    };
    let (status, recheck) = match mode {
        Mode::Roll => progress.during_rollout(),
        Mode::Watch | Mode::Scale => (progress.counted(), None),
    };
    Plan {
        create,
        updates,
        deletions,
        status,
        revision: revision.filter(|_| mode != Mode::Watch),
        recheck,
    }
}

fn mode(deployment: &Deployment, rollout: &Rollout) -> Mode {
    let paused = deployment.spec.paused == Some(true);
    if deployment.metadata.deletion_timestamp.is_some() {
        Mode::Watch
    } else if paused || rollout.is_scaled() {
        Mode::Scale
    } else {
        Mode::Roll
    }
}

/// Gives the new set, when there is one, its revision, the Deployment's annotations and its `minReadySeconds`.
fn sync_new(deployment: &Deployment, rollout: &mut Rollout, revision: i64) {
    let Some(new) = rollout.new else { return };
    let set = &rollout.sets[new];
    let annotations = revision::annotations(deployment, set, revision);
    let min_ready = deployment.spec.min_ready_seconds.filter(|seconds| *seconds != 0);
    let known = set.spec.min_ready_seconds.filter(|seconds| *seconds != 0);
    if set.metadata.annotations.as_ref() != Some(&annotations) || min_ready != known {
        let set = Arc::make_mut(&mut rollout.sets[new]);
        set.metadata.annotations = Some(annotations);
        set.spec.min_ready_seconds = min_ready;
    }
}

fn add_missing(deployment: &Deployment, rollout: &mut Rollout, revision: i64) {
    if rollout.new.is_none() {
        let set = revision::new_set(deployment, &rollout.limits, revision);
        rollout.add_new(set, rollout::is_recreate(deployment));
    }
}

fn runs_old_pods(observed: &Observed<'_>, rollout: &Rollout) -> bool {
    rollout.old().any(|index| {
        let set = &rollout.sets[index];
        let counted = set.status.as_ref().is_some_and(|status| status.replicas > 0);
        let running = set.metadata.uid.as_ref().and_then(|uid| observed.running_pods.get(uid));
        counted || running.is_some_and(|running| *running > 0)
    })
}

/// The sets of former templates beyond `revisionHistoryLimit`, once the rollout is over.
fn deletions(deployment: &Deployment, rollout: &Rollout, mode: Mode) -> Vec<Arc<ReplicaSet>> {
    let spec = &deployment.spec;
    let over = match mode {
        Mode::Watch => false,
        Mode::Scale => spec.paused == Some(true),
        Mode::Roll => {
            deployment.status.as_ref().is_some_and(|status| status::is_complete(deployment, status))
        }
    };
    let limit = spec.revision_history_limit.filter(|limit| *limit != i32::MAX);
    let Some(limit) = limit.filter(|_| over).and_then(|limit| usize::try_from(limit).ok()) else {
        return Vec::new();
    };
    let old = rollout.old().map(|index| &rollout.sets[index]);
    let mut old: Vec<_> = old.filter(|set| set.metadata.deletion_timestamp.is_none()).collect();
    old.sort_by_key(|set| revision::number(set, revision::REVISION).unwrap_or(0));
    let surplus = old.len().saturating_sub(limit);
    old.into_iter().take(surplus).filter(|set| is_idle(set)).cloned().collect()
}

/// The set has no pods, and its controller has seen that it should have none.
fn is_idle(set: &ReplicaSet) -> bool {
    let status = set.status.clone().unwrap_or_default();
    let seen = status.observed_generation.unwrap_or(0) >= set.metadata.generation.unwrap_or(0);
    rollout::replicas(set) == 0 && status.replicas == 0 && seen
}
