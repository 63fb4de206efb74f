//! `metadata.managedFields` of what is written: who writes, what it thereby wants, and what a client may say about it.
//!
//! The algebra is `coracle_api::apply`'s. As upstream, an object of which nobody kept books (it was reset) stays without until
//! somebody applies to it.

mod versions;

use std::sync::Arc;

use coracle_api::apply::{
    FieldSet, Managed, Manager, Operation, TypeRef, record_create, record_update,
};
use coracle_api::kinds::Kind;
use coracle_api::status::{FieldErrors, Status};
use http::header;
use serde_json::Value;

use crate::answer::Answer;
use crate::call::Call;
use crate::change::Part;
use crate::custom_resources::{self, Definition};
use crate::object::{self, set_meta};

pub(crate) use versions::{Translated, has_elsewhere, settle};

/// The longest name of a manager; upstream's.
const NAME_BYTES: usize = 128;
/// Where the list is in an object.
const LIST: &str = "/metadata/managedFields";

/// What the objects of a kind look like.
pub(crate) struct Shape {
    kind: &'static Kind,
    definition: Option<Arc<Definition>>,
}

impl Shape {
    /// As the schema, or the kind's definition, has it now.
    pub(crate) fn of(kind: &'static Kind) -> Self {
        Self { kind, definition: custom_resources::definition_of(kind) }
    }

    /// Where its objects are merged, and where they count as a whole.
    pub(crate) fn type_ref(&self) -> TypeRef<'_> {
        match &self.definition {
            None => TypeRef::of(self.kind),
            Some(definition) if definition.keeps_unknown => TypeRef::Deduced,
            Some(definition) => TypeRef::Custom(&definition.open_api),
        }
    }
}

/// How `managedFields` of a write come about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Books {
    /// The writer wants what it changed.
    Recorded,
    /// The new state brings them: it was applied.
    Brought,
}

/// The query parameters about managers, checked. `options` is the kind they belong to, such as `PatchOptions`.
pub(crate) fn check_options(call: &Call, options: &str) -> Answer<()> {
    let mut errors = FieldErrors::new();
    let name = call.query.get("fieldManager").unwrap_or_default();
    if name.len() > NAME_BYTES {
        errors.too_long("fieldManager", NAME_BYTES);
    }
    if name.chars().any(char::is_control) {
        errors.invalid("fieldManager", name, "should only contain printable characters");
    }
    if options == "PatchOptions" {
        let applies = call.content_type() == APPLY_PATCH;
        if applies && name.is_empty() {
            errors.required("fieldManager", "is required for apply patch");
        }
        if !applies && call.query.get("force").is_some_and(|force| !force.is_empty()) {
            errors.forbidden("force", "may not be specified for non-apply patch");
        }
    }
    if errors.is_empty() {
        Ok(())
    } else {
        Err(Status::invalid_kind("meta.k8s.io", options, "", &errors))
    }
}

/// The media type of a body that is applied.
pub(crate) const APPLY_PATCH: &str = "application/apply-patch+yaml";

/// Who writes: the name it gives itself, or that of its program.
pub(crate) fn writer(call: &Call, kind: &Kind, part: Part, operation: Operation) -> Manager {
    let given = call.query.get("fieldManager").unwrap_or_default();
    let agent = call.headers.get(header::USER_AGENT).and_then(|agent| agent.to_str().ok());
    let name = match (given, agent) {
        ("", Some(agent)) => program(agent),
        ("", None) => component(&call.user.name).to_owned(),
        (given, _) => given.to_owned(),
    };
    Manager {
        name: if name.is_empty() { UNKNOWN.to_owned() } else { name },
        operation,
        api_version: kind.api_version.to_owned(),
        subresource: part.name().to_owned(),
    }
}

const UNKNOWN: &str = "unknown";

/// What stands before the version in a user agent.
fn program(agent: &str) -> String {
    let name = agent.split('/').next().unwrap_or_default();
    let mut program = String::new();
    for letter in name.chars().filter(|letter| !letter.is_control()) {
        if program.len() + letter.len_utf8() > NAME_BYTES {
            break;
        }
        program.push(letter);
    }
    program
}

/// Our components talk to us in memory, without a user agent. They bear the names that upstream's programs have.
fn component(user: &str) -> &str {
    match user.strip_prefix("system:") {
        Some("admin") => "coracle",
        Some("apiserver") => "kube-apiserver",
        Some(user) if user.starts_with("node:") => "kubelet",
        Some(user)
            if user.starts_with("serviceaccount:kube-system:") && user.ends_with("-controller") =>
        {
            "kube-controller-manager"
        }
        Some(user) if !user.contains(':') => user,
        _ => UNKNOWN,
    }
}

/// Takes the list out of an object, as the client sent it.
pub(crate) fn take(object: &mut Value) -> Option<Value> {
    object.get_mut("metadata")?.as_object_mut()?.remove("managedFields")
}

/// Puts entries into an object.
pub(crate) fn put(object: &mut Value, entries: Option<Value>) {
    let entries = entries.filter(|entries| entries.as_array().is_some_and(|list| !list.is_empty()));
    set_meta(object, "managedFields", entries);
}

/// The books of a new object. `sent` is what the client said about them.
pub(crate) fn begin(call: &Call, kind: &'static Kind, object: &mut Value, sent: Option<Value>) {
    let entries = sent.as_ref().and_then(Managed::read).unwrap_or_default().to_json();
    let entries = record_create(
        Shape::of(kind).type_ref(),
        object,
        into_list(entries),
        &writer(call, kind, Part::Whole, Operation::Update),
        &out_of_reach(kind, Part::Whole),
        &object::now(),
    );
    put(object, Some(Value::Array(entries)));
}

