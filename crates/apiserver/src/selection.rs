//! Which objects of a collection a request means: its label and field selectors, applied to stored objects.

use std::sync::Arc;

use coracle_api::kinds::Kind;
use coracle_api::selector::{FieldSelector, LabelSelector};
use coracle_api::status::Status;
use coracle_store::Object;
use serde_json::Value;

use crate::answer::Answer;
use crate::custom_resources::{self, Definition};
use crate::rules;

/// The selectors of one request, checked against what the kind can be selected by.
#[derive(Debug, Clone)]
pub(crate) struct Selection {
    labels: LabelSelector,
    fields: FieldSelector,
    /// Set when custom fields are selected by: what their values are.
    definition: Option<Arc<Definition>>,
}

impl Selection {
    /// 400 when a field cannot be selected by.
    pub(crate) fn new(
        kind: &'static Kind,
        labels: LabelSelector,
        fields: FieldSelector,
    ) -> Answer<Self> {
        let definition = custom_resources::definition_of(kind)
            .filter(|definition| !fields.is_everything() && !definition.selectable.is_empty());
        if !fields.is_everything() {
            let supported = match (&definition, kind.custom) {
                (Some(definition), _) => definition
                    .selectable
                    .iter()
                    .map(|(name, _)| (name.as_str(), String::new()))
                    .collect(),
                (None, Some(_)) => Vec::new(),
                (None, None) => (rules::for_kind(kind).fields)(&Value::Null),
            };
            let known = |field: &str| {
                field == "metadata.name"
                    || (field == "metadata.namespace" && kind.namespaced)
                    || supported.iter().any(|(name, _)| *name == field)
            };
            if let Some(field) = fields.unsupported_field(known) {
                return Err(Status::bad_request(
                    if supported.is_empty() && kind.custom.is_none() {
                        format!(
                            "{field:?} is not a known field selector: only \"metadata.name\", \"metadata.namespace\""
                        )
                    } else {
                        format!("field label not supported: {field}")
                    },
                ));
            }
        }
        Ok(Self { labels, fields, definition })
    }

    /// Whether nothing is left out.
    pub(crate) fn is_everything(&self) -> bool {
        self.labels.is_everything() && self.fields.is_everything()
    }

    /// What the object says in the fields that its definition lets be selected by.
    fn custom_fields(&self, object: &Object) -> Vec<(String, String)> {
        let Some(definition) = &self.definition else { return Vec::new() };
        let value: Value = serde_json::from_slice(&object.bytes).unwrap_or_default();
        let named = definition.selectable.iter();
        named
            .filter_map(|(name, _)| {
                Some((name.clone(), definition.selectable_field(&value, name)?))
            })
            .collect()
    }

    /// Whether this state of an object is meant.
    pub(crate) fn matches(&self, object: &Object) -> bool {
        let custom = self.custom_fields(object);
        self.fields.matches(|field| match field {
            "metadata.name" => Some(&*object.key.name),
            "metadata.namespace" => Some(&*object.key.namespace),
            field => match custom.iter().find(|(name, _)| name == field) {
                Some((_, value)) => Some(value.as_str()),
                None => object.attributes.field(field),
            },
        }) && self.labels.matches(|label| object.attributes.label(label))
    }
}
