//! Leader election: of several copies of a component only the one that holds a Lease acts.
//!
//! Upstream: client-go's `tools/leaderelection`, with its durations. Where it asks every two seconds, those that
//! wait here watch the Lease: they act as soon as it is given back, and when its holder has been silent for too long.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use kube::api::PostParams;
use kube::{Api, Client};
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::{Change, Mirror, NotSynced, Recorder, Selection, Tasks};

/// Where the leases of the control plane are.
const NAMESPACE: &str = "kube-system";
/// A holder that has not renewed for so long has lost the lease.
const LEASE: Duration = Duration::from_secs(15);
/// A holder that cannot renew for so long stops acting, before others begin.
const RENEW_DEADLINE: Duration = Duration::from_secs(10);
/// How often a holder renews. Upstream does so every two seconds; half the deadline leaves room for
/// several tries, and an idle cluster writes less.
const RENEW_EVERY: Duration = Duration::from_secs(5);
/// How soon what failed is tried again.
const RETRY: Duration = Duration::from_secs(2);
/// One write of the lease.
const CALL_DEADLINE: Duration = Duration::from_secs(2);

/// One candidate for a Lease.
pub struct Election {
    client: Client,
    lease: &'static str,
    identity: String,
}

/// What a candidate knows of the lease, and since when.
struct Seen {
    lease: Option<Arc<Lease>>,
    /// When it last changed by our clock: those of other machines may go wrong.
    at: Instant,
}

/// What a candidate does next.
#[derive(Debug, PartialEq)]
enum Step {
    /// Try to become the holder.
    Take,
    /// Another one holds it, until then if it stays silent.
    Wait(Instant),
}

impl Election {
    /// A candidate for the Lease `lease` in `kube-system`. The `identity` must be this copy's alone; a copy that
    /// was killed and comes back under the same identity need not wait for its own lease to run out.
    pub fn new(client: Client, lease: &'static str, identity: impl Into<String>) -> Self {
        Self { client, lease, identity: identity.into() }
    }

    /// Calls `lead` whenever this copy becomes the leader, and cancels its token when it no longer is.
    /// Ends at `shutdown`, or when `lead` ends by itself; the lease is given back then.
    ///
    /// # Errors
    /// Those of `lead`, and when the API does not show the Lease in time.
    pub async fn run<F, R, E>(&self, shutdown: CancellationToken, lead: F) -> Result<(), E>
    where
        F: Fn(CancellationToken) -> R,
        R: Future<Output = Result<(), E>>,
        E: From<NotSynced>,
    {
        // The watch outlives `shutdown`: the holder is still a holder while it ends.
        let watching = CancellationToken::new();
        let _ends_with_us = watching.clone().drop_guard();
        let tasks = Tasks::new(watching);
        let candidate = Candidate::start(self, &tasks);
        let outcome = candidate.run(&shutdown, lead).await;
        tasks.shutdown().await;
        outcome
    }
}

/// A candidate at work.
struct Candidate<'a> {
    election: &'a Election,
    api: Api<Lease>,
    mirror: Mirror<Lease>,
    recorder: Recorder,
    seen: Arc<Mutex<Seen>>,
    changed: Arc<Notify>,
}

impl<'a> Candidate<'a> {
    fn start(election: &'a Election, tasks: &Tasks) -> Self {
        let api = Api::namespaced(election.client.clone(), NAMESPACE);
        let only = Selection {
            fields: Some(format!("metadata.name={}", election.lease)),
            ..Selection::default()
        };
        let mirror = Mirror::start(tasks, api.clone(), only);
        let seen = Arc::new(Mutex::new(Seen { lease: None, at: Instant::now() }));
        let changed = Arc::new(Notify::new());
        let (newest, woken) = (Arc::clone(&seen), Arc::clone(&changed));
        mirror.on_change(move |change| {
            let lease = match change {
                Change::Applied { new, .. } => Some(Arc::clone(new)),
                Change::Deleted(_) => None,
            };
            *newest.lock() = Seen { lease, at: Instant::now() };
            woken.notify_one();
        });
        let recorder = Recorder::new(tasks, election.client.clone(), election.lease, None);
        Self { election, api, mirror, recorder, seen, changed }
    }

