//! Checks a value against a schema, in the words of upstream's OpenAPI validator.
//!
//! On updates what did not change is not checked again: objects that were good when they were written stay writable when their
//! schema becomes stricter (upstream calls it ratcheting).

use coracle_api::status::{ErrorType, FieldError, FieldErrors, Path};
use serde_json::{Map, Value};

use super::formats;
use super::schema::{Additional, Limits, ListType, Node, Type};

/// Errors named in one answer; whoever sends thousands of wrong items gets no answer of megabytes.
const MAX_ERRORS: usize = 200;

/// Checks an object, or any value below one.
pub(crate) fn validate(node: &Node, value: &Value, old: Option<&Value>, errors: &mut FieldErrors) {
    let mut checker = Checker { path: String::new(), found: Vec::new() };
    checker.value(node, value, old);
    checker.keys(node, value, old);
    errors.extend(checker.found);
}

/// Whether these errors leave too little sense in the object for CEL rules to be evaluated.
pub(crate) fn blocks_rules(errors: &FieldErrors) -> bool {
    errors.iter().any(|error| {
        matches!(
            error.kind,
            ErrorType::NotSupported
                | ErrorType::Required
                | ErrorType::TooLong
                | ErrorType::Duplicate
                | ErrorType::TooMany
                | ErrorType::TypeInvalid
        )
    })
}

struct Checker {
    /// Where we are: `spec.ports[0].name`.
    path: String,
    found: Vec<FieldError>,
}

impl Checker {
    fn value(&mut self, node: &Node, value: &Value, old: Option<&Value>) {
        if old == Some(value) {
            return;
        }
        if value.is_null() && (node.nullable || (node.type_.is_none() && !node.int_or_string)) {
            return;
        }
        self.type_of(node, value);
        self.combinations(node, value);
        match value {
            Value::String(text) => self.text(&node.limits, text),
            Value::Number(number) => {
                self.number(&node.limits, number.as_f64().unwrap_or_default(), value)
            }
            _ => (),
        }
        if let Value::Array(items) = value {
            self.items(node, items, old);
        }
        self.enumeration(&node.limits, value);
        if let Value::Object(fields) = value {
            self.fields(node, fields, old);
        }
    }

    fn type_of(&mut self, node: &Node, value: &Value) {
        let fits = match (node.type_, value) {
            (None, Value::Number(_) | Value::String(_)) if node.int_or_string => {
                is_integer_or_text(value)
            }
            (None, _) => !node.int_or_string,
            (Some(Type::Object), Value::Object(_))
            | (Some(Type::Array), Value::Array(_))
            | (Some(Type::String), Value::String(_))
            | (Some(Type::Number), Value::Number(_))
            | (Some(Type::Boolean), Value::Bool(_)) => true,
            (Some(Type::Integer), Value::Number(_)) => is_integer(value),
            (Some(_), _) => false,
        };
        if !fits {
            let wanted = node.type_.map_or("integer,string", Type::as_str);
            self.wrong_type(wanted, type_name(value));
        }
    }

    /// `must be of type integer: "string"`.
    fn wrong_type(&mut self, wanted: &str, found: &str) {
        let detail = format!("{} in body must be of type {wanted}: {found:?}", self.path);
        self.add(ErrorType::TypeInvalid, found.into(), detail);
    }

    fn text(&mut self, limits: &Limits, text: &str) {
        let length = text.chars().count() as u64;
        if let Some(max) = limits.max_length.filter(|&max| length > max) {
            let unit = if max == 1 { "byte" } else { "bytes" };
            self.add(
                ErrorType::TooLong,
                Value::from(""),
                format!("may not be more than {max} {unit}"),
            );
        }
        if let Some(min) = limits.min_length.filter(|&min| length < min) {
            self.invalid(text.into(), format!("should be at least {min} chars long"));
        }
        if let Some(pattern) = limits.pattern.as_ref().filter(|pattern| !pattern.is_match(text)) {
            self.invalid(text.into(), format!("should match '{pattern}'"));
        }
        if !formats::is_valid(&limits.format, text) {
            let detail =
                format!("{} in body must be of type {}: {text:?}", self.path, limits.format);
            self.add(ErrorType::TypeInvalid, text.into(), detail);
        }
    }