/// The books of a changed object. `sent` is what the client said about them; only with the whole object it has a say.
pub(crate) fn record(
    call: &Call,
    kind: &'static Kind,
    part: Part,
    old: &Value,
    new: &mut Value,
    sent: Option<Value>,
) {
    let kept = old.pointer(LIST);
    if part == Part::Subresource("binding") {
        // Upstream gives a pod its node past the books.
        put(new, kept.cloned());
        return;
    }
    let base = match sent {
        Some(sent) if part == Part::Whole && Some(&sent) != kept => {
            if Managed::is_reset(&sent) {
                None
            } else {
                Managed::read(&sent).and_then(|sent| sent.to_json()).or_else(|| kept.cloned())
            }
        }
        Some(sent) if Some(&sent) == kept => Some(sent),
        _ => kept.cloned(),
    };
    let base = into_list(base);
    if base.is_empty() {
        return;
    }
    // What those want who wrote another version is judged in that one.
    let (elsewhere, base): (Vec<Value>, Vec<Value>) = base.into_iter().partition(|entry| {
        entry["apiVersion"].as_str().is_some_and(|version| versions::is_elsewhere(kind, version))
    });
    let entries = record_update(
        Shape::of(kind).type_ref(),
        old,
        new,
        base,
        &writer(call, kind, part, Operation::Update),
        &out_of_reach(kind, part),
        &object::now(),
    );
    put(new, Some(with_others(entries, elsewhere)));
}

/// All entries, in their order.
fn with_others(mut entries: Vec<Value>, others: Vec<Value>) -> Value {
    if others.is_empty() {
        return Value::Array(entries);
    }
    entries.extend(others);
    let all = Value::Array(entries);
    Managed::read(&all).and_then(|all| all.to_json()).unwrap_or(all)
}

fn into_list(entries: Option<Value>) -> Vec<Value> {
    match entries {
        Some(Value::Array(entries)) => entries,
        _ => Vec::new(),
    }
}

/// The fields that a write of this part leaves as they are, whatever it says: upstream's `GetResetFields`.
pub(crate) fn out_of_reach(kind: &Kind, part: Part) -> FieldSet {
    match part {
        Part::Whole if kind.subresource("status").is_some() => FieldSet::of_fields(&["status"]),
        Part::Status => match (kind.group, kind.kind) {
            ("apps", "Deployment") => FieldSet::of_fields(&["spec", "metadata.labels"]),
            ("", "Pod") => FieldSet::of_fields(&[
                "spec",
                "metadata.deletionTimestamp",
                "metadata.ownerReferences",
            ]),
            _ => FieldSet::of_fields(&["spec"]),
        },
        Part::Subresource("approval") => FieldSet::of_fields(&["spec"]),
        Part::Subresource("finalize" | "ephemeralcontainers" | "resize") => {
            FieldSet::of_fields(&["status"])
        }
        _ => FieldSet::default(),
    }
}

/// Whether two states say the same, but for when somebody said so: then nothing has changed.
pub(crate) fn differ_in_times_only(new: &Value, old: &Value) -> bool {
    let (Some(new), Some(old)) = (new.as_object(), old.as_object()) else { return false };
    let same = |one: &serde_json::Map<String, Value>,
                other: &serde_json::Map<String, Value>,
                except: &str| {
        one.len() == other.len()
            && one.iter().all(|(name, value)| name == except || other.get(name) == Some(value))
    };
    let metadata = |object: &serde_json::Map<String, Value>| {
        object.get("metadata").and_then(Value::as_object).cloned().unwrap_or_default()
    };
    if !same(new, old, "metadata") {
        return false;
    }
    let (new, old) = (metadata(new), metadata(old));
    let entries = |metadata: &serde_json::Map<String, Value>| -> Vec<Value> {
        metadata.get("managedFields").and_then(Value::as_array).cloned().unwrap_or_default()
    };
    let (entries, others) = (entries(&new), entries(&old));
    // Their order depends on the times.
    same(&new, &old, "managedFields")
        && entries.len() == others.len()
        && entries.iter().filter_map(Value::as_object).all(|entry| {
            others.iter().filter_map(Value::as_object).any(|other| same(entry, other, "time"))
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writers_are_named_after_their_programs() {
        assert_eq!(program("kubectl/v1.37.1 (linux/amd64) kubernetes/abc"), "kubectl");
        assert_eq!(program(""), "");
        assert_eq!(program(&"x".repeat(200)).len(), NAME_BYTES);
        assert_eq!(component("system:kube-scheduler"), "kube-scheduler");
        assert_eq!(component("system:node:n0"), "kubelet");
        assert_eq!(
            component("system:serviceaccount:kube-system:deployment-controller"),
            "kube-controller-manager"
        );
        assert_eq!(component("alice"), UNKNOWN);
    }

    #[test]
    fn a_new_time_alone_is_no_change() {
        let at = |time: &str, value: i64| {
            serde_json::json!({
                "metadata": { "name": "a", "managedFields": [{ "manager": "m", "time": time, "fieldsV1": { "f:data": {} } }] },
                "data": value,
            })
        };
        assert!(differ_in_times_only(&at("1", 1), &at("2", 1)));
        assert!(!differ_in_times_only(&at("1", 1), &at("1", 2)));
    }
}
