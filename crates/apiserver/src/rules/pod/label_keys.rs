//! `matchLabelKeys`: selectors of other pods that take their values from the pod's own labels.

use serde_json::{Value, json};

use crate::rules::json::{Read, each, object, set, with};

/// Writes the values into the selectors, so that whoever reads them needs not know of the keys.
pub fn merge(pod: &mut Value) {
    let labels = pod["metadata"]["labels"].clone();
    let Some(spec) = pod.get_mut("spec") else { return };
    with(spec, "affinity", |affinity| {
        for field in ["podAffinity", "podAntiAffinity"] {
            with(affinity, field, |affinity| {
                each(affinity, "requiredDuringSchedulingIgnoredDuringExecution", |term| {
                    merge_term(term, &labels)
                });
                each(affinity, "preferredDuringSchedulingIgnoredDuringExecution", |weighted| {
                    with(weighted, "podAffinityTerm", |term| merge_term(term, &labels));
                });
            });
        }
    });
    each(spec, "topologySpreadConstraints", |constraint| merge_term(constraint, &labels));
}

fn merge_term(term: &mut Value, labels: &Value) {
    for (field, operator) in [("matchLabelKeys", "In"), ("mismatchLabelKeys", "NotIn")] {
        let keys = term[field].items().iter().map(|key| key.text().to_owned());
        let found: Vec<Value> = keys
            .filter_map(|key| {
                let value = labels.get(&key)?;
                Some(json!({"key": key, "operator": operator, "values": [value]}))
            })
            .collect();
        // Without a selector a term matches no pod, whatever the keys.
        if found.is_empty() || !term["labelSelector"].is_set() {
            continue;
        }
        let selector = object(term, "labelSelector");
        let mut expressions = selector["matchExpressions"].items().to_vec();
        for expression in found {
            if !expressions.contains(&expression) {
                expressions.push(expression);
            }
        }
        set(selector, "matchExpressions", expressions);
    }
}
