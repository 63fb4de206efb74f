//! `LimitRange`.

use coracle_api::names;
use coracle_api::quantity::{Format, Quantity};
use coracle_api::status::{FieldErrors, Path};
use serde_json::Value;

use crate::rules::Rules;
use crate::rules::checks::{quantity_not_negative, required};
use crate::rules::json::{Read, default, each, object, unset};

const ONE: Quantity = Quantity::new(1, Format::DecimalSi);

pub static RULES: Rules = Rules {
    default: |range| each(object(range, "spec"), "limits", default_item),
    validate: |range, errors| {
        let path = Path::new("spec").child("limits");
        let mut types: Vec<&str> = Vec::new();
        for (index, item) in range["spec"]["limits"].items().iter().enumerate() {
            let at = path.index(index);
            let kind = item["type"].text();
            required(&item["type"], at.child("type"), errors);
            if !kind.is_empty() {
                errors.invalid_each(at.child("type"), kind, names::qualified_name(kind));
            }
            crate::rules::checks::unique(&mut types, item["type"].text(), at.child("type"), errors);
            validate_item(item, &at, errors);
        }
    },
    ..Rules::GENERIC
};

/// A container's default limit is the maximum, its default request the default limit or else the minimum.
fn default_item(item: &mut Value) {
    if item["type"].text() != "Container" {
        return;
    }
    for (from, to) in [("max", "default"), ("default", "defaultRequest"), ("min", "defaultRequest")]
    {
        let source: Vec<(String, Value)> =
            item[from].entries().map(|(name, value)| (name.clone(), value.clone())).collect();
        let target = object(item, to);
        for (name, quantity) in source {
            default(target, &name, quantity);
        }
    }
    for field in ["default", "defaultRequest"] {
        if item[field].size() == 0 {
            unset(item, field);
        }
    }
}

fn validate_item(item: &Value, path: &Path, errors: &mut FieldErrors) {
    for list in ["max", "min", "default", "defaultRequest", "maxLimitRequestRatio"] {
        for (name, quantity) in item[list].entries() {
            quantity_not_negative(quantity, &path.child(list).key(name), errors);
        }
    }
    for (name, ratio) in item["maxLimitRequestRatio"].entries() {
        if Quantity::from_value(ratio).is_ok_and(|ratio| ratio < ONE) {
            let detail = format!("ratio {} is less than 1", ratio.text());
            errors.invalid(path.child("maxLimitRequestRatio").key(name), ratio.clone(), detail);
        }
    }
    if item["type"] == "PersistentVolumeClaim"
        && !item["min"]["storage"].is_set()
        && !item["max"]["storage"].is_set()
    {
        let detail =
            "either minimum or maximum storage value is required, but neither was provided";
        errors.required(path.child("limits"), detail);
    }
    if item["type"] == "Pod" {
        for list in ["default", "defaultRequest"] {
            if item[list].size() > 0 {
                errors.forbidden(path.child(list), "may not be specified when `type` is 'Pod'");
            }
        }
    }
    // Each amount may not exceed the one after it.
    let ordered = [
        ("min", "max", "min"),
        ("defaultRequest", "max", "defaultRequest"),
        ("default", "max", "default"),
        ("defaultRequest", "default", "defaultRequest"),
    ];
    for (low, high, blamed) in ordered {
        for (name, quantity) in item[low].entries() {
            let amounts =
                (Quantity::from_value(quantity), Quantity::from_value(&item[high][name.as_str()]));
            if let (Ok(small), Ok(large)) = amounts
                && small > large
            {
                let detail = format!("{low} value {small} is greater than {high} value {large}");
                errors.invalid(path.child(blamed).key(name), small.to_string(), detail);
            }
        }
    }
}
