//! Which objects of a collection a request means: its label and field selectors, applied to stored objects.

use coracle_api::kinds::Kind;
use coracle_api::selector::{FieldSelector, LabelSelector};
use coracle_api::status::Status;
use coracle_store::Object;
use serde_json::Value;

use crate::answer::Answer;
use crate::rules;

/// The selectors of one request, checked against what the kind can be selected by.
#[derive(Debug, Clone)]
pub(crate) struct Selection {
    labels: LabelSelector,
    fields: FieldSelector,
}

impl Selection {
    /// 400 when a field cannot be selected by.
    pub(crate) fn new(
        kind: &'static Kind,
        labels: LabelSelector,
        fields: FieldSelector,
    ) -> Answer<Self> {
        if !fields.is_everything() {
            let supported = (rules::for_kind(kind).fields)(&Value::Null);
            let known = |field: &str| {
                field == "metadata.name"
                    || (field == "metadata.namespace" && kind.namespaced)
                    || supported.iter().any(|(name, _)| *name == field)
            };
            if let Some(field) = fields.unsupported_field(known) {
                return Err(Status::bad_request(if supported.is_empty() {
                    format!(
                        "{field:?} is not a known field selector: only \"metadata.name\", \"metadata.namespace\""
                    )
                } else {
                    format!("field label not supported: {field}")
                }));
            }
        }
        Ok(Self { labels, fields })
    }

    /// Whether nothing is left out.
    pub(crate) fn is_everything(&self) -> bool {
        self.labels.is_everything() && self.fields.is_everything()
    }

    /// Whether this state of an object is meant.
    pub(crate) fn matches(&self, object: &Object) -> bool {
        self.fields.matches(|field| match field {
            "metadata.name" => Some(&*object.key.name),
            "metadata.namespace" => Some(&*object.key.namespace),
            field => object.attributes.field(field),
        }) && self.labels.matches(|label| object.attributes.label(label))
    }
}
