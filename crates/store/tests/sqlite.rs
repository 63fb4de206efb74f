//! The store over SQLite keeps the promises that every backend keeps, and some of its own.

mod suite;

use std::path::PathBuf;

use coracle_store::{Key, OpenError, Options, Sqlite, Store, WriteError};
use suite::{Harness, attributes, value};

/// A database file in a directory of its own.
struct SqliteFile {
    directory: tempfile::TempDir,
}

impl SqliteFile {
    fn path(&self) -> PathBuf {
        self.directory.path().join("state.db")
    }
}

impl Harness for SqliteFile {
    type Backend = Sqlite;

    fn fresh() -> SqliteFile {
        SqliteFile { directory: tempfile::tempdir().unwrap() }
    }

    async fn open(&self) -> Result<Sqlite, OpenError> {
        Sqlite::open(&self.path()).await
    }
}

suite::suite!(SqliteFile);

#[tokio::test]
async fn a_second_user_of_the_file_is_told_that_it_is_in_use() {
    let file = SqliteFile::fresh();
    let store = Store::open(Options::sqlite(file.path(), attributes)).await.unwrap();
    let second = Store::open(Options::sqlite(file.path(), attributes)).await;
    assert!(matches!(second, Err(OpenError::InUse { path }) if path == file.path()));
    store.close().await;
    Store::open(Options::sqlite(file.path(), attributes)).await.unwrap().close().await;
}

#[tokio::test]
async fn missing_directories_are_made() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a/b/state.db");
    let store = Store::open(Options::sqlite(path.clone(), attributes)).await.unwrap();
    store.create(Key::new("pods", "a", "b"), value("x")).await.unwrap();
    store.close().await;
    assert!(path.exists());
}

#[cfg(unix)]
#[tokio::test]
async fn only_the_owner_may_read_the_files() {
    use std::os::unix::fs::PermissionsExt;
    let file = SqliteFile::fresh();
    let store = Store::open(Options::sqlite(file.path(), attributes)).await.unwrap();
    store.create(Key::new("secrets", "a", "b"), value("x")).await.unwrap();
    let entries = std::fs::read_dir(file.directory.path()).unwrap();
    let modes: Vec<_> = entries
        .map(|entry| entry.unwrap().metadata().unwrap().permissions().mode() & 0o777)
        .collect();
    assert!(modes.len() >= 3 && modes.iter().all(|mode| *mode == 0o600), "{modes:?}");
    store.close().await;
}

#[tokio::test]
async fn a_file_that_is_no_database_is_an_error() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("state.db");
    std::fs::write(&path, vec![b'x'; 10_000]).unwrap();
    let opened = Store::open(Options::sqlite(path, attributes)).await;
    assert!(matches!(opened, Err(OpenError::Backend(_))), "{opened:?}");
}

#[tokio::test]
async fn a_missing_revision_is_reported_as_damage() {
    let file = SqliteFile::fresh();
    let store = Store::open(Options::sqlite(file.path(), attributes)).await.unwrap();
    for name in ["a", "b", "c"] {
        store.create(Key::new("pods", "a", name), value("x")).await.unwrap();
    }
    store.close().await;
    let mut connection = connect(&file).await;
    sqlx::query("DELETE FROM log WHERE revision = 2").execute(&mut connection).await.unwrap();
    sqlx::Connection::close(connection).await.unwrap();
    let opened = Store::open(Options::sqlite(file.path(), attributes)).await;
    assert!(
        matches!(opened, Err(OpenError::Damaged { revision, .. }) if revision.get() == 3),
        "{opened:?}"
    );
}

#[tokio::test]
async fn a_database_locked_by_another_tool_refuses_and_recovers() {
    let file = SqliteFile::fresh();
    let store = Store::open(Options::sqlite(file.path(), attributes)).await.unwrap();
    let mut tool = connect(&file).await;
    sqlx::query("BEGIN IMMEDIATE").execute(&mut tool).await.unwrap();
    let refused = store.create(Key::new("pods", "a", "b"), value("x")).await;
    assert!(matches!(refused, Err(WriteError::Unavailable(_))), "{refused:?}");
    sqlx::query("ROLLBACK").execute(&mut tool).await.unwrap();
    let written = store.create(Key::new("pods", "a", "b"), value("x")).await.unwrap();
    assert_eq!(written.revision.get(), 1);
    store.close().await;
}

async fn connect(file: &SqliteFile) -> sqlx::SqliteConnection {
    <sqlx::SqliteConnection as sqlx::Connection>::connect(file.path().to_str().unwrap())
        .await
        .unwrap()
}
