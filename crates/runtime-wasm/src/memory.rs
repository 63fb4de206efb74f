//! How much memory a container's guests may have.
//!
//! A growth beyond the limit is denied: the guest sees that `memory.grow` failed. When it then dies, it died of that.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use wasmtime::ResourceLimiter;

/// What a table may hold; its elements are the host's memory, which no memory limit counts.
const TABLE_ELEMENTS_MAX: usize = 1_000_000;

/// What all instances of a container hold together.
#[derive(Debug)]
pub(crate) struct MemoryBudget {
    limit: Option<u64>,
    used: AtomicU64,
    /// The most that one instance ever held.
    peak: AtomicU64,
    /// What instances are expected to take, from before they begin until they end.
    reserved: AtomicU64,
}

/// Room for one instance, as large as the largest so far.
#[derive(Debug)]
pub(crate) struct Reservation {
    budget: Arc<MemoryBudget>,
    bytes: u64,
}

/// What one instance holds; given back when it is dropped.
#[derive(Debug)]
pub(crate) struct InstanceMemory {
    budget: Arc<MemoryBudget>,
    used: u64,
    denied: Option<Denied>,
}

/// Why a growth was denied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Denied {
    /// The instance alone would exceed the container's limit.
    OverLimit,
    /// The instances together would: it was one too many at that moment.
    Pressure,
}

impl MemoryBudget {
    pub(crate) fn new(limit: Option<u64>) -> Arc<Self> {
        let (used, peak, reserved) = Default::default();
        Arc::new(Self { limit, used, peak, reserved })
    }

    pub(crate) fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }

    /// Room for one more instance that holds `minimum` from the start; the first always has some.
    pub(crate) fn reserve(self: &Arc<Self>, minimum: u64) -> Option<Reservation> {
        let Some(limit) = self.limit else {
            return Some(Reservation { budget: Arc::clone(self), bytes: 0 });
        };
        // A guest that has not run yet will want some heap.
        let bytes = self.peak.load(Ordering::Relaxed).max(minimum + minimum / 4).max(1);
        let taken = self.reserved.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |reserved| {
            (reserved == 0 || reserved + bytes <= limit).then_some(reserved + bytes)
        });
        taken.ok().map(|_| Reservation { budget: Arc::clone(self), bytes })
    }

    pub(crate) fn limit(&self) -> Option<u64> {
        self.limit
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        if self.bytes > 0 {
            self.budget.reserved.fetch_sub(self.bytes, Ordering::Relaxed);
        }
    }
}

impl InstanceMemory {
    pub(crate) fn new(budget: &Arc<MemoryBudget>) -> Self {
        Self { budget: Arc::clone(budget), used: 0, denied: None }
    }

    /// Why growth was denied, if it was.
    pub(crate) fn denied(&self) -> Option<Denied> {
        self.denied
    }

    fn grow(&mut self, more: u64) -> bool {
        let held = self.used + more;
        if let Some(limit) = self.budget.limit {
            if held > limit {
                self.denied = Some(Denied::OverLimit);
                return false;
            }
            let taken =
                self.budget.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |used| {
                    (used + more <= limit).then_some(used + more)
                });
            if taken.is_err() {
                self.denied = Some(Denied::Pressure);
                return false;
            }
        } else {
            self.budget.used.fetch_add(more, Ordering::Relaxed);
        }
        self.used = held;
        if held > self.budget.peak.load(Ordering::Relaxed) {
            self.budget.peak.fetch_max(held, Ordering::Relaxed);
        }
        true
    }
}

impl Drop for InstanceMemory {
    fn drop(&mut self) {
        self.budget.used.fetch_sub(self.used, Ordering::Relaxed);
    }
}

impl ResourceLimiter for InstanceMemory {
    fn memory_growing(
        &mut self,
        current: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        if maximum.is_some_and(|maximum| desired > maximum) {
            return Ok(false);
        }
        Ok(self.grow(desired.saturating_sub(current) as u64))
    }

    fn table_growing(
        &mut self,
        _current: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        Ok(desired <= maximum.unwrap_or(usize::MAX).min(TABLE_ELEMENTS_MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instances_share_their_containers_limit() {
        let budget = MemoryBudget::new(Some(100));
        let mut one = InstanceMemory::new(&budget);
        assert!(one.memory_growing(0, 60, None).unwrap());
        let mut two = InstanceMemory::new(&budget);
        assert!(!two.memory_growing(0, 50, None).unwrap());
        assert_eq!(two.denied(), Some(Denied::Pressure));
        drop(one);
        assert_eq!(budget.used(), 0);
        assert!(two.memory_growing(0, 50, None).unwrap());
        assert!(!two.memory_growing(50, 101, None).unwrap());
        assert_eq!(two.denied(), Some(Denied::OverLimit));
    }

    #[test]
    fn as_many_instances_begin_as_have_room() {
        let budget = MemoryBudget::new(Some(100));
        let first = budget.reserve(200);
        assert!(first.is_some() && budget.reserve(1).is_none());
        drop(first);
        let some: Vec<Reservation> = std::iter::from_fn(|| budget.reserve(20)).collect();
        assert_eq!(some.len(), 4);
        drop(some);
        let mut large = InstanceMemory::new(&budget);
        assert!(large.memory_growing(0, 50, None).unwrap());
        let some: Vec<Reservation> = std::iter::from_fn(|| budget.reserve(20)).collect();
        assert_eq!(some.len(), 2);
    }
}
