//! `x-kubernetes-validations`: rules in CEL about a value and, on updates, what it was before.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

use base64::Engine as _;
use coracle_api::status::{ErrorType, FieldError, FieldErrors, Path};
use coracle_cel::{
    Environment, EvaluationError, Extent, Key, Meter, Program, Scope, Type as CelType,
    Value as Cel, map, none, read_time, some,
};
use serde_json::Value;

use super::extent::Allowed;
use super::schema::{Additional, Node, Type};
use super::validate::OldItems;
use crate::expressions::{compile, of_structural};

/// What a message expression may make; upstream's bound.
const MAX_MESSAGE_BYTES: usize = 5 * 1024;

/// What the rules of one object may cost together; upstream's bound.
const BUDGET: u64 = 10_000_000;

/// One rule, compiled when it is first needed: a definition with hundreds of them is served at once.
pub(crate) struct Rule {
    text: String,
    message: String,
    message_expression: String,
    reason: String,
    field_path: String,
    optional_old_self: bool,
    /// What `self` is.
    of: CelType,
    compiled: OnceLock<Result<Compiled, Problem>>,
}

struct Compiled {
    program: Program,
    message: Option<Program>,
    uses_old_self: bool,
}

/// What does not compile, and why.
#[derive(Debug, Clone)]
pub(crate) struct Problem {
    /// `rule` or `messageExpression`.
    pub(crate) field: &'static str,
    pub(crate) detail: String,
}

impl std::fmt::Debug for Rule {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Rule").field("text", &self.text).finish_non_exhaustive()
    }
}

impl Rule {
    /// Reads all rules of a schema.
    pub(crate) fn read_all(schema: &Value, is_root: bool) -> Vec<Self> {
        let rules = schema["x-kubernetes-validations"].as_array().map(Vec::as_slice);
        let Some(rules) = rules.filter(|rules| !rules.is_empty()) else { return Vec::new() };
        let of = of_structural(schema, is_root);
        rules.iter().map(|rule| Self::read(rule, of.clone())).collect()
    }

    /// Reads a rule about values of this type.
    fn read(rule: &Value, of: CelType) -> Self {
        let text = |name: &str| rule[name].as_str().unwrap_or_default().to_owned();
        Self {
            text: text("rule"),
            message: text("message").trim().to_owned(),
            message_expression: text("messageExpression"),
            reason: text("reason"),
            field_path: text("fieldPath"),
            optional_old_self: rule["optionalOldSelf"] == true,
            of,
            compiled: OnceLock::new(),
        }
    }

    /// What is wrong with the rule's text, for whoever writes a definition.
    pub(crate) fn problem(&self) -> Option<Problem> {
        self.compiled().err().cloned()
    }

    /// Whether the rule compares with the value before.
    pub(crate) fn uses_old_self(&self) -> bool {
        self.compiled().is_ok_and(|compiled| compiled.uses_old_self)
    }

    /// What the rule costs at most on one value that the schema allows.
    pub(crate) fn costs(&self, schema: &Value) -> u64 {
        let Ok(compiled) = self.compiled() else { return 0 };
        let of = |name: &str| {
            let is_value = matches!(name, "self" | "oldSelf");
            is_value.then(|| Arc::new(Allowed(schema.clone())) as Arc<dyn Extent>)
        };
        compiled.program.estimate(&of)
    }

    fn compiled(&self) -> Result<&Compiled, &Problem> {
        let compile_all = || {
            let old = self.of.clone();
            let old = if self.optional_old_self { CelType::optional(old) } else { old };
            let environment =
                Environment::default().with("self", self.of.clone()).with("oldSelf", old);
            let rule = compile(&environment, &self.text, &[CelType::Bool]).map_err(|detail| {
                let detail = detail
                    .replace("must evaluate to bool", "cel expression must evaluate to a bool");
                Problem { field: "rule", detail }
            })?;
            let message = Some(&self.message_expression).filter(|text| !text.is_empty());
            let message = message
                .map(|text| compile(&environment, text, &[CelType::String]))
                .transpose()
                .map_err(|detail| {
                    let detail =
                        detail.replace("must evaluate to string", "must evaluate to a string");
                    let detail = format!("messageExpression {detail}");
                    Problem { field: "messageExpression", detail }
                })?;
            let uses_old_self = rule.mentions("oldSelf");
            Ok(Compiled { program: rule, message, uses_old_self })
        };
        self.compiled.get_or_init(compile_all).as_ref()
    }

