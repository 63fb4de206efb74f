//! `GET` with `watch=true`: every change of a collection, from a revision on, until somebody ends it.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Body;
use axum::response::Response;
use bytes::{BufMut, Bytes, BytesMut};
use coracle_api::kinds::Kind;
use coracle_api::status::Status;
use coracle_store::{Change, Event, Object, Revision};
use http::StatusCode;
use http_body::Frame;
use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::time::{Instant, Sleep};
use tokio_util::sync::WaitForCancellationFutureOwned;

use super::encoded::{Encoded, Shape};
use super::list::{gone_status, too_large_revision};
use super::watch_events::Events;
use crate::answer::{self, Answer};
use crate::call::Call;
use crate::negotiate::{Encoding, Form, OFFERED_STREAMS};
use crate::printing::{self, Include};
use crate::protobuf::{self, Shown};
use crate::query::ListOptions;
use crate::selection::Selection;
use crate::{custom_resources, limits, object, storage, views};

/// Starts the stream of events.
pub(crate) async fn watch(call: &Call) -> Answer<Response> {
    let options = ListOptions::read(&call.query, true)?;
    let selection = Selection::new(call.kind, options.labels.clone(), options.fields.clone())?;
    let filter =
        Filter { selection, name: Some(call.target.name.clone()).filter(|name| !name.is_empty()) };
    if call.representation.encoding == Encoding::Yaml {
        return Err(Status::not_acceptable(&OFFERED_STREAMS));
    }
    let shown = call.representation.message(call.kind);
    let content_type =
        if shown.is_some() { protobuf::WATCH_MEDIA_TYPE } else { "application/json" };
    let writer = EventWriter {
        kind: call.kind,
        form: call.representation.form,
        shown,
        include: Include::read(&call.query)?,
        headed: false,
        encoded: Arc::clone(&call.server.encoded),
    };
    let body = match start(call, &options, filter, writer.clone()).await {
        Ok(body) => Body::new(body),
        Err(Refusal::Answer(status)) => return Err(status),
        Err(Refusal::Event(status)) => {
            let mut frame = BytesMut::new();
            writer.error(&mut frame, &status);
            Body::from(frame.freeze())
        }
    };
    Ok(answer::with_type(StatusCode::OK, content_type, body))
}

/// A watch that cannot start: upstream tells some reasons as an answer, and those that concern the past as the only event.
enum Refusal {
    Answer(Status),
    Event(Status),
}

async fn start(
    call: &Call,
    options: &ListOptions,
    filter: Filter,
    writer: EventWriter,
) -> Result<WatchBody, Refusal> {
    let store = &call.server.store;
    let range = storage::range(call.kind, call.namespace());
    let from_now = options.resource_version.is_none_or(|revision| revision == Revision::ZERO);
    let initial_events = options.send_initial_events.unwrap_or(from_now);
    let current = store.revision();
    if let Some(asked) = options.resource_version.filter(|&asked| asked > current) {
        return Err(Refusal::Answer(too_large_revision(asked, current)));
    }
    let (mut initial, mut after) =
        (Vec::new(), if from_now { current } else { options.resource_version.unwrap_or(current) });
    if initial_events {
        let listing = store
            .list(&range, None, None, None)
            .map_err(|gone| Refusal::Answer(gone_status(&gone)))?;
        initial = listing.objects;
        after = listing.revision;
    }
    let watch = store.watch(&range, after).map_err(|gone| Refusal::Event(gone_status(&gone)))?;
    initial = custom_resources::bring_all(call.kind, initial).await.map_err(Refusal::Answer)?;
    initial.retain(|object| filter.matches(object));
    let wants_end_mark = options.send_initial_events == Some(true) && options.bookmarks;
    let now = Instant::now();
    let deadline = now + lifetime(options.timeout_seconds);
    let bookmark = options.bookmarks.then(|| next_bookmark(now, deadline)).flatten();
    Ok(WatchBody {
        filter,
        writer,
        initial: initial.into_iter(),
        end_mark: wants_end_mark.then_some(after),
        watch: Events::new(call.kind, watch),
        alarm: Box::pin(tokio::time::sleep_until(bookmark.unwrap_or(deadline))),
        bookmark,
        deadline,
        shutdown: Box::pin(call.ends.clone().cancelled_owned()),
        ended: false,
    })
}

/// How long the watch may last. Without a wish of the client's a random time, so that not all of them come back at once.
fn lifetime(timeout_seconds: Option<u64>) -> Duration {
    match timeout_seconds {
        Some(seconds) => Duration::from_secs(seconds),
        None => limits::WATCH_TIMEOUT.mul_f64(1.0 + rand::random::<f64>()),
    }
}

