//! What the store holds and hands out: keys, revisions, objects, events.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use bytes::Bytes;

/// Names one object: its resource, its namespace and its name.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// The resource with its group, as `pods` or `deployments.apps`.
    pub resource: Arc<str>,
    /// The namespace; empty for an object of the whole cluster.
    pub namespace: Arc<str>,
    /// The name.
    pub name: Arc<str>,
}

impl Key {
    /// Makes a key of its three parts.
    pub fn new(
        resource: impl Into<Arc<str>>,
        namespace: impl Into<Arc<str>>,
        name: impl Into<Arc<str>>,
    ) -> Key {
        Key { resource: resource.into(), namespace: namespace.into(), name: name.into() }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.namespace.is_empty() {
            write!(f, "{}/{}", self.resource, self.name)
        } else {
            write!(f, "{}/{}/{}", self.resource, self.namespace, self.name)
        }
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The number of a write in the one order of all writes; the first is 1, and 0 is before all of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Revision(u64);

impl Revision {
    /// Before the first write.
    pub const ZERO: Revision = Revision(0);

    /// The revision with this number.
    pub const fn new(number: u64) -> Revision {
        Revision(number)
    }

    /// Its number.
    pub const fn get(self) -> u64 {
        self.0
    }

    pub(crate) const fn next(self) -> Revision {
        Revision(self.0 + 1)
    }
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// The text is not a revision.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a revision")]
pub struct ParseRevisionError {
    text: String,
}

impl FromStr for Revision {
    type Err = ParseRevisionError;

    /// Accepts decimal digits only: no sign, no space.
    fn from_str(text: &str) -> Result<Revision, ParseRevisionError> {
        let number =
            text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten();
        number.map(Revision).ok_or_else(|| ParseRevisionError { text: text.to_owned() })
    }
}

/// What selectors match on, taken out of an object once so that no reader decodes it again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Attributes {
    /// The labels.
    pub labels: Box<[(Box<str>, Box<str>)]>,
    /// The selectable fields. Their names are the kind's, and no object has a copy of them.
    pub fields: Box<[(&'static str, Box<str>)]>,
}

impl Attributes {
    /// The value of this label.
    pub fn label(&self, name: &str) -> Option<&str> {
        self.labels.iter().find(|(key, _)| &**key == name).map(|(_, value)| &**value)
    }

    /// The value of this selectable field.
    pub fn field(&self, name: &str) -> Option<&str> {
        self.fields.iter().find(|(key, _)| *key == name).map(|(_, value)| &**value)
    }
}

/// An object that is to be written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Value {
    /// The encoded object, without its revision.
    pub bytes: Vec<u8>,
    /// Where in `bytes` the store puts the decimal digits of the revision that the write gets.
    pub revision_at: usize,
    /// What selectors match on.
    pub attributes: Attributes,
}

/// One state of one object, as it is on disk.
#[derive(Debug, PartialEq, Eq)]
pub struct Object {
    /// Which object.
    pub key: Key,
    /// The write that brought this state.
    pub revision: Revision,
    /// The write that created the object.
    pub created_revision: Revision,
    /// The encoded object, its revision inside.
    pub bytes: Bytes,
    /// What selectors match on.
    pub attributes: Attributes,
}

/// One write, as watchers see it.
#[derive(Debug, PartialEq, Eq)]
pub struct Event {
    /// The number of the write.
    pub revision: Revision,
    /// What it did.
    pub change: Change,
}

impl Event {
    /// The object after the write; for a deletion its last state.
    pub fn object(&self) -> &Arc<Object> {
        match &self.change {
            Change::Put { object, .. } | Change::Delete { object, .. } => object,
        }
    }

    /// The object before the write, if there was one.
    pub fn previous(&self) -> Option<&Arc<Object>> {
        match &self.change {
            Change::Put { previous, .. } => previous.as_ref(),
            Change::Delete { previous, .. } => Some(previous),
        }
    }
}

/// What a write did to its object.
#[derive(Debug, PartialEq, Eq)]
pub enum Change {
    /// Created it (no previous state) or updated it.
    Put {
        /// The new state.
        object: Arc<Object>,
        /// The state before.
        previous: Option<Arc<Object>>,
    },
    /// Deleted it.
    Delete {
        /// The last state, with the revision of the deletion.
        object: Arc<Object>,
        /// The state before.
        previous: Arc<Object>,
    },
}

/// What a list or a watch covers: a resource, in all namespaces or in one.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Range {
    /// The resource with its group.
    pub resource: Arc<str>,
    /// The namespace; `None` for all of them, and for objects of the whole cluster.
    pub namespace: Option<Arc<str>>,
}

impl Range {
    /// All objects of a resource.
    pub fn all(resource: impl Into<Arc<str>>) -> Range {
        Range { resource: resource.into(), namespace: None }
    }

    /// The objects of a resource in one namespace.
    pub fn namespace(resource: impl Into<Arc<str>>, namespace: impl Into<Arc<str>>) -> Range {
        Range { resource: resource.into(), namespace: Some(namespace.into()) }
    }

    /// Whether this key, of the same resource, is in the range.
    pub(crate) fn covers_namespace(&self, namespace: &str) -> bool {
        self.namespace.as_deref().is_none_or(|wanted| wanted == namespace)
    }
}

/// One page of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listing {
    /// The objects, ordered by namespace, then by name.
    pub objects: Vec<Arc<Object>>,
    /// The revision whose state this is.
    pub revision: Revision,
    /// How many objects follow after this page.
    pub remaining: usize,
}
