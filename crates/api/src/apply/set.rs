//! Sets of fields, and their algebra.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::element::{self, SELF};
use super::types::{Atom, TypeRef};

/// A set of paths, as a tree: each node says whether the path that ends here belongs to the set.
///
/// No node but the root is empty: without members below, there is no node.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FieldSet {
    pub(super) is_member: bool,
    pub(super) children: BTreeMap<Box<str>, FieldSet>,
}

impl FieldSet {
    /// The set of these paths through named fields, each written as `spec.replicas`.
    pub fn of_fields(paths: &[&str]) -> Self {
        let mut set = Self::default();
        for path in paths {
            set.insert(path.split('.').map(element::field));
        }
        set
    }

    /// Adds the path of these elements.
    pub(super) fn insert(&mut self, path: impl IntoIterator<Item = String>) {
        let mut node = self;
        for element in path {
            node = node.children.entry(element.into()).or_default();
        }
        node.is_member = true;
    }

    /// Whether no path belongs to the set.
    pub fn is_empty(&self) -> bool {
        !self.is_member && self.children.is_empty()
    }

    /// What is below an element.
    pub(super) fn below(&self, element: &str) -> Option<&Self> {
        self.children.get(element)
    }

    /// Puts a set below an element; an empty one leaves no trace.
    pub(super) fn graft(&mut self, element: &str, below: Self) {
        if !below.is_empty() {
            self.children.insert(element.into(), below);
        }
    }

    /// The paths of either.
    #[must_use]
    pub fn union(mut self, other: &Self) -> Self {
        self.extend(other);
        self
    }

    fn extend(&mut self, other: &Self) {
        self.is_member |= other.is_member;
        for (element, below) in &other.children {
            match self.children.get_mut(element) {
                Some(mine) => mine.extend(below),
                None => drop(self.children.insert(element.clone(), below.clone())),
            }
        }
    }

    /// The paths of this set that the other does not have.
    #[must_use]
    pub fn difference(mut self, other: &Self) -> Self {
        self.subtract(other);
        self
    }

    fn subtract(&mut self, other: &Self) {
        self.is_member &= !other.is_member;
        for (element, below) in &other.children {
            if let Some(mine) = self.children.get_mut(element) {
                mine.subtract(below);
                if mine.is_empty() {
                    self.children.remove(element);
                }
            }
        }
    }

    /// The paths that are neither in the other set nor below a path of it.
    #[must_use]
    pub fn outside(mut self, other: &Self) -> Self {
        if other.is_member {
            return Self::default();
        }
        for (element, below) in &other.children {
            if let Some(mine) = self.children.remove(element) {
                self.graft(element, mine.outside(below));
            }
        }
        self
    }

    /// The paths of both.
    #[must_use]
    pub fn intersection(&self, other: &Self) -> Self {
        let mut both =
            Self { is_member: self.is_member && other.is_member, children: BTreeMap::new() };
        for (element, below) in &other.children {
            if let Some(mine) = self.children.get(element) {
                both.graft(element, mine.intersection(below));
            }
        }
        both
    }

    /// Whether every path of the other set is one of this.
    pub fn contains(&self, other: &Self) -> bool {
        (self.is_member || !other.is_member)
            && other.children.iter().all(|(element, below)| {
                self.below(element).is_some_and(|mine| mine.contains(below))
            })
    }

    /// Each path, as messages show it: `.spec.containers[name="web"].image`.
    pub fn paths(&self) -> Vec<String> {
        let mut found = Vec::new();
        self.collect_paths("", &mut found);
        found
    }

    fn collect_paths(&self, prefix: &str, found: &mut Vec<String>) {
        if self.is_member {
            found.push(prefix.to_owned());
        }
        for (element, below) in &self.children {
            below.collect_paths(&format!("{prefix}{}", element::display(element)), found);
        }
    }

    /// The set with the structs on the way to its paths. They belong to whoever wants something in them, for a removal only.
    pub(super) fn with_structs(&self, type_ref: TypeRef<'_>) -> Self {
        let mut set = Self { is_member: self.is_member, children: BTreeMap::new() };
        for (element, below) in &self.children {
            let (below_type, is_declared) = step(type_ref, element);
            let mut below = below.with_structs(below_type);
            below.is_member |= is_declared;
            set.children.insert(element.clone(), below);
        }
        set
    }

    /// `FieldsV1`.
    pub fn to_json(&self) -> Value {
        let mut fields = Map::new();
        if self.is_member && !self.children.is_empty() {
            fields.insert(SELF.to_owned(), Value::Object(Map::new()));
        }
        for (element, below) in &self.children {
            fields.insert(element.to_string(), below.to_json());
        }
        Value::Object(fields)
    }

    /// Reads `FieldsV1`; elements of kinds that nobody knows yet are passed over, as upstream does.
    pub fn from_json(fields: &Value) -> Option<Self> {
        let mut root = Self::default();
        for (text, below) in fields.as_object()? {
            if text == SELF {
                root.is_member = true;
            } else if let Some(element) = element::canonical(text) {
                let mut below = Self::from_json(below)?;
                // A node without anything below it is there for itself.
                below.is_member |= below.children.is_empty();
                root.children.insert(element, below);
            }
        }
        Some(root)
    }

    /// Whether a set written as `FieldsV1` by us shares a path with this one. Reads no more than it must.
    pub(super) fn touches_json(&self, fields: &Value) -> bool {
        let Some(fields) = fields.as_object() else { return false };
        (self.is_member && (fields.is_empty() || fields.contains_key(SELF)))
            || self.children.iter().any(|(element, below)| {
                fields.get(&**element).is_some_and(|fields| below.touches_json(fields))
            })
    }

    /// Whether a set written as `FieldsV1` by us has every path of this one.
    pub(super) fn is_within_json(&self, fields: &Value) -> bool {
        let Some(fields) = fields.as_object() else { return false };
        (!self.is_member || fields.is_empty() || fields.contains_key(SELF))
            && self.children.iter().all(|(element, below)| {
                fields.get(&**element).is_some_and(|fields| below.is_within_json(fields))
            })
    }
}

/// The type below an element, and whether the schema names it.
fn step<'s>(type_ref: TypeRef<'s>, text: &str) -> (TypeRef<'s>, bool) {
    // Where a type leaves it open what it is, the element tells.
    let hint = match element::field_name(text) {
        Some(_) => Value::Object(Map::new()),
        None => Value::Array(Vec::new()),
    };
    match (type_ref.resolve(&hint), element::field_name(text)) {
        (Atom::Map(entries), Some(name)) => {
            let child = entries.child(name);
            (child.type_ref, child.is_declared)
        }
        (Atom::List(items), None) => (items.item, false),
        _ => (TypeRef::Deduced, false),
    }
}
