//! The part of kubectl's JSONPath that printer columns, scales and selectable fields use: fields, indexes, wildcards and filters.

use serde_json::Value;

/// A path through an object.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct JsonPath(Vec<Step>);

#[derive(Debug, Clone, PartialEq)]
enum Step {
    Field(String),
    Index(i64),
    Slice(Option<i64>, Option<i64>),
    All,
    /// Items whose value at a path compares so with a literal.
    Where {
        path: JsonPath,
        comparison: Comparison,
        literal: Value,
    },
    /// Items that have a value at a path.
    Has(JsonPath),
    /// All values below, at any depth.
    Descend,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Comparison {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

impl JsonPath {
    /// Reads `.spec.containers[*].image`, with or without braces around it.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let text = text.trim();
        let inner = text.strip_prefix('{').and_then(|text| text.strip_suffix('}')).unwrap_or(text);
        let inner = inner.strip_prefix(['$', '@']).unwrap_or(inner);
        let mut reader = Reader { rest: inner };
        let mut steps = Vec::new();
        while !reader.rest.is_empty() {
            reader.step(&mut steps)?;
        }
        Ok(Self(steps))
    }

    /// Whether the path is only made of fields.
    pub(crate) fn is_simple(&self) -> bool {
        !self.0.is_empty() && self.0.iter().all(|step| matches!(step, Step::Field(_)))
    }

    /// The names of the fields along a simple path.
    pub(crate) fn fields(&self) -> impl Iterator<Item = &str> {
        self.0.iter().filter_map(|step| match step {
            Step::Field(name) => Some(name.as_str()),
            _ => None,
        })
    }

    /// The values that the path leads to.
    pub(crate) fn find<'a>(&self, root: &'a Value) -> Vec<&'a Value> {
        let mut found = vec![root];
        for step in &self.0 {
            let mut next = Vec::new();
            for value in found {
                step.apply(value, &mut next);
            }
            found = next;
        }
        found
    }

    /// The first value that the path leads to.
    pub(crate) fn first<'a>(&self, root: &'a Value) -> Option<&'a Value> {
        self.find(root).into_iter().next()
    }

    /// Sets the value at a simple path, making the objects on the way.
    pub(crate) fn set(&self, root: &mut Value, value: Value) {
        let mut at = root;
        for name in self.fields() {
            if !at.is_object() {
                *at = Value::Object(serde_json::Map::new());
            }
            at = &mut at[name];
        }
        *at = value;
    }
}

impl Step {
    fn apply<'a>(&self, value: &'a Value, found: &mut Vec<&'a Value>) {
        match (self, value) {
            (Self::Field(name), Value::Object(fields)) => found.extend(fields.get(name)),
            (Self::Index(index), Value::Array(items)) => {
                let at = if *index < 0 { index + items.len() as i64 } else { *index };
                found.extend(usize::try_from(at).ok().and_then(|at| items.get(at)));
            }
            (Self::Slice(from, to), Value::Array(items)) => {
                let length = items.len() as i64;
                let clamp =
                    |at: i64| (if at < 0 { at + length } else { at }).clamp(0, length) as usize;
                let (from, to) = (clamp(from.unwrap_or(0)), clamp(to.unwrap_or(length)));
                found.extend(items.get(from..to).unwrap_or_default());
            }
            (Self::All, Value::Array(items)) => found.extend(items),
            (Self::All, Value::Object(fields)) => found.extend(fields.values()),
            (Self::Where { path, comparison, literal }, Value::Array(items)) => {
                let matches = |item: &&Value| {
                    path.first(item).is_some_and(|value| comparison.holds(value, literal))
                };
                found.extend(items.iter().filter(matches));
            }
            (Self::Has(path), Value::Array(items)) => {
                found.extend(items.iter().filter(|item| path.first(item).is_some()));
            }
            (Self::Descend, value) => descend(value, found),
            _ => (),
        }
    }
}

fn descend<'a>(value: &'a Value, found: &mut Vec<&'a Value>) {
    found.push(value);
    match value {
        Value::Object(fields) => fields.values().for_each(|value| descend(value, found)),
        Value::Array(items) => items.iter().for_each(|value| descend(value, found)),
        _ => (),
    }
}

impl Comparison {
    fn holds(self, value: &Value, literal: &Value) -> bool {
        let order = match (value, literal) {
            (Value::Number(one), Value::Number(other)) => one.as_f64().partial_cmp(&other.as_f64()),
            (Value::String(one), Value::String(other)) => Some(one.cmp(other)),
            (one, other) if one == other => Some(std::cmp::Ordering::Equal),
            _ => None,
        };
        match (self, order) {
            (Self::NotEqual, order) => order != Some(std::cmp::Ordering::Equal),
            (_, None) => false,
            (Self::Equal, Some(order)) => order.is_eq(),
            (Self::Less, Some(order)) => order.is_lt(),
            (Self::LessOrEqual, Some(order)) => order.is_le(),
            (Self::Greater, Some(order)) => order.is_gt(),
            (Self::GreaterOrEqual, Some(order)) => order.is_ge(),
        }
    }
}

struct Reader<'a> {
    rest: &'a str,
}

