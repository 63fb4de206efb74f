//! The OpenAPI v2 document as a protobuf message: gnostic's `openapi.v2.Document`, which kubectl asks for.
//!
//! Field numbers are those of <https://github.com/google/gnostic/blob/main/openapiv2/OpenAPIv2.proto>. Only what our documents
//! say is here: a member without a row is left out, as are all that gnostic has no field for. Members that begin with `x-` become
//! extensions, whose values are YAML; JSON is YAML.

use serde_json::Value;

/// Which field of a message a member of an object goes to, and how.
struct Row(&'static str, u64, &'static Shape);

/// An object of the document.
struct Message {
    rows: &'static [Row],
    /// The field for what begins with `x-`.
    extensions: u64,
}

/// How a value is written. A list is written item by item, with the same number.
enum Shape {
    Text,
    Flag,
    Integer,
    Number,
    /// Any value at all.
    Any,
    /// A list of any values.
    AnyItems,
    Message(&'static Message),
    /// A message with this one field: what protobuf needs for lists in lists, and for alternatives.
    Wrapped(u64, &'static Shape),
    /// A message that holds an entry with name and value in this field for each member of an object.
    Entries(u64, &'static Shape),
    /// What the value itself says.
    Either(fn(&Value) -> &'static Shape),
}

use Shape::{Any, AnyItems, Either, Entries, Flag, Integer, Number, Text, Wrapped};

static DOCUMENT: Message = Message {
    rows: &[
        Row("swagger", 1, &Text),
        Row("info", 2, &Shape::Message(&INFO)),
        Row("paths", 8, &Entries(2, &Shape::Message(&PATH))),
        Row("definitions", 9, &Entries(1, &Shape::Message(&SCHEMA))),
        Row("security", 12, &Entries(1, &Wrapped(1, &Text))),
        Row("securityDefinitions", 13, &Entries(1, &Wrapped(2, &Shape::Message(&API_KEY)))),
    ],
    extensions: 16,
};

static INFO: Message = Message {
    rows: &[Row("title", 1, &Text), Row("version", 2, &Text), Row("description", 3, &Text)],
    extensions: 7,
};

static API_KEY: Message = Message {
    rows: &[
        Row("type", 1, &Text),
        Row("name", 2, &Text),
        Row("in", 3, &Text),
        Row("description", 4, &Text),
    ],
    extensions: 5,
};

static PATH: Message = Message {
    rows: &[
        Row("get", 2, &Shape::Message(&OPERATION)),
        Row("put", 3, &Shape::Message(&OPERATION)),
        Row("post", 4, &Shape::Message(&OPERATION)),
        Row("delete", 5, &Shape::Message(&OPERATION)),
        Row("options", 6, &Shape::Message(&OPERATION)),
        Row("head", 7, &Shape::Message(&OPERATION)),
        Row("patch", 8, &Shape::Message(&OPERATION)),
        Row("parameters", 9, &Wrapped(1, &Either(parameter))),
    ],
    extensions: 10,
};

static OPERATION: Message = Message {
    rows: &[
        Row("tags", 1, &Text),
        Row("summary", 2, &Text),
        Row("description", 3, &Text),
        Row("operationId", 5, &Text),
        Row("produces", 6, &Text),
        Row("consumes", 7, &Text),
        Row("parameters", 8, &Wrapped(1, &Either(parameter))),
        Row("responses", 9, &Entries(1, &Wrapped(1, &Shape::Message(&RESPONSE)))),
        Row("schemes", 10, &Text),
        Row("deprecated", 11, &Flag),
    ],
    extensions: 13,
};

static RESPONSE: Message = Message {
    rows: &[Row("description", 1, &Text), Row("schema", 2, &Wrapped(1, &Shape::Message(&SCHEMA)))],
    extensions: 5,
};

/// A body has a message of its own, and so has each other place, within one that stands for all of those.
fn parameter(value: &Value) -> &'static Shape {
    static BODY: Shape = Wrapped(1, &Shape::Message(&BODY_PARAMETER));
    static QUERY: Shape = Wrapped(2, &Wrapped(3, &Shape::Message(&QUERY_PARAMETER)));
    static PATH: Shape = Wrapped(2, &Wrapped(4, &Shape::Message(&PATH_PARAMETER)));
    match value["in"].as_str() {
        Some("body") => &BODY,
        Some("path") => &PATH,
        _ => &QUERY,
    }
}

static BODY_PARAMETER: Message = Message {
    rows: &[
        Row("description", 1, &Text),
        Row("name", 2, &Text),
        Row("in", 3, &Text),
        Row("required", 4, &Flag),
        Row("schema", 5, &Shape::Message(&SCHEMA)),
    ],
    extensions: 6,
};

static QUERY_PARAMETER: Message = Message {
    rows: &[
        Row("required", 1, &Flag),
        Row("in", 2, &Text),
        Row("description", 3, &Text),
        Row("name", 4, &Text),
        Row("type", 6, &Text),
        Row("uniqueItems", 20, &Flag),
    ],
    extensions: 23,
};

static PATH_PARAMETER: Message = Message {
    rows: &[
        Row("required", 1, &Flag),
        Row("in", 2, &Text),
        Row("description", 3, &Text),
        Row("name", 4, &Text),
        Row("type", 5, &Text),
        Row("uniqueItems", 19, &Flag),
    ],
    extensions: 22,
};

static SCHEMA: Message = Message {
    rows: &[
        Row("$ref", 1, &Text),
        Row("format", 2, &Text),
        Row("title", 3, &Text),
        Row("description", 4, &Text),
        Row("default", 5, &Any),
        Row("multipleOf", 6, &Number),
        Row("maximum", 7, &Number),
        Row("exclusiveMaximum", 8, &Flag),
        Row("minimum", 9, &Number),
        Row("exclusiveMinimum", 10, &Flag),
        Row("maxLength", 11, &Integer),
        Row("minLength", 12, &Integer),
        Row("pattern", 13, &Text),
        Row("maxItems", 14, &Integer),
        Row("minItems", 15, &Integer),
        Row("uniqueItems", 16, &Flag),
        Row("maxProperties", 17, &Integer),
        Row("minProperties", 18, &Integer),
        Row("required", 19, &Text),
        Row("enum", 20, &AnyItems),
        Row("additionalProperties", 21, &Either(additional_properties)),
        Row("type", 22, &Wrapped(1, &Text)),
        Row("items", 23, &Wrapped(1, &Shape::Message(&SCHEMA))),
        Row("allOf", 24, &Shape::Message(&SCHEMA)),
        Row("properties", 25, &Entries(1, &Shape::Message(&SCHEMA))),
        Row("discriminator", 26, &Text),
        Row("readOnly", 27, &Flag),
        Row("externalDocs", 29, &Shape::Message(&EXTERNAL_DOCS)),
        Row("example", 30, &Any),
    ],
    extensions: 31,
};

static EXTERNAL_DOCS: Message =
    Message { rows: &[Row("description", 1, &Text), Row("url", 2, &Text)], extensions: 3 };

fn additional_properties(value: &Value) -> &'static Shape {
    static OF_A_SCHEMA: Shape = Wrapped(1, &Shape::Message(&SCHEMA));
    static ANY_OR_NONE: Shape = Wrapped(2, &Flag);
    if value.is_boolean() { &ANY_OR_NONE } else { &OF_A_SCHEMA }
}

/// The document's message.
pub(super) fn encode(document: &Value) -> Vec<u8> {
    DOCUMENT.encode(document)
}

impl Message {
    fn encode(&self, object: &Value) -> Vec<u8> {
        let mut out = Vec::new();
        for (name, value) in object.as_object().into_iter().flatten() {
            if name.starts_with("x-") {
                put_bytes(&mut out, self.extensions, &entry(name, &Any, value));
            } else if let Some(Row(_, number, shape)) =
                self.rows.iter().find(|Row(known, ..)| known == name)
            {
                shape.put(&mut out, *number, value);
            }
        }
        out
    }
}

impl Shape {
    /// Appends the value as the field of this number; what has another type than the field is left out.
    fn put(&self, out: &mut Vec<u8>, number: u64, value: &Value) {
        match (self, value) {
            (_, Value::Null) => (),
            (Any, value) => put_bytes(out, number, &any(value)),
            (AnyItems, Value::Array(items)) => {
                items.iter().for_each(|item| put_bytes(out, number, &any(item)));
            }
            // The wrapper holds the list, or there is one around each item: types and the rules of items are the former.
            (Wrapped(inner, shape @ Text), Value::Array(_)) => {
                put_bytes(out, number, &shape.encode(*inner, value));
            }
            (_, Value::Array(items)) => items.iter().for_each(|item| self.put(out, number, item)),
            (Text, Value::String(text)) => put_bytes(out, number, text.as_bytes()),
            (Flag, Value::Bool(on)) => put_varint_field(out, number, u64::from(*on)),
            (Integer, value) => {
                if let Some(integer) = value.as_i64() {
                    put_varint_field(out, number, integer.cast_unsigned());
                }
            }
            (Number, value) => {
                if let Some(float) = value.as_f64() {
                    put_varint(out, number << 3 | 1);
                    out.extend_from_slice(&float.to_le_bytes());
                }
            }
            (Shape::Message(message), Value::Object(_)) => {
                put_bytes(out, number, &message.encode(value));
            }
            (Wrapped(inner, shape), value) => put_bytes(out, number, &shape.encode(*inner, value)),
            (Entries(inner, shape), Value::Object(members)) => {
                let mut entries = Vec::new();
                for (name, value) in members {
                    put_bytes(&mut entries, *inner, &entry(name, shape, value));
                }
                put_bytes(out, number, &entries);
            }
            (Either(shape_of), value) => shape_of(value).put(out, number, value),
            (AnyItems | Text | Flag | Shape::Message(_) | Entries(..), _) => (),
        }
    }

    /// A message with nothing but this value, in this field.
    fn encode(&self, number: u64, value: &Value) -> Vec<u8> {
        let mut out = Vec::new();
        self.put(&mut out, number, value);
        out
    }
}

/// `Any`, by its YAML.
fn any(value: &Value) -> Vec<u8> {
    let mut out = Vec::new();
    put_bytes(&mut out, 2, format!("{value}\n").as_bytes());
    out
}

/// A pair of name and value.
fn entry(name: &str, shape: &Shape, value: &Value) -> Vec<u8> {
    let mut out = Vec::new();
    put_bytes(&mut out, 1, name.as_bytes());
    shape.put(&mut out, 2, value);
    out
}

fn put_bytes(out: &mut Vec<u8>, number: u64, bytes: &[u8]) {
    put_varint(out, number << 3 | 2);
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

fn put_varint_field(out: &mut Vec<u8>, number: u64, value: u64) {
    put_varint(out, number << 3);
    put_varint(out, value);
}

fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.push((value & 0x7f) as u8);
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// The payload of the field at this path of numbers; where a number comes again, the first of them.
    fn at<'a>(mut bytes: &'a [u8], path: &[u64]) -> &'a [u8] {
        for wanted in path {
            bytes = loop {
                let key = take_varint(&mut bytes);
                let (number, payload) = (key >> 3, take_payload(&mut bytes, key & 7));
                if number == *wanted {
                    break payload;
                }
            };
        }
        bytes
    }

