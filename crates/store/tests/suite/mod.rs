//! What every backend of the store promises. A backend's test file calls [`suite!`] with its [`Harness`].

pub mod failing;
pub mod model;
pub mod promises;

use std::sync::Arc;

use coracle_store::{
    Attributes, Backend, Key, Limits, Object, OpenError, Revision, Store, Value, WriteError,
};

/// How to get a database to test with.
pub trait Harness: Send + Sync + 'static {
    /// The backend under test.
    type Backend: Backend;

    /// An empty database.
    fn fresh() -> Self;

    /// Opens the database, again and again.
    fn open(&self) -> impl Future<Output = Result<Self::Backend, OpenError>> + Send;
}

/// Opens the store with these limits.
pub async fn open(harness: &impl Harness, limits: Limits) -> Store {
    let backend = harness.open().await.unwrap();
    Store::open_with(backend, Arc::new(attributes), limits).await.unwrap()
}

/// In these tests an object is `{revision}text`, and its text is its one label.
pub fn value(text: &str) -> Value {
    Value { bytes: format!("{{}}{text}").into_bytes(), revision_at: 1, attributes: label(text) }
}

/// What [`value`] puts into the attributes, from the encoded object.
pub fn attributes(_: &Key, bytes: &[u8]) -> Attributes {
    let text = std::str::from_utf8(bytes).unwrap();
    label(text.split_once('}').unwrap().1)
}

fn label(text: &str) -> Attributes {
    Attributes { labels: Box::new([("text".into(), text.into())]), fields: Box::default() }
}

/// The revision and the text inside the bytes of an object.
pub fn content(object: &Object) -> (Revision, String) {
    let text = std::str::from_utf8(&object.bytes).unwrap();
    let (revision, text) = text.strip_prefix('{').unwrap().split_once('}').unwrap();
    (revision.parse().unwrap(), text.to_owned())
}

pub fn key(name: &str) -> Key {
    Key::new("pods", "default", name)
}

pub async fn put(store: &Store, name: &str, text: &str) -> Result<Arc<Object>, WriteError> {
    match store.get(&key(name)) {
        None => store.create(key(name), value(text)).await,
        Some(current) => store.update(key(name), current.revision, value(text)).await,
    }
}

pub async fn remove(store: &Store, name: &str) -> Result<Arc<Object>, WriteError> {
    let current = store.get(&key(name)).unwrap();
    store.delete(key(name), current.revision, value("last")).await
}

/// Waits until this is so; fails after a deadline.
pub async fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
    while !is_so() {
        assert!(std::time::Instant::now() < deadline, "{what}");
        tokio::time::sleep(std::time::Duration::from_millis(2)).await;
    }
}

/// Makes a test of every promise.
macro_rules! suite {
    ($harness:ty) => {
        suite::suite! { @each $harness:
            promises::a_write_gets_the_next_revision_and_carries_it,
            promises::create_refuses_what_exists,
            promises::update_and_delete_refuse_another_revision,
            promises::a_misplaced_revision_is_refused,
            promises::of_many_concurrent_updates_one_wins,
            promises::concurrent_increments_are_all_counted,
            promises::a_list_is_ordered_and_paged,
            promises::pages_of_an_older_revision_fit_together,
            promises::a_watch_delivers_everything_after_its_revision,
            promises::a_watch_of_a_namespace_sees_only_that,
            promises::a_cancelled_wait_loses_nothing,
            promises::a_watch_from_the_future_waits_for_it,
            promises::a_slow_watcher_is_told_and_hurts_nobody,
            promises::a_thousand_watchers_see_everything,
            promises::a_compacted_revision_is_gone,
            promises::compaction_keeps_the_state_and_frees_the_rows,
            promises::a_compacted_deletion_does_not_give_its_revision_away,
            promises::history_is_compacted_by_count,
            promises::history_is_compacted_by_age,
            promises::everything_is_there_after_a_restart,
            promises::close_finishes_what_is_queued_and_ends_watches,
            promises::dropping_the_store_frees_the_database,
            failing::a_refused_transaction_leaves_no_trace,
            failing::an_unknown_outcome_ends_writing_but_not_reading,
            failing::a_failed_compaction_is_reported_and_repeated,
        }

        #[test]
        fn the_store_behaves_as_its_model() {
            suite::model::check::<$harness>();
        }
    };
    (@each $harness:ty: $($module:ident::$promise:ident,)*) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $promise() {
                suite::$module::$promise(<$harness as suite::Harness>::fresh()).await;
            }
        )*
    };
}

pub(crate) use suite;
