//! Strategic merge patches: lists are merged by the keys that the schema publishes, and directives inside the patch
//! replace, delete, order and retain. The behaviour is that of `apimachinery/pkg/util/strategicpatch/patch.go`.

use serde_json::{Map, Value};

use super::PatchError;
use crate::schema::{Field, Schema, Shape, TypeId};

const PATCH: &str = "$patch";
const RETAIN_KEYS: &str = "$retainKeys";
const ELEMENT_ORDER: &str = "$setElementOrder/";
const DELETE_FROM_LIST: &str = "$deleteFromPrimitiveList/";

type Object = Map<String, Value>;

pub(super) fn apply(type_id: TypeId, original: Object, patch: Object) -> Result<Value, PatchError> {
    merge_objects(original, patch, Some(type_id)).map(Value::Object)
}

/// How the items of one list are told apart.
#[derive(Clone, Copy)]
enum Identity<'a> {
    /// By themselves.
    Scalar,
    /// By the value of this key.
    Key(&'a str),
}

fn merge_objects(
    mut original: Object,
    mut patch: Object,
    type_: Option<TypeId>,
) -> Result<Object, PatchError> {
    if let Some(directive) = patch.remove(PATCH) {
        return match directive.as_str() {
            Some("replace") => Ok(without_directives(patch)),
            Some("delete") => Ok(Object::new()),
            Some("merge") => merge_objects(original, patch, type_),
            _ => Err(unknown_directive(&directive, &patch)),
        };
    }
    retain_keys(&mut original, &mut patch)?;
    merge_ordered_lists(&mut original, &mut patch, type_)?;
    for (key, value) in patch {
        if let Some(list) = key.strip_prefix(DELETE_FROM_LIST) {
            delete_scalars(&mut original, list, &value);
            continue;
        }
        if value.is_null() {
            original.remove(&key);
            continue;
        }
        let merged = match (original.remove(&key), value) {
            (Some(Value::Object(old)), Value::Object(new)) => {
                Value::Object(merge_objects(old, new, member_type(type_, &key))?)
            }
            (Some(Value::Array(old)), Value::Array(new)) => {
                match field(type_, &key).filter(|field| field.patch_merge) {
                    Some(field) => Value::Array(merge_lists(old, new, field)?),
                    None => clean(Value::Array(new)),
                }
            }
            (_, new) => clean(new),
        };
        original.insert(key, merged);
    }
    Ok(original)
}

/// `$retainKeys: [a, b]`: whatever is not named goes.
fn retain_keys(original: &mut Object, patch: &mut Object) -> Result<(), PatchError> {
    let Some(directive) = patch.remove(RETAIN_KEYS) else { return Ok(()) };
    let malformed = || PatchError::Malformed("invalid patch format of retainKeys".to_owned());
    let retained = directive.as_array().ok_or_else(malformed)?;
    let is_retained = |key: &str| retained.iter().any(|name| name == key);
    for (key, value) in patch.iter() {
        let directive = key.starts_with(ELEMENT_ORDER) || key.starts_with(DELETE_FROM_LIST);
        if !value.is_null() && !directive && !is_retained(key) {
            return Err(malformed());
        }
    }
    original.retain(|key, _| is_retained(key));
    Ok(())
}

