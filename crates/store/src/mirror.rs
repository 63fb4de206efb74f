//! The state in memory: what is there now, and the recent events of each resource.
//!
//! Only the writer changes it, and only with what is already durable. Readers take the lock for as long as it takes
//! to clone some `Arc`s. A resource's recent events are a ring that all its watchers share: each watcher is but a
//! position in it. The ring also answers lists at an older revision, by walking back from the present.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::ops::Bound;
use std::sync::Arc;

use parking_lot::RwLock;
use tokio::sync::Notify;

use crate::error::Gone;
use crate::object::{Change, Event, Key, Listing, Object, Range, Revision};

/// The state, shared by all handles.
#[derive(Debug)]
pub(crate) struct Mirror {
    state: RwLock<State>,
    ring_events: usize,
    ring_bytes: usize,
}

#[derive(Debug, Default)]
struct State {
    revision: Revision,
    compacted: Revision,
    closed: bool,
    failure: Option<Arc<str>>,
    tables: HashMap<Arc<str>, Table>,
}

/// One resource.
#[derive(Debug, Default)]
struct Table {
    /// By namespace, then by name.
    objects: BTreeMap<Arc<str>, BTreeMap<Arc<str>, Arc<Object>>>,
    ring: Ring,
    changed: Arc<Notify>,
}

/// The recent events of one resource.
#[derive(Debug, Default)]
struct Ring {
    events: VecDeque<Arc<Event>>,
    /// How many events were dropped: the position of the first of `events`.
    start: u64,
    /// The last revision that was dropped. Nothing after it is missing.
    floor: Revision,
    /// Bytes of the states that only this ring keeps.
    past_bytes: usize,
}

/// A watcher's position in a ring.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cursor {
    position: u64,
    /// Everything up to here was delivered, or was not asked for.
    pub(crate) seen: Revision,
}

impl Mirror {
    pub(crate) fn new(ring_events: usize, ring_bytes: usize, compacted: Revision) -> Mirror {
        let state = State { revision: compacted, compacted, ..State::default() };
        Mirror { state: RwLock::new(state), ring_events, ring_bytes }
    }

    pub(crate) fn revision(&self) -> Revision {
        self.state.read().revision
    }

    pub(crate) fn compacted(&self) -> Revision {
        self.state.read().compacted
    }

    pub(crate) fn get(&self, key: &Key) -> Option<Arc<Object>> {
        self.state.read().tables.get(&key.resource)?.get(key).cloned()
    }

    /// The same key, sharing its resource and namespace with the other objects there, to hold each text once.
    pub(crate) fn share(&self, mut key: Key) -> Key {
        let state = self.state.read();
        if let Some((resource, table)) = state.tables.get_key_value(&key.resource) {
            key.resource = resource.clone();
            if let Some((namespace, _)) = table.objects.get_key_value(&key.namespace) {
                key.namespace = namespace.clone();
            }
        }
        key
    }

    /// Why no write is taken any more.
    pub(crate) fn failure(&self) -> Option<Arc<str>> {
        self.state.read().failure.clone()
    }

    pub(crate) fn fail(&self, cause: Arc<str>) {
        self.state.write().failure = Some(cause);
    }

    /// Makes events visible, in their order, all at once.
    pub(crate) fn publish(&self, events: &[Arc<Event>]) {
        let mut dropped = Vec::new();
        let mut changed: Vec<Arc<Notify>> = Vec::new();
        {
            let mut state = self.state.write();
            for event in events {
                assert!(event.revision > state.revision, "revisions are published in order");
                state.revision = event.revision;
                let keep = event.revision > state.compacted;
                let table = state.table(&event.object().key.resource);
                table.apply(event);
                if keep {
                    table.ring.push(event.clone(), self.ring_events, self.ring_bytes, &mut dropped);
                }
                if !changed.iter().any(|seen| Arc::ptr_eq(seen, &table.changed)) {
                    changed.push(table.changed.clone());
                }
            }
        }
        changed.iter().for_each(|table| table.notify_waiters());
    }

    /// Puts a state in place that is older than every event, at open.
    pub(crate) fn restore(&self, event: &Arc<Event>) {
        let mut state = self.state.write();
        assert!(event.revision <= state.compacted, "later states have events");
        state.table(&event.object().key.resource).apply(event);
    }

