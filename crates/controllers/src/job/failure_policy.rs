//! `spec.podFailurePolicy`: what the way in which a pod failed means to its Job.
//!
//! Upstream: `pkg/controller/job/pod_failure_policy.go`.

use k8s_openapi::api::batch::v1::{
    PodFailurePolicy, PodFailurePolicyOnExitCodesRequirement as ExitCodes,
    PodFailurePolicyOnPodConditionsPattern as ConditionPattern,
};

use crate::pod::{Condition, ContainerStatus, Pod};

/// What a failed pod means.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Match {
    /// It counts against the limits, as without a policy.
    Count,
    /// It does not.
    Ignore,
    /// Its index has failed.
    FailIndex,
    /// The Job has failed, and this says why.
    FailJob(String),
}

/// What the first rule that matches says of a failed pod.
pub(super) fn matched(policy: Option<&PodFailurePolicy>, pod: &Pod) -> Match {
    let rules = policy.map(|policy| policy.rules.as_slice()).unwrap_or_default();
    for (index, rule) in rules.iter().enumerate() {
        let found = match (&rule.on_exit_codes, &rule.on_pod_conditions) {
            (Some(codes), _) => container_with(pod, codes).map(|(name, code)| {
                format!("Container {name} for pod {} failed with exit code {code}", shown(pod))
            }),
            (None, Some(patterns)) => condition_of(pod, patterns)
                .map(|condition| format!("Pod {} has condition {}", shown(pod), condition.type_)),
            (None, None) => None,
        };
        let Some(found) = found else { continue };
        match rule.action.as_str() {
            "Ignore" => return Match::Ignore,
            "FailIndex" => return Match::FailIndex,
            "Count" => return Match::Count,
            "FailJob" => {
                let action = &rule.action;
                return Match::FailJob(format!("{found} matching {action} rule at index {index}"));
            }
            _ => (),
        }
    }
    Match::Count
}

fn shown(pod: &Pod) -> String {
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    format!("{}/{}", text(&pod.metadata.namespace), text(&pod.metadata.name))
}

/// The name and exit code of the first container that ended as the rule says; init containers come last.
fn container_with<'a>(pod: &'a Pod, wanted: &ExitCodes) -> Option<(&'a str, i32)> {
    let status = &pod.status;
    let mut all = status.container_statuses.iter().chain(&status.init_container_statuses);
    all.find_map(|container| ended_as(container, wanted))
}

fn ended_as<'a>(container: &'a ContainerStatus, wanted: &ExitCodes) -> Option<(&'a str, i32)> {
    let code = container.state.as_ref()?.terminated.as_ref()?.exit_code;
    let name = container.name.as_deref().unwrap_or_default();
    let is_meant = wanted.container_name.as_deref().is_none_or(|wanted| wanted == name);
    let listed = wanted.values.contains(&code);
    let matches = match wanted.operator.as_str() {
        "In" => listed,
        "NotIn" => !listed,
        _ => false,
    };
    (is_meant && code != 0 && matches).then_some((name, code))
}

fn condition_of<'a>(pod: &'a Pod, patterns: &[ConditionPattern]) -> Option<&'a Condition> {
    pod.status.conditions.iter().find(|condition| {
        patterns.iter().any(|pattern| {
            let status = pattern.status.as_deref().unwrap_or("True");
            pattern.type_ == condition.type_ && status == condition.status
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn check(rules: Value, status: Value, expected: Match) {
        let policy: PodFailurePolicy =
            serde_json::from_value(json!({ "rules": rules.clone() })).unwrap();
        let pod =
            json!({ "metadata": { "namespace": "d", "name": "p" }, "status": status.clone() });
        let pod: Pod = serde_json::from_value(pod).unwrap();
        assert_eq!(matched(Some(&policy), &pod), expected, "{rules} {status}");
    }

    fn ended(name: &str, code: i32) -> Value {
        json!({ "name": name, "state": { "terminated": { "exitCode": code } } })
    }

    #[test]
    fn exit_codes_decide() {
        let rule = |action: &str, operator: &str, values: &[i32], container: Option<&str>| {
            json!([{ "action": action, "onExitCodes":
                { "operator": operator, "values": values, "containerName": container } }])
        };
        let status = || {
            json!({ "containerStatuses": [ended("a", 0), ended("b", 3)],
                                "initContainerStatuses": [ended("i", 7)] })
        };
        let fail = |text: &str| Match::FailJob(text.to_owned());
        check(
            rule("FailJob", "In", &[3], None),
            status(),
            fail(
                "Container b for pod d/p failed with exit code 3 matching FailJob rule at index 0",
            ),
        );
        check(
            rule("FailJob", "In", &[7], Some("i")),
            status(),
            fail(
                "Container i for pod d/p failed with exit code 7 matching FailJob rule at index 0",
            ),
        );
        check(rule("Ignore", "In", &[3], Some("a")), status(), Match::Count);
        check(rule("Ignore", "NotIn", &[3], Some("b")), status(), Match::Count);
        check(rule("Ignore", "NotIn", &[4], Some("b")), status(), Match::Ignore);
        check(rule("FailIndex", "In", &[1, 3], None), status(), Match::FailIndex);
        // A container that ended well is no failure, whatever the rule says.
        check(rule("Ignore", "NotIn", &[3, 7], None), status(), Match::Count);
        let running = json!({ "containerStatuses": [{ "name": "b", "state": { "running": {} } }] });
        check(rule("Ignore", "NotIn", &[3], None), running, Match::Count);
    }

    #[test]
    fn the_first_rule_that_matches_decides() {
        let disrupted = || {
            json!({ "conditions": [{ "type": "DisruptionTarget", "status": "True" }],
                    "containerStatuses": [ended("c", 143)] })
        };
        let on = |action: &str| {
            json!({ "action": action,
                    "onPodConditions": [{ "type": "DisruptionTarget", "status": "True" }] })
        };
        let any = |action: &str| json!({ "action": action, "onExitCodes": { "operator": "NotIn", "values": [0] } });
        check(json!([on("Ignore"), any("FailJob")]), disrupted(), Match::Ignore);
        check(json!([any("Count"), on("Ignore")]), disrupted(), Match::Count);
        check(
            json!([any("x"), on("FailJob")]),
            disrupted(),
            Match::FailJob(
                "Pod d/p has condition DisruptionTarget matching FailJob rule at index 1"
                    .to_owned(),
            ),
        );
        let not = json!({ "conditions": [{ "type": "DisruptionTarget", "status": "False" }] });
        check(json!([on("Ignore")]), not, Match::Count);
    }
}
