//! `HorizontalPodAutoscaler`.

use coracle_api::names;
use coracle_api::quantity::Quantity;
use coracle_api::status::{FieldErrors, Path};
use serde_json::{Value, json};

use crate::rules::checks::{none_negative, one_of, required_one_of};
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
    validate_status_update: |new, _, errors| {
        let counts = ["currentReplicas", "desiredReplicas"];
        none_negative(&new["status"], &counts, &Path::new("status"), errors);
    },
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

/// The kinds of metrics and their fields.
const SOURCES: [(&str, &str); 5] = [
    ("Object", "object"),
    ("External", "external"),
    ("Pods", "pods"),
    ("Resource", "resource"),
    ("ContainerResource", "containerResource"),
];
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
    scaled(&spec["scaleTargetRef"], &path.child("scaleTargetRef"), errors);
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
    required_one_of(&metric["type"], &METRICS, at.child("type"), errors);
    let kind = SOURCES.iter().find(|(kind, _)| metric["type"] == *kind);
    if let Some((_, field)) = kind
        && !metric[*field].is_set()
    {
        let detail = "must populate information for the given metric source";
        errors.required(at.child(field), detail);
    }
    let mut given = SOURCES.iter().map(|(_, field)| field).filter(|field| metric[**field].is_set());
    if let Some(first) = given.clone().next() {
        validate_source(first, &metric[*first], &at.child(first), errors);
    }
    if given.clone().count() > 1
        && let Some((_, own)) = kind
    {
        for other in given.by_ref().filter(|field| *field != own) {
            errors.forbidden(at.child(other), "must populate the given metric source only");
        }
    }
}

fn validate_source(field: &str, source: &Value, at: &Path, errors: &mut FieldErrors) {
    let (target, path) = (&source["target"], at.child("target"));
    match field {
        "resource" | "containerResource" => {
            if source["name"].text().is_empty() {
                errors.required(at.child("name"), "must specify a resource name");
            }
            if field == "containerResource" && source["container"].text().is_empty() {
                errors.required(at.child("container"), "must specify a container");
            }
        }
        _ => {
            if field == "object" {
                scaled(&source["describedObject"], &at.child("describedObject"), errors);
            }
            let name = at.child("metric").child("name");
            match source["metric"]["name"].text() {
                "" => errors.required(name, "must specify a metric name"),
                text => errors.invalid_each(name, text, names::path_segment(text)),
            }
        }
    }
    validate_target(target, &path, errors);
    amounts(field, target, &path, errors);
}

fn validate_target(target: &Value, path: &Path, errors: &mut FieldErrors) {
    match target["type"].text() {
        "" => errors.required(path.child("type"), "must specify a metric target type"),
        "Utilization" | "Value" | "AverageValue" => (),
        other => {
            let detail = "must be either Utilization, Value, or AverageValue";
            errors.invalid(path.child("type"), other, detail);
        }
    }
    for field in ["value", "averageValue"] {
        if target[field].is_set() && !is_positive(&target[field]) {
            errors.invalid(path.child(field), target[field].clone(), "must be positive");
        }
    }
    let utilization = &target["averageUtilization"];
    if utilization.is_set() && utilization.int() < 1 {
        let at = path.child("averageUtilization");
        errors.invalid(at, utilization.clone(), "must be greater than 0");
    }
}

/// Each source has its own idea of which amounts its target has.
fn amounts(field: &str, target: &Value, path: &Path, errors: &mut FieldErrors) {
    let has = |amount: &str| target[amount].is_set();
    match field {
        "pods" if !is_positive(&target["averageValue"]) => {
            let detail = "must specify a positive target averageValue";
            errors.required(path.child("averageValue"), detail);
        }
        "object" if !has("value") && !has("averageValue") => {
            let detail = "must set either a target value or averageValue";
            errors.required(path.child("averageValue"), detail);
        }
        "external" if !has("value") && !has("averageValue") => {
            let detail = "must set either a target value for metric or a per-pod target";
            errors.required(path.child("averageValue"), detail);
        }
        "external" if has("value") && has("averageValue") => {
            let detail = "may not set both a target value for metric and a per-pod target";
            errors.forbidden(path.child("value"), detail);
        }
        "resource" | "containerResource" if !has("averageUtilization") && !has("averageValue") => {
            let detail = "must set either a target raw value or a target utilization";
            errors.required(path.child("averageUtilization"), detail);
        }
        "resource" | "containerResource" if has("averageUtilization") && has("averageValue") => {
            let detail = "may not set both a target raw value and a target utilization";
            errors.forbidden(path.child("averageValue"), detail);
        }
        _ => (),
    }
}

fn is_positive(amount: &Value) -> bool {
    Quantity::from_value(amount).is_ok_and(|amount| amount > Quantity::ZERO)
}

/// Checks a reference to an object of any kind.
fn scaled(reference: &Value, at: &Path, errors: &mut FieldErrors) {
    for field in ["kind", "name"] {
        match reference[field].text() {
            "" => errors.required(at.child(field), ""),
            text => errors.invalid_each(at.child(field), text, names::path_segment(text)),
        }
    }
}

fn validate_scaling(rules: &Value, path: &Path, errors: &mut FieldErrors) {
    if !rules.is_set() {
        return;
    }
    let window = &rules["stabilizationWindowSeconds"];
    if window.int() < 0 {
        let at = path.child("stabilizationWindowSeconds");
        errors.invalid(at, window.clone(), "must be greater than or equal to zero");
    }
    if window.int() > WINDOW_MAX_SECONDS {
        let detail = format!("must be less than or equal to {WINDOW_MAX_SECONDS}");
        errors.invalid(path.child("stabilizationWindowSeconds"), window.clone(), detail);
    }
    one_of(&rules["selectPolicy"], &["Disabled", "Max", "Min"], path.child("selectPolicy"), errors);
    if Quantity::from_value(&rules["tolerance"]).is_ok_and(|tolerance| tolerance.is_negative()) {
        let at = path.child("tolerance");
        errors.invalid(at, rules["tolerance"].clone(), "must be greater than or equal to zero");
    }
    if rules["policies"].size() == 0 {
        errors.required(path.child("policies"), "must specify at least one Policy");
    }
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
