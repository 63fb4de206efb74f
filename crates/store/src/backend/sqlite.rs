//! SQLite keeps the log in one file, through sqlx.
//!
//! A batch is one `INSERT` of many rows outside of any explicit transaction, so it is a transaction of its own and
//! one trip to the thread that sqlx runs the connection on. To keep prepared statements few, the number of rows is
//! rounded up to a power of two; rows left over are bound to nothing and filtered out.
//!
//! The file beside the database whose name ends in `.lock` is locked for as long as the store is open.

use std::fs::{File, OpenOptions, TryLockError};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use sqlx::migrate::{Migration, MigrationType, Migrator};
use sqlx::sqlite::{
    SqliteArguments, SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqliteRow,
    SqliteSynchronous,
};
use sqlx::{Arguments, AssertSqlSafe, ConnectOptions, Connection, Row, SqlSafeStr};

use super::{AppendError, Backend, BackendError, Entry, EntryKind, Loaded};
use crate::error::OpenError;
use crate::object::{Key, Revision};
use crate::writer::MOST_WRITES;

/// Every change of the tables, in order. What was released is never edited.
const MIGRATIONS: [(i64, &str, &str); 1] =
    [(1, "log", include_str!("../../../../migrations/sqlite/0001_log.sql"))];

const COLUMNS: usize = 7;

/// Rows of one `INSERT`: with seven columns fewer than the 32,766 values that SQLite binds at most.
const MOST_ROWS: usize = MOST_WRITES;

/// Of new databases. Each page costs system calls on its way into the write-ahead log and out of it again: a batch of
/// 64 objects of 1 KiB fills five of these, and twenty of SQLite's usual 4 KiB.
const PAGE_BYTES: u32 = 16 * 1024;

/// Kept of the file in memory, in KiB below zero: it is only appended to, and read once, at the start.
const CACHE: &str = "-512";

/// The write-ahead log is copied into the database after this many pages, 16 MiB: larger means fewer pauses, smaller a
/// shorter recovery after a crash.
const CHECKPOINT_PAGES: &str = "1000";

/// Rows that SQLite may read ahead of us at open.
const READ_AHEAD: usize = 1024;

/// How long to wait for a tool that reads the file, such as a backup, at most.
const BUSY: Duration = Duration::from_secs(5);

/// The log in an SQLite file.
#[derive(Debug)]
pub struct Sqlite {
    connection: SqliteConnection,
    /// Statements by the power of two of their rows, each made when it is first needed.
    inserts: [OnceLock<Arc<str>>; MOST_ROWS.ilog2() as usize + 1],
    /// The last revision known to be in the log.
    last: Revision,
    _lock: File,
}

impl Sqlite {
    /// Opens the file, makes it if it is missing, locks it and brings its tables up to date.
    ///
    /// # Errors
    /// [`OpenError::InUse`] when somebody has it open; otherwise when it cannot be opened or migrated.
    pub async fn open(path: &Path) -> Result<Sqlite, OpenError> {
        let lock = lock(path)?;
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .busy_timeout(BUSY)
            .row_buffer_size(READ_AHEAD)
            // macOS has a sync that does not reach the disk; elsewhere this means nothing.
            .pragma("fullfsync", "ON")
            .page_size(PAGE_BYTES)
            .pragma("cache_size", CACHE)
            .pragma("wal_autocheckpoint", CHECKPOINT_PAGES)
            .disable_statement_logging()
            .thread_name(|_| "store-sqlite".to_owned());
        let mut connection = options
            .connect()
            .await
            .map_err(|error| OpenError::Backend(BackendError::new("open the database", error)))?;
        migrate(&mut connection).await.map_err(OpenError::Backend)?;
        Ok(Sqlite { connection, inserts: Default::default(), last: Revision::ZERO, _lock: lock })
    }

    /// Whether the log ends where it ended before a statement that failed.
    async fn is_unchanged(&mut self) -> bool {
        self.last_revision().await.is_ok_and(|last| last == self.last)
    }