    fn number(&mut self, limits: &Limits, number: f64, value: &Value) {
        if let Some(max) = limits.maximum {
            if limits.exclusive_maximum && number >= max {
                self.invalid(value.clone(), format!("should be less than {}", plain(max)));
            } else if number > max {
                self.invalid(
                    value.clone(),
                    format!("should be less than or equal to {}", plain(max)),
                );
            }
        }
        if let Some(min) = limits.minimum {
            if limits.exclusive_minimum && number <= min {
                self.invalid(value.clone(), format!("should be greater than {}", plain(min)));
            } else if number < min {
                self.invalid(
                    value.clone(),
                    format!("should be greater than or equal to {}", plain(min)),
                );
            }
        }
        if let Some(factor) = limits.multiple_of.filter(|&factor| factor > 0.0) {
            let quotient = number / factor;
            if (quotient - quotient.round()).abs() > 1e-9 {
                self.invalid(value.clone(), format!("should be a multiple of {}", plain(factor)));
            }
        }
        let fits = match limits.format.as_str() {
            "int32" => number >= f64::from(i32::MIN) && number <= f64::from(i32::MAX),
            _ => true,
        };
        if !fits {
            let detail =
                format!("{} in body must be of type int32: {:?}", self.path, value.to_string());
            self.add(ErrorType::Invalid, value.clone(), detail);
        }
    }

    fn items(&mut self, node: &Node, items: &[Value], old: Option<&Value>) {
        let count = items.len() as u64;
        if let Some(child) = &node.items {
            let old = OldItems::new(&node.list_type, old);
            for (index, item) in items.iter().enumerate() {
                let length = self.path.len();
                self.path.push_str(&format!("[{index}]"));
                self.value(child, item, old.of(item));
                self.path.truncate(length);
                if self.found.len() >= MAX_ERRORS {
                    return;
                }
            }
        }
        if let Some(max) = node.limits.max_items.filter(|&max| count > max) {
            self.too_many(count, max);
        }
        if let Some(min) = node.limits.min_items.filter(|&min| count < min) {
            self.invalid(Value::from(count), format!("should have at least {min} items"));
        }
        let repeats = |index: usize| items[..index].contains(&items[index]);
        if node.limits.unique_items && (0..items.len()).any(repeats) {
            self.invalid(Value::from(""), "shouldn't contain duplicates".to_owned());
        }
    }

    fn enumeration(&mut self, limits: &Limits, value: &Value) {
        let allowed = &limits.enumeration;
        if allowed.is_empty() || allowed.iter().any(|one| same(one, value)) {
            return;
        }
        let shown: Vec<String> = allowed
            .iter()
            .map(|one| match one {
                Value::String(text) => coracle_api::status::go_quote(text),
                other => coracle_api::status::go_quote(&other.to_string()),
            })
            .collect();
        let detail = format!("supported values: {}", shown.join(", "));
        self.add(ErrorType::NotSupported, value.clone(), detail);
    }

    fn fields(&mut self, node: &Node, fields: &Map<String, Value>, old: Option<&Value>) {
        let count = fields.len() as u64;
        if let Some(max) = node.limits.max_properties.filter(|&max| count > max) {
            self.too_many(count, max);
        }
        if let Some(min) = node.limits.min_properties.filter(|&min| count < min) {
            self.invalid(Value::from(count), format!("should have at least {min} properties"));
        }
        for name in node.required.iter().filter(|name| !fields.contains_key(*name)) {
            self.required(name, "");
        }
        if node.embedded_resource {
            for name in ["apiVersion", "kind"] {
                if fields.get(name).and_then(Value::as_str).unwrap_or_default().is_empty() {
                    self.required(name, "must not be empty");
                }
            }
        }
        for (name, value) in fields {
            let child = match (node.properties.get(name), &node.additional) {
                (Some(child), _) => child,
                (None, Additional::Each(child)) => child,
                (None, _) => continue,
            };
            let length = self.enter(name);
            let old = if node.map_is_atomic { None } else { old.and_then(|old| old.get(name)) };
            self.value(child, value, old);
            self.path.truncate(length);
            if self.found.len() >= MAX_ERRORS {
                return;
            }
        }
    }

