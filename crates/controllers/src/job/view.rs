//! A Job and its pods as one pass sees them.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::batch::v1::{Job, JobSpec, JobStatus};

use super::bears_finalizer;
use super::failure_policy::{Match, matched};
use super::index_pods::{Failures, index_of, indexes_of, last_failed};
use super::indexes::Indexes;
use crate::pod::Pod;
use crate::pods::{is_active, is_terminating, phase};

/// What the decisions of one pass go by. Pods that bear the finalizer are not counted yet; the others are.
pub(super) struct View<'a> {
    pub job: &'a Job,
    pub spec: &'a JobSpec,
    pub pods: &'a [Arc<Pod>],
    pub now: Timestamp,
    pub active: Vec<Arc<Pod>>,
    /// Pods that succeeded and that the status does not name yet.
    pub new_succeeded: Vec<&'a Arc<Pod>>,
    /// Pods that failed and that the status does not name yet, also those that the policy passes over.
    pub new_failed: Vec<&'a Arc<Pod>>,
    /// How many have succeeded, with those that are not counted yet.
    pub succeeded: i32,
    /// How many have failed and count, with those that are not counted yet.
    pub failed: i32,
    /// What an indexed Job knows of its indexes.
    pub indexed: Option<Indexed>,
}

/// What has become of the indexes.
pub(super) struct Indexed {
    pub completions: u32,
    /// What the status says.
    pub counted: Indexes,
    /// The same, with those that are not counted yet.
    pub succeeded: Indexes,
    /// With a limit for each index: those that are given up.
    pub failed: Option<Indexes>,
    /// With a limit for each index: the pods whose successors have not been made yet.
    pub to_replace: BTreeMap<u32, Arc<Pod>>,
}

impl<'a> View<'a> {
    pub fn new(job: &'a Job, spec: &'a JobSpec, pods: &'a [Arc<Pod>], now: Timestamp) -> Self {
        let status = job.status.clone().unwrap_or_default();
        let named = Named::in_status(&status);
        let completions = is_indexed(spec).then(|| completions(spec));
        let valid = pods.iter().filter(|pod| {
            let index = || index_of(pod).zip(completions).is_some_and(|(index, all)| index < all);
            bears_finalizer(pod) && (completions.is_none() || index())
        });
        let valid: Vec<&Arc<Pod>> = valid.collect();
        let uid = |pod: &Pod| pod.metadata.uid.clone().unwrap_or_default();
        let is_new = |pod: &&&Arc<Pod>, named: &HashSet<String>| !named.contains(&uid(pod));
        let succeeded = valid.iter().filter(|pod| phase(pod) == "Succeeded");
        let new_succeeded: Vec<_> =
            succeeded.filter(|pod| is_new(pod, &named.succeeded)).copied().collect();
        let failed = valid.iter().filter(|pod| has_failed(pod, spec));
        let new_failed: Vec<_> = failed.filter(|pod| is_new(pod, &named.failed)).copied().collect();
        let counting = new_failed
            .iter()
            .filter(|pod| matched(spec.pod_failure_policy.as_ref(), pod) != Match::Ignore);
        let failed =
            status.failed.unwrap_or(0) + number(counting.count()) + number(named.failed.len());
        let active: Vec<Arc<Pod>> = pods.iter().filter(|pod| is_active(pod)).cloned().collect();
        let indexed = completions
            .map(|completions| Indexed::new(spec, &status, &valid, &active, completions));
        let succeeded = match &indexed {
            Some(indexed) => i32::try_from(indexed.succeeded.count()).unwrap_or(i32::MAX),
            None => {
                let new = number(new_succeeded.len()) + number(named.succeeded.len());
                status.succeeded.unwrap_or(0) + new
            }
        };
        Self { job, spec, pods, now, active, new_succeeded, new_failed, succeeded, failed, indexed }
    }

