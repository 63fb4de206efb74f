//! What the store asks of a database: to keep a log. Everything else happens in memory.

pub(crate) mod sealed;
pub(crate) mod sqlite;

use std::future::Future;

use bytes::Bytes;

use crate::object::{Key, Revision};

/// One row of the log: one write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The number of the write.
    pub revision: Revision,
    /// What it did.
    pub kind: EntryKind,
    /// To which object.
    pub key: Key,
    /// The write that created the object.
    pub created_revision: Revision,
    /// The object, its revision inside; for a deletion its last state.
    pub bytes: Bytes,
}

/// What a write did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EntryKind {
    /// The object did not exist before.
    Create,
    /// The object existed before.
    Update,
    /// The object does not exist afterwards.
    Delete,
}

/// Where the log begins and ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Loaded {
    /// The oldest revision whose state can be rebuilt.
    pub compacted: Revision,
    /// The last revision that was given out.
    pub last: Revision,
}

/// A failure of the database, with its cause as its source.
#[derive(Debug, thiserror::Error)]
#[error("cannot {attempted}: {source}")]
pub struct BackendError {
    /// What was attempted.
    pub attempted: &'static str,
    /// Why it failed.
    pub source: Box<dyn std::error::Error + Send + Sync>,
}

impl BackendError {
    /// A failure of `attempted` because of `source`.
    pub fn new(
        attempted: &'static str,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> BackendError {
        BackendError { attempted, source: source.into() }
    }
}

/// Why a batch was not appended.
#[derive(Debug, thiserror::Error)]
pub enum AppendError {
    /// Nothing of it was written, certainly: the revisions are free again.
    #[error("{0}")]
    Refused(#[source] BackendError),
    /// It may or may not be committed.
    #[error("{0}")]
    Unknown(#[source] BackendError),
}

/// A database that keeps the log. One task owns it and calls one method at a time.
pub trait Backend: Send + 'static {
    /// Says where the log begins and ends.
    fn load(&mut self) -> impl Future<Output = Result<Loaded, BackendError>> + Send;

    /// Reads up to `limit` entries after this revision, in order. Fewer than `limit` mean the end of the log.
    fn read(
        &mut self,
        after: Revision,
        limit: usize,
    ) -> impl Future<Output = Result<Vec<Entry>, BackendError>> + Send;

    /// Appends the batch, all or nothing, and returns when it is durable.
    fn append(&mut self, batch: &[Entry]) -> impl Future<Output = Result<(), AppendError>> + Send;

    /// Raises the oldest revision whose state can be rebuilt, and deletes these entries, which it does not need.
    fn compact(
        &mut self,
        before: Revision,
        superseded: &[Revision],
    ) -> impl Future<Output = Result<(), BackendError>> + Send;

    /// Overwrites what deleted entries left in the files.
    fn scrub(&mut self) -> impl Future<Output = Result<(), BackendError>> + Send;

    /// Ends the use of the database, and its lock.
    fn close(self) -> impl Future<Output = Result<(), BackendError>> + Send;
}