/// Bookmarks come from time to time, and the last one shortly before the end.
fn next_bookmark(now: Instant, deadline: Instant) -> Option<Instant> {
    let last = deadline.checked_sub(limits::LAST_BOOKMARK).filter(|last| *last > now)?;
    Some(last.min(now + limits::BOOKMARK_INTERVAL))
}

/// What of the range the client wants to see.
struct Filter {
    selection: Selection,
    name: Option<String>,
}

impl Filter {
    fn matches(&self, object: &Object) -> bool {
        self.name.as_deref().is_none_or(|name| name == &*object.key.name)
            && self.selection.matches(object)
    }
}

/// The stream: the objects there are, then what happens. Events that are ready together share a frame.
struct WatchBody {
    filter: Filter,
    writer: EventWriter,
    initial: std::vec::IntoIter<Arc<Object>>,
    /// Says that the initial events are over, for clients that asked for them.
    end_mark: Option<Revision>,
    watch: Events,
    /// When the next bookmark is due.
    bookmark: Option<Instant>,
    deadline: Instant,
    /// One timer for both, because it is looked at after each event.
    alarm: Pin<Box<Sleep>>,
    shutdown: Pin<Box<WaitForCancellationFutureOwned>>,
    ended: bool,
}

impl http_body::Body for WatchBody {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let this = &mut *self;
        if this.ended {
            return Poll::Ready(None);
        }
        let mut frame = BytesMut::new();
        this.gather(&mut frame, context);
        if !frame.is_empty() {
            return Poll::Ready(Some(Ok(Frame::data(frame.freeze()))));
        }
        if this.ended || this.shutdown.as_mut().poll(context).is_ready() {
            this.ended = true;
            return Poll::Ready(None);
        }
        if this.alarm.as_mut().poll(context).is_pending() {
            return Poll::Pending;
        }
        let now = Instant::now();
        if this.bookmark.is_none() || this.deadline <= now {
            this.ended = true;
            return Poll::Ready(None);
        }
        this.bookmark = next_bookmark(now, this.deadline);
        this.alarm.as_mut().reset(this.bookmark.unwrap_or(this.deadline));
        this.writer.bookmark(&mut frame, this.watch.progress(), false);
        Poll::Ready(Some(Ok(Frame::data(frame.freeze()))))
    }
}

impl WatchBody {
    /// Writes what there is, up to the size of a frame.
    fn gather(&mut self, frame: &mut BytesMut, context: &mut Context<'_>) {
        while frame.len() < limits::FRAME_BYTES {
            if let Some(object) = self.initial.next() {
                self.writer.event(frame, "ADDED", &object);
            } else if let Some(revision) = self.end_mark.take() {
                self.writer.bookmark(frame, revision, true);
            } else {
                break;
            }
        }
        while frame.len() < limits::FRAME_BYTES && !self.ended {
            match self.watch.poll_next(context) {
                Poll::Ready(Some(Ok(event))) => self.show(frame, &event),
                Poll::Ready(Some(Err(status))) => {
                    self.writer.error(frame, &status);
                    self.ended = true;
                }
                Poll::Ready(None) => self.ended = true,
                Poll::Pending => return,
            }
        }
    }

    /// One change, seen through the filter: what enters it was added, what leaves it is gone.
    fn show(&mut self, frame: &mut BytesMut, event: &Event) {
        let matched = event.previous().is_some_and(|previous| self.filter.matches(previous));
        match &event.change {
            Change::Put { object, .. } => match (matched, self.filter.matches(object)) {
                (false, true) => self.writer.change(frame, "ADDED", object),
                (true, true) => self.writer.change(frame, "MODIFIED", object),
                (true, false) => {
                    if let Some(previous) = event.previous() {
                        self.writer.past_state(frame, previous, event.revision);
                    }
                }
                (false, false) => (),
            },
            Change::Delete { object, .. } if matched => {
                self.writer.change(frame, "DELETED", object)
            }
            Change::Delete { .. } => (),
        }
    }
}

/// Writes events in the representation that the client asked for.
#[derive(Clone)]
struct EventWriter {
    kind: &'static Kind,
    form: Form,
    /// Set when events are messages.
    shown: Option<Shown>,
    include: Include,
    /// Whether a table's columns have been named: only the first one says them.
    headed: bool,
    /// What other watchers have written lately.
    encoded: Arc<Encoded>,
}

