//! Label and field selectors: what a list, a watch or a controller wants to see.
//!
//! Both match against a lookup function, so that they work on stored attributes, on JSON and on typed objects alike.

use std::collections::BTreeSet;
use std::fmt::Display;

use serde_json::Value;

use crate::names;
use crate::status::go_quote;

mod labels;

/// A conjunction of requirements on labels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LabelSelector {
    /// Matches no object: what an absent `metav1.LabelSelector` means.
    Nothing,
    /// Matches objects that meet all of these; without any, every object.
    All(Vec<Requirement>),
}

/// One requirement on one label.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Requirement {
    /// The label's key.
    pub key: String,
    /// What its value must be.
    pub operator: Operator,
}

/// What a label's value must be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Operator {
    /// One of these.
    In(BTreeSet<String>),
    /// None of these, or absent.
    NotIn(BTreeSet<String>),
    /// Anything, but there.
    Exists,
    /// Absent.
    DoesNotExist,
    /// An integer greater than this.
    GreaterThan(i64),
    /// An integer less than this.
    LessThan(i64),
}

/// Why a selector cannot be read; the message is upstream's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct SelectorError(pub String);

impl Default for LabelSelector {
    fn default() -> Self {
        Self::everything()
    }
}

impl LabelSelector {
    /// Matches every object.
    pub const fn everything() -> Self {
        Self::All(Vec::new())
    }

    /// Matches objects that have all these labels.
    pub fn equals<'a>(labels: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        let requirements = labels
            .into_iter()
            .map(|(key, value)| Requirement {
                key: key.to_owned(),
                operator: Operator::In(BTreeSet::from([value.to_owned()])),
            })
            .collect();
        Self::All(requirements)
    }

    /// Reads the form that query parameters have: `app=web,tier in (a, b),!old`.
    pub fn parse(text: &str) -> Result<Self, SelectorError> {
        labels::parse(text).map(Self::All)
    }

    /// Reads a `metav1.LabelSelector`; absent or null matches nothing, empty matches everything.
    pub fn from_value(selector: Option<&Value>) -> Result<Self, SelectorError> {
        let Some(selector) = selector.filter(|selector| !selector.is_null()) else {
            return Ok(Self::Nothing);
        };
        let mut requirements = Vec::new();
        if let Some(labels) = selector.get("matchLabels").and_then(Value::as_object) {
            for (key, value) in labels {
                let value = value.as_str().unwrap_or_default();
                requirements.push(Requirement::new(key, "In", &[value])?);
            }
        }
        if let Some(expressions) = selector.get("matchExpressions").and_then(Value::as_array) {
            for expression in expressions {
                let text =
                    |name: &str| expression.get(name).and_then(Value::as_str).unwrap_or_default();
                let values = expression.get("values").and_then(Value::as_array);
                let values: Vec<&str> =
                    values.into_iter().flatten().filter_map(Value::as_str).collect();
                let operator = text("operator");
                if !matches!(operator, "In" | "NotIn" | "Exists" | "DoesNotExist") {
                    return Err(SelectorError(format!(
                        "{} is not a valid label selector operator",
                        go_quote(operator)
                    )));
                }
                requirements.push(Requirement::new(text("key"), operator, &values)?);
            }
        }
        Ok(Self::All(requirements))
    }

    /// Reads a plain map of labels, as a Service's or ReplicationController's `spec.selector`; absent or empty
    /// matches nothing, because such an owner selects no pods.
    pub fn from_map(selector: Option<&Value>) -> Self {
        match selector.and_then(Value::as_object) {
            Some(labels) if !labels.is_empty() => Self::equals(
                labels
                    .iter()
                    .map(|(key, value)| (key.as_str(), value.as_str().unwrap_or_default())),
            ),
            _ => Self::Nothing,
        }
    }

    /// Whether it matches every object, so that nobody need look.
    pub fn is_everything(&self) -> bool {
        matches!(self, Self::All(requirements) if requirements.is_empty())
    }

    /// Whether an object with these labels is selected.
    pub fn matches<'a>(&self, label: impl Fn(&str) -> Option<&'a str>) -> bool {
        match self {
            Self::Nothing => false,
            Self::All(requirements) => requirements.iter().all(|one| one.matches(label(&one.key))),
        }
    }

    /// Whether an object with this `metadata.labels` is selected.
    pub fn matches_labels(&self, labels: Option<&Value>) -> bool {
        self.matches(|key| labels?.get(key)?.as_str())
    }
}

