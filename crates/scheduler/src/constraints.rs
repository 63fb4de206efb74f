//! What a pod says about the nodes that it may go to: selectors, tolerations, host ports.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    NodeSelectorRequirement, NodeSelectorTerm, PodSpec, Taint, Toleration,
};

/// The taint that cordoning a node means.
pub(crate) const UNSCHEDULABLE: &str = "node.kubernetes.io/unschedulable";

pub(crate) type Labels = BTreeMap<String, String>;

/// Whether any of the terms matches; an empty term matches nothing.
pub(crate) fn matches_any(terms: &[NodeSelectorTerm], labels: &Labels, name: &str) -> bool {
    terms.iter().any(|term| matches_term(term, labels, name))
}

/// Whether all of a term's requirements hold.
pub(crate) fn matches_term(term: &NodeSelectorTerm, labels: &Labels, name: &str) -> bool {
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

/// Whether any of the tolerations covers the taint.
pub(crate) fn tolerates(tolerations: &[Toleration], taint: &Taint) -> bool {
    tolerations.iter().any(|toleration| covers(toleration, taint))
}

fn covers(toleration: &Toleration, taint: &Taint) -> bool {
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

/// A port that a pod takes on its node.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct HostPort {
    /// `None` for all addresses of the node.
    pub(crate) address: Option<String>,
    pub(crate) protocol: String,
    pub(crate) port: i32,
}

impl HostPort {
    /// Whether both cannot be open at once.
    pub(crate) fn conflicts(&self, other: &HostPort) -> bool {
        self.port == other.port
            && self.protocol == other.protocol
            && (self.address.is_none() || other.address.is_none() || self.address == other.address)
    }
}

/// The ports that a pod takes on its node, those of its sidecars too.
pub(crate) fn host_ports(spec: &PodSpec) -> Vec<HostPort> {
    let sidecars = spec.init_containers.iter().flatten();
    let sidecars = sidecars.filter(|init| init.restart_policy.as_deref() == Some("Always"));
    let ports = spec.containers.iter().chain(sidecars).flat_map(|c| c.ports.iter().flatten());
    let taken = ports.filter_map(|port| {
        Some(HostPort {
            address: port
                .host_ip
                .clone()
                .filter(|ip| !matches!(ip.as_str(), "" | "0.0.0.0" | "::")),
            protocol: port.protocol.clone().unwrap_or_else(|| "TCP".to_owned()),
            port: port.host_port.filter(|port| *port > 0)?,
        })
    });
    taken.collect()
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

    #[test]
    fn ports_conflict_on_the_same_address() {
        let port = |address: Option<&str>, protocol: &str, port| HostPort {
            address: address.map(str::to_owned),
            protocol: protocol.to_owned(),
            port,
        };
        let all = port(None, "TCP", 80);
        assert!(all.conflicts(&port(Some("10.0.0.1"), "TCP", 80)));
        assert!(!all.conflicts(&port(None, "UDP", 80)));
        assert!(!all.conflicts(&port(None, "TCP", 81)));
        assert!(!port(Some("10.0.0.1"), "TCP", 80).conflicts(&port(Some("10.0.0.2"), "TCP", 80)));
    }
}
