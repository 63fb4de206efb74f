//! Finds the value of an expression.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use kube_cel::cel::objects::Key;

use crate::ast::{Entry, Expr, Field, Fold, FoldKind, Item, Kind};
use crate::budget::Meter;
use crate::check::of_type_name;
use crate::environment::Scope;
use crate::functions;
use crate::operators;
use crate::problem::EvaluationError;
use crate::value::{self, TypeName, Typed, Value, none, optional, some, typed};

type Evaluated<T = Value> = Result<T, EvaluationError>;

// What making things costs, in upstream's units.
const LIST: u64 = 10;
const MAP: u64 = 30;
const OBJECT: u64 = 40;

/// The value of an expression.
pub(crate) fn evaluate(expr: &Expr, scope: &dyn Scope, meter: &mut Meter) -> Evaluated {
    Evaluation { scope, meter, locals: Vec::new() }.of(expr)
}

struct Evaluation<'a> {
    scope: &'a dyn Scope,
    meter: &'a mut Meter,
    locals: Vec<(&'a str, Value)>,
}

impl<'a> Evaluation<'a> {
    fn of(&mut self, expr: &'a Expr) -> Evaluated {
        match &expr.kind {
            Kind::Literal(value) => Ok(value.clone()),
            Kind::Name(name) => self.name(name),
            Kind::Select { operand, field, optional } => self.select(operand, field, *optional),
            Kind::Has { operand, field } => self.has(operand, field),
            Kind::Index { operand, index, optional } => self.index(operand, index, *optional),
            Kind::Call { function, target, arguments } => {
                self.call(function, target.as_deref(), arguments)
            }
            Kind::And(all) => self.logic(all, false),
            Kind::Or(all) => self.logic(all, true),
            Kind::Conditional(parts) => {
                self.meter.pay(1)?;
                match self.of(&parts[0])? {
                    Value::Bool(true) => self.of(&parts[1]),
                    Value::Bool(false) => self.of(&parts[2]),
                    _ => Err(EvaluationError::no_such_overload()),
                }
            }
            Kind::List(items) => self.list(items),
            Kind::Map(entries) => self.map(entries),
            Kind::Struct { name, fields } => self.object(name, fields),
            Kind::Fold(fold) => self.fold(fold),
            Kind::Bind { name, value, body } => {
                let value = self.of(value)?;
                self.with_local(name, value, body)
            }
            Kind::OptionalMap { operand, name, body, flat } => {
                self.optional_map(operand, name, body, *flat)
            }
        }
    }

    fn with_local(&mut self, name: &'a str, value: Value, body: &'a Expr) -> Evaluated {
        self.locals.push((name, value));
        let body = self.of(body);
        self.locals.pop();
        body
    }

    fn name(&mut self, name: &str) -> Evaluated {
        self.meter.pay(1)?;
        if let Some((_, value)) = self.locals.iter().rev().find(|(local, _)| *local == name) {
            return Ok(value.clone());
        }
        if let Some(value) = self.scope.variable(name, self.meter) {
            return value;
        }
        match of_type_name(name) {
            Some(_) => Ok(Value::Opaque(Arc::new(TypeName(name.to_owned())))),
            None => Err(EvaluationError::text(format!("no such attribute(s): {name}"))),
        }
    }

    /// A field that the host makes when it is asked for.
    fn lent(&mut self, operand: &Expr, field: &str) -> Option<Evaluated> {
        let Kind::Name(name) = &operand.kind else { return None };
        if self.locals.iter().any(|(local, _)| local == name) {
            return None;
        }
        self.scope.variable(&format!("{name}.{field}"), self.meter)
    }

    fn select(&mut self, operand: &'a Expr, field: &str, is_optional: bool) -> Evaluated {
        self.meter.pay(1)?;
        if let Some(lent) = self.lent(operand, field) {
            return if is_optional { lent.map(some) } else { lent };
        }
        let operand = self.of(operand)?;
        if let Some(outer) = optional(&operand) {
            let Some(inner) = outer.value() else { return Ok(none()) };
            return Ok(field_of(inner, field).map_or_else(none, some));
        }
        let found = field_of(&operand, field);
        if is_optional {
            return Ok(found.map_or_else(none, some));
        }
        found.ok_or_else(|| EvaluationError::no_such_key(field))
    }

    fn has(&mut self, operand: &'a Expr, field: &str) -> Evaluated {
        self.meter.pay(1)?;
        if let Some(lent) = self.lent(operand, field) {
            return lent.map(|_| Value::Bool(true));
        }
        let operand = self.of(operand)?;
        let inner = match optional(&operand) {
            Some(outer) => match outer.value() {
                Some(inner) => inner,
                None => return Ok(Value::Bool(false)),
            },
            None => &operand,
        };
        Ok(Value::Bool(field_of(inner, field).is_some()))
    }