    fn shown(&self) -> &str {
        if self.message.is_empty() { self.text.trim() } else { &self.message }
    }
}

/// What a rule sees.
struct Values {
    value: Cel,
    old: Option<Cel>,
}

impl Scope for Values {
    fn variable(&self, name: &str, _: &mut Meter) -> Option<Result<Cel, EvaluationError>> {
        match name {
            "self" => Some(Ok(self.value.clone())),
            "oldSelf" => self.old.clone().map(Ok),
            _ => None,
        }
    }
}

/// Evaluates the rules of a schema on an object whose types are right.
pub(crate) fn check(node: &Node, value: &Value, old: Option<&Value>, errors: &mut FieldErrors) {
    let mut walk = Walk {
        meter: Meter::new(BUDGET),
        path: Path::from(""),
        found: Vec::new(),
        unchanged: false,
    };
    walk.value(node, value, old);
    errors.extend(walk.found);
}

struct Walk {
    meter: Meter,
    path: Path,
    found: Vec<FieldError>,
    /// Whether the value, or one around it, is as it was: then it may stay so.
    unchanged: bool,
}

impl Walk {
    fn value(&mut self, node: &Node, value: &Value, old: Option<&Value>) {
        if !node.has_rules || value.is_null() {
            return;
        }
        let around = self.unchanged;
        self.unchanged |= old == Some(value);
        self.each(node, value, old);
        self.unchanged = around;
    }

    fn each(&mut self, node: &Node, value: &Value, old: Option<&Value>) {
        self.rules(node, &node.rules, value, old);
        for branch in &node.all_of {
            self.rules(node, &branch.rules, value, old);
        }
        match value {
            Value::Object(fields) => {
                for (name, value) in fields {
                    let (child, path) = match (node.properties.get(name), &node.additional) {
                        (Some(child), _) => (child, self.path.child(name)),
                        (None, Additional::Each(child)) => (&**child, self.path.key(name)),
                        (None, _) => continue,
                    };
                    let old =
                        if node.map_is_atomic { None } else { old.and_then(|old| old.get(name)) };
                    let outer = std::mem::replace(&mut self.path, path);
                    self.value(child, value, old);
                    self.path = outer;
                }
            }
            Value::Array(items) => {
                let Some(child) = &node.items else { return };
                let old = OldItems::new(&node.list_type, old);
                for (index, item) in items.iter().enumerate() {
                    let path = self.path.index(index);
                    let outer = std::mem::replace(&mut self.path, path);
                    self.value(child, item, old.of(item));
                    self.path = outer;
                }
            }
            _ => (),
        }
    }

    fn rules(&mut self, node: &Node, rules: &[Rule], value: &Value, old: Option<&Value>) {
        if rules.is_empty() || self.meter.is_spent() {
            return;
        }
        let new_value = convert(node, value);
        let old_value = old.map(|old| convert(node, old));
        for rule in rules {
            let compiled = match rule.compiled() {
                Ok(compiled) => compiled,
                Err(problem) => {
                    let detail = format!("rule compile error: {}", problem.detail);
                    self.wrong(node, value, rule, detail);
                    continue;
                }
            };
            let is_passed_over = if compiled.uses_old_self {
                old_value.is_none() && !rule.optional_old_self
            } else {
                self.unchanged
            };
            if is_passed_over {
                continue;
            }
            let old_self = match (rule.optional_old_self, old_value.clone()) {
                (true, old) => Some(old.map_or_else(none, some)),
                (false, old) => old,
            };
            let values = Values { value: new_value.clone(), old: old_self };
            match compiled.program.evaluate(&values, &mut self.meter) {
                Ok(Cel::Bool(true)) => (),
                Ok(Cel::Bool(false)) => {
                    let message = message(compiled, rule, &values, &mut self.meter);
                    self.wrong(node, value, rule, message);
                }
                Ok(_) => {
                    let detail = format!("rule did not evaluate to a bool: {}", rule.shown());
                    self.wrong(node, value, rule, detail);
                }
                Err(EvaluationError::TooExpensive) => {
                    let detail = if self.meter.is_spent() {
                        "validation failed due to running out of cost budget, no further validation rules will be run".to_owned()
                    } else {
                        format!(
                            "no further validation rules will be run due to call cost exceeds limit for rule: {}",
                            rule.text.trim()
                        )
                    };
                    self.wrong(node, value, rule, detail);
                    return;
                }
                Err(EvaluationError::Failed(why)) => {
                    let detail = format!("{why} evaluating rule: {}", rule.shown());
                    self.wrong(node, value, rule, detail);
                }
            }
        }
    }

