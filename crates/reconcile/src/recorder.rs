//! Events: what happened to an object, for `kubectl describe` and `kubectl events`.
//!
//! Behaves like client-go's recorder (tools/record): the same event again counts
//! up instead of being stored again, and one object cannot flood the API.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Event, EventSource, ObjectReference};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client, Resource};
use serde_json::json;
use tokio::sync::mpsc;
use tracing::{debug, warn};

use crate::Tasks;

/// Events waiting to be written. Beyond it they are dropped: an Event is a hint, not a record.
const QUEUE: usize = 8192;
/// client-go's cache of events that may count up.
const REMEMBERED: usize = 4096;
/// client-go's spam filter: a burst for one object, and then one each five minutes.
const BURST: f64 = 25.0;
/// See [`BURST`].
const REFILL: Duration = Duration::from_secs(300);
/// A write of an Event that takes longer is given up.
const WRITE_DEADLINE: Duration = Duration::from_secs(10);

/// Writes Events in the background. Cloning it shares it.
#[derive(Clone)]
pub struct Recorder {
    queue: mpsc::Sender<Occurrence>,
    component: String,
    node: Option<String>,
}

struct Occurrence {
    about: ObjectReference,
    kind: &'static str,
    reason: String,
    message: String,
    at: Timestamp,
}

impl Recorder {
    /// A recorder that speaks for `component` (on `node`, for a node's components).
    pub fn new(tasks: &Tasks, client: Client, component: &str, node: Option<&str>) -> Self {
        let (queue, occurrences) = mpsc::channel(QUEUE);
        let recorder =
            Self { queue, component: component.to_owned(), node: node.map(str::to_owned) };
        let writer = Writer {
            client,
            component: recorder.component.clone(),
            node: recorder.node.clone(),
            counts: HashMap::new(),
            budgets: HashMap::new(),
        };
        tasks.spawn("events", writer.run(occurrences));
        recorder
    }

    /// Something went as it should.
    pub fn normal<K>(&self, about: &K, reason: &str, message: impl Into<String>)
    where
        K: Resource<DynamicType = ()>,
    {
        self.record(reference(about), "Normal", reason, message.into());
    }

    /// Something needs attention.
    pub fn warning<K>(&self, about: &K, reason: &str, message: impl Into<String>)
    where
        K: Resource<DynamicType = ()>,
    {
        self.record(reference(about), "Warning", reason, message.into());
    }

    /// [`Recorder::normal`] for a part of an object: `fieldPath` names a container.
    pub fn normal_ref(&self, about: ObjectReference, reason: &str, message: impl Into<String>) {
        self.record(about, "Normal", reason, message.into());
    }

    /// [`Recorder::warning`] for a part of an object: `fieldPath` names a container.
    pub fn warning_ref(&self, about: ObjectReference, reason: &str, message: impl Into<String>) {
        self.record(about, "Warning", reason, message.into());
    }

    fn record(&self, about: ObjectReference, kind: &'static str, reason: &str, message: String) {
        let occurrence =
            Occurrence { about, kind, reason: reason.to_owned(), message, at: Timestamp::now() };
        if self.queue.try_send(occurrence).is_err() {
            debug!(reason, "event dropped, the queue is full");
        }
    }
}

/// What an Event's `involvedObject` says of an object.
pub fn reference<K: Resource<DynamicType = ()>>(object: &K) -> ObjectReference {
    let meta = object.meta();
    ObjectReference {
        api_version: Some(K::api_version(&()).into_owned()),
        kind: Some(K::kind(&()).into_owned()),
        name: meta.name.clone(),
        namespace: meta.namespace.clone(),
        uid: meta.uid.clone(),
        resource_version: meta.resource_version.clone(),
        field_path: None,
    }
}

struct Writer {
    client: Client,
    component: String,
    node: Option<String>,
    counts: HashMap<String, Written>,
    budgets: HashMap<String, Budget>,
}

struct Written {
    name: String,
    namespace: String,
    count: i32,
    last: Instant,
}

struct Budget {
    left: f64,
    as_of: Instant,
}

impl Writer {
    async fn run(mut self, mut occurrences: mpsc::Receiver<Occurrence>) {
        while let Some(occurrence) = occurrences.recv().await {
            if !self.within_budget(&occurrence, Instant::now()) {
                continue;
            }
            let write = self.write(&occurrence);
            match tokio::time::timeout(WRITE_DEADLINE, write).await {
                Ok(Ok(())) => (),
                // The namespace is going away, and its events with it.
                Ok(Err(kube::Error::Api(status))) if matches!(status.code, 403 | 404) => {
                    debug!(reason = occurrence.reason, %status, "event refused");
                }
                Ok(Err(error)) => warn!(reason = occurrence.reason, %error, "event not written"),
                Err(_) => warn!(reason = occurrence.reason, "event not written in time"),
            }
        }
    }

