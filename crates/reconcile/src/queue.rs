//! Keys to look at: each once, one worker at a time, again after a failure.

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::fmt::Display;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;
use tracing::{debug, error};

use crate::{ObjectKey, Tasks};

/// client-go's first wait after a failure; it doubles from there.
const BACKOFF_FIRST: Duration = Duration::from_millis(5);
/// The longest wait between two tries: upstream allows 1000 s, which outlasts an operator's patience.
const BACKOFF_LONGEST: Duration = Duration::from_secs(300);

/// When a reconcile wants to run again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// When something changes.
    AwaitChange,
    /// When something changes, and at the latest after this time.
    After(Duration),
}

/// A set of keys waiting for a worker. Cloning it shares it.
///
/// It holds each key at most once, so the number of objects bounds it.
#[derive(Clone, Default)]
pub struct Queue {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    wake: Notify,
}

#[derive(Default)]
struct State {
    ready: VecDeque<ObjectKey>,
    waiting: HashSet<ObjectKey>,
    running: HashSet<ObjectKey>,
    delayed: BTreeSet<(Instant, ObjectKey)>,
    due: HashMap<ObjectKey, Instant>,
    failures: HashMap<ObjectKey, u32>,
}

impl Queue {
    /// An empty queue.
    pub fn new() -> Self {
        Self::default()
    }

    /// Wants this key looked at now. While a worker has it, it is looked at once more afterwards.
    pub fn add(&self, key: ObjectKey) {
        let mut state = self.shared.state.lock();
        if state.enqueue(key) {
            drop(state);
            self.shared.wake.notify_one();
        }
    }

    /// Wants this key looked at after `wait`; of several such wishes the earliest counts.
    pub fn add_after(&self, key: ObjectKey, wait: Duration) {
        if wait.is_zero() {
            return self.add(key);
        }
        self.shared.state.lock().delay(key, Instant::now() + wait);
        // A worker may have to wait for an earlier deadline than before.
        self.shared.wake.notify_one();
    }

    /// Starts `workers` tasks that call `reconcile` for each key; never two at once for one key.
    pub fn run<F, R, E>(&self, tasks: &Tasks, name: &'static str, workers: usize, reconcile: F)
    where
        F: Fn(ObjectKey) -> R + Send + Sync + 'static,
        R: Future<Output = Result<Next, E>> + Send,
        E: Display + Send,
    {
        let reconcile = Arc::new(reconcile);
        for _ in 0..workers {
            let queue = self.clone();
            let reconcile = Arc::clone(&reconcile);
            tasks.spawn(name, async move {
                loop {
                    let key = queue.take().await;
                    // Boxed, so that a worker takes the room of a reconcile only while it has one.
                    let work = Box::pin(reconcile(key.clone()));
                    let outcome = AssertUnwindSafe(work).catch_unwind().await;
                    match outcome {
                        Ok(Ok(next)) => queue.done(key, next),
                        Ok(Err(error)) => {
                            let wait = queue.failed(key.clone());
                            debug!(controller = name, %key, %error, ?wait, "reconcile failed");
                        }
                        Err(_panic) => {
                            let wait = queue.failed(key.clone());
                            error!(controller = name, %key, ?wait, "reconcile panicked");
                        }
                    }
                }
            });
        }
    }

    /// The next key; the caller hands it back through `done` or `failed`.
    async fn take(&self) -> ObjectKey {
        loop {
            let notified = self.shared.wake.notified();
            let deadline = {
                let mut state = self.shared.state.lock();
                state.promote(Instant::now());
                if let Some(key) = state.ready.pop_front() {
                    state.waiting.remove(&key);
                    state.running.insert(key.clone());
                    if !state.ready.is_empty() {
                        self.shared.wake.notify_one();
                    }
                    return key;
                }
                state.delayed.first().map(|(at, _)| *at)
            };
            match deadline {
                Some(at) => {
                    let _ = tokio::time::timeout_at(at, notified).await;
                }
                None => notified.await,
            }
        }
    }

    fn done(&self, key: ObjectKey, next: Next) {
        let mut state = self.shared.state.lock();
        state.failures.remove(&key);
        state.release(&key);
        if let Next::After(wait) = next {
            state.delay(key, Instant::now() + wait);
        }
        drop(state);
        self.shared.wake.notify_one();
    }

    fn failed(&self, key: ObjectKey) -> Duration {
        let mut state = self.shared.state.lock();
        let failures = state.failures.entry(key.clone()).or_default();
        let wait = BACKOFF_FIRST.saturating_mul(1 << (*failures).min(20)).min(BACKOFF_LONGEST);
        *failures += 1;
        state.release(&key);
        state.delay(key, Instant::now() + wait);
        drop(state);
        self.shared.wake.notify_one();
        wait
    }
}

impl State {
    /// True when a worker has to be woken.
    fn enqueue(&mut self, key: ObjectKey) -> bool {
        self.undelay(&key);
        if !self.waiting.insert(key.clone()) || self.running.contains(&key) {
            return false;
        }
        self.ready.push_back(key);
        true
    }

