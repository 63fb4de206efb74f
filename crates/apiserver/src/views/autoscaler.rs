//! `autoscaling/v1` of what is stored as `autoscaling/v2`.
//!
//! The older version knows one metric, the CPU's utilisation, as a plain number. What it cannot say stands in annotations,
//! so that a client of the older version that writes back what it read loses nothing.
//!
//! Upstream: `pkg/apis/autoscaling/v1/conversion.go`.

use serde_json::{Map, Value, json};

const METRICS: &str = "autoscaling.alpha.kubernetes.io/metrics";
const CURRENT_METRICS: &str = "autoscaling.alpha.kubernetes.io/current-metrics";
const CONDITIONS: &str = "autoscaling.alpha.kubernetes.io/conditions";
const BEHAVIOR: &str = "autoscaling.alpha.kubernetes.io/behavior";
const ANNOTATIONS: [&str; 4] = [METRICS, CURRENT_METRICS, CONDITIONS, BEHAVIOR];

/// Which half of a metric: what is wished, or what is.
#[derive(Clone, Copy)]
enum Side {
    Target,
    Current,
}

impl Side {
    /// How `autoscaling/v2` calls the half.
    const fn field(self) -> &'static str {
        match self {
            Self::Target => "target",
            Self::Current => "current",
        }
    }

    /// How `autoscaling/v1` calls a number of it: `targetAverageValue`.
    fn number(self, name: &str) -> String {
        format!("{}{name}", self.field())
    }
}

/// From what is stored to `autoscaling/v1`.
pub(super) fn read(fields: &mut Map<String, Value>) {
    let mut notes = Map::new();
    let mut note =
        |name: &str, value: Value| notes.insert(name.to_owned(), json!(value.to_string()));
    if let Some(spec) = fields.get_mut("spec").and_then(Value::as_object_mut) {
        let metrics = spec.remove("metrics").unwrap_or_default();
        let metrics = metrics.as_array().map(Vec::as_slice).unwrap_or_default();
        let (cpu, others): (Vec<&Value>, Vec<&Value>) =
            metrics.iter().partition(|metric| cpu_utilization(metric, Side::Target).is_some());
        if let Some(number) = cpu.first().and_then(|metric| cpu_utilization(metric, Side::Target)) {
            spec.insert("targetCPUUtilizationPercentage".to_owned(), number);
        }
        if !others.is_empty() {
            note(
                METRICS,
                others.into_iter().map(|metric| to_older(metric, Side::Target)).collect(),
            );
        }
        if let Some(behavior) = spec.remove("behavior").filter(|behavior| !behavior.is_null()) {
            note(BEHAVIOR, renamed(&behavior, &capitalized));
        }
    }
    if let Some(status) = fields.get_mut("status").and_then(Value::as_object_mut) {
        let metrics = status.remove("currentMetrics").unwrap_or_default();
        let metrics = metrics.as_array().map(Vec::as_slice).unwrap_or_default();
        let cpu = metrics.iter().find_map(|metric| cpu_utilization(metric, Side::Current));
        if let Some(number) = cpu {
            status.insert("currentCPUUtilizationPercentage".to_owned(), number);
        }
        if !metrics.is_empty() {
            let metrics = metrics.iter().map(|metric| to_older(metric, Side::Current)).collect();
            note(CURRENT_METRICS, metrics);
        }
        let conditions = status.remove("conditions").unwrap_or_default();
        if conditions.as_array().is_some_and(|conditions| !conditions.is_empty()) {
            note(CONDITIONS, conditions);
        }
    }
    replace_notes(fields, notes);
}

/// From `autoscaling/v1` to what is stored. An annotation that cannot be read is dropped.
pub(super) fn write(fields: &mut Map<String, Value>) {
    let note = |fields: &Map<String, Value>, name: &str| -> Option<Value> {
        serde_json::from_str(fields.get("metadata")?["annotations"][name].as_str()?).ok()
    };
    let list = |fields: &Map<String, Value>, name: &str, side: Side| -> Vec<Value> {
        let metrics = note(fields, name);
        let metrics = metrics.as_ref().and_then(Value::as_array).map(Vec::as_slice);
        metrics.unwrap_or_default().iter().map(|metric| to_newer(metric, side)).collect()
    };
    let mut metrics = list(fields, METRICS, Side::Target);
    let behavior = note(fields, BEHAVIOR)
        .filter(|found| found.as_object().is_some_and(|found| !found.is_empty()));
    let mut current = list(fields, CURRENT_METRICS, Side::Current);
    let conditions = note(fields, CONDITIONS);
    if let Some(spec) = fields.get_mut("spec").and_then(Value::as_object_mut) {
        let cpu = spec.remove("targetCPUUtilizationPercentage");
        if let Some(number) = cpu.filter(Value::is_number) {
            metrics.push(cpu_metric(Side::Target, &number));
        }
        if !metrics.is_empty() {
            spec.insert("metrics".to_owned(), metrics.into());
        }
        if let Some(behavior) = behavior {
            spec.insert("behavior".to_owned(), renamed(&behavior, &uncapitalized));
        }
    }
    if let Some(status) = fields.get_mut("status").and_then(Value::as_object_mut) {
        let cpu = status.remove("currentCPUUtilizationPercentage").filter(Value::is_number);
        if let Some(number) = cpu.filter(|_| current.is_empty()) {
            current.push(cpu_metric(Side::Current, &number));
        }
        if !current.is_empty() {
            status.insert("currentMetrics".to_owned(), current.into());
        }
        if let Some(conditions) = conditions.filter(Value::is_array) {
            status.insert("conditions".to_owned(), conditions);
        }
    }
    replace_notes(fields, Map::new());
}

