//! `spec.successPolicy`: which succeeded indexes are enough.
//!
//! Upstream: `pkg/controller/job/success_policy.go`.

use k8s_openapi::api::batch::v1::{SuccessPolicy, SuccessPolicyRule};

use super::indexes::Indexes;

/// What the condition says, when a rule is met.
pub(super) fn met(
    policy: Option<&SuccessPolicy>,
    succeeded: &Indexes,
    completions: u32,
) -> Option<String> {
    if succeeded.is_empty() {
        return None;
    }
    let index = policy?.rules.iter().position(|rule| is_met(rule, succeeded, completions))?;
    Some(format!("Matched rules at index {index}"))
}

fn is_met(rule: &SuccessPolicyRule, succeeded: &Indexes, completions: u32) -> bool {
    let enough = |count: u32| {
        let wanted = rule.succeeded_count.and_then(|wanted| u32::try_from(wanted).ok());
        wanted.is_some_and(|wanted| count >= wanted)
    };
    let Some(text) = &rule.succeeded_indexes else { return enough(succeeded.count()) };
    let wanted = Indexes::parse(text, completions);
    let there = wanted.shared_with(succeeded);
    !wanted.is_empty() && (there == wanted.count() || enough(there))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    #[test]
    fn a_rule_is_met_by_a_number_by_certain_indexes_or_by_some_of_these() {
        let check = |rules: Value, succeeded: &str, expected: Option<usize>| {
            let policy: SuccessPolicy =
                serde_json::from_value(json!({ "rules": rules.clone() })).unwrap();
            let found = met(Some(&policy), &Indexes::parse(succeeded, 10), 10);
            let expected = expected.map(|index| format!("Matched rules at index {index}"));
            assert_eq!(found, expected, "{rules} {succeeded}");
        };
        let count = |count: i32| json!([{ "succeededCount": count }]);
        check(count(2), "1,5", Some(0));
        check(count(3), "1,5", None);
        check(count(0), "", None);
        let leaders = || json!([{ "succeededIndexes": "0,2-4" }]);
        check(leaders(), "0-5", Some(0));
        check(leaders(), "0,2,3,9", None);
        let some = || json!([{ "succeededIndexes": "0,2-4", "succeededCount": 2 }]);
        check(some(), "1,3,4", Some(0));
        check(some(), "1,4,5-9", None);
        // What cannot be read asks for nothing, and is never met.
        check(json!([{ "succeededIndexes": "x", "succeededCount": 0 }]), "1", None);
        check(json!([{ "succeededCount": 9 }, { "succeededIndexes": "1" }]), "1", Some(1));
        assert_eq!(met(None, &Indexes::parse("0-9", 10), 10), None);
    }
}