    async fn last_revision(&mut self) -> Result<Revision, sqlx::Error> {
        let query = "SELECT max(coalesce((SELECT max(revision) FROM log), 0), (SELECT revision FROM compaction))";
        let last: i64 = sqlx::query_scalar(query).fetch_one(&mut self.connection).await?;
        Ok(Revision::new(last.cast_unsigned()))
    }

    async fn insert(&mut self, rows: &[Entry]) -> Result<(), sqlx::Error> {
        let power = rows.len().next_power_of_two().ilog2() as usize;
        let mut arguments = SqliteArguments::default();
        arguments.reserve(rows.len() * COLUMNS, 0);
        for row in rows {
            bind(&mut arguments, row).map_err(sqlx::Error::Encode)?;
        }
        let statement = self.inserts[power].get_or_init(|| insert_statement(1 << power).into());
        let statement = AssertSqlSafe(Arc::clone(statement));
        sqlx::query_with(statement, arguments).execute(&mut self.connection).await?;
        Ok(())
    }
}

impl Backend for Sqlite {
    async fn load(&mut self) -> Result<Loaded, BackendError> {
        let failed = |error: sqlx::Error| BackendError::new("read the bounds of the log", error);
        let compacted: i64 = sqlx::query_scalar("SELECT revision FROM compaction")
            .fetch_one(&mut self.connection)
            .await
            .map_err(failed)?;
        self.last = self.last_revision().await.map_err(failed)?;
        Ok(Loaded { compacted: Revision::new(compacted.cast_unsigned()), last: self.last })
    }

    async fn read(&mut self, after: Revision, limit: usize) -> Result<Vec<Entry>, BackendError> {
        let query = "SELECT revision, kind, resource, namespace, name, created_revision, bytes FROM log \
                     WHERE revision > ?1 ORDER BY revision LIMIT ?2";
        let rows = sqlx::query(query)
            .bind(after.get().cast_signed())
            .bind(i64::try_from(limit).unwrap_or(i64::MAX))
            .fetch_all(&mut self.connection)
            .await;
        let entries = rows.and_then(|rows| rows.iter().map(entry).collect());
        entries.map_err(|error: sqlx::Error| BackendError::new("read the log", error))
    }

    async fn append(&mut self, batch: &[Entry]) -> Result<(), AppendError> {
        let Some(last) = batch.last() else {
            return Ok(());
        };
        assert!(batch.len() <= MOST_ROWS, "the writer keeps batches below what a statement takes");
        match self.insert(batch).await {
            Ok(()) => {
                self.last = last.revision;
                Ok(())
            }
            Err(error) => {
                // A full disk and a busy database are known to leave nothing behind. Of anything else, above all of a
                // failed sync, only the next recovery could tell.
                let is_refusal = is_refusal(&error);
                let error = BackendError::new("append to the log", error);
                match is_refusal && self.is_unchanged().await {
                    true => Err(AppendError::Refused(error)),
                    false => Err(AppendError::Unknown(error)),
                }
            }
        }
    }

    async fn compact(
        &mut self,
        before: Revision,
        superseded: &[Revision],
    ) -> Result<(), BackendError> {
        let failed = |error: sqlx::Error| BackendError::new("compact the log", error);
        let numbers: Vec<u64> = superseded.iter().map(|revision| revision.get()).collect();
        let numbers = serde_json::to_string(&numbers)
            .map_err(|error| BackendError::new("compact the log", error))?;
        let mut transaction = self.connection.begin().await.map_err(failed)?;
        sqlx::query("UPDATE compaction SET revision = ?1 WHERE revision < ?1")
            .bind(before.get().cast_signed())
            .execute(&mut *transaction)
            .await
            .map_err(failed)?;
        sqlx::query("DELETE FROM log WHERE revision IN (SELECT value FROM json_each(?1))")
            .bind(numbers)
            .execute(&mut *transaction)
            .await
            .map_err(failed)?;
        transaction.commit().await.map_err(failed)
    }

