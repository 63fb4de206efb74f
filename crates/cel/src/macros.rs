//! Calls that are not calls: their arguments are names, and bodies that are evaluated once for each element.

use crate::ast::{Expr, Fold, FoldKind, Kind};
use crate::parse::expr;
use crate::problem::Problem;

/// `has(a.b)`.
pub(crate) fn has(at: usize, mut arguments: Vec<Expr>) -> Result<Expr, Problem> {
    match arguments.pop() {
        Some(Expr { kind: Kind::Select { operand, field, optional: false }, .. }) => {
            expr(at, Kind::Has { operand, field })
        }
        other => {
            let at = other.map_or(at, |other| other.at);
            Err(Problem { at, message: "invalid argument to has() macro".to_owned() })
        }
    }
}

/// `cel.bind(name, value, body)`.
pub(crate) fn bind(at: usize, arguments: Vec<Expr>) -> Result<Expr, Problem> {
    let Ok([name, value, body]) = <[Expr; 3]>::try_from(arguments) else {
        let message = "cel.bind() needs a name, a value and an expression".to_owned();
        return Err(Problem { at, message });
    };
    let Kind::Name(name) = name.kind else {
        let message = "cel.bind() variable names must be simple identifiers".to_owned();
        return Err(Problem { at: name.at, message });
    };
    expr(at, Kind::Bind { name, value: Box::new(value), body: Box::new(body) })
}

/// A macro in the form of a method, or that method.
pub(crate) fn method(
    at: usize,
    name_at: usize,
    target: Expr,
    function: String,
    arguments: Vec<Expr>,
) -> Result<Expr, Problem> {
    let (kind, names) = match (function.as_str(), arguments.len()) {
        ("all", 2 | 3) => (FoldKind::All, arguments.len() - 1),
        ("exists", 2 | 3) => (FoldKind::Exists, arguments.len() - 1),
        ("exists_one" | "existsOne", 2 | 3) => (FoldKind::ExistsOne, arguments.len() - 1),
        ("map", 2 | 3) => (FoldKind::List, 1),
        ("filter", 2) => (FoldKind::Filter, 1),
        ("transformList", 3 | 4) => (FoldKind::List, 2),
        ("transformMap", 3 | 4) => (FoldKind::Map, 2),
        ("transformMapEntry", 3 | 4) => (FoldKind::MapEntry, 2),
        ("optMap" | "optFlatMap", 2) => {
            return optional_map(at, target, function == "optFlatMap", arguments);
        }
        _ => {
            let target = Some(Box::new(target));
            return expr(at, Kind::Call { function, target, arguments });
        }
    };
    let mut rest = arguments.into_iter();
    let mut name = || match rest.next() {
        Some(Expr { kind: Kind::Name(name), .. }) => Ok(name),
        other => {
            let at = other.map_or(name_at, |other| other.at);
            Err(Problem { at, message: "argument must be a simple name".to_owned() })
        }
    };
    let first = name()?;
    let second = if names == 2 { Some(name()?) } else { None };
    let (one, other) = (rest.next(), rest.next());
    let (filter, body) = match (one, other) {
        (filter, Some(body)) => (filter, body),
        (Some(body), None) => (None, body),
        (None, None) => {
            return Err(Problem { at, message: "an expression is missing".to_owned() });
        }
    };
    expr(at, Kind::Fold(Box::new(Fold { kind, range: target, first, second, filter, body })))
}

fn optional_map(
    at: usize,
    operand: Expr,
    flat: bool,
    arguments: Vec<Expr>,
) -> Result<Expr, Problem> {
    let mut rest = arguments.into_iter();
    match (rest.next(), rest.next()) {
        (Some(Expr { kind: Kind::Name(name), .. }), Some(body)) => {
            let (operand, body) = (Box::new(operand), Box::new(body));
            expr(at, Kind::OptionalMap { operand, name, body, flat })
        }
        (other, _) => {
            let at = other.map_or(at, |other| other.at);
            let message = "optMap() variable name must be a simple identifier".to_owned();
            Err(Problem { at, message })
        }
    }
}
