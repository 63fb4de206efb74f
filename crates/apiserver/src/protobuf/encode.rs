//! From JSON text to a message, in one pass.

use std::borrow::Cow;
use std::fmt;
use std::sync::LazyLock;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use coracle_api::kinds::{Kind, split_api_version};
use coracle_api::schema::{Field, Fields, ListType, Schema, Shape, TypeId};
use coracle_api::status::Status;
use serde::Deserialize as _;
use serde::de::{
    DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor,
};
use serde_json::Value;
use serde_json::value::RawValue;

use super::MAGIC;
use crate::answer::Answer;

/// What of the objects of a kind is written, and what it says it is.
#[derive(Debug, Clone)]
pub(crate) struct Shown {
    api_version: Cow<'static, str>,
    kind: Cow<'static, str>,
    fields: &'static Fields,
}

impl Shown {
    /// All of it; `None` for kinds without a published schema.
    pub(crate) fn whole(kind: &Kind) -> Option<Self> {
        let api_version = Cow::Owned(kind.api_version.to_owned());
        let fields = fields_of(Schema::get().of(kind)?)?;
        Some(Self { api_version, kind: Cow::Owned(kind.kind.to_owned()), fields })
    }

    /// A `PartialObjectMetadata` of this version: any object has one.
    pub(crate) fn metadata(version: &str) -> Self {
        Self {
            api_version: Cow::Owned(format!("meta.k8s.io/{version}")),
            kind: Cow::Borrowed("PartialObjectMetadata"),
            fields: &METADATA,
        }
    }

    /// What this value says that it is.
    pub(crate) fn of(value: &Value) -> Option<Self> {
        let text = |field: &str| value.get(field).and_then(Value::as_str).unwrap_or_default();
        Self::named(text("apiVersion"), text("kind"))
    }

    fn named(api_version: &str, kind: &str) -> Option<Self> {
        let (group, version) = split_api_version(api_version);
        let schema = Schema::get();
        let fields = match (group, kind) {
            ("meta.k8s.io", "PartialObjectMetadata") => Some(&*METADATA),
            _ => schema.kind_type(group, version, kind).and_then(fields_of),
        }?;
        Some(Self {
            api_version: Cow::Owned(api_version.to_owned()),
            kind: Cow::Owned(kind.to_owned()),
            fields,
        })
    }

    /// A list of these.
    pub(super) fn list_kind(&self) -> String {
        format!("{}List", self.kind)
    }

    pub(super) fn api_version(&self) -> &str {
        &self.api_version
    }

    /// An object as a whole body.
    pub(crate) fn body(&self, json: &[u8]) -> Answer<Bytes> {
        let mut out = Vec::with_capacity(json.len() + 64);
        self.write_body(&mut out, json).map_err(|error| unwritable(&error))?;
        Ok(out.into())
    }

    fn write_body(&self, out: &mut Vec<u8>, json: &[u8]) -> Result<(), serde_json::Error> {
        begin_envelope(out, &self.api_version, &self.kind);
        let raw = open(out, 2);
        write_fields(self.fields, json, out)?;
        close(out, raw);
        out.extend_from_slice(ENVELOPE_END);
        Ok(())
    }

    /// An object as an item of a list.
    pub(super) fn write_item(
        &self,
        out: &mut Vec<u8>,
        json: &[u8],
    ) -> Result<(), serde_json::Error> {
        let item = open(out, 2);
        write_fields(self.fields, json, out)?;
        close(out, item);
        Ok(())
    }
}

/// The only field of a `PartialObjectMetadata`.
static METADATA: LazyLock<Fields> = LazyLock::new(|| {
    let type_id = Schema::get().by_name("io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta");
    let field = |type_id| Field {
        name: "metadata",
        type_id,
        required: false,
        pointer: false,
        list_type: ListType::Atomic,
        list_map_keys: Vec::new(),
        patch_merge: false,
        patch_retain_keys: false,
        patch_merge_key: None,
        atomic: false,
        default: None,
        proto_tags: vec![1],
    };
    type_id.map(field).into_iter().collect()
});

fn fields_of(type_id: TypeId) -> Option<&'static Fields> {
    match &Schema::get().type_(type_id).shape {
        Shape::Object(fields) => Some(fields),
        _ => None,
    }
}

pub(super) fn unwritable(error: &serde_json::Error) -> Status {
    Status::internal(format!("an object cannot be written as protobuf: {error}"))
}

