//! The revision log: put, list at a revision, watch, compact; the only SQL.
//!
//! The store keeps `(key, bytes)` under one gapless, commit-ordered revision and knows no JSON.
//! Start reading at [`Store`]; then `writer.rs` (how a write becomes durable) and `mirror.rs` (how it is read).
//!
//! What is always true:
//! - A write is answered after its transaction is on disk; writers that arrive together share a transaction.
//! - The mirror in memory is the truth for compare-and-swap, lists and watches; SQL is read at open only.
//! - A transaction that failed leaves no trace: its revisions are given to the next writes. If nobody can
//!   know whether it was committed, the store takes no further writes.
//! - Each object is held once, as an `Arc`, by the current table, the rings of recent events and all readers.
//!
//! Deliberately absent: transactions over several keys, leases, and any query per reader or watcher.

mod backend;
mod error;
mod history;
mod load;
mod mirror;
mod object;
mod options;
mod store;
mod watch;
mod writer;

pub use backend::sealed::{Cipher, CipherError};
pub use backend::sqlite::Sqlite;
pub use backend::{AppendError, Backend, BackendError, Entry, EntryKind, Loaded};
pub use error::{Gone, OpenError, WriteError};
pub use object::{
    Attributes, Change, Event, Key, Listing, Object, ParseRevisionError, Range, Revision, Value,
};
pub use options::{Endpoint, Limits, Options, ReadAttributes};
pub use store::Store;
pub use watch::Watch;
