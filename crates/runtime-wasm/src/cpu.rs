//! How much processor time a container's guests get.
//!
//! A limit works as the kernel's CFS bandwidth does: a quota each 100 ms, shared by all of the container's instances.
//! Time is that of the thread, so a busy machine is not billed to the guest. A guest gives the processor back at each
//! tick, so it may overrun its quota by a tick; it pays that back in the next period.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rustix::time::{ClockId, clock_gettime};
use tokio::time::Sleep;

use crate::epochs::Epochs;

/// The kernel's default period.
const PERIOD: Duration = Duration::from_millis(100);

/// What all instances of a container used, and what they may.
pub(crate) struct CpuBudget {
    used_nanoseconds: AtomicU64,
    bandwidth: Option<Mutex<Bandwidth>>,
}

struct Bandwidth {
    quota: i64,
    /// What is left of this period's quota; below zero after an overrun.
    balance: i64,
    period_began: Instant,
}

/// A guest's future, measured and throttled.
pub(crate) struct Metered<F> {
    guest: F,
    cpu: Arc<CpuBudget>,
    engines: Arc<crate::engine::Engines>,
    pause: Option<Pin<Box<Sleep>>>,
}

impl CpuBudget {
    pub(crate) fn new(limit_millis: Option<u64>) -> Arc<Self> {
        let bandwidth = limit_millis.map(|millis| {
            // Less than a tick a period could not be kept with any precision; 1 ms is the kernel's least too.
            let quota =
                i64::try_from(millis.max(10) * 100_000).unwrap_or(i64::MAX / 4).min(i64::MAX / 4);
            Mutex::new(Bandwidth { quota, balance: quota, period_began: Instant::now() })
        });
        Arc::new(Self { used_nanoseconds: AtomicU64::new(0), bandwidth })
    }

    pub(crate) fn used_nanoseconds(&self) -> u64 {
        self.used_nanoseconds.load(Ordering::Relaxed)
    }

    fn charge(&self, spent: Duration) {
        let spent = u64::try_from(spent.as_nanos()).unwrap_or(u64::MAX);
        self.used_nanoseconds.fetch_add(spent, Ordering::Relaxed);
        if let Some(bandwidth) = &self.bandwidth {
            bandwidth.lock().balance -= i64::try_from(spent).unwrap_or(i64::MAX);
        }
    }

    /// When the next quota comes, if this one is used up.
    fn paused_until(&self, now: Instant) -> Option<Instant> {
        self.bandwidth.as_ref().and_then(|bandwidth| bandwidth.lock().paused_until(now))
    }
}

impl Bandwidth {
    fn paused_until(&mut self, now: Instant) -> Option<Instant> {
        let periods = now.duration_since(self.period_began).as_nanos() / PERIOD.as_nanos();
        if periods > 0 {
            let periods = u32::try_from(periods).unwrap_or(u32::MAX);
            self.period_began += PERIOD * periods;
            // Unused time is not saved up.
            self.balance = self
                .balance
                .saturating_add(self.quota.saturating_mul(periods.into()))
                .min(self.quota);
        }
        if self.balance > 0 {
            return None;
        }
        let debt_periods = (-self.balance / self.quota + 1).min(1000);
        Some(self.period_began + PERIOD * u32::try_from(debt_periods).unwrap_or(1))
    }
}

impl<F> Metered<F> {
    pub(crate) fn new(
        guest: F,
        cpu: &Arc<CpuBudget>,
        engines: &Arc<crate::engine::Engines>,
    ) -> Self {
        Self { guest, cpu: Arc::clone(cpu), engines: Arc::clone(engines), pause: None }
    }

    fn epochs(&self) -> &Epochs {
        self.engines.epochs()
    }
}

impl<F: Future + Unpin> Future for Metered<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        if self.cpu.bandwidth.is_some() {
            while let Some(until) = self.cpu.paused_until(Instant::now()) {
                let pause = self.pause.insert(Box::pin(tokio::time::sleep_until(
                    tokio::time::Instant::from_std(until),
                )));
                if pause.as_mut().poll(context).is_pending() {
                    return Poll::Pending;
                }
            }
            self.pause = None;
        }
        self.epochs().guest_runs();
        let began = thread_time();
        let answer = Pin::new(&mut self.guest).poll(context);
        self.cpu.charge(thread_time().saturating_sub(began));
        answer
    }
}

fn thread_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), u32::try_from(time.tv_nsec).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_overrun_is_paid_back_and_rest_is_not_saved_up() {
        let began = Instant::now();
        let at = |millis| began + Duration::from_millis(millis);
        let mut bandwidth =
            Bandwidth { quota: 10_000_000, balance: 10_000_000, period_began: began };
        assert_eq!(bandwidth.paused_until(at(0)), None);
        bandwidth.balance -= 25_000_000;
        assert_eq!(bandwidth.paused_until(at(1)), Some(at(200)));
        assert_eq!(bandwidth.paused_until(at(100)), Some(at(200)));
        assert_eq!(bandwidth.paused_until(at(200)), None);
        assert_eq!(bandwidth.balance, 5_000_000);
        assert_eq!(bandwidth.paused_until(at(5000)), None);
        assert_eq!(bandwidth.balance, 10_000_000);
    }
}
