//! The functions of the standard library. Those of Kubernetes' libraries are in `library`.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock};

use chrono::{DateTime, Datelike, FixedOffset, Offset as _, TimeZone as _, Timelike, Utc};
use kube_cel::cel::objects::OptionalValue;
use parking_lot::Mutex;
use regex::Regex;

use crate::budget::Meter;
use crate::problem::EvaluationError;
use crate::value::{self, Foreign, Value, none, optional, some, text};
use crate::{library, operators};

type Evaluated<T = Value> = Result<T, EvaluationError>;

/// How large a compiled regular expression may be.
const REGEX_BYTES: usize = 1 << 20;

/// How many compiled regular expressions are kept.
const KEPT_REGEXES: usize = 256;

/// Calls a function or, with a target, a method.
pub(crate) fn call(
    name: &str,
    target: Option<Value>,
    arguments: Vec<Value>,
    meter: &mut Meter,
) -> Evaluated {
    match &target {
        None => {
            if let Some(result) = operators::call(name, &arguments, meter) {
                return result;
            }
            if let Some(result) = function(name, &arguments, meter) {
                return result;
            }
        }
        Some(Value::Opaque(opaque)) => {
            if let Some(foreign) = opaque.downcast_ref::<Foreign>() {
                return foreign.0.call(name, &arguments);
            }
            if let (Some(outer), []) = (opaque.downcast_ref::<OptionalValue>(), &*arguments) {
                return match (name, outer.value()) {
                    ("hasValue", found) => Ok(Value::Bool(found.is_some())),
                    ("value", Some(found)) => Ok(found.clone()),
                    _ => Err(EvaluationError::text("optional.none() dereference")),
                };
            }
        }
        Some(target) => {
            if let Some(result) = method(name, target, &arguments, meter) {
                return result;
            }
        }
    }
    library::call(name, target, arguments, meter)
}

fn function(name: &str, arguments: &[Value], meter: &mut Meter) -> Option<Evaluated> {
    let result = match (name, arguments) {
        ("size", [value]) => size(value),
        ("matches", [Value::String(subject), Value::String(pattern)]) => {
            matches(subject, pattern, meter)
        }
        ("dyn", [value]) => Ok(value.clone()),
        ("type", [value]) => Ok(operators::type_of(value)),
        ("bool", [value]) => to_bool(value),
        ("int", [value]) => to_int(value),
        ("uint", [value]) => to_uint(value),
        ("double", [value]) => to_double(value),
        ("bytes", [Value::String(string)]) => {
            Ok(Value::Bytes(Arc::new(string.as_bytes().to_vec())))
        }
        ("bytes", [value @ Value::Bytes(_)]) => Ok(value.clone()),
        ("string", [value]) => to_string(value)?,
        ("timestamp", [value @ Value::Timestamp(_)]) => Ok(value.clone()),
        ("duration", [value @ Value::Duration(_)]) => Ok(value.clone()),
        ("timestamp", [Value::Int(seconds)]) => Utc
            .timestamp_opt(*seconds, 0)
            .single()
            .map(|time| Value::Timestamp(time.fixed_offset()))
            .ok_or_else(|| EvaluationError::text("timestamp overflow")),
        ("duration", [Value::Int(seconds)]) => chrono::Duration::try_seconds(*seconds)
            .map(Value::Duration)
            .ok_or_else(|| EvaluationError::text("duration overflow")),
        ("optional.none", []) => Ok(none()),
        ("optional.of", [value]) => Ok(some(value.clone())),
        ("optional.ofNonZeroValue", [value]) => {
            Ok(if value.is_zero() { none() } else { some(value.clone()) })
        }
        _ => return None,
    };
    Some(result)
}

fn method(name: &str, target: &Value, arguments: &[Value], meter: &mut Meter) -> Option<Evaluated> {
    let result = match (name, target, arguments) {
        ("size", target, []) => size(target),
        ("contains", Value::String(whole), [Value::String(part)]) => {
            meter.pay_for(whole.len()).map(|()| Value::Bool(whole.contains(part.as_str())))
        }
        ("startsWith", Value::String(whole), [Value::String(part)]) => {
            meter.pay_for(part.len()).map(|()| Value::Bool(whole.starts_with(part.as_str())))
        }
        ("endsWith", Value::String(whole), [Value::String(part)]) => {
            meter.pay_for(part.len()).map(|()| Value::Bool(whole.ends_with(part.as_str())))
        }
        ("matches", Value::String(subject), [Value::String(pattern)]) => {
            matches(subject, pattern, meter)
        }
        ("find", Value::String(subject), [Value::String(pattern)]) => find(subject, pattern, meter),
        ("findAll", Value::String(subject), [Value::String(pattern)]) => {
            find_all(subject, pattern, -1, meter)
        }
        ("findAll", Value::String(subject), [Value::String(pattern), Value::Int(limit)]) => {
            find_all(subject, pattern, *limit, meter)
        }
        ("first" | "last", Value::List(items), []) => {
            let found = if name == "first" { items.first() } else { items.last() };
            Ok(found.cloned().map_or_else(none, some))
        }
        ("contains" | "startsWith" | "endsWith" | "matches" | "find" | "findAll", _, _) => {
            Err(EvaluationError::no_such_overload())
        }
        (_, Value::Timestamp(time), []) => return part_of_time(name, *time).map(Ok),
        (_, Value::Timestamp(time), [Value::String(zone)]) => {
            let moved = match offset(zone, *time) {
                Ok(offset) => time.with_timezone(&offset),
                Err(error) => return Some(Err(error)),
            };
            return part_of_time(name, moved).map(Ok);
        }
        ("getHours", Value::Duration(span), []) => Ok(Value::Int(span.num_hours())),
        ("getMinutes", Value::Duration(span), []) => Ok(Value::Int(span.num_minutes())),
        ("getSeconds", Value::Duration(span), []) => Ok(Value::Int(span.num_seconds())),
        ("getMilliseconds", Value::Duration(span), []) => {
            Ok(Value::Int(span.num_milliseconds() % 1000))
        }
        _ => return None,
    };
    Some(result)
}

