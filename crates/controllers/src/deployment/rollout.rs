//! How many replicas each ReplicaSet of a Deployment gets. Pure arithmetic.
//!
//! Upstream: `rolling.go`, `recreate.go`, `sync.go` and `util/deployment_util.go` of `pkg/controller/deployment`.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::sync::Arc;

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::revision::{self, DESIRED, MAXIMUM};
use crate::share::share;

/// What a Deployment allows, in pods.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Limits {
    /// How many are wanted.
    pub desired: i32,
    /// How many there may be beyond that during a rollout.
    pub surge: i32,
    /// How many may be missing during a rollout.
    pub unavailable: i32,
}

impl Limits {
    /// The limits of a Deployment, with percentages resolved.
    pub fn of(deployment: &Deployment) -> Self {
        let spec = &deployment.spec;
        let desired = spec.replicas.unwrap_or(1).max(0);
        if is_recreate(deployment) {
            return Self { desired, surge: 0, unavailable: 0 };
        }
        let rolling = spec.strategy.as_ref().and_then(|strategy| strategy.rolling_update.as_ref());
        let quarter = IntOrString::String("25%".to_owned());
        let resolve = |value: Option<&IntOrString>| share(value.unwrap_or(&quarter), desired);
        let surge = resolve(rolling.and_then(|rolling| rolling.max_surge.as_ref())).rounded_up;
        let unavailable =
            resolve(rolling.and_then(|rolling| rolling.max_unavailable.as_ref())).rounded_down;
        // With neither the rollout could not take a step.
        let unavailable = if surge == 0 && unavailable == 0 { 1 } else { unavailable };
        Self { desired, surge, unavailable: unavailable.min(desired) }
    }

    /// The most pods at any time.
    pub fn most(&self) -> i32 {
        self.desired.saturating_add(self.surge)
    }

    /// The fewest available pods at any time.
    pub fn fewest_available(&self) -> i32 {
        self.desired - self.unavailable
    }
}

/// Whether old pods go before new ones come.
pub(super) fn is_recreate(deployment: &Deployment) -> bool {
    let strategy = deployment.spec.strategy.as_ref();
    strategy.and_then(|strategy| strategy.type_.as_deref()) == Some("Recreate")
}

/// How many pods a set is told to have.
pub(super) fn replicas(set: &ReplicaSet) -> i32 {
    set.spec.replicas.unwrap_or(1)
}

/// How many of them are known to be available. A status that lags behind a scale-down does not count pods twice.
fn available(set: &ReplicaSet) -> i32 {
    let status = set.status.as_ref();
    status.and_then(|status| status.available_replicas).unwrap_or(0).min(replicas(set))
}

/// The ReplicaSets of a Deployment while it is decided how large each should be.
pub(super) struct Rollout {
    pub limits: Limits,
    /// Oldest first. A set is copied when it is first changed.
    pub sets: Vec<Arc<ReplicaSet>>,
    /// Which of them runs the current template.
    pub new: Option<usize>,
}

impl Rollout {
    /// The sets of former templates, oldest first.
    pub fn old(&self) -> impl Iterator<Item = usize> + use<> {
        let new = self.new;
        (0..self.sets.len()).filter(move |index| Some(*index) != new)
    }

    fn active(&self) -> Vec<usize> {
        (0..self.sets.len()).filter(|index| self.size(*index) > 0).collect()
    }

    fn size(&self, index: usize) -> i32 {
        replicas(&self.sets[index])
    }

    fn total(&self) -> i32 {
        self.sets.iter().map(|set| replicas(set)).sum()
    }

    /// How many pods there may be at the moment. Upstream counts only what sets are told to have, and goes beyond
    /// the surge while a set still deletes; we wait until it has.
    fn occupied(&self) -> i32 {
        let there = |set: &ReplicaSet| set.status.as_ref().map_or(0, |status| status.replicas);
        self.sets.iter().map(|set| replicas(set).max(there(set))).sum()
    }

    /// Sets the size of a set, and the numbers that later proportions refer to.
    fn resize(&mut self, index: usize, size: i32) {
        let limits = self.limits;
        let set = Arc::make_mut(&mut self.sets[index]);
        set.spec.replicas = Some(size);
        revision::annotate_sizes(set.metadata.annotations.get_or_insert_default(), &limits);
    }

    fn resize_if_other(&mut self, index: usize, size: i32) -> bool {
        let other = self.size(index) != size;
        if other {
            self.resize(index, size);
        }
        other
    }

    /// Whether somebody scaled the Deployment since its sets were last scaled.
    pub fn is_scaled(&self) -> bool {
        let desired = i64::from(self.limits.desired);
        self.active().into_iter().any(|index| {
            revision::number(&self.sets[index], DESIRED).is_some_and(|number| number != desired)
        })
    }

    /// Adds the new set, which is yet to be created, with the replicas that it starts with.
    pub fn add_new(&mut self, mut set: ReplicaSet, recreate: bool) {
        let size = if recreate { self.limits.desired } else { self.grown(0) };
        set.spec.replicas = Some(size);
        self.new = Some(self.sets.len());
        self.sets.push(Arc::new(set));
    }

