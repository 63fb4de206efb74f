//! `metadata.managedFields`: who wants what.

use serde_json::{Map, Value, json};

use super::set::FieldSet;

/// How somebody came to want something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Operation {
    /// By server-side apply: it says all it wants each time.
    Apply,
    /// By any other write: it wants what it changed.
    Update,
}

/// Who wants something. One program can be several managers: it may apply and update, and each part of an object is apart.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Manager {
    /// The name it gave itself.
    pub name: String,
    /// How it writes.
    pub operation: Operation,
    /// The version of the kind it wrote.
    pub api_version: String,
    /// The part it wrote; empty for the object itself.
    pub subresource: String,
}

/// What one manager wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Who.
    pub manager: Manager,
    /// When it said so last.
    pub time: Option<String>,
    /// What.
    pub fields: FieldSet,
}

/// All of `metadata.managedFields`, decoded.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Managed(pub Vec<Entry>);

impl Operation {
    fn as_str(self) -> &'static str {
        match self {
            Self::Apply => "Apply",
            Self::Update => "Update",
        }
    }

    fn parse(text: &str) -> Option<Self> {
        match text {
            "Apply" => Some(Self::Apply),
            "Update" => Some(Self::Update),
            _ => None,
        }
    }
}

impl Manager {
    /// Whether both are the same manager: one that applies may change its version and stays itself.
    pub fn is(&self, other: &Self) -> bool {
        self.name == other.name
            && self.operation == other.operation
            && self.subresource == other.subresource
            && (self.operation == Operation::Apply || self.api_version == other.api_version)
    }

    /// Who an entry is about.
    pub(super) fn of_entry(entry: &Value) -> Option<Self> {
        let text =
            |key: &str| entry.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
        Some(Self {
            name: text("manager"),
            operation: Operation::parse(entry.get("operation")?.as_str()?)?,
            api_version: Some(text("apiVersion")).filter(|version| !version.is_empty())?,
            subresource: text("subresource"),
        })
    }
}

impl Entry {
    fn read(entry: &Value) -> Option<Self> {
        if entry.get("fieldsType")?.as_str()? != "FieldsV1" {
            return None;
        }
        let fields = match entry.get("fieldsV1") {
            Some(fields) => FieldSet::from_json(fields)?,
            None => FieldSet::default(),
        };
        let time = entry.get("time").and_then(Value::as_str).map(str::to_owned);
        Some(Self { manager: Manager::of_entry(entry)?, time, fields })
    }

    pub(super) fn to_json(&self) -> Value {
        let mut entry = Map::new();
        let mut put = |key: &str, value: Value| drop(entry.insert(key.to_owned(), value));
        put("manager", json!(self.manager.name));
        put("operation", json!(self.manager.operation.as_str()));
        put("apiVersion", json!(self.manager.api_version));
        if let Some(time) = &self.time {
            put("time", json!(time));
        }
        put("fieldsType", json!("FieldsV1"));
        put("fieldsV1", self.fields.to_json());
        if !self.manager.subresource.is_empty() {
            put("subresource", json!(self.manager.subresource));
        }
        Value::Object(entry)
    }
}

impl Managed {
    /// Reads `metadata.managedFields`; `None` if there is an entry that makes no sense.
    pub fn read(list: &Value) -> Option<Self> {
        let entries: Option<Vec<Entry>> = list.as_array()?.iter().map(Entry::read).collect();
        Some(Self(entries?))
    }

    /// Whether a client that sends this list wants the bookkeeping forgotten.
    pub fn is_reset(list: &Value) -> bool {
        match list.as_array().map(Vec::as_slice) {
            Some([]) => true,
            Some([Value::Object(only)]) => only.values().all(Value::is_null),
            _ => false,
        }
    }

    /// `metadata.managedFields`; `None` when there is nothing to say.
    pub fn to_json(&self) -> Option<Value> {
        let mut entries: Vec<Value> =
            self.0.iter().filter(|entry| !entry.fields.is_empty()).map(Entry::to_json).collect();
        sort(&mut entries);
        if entries.is_empty() { None } else { Some(Value::Array(entries)) }
    }

    /// The entry of a manager.
    pub fn of(&self, manager: &Manager) -> Option<&Entry> {
        self.0.iter().find(|entry| entry.manager.is(manager))
    }
}

/// Brings entries into upstream's order: appliers first, then by time.
pub(super) fn sort(entries: &mut [Value]) {
    // Times are written in one form, in which the order of texts is that of times.
    const KEYS: [&str; 5] = ["operation", "time", "manager", "apiVersion", "subresource"];
    fn text<'a>(entry: &'a Value, key: &str) -> &'a str {
        entry.get(key).and_then(Value::as_str).unwrap_or_default()
    }
    entries.sort_by(|one, other| {
        KEYS.iter().map(|key| text(one, key)).cmp(KEYS.iter().map(|key| text(other, key)))
    });
}
