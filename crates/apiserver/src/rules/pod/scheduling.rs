//! Where a pod may run: affinity, tolerations, spreading.

use coracle_api::names;
use coracle_api::status::{ErrorType, FieldError, FieldErrors, Path};
use serde_json::Value;

use crate::rules::checks::{label_selector, one_of};
use crate::rules::json::Read;

/// What a taint does to pods that do not tolerate it.
pub const EFFECTS: [&str; 3] = ["NoSchedule", "PreferNoSchedule", "NoExecute"];

/// Checks a pod's affinity to nodes and to other pods.
pub fn affinity(affinity: &Value, path: &Path, errors: &mut FieldErrors) {
    let node = &affinity["nodeAffinity"];
    let at = path.child("nodeAffinity");
    let required = &node["requiredDuringSchedulingIgnoredDuringExecution"];
    if required.is_set() {
        node_selector(
            required,
            &at.child("requiredDuringSchedulingIgnoredDuringExecution"),
            errors,
        );
    }
    for (index, term) in
        node["preferredDuringSchedulingIgnoredDuringExecution"].items().iter().enumerate()
    {
        let at = at.child("preferredDuringSchedulingIgnoredDuringExecution").index(index);
        weight(&term["weight"], &at, errors);
        node_term(&term["preference"], &at.child("preference"), errors);
    }
    for field in ["podAffinity", "podAntiAffinity"] {
        let at = path.child(field);
        for (index, term) in affinity[field]["requiredDuringSchedulingIgnoredDuringExecution"]
            .items()
            .iter()
            .enumerate()
        {
            pod_term(
                term,
                &at.child("requiredDuringSchedulingIgnoredDuringExecution").index(index),
                errors,
            );
        }
        for (index, term) in affinity[field]["preferredDuringSchedulingIgnoredDuringExecution"]
            .items()
            .iter()
            .enumerate()
        {
            let at = at.child("preferredDuringSchedulingIgnoredDuringExecution").index(index);
            weight(&term["weight"], &at, errors);
            pod_term(&term["podAffinityTerm"], &at.child("podAffinityTerm"), errors);
        }
    }
}

/// Checks a `NodeSelector`: at least one term, each of them well formed.
pub fn node_selector(selector: &Value, path: &Path, errors: &mut FieldErrors) {
    let at = path.child("nodeSelectorTerms");
    if selector["nodeSelectorTerms"].size() == 0 {
        errors.required(&at, "must have at least one node selector term");
    }
    for (index, term) in selector["nodeSelectorTerms"].items().iter().enumerate() {
        node_term(term, &at.index(index), errors);
    }
}

fn node_term(term: &Value, path: &Path, errors: &mut FieldErrors) {
    for list in ["matchExpressions", "matchFields"] {
        for (index, requirement) in term[list].items().iter().enumerate() {
            node_requirement(requirement, list, &path.child(list).index(index), errors);
        }
    }
}

fn node_requirement(requirement: &Value, list: &str, at: &Path, errors: &mut FieldErrors) {
    let values = requirement["values"].size();
    match requirement["operator"].text() {
        "In" | "NotIn" if values == 0 => {
            errors.required(
                at.child("values"),
                "must be specified when `operator` is 'In' or 'NotIn'",
            );
        }
        "Exists" | "DoesNotExist" if values > 0 => {
            errors.forbidden(
                at.child("values"),
                "may not be specified when `operator` is 'Exists' or 'DoesNotExist'",
            );
        }
        "Gt" | "Lt" if values != 1 => {
            errors.required(
                at.child("values"),
                "must be specified single value when `operator` is 'Lt' or 'Gt'",
            );
        }
        "In" | "NotIn" | "Exists" | "DoesNotExist" | "Gt" | "Lt" => (),
        other => errors.invalid(at.child("operator"), other, "not a valid selector operator"),
    }
    let key = requirement["key"].text();
    if list == "matchExpressions" {
        errors.invalid_each(at.child("key"), key, names::qualified_name(key));
    } else if key != "metadata.name" {
        errors.not_supported(at.child("key"), key, &["metadata.name"]);
    }
}

fn weight(weight: &Value, at: &Path, errors: &mut FieldErrors) {
    if !(1..=100).contains(&weight.int()) {
        errors.invalid(at.child("weight"), weight.int(), "must be in the range 1-100");
    }
}

fn pod_term(term: &Value, at: &Path, errors: &mut FieldErrors) {
    for field in ["labelSelector", "namespaceSelector"] {
        label_selector(&term[field], &at.child(field), errors);
    }
    for field in ["matchLabelKeys", "mismatchLabelKeys"] {
        label_keys(term, field, at, errors);
    }
    for namespace in term["namespaces"].items() {
        errors.invalid_each(
            at.child("namespaces"),
            namespace.text(),
            names::dns_label(namespace.text()),
        );
    }
    let key = term["topologyKey"].text();
    if key.is_empty() {
        errors.required(at.child("topologyKey"), "can not be empty");
    }
    errors.invalid_each(at.child("topologyKey"), key, names::qualified_name(key));
}

