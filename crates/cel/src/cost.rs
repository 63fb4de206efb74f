//! What an expression costs at most, told from how large the values can be that it sees.
//!
//! After cel-go's estimate (<https://github.com/google/cel-go/blob/master/checker/cost.go>): where a size cannot be told, a small one
//! is assumed, because the evaluation is bounded anyway.

use std::sync::Arc;

use crate::ast::{Expr, Fold, Kind};
use crate::value::Value;

/// How large values at one place can be.
pub trait Extent: Send + Sync {
    /// Bytes of text, items of a list, entries of a map; 1 for what has no size.
    fn size(&self) -> u64;

    /// The values of a field.
    fn field(&self, name: &str) -> Option<Arc<dyn Extent>>;

    /// The items of a list, or the values of a map.
    fn element(&self) -> Option<Arc<dyn Extent>>;

    /// Whether these are maps, whose keys are visited.
    fn is_map(&self) -> bool;
}

/// What is assumed of values about which nothing is known.
const UNKNOWN_SIZE: u64 = 100;
/// What a key of a map takes at most.
const KEY_BYTES: u64 = 256;

/// What a step of a macro costs beside its body.
const STEP: u64 = 3;

#[derive(Clone)]
struct Estimate {
    cost: u64,
    size: u64,
    extent: Option<Arc<dyn Extent>>,
}

impl Estimate {
    fn of(extent: Option<Arc<dyn Extent>>, cost: u64) -> Self {
        let size = extent.as_ref().map_or(UNKNOWN_SIZE, |extent| extent.size());
        Self { cost, size, extent }
    }

    fn sized(cost: u64, size: u64) -> Self {
        Self { cost, size, extent: None }
    }
}

/// What an evaluation costs at most, if the variables are as large as this.
pub(crate) fn estimate(expr: &Expr, of: &dyn Fn(&str) -> Option<Arc<dyn Extent>>) -> u64 {
    Estimator { of, locals: Vec::new() }.of(expr).cost
}

struct Estimator<'a> {
    of: &'a dyn Fn(&str) -> Option<Arc<dyn Extent>>,
    locals: Vec<(&'a str, Estimate)>,
}

/// Ten bytes or elements are gone through in one step.
fn going_through(size: u64) -> u64 {
    size.div_ceil(10)
}

impl<'a> Estimator<'a> {
    fn of(&mut self, expr: &'a Expr) -> Estimate {
        match &expr.kind {
            Kind::Literal(value) => Estimate::sized(0, literal_size(value)),
            Kind::Name(name) => {
                let local = self.locals.iter().rev().find(|(local, _)| local == name);
                match local {
                    Some((_, known)) => Estimate { cost: 1, ..known.clone() },
                    None => Estimate::of((self.of)(name), 1),
                }
            }
            Kind::Select { operand, field, .. } => {
                let operand = self.of(operand);
                let extent = operand.extent.and_then(|extent| {
                    extent.field(field).or_else(|| extent.element().filter(|_| extent.is_map()))
                });
                Estimate::of(extent, operand.cost.saturating_add(1))
            }
            Kind::Has { operand, .. } => Estimate::sized(self.of(operand).cost, 1),
            Kind::Index { operand, index, .. } => {
                let (operand, index) = (self.of(operand), self.of(index));
                let cost = operand.cost.saturating_add(index.cost).saturating_add(1);
                Estimate::of(operand.extent.and_then(|extent| extent.element()), cost)
            }
            Kind::Call { function, target, arguments } => {
                let mut all: Vec<Estimate> = target.iter().map(|target| self.of(target)).collect();
                all.extend(arguments.iter().map(|argument| self.of(argument)));
                call(function, &all)
            }
            Kind::Conditional(parts) => {
                let [condition, yes, no] = &**parts;
                let (condition, yes, no) = (self.of(condition), self.of(yes), self.of(no));
                let cost = condition.cost.saturating_add(yes.cost.max(no.cost));
                let longer = if yes.size >= no.size { yes } else { no };
                Estimate { cost, ..longer }
            }
            Kind::Fold(fold) => self.fold(fold),
            Kind::Bind { name, value, body } => {
                let value = self.of(value);
                let cost = value.cost;
                self.locals.push((name, value));
                let body = self.of(body);
                self.locals.pop();
                Estimate { cost: cost.saturating_add(body.cost), ..body }
            }
            Kind::OptionalMap { operand, name, body, .. } => {
                let operand = self.of(operand);
                let cost = operand.cost;
                self.locals.push((name, operand));
                let body = self.of(body);
                self.locals.pop();
                Estimate { cost: cost.saturating_add(body.cost), ..body }
            }
            Kind::And(_) | Kind::Or(_) => self.parts(expr, 0, 1),
            Kind::List(items) => self.parts(expr, 10, items.len()),
            Kind::Map(entries) => self.parts(expr, 30, entries.len()),
            Kind::Struct { fields, .. } => self.parts(expr, 40, fields.len()),
        }
    }