    fn wrong(&mut self, node: &Node, value: &Value, rule: &Rule, detail: String) {
        let path = match rule.field_path.trim_start_matches('.') {
            "" => self.path.clone(),
            below => self.path.child(below),
        };
        let is_scalar =
            !matches!(value, Value::Object(_) | Value::Array(_)) && node.type_.is_some();
        let kind = match rule.reason.as_str() {
            "FieldValueForbidden" => ErrorType::Forbidden,
            "FieldValueRequired" => ErrorType::Required,
            "FieldValueDuplicate" => ErrorType::Duplicate,
            _ if is_scalar => ErrorType::Invalid,
            _ => ErrorType::InvalidWhole,
        };
        self.found.push(FieldError { kind, path, value: value.clone(), detail });
    }
}

/// What the rule says about a value that breaks it.
fn message(compiled: &Compiled, rule: &Rule, values: &Values, meter: &mut Meter) -> String {
    if let Some(program) = &compiled.message
        && let Ok(Cel::String(text)) = program.evaluate(values, meter)
    {
        let text = text.trim();
        if !text.is_empty() && text.len() <= MAX_MESSAGE_BYTES && !text.contains('\n') {
            return text.to_owned();
        }
    }
    if rule.message.is_empty() {
        format!("failed rule: {}", rule.text.trim())
    } else {
        rule.message.clone()
    }
}

/// A value in CEL's types, which the schema tells more exactly than JSON.
fn convert(node: &Node, value: &Value) -> Cel {
    match value {
        Value::Null => Cel::Null,
        Value::Bool(flag) => Cel::Bool(*flag),
        Value::Number(number) if node.type_ == Some(Type::Number) => {
            Cel::Float(number.as_f64().unwrap_or_default())
        }
        Value::Number(number) => match number.as_i64() {
            Some(integer) => Cel::Int(integer),
            None => Cel::Float(number.as_f64().unwrap_or_default()),
        },
        Value::String(text) => convert_text(&node.limits.format, text),
        Value::Array(items) => {
            let unknown = Node::default();
            let child = node.items.as_deref().unwrap_or(&unknown);
            Cel::List(Arc::new(items.iter().map(|item| convert(child, item)).collect()))
        }
        Value::Object(fields) => {
            let unknown = Node::default();
            let is_map = !matches!(node.additional, Additional::Unknown);
            let entries = fields.iter().map(|(name, value)| {
                let key = if is_map { name.clone() } else { escape(name) };
                let child = node.property(name).unwrap_or(&unknown);
                (Key::String(Arc::new(key)), convert(child, value))
            });
            map(entries.collect::<HashMap<_, _>>())
        }
    }
}

fn convert_text(format: &str, text: &str) -> Cel {
    let plain = || Cel::String(Arc::new(text.to_owned()));
    match format {
        "date-time" => read_time("timestamp", text).unwrap_or_else(plain),
        "duration" => read_time("duration", text).unwrap_or_else(plain),
        "date" => read_time("timestamp", &format!("{text}T00:00:00Z")).unwrap_or_else(plain),
        "byte" => match base64::prelude::BASE64_STANDARD.decode(text) {
            Ok(bytes) => Cel::Bytes(Arc::new(bytes)),
            Err(_) => plain(),
        },
        _ => plain(),
    }
}

