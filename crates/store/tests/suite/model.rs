//! The store against the simplest model of it: a vector of everything that ever happened.

use std::collections::BTreeMap;

use coracle_store::{Gone, Key, Limits, Range, Revision, Store, Watch, WriteError};
use proptest::prelude::*;
use proptest::sample::Index;
use proptest::test_runner::{Config, TestRunner};

use super::{Harness, content, open, value};

/// Few, so that rings overflow and names meet.
const RING: usize = 8;
const RESOURCES: [&str; 2] = ["pods", "nodes"];
const NAMESPACES: [&str; 2] = ["a", "b"];
const NAMES: [&str; 3] = ["x", "y", "z"];

/// Something done to the store.
#[derive(Debug, Clone)]
enum Step {
    /// Writes that are queued together, so that they share transactions.
    Write(Vec<Attempt>),
    List {
        range: Place,
        at: Option<Index>,
        page: usize,
    },
    Watch {
        range: Place,
        after: Index,
    },
    /// Lets a watcher read some events.
    Read {
        watcher: Index,
        events: usize,
    },
    Compact {
        before: Index,
    },
    Reopen,
}

#[derive(Debug, Clone)]
struct Attempt {
    place: Place,
    intent: Intent,
    text: u16,
}

#[derive(Debug, Clone, Copy)]
enum Intent {
    Create,
    Update,
    Delete,
    UpdateStale,
    DeleteStale,
}

#[derive(Debug, Clone, Copy)]
struct Place {
    resource: usize,
    namespace: Option<usize>,
    name: usize,
}

impl Place {
    fn key(self) -> Key {
        Key::new(
            RESOURCES[self.resource],
            NAMESPACES[self.namespace.unwrap_or(0)],
            NAMES[self.name],
        )
    }

    fn range(self) -> Range {
        match self.namespace {
            None => Range::all(RESOURCES[self.resource]),
            Some(namespace) => Range::namespace(RESOURCES[self.resource], NAMESPACES[namespace]),
        }
    }
}

/// Checks random histories.
pub fn check<H: Harness>() {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let mut runner =
        TestRunner::new(Config { cases: 96, failure_persistence: None, ..Config::default() });
    let histories = prop::collection::vec(step(), 1..60);
    let outcome = runner.run(&histories, |steps| {
        runtime.block_on(play::<H>(&steps));
        Ok(())
    });
    outcome.unwrap();
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        10 => prop::collection::vec(attempt(), 1..8).prop_map(Step::Write),
        4 => (place(), prop::option::of(any::<Index>()), 1..5usize).prop_map(|(range, at, page)| Step::List { range, at, page }),
        3 => (place(), any::<Index>()).prop_map(|(range, after)| Step::Watch { range, after }),
        6 => (any::<Index>(), 1..6usize).prop_map(|(watcher, events)| Step::Read { watcher, events }),
        2 => any::<Index>().prop_map(|before| Step::Compact { before }),
        1 => Just(Step::Reopen),
    ]
}

fn attempt() -> impl Strategy<Value = Attempt> {
    let intent = prop_oneof![
        3 => Just(Intent::Create),
        5 => Just(Intent::Update),
        2 => Just(Intent::Delete),
        1 => Just(Intent::UpdateStale),
        1 => Just(Intent::DeleteStale),
    ];
    (place(), intent, any::<u16>()).prop_map(|(place, intent, text)| Attempt {
        place,
        intent,
        text,
    })
}

fn place() -> impl Strategy<Value = Place> {
    (0..RESOURCES.len(), prop::option::of(0..NAMESPACES.len()), 0..NAMES.len())
        .prop_map(|(resource, namespace, name)| Place { resource, namespace, name })
}

/// One write that was done.
#[derive(Debug, Clone)]
struct Done {
    key: Key,
    /// `None` for a deletion.
    text: Option<String>,
    last_text: String,
}

/// Everything that happened; the write at index 0 has revision 1.
#[derive(Debug, Default)]
struct Model {
    log: Vec<Done>,
    compacted: usize,
}

