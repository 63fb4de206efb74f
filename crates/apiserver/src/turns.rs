//! Writers of one object that got in each other's way take turns, so that each change costs two tries and not as many as there are
//! writers.

use std::hash::{BuildHasher as _, RandomState};

use coracle_store::Key;
use tokio::sync::{Semaphore, SemaphorePermit};

/// One turn for each bucket of keys: few enough to cost nothing, and enough that strangers seldom meet.
const BUCKETS: usize = 64;

/// Who may try next.
pub(crate) struct Turns {
    buckets: Vec<Semaphore>,
    hasher: RandomState,
}

impl Default for Turns {
    fn default() -> Self {
        Self {
            buckets: (0..BUCKETS).map(|_| Semaphore::new(1)).collect(),
            hasher: RandomState::new(),
        }
    }
}

impl Turns {
    /// Waits for this key's turn. The request's own deadline bounds the wait.
    pub(crate) async fn wait(&self, key: &Key) -> Option<SemaphorePermit<'_>> {
        let bucket = usize::try_from(self.hasher.hash_one(key) % BUCKETS as u64).unwrap_or(0);
        // An error means that nobody hands out turns any more, which does not happen; going on without one is merely slower.
        self.buckets[bucket].acquire().await.ok()
    }
}
