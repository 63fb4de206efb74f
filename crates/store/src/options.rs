//! How a store is opened, and every limit it keeps.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::backend::sealed::Cipher;
use crate::object::{Attributes, Key};

/// Where the data is.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Endpoint {
    /// An SQLite database file; it and its directory are made when they are missing.
    Sqlite(PathBuf),
}

/// Takes out of an encoded object what selectors match on.
pub type ReadAttributes = Arc<dyn Fn(&Key, &[u8]) -> Attributes + Send + Sync>;

/// How to open a store.
#[derive(Clone)]
pub struct Options {
    /// Where the data is.
    pub endpoint: Endpoint,
    /// Takes out of an encoded object what selectors match on; used at open, on what the database holds.
    pub attributes: ReadAttributes,
    /// Encrypts objects on their way to the disk; `None` leaves all as they are.
    pub cipher: Option<Arc<dyn Cipher>>,
    /// The bounds of queues and history.
    pub limits: Limits,
}

impl Options {
    /// Opens this SQLite file with the default limits.
    pub fn sqlite(
        path: impl Into<PathBuf>,
        attributes: impl Fn(&Key, &[u8]) -> Attributes + Send + Sync + 'static,
    ) -> Options {
        Options {
            endpoint: Endpoint::Sqlite(path.into()),
            attributes: Arc::new(attributes),
            cipher: None,
            limits: Limits::default(),
        }
    }

    /// The same, and objects are encrypted on their way to the disk.
    pub fn sealed_with(self, cipher: Arc<dyn Cipher>) -> Options {
        Options { cipher: Some(cipher), ..self }
    }
}

/// The bounds of the store's queues and of the history it keeps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Writes that wait for the writer; more writers wait for a place.
    pub queued_writes: usize,
    /// Writes that share one transaction, at most 4,096: bounds how long the first waits for the last.
    pub batch_writes: usize,
    /// Bytes that share one transaction, for the same reason.
    pub batch_bytes: usize,
    /// Events kept in memory for each resource. A watcher that is further behind is told that its place is gone.
    pub ring_events: usize,
    /// Bytes of past states kept in memory for each resource, so that few big objects cannot fill it.
    pub ring_bytes: usize,
    /// Automatic compaction keeps every revision younger than this …
    pub history_age: Duration,
    /// … unless there are more revisions than this.
    pub history_revisions: u64,
    /// Rows that one slice of compaction deletes; writers wait for a slice at most. More than twice `batch_writes`, so
    /// that compaction keeps up with the writers.
    pub compaction_slice: usize,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            queued_writes: 1024,
            batch_writes: 512,
            batch_bytes: 8 << 20,
            ring_events: 16_384,
            ring_bytes: 32 << 20,
            // What upstream's API server asks of etcd.
            history_age: Duration::from_secs(300),
            history_revisions: 100_000,
            compaction_slice: 1280,
        }
    }
}