    async fn run<F, R, E>(&self, shutdown: &CancellationToken, lead: F) -> Result<(), E>
    where
        F: Fn(CancellationToken) -> R,
        R: Future<Output = Result<(), E>>,
        E: From<NotSynced>,
    {
        match shutdown.run_until_cancelled(self.mirror.synced()).await {
            Some(synced) => synced?,
            None => return Ok(()),
        }
        while shutdown.run_until_cancelled(self.acquired()).await.is_some() {
            let ended = self.lead(shutdown, &lead).await;
            if let Some(outcome) = ended {
                self.give_back().await;
                return outcome;
            }
            warn!(lease = self.election.lease, "leadership lost");
        }
        Ok(())
    }

    /// Waits until the lease is ours.
    async fn acquired(&self) {
        loop {
            let step = {
                let seen = self.seen.lock();
                plan(&seen, &self.election.identity, Instant::now())
            };
            let until = match step {
                Step::Take => {
                    if self.write(&self.election.identity, LEASE).await {
                        return self.announce();
                    }
                    Instant::now() + RETRY
                }
                Step::Wait(until) => until,
            };
            let _ = tokio::time::timeout_at(until, self.changed.notified()).await;
        }
    }

    fn announce(&self) {
        let identity = &self.election.identity;
        info!(lease = self.election.lease, identity, "leads");
        if let Some(lease) = self.seen.lock().lease.as_deref() {
            self.recorder.normal(lease, "LeaderElection", format!("{identity} became leader"));
        }
    }

    /// Leads until the lease is lost (`None`) or the work ends by itself or by `shutdown`.
    async fn lead<F, R, E>(&self, shutdown: &CancellationToken, lead: F) -> Option<Result<(), E>>
    where
        F: Fn(CancellationToken) -> R,
        R: Future<Output = Result<(), E>>,
    {
        let term = shutdown.child_token();
        let work = lead(term.clone());
        tokio::pin!(work);
        tokio::select! {
            outcome = &mut work => return Some(outcome),
            () = self.lost() => term.cancel(),
        }
        let outcome = work.await;
        // What fails because it was told to stop is not news.
        if shutdown.is_cancelled() { Some(outcome) } else { None }
    }

    /// Renews the lease; returns when that did not work for too long or another one has it.
    async fn lost(&self) {
        let mut renewed = Instant::now();
        let mut next = renewed + RENEW_EVERY;
        loop {
            tokio::time::sleep_until(next).await;
            // Another one's lease is not ours to renew, however it came by it.
            let is_ours = || holder(self.seen.lock().lease.as_deref()) == self.election.identity;
            if !is_ours() {
                return;
            }
            if self.write(&self.election.identity, LEASE).await {
                renewed = Instant::now();
                next = renewed + RENEW_EVERY;
                continue;
            }
            if !is_ours() || renewed.elapsed() + RETRY >= RENEW_DEADLINE {
                return;
            }
            next = Instant::now() + RETRY;
        }
    }

    /// So that another copy need not wait. As upstream's `ReleaseOnCancel`.
    async fn give_back(&self) {
        let is_ours = || holder(self.seen.lock().lease.as_deref()) == self.election.identity;
        if is_ours() && !self.write("", Duration::from_secs(1)).await {
            // A renewal of ours was on its way: once we see it, the next try works.
            let _ = tokio::time::timeout(RETRY, self.changed.notified()).await;
            if is_ours() {
                self.write("", Duration::from_secs(1)).await;
            }
        }
    }

    /// Writes a holder into the lease as we know it. `false` when that failed or it has changed meanwhile.
    async fn write(&self, holder: &str, duration: Duration) -> bool {
        let known = self.seen.lock().lease.clone();
        let lease = written(known.as_deref(), self.election.lease, holder, duration);
        let params = PostParams::default();
        let call = async {
            match known {
                Some(_) => self.api.replace(self.election.lease, &params, &lease).await,
                None => self.api.create(&params, &lease).await,
            }
        };
        match tokio::time::timeout(CALL_DEADLINE, call).await {
            Ok(Ok(lease)) => {
                self.mirror.observe(lease);
                true
            }
            // Somebody else was faster, or deleted it; the watch brings what is there now.
            Ok(Err(kube::Error::Api(status))) if status.code == 409 => false,
            Ok(Err(kube::Error::Api(status))) if status.code == 404 => {
                if let Some(known) = known {
                    self.mirror.observe_gone(&known);
                }
                false
            }
            Ok(Err(error)) => {
                warn!(lease = self.election.lease, %error, "lease not written");
                false
            }
            Err(_) => {
                warn!(lease = self.election.lease, "lease not written in time");
                false
            }
        }
    }
}

