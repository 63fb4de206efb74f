//! The checker accepts what can happen, and refuses each kind of lie.

use super::*;

fn seen(revision: Revision, value: &str) -> Seen {
    Seen { revision, uid: "first".to_owned(), value: value.to_owned() }
}

fn event(kind: EventKind, key: &str, object: Seen) -> Event {
    Event { kind, key: key.to_owned(), object }
}

fn done(client: usize, began: u64, ended: u64, action: Action) -> Operation {
    Operation { client, began, ended, freshness: Freshness::Latest, action }
}

fn key(name: &str) -> String {
    name.to_owned()
}

fn read(revision: Revision, value: &str) -> Action {
    Action::Read { key: key("a"), object: seen(revision, value) }
}

fn listed(revision: Revision, objects: &[(&str, Seen)]) -> Action {
    let objects = objects.iter().map(|(name, object)| (key(name), object.clone())).collect();
    Action::Listed { revision, objects }
}

/// Two keys: `a` is created, updated twice and deleted, `b` is created.
fn good() -> History {
    let log = vec![
        event(EventKind::Added, "a", seen(10, "one")),
        event(EventKind::Modified, "a", seen(11, "two")),
        event(EventKind::Added, "b", seen(12, "other")),
        event(EventKind::Modified, "a", seen(14, "three")),
        event(EventKind::Deleted, "a", seen(15, "three")),
    ];
    let updated = |from, object| Action::Updated { key: key("a"), from, object };
    let operations = vec![
        done(0, 0, 10, Action::Created { key: key("a"), object: seen(10, "one") }),
        done(0, 20, 30, updated(10, seen(11, "two"))),
        done(1, 22, 32, Action::Created { key: key("b"), object: seen(12, "other") }),
        done(0, 40, 50, updated(11, seen(14, "three"))),
        done(0, 80, 90, Action::Deleted { key: key("a"), uid: key("first") }),
    ];
    let resumed = Watch { from: 12, events: log[3..].to_vec() };
    History { operations, watches: vec![Watch { from: 0, events: log }, resumed] }
}

#[track_caller]
fn accepted(change: impl FnOnce(&mut History)) {
    let mut history = good();
    change(&mut history);
    assert_eq!(check(&history), Ok(()));
}

#[track_caller]
fn refused(expected: &str, change: impl FnOnce(&mut History)) {
    let mut history = good();
    change(&mut history);
    let error = check(&history).expect_err("the checker believes a lie");
    assert!(error.contains(expected), "{error}");
}

fn with(operation: Operation) -> impl FnOnce(&mut History) {
    move |history| history.operations.push(operation)
}

fn aged(freshness: Freshness, operation: Operation) -> Operation {
    Operation { freshness, ..operation }
}

#[test]
fn what_can_happen_is_accepted() {
    accepted(|_| ());
    // While a write is under way, both answers are right.
    accepted(with(done(2, 21, 23, read(10, "one"))));
    accepted(with(done(2, 21, 23, read(11, "two"))));
    accepted(with(done(2, 45, 46, Action::Conflict { key: key("a"), from: 11 })));
    accepted(with(done(2, 91, 92, Action::Missing { key: key("a") })));
    accepted(with(done(
        2,
        33,
        34,
        listed(13, &[("a", seen(11, "two")), ("b", seen(12, "other"))]),
    )));
    // What comes from a cache may be old, also after newer answers from elsewhere.
    accepted(|history| {
        history.operations.push(done(2, 60, 61, read(14, "three")));
        history.operations.push(aged(Freshness::Any, done(2, 62, 63, read(11, "two"))));
    });
    let exactly = Freshness::Exactly(11);
    accepted(with(aged(exactly, done(2, 60, 61, listed(11, &[("a", seen(11, "two"))])))));
}

#[test]
fn answers_older_than_an_acknowledged_write_are_refused() {
    refused("not right", with(done(2, 31, 35, read(10, "one"))));
    refused("not right", with(done(2, 11, 12, Action::Missing { key: key("a") })));
    refused("not right", with(done(2, 33, 34, listed(11, &[("a", seen(11, "two"))]))));
    // Nor older than what somebody else has read already.
    refused("not right", |history| {
        history.operations.push(done(2, 21, 23, read(11, "two")));
        history.operations.push(done(3, 24, 26, read(10, "one")));
    });
}

#[test]
fn answers_from_the_future_are_refused() {
    refused("not right", with(done(2, 33, 39, read(14, "three"))));
    let future = aged(Freshness::Any, done(2, 33, 39, read(14, "three")));
    refused("not right", with(future));
}

#[test]
fn updates_of_an_outdated_version_are_refused() {
    refused("not right", |history| {
        let Action::Updated { from, .. } = &mut history.operations[3].action else { panic!() };
        *from = 10;
    });
    refused("not right", with(done(2, 33, 34, Action::Conflict { key: key("a"), from: 11 })));
    refused("not right", with(done(2, 91, 92, Action::Exists { key: key("a") })));
}

#[test]
fn lists_that_were_never_so_are_refused() {
    let both = [("a", seen(10, "one")), ("b", seen(12, "other"))];
    refused("not right", with(done(2, 21, 40, listed(12, &both))));
    refused("not right", with(done(2, 33, 34, listed(12, &[("b", seen(12, "other"))]))));
    let exactly = Freshness::Exactly(11);
    refused(
        "not of revision",
        with(aged(
            exactly,
            done(2, 60, 61, listed(12, &[("a", seen(11, "two")), ("b", seen(12, "other"))])),
        )),
    );
}

#[test]
fn a_cache_that_goes_back_is_refused() {
    refused("not right", |history| {
        history.operations.push(aged(Freshness::Any, done(2, 60, 61, read(14, "three"))));
        history.operations.push(aged(Freshness::Any, done(2, 62, 63, read(11, "two"))));
    });
}

#[test]
fn watches_that_lose_swap_or_invent_are_refused() {
    refused("of watch 1", |history| drop(history.watches[1].events.pop()));
    refused("of watch 1", |history| history.watches[1].events.swap(0, 1));
    refused("of watch 1", |history| history.watches[1].from = 11);
    refused("after revision", |history| history.watches[0].events.swap(1, 2));
    refused("not in the log", |history| {
        for watch in &mut history.watches {
            watch.events.pop();
        }
    });
    refused("nobody wrote", |history| {
        let invented = event(EventKind::Added, "c", seen(16, "?"));
        for watch in &mut history.watches {
            watch.events.push(invented.clone());
        }
    });
}

#[test]
fn acknowledged_writes_that_are_lost_are_refused() {
    let lost = Action::Created { key: key("c"), object: seen(13, "lost") };
    refused("not in the log", with(done(2, 33, 34, lost)));
    let twice = Action::Deleted { key: key("a"), uid: key("first") };
    refused("not in the log", with(done(2, 95, 99, twice)));
}