    fn index(&mut self, operand: &'a Expr, index: &'a Expr, is_optional: bool) -> Evaluated {
        self.meter.pay(1)?;
        let operand = self.of(operand)?;
        let index = self.of(index)?;
        let (inner, is_optional) = match optional(&operand) {
            Some(outer) => match outer.value() {
                Some(inner) => (inner, true),
                None => return Ok(none()),
            },
            None => (&operand, is_optional),
        };
        let found = operators::element(inner, &index);
        if is_optional {
            return Ok(found.ok().map_or_else(none, some));
        }
        found
    }

    fn call(
        &mut self,
        function: &str,
        target: Option<&'a Expr>,
        arguments: &'a [Expr],
    ) -> Evaluated {
        self.meter.pay(1)?;
        if function == "_==_" || function == "_!=_" {
            let [one, other] = arguments else { return Err(EvaluationError::no_such_overload()) };
            let (one, other) = (self.of(one)?, self.of(other)?);
            let equal = operators::equal(&one, &other, self.meter)?;
            return Ok(Value::Bool(equal == (function == "_==_")));
        }
        // Whether the second matters is known by the first.
        if let (Some(target), [alternative], "orValue" | "or") = (target, arguments, function) {
            let target = self.of(target)?;
            let outer = optional(&target).ok_or_else(EvaluationError::no_such_overload)?;
            return match (outer.value(), function) {
                (Some(value), "orValue") => Ok(value.clone()),
                (Some(_), _) => Ok(target),
                (None, _) => self.of(alternative),
            };
        }
        let target = target.map(|target| self.of(target)).transpose()?;
        let mut values = Vec::with_capacity(arguments.len());
        for argument in arguments {
            values.push(self.of(argument)?);
        }
        functions::call(function, target, values, self.meter)
    }

    /// `&&` and `||` in any order: one operand that decides makes up for another that fails.
    fn logic(&mut self, all: &'a [Expr], decides: bool) -> Evaluated {
        let mut failed = None;
        for part in all {
            match self.of(part) {
                Ok(Value::Bool(value)) if value == decides => return Ok(Value::Bool(decides)),
                Ok(Value::Bool(_)) => (),
                Ok(_) => drop(failed.get_or_insert_with(EvaluationError::no_such_overload)),
                Err(EvaluationError::TooExpensive) => return Err(EvaluationError::TooExpensive),
                Err(error) => drop(failed.get_or_insert(error)),
            }
        }
        failed.map_or(Ok(Value::Bool(!decides)), Err)
    }

    /// The value of an optional part; none if it is to be left out.
    fn part(&mut self, expr: &'a Expr, is_optional: bool) -> Evaluated<Option<Value>> {
        let value = self.of(expr)?;
        if !is_optional {
            return Ok(Some(value));
        }
        let outer = optional(&value).ok_or_else(EvaluationError::no_such_overload)?;
        Ok(outer.value().cloned())
    }

    fn list(&mut self, items: &'a [Item]) -> Evaluated {
        self.meter.pay(LIST)?;
        let mut values = Vec::with_capacity(items.len());
        for item in items {
            values.extend(self.part(&item.value, item.optional)?);
        }
        Ok(Value::List(Arc::new(values)))
    }

    fn map(&mut self, entries: &'a [Entry]) -> Evaluated {
        self.meter.pay(MAP)?;
        let mut values = HashMap::with_capacity(entries.len());
        for entry in entries {
            let key = self.of(&entry.key)?;
            let key =
                value::key(&key).ok_or_else(|| EvaluationError::text("unsupported key type"))?;
            if let Some(value) = self.part(&entry.value, entry.optional)?
                && values.insert(key, value).is_some()
            {
                return Err(EvaluationError::text("duplicate key in map"));
            }
        }
        Ok(value::map(values))
    }

    fn object(&mut self, name: &str, fields: &'a [Field]) -> Evaluated {
        self.meter.pay(OBJECT)?;
        let mut values = BTreeMap::new();
        for field in fields {
            if let Some(value) = self.part(&field.value, field.optional)? {
                values.insert(field.name.clone(), value);
            }
        }
        Ok(Value::Opaque(Arc::new(Typed { type_name: name.to_owned(), fields: values })))
    }

    fn optional_map(
        &mut self,
        operand: &'a Expr,
        name: &'a str,
        body: &'a Expr,
        flat: bool,
    ) -> Evaluated {
        self.meter.pay(1)?;
        let operand = self.of(operand)?;
        let outer = optional(&operand).ok_or_else(EvaluationError::no_such_overload)?;
        let Some(inner) = outer.value() else { return Ok(none()) };
        let body = self.with_local(name, inner.clone(), body)?;
        Ok(if flat { body } else { some(body) })
    }