/// A field's name as rules write it: CEL's identifiers have fewer characters than JSON's.
pub(crate) fn escape(name: &str) -> String {
    if coracle_cel::is_reserved(name) {
        return format!("__{name}__");
    }
    if !name.contains(['.', '-', '/']) && !name.contains("__") {
        return name.to_owned();
    }
    name.replace("__", "\u{0}")
        .replace('.', "__dot__")
        .replace('-', "__dash__")
        .replace('/', "__slash__")
        .replace('\u{0}', "__underscores__")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[track_caller]
    fn checked(schema: Value, value: Value, old: Option<Value>, wanted: &[&str]) {
        let node = Node::read(&json!({ "type": "object", "properties": { "spec": schema } }));
        let mut errors = FieldErrors::new();
        let old = old.map(|old| json!({ "spec": old }));
        check(&node, &json!({ "spec": value }), old.as_ref(), &mut errors);
        let found: Vec<String> = errors.iter().map(ToString::to_string).collect();
        assert_eq!(found, wanted);
    }

    fn with_rule(rule: Value) -> Value {
        json!({ "type": "object", "x-kubernetes-validations": [rule], "properties": {
            "min": { "type": "integer" }, "max": { "type": "integer" }, "name": { "type": "string" }, "a-b": { "type": "string" } } })
    }

    #[test]
    fn a_rule_about_the_value() {
        let schema =
            with_rule(json!({ "rule": "self.min <= self.max", "message": "min above max" }));
        checked(schema.clone(), json!({ "min": 1, "max": 2 }), None, &[]);
        checked(
            schema.clone(),
            json!({ "min": 3, "max": 2 }),
            None,
            &["spec: Invalid value: min above max"],
        );
        let schema = with_rule(
            json!({ "rule": "self.min <= 2", "messageExpression": "'got ' + string(self.min)", "fieldPath": ".min" }),
        );
        checked(schema, json!({ "min": 3 }), None, &["spec.min: Invalid value: got 3"]);
        let schema =
            with_rule(json!({ "rule": "has(self.a__dash__b)", "reason": "FieldValueRequired" }));
        checked(
            schema,
            json!({}),
            None,
            &["spec: Required value: failed rule: has(self.a__dash__b)"],
        );
        let scalar = json!({ "type": "string", "x-kubernetes-validations": [{ "rule": "self.startsWith('a')" }] });
        checked(
            scalar,
            json!("b"),
            None,
            &["spec: Invalid value: \"b\": failed rule: self.startsWith('a')"],
        );
    }

    #[test]
    fn a_rule_about_the_change() {
        let schema = with_rule(
            json!({ "rule": "self.name == oldSelf.name", "message": "name is immutable" }),
        );
        checked(schema.clone(), json!({ "name": "a" }), None, &[]);
        checked(schema.clone(), json!({ "name": "a" }), Some(json!({ "name": "a" })), &[]);
        checked(
            schema,
            json!({ "name": "b" }),
            Some(json!({ "name": "a" })),
            &["spec: Invalid value: name is immutable"],
        );
        let schema = with_rule(
            json!({ "rule": "!oldSelf.hasValue() || self.min >= oldSelf.value().min", "optionalOldSelf": true }),
        );
        checked(schema.clone(), json!({ "min": 1 }), None, &[]);
        checked(schema.clone(), json!({ "min": 2 }), Some(json!({ "min": 1 })), &[]);
        checked(
            schema,
            json!({ "min": 0 }),
            Some(json!({ "min": 1 })),
            &[
                "spec: Invalid value: failed rule: !oldSelf.hasValue() || self.min >= oldSelf.value().min",
            ],
        );
    }

    #[test]
    fn times_and_unchanged_values() {
        let schema = json!({ "type": "object", "properties": { "at": { "type": "string", "format": "date-time" } },
            "x-kubernetes-validations": [{ "rule": "self.at > timestamp('2024-01-01T00:00:00Z')" }] });
        checked(schema.clone(), json!({ "at": "2025-01-01T00:00:00Z" }), None, &[]);
        let old = json!({ "at": "2020-01-01T00:00:00Z" });
        checked(schema.clone(), old.clone(), Some(old), &[]);
        // So may what is in a list whose items cannot be told from those before.
        let list = json!({ "type": "array", "items": { "type": "integer", "x-kubernetes-validations": [{ "rule": "self > 5" }] } });
        checked(list.clone(), json!([1]), Some(json!([1])), &[]);
        checked(
            list,
            json!([1, 2]),
            Some(json!([1])),
            &[
                "spec[0]: Invalid value: 1: failed rule: self > 5",
                "spec[1]: Invalid value: 2: failed rule: self > 5",
            ],
        );
        let problem = |rule: &str| {
            Rule::read(&json!({ "rule": rule }), of_structural(&schema, false)).problem()
        };
        assert!(problem("self.at >=").is_some());
        assert!(
            problem("self.nothing == 1")
                .is_some_and(|problem| problem.detail.contains("undefined field 'nothing'"))
        );
        assert!(
            problem("self.at")
                .is_some_and(|problem| problem.detail == "cel expression must evaluate to a bool")
        );
    }
}
