//! Values, which are those of the crate `cel`, and three kinds more: types, typed objects, and what the host lends.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Debug;
use std::sync::Arc;

pub use kube_cel::cel::Value;
pub use kube_cel::cel::objects::Key;
use kube_cel::cel::objects::{Map, Opaque, OptionalValue};
use serde_json::Value as Json;

use crate::budget::Meter;
use crate::problem::EvaluationError;

/// What an expression gets from its host and can only call methods of: an authorizer.
pub trait ForeignValue: Debug + Send + Sync {
    /// The type, as the signatures have it.
    fn type_name(&self) -> &'static str;

    /// Calls a method.
    ///
    /// # Errors
    /// When there is no such method, or it fails.
    fn call(&self, method: &str, arguments: &[Value]) -> Result<Value, EvaluationError>;
}

/// A value of the host's.
#[derive(Debug, Clone)]
pub struct Foreign(pub Arc<dyn ForeignValue>);

impl Foreign {
    /// As a value.
    pub fn value(value: impl ForeignValue + 'static) -> Value {
        Value::Opaque(Arc::new(Self(Arc::new(value))))
    }
}

impl PartialEq for Foreign {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for Foreign {}

impl Opaque for Foreign {
    fn runtime_type_name(&self) -> &str {
        self.0.type_name()
    }
}

/// An object that an expression made: `Object.spec{replicas: 1}`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Typed {
    /// Its type.
    pub type_name: String,
    /// Its fields.
    pub fields: BTreeMap<String, Value>,
}

impl Opaque for Typed {
    fn runtime_type_name(&self) -> &str {
        &self.type_name
    }
}

/// What `type(x)` gives, and the names of types.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TypeName(pub(crate) String);

impl Opaque for TypeName {
    fn runtime_type_name(&self) -> &str {
        "type"
    }
}

/// A typed object, if the value is one.
pub(crate) fn typed(value: &Value) -> Option<&Typed> {
    match value {
        Value::Opaque(opaque) => opaque.downcast_ref(),
        _ => None,
    }
}

/// An optional, if the value is one.
pub fn optional(value: &Value) -> Option<&OptionalValue> {
    match value {
        Value::Opaque(opaque) => opaque.downcast_ref(),
        _ => None,
    }
}

/// An optional with a value.
pub fn some(value: Value) -> Value {
    Value::Opaque(Arc::new(OptionalValue::of(value)))
}

/// An optional without one.
pub fn none() -> Value {
    Value::Opaque(Arc::new(OptionalValue::none()))
}

pub(crate) fn text(text: impl Into<String>) -> Value {
    Value::String(Arc::new(text.into()))
}

/// A map.
pub fn map(entries: HashMap<Key, Value>) -> Value {
    Value::Map(Map { map: Arc::new(entries) })
}

/// A key of a map; doubles that are whole stand for integers.
pub(crate) fn key(value: &Value) -> Option<Key> {
    match value {
        Value::Int(value) => Some(Key::Int(*value)),
        Value::UInt(value) => Some(Key::Uint(*value)),
        Value::Bool(value) => Some(Key::Bool(*value)),
        Value::String(value) => Some(Key::String(Arc::clone(value))),
        _ => None,
    }
}

/// The value's type, as `type()` names it.
pub(crate) fn type_name(value: &Value) -> String {
    let name = match value {
        Value::List(_) => "list",
        Value::Map(_) => "map",
        Value::Function(..) => "function",
        Value::Int(_) => "int",
        Value::UInt(_) => "uint",
        Value::Float(_) => "double",
        Value::String(_) => "string",
        Value::Bytes(_) => "bytes",
        Value::Bool(_) => "bool",
        Value::Duration(_) => "google.protobuf.Duration",
        Value::Timestamp(_) => "google.protobuf.Timestamp",
        Value::Opaque(opaque) => return opaque.runtime_type_name().to_owned(),
        Value::Null => "null_type",
    };
    name.to_owned()
}

/// A JSON value without a schema: what is written as an integer is one.
pub fn from_json(json: &Json) -> Value {
    match json {
        Json::Null => Value::Null,
        Json::Bool(flag) => Value::Bool(*flag),
        Json::Number(number) => match number.as_i64() {
            Some(integer) => Value::Int(integer),
            None => Value::Float(number.as_f64().unwrap_or_default()),
        },
        Json::String(string) => text(string),
        Json::Array(items) => Value::List(Arc::new(items.iter().map(from_json).collect())),
        Json::Object(fields) => map(fields
            .iter()
            .map(|(name, value)| (Key::String(Arc::new(name.clone())), from_json(value)))
            .collect()),
    }
}

/// The value as JSON.
///
/// # Errors
/// When it has no JSON form, or is too large.
pub fn to_json(value: &Value, meter: &mut Meter) -> Result<Json, EvaluationError> {
    meter.pay(1)?;
    Ok(match value {
        Value::Null => Json::Null,
        Value::Bool(flag) => Json::Bool(*flag),
        Value::Int(value) => (*value).into(),
        Value::UInt(value) => (*value).into(),
        Value::Float(value) => (*value).into(),
        Value::String(string) => {
            meter.pay_for(string.len())?;
            Json::String(string.to_string())
        }
        Value::List(items) => {
            Json::Array(items.iter().map(|item| to_json(item, meter)).collect::<Result<_, _>>()?)
        }
        Value::Map(map) => {
            let mut fields = serde_json::Map::new();
            for (key, value) in map.map.iter() {
                fields.insert(key.to_string(), to_json(value, meter)?);
            }
            Json::Object(fields)
        }
        Value::Opaque(_) if typed(value).is_some() => {
            let mut fields = serde_json::Map::new();
            for (name, value) in typed(value).into_iter().flat_map(|typed| &typed.fields) {
                fields.insert(name.clone(), to_json(value, meter)?);
            }
            Json::Object(fields)
        }
        Value::Opaque(_) if optional(value).is_some() => {
            match optional(value).and_then(OptionalValue::value) {
                Some(value) => to_json(value, meter)?,
                None => Json::Null,
            }
        }
        Value::Bytes(_) | Value::Duration(_) | Value::Timestamp(_) => {
            crate::library::printed(value)?
        }
        other => {
            let problem =
                format!("unsupported type conversion from '{}' to JSON", type_name(other));
            return Err(EvaluationError::text(problem));
        }
    })
}
