//! The promises, each told by its name.

use std::sync::Arc;
use std::time::Duration;

use coracle_store::{
    Backend, Change, Event, Gone, Key, Limits, Range, Revision, Store, Watch, WriteError,
};
use futures::StreamExt;
use futures::future::join_all;

use super::{Harness, attributes, content, key, open, put, remove, until, value};

async fn store(harness: &impl Harness) -> Store {
    open(harness, Limits::default()).await
}

fn revision(number: u64) -> Revision {
    Revision::new(number)
}

fn pods() -> Range {
    Range::all("pods")
}

fn texts(events: &[Arc<Event>]) -> Vec<String> {
    events.iter().map(|event| content(event.object()).1).collect()
}

async fn take(watch: &mut Watch, count: usize) -> Vec<Arc<Event>> {
    let mut events = Vec::new();
    for _ in 0..count {
        let event = tokio::time::timeout(Duration::from_secs(20), watch.next())
            .await
            .expect("an event comes");
        events.push(event.unwrap());
    }
    events
}

pub async fn a_write_gets_the_next_revision_and_carries_it(harness: impl Harness) {
    let store = store(&harness).await;
    assert_eq!(store.revision(), Revision::ZERO);
    let created = put(&store, "a", "one").await.unwrap();
    assert_eq!((created.revision, created.created_revision), (revision(1), revision(1)));
    assert_eq!(content(&created), (revision(1), "one".to_owned()));
    put(&store, "b", "other").await.unwrap();
    let updated = put(&store, "a", "two").await.unwrap();
    assert_eq!((updated.revision, updated.created_revision), (revision(3), revision(1)));
    assert_eq!(content(&updated), (revision(3), "two".to_owned()));
    assert_eq!(updated.attributes.label("text"), Some("two"));
    assert!(Arc::ptr_eq(&store.get(&key("a")).unwrap(), &updated), "the object is held once");
    let other = store.get(&key("b")).unwrap();
    assert!(
        Arc::ptr_eq(&other.key.resource, &updated.key.resource),
        "and so are the texts of keys"
    );
    assert!(Arc::ptr_eq(&other.key.namespace, &updated.key.namespace));
    let deleted = remove(&store, "a").await.unwrap();
    assert_eq!((deleted.revision, deleted.created_revision), (revision(4), revision(1)));
    assert_eq!(content(&deleted), (revision(4), "last".to_owned()));
    assert_eq!(store.get(&key("a")), None);
    assert_eq!(store.revision(), revision(4));
    store.close().await;
}

pub async fn create_refuses_what_exists(harness: impl Harness) {
    let store = store(&harness).await;
    let first = put(&store, "a", "one").await.unwrap();
    match store.create(key("a"), value("two")).await {
        Err(WriteError::Exists(existing)) => assert!(Arc::ptr_eq(&existing, &first)),
        other => panic!("{other:?}"),
    }
    remove(&store, "a").await.unwrap();
    let again = store.create(key("a"), value("three")).await.unwrap();
    assert_eq!(again.created_revision, revision(3));
    store.close().await;
}

pub async fn update_and_delete_refuse_another_revision(harness: impl Harness) {
    let store = store(&harness).await;
    let absent = store.update(key("a"), revision(1), value("x")).await;
    assert!(matches!(absent, Err(WriteError::Conflict { current: None })));
    put(&store, "a", "one").await.unwrap();
    let second = put(&store, "a", "two").await.unwrap();
    let stale = store.update(key("a"), revision(1), value("x")).await;
    assert!(
        matches!(stale, Err(WriteError::Conflict { current: Some(current) }) if Arc::ptr_eq(&current, &second))
    );
    let stale = store.delete(key("a"), revision(1), value("x")).await;
    assert!(
        matches!(stale, Err(WriteError::Conflict { current: Some(current) }) if Arc::ptr_eq(&current, &second))
    );
    assert_eq!(store.revision(), revision(2), "a refused write takes no revision");
    store.close().await;
}

pub async fn a_misplaced_revision_is_refused(harness: impl Harness) {
    let store = store(&harness).await;
    let mut misplaced = value("x");
    misplaced.revision_at = misplaced.bytes.len() + 1;
    assert!(matches!(store.create(key("a"), misplaced).await, Err(WriteError::Misplaced)));
    let mut at_the_end = value("x");
    at_the_end.revision_at = at_the_end.bytes.len();
    assert_eq!(store.create(key("a"), at_the_end).await.unwrap().bytes, "{}x1");
    store.close().await;
}