fn plan(seen: &Seen, identity: &str, now: Instant) -> Step {
    let holder = holder(seen.lease.as_deref());
    let spec = seen.lease.as_deref().and_then(|lease| lease.spec.as_ref());
    let seconds = spec.and_then(|spec| spec.lease_duration_seconds).unwrap_or(0);
    let until = seen.at + Duration::from_secs(u64::try_from(seconds).unwrap_or(0));
    if holder.is_empty() || holder == identity || until <= now {
        Step::Take
    } else {
        Step::Wait(until)
    }
}

fn holder(lease: Option<&Lease>) -> &str {
    let spec = lease.and_then(|lease| lease.spec.as_ref());
    spec.and_then(|spec| spec.holder_identity.as_deref()).unwrap_or_default()
}

/// The lease with this holder, from now on for `duration`.
fn written(
    known: Option<&Lease>,
    name: &'static str,
    new_holder: &str,
    duration: Duration,
) -> Lease {
    let now = MicroTime(Timestamp::now());
    let mut lease = known.cloned().unwrap_or_else(|| Lease {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            namespace: Some(NAMESPACE.to_owned()),
            ..ObjectMeta::default()
        },
        ..Lease::default()
    });
    let changes_hands = holder(known) != new_holder;
    let spec = lease.spec.get_or_insert_with(LeaseSpec::default);
    if changes_hands {
        spec.acquire_time = Some(now.clone());
    }
    if changes_hands && !new_holder.is_empty() {
        // The first holder is no transition.
        let transitions = spec.lease_transitions.map_or(0, |before| before.saturating_add(1));
        spec.lease_transitions = Some(transitions);
    }
    spec.renew_time = Some(now);
    spec.holder_identity = Some(new_holder.to_owned());
    spec.lease_duration_seconds = i32::try_from(duration.as_secs()).ok();
    lease
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held_by(holder: &str) -> Lease {
        written(None, "lease", holder, LEASE)
    }

    #[test]
    fn a_lease_is_taken_when_it_is_free_ours_or_its_holder_silent() {
        let at = Instant::now();
        let check = |lease: Option<Lease>, after: u64, expected: Step| {
            let seen = Seen { lease: lease.clone().map(Arc::new), at };
            let now = at + Duration::from_secs(after);
            assert_eq!(plan(&seen, "me", now), expected, "{lease:?} after {after} s");
        };
        check(None, 0, Step::Take);
        check(Some(held_by("")), 0, Step::Take);
        check(Some(held_by("me")), 0, Step::Take);
        check(Some(held_by("other")), 0, Step::Wait(at + LEASE));
        check(Some(held_by("other")), 14, Step::Wait(at + LEASE));
        check(Some(held_by("other")), 15, Step::Take);
    }

    #[test]
    fn a_change_of_hands_is_counted_and_a_renewal_is_not() {
        let spec = |lease: &Lease| lease.spec.clone().unwrap();
        let first = held_by("a");
        assert_eq!(spec(&first).lease_transitions, Some(0));
        let renewed = written(Some(&first), "lease", "a", LEASE);
        assert_eq!(spec(&renewed).acquire_time, spec(&first).acquire_time);
        assert_eq!(spec(&renewed).lease_transitions, Some(0));
        let free = written(Some(&renewed), "lease", "", Duration::from_secs(1));
        assert_eq!(spec(&free).lease_transitions, Some(0));
        assert_eq!(spec(&free).lease_duration_seconds, Some(1));
        let other = written(Some(&free), "lease", "b", LEASE);
        assert_eq!(spec(&other).lease_transitions, Some(1));
        assert_eq!(spec(&other).holder_identity.as_deref(), Some("b"));
    }
}