    /// Forgets the events up to this revision. Watchers that have not seen them are told that they are gone.
    pub(crate) fn forget(&self, before: Revision) {
        let mut dropped = Vec::new();
        let mut state = self.state.write();
        state.compacted = state.compacted.max(before);
        for table in state.tables.values_mut() {
            while table.ring.events.front().is_some_and(|event| event.revision <= before) {
                dropped.extend(table.ring.pop());
            }
        }
        drop(state);
    }

    /// Tells all watchers that nothing will follow.
    pub(crate) fn close(&self) {
        let mut state = self.state.write();
        state.closed = true;
        let changed: Vec<_> = state.tables.values().map(|table| table.changed.clone()).collect();
        drop(state);
        changed.iter().for_each(|table| table.notify_waiters());
    }

    pub(crate) fn list(
        &self,
        range: &Range,
        at: Option<Revision>,
        after: Option<(&str, &str)>,
        limit: Option<usize>,
    ) -> Result<Listing, Gone> {
        let state = self.state.read();
        let revision = at.unwrap_or(state.revision).min(state.revision);
        let Some(table) = state.tables.get(&range.resource) else {
            state.reachable(None, revision)?;
            return Ok(Listing { objects: Vec::new(), revision, remaining: 0 });
        };
        state.reachable(Some(&table.ring), revision)?;
        let limit = limit.unwrap_or(usize::MAX);
        let past = table.ring.undo(range, after, revision);
        let mut objects = Vec::new();
        let mut remaining = 0;
        let mut take = |object: &Arc<Object>| match objects.len() < limit {
            true => objects.push(object.clone()),
            false => remaining += 1,
        };
        let mut past = past.iter().peekable();
        for object in table.iter(range, after) {
            let place = (&*object.key.namespace, &*object.key.name);
            while let Some((_, then)) = past.next_if(|(other, _)| **other < place) {
                then.iter().for_each(&mut take);
            }
            match past.next_if(|(other, _)| **other == place) {
                Some((_, then)) => then.iter().for_each(&mut take),
                None => take(object),
            }
        }
        past.filter_map(|(_, then)| then.as_ref()).for_each(&mut take);
        Ok(Listing { objects, revision, remaining })
    }

    /// How many objects there are now.
    pub(crate) fn count(&self, range: &Range) -> usize {
        let state = self.state.read();
        let Some(table) = state.tables.get(&range.resource) else { return 0 };
        match &range.namespace {
            Some(namespace) => table.objects.get(namespace).map_or(0, BTreeMap::len),
            None => table.objects.values().map(BTreeMap::len).sum(),
        }
    }

    /// A position after this revision, and what rings when there is more.
    pub(crate) fn watch(
        &self,
        range: &Range,
        after: Revision,
    ) -> Result<(Cursor, Arc<Notify>), Gone> {
        let mut state = self.state.write();
        state.table(&range.resource);
        let state = &*state;
        let table = &state.tables[&range.resource];
        state.reachable(Some(&table.ring), after)?;
        let skipped = table.ring.events.partition_point(|event| event.revision <= after);
        let position = table.ring.start + skipped as u64;
        Ok((Cursor { position, seen: after }, table.changed.clone()))
    }

    /// The next event of the range; moves the cursor past it and past what is not in the range.
    pub(crate) fn advance(
        &self,
        range: &Range,
        cursor: &mut Cursor,
    ) -> Result<Option<Arc<Event>>, Gone> {
        let state = self.state.read();
        let ring = &state.tables[&range.resource].ring;
        let Some(from) = cursor.position.checked_sub(ring.start) else {
            return Err(Gone::Compacted {
                requested: cursor.seen,
                oldest: ring.floor.max(state.compacted),
            });
        };
        let from = usize::try_from(from).expect("a position in memory fits a usize");
        let unseen = ring.events.range(from..);
        for event in unseen {
            cursor.position += 1;
            if event.revision <= cursor.seen {
                continue; // The watch began at a revision that was then in the future.
            }
            cursor.seen = event.revision;
            if range.covers_namespace(&event.object().key.namespace) {
                return Ok(Some(event.clone()));
            }
        }
        if state.closed {
            return Err(Gone::Closed);
        }
        cursor.seen = cursor.seen.max(state.revision);
        Ok(None)
    }
}