    fn release(&mut self, key: &ObjectKey) {
        self.running.remove(key);
        if self.waiting.contains(key) {
            self.ready.push_back(key.clone());
        }
    }

    fn delay(&mut self, key: ObjectKey, at: Instant) {
        if self.due.get(&key).is_some_and(|due| *due <= at) {
            return;
        }
        self.undelay(&key);
        self.due.insert(key.clone(), at);
        self.delayed.insert((at, key));
    }

    fn undelay(&mut self, key: &ObjectKey) {
        if let Some(at) = self.due.remove(key) {
            self.delayed.remove(&(at, key.clone()));
        }
    }

    fn promote(&mut self, now: Instant) {
        while let Some((at, _)) = self.delayed.first() {
            if *at > now {
                break;
            }
            if let Some((_, key)) = self.delayed.pop_first() {
                self.due.remove(&key);
                self.enqueue(key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::sync::mpsc;
    use tokio_util::sync::CancellationToken;

    fn key(name: &str) -> ObjectKey {
        ObjectKey::new("default", name)
    }

    #[tokio::test(start_paused = true)]
    async fn a_key_added_twice_is_looked_at_once_and_again_when_added_meanwhile() {
        let queue = Queue::new();
        queue.add(key("a"));
        queue.add(key("a"));
        let taken = queue.take().await;
        queue.add(taken.clone());
        assert!(queue.take().now_or_never().is_none(), "one worker at a time has a key");
        queue.done(taken, Next::AwaitChange);
        assert_eq!(queue.take().await, key("a"));
        queue.done(key("a"), Next::AwaitChange);
        assert!(queue.take().now_or_never().is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn failures_back_off_and_success_forgets_them() {
        let queue = Queue::new();
        queue.add(key("a"));
        let waits: Vec<Duration> = (0..3).map(|_| queue.failed(key("a"))).collect();
        assert_eq!(waits, [5, 10, 20].map(Duration::from_millis).to_vec());
        queue.done(key("a"), Next::AwaitChange);
        assert_eq!(queue.failed(key("a")), BACKOFF_FIRST);
    }

    #[tokio::test(start_paused = true)]
    async fn the_earliest_of_two_deadlines_counts() {
        let queue = Queue::new();
        let began = Instant::now();
        queue.add_after(key("a"), Duration::from_secs(60));
        queue.add_after(key("a"), Duration::from_secs(10));
        queue.add_after(key("a"), Duration::from_secs(30));
        queue.take().await;
        assert_eq!(began.elapsed().as_secs(), 10);
    }

    #[tokio::test(start_paused = true)]
    async fn a_worker_survives_a_panic_and_shutdown_ends_it() {
        let tasks = Tasks::new(CancellationToken::new());
        let queue = Queue::new();
        let (seen, mut seen_keys) = mpsc::unbounded_channel();
        queue.run(&tasks, "test", 1, move |key: ObjectKey| {
            let _ = seen.send(key.clone());
            async move {
                assert!(key.name != "bad", "on purpose");
                Ok::<_, String>(Next::AwaitChange)
            }
        });
        queue.add(key("bad"));
        queue.add(key("good"));
        assert_eq!(seen_keys.recv().await, Some(key("bad")));
        assert_eq!(seen_keys.recv().await, Some(key("good")));
        tasks.shutdown().await;
    }
}
