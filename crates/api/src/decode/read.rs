//! The pass over the text: what the schema allows becomes a value, the rest becomes findings.

use std::fmt::Write as _;

use serde_json::{Map, Number, Value};

use super::text::{Text, base64, unexpected};
use super::{MAX_DEPTH, MAX_FINDINGS, go_type};
use crate::quantity::Quantity;
use crate::schema::{Fields, Schema, Shape, TypeId};
use crate::status::go_quote;
use crate::time;

/// What the text should be.
#[derive(Clone, Copy)]
pub(super) enum Root {
    /// A value of a type.
    Known(TypeId),
    /// An object with metadata.
    Unknown,
    /// Any JSON.
    Anything,
}

pub(super) struct Reader<'a> {
    schema: &'static Schema,
    text: Text<'a>,
    depth: usize,
    /// Where we are, as strict errors show it: `spec.containers[0].image`.
    path: String,
    /// Where we are, as Go's type errors show it: fields only.
    fields: String,
    /// The innermost struct.
    owner: &'static str,
    /// The first value of a wrong type; reading goes on, because a syntax error further down is more important.
    wrong_type: Option<String>,
    findings: Vec<String>,
    /// Whether fields without a schema are watched for duplicates: in objects whose schema is not ours.
    names_duplicates: bool,
}

/// The value, the first type error, and unknown and duplicate fields.
pub(super) type Read = (Value, Option<String>, Vec<String>);

impl<'a> Reader<'a> {
    /// An error is one of syntax: the text is no JSON.
    pub(super) fn read(
        schema: &'static Schema,
        root: Root,
        bytes: &'a [u8],
    ) -> Result<Read, String> {
        let mut reader = Self {
            schema,
            text: Text::new(bytes),
            depth: 0,
            path: String::new(),
            fields: String::new(),
            owner: "",
            wrong_type: None,
            findings: Vec::new(),
            names_duplicates: matches!(root, Root::Unknown),
        };
        let first = reader.text.peek()?;
        let value = match (root, first) {
            (Root::Anything, _) => reader.any()?,
            (_, b'n') => {
                reader.text.word("null")?;
                Value::Object(Map::new())
            }
            (Root::Known(id), _) => match &schema.type_(id).shape {
                Shape::Object(_) if first != b'{' => reader.any()?,
                _ => reader.value(id)?,
            },
            (Root::Unknown, b'{') => reader.free_object()?,
            (Root::Unknown, _) => reader.any()?,
        };
        reader.text.end()?;
        Ok((value, reader.wrong_type, reader.findings))
    }

    /// A value that is not null.
    fn value(&mut self, id: TypeId) -> Result<Value, String> {
        let schema = self.schema;
        let byte = self.text.peek()?;
        match (&schema.type_(id).shape, byte) {
            (Shape::Any, _) => self.any(),
            (Shape::Object(fields), b'{') => self.object(fields, schema.type_(id).name),
            (Shape::List { item }, b'[') => self.list(*item),
            (Shape::Map { value }, b'{') => self.map(*value),
            (Shape::Either { object, .. }, b'{') => self.value(*object),
            (Shape::Either { other, .. }, _) => self.value(*other),
            (Shape::Bool, b't' | b'f') => self.any(),
            (Shape::String | Shape::IntOrString, b'"') => {
                Ok(self.text.string()?.into_owned().into())
            }
            (Shape::Bytes, b'"') => {
                let text = self.text.string()?;
                match base64(&text) {
                    Ok(text) => Ok(text.into_owned().into()),
                    Err(wrong) => Ok(self.wrong(wrong)),
                }
            }
            (Shape::Quantity, b'"' | b'-' | b'0'..=b'9' | b't' | b'f') => self.quantity(),
            (Shape::Time | Shape::MicroTime, b'"') => {
                let text = self.text.string()?;
                let micro = schema.type_(id).shape == Shape::MicroTime;
                Ok(self.time(&text, micro))
            }
            (
                Shape::Int32 | Shape::Int64 | Shape::IntOrString | Shape::Number,
                b'-' | b'0'..=b'9',
            ) => self.typed_number(id),
            _ => self.mismatch(id),
        }
    }

    fn quantity(&mut self) -> Result<Value, String> {
        let value = self.any()?;
        let trimmed = value.as_str().map(|text| Value::from(text.trim()));
        match Quantity::from_value(trimmed.as_ref().unwrap_or(&value)) {
            Ok(quantity) => Ok(quantity.to_string().into()),
            Err(wrong) => Ok(self.wrong(wrong.to_string())),
        }
    }

    fn time(&mut self, text: &str, micro: bool) -> Value {
        match time::parse(text) {
            Some(at) if micro => time::micros(at).into(),
            Some(at) => time::seconds(at).into(),
            None => {
                let layout = if micro {
                    "2006-01-02T15:04:05.000000Z07:00"
                } else {
                    "2006-01-02T15:04:05Z07:00"
                };
                let text = go_quote(text);
                self.wrong(format!(
                    "parsing time {text} as \"{layout}\": cannot parse {text} as \"2006\""
                ))
            }
        }
    }

