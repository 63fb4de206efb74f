//! How many requests are answered at once.

use std::sync::atomic::{AtomicUsize, Ordering};

use coracle_api::status::Status;
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::answer::Answer;
use crate::limits;

/// Places for requests of one sort, and a bounded queue before them.
pub(crate) struct InFlight {
    places: Semaphore,
    size: usize,
    waiting: AtomicUsize,
}

impl InFlight {
    pub(crate) fn new(size: usize) -> Self {
        Self { places: Semaphore::new(size), size, waiting: AtomicUsize::new(0) }
    }

    /// Waits for a place; 429 when too many wait already.
    pub(crate) async fn enter(&self) -> Answer<SemaphorePermit<'_>> {
        if let Ok(place) = self.places.try_acquire() {
            return Ok(place);
        }
        let waiting = Waiting::join(&self.waiting).ok_or_else(|| {
            Status::too_many_requests("Too many requests, please try again later.", 1)
        })?;
        let place = self
            .places
            .acquire()
            .await
            .map_err(|_| Status::service_unavailable("the server is shutting down"));
        drop(waiting);
        place
    }

    /// How many requests have a place now.
    pub(crate) fn busy(&self) -> usize {
        self.size - self.places.available_permits()
    }
}

/// One waiting request; counted down when it gives up, too.
struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn join(count: &'a AtomicUsize) -> Option<Self> {
        let before = count.fetch_add(1, Ordering::Relaxed);
        let waiting = Self(count);
        (before < limits::REQUESTS_QUEUED).then_some(waiting)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