    async fn scrub(&mut self) -> Result<(), BackendError> {
        // The file is written anew without its free pages, through the write-ahead log, which is then emptied as well. SQLite
        // could overwrite as it deletes (`secure_delete`), at the price of more pages in every compaction; this is needed after
        // a change of keys only.
        for statement in ["VACUUM", "PRAGMA wal_checkpoint(TRUNCATE)"] {
            sqlx::query(statement)
                .execute(&mut self.connection)
                .await
                .map_err(|error| BackendError::new("scrub the database", error))?;
        }
        Ok(())
    }

    async fn close(self) -> Result<(), BackendError> {
        self.connection
            .close()
            .await
            .map_err(|error| BackendError::new("close the database", error))
    }
}

/// Takes the lock that says that the store is open, and makes the files that are missing.
fn lock(path: &Path) -> Result<File, OpenError> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| OpenError::Io { path, source }
    };
    if let Some(directory) = path.parent().filter(|directory| !directory.as_os_str().is_empty()) {
        std::fs::create_dir_all(directory).map_err(failed(directory))?;
    }
    let mut name = path.as_os_str().to_owned();
    name.push(".lock");
    let lock_path = PathBuf::from(name);
    let lock = private_file(&lock_path).map_err(failed(&lock_path))?;
    match lock.try_lock() {
        Ok(()) => (),
        Err(TryLockError::WouldBlock) => return Err(OpenError::InUse { path: path.to_owned() }),
        Err(TryLockError::Error(source)) => return Err(failed(&lock_path)(source)),
    }
    // SQLite makes its other files like this one. They hold the cluster's secrets. Not before the lock is ours:
    // closing a file that SQLite has open in this process would take SQLite's own locks away.
    private_file(path).map_err(failed(path))?;
    Ok(lock)
}

