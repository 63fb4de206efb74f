//! What of a write is shown outside: the object in the version that the webhook wants, or what its subresource is about.

use coracle_api::decode::{self, FieldValidation};
use coracle_api::kinds::Kind;
use coracle_api::status::Status;
use serde_json::Value;

use super::Webhooks;
use super::review::Shown;
use crate::admission::AdmissionRequest;
use crate::custom_resources::{self, rules_of};
use crate::handlers::scale;
use crate::views;

/// The two states of a write as one webhook sees them; null where there is none.
pub(crate) struct Face {
    pub(crate) object: Value,
    pub(crate) old: Value,
}

impl Webhooks {
    /// Shows the write in this version of its kind.
    pub(crate) async fn show(
        &self,
        request: &AdmissionRequest<'_>,
        kind: &'static Kind,
    ) -> Result<Face, Status> {
        let object = self.show_state(request, kind, request.object).await?;
        let old = match request.old {
            Some(old) => self.show_state(request, kind, old).await?,
            None => Value::Null,
        };
        Ok(Face { object, old })
    }

    async fn show_state(
        &self,
        request: &AdmissionRequest<'_>,
        kind: &'static Kind,
        state: &Value,
    ) -> Result<Value, Status> {
        if state.is_null() {
            return Ok(Value::Null);
        }
        if request.subresource == "scale" {
            return Ok(scale::scale_of(request.kind, state));
        }
        if !is_whole(kind, request.subresource) {
            return Ok(state.clone());
        }
        self.convert(request.kind, kind, state.clone()).await
    }

    /// Takes over what a webhook made of what it was shown.
    pub(super) async fn take_over(
        &self,
        request: &mut AdmissionRequest<'_>,
        kind: &'static Kind,
        patched: &Value,
    ) -> Result<(), Status> {
        let shown = Shown::of(kind, request.subresource);
        let ignore = FieldValidation::Ignore;
        let is_whole = is_whole(kind, request.subresource);
        let bytes = patched.to_string();
        let decoded = match custom_resources::definition_of(kind).filter(|_| is_whole) {
            Some(definition) => {
                custom_resources::decode(kind, &definition, bytes.as_bytes(), ignore)
            }
            None => decode::decode_body(
                shown.group,
                shown.version,
                shown.kind,
                bytes.as_bytes(),
                ignore,
            ),
        };
        let decoded = decoded.map_err(|error| Status::internal(error.cause()))?.value;
        if request.subresource == "scale" {
            *request.object =
                scale::with_scale(&decoded, request.kind, request.name, request.object)?;
        } else if is_whole {
            *request.object = self.convert_back(kind, request.kind, decoded).await?;
            rules_of(request.kind).default(request.object);
        } else {
            *request.object = decoded;
        }
        Ok(())
    }

    /// From what plugins see to the version that a webhook wants.
    async fn convert(
        &self,
        from: &'static Kind,
        to: &'static Kind,
        object: Value,
    ) -> Result<Value, Status> {
        if from == to {
            return Ok(object);
        }
        Ok(views::read(to, custom_resources::convert(to, object).await?))
    }

    async fn convert_back(
        &self,
        from: &'static Kind,
        to: &'static Kind,
        object: Value,
    ) -> Result<Value, Status> {
        if from == to {
            return Ok(object);
        }
        if to.custom.is_some() {
            custom_resources::convert(to, object).await
        } else {
            Ok(views::write(from, object))
        }
    }
}

/// Whether requests about this part of the kind carry objects of the kind itself.
fn is_whole(kind: &'static Kind, subresource: &str) -> bool {
    let shown = Shown::of(kind, subresource);
    (shown.group, shown.version, shown.kind) == (kind.group, kind.version, kind.kind)
}