/// A value that says what it is (a Status, a Scale, a list) as a whole body; `None` when there is no message for it.
pub(crate) fn value(value: &Value) -> Answer<Option<Bytes>> {
    let text = |field: &str| value.get(field).and_then(Value::as_str).unwrap_or_default();
    let (api_version, kind) = (text("apiVersion"), text("kind"));
    if let Some(shown) = Shown::named(api_version, kind) {
        return shown.body(value.to_string().as_bytes()).map(Some);
    }
    let item = kind.strip_suffix("List").and_then(|kind| Shown::named(api_version, kind));
    let (Some(shown), Some(items)) = (item, value.get("items").and_then(Value::as_array)) else {
        return Ok(None);
    };
    let metadata = value.get("metadata").unwrap_or(&Value::Null);
    let mut list = super::ListWriter::new(shown, metadata)?;
    for item in items {
        list.item(item.to_string().as_bytes())?;
    }
    Ok(Some(list.joined()))
}

/// One event of a watch: four bytes that say how long it is, and a `WatchEvent` that holds a whole body.
pub(crate) fn event(event_type: &str, shown: &Shown, json: &[u8]) -> Answer<Vec<u8>> {
    let mut out = Vec::with_capacity(json.len() + 96);
    out.extend_from_slice(&[0; LENGTH_BYTES]);
    put_bytes(&mut out, 1, event_type.as_bytes());
    let extension = open(&mut out, 2);
    let raw = open(&mut out, 1);
    shown.write_body(&mut out, json).map_err(|error| unwritable(&error))?;
    close(&mut out, raw);
    close(&mut out, extension);
    let length = u32::try_from(out.len() - LENGTH_BYTES).map_err(Status::internal)?;
    out[..LENGTH_BYTES].copy_from_slice(&length.to_be_bytes());
    Ok(out)
}

/// Of the length before each event.
const LENGTH_BYTES: usize = 4;

/// Magic bytes and what the body is about. The body itself follows as field 2.
pub(super) fn begin_envelope(out: &mut Vec<u8>, api_version: &str, kind: &str) {
    out.extend_from_slice(MAGIC);
    let type_meta = open(out, 1);
    put_bytes(out, 1, api_version.as_bytes());
    put_bytes(out, 2, kind.as_bytes());
    close(out, type_meta);
}

/// The envelope's content encoding and type, which upstream writes although they are empty.
pub(super) const ENVELOPE_END: &[u8] = &[0x1a, 0, 0x22, 0];

/// The fields of a message out of a JSON object.
pub(super) fn write_fields(
    fields: &'static Fields,
    json: &[u8],
    out: &mut Vec<u8>,
) -> Result<(), serde_json::Error> {
    let mut reader = serde_json::Deserializer::from_slice(json);
    reader.deserialize_map(Message { fields, out })?;
    reader.end()
}

pub(super) fn put_key(out: &mut Vec<u8>, tag: u32, wire_type: u32) {
    put_varint(out, u64::from(tag << 3 | wire_type));
}

pub(super) fn put_varint(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(low_bits(number) | 0x80);
        number >>= 7;
    }
    out.push(low_bits(number));
}

fn low_bits(number: u64) -> u8 {
    (number & 0x7f) as u8
}

fn put_bytes(out: &mut Vec<u8>, tag: u32, bytes: &[u8]) {
    put_key(out, tag, 2);
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

fn put_number(out: &mut Vec<u8>, tag: u32, number: u64) {
    put_key(out, tag, 0);
    put_varint(out, number);
}

/// Begins a value whose length is not known yet: most are short, so one byte waits for it.
fn open(out: &mut Vec<u8>, tag: u32) -> usize {
    put_key(out, tag, 2);
    out.push(0);
    out.len()
}

/// Writes the length of what came since `start`, and makes room for it when it is long.
fn close(out: &mut Vec<u8>, start: usize) {
    let length = out.len() - start;
    if length < 0x80 {
        out[start - 1] = low_bits(length as u64);
        return;
    }
    let mut prefix = Vec::with_capacity(10);
    put_varint(&mut prefix, length as u64);
    let extra = prefix.len() - 1;
    out.resize(start + length + extra, 0);
    out.copy_within(start..start + length, start + extra);
    out[start - 1..start + extra].copy_from_slice(&prefix);
}

/// Reads a JSON object and writes its fields.
struct Message<'a> {
    fields: &'static Fields,
    out: &'a mut Vec<u8>,
}