/// `$setElementOrder/list: [...]`: merges that list, and puts it into this order.
fn merge_ordered_lists(
    original: &mut Object,
    patch: &mut Object,
    type_: Option<TypeId>,
) -> Result<(), PatchError> {
    let directives: Vec<String> =
        patch.keys().filter(|key| key.starts_with(ELEMENT_ORDER)).cloned().collect();
    for directive in directives {
        let malformed =
            || PatchError::Malformed("invalid patch format of setElementOrder list".to_owned());
        let Some(Value::Array(order)) = patch.remove(&directive) else { return Err(malformed()) };
        let name = directive.trim_start_matches(ELEMENT_ORDER);
        let Some(field) = field(type_, name).filter(|field| field.patch_merge) else { continue };
        let new = match patch.remove(name) {
            Some(Value::Array(new)) => Some(new),
            None => None,
            Some(other) => {
                patch.insert(name.to_owned(), other);
                continue;
            }
        };
        let old = match original.get(name) {
            Some(Value::Array(old)) => Some(old.clone()),
            _ => None,
        };
        let identity = identity(field, order.first().or(new.as_ref().and_then(|new| new.first())))?;
        let unordered =
            |item: &Value| !is_directive(item) && position(&order, item, identity).is_none();
        if new.iter().flatten().any(unordered) {
            return Err(malformed());
        }
        // Scalars that the patch also deletes must not come back by being named in no order.
        let merged = match (old.clone(), new) {
            (Some(old), Some(new)) => merge_lists(old, new, field)?,
            (None, Some(new)) => merge_lists(Vec::new(), new, field)?,
            (Some(old), None) => old,
            (None, None) => continue,
        };
        original.insert(
            name.to_owned(),
            Value::Array(in_order(merged, &order, &old.unwrap_or_default(), identity)),
        );
    }
    Ok(())
}

fn merge_lists(old: Vec<Value>, new: Vec<Value>, field: &Field) -> Result<Vec<Value>, PatchError> {
    let identity = identity(field, old.first().or(new.first()))?;
    let Identity::Key(key) = identity else {
        let mut merged = old.clone();
        for item in &new {
            if !merged.contains(item) {
                merged.push(item.clone());
            }
        }
        return Ok(in_order(merged, &new, &old, identity));
    };
    let item_type = match &Schema::get().type_(field.type_id).shape {
        Shape::List { item } => Some(*item),
        _ => None,
    };
    let (kept, new) = apply_item_directives(old.clone(), new, key)?;
    let mut merged = kept;
    for item in &new {
        let Value::Object(item_object) = item else { return Err(no_merge_key(item, key)) };
        if !item_object.contains_key(key) {
            return Err(no_merge_key(item, key));
        }
        match position(&merged, item, identity) {
            Some(at) => {
                let Value::Object(existing) = std::mem::take(&mut merged[at]) else { continue };
                merged[at] =
                    Value::Object(merge_objects(existing, item_object.clone(), item_type)?);
            }
            None => merged.push(clean(item.clone())),
        }
    }
    Ok(in_order(merged, &new, &old, identity))
}

/// Items that are directives: `{$patch: replace}` replaces the whole list, `{$patch: delete, KEY: ...}` one item.
fn apply_item_directives(
    mut old: Vec<Value>,
    new: Vec<Value>,
    key: &str,
) -> Result<(Vec<Value>, Vec<Value>), PatchError> {
    let mut plain = Vec::with_capacity(new.len());
    let mut replace = false;
    for mut item in new {
        match item.as_object_mut().and_then(|object| object.remove(PATCH)) {
            None => plain.push(item),
            Some(directive) => match directive.as_str() {
                Some("delete") => {
                    if item.get(key).is_none() {
                        return Err(no_merge_key(&item, key));
                    }
                    old.retain(|existing| existing.get(key) != item.get(key));
                }
                Some("replace") => replace = true,
                Some("merge") => plain.push(item),
                _ => {
                    return Err(unknown_directive(
                        &directive,
                        item.as_object().unwrap_or(&Object::new()),
                    ));
                }
            },
        }
    }
    Ok(if replace { (plain.into_iter().map(clean).collect(), Vec::new()) } else { (old, plain) })
}

/// `$deleteFromPrimitiveList/list: [...]`.
fn delete_scalars(original: &mut Object, list: &str, deleted: &Value) {
    if let (Some(Value::Array(items)), Some(deleted)) = (original.get_mut(list), deleted.as_array())
    {
        items.retain(|item| !deleted.contains(item));
    }
}

