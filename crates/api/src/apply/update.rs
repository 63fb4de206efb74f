//! Writes, and what they mean for who wants what.

use serde_json::{Map, Value};

use super::compare::{Comparison, compare, field_set};
use super::conflict::{Conflict, Conflicts};
use super::managed::{Entry, Managed, Manager, Operation, sort};
use super::merge::merge;
use super::prune::prune;
use super::set::FieldSet;
use super::types::{Atom, Entries, TypeRef};
use crate::schema::{Fields, Schema, Shape};

/// Entries of updaters that an object has at most; upstream's number. The oldest become one.
const UPDATERS: usize = 10;
/// Whom the oldest entries belong to when they become one.
const ANCIENT: &str = "ancient-changes";
/// Whom what was there before the first apply belongs to, if nobody kept books.
const BEFORE_FIRST_APPLY: &str = "before-first-apply";

/// An apply.
pub struct Apply<'a> {
    /// What the object's kind looks like.
    pub type_ref: TypeRef<'a>,
    /// The object as it is, empty if there is none, without `metadata.managedFields`.
    pub live: &'a Value,
    /// What the client wants.
    pub config: &'a Value,
    /// Who wants what in `live`.
    pub managed: Managed,
    /// Who applies.
    pub manager: Manager,
    /// Whether to take away what others want otherwise.
    pub force: bool,
    /// Fields that this request cannot change, whatever it says.
    pub ignored: &'a FieldSet,
    /// The time, as entries write it.
    pub now: &'a str,
}

/// What an apply leads to.
#[derive(Debug, Clone, PartialEq)]
pub struct Applied {
    /// The object, without `metadata.managedFields`.
    pub object: Value,
    /// Who wants what in it.
    pub managed: Managed,
}

/// Merges what the client wants into the object, takes out what it wanted before and nobody wants now, and says who wants what then.
pub fn apply(request: Apply<'_>) -> Result<Applied, Conflicts> {
    let Apply { type_ref, live, config, mut managed, manager, force, ignored, now } = request;
    if managed.0.is_empty() {
        managed.0.extend(before_first_apply(type_ref, live, &manager, now));
    }
    let before = managed.of(&manager).cloned();
    managed.0.retain(|entry| !entry.manager.is(&manager));

    let fields = field_set(type_ref, config).outside(ignored);
    let merged = merge(type_ref, live, config);
    let object = match &before {
        Some(before) if !before.fields.is_empty() => {
            let others = managed.0.iter().fold(fields.clone(), |all, one| all.union(&one.fields));
            prune(type_ref, &merged, &before.fields, &others)
        }
        _ => merged,
    };
    let difference = compare(type_ref, live, &object).outside(ignored);
    let others = managed.0.len();
    take(&mut managed, &difference, force)?;

    let fields = fields.difference(&nobodys());
    let is_same = object == *live
        && managed.0.len() == others
        && before
            .as_ref()
            .is_some_and(|before| before.fields == fields && before.manager == manager);
    let time = match before {
        Some(before) if is_same => before.time,
        _ => Some(now.to_owned()),
    };
    managed.0.push(Entry { manager, time, fields });
    Ok(Applied { object, managed })
}

/// Takes what changed away from everybody, or says who would not like it.
fn take(managed: &mut Managed, difference: &Comparison, force: bool) -> Result<(), Conflicts> {
    let taken = difference.taken();
    if !force {
        let conflicts = managed.0.iter().map(|entry| Conflict {
            manager: entry.manager.clone(),
            fields: entry.fields.intersection(&taken),
        });
        let mut conflicts: Vec<Conflict> =
            conflicts.filter(|conflict| !conflict.fields.is_empty()).collect();
        if !conflicts.is_empty() {
            conflicts.sort_by(|one, other| one.manager.cmp(&other.manager));
            return Err(Conflicts(conflicts));
        }
    }
    for entry in &mut managed.0 {
        let left = std::mem::take(&mut entry.fields);
        entry.fields = left.difference(&taken).difference(&difference.removed);
    }
    managed.0.retain(|entry| !entry.fields.is_empty());
    Ok(())
}

