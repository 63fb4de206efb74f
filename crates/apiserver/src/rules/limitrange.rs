//! `LimitRange`.

use coracle_api::names;
use coracle_api::quantity::{Format, Quantity};
use coracle_api::status::{FieldErrors, Path};
use serde_json::Value;

use crate::rules::Rules;
use crate::rules::checks::{quantity_not_negative, required};
use crate::rules::json::{Read, default, each, object, unset};
use crate::rules::quantities::equal;

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
    order(item, path, errors);
    ratio_of_bounds(item, path, errors);
}

/// A list of amounts, and its name in messages.
type Named = (&'static str, &'static str);

/// Each amount may not exceed another: the two lists, and which of them is blamed.
const ORDER: [(Named, Named, &str); 6] = [
    (("min", "min"), ("max", "max"), "min"),
    (("min", "min"), ("defaultRequest", "default request"), "defaultRequest"),
    (("defaultRequest", "default request"), ("max", "max"), "defaultRequest"),
    (("defaultRequest", "default request"), ("default", "default limit"), "defaultRequest"),
    (("min", "min"), ("default", "default"), "default"),
    (("default", "default"), ("max", "max"), "default"),
];

fn order(item: &Value, path: &Path, errors: &mut FieldErrors) {
    let amount = |list: &str, name: &str| Quantity::from_value(&item[list][name]);
    for ((low, low_name), (high, high_name), blamed) in ORDER {
        for (name, _) in item[low].entries() {
            if let (Ok(small), Ok(large)) = (amount(low, name), amount(high, name))
                && small > large
            {
                // Upstream shows what is blamed, but for `default`: there it shows the other.
                let other = if blamed == low { high } else { low };
                let shown = &item[if blamed == "default" { other } else { blamed }][name];
                let detail =
                    format!("{low_name} value {small} is greater than {high_name} value {large}");
                errors.invalid(path.child(blamed).key(name), shown.clone(), detail);
            }
        }
    }
    for (name, request) in item["defaultRequest"].entries() {
        let limit = &item["default"][name.as_str()];
        let overcommits = !name.contains('/') && !name.starts_with("hugepages-");
        if !overcommits && limit.is_set() && !equal(limit, request) {
            let detail = format!(
                "default value {} must equal to defaultRequest value {} in {name}",
                limit.text(),
                request.text()
            );
            errors.invalid(path.child("defaultRequest").key(name), request.clone(), detail);
        }
    }
}

/// No container can have a larger ratio of limit to request than the bounds allow.
fn ratio_of_bounds(item: &Value, path: &Path, errors: &mut FieldErrors) {
    for (name, ratio) in item["maxLimitRequestRatio"].entries() {
        let amount = |list: &str| {
            let quantity = Quantity::from_value(&item[list][name.as_str()]).ok()?;
            Some(quantity.as_f64())
        };
        let (Some(min), Some(max)) = (amount("min"), amount("max")) else { continue };
        let Ok(wanted) = Quantity::from_value(ratio) else { continue };
        let most = max / min;
        if wanted.as_f64() > most {
            let detail = format!("ratio {} is greater than max/min = {most:.6}", ratio.text());
            errors.invalid(path.child("maxLimitRequestRatio").key(name), ratio.clone(), detail);
        }
    }
}