/// Opens a file; if it is missing, makes it readable for its owner only.
fn private_file(path: &Path) -> std::io::Result<File> {
    let mut options = OpenOptions::new();
    options.create(true).truncate(false).write(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

async fn migrate(connection: &mut SqliteConnection) -> Result<(), BackendError> {
    let migrations = MIGRATIONS.map(|(version, description, sql)| {
        Migration::new(
            version,
            description.into(),
            MigrationType::Simple,
            sql.into_sql_str(),
            false,
        )
    });
    let migrator = Migrator::with_migrations(migrations.into());
    migrator
        .run_direct(None, connection, false)
        .await
        .map_err(|error| BackendError::new("bring the tables up to date", error))
}

/// An `INSERT` of up to this many rows; a row whose revision is bound to nothing is left out.
fn insert_statement(rows: usize) -> String {
    let row = "(?, ?, ?, ?, ?, ?, ?)";
    let columns = "revision, kind, resource, namespace, name, created_revision, bytes";
    if rows == 1 {
        return format!("INSERT INTO log ({columns}) VALUES {row}");
    }
    let rows = vec![row; rows].join(", ");
    format!("INSERT INTO log ({columns}) SELECT * FROM (VALUES {rows}) WHERE column1 IS NOT NULL")
}

fn bind(arguments: &mut SqliteArguments, row: &Entry) -> Result<(), sqlx::error::BoxDynError> {
    arguments.add(row.revision.get().cast_signed())?;
    arguments.add(match row.kind {
        EntryKind::Create => 0,
        EntryKind::Update => 1,
        EntryKind::Delete => 2,
    })?;
    arguments.add(row.key.resource.clone())?;
    arguments.add(row.key.namespace.clone())?;
    arguments.add(row.key.name.clone())?;
    arguments.add(row.created_revision.get().cast_signed())?;
    arguments.add(&*row.bytes)
}

fn entry(row: &SqliteRow) -> Result<Entry, sqlx::Error> {
    let revision = |column: usize| {
        row.try_get(column).map(|number: i64| Revision::new(number.cast_unsigned()))
    };
    let text = |column: usize| row.try_get(column).map(|text: &str| Arc::<str>::from(text));
    Ok(Entry {
        revision: revision(0)?,
        kind: match row.try_get(1)? {
            0 => EntryKind::Create,
            1 => EntryKind::Update,
            2 => EntryKind::Delete,
            other => {
                return Err(sqlx::Error::Decode(format!("{other} is no kind of write").into()));
            }
        },
        key: Key { resource: text(2)?, namespace: text(3)?, name: text(4)? },
        created_revision: revision(5)?,
        bytes: Bytes::copy_from_slice(row.try_get(6)?),
    })
}

/// Whether SQLite says that it did not even start to commit.
fn is_refusal(error: &sqlx::Error) -> bool {
    const BUSY: i32 = 5;
    const FULL: i32 = 13;
    let code = error.as_database_error().and_then(|error| error.code()?.parse::<i32>().ok());
    // The low byte is the primary code of an extended one.
    code.is_some_and(|code| matches!(code & 0xff, BUSY | FULL))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(from: u64, count: u64) -> Vec<Entry> {
        let row = |number| Entry {
            revision: Revision::new(number),
            kind: EntryKind::Create,
            key: Key::new("pods", "default", number.to_string()),
            created_revision: Revision::new(number),
            bytes: Bytes::from(vec![b'x'; 5000]),
        };
        (from..from + count).map(row).collect()
    }

    async fn set_most_pages(backend: &mut Sqlite, pages: u32) {
        let pragma = AssertSqlSafe(format!("PRAGMA max_page_count = {pages}"));
        sqlx::query(pragma).execute(&mut backend.connection).await.unwrap();
    }

    #[tokio::test]
    async fn a_full_disk_refuses_and_leaves_nothing_behind() {
        let directory = tempfile::tempdir().unwrap();
        let mut backend = Sqlite::open(&directory.path().join("state.db")).await.unwrap();
        backend.load().await.unwrap();
        backend.append(&rows(1, 3)).await.unwrap();
        set_most_pages(&mut backend, 30).await;
        let full = backend.append(&rows(4, 100)).await;
        assert!(matches!(full, Err(AppendError::Refused(_))), "{full:?}");
        assert_eq!(backend.read(Revision::ZERO, 100).await.unwrap(), rows(1, 3));
        set_most_pages(&mut backend, 3000).await;
        backend.append(&rows(4, 100)).await.unwrap();
        assert_eq!(backend.load().await.unwrap().last, Revision::new(103));
        backend.close().await.unwrap();
    }

    #[tokio::test]
    async fn batches_of_every_size_are_written_whole() {
        let directory = tempfile::tempdir().unwrap();
        let mut backend = Sqlite::open(&directory.path().join("state.db")).await.unwrap();
        backend.load().await.unwrap();
        let mut next = 1;
        for count in [1, 2, 3, 4, 5, 7, 8, 9, 100, 512, 1000, 1, 3, MOST_ROWS as u64] {
            backend.append(&rows(next, count)).await.unwrap();
            next += count;
        }
        let read = backend.read(Revision::ZERO, usize::MAX).await.unwrap();
        assert_eq!(read, rows(1, next - 1));
        backend.close().await.unwrap();
    }

    #[tokio::test]
    async fn a_revision_that_is_there_already_is_no_refusal() {
        let directory = tempfile::tempdir().unwrap();
        let mut backend = Sqlite::open(&directory.path().join("state.db")).await.unwrap();
        backend.load().await.unwrap();
        backend.append(&rows(1, 3)).await.unwrap();
        let twice = backend.append(&rows(3, 1)).await;
        assert!(matches!(twice, Err(AppendError::Unknown(_))), "somebody else writes: {twice:?}");
        backend.close().await.unwrap();
    }
}
