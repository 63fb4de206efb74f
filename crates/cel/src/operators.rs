//! Operators: equality, order, arithmetic, elements.

use std::cmp::Ordering;
use std::sync::Arc;

use crate::budget::Meter;
use crate::problem::EvaluationError;
use crate::value::{self, TypeName, Value, optional, typed};

type Evaluated<T = Value> = Result<T, EvaluationError>;

/// Calls an operator, if this is the name of one.
pub(crate) fn call(name: &str, operands: &[Value], meter: &mut Meter) -> Option<Evaluated> {
    let result = match (name, operands) {
        ("!_", [Value::Bool(value)]) => Ok(Value::Bool(!value)),
        ("-_", [value]) => negate(value),
        ("_<_", [one, other]) => {
            compare(one, other, meter).map(|order| order == Some(Ordering::Less)).map(Value::Bool)
        }
        ("_>_", [one, other]) => compare(one, other, meter)
            .map(|order| order == Some(Ordering::Greater))
            .map(Value::Bool),
        ("_<=_", [one, other]) => compare(one, other, meter)
            .map(|order| matches!(order, Some(Ordering::Less | Ordering::Equal)))
            .map(Value::Bool),
        ("_>=_", [one, other]) => compare(one, other, meter)
            .map(|order| matches!(order, Some(Ordering::Greater | Ordering::Equal)))
            .map(Value::Bool),
        ("_+_", [one, other]) => add(one, other, meter),
        ("_-_", [one, other]) => subtract(one, other),
        ("_*_", [one, other]) => multiply(one, other),
        ("_/_" | "_%_", [one, other]) => divide(name, one, other),
        ("@in", [element, within]) => contains(within, element, meter).map(Value::Bool),
        ("!_" | "@in" | "_+_", _) => Err(EvaluationError::no_such_overload()),
        _ => return None,
    };
    Some(result)
}

/// Whether two values are the same. Values of different types are not; numbers are numbers.
pub(crate) fn equal(one: &Value, other: &Value, meter: &mut Meter) -> Evaluated<bool> {
    Ok(match (one, other) {
        (Value::String(one), Value::String(other)) => {
            meter.pay_for(one.len().min(other.len()))?;
            one == other
        }
        (Value::Bytes(one), Value::Bytes(other)) => {
            meter.pay_for(one.len().min(other.len()))?;
            one == other
        }
        (Value::List(one), Value::List(other)) => {
            if one.len() != other.len() {
                return Ok(false);
            }
            for (one, other) in one.iter().zip(other.iter()) {
                meter.pay(1)?;
                if !equal(one, other, meter)? {
                    return Ok(false);
                }
            }
            true
        }
        (Value::Map(one), Value::Map(other)) => {
            if one.map.len() != other.map.len() {
                return Ok(false);
            }
            for (key, value) in one.map.iter() {
                meter.pay(1)?;
                let Some(found) = other.get(key) else { return Ok(false) };
                if !equal(value, found, meter)? {
                    return Ok(false);
                }
            }
            true
        }
        (Value::Opaque(_), Value::Opaque(_)) => equal_opaque(one, other, meter)?,
        _ => one == other,
    })
}

fn equal_opaque(one: &Value, other: &Value, meter: &mut Meter) -> Evaluated<bool> {
    if let (Some(one), Some(other)) = (optional(one), optional(other)) {
        return match (one.value(), other.value()) {
            (Some(one), Some(other)) => equal(one, other, meter),
            (one, other) => Ok(one.is_none() && other.is_none()),
        };
    }
    if let (Some(one), Some(other)) = (typed(one), typed(other)) {
        if one.type_name != other.type_name || one.fields.len() != other.fields.len() {
            return Ok(false);
        }
        for (name, value) in &one.fields {
            meter.pay(1)?;
            match other.fields.get(name) {
                Some(found) if equal(value, found, meter)? => (),
                _ => return Ok(false),
            }
        }
        return Ok(true);
    }
    meter.pay(1)?;
    Ok(one == other)
}

/// What comes first; none for what is no number.
fn compare(one: &Value, other: &Value, meter: &mut Meter) -> Evaluated<Option<Ordering>> {
    match (one, other) {
        (Value::String(one), Value::String(other)) => {
            meter.pay_for(one.len().min(other.len()))?;
            Ok(Some(one.cmp(other)))
        }
        (Value::Bytes(one), Value::Bytes(other)) => {
            meter.pay_for(one.len().min(other.len()))?;
            Ok(Some(one.cmp(other)))
        }
        (
            Value::Int(_) | Value::UInt(_) | Value::Float(_),
            Value::Int(_) | Value::UInt(_) | Value::Float(_),
        )
        | (Value::Bool(_), Value::Bool(_))
        | (Value::Duration(_), Value::Duration(_))
        | (Value::Timestamp(_), Value::Timestamp(_)) => Ok(one.partial_cmp(other)),
        _ => Err(EvaluationError::no_such_overload()),
    }
}

fn overflow(what: &'static str) -> EvaluationError {
    EvaluationError::text(what)
}

const INTEGER: &str = "integer overflow";
const UNSIGNED: &str = "unsigned integer overflow";
const TIME: &str = "timestamp overflow";
const SPAN: &str = "duration overflow";

fn negate(value: &Value) -> Evaluated {
    match value {
        Value::Int(value) => value.checked_neg().map(Value::Int).ok_or_else(|| overflow(INTEGER)),
        Value::Float(value) => Ok(Value::Float(-value)),
        Value::Duration(value) => Ok(Value::Duration(-*value)),
        _ => Err(EvaluationError::no_such_overload()),
    }
}