fn size(value: &Value) -> Evaluated {
    let size = match value {
        Value::String(text) => text.chars().count(),
        Value::Bytes(bytes) => bytes.len(),
        Value::List(items) => items.len(),
        Value::Map(map) => map.map.len(),
        _ => return Err(EvaluationError::no_such_overload()),
    };
    Ok(Value::Int(i64::try_from(size).unwrap_or(i64::MAX)))
}

/// Regular expressions that were compiled, because compiling costs far more than matching.
static REGEXES: LazyLock<Mutex<HashMap<String, Regex>>> = LazyLock::new(Mutex::default);

/// What compiling one costs: it takes far longer than a step.
const COMPILING: u64 = 10_000;

/// The compiled expression; looking for it in so long a text is paid for.
fn regex(pattern: &str, subject: &str, meter: &mut Meter) -> Evaluated<Regex> {
    meter.pay_for((subject.len() + 1).saturating_mul(pattern.len().div_ceil(4).max(1)))?;
    if let Some(kept) = REGEXES.lock().get(pattern) {
        return Ok(kept.clone());
    }
    meter.pay(COMPILING)?;
    let compiled = regex::RegexBuilder::new(pattern).size_limit(REGEX_BYTES).build();
    let regex = compiled
        .map_err(|error| EvaluationError::text(format!("error parsing regexp: {error}")))?;
    let mut regexes = REGEXES.lock();
    if regexes.len() >= KEPT_REGEXES {
        regexes.clear();
    }
    regexes.insert(pattern.to_owned(), regex.clone());
    Ok(regex)
}

fn matches(subject: &str, pattern: &str, meter: &mut Meter) -> Evaluated {
    Ok(Value::Bool(regex(pattern, subject, meter)?.is_match(subject)))
}

fn find(subject: &str, pattern: &str, meter: &mut Meter) -> Evaluated {
    let regex = regex(pattern, subject, meter)?;
    Ok(text(regex.find(subject).map_or("", |found| found.as_str())))
}

/// At most `limit` of them; all for a negative one.
fn find_all(subject: &str, pattern: &str, limit: i64, meter: &mut Meter) -> Evaluated {
    let regex = regex(pattern, subject, meter)?;
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let mut all = Vec::new();
    for found in regex.find_iter(subject).take(limit) {
        meter.pay(1)?;
        all.push(text(found.as_str()));
    }
    Ok(Value::List(Arc::new(all)))
}

fn conversion(value: &Value, to: &str) -> EvaluationError {
    let from = value::type_name(value);
    EvaluationError::text(format!("type conversion error from '{from}' to '{to}'"))
}

fn to_bool(value: &Value) -> Evaluated {
    match value {
        Value::Bool(_) => Ok(value.clone()),
        Value::String(string) => match string.as_str() {
            "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(Value::Bool(true)),
            "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(Value::Bool(false)),
            _ => Err(conversion(value, "bool")),
        },
        _ => Err(EvaluationError::no_such_overload()),
    }
}

fn to_int(value: &Value) -> Evaluated {
    const LIMIT: f64 = 9_223_372_036_854_775_808.0;
    match value {
        Value::Int(_) => Ok(value.clone()),
        Value::UInt(unsigned) => i64::try_from(*unsigned)
            .map(Value::Int)
            .map_err(|_| EvaluationError::text("integer overflow")),
        Value::Float(double) if *double > -LIMIT && *double < LIMIT => {
            Ok(Value::Int(double.trunc() as i64))
        }
        Value::Float(_) => Err(EvaluationError::text("integer overflow")),
        Value::String(string) => {
            string.parse().map(Value::Int).map_err(|_| conversion(value, "int"))
        }
        Value::Timestamp(time) => Ok(Value::Int(time.timestamp())),
        Value::Duration(span) => span
            .num_nanoseconds()
            .map(Value::Int)
            .ok_or_else(|| EvaluationError::text("integer overflow")),
        _ => Err(EvaluationError::no_such_overload()),
    }
}

