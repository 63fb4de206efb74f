//! What clients saw, and whether one order of all writes explains it.
//!
//! In general it is hard to decide whether a history is linearizable. Here every write bears its place in the order, its
//! `resourceVersion`, so one pass is enough: going through the operations as they were begun, each gets the earliest
//! revision at which its answer was right and which is not before what somebody else had been answered by then. An
//! operation without such a revision is a violation.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

/// A place in the order of all writes.
pub type Revision = u64;

/// One object as somebody saw it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    pub revision: Revision,
    pub uid: String,
    pub value: String,
}

/// One event of a watch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    pub kind: EventKind,
    pub key: String,
    pub object: Seen,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventKind {
    Added,
    Modified,
    Deleted,
}

/// What was asked for, and what was answered.
#[derive(Debug, Clone)]
pub enum Action {
    Created {
        key: String,
        object: Seen,
    },
    /// An update of the version `from`.
    Updated {
        key: String,
        from: Revision,
        object: Seen,
    },
    Deleted {
        key: String,
        uid: String,
    },
    /// A creation was refused, because there is such an object.
    Exists {
        key: String,
    },
    /// An update of the version `from` was refused, because there is another.
    Conflict {
        key: String,
        from: Revision,
    },
    /// There is no such object.
    Missing {
        key: String,
    },
    Read {
        key: String,
        object: Seen,
    },
    Listed {
        revision: Revision,
        objects: BTreeMap<String, Seen>,
    },
}

/// How old an answer may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Freshness {
    /// Not older than what anybody was answered before.
    Latest,
    /// As old as it likes, but not older than what this client saw so before.
    Any,
    /// Exactly that of this revision.
    Exactly(Revision),
}

/// One request, from its sending to its answer, in moments of one clock.
#[derive(Debug, Clone)]
pub struct Operation {
    pub client: usize,
    pub began: u64,
    pub ended: u64,
    pub freshness: Freshness,
    pub action: Action,
}

/// A watch from a revision to the end of the history.
#[derive(Debug, Clone)]
pub struct Watch {
    pub from: Revision,
    pub events: Vec<Event>,
}

/// Everything that was seen. The first watch saw all from the beginning.
#[derive(Debug, Clone, Default)]
pub struct History {
    pub operations: Vec<Operation>,
    pub watches: Vec<Watch>,
}

/// Checks the history.
///
/// # Errors
/// The first violation, told for people.
pub fn check(history: &History) -> Result<(), String> {
    let log = &history.watches.first().ok_or("nobody watched")?.events;
    check_log(log)?;
    for (number, watch) in history.watches.iter().enumerate() {
        let expected: Vec<&Event> =
            log.iter().filter(|event| event.object.revision > watch.from).collect();
        let position = (0..expected.len().max(watch.events.len()))
            .find(|&at| expected.get(at).copied() != watch.events.get(at));
        if let Some(at) = position {
            let (expected, got) = (expected.get(at), watch.events.get(at));
            return Err(format!("event {at} of watch {number}: {got:?} instead of {expected:?}"));
        }
    }
    let states = States::of(log);
    check_writes(history, log)?;
    check_order(history, &states)
}

/// The log is one life after the other for each key, in the order of revisions.
fn check_log(log: &[Event]) -> Result<(), String> {
    let mut there: BTreeMap<&str, &Seen> = BTreeMap::new();
    let mut last = 0;
    for event in log {
        if event.object.revision <= last {
            return Err(format!("{event:?} after revision {last}"));
        }
        last = event.object.revision;
        let before = there.get(event.key.as_str());
        let fits = match event.kind {
            EventKind::Added => before.is_none(),
            EventKind::Modified | EventKind::Deleted => {
                before.is_some_and(|before| before.uid == event.object.uid)
            }
        };
        if !fits {
            return Err(format!("{event:?} after {before:?}"));
        }
        match event.kind {
            EventKind::Added | EventKind::Modified => there.insert(&event.key, &event.object),
            EventKind::Deleted => there.remove(event.key.as_str()),
        };
    }
    Ok(())
}

/// Each acknowledged write is in the log, and nothing else is.
fn check_writes(history: &History, log: &[Event]) -> Result<(), String> {
    let mut unexplained: BTreeMap<Revision, &Event> =
        log.iter().map(|event| (event.object.revision, event)).collect();
    for operation in &history.operations {
        let found = match &operation.action {
            Action::Created { key, object } => unexplained
                .remove(&object.revision)
                .filter(|it| it.kind == EventKind::Added && it.key == *key && it.object == *object),
            Action::Updated { key, object, .. } => {
                unexplained.remove(&object.revision).filter(|it| {
                    it.kind == EventKind::Modified && it.key == *key && it.object == *object
                })
            }
            Action::Deleted { key, uid } => {
                let revision = deletion(log, key, uid);
                revision.and_then(|revision| unexplained.remove(&revision))
            }
            _ => continue,
        };
        if found.is_none() {
            return Err(format!("acknowledged, and not in the log: {operation:?}"));
        }
    }
    match unexplained.first_key_value() {
        Some((_, event)) => Err(format!("nobody wrote {event:?}")),
        None => Ok(()),
    }
}