pub async fn of_many_concurrent_updates_one_wins(harness: impl Harness) {
    let store = store(&harness).await;
    for round in 0..20 {
        let before = put(&store, "a", "before").await.unwrap();
        let updates = (0..32).map(|client| {
            let (store, expected, client) =
                (store.clone(), before.revision, format!("{round}-{client}"));
            tokio::spawn(async move { store.update(key("a"), expected, value(&client)).await })
        });
        let outcomes: Vec<_> = join_all(updates).await.into_iter().map(Result::unwrap).collect();
        let winners: Vec<_> = outcomes.iter().flatten().collect();
        assert_eq!(winners.len(), 1);
        assert_eq!(winners[0].revision.get(), before.revision.get() + 1);
        for loser in outcomes.iter().filter_map(|outcome| outcome.as_ref().err()) {
            let WriteError::Conflict { current: Some(current) } = loser else {
                panic!("{loser:?}")
            };
            assert_eq!(current.revision, winners[0].revision, "losers are told who won");
        }
    }
    store.close().await;
}

pub async fn concurrent_increments_are_all_counted(harness: impl Harness) {
    const CLIENTS: usize = 16;
    const EACH: usize = 25;
    let store = store(&harness).await;
    put(&store, "counter", "0").await.unwrap();
    let clients = (0..CLIENTS).map(|_| {
        let store = store.clone();
        tokio::spawn(async move {
            let mut done = 0;
            while done < EACH {
                let current = store.get(&key("counter")).unwrap();
                let count: usize = content(&current).1.parse().unwrap();
                match store
                    .update(key("counter"), current.revision, value(&(count + 1).to_string()))
                    .await
                {
                    Ok(_) => done += 1,
                    Err(WriteError::Conflict { .. }) => (),
                    Err(other) => panic!("{other:?}"),
                }
            }
        })
    });
    join_all(clients).await.into_iter().for_each(Result::unwrap);
    assert_eq!(content(&store.get(&key("counter")).unwrap()).1, (CLIENTS * EACH).to_string());
    assert_eq!(store.revision().get() as usize, CLIENTS * EACH + 1);
    store.close().await;
}

pub async fn a_list_is_ordered_and_paged(harness: impl Harness) {
    let store = store(&harness).await;
    for (namespace, name) in [("b", "x"), ("a", "y"), ("a", "x"), ("c", "a"), ("b", "a")] {
        store.create(Key::new("pods", namespace, name), value("v")).await.unwrap();
    }
    store.create(Key::new("podtemplates", "a", "z"), value("v")).await.unwrap();
    let names = |range: &Range, after, limit| {
        let listing = store.list(range, None, after, limit).unwrap();
        let names: Vec<_> =
            listing.objects.iter().map(|o| format!("{}/{}", o.key.namespace, o.key.name)).collect();
        (names.join(" "), listing.remaining)
    };
    let check = |found: (String, usize), names: &str, remaining| {
        assert_eq!(found, (names.to_owned(), remaining))
    };
    check(names(&pods(), None, None), "a/x a/y b/a b/x c/a", 0);
    check(names(&pods(), None, Some(2)), "a/x a/y", 3);
    check(names(&pods(), Some(("a", "y")), Some(2)), "b/a b/x", 1);
    check(names(&pods(), Some(("b", "b")), Some(2)), "b/x c/a", 0);
    check(names(&pods(), Some(("c", "a")), Some(2)), "", 0);
    let one = Range::namespace("pods", "b");
    check(names(&one, None, None), "b/a b/x", 0);
    check(names(&one, Some(("b", "a")), Some(1)), "b/x", 0);
    check(names(&one, Some(("c", "a")), None), "", 0);
    check(names(&Range::namespace("pods", "none"), None, None), "", 0);
    check(names(&Range::all("nodes"), None, None), "", 0);
    assert_eq!(store.list(&pods(), None, None, None).unwrap().revision, revision(6));
    store.close().await;
}