    fn within_budget(&mut self, occurrence: &Occurrence, now: Instant) -> bool {
        let object = occurrence
            .about
            .uid
            .clone()
            .or_else(|| occurrence.about.name.clone())
            .unwrap_or_default();
        if self.budgets.len() >= REMEMBERED && !self.budgets.contains_key(&object) {
            // A full budget needs no memory.
            self.budgets.retain(|_, budget| budget.refilled(now) < BURST);
            if self.budgets.len() >= REMEMBERED {
                self.budgets.clear();
            }
        }
        let budget = self.budgets.entry(object).or_insert(Budget { left: BURST, as_of: now });
        budget.left = budget.refilled(now);
        budget.as_of = now;
        if budget.left < 1.0 {
            return false;
        }
        budget.left -= 1.0;
        true
    }

    async fn write(&mut self, occurrence: &Occurrence) -> kube::Result<()> {
        let key = identity(occurrence);
        if let Some(written) = self.counts.get_mut(&key) {
            written.count += 1;
            written.last = Instant::now();
            let events: Api<Event> = Api::namespaced(self.client.clone(), &written.namespace);
            let patch = json!({ "count": written.count, "lastTimestamp": Time(occurrence.at) });
            match events.patch(&written.name, &PatchParams::default(), &Patch::Merge(patch)).await {
                Ok(_) => return Ok(()),
                // It has expired; write a new one.
                Err(kube::Error::Api(status)) if status.code == 404 => (),
                Err(error) => return Err(error),
            }
        }
        let event = self.event(occurrence);
        let namespace = event.metadata.namespace.clone().unwrap_or_default();
        let name = event.metadata.name.clone().unwrap_or_default();
        let events: Api<Event> = Api::namespaced(self.client.clone(), &namespace);
        events.create(&PostParams::default(), &event).await?;
        if self.counts.len() >= REMEMBERED {
            self.forget_oldest_half();
        }
        self.counts.insert(key, Written { name, namespace, count: 1, last: Instant::now() });
        Ok(())
    }

    fn event(&self, occurrence: &Occurrence) -> Event {
        let about = &occurrence.about;
        let namespace = about.namespace.clone().unwrap_or_else(|| "default".to_owned());
        let object = about.name.as_deref().unwrap_or_default();
        let nanoseconds = occurrence.at.as_nanosecond();
        Event {
            metadata: ObjectMeta {
                name: Some(format!("{object}.{nanoseconds:x}")),
                namespace: Some(namespace),
                ..ObjectMeta::default()
            },
            involved_object: about.clone(),
            type_: Some(occurrence.kind.to_owned()),
            reason: Some(occurrence.reason.clone()),
            message: Some(occurrence.message.clone()),
            source: Some(EventSource {
                component: Some(self.component.clone()),
                host: self.node.clone(),
            }),
            reporting_component: Some(self.component.clone()),
            reporting_instance: Some(self.node.clone().unwrap_or_default()),
            first_timestamp: Some(Time(occurrence.at)),
            last_timestamp: Some(Time(occurrence.at)),
            count: Some(1),
            ..Event::default()
        }
    }

    fn forget_oldest_half(&mut self) {
        let mut ages: Vec<Instant> = self.counts.values().map(|written| written.last).collect();
        ages.sort_unstable();
        if let Some(&middle) = ages.get(ages.len() / 2) {
            self.counts.retain(|_, written| written.last > middle);
        }
    }
}

impl Budget {
    fn refilled(&self, now: Instant) -> f64 {
        let gained = now.duration_since(self.as_of).as_secs_f64() / REFILL.as_secs_f64();
        (self.left + gained).min(BURST)
    }
}

/// What makes two occurrences the same Event, as client-go's `getEventKey` has it.
fn identity(occurrence: &Occurrence) -> String {
    let about = &occurrence.about;
    let parts = [
        about.kind.as_deref(),
        about.namespace.as_deref(),
        about.name.as_deref(),
        about.field_path.as_deref(),
        about.uid.as_deref(),
        Some(occurrence.kind),
        Some(&occurrence.reason),
        Some(&occurrence.message),
    ];
    parts.map(Option::unwrap_or_default).join("\u{1f}")
}
