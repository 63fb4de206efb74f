//! Checks `x-kubernetes-validations`: that rules compile, cost no more than a request can pay for, and say what they say rightly.

use coracle_api::status::Path;
use serde_json::Value;

use super::super::cel::Rule;
use super::super::extent::{RULE_COST, most_values, too_expensive};
use super::{Level, Walk};

impl Walk<'_> {
    pub(super) fn rules(&mut self, schema: &Value, level: Level, path: &Path) {
        let rules = schema["x-kubernetes-validations"].as_array().into_iter().flatten();
        let all = Rule::read_all(schema, level == Level::Root);
        for (index, (rule, read)) in rules.zip(all).enumerate() {
            let at = path.child("x-kubernetes-validations").index(index);
            let text = rule["rule"].as_str().unwrap_or_default();
            if text.trim().is_empty() {
                self.errors.required(at.child("rule"), "rule is not specified");
                continue;
            }
            if let Some(problem) = read.problem() {
                self.errors.invalid(at.child(problem.field), rule.clone(), problem.detail);
            }
            if let Some(around) = self.uncorrelatable.as_ref().filter(|_| read.uses_old_self()) {
                let detail = format!(
                    "oldSelf cannot be used on the uncorrelatable portion of the schema within {around}"
                );
                self.errors.invalid(at.child("rule"), text, detail);
            }
            if rule["optionalOldSelf"] == true && !read.uses_old_self() {
                let detail = "may not be set if oldSelf is not used in rule";
                self.errors.invalid(at.child("optionalOldSelf"), true, detail);
            }
            let times = self.cardinality.unwrap_or_else(|| most_values(schema));
            let cost = read.costs(schema).saturating_mul(times);
            self.cost = self.cost.saturating_add(cost);
            if cost > RULE_COST {
                let detail = too_expensive("estimated rule cost", cost, RULE_COST);
                self.errors.forbidden(at.child("rule"), detail);
            }
            self.about_rule(rule, &at);
        }
    }

    /// What a rule says beside its expression.
    fn about_rule(&mut self, rule: &Value, at: &Path) {
        let text = |field: &str| rule[field].as_str().unwrap_or_default();
        let (message, path) = (text("message"), text("fieldPath"));
        if !message.is_empty() && message.trim().is_empty() {
            let detail = "message must be non-empty if specified";
            self.errors.invalid(at.child("message"), message, detail);
        } else if message.trim().contains('\n') {
            let detail = "message must not contain line breaks";
            self.errors.invalid(at.child("message"), message, detail);
        } else if message.is_empty() && text("rule").trim().contains('\n') {
            let detail = "message must be specified if rule contains line breaks";
            self.errors.required(at.child("message"), detail);
        }
        let expression = text("messageExpression");
        if !expression.is_empty() && expression.trim().is_empty() {
            let detail = "messageExpression must be non-empty if specified";
            self.errors.required(at.child("messageExpression"), detail);
        }
        const REASONS: [&str; 4] = [
            "FieldValueDuplicate",
            "FieldValueForbidden",
            "FieldValueInvalid",
            "FieldValueRequired",
        ];
        let reason = text("reason");
        if !reason.is_empty() && !REASONS.contains(&reason) {
            self.errors.not_supported(at.child("reason"), reason, &REASONS);
        }
        if !path.is_empty() && path.trim().is_empty() {
            let detail = "fieldPath must be non-empty if specified";
            self.errors.invalid(at.child("fieldPath"), path, detail);
        } else if path.contains('\n') {
            let detail = "fieldPath must not contain line breaks";
            self.errors.invalid(at.child("fieldPath"), path, detail);
        } else if !path.is_empty() && !path.starts_with(['.', '[']) {
            let detail = "fieldPath must be a valid path: expected [ or . but got the name itself";
            self.errors.invalid(at.child("fieldPath"), path, detail);
        }
    }
}