    fn typed_number(&mut self, id: TypeId) -> Result<Value, String> {
        let text = self.text.number()?;
        let (fits, wanted) = match &self.schema.type_(id).shape {
            Shape::Number => return Ok(number(text)),
            Shape::Int64 => (text.parse::<i64>().ok(), "int64"),
            _ => (text.parse::<i32>().ok().map(i64::from), "int32"),
        };
        match fits {
            Some(integer) => Ok(integer.into()),
            None => Ok(self.cannot_unmarshal(&format!("number {text}"), wanted)),
        }
    }

    /// Steps over a value of the wrong type.
    fn mismatch(&mut self, id: TypeId) -> Result<Value, String> {
        let found = match self.text.peek()? {
            b'{' => "object",
            b'[' => "array",
            b'"' => "string",
            b't' | b'f' => "bool",
            _ => "number",
        };
        self.any()?;
        let wanted = match &self.schema.type_(id).shape {
            Shape::IntOrString => "int32".to_owned(),
            _ => go_type(self.schema, id),
        };
        Ok(self.cannot_unmarshal(found, &wanted))
    }

    fn cannot_unmarshal(&mut self, found: &str, wanted: &str) -> Value {
        let message = if self.fields.is_empty() {
            format!("json: cannot unmarshal {found} into Go value of type {wanted}")
        } else {
            let place = format!("{}.{}", self.owner, self.fields);
            format!("json: cannot unmarshal {found} into Go struct field {place} of type {wanted}")
        };
        self.wrong(message)
    }

    fn wrong(&mut self, message: String) -> Value {
        self.wrong_type.get_or_insert(message);
        Value::Null
    }

