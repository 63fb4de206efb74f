//! `HorizontalPodAutoscaler`.

use coracle_api::names;
use coracle_api::status::{FieldErrors, Path};
use serde_json::{Value, json};

use crate::rules::checks::{not_negative, one_of, required_one_of};
use crate::rules::json::{Read, default, object, set, with};
use crate::rules::{Rules, generic};

pub static RULES: Rules = Rules {
    default: |autoscaler| {
        let spec = object(autoscaler, "spec");
        default(spec, "minReplicas", 1);
        if spec["metrics"].size() == 0 {
            let target = json!({"type": "Utilization", "averageUtilization": 80});
            set(
                spec,
                "metrics",
                json!([{"type": "Resource", "resource": {"name": "cpu", "target": target}}]),
            );
        }
        with(spec, "behavior", default_behavior);
    },
    prepare_create: |autoscaler| {
        generic::start_status(autoscaler, json!({"desiredReplicas": 0, "currentMetrics": null}));
    },
    validate,
    ..Rules::GENERIC
};

fn default_behavior(behavior: &mut Value) {
    let up = object(behavior, "scaleUp");
    default(up, "stabilizationWindowSeconds", 0);
    default(up, "selectPolicy", "Max");
    let pods = json!({"type": "Pods", "value": 4, "periodSeconds": 15});
    let percent = json!({"type": "Percent", "value": 100, "periodSeconds": 15});
    default(up, "policies", json!([pods, percent]));
    let down = object(behavior, "scaleDown");
    default(down, "selectPolicy", "Max");
    default(down, "policies", json!([percent]));
}

const METRICS: [&str; 5] = ["ContainerResource", "External", "Object", "Pods", "Resource"];
/// An hour: longer periods and windows make a scaler that does not react.
const WINDOW_MAX_SECONDS: i64 = 3600;
const PERIOD_MAX_SECONDS: i64 = 1800;

fn validate(autoscaler: &Value, errors: &mut FieldErrors) {
    let (spec, path) = (&autoscaler["spec"], Path::new("spec"));
    let (min, max) = (&spec["minReplicas"], spec["maxReplicas"].int());
    if min.is_set() && min.int() < 1 {
        errors.invalid(
            path.child("minReplicas"),
            min.clone(),
            "must be greater than or equal to 1",
        );
    }
    if max < 1 {
        errors.invalid(path.child("maxReplicas"), max, "must be greater than 0");
    }
    if min.is_set() && max < min.int() {
        errors.invalid(
            path.child("maxReplicas"),
            max,
            "must be greater than or equal to `minReplicas`",
        );
    }
    let at = path.child("scaleTargetRef");
    for field in ["kind", "name"] {
        match spec["scaleTargetRef"][field].text() {
            "" => errors.required(at.child(field), ""),
            text => errors.invalid_each(at.child(field), text, names::path_segment(text)),
        }
    }
    for (index, metric) in spec["metrics"].items().iter().enumerate() {
        validate_metric(metric, &path.child("metrics").index(index), errors);
    }
    for direction in ["scaleUp", "scaleDown"] {
        validate_scaling(
            &spec["behavior"][direction],
            &path.child("behavior").child(direction),
            errors,
        );
    }
}

fn validate_metric(metric: &Value, at: &Path, errors: &mut FieldErrors) {
    let kind = metric["type"].text();
    required_one_of(&metric["type"], &METRICS, at.child("type"), errors);
    let field = match kind {
        "ContainerResource" => "containerResource",
        "External" => "external",
        "Object" => "object",
        "Pods" => "pods",
        "Resource" => "resource",
        _ => return,
    };
    let source = &metric[field];
    if !source.is_set() {
        errors.required(
            at.child(field),
            format!("must populate information for the given metric source: {kind}"),
        );
        return;
    }
    let target = at.child(field).child("target");
    required_one_of(
        &source["target"]["type"],
        &["AverageValue", "Utilization", "Value"],
        target.child("type"),
        errors,
    );
    if matches!(field, "resource" | "containerResource") && source["name"].text().is_empty() {
        errors.required(at.child(field).child("name"), "must specify a resource name");
    }
    let utilization = &source["target"]["averageUtilization"];
    if utilization.is_set() && utilization.int() < 1 {
        errors.invalid(
            target.child("averageUtilization"),
            utilization.clone(),
            "must be greater than 0",
        );
    }
}

fn validate_scaling(rules: &Value, path: &Path, errors: &mut FieldErrors) {
    if !rules.is_set() {
        return;
    }
    let window = &rules["stabilizationWindowSeconds"];
    not_negative(window, path.child("stabilizationWindowSeconds"), errors);
    if window.int() > WINDOW_MAX_SECONDS {
        let detail = format!("must be less than or equal to {WINDOW_MAX_SECONDS}");
        errors.invalid(path.child("stabilizationWindowSeconds"), window.clone(), detail);
    }
    one_of(&rules["selectPolicy"], &["Disabled", "Max", "Min"], path.child("selectPolicy"), errors);
    for (index, policy) in rules["policies"].items().iter().enumerate() {
        let at = path.child("policies").index(index);
        required_one_of(&policy["type"], &["Percent", "Pods"], at.child("type"), errors);
        for field in ["value", "periodSeconds"] {
            if policy[field].int() <= 0 {
                errors.invalid(at.child(field), policy[field].int(), "must be greater than zero");
            }
        }
        if policy["periodSeconds"].int() > PERIOD_MAX_SECONDS {
            let detail = format!("must be less than or equal to {PERIOD_MAX_SECONDS}");
            errors.invalid(at.child("periodSeconds"), policy["periodSeconds"].clone(), detail);
        }
    }
}
