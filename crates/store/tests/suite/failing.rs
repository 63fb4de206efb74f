//! What happens when the database fails.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use coracle_store::{
    AppendError, Backend, BackendError, Change, Entry, Limits, Loaded, Range, Revision, Store,
    WriteError,
};
use futures::future::join_all;

use super::{Harness, attributes, key, open, put, remove, value};

const WORKS: u8 = 0;
const REFUSES: u8 = 1;
const DOUBTS: u8 = 2;
const COMMITS_AND_DOUBTS: u8 = 3;

/// A backend that fails when told to.
struct Failing<B> {
    backend: B,
    mode: Arc<AtomicU8>,
}

fn failure() -> BackendError {
    BackendError::new("append to the log", "told to fail")
}

impl<B: Backend + Sync> Backend for Failing<B> {
    async fn load(&mut self) -> Result<Loaded, BackendError> {
        self.backend.load().await
    }

    async fn read(&mut self, after: Revision, limit: usize) -> Result<Vec<Entry>, BackendError> {
        self.backend.read(after, limit).await
    }

    async fn append(&mut self, batch: &[Entry]) -> Result<(), AppendError> {
        match self.mode.load(Ordering::SeqCst) {
            WORKS => self.backend.append(batch).await,
            REFUSES => Err(AppendError::Refused(failure())),
            DOUBTS => Err(AppendError::Unknown(failure())),
            _ => {
                self.backend.append(batch).await?;
                Err(AppendError::Unknown(failure()))
            }
        }
    }

    async fn compact(
        &mut self,
        before: Revision,
        superseded: &[Revision],
    ) -> Result<(), BackendError> {
        match self.mode.load(Ordering::SeqCst) {
            WORKS => self.backend.compact(before, superseded).await,
            _ => Err(failure()),
        }
    }

    async fn scrub(&mut self) -> Result<(), BackendError> {
        self.backend.scrub().await
    }

    async fn close(self) -> Result<(), BackendError> {
        self.backend.close().await
    }
}

async fn failing<H: Harness>(harness: &H) -> (Store, Arc<AtomicU8>)
where
    H::Backend: Sync,
{
    let mode = Arc::new(AtomicU8::new(WORKS));
    let backend = Failing { backend: harness.open().await.unwrap(), mode: mode.clone() };
    (Store::open_with(backend, Arc::new(attributes), Limits::default()).await.unwrap(), mode)
}

pub async fn a_refused_transaction_leaves_no_trace<H: Harness>(harness: H)
where
    H::Backend: Sync,
{
    let (store, mode) = failing(&harness).await;
    put(&store, "a", "one").await.unwrap();
    let mut watch = store.watch(&Range::all("pods"), Revision::ZERO).unwrap();
    mode.store(REFUSES, Ordering::SeqCst);
    let refused = join_all((0..20).map(|number| {
        let store = store.clone();
        async move { store.create(key(&number.to_string()), value("x")).await }
    }));
    for outcome in refused.await {
        assert!(matches!(outcome, Err(WriteError::Unavailable(_))), "{outcome:?}");
    }
    assert!(matches!(remove(&store, "a").await, Err(WriteError::Unavailable(_))));
    assert_eq!(store.revision(), Revision::new(1));
    assert_eq!(store.list(&Range::all("pods"), None, None, None).unwrap().objects.len(), 1);
    mode.store(WORKS, Ordering::SeqCst);
    assert_eq!(
        put(&store, "a", "two").await.unwrap().revision,
        Revision::new(2),
        "revisions have no gap"
    );
    assert_eq!(watch.next().await.unwrap().revision, Revision::new(1));
    assert_eq!(watch.next().await.unwrap().revision, Revision::new(2));
    store.close().await;
    assert_eq!(open(&harness, Limits::default()).await.revision(), Revision::new(2));
}

pub async fn an_unknown_outcome_ends_writing_but_not_reading<H: Harness>(harness: H)
where
    H::Backend: Sync,
{
    for (doubt, last) in [(DOUBTS, 1), (COMMITS_AND_DOUBTS, 2)] {
        let harness = H::fresh();
        let (store, mode) = failing(&harness).await;
        put(&store, "a", "one").await.unwrap();
        mode.store(doubt, Ordering::SeqCst);
        assert!(matches!(put(&store, "a", "two").await, Err(WriteError::Unknown(_))));
        assert!(store.failure().is_some());
        mode.store(WORKS, Ordering::SeqCst);
        assert!(matches!(put(&store, "a", "three").await, Err(WriteError::Poisoned(_))));
        assert_eq!(store.get(&key("a")).unwrap().revision, Revision::new(1));
        assert_eq!(store.revision(), Revision::new(1));
        store.close().await;
        let store = open(&harness, Limits::default()).await;
        assert_eq!(store.revision(), Revision::new(last), "opening again tells what happened");
        assert_eq!(put(&store, "a", "four").await.unwrap().revision, Revision::new(last + 1));
        store.close().await;
    }
    drop(harness);
}

pub async fn a_failed_compaction_is_reported_and_repeated<H: Harness>(harness: H)
where
    H::Backend: Sync,
{
    let (store, mode) = failing(&harness).await;
    put(&store, "a", "one").await.unwrap();
    put(&store, "a", "two").await.unwrap();
    let mut watch = store.watch(&Range::all("pods"), Revision::ZERO).unwrap();
    mode.store(REFUSES, Ordering::SeqCst);
    assert!(matches!(store.compact(Revision::new(2)).await, Err(WriteError::Unavailable(_))));
    assert_eq!(store.compacted(), Revision::ZERO, "what could not be compacted stays readable");
    assert!(matches!(watch.next().await.unwrap().change, Change::Put { .. }));
    mode.store(WORKS, Ordering::SeqCst);
    store.compact(Revision::new(2)).await.unwrap();
    assert_eq!(store.compacted(), Revision::new(2));
    store.close().await;
}