    fn combinations(&mut self, node: &Node, value: &Value) {
        let try_one = |path: &str, node: &Node| {
            let mut checker = Checker { path: path.to_owned(), found: Vec::new() };
            checker.value(node, value, None);
            checker.found
        };
        let quoted = format!("{:?}", self.path);
        if !node.any_of.is_empty() {
            let tries: Vec<_> = node.any_of.iter().map(|one| try_one(&self.path, one)).collect();
            if !tries.iter().any(Vec::is_empty) {
                self.composite(format!("{quoted} must validate at least one schema (anyOf)"));
                self.found.extend(tries.into_iter().min_by_key(Vec::len).unwrap_or_default());
            }
        }
        if !node.one_of.is_empty() {
            let tries: Vec<_> = node.one_of.iter().map(|one| try_one(&self.path, one)).collect();
            let good = tries.iter().filter(|errors| errors.is_empty()).count();
            let message = format!("{quoted} must validate one and only one schema (oneOf)");
            if good == 0 {
                self.composite(format!("{message}. Found none valid"));
                self.found.extend(tries.into_iter().min_by_key(Vec::len).unwrap_or_default());
            } else if good > 1 {
                self.composite(format!("{message}. Found {good} valid alternatives"));
            }
        }
        if !node.all_of.is_empty() {
            let tries: Vec<_> = node.all_of.iter().map(|one| try_one(&self.path, one)).collect();
            let good = tries.iter().filter(|errors| errors.is_empty()).count();
            if good < tries.len() {
                let none = if good == 0 { ". None validated" } else { "" };
                self.composite(format!("{quoted} must validate all the schemas (allOf){none}"));
                self.found.extend(tries.into_iter().flatten());
            }
        }
        if let Some(not) = &node.not
            && try_one(&self.path, not).is_empty()
        {
            self.composite(format!("{quoted} must not validate the schema (not)"));
        }
    }

    /// Sets and maps have each key once.
    fn keys(&mut self, node: &Node, value: &Value, old: Option<&Value>) {
        if old == Some(value) {
            return;
        }
        match value {
            Value::Array(items) => {
                self.duplicates(&node.list_type, items);
                let Some(child) = &node.items else { return };
                let old = OldItems::new(&node.list_type, old);
                for (index, item) in items.iter().enumerate() {
                    let length = self.path.len();
                    self.path.push_str(&format!("[{index}]"));
                    self.keys(child, item, old.of(item));
                    self.path.truncate(length);
                }
            }
            Value::Object(fields) => {
                for (name, value) in fields {
                    let Some(child) = node.property(name) else { continue };
                    let length = self.enter(name);
                    self.keys(child, value, old.and_then(|old| old.get(name)));
                    self.path.truncate(length);
                }
            }
            _ => (),
        }
    }

    fn duplicates(&mut self, list_type: &ListType, items: &[Value]) {
        let mut seen = std::collections::HashSet::new();
        for (index, item) in items.iter().enumerate() {
            let Some(key) = key_of(list_type, item) else { return };
            if !seen.insert(key.to_string()) && self.found.len() < MAX_ERRORS {
                let path = Path::from(format!("{}[{index}]", self.path).as_str());
                self.found.push(FieldError {
                    kind: ErrorType::Duplicate,
                    path,
                    value: key,
                    detail: String::new(),
                });
            }
        }
    }

    fn enter(&mut self, name: &str) -> usize {
        let length = self.path.len();
        if length > 0 {
            self.path.push('.');
        }
        self.path.push_str(name);
        length
    }

    fn required(&mut self, name: &str, detail: &str) {
        let length = self.enter(name);
        self.add(ErrorType::Required, Value::from(""), detail.to_owned());
        self.path.truncate(length);
    }