struct Watcher {
    watch: Watch,
    range: Range,
    /// How much of the log it has passed.
    passed: usize,
}

impl Model {
    fn state(&self, at: usize) -> BTreeMap<Key, (usize, String)> {
        let mut state = BTreeMap::new();
        for (index, done) in self.log[..at].iter().enumerate() {
            match &done.text {
                Some(text) => state.insert(done.key.clone(), (index + 1, text.clone())),
                None => state.remove(&done.key),
            };
        }
        state
    }

    /// The oldest revision of a resource that can be listed and watched from.
    fn oldest(&self, resource: &str) -> usize {
        let events =
            (0..self.log.len()).filter(|index| &*self.log[*index].key.resource == resource);
        let dropped = events.rev().nth(RING).map_or(0, |index| index + 1);
        dropped.max(self.compacted)
    }

    fn gone(&self, requested: usize, resource: &str) -> Option<Gone> {
        let oldest = self.oldest(resource);
        (requested < oldest)
            .then(|| Gone::Compacted { requested: revision(requested), oldest: revision(oldest) })
    }
}

fn revision(index: usize) -> Revision {
    Revision::new(index as u64)
}

fn covers(range: &Range, key: &Key) -> bool {
    range.resource == key.resource
        && range.namespace.as_ref().is_none_or(|namespace| *namespace == key.namespace)
}

fn limits() -> Limits {
    Limits { ring_events: RING, compaction_slice: 3, batch_writes: 4, ..Limits::default() }
}

async fn play<H: Harness>(steps: &[Step]) {
    let harness = H::fresh();
    let mut store = open(&harness, limits()).await;
    let mut model = Model::default();
    let mut watchers: Vec<Watcher> = Vec::new();
    for step in steps {
        match step {
            Step::Write(attempts) => write(&store, &mut model, attempts).await,
            Step::List { range, at, page } => {
                let at = at.map(|at| at.index(model.log.len() + 1));
                list(&store, &model, &range.range(), at, *page);
            }
            Step::Watch { range, after } => {
                let (range, after) = (range.range(), after.index(model.log.len() + 1));
                match (store.watch(&range, revision(after)), model.gone(after, &range.resource)) {
                    (Ok(watch), None) => watchers.push(Watcher { watch, range, passed: after }),
                    (Err(gone), Some(expected)) => assert_eq!(gone, expected),
                    (found, expected) => panic!("{found:?} instead of {expected:?}"),
                }
            }
            Step::Read { watcher, events } if !watchers.is_empty() => {
                let index = watcher.index(watchers.len());
                if !read(&model, &mut watchers[index], *events) {
                    watchers.swap_remove(index);
                }
            }
            Step::Read { .. } => (),
            Step::Compact { before } => {
                let before = before.index(model.log.len() + 1);
                store.compact(revision(before)).await.unwrap();
                model.compacted = model.compacted.max(before);
            }
            Step::Reopen => {
                watchers.clear();
                store.close().await;
                store = open(&harness, limits()).await;
            }
        }
        assert_eq!(store.revision(), revision(model.log.len()));
        assert_eq!(store.compacted(), revision(model.compacted));
    }
    store.close().await;
}

