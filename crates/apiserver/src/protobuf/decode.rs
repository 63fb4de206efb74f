//! From a message to JSON: what typed clients write.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use coracle_api::schema::{Field, Schema, Shape, TypeId};
use coracle_api::status::Status;
use serde_json::{Map, Value, json};

use super::MAGIC;
use crate::answer::Answer;

/// Messages within messages: deeper than any object of the API, and shallow enough for every stack.
const DEPTH: usize = 64;

/// A whole body as JSON text.
pub(crate) fn to_json(body: &[u8]) -> Answer<Bytes> {
    let envelope = body
        .strip_prefix(MAGIC)
        .ok_or_else(|| malformed("provided data does not appear to be a protobuf message"))?;
    let (mut type_meta, mut raw): (&[u8], &[u8]) = (&[], &[]);
    for entry in Entries(envelope) {
        match entry? {
            (1, Wire::Bytes(bytes)) => type_meta = bytes,
            (2, Wire::Bytes(bytes)) => raw = bytes,
            _ => (),
        }
    }
    let (mut api_version, mut kind) = (String::new(), String::new());
    for entry in Entries(type_meta) {
        match entry? {
            (1, Wire::Bytes(bytes)) => api_version = text(bytes)?,
            (2, Wire::Bytes(bytes)) => kind = text(bytes)?,
            _ => (),
        }
    }
    let (group, version) = coracle_api::kinds::split_api_version(&api_version);
    let schema = Schema::get();
    let type_id = schema
        .kind_type(group, version, &kind)
        .or_else(|| schema.kind_type("", "v1", &kind))
        // DeleteOptions and its like belong to every group.
        .or_else(|| schema.by_name(&format!("io.k8s.apimachinery.pkg.apis.meta.v1.{kind}")))
        .ok_or_else(|| {
            Status::bad_request(format!(
                "no kind {kind:?} is registered for version {api_version:?} in scheme"
            ))
        })?;
    let mut object = message(schema, type_id, raw, 0)?;
    object["apiVersion"] = json!(api_version);
    object["kind"] = json!(kind);
    Ok(Bytes::from(object.to_string()))
}

fn malformed(why: &str) -> Status {
    Status::bad_request(format!("couldn't decode the protobuf body: {why}"))
}

fn text(bytes: &[u8]) -> Answer<String> {
    String::from_utf8(bytes.to_vec()).map_err(|_| malformed("a string is not UTF-8"))
}

/// One value as it is on the wire.
#[derive(Clone, Copy)]
enum Wire<'a> {
    Varint(u64),
    Fixed64(u64),
    Fixed32(u32),
    Bytes(&'a [u8]),
}

/// The tags and values of a message, in their order.
struct Entries<'a>(&'a [u8]);

impl<'a> Iterator for Entries<'a> {
    type Item = Answer<(u32, Wire<'a>)>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let entry = self.read().ok_or_else(|| malformed("the message is cut off"));
        if entry.is_err() {
            self.0 = &[];
        }
        Some(entry)
    }
}

impl<'a> Entries<'a> {
    fn read(&mut self) -> Option<(u32, Wire<'a>)> {
        let key = varint(&mut self.0)?;
        let tag = u32::try_from(key >> 3).ok().filter(|&tag| tag != 0)?;
        let wire = match key & 7 {
            0 => Wire::Varint(varint(&mut self.0)?),
            1 => Wire::Fixed64(u64::from_le_bytes(self.take(8)?.try_into().ok()?)),
            2 => {
                let length = usize::try_from(varint(&mut self.0)?).ok()?;
                Wire::Bytes(self.take(length)?)
            }
            5 => Wire::Fixed32(u32::from_le_bytes(self.take(4)?.try_into().ok()?)),
            _ => return None,
        };
        Some((tag, wire))
    }

    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }
}

fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut number = 0u64;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = bytes.split_first()?;
        *bytes = rest;
        number |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}

/// A message of a struct type.
fn message(schema: &Schema, type_id: TypeId, bytes: &[u8], depth: usize) -> Answer<Value> {
    let mut object = Map::new();
    if let Shape::Object(fields) = &schema.type_(type_id).shape {
        let fields: Vec<&Field> = fields.iter().collect();
        fill(schema, &fields, 0, bytes, depth, &mut object)?;
    }
    Ok(Value::Object(object))
}

