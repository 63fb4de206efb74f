//! The handle: reads go to the mirror, writes to the writer.

use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};

use crate::backend::Backend;
use crate::backend::sealed::Sealed;
use crate::backend::sqlite::Sqlite;
use crate::error::{Gone, OpenError, WriteError};
use crate::mirror::Mirror;
use crate::object::{Key, Listing, Object, Range, Revision, Value};
use crate::options::{Endpoint, Limits, Options, ReadAttributes};
use crate::watch::Watch;
use crate::writer::{self, Command, Intent, Write};

/// An open store. Clones are handles on the same one.
///
/// [`Store::close`] ends it; so does dropping the last handle, without waiting for what is queued to become durable.
#[derive(Clone, Debug)]
pub struct Store {
    mirror: Arc<Mirror>,
    commands: mpsc::Sender<Command>,
}

impl Store {
    /// Opens the store and loads its state.
    ///
    /// # Errors
    /// [`OpenError::InUse`] when another process has it open; otherwise when it cannot be opened, migrated or read.
    pub async fn open(options: Options) -> Result<Store, OpenError> {
        match &options.endpoint {
            Endpoint::Sqlite(path) => {
                let backend = Sqlite::open(path).await?;
                match options.cipher {
                    Some(cipher) => {
                        let sealed = Sealed { backend, cipher };
                        Store::open_with(sealed, options.attributes, options.limits).await
                    }
                    None => Store::open_with(backend, options.attributes, options.limits).await,
                }
            }
        }
    }

    /// Opens the store over this backend.
    ///
    /// # Errors
    /// When the backend's log cannot be read or understood.
    pub async fn open_with(
        backend: impl Backend,
        attributes: ReadAttributes,
        limits: Limits,
    ) -> Result<Store, OpenError> {
        let (mirror, commands) = writer::start(backend, &*attributes, limits).await?;
        Ok(Store { mirror, commands })
    }

    /// Creates an object.
    ///
    /// # Errors
    /// [`WriteError::Exists`] when there is one, and when it cannot be made durable.
    pub async fn create(&self, key: Key, value: Value) -> Result<Arc<Object>, WriteError> {
        self.write(Intent::Create, key, value).await
    }

    /// Replaces an object that is at the expected revision.
    ///
    /// # Errors
    /// [`WriteError::Conflict`] when it is not, and when it cannot be made durable.
    pub async fn update(
        &self,
        key: Key,
        expected: Revision,
        value: Value,
    ) -> Result<Arc<Object>, WriteError> {
        self.write(Intent::Update { expected }, key, value).await
    }

    /// Deletes an object that is at the expected revision. `last` is the final state that watchers see, which gets the
    /// revision of the deletion.
    ///
    /// # Errors
    /// [`WriteError::Conflict`] when it is not, and when it cannot be made durable.
    pub async fn delete(
        &self,
        key: Key,
        expected: Revision,
        last: Value,
    ) -> Result<Arc<Object>, WriteError> {
        self.write(Intent::Delete { expected }, key, last).await
    }

    /// The object as it is now.
    pub fn get(&self, key: &Key) -> Option<Arc<Object>> {
        self.mirror.get(key)
    }

    /// The objects of a range, ordered by namespace and name: those after the place `after` (a namespace and a name),
    /// up to `limit`; as they are now, or as they were at a revision. A revision that is still to come means now.
    ///
    /// # Errors
    /// [`Gone::Compacted`] when the revision is not kept any more.
    pub fn list(
        &self,
        range: &Range,
        at: Option<Revision>,
        after: Option<(&str, &str)>,
        limit: Option<usize>,
    ) -> Result<Listing, Gone> {
        self.mirror.list(range, at, after, limit)
    }

    /// How many objects the range has now, without looking at any.
    pub fn count(&self, range: &Range) -> usize {
        self.mirror.count(range)
    }

    /// All events of a range after a revision.
    ///
    /// # Errors
    /// [`Gone::Compacted`] when some of them are not kept any more.
    pub fn watch(&self, range: &Range, after: Revision) -> Result<Watch, Gone> {
        Watch::start(self.mirror.clone(), range.clone(), after)
    }

    /// The revision of the last write.
    pub fn revision(&self) -> Revision {
        self.mirror.revision()
    }

    /// The oldest revision that compaction has left; single resources may keep less.
    pub fn compacted(&self) -> Revision {
        self.mirror.compacted()
    }

    /// Why the store takes no writes any more, if that is so: health checks report it.
    pub fn failure(&self) -> Option<Arc<str>> {
        self.mirror.failure()
    }

    /// Forgets the states before this revision (or before the present one, if that is older), and returns when the
    /// rows are deleted.
    ///
    /// # Errors
    /// When the database refuses, or the store is closed.
    pub async fn compact(&self, before: Revision) -> Result<(), WriteError> {
        let (done, outcome) = oneshot::channel();
        self.commands
            .send(Command::Compact { before, done })
            .await
            .map_err(|_| WriteError::Closed)?;
        outcome.await.map_err(|_| WriteError::Closed)?
    }

    /// Takes off the disk what compaction deleted: free space of the files may hold it until it is used again. It writes all that is
    /// kept anew, and other writes wait for it.
    ///
    /// # Errors
    /// When the database refuses (the disk must have room for a second copy), or the store is closed.
    pub async fn scrub(&self) -> Result<(), WriteError> {
        let (done, outcome) = oneshot::channel();
        let sent = self.commands.send(Command::Scrub { done }).await;
        sent.map_err(|_| WriteError::Closed)?;
        outcome.await.map_err(|_| WriteError::Closed)?
    }

    /// Ends the store for all handles: what is queued is written, watchers get [`Gone::Closed`], the lock is released.
    pub async fn close(self) {
        let (done, closed) = oneshot::channel();
        if self.commands.send(Command::Close { done }).await.is_ok() {
            // An error means that the writer ended already, which is what we wait for.
            closed.await.ok();
        }
        self.commands.closed().await;
    }

    async fn write(
        &self,
        intent: Intent,
        key: Key,
        value: Value,
    ) -> Result<Arc<Object>, WriteError> {
        if value.revision_at > value.bytes.len() {
            return Err(WriteError::Misplaced);
        }
        let (answer, outcome) = oneshot::channel();
        let write = Write { intent, key, value, answer };
        self.commands.send(Command::Write(write)).await.map_err(|_| WriteError::Closed)?;
        outcome.await.map_err(|_| WriteError::Closed)?
    }
}
