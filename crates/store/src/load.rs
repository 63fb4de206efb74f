//! Builds the state in memory from the log, at open.

use std::sync::Arc;

use crate::backend::{Backend, Entry, EntryKind};
use crate::error::OpenError;
use crate::history::History;
use crate::mirror::Mirror;
use crate::object::{Attributes, Change, Event, Key, Object, Revision};
use crate::options::Limits;
use tokio::time::Instant;

/// Entries read at a time: enough to make a query's cost vanish, few enough to hold twice.
const PAGE: usize = 1024;

/// Reads the whole log: what is older than the last compaction becomes state, what is younger also becomes events.
pub(crate) async fn load<B: Backend>(
    backend: &mut B,
    attributes: &(dyn Fn(&Key, &[u8]) -> Attributes + Send + Sync),
    limits: &Limits,
) -> Result<(Mirror, History), OpenError> {
    let bounds = backend.load().await.map_err(OpenError::Backend)?;
    let mut load = Load {
        mirror: Mirror::new(limits.ring_events, limits.ring_bytes, bounds.compacted),
        history: History::new(bounds.compacted),
        compacted: bounds.compacted,
        last: Revision::ZERO,
        attributes,
    };
    let mut page = backend.read(Revision::ZERO, PAGE).await.map_err(OpenError::Backend)?;
    while let Some(last) = page.last().map(|entry| entry.revision) {
        // The database reads on while we take in what it has read.
        let is_end = page.len() < PAGE;
        let read = async { if is_end { Ok(Vec::new()) } else { backend.read(last, PAGE).await } };
        let (next, taken) = futures::join!(read, async { load.take_in(page, limits) });
        taken?;
        page = next.map_err(OpenError::Backend)?;
    }
    if bounds.last > load.last.max(bounds.compacted) {
        return Err(damaged(bounds.last, "the log ends before it".to_owned()));
    }
    Ok((load.mirror, load.history))
}

struct Load<'a> {
    mirror: Mirror,
    history: History,
    compacted: Revision,
    /// The last entry that was taken in.
    last: Revision,
    attributes: &'a (dyn Fn(&Key, &[u8]) -> Attributes + Send + Sync),
}

impl Load<'_> {
    fn take_in(&mut self, page: Vec<Entry>, limits: &Limits) -> Result<(), OpenError> {
        let mut events = Vec::with_capacity(page.len());
        for mut entry in page {
            let expected = self.last.max(self.compacted).next();
            if entry.revision > self.compacted && entry.revision != expected {
                return Err(damaged(
                    entry.revision,
                    format!("revision {expected} is missing before it"),
                ));
            }
            self.last = entry.revision;
            entry.key = self.mirror.share(entry.key);
            let attributes = (self.attributes)(&entry.key, &entry.bytes);
            if entry.revision <= self.compacted {
                restore(entry, attributes, &self.mirror, &mut self.history);
            } else {
                let event = Arc::new(replay(entry, attributes, &self.mirror)?);
                self.mirror.publish(std::slice::from_ref(&event));
                events.push(event);
            }
        }
        // Nobody wrote down when; so the past counts from now.
        self.history.record(&events, Instant::now(), limits);
        Ok(())
    }
}

/// Applies an entry from before the last compaction, which need not be complete: some may be deleted already.
fn restore(entry: Entry, attributes: Attributes, mirror: &Mirror, history: &mut History) {
    let kind = entry.kind;
    let previous = mirror.get(&entry.key);
    let object = object(entry, attributes);
    let revision = object.revision;
    let change = match (kind, previous) {
        (EntryKind::Create | EntryKind::Update, previous) => Change::Put { object, previous },
        (EntryKind::Delete, Some(previous)) => Change::Delete { object, previous },
        // Its states are deleted already; only the deletion itself is left to delete.
        (EntryKind::Delete, None) => Change::Delete { previous: object.clone(), object },
    };
    let event = Arc::new(Event { revision, change });
    history.supersede(&event);
    mirror.restore(&event);
}

/// Makes an entry the event that it was.
fn replay(entry: Entry, attributes: Attributes, mirror: &Mirror) -> Result<Event, OpenError> {
    let kind = entry.kind;
    let previous = mirror.get(&entry.key);
    let object = object(entry, attributes);
    let revision = object.revision;
    let change = match (kind, previous) {
        (EntryKind::Create, None) => Change::Put { object, previous: None },
        (EntryKind::Update, Some(previous)) => Change::Put { object, previous: Some(previous) },
        (EntryKind::Delete, Some(previous)) => Change::Delete { object, previous },
        (EntryKind::Create, Some(_)) => {
            return Err(damaged(revision, format!("{} is created twice", object.key)));
        }
        (EntryKind::Update | EntryKind::Delete, None) => {
            return Err(damaged(revision, format!("{} does not exist", object.key)));
        }
    };
    Ok(Event { revision, change })
}

fn object(entry: Entry, attributes: Attributes) -> Arc<Object> {
    let Entry { revision, kind: _, key, created_revision, bytes } = entry;
    Arc::new(Object { key, revision, created_revision, bytes, attributes })
}

fn damaged(revision: Revision, cause: String) -> OpenError {
    OpenError::Damaged { revision, cause }
}
