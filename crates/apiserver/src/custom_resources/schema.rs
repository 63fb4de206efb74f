//! A CRD's OpenAPI v3 schema, read once into a tree that pruning, defaulting, validation and CEL walk.

use std::collections::BTreeMap;

use regex::Regex;
use serde_json::Value;

use super::cel::Rule;

/// Schemas nested more deeply are cut: objects cannot be nested as deeply either.
const MAX_DEPTH: usize = 100;

/// The type of a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Type {
    Object,
    Array,
    String,
    Integer,
    Number,
    Boolean,
}

impl Type {
    fn read(text: &str) -> Option<Self> {
        Some(match text {
            "object" => Self::Object,
            "array" => Self::Array,
            "string" => Self::String,
            "integer" => Self::Integer,
            "number" => Self::Number,
            "boolean" => Self::Boolean,
            _ => return None,
        })
    }

    /// As schemas and messages name it.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Object => "object",
            Self::Array => "array",
            Self::String => "string",
            Self::Integer => "integer",
            Self::Number => "number",
            Self::Boolean => "boolean",
        }
    }
}

/// What identifies the items of a list.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) enum ListType {
    /// The list is one value.
    #[default]
    Atomic,
    /// Each item is its own key.
    Set,
    /// These fields are the key.
    Map(Vec<String>),
}

/// What values of properties without a schema of their own must be.
#[derive(Debug, Default)]
pub(crate) enum Additional {
    /// Not said: they are unknown fields.
    #[default]
    Unknown,
    /// Anything goes.
    Anything,
    /// Each of them is such a value.
    Each(Box<Node>),
}

/// One node of the schema.
#[derive(Debug, Default)]
pub(crate) struct Node {
    pub(crate) type_: Option<Type>,
    pub(crate) nullable: bool,
    pub(crate) int_or_string: bool,
    pub(crate) preserve_unknown: bool,
    pub(crate) embedded_resource: bool,
    pub(crate) properties: BTreeMap<String, Node>,
    pub(crate) additional: Additional,
    pub(crate) items: Option<Box<Node>>,
    pub(crate) required: Vec<String>,
    pub(crate) default: Option<Value>,
    pub(crate) list_type: ListType,
    pub(crate) map_is_atomic: bool,
    pub(crate) limits: Limits,
    pub(crate) all_of: Vec<Node>,
    pub(crate) any_of: Vec<Node>,
    pub(crate) one_of: Vec<Node>,
    pub(crate) not: Option<Box<Node>>,
    pub(crate) rules: Vec<Rule>,
    /// Whether this node or one below has rules, so that trees without any are never walked.
    pub(crate) has_rules: bool,
}

/// What a value must keep to.
#[derive(Debug, Default)]
pub(crate) struct Limits {
    pub(crate) enumeration: Vec<Value>,
    pub(crate) format: String,
    pub(crate) pattern: Option<Regex>,
    pub(crate) maximum: Option<f64>,
    pub(crate) exclusive_maximum: bool,
    pub(crate) minimum: Option<f64>,
    pub(crate) exclusive_minimum: bool,
    pub(crate) multiple_of: Option<f64>,
    pub(crate) max_length: Option<u64>,
    pub(crate) min_length: Option<u64>,
    pub(crate) max_items: Option<u64>,
    pub(crate) min_items: Option<u64>,
    pub(crate) max_properties: Option<u64>,
    pub(crate) min_properties: Option<u64>,
    pub(crate) unique_items: bool,
}

impl Node {
    /// Reads a schema. What is wrong with it was refused when the definition was written; what cannot be read is not checked.
    pub(crate) fn read(schema: &Value) -> Self {
        read(schema, 0)
    }

    /// The schema of the field `name`.
    pub(crate) fn property(&self, name: &str) -> Option<&Node> {
        match (self.properties.get(name), &self.additional) {
            (Some(node), _) => Some(node),
            (None, Additional::Each(node)) => Some(node),
            (None, _) => None,
        }
    }
}

fn read(schema: &Value, depth: usize) -> Node {
    if depth > MAX_DEPTH {
        return Node { preserve_unknown: true, ..Node::default() };
    }
    let flag = |name: &str| schema[name].as_bool().unwrap_or(false);
    let list = |name: &str| schema[name].as_array().map(Vec::as_slice).unwrap_or_default();
    let nodes = |name: &str| list(name).iter().map(|node| read(node, depth + 1)).collect();
    let below = |name: &str| {
        schema
            .get(name)
            .filter(|value| value.is_object())
            .map(|node| Box::new(read(node, depth + 1)))
    };
    let properties = schema["properties"].as_object().into_iter().flatten();
    let mut node = Node {
        type_: schema["type"].as_str().and_then(Type::read),
        nullable: flag("nullable"),
        int_or_string: flag("x-kubernetes-int-or-string"),
        preserve_unknown: flag("x-kubernetes-preserve-unknown-fields"),
        embedded_resource: flag("x-kubernetes-embedded-resource"),
        properties: properties.map(|(name, node)| (name.clone(), read(node, depth + 1))).collect(),
        additional: match &schema["additionalProperties"] {
            Value::Bool(true) => Additional::Anything,
            Value::Object(_) => {
                below("additionalProperties").map_or(Additional::Unknown, Additional::Each)
            }
            _ => Additional::Unknown,
        },
        items: below("items"),
        required: strings(list("required")),
        default: schema.get("default").filter(|value| !value.is_null()).cloned(),
        list_type: match schema["x-kubernetes-list-type"].as_str() {
            Some("set") => ListType::Set,
            Some("map") => ListType::Map(strings(list("x-kubernetes-list-map-keys"))),
            _ => ListType::Atomic,
        },
        map_is_atomic: schema["x-kubernetes-map-type"] == "atomic",
        limits: limits(schema),
        all_of: nodes("allOf"),
        any_of: nodes("anyOf"),
        one_of: nodes("oneOf"),
        not: below("not"),
        rules: Rule::read_all(schema, depth == 0),
        has_rules: false,
    };
    node.has_rules = !node.rules.is_empty()
        || node.properties.values().any(|node| node.has_rules)
        || node.items.as_ref().is_some_and(|node| node.has_rules)
        || node.all_of.iter().any(|node| node.has_rules)
        || matches!(&node.additional, Additional::Each(node) if node.has_rules);
    node
}

fn limits(schema: &Value) -> Limits {
    let size = |name: &str| schema[name].as_u64();
    Limits {
        enumeration: schema["enum"].as_array().cloned().unwrap_or_default(),
        format: schema["format"].as_str().unwrap_or_default().to_owned(),
        pattern: schema["pattern"]
            .as_str()
            .filter(|pattern| !pattern.is_empty())
            .and_then(|pattern| Regex::new(pattern).ok()),
        maximum: schema["maximum"].as_f64(),
        exclusive_maximum: schema["exclusiveMaximum"] == true,
        minimum: schema["minimum"].as_f64(),
        exclusive_minimum: schema["exclusiveMinimum"] == true,
        multiple_of: schema["multipleOf"].as_f64(),
        max_length: size("maxLength"),
        min_length: size("minLength"),
        max_items: size("maxItems"),
        min_items: size("minItems"),
        max_properties: size("maxProperties"),
        min_properties: size("minProperties"),
        unique_items: schema["uniqueItems"] == true,
    }
}

fn strings(list: &[Value]) -> Vec<String> {
    list.iter().filter_map(Value::as_str).map(str::to_owned).collect()
}
