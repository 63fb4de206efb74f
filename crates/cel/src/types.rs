//! The types of expressions, as far as they are known before the evaluation.

use std::fmt;
use std::sync::Arc;

/// A type.
#[derive(Clone)]
pub enum Type {
    /// Anything: known when it is evaluated.
    Dyn,
    /// `null`
    Null,
    /// `true` and `false`
    Bool,
    /// 64 bits
    Int,
    /// 64 bits without sign
    Uint,
    /// 64 bits of IEEE 754
    Double,
    /// Unicode
    String,
    /// Bytes
    Bytes,
    /// A span of time
    Duration,
    /// A point in time
    Timestamp,
    /// Items of one type
    List(Arc<Type>),
    /// Keys and values of one type each
    Map(Arc<Type>, Arc<Type>),
    /// A value or none
    Optional(Arc<Type>),
    /// An object with named fields
    Object(Arc<dyn ObjectType>),
    /// Something with methods alone
    Opaque(Arc<str>),
    /// A type as a value
    Type(Arc<Type>),
    /// Stands for some type, in signatures
    Parameter(char),
}

/// What fields objects of a type have.
pub trait ObjectType: Send + Sync {
    /// The name of the type.
    fn name(&self) -> String;

    /// The type of a field, if there is such a field.
    fn field(&self, name: &str) -> Option<Type>;
}

impl Type {
    /// A list of these.
    pub fn list(item: Type) -> Self {
        Self::List(Arc::new(item))
    }

    /// A map with text as keys.
    pub fn map(value: Type) -> Self {
        Self::Map(Arc::new(Self::String), Arc::new(value))
    }

    /// A value of this type, or none.
    pub fn optional(value: Type) -> Self {
        Self::Optional(Arc::new(value))
    }

    pub(crate) fn is_dyn(&self) -> bool {
        matches!(self, Self::Dyn)
    }
}

impl PartialEq for Type {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::List(one), Self::List(other))
            | (Self::Optional(one), Self::Optional(other))
            | (Self::Type(one), Self::Type(other)) => one == other,
            (Self::Map(key, value), Self::Map(other_key, other_value)) => {
                key == other_key && value == other_value
            }
            (Self::Object(one), Self::Object(other)) => one.name() == other.name(),
            (Self::Opaque(one), Self::Opaque(other)) => one == other,
            (Self::Parameter(one), Self::Parameter(other)) => one == other,
            _ => std::mem::discriminant(self) == std::mem::discriminant(other),
        }
    }
}

impl fmt::Debug for Type {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, out)
    }
}

impl fmt::Display for Type {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dyn => out.write_str("dyn"),
            Self::Null => out.write_str("null"),
            Self::Bool => out.write_str("bool"),
            Self::Int => out.write_str("int"),
            Self::Uint => out.write_str("uint"),
            Self::Double => out.write_str("double"),
            Self::String => out.write_str("string"),
            Self::Bytes => out.write_str("bytes"),
            Self::Duration => out.write_str("google.protobuf.Duration"),
            Self::Timestamp => out.write_str("google.protobuf.Timestamp"),
            Self::List(item) => write!(out, "list({item})"),
            Self::Map(key, value) => write!(out, "map({key}, {value})"),
            Self::Optional(value) => write!(out, "optional_type({value})"),
            Self::Object(object) => out.write_str(&object.name()),
            Self::Opaque(name) => out.write_str(name),
            Self::Type(of) => write!(out, "type({of})"),
            Self::Parameter('_') => out.write_str("dyn"),
            Self::Parameter(name) => write!(out, "{name}"),
        }
    }
}

/// The type of what is not there: the items of an empty list.
pub(crate) const OPEN: Type = Type::Parameter('_');

/// What the parameters of a signature stand for in one call.
#[derive(Default)]
pub(crate) struct Bindings([Option<Type>; 4]);

impl Bindings {
    fn slot(&mut self, name: char) -> &mut Option<Type> {
        &mut self.0[(name as usize - 'A' as usize).min(3)]
    }

    /// Whether a value of type `actual` can be given where `wanted` is wanted.
    pub(crate) fn accepts(&mut self, wanted: &Type, actual: &Type) -> bool {
        match (wanted, actual) {
            (Type::Parameter('_'), _) | (_, Type::Parameter('_')) => true,
            (Type::Parameter(name), _) => match self.slot(*name).clone() {
                None => {
                    *self.slot(*name) = Some(actual.clone());
                    true
                }
                Some(bound) if bound.is_dyn() || actual.is_dyn() => {
                    *self.slot(*name) = Some(Type::Dyn);
                    true
                }
                Some(bound) => {
                    let knows_less = matches!(bound, Type::Null) && is_nullable(actual);
                    let accepts = knows_less || self.accepts(&bound, actual);
                    if accepts && (knows_less || is_open(&bound)) {
                        *self.slot(*name) = Some(actual.clone());
                    }
                    accepts
                }
            },
            (Type::Dyn, _) | (_, Type::Dyn) => true,
            (wanted, Type::Null) if is_nullable(wanted) => true,
            (Type::List(wanted), Type::List(actual))
            | (Type::Optional(wanted), Type::Optional(actual)) => self.accepts(wanted, actual),
            (Type::Map(key, value), Type::Map(actual_key, actual_value)) => {
                self.accepts(key, actual_key) && self.accepts(value, actual_value)
            }
            (Type::Type(_), Type::Type(_)) => true,
            _ => wanted == actual,
        }
    }

    /// The type with its parameters filled in.
    pub(crate) fn resolve(&mut self, of: &Type) -> Type {
        match of {
            Type::Parameter('_') => Type::Dyn,
            Type::Parameter(name) => self.slot(*name).clone().unwrap_or(Type::Dyn),
            Type::List(item) => Type::list(self.resolve(item)),
            Type::Optional(value) => Type::optional(self.resolve(value)),
            Type::Map(key, value) => {
                Type::Map(Arc::new(self.resolve(key)), Arc::new(self.resolve(value)))
            }
            Type::Type(of) => Type::Type(Arc::new(self.resolve(of))),
            other => other.clone(),
        }
    }
}

fn is_nullable(of: &Type) -> bool {
    matches!(
        of,
        Type::Null
            | Type::Object(_)
            | Type::Opaque(_)
            | Type::Duration
            | Type::Timestamp
            | Type::Optional(_)
    )
}

/// One type for both, or anything.
pub(crate) fn join(one: Type, other: Type) -> Type {
    if one == other {
        return one;
    }
    let mut bindings = Bindings::default();
    if one.is_dyn() || other.is_dyn() {
        Type::Dyn
    } else if bindings.accepts(&one, &other) {
        if matches!(one, Type::Null) || is_open(&one) { other } else { one }
    } else if bindings.accepts(&other, &one) {
        other
    } else {
        Type::Dyn
    }
}

/// Whether this is the type of an empty list or map.
fn is_open(of: &Type) -> bool {
    match of {
        Type::Parameter(_) => true,
        Type::List(inner) | Type::Optional(inner) => is_open(inner),
        Type::Map(key, value) => is_open(key) || is_open(value),
        _ => false,
    }
}