/// Drops the annotations that carry what `autoscaling/v1` cannot say, and puts these in their place.
fn replace_notes(fields: &mut Map<String, Value>, notes: Map<String, Value>) {
    let Some(metadata) = fields.get_mut("metadata").and_then(Value::as_object_mut) else { return };
    if let Some(annotations) = metadata.get_mut("annotations").and_then(Value::as_object_mut) {
        annotations.retain(|name, _| !ANNOTATIONS.contains(&name.as_str()));
        if annotations.is_empty() {
            metadata.remove("annotations");
        }
    }
    if notes.is_empty() {
        return;
    }
    let annotations = metadata.entry("annotations").or_insert_with(|| json!({}));
    if let Some(annotations) = annotations.as_object_mut() {
        annotations.extend(notes);
    }
}

fn cpu_utilization(metric: &Value, side: Side) -> Option<Value> {
    let resource = metric.get("resource").filter(|resource| resource["name"] == "cpu")?;
    resource
        .get(side.field())?
        .get("averageUtilization")
        .filter(|number| !number.is_null())
        .cloned()
}

fn cpu_metric(side: Side, number: &Value) -> Value {
    let half = match side {
        Side::Target => json!({ "type": "Utilization", "averageUtilization": number }),
        // The raw value is not known.
        Side::Current => json!({ "averageUtilization": number, "averageValue": "0" }),
    };
    json!({ "type": "Resource", "resource": { "name": "cpu", side.field(): half } })
}

/// A metric of `autoscaling/v2` in the words of `autoscaling/v1`.
fn to_older(metric: &Value, side: Side) -> Value {
    let mut older = Map::from_iter([("type".to_owned(), metric["type"].clone())]);
    for source in ["resource", "containerResource", "pods", "object", "external"] {
        let Some(from) = metric.get(source).filter(|from| from.is_object()) else { continue };
        let mut to = Map::new();
        let half = &from[side.field()];
        let identity = &from["metric"];
        let (average, selector) = (average_of(source, side), selector_of(source));
        put(&mut to, "name", &from["name"]);
        put(&mut to, "container", &from["container"]);
        put(&mut to, "metricName", &identity["name"]);
        put(&mut to, selector, &identity["selector"]);
        put(&mut to, "target", &from["describedObject"]);
        put(&mut to, &side.number("AverageUtilization"), &half["averageUtilization"]);
        put(&mut to, &average, &half["averageValue"]);
        put(&mut to, &side.number("Value"), &half["value"]);
        older.insert(source.to_owned(), to.into());
    }
    older.into()
}

/// The opposite of [`to_older`].
fn to_newer(metric: &Value, side: Side) -> Value {
    let mut newer = Map::from_iter([("type".to_owned(), metric["type"].clone())]);
    for source in ["resource", "containerResource", "pods", "object", "external"] {
        let Some(from) = metric.get(source).filter(|from| from.is_object()) else { continue };
        let (mut to, mut half, mut identity) = (Map::new(), Map::new(), Map::new());
        let (average, selector) = (average_of(source, side), selector_of(source));
        put(&mut to, "name", &from["name"]);
        put(&mut to, "container", &from["container"]);
        put(&mut to, "describedObject", &from["target"]);
        put(&mut identity, "name", &from["metricName"]);
        put(&mut identity, "selector", &from[selector]);
        put(&mut half, "averageUtilization", &from[side.number("AverageUtilization")]);
        put(&mut half, "averageValue", &from[&average]);
        let value = &from[side.number("Value")];
        // Where there is an average, the older version says a value of nothing.
        if source != "object" || half.is_empty() {
            put(&mut half, "value", value);
        }
        if let Side::Target = side {
            let kind = if half.contains_key("averageUtilization") {
                "Utilization"
            } else if half.contains_key("averageValue") {
                "AverageValue"
            } else {
                "Value"
            };
            half.insert("type".to_owned(), json!(kind));
        }
        if !identity.is_empty() {
            to.insert("metric".to_owned(), identity.into());
        }
        to.insert(side.field().to_owned(), half.into());
        newer.insert(source.to_owned(), to.into());
    }
    newer.into()
}

