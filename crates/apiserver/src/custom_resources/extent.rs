//! How large the values can be that a schema allows: what the cost of a rule is told from before any object is there.
//!
//! What a schema leaves open is bounded by what fits into a request. As upstream
//! (<https://github.com/kubernetes/kubernetes/blob/master/staging/src/k8s.io/apiserver/pkg/cel/common/schemas.go>).

use std::sync::Arc;

use coracle_cel::Extent;
use serde_json::Value;

use super::escape;

/// What a request brings at most.
const REQUEST_BYTES: u64 = 3 * 1024 * 1024;

/// Upstream's `StaticEstimatedCostLimit`: for one rule.
pub(super) const RULE_COST: u64 = 10_000_000;

/// Upstream's `StaticEstimatedCRDCostLimit`: for all rules of one schema.
pub(super) const SCHEMA_COST: u64 = 100_000_000;

/// The values that a schema allows.
pub(super) struct Allowed(pub(super) Value);

impl Extent for Allowed {
    fn size(&self) -> u64 {
        let schema = &self.0;
        match schema["type"].as_str() {
            Some("string") => text_bytes(schema),
            Some("array") => most_items(schema),
            Some("object") if self.is_map() => most_items(schema),
            _ => 1,
        }
    }

    fn field(&self, name: &str) -> Option<Arc<dyn Extent>> {
        let properties = self.0["properties"].as_object()?;
        let (_, schema) = properties
            .iter()
            .find(|(property, _)| *property == name || escape(property) == name)?;
        Some(Arc::new(Self(schema.clone())))
    }

    fn element(&self) -> Option<Arc<dyn Extent>> {
        let items = [&self.0["items"], &self.0["additionalProperties"]];
        let schema = items.into_iter().find(|schema| schema.is_object())?;
        Some(Arc::new(Self(schema.clone())))
    }

    fn is_map(&self) -> bool {
        self.0["additionalProperties"].is_object()
    }
}

/// How many items a list, or entries a map, has at most.
fn most_items(schema: &Value) -> u64 {
    let (bound, each) = if schema["type"] == "array" {
        (&schema["maxItems"], least_bytes(&schema["items"]) + 1)
    } else {
        (&schema["maxProperties"], least_bytes(&schema["additionalProperties"]) + 6)
    };
    bound.as_u64().unwrap_or((REQUEST_BYTES - 2) / each)
}

/// How many values of a schema fit into a request.
pub(super) fn most_values(schema: &Value) -> u64 {
    REQUEST_BYTES / (least_bytes(schema) + 1)
}

fn text_bytes(schema: &Value) -> u64 {
    if let Some(values) = schema["enum"].as_array().filter(|values| !values.is_empty()) {
        let lengths = values.iter().filter_map(Value::as_str).map(str::len);
        return lengths.max().unwrap_or(1) as u64;
    }
    match schema["format"].as_str() {
        Some("date") => 10,
        Some("date-time" | "duration") => 32,
        // A character takes four bytes at most.
        _ => schema["maxLength"].as_u64().map_or(REQUEST_BYTES - 2, |most| most.saturating_mul(4)),
    }
}

/// What a value takes at least in a request.
fn least_bytes(schema: &Value) -> u64 {
    match schema["type"].as_str() {
        Some("boolean") => 4,
        Some("integer" | "number") => 1,
        Some("object") => {
            let required = schema["required"].as_array().into_iter().flatten();
            let fields = required.filter_map(Value::as_str).map(|name| {
                let property = &schema["properties"][name];
                if property["default"].is_null() {
                    name.len() as u64 + 4 + least_bytes(property)
                } else {
                    0
                }
            });
            2 + fields.sum::<u64>()
        }
        _ => 2,
    }
}

/// Upstream's words about a cost that is too high.
pub(super) fn too_expensive(what: &str, cost: u64, limit: u64) -> String {
    let factor = cost as f64 / limit as f64;
    let by = if factor > 100.0 {
        "more than 100x".to_owned()
    } else if factor < 1.5 {
        format!("{factor:.6}x")
    } else {
        format!("{factor:.1}x")
    };
    format!(
        "{what} exceeds budget by factor of {by} (try simplifying the rule, or adding maxItems, maxProperties, and maxLength where arrays, maps, and strings are declared)"
    )
}