    fn open(&mut self, byte: u8) -> Result<(), String> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(unexpected(byte, "exceeded max depth"));
        }
        self.text.step();
        Ok(())
    }

    /// Steps over the end of an empty list or object.
    fn is_empty(&mut self, close: u8) -> Result<bool, String> {
        let empty = self.text.peek()? == close;
        if empty {
            self.text.step();
        }
        Ok(empty)
    }

    fn object(&mut self, fields: &'static Fields, name: &'static str) -> Result<Value, String> {
        self.open(b'{')?;
        let outer = std::mem::replace(&mut self.owner, name.rsplit('.').next().unwrap_or_default());
        let mut object = Map::new();
        let mut seen: Vec<&str> = Vec::new();
        if !self.is_empty(b'}')? {
            loop {
                let key = self.text.key()?;
                let (path, trail) = (self.path.len(), self.fields.len());
                if !self.path.is_empty() {
                    self.path.push('.');
                }
                self.path.push_str(&key);
                match fields.get(&key) {
                    None => {
                        self.any()?;
                        self.find("unknown field");
                    }
                    Some(field) => {
                        if seen.contains(&field.name) {
                            self.find("duplicate field");
                        }
                        seen.push(field.name);
                        if !self.fields.is_empty() {
                            self.fields.push('.');
                        }
                        self.fields.push_str(field.name);
                        let value = self.nullable(field.type_id)?;
                        // An empty list that may be absent is absent: Go's `omitempty`. Empty books are a wish: to forget them.
                        if value.is_null()
                            || (!field.required
                                && field.name != "managedFields"
                                && self.is_nothing(field.type_id, &value))
                        {
                            object.remove(field.name);
                        } else {
                            object.insert(field.name.to_owned(), value);
                        }
                    }
                }
                self.path.truncate(path);
                self.fields.truncate(trail);
                if !self.text.another(b'}', "after object key:value pair")? {
                    break;
                }
            }
        }
        self.owner = outer;
        self.depth -= 1;
        Ok(object.into())
    }

    /// A value, or null.
    fn nullable(&mut self, id: TypeId) -> Result<Value, String> {
        if self.text.peek()? == b'n' {
            self.text.word("null")?;
            return Ok(Value::Null);
        }
        self.value(id)
    }

    fn is_nothing(&self, id: TypeId, value: &Value) -> bool {
        match &self.schema.type_(id).shape {
            Shape::List { .. } => value.as_array().is_some_and(Vec::is_empty),
            Shape::Map { .. } => value.as_object().is_some_and(Map::is_empty),
            _ => false,
        }
    }

    fn list(&mut self, item: TypeId) -> Result<Value, String> {
        self.open(b'[')?;
        let mut items = Vec::new();
        if !self.is_empty(b']')? {
            loop {
                let path = self.path.len();
                // Writing to a String cannot fail.
                let _ = write!(self.path, "[{}]", items.len());
                let value = self.nullable(item)?;
                items.push(if value.is_null() { self.zero(item) } else { value });
                self.path.truncate(path);
                if !self.text.another(b']', "after array element")? {
                    break;
                }
            }
        }
        self.depth -= 1;
        Ok(items.into())
    }

    fn map(&mut self, type_: TypeId) -> Result<Value, String> {
        self.open(b'{')?;
        let mut map = Map::new();
        if !self.is_empty(b'}')? {
            loop {
                let key = self.text.key()?;
                let path = self.path.len();
                self.path.push('.');
                self.path.push_str(&key);
                let value = self.nullable(type_)?;
                let value = if value.is_null() { self.zero(type_) } else { value };
                if map.insert(key.into_owned(), value).is_some() {
                    self.find("duplicate field");
                }
                self.path.truncate(path);
                if !self.text.another(b'}', "after object key:value pair")? {
                    break;
                }
            }
        }
        self.depth -= 1;
        Ok(map.into())
    }

    /// What Go makes of null where no pointer is.
    fn zero(&self, id: TypeId) -> Value {
        match &self.schema.type_(id).shape {
            Shape::String | Shape::Bytes => "".into(),
            Shape::Quantity => "0".into(),
            Shape::Int32 | Shape::Int64 | Shape::IntOrString | Shape::Number => 0.into(),
            Shape::Bool => false.into(),
            Shape::List { .. } => Value::Array(Vec::new()),
            Shape::Map { .. } | Shape::Object(_) => Value::Object(Map::new()),
            Shape::Any | Shape::Time | Shape::MicroTime | Shape::Either { .. } => Value::Null,
        }
    }

    /// An object of which only the metadata has a schema.
    fn free_object(&mut self) -> Result<Value, String> {
        self.open(b'{')?;
        let metadata = self.schema.by_name("io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta");
        let mut object = Map::new();
        if !self.is_empty(b'}')? {
            loop {
                let key = self.text.key()?;
                let value = match metadata {
                    Some(metadata) if key == "metadata" => {
                        "metadata".clone_into(&mut self.path);
                        "metadata".clone_into(&mut self.fields);
                        self.nullable(metadata)?
                    }
                    _ => {
                        key.as_ref().clone_into(&mut self.path);
                        self.any()?
                    }
                };
                key.as_ref().clone_into(&mut self.path);
                if object.insert(key.into_owned(), value).is_some() {
                    self.find("duplicate field");
                }
                self.path.clear();
                self.fields.clear();
                if !self.text.another(b'}', "after object key:value pair")? {
                    break;
                }
            }
        }
        self.depth -= 1;
        Ok(object.into())
    }

    /// Any JSON.
    fn any(&mut self) -> Result<Value, String> {
        match self.text.peek()? {
            byte @ b'{' => {
                self.open(byte)?;
                let mut object = Map::new();
                if !self.is_empty(b'}')? {
                    loop {
                        let key = self.text.key()?.into_owned();
                        let path = self.path.len();
                        if self.names_duplicates {
                            if path > 0 {
                                self.path.push('.');
                            }
                            self.path.push_str(&key);
                        }
                        if object.insert(key, self.any()?).is_some() && self.names_duplicates {
                            self.find("duplicate field");
                        }
                        self.path.truncate(path);
                        if !self.text.another(b'}', "after object key:value pair")? {
                            break;
                        }
                    }
                }
                self.depth -= 1;
                Ok(object.into())
            }
            byte @ b'[' => {
                self.open(byte)?;
                let mut items = Vec::new();
                if !self.is_empty(b']')? {
                    loop {
                        let path = self.path.len();
                        if self.names_duplicates {
                            // Writing to a String cannot fail.
                            let _ = write!(self.path, "[{}]", items.len());
                        }
                        items.push(self.any()?);
                        self.path.truncate(path);
                        if !self.text.another(b']', "after array element")? {
                            break;
                        }
                    }
                }
                self.depth -= 1;
                Ok(items.into())
            }
            b'"' => Ok(self.text.string()?.into_owned().into()),
            b't' => self.text.word("true").map(|()| true.into()),
            b'f' => self.text.word("false").map(|()| false.into()),
            b'n' => self.text.word("null").map(|()| Value::Null),
            b'-' | b'0'..=b'9' => Ok(number(self.text.number()?)),
            byte => Err(unexpected(byte, "looking for beginning of value")),
        }
    }

    fn find(&mut self, what: &str) {
        if self.findings.len() < MAX_FINDINGS {
            let finding = format!("{what} {}", go_quote(&self.path));
            if !self.findings.contains(&finding) {
                self.findings.push(finding);
            }
        }
    }
}

/// An integer if it fits one, else the nearest float; beyond the largest float, the largest.
fn number(text: &str) -> Value {
    if let Ok(integer) = text.parse::<i64>() {
        return integer.into();
    }
    if let Ok(integer) = text.parse::<u64>() {
        return integer.into();
    }
    let float: f64 = text.parse().unwrap_or_default();
    Number::from_f64(float.clamp(f64::MIN, f64::MAX)).map_or(Value::Null, Value::Number)
}
