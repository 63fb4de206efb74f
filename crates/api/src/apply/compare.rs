//! What an object consists of, and in what two objects differ.

use std::collections::HashMap;

use serde_json::{Map, Value};

use super::element;
use super::set::FieldSet;
use super::types::{Atom, Entries, Items, TypeRef};

/// The difference between an old and a new object.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Comparison {
    /// What only the new one has.
    pub added: FieldSet,
    /// What only the old one has.
    pub removed: FieldSet,
    /// What both have, with different values.
    pub modified: FieldSet,
}

impl Comparison {
    /// What the writer of the new object wants: what is new, and what is different.
    pub fn taken(&self) -> FieldSet {
        self.modified.clone().union(&self.added)
    }

    /// Without the paths of a set and all below them.
    #[must_use]
    pub fn outside(self, ignored: &FieldSet) -> Self {
        Self {
            added: self.added.outside(ignored),
            removed: self.removed.outside(ignored),
            modified: self.modified.outside(ignored),
        }
    }

    fn graft(&mut self, element: impl Fn() -> String, below: Self) {
        for (mine, below) in [
            (&mut self.added, below.added),
            (&mut self.removed, below.removed),
            (&mut self.modified, below.modified),
        ] {
            if !below.is_empty() {
                mine.graft(&element(), below);
            }
        }
    }

    fn mark(&mut self, old: Option<&Value>, new: Option<&Value>) {
        self.added.is_member |= old.is_none();
        self.removed.is_member |= new.is_none();
    }
}

/// In what `new` differs from `old`.
pub fn compare(type_ref: TypeRef<'_>, old: &Value, new: &Value) -> Comparison {
    walk(type_ref, Some(old), Some(new))
}

fn walk(type_ref: TypeRef<'_>, old: Option<&Value>, new: Option<&Value>) -> Comparison {
    let mut found = Comparison::default();
    let Some(sample) = new.filter(|new| !new.is_null()).or(old) else { return found };
    let size = |value: Option<&Value>| match value {
        Some(Value::Object(fields)) => fields.len(),
        Some(Value::Array(items)) => items.len(),
        _ => 0,
    };
    // Two empty values are leaves: that keeps empty and absent apart.
    let has_parts = size(old) + size(new) > 0;
    match type_ref.resolve(sample) {
        Atom::Map(entries) if has_parts && is_object(old) && is_object(new) => {
            compare_entries(&entries, old, new, &mut found);
        }
        Atom::List(items) if has_parts => compare_items(&items, old, new, &mut found),
        _ => {
            found.modified.is_member = matches!((old, new), (Some(old), Some(new)) if old != new);
        }
    }
    found.mark(old, new);
    found
}

fn is_object(value: Option<&Value>) -> bool {
    value.is_none_or(|value| value.is_object() || value.is_null())
}

fn entries_of(value: Option<&Value>) -> Option<&Map<String, Value>> {
    value.and_then(Value::as_object)
}

fn items_of(value: Option<&Value>) -> &[Value] {
    value.and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

fn compare_entries(
    entries: &Entries<'_>,
    old: Option<&Value>,
    new: Option<&Value>,
    found: &mut Comparison,
) {
    let (old, new) = (entries_of(old), entries_of(new));
    let mut visit = |name: &String, old: Option<&Value>, new: Option<&Value>| {
        let below = walk(entries.child(name).type_ref, old, new);
        found.graft(|| element::field(name), below);
    };
    for (name, value) in old.into_iter().flatten() {
        visit(name, Some(value), new.and_then(|new| new.get(name)));
    }
    for (name, value) in new.into_iter().flatten() {
        if !old.is_some_and(|old| old.contains_key(name)) {
            visit(name, None, Some(value));
        }
    }
}

fn compare_items(
    items: &Items<'_>,
    old: Option<&Value>,
    new: Option<&Value>,
    found: &mut Comparison,
) {
    let (old, new) = (items_of(old), items_of(new));
    if old == new {
        return;
    }
    let (old_names, new_names) = (items.elements(old), items.elements(new));
    let (olds, news) = (by_element(old, &old_names), by_element(new, &new_names));
    for (name, olds) in &olds {
        let news = news.get(name).map(Vec::as_slice).unwrap_or_default();
        found.graft(|| (*name).to_owned(), compare_item(items.item, olds, news));
    }
    for (name, news) in &news {
        if !olds.contains_key(name) {
            found.graft(|| (*name).to_owned(), compare_item(items.item, &[], news));
        }
    }
}

/// Compares the items of one identity. Several are taken together as a whole.
fn compare_item(item: TypeRef<'_>, old: &[&Value], new: &[&Value]) -> Comparison {
    let mut found = match (old, new) {
        ([_, _, ..], [_, _, ..]) => {
            let mut found = Comparison::default();
            found.modified.is_member = old != new;
            return found;
        }
        ([_, _, ..], new) => walk(item, None, new.first().copied()),
        (old, [_, _, ..]) => walk(item, old.first().copied(), None),
        (old, new) => return walk(item, old.first().copied(), new.first().copied()),
    };
    found.removed.is_member |= old.len() > 1;
    found.added.is_member |= new.len() > 1;
    found
}

fn by_element<'v>(list: &'v [Value], names: &'v [String]) -> HashMap<&'v str, Vec<&'v Value>> {
    let mut found: HashMap<&str, Vec<&Value>> = HashMap::with_capacity(list.len());
    for (item, name) in list.iter().zip(names) {
        found.entry(name).or_default().push(item);
    }
    found
}

/// Every path of an object: what somebody wants who applies it.
pub fn field_set(type_ref: TypeRef<'_>, value: &Value) -> FieldSet {
    let mut set = FieldSet::default();
    match (type_ref.resolve(value), value) {
        (Atom::Map(entries), Value::Object(fields)) => {
            for (name, value) in fields {
                let child = entries.child(name);
                let mut below = field_set(child.type_ref, value);
                let is_empty = match value {
                    Value::Null => true,
                    Value::Object(fields) => fields.is_empty(),
                    _ => false,
                };
                below.is_member |= is_empty || !child.is_declared;
                set.graft(&element::field(name), below);
            }
        }
        (Atom::List(items), Value::Array(list)) => {
            let names = items.elements(list);
            for (name, same) in by_element(list, &names) {
                // Items of the same identity are wanted as a whole.
                let mut below = match same.as_slice() {
                    [item] => field_set(items.item, item),
                    _ => FieldSet::default(),
                };
                below.is_member = true;
                set.graft(name, below);
            }
        }
        (Atom::Map(_) | Atom::List(_), Value::Null) => (),
        _ => set.is_member = true,
    }
    set
}
