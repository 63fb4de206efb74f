//! What can go wrong, one variant for each decision that a caller can make.

use std::path::PathBuf;
use std::sync::Arc;

use crate::backend::BackendError;
use crate::object::{Object, Revision};

/// Why the store did not open.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has the same data open.
    #[error("cannot open the store at {}: another process is using it", path.display())]
    InUse {
        /// The database file.
        path: PathBuf,
    },
    /// The directory, the lock or the database file cannot be used.
    #[error("cannot open the store at {}", path.display())]
    Io {
        /// The file that cannot be used.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The database cannot be opened, migrated or read.
    #[error("cannot load the store")]
    Backend(#[source] BackendError),
    /// The database is readable, but what it says cannot be.
    #[error("the store's log is damaged at revision {revision}: {cause}")]
    Damaged {
        /// Where.
        revision: Revision,
        /// What is wrong there.
        cause: String,
    },
}

/// Why a write was not done. Except for [`WriteError::Unknown`] it left no trace.
#[derive(Debug, Clone, thiserror::Error)]
pub enum WriteError {
    /// There is such an object already.
    #[error("the object exists at revision {}", .0.revision)]
    Exists(Arc<Object>),
    /// The object is not at the expected revision.
    #[error("the object is not at the expected revision")]
    Conflict {
        /// The object as it is; `None` when there is none.
        current: Option<Arc<Object>>,
    },
    /// The value's `revision_at` lies beyond its bytes.
    #[error("the place for the revision lies outside the value")]
    Misplaced,
    /// The database refused the transaction; a later write may succeed.
    #[error("the store cannot write now: {0}")]
    Unavailable(Arc<str>),
    /// Nobody knows whether this write was committed. The store takes no further writes.
    #[error("the outcome of the write is unknown: {0}")]
    Unknown(Arc<str>),
    /// An earlier write's outcome is unknown, so this one was refused. Open the store again.
    #[error("the store takes no writes since an earlier failure: {0}")]
    Poisoned(Arc<str>),
    /// The store is closed or closing.
    #[error("the store is closed")]
    Closed,
}

/// The past that was asked for is not kept any more, or will never come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Gone {
    /// The revision is older than what is kept: list again.
    #[error("revision {requested} is gone; the oldest kept is {oldest}")]
    Compacted {
        /// What was asked for, or the watcher's position.
        requested: Revision,
        /// The oldest revision that can still be listed and watched from.
        oldest: Revision,
    },
    /// The store is closed: nothing will follow.
    #[error("the store is closed")]
    Closed,
}