impl Reader<'_> {
    fn step(&mut self, steps: &mut Vec<Step>) -> Result<(), String> {
        if let Some(rest) = self.rest.strip_prefix("..") {
            self.rest = rest;
            steps.push(Step::Descend);
            if !rest.starts_with('[') {
                steps.push(self.name()?);
            }
        } else if let Some(rest) = self.rest.strip_prefix('.') {
            self.rest = rest;
            // A lone dot is the object itself, and `.[` is `[`.
            if !rest.is_empty() && !rest.starts_with('[') {
                steps.push(self.name()?);
            }
        } else if let Some(rest) = self.rest.strip_prefix('[') {
            let end = closing(rest).ok_or("unterminated array")?;
            steps.push(bracket(rest[..end].trim())?);
            self.rest = &rest[end + 1..];
        } else {
            steps.push(self.name()?);
        }
        Ok(())
    }

    /// A field's name up to the next dot or bracket; a backslash protects a character.
    fn name(&mut self) -> Result<Step, String> {
        let mut name = String::new();
        let mut characters = self.rest.char_indices();
        let mut end = self.rest.len();
        while let Some((at, character)) = characters.next() {
            match character {
                '\\' => name.extend(characters.next().map(|(_, protected)| protected)),
                '.' | '[' => {
                    end = at;
                    break;
                }
                other if other.is_whitespace() || matches!(other, '{' | '}' | '(' | ')' | ']') => {
                    return Err(format!("unrecognized character in action: {:?}", other));
                }
                other => name.push(other),
            }
        }
        self.rest = &self.rest[end..];
        match name.as_str() {
            "" => Err("unexpected end of path".to_owned()),
            "*" => Ok(Step::All),
            _ => Ok(Step::Field(name)),
        }
    }
}

/// Where the bracket that is open ends, quotes and inner brackets apart.
fn closing(text: &str) -> Option<usize> {
    let (mut depth, mut quote) = (0, None);
    for (at, character) in text.char_indices() {
        match (quote, character) {
            (Some(open), _) if open == character => quote = None,
            (Some(_), _) => (),
            (None, '\'' | '"') => quote = Some(character),
            (None, '[') => depth += 1,
            (None, ']') if depth == 0 => return Some(at),
            (None, ']') => depth -= 1,
            _ => (),
        }
    }
    None
}

fn bracket(text: &str) -> Result<Step, String> {
    if text == "*" {
        return Ok(Step::All);
    }
    if let Some(filter) = text.strip_prefix("?(").and_then(|text| text.strip_suffix(')')) {
        return condition(filter.trim());
    }
    if let Some(name) = quoted(text) {
        return Ok(Step::Field(name));
    }
    let number = |text: &str| -> Result<Option<i64>, String> {
        let text = text.trim();
        if text.is_empty() {
            return Ok(None);
        }
        text.parse().map(Some).map_err(|_| format!("invalid array index {text}"))
    };
    match text.split_once(':') {
        Some((from, to)) => Ok(Step::Slice(number(from)?, number(to)?)),
        None => number(text)?.map(Step::Index).ok_or_else(|| "invalid array index".to_owned()),
    }
}

fn condition(text: &str) -> Result<Step, String> {
    for (operator, comparison) in [
        ("==", Comparison::Equal),
        ("!=", Comparison::NotEqual),
        ("<=", Comparison::LessOrEqual),
        (">=", Comparison::GreaterOrEqual),
        ("<", Comparison::Less),
        (">", Comparison::Greater),
    ] {
        if let Some((path, literal)) = text.split_once(operator) {
            let literal = literal.trim();
            let literal =
                quoted(literal).map(Value::from).or_else(|| serde_json::from_str(literal).ok());
            let literal = literal.ok_or_else(|| format!("unrecognized filter {text}"))?;
            return Ok(Step::Where { path: JsonPath::parse(path)?, comparison, literal });
        }
    }
    Ok(Step::Has(JsonPath::parse(text)?))
}

fn quoted(text: &str) -> Option<String> {
    let inner =
        ['\'', '"'].iter().find_map(|quote| text.strip_prefix(*quote)?.strip_suffix(*quote))?;
    Some(inner.replace("\\'", "'").replace("\\\"", "\""))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn paths_lead_to_values() {
        let object = json!({ "spec": { "a.b": 1, "ports": [{ "name": "x", "port": 80 }, { "name": "y", "port": 81 }] },
            "status": { "conditions": [{ "type": "Ready", "status": "True" }, { "type": "Other", "status": "False" }] } });
        let check = |path: &str, wanted: Value| {
            let found: Vec<Value> =
                JsonPath::parse(path).unwrap().find(&object).into_iter().cloned().collect();
            assert_eq!(Value::from(found), wanted, "{path}");
        };
        check(".spec.ports[0].port", json!([80]));
        check("{.spec.ports[-1].port}", json!([81]));
        check(".spec.ports[*].name", json!(["x", "y"]));
        check(".spec.ports[0:1].name", json!(["x"]));
        check(".spec['a.b']", json!([1]));
        check(".spec.a\\.b", json!([1]));
        check(".status.conditions[?(@.type==\"Ready\")].status", json!(["True"]));
        check(".status.conditions[?(@.type=='Other')].status", json!(["False"]));
        check(".spec.ports[?(@.port > 80)].name", json!(["y"]));
        check(".nothing.here", json!([]));
        check("..name", json!(["x", "y"]));
        for wrong in [".spec[", ".spec[x]", ".a b"] {
            assert!(JsonPath::parse(wrong).is_err(), "{wrong}");
        }
        let mut target = json!({});
        JsonPath::parse(".spec.size").unwrap().set(&mut target, json!(3));
        assert_eq!(target, json!({ "spec": { "size": 3 } }));
    }
}
