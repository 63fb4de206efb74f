//! What the objects look like: every definition of the API with its fields, list keys, patch strategies and protobuf
//! tags.
//!
//! The data is `schema/structure.txt`, written by `cargo xtask schema`; it is read once, on first use, into an arena,
//! in which types refer to each other by [`TypeId`].

use std::collections::HashMap;
use std::sync::LazyLock;

use crate::kinds::Kind;

mod load;

const STRUCTURE: &str = include_str!("../schema/structure.txt");

/// All types; get it with [`Schema::get`].
#[derive(Debug)]
pub struct Schema {
    types: Vec<Type>,
    by_name: HashMap<&'static str, TypeId>,
    by_kind: HashMap<(&'static str, &'static str, &'static str), TypeId>,
}

/// A type's place in the arena.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TypeId(u32);

/// One type.
#[derive(Debug, Clone, PartialEq)]
pub struct Type {
    /// Upstream's name of the definition, such as `io.k8s.api.core.v1.Container`; for types without one, how the
    /// structure file writes them, such as `[]string`.
    pub name: &'static str,
    /// What its values are.
    pub shape: Shape,
    /// Whether server-side apply takes the struct as a whole wherever it stands.
    pub atomic: bool,
}

/// What the values of a type are.
#[derive(Debug, Clone, PartialEq)]
pub enum Shape {
    /// Text.
    String,
    /// A 32-bit integer.
    Int32,
    /// A 64-bit integer.
    Int64,
    /// A floating-point number.
    Number,
    /// `true` or `false`.
    Bool,
    /// Bytes as base64 text.
    Bytes,
    /// An integer or text.
    IntOrString,
    /// An amount; see [`crate::quantity`].
    Quantity,
    /// A time to the second.
    Time,
    /// A time to the microsecond.
    MicroTime,
    /// Any JSON: `RawExtension`, `FieldsV1`, `JSON`.
    Any,
    /// A list of one type.
    List {
        /// The type of each item.
        item: TypeId,
    },
    /// A map from text to one type.
    Map {
        /// The type of each value.
        value: TypeId,
    },
    /// A struct.
    Object(Fields),
    /// A struct, or something that is no JSON object.
    Either {
        /// The struct.
        object: TypeId,
        /// The other.
        other: TypeId,
    },
}

/// The fields of a struct, sorted by name.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Fields(Vec<Field>);

/// One field of a struct.
#[derive(Debug, Clone, PartialEq)]
pub struct Field {
    /// Its name in JSON.
    pub name: &'static str,
    /// The type of its value.
    pub type_id: TypeId,
    /// Whether the OpenAPI document demands it.
    pub required: bool,
    /// Whether a zero value, of an optional scalar, says something else than absence.
    pub pointer: bool,
    /// How server-side apply merges a list.
    pub list_type: ListType,
    /// What identifies an item of a [`ListType::Map`].
    pub list_map_keys: Vec<&'static str>,
    /// Whether a strategic merge patch merges the list, instead of replacing it.
    pub patch_merge: bool,
    /// Whether a strategic merge patch may name the keys to keep.
    pub patch_retain_keys: bool,
    /// What identifies an item for a strategic merge patch; none for lists of scalars.
    pub patch_merge_key: Option<&'static str>,
    /// Whether server-side apply replaces the map or struct as a whole.
    pub atomic: bool,
    /// The value, as JSON, that an absent field stands for; server-side apply needs it for keys of lists.
    pub default: Option<&'static str>,
    /// Protobuf tags from the outside in: several where upstream's message wraps what JSON shows inline; empty where
    /// the tag is not known.
    pub proto_tags: Vec<u32>,
}

/// How server-side apply merges a list.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum ListType {
    /// It replaces the list as a whole.
    #[default]
    Atomic,
    /// Items are their own keys.
    Set,
    /// Items have keys.
    Map,
}

impl Schema {
    /// The schema, loaded on first use.
    pub fn get() -> &'static Self {
        static SCHEMA: LazyLock<Schema> = LazyLock::new(|| {
            load::read(STRUCTURE)
                .expect("the structure file is generated and tested: it can be read")
        });
        &SCHEMA
    }

    /// The type of the objects of a kind, `Scale` and the like included.
    pub fn kind_type(&self, group: &str, version: &str, kind: &str) -> Option<TypeId> {
        self.by_kind.get(&(group, version, kind)).copied()
    }

    /// The type of the objects of a kind of the table.
    pub fn of(&self, kind: &Kind) -> Option<TypeId> {
        self.kind_type(kind.group, kind.version, kind.kind)
    }

    /// The definition with upstream's name.
    pub fn by_name(&self, name: &str) -> Option<TypeId> {
        self.by_name.get(name).copied()
    }

    /// The type at a place in the arena.
    pub fn type_(&self, id: TypeId) -> &Type {
        &self.types[id.0 as usize]
    }

    /// Every type with its place.
    pub fn types(&self) -> impl Iterator<Item = (TypeId, &Type)> {
        (0..).map(TypeId).zip(&self.types)
    }

    /// The field at a dotted path below a type, through lists and maps: `spec.template.spec.containers`.
    pub fn field_at(&self, id: TypeId, path: &str) -> Option<&Field> {
        let mut at = id;
        let mut found = None;
        for name in path.split('.') {
            let field = self.fields(at)?.get(name)?;
            at = field.type_id;
            found = Some(field);
        }
        found
    }

    /// The fields of a struct, or of the items of lists and maps of structs.
    fn fields(&self, id: TypeId) -> Option<&Fields> {
        match &self.type_(id).shape {
            Shape::Object(fields) => Some(fields),
            Shape::List { item: inner }
            | Shape::Map { value: inner }
            | Shape::Either { object: inner, .. } => self.fields(*inner),
            _ => None,
        }
    }
}

impl Fields {
    /// The field with this name.
    pub fn get(&self, name: &str) -> Option<&Field> {
        let at = self.0.binary_search_by(|field| field.name.cmp(name)).ok()?;
        self.0.get(at)
    }

    /// Each field in order of names.
    pub fn iter(&self) -> std::slice::Iter<'_, Field> {
        self.0.iter()
    }
}

impl<'a> IntoIterator for &'a Fields {
    type Item = &'a Field;
    type IntoIter = std::slice::Iter<'a, Field>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl FromIterator<Field> for Fields {
    fn from_iter<T: IntoIterator<Item = Field>>(fields: T) -> Self {
        let mut fields: Vec<Field> = fields.into_iter().collect();
        fields.sort_by_key(|field| field.name);
        Self(fields)
    }
}

#[cfg(test)]
mod tests;
