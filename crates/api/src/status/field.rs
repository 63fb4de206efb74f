//! Errors about fields, worded as upstream's `apimachinery/pkg/util/validation/field/errors.go` does.

use std::fmt::{Display, Write as _};

use serde_json::Value;

use super::Cause;

/// Where a field is: `spec.containers[0].name`, `metadata.labels[app]`.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Path(String);

impl Path {
    /// The path of a field of the object itself.
    pub fn new(name: &str) -> Self {
        Self(name.to_owned())
    }

    /// The object itself; prints as nothing.
    pub const fn root() -> Self {
        Self(String::new())
    }

    /// A field of the object at this path.
    #[must_use]
    pub fn child(&self, name: &str) -> Self {
        if self.0.is_empty() { Self(name.to_owned()) } else { Self(format!("{}.{name}", self.0)) }
    }

    /// An item of the list at this path.
    #[must_use]
    pub fn index(&self, index: usize) -> Self {
        Self(format!("{}[{index}]", self.0))
    }

    /// An entry of the map at this path.
    #[must_use]
    pub fn key(&self, key: &str) -> Self {
        Self(format!("{}[{key}]", self.0))
    }

    /// The path as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Display for Path {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str(&self.0)
    }
}

impl From<&Path> for Path {
    fn from(path: &Path) -> Self {
        path.clone()
    }
}

impl From<&str> for Path {
    fn from(path: &str) -> Self {
        Self(path.to_owned())
    }
}

/// The ways in which a field can be wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorType {
    /// It refers to something that is not there.
    NotFound,
    /// It must be given.
    Required,
    /// Another item has the same value.
    Duplicate,
    /// Its value breaks a rule.
    Invalid,
    /// Its value breaks a rule, and is too large to be shown.
    InvalidWhole,
    /// Its value is none of the allowed ones.
    NotSupported,
    /// It must not be given here.
    Forbidden,
    /// Its value has too many bytes.
    TooLong,
    /// It has too many items.
    TooMany,
    /// We could not check it.
    Internal,
    /// It has the wrong type.
    TypeInvalid,
}

impl ErrorType {
    const fn reason(self) -> &'static str {
        match self {
            Self::NotFound => "FieldValueNotFound",
            Self::Required => "FieldValueRequired",
            Self::Duplicate => "FieldValueDuplicate",
            Self::Invalid | Self::InvalidWhole => "FieldValueInvalid",
            Self::NotSupported => "FieldValueNotSupported",
            Self::Forbidden => "FieldValueForbidden",
            Self::TooLong => "FieldValueTooLong",
            Self::TooMany => "FieldValueTooMany",
            Self::Internal => "InternalError",
            Self::TypeInvalid => "FieldValueTypeInvalid",
        }
    }

    const fn words(self) -> &'static str {
        match self {
            Self::NotFound => "Not found",
            Self::Required => "Required value",
            Self::Duplicate => "Duplicate value",
            Self::Invalid | Self::InvalidWhole | Self::TypeInvalid => "Invalid value",
            Self::NotSupported => "Unsupported value",
            Self::Forbidden => "Forbidden",
            Self::TooLong => "Too long",
            Self::TooMany => "Too many",
            Self::Internal => "Internal error",
        }
    }

    const fn shows_value(self) -> bool {
        !matches!(
            self,
            Self::Required | Self::Forbidden | Self::TooLong | Self::Internal | Self::InvalidWhole
        )
    }
}

/// One field that is wrong.
#[derive(Debug, Clone, PartialEq)]
pub struct FieldError {
    /// In which way.
    pub kind: ErrorType,
    /// Where.
    pub path: Path,
    /// What stands there.
    pub value: Value,
    /// What should.
    pub detail: String,
}

impl FieldError {
    /// What is wrong, without where.
    pub fn body(&self) -> String {
        let mut text = self.kind.words().to_owned();
        if self.kind.shows_value() {
            let shown = match &self.value {
                Value::Null => go_quote("null"),
                Value::String(text) => go_quote(text),
                other => other.to_string(),
            };
            text = format!("{text}: {shown}");
        }
        if !self.detail.is_empty() {
            text = format!("{text}: {}", self.detail);
        }
        text
    }

    /// As one of the causes of a `Status`.
    pub fn cause(&self) -> Cause {
        Cause {
            reason: self.kind.reason().to_owned(),
            message: self.body(),
            field: self.path.0.clone(),
        }
    }
}

impl Display for FieldError {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.path.0.is_empty() {
            // Upstream prints an absent path in this way.
            write!(out, "<nil>: {}", self.body())
        } else {
            write!(out, "{}: {}", self.path, self.body())
        }
    }
}

/// All fields that are wrong, in the order in which they were found.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct FieldErrors(Vec<FieldError>);

impl FieldErrors {
    /// None yet.
    pub const fn new() -> Self {
        Self(Vec::new())
    }

    /// Whether nothing is wrong.
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many fields are wrong.
    pub const fn len(&self) -> usize {
        self.0.len()
    }

