//! Watch events as they were sent a moment ago, for the other watchers of the same form.
//!
//! A change goes to all watchers of its kind at the same time. What is made of the object for one of them (a message, a
//! table's row, its metadata alone) is the same for all that asked alike.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use coracle_api::kinds::Kind;
use coracle_store::Object;
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::limits;
use crate::negotiate::Form;
use crate::printing::Include;

/// All that an event's bytes depend on, beside the event.
#[derive(Clone, Copy)]
pub(crate) struct Shape {
    pub(super) kind: &'static Kind,
    pub(super) form: Form,
    /// Whether it is a message.
    pub(super) message: bool,
    pub(super) include: Include,
    /// Whether a table's columns have been named before.
    pub(super) headed: bool,
}

/// The last events, the newest first.
#[derive(Default)]
pub(crate) struct Encoded {
    recent: Mutex<Recent>,
}

#[derive(Default)]
struct Recent {
    entries: VecDeque<Entry>,
    bytes: usize,
}

struct Entry {
    event_type: &'static str,
    /// Held, so that no other object has its address.
    object: Arc<Object>,
    shape: Shape,
    event: Bytes,
    made: Instant,
}

impl Encoded {
    /// The event, if somebody has just sent it.
    pub(super) fn find(
        &self,
        event_type: &str,
        object: &Arc<Object>,
        shape: Shape,
    ) -> Option<Bytes> {
        let recent = self.recent.lock();
        let entry = recent.entries.iter().find(|entry| {
            Arc::ptr_eq(&entry.object, object)
                && entry.shape.is(shape)
                && entry.event_type == event_type
        })?;
        (entry.made.elapsed() < limits::ENCODED_AGE).then(|| entry.event.clone())
    }

    /// Keeps it for the next who asks.
    pub(super) fn keep(
        &self,
        event_type: &'static str,
        object: &Arc<Object>,
        shape: Shape,
        event: &[u8],
    ) {
        let object = Arc::clone(object);
        let event = Bytes::copy_from_slice(event);
        let mut recent = self.recent.lock();
        recent.bytes += event.len();
        recent.entries.push_front(Entry { event_type, object, shape, event, made: Instant::now() });
        while recent.entries.len() > limits::ENCODED_EVENTS || recent.bytes > limits::ENCODED_BYTES
        {
            let Some(oldest) = recent.entries.pop_back() else { break };
            recent.bytes -= oldest.event.len();
        }
    }
}

impl Shape {
    fn is(self, other: Shape) -> bool {
        std::ptr::eq(self.kind, other.kind)
            && self.form == other.form
            && self.message == other.message
            && self.include == other.include
            && self.headed == other.headed
    }
}

#[cfg(test)]
mod tests {
    use coracle_api::kinds;
    use coracle_store::{Attributes, Key, Revision};

    use super::*;

    fn object() -> Arc<Object> {
        Arc::new(Object {
            key: Key::new("pods", "default", "one"),
            revision: Revision::ZERO,
            created_revision: Revision::ZERO,
            bytes: Bytes::new(),
            attributes: Attributes::default(),
        })
    }

    fn shape(form: Form) -> Shape {
        let kind = &kinds::all()[0];
        Shape { kind, form, message: false, include: Include::None, headed: true }
    }

    #[test]
    fn only_the_same_event_in_the_same_form_is_found() {
        let encoded = Encoded::default();
        let (one, other) = (object(), object());
        let metadata = shape(Form::Metadata("v1"));
        encoded.keep("ADDED", &one, metadata, b"event");
        let find = |event_type, object, shape| encoded.find(event_type, object, shape).is_some();
        assert!(find("ADDED", &one, metadata));
        assert!(!find("MODIFIED", &one, metadata));
        assert!(!find("ADDED", &other, metadata), "an equal object is another one");
        assert!(!find("ADDED", &one, shape(Form::Table("v1"))));
        assert!(!find("ADDED", &one, Shape { headed: false, ..metadata }));
        assert!(!find("ADDED", &one, Shape { message: true, ..metadata }));
        assert!(!find("ADDED", &one, Shape { kind: &kinds::all()[1], ..metadata }));
    }

    #[test]
    fn the_oldest_make_room() {
        let encoded = Encoded::default();
        let shape = shape(Form::Metadata("v1"));
        let objects: Vec<_> = (0..=limits::ENCODED_EVENTS).map(|_| object()).collect();
        objects.iter().for_each(|object| encoded.keep("ADDED", object, shape, b"event"));
        assert!(encoded.find("ADDED", &objects[0], shape).is_none());
        assert!(encoded.find("ADDED", &objects[1], shape).is_some());
        let large = vec![0; limits::ENCODED_BYTES];
        encoded.keep("ADDED", &objects[0], shape, &large);
        assert!(encoded.find("ADDED", &objects[0], shape).is_some());
        assert!(encoded.find("ADDED", &objects[1], shape).is_none());
    }
}