    fn too_many(&mut self, count: u64, max: u64) {
        let unit = if max == 1 { "item" } else { "items" };
        self.add(ErrorType::TooMany, Value::from(count), format!("must have at most {max} {unit}"));
    }

    /// `spec.size in body should …`.
    fn invalid(&mut self, value: Value, what: String) {
        let detail = format!("{} in body {what}", self.path);
        self.add(ErrorType::Invalid, value, detail);
    }

    /// Upstream does not say where, but in the message.
    fn composite(&mut self, detail: String) {
        let path = Path::from("");
        self.found.push(FieldError {
            kind: ErrorType::Invalid,
            path,
            value: Value::from(""),
            detail,
        });
    }

    fn add(&mut self, kind: ErrorType, value: Value, detail: String) {
        if self.found.len() < MAX_ERRORS {
            self.found.push(FieldError {
                kind,
                path: Path::from(self.path.as_str()),
                value,
                detail,
            });
        }
    }
}

/// The old items of a list, found again by their keys; those of other lists cannot be told apart.
pub(crate) struct OldItems<'a> {
    list_type: &'a ListType,
    by_key: std::collections::HashMap<String, &'a Value>,
}

impl<'a> OldItems<'a> {
    pub(crate) fn new(list_type: &'a ListType, old: Option<&'a Value>) -> Self {
        let items = old.and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        let keyed =
            items.iter().filter_map(|item| Some((key_of(list_type, item)?.to_string(), item)));
        Self { list_type, by_key: keyed.collect() }
    }

    pub(crate) fn of(&self, item: &Value) -> Option<&'a Value> {
        if self.by_key.is_empty() {
            return None;
        }
        self.by_key.get(&key_of(self.list_type, item)?.to_string()).copied()
    }
}

/// What identifies an item; nothing does in an atomic list.
fn key_of(list_type: &ListType, item: &Value) -> Option<Value> {
    match list_type {
        ListType::Atomic => None,
        ListType::Set => Some(item.clone()),
        ListType::Map(keys) => {
            let named = keys.iter().filter_map(|key| Some((key.clone(), item.get(key)?.clone())));
            Some(Value::Object(named.collect()))
        }
    }
}

/// Whether two values are the same, `1` and `1.0` included.
fn same(one: &Value, other: &Value) -> bool {
    match (one, other) {
        (Value::Number(one), Value::Number(other)) => one.as_f64() == other.as_f64(),
        _ => one == other,
    }
}

fn is_integer(value: &Value) -> bool {
    value.is_i64() || value.is_u64() || value.as_f64().is_some_and(|number| number.fract() == 0.0)
}

fn is_integer_or_text(value: &Value) -> bool {
    value.is_string() || is_integer(value)
}

fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(_) if is_integer(value) => "integer",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

