//! Taking out of an object what its applier wanted and no longer wants.

use serde_json::{Map, Value};

use super::compare::field_set;
use super::element;
use super::set::FieldSet;
use super::types::{Atom, TypeRef};

/// `merged` without what `last` names, the applier's former wishes, and nobody wants now.
///
/// In upstream's words: remove the former set; add back what anybody owns; add back what the applier never owned.
pub(super) fn prune(
    type_ref: TypeRef<'_>,
    merged: &Value,
    last: &FieldSet,
    wanted: &FieldSet,
) -> Value {
    let last = last.with_structs(type_ref);
    let all = field_set(type_ref, merged).with_structs(type_ref);
    let set_of = |value: &Value| field_set(type_ref, value).with_structs(type_ref);

    let pruned = remove(type_ref, merged, &last);
    let kept = set_of(&pruned).union(&wanted.with_structs(type_ref));
    let owned = remove(type_ref, merged, &all.clone().difference(&kept));
    let gone = all.difference(&set_of(&owned)).intersection(&last);
    remove(type_ref, merged, &gone)
}

/// An object without what a manager wants of it.
pub fn without(type_ref: TypeRef<'_>, object: &Value, fields: &FieldSet) -> Value {
    remove(type_ref, object, &fields.clone().with_structs(type_ref))
}

/// A value without the paths of a set; a map or list that loses its last part goes, too.
pub(super) fn remove(type_ref: TypeRef<'_>, value: &Value, set: &FieldSet) -> Value {
    remove_parts(type_ref, value, set).unwrap_or_else(|| match value {
        Value::Array(_) => Value::Array(Vec::new()),
        _ => Value::Object(Map::new()),
    })
}

fn remove_parts(type_ref: TypeRef<'_>, value: &Value, set: &FieldSet) -> Option<Value> {
    match (type_ref.resolve(value), value) {
        (Atom::Map(entries), Value::Object(fields)) if !fields.is_empty() => {
            let mut kept = Map::new();
            for (name, value) in fields {
                let left = match set.below(&element::field(name)) {
                    None => Some(value.clone()),
                    Some(below) if below.is_member => None,
                    Some(below) => remove_parts(entries.child(name).type_ref, value, below),
                };
                if let Some(left) = left {
                    kept.insert(name.clone(), left);
                }
            }
            Some(Value::Object(kept)).filter(|kept| !is_empty(kept))
        }
        (Atom::List(items), Value::Array(list)) if !list.is_empty() => {
            let names = items.elements(list);
            let kept = list.iter().zip(&names).filter_map(|(item, name)| match set.below(name) {
                None => Some(item.clone()),
                Some(below) if below.is_member => None,
                Some(below) => remove_parts(items.item, item, below),
            });
            Some(Value::Array(kept.collect())).filter(|kept| !is_empty(kept))
        }
        _ => Some(value.clone()),
    }
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Object(fields) => fields.is_empty(),
        Value::Array(items) => items.is_empty(),
        _ => false,
    }
}