impl<'de> Visitor<'de> for Message<'_> {
    type Value = ();

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(field) = map.next_key_seed(FieldNamed(self.fields))? {
            // Kind and version stand in the envelope, and have no tag.
            let Some((&tag, outer)) = field.and_then(|field| field.proto_tags.split_last()) else {
                map.next_value::<IgnoredAny>()?;
                continue;
            };
            let Some(field) = field else { continue };
            // Upstream's message wraps what JSON shows inline. A wrapper may come in parts: readers merge them.
            let mut opened = [0; MAX_WRAPPERS];
            for (start, &tag) in opened.iter_mut().zip(outer) {
                *start = open(self.out, tag);
            }
            map.next_value_seed(Slot { type_id: field.type_id, tag, out: self.out })?;
            for start in opened[..outer.len().min(MAX_WRAPPERS)].iter().rev() {
                close(self.out, *start);
            }
        }
        Ok(())
    }
}

/// The generator of the schema looks no deeper.
const MAX_WRAPPERS: usize = 3;

/// Finds the field with the name that comes next, without keeping the name.
struct FieldNamed(&'static Fields);

impl<'de> DeserializeSeed<'de> for FieldNamed {
    type Value = Option<&'static Field>;

    fn deserialize<D: Deserializer<'de>>(self, name: D) -> Result<Self::Value, D::Error> {
        name.deserialize_str(self)
    }
}

impl Visitor<'_> for FieldNamed {
    type Value = Option<&'static Field>;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("the name of a field")
    }

    fn visit_str<E>(self, name: &str) -> Result<Self::Value, E> {
        Ok(self.0.get(name))
    }
}

/// A value of this type and where it goes; for a list, each item goes there.
struct Slot<'a> {
    type_id: TypeId,
    tag: u32,
    out: &'a mut Vec<u8>,
}

impl Slot<'_> {
    fn shape(&self) -> &'static Shape {
        &Schema::get().type_(self.type_id).shape
    }

    fn at(&mut self, type_id: TypeId, tag: u32) -> Slot<'_> {
        Slot { type_id, tag, out: self.out }
    }

    fn is_bool_or_object(&self) -> bool {
        match self.shape() {
            Shape::Either { other, .. } => {
                matches!(Schema::get().type_(*other).shape, Shape::Bool)
            }
            _ => false,
        }
    }

    fn misplaced<E: serde::de::Error>(&self, what: &str) -> E {
        E::custom(format_args!(
            "{what} where {} is expected",
            Schema::get().type_(self.type_id).name
        ))
    }

    fn put_time<E: serde::de::Error>(self, text: &str, nanos: i32) -> Result<(), E> {
        let at = coracle_api::time::parse(text).ok_or_else(|| E::custom("a time that is none"))?;
        let start = open(self.out, self.tag);
        put_number(self.out, 1, at.as_second().cast_unsigned());
        put_number(self.out, 2, i64::from(at.subsec_nanosecond() * nanos).cast_unsigned());
        close(self.out, start);
        Ok(())
    }

    /// One number; `as_float` is the same.
    fn put_integer<E: serde::de::Error>(self, bits: u64, as_float: f64) -> Result<(), E> {
        match self.shape() {
            Shape::Int32 | Shape::Int64 => put_number(self.out, self.tag, bits),
            Shape::Number => {
                put_key(self.out, self.tag, 1);
                self.out.extend_from_slice(&as_float.to_le_bytes());
            }
            Shape::IntOrString => {
                let start = open(self.out, self.tag);
                put_number(self.out, 1, 0);
                put_number(self.out, 2, bits);
                put_bytes(self.out, 3, b"");
                close(self.out, start);
            }
            _ => return Err(self.misplaced("a number")),
        }
        Ok(())
    }
}

impl<'de> DeserializeSeed<'de> for Slot<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, value: D) -> Result<(), D::Error> {
        if !matches!(self.shape(), Shape::Any) {
            return value.deserialize_any(self);
        }
        let raw = <&RawValue>::deserialize(value)?.get();
        if raw != "null" {
            let start = open(self.out, self.tag);
            put_bytes(self.out, 1, raw.as_bytes());
            close(self.out, start);
        }
        Ok(())
    }
}

