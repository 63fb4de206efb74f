//! What cells are made of: names, ages, counts, lists.

use coracle_api::selector::LabelSelector;
use coracle_api::time;
use jiff::Timestamp;
use serde_json::Value;

use super::Column;
use crate::rules::json::Read;

/// The object's name.
pub const NAME: Column = Column {
    name: "Name",
    kind: "string",
    format: "name",
    description: "Name must be unique within a namespace. Is required when creating resources, although some resources \
                  may allow a client to request the generation of an appropriate name automatically. Name is primarily \
                  intended for creation idempotence and configuration definition. Cannot be updated. More info: \
                  https://kubernetes.io/docs/concepts/overview/working-with-objects/names#names",
    priority: 0,
};

/// How long ago the object was created.
pub const AGE: Column = text("Age", CREATION);

/// When the object was created.
pub const CREATED_AT: Column =
    Column { name: "Created At", kind: "date", format: "", description: CREATION, priority: 0 };

/// The names of the containers of a template.
pub const CONTAINERS: Column =
    text("Containers", "Names of each container in the template.").wide();

/// Their images.
pub const IMAGES: Column =
    text("Images", "Images referenced by each container in the template.").wide();

const CREATION: &str = "CreationTimestamp is a timestamp representing the server time when this object was created. It is \
                        not guaranteed to be set in happens-before order across separate operations. Clients may not set \
                        this value. It is represented in RFC3339 form and is in UTC.\n\nPopulated by the system. \
                        Read-only. Null for lists. More info: \
                        https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#metadata";

/// A column of text.
pub const fn text(name: &'static str, description: &'static str) -> Column {
    Column { name, kind: "string", format: "", description, priority: 0 }
}

/// A column of whole numbers.
pub const fn integer(name: &'static str, description: &'static str) -> Column {
    Column { name, kind: "integer", format: "", description, priority: 0 }
}

/// A column of truths.
pub const fn boolean(name: &'static str, description: &'static str) -> Column {
    Column { name, kind: "boolean", format: "", description, priority: 0 }
}

impl Column {
    /// The same column, shown with `-o wide` only.
    pub const fn wide(self) -> Self {
        Self { priority: 1, ..self }
    }
}

/// The name of the object, for the first cell.
pub fn name(object: &Value) -> Value {
    object["metadata"]["name"].text().into()
}

/// How long ago the object was created.
pub fn age(object: &Value, now: Timestamp) -> Value {
    since(&object["metadata"]["creationTimestamp"], now).into()
}

/// How long ago a moment was, as people say it.
pub fn since(moment: &Value, now: Timestamp) -> String {
    match time::parse(moment.text()) {
        Some(then) => human(seconds_between(then, now)),
        None => "<unknown>".to_owned(),
    }
}

/// Seconds from one moment to another, with their fraction cut off.
pub fn seconds_between(from: Timestamp, to: Timestamp) -> i64 {
    to.duration_since(from).as_secs()
}

/// A duration as upstream's `duration.HumanDuration` says it: two units at most, and fewer the longer it is.
pub fn human(seconds: i64) -> String {
    const MINUTE: i64 = 60;
    const HOUR: i64 = 60 * MINUTE;
    const DAY: i64 = 24 * HOUR;
    const YEAR: i64 = 365 * DAY;
    // A clock may be a second ahead of ours; more is a mistake that people should see.
    if seconds < -1 {
        return "<invalid>".to_owned();
    }
    let two = |unit: i64, name: &str, part: i64, part_name: &str| match seconds % unit / part {
        0 => format!("{}{name}", seconds / unit),
        rest => format!("{}{name}{rest}{part_name}", seconds / unit),
    };
    match seconds.max(0) {
        seconds if seconds < 2 * MINUTE => format!("{seconds}s"),
        seconds if seconds < 10 * MINUTE => two(MINUTE, "m", 1, "s"),
        seconds if seconds < 3 * HOUR => format!("{}m", seconds / MINUTE),
        seconds if seconds < 8 * HOUR => two(HOUR, "h", MINUTE, "m"),
        seconds if seconds < 2 * DAY => format!("{}h", seconds / HOUR),
        seconds if seconds < 8 * DAY => two(DAY, "d", HOUR, "h"),
        seconds if seconds < 2 * YEAR => format!("{}d", seconds / DAY),
        seconds if seconds < 8 * YEAR => two(YEAR, "y", DAY, "d"),
        seconds => format!("{}y", seconds / YEAR),
    }
}

/// The text, or what stands for none.
pub fn or(text: &str, none: &str) -> Value {
    if text.is_empty() { none.into() } else { text.into() }
}

/// A `metav1.LabelSelector` as people write it.
pub fn selector(selector: &Value) -> Value {
    let selector = if selector.is_set() {
        LabelSelector::from_value(Some(selector))
    } else {
        return "<none>".into();
    };
    match selector {
        Ok(selector) => or(&selector.to_string(), "<none>"),
        Err(_) => "<error>".into(),
    }
}

/// Labels as `key=value,key=value`.
pub fn labels(labels: &Value) -> Value {
    let mut pairs: Vec<String> =
        labels.entries().map(|(key, value)| format!("{key}={}", value.text())).collect();
    pairs.sort_unstable();
    or(&pairs.join(","), "<none>")
}

/// The names and the images of the containers of a template.
pub fn containers(template: &Value) -> [Value; 2] {
    let list = |field: &str| {
        join(template["spec"]["containers"].items().iter().map(|container| container[field].text()))
    };
    [list("name").into(), list("image").into()]
}

/// Texts with commas between them.
pub fn join<'v>(texts: impl Iterator<Item = &'v str>) -> String {
    texts.collect::<Vec<_>>().join(",")
}

/// As many texts as fit a cell, and how many more there are.
pub fn first_few(texts: &[String], max: usize) -> String {
    let shown = texts.iter().take(max).map(String::as_str);
    if texts.len() > max {
        format!("{} + {} more...", join(shown), texts.len() - max)
    } else {
        join(shown)
    }
}

/// Whether a condition is true.
pub fn is_true(object: &Value, condition: &str) -> bool {
    object["status"]["conditions"]
        .items()
        .iter()
        .find(|found| found["type"] == condition)
        .is_some_and(|found| found["status"] == "True")
}