fn to_uint(value: &Value) -> Evaluated {
    const LIMIT: f64 = 18_446_744_073_709_551_616.0;
    let overflow = || EvaluationError::text("unsigned integer overflow");
    match value {
        Value::UInt(_) => Ok(value.clone()),
        Value::Int(signed) => u64::try_from(*signed).map(Value::UInt).map_err(|_| overflow()),
        Value::Float(double) if *double >= 0.0 && *double < LIMIT => {
            Ok(Value::UInt(double.trunc() as u64))
        }
        Value::Float(_) => Err(overflow()),
        Value::String(string) => {
            string.parse().map(Value::UInt).map_err(|_| conversion(value, "uint"))
        }
        _ => Err(EvaluationError::no_such_overload()),
    }
}

fn to_double(value: &Value) -> Evaluated {
    match value {
        Value::Float(_) => Ok(value.clone()),
        Value::Int(signed) => Ok(Value::Float(*signed as f64)),
        Value::UInt(unsigned) => Ok(Value::Float(*unsigned as f64)),
        Value::String(string) => {
            string.parse().map(Value::Float).map_err(|_| conversion(value, "double"))
        }
        _ => Err(EvaluationError::no_such_overload()),
    }
}

/// None for what the libraries print.
fn to_string(value: &Value) -> Option<Evaluated> {
    Some(match value {
        Value::String(_) => Ok(value.clone()),
        Value::Bool(flag) => Ok(text(flag.to_string())),
        Value::Int(signed) => Ok(text(signed.to_string())),
        Value::UInt(unsigned) => Ok(text(unsigned.to_string())),
        Value::Float(double) => Ok(text(double.to_string())),
        Value::Bytes(bytes) => String::from_utf8(bytes.to_vec())
            .map(text)
            .map_err(|_| EvaluationError::text("invalid UTF-8 in bytes, cannot convert to string")),
        Value::Timestamp(time) => {
            let format = chrono::SecondsFormat::AutoSi;
            Ok(text(time.to_utc().to_rfc3339_opts(format, true)))
        }
        Value::Duration(span) => Ok(text(seconds(*span))),
        Value::Opaque(_) if optional(value).is_none() => return None,
        _ => Err(EvaluationError::no_such_overload()),
    })
}

/// `90s`, `1.5s`, as protobuf prints durations.
fn seconds(span: chrono::Duration) -> String {
    let nanos = span.subsec_nanos();
    let sign = if span < chrono::Duration::zero() { "-" } else { "" };
    let mut shown = format!("{sign}{}", span.num_seconds().unsigned_abs());
    if nanos != 0 {
        let fraction = format!(".{:09}", nanos.unsigned_abs());
        shown.push_str(fraction.trim_end_matches('0'));
    }
    shown.push('s');
    shown
}

/// The offset of a time zone: `UTC`, `+02:00`, `02:00`, or a name of the IANA's.
fn offset(zone: &str, time: DateTime<FixedOffset>) -> Evaluated<FixedOffset> {
    if zone.is_empty() || zone.eq_ignore_ascii_case("utc") {
        return Ok(Utc.fix());
    }
    let offset = match zone.split_once(':') {
        Some((hours, minutes)) => fixed_offset(hours, minutes),
        None => jiff::tz::TimeZone::get(zone).ok().and_then(|zone| {
            let time = jiff::Timestamp::from_second(time.timestamp()).ok()?;
            FixedOffset::east_opt(zone.to_offset(time).seconds())
        }),
    };
    offset.ok_or_else(|| EvaluationError::text(format!("unknown time zone {zone}")))
}

fn fixed_offset(hours: &str, minutes: &str) -> Option<FixedOffset> {
    let sign = if hours.starts_with('-') { -1 } else { 1 };
    let (hours, minutes): (i32, i32) = (hours.parse().ok()?, minutes.parse().ok()?);
    let seconds = hours.checked_mul(3600)?.checked_add(minutes.checked_mul(sign * 60)?)?;
    FixedOffset::east_opt(seconds)
}

fn part_of_time(name: &str, time: DateTime<FixedOffset>) -> Option<Value> {
    let part = match name {
        "getFullYear" => i64::from(time.year()),
        "getMonth" => i64::from(time.month0()),
        "getDayOfYear" => i64::from(time.ordinal0()),
        "getDayOfMonth" => i64::from(time.day0()),
        "getDate" => i64::from(time.day()),
        "getDayOfWeek" => i64::from(time.weekday().num_days_from_sunday()),
        "getHours" => i64::from(time.hour()),
        "getMinutes" => i64::from(time.minute()),
        "getSeconds" => i64::from(time.second()),
        "getMilliseconds" => i64::from(time.timestamp_subsec_millis()),
        _ => return None,
    };
    Some(Value::Int(part))
}