    /// Each of them.
    pub fn iter(&self) -> std::slice::Iter<'_, FieldError> {
        self.0.iter()
    }

    /// One more.
    pub fn push(&mut self, error: FieldError) {
        self.0.push(error);
    }

    /// The value breaks a rule; `detail` says which.
    pub fn invalid(
        &mut self,
        path: impl Into<Path>,
        value: impl Into<Value>,
        detail: impl Into<String>,
    ) {
        self.add(ErrorType::Invalid, path, value, detail);
    }

    /// One `invalid` for each message of a check such as those in [`crate::names`].
    pub fn invalid_each(&mut self, path: impl Into<Path>, value: &str, messages: Vec<String>) {
        let path = path.into();
        for message in messages {
            self.invalid(&path, value, message);
        }
    }

    /// The field must be given.
    pub fn required(&mut self, path: impl Into<Path>, detail: impl Into<String>) {
        self.add(ErrorType::Required, path, "", detail);
    }

    /// The field must not be given, or not be changed.
    pub fn forbidden(&mut self, path: impl Into<Path>, detail: impl Into<String>) {
        self.add(ErrorType::Forbidden, path, "", detail);
    }

    /// The value is none of `supported`.
    pub fn not_supported(
        &mut self,
        path: impl Into<Path>,
        value: impl Into<Value>,
        supported: &[&str],
    ) {
        let mut detail = String::new();
        if !supported.is_empty() {
            let quoted: Vec<String> = supported.iter().map(|value| go_quote(value)).collect();
            detail = format!("supported values: {}", quoted.join(", "));
        }
        self.add(ErrorType::NotSupported, path, value, detail);
    }

    /// Another item has the value.
    pub fn duplicate(&mut self, path: impl Into<Path>, value: impl Into<Value>) {
        self.add(ErrorType::Duplicate, path, value, "");
    }

    /// The value refers to something that is not there.
    pub fn not_found(&mut self, path: impl Into<Path>, value: impl Into<Value>) {
        self.add(ErrorType::NotFound, path, value, "");
    }

    /// The value has more than `max_bytes`.
    pub fn too_long(&mut self, path: impl Into<Path>, max_bytes: usize) {
        let unit = if max_bytes == 1 { "byte" } else { "bytes" };
        self.add(ErrorType::TooLong, path, "", format!("may not be more than {max_bytes} {unit}"));
    }

    /// The list or map has `actual` items, more than `max`.
    pub fn too_many(&mut self, path: impl Into<Path>, actual: usize, max: usize) {
        let unit = if max == 1 { "item" } else { "items" };
        self.add(ErrorType::TooMany, path, actual, format!("must have at most {max} {unit}"));
    }

    /// We could not check the field.
    pub fn internal(&mut self, path: impl Into<Path>, why: impl Display) {
        self.add(ErrorType::Internal, path, "", why.to_string());
    }

    /// The value has the wrong type.
    pub fn type_invalid(
        &mut self,
        path: impl Into<Path>,
        value: impl Into<Value>,
        detail: impl Into<String>,
    ) {
        self.add(ErrorType::TypeInvalid, path, value, detail);
    }

    fn add(
        &mut self,
        kind: ErrorType,
        path: impl Into<Path>,
        value: impl Into<Value>,
        detail: impl Into<String>,
    ) {
        self.0.push(FieldError {
            kind,
            path: path.into(),
            value: value.into(),
            detail: detail.into(),
        });
    }
}

impl Extend<FieldError> for FieldErrors {
    fn extend<T: IntoIterator<Item = FieldError>>(&mut self, errors: T) {
        self.0.extend(errors);
    }
}

impl IntoIterator for FieldErrors {
    type Item = FieldError;
    type IntoIter = std::vec::IntoIter<FieldError>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

impl<'a> IntoIterator for &'a FieldErrors {
    type Item = &'a FieldError;
    type IntoIter = std::slice::Iter<'a, FieldError>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

/// One error by itself, several in brackets, equal ones once: as upstream's aggregate prints them.
impl Display for FieldErrors {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut seen: Vec<String> = Vec::with_capacity(self.0.len());
        for error in &self.0 {
            let text = error.to_string();
            if !seen.contains(&text) {
                seen.push(text);
            }
        }
        match seen.as_slice() {
            [one] => out.write_str(one),
            several => write!(out, "[{}]", several.join(", ")),
        }
    }
}

/// Quotes text as Go's `%q` does.
pub fn go_quote(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for character in text.chars() {
        match character {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            '\n' => quoted.push_str("\\n"),
            '\r' => quoted.push_str("\\r"),
            '\t' => quoted.push_str("\\t"),
            '\u{7}' => quoted.push_str("\\a"),
            '\u{8}' => quoted.push_str("\\b"),
            '\u{b}' => quoted.push_str("\\v"),
            '\u{c}' => quoted.push_str("\\f"),
            control if control.is_control() => {
                let code = u32::from(control);
                // Writing to a String cannot fail.
                let _ = if code < 0x80 {
                    write!(quoted, "\\x{code:02x}")
                } else {
                    write!(quoted, "\\u{code:04x}")
                };
            }
            plain => quoted.push(plain),
        }
    }
    quoted.push('"');
    quoted
}