/// The items named in `order` in that order, and between them the others, where they stood in `old`.
fn in_order(
    merged: Vec<Value>,
    order: &[Value],
    old: &[Value],
    identity: Identity<'_>,
) -> Vec<Value> {
    let (mut named, mut others): (Vec<Value>, Vec<Value>) =
        merged.into_iter().partition(|item| position(order, item, identity).is_some());
    named.sort_by_key(|item| position(order, item, identity));
    others.sort_by_key(|item| position(old, item, identity));
    let mut sorted = Vec::with_capacity(named.len() + others.len());
    let (mut named, mut others) = (named.into_iter().peekable(), others.into_iter().peekable());
    while let (Some(name), Some(other)) = (named.peek(), others.peek()) {
        let other_first = match (position(old, other, identity), position(old, name, identity)) {
            (Some(other), Some(name)) => other < name,
            _ => false,
        };
        sorted.extend(if other_first { others.next() } else { named.next() });
    }
    sorted.extend(named);
    sorted.extend(others);
    sorted
}

fn position(list: &[Value], item: &Value, identity: Identity<'_>) -> Option<usize> {
    list.iter().position(|candidate| match identity {
        Identity::Scalar => candidate == item,
        Identity::Key(key) => item.get(key).is_some() && candidate.get(key) == item.get(key),
    })
}

/// Whether the items of a list are told apart by themselves or by the field's merge key.
fn identity<'a>(field: &'a Field, sample: Option<&Value>) -> Result<Identity<'a>, PatchError> {
    match (field.patch_merge_key, sample) {
        (Some(key), _) => Ok(Identity::Key(key)),
        (None, Some(Value::Object(_))) => Err(PatchError::Inapplicable(format!(
            "cannot merge the list {} without a merge key",
            field.name
        ))),
        (None, _) => Ok(Identity::Scalar),
    }
}

fn is_directive(item: &Value) -> bool {
    item.get(PATCH).is_some()
}

/// A value of the patch that meets nothing in the object: directives and nulls have done their work.
fn clean(value: Value) -> Value {
    match value {
        Value::Object(object) => Value::Object(without_directives(object)),
        Value::Array(items) => {
            let dropped =
                |item: &Value| item.get(PATCH).is_some_and(|directive| directive != "merge");
            Value::Array(items.into_iter().filter(|item| !dropped(item)).map(clean).collect())
        }
        scalar => scalar,
    }
}

fn without_directives(object: Object) -> Object {
    let is_plain = |key: &str| {
        key != PATCH
            && key != RETAIN_KEYS
            && !key.starts_with(ELEMENT_ORDER)
            && !key.starts_with(DELETE_FROM_LIST)
    };
    object
        .into_iter()
        .filter(|(key, value)| is_plain(key) && !value.is_null())
        .map(|(key, value)| (key, clean(value)))
        .collect()
}

fn field(type_: Option<TypeId>, name: &str) -> Option<&'static Field> {
    match &Schema::get().type_(type_?).shape {
        Shape::Object(fields) => fields.get(name),
        _ => None,
    }
}

fn member_type(type_: Option<TypeId>, name: &str) -> Option<TypeId> {
    match &Schema::get().type_(type_?).shape {
        Shape::Object(fields) => fields.get(name).map(|field| field.type_id),
        Shape::Map { value } => Some(*value),
        Shape::Either { object, .. } => member_type(Some(*object), name),
        _ => None,
    }
}

fn unknown_directive(directive: &Value, patch: &Object) -> PatchError {
    let directive = directive.as_str().map_or_else(|| directive.to_string(), str::to_owned);
    let patch = Value::Object(patch.clone());
    PatchError::Inapplicable(format!("unknown patch type: {directive} in map: {patch}"))
}

fn no_merge_key(item: &Value, key: &str) -> PatchError {
    PatchError::Inapplicable(format!("map: {item} does not contain declared merge key: {key}"))
}