/// Reads the fields of a message into `object`. At `level` 1 and below it is a message that JSON shows inline.
fn fill(
    schema: &Schema,
    fields: &[&Field],
    level: usize,
    bytes: &[u8],
    depth: usize,
    object: &mut Map<String, Value>,
) -> Answer<()> {
    if depth > DEPTH {
        return Err(malformed("the message is nested too deeply"));
    }
    for entry in Entries(bytes) {
        let (tag, wire) = entry?;
        let here: Vec<&Field> = fields
            .iter()
            .copied()
            .filter(|field| field.proto_tags.get(level) == Some(&tag))
            .collect();
        match (here.iter().find(|field| field.proto_tags.len() == level + 1), wire) {
            (Some(field), wire) => set(schema, field, wire, depth, object)?,
            (None, Wire::Bytes(inner)) if !here.is_empty() => {
                fill(schema, &here, level + 1, inner, depth + 1, object)?
            }
            // A field of a later version: as unknown to us as to an older upstream.
            (None, _) => (),
        }
    }
    Ok(())
}

/// Puts one field, or one more item of it.
fn set(
    schema: &Schema,
    field: &Field,
    wire: Wire<'_>,
    depth: usize,
    object: &mut Map<String, Value>,
) -> Answer<()> {
    match (&schema.type_(field.type_id).shape, wire) {
        (Shape::List { item }, wire) => {
            let list = object.entry(field.name).or_insert_with(|| json!([]));
            let items = items(schema, *item, wire, depth)?;
            if let Some(list) = list.as_array_mut() {
                list.extend(items);
            }
        }
        (Shape::Map { value }, Wire::Bytes(entry)) => {
            let (mut key, mut found) = (String::new(), None);
            for part in Entries(entry) {
                match part? {
                    (1, Wire::Bytes(bytes)) => key = text(bytes)?,
                    (2, wire) => found = map_value(schema, *value, wire, depth)?,
                    _ => (),
                }
            }
            let found = found.unwrap_or_else(|| empty(&schema.type_(*value).shape));
            let map = object.entry(field.name).or_insert_with(|| json!({}));
            map[key] = found;
        }
        (shape, wire) => {
            // Any JSON, and what is one of two, is a pointer wherever it stands.
            let keeps_zero = field.required
                || field.pointer
                || matches!(shape, Shape::Any | Shape::Either { .. });
            if let Some(value) = value(schema, field.type_id, wire, depth)?
                && (keeps_zero || !is_zero(&value))
            {
                object.insert(field.name.to_owned(), value);
            }
        }
    }
    Ok(())
}

/// What a map's value is when its entry leaves it out.
fn empty(shape: &Shape) -> Value {
    match shape {
        Shape::String | Shape::Bytes | Shape::Quantity => json!(""),
        Shape::List { .. } => json!([]),
        Shape::Object(_) | Shape::Map { .. } => json!({}),
        _ => Value::Null,
    }
}

/// A map's value; lists are wrapped in a message there.
fn map_value(
    schema: &Schema,
    type_id: TypeId,
    wire: Wire<'_>,
    depth: usize,
) -> Answer<Option<Value>> {
    let (Shape::List { item }, Wire::Bytes(bytes)) = (&schema.type_(type_id).shape, wire) else {
        return value(schema, type_id, wire, depth);
    };
    let mut list = Vec::new();
    for entry in Entries(bytes) {
        list.extend(items(schema, *item, entry?.1, depth + 1)?);
    }
    Ok(Some(Value::Array(list)))
}

/// One item of a repeated field, or several packed numbers.
fn items(schema: &Schema, item: TypeId, wire: Wire<'_>, depth: usize) -> Answer<Vec<Value>> {
    let shape = &schema.type_(item).shape;
    match (shape, wire) {
        (Shape::Int32 | Shape::Int64 | Shape::Bool, Wire::Bytes(mut packed)) => {
            let mut list = Vec::new();
            while !packed.is_empty() {
                let number =
                    varint(&mut packed).ok_or_else(|| malformed("a list of numbers is cut off"))?;
                list.extend(value(schema, item, Wire::Varint(number), depth)?);
            }
            Ok(list)
        }
        _ => Ok(value(schema, item, wire, depth)?.into_iter().collect()),
    }
}

