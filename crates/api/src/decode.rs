//! From bytes to an object of a kind, driven by the schema.
//!
//! One pass over the text checks types, drops unknown fields and nulls, finds duplicate fields, and brings quantities
//! and times into their canonical form. The words of the errors are those of Go's `encoding/json` and of upstream's
//! request handlers, because people search the web for them.

use serde_json::{Map, Value};

use crate::kinds::{self, Kind};
use crate::schema::{Schema, Shape, TypeId};
use crate::status::{FieldErrors, Status, go_quote};

mod read;
mod text;

use read::{Reader, Root};

/// Deepest nesting of lists and objects. `serde_json` reads 128 levels, and what is stored here comes back inside
/// lists and watch events, which are levels themselves: whatever we accept, every client must be able to read.
pub const MAX_DEPTH: usize = 120;
/// Unknown and duplicate fields named in one answer, as many as upstream's decoder does.
const MAX_FINDINGS: usize = 100;
/// How much of a body that is no object an error shows.
const SUMMARY_BYTES: usize = 30;

/// What to do about unknown and duplicate fields.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum FieldValidation {
    /// Drop them silently.
    Ignore,
    /// Drop them, and say so.
    #[default]
    Warn,
    /// Refuse the object.
    Strict,
}

/// An object that has the right shape.
#[derive(Debug, Clone, PartialEq)]
pub struct Decoded {
    /// The object, with `apiVersion` and `kind`.
    pub value: Value,
    /// One for each unknown or duplicate field, for `Warning` headers.
    pub warnings: Vec<String>,
}

/// Why bytes are no object of the kind.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct DecodeError {
    /// What is wrong with the text itself.
    cause: String,
    /// The same, as the answer to a request says it.
    message: String,
}

impl DecodeError {
    /// What is wrong, without naming the kind.
    pub fn cause(&self) -> &str {
        &self.cause
    }

    /// An object with fields that its schema, which is not ours, does not know, when the client wants to hear of it.
    pub fn strict(kind: &Kind, findings: &[String]) -> Self {
        let wanted = Wanted { group: kind.group, version: kind.version, kind: kind.kind };
        let found = Found {
            group: kind.group.to_owned(),
            version: kind.version.to_owned(),
            kind: kind.kind.to_owned(),
        };
        wanted.refuse(&found, format!("strict decoding error: {}", findings.join(", ")))
    }

    /// The answer to a create or update with these bytes.
    pub fn status(&self) -> Status {
        Status::bad_request(self.message.clone())
    }

    /// The answer to a patch whose result, `patched`, is no object of the kind.
    pub fn patch_status(&self, patched: &str) -> Status {
        let mut errors = FieldErrors::new();
        errors.invalid("patch", patched, self.cause.clone());
        Status::invalid_kind("", "", "", &errors)
    }
}

impl FieldValidation {
    /// Reads the query parameter; absent or empty is [`FieldValidation::Warn`].
    pub fn parse(text: Option<&str>) -> Option<Self> {
        match text.unwrap_or_default() {
            "" | "Warn" => Some(Self::Warn),
            "Strict" => Some(Self::Strict),
            "Ignore" => Some(Self::Ignore),
            _ => None,
        }
    }
}

/// Decodes an object of `kind`; absent `apiVersion` and `kind` are filled in. The caller bounds the size.
pub fn decode(
    kind: &Kind,
    bytes: &[u8],
    validation: FieldValidation,
) -> Result<Decoded, DecodeError> {
    decode_body(kind.group, kind.version, kind.kind, bytes, validation)
}

/// Decodes an object of a kind that may be outside the table: `Scale`, `Eviction`, `TokenRequest`, `DeleteOptions`,
/// or one that was made at run time. Of a kind without schema, only the metadata is checked.
pub fn decode_body(
    group: &str,
    version: &str,
    kind: &str,
    bytes: &[u8],
    validation: FieldValidation,
) -> Result<Decoded, DecodeError> {
    let wanted = Wanted { group, version, kind };
    let schema = Schema::get();
    let root = schema
        .kind_type(group, version, kind)
        .or_else(|| schema.by_name(&format!("io.k8s.apimachinery.pkg.apis.meta.v1.{kind}")))
        .map_or(Root::Unknown, Root::Known);
    let read = Reader::read(schema, root, bytes);
    let (value, wrong_type, findings) = read.map_err(|syntax| wanted.unreadable(&syntax, bytes))?;
    let Value::Object(mut object) = value else {
        return Err(wanted.unreadable(&root_type_error(&value), bytes));
    };
    let found = wanted.found_in(&object);
    wanted.check_kind(&found)?;
    if let Some(wrong) = wrong_type {
        return Err(wanted.refuse(&found, wrong));
    }
    if validation == FieldValidation::Strict && !findings.is_empty() {
        return Err(
            wanted.refuse(&found, format!("strict decoding error: {}", findings.join(", ")))
        );
    }
    object.insert("apiVersion".to_owned(), kinds::api_version(group, version).into());
    object.insert("kind".to_owned(), kind.into());
    let warnings = if validation == FieldValidation::Warn { findings } else { Vec::new() };
    Ok(Decoded { value: Value::Object(object), warnings })
}

/// Checks an object that a patch made, as if it had come in as bytes.
pub fn check(
    kind: &Kind,
    value: &Value,
    validation: FieldValidation,
) -> Result<Decoded, DecodeError> {
    decode(kind, value.to_string().as_bytes(), validation)
}

