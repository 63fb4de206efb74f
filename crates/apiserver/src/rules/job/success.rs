//! `successPolicy`: which indexes are enough.

use coracle_api::status::{FieldErrors, Path};
use serde_json::Value;

use super::indexes::intervals;
use crate::rules::checks::not_negative;
use crate::rules::json::Read;

const MAX_RULES: usize = 20;
const MAX_INDEXES_BYTES: usize = 64 * 1024;

/// Checks the policy of a Job's spec.
pub fn validate(spec: &Value, path: &Path, errors: &mut FieldErrors) {
    if !spec["successPolicy"].is_set() {
        return;
    }
    let (rules, path) = (&spec["successPolicy"]["rules"], path.child("rules"));
    if rules.size() == 0 {
        let detail = "at least one rules must be specified when the successPolicy is specified";
        errors.required(&path, detail);
    }
    if rules.size() > MAX_RULES {
        errors.too_many(&path, rules.size(), MAX_RULES);
    }
    for (index, rule) in rules.items().iter().enumerate() {
        one_rule(rule, &spec["completions"], &path.index(index), errors);
    }
}

fn one_rule(rule: &Value, completions: &Value, at: &Path, errors: &mut FieldErrors) {
    let (count, indexes) = (&rule["succeededCount"], &rule["succeededIndexes"]);
    if !count.is_set() && !indexes.is_set() {
        let detail = "at least one of succeededCount or succeededIndexes must be specified";
        errors.required(at, detail);
    }
    let mut total = 0;
    if indexes.is_set() {
        let path = at.child("succeededIndexes");
        if indexes.text().len() > MAX_INDEXES_BYTES {
            errors.too_long(&path, MAX_INDEXES_BYTES);
        }
        match intervals(indexes.text(), completions.int()) {
            Ok(found) => total = found.iter().map(|(first, last)| last - first + 1).sum(),
            Err(why) => {
                let detail = format!("error parsing succeededIndexes: {why}");
                errors.invalid(path, indexes.clone(), detail);
            }
        }
    }
    if !count.is_set() {
        return;
    }
    let path = at.child("succeededCount");
    not_negative(count, &path, errors);
    if completions.is_set() && count.int() > completions.int() {
        let detail = format!(
            "must be less than or equal to {} (the number of specified completions)",
            completions.int()
        );
        errors.invalid(&path, count.clone(), detail);
    }
    if indexes.is_set() && count.int() > total {
        let detail = format!(
            "must be less than or equal to {total} (the number of indexes in the specified succeededIndexes field)"
        );
        errors.invalid(path, count.clone(), detail);
    }
}
