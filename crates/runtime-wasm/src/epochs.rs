//! The clock that takes the processor back from a guest.
//!
//! Each tick makes every running guest yield, so a guest that spins shares its thread with the others, can be stopped,
//! and pays for its time. Without running guests the clock stands still.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{JoinHandle, Thread};
use std::time::Duration;

use parking_lot::Mutex;
use wasmtime::{Engine, EngineWeak};

/// How long a guest runs before it yields. Shorter costs more switches, longer makes throttling coarser.
pub(crate) const TICK: Duration = Duration::from_millis(2);

/// After so many ticks in which no guest ran the clock stops.
const IDLE_TICKS: u32 = 100;

pub(crate) struct Epochs {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
    wake: Thread,
}

struct Shared {
    engines: Mutex<Vec<EngineWeak>>,
    /// Set by every guest that runs, cleared by every tick.
    active: AtomicBool,
    standing: AtomicBool,
    ended: AtomicBool,
}

impl Epochs {
    pub(crate) fn start(engine: &Engine) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            engines: Mutex::new(vec![engine.weak()]),
            active: AtomicBool::new(false),
            standing: AtomicBool::new(false),
            ended: AtomicBool::new(false),
        });
        let ticking = Arc::clone(&shared);
        let thread = std::thread::Builder::new()
            .name("epochs".to_owned())
            .spawn(move || ticking.tick_until_ended())?;
        let wake = thread.thread().clone();
        Ok(Self { shared, thread: Some(thread), wake })
    }

    pub(crate) fn also_tick(&self, engine: &Engine) {
        self.shared.engines.lock().push(engine.weak());
    }

    /// Called whenever a guest is about to run.
    pub(crate) fn guest_runs(&self) {
        if !self.shared.active.load(Ordering::Relaxed) {
            // Sequentially consistent with the clock's own order of the two: either it sees that a guest is active,
            // or we see that it stands.
            self.shared.active.store(true, Ordering::SeqCst);
            if self.shared.standing.load(Ordering::SeqCst) {
                self.wake.unpark();
            }
        }
    }
}

impl Drop for Epochs {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::SeqCst);
        self.wake.unpark();
        if let Some(thread) = self.thread.take() {
            // It holds nothing that a panic could have broken.
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn tick_until_ended(&self) {
        let mut idle = 0;
        while !self.ended.load(Ordering::SeqCst) {
            std::thread::sleep(TICK);
            for engine in self.engines.lock().iter().filter_map(EngineWeak::upgrade) {
                engine.increment_epoch();
            }
            idle = if self.active.swap(false, Ordering::SeqCst) { 0 } else { idle + 1 };
            if idle >= IDLE_TICKS {
                self.stand_until_active();
                idle = 0;
            }
        }
    }

    fn stand_until_active(&self) {
        self.standing.store(true, Ordering::SeqCst);
        while !self.active.load(Ordering::SeqCst) && !self.ended.load(Ordering::SeqCst) {
            std::thread::park();
        }
        self.standing.store(false, Ordering::SeqCst);
    }
}