    /// How many pods are going, and may still run.
    pub fn terminating(&self) -> usize {
        self.pods.iter().filter(|pod| is_terminating(pod)).count()
    }

    /// The indexes at which pods are going.
    pub fn terminating_indexes(&self) -> Indexes {
        indexes_of(self.pods.iter().filter(|pod| is_terminating(pod)))
    }

    pub fn is_suspended(&self) -> bool {
        self.spec.suspend == Some(true)
    }

    /// Whether there is a limit of failures for each index.
    pub fn limits_each_index(&self) -> bool {
        self.indexed.is_some() && self.spec.backoff_limit_per_index.is_some()
    }
}

impl Indexed {
    /// `valid` are the pods that are not counted yet.
    fn new(
        spec: &JobSpec,
        status: &JobStatus,
        valid: &[&Arc<Pod>],
        active: &[Arc<Pod>],
        completions: u32,
    ) -> Self {
        let told = |text: &Option<String>| {
            Indexes::parse(text.as_deref().unwrap_or_default(), completions)
        };
        let counted = told(&status.completed_indexes);
        let new = valid.iter().copied().filter(|pod| phase(pod) == "Succeeded");
        let succeeded = counted.with(&indexes_of(new));
        let Some(limit) = spec.backoff_limit_per_index else {
            let to_replace = BTreeMap::new();
            return Self { completions, counted, succeeded, failed: None, to_replace };
        };
        let given_up = valid.iter().copied().filter(|pod| gives_up_its_index(pod, spec, limit));
        let failed = told(&status.failed_indexes).with(&indexes_of(given_up));
        // Who is there already knows of the failures before it.
        let settled = succeeded.with(&failed).with(&indexes_of(active));
        let candidates = valid.iter().copied().filter(|pod| has_failed(pod, spec));
        let to_replace = last_failed(candidates, &settled);
        Self { completions, counted, succeeded, failed: Some(failed), to_replace }
    }
}

fn gives_up_its_index(pod: &Pod, spec: &JobSpec, limit: i32) -> bool {
    if !has_failed(pod, spec) {
        return false;
    }
    let limit = u32::try_from(limit).unwrap_or(0);
    match matched(spec.pod_failure_policy.as_ref(), pod) {
        Match::FailIndex => true,
        Match::Ignore => false,
        Match::Count | Match::FailJob(_) => Failures::before(pod).counted >= limit,
    }
}

/// The uids in a status: of pods that have ended, and that no number contains yet.
pub(super) struct Named {
    pub succeeded: HashSet<String>,
    pub failed: HashSet<String>,
}

impl Named {
    pub fn in_status(status: &JobStatus) -> Self {
        let named = status.uncounted_terminated_pods.clone().unwrap_or_default();
        let set = |uids: Option<Vec<String>>| uids.unwrap_or_default().into_iter().collect();
        Self { succeeded: set(named.succeeded), failed: set(named.failed) }
    }
}

/// Whether a pod has failed. One that is told to end has, too, unless its Job waits for how it ends.
pub(super) fn has_failed(pod: &Pod, spec: &JobSpec) -> bool {
    match phase(pod) {
        "Failed" => true,
        "Succeeded" => false,
        _ => !replaces_only_failed(spec) && pod.metadata.deletion_timestamp.is_some(),
    }
}

/// Whether a pod that is going is replaced only when it has ended.
pub(super) fn replaces_only_failed(spec: &JobSpec) -> bool {
    spec.pod_replacement_policy.as_deref() == Some("Failed") || spec.pod_failure_policy.is_some()
}

fn is_indexed(spec: &JobSpec) -> bool {
    spec.completion_mode.as_deref() == Some("Indexed")
}

fn completions(spec: &JobSpec) -> u32 {
    spec.completions.and_then(|completions| u32::try_from(completions).ok()).unwrap_or(0)
}

/// A count as the API writes it.
pub(super) fn number(count: usize) -> i32 {
    i32::try_from(count).unwrap_or(i32::MAX)
}