/// Decodes a value of any type of the schema; nothing is filled in.
pub fn decode_type(
    type_id: TypeId,
    bytes: &[u8],
    validation: FieldValidation,
) -> Result<Decoded, DecodeError> {
    let plain = |cause: String| DecodeError { message: cause.clone(), cause };
    let (value, wrong_type, findings) =
        Reader::read(Schema::get(), Root::Known(type_id), bytes).map_err(plain)?;
    if let Some(wrong) = wrong_type {
        return Err(plain(wrong));
    }
    if validation == FieldValidation::Strict && !findings.is_empty() {
        return Err(plain(format!("strict decoding error: {}", findings.join(", "))));
    }
    let warnings = if validation == FieldValidation::Warn { findings } else { Vec::new() };
    Ok(Decoded { value, warnings })
}

/// Reads any JSON, within the bounds of depth that objects have.
pub fn parse(bytes: &[u8]) -> Result<Value, String> {
    Reader::read(Schema::get(), Root::Anything, bytes).map(|(value, _, _)| value)
}

/// The kind that the path asks for.
struct Wanted<'a> {
    group: &'a str,
    version: &'a str,
    kind: &'a str,
}

/// The kind that the body names, completed from the path.
struct Found {
    group: String,
    version: String,
    kind: String,
}

impl Wanted<'_> {
    fn found_in(&self, object: &Map<String, Value>) -> Found {
        let text = |key: &str| object.get(key).and_then(Value::as_str).unwrap_or_default();
        let (group, version) = match text("apiVersion") {
            "" => (self.group, self.version),
            written => kinds::split_api_version(written),
        };
        let kind = match text("kind") {
            "" => self.kind,
            written => written,
        };
        Found { group: group.to_owned(), version: version.to_owned(), kind: kind.to_owned() }
    }

    fn check_kind(&self, found: &Found) -> Result<(), DecodeError> {
        let wanted = (self.group, self.version, self.kind);
        if (found.group.as_str(), found.version.as_str(), found.kind.as_str()) == wanted {
            return Ok(());
        }
        let api_version = kinds::api_version(&found.group, &found.version);
        let expected = kinds::api_version(self.group, self.version);
        let is_known = Schema::get().kind_type(&found.group, &found.version, &found.kind).is_some();
        if is_known && found.kind == self.kind {
            let message = format!(
                "the API version in the data ({api_version}) does not match the expected API version ({expected})"
            );
            return Err(DecodeError { cause: message.clone(), message });
        }
        if is_known {
            let package = |group: &str| match group.split('.').next() {
                None | Some("") => "core".to_owned(),
                Some(first) => first.to_owned(),
            };
            let cause = format!(
                "converting ({}.{}) to ({}.{}): unknown conversion",
                found.version,
                found.kind,
                package(self.group),
                self.kind
            );
            return Err(self.refuse(found, cause));
        }
        let cause = format!(
            "no kind {} is registered for version {} in scheme \"pkg/api/legacyscheme/scheme.go:30\"",
            go_quote(&found.kind),
            go_quote(&api_version)
        );
        Err(self.refuse(found, cause))
    }

    /// The body names its kind, and something in it is wrong.
    fn refuse(&self, found: &Found, cause: String) -> DecodeError {
        let version = go_quote(&found.version);
        let message = format!(
            "{} in version {version} cannot be handled as a {}: {cause}",
            found.kind, self.kind
        );
        DecodeError { cause, message }
    }

    /// Not even the body's kind can be read.
    fn unreadable(&self, cause: &str, bytes: &[u8]) -> DecodeError {
        let cause = format!("couldn't get version/kind; json parse error: {cause}");
        let shown = &bytes[..bytes.len().min(SUMMARY_BYTES)];
        let dots = if bytes.len() > SUMMARY_BYTES { " ..." } else { "" };
        let summary = match bytes.first() {
            None => "<empty>".to_owned(),
            Some(b'{') => format!("{}{dots}", String::from_utf8_lossy(shown)),
            Some(_) => format!("{}{dots}", text::hexadecimal(shown)),
        };
        let kind = self.kind;
        let message = format!(
            "the object provided is unrecognized (must be of type {kind}): {cause} ({summary})"
        );
        DecodeError { cause, message }
    }
}

fn root_type_error(value: &Value) -> String {
    let found = match value {
        Value::Array(_) => "array",
        Value::String(_) => "string",
        Value::Number(_) => "number",
        Value::Bool(_) => "bool",
        Value::Null | Value::Object(_) => "object",
    };
    let into = "struct { APIVersion string \"json:\\\"apiVersion,omitempty\\\"\"; Kind string \"json:\\\"kind,omitempty\\\"\" }";
    format!("json: cannot unmarshal {found} into Go value of type {into}")
}

/// How Go would print the type.
fn go_type(schema: &Schema, id: TypeId) -> String {
    let found = schema.type_(id);
    match &found.shape {
        Shape::String | Shape::IntOrString | Shape::Quantity | Shape::Time | Shape::MicroTime => {
            "string".to_owned()
        }
        Shape::Int32 => "int32".to_owned(),
        Shape::Int64 => "int64".to_owned(),
        Shape::Number => "float64".to_owned(),
        Shape::Bool => "bool".to_owned(),
        Shape::Bytes => "[]uint8".to_owned(),
        Shape::Any => "interface {}".to_owned(),
        Shape::List { item } => format!("[]{}", go_type(schema, *item)),
        Shape::Map { value } => format!("map[string]{}", go_type(schema, *value)),
        Shape::Object(_) | Shape::Either { .. } => {
            let mut parts = found.name.rsplit('.');
            let name = parts.next().unwrap_or_default();
            format!("{}.{name}", parts.next().unwrap_or_default())
        }
    }
}

#[cfg(test)]
mod tests;
