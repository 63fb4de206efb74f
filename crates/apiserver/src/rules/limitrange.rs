//! `LimitRange`.

use serde_json::Value;

use crate::rules::Rules;
use crate::rules::json::{Read, default, each, object};

pub static RULES: Rules = Rules {
    default: |range| each(object(range, "spec"), "limits", default_item),
    ..Rules::GENERIC
};

/// A container's default limit is the maximum, its default request the default limit or else the minimum.
fn default_item(item: &mut Value) {
    if item["type"].text() != "Container" {
        return;
    }
    for (from, to) in [("max", "default"), ("default", "defaultRequest"), ("min", "defaultRequest")] {
        let source: Vec<(String, Value)> = item[from].entries().map(|(name, value)| (name.clone(), value.clone())).collect();
        let target = object(item, to);
        for (name, quantity) in source {
            default(target, &name, quantity);
        }
    }
    for field in ["default", "defaultRequest"] {
        if item[field].size() == 0 {
            crate::rules::json::unset(item, field);
        }
    }
}