    /// The parts one after the other.
    fn parts(&mut self, expr: &'a Expr, base: u64, size: usize) -> Estimate {
        let mut cost = base;
        expr.each_child(&mut |child| cost = cost.saturating_add(self.of(child).cost));
        Estimate::sized(cost, size as u64)
    }

    fn fold(&mut self, fold: &'a Fold) -> Estimate {
        let range = self.of(&fold.range);
        let is_map = range.extent.as_ref().is_some_and(|extent| extent.is_map());
        let element = || range.extent.as_ref().and_then(|extent| extent.element());
        let locals = self.locals.len();
        match &fold.second {
            Some(second) => {
                let size = if is_map { KEY_BYTES } else { 1 };
                self.locals.push((&fold.first, Estimate::sized(0, size)));
                self.locals.push((second, Estimate::of(element(), 0)));
            }
            None if is_map => self.locals.push((&fold.first, Estimate::sized(0, KEY_BYTES))),
            None => self.locals.push((&fold.first, Estimate::of(element(), 0))),
        }
        let mut each = STEP;
        for part in fold.filter.iter().chain([&fold.body]) {
            each = each.saturating_add(self.of(part).cost);
        }
        self.locals.truncate(locals);
        let cost = range.cost.saturating_add(range.size.saturating_mul(each));
        Estimate { cost, size: range.size, extent: range.extent.filter(|_| !is_map) }
    }
}

fn call(function: &str, all: &[Estimate]) -> Estimate {
    let base = all.iter().fold(0, |sum: u64, one| sum.saturating_add(one.cost));
    let size = |index: usize| all.get(index).map_or(1, |one| one.size);
    let (own, result) = match function {
        "_==_" | "_!=_" | "_<_" | "_<=_" | "_>_" | "_>=_" => {
            (going_through(size(0).min(size(1))).max(1), 1)
        }
        "_+_" => {
            let both = size(0).saturating_add(size(1));
            (going_through(both).max(1), both)
        }
        "@in" if all.get(1).and_then(|one| one.extent.as_ref()).is_some_and(|one| one.is_map()) => {
            (1, 1)
        }
        "@in" => (size(1), 1),
        "startsWith" | "endsWith" => (going_through(size(1)), 1),
        "contains" => (going_through(size(0)).saturating_mul(going_through(size(1))), 1),
        "matches" | "find" | "findAll" => {
            let pattern = size(1).div_ceil(4);
            (going_through(size(0).saturating_add(1)).saturating_mul(pattern), size(0))
        }
        "lowerAscii" | "upperAscii" | "trim" | "substring" | "replace" | "split" | "reverse"
        | "charAt" | "join" | "distinct" | "flatten" | "sort" | "slice" => {
            (going_through(size(0)), size(0))
        }
        "sum" | "min" | "max" | "isSorted" | "indexOf" | "lastIndexOf" => (size(0), 1),
        "sets.contains" | "sets.equivalent" | "sets.intersects" => {
            (size(0).saturating_mul(size(1)), 1)
        }
        "url" | "isURL" | "quantity" | "isQuantity" | "ip" | "cidr" | "duration" | "timestamp" => {
            (going_through(size(0)), 1)
        }
        "orValue" | "or" | "value" | "dyn" | "optional.of" => {
            let extent = all.first().and_then(|one| one.extent.clone());
            return Estimate::of(extent, base.saturating_add(1));
        }
        "string" => (1, size(0)),
        _ => (1, 1),
    };
    Estimate::sized(base.saturating_add(own), result)
}

fn literal_size(value: &Value) -> u64 {
    match value {
        Value::String(text) => text.len() as u64,
        Value::Bytes(bytes) => bytes.len() as u64,
        _ => 1,
    }
}