pub async fn pages_of_an_older_revision_fit_together(harness: impl Harness) {
    let store = store(&harness).await;
    for name in ["a", "c", "e", "g"] {
        put(&store, name, "old").await.unwrap();
    }
    let first = store.list(&pods(), None, None, Some(2)).unwrap();
    assert_eq!((first.revision, first.remaining), (revision(4), 2));
    // Between the pages everything changes.
    for name in ["b", "d", "e", "h"] {
        put(&store, name, "new").await.unwrap();
    }
    remove(&store, "g").await.unwrap();
    remove(&store, "a").await.unwrap();
    let rest = store.list(&pods(), Some(first.revision), Some(("default", "c")), Some(2)).unwrap();
    let rest: Vec<_> =
        rest.objects.iter().map(|object| (&*object.key.name, content(object).1)).collect();
    assert_eq!(rest, [("e", "old".to_owned()), ("g", "old".to_owned())]);
    let present = store.list(&pods(), None, None, None).unwrap();
    let present: Vec<_> = present.objects.iter().map(|object| &*object.key.name).collect();
    assert_eq!(present, ["b", "c", "d", "e", "h"]);
    store.close().await;
}

pub async fn a_watch_delivers_everything_after_its_revision(harness: impl Harness) {
    let store = store(&harness).await;
    put(&store, "a", "one").await.unwrap();
    let mut from_one = store.watch(&pods(), revision(1)).unwrap();
    let mut from_zero = store.watch(&pods(), Revision::ZERO).unwrap();
    put(&store, "a", "two").await.unwrap();
    store.create(Key::new("nodes", "", "n"), value("node")).await.unwrap();
    remove(&store, "a").await.unwrap();
    assert_eq!(texts(&take(&mut from_zero, 3).await), ["one", "two", "last"]);
    let events = take(&mut from_one, 2).await;
    let Change::Put { object, previous: Some(previous) } = &events[0].change else {
        panic!("{events:?}")
    };
    assert_eq!(
        (object.revision, previous.revision, events[0].revision),
        (revision(2), revision(1), revision(2))
    );
    let Change::Delete { object, previous } = &events[1].change else { panic!("{events:?}") };
    assert_eq!(
        (object.revision, previous.revision, events[1].revision),
        (revision(4), revision(2), revision(4))
    );
    assert_eq!(from_one.try_next(), Ok(None));
    store.create(Key::new("nodes", "", "m"), value("node")).await.unwrap();
    assert_eq!(from_one.progress(), revision(4));
    assert_eq!(from_one.try_next(), Ok(None));
    assert_eq!(from_one.progress(), revision(5), "nothing was missed up to here");
    store.close().await;
}

pub async fn a_watch_of_a_namespace_sees_only_that(harness: impl Harness) {
    let store = store(&harness).await;
    let mut watch = store.watch(&Range::namespace("pods", "a"), Revision::ZERO).unwrap();
    for (namespace, text) in [("b", "1"), ("a", "2"), ("c", "3"), ("a", "4")] {
        store.create(Key::new("pods", namespace, text), value(text)).await.unwrap();
    }
    assert_eq!(texts(&take(&mut watch, 2).await), ["2", "4"]);
    assert_eq!(watch.try_next(), Ok(None));
    store.close().await;
}

pub async fn a_cancelled_wait_loses_nothing(harness: impl Harness) {
    const EVENTS: usize = 300;
    let store = store(&harness).await;
    let mut watch = store.watch(&pods(), Revision::ZERO).unwrap();
    let writer = tokio::spawn({
        let store = store.clone();
        async move {
            for number in 0..EVENTS {
                put(&store, "a", &number.to_string()).await.unwrap();
            }
        }
    });
    let mut seen = Vec::new();
    while seen.len() < EVENTS {
        tokio::select! {
            biased;
            event = watch.next() => seen.push(event.unwrap().revision.get() as usize),
            () = tokio::task::yield_now() => (),
        }
    }
    assert_eq!(seen, (1..=EVENTS).collect::<Vec<_>>());
    writer.await.unwrap();
    store.close().await;
}

pub async fn a_watch_from_the_future_waits_for_it(harness: impl Harness) {
    let store = store(&harness).await;
    let mut watch = store.watch(&pods(), revision(2)).unwrap();
    for text in ["one", "two", "three"] {
        put(&store, "a", text).await.unwrap();
    }
    assert_eq!(texts(&take(&mut watch, 1).await), ["three"]);
    store.close().await;
}