    /// How many replicas the new set may have when it has `size` now.
    fn grown(&self, size: i32) -> i32 {
        let room = self.limits.most() - self.occupied();
        size + room.min(self.limits.desired - size).max(0)
    }

    /// One step of a rolling update: grow the new set; if it cannot grow, shrink old ones.
    pub fn roll(&mut self) {
        let Some(new) = self.new else { return };
        let size = self.size(new);
        let wanted =
            if size > self.limits.desired { self.limits.desired } else { self.grown(size) };
        if !self.resize_if_other(new, wanted) {
            self.shrink_old(new);
        }
    }

    fn shrink_old(&mut self, new: usize) {
        // Pods of the new set that are not yet available must not make us take away old ones that are.
        let not_yet = self.size(new) - available(&self.sets[new]);
        let mut most = self.total() - self.limits.fewest_available() - not_yet;
        // What does not serve goes first: it blocks the rollout and nobody misses it.
        for index in self.old() {
            let unhealthy = self.size(index) - available(&self.sets[index]);
            let gone = unhealthy.min(most).max(0);
            self.resize_if_other(index, self.size(index) - gone);
            most -= gone;
        }
        let serving: i32 = self.sets.iter().map(|set| available(set)).sum();
        let mut spare = (serving - self.limits.fewest_available()).min(most);
        for index in self.old() {
            let gone = self.size(index).min(spare).max(0);
            self.resize_if_other(index, self.size(index) - gone);
            spare -= gone;
        }
    }

    /// `Recreate`, first half: take all old pods away. Answers whether there were any to take.
    pub fn retire_old(&mut self) -> bool {
        let old: Vec<usize> = self.old().collect();
        let resized: Vec<bool> =
            old.into_iter().map(|index| self.resize_if_other(index, 0)).collect();
        resized.contains(&true)
    }

    /// `Recreate`, second half: all new pods at once.
    pub fn fill_new(&mut self) {
        if let Some(new) = self.new {
            self.resize_if_other(new, self.limits.desired);
        }
    }

    /// Somebody scaled the Deployment, or it is paused: keep the proportions.
    pub fn scale(&mut self, recreate: bool) {
        let active = self.active();
        // With one active set at most there is nothing to share: it, or the newest, has them all.
        let only = match active.as_slice() {
            [] => self.new.or(self.sets.len().checked_sub(1)),
            [only] => Some(*only),
            _ if self.is_saturated() => {
                self.retire_old();
                None
            }
            _ if recreate => None,
            _ => {
                self.scale_in_proportion(active);
                None
            }
        };
        if let Some(only) = only {
            self.resize_if_other(only, self.limits.desired);
        }
    }

    /// Whether the new set has all its replicas, and all of them serve.
    fn is_saturated(&self) -> bool {
        let Some(new) = self.new else { return false };
        let desired = self.limits.desired;
        self.size(new) == desired
            && revision::number(&self.sets[new], DESIRED) == Some(i64::from(desired))
            && available(&self.sets[new]) == desired
    }

    /// Spreads the difference over the active sets by their size; the largest takes what is left over.
    fn scale_in_proportion(&mut self, mut active: Vec<usize>) {
        let allowed = if self.limits.desired > 0 { self.limits.most() } else { 0 };
        let difference = allowed - self.total();
        // The newer set wins when it grows, the older one loses when it shrinks.
        if difference > 0 {
            active.sort_by_key(|index| (Reverse(self.size(*index)), Reverse(*index)));
        } else {
            active.sort_by_key(|index| (Reverse(self.size(*index)), *index));
        }
        let mut sizes: HashMap<usize, i32> = HashMap::new();
        let mut added = 0;
        for &index in &active {
            let share = self.share(index, difference, added);
            sizes.insert(index, self.size(index) + share);
            added += share;
        }
        if let Some(size) = active.first().and_then(|largest| sizes.get_mut(largest)) {
            *size = (*size + difference - added).max(0);
        }
        for index in active {
            self.resize(index, sizes.get(&index).copied().unwrap_or_default());
        }
    }

    /// One set's part of `difference`, of which `added` is given out already.
    fn share(&self, index: usize, difference: i32, added: i32) -> i32 {
        let left = difference - added;
        if left == 0 || difference == 0 {
            return 0;
        }
        let fraction = self.fraction(index);
        if difference > 0 { fraction.min(left) } else { fraction.max(left) }
    }

    fn fraction(&self, index: usize) -> i32 {
        let size = self.size(index);
        if self.limits.desired == 0 {
            return -size;
        }
        let recorded = revision::number(&self.sets[index], MAXIMUM).filter(|most| *most > 0);
        let before = recorded.unwrap_or_else(|| i64::from(self.actual_total()));
        if before == 0 {
            return 0;
        }
        let exact = i64::from(size) as f64 * f64::from(self.limits.most()) / before as f64;
        // A float beyond the integers saturates.
        exact.round() as i32 - size
    }

    fn actual_total(&self) -> i32 {
        self.sets.iter().filter_map(|set| set.status.as_ref()).map(|status| status.replicas).sum()
    }
}
