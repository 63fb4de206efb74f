//! Which pods to start and which to stop while a Job goes on.
//!
//! Upstream: `manageJob` in `pkg/controller/job/job_controller.go`.

use std::cmp::Reverse;
use std::sync::Arc;
use std::time::Duration;

use super::backoff::{Record, wait_after};
use super::index_pods::{Failures, Place, indexes_of, repeated};
use super::view::{Indexed, View, number, replaces_only_failed};
use crate::pod::Pod;
use crate::pods::{is_ready, phase, ready_since};

/// Pods that one pass makes or deletes at most, so that a large Job does not keep others waiting. Upstream's
/// `MaxPodCreateDeletePerSync`.
const AT_ONCE: usize = 500;

/// What to do with the pods of a Job that goes on.
#[derive(Debug, Default)]
pub(super) struct Changes {
    /// Those that are too many. They have neither succeeded nor failed.
    pub surplus: Vec<Arc<Pod>>,
    /// One entry a pod, with its place in an indexed Job.
    pub create: Vec<Option<Place>>,
    /// When pods may be made that have to wait now.
    pub wait: Option<Duration>,
}

/// Decides; `record` tells of the failures so far.
pub(super) fn manage(view: &View<'_>, record: Record) -> Changes {
    let active = view.active.len();
    if view.is_suspended() {
        let surplus = for_removal(view, active);
        return Changes { surplus, ..Changes::default() };
    }
    let wanted = wanted(view);
    let mut surplus = for_removal(view, active.saturating_sub(wanted));
    surplus.truncate(AT_ONCE);
    // Either pods go or pods come: who goes may make room for who comes.
    if !surplus.is_empty() {
        return Changes { surplus, ..Changes::default() };
    }
    let going = if replaces_only_failed(view.spec) { view.terminating() } else { 0 };
    let missing = wanted.saturating_sub(active + going);
    if missing == 0 {
        return Changes::default();
    }
    if !view.limits_each_index()
        && let Some(wait) = record.wait(view.now)
    {
        return Changes { wait: Some(wait), ..Changes::default() };
    }
    let missing = missing.min(AT_ONCE);
    match &view.indexed {
        None => Changes { create: vec![None; missing], ..Changes::default() },
        Some(indexed) => fill(view, indexed, missing),
    }
}

/// How many pods should run.
fn wanted(view: &View<'_>) -> usize {
    let parallelism = view.spec.parallelism.unwrap_or(1);
    let wanted = match view.spec.completions {
        Some(completions) => parallelism.min(completions.saturating_sub(view.succeeded)),
        // A work queue: one success means that there is no more work; the rest may finish.
        None if view.succeeded > 0 => number(view.active.len()),
        None => parallelism,
    };
    usize::try_from(wanted).unwrap_or(0)
}

fn fill(view: &View<'_>, indexed: &Indexed, missing: usize) -> Changes {
    let mut taken = indexed.succeeded.with(&indexes_of(&view.active));
    if replaces_only_failed(view.spec) {
        taken = taken.with(&view.terminating_indexes());
    }
    if let Some(failed) = &indexed.failed {
        taken = taken.with(failed);
    }
    let mut changes = Changes::default();
    for index in taken.first_missing(missing, indexed.completions) {
        let before = indexed.to_replace.get(&index);
        match before.and_then(|before| wait_after(before, view.now)) {
            Some(wait) => changes.wait = Some(changes.wait.map_or(wait, |known| known.min(wait))),
            None => {
                let policy = view.spec.pod_failure_policy.as_ref();
                let failures = indexed.failed.is_some().then(|| {
                    before.map_or(Failures::default(), |before| Failures::after(before, policy))
                });
                changes.create.push(Some(Place { index, failures }));
            }
        }
    }
    changes
}

/// At least so many of the active pods, the least far along first; in an indexed Job also those that nobody asked for.
fn for_removal(view: &View<'_>, at_least: usize) -> Vec<Arc<Pod>> {
    let mut pods = view.active.clone();
    pods.sort_by_cached_key(|pod| progress(pod));
    let (mut gone, left) = match &view.indexed {
        Some(indexed) => repeated(pods, indexed.completions),
        None => (Vec::new(), pods),
    };
    let more = at_least.saturating_sub(gone.len());
    gone.extend(left.into_iter().take(more));
    gone
}

/// How much is lost with a pod. Upstream: `ActivePods` in `pkg/controller/controller_utils.go`.
fn progress(pod: &Pod) -> impl Ord + use<> {
    let phase = match phase(pod) {
        "Running" => 2,
        "Unknown" => 1,
        _ => 0,
    };
    let restarts = pod.status.container_statuses.iter().map(|container| container.restart_count);
    (
        pod.spec.node_name.is_some(),
        phase,
        is_ready(pod),
        Reverse(ready_since(pod)),
        Reverse(restarts.max()),
        Reverse(pod.metadata.creation_timestamp.as_ref().map(|time| time.0)),
    )
}
