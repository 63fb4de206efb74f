//! Where values are merged, and where they count as a whole.

use serde_json::Value;

use super::element;
use crate::kinds::Kind;
use crate::schema::{Field, Fields, ListType, Schema, Shape, TypeId};

/// What is known about a place in an object.
#[derive(Debug, Clone, Copy)]
pub enum TypeRef<'s> {
    /// A type of the schema, and the field that holds it, which may say how its list or map is merged.
    Known {
        /// The type.
        type_id: TypeId,
        /// The field, unless it is the root or an item.
        field: Option<&'static Field>,
    },
    /// A whole object of a kind made at run time, or one that stands in it; its `openAPIV3Schema`.
    Custom(&'s Value),
    /// A part of such an object, and its part of the schema.
    Structural(&'s Value),
    /// Nothing: maps are merged, lists count as a whole.
    Deduced,
    /// It counts as a whole, whatever it is.
    Leaf,
}

/// What to do with a value.
pub(super) enum Atom<'s> {
    /// Take it as a whole.
    Leaf,
    /// Merge item by item.
    List(Items<'s>),
    /// Merge field by field.
    Map(Entries<'s>),
}

/// A list whose items have identities.
pub(super) struct Items<'s> {
    pub(super) item: TypeRef<'s>,
    /// The fields that identify an item; none when items are their own keys.
    pub(super) keys: Vec<&'s str>,
}

/// The fields of a struct or the entries of a map.
pub(super) enum Entries<'s> {
    Struct(&'static Fields),
    Values(TypeRef<'s>),
    Custom(&'s Value),
    Structural(&'s Value),
}

/// What is under one name.
pub(super) struct Child<'s> {
    pub(super) type_ref: TypeRef<'s>,
    /// Whether the schema names it; entries of maps are not named.
    pub(super) is_declared: bool,
    /// Whether it may be there at all.
    pub(super) is_allowed: bool,
}

impl<'s> TypeRef<'s> {
    /// The type of objects of a kind; [`TypeRef::Deduced`] for kinds that the schema does not know.
    pub fn of(kind: &Kind) -> Self {
        match Schema::get().of(kind) {
            Some(type_id) => Self::Known { type_id, field: None },
            None => Self::Deduced,
        }
    }

    /// The same for a kind that has no resource of its own, such as a Scale.
    pub fn named(group: &str, version: &str, kind: &str) -> Self {
        match Schema::get().kind_type(group, version, kind) {
            Some(type_id) => Self::Known { type_id, field: None },
            None => Self::Deduced,
        }
    }

    /// What to do with a value of this type. The value decides where the type leaves it open.
    pub(super) fn resolve(self, value: &Value) -> Atom<'s> {
        match self {
            Self::Known { type_id, field } => known(type_id, field, value),
            Self::Custom(schema) => Atom::Map(Entries::Custom(schema)),
            Self::Structural(schema) => structural(schema, value),
            Self::Deduced if value.is_object() => Atom::Map(Entries::Values(Self::Deduced)),
            Self::Deduced | Self::Leaf => Atom::Leaf,
        }
    }
}

fn known<'s>(type_id: TypeId, field: Option<&'static Field>, value: &Value) -> Atom<'s> {
    let found = Schema::get().type_(type_id);
    let plain = |type_id| TypeRef::Known { type_id, field: None };
    let is_atomic = found.atomic || field.is_some_and(|field| field.atomic);
    match &found.shape {
        Shape::List { item } => match field {
            Some(field) if field.list_type != ListType::Atomic => {
                Atom::List(Items { item: plain(*item), keys: field.list_map_keys.clone() })
            }
            _ => Atom::Leaf,
        },
        _ if is_atomic => Atom::Leaf,
        Shape::Object(fields) => Atom::Map(Entries::Struct(fields)),
        Shape::Map { value } => Atom::Map(Entries::Values(plain(*value))),
        Shape::Either { object, .. } if value.is_object() => known(*object, None, value),
        // `RawExtension` and the like: their fields are apart, and each counts as a whole.
        Shape::Any if value.is_object() => Atom::Map(Entries::Values(TypeRef::Leaf)),
        _ => Atom::Leaf,
    }
}