/// An object of which no books were kept belongs to somebody unknown, so that applying is not taking by stealth.
fn before_first_apply(
    type_ref: TypeRef<'_>,
    live: &Value,
    manager: &Manager,
    now: &str,
) -> Option<Entry> {
    let fields = created(type_ref, live);
    let manager = Manager {
        name: BEFORE_FIRST_APPLY.to_owned(),
        operation: Operation::Update,
        ..manager.clone()
    };
    (!fields.is_empty()).then(|| Entry { manager, time: Some(now.to_owned()), fields })
}

/// The entries of a new object, which `entries` came with: usually none.
pub fn record_create(
    type_ref: TypeRef<'_>,
    object: &Value,
    entries: Vec<Value>,
    manager: &Manager,
    ignored: &FieldSet,
    now: &str,
) -> Vec<Value> {
    let added = created(type_ref, object).outside(ignored);
    record(entries, &Comparison { added, ..Comparison::default() }, manager, now)
}

/// The entries after a client changed `old`, of which `entries` were kept, into `new`.
///
/// Entries must be written as we write them. Those that the change does not touch are not even read.
pub fn record_update(
    type_ref: TypeRef<'_>,
    old: &Value,
    new: &Value,
    entries: Vec<Value>,
    manager: &Manager,
    ignored: &FieldSet,
    now: &str,
) -> Vec<Value> {
    let nobodys = nobodys();
    let Comparison { added, removed, modified } = compare(type_ref, old, new).outside(ignored);
    let difference = Comparison {
        added: added.difference(&nobodys),
        removed: removed.difference(&nobodys),
        modified: modified.difference(&nobodys),
    };
    record(entries, &difference, manager, now)
}

fn record(
    mut entries: Vec<Value>,
    difference: &Comparison,
    manager: &Manager,
    now: &str,
) -> Vec<Value> {
    let taken = difference.taken();
    if taken.is_empty() && difference.removed.is_empty() {
        return entries;
    }
    let gone = taken.clone().union(&difference.removed);
    let (mut mine, mut found) = (Value::Null, false);
    entries.retain_mut(|entry| {
        if !found && Manager::of_entry(entry).is_some_and(|other| other.is(manager)) {
            found = true;
            mine = entry.take();
            return false;
        }
        subtract(entry, &gone)
    });
    let has_left = !mine.is_null() && subtract(&mut mine, &difference.removed);
    if !taken.is_empty() {
        if !has_left {
            let (manager, fields) = (manager.clone(), FieldSet::default());
            mine = Entry { manager, time: None, fields }.to_json();
        }
        if !taken.is_within_json(&mine["fieldsV1"]) || !has_left {
            let before = FieldSet::from_json(&mine["fieldsV1"]).unwrap_or_default();
            mine["fieldsV1"] = before.union(&taken).to_json();
        }
        mine["time"] = now.into();
    }
    if has_left || !taken.is_empty() {
        entries.push(mine);
    }
    cap(&mut entries);
    sort(&mut entries);
    entries
}

/// Takes fields out of an entry; whether anything is left.
fn subtract(entry: &mut Value, gone: &FieldSet) -> bool {
    let fields = &mut entry["fieldsV1"];
    if !gone.touches_json(fields) {
        return true;
    }
    let left = FieldSet::from_json(fields).unwrap_or_default().difference(gone);
    *fields = left.to_json();
    !left.is_empty()
}