    fn take_varint(bytes: &mut &[u8]) -> u64 {
        let mut value = 0;
        for (place, byte) in bytes.iter().enumerate() {
            value |= u64::from(byte & 0x7f) << (7 * place);
            if byte & 0x80 == 0 {
                *bytes = &bytes[place + 1..];
                return value;
            }
        }
        panic!("the message ends too early");
    }

    fn take_payload<'a>(bytes: &mut &'a [u8], wire_type: u64) -> &'a [u8] {
        let length = match wire_type {
            0 => bytes.iter().position(|byte| byte & 0x80 == 0).unwrap() + 1,
            1 => 8,
            2 => usize::try_from(take_varint(bytes)).unwrap(),
            other => panic!("wire type {other}"),
        };
        let (payload, rest) = bytes.split_at(length);
        *bytes = rest;
        payload
    }

    #[track_caller]
    fn check(document: &Value, path: &[u64], expected: &[u8]) {
        let message = encode(document);
        let found = at(&message, path);
        assert_eq!(
            String::from_utf8_lossy(found),
            String::from_utf8_lossy(expected),
            "at {path:?}"
        );
    }

    #[test]
    fn what_a_document_says_is_where_gnostic_looks_for_it() {
        let schema = json!({
            "type": "object",
            "required": ["a"],
            "default": {},
            "maximum": 1.5,
            "maxLength": 300,
            "enum": [["x"], "y"],
            "properties": { "a": { "$ref": "#/definitions/B" } },
            "items": { "format": "int32" },
            "additionalProperties": { "type": "string" },
            "x-kubernetes-list-map-keys": ["a"],
        });
        let document = json!({ "swagger": "2.0", "definitions": { "A": schema } });
        let schema = |path: &[u64]| [&[9, 1, 2], path].concat();
        check(&document, &[1], b"2.0");
        check(&document, &[9, 1, 1], b"A");
        check(&document, &schema(&[22, 1]), b"object");
        check(&document, &schema(&[19]), b"a");
        check(&document, &schema(&[5, 2]), b"{}\n");
        check(&document, &schema(&[7]), &1.5f64.to_le_bytes());
        check(&document, &schema(&[11]), &[0xac, 2]);
        check(&document, &schema(&[20, 2]), b"[\"x\"]\n");
        check(&document, &schema(&[25, 1, 1]), b"a");
        check(&document, &schema(&[25, 1, 2, 1]), b"#/definitions/B");
        check(&document, &schema(&[23, 1, 2]), b"int32");
        check(&document, &schema(&[21, 1, 22, 1]), b"string");
        check(&document, &schema(&[31, 1]), b"x-kubernetes-list-map-keys");
        check(&document, &schema(&[31, 2, 2]), b"[\"a\"]\n");
    }

    #[test]
    fn parameters_go_to_the_message_of_their_place() {
        let operation = |parameter: Value| {
            json!({ "paths": { "/a": { "get": {
                "parameters": [parameter],
                "responses": { "200": { "description": "OK", "schema": { "type": "string" } } },
            } } } })
        };
        let path = |rest: &[u64]| [&[8, 2, 2, 2], rest].concat();
        let body = operation(json!({ "in": "body", "schema": { "$ref": "R" } }));
        check(&body, &path(&[8, 1, 1, 5, 1]), b"R");
        check(&body, &path(&[9, 1, 1]), b"200");
        check(&body, &path(&[9, 1, 2, 1, 2, 1, 22, 1]), b"string");
        let query = operation(json!({ "in": "query", "name": "q", "type": "string" }));
        check(&query, &path(&[8, 1, 2, 3, 4]), b"q");
        let in_path = operation(json!({ "in": "path", "name": "p", "type": "string" }));
        check(&in_path, &path(&[8, 1, 2, 4, 4]), b"p");
    }
}