pub async fn a_slow_watcher_is_told_and_hurts_nobody(harness: impl Harness) {
    let store = open(&harness, Limits { ring_events: 8, ..Limits::default() }).await;
    let mut slow = store.watch(&pods(), Revision::ZERO).unwrap();
    let mut quick = store.watch(&pods(), Revision::ZERO).unwrap();
    for number in 0..20 {
        put(&store, "a", &number.to_string()).await.unwrap();
        assert_eq!(texts(&take(&mut quick, 1).await), [number.to_string()]);
    }
    assert_eq!(
        slow.next().await,
        Err(Gone::Compacted { requested: Revision::ZERO, oldest: revision(12) })
    );
    assert!(slow.next().await.is_err(), "and stays so");
    assert!(store.watch(&pods(), revision(11)).is_err());
    assert_eq!(take(&mut store.watch(&pods(), revision(12)).unwrap(), 8).await.len(), 8);
    store.close().await;
}

pub async fn a_thousand_watchers_see_everything(harness: impl Harness) {
    let store = store(&harness).await;
    let watchers: Vec<_> = (0..1000)
        .map(|_| {
            let watch = store.watch(&pods(), Revision::ZERO).unwrap();
            tokio::spawn(async move {
                watch.take(50).map(|event| event.unwrap().revision.get()).collect::<Vec<_>>().await
            })
        })
        .collect();
    for number in 0..50 {
        put(&store, "a", &number.to_string()).await.unwrap();
    }
    for watcher in watchers {
        assert_eq!(watcher.await.unwrap(), (1..=50).collect::<Vec<_>>());
    }
    store.close().await;
}

pub async fn a_compacted_revision_is_gone(harness: impl Harness) {
    let store = store(&harness).await;
    for text in ["one", "two", "three", "four"] {
        put(&store, "a", text).await.unwrap();
    }
    let mut behind = store.watch(&pods(), revision(1)).unwrap();
    store.compact(revision(3)).await.unwrap();
    let gone = |requested| Gone::Compacted { requested: revision(requested), oldest: revision(3) };
    assert_eq!(behind.try_next(), Err(gone(1)));
    assert_eq!(store.list(&pods(), Some(revision(2)), None, None), Err(gone(2)));
    assert_eq!(store.list(&Range::all("nodes"), Some(revision(2)), None, None), Err(gone(2)));
    assert_eq!(store.watch(&pods(), revision(2)).map(|_| ()), Err(gone(2)));
    assert_eq!(
        content(&store.list(&pods(), Some(revision(3)), None, None).unwrap().objects[0]).1,
        "three"
    );
    assert_eq!(texts(&take(&mut store.watch(&pods(), revision(3)).unwrap(), 1).await), ["four"]);
    store.compact(revision(100)).await.unwrap();
    assert_eq!(store.compacted(), revision(4), "the future cannot be compacted");
    store.compact(revision(2)).await.unwrap();
    assert_eq!(store.compacted(), revision(4), "and the past does not come back");
    store.close().await;
}

pub async fn compaction_keeps_the_state_and_frees_the_rows(harness: impl Harness) {
    let store = open(&harness, Limits { compaction_slice: 7, ..Limits::default() }).await;
    for round in 0..10 {
        for name in ["a", "b", "c", "d"] {
            put(&store, name, &round.to_string()).await.unwrap();
        }
    }
    remove(&store, "b").await.unwrap();
    put(&store, "e", "young").await.unwrap();
    remove(&store, "c").await.unwrap();
    let before = store.list(&pods(), None, None, None).unwrap();
    store.compact(revision(42)).await.unwrap();
    store.close().await;
    let mut backend = harness.open().await.unwrap();
    let rows = backend.read(Revision::ZERO, 1000).await.unwrap();
    let left: Vec<_> = rows.iter().map(|row| (row.revision.get(), &*row.key.name)).collect();
    // `c` is deleted after the oldest kept revision, whose state therefore still needs it.
    assert_eq!(left, [(37, "a"), (39, "c"), (40, "d"), (42, "e"), (43, "c")]);
    backend.close().await.unwrap();
    let store = self::store(&harness).await;
    assert_eq!(store.list(&pods(), None, None, None).unwrap(), before);
    assert_eq!(store.compacted(), revision(42));
    let then = store.list(&pods(), Some(revision(42)), None, None).unwrap();
    assert_eq!(
        then.objects.iter().map(|object| &*object.key.name).collect::<Vec<_>>(),
        ["a", "c", "d", "e"]
    );
    store.close().await;
}

