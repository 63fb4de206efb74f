//! The functions of Kubernetes' libraries, which `kube-cel` has.

use std::panic::{AssertUnwindSafe, catch_unwind};

use kube_cel::KubeCelExt as _;
use kube_cel::cel::common::ast::{CallExpr, Expr, IdedExpr};
use kube_cel::cel::{Context, ExecutionError};
use serde_json::Value as Json;

use crate::budget::Meter;
use crate::problem::EvaluationError;
use crate::value::Value;

/// What an item of a list costs that is made out of nothing: it takes as much memory as many bytes.
const ITEM: u64 = 5;

/// Calls a function of the libraries. Going through the arguments is paid for, twice, because they are copied.
pub(crate) fn call(
    name: &str,
    target: Option<Value>,
    arguments: Vec<Value>,
    meter: &mut Meter,
) -> Result<Value, EvaluationError> {
    thread_local! {
        static LIBRARIES: Context<'static> = Context::default().with_all();
    }
    for value in target.iter().chain(&arguments) {
        meter.pay_for_all(value)?;
        meter.pay_for_all(value)?;
    }
    bound(name, target.as_ref(), &arguments, meter)?;
    LIBRARIES.with(|libraries| {
        let mut scope = libraries.new_inner_scope();
        let mut variable = |name: String, value: Value| {
            scope.add_variable_from_value(name.clone(), value);
            IdedExpr { id: 0, expr: Expr::Ident(name) }
        };
        let target = target.map(|target| Box::new(variable("@target".to_owned(), target)));
        let args = arguments.into_iter().enumerate();
        let args = args.map(|(index, value)| variable(format!("@{index}"), value)).collect();
        let call = Expr::Call(CallExpr { func_name: name.to_owned(), target, args });
        let call = IdedExpr { id: 0, expr: call };
        // The libraries are others' code: what they did not think of ends one evaluation, not a connection.
        match catch_unwind(AssertUnwindSafe(|| scope.resolve(&call))) {
            Ok(result) => result.map_err(|error| failure(&error)),
            Err(_) => Err(EvaluationError::text(format!("function '{name}' failed"))),
        }
    })
}

/// What some results cost that are larger than what they are made of.
fn bound(
    name: &str,
    target: Option<&Value>,
    arguments: &[Value],
    meter: &mut Meter,
) -> Result<(), EvaluationError> {
    let length = |value: Option<&Value>| match value {
        Some(Value::String(text)) => text.len(),
        Some(Value::List(items)) => items.len(),
        _ => 0,
    };
    match (name, arguments) {
        ("lists.range", [Value::Int(count)]) => {
            meter.pay(u64::try_from(*count).unwrap_or_default().saturating_mul(ITEM))
        }
        ("replace", [_, with, ..]) => meter.pay_for(length(target) * (length(Some(with)) + 1)),
        ("join", [separator]) => meter.pay_for(length(target) * length(Some(separator))),
        // These compare each with each.
        ("distinct", _) => meter.pay_for(length(target).saturating_mul(length(target))),
        ("sets.contains" | "sets.equivalent" | "sets.intersects", [one, other]) => {
            meter.pay_for(length(Some(one)).saturating_mul(length(Some(other))))
        }
        // Each character may become an item.
        ("split", _) => meter.pay((length(target) as u64).saturating_mul(ITEM)),
        // A number in a format may say how long the text becomes.
        ("format", _) => widths(target).map_or(Ok(()), |width| meter.pay_for(width)),
        _ => Ok(()),
    }
}

/// The widths and precisions in a format, all together.
fn widths(format: Option<&Value>) -> Option<usize> {
    let Some(Value::String(format)) = format else { return None };
    let numbers = format.split(|sign: char| !sign.is_ascii_digit());
    Some(
        numbers
            .map(|number| number.parse().unwrap_or(usize::from(!number.is_empty()) * usize::MAX))
            .fold(0, usize::saturating_add),
    )
}

/// An error of the libraries in the words of cel-go, as far as they differ.
fn failure(error: &ExecutionError) -> EvaluationError {
    match error {
        ExecutionError::NoSuchKey(key) => EvaluationError::no_such_key(key),
        ExecutionError::NoSuchOverload
        | ExecutionError::UnexpectedType { .. }
        | ExecutionError::UnsupportedTargetType { .. }
        | ExecutionError::UndeclaredReference(_) => EvaluationError::no_such_overload(),
        ExecutionError::FunctionError { message, .. } => EvaluationError::text(message.clone()),
        other => EvaluationError::text(other.to_string()),
    }
}

/// Bytes and times in JSON.
pub(crate) fn printed(value: &Value) -> Result<Json, EvaluationError> {
    let mut meter = Meter::new(u64::MAX);
    let name = if matches!(value, Value::Bytes(_)) { "base64.encode" } else { "string" };
    match crate::functions::call(name, None, vec![value.clone()], &mut meter)? {
        Value::String(text) => Ok(Json::String(text.to_string())),
        _ => Err(EvaluationError::no_such_overload()),
    }
}

/// A point in time or, as `duration`, a span of time, if the text is one.
pub fn read_time(function: &str, text: &str) -> Option<Value> {
    let text = Value::String(text.to_owned().into());
    call(function, None, vec![text], &mut Meter::new(u64::MAX)).ok()
}
