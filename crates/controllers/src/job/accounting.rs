//! Counts each pod that has ended exactly once.
//!
//! A pod bears a finalizer until it is counted: first its uid (of an indexed Job its index) goes into the status, then
//! the finalizer goes, then the uid becomes a number. So a restart at any point neither loses nor doubles it.
//!
//! Upstream: `trackJobStatusAndRemoveFinalizers` in `pkg/controller/job/job_controller.go`.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;

use k8s_openapi::api::batch::v1::{JobStatus, UncountedTerminatedPods};

use super::bears_finalizer;
use super::condition::Outcome;
use super::failure_policy::{Match, matched};
use super::index_pods::index_of;
use super::indexes::Indexes;
use super::verdict::Verdict;
use super::view::{View, has_failed, number};
use crate::pod::Pod;
use crate::pods::phase;

/// Uids that one status names at most; upstream's `MaxUncountedPods`.
const UNCOUNTED: usize = 500;

/// What is left to do once the status is stored.
#[derive(Debug, Default)]
pub(super) struct Counted {
    /// Pods that the status names, or that need not be counted: their finalizer goes.
    pub release: Vec<Arc<Pod>>,
    /// Every pod is in the numbers.
    pub complete: bool,
}

/// Moves uids that lost their finalizer into the numbers, and names the pods that ended since. `going` are pods that this
/// pass frees itself.
pub(super) fn count(
    view: &View<'_>,
    verdict: Option<&Verdict>,
    going: &[Arc<Pod>],
    status: &mut JobStatus,
) -> Counted {
    let mut book = Book::open(view, status);
    let mut release = Vec::new();
    let going: HashSet<*const Pod> = going.iter().map(Arc::as_ptr).collect();
    let held = view.pods.iter().filter(|pod| bears_finalizer(pod));
    let mut held: Vec<&Arc<Pod>> = held.filter(|pod| !going.contains(&Arc::as_ptr(pod))).collect();
    held.sort_by_key(|pod| index_of(pod));
    let mut full = false;
    for pod in held {
        if !may_go(view, verdict, pod) {
            continue;
        }
        book.note(view, verdict, pod);
        release.push(Arc::clone(pod));
        if book.len() >= UNCOUNTED {
            // The rest is for the next pass, which begins when these are free.
            full = true;
            break;
        }
    }
    let complete =
        !full && release.is_empty() && book.succeeded.is_empty() && book.failed.is_empty();
    book.close(view, status);
    Counted { release, complete }
}

/// Whether a pod's finalizer may go once the status is stored. A failed pod whose successor learns from it has to wait.
fn may_go(view: &View<'_>, verdict: Option<&Verdict>, pod: &Pod) -> bool {
    let going = view.job.metadata.deletion_timestamp.is_some();
    if going || verdict.is_some() || phase(pod) == "Succeeded" {
        return true;
    }
    let awaited = view.indexed.as_ref().is_some_and(|indexed| {
        let known = index_of(pod).and_then(|index| indexed.to_replace.get(&index));
        known.is_some_and(|known| known.metadata.uid == pod.metadata.uid)
    });
    has_failed(pod, view.spec) && !awaited
}

/// The lists of a status while they are written.
struct Book {
    succeeded: Vec<String>,
    failed: Vec<String>,
    /// The uids in both.
    named: HashSet<String>,
    new_indexes: BTreeSet<u32>,
}

impl Book {
    fn open(view: &View<'_>, status: &mut JobStatus) -> Self {
        let held = view.pods.iter().filter(|pod| bears_finalizer(pod));
        let held: HashSet<&str> = held.filter_map(|pod| pod.metadata.uid.as_deref()).collect();
        let is_held = |uid: &String| held.contains(uid.as_str());
        let named = status.uncounted_terminated_pods.take().unwrap_or_default();
        let (succeeded, done): (Vec<_>, Vec<_>) =
            named.succeeded.unwrap_or_default().into_iter().partition(is_held);
        let (failed, gone): (Vec<_>, Vec<_>) =
            named.failed.unwrap_or_default().into_iter().partition(is_held);
        status.succeeded = Some(status.succeeded.unwrap_or(0) + number(done.len()));
        status.failed = Some(status.failed.unwrap_or(0) + number(gone.len()));
        let named = succeeded.iter().chain(&failed).cloned().collect();
        Self { succeeded, failed, named, new_indexes: BTreeSet::new() }
    }

    /// Names a pod, if it counts and is not named yet.
    fn note(&mut self, view: &View<'_>, verdict: Option<&Verdict>, pod: &Pod) {
        let Some(uid) = pod.metadata.uid.clone().filter(|uid| !self.named.contains(uid)) else {
            return;
        };
        let place = view.indexed.as_ref().map(|indexed| {
            let index = index_of(pod).filter(|index| *index < indexed.completions);
            (indexed, index)
        });
        match (phase(pod), place) {
            ("Succeeded", None) => self.succeeded.push(uid),
            // The index is enough to know it again; a second success of it counts for nothing.
            ("Succeeded", Some((indexed, Some(index)))) if !indexed.counted.contains(index) => {
                self.new_indexes.insert(index);
            }
            ("Succeeded", Some(_)) | (_, Some((_, None))) => (),
            (_, None | Some((_, Some(_)))) => {
                // When a Job fails, what still ran has failed with it.
                let fails = verdict.is_some_and(|verdict| verdict.outcome == Outcome::Failed);
                let ignored = matched(view.spec.pod_failure_policy.as_ref(), pod) == Match::Ignore;
                if (fails || has_failed(pod, view.spec)) && !ignored {
                    self.failed.push(uid);
                }
            }
        }
    }

    fn len(&self) -> usize {
        self.succeeded.len() + self.failed.len() + self.new_indexes.len()
    }

    fn close(self, view: &View<'_>, status: &mut JobStatus) {
        let list = |uids: Vec<String>| (!uids.is_empty()).then_some(uids);
        status.uncounted_terminated_pods = Some(UncountedTerminatedPods {
            succeeded: list(self.succeeded),
            failed: list(self.failed),
        });
        if let Some(indexed) = &view.indexed {
            let all = &indexed.succeeded;
            let text = |indexes: &Indexes| indexes.to_string();
            status.succeeded = Some(i32::try_from(all.count()).unwrap_or(i32::MAX));
            status.completed_indexes = Some(text(all)).filter(|text| !text.is_empty());
            status.failed_indexes = indexed.failed.as_ref().map(text);
        }
        status.succeeded = status.succeeded.filter(|count| *count > 0);
        status.failed = status.failed.filter(|count| *count > 0);
    }
}