/// One value; `None` for a time that is not set.
fn value(schema: &Schema, type_id: TypeId, wire: Wire<'_>, depth: usize) -> Answer<Option<Value>> {
    let value = match (&schema.type_(type_id).shape, wire) {
        (Shape::String, Wire::Bytes(bytes)) => json!(text(bytes)?),
        (Shape::Bytes, Wire::Bytes(bytes)) => json!(BASE64_STANDARD.encode(bytes)),
        // Negative numbers are sign-extended to 64 bits.
        (Shape::Int32 | Shape::Int64, Wire::Varint(number)) => json!(number.cast_signed()),
        (Shape::Bool, Wire::Varint(number)) => json!(number != 0),
        (Shape::Number, Wire::Fixed64(bits)) => number(f64::from_bits(bits)),
        (Shape::Number, Wire::Fixed32(bits)) => number(f64::from(f32::from_bits(bits))),
        (Shape::Quantity, Wire::Bytes(bytes)) => match first(bytes, 1)? {
            Some(Wire::Bytes(amount)) => json!(text(amount)?),
            _ => return Ok(None),
        },
        (Shape::IntOrString, Wire::Bytes(bytes)) => int_or_string(bytes)?,
        (Shape::Time, Wire::Bytes(bytes)) => {
            return Ok(time(bytes)?.map(|at| json!(coracle_api::time::seconds(at))));
        }
        (Shape::MicroTime, Wire::Bytes(bytes)) => {
            return Ok(time(bytes)?.map(|at| json!(coracle_api::time::micros(at))));
        }
        (Shape::Any, Wire::Bytes(bytes)) => match first(bytes, 1)? {
            Some(Wire::Bytes(raw)) if !raw.is_empty() => serde_json::from_slice(raw)
                .map_err(|error| malformed(&format!("a raw extension is not JSON: {error}")))?,
            _ => return Ok(None),
        },
        (Shape::Object(_), Wire::Bytes(bytes)) => message(schema, type_id, bytes, depth + 1)?,
        (Shape::Either { object, other }, Wire::Bytes(bytes)) => {
            return either(schema, *object, *other, bytes, depth + 1);
        }
        _ => return Err(malformed("a field has the wrong wire type")),
    };
    Ok(Some(value))
}

/// As Go writes it in JSON: whole numbers have no fraction.
fn number(float: f64) -> Value {
    /// Beyond it whole numbers are not exact.
    const EXACT: f64 = 9_007_199_254_740_992.0;
    if float.fract() == 0.0 && float.abs() <= EXACT { json!(float as i64) } else { json!(float) }
}

fn first(bytes: &[u8], tag: u32) -> Answer<Option<Wire<'_>>> {
    for entry in Entries(bytes) {
        let (found, wire) = entry?;
        if found == tag {
            return Ok(Some(wire));
        }
    }
    Ok(None)
}

fn int_or_string(bytes: &[u8]) -> Answer<Value> {
    const STRING: u64 = 1;
    let is_string = matches!(first(bytes, 1)?, Some(Wire::Varint(STRING)));
    Ok(match (is_string, first(bytes, 2)?, first(bytes, 3)?) {
        (true, _, Some(Wire::Bytes(text_bytes))) => json!(text(text_bytes)?),
        (true, _, _) => json!(""),
        (false, Some(Wire::Varint(number)), _) => json!(number.cast_signed()),
        (false, _, _) => json!(0),
    })
}

fn time(bytes: &[u8]) -> Answer<Option<jiff::Timestamp>> {
    if bytes.is_empty() {
        return Ok(None);
    }
    let number = |tag| -> Answer<i64> {
        Ok(match first(bytes, tag)? {
            Some(Wire::Varint(number)) => number.cast_signed(),
            _ => 0,
        })
    };
    let nanos = i32::try_from(number(2)?).map_err(|_| malformed("a time is out of range"))?;
    jiff::Timestamp::new(number(1)?, nanos)
        .map(Some)
        .map_err(|_| malformed("a time is out of range"))
}

/// `JSONSchemaPropsOrBool` and its siblings: which of the two it is, stands in the message's tags.
fn either(
    schema: &Schema,
    object: TypeId,
    other: TypeId,
    bytes: &[u8],
    depth: usize,
) -> Answer<Option<Value>> {
    let is_bool = matches!(schema.type_(other).shape, Shape::Bool);
    let (object_tag, other_tag) = if is_bool { (2, 1) } else { (1, 2) };
    if let Some(Wire::Bytes(inner)) = first(bytes, object_tag)? {
        return message(schema, object, inner, depth).map(Some);
    }
    if let Shape::List { item } = schema.type_(other).shape {
        let mut list = Vec::new();
        for entry in Entries(bytes) {
            let (tag, wire) = entry?;
            if tag == other_tag {
                list.extend(items(schema, item, wire, depth)?);
            }
        }
        return Ok(Some(Value::Array(list)));
    }
    match first(bytes, other_tag)? {
        Some(wire) => value(schema, other, wire, depth),
        None => Ok(None),
    }
}

/// Go's encoder writes plain fields even when they are zero, which in JSON would be absent. Only where upstream's field is a pointer a
/// zero was really set.
fn is_zero(value: &Value) -> bool {
    match value {
        Value::String(text) => text.is_empty(),
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::Bool(on) => !on,
        Value::Null | Value::Array(_) | Value::Object(_) => false,
    }
}
