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
const PAGE: usize = 4096;

/// Reads the whole log: what is older than the last compaction becomes state, what is younger also becomes events.
pub(crate) async fn load<B: Backend>(
    backend: &mut B,
    attributes: &(dyn Fn(&Key, &[u8]) -> Attributes + Send + Sync),
    limits: &Limits,
) -> Result<(Mirror, History), OpenError> {
    let bounds = backend.load().await.map_err(OpenError::Backend)?;
    let mirror = Mirror::new(limits.ring_events, limits.ring_bytes, bounds.compacted);
    let mut history = History::new(bounds.compacted);
    let mut last = Revision::ZERO;
    loop {
        let page = backend.read(last, PAGE).await.map_err(OpenError::Backend)?;
        let is_last = page.len() < PAGE;
        let mut events = Vec::with_capacity(page.len());
        for entry in page {
            let expected = last.max(bounds.compacted).next();
            if entry.revision > bounds.compacted && entry.revision != expected {
                return Err(damaged(
                    entry.revision,
                    format!("revision {expected} is missing before it"),
                ));
            }
            last = entry.revision;
            let attributes = attributes(&entry.key, &entry.bytes);
            if entry.revision <= bounds.compacted {
                restore(entry, attributes, &mirror, &mut history);
            } else {
                let event = Arc::new(replay(entry, attributes, &mirror)?);
                mirror.publish(std::slice::from_ref(&event));
                events.push(event);
            }
        }
        // Nobody wrote down when; so the past counts from now.
        history.record(&events, Instant::now(), limits);
        if is_last {
            break;
        }
    }
    if bounds.last > last.max(bounds.compacted) {
        return Err(damaged(bounds.last, "the log ends before it".to_owned()));
    }
    Ok((mirror, history))
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