/// How `autoscaling/v1` calls the average of such a metric.
fn average_of(source: &str, side: Side) -> String {
    if source == "object" { "averageValue".to_owned() } else { side.number("AverageValue") }
}

/// How `autoscaling/v1` calls the selector of such a metric.
fn selector_of(source: &str) -> &'static str {
    if source == "external" { "metricSelector" } else { "selector" }
}

fn put(to: &mut Map<String, Value>, name: &str, value: &Value) {
    if !value.is_null() {
        to.insert(name.to_owned(), value.clone());
    }
}

/// Upstream writes its internal type there, whose fields begin with capitals; both are read.
fn renamed(value: &Value, rename: &impl Fn(&str) -> String) -> Value {
    match value {
        Value::Object(fields) => {
            fields.iter().map(|(name, value)| (rename(name), renamed(value, rename))).collect()
        }
        Value::Array(items) => items.iter().map(|item| renamed(item, rename)).collect(),
        plain => plain.clone(),
    }
}

fn capitalized(name: &str) -> String {
    let mut letters = name.chars();
    letters.next().map(|first| first.to_ascii_uppercase()).into_iter().chain(letters).collect()
}

fn uncapitalized(name: &str) -> String {
    let mut letters = name.chars();
    letters.next().map(|first| first.to_ascii_lowercase()).into_iter().chain(letters).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stored() -> Value {
        json!({
            "metadata": { "name": "web", "annotations": { "mine": "1" } },
            "spec": {
                "maxReplicas": 5,
                "metrics": [
                    { "type": "Resource", "resource": { "name": "memory", "target": { "type": "AverageValue", "averageValue": "1Gi" } } },
                    { "type": "ContainerResource", "containerResource": { "name": "cpu", "container": "app", "target": { "type": "Utilization", "averageUtilization": 70 } } },
                    { "type": "Pods", "pods": { "metric": { "name": "rps", "selector": { "matchLabels": { "a": "b" } } }, "target": { "type": "AverageValue", "averageValue": "10" } } },
                    { "type": "Object", "object": { "describedObject": { "kind": "Service", "name": "s" }, "metric": { "name": "hits" }, "target": { "type": "Value", "value": "2k" } } },
                    { "type": "External", "external": { "metric": { "name": "queue" }, "target": { "type": "AverageValue", "averageValue": "30" } } },
                    { "type": "Resource", "resource": { "name": "cpu", "target": { "type": "Utilization", "averageUtilization": 60 } } },
                ],
                "behavior": { "scaleDown": { "selectPolicy": "Min", "policies": [{ "type": "Pods", "value": 1, "periodSeconds": 60 }] } },
            },
            "status": {
                "desiredReplicas": 2,
                "currentMetrics": [{ "type": "Resource", "resource": { "name": "cpu", "current": { "averageUtilization": 50, "averageValue": "5m" } } }],
                "conditions": [{ "type": "AbleToScale", "status": "True", "reason": "ReadyForNewScale" }],
            },
        })
    }

    #[test]
    fn the_older_version_shows_the_processors_share_and_notes_the_rest() {
        let mut older = stored();
        read(older.as_object_mut().unwrap());
        assert_eq!(
            older["spec"],
            json!({ "maxReplicas": 5, "targetCPUUtilizationPercentage": 60 })
        );
        let status = json!({ "desiredReplicas": 2, "currentCPUUtilizationPercentage": 50 });
        assert_eq!(older["status"], status);
        let note = |name: &str| older["metadata"]["annotations"][name].as_str().unwrap().to_owned();
        let metrics: Value = serde_json::from_str(&note(METRICS)).unwrap();
        assert_eq!(
            metrics[3],
            json!({ "type": "Object", "object": { "target": { "kind": "Service", "name": "s" }, "metricName": "hits", "targetValue": "2k" } })
        );
        assert_eq!(
            metrics[4],
            json!({ "type": "External", "external": { "metricName": "queue", "targetAverageValue": "30" } })
        );
        assert!(note(BEHAVIOR).contains(r#""ScaleDown":{"#), "{}", note(BEHAVIOR));
    }

    #[test]
    fn what_is_written_back_through_the_older_version_is_the_same() {
        let mut object = stored();
        read(object.as_object_mut().unwrap());
        write(object.as_object_mut().unwrap());
        assert_eq!(object, stored());
    }

    #[test]
    fn spoiled_notes_are_dropped() {
        let mut object = json!({
            "metadata": { "annotations": { METRICS: "{", BEHAVIOR: "{}", CURRENT_METRICS: "7", CONDITIONS: "" } },
            "spec": { "maxReplicas": 2 },
        });
        write(object.as_object_mut().unwrap());
        assert_eq!(object, json!({ "metadata": {}, "spec": { "maxReplicas": 2 } }));
    }
}