/// Checks which taints a pod tolerates.
pub fn tolerations(tolerations: &Value, path: &Path, errors: &mut FieldErrors) {
    for (index, toleration) in tolerations.items().iter().enumerate() {
        let at = path.index(index);
        let (key, operator) = (toleration["key"].text(), toleration["operator"].text());
        if !key.is_empty() {
            errors.invalid_each(at.child("key"), key, names::qualified_name(key));
        }
        if key.is_empty() && operator != "Exists" {
            let detail = "operator must be Exists when `key` is empty, which means \"match all values and all keys\"";
            errors.invalid(at.child("operator"), operator, detail);
        }
        let effect = &toleration["effect"];
        if toleration["tolerationSeconds"].is_set() && effect != "NoExecute" {
            errors.invalid(
                at.child("effect"),
                effect.text(),
                "effect must be 'NoExecute' when `tolerationSeconds` is set",
            );
        }
        let value = toleration["value"].text();
        match operator {
            "" | "Equal" => {
                let wrong = names::label_value(value);
                if !wrong.is_empty() {
                    errors.invalid(at.child("operator"), value, wrong.join(";"));
                }
            }
            "Exists" if !value.is_empty() => {
                errors.invalid(
                    at.child("operator"),
                    toleration.clone(),
                    "value must be empty when `operator` is 'Exists'",
                );
            }
            "Exists" | "Lt" | "Gt" => (),
            other => errors.not_supported(at.child("operator"), other, &["Equal", "Exists"]),
        }
        one_of(effect, &EFFECTS, at.child("effect"), errors);
    }
}

/// Checks how a pod is spread with its like.
pub fn spread(constraints: &Value, path: &Path, errors: &mut FieldErrors) {
    let mut seen = Vec::new();
    for (index, constraint) in constraints.items().iter().enumerate() {
        let at = path.index(index);
        if constraint["maxSkew"].int() <= 0 {
            errors.invalid(
                at.child("maxSkew"),
                constraint["maxSkew"].int(),
                "must be greater than zero",
            );
        }
        let key = constraint["topologyKey"].text();
        if key.is_empty() {
            errors.required(at.child("topologyKey"), "can not be empty");
        } else {
            errors.invalid_each(at.child("topologyKey"), key, names::qualified_name(key));
        }
        let when = constraint["whenUnsatisfiable"].text();
        if !matches!(when, "DoNotSchedule" | "ScheduleAnyway") {
            errors.not_supported(
                at.child("whenUnsatisfiable"),
                when,
                &["DoNotSchedule", "ScheduleAnyway"],
            );
        }
        let pair = format!("{{{key}, {when}}}");
        if seen.contains(&pair) {
            errors.duplicate(at.child("{topologyKey, whenUnsatisfiable}"), pair);
        } else {
            seen.push(pair);
        }
        min_domains(&constraint["minDomains"], when, &at.child("minDomains"), errors);
        for field in ["nodeAffinityPolicy", "nodeTaintsPolicy"] {
            one_of(&constraint[field], &["Honor", "Ignore"], at.child(field), errors);
        }
        label_selector(&constraint["labelSelector"], &at.child("labelSelector"), errors);
        label_keys(constraint, "matchLabelKeys", &at, errors);
    }
}

/// Keys of labels that are taken from the pod itself narrow a selector, so that there must be one.
fn label_keys(owner: &Value, field: &str, path: &Path, errors: &mut FieldErrors) {
    let at = path.child(field);
    if owner[field].size() > 0 && !owner["labelSelector"].is_set() {
        errors.forbidden(&at, "must not be specified when labelSelector is not set");
    }
    for (index, key) in owner[field].items().iter().enumerate() {
        errors.invalid_each(at.index(index), key.text(), names::qualified_name(key.text()));
    }
}

fn min_domains(domains: &Value, when: &str, path: &Path, errors: &mut FieldErrors) {
    if !domains.is_set() {
        return;
    }
    if domains.int() <= 0 {
        errors.invalid(path, domains.clone(), "must be greater than zero");
    }
    if when != "DoNotSchedule" {
        let detail =
            format!("can only use minDomains if whenUnsatisfiable=DoNotSchedule, not {when}");
        errors.invalid(path, domains.clone(), detail);
    }
}

/// Checks the taints of a node.
pub fn taints(taints: &Value, path: &Path, errors: &mut FieldErrors) {
    let mut seen: Vec<(&str, &str)> = Vec::new();
    for (index, taint) in taints.items().iter().enumerate() {
        let at = path.index(index);
        let (key, value, effect) =
            (taint["key"].text(), taint["value"].text(), taint["effect"].text());
        errors.invalid_each(at.child("key"), key, names::qualified_name(key));
        let wrong = names::label_value(value);
        if !wrong.is_empty() {
            errors.invalid(at.child("value"), value, wrong.join(";"));
        }
        if effect.is_empty() {
            errors.required(at.child("effect"), "");
        }
        one_of(&taint["effect"], &EFFECTS, at.child("effect"), errors);
        if seen.contains(&(key, effect)) {
            errors.push(FieldError {
                kind: ErrorType::Duplicate,
                path: at,
                value: taint.clone(),
                detail: "taints must be unique by key and effect pair".to_owned(),
            });
        } else {
            seen.push((key, effect));
        }
    }
}