impl Display for LabelSelector {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            // Upstream's selector of nothing prints as nothing too.
            Self::Nothing => Ok(()),
            Self::All(requirements) => {
                let parts: Vec<String> = requirements.iter().map(ToString::to_string).collect();
                out.write_str(&parts.join(","))
            }
        }
    }
}

impl Requirement {
    /// Checks key, operator (`In`, `NotIn`, `Exists`, `DoesNotExist`, `Gt`, `Lt`) and values.
    pub fn new(key: &str, operator: &str, values: &[&str]) -> Result<Self, SelectorError> {
        let wrong = names::qualified_name(key);
        if !wrong.is_empty() {
            return Err(SelectorError(format!(
                "key: Invalid value: {}: {}",
                go_quote(key),
                wrong.join("; ")
            )));
        }
        let shown = || {
            format!(
                "[{}]",
                values.iter().map(|value| go_quote(value)).collect::<Vec<_>>().join(",")
            )
        };
        let wants = |good: bool, what: &str| {
            if good {
                Ok(())
            } else {
                Err(SelectorError(format!("values: Invalid value: {}: {what}", shown())))
            }
        };
        let integer = || {
            let number = values.first().and_then(|value| value.parse::<i64>().ok());
            number.ok_or_else(|| {
                SelectorError(format!(
                    "values[0]: Invalid value: {}: for 'Gt', 'Lt' operators, the value must be an integer",
                    go_quote(values.first().copied().unwrap_or_default())
                ))
            })
        };
        let exactly_one = "for 'Gt', 'Lt' operators, exactly one value is required";
        let operator = match operator {
            "In" | "NotIn" => {
                wants(
                    !values.is_empty(),
                    "for 'in', 'notin' operators, values set can't be empty",
                )?;
                let set: BTreeSet<String> =
                    values.iter().map(|value| (*value).to_owned()).collect();
                if operator == "In" { Operator::In(set) } else { Operator::NotIn(set) }
            }
            "Exists" | "DoesNotExist" => {
                wants(values.is_empty(), "values set must be empty for exists and does not exist")?;
                if operator == "Exists" { Operator::Exists } else { Operator::DoesNotExist }
            }
            "Gt" => {
                wants(values.len() == 1, exactly_one)?;
                Operator::GreaterThan(integer()?)
            }
            "Lt" => {
                wants(values.len() == 1, exactly_one)?;
                Operator::LessThan(integer()?)
            }
            other => {
                return Err(SelectorError(format!(
                    "operator: Unsupported value: {}",
                    go_quote(other)
                )));
            }
        };
        for (index, value) in values.iter().enumerate() {
            let wrong = names::label_value(value);
            if !wrong.is_empty() {
                let (value, wrong) = (go_quote(value), wrong.join("; "));
                return Err(SelectorError(format!(
                    "values[{index}][{key}]: Invalid value: {value}: {wrong}"
                )));
            }
        }
        Ok(Self { key: key.to_owned(), operator })
    }

    /// Whether a label with this value, or its absence, meets the requirement.
    pub fn matches(&self, value: Option<&str>) -> bool {
        match &self.operator {
            Operator::In(set) => value.is_some_and(|value| set.contains(value)),
            Operator::NotIn(set) => value.is_none_or(|value| !set.contains(value)),
            Operator::Exists => value.is_some(),
            Operator::DoesNotExist => value.is_none(),
            Operator::GreaterThan(bound) => number(value).is_some_and(|number| number > *bound),
            Operator::LessThan(bound) => number(value).is_some_and(|number| number < *bound),
        }
    }
}

fn number(value: Option<&str>) -> Option<i64> {
    value?.parse().ok()
}

impl Display for Requirement {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let key = &self.key;
        let joined =
            |set: &BTreeSet<String>| set.iter().map(String::as_str).collect::<Vec<_>>().join(",");
        match &self.operator {
            Operator::In(set) if set.len() == 1 => write!(out, "{key}={}", joined(set)),
            Operator::In(set) => write!(out, "{key} in ({})", joined(set)),
            Operator::NotIn(set) if set.len() == 1 => write!(out, "{key}!={}", joined(set)),
            Operator::NotIn(set) => write!(out, "{key} notin ({})", joined(set)),
            Operator::Exists => write!(out, "{key}"),
            Operator::DoesNotExist => write!(out, "!{key}"),
            Operator::GreaterThan(bound) => write!(out, "{key}>{bound}"),
            Operator::LessThan(bound) => write!(out, "{key}<{bound}"),
        }
    }
}