impl State {
    fn table(&mut self, resource: &Arc<str>) -> &mut Table {
        if !self.tables.contains_key(resource) {
            self.tables.insert(resource.clone(), Table::default());
        }
        self.tables.get_mut(resource).expect("the table was just put there")
    }

    /// Whether nothing after this revision is forgotten.
    fn reachable(&self, ring: Option<&Ring>, revision: Revision) -> Result<(), Gone> {
        let oldest = ring.map_or(Revision::ZERO, |ring| ring.floor).max(self.compacted);
        if revision < oldest {
            return Err(Gone::Compacted { requested: revision, oldest });
        }
        Ok(())
    }
}

impl Table {
    fn get(&self, key: &Key) -> Option<&Arc<Object>> {
        self.objects.get(&key.namespace)?.get(&key.name)
    }

    fn apply(&mut self, event: &Event) {
        match &event.change {
            Change::Put { object, .. } => {
                let names = self.objects.entry(object.key.namespace.clone()).or_default();
                names.insert(object.key.name.clone(), object.clone());
            }
            Change::Delete { object, .. } => {
                if let Some(names) = self.objects.get_mut(&object.key.namespace) {
                    names.remove(&object.key.name);
                    if names.is_empty() {
                        self.objects.remove(&object.key.namespace);
                    }
                }
            }
        }
    }

    /// The objects of the range after this place, in order.
    fn iter<'a>(
        &'a self,
        range: &'a Range,
        after: Option<(&'a str, &'a str)>,
    ) -> impl Iterator<Item = &'a Arc<Object>> + 'a {
        let first = match (&range.namespace, after) {
            (Some(namespace), _) => Bound::Included(&**namespace),
            (None, Some((namespace, _))) => Bound::Included(namespace),
            (None, None) => Bound::Unbounded,
        };
        let last = range.namespace.as_deref().map_or(Bound::Unbounded, Bound::Included);
        self.objects.range::<str, _>((first, last)).flat_map(move |(namespace, names)| {
            let from = match after {
                Some((place, _)) if &**namespace < place => None,
                Some((place, name)) if &**namespace == place => Some(Bound::Excluded(name)),
                Some(_) | None => Some(Bound::Unbounded),
            };
            from.into_iter()
                .flat_map(|from| names.range::<str, _>((from, Bound::Unbounded)))
                .map(|(_, object)| object)
        })
    }
}

impl Ring {
    fn push(
        &mut self,
        event: Arc<Event>,
        most_events: usize,
        most_bytes: usize,
        dropped: &mut Vec<Arc<Event>>,
    ) {
        self.past_bytes += past_bytes(&event);
        self.events.push_back(event);
        while self.events.len() > most_events
            || (self.past_bytes > most_bytes && self.events.len() > 1)
        {
            dropped.extend(self.pop());
        }
    }

    fn pop(&mut self) -> Option<Arc<Event>> {
        let event = self.events.pop_front()?;
        self.past_bytes -= past_bytes(&event);
        self.start += 1;
        self.floor = event.revision;
        Some(event)
    }

    /// What was at this revision in those places that were written since.
    fn undo<'a>(
        &'a self,
        range: &Range,
        after: Option<(&str, &str)>,
        revision: Revision,
    ) -> BTreeMap<(&'a str, &'a str), Option<Arc<Object>>> {
        let mut past = BTreeMap::new();
        for event in self.events.iter().rev().take_while(|event| event.revision > revision) {
            let key = &event.object().key;
            let place = (&*key.namespace, &*key.name);
            if range.covers_namespace(place.0) && after.is_none_or(|after| place > after) {
                past.insert(place, event.previous().cloned());
            }
        }
        past
    }
}

/// Bytes that this event keeps alive and the current table does not.
fn past_bytes(event: &Event) -> usize {
    match &event.change {
        Change::Put { previous, .. } => {
            previous.as_ref().map_or(0, |previous| previous.bytes.len())
        }
        Change::Delete { object, previous } => object.bytes.len() + previous.bytes.len(),
    }
}
