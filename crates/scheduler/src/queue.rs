//! The pods that have no node yet. Pure: time comes in.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::pod::Pod;

/// Upstream's back-off after an attempt that failed for no fault of the pod: the first, and how long it grows.
pub(crate) const BACKOFF: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(10));

/// Which pod: its uid, so that a pod of the same name is another one.
pub(crate) type Uid = String;

/// Whose turn is first: the higher priority, then who came earlier.
pub(crate) type Rank = (Reverse<i32>, u64);

/// One pod without a node.
#[derive(Debug, Clone)]
pub(crate) struct Waiting {
    pub(crate) pod: Arc<Pod>,
    pub(crate) rank: Rank,
    pub(crate) stage: Stage,
    /// The node whose change made us try again.
    pub(crate) woken_by: Option<String>,
    failures: u32,
}

/// Where a pod without a node stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Stage {
    /// It is tried as soon as its turn comes.
    Active,
    /// It fits nowhere until something changes.
    Parked,
    /// Its last attempt failed; it is tried again then.
    Backoff(Instant),
    /// Its scheduling gates are not open.
    Gated,
    /// It has been given this node, and the API is being told.
    Binding(String),
}

/// The pods that have no node yet.
#[derive(Debug)]
pub(crate) struct Queue {
    backoffs: (Duration, Duration),
    pods: HashMap<Uid, Waiting>,
    active: BTreeMap<Rank, Uid>,
    parked: BTreeMap<Rank, Uid>,
    backoff: BTreeMap<(Instant, Rank), Uid>,
    arrivals: u64,
}

impl Default for Queue {
    fn default() -> Queue {
        Queue::new(BACKOFF)
    }
}

impl Queue {
    /// An empty queue with these back-offs: the first, and how long it grows.
    pub(crate) fn new(backoffs: (Duration, Duration)) -> Queue {
        Queue {
            backoffs,
            pods: HashMap::new(),
            active: BTreeMap::new(),
            parked: BTreeMap::new(),
            backoff: BTreeMap::new(),
            arrivals: 0,
        }
    }

    pub(crate) fn get(&self, uid: &str) -> Option<&Waiting> {
        self.pods.get(uid)
    }

    /// Takes in a pod that was not known before.
    pub(crate) fn insert(&mut self, uid: Uid, pod: Arc<Pod>, stage: Stage) {
        self.arrivals += 1;
        let rank = (Reverse(pod.claim.priority), self.arrivals);
        let waiting = Waiting { pod, rank, stage, woken_by: None, failures: 0 };
        self.index(&uid, &waiting);
        self.pods.insert(uid, waiting);
    }

    /// Takes in a newer state of a known pod.
    pub(crate) fn refresh(&mut self, uid: &str, pod: Arc<Pod>) {
        if let Some(waiting) = self.pods.get_mut(uid) {
            waiting.pod = pod;
        }
    }

    pub(crate) fn remove(&mut self, uid: &str) -> Option<Waiting> {
        let waiting = self.pods.remove(uid)?;
        self.unindex(&waiting);
        Some(waiting)
    }

    /// Moves a pod to another stage.
    pub(crate) fn set_stage(&mut self, uid: &str, stage: Stage) {
        let Some(mut waiting) = self.pods.remove(uid) else { return };
        self.unindex(&waiting);
        waiting.stage = stage;
        self.index(uid, &waiting);
        self.pods.insert(uid.to_owned(), waiting);
    }

    /// Lets a parked pod try again, because of this node.
    pub(crate) fn wake(&mut self, uid: &str, node: &str) {
        self.set_stage(uid, Stage::Active);
        if let Some(waiting) = self.pods.get_mut(uid) {
            waiting.woken_by = Some(node.to_owned());
        }
    }

    /// Who woke this pod; asked once, after its attempt.
    pub(crate) fn take_woken_by(&mut self, uid: &str) -> Option<String> {
        self.pods.get_mut(uid).and_then(|waiting| waiting.woken_by.take())
    }

    /// Puts a pod aside for a while after an attempt that failed.
    pub(crate) fn back_off(&mut self, uid: &str, now: Instant) {
        let Some(waiting) = self.pods.get_mut(uid) else { return };
        let (first, longest) = self.backoffs;
        let wait = (first * 2u32.saturating_pow(waiting.failures)).min(longest);
        waiting.failures = (waiting.failures + 1).min(8);
        self.set_stage(uid, Stage::Backoff(now + wait));
    }

    /// The pod whose turn it is; it stays active until it gets another stage.
    pub(crate) fn first(&mut self, now: Instant) -> Option<Uid> {
        while let Some(((until, _), uid)) = self.backoff.first_key_value() {
            if *until > now {
                break;
            }
            let uid = uid.clone();
            self.set_stage(&uid, Stage::Active);
        }
        self.active.first_key_value().map(|(_, uid)| uid.clone())
    }

    /// When a pod comes back on its own.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.backoff.first_key_value().map(|((until, _), _)| *until)
    }

    /// The pods that fit nowhere, by rank.
    pub(crate) fn parked(&self) -> impl Iterator<Item = (&Uid, &Waiting)> {
        self.parked.values().filter_map(|uid| Some((uid, self.pods.get(uid)?)))
    }

    fn index(&mut self, uid: &str, waiting: &Waiting) {
        match waiting.stage {
            Stage::Active => drop(self.active.insert(waiting.rank, uid.to_owned())),
            Stage::Parked => drop(self.parked.insert(waiting.rank, uid.to_owned())),
            Stage::Backoff(until) => {
                drop(self.backoff.insert((until, waiting.rank), uid.to_owned()))
            }
            Stage::Gated | Stage::Binding(_) => (),
        }
    }

    fn unindex(&mut self, waiting: &Waiting) {
        match waiting.stage {
            Stage::Active => drop(self.active.remove(&waiting.rank)),
            Stage::Parked => drop(self.parked.remove(&waiting.rank)),
            Stage::Backoff(until) => drop(self.backoff.remove(&(until, waiting.rank))),
            Stage::Gated | Stage::Binding(_) => (),
        }
    }
}