fn structural<'s>(schema: &'s Value, value: &Value) -> Atom<'s> {
    let text = |key: &str| schema.get(key).and_then(Value::as_str).unwrap_or_default();
    let flag = |key: &str| schema.get(key).and_then(Value::as_bool).unwrap_or_default();
    if flag("x-kubernetes-int-or-string") {
        return Atom::Leaf;
    }
    match text("type") {
        "array" => {
            let keys = match text("x-kubernetes-list-type") {
                "set" => Vec::new(),
                "map" => {
                    let keys = schema.get("x-kubernetes-list-map-keys").and_then(Value::as_array);
                    keys.into_iter().flatten().filter_map(Value::as_str).collect()
                }
                _ => return Atom::Leaf,
            };
            let item = schema.get("items").map_or(TypeRef::Deduced, TypeRef::Structural);
            Atom::List(Items { item, keys })
        }
        "object" if text("x-kubernetes-map-type") == "atomic" => Atom::Leaf,
        "object" if flag("x-kubernetes-embedded-resource") => {
            TypeRef::Custom(schema).resolve(value)
        }
        "object"
            if schema.get("properties").is_some()
                || schema.get("additionalProperties").is_some() =>
        {
            Atom::Map(Entries::Structural(schema))
        }
        "object" | "" => TypeRef::Deduced.resolve(value),
        _ => Atom::Leaf,
    }
}

impl<'s> Entries<'s> {
    /// What is known about the value under `name`.
    pub(super) fn child(&self, name: &str) -> Child<'s> {
        let declared = |type_ref| Child { type_ref, is_declared: true, is_allowed: true };
        match self {
            Self::Struct(fields) => match fields.get(name) {
                Some(field) => {
                    declared(TypeRef::Known { type_id: field.type_id, field: Some(field) })
                }
                None => Child { type_ref: TypeRef::Deduced, is_declared: false, is_allowed: false },
            },
            Self::Values(type_ref) => {
                Child { type_ref: *type_ref, is_declared: false, is_allowed: true }
            }
            Self::Custom(schema) => match name {
                "apiVersion" | "kind" => declared(TypeRef::Leaf),
                "metadata" => declared(object_meta()),
                _ => structural_child(schema, name),
            },
            Self::Structural(schema) => structural_child(schema, name),
        }
    }
}

fn object_meta<'s>() -> TypeRef<'s> {
    let type_id = Schema::get().by_name("io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta");
    type_id.map_or(TypeRef::Deduced, |type_id| TypeRef::Known { type_id, field: None })
}

fn structural_child<'s>(schema: &'s Value, name: &str) -> Child<'s> {
    if let Some(property) = schema.get("properties").and_then(|properties| properties.get(name)) {
        let type_ref = TypeRef::Structural(property);
        return Child { type_ref, is_declared: true, is_allowed: true };
    }
    if let Some(values) = schema.get("additionalProperties").filter(|values| values.is_object()) {
        let type_ref = TypeRef::Structural(values);
        return Child { type_ref, is_declared: false, is_allowed: true };
    }
    let keeps_unknown = schema.get("x-kubernetes-preserve-unknown-fields")
        == Some(&Value::Bool(true))
        || schema.get("additionalProperties") == Some(&Value::Bool(true))
        || (schema.get("properties").is_none() && schema.get("additionalProperties").is_none());
    Child { type_ref: TypeRef::Deduced, is_declared: false, is_allowed: keeps_unknown }
}

impl Items<'_> {
    /// The path element of an item, or what is wrong with it.
    pub(super) fn element(&self, item: &Value) -> Result<String, String> {
        if self.keys.is_empty() {
            return match item {
                Value::Object(_) => {
                    Err("associative list without keys has an element that's a map type".to_owned())
                }
                Value::Array(_) => {
                    Err("not supported: associative list with lists as elements".to_owned())
                }
                Value::Null => {
                    Err("associative list without keys has an element that's an explicit null"
                        .to_owned())
                }
                _ => Ok(element::value(item)),
            };
        }
        let Value::Object(fields) = item else {
            let what = if item.is_null() { "a null element" } else { "non-map elements" };
            return Err(format!("associative list with keys may not have {what}"));
        };
        let found = self.keys.iter().filter_map(|&key| {
            let value = fields.get(key).cloned().or_else(|| self.default(key))?;
            Some((key.to_owned(), value))
        });
        let found: serde_json::Map<String, Value> = found.collect();
        if found.is_empty() {
            let names: Vec<String> = self.keys.iter().map(|key| format!("{key:?}")).collect();
            return Err(format!(
                "associative list with keys has an element that omits key field {} (and doesn't have default value)",
                names.join(", ")
            ));
        }
        Ok(element::key(&found))
    }

    /// The value that an absent key stands for.
    fn default(&self, key: &str) -> Option<Value> {
        match self.item {
            TypeRef::Known { type_id, .. } => {
                let Shape::Object(fields) = &Schema::get().type_(type_id).shape else {
                    return None;
                };
                serde_json::from_str(fields.get(key)?.default?).ok()
            }
            TypeRef::Structural(schema) => {
                schema.get("properties")?.get(key)?.get("default").cloned()
            }
            _ => None,
        }
    }

    /// The elements of all items. Of an item without identity, its place: it can be compared, not wanted.
    pub(super) fn elements(&self, list: &[Value]) -> Vec<String> {
        let elements = list.iter().enumerate();
        elements
            .map(|(index, item)| self.element(item).unwrap_or_else(|_| element::index(index)))
            .collect()
    }
}
