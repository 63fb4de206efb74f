//! Reads the structure file.
//!
//! A line that starts in the first column opens a definition: its name, then `atomic` and its kinds as
//! `group/version/Kind`, or `=` and what it is an alias of, or the two sides of an either-or. Indented lines are its fields: name, type, then attributes in any order. A type
//! is a word for a scalar, `#name` for a definition, and `[]` or `{}` before the type of the items of a list or map.

use std::collections::HashMap;

use super::{Field, Fields, ListType, Schema, Shape, Type, TypeId};

/// What is wrong with the file, and in which line.
#[derive(Debug, thiserror::Error)]
#[error("line {line}: {what}")]
pub(super) struct LoadError {
    line: usize,
    what: &'static str,
}

#[derive(Default)]
struct Loader {
    types: Vec<Type>,
    by_name: HashMap<&'static str, TypeId>,
    by_kind: HashMap<(&'static str, &'static str, &'static str), TypeId>,
}

pub(super) fn read(text: &'static str) -> Result<Schema, LoadError> {
    let mut loader = Loader::default();
    for line in text.lines().filter(|line| !line.starts_with([' ', '/'])) {
        if let Some(name) = line.split(' ').next() {
            loader.add(name, Shape::Object(Fields::default()));
        }
    }
    let mut open: Option<(TypeId, Vec<Field>)> = None;
    for (number, line) in text.lines().enumerate() {
        let fail = |what| LoadError { line: number + 1, what };
        if line.starts_with('/') || line.is_empty() {
            continue;
        }
        if let Some(field) = line.strip_prefix(' ') {
            let (_, fields) = open.as_mut().ok_or_else(|| fail("a field before any definition"))?;
            fields.push(loader.field(field).map_err(fail)?);
        } else {
            loader.close(open.take());
            let id = loader.definition(line).map_err(fail)?;
            open = id.map(|id| (id, Vec::new()));
        }
    }
    loader.close(open);
    Ok(Schema { types: loader.types, by_name: loader.by_name, by_kind: loader.by_kind })
}

impl Loader {
    fn add(&mut self, name: &'static str, shape: Shape) -> TypeId {
        // The arena holds a few thousand types.
        let id = TypeId(u32::try_from(self.types.len()).unwrap_or(u32::MAX));
        self.types.push(Type { name, shape, atomic: false });
        self.by_name.insert(name, id);
        id
    }

    fn close(&mut self, open: Option<(TypeId, Vec<Field>)>) {
        if let Some((id, fields)) = open {
            self.types[id.0 as usize].shape = Shape::Object(fields.into_iter().collect());
        }
    }

    /// Opens a definition; an either-or has no fields, so that nothing stays open.
    fn definition(&mut self, line: &'static str) -> Result<Option<TypeId>, &'static str> {
        let mut words = line.split(' ');
        let name = words.next().unwrap_or_default();
        let id = *self.by_name.get(name).ok_or("a definition without a name")?;
        while let Some(word) = words.next() {
            if word == "=" {
                let first = words.next().ok_or("a definition that equals nothing")?;
                let shape = match words.next() {
                    Some(other) => {
                        Shape::Either { object: self.type_of(first)?, other: self.type_of(other)? }
                    }
                    None => {
                        let same = self.type_of(first)?;
                        self.types[same.0 as usize].shape.clone()
                    }
                };
                self.types[id.0 as usize].shape = shape;
                return Ok(None);
            }
            if word == "atomic" {
                self.types[id.0 as usize].atomic = true;
                continue;
            }
            let mut parts = word.split('/');
            match (parts.next(), parts.next(), parts.next()) {
                (Some(group), Some(version), Some(kind)) => {
                    self.by_kind.insert((group, version, kind), id)
                }
                _ => return Err("a kind that is not group/version/Kind"),
            };
        }
        Ok(Some(id))
    }

    fn field(&mut self, line: &'static str) -> Result<Field, &'static str> {
        let mut words = line.split(' ');
        let (Some(name), Some(type_)) = (words.next(), words.next()) else {
            return Err("a field without a type");
        };
        let mut field = Field {
            name,
            type_id: self.type_of(type_)?,
            required: false,
            pointer: false,
            list_type: ListType::Atomic,
            list_map_keys: Vec::new(),
            patch_merge: false,
            patch_retain_keys: false,
            patch_merge_key: None,
            atomic: false,
            default: None,
            proto_tags: Vec::new(),
        };
        for word in words {
            match word.split_once('=').unwrap_or((word, "")) {
                ("required", _) => field.required = true,
                ("pointer", _) => field.pointer = true,
                ("set", _) => field.list_type = ListType::Set,
                ("map", keys) => {
                    field.list_type = ListType::Map;
                    field.list_map_keys = keys.split(',').collect();
                }
                ("merge", key) => {
                    field.patch_merge = true;
                    field.patch_merge_key = Some(key).filter(|key| !key.is_empty());
                }
                ("retainKeys", _) => field.patch_retain_keys = true,
                ("atomic", _) => field.atomic = true,
                ("default", json) => field.default = Some(json),
                ("tag", tags) => {
                    let tags: Result<_, _> = tags.split('.').map(str::parse).collect();
                    field.proto_tags = tags.map_err(|_| "a tag that is no number")?;
                }
                _ => return Err("an attribute that nobody knows"),
            }
        }
        Ok(field)
    }

    fn type_of(&mut self, text: &'static str) -> Result<TypeId, &'static str> {
        if let Some(name) = text.strip_prefix('#') {
            return self.by_name.get(name).copied().ok_or("a definition that is not in the file");
        }
        if let Some(known) = self.by_name.get(text) {
            return Ok(*known);
        }
        let shape = match text {
            "string" => Shape::String,
            "int32" => Shape::Int32,
            "int64" => Shape::Int64,
            "number" => Shape::Number,
            "bool" => Shape::Bool,
            "bytes" => Shape::Bytes,
            "intstr" => Shape::IntOrString,
            "quantity" => Shape::Quantity,
            "time" => Shape::Time,
            "microtime" => Shape::MicroTime,
            "any" => Shape::Any,
            _ => match (text.strip_prefix("[]"), text.strip_prefix("{}")) {
                (Some(item), _) => Shape::List { item: self.type_of(item)? },
                (_, Some(value)) => Shape::Map { value: self.type_of(value)? },
                _ => return Err("a type that nobody knows"),
            },
        };
        Ok(self.add(text, shape))
    }
}