async fn write(store: &Store, model: &mut Model, attempts: &[Attempt]) {
    // What each does depends on those before it, as it will in the store.
    let mut expected = Vec::new();
    let mut calls = Vec::new();
    for attempt in attempts {
        let key = attempt.place.key();
        let current = model.state(model.log.len()).get(&key).map(|(at, _)| *at);
        let at = match attempt.intent {
            Intent::Create | Intent::Update | Intent::Delete => current.unwrap_or(1),
            Intent::UpdateStale | Intent::DeleteStale => current.unwrap_or(2) - 1,
        };
        let text = attempt.text.to_string();
        let is_done = match attempt.intent {
            Intent::Create => current.is_none(),
            Intent::Update | Intent::Delete => current.is_some(),
            Intent::UpdateStale | Intent::DeleteStale => false,
        };
        if is_done {
            let remains = !matches!(attempt.intent, Intent::Delete);
            model.log.push(Done {
                key: key.clone(),
                text: remains.then(|| text.clone()),
                last_text: text.clone(),
            });
        }
        expected.push(if is_done { Ok(model.log.len()) } else { Err(current) });
        let intent = attempt.intent;
        calls.push(async move {
            match intent {
                Intent::Create => store.create(key, value(&text)).await,
                Intent::Update | Intent::UpdateStale => {
                    store.update(key, revision(at), value(&text)).await
                }
                Intent::Delete | Intent::DeleteStale => {
                    store.delete(key, revision(at), value(&text)).await
                }
            }
        });
    }
    for (found, expected) in futures::future::join_all(calls).await.into_iter().zip(expected) {
        match (found, expected) {
            (Ok(object), Ok(at)) => {
                assert_eq!(object.revision, revision(at));
                assert_eq!(content(&object), (revision(at), model.log[at - 1].last_text.clone()));
            }
            (Err(WriteError::Exists(current)), Err(Some(at))) => {
                assert_eq!(current.revision, revision(at))
            }
            (Err(WriteError::Conflict { current }), Err(at)) => {
                assert_eq!(current.map(|current| current.revision), at.map(revision));
            }
            (found, expected) => panic!("{found:?} instead of {expected:?}"),
        }
    }
}

fn list(store: &Store, model: &Model, range: &Range, at: Option<usize>, page: usize) {
    let then = at.unwrap_or(model.log.len());
    if let Some(gone) = model.gone(then, &range.resource) {
        assert_eq!(store.list(range, Some(revision(then)), None, None), Err(gone));
        return;
    }
    let mut expected = model.state(then);
    expected.retain(|key, _| covers(range, key));
    let expected: Vec<_> = expected.into_iter().collect();
    let mut found = Vec::new();
    let mut after: Option<(String, String)> = None;
    loop {
        let place = after.as_ref().map(|(namespace, name)| (namespace.as_str(), name.as_str()));
        let listing = store.list(range, at.map(revision), place, Some(page)).unwrap();
        assert_eq!(listing.revision, revision(then));
        assert!(listing.objects.len() == page || listing.remaining == 0);
        found.extend(listing.objects);
        assert_eq!(found.len() + listing.remaining, expected.len());
        if listing.remaining == 0 {
            break;
        }
        after = found
            .last()
            .map(|object| (object.key.namespace.to_string(), object.key.name.to_string()));
    }
    for (object, (key, (at, text))) in found.iter().zip(&expected) {
        assert_eq!((&object.key, content(object)), (key, (revision(*at), text.clone())));
        assert_eq!(object.attributes.label("text"), Some(text.as_str()));
    }
}

/// Reads some events; false when the watcher is at its end.
fn read(model: &Model, watcher: &mut Watcher, events: usize) -> bool {
    for _ in 0..events {
        let of_resource = |index: &usize| model.log[*index].key.resource == watcher.range.resource;
        let unread = (watcher.passed..model.log.len()).find(of_resource);
        if unread.is_some_and(|index| index < model.oldest(&watcher.range.resource)) {
            assert!(matches!(watcher.watch.try_next(), Err(Gone::Compacted { .. })));
            return false;
        }
        let next = (watcher.passed..model.log.len())
            .find(|index| covers(&watcher.range, &model.log[*index].key));
        let found = watcher.watch.try_next().unwrap();
        watcher.passed = next.map_or(model.log.len(), |index| index + 1);
        assert_eq!(watcher.watch.progress(), revision(watcher.passed));
        let Some(index) = next else {
            assert_eq!(found, None);
            return true;
        };
        let (found, done) = (found.unwrap(), &model.log[index]);
        assert_eq!(found.revision, revision(index + 1));
        assert_eq!(found.object().key, done.key);
        assert_eq!(content(found.object()), (revision(index + 1), done.last_text.clone()));
        let previous = model.state(index).get(&done.key).cloned();
        assert_eq!(
            found.previous().map(|object| content(object)),
            previous.map(|(at, text)| (revision(at), text))
        );
    }
    true
}
