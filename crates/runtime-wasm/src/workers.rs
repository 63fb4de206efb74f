//! The threads that run guests, apart from those of the control plane and below them in priority.
//!
//! Guests that serve HTTP have their own, so that commands which compute without end do not delay a request by more
//! than the kernel's share.

use std::io;

use tokio::runtime::{Builder, Handle, Runtime};

/// Guests yield to the control plane, whose threads have niceness 0.
const SERVING_NICENESS: i32 = 2;
const BATCH_NICENESS: i32 = 5;

/// Tasks polled between two looks at the network. A guest that spins holds its thread for a tick each time.
const EVENT_INTERVAL: u32 = 8;

/// Host functions that block: files, name lookups.
const BLOCKING_THREADS: usize = 64;

pub(crate) struct Workers {
    serving: Option<Runtime>,
    batch: Option<Runtime>,
    handles: (Handle, Handle),
}

impl Workers {
    pub(crate) fn start(threads: usize) -> io::Result<Self> {
        let serving = start("serving", threads, SERVING_NICENESS)?;
        let batch = start("batch", threads, BATCH_NICENESS)?;
        let handles = (serving.handle().clone(), batch.handle().clone());
        Ok(Self { serving: Some(serving), batch: Some(batch), handles })
    }

    /// For guests that answer requests.
    pub(crate) fn serving(&self) -> &Handle {
        &self.handles.0
    }

    /// For guests that run and end.
    pub(crate) fn batch(&self) -> &Handle {
        &self.handles.1
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        // A runtime may not wait for its threads when it is dropped by one of another's.
        for runtime in [self.serving.take(), self.batch.take()].into_iter().flatten() {
            runtime.shutdown_background();
        }
    }
}

fn start(name: &str, threads: usize, niceness: i32) -> io::Result<Runtime> {
    Builder::new_multi_thread()
        .thread_name(name)
        .worker_threads(threads.max(1))
        .max_blocking_threads(BLOCKING_THREADS)
        .event_interval(EVENT_INTERVAL)
        .on_thread_start(move || {
            // On Linux niceness belongs to the thread. Where it does not work, the kernel shares evenly.
            let _ = rustix::process::nice(niceness);
        })
        .enable_all()
        .build()
}
