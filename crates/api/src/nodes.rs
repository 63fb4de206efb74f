//! What a pod says about the nodes that it may be on: node selector terms and tolerations.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    NodeSelectorRequirement, NodeSelectorTerm, Taint, Toleration, TopologySelectorTerm,
};

/// The taint that cordoning a node means.
pub const UNSCHEDULABLE: &str = "node.kubernetes.io/unschedulable";

/// A node's labels.
pub type Labels = BTreeMap<String, String>;

/// Whether any of the terms matches; an empty term matches nothing.
pub fn matches_any(terms: &[NodeSelectorTerm], labels: &Labels, name: &str) -> bool {
    terms.iter().any(|term| matches_term(term, labels, name))
}

/// Whether all of a term's requirements hold.
pub fn matches_term(term: &NodeSelectorTerm, labels: &Labels, name: &str) -> bool {
    let expressions = term.match_expressions.as_deref().unwrap_or_default();
    let fields = term.match_fields.as_deref().unwrap_or_default();
    if expressions.is_empty() && fields.is_empty() {
        return false;
    }
    expressions.iter().all(|wanted| matches(wanted, labels.get(&wanted.key).map(String::as_str)))
        && fields
            .iter()
            .all(|wanted| matches(wanted, (wanted.key == "metadata.name").then_some(name)))
}

fn matches(wanted: &NodeSelectorRequirement, found: Option<&str>) -> bool {
    let values = wanted.values.as_deref().unwrap_or_default();
    let is_one_of = |found: &str| values.iter().any(|value| value == found);
    let compare = |holds: fn(&i64, &i64) -> bool| {
        let bound = values.first().and_then(|value| value.parse().ok());
        let found = found.and_then(|found| found.parse().ok());
        found.zip(bound).is_some_and(|(found, bound)| holds(&found, &bound))
    };
    match wanted.operator.as_str() {
        "In" => found.is_some_and(is_one_of),
        "NotIn" => !found.is_some_and(is_one_of),
        "Exists" => found.is_some(),
        "DoesNotExist" => found.is_none(),
        "Gt" => compare(i64::gt),
        "Lt" => compare(i64::lt),
        // Validation knows no other operator.
        _ => false,
    }
}

/// Where a StorageClass lets volumes be, in the words of node selectors; empty for everywhere.
pub fn allowed_terms(topologies: &[TopologySelectorTerm]) -> Vec<NodeSelectorTerm> {
    let term = |topology: &TopologySelectorTerm| {
        let wanted = topology.match_label_expressions.iter().flatten();
        let expressions = wanted.map(|wanted| NodeSelectorRequirement {
            key: wanted.key.clone(),
            operator: "In".to_owned(),
            values: Some(wanted.values.clone()),
        });
        NodeSelectorTerm {
            match_expressions: Some(expressions.collect()),
            ..NodeSelectorTerm::default()
        }
    };
    topologies.iter().map(term).collect()
}

/// Whether any of the tolerations covers the taint.
pub fn tolerates(tolerations: &[Toleration], taint: &Taint) -> bool {
    tolerations.iter().any(|toleration| covers(toleration, taint))
}

/// Whether the toleration covers the taint.
pub fn covers(toleration: &Toleration, taint: &Taint) -> bool {
    let set = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
    if set(&toleration.effect).is_some_and(|effect| effect != taint.effect) {
        return false;
    }
    if set(&toleration.key).is_some_and(|key| key != taint.key) {
        return false;
    }
    match toleration.operator.as_deref() {
        Some("Exists") => true,
        None | Some("" | "Equal") => {
            toleration.value.as_deref().unwrap_or_default()
                == taint.value.as_deref().unwrap_or_default()
        }
        Some(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn check_term(term: serde_json::Value, matches: bool) {
        let labels = Labels::from([("zone".into(), "a".into()), ("size".into(), "5".into())]);
        let term: NodeSelectorTerm = serde_json::from_value(term.clone()).unwrap();
        assert_eq!(matches_term(&term, &labels, "node-0"), matches, "{term:?}");
    }

    fn expression(key: &str, operator: &str, values: &[&str]) -> serde_json::Value {
        json!({"matchExpressions": [{"key": key, "operator": operator, "values": values}]})
    }

    #[test]
    fn terms_match_as_their_operators_say() {
        check_term(json!({}), false);
        for (operator, values, of_zone, of_absent) in [
            ("In", &["a", "b"][..], true, false),
            ("In", &["b"], false, false),
            ("NotIn", &["a"], false, true),
            ("NotIn", &["b"], true, true),
            ("Exists", &[], true, false),
            ("DoesNotExist", &[], false, true),
            ("Near", &["a"], false, false),
        ] {
            check_term(expression("zone", operator, values), of_zone);
            check_term(expression("absent", operator, values), of_absent);
        }
        check_term(expression("size", "Gt", &["4"]), true);
        check_term(expression("size", "Gt", &["5"]), false);
        check_term(expression("size", "Lt", &["6"]), true);
        check_term(expression("zone", "Lt", &["6"]), false);
        let field = |name: &str| json!({"matchFields": [{"key": "metadata.name", "operator": "In", "values": [name]}]});
        check_term(field("node-0"), true);
        check_term(field("node-1"), false);
    }

    #[test]
    fn tolerations_cover_what_they_name() {
        let taint: Taint =
            serde_json::from_value(json!({"key": "k", "value": "v", "effect": "NoSchedule"}))
                .unwrap();
        for (toleration, covered) in [
            (json!({"operator": "Exists"}), true),
            (json!({"key": "k", "operator": "Exists"}), true),
            (json!({"key": "k", "operator": "Exists", "effect": "NoExecute"}), false),
            (json!({"key": "k", "value": "v"}), true),
            (json!({"key": "k", "operator": "Equal", "value": "v", "effect": "NoSchedule"}), true),
            (json!({"key": "k", "value": "w"}), false),
            (json!({"key": "k"}), false),
            (json!({"key": "l", "operator": "Exists"}), false),
        ] {
            let toleration: Toleration = serde_json::from_value(toleration).unwrap();
            assert_eq!(covers(&toleration, &taint), covered, "{toleration:?}");
        }
    }
}
