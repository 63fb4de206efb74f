//! Finds the type of an expression, and what is wrong with it.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::ast::{Entry, Expr, Field, Fold, FoldKind, Item, Kind};
use crate::problem::Problem;
use crate::signatures;
use crate::types::{Bindings, OPEN, ObjectType, Type, join};
use crate::value::{Value, type_name};

/// Finds the types of objects by their names.
pub(crate) type Types = dyn Fn(&str) -> Option<Arc<dyn ObjectType>> + Send + Sync;

/// What a checker knows beside the expression.
pub(crate) struct Known<'a> {
    pub(crate) variables: &'a BTreeMap<String, Type>,
    /// The types of which an expression may make objects.
    pub(crate) types: Option<&'a Types>,
}

/// The type of an expression; what is wrong is added to the problems.
pub(crate) fn check(expr: &Expr, known: &Known<'_>, problems: &mut Vec<Problem>) -> Type {
    Checker { known, locals: Vec::new(), problems }.of(expr)
}

struct Checker<'a> {
    known: &'a Known<'a>,
    locals: Vec<(String, Type)>,
    problems: &'a mut Vec<Problem>,
}

impl Checker<'_> {
    fn wrong(&mut self, at: usize, message: impl Into<String>) -> Type {
        self.problems.push(Problem { at, message: message.into() });
        Type::Dyn
    }

    fn with_local(&mut self, name: &str, of: Type, body: &Expr) -> Type {
        self.locals.push((name.to_owned(), of));
        let body = self.of(body);
        self.locals.pop();
        body
    }

    fn of(&mut self, expr: &Expr) -> Type {
        match &expr.kind {
            Kind::Literal(value) => of_literal(value),
            Kind::Name(name) => self.name(expr.at, name),
            Kind::Select { operand, field, optional } => {
                if let Some(of) = self.qualified(expr) {
                    return of;
                }
                let operand = self.of(operand);
                let (inner, is_optional) = match operand {
                    Type::Optional(inner) => (Type::clone(&inner), true),
                    other => (other, *optional),
                };
                let field = self.field(expr.at, &inner, field);
                if is_optional { Type::optional(field) } else { field }
            }
            Kind::Has { operand, field } => {
                let operand = match self.of(operand) {
                    Type::Optional(inner) => Type::clone(&inner),
                    other => other,
                };
                self.field(expr.at, &operand, field);
                Type::Bool
            }
            Kind::Index { operand, index, optional } => {
                self.index(expr.at, operand, index, *optional)
            }
            Kind::Call { function, target, arguments } => {
                let mut types = Vec::with_capacity(arguments.len() + 1);
                types.extend(target.as_ref().map(|target| self.of(target)));
                types.extend(arguments.iter().map(|argument| self.of(argument)));
                self.call(expr.at, function, target.is_some(), &types)
            }
            Kind::And(all) => self.logic(expr.at, "_&&_", all),
            Kind::Or(all) => self.logic(expr.at, "_||_", all),
            Kind::Conditional(parts) => self.conditional(expr.at, parts),
            Kind::List(items) => self.list(items),
            Kind::Map(entries) => self.map(entries),
            Kind::Struct { name, fields } => self.object(expr.at, name, fields),
            Kind::Fold(fold) => self.fold(fold),
            Kind::Bind { name, value, body } => {
                let value = self.of(value);
                self.with_local(name, value, body)
            }
            Kind::OptionalMap { operand, name, body, flat } => {
                let inner = match self.of(operand) {
                    Type::Optional(inner) => Type::clone(&inner),
                    Type::Dyn => Type::Dyn,
                    other => {
                        let function = if *flat { "optFlatMap" } else { "optMap" };
                        return self.no_overload(expr.at, function, &[other], true);
                    }
                };
                let body = self.with_local(name, inner, body);
                if *flat { body } else { Type::optional(body) }
            }
        }
    }

    /// The type of a variable that has dots in its name.
    fn qualified(&self, expr: &Expr) -> Option<Type> {
        let name = expr.qualified_name()?;
        let root = name.split('.').next()?;
        if self.locals.iter().any(|(local, _)| local == root) {
            return None;
        }
        self.known.variables.get(&name).cloned()
    }

    fn name(&mut self, at: usize, name: &str) -> Type {
        if let Some((_, of)) = self.locals.iter().rev().find(|(local, _)| local == name) {
            return of.clone();
        }
        if let Some(of) = self.known.variables.get(name) {
            return of.clone();
        }
        match of_type_name(name) {
            Some(of) => Type::Type(Arc::new(of)),
            None => self.wrong(at, format!("undeclared reference to '{name}' (in container '')")),
        }
    }

    fn field(&mut self, at: usize, operand: &Type, field: &str) -> Type {
        match operand {
            Type::Dyn | Type::Parameter(_) => Type::Dyn,
            Type::Map(_, value) => Type::clone(value),
            Type::Object(object) => match object.field(field) {
                Some(of) => of,
                None => self.wrong(at, format!("undefined field '{field}'")),
            },
            other => self.wrong(at, format!("type '{other}' does not support field selection")),
        }
    }

    fn index(&mut self, at: usize, operand: &Expr, index: &Expr, optional: bool) -> Type {
        let operand_type = self.of(operand);
        let index_type = self.of(index);
        let (inner, is_optional) = match &operand_type {
            Type::Optional(inner) => (Type::clone(inner), true),
            other => (other.clone(), optional),
        };
        let found = match &inner {
            Type::Dyn | Type::Parameter(_) => Some(Type::Dyn),
            Type::List(item) if Bindings::default().accepts(&Type::Int, &index_type) => {
                Some(Type::clone(item))
            }
            Type::Map(key, value) if Bindings::default().accepts(key, &index_type) => {
                Some(Type::clone(value))
            }
            _ => None,
        };
        match found {
            Some(found) if is_optional => Type::optional(found),
            Some(found) => found,
            None => {
                let function = if optional { "_[?_]" } else { "_[_]" };
                self.no_overload(at, function, &[operand_type, index_type], false)
            }
        }
    }

    fn call(&mut self, at: usize, function: &str, is_method: bool, types: &[Type]) -> Type {
        let forms = signatures::of(function);
        if forms.is_empty() {
            let message = format!("undeclared reference to '{function}' (in container '')");
            return self.wrong(at, message);
        }
        let mut result: Option<Type> = None;
        for form in forms {
            if form.is_method != is_method || form.arguments.len() != types.len() {
                continue;
            }
            let mut bindings = Bindings::default();
            if !form
                .arguments
                .iter()
                .zip(types)
                .all(|(wanted, found)| bindings.accepts(wanted, found))
            {
                continue;
            }
            let of = bindings.resolve(&form.result);
            result = Some(match result {
                None => of,
                // What the arguments are is not known: it may be any of these.
                Some(result) => {
                    if result == of {
                        of
                    } else {
                        Type::Dyn
                    }
                }
            });
        }
        result.unwrap_or_else(|| self.no_overload(at, function, types, is_method))
    }

    fn no_overload(&mut self, at: usize, function: &str, types: &[Type], is_method: bool) -> Type {
        let shown =
            |types: &[Type]| types.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        let applied = match types {
            [target, arguments @ ..] if is_method => format!("{target}.({})", shown(arguments)),
            all => format!("({})", shown(all)),
        };
        self.wrong(
            at,
            format!("found no matching overload for '{function}' applied to '{applied}'"),
        )
    }

    fn logic(&mut self, at: usize, function: &str, all: &[Expr]) -> Type {
        let types: Vec<Type> = all.iter().map(|part| self.of(part)).collect();
        for pair in types.windows(2) {
            if pair.iter().any(|of| !Bindings::default().accepts(&Type::Bool, of)) {
                return self.no_overload(at, function, pair, false);
            }
        }
        Type::Bool
    }

    fn conditional(&mut self, at: usize, [condition, yes, no]: &[Expr; 3]) -> Type {
        let (condition, yes, no) = (self.of(condition), self.of(yes), self.of(no));
        let mut bindings = Bindings::default();
        let parameter = Type::Parameter('A');
        if !bindings.accepts(&Type::Bool, &condition)
            || !bindings.accepts(&parameter, &yes)
            || !bindings.accepts(&parameter, &no)
        {
            return self.no_overload(at, "_?_:_", &[condition, yes, no], false);
        }
        join(yes, no)
    }

    /// The type of a part, which may be left out if it is optional.
    fn part(&mut self, expr: &Expr, is_optional: bool) -> Type {
        match self.of(expr) {
            Type::Optional(inner) if is_optional => Type::clone(&inner),
            other => other,
        }
    }

    fn list(&mut self, items: &[Item]) -> Type {
        let mut of = None;
        for item in items {
            let found = self.part(&item.value, item.optional);
            of = Some(match of {
                None => found,
                Some(of) => join(of, found),
            });
        }
        Type::list(of.unwrap_or(OPEN))
    }

    fn map(&mut self, entries: &[Entry]) -> Type {
        let (mut keys, mut values) = (None, None);
        for entry in entries {
            let key = self.of(&entry.key);
            let value = self.part(&entry.value, entry.optional);
            keys = Some(match keys {
                None => key,
                Some(keys) => join(keys, key),
            });
            values = Some(match values {
                None => value,
                Some(values) => join(values, value),
            });
        }
        Type::Map(Arc::new(keys.unwrap_or(OPEN)), Arc::new(values.unwrap_or(OPEN)))
    }

    fn object(&mut self, at: usize, name: &str, fields: &[Field]) -> Type {
        let Some(object) = self.known.types.and_then(|types| types(name)) else {
            for field in fields {
                self.of(&field.value);
            }
            return self.wrong(at, format!("undeclared reference to '{name}' (in container '')"));
        };
        for field in fields {
            let found = self.part(&field.value, field.optional);
            match object.field(&field.name) {
                None => drop(self.wrong(field.at, format!("undefined field '{}'", field.name))),
                Some(wanted) if !Bindings::default().accepts(&wanted, &found) => {
                    let message = format!(
                        "expected type of field '{}' is '{wanted}' but provided type is '{found}'",
                        field.name
                    );
                    self.wrong(field.at, message);
                }
                Some(_) => (),
            }
        }
        Type::Object(object)
    }

    fn fold(&mut self, fold: &Fold) -> Type {
        let (key, value) = match self.of(&fold.range) {
            Type::List(item) => (None, Type::clone(&item)),
            Type::Map(key, value) => (Some(Type::clone(&key)), Type::clone(&value)),
            Type::Dyn | Type::Parameter(_) => (Some(Type::Dyn), Type::Dyn),
            other => {
                let message = format!(
                    "expression of type '{other}' cannot be range of a comprehension (must be list, map, or dynamic)"
                );
                self.wrong(fold.range.at, message);
                (Some(Type::Dyn), Type::Dyn)
            }
        };
        let locals = self.locals.len();
        let element = match &fold.second {
            Some(second) => {
                self.locals.push((fold.first.clone(), key.clone().unwrap_or(Type::Int)));
                self.locals.push((second.clone(), value.clone()));
                value
            }
            None => {
                let element = key.clone().unwrap_or(value);
                self.locals.push((fold.first.clone(), element.clone()));
                element
            }
        };
        if let Some(filter) = &fold.filter {
            self.boolean(filter, "_?_:_");
        }
        let result = match fold.kind {
            FoldKind::All => self.boolean(&fold.body, "_&&_"),
            FoldKind::Exists => self.boolean(&fold.body, "_||_"),
            FoldKind::ExistsOne => self.boolean(&fold.body, "_?_:_"),
            FoldKind::Filter => {
                self.boolean(&fold.body, "_?_:_");
                Type::list(element)
            }
            FoldKind::List => Type::list(self.of(&fold.body)),
            FoldKind::Map => {
                let value = self.of(&fold.body);
                Type::Map(Arc::new(key.unwrap_or(Type::Int)), Arc::new(value))
            }
            FoldKind::MapEntry => self.of(&fold.body),
        };
        self.locals.truncate(locals);
        result
    }

    fn boolean(&mut self, expr: &Expr, function: &str) -> Type {
        let found = self.of(expr);
        if !Bindings::default().accepts(&Type::Bool, &found) {
            let types = match function {
                "_?_:_" => vec![found, Type::list(Type::Dyn), Type::list(Type::Dyn)],
                _ => vec![Type::Bool, found],
            };
            self.no_overload(expr.at, function, &types, false);
        }
        Type::Bool
    }
}

fn of_literal(value: &Value) -> Type {
    match value {
        Value::Null => Type::Null,
        Value::Bool(_) => Type::Bool,
        Value::Int(_) => Type::Int,
        Value::UInt(_) => Type::Uint,
        Value::Float(_) => Type::Double,
        Value::String(_) => Type::String,
        Value::Bytes(_) => Type::Bytes,
        other => of_type_name(&type_name(other)).unwrap_or(Type::Dyn),
    }
}

/// The type that a name stands for, where it is used as a value.
pub(crate) fn of_type_name(name: &str) -> Option<Type> {
    Some(match name {
        "bool" => Type::Bool,
        "int" => Type::Int,
        "uint" => Type::Uint,
        "double" => Type::Double,
        "string" => Type::String,
        "bytes" => Type::Bytes,
        "list" => Type::list(Type::Dyn),
        "map" => Type::Map(Arc::new(Type::Dyn), Arc::new(Type::Dyn)),
        "null_type" => Type::Null,
        "type" => Type::Type(Arc::new(Type::Dyn)),
        _ => return None,
    })
}