/// A conjunction of requirements on single fields, such as `spec.nodeName=node-0,status.phase!=Running`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FieldSelector {
    terms: Vec<FieldTerm>,
}

/// One requirement on one field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldTerm {
    /// Path of the field.
    pub field: String,
    /// The value it must have, or must not.
    pub value: String,
    /// Whether it must not.
    pub negated: bool,
}

impl FieldSelector {
    /// Matches every object.
    pub const fn everything() -> Self {
        Self { terms: Vec::new() }
    }

    /// Reads the form that query parameters have.
    pub fn parse(text: &str) -> Result<Self, SelectorError> {
        let mut terms = Vec::new();
        for part in split_terms(text) {
            if part.is_empty() {
                continue;
            }
            let (field, value, negated) = split_term(part).ok_or_else(|| {
                SelectorError(format!("invalid selector: '{text}'; can't understand '{part}'"))
            })?;
            terms.push(FieldTerm { field: field.to_owned(), value: unescape(value)?, negated });
        }
        Ok(Self { terms })
    }

    /// Selects on `field` being exactly `value`.
    pub fn equals(field: &str, value: &str) -> Self {
        Self {
            terms: vec![FieldTerm {
                field: field.to_owned(),
                value: value.to_owned(),
                negated: false,
            }],
        }
    }

    /// Each requirement.
    pub fn terms(&self) -> &[FieldTerm] {
        &self.terms
    }

    /// Whether it matches every object, so that nobody need look.
    pub fn is_everything(&self) -> bool {
        self.terms.is_empty()
    }

    /// The one value that `field` must have, if the selector says so.
    pub fn requires_exact(&self, field: &str) -> Option<&str> {
        self.terms
            .iter()
            .find(|term| !term.negated && term.field == field)
            .map(|term| term.value.as_str())
    }

    /// The first field that `is_supported` refuses: upstream answers 400 to it.
    pub fn unsupported_field(&self, is_supported: impl Fn(&str) -> bool) -> Option<&str> {
        self.terms.iter().map(|term| term.field.as_str()).find(|field| !is_supported(field))
    }

    /// Whether an object with these fields is selected; an absent field counts as empty.
    pub fn matches<'a>(&self, field: impl Fn(&str) -> Option<&'a str>) -> bool {
        self.terms
            .iter()
            .all(|term| (field(&term.field).unwrap_or_default() == term.value) != term.negated)
    }
}

impl Display for FieldSelector {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (index, term) in self.terms.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            let operator = if term.negated { "!=" } else { "=" };
            let value = term.value.replace('\\', "\\\\").replace(',', "\\,").replace('=', "\\=");
            write!(out, "{comma}{}{operator}{value}", term.field)?;
        }
        Ok(())
    }
}

/// Splits at commas that are not escaped.
fn split_terms(text: &str) -> Vec<&str> {
    let mut parts = Vec::new();
    let mut start = 0;
    let mut escaped = false;
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b',' => {
                parts.push(&text[start..at]);
                start = at + 1;
            }
            _ => (),
        }
    }
    parts.push(&text[start..]);
    parts
}

/// Field, value, and whether the operator is `!=`.
fn split_term(part: &str) -> Option<(&str, &str, bool)> {
    for at in 0..part.len() {
        let rest = &part.as_bytes()[at..];
        if rest.starts_with(b"!=") {
            return Some((&part[..at], &part[at + 2..], true));
        }
        if rest.starts_with(b"==") {
            return Some((&part[..at], &part[at + 2..], false));
        }
        if rest.starts_with(b"=") {
            return Some((&part[..at], &part[at + 1..], false));
        }
    }
    None
}

fn unescape(value: &str) -> Result<String, SelectorError> {
    let mut plain = String::with_capacity(value.len());
    let mut characters = value.chars();
    while let Some(character) = characters.next() {
        match character {
            '\\' => match characters.next() {
                Some(escaped @ ('\\' | ',' | '=')) => plain.push(escaped),
                Some(other) => {
                    return Err(SelectorError(format!(
                        "invalid field selector: invalid escape sequence: \\{other}"
                    )));
                }
                None => {
                    return Err(SelectorError(
                        "invalid field selector: invalid escape sequence: \\".to_owned(),
                    ));
                }
            },
            ',' | '=' => {
                return Err(SelectorError(format!(
                    "invalid field selector: unescaped character in value: {character}"
                )));
            }
            plain_character => plain.push(plain_character),
        }
    }
    Ok(plain)
}

#[cfg(test)]
mod tests;