impl EventWriter {
    /// One event that other watchers are told of, too. The first of them makes what those of the same form send.
    fn change(&mut self, frame: &mut BytesMut, event_type: &'static str, object: &Arc<Object>) {
        if self.shown.is_none() && self.form == Form::Whole && !views::is_view(self.kind) {
            // Nothing to make: the stored bytes are what the client wants.
            return self.event(frame, event_type, object);
        }
        let shape = Shape {
            kind: self.kind,
            form: self.form,
            message: self.shown.is_some(),
            include: self.include,
            headed: self.headed,
        };
        if let Some(event) = self.encoded.find(event_type, object, shape) {
            self.headed |= matches!(self.form, Form::Table(_));
            return frame.put_slice(&event);
        }
        let start = frame.len();
        self.event(frame, event_type, object);
        self.encoded.keep(event_type, object, shape, &frame[start..]);
    }

    /// One event with a stored object, whose bytes are taken as they are whenever that is what the client wants.
    fn event(&mut self, frame: &mut BytesMut, event_type: &str, object: &Object) {
        let takes_bytes = self.shown.is_some() || self.form == Form::Whole;
        if takes_bytes && !views::is_view(self.kind) {
            self.write(frame, event_type, &object.bytes);
        } else if let Form::Metadata(version) = self.form
            && !views::is_view(self.kind)
            && let Some(metadata) = printing::metadata_text(&object.bytes, version)
        {
            self.write(frame, event_type, metadata.as_bytes());
        } else if let Ok(value) = storage::decode(object) {
            self.decoded(frame, event_type, value);
        }
    }

    /// The state in which an object was last seen by this client, with the revision at which it left the client's sight.
    fn past_state(&mut self, frame: &mut BytesMut, object: &Object, revision: Revision) {
        if let Ok(mut value) = storage::decode(object) {
            object::set_meta(&mut value, "resourceVersion", Some(json!(revision.to_string())));
            self.decoded(frame, "DELETED", value);
        }
    }

    fn decoded(&mut self, frame: &mut BytesMut, event_type: &str, value: Value) {
        let value = views::read(self.kind, value);
        let shown = match self.form {
            _ if self.shown.is_some() => value,
            Form::Whole => value,
            Form::Table(version) => {
                let metadata =
                    json!({ "resourceVersion": object::meta(&value, "resourceVersion") });
                let row = printing::row(self.kind, &value, self.include, version, Timestamp::now());
                self.table(vec![row], version, metadata)
            }
            Form::Metadata(version) => printing::metadata_only(&value, version),
        };
        self.write(frame, event_type, shown.to_string().as_bytes());
    }

    fn table(&mut self, rows: Vec<Value>, version: &str, metadata: Value) -> Value {
        let mut table = printing::table_of(self.kind, rows, version, metadata);
        if std::mem::replace(&mut self.headed, true) {
            table["columnDefinitions"] = json!([]);
        }
        table
    }

    /// Tells the client how far it is, so that it can resume from there.
    fn bookmark(&mut self, frame: &mut BytesMut, revision: Revision, initial_events_end: bool) {
        let mut metadata =
            json!({ "resourceVersion": revision.to_string(), "creationTimestamp": null });
        if initial_events_end {
            metadata["annotations"] = json!({ "k8s.io/initial-events-end": "true" });
        }
        let bookmark = match self.form {
            Form::Whole => {
                json!({ "kind": self.kind.kind, "apiVersion": self.kind.api_version, "metadata": metadata })
            }
            Form::Table(version) => self.table(Vec::new(), version, metadata),
            Form::Metadata(version) => {
                printing::metadata_only(&json!({ "metadata": metadata }), version)
            }
        };
        self.write(frame, "BOOKMARK", bookmark.to_string().as_bytes());
    }

    /// Why the watch ends.
    fn error(&self, frame: &mut BytesMut, status: &Status) {
        let status = status.to_value();
        let json = status.to_string();
        match self.shown.as_ref().and_then(|_| Shown::of(&status)) {
            Some(shown) => write_message(frame, "ERROR", &shown, json.as_bytes()),
            None => write_event(frame, "ERROR", json.as_bytes()),
        }
    }

    fn write(&self, frame: &mut BytesMut, event_type: &str, object: &[u8]) {
        match &self.shown {
            Some(shown) => write_message(frame, event_type, shown, object),
            None => write_event(frame, event_type, object),
        }
    }
}

fn write_event(frame: &mut BytesMut, event_type: &str, object: &[u8]) {
    frame.reserve(object.len() + 40);
    frame.put_slice(b"{\"type\":\"");
    frame.put_slice(event_type.as_bytes());
    frame.put_slice(b"\",\"object\":");
    frame.put_slice(object);
    frame.put_slice(b"}\n");
}

fn write_message(frame: &mut BytesMut, event_type: &str, shown: &Shown, object: &[u8]) {
    match protobuf::event(event_type, shown, object) {
        Ok(event) => frame.put_slice(&event),
        Err(status) => tracing::error!(%status, "an event was left out of a watch"),
    }
}