fn add(one: &Value, other: &Value, meter: &mut Meter) -> Evaluated {
    match (one, other) {
        (Value::Int(one), Value::Int(other)) => {
            one.checked_add(*other).map(Value::Int).ok_or_else(|| overflow(INTEGER))
        }
        (Value::UInt(one), Value::UInt(other)) => {
            one.checked_add(*other).map(Value::UInt).ok_or_else(|| overflow(UNSIGNED))
        }
        (Value::Float(one), Value::Float(other)) => Ok(Value::Float(one + other)),
        (Value::String(one), Value::String(other)) => {
            meter.pay_for(one.len() + other.len())?;
            Ok(value::text(format!("{one}{other}")))
        }
        (Value::Bytes(one), Value::Bytes(other)) => {
            meter.pay_for(one.len() + other.len())?;
            Ok(Value::Bytes(Arc::new([one.as_slice(), other.as_slice()].concat())))
        }
        (Value::List(one), Value::List(other)) => {
            meter.pay((one.len() + other.len()) as u64)?;
            Ok(Value::List(Arc::new(one.iter().chain(other.iter()).cloned().collect())))
        }
        (Value::Duration(one), Value::Duration(other)) => {
            one.checked_add(other).map(Value::Duration).ok_or_else(|| overflow(SPAN))
        }
        (Value::Timestamp(time), Value::Duration(span))
        | (Value::Duration(span), Value::Timestamp(time)) => {
            time.checked_add_signed(*span).map(Value::Timestamp).ok_or_else(|| overflow(TIME))
        }
        _ => Err(EvaluationError::no_such_overload()),
    }
}

fn subtract(one: &Value, other: &Value) -> Evaluated {
    match (one, other) {
        (Value::Int(one), Value::Int(other)) => {
            one.checked_sub(*other).map(Value::Int).ok_or_else(|| overflow(INTEGER))
        }
        (Value::UInt(one), Value::UInt(other)) => {
            one.checked_sub(*other).map(Value::UInt).ok_or_else(|| overflow(UNSIGNED))
        }
        (Value::Float(one), Value::Float(other)) => Ok(Value::Float(one - other)),
        (Value::Duration(one), Value::Duration(other)) => {
            one.checked_sub(other).map(Value::Duration).ok_or_else(|| overflow(SPAN))
        }
        (Value::Timestamp(time), Value::Duration(span)) => {
            time.checked_sub_signed(*span).map(Value::Timestamp).ok_or_else(|| overflow(TIME))
        }
        (Value::Timestamp(one), Value::Timestamp(other)) => {
            Ok(Value::Duration(one.signed_duration_since(other)))
        }
        _ => Err(EvaluationError::no_such_overload()),
    }
}

fn multiply(one: &Value, other: &Value) -> Evaluated {
    match (one, other) {
        (Value::Int(one), Value::Int(other)) => {
            one.checked_mul(*other).map(Value::Int).ok_or_else(|| overflow(INTEGER))
        }
        (Value::UInt(one), Value::UInt(other)) => {
            one.checked_mul(*other).map(Value::UInt).ok_or_else(|| overflow(UNSIGNED))
        }
        (Value::Float(one), Value::Float(other)) => Ok(Value::Float(one * other)),
        _ => Err(EvaluationError::no_such_overload()),
    }
}

fn divide(name: &str, one: &Value, other: &Value) -> Evaluated {
    let is_division = name == "_/_";
    let zero = || overflow(if is_division { "division by zero" } else { "modulus by zero" });
    match (one, other) {
        (Value::Int(_), Value::Int(0)) | (Value::UInt(_), Value::UInt(0)) => Err(zero()),
        (Value::Int(one), Value::Int(other)) => {
            let result =
                if is_division { one.checked_div(*other) } else { one.checked_rem(*other) };
            result.map(Value::Int).ok_or_else(|| overflow(INTEGER))
        }
        (Value::UInt(one), Value::UInt(other)) => {
            Ok(Value::UInt(if is_division { one / other } else { one % other }))
        }
        (Value::Float(one), Value::Float(other)) if is_division => Ok(Value::Float(one / other)),
        _ => Err(EvaluationError::no_such_overload()),
    }
}

/// `element in within`
fn contains(within: &Value, element: &Value, meter: &mut Meter) -> Evaluated<bool> {
    match within {
        Value::List(items) => {
            for item in items.iter() {
                meter.pay(1)?;
                if equal(item, element, meter)? {
                    return Ok(true);
                }
            }
            Ok(false)
        }
        Value::Map(map) => Ok(value::key(element).is_some_and(|key| map.get(&key).is_some())),
        _ => Err(EvaluationError::no_such_overload()),
    }
}

/// `within[index]`
pub(crate) fn element(within: &Value, index: &Value) -> Evaluated {
    match within {
        Value::List(items) => {
            let position = match index {
                Value::Int(position) => Some(*position),
                Value::UInt(position) => i64::try_from(*position).ok(),
                Value::Float(position) if position.fract() == 0.0 => Some(*position as i64),
                _ => return Err(EvaluationError::no_such_overload()),
            };
            let found = position.and_then(|position| items.get(usize::try_from(position).ok()?));
            found.cloned().ok_or_else(|| {
                EvaluationError::text(format!("index out of bounds: {}", position.unwrap_or(-1)))
            })
        }
        Value::Map(map) => {
            let key =
                value::key(index).ok_or_else(|| EvaluationError::text("unsupported key type"))?;
            map.get(&key).cloned().ok_or_else(|| EvaluationError::no_such_key(&key))
        }
        _ => Err(match value::key(index) {
            Some(key) => EvaluationError::no_such_key(&key),
            None => EvaluationError::no_such_overload(),
        }),
    }
}

/// `type(value)`
pub(crate) fn type_of(value: &Value) -> Value {
    Value::Opaque(Arc::new(TypeName(value::type_name(value))))
}