pub async fn a_compacted_deletion_does_not_give_its_revision_away(harness: impl Harness) {
    let store = store(&harness).await;
    put(&store, "a", "one").await.unwrap();
    remove(&store, "a").await.unwrap();
    store.compact(revision(2)).await.unwrap();
    store.close().await;
    let store = self::store(&harness).await;
    assert_eq!(store.revision(), revision(2));
    assert_eq!(put(&store, "a", "again").await.unwrap().revision, revision(3));
    store.close().await;
}

pub async fn history_is_compacted_by_count(harness: impl Harness) {
    let store = open(&harness, Limits { history_revisions: 32, ..Limits::default() }).await;
    for number in 0..200 {
        put(&store, "a", &number.to_string()).await.unwrap();
    }
    until("history is compacted", || store.compacted() >= revision(166)).await;
    assert!(store.compacted() <= revision(168), "{}", store.compacted());
    store.close().await;
    let mut backend = harness.open().await.unwrap();
    assert!(backend.read(Revision::ZERO, 1000).await.unwrap().len() <= 35);
    backend.close().await.unwrap();
}

pub async fn history_is_compacted_by_age(harness: impl Harness) {
    let store =
        open(&harness, Limits { history_age: Duration::from_millis(300), ..Limits::default() })
            .await;
    put(&store, "a", "one").await.unwrap();
    put(&store, "a", "two").await.unwrap();
    assert!(store.list(&pods(), Some(revision(1)), None, None).is_ok(), "young history is kept");
    until("history is compacted", || store.compacted() >= revision(1)).await;
    // What follows is compacted in its turn, without any further write.
    put(&store, "a", "three").await.unwrap();
    until("history is compacted again", || store.compacted() >= revision(3)).await;
    store.close().await;
}

pub async fn everything_is_there_after_a_restart(harness: impl Harness) {
    let store = open(&harness, Limits { ring_events: 4, ..Limits::default() }).await;
    for text in ["one", "two", "three", "four", "five", "six"] {
        put(&store, "a", text).await.unwrap();
    }
    put(&store, "b", "other").await.unwrap();
    remove(&store, "b").await.unwrap();
    let before = store.list(&pods(), None, None, None).unwrap();
    store.close().await;
    let store = open(&harness, Limits { ring_events: 4, ..Limits::default() }).await;
    assert_eq!(store.list(&pods(), None, None, None).unwrap(), before);
    assert_eq!(store.get(&key("a")).unwrap().attributes, attributes(&key("a"), b"{6}six"));
    assert!(store.watch(&pods(), revision(3)).is_err(), "rings are as bounded as before");
    let mut watch = store.watch(&pods(), revision(5)).unwrap();
    assert_eq!(texts(&take(&mut watch, 3).await), ["six", "other", "last"]);
    assert_eq!(
        content(&store.list(&pods(), Some(revision(4)), None, None).unwrap().objects[0]).1,
        "four"
    );
    store.close().await;
}

pub async fn close_finishes_what_is_queued_and_ends_watches(harness: impl Harness) {
    let store = store(&harness).await;
    let mut watch = store.watch(&pods(), Revision::ZERO).unwrap();
    let other = store.clone();
    let writes = join_all((0..100).map(|number| {
        let store = store.clone();
        async move { store.create(key(&number.to_string()), value("x")).await }
    }));
    // The writes are queued before the close, because the first poll of each queues it.
    let (writes, ()) = futures::join!(writes, store.close());
    assert!(writes.iter().all(Result::is_ok), "{writes:?}");
    assert_eq!(take(&mut watch, 100).await.len(), 100);
    assert_eq!(watch.next().await, Err(Gone::Closed));
    assert!(matches!(other.create(key("late"), value("x")).await, Err(WriteError::Closed)));
    assert!(matches!(other.compact(revision(1)).await, Err(WriteError::Closed)));
    assert_eq!(self::store(&harness).await.revision(), revision(100));
}

pub async fn dropping_the_store_frees_the_database(harness: impl Harness) {
    let store = store(&harness).await;
    put(&store, "a", "one").await.unwrap();
    let mut watch = store.watch(&pods(), Revision::ZERO).unwrap();
    drop(store);
    assert_eq!(texts(&take(&mut watch, 1).await), ["one"]);
    assert_eq!(watch.next().await, Err(Gone::Closed));
    let deadline = std::time::Instant::now() + Duration::from_secs(20);
    let backend = loop {
        match harness.open().await {
            Ok(backend) => break backend,
            Err(error) => assert!(std::time::Instant::now() < deadline, "{error}"),
        }
    };
    backend.close().await.unwrap();
}
