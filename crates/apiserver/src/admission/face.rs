//! What of a write policies and webhooks see: the object in the version that they want, or what its subresource is about.

use coracle_api::decode::{self, FieldValidation};
use coracle_api::kinds::Kind;
use coracle_api::status::Status;
use serde_json::{Value, json};

use super::AdmissionRequest;
use crate::custom_resources::{self, rules_of};
use crate::handlers::scale;
use crate::views;

/// The kind of what a request carries, which for a subresource is not the kind of the path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Carried {
    pub(crate) group: &'static str,
    pub(crate) version: &'static str,
    pub(crate) kind: &'static str,
}

impl Carried {
    /// What requests about this subresource of the kind carry.
    pub(crate) fn by(kind: &'static Kind, subresource: &str) -> Self {
        match kind.subresource(subresource) {
            Some(part) => Self { group: part.group, version: part.version, kind: part.kind },
            None => Self { group: kind.group, version: kind.version, kind: kind.kind },
        }
    }

    /// As `GroupVersionKind`.
    pub(crate) fn to_value(self) -> Value {
        json!({ "group": self.group, "version": self.version, "kind": self.kind })
    }

    /// Whether these are objects of the kind itself.
    pub(crate) fn is(self, kind: &Kind) -> bool {
        (self.group, self.version, self.kind) == (kind.group, kind.version, kind.kind)
    }
}

/// One state of the write in this version of its kind; null where there is none.
pub(crate) async fn show(
    request: &AdmissionRequest<'_>,
    kind: &'static Kind,
    state: Option<&Value>,
) -> Result<Value, Status> {
    let Some(state) = state.filter(|state| !state.is_null()) else { return Ok(Value::Null) };
    if request.subresource == "scale" {
        return Ok(scale::scale_of(request.kind, state));
    }
    if kind == request.kind || !Carried::by(kind, request.subresource).is(kind) {
        return Ok(state.clone());
    }
    Ok(views::read(kind, custom_resources::convert(kind, state.clone()).await?))
}

/// What is shown, changed, as its kind has it: with nothing that it does not know.
pub(crate) fn typed(
    kind: &'static Kind,
    subresource: &str,
    changed: &Value,
) -> Result<Value, decode::DecodeError> {
    let (bytes, ignore) = (changed.to_string(), FieldValidation::Ignore);
    let carried = Carried::by(kind, subresource);
    let definition = custom_resources::definition_of(kind).filter(|_| carried.is(kind));
    let decoded = match definition {
        Some(definition) => custom_resources::decode(kind, &definition, bytes.as_bytes(), ignore),
        None => {
            let Carried { group, version, kind } = carried;
            decode::decode_body(group, version, kind, bytes.as_bytes(), ignore)
        }
    };
    decoded.map(|decoded| decoded.value)
}

/// What becomes of the write when what was shown is now this.
pub(crate) async fn take_over(
    request: &AdmissionRequest<'_>,
    kind: &'static Kind,
    shown: Value,
) -> Result<Value, Status> {
    if request.subresource == "scale" {
        return scale::with_scale(&shown, request.kind, request.name, request.object);
    }
    if !Carried::by(kind, request.subresource).is(kind) {
        return Ok(shown);
    }
    let mut object = if kind == request.kind {
        shown
    } else if request.kind.custom.is_some() {
        custom_resources::convert(request.kind, shown).await?
    } else {
        views::write(kind, shown)
    };
    rules_of(request.kind).default(&mut object);
    Ok(object)
}