    fn fold(&mut self, fold: &'a Fold) -> Evaluated {
        let range = self.of(&fold.range)?;
        let elements: Vec<(Value, Option<Value>)> = match &range {
            Value::List(items) if fold.second.is_some() => items
                .iter()
                .enumerate()
                .map(|(index, item)| {
                    (Value::Int(i64::try_from(index).unwrap_or(i64::MAX)), Some(item.clone()))
                })
                .collect(),
            Value::List(items) => items.iter().map(|item| (item.clone(), None)).collect(),
            Value::Map(map) => {
                let mut entries: Vec<_> = map.map.iter().collect();
                entries.sort_by_key(|(key, _)| *key);
                let with_value = fold.second.is_some();
                entries
                    .into_iter()
                    .map(|(key, value)| (Value::from(key), with_value.then(|| value.clone())))
                    .collect()
            }
            _ => return Err(EvaluationError::no_such_overload()),
        };
        let mut result = Folded::begin(fold.kind);
        let locals = self.locals.len();
        for (first, second) in elements {
            self.meter.pay(1)?;
            self.locals.truncate(locals);
            self.locals.push((&fold.first, first.clone()));
            if let (Some(name), Some(value)) = (&fold.second, second) {
                self.locals.push((name, value));
            }
            if let Some(filter) = &fold.filter {
                match self.of(filter)? {
                    Value::Bool(true) => (),
                    Value::Bool(false) => continue,
                    _ => return Err(EvaluationError::no_such_overload()),
                }
            }
            let body = self.of(&fold.body);
            if result.take(first, body)? == Next::Done {
                break;
            }
        }
        self.locals.truncate(locals);
        result.end()
    }
}

/// What a macro has found so far.
enum Folded {
    /// `all` and `exists`: what decides, and what failed meanwhile.
    Decision {
        decides: bool,
        decided: bool,
        failed: Option<EvaluationError>,
    },
    Count(usize),
    List(Vec<Value>),
    Filter(Vec<Value>),
    Map(HashMap<Key, Value>),
    MapEntry(HashMap<Key, Value>),
}

#[derive(PartialEq)]
enum Next {
    More,
    Done,
}

impl Folded {
    fn begin(kind: FoldKind) -> Self {
        match kind {
            FoldKind::All => Self::Decision { decides: false, decided: false, failed: None },
            FoldKind::Exists => Self::Decision { decides: true, decided: false, failed: None },
            FoldKind::ExistsOne => Self::Count(0),
            FoldKind::List => Self::List(Vec::new()),
            FoldKind::Filter => Self::Filter(Vec::new()),
            FoldKind::Map => Self::Map(HashMap::new()),
            FoldKind::MapEntry => Self::MapEntry(HashMap::new()),
        }
    }

    fn take(&mut self, element: Value, body: Evaluated) -> Evaluated<Next> {
        match self {
            Self::Decision { decides, decided, failed } => match body {
                Ok(Value::Bool(value)) if value == *decides => {
                    *decided = true;
                    return Ok(Next::Done);
                }
                Ok(Value::Bool(_)) => (),
                Ok(_) => drop(failed.get_or_insert_with(EvaluationError::no_such_overload)),
                Err(EvaluationError::TooExpensive) => return Err(EvaluationError::TooExpensive),
                Err(error) => drop(failed.get_or_insert(error)),
            },
            Self::Count(count) => match body? {
                Value::Bool(holds) => *count += usize::from(holds),
                _ => return Err(EvaluationError::no_such_overload()),
            },
            Self::Filter(kept) => match body? {
                Value::Bool(true) => kept.push(element),
                Value::Bool(false) => (),
                _ => return Err(EvaluationError::no_such_overload()),
            },
            Self::List(values) => values.push(body?),
            Self::Map(values) => {
                let key = value::key(&element).ok_or_else(EvaluationError::no_such_overload)?;
                values.insert(key, body?);
            }
            Self::MapEntry(values) => match body? {
                Value::Map(entries) => {
                    for (key, value) in entries.map.iter() {
                        if values.insert(key.clone(), value.clone()).is_some() {
                            let problem = format!("insert failed: key {key} already exists");
                            return Err(EvaluationError::text(problem));
                        }
                    }
                }
                _ => return Err(EvaluationError::no_such_overload()),
            },
        }
        Ok(Next::More)
    }

    fn end(self) -> Evaluated {
        Ok(match self {
            Self::Decision { decides, decided: true, .. } => Value::Bool(decides),
            Self::Decision { failed: Some(error), .. } => return Err(error),
            Self::Decision { decides, .. } => Value::Bool(!decides),
            Self::Count(count) => Value::Bool(count == 1),
            Self::List(values) | Self::Filter(values) => Value::List(Arc::new(values)),
            Self::Map(values) | Self::MapEntry(values) => value::map(values),
        })
    }
}

/// The field of a map or an object. What has no fields has none of this name either, as in cel-go.
fn field_of(operand: &Value, field: &str) -> Option<Value> {
    match operand {
        Value::Map(map) => map.map.get(&Key::String(Arc::new(field.to_owned()))).cloned(),
        other => typed(other)?.fields.get(field).cloned(),
    }
}
