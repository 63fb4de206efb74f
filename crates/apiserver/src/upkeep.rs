//! What the API server does without being asked: it forgets old Events, and keeps the `kubernetes` Service leading to itself.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use coracle_api::kinds::{self, Kind};
use coracle_store::{Change, Event, Gone, Key, Object, Range, Revision, Watch};
use jiff::Timestamp;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::bootstrap;
use crate::object::text;
use crate::server::Server;
use crate::storage;

/// How long an Event is kept after its last occurrence; upstream's `--event-ttl`.
const EVENT_LIFETIME: Duration = Duration::from_secs(3600);

/// Deletes Events whose time is over, each at its own moment, until the server ends.
pub(crate) async fn expire_events(server: Arc<Server>, ends: CancellationToken) {
    let Some(events) = kinds::by_kind("", "v1", "Event") else { return };
    let range = Range::all("events");
    // A watch that fell behind starts again with a list, as every watcher does.
    while let Ok((mut expiries, mut watch)) = Expiries::start(&server, &range) {
        let outcome = tokio::select! {
            outcome = follow(&server, events, &mut expiries, &mut watch) => outcome,
            () = ends.cancelled() => return,
        };
        if matches!(outcome, Gone::Closed) {
            return;
        }
    }
}

async fn follow(
    server: &Server,
    events: &'static Kind,
    expiries: &mut Expiries,
    watch: &mut Watch,
) -> Gone {
    loop {
        let due = expiries.first_due();
        let event = tokio::select! {
            event = watch.next() => event,
            () = tokio::time::sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {
                for (key, revision) in expiries.take_due(Instant::now()) {
                    expire(server, events, key, revision).await;
                }
                continue;
            }
        };
        match event {
            Ok(event) => expiries.observe(&event),
            Err(gone) => return gone,
        }
    }
}

/// Deletes an Event that nobody has touched since; otherwise the watch tells its new time.
async fn expire(server: &Server, events: &'static Kind, key: Key, revision: Revision) {
    let Some(object) = server.store.get(&key).filter(|object| object.revision == revision) else {
        return;
    };
    let Ok(last) = storage::decode(&object) else { return };
    if let Err(error) = server.store.delete(key, revision, storage::encode(events, &last)).await {
        tracing::debug!(%error, "an old event was not deleted");
    }
}

/// When each Event's time is over.
#[derive(Default)]
struct Expiries {
    by_time: BTreeMap<(Instant, Revision), Key>,
    by_key: HashMap<Key, (Instant, Revision)>,
}

impl Expiries {
    fn start(server: &Server, range: &Range) -> Result<(Self, Watch), Gone> {
        let listing = server.store.list(range, None, None, None)?;
        let mut expiries = Self::default();
        let (now, wall) = (Instant::now(), Timestamp::now());
        for object in &listing.objects {
            let age = last_seen(object).map_or(Duration::ZERO, |seen| {
                Duration::try_from(wall.duration_since(seen)).unwrap_or_default()
            });
            expiries.put(object, now + EVENT_LIFETIME.saturating_sub(age));
        }
        Ok((expiries, server.store.watch(range, listing.revision)?))
    }

    fn observe(&mut self, event: &Event) {
        match &event.change {
            Change::Put { object, .. } => self.put(object, Instant::now() + EVENT_LIFETIME),
            Change::Delete { object, .. } => self.remove(&object.key),
        }
    }

    fn put(&mut self, object: &Object, due: Instant) {
        self.remove(&object.key);
        self.by_time.insert((due, object.revision), object.key.clone());
        self.by_key.insert(object.key.clone(), (due, object.revision));
    }

    fn remove(&mut self, key: &Key) {
        if let Some(place) = self.by_key.remove(key) {
            self.by_time.remove(&place);
        }
    }

    fn first_due(&self) -> Option<Instant> {
        self.by_time.first_key_value().map(|((due, _), _)| *due)
    }

    fn take_due(&mut self, now: Instant) -> Vec<(Key, Revision)> {
        let mut due = Vec::new();
        while let Some(entry) = self.by_time.first_entry().filter(|entry| entry.key().0 <= now) {
            let ((_, revision), key) = entry.remove_entry();
            self.by_key.remove(&key);
            due.push((key, revision));
        }
        due
    }
}

/// When the Event last occurred, as far as it says.
fn last_seen(object: &Object) -> Option<Timestamp> {
    let event = storage::decode(object).ok()?;
    ["/series/lastObservedTime", "/lastTimestamp", "/eventTime", "/metadata/creationTimestamp"]
        .iter()
        .filter_map(|pointer| text(&event, pointer).parse().ok())
        .max()
}

/// Brings the `kubernetes` Service and its endpoints back whenever somebody changed or deleted them, until the server ends.
pub(crate) async fn keep_kubernetes_service(
    server: Arc<Server>,
    client: kube::Client,
    resource: &'static str,
    ends: CancellationToken,
) {
    let range = Range::namespace(resource, "default");
    while let Ok(mut watch) = server.store.watch(&range, server.store.revision()) {
        loop {
            let event = tokio::select! {
                event = watch.next() => event,
                () = ends.cancelled() => return,
            };
            match event {
                Ok(event) if &*event.object().key.name == "kubernetes" => {
                    if let Err(error) =
                        bootstrap::install_kubernetes_service(&server, &client).await
                    {
                        tracing::warn!(%error, "the kubernetes Service is not as it should be");
                    }
                }
                Ok(_) => (),
                Err(Gone::Compacted { .. }) => break,
                Err(Gone::Closed) => return,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(name: &str, revision: u64) -> Object {
        Object {
            key: Key::new("events", "default", name),
            revision: Revision::new(revision),
            created_revision: Revision::new(revision),
            bytes: bytes::Bytes::from_static(
                br#"{"lastTimestamp":"2026-01-01T00:00:00Z","metadata":{}}"#,
            ),
            attributes: coracle_store::Attributes::default(),
        }
    }

    #[test]
    fn each_event_is_due_once_at_its_latest_time() {
        let (start, mut expiries) = (Instant::now(), Expiries::default());
        let after = |seconds| start + Duration::from_secs(seconds);
        expiries.put(&event("a", 1), after(1));
        expiries.put(&event("b", 2), after(2));
        expiries.put(&event("a", 3), after(3));
        expiries.remove(&event("c", 4).key);
        assert_eq!(expiries.first_due(), Some(after(2)));
        let names = |due: Vec<(Key, Revision)>| -> Vec<String> {
            due.iter().map(|(key, _)| key.name.to_string()).collect()
        };
        assert_eq!(names(expiries.take_due(after(2))), ["b"]);
        assert_eq!(names(expiries.take_due(after(9))), ["a"]);
        assert!(expiries.first_due().is_none() && expiries.by_key.is_empty());
        assert_eq!(last_seen(&event("a", 1)), "2026-01-01T00:00:00Z".parse().ok());
    }
}