/// A number as Go prints it.
fn plain(number: f64) -> String {
    if number.abs() >= 1e21 { format!("{number:e}") } else { number.to_string() }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[track_caller]
    fn check(schema: Value, value: Value, wanted: &[&str]) {
        let schema = Node::read(&json!({ "type": "object", "properties": { "spec": schema } }));
        let mut errors = FieldErrors::new();
        validate(&schema, &json!({ "spec": value }), None, &mut errors);
        let found: Vec<String> = errors.iter().map(ToString::to_string).collect();
        assert_eq!(found, wanted);
    }

    #[test]
    fn types_are_checked() {
        check(json!({ "type": "integer" }), json!(5), &[]);
        check(json!({ "type": "integer" }), json!(5.0), &[]);
        check(
            json!({ "type": "integer" }),
            json!("5"),
            &["spec: Invalid value: \"string\": spec in body must be of type integer: \"string\""],
        );
        check(
            json!({ "type": "string" }),
            json!(null),
            &["spec: Invalid value: \"null\": spec in body must be of type string: \"null\""],
        );
        check(json!({ "type": "string", "nullable": true }), json!(null), &[]);
        check(json!({ "x-kubernetes-int-or-string": true }), json!("5%"), &[]);
        check(
            json!({ "x-kubernetes-int-or-string": true }),
            json!(true),
            &[
                "spec: Invalid value: \"boolean\": spec in body must be of type integer,string: \"boolean\"",
            ],
        );
        check(json!({ "x-kubernetes-preserve-unknown-fields": true }), json!([1, "a"]), &[]);
    }

    #[test]
    fn limits_are_kept() {
        check(
            json!({ "type": "integer", "minimum": 1, "maximum": 10 }),
            json!(0),
            &["spec: Invalid value: 0: spec in body should be greater than or equal to 1"],
        );
        check(
            json!({ "type": "integer", "maximum": 10, "exclusiveMaximum": true }),
            json!(10),
            &["spec: Invalid value: 10: spec in body should be less than 10"],
        );
        check(
            json!({ "type": "string", "pattern": "^[a-z]+$", "maxLength": 3 }),
            json!("ABCD"),
            &[
                "spec: Too long: may not be more than 3 bytes",
                "spec: Invalid value: \"ABCD\": spec in body should match '^[a-z]+$'",
            ],
        );
        check(
            json!({ "type": "string", "enum": ["a", "b"] }),
            json!("c"),
            &["spec: Unsupported value: \"c\": supported values: \"a\", \"b\""],
        );
        check(
            json!({ "type": "object", "required": ["a"], "properties": { "a": { "type": "string" }, "b": { "type": "array", "maxItems": 1, "items": { "type": "integer" } } } }),
            json!({ "b": [1, "x"] }),
            &[
                "spec.a: Required value",
                "spec.b[1]: Invalid value: \"string\": spec.b[1] in body must be of type integer: \"string\"",
                "spec.b: Too many: 2: must have at most 1 item",
            ],
        );
        check(
            json!({ "type": "string", "format": "date-time" }),
            json!("yesterday"),
            &[
                "spec: Invalid value: \"yesterday\": spec in body must be of type date-time: \"yesterday\"",
            ],
        );
    }

    #[test]
    fn keys_are_unique() {
        let list = json!({ "type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"],
            "items": { "type": "object", "properties": { "name": { "type": "string" } } } });
        check(
            list,
            json!([{ "name": "a" }, { "name": "a" }]),
            &["spec[1]: Duplicate value: {\"name\":\"a\"}"],
        );
        let set = json!({ "type": "array", "x-kubernetes-list-type": "set", "items": { "type": "string" } });
        check(set, json!(["a", "b", "a"]), &["spec[2]: Duplicate value: \"a\""]);
    }

    #[test]
    fn schemas_are_combined() {
        let schema = json!({ "type": "object", "properties": { "a": { "type": "string" }, "b": { "type": "string" } },
            "oneOf": [{ "required": ["a"] }, { "required": ["b"] }] });
        check(schema.clone(), json!({ "a": "" }), &[]);
        check(
            schema.clone(),
            json!({}),
            &[
                "<nil>: Invalid value: \"\": \"spec\" must validate one and only one schema (oneOf). Found none valid",
                "spec.a: Required value",
            ],
        );
        check(
            schema,
            json!({ "a": "", "b": "" }),
            &[
                "<nil>: Invalid value: \"\": \"spec\" must validate one and only one schema (oneOf). Found 2 valid alternatives",
            ],
        );
        check(
            json!({ "type": "string", "not": { "enum": ["x"] } }),
            json!("x"),
            &["<nil>: Invalid value: \"\": \"spec\" must not validate the schema (not)"],
        );
    }

    #[test]
    fn what_did_not_change_stays_good() {
        let schema = Node::read(
            &json!({ "type": "object", "properties": { "a": { "type": "integer", "maximum": 1 }, "b": { "type": "integer" } } }),
        );
        let mut errors = FieldErrors::new();
        validate(
            &schema,
            &json!({ "a": 5, "b": 2 }),
            Some(&json!({ "a": 5, "b": 1 })),
            &mut errors,
        );
        assert!(errors.is_empty(), "{errors}");
        validate(&schema, &json!({ "a": 6 }), Some(&json!({ "a": 5 })), &mut errors);
        assert_eq!(errors.len(), 1);
    }
}