impl<'de> Visitor<'de> for Slot<'_> {
    type Value = ();

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(Schema::get().type_(self.type_id).name)
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_bool<E: serde::de::Error>(self, on: bool) -> Result<(), E> {
        match self.shape() {
            Shape::Bool => put_number(self.out, self.tag, u64::from(on)),
            Shape::Either { .. } if self.is_bool_or_object() => {
                let start = open(self.out, self.tag);
                put_number(self.out, 1, u64::from(on));
                close(self.out, start);
            }
            _ => return Err(self.misplaced("a boolean")),
        }
        Ok(())
    }

    fn visit_u64<E: serde::de::Error>(self, number: u64) -> Result<(), E> {
        self.put_integer(number, number as f64)
    }

    fn visit_i64<E: serde::de::Error>(self, number: i64) -> Result<(), E> {
        self.put_integer(number.cast_unsigned(), number as f64)
    }

    fn visit_f64<E: serde::de::Error>(self, number: f64) -> Result<(), E> {
        match self.shape() {
            Shape::Number => self.put_integer(0, number),
            _ => Err(self.misplaced("a fraction")),
        }
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<(), E> {
        match self.shape() {
            Shape::String => put_bytes(self.out, self.tag, text.as_bytes()),
            Shape::Bytes => {
                let start = open(self.out, self.tag);
                BASE64_STANDARD.decode_vec(text, self.out).map_err(|error| {
                    E::custom(format_args!("bytes that are not base64: {error}"))
                })?;
                close(self.out, start);
            }
            Shape::Quantity => {
                let start = open(self.out, self.tag);
                put_bytes(self.out, 1, text.as_bytes());
                close(self.out, start);
            }
            Shape::IntOrString => {
                let start = open(self.out, self.tag);
                put_number(self.out, 1, 1);
                put_number(self.out, 2, 0);
                put_bytes(self.out, 3, text.as_bytes());
                close(self.out, start);
            }
            // To the second, and to the microsecond.
            Shape::Time => return self.put_time(text, 0),
            Shape::MicroTime => return self.put_time(text, 1),
            _ => return Err(self.misplaced("text")),
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut items: A) -> Result<(), A::Error> {
        let item_type = match self.shape() {
            Shape::List { item } => *item,
            Shape::Either { other, .. } => {
                let Shape::List { item } = Schema::get().type_(*other).shape else {
                    return Err(self.misplaced("a list"));
                };
                // The list is the second field of the message that stands for either.
                let start = open(self.out, self.tag);
                while items.next_element_seed(self.at(item, 2))?.is_some() {}
                close(self.out, start);
                return Ok(());
            }
            _ => return Err(self.misplaced("a list")),
        };
        let tag = self.tag;
        while items.next_element_seed(self.at(item_type, tag))?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<(), A::Error> {
        match self.shape() {
            Shape::Object(fields) => {
                let start = open(self.out, self.tag);
                Message { fields, out: self.out }.visit_map(map)?;
                close(self.out, start);
            }
            Shape::Either { object, .. } => {
                let fields =
                    fields_of(*object).ok_or_else(|| A::Error::custom("no such object"))?;
                let start = open(self.out, self.tag);
                let object_tag = if self.is_bool_or_object() {
                    put_number(self.out, 1, 1);
                    2
                } else {
                    1
                };
                let inner = open(self.out, object_tag);
                Message { fields, out: self.out }.visit_map(map)?;
                close(self.out, inner);
                close(self.out, start);
            }
            Shape::Map { value } => loop {
                let start = open(self.out, self.tag);
                if map.next_key_seed(Key(self.out))?.is_none() {
                    self.out.truncate(start - key_bytes(self.tag));
                    return Ok(());
                }
                if matches!(Schema::get().type_(*value).shape, Shape::List { .. }) {
                    // A map holds no lists but messages with one.
                    let list = open(self.out, 2);
                    map.next_value_seed(self.at(*value, 1))?;
                    close(self.out, list);
                } else {
                    map.next_value_seed(self.at(*value, 2))?;
                }
                close(self.out, start);
            },
            _ => return Err(self.misplaced("an object")),
        }
        Ok(())
    }
}

/// How many bytes [`open`] wrote.
fn key_bytes(tag: u32) -> usize {
    let mut key = Vec::with_capacity(6);
    open(&mut key, tag)
}

/// The key of an entry of a map.
struct Key<'a>(&'a mut Vec<u8>);

impl<'de> DeserializeSeed<'de> for Key<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, key: D) -> Result<(), D::Error> {
        key.deserialize_str(self)
    }
}

impl Visitor<'_> for Key<'_> {
    type Value = ();

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("a key")
    }

    fn visit_str<E>(self, key: &str) -> Result<(), E> {
        put_bytes(self.0, 1, key.as_bytes());
        Ok(())
    }
}