fn deletion(log: &[Event], key: &str, uid: &str) -> Option<Revision> {
    let deleted = |event: &&Event| {
        event.kind == EventKind::Deleted && event.key == key && event.object.uid == uid
    };
    log.iter().find(deleted).map(|event| event.object.revision)
}

/// What was there at each revision.
struct States<'a> {
    log: &'a [Event],
    /// For each key, from which revision on what was there.
    keys: BTreeMap<&'a str, Vec<(Revision, Option<&'a Seen>)>>,
}

impl<'a> States<'a> {
    fn of(log: &'a [Event]) -> Self {
        let mut keys: BTreeMap<&str, Vec<_>> = BTreeMap::new();
        for event in log {
            let there = (event.kind != EventKind::Deleted).then_some(&event.object);
            let changes = keys.entry(&event.key).or_insert_with(|| vec![(0, None)]);
            changes.push((event.object.revision, there));
        }
        Self { log, keys }
    }

    /// The first revision from `floor` on at which the key was as described.
    fn first(
        &self,
        key: &str,
        floor: Revision,
        holds: impl Fn(Option<&Seen>) -> bool,
    ) -> Option<Revision> {
        let nothing = vec![(0, None)];
        let changes = self.keys.get(key).unwrap_or(&nothing);
        changes.iter().enumerate().find_map(|(at, (since, there))| {
            let goes_on = changes.get(at + 1).is_none_or(|(next, _)| *next > floor);
            (goes_on && holds(*there)).then_some((*since).max(floor))
        })
    }

    fn at(&self, revision: Revision) -> BTreeMap<String, Seen> {
        let mut there = BTreeMap::new();
        for event in self.log.iter().take_while(|event| event.object.revision <= revision) {
            match event.kind {
                EventKind::Added | EventKind::Modified => {
                    there.insert(event.key.clone(), event.object.clone())
                }
                EventKind::Deleted => there.remove(&event.key),
            };
        }
        there
    }

    /// The earliest revision, not before `floor`, at which the answer was right.
    fn place(&self, action: &Action, floor: Revision) -> Option<Revision> {
        let after = |revision: Revision| (revision > floor).then_some(revision);
        match action {
            // A write makes a revision of its own, right after the version that it names.
            Action::Created { object, .. } => after(object.revision),
            Action::Updated { key, from, object } => {
                let replaced = self.first(key, object.revision - 1, |there| {
                    there.is_some_and(|there| there.revision == *from)
                });
                replaced.filter(|&at| at == object.revision - 1)?;
                after(object.revision)
            }
            Action::Deleted { key, uid } => after(deletion(self.log, key, uid)?),
            Action::Exists { key } => self.first(key, floor, |there| there.is_some()),
            Action::Missing { key } => self.first(key, floor, |there| there.is_none()),
            Action::Conflict { key, from } => {
                self.first(key, floor, |there| there.is_some_and(|there| there.revision != *from))
            }
            Action::Read { key, object } => self.first(key, floor, |there| there == Some(object)),
            Action::Listed { revision, objects } => {
                (*revision >= floor && self.at(*revision) == *objects).then_some(*revision)
            }
        }
    }
}

/// Gives every operation its place in the one order.
fn check_order(history: &History, states: &States) -> Result<(), String> {
    let mut operations: Vec<&Operation> = history.operations.iter().collect();
    operations.sort_by_key(|operation| operation.began);
    // By the moment of the answer: what nobody may fall behind from then on.
    let mut answered: BTreeMap<u64, Revision> = BTreeMap::new();
    let mut seen_by: BTreeMap<usize, Revision> = BTreeMap::new();
    for operation in &operations {
        let known = answered.range(..operation.began).next_back().map_or(0, |(_, known)| *known);
        let floor = match operation.freshness {
            Freshness::Latest => known,
            Freshness::Any => seen_by.get(&operation.client).copied().unwrap_or(0),
            Freshness::Exactly(revision) => revision,
        };
        let place = states.place(&operation.action, floor);
        let place =
            place.ok_or_else(|| format!("not right from revision {floor} on: {operation:?}"))?;
        match operation.freshness {
            Freshness::Latest => note(&mut answered, operation.ended, place),
            Freshness::Any => {
                seen_by.insert(operation.client, place);
                // It may be old, but once answered it is known to be there.
                note(&mut answered, operation.ended, place);
            }
            Freshness::Exactly(revision) if place != revision => {
                return Err(format!("not of revision {revision}: {operation:?}"));
            }
            Freshness::Exactly(_) => {}
        }
    }
    Ok(())
}

/// Keeps `answered` such that each entry holds the greatest place up to its moment.
fn note(answered: &mut BTreeMap<u64, Revision>, moment: u64, place: Revision) {
    let before = answered.range(..=moment).next_back().map_or(0, |(_, known)| *known);
    answered.insert(moment, before.max(place));
    for (_, known) in answered.range_mut(moment..) {
        *known = place.max(*known);
    }
}