/// Makes one entry of the oldest ones of updaters, for each version of the kind that they wrote, when there are too many.
fn cap(entries: &mut Vec<Value>) {
    let is_update = |entry: &Value| entry["operation"] == "Update";
    let mut updaters = entries.iter().filter(|entry| is_update(entry)).count();
    if updaters <= UPDATERS {
        return;
    }
    sort(entries);
    let start = entries.iter().position(is_update).unwrap_or_default();
    let mut left: Vec<Value> = entries.split_off(start);
    let mut merged: Vec<Value> = Vec::new();
    while updaters > UPDATERS && !left.is_empty() {
        let next = left.remove(0);
        let same = merged.iter_mut().find(|entry| entry["apiVersion"] == next["apiVersion"]);
        let Some(bucket) = same else {
            merged.push(next);
            continue;
        };
        let set = |entry: &Value| FieldSet::from_json(&entry["fieldsV1"]).unwrap_or_default();
        bucket["fieldsV1"] = set(bucket).union(&set(&next)).to_json();
        bucket["time"] = next["time"].clone();
        bucket["manager"] = ANCIENT.into();
        if let Some(bucket) = bucket.as_object_mut() {
            bucket.remove("subresource");
        }
        updaters -= 1;
    }
    entries.append(&mut merged);
    entries.append(&mut left);
}

/// The fields of which a former client-side apply left word in `last_applied`, and which are still as it wanted them.
pub fn unchanged_since(type_ref: TypeRef<'_>, last_applied: &Value, live: &Value) -> FieldSet {
    let Comparison { added, removed, modified } = compare(type_ref, last_applied, live);
    let fields = field_set(type_ref, last_applied);
    fields.difference(&modified).difference(&added).difference(&removed)
}

/// What is nobody's: the server's own fields, and what identifies the object.
fn nobodys() -> FieldSet {
    FieldSet::of_fields(&[
        "apiVersion",
        "kind",
        "metadata",
        "metadata.name",
        "metadata.namespace",
        "metadata.creationTimestamp",
        "metadata.selfLink",
        "metadata.uid",
        "metadata.clusterName",
        "metadata.generation",
        "metadata.managedFields",
        "metadata.resourceVersion",
    ])
}

/// What the creator of an object wants: all of it, but for what is there in an object that says nothing.
fn created(type_ref: TypeRef<'_>, object: &Value) -> FieldSet {
    let empty = Value::Object(Map::new());
    let mut added = compare(type_ref, &empty, object).added;
    if let Atom::Map(Entries::Struct(fields)) = type_ref.resolve(object) {
        leave_out_inline(fields, &mut added);
    }
    added.difference(&nobodys())
}

/// In Go some structs are always there: nobody makes them by writing into them, so they are no members of a set.
fn leave_out_inline(fields: &'static Fields, set: &mut FieldSet) {
    let schema = Schema::get();
    for field in fields {
        let element = super::element::field(field.name);
        let Some(below) = set.children.get_mut(&*element) else { continue };
        let found = schema.type_(field.type_id);
        match &found.shape {
            Shape::Object(inner) if is_inline(found.name) => {
                below.is_member = false;
                leave_out_inline(inner, below);
            }
            // A list that must be there is `null` in an object that says nothing.
            Shape::List { .. } if field.required && !below.children.is_empty() => {
                below.is_member = false;
            }
            _ => continue,
        }
        if below.is_empty() {
            set.children.remove(&*element);
        }
    }
}

/// Whether upstream's types hold this struct itself, not a pointer to it.
fn is_inline(name: &str) -> bool {
    let name = name.rsplit('.').next().unwrap_or_default();
    matches!(
        name,
        "ObjectMeta"
            | "DeploymentStrategy"
            | "DaemonSetUpdateStrategy"
            | "StatefulSetUpdateStrategy"
            | "LoadBalancerStatus"
            | "NodeDaemonEndpoints"
            | "NodeSystemInfo"
            | "RoleRef"
            | "CrossVersionObjectReference"
            | "CustomResourceDefinitionNames"
            | "IPBlock"
    ) || name.ends_with("Spec")
        || name.ends_with("Status")
}
