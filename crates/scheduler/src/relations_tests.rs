use super::*;

use std::collections::BTreeMap;

use proptest::prelude::*;
use serde_json::{Value, json};

use crate::place::{Placement, place};

fn node(name: &str, zone: Option<&str>) -> Node {
    let mut labels = json!({"host": name});
    if let Some(zone) = zone {
        labels["zone"] = json!(zone);
    }
    let status = json!({"allocatable": {"cpu": "64", "memory": "64Gi", "pods": "110"}});
    let value = json!({"metadata": {"name": name, "labels": labels}, "status": status});
    Node::of(&serde_json::from_value(value).unwrap())
}

/// A pod of this app, in the namespace that `namespace/app` names.
fn pod(app: &str, spec: Value) -> Claim {
    let (namespace, app) = app.split_once('/').unwrap_or(("default", app));
    let mut value = json!({
        "metadata": {"name": app, "namespace": namespace, "labels": {"app": app, "v": "1"}},
        "spec": {"containers": [{"name": "c"}]},
    });
    json_patch::merge(&mut value, &json!({"spec": spec}));
    Claim::of(&serde_json::from_value(value).unwrap())
}

fn term(app: &str, topology: &str) -> Value {
    json!({"topologyKey": topology, "labelSelector": {"matchLabels": {"app": app}}})
}

fn near(term: Value) -> Value {
    json!({"affinity": {"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]}}})
}

fn far(term: Value) -> Value {
    json!({"affinity": {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]}}})
}

fn spread(app: &str, topology: &str, more: Value) -> Value {
    let mut constraint = json!({"topologyKey": topology, "maxSkew": 1,
        "whenUnsatisfiable": "DoNotSchedule", "labelSelector": {"matchLabels": {"app": app}}});
    json_patch::merge(&mut constraint, &more);
    json!({"topologySpreadConstraints": [constraint]})
}

/// Two nodes in zone x, one in y, one in none.
fn nodes() -> Vec<Node> {
    [("a", Some("x")), ("b", Some("x")), ("c", Some("y")), ("d", None)]
        .map(|(name, zone)| node(name, zone))
        .into()
}

fn namespaces() -> Namespaces {
    let labels = |team: &str| BTreeMap::from([("team".to_owned(), team.to_owned())]);
    [("default".to_owned(), labels("one")), ("other".to_owned(), labels("two"))].into()
}

fn relate(claim: &Claim, nodes: &[Node], there: &[(&str, Claim)]) -> Relations {
    let there = there
        .iter()
        .map(|(name, other)| (nodes.iter().find(|node| node.name == *name).unwrap(), other));
    Relations::of(&Profile::default(), claim, nodes.iter(), there, &namespaces())
}

/// Which of the nodes take a pod of app `web` that says this, with these pods there.
fn check(spec: Value, there: &[(&str, Claim)], expected: &str) {
    let (claim, nodes) = (pod("web", spec), nodes());
    let relations = relate(&claim, &nodes, there);
    let taking =
        nodes.iter().filter(|node| relations.refusal(&Profile::default(), &claim, node).is_none());
    let taking: Vec<_> = taking.map(|node| node.name.as_str()).collect();
    assert_eq!(taking.join(" "), expected);
}

fn plain(app: &str) -> Claim {
    pod(app, json!({}))
}

#[test]
fn affinity_draws_pods_to_those_that_they_name() {
    check(near(term("db", "zone")), &[("a", plain("db"))], "a b");
    check(near(term("db", "host")), &[("a", plain("db"))], "a");
    check(near(term("db", "zone")), &[], "");
    check(near(term("db", "zone")), &[("d", plain("db"))], "");
    check(near(term("db", "zone")), &[("a", plain("other/db"))], "");
    // The first of a group may go where there is a zone at all, the next not.
    check(near(term("web", "zone")), &[], "a b c");
    check(near(term("web", "zone")), &[("c", plain("web"))], "c");
    check(near(term("web", "zone")), &[("c", plain("other/web"))], "a b c");
}

#[test]
fn terms_name_namespaces() {
    let mut named = term("db", "zone");
    named["namespaces"] = json!(["other"]);
    check(near(named.clone()), &[("a", plain("other/db")), ("c", plain("db"))], "a b");
    named["namespaces"] = json!([]);
    named["namespaceSelector"] = json!({"matchLabels": {"team": "two"}});
    check(near(named.clone()), &[("a", plain("other/db")), ("c", plain("db"))], "a b");
    named["namespaceSelector"] = json!({});
    check(near(named), &[("a", plain("other/db")), ("c", plain("db"))], "a b c");
}

#[test]
fn terms_name_labels_by_key() {
    let mut alike = term("db", "zone");
    alike["matchLabelKeys"] = json!(["v", "absent"]);
    check(near(alike.clone()), &[("a", plain("db"))], "a b");
    alike["mismatchLabelKeys"] = json!(["v"]);
    alike["matchLabelKeys"] = json!([]);
    check(near(alike), &[("a", plain("db"))], "");
}

#[test]
fn anti_affinity_counts_both_ways() {
    check(far(term("db", "zone")), &[("a", plain("db"))], "c d");
    check(far(term("db", "host")), &[("a", plain("db"))], "b c d");
    check(json!({}), &[("a", pod("db", far(term("web", "zone"))))], "c d");
    check(json!({}), &[("a", pod("db", far(term("db", "zone"))))], "a b c d");
    check(json!({}), &[("d", pod("db", far(term("web", "zone"))))], "a b c d");
}

#[test]
fn spread_allows_no_more_skew_than_it_says() {
    let web = || plain("web");
    check(spread("web", "zone", json!({})), &[], "a b c");
    check(spread("web", "zone", json!({})), &[("a", web())], "c");
    check(spread("web", "zone", json!({})), &[("a", web()), ("c", web())], "a b c");
    check(spread("web", "zone", json!({"maxSkew": 2})), &[("a", web())], "a b c");
    check(spread("web", "zone", json!({"minDomains": 3})), &[("a", web()), ("c", web())], "");
    check(spread("db", "zone", json!({})), &[("a", plain("db"))], "a b c");
    check(spread("db", "zone", json!({})), &[("a", plain("db")), ("b", plain("db"))], "c");
    check(spread("web", "zone", json!({})), &[("a", plain("other/web"))], "a b c");
    check(
        spread("web", "zone", json!({"whenUnsatisfiable": "ScheduleAnyway"})),
        &[("a", web())],
        "a b c d",
    );
    let mut leaving = web();
    leaving.is_leaving = true;
    check(spread("web", "zone", json!({})), &[("a", leaving)], "a b c");
    // Only nodes count that the pod may go to.
    let mut selected = spread("web", "zone", json!({}));
    selected["nodeSelector"] = json!({"host": "a"});
    let claim = pod("web", selected.clone());
    let there = [("a", web()), ("a", web())];
    assert!(
        relate(&claim, &nodes(), &there)
            .refusal(&Profile::default(), &claim, &nodes()[0])
            .is_none()
    );
    selected["topologySpreadConstraints"][0]["nodeAffinityPolicy"] = json!("Ignore");
    let claim = pod("web", selected);
    assert!(
        relate(&claim, &nodes(), &there)
            .refusal(&Profile::default(), &claim, &nodes()[0])
            .is_some()
    );
}

#[test]
fn refusals_are_worded_as_upstream_words_them() {
    let told = |spec: Value, there: &[(&str, Claim)]| {
        let (claim, nodes) = (pod("web", spec), nodes());
        match place(&Profile::default(), &claim, &relate(&claim, &nodes, there), &nodes, usize::MAX)
        {
            Placement::Node(name) => name,
            Placement::Nowhere(misfit) => {
                let text = misfit.to_string();
                text.split_once(" no new claims").unwrap().0.to_owned()
            }
        }
    };
    let everywhere = |of: Claim| ["a", "c", "d"].map(|name| (name, of.clone()));
    assert_eq!(
        told(near(term("db", "zone")), &[]),
        "0/4 nodes are available: 4 node(s) didn't match pod affinity rules."
    );
    let mut both = everywhere(plain("db")).to_vec();
    both.push(("b", plain("db")));
    assert_eq!(
        told(far(term("db", "host")), &both),
        "0/4 nodes are available: 4 node(s) didn't match pod anti-affinity rules."
    );
    let mut both = everywhere(pod("db", far(term("web", "host")))).to_vec();
    both.push(("b", pod("db", far(term("web", "host")))));
    assert_eq!(
        told(json!({}), &both),
        "0/4 nodes are available: 4 node(s) didn't satisfy existing pods anti-affinity rules."
    );
    assert_eq!(
        told(
            spread("web", "zone", json!({"minDomains": 5})),
            &[("a", plain("web")), ("c", plain("web"))]
        ),
        "0/4 nodes are available: 1 node(s) didn't match pod topology spread constraints (missing required label), 3 \
         node(s) didn't match pod topology spread constraints."
    );
}

#[test]
fn wishes_decide_between_nodes_that_fit() {
    let taken = |spec: Value, there: &[(&str, Claim)]| {
        let (claim, nodes) = (pod("web", spec), nodes());
        match place(&Profile::default(), &claim, &relate(&claim, &nodes, there), &nodes, usize::MAX)
        {
            Placement::Node(name) => name,
            Placement::Nowhere(misfit) => misfit.to_string(),
        }
    };
    let wish = |kind: &str, app: &str| {
        let wishes = json!([{"weight": 10, "podAffinityTerm": term(app, "host")}]);
        json!({"affinity": {kind: {"preferredDuringSchedulingIgnoredDuringExecution": wishes}}})
    };
    assert_eq!(taken(wish("podAffinity", "db"), &[("c", plain("db"))]), "c");
    assert_eq!(taken(wish("podAntiAffinity", "db"), &[("a", plain("db"))]), "b");
    // What others wish counts too, and what they need.
    assert_eq!(taken(json!({}), &[("b", pod("db", wish("podAffinity", "web")))]), "b");
    assert_eq!(taken(json!({}), &[("c", pod("db", near(term("web", "host"))))]), "c");
    let anyway = json!({"whenUnsatisfiable": "ScheduleAnyway"});
    assert_eq!(taken(spread("web", "zone", anyway), &[("a", plain("web"))]), "c");
}

proptest! {
    /// Against the rules in their most direct words.
    #[test]
    fn refusals_are_what_the_rules_say(
        there in prop::collection::vec((0..4usize, 0..2usize, 0..4u8), 0..8),
        own in 0..2usize,
        kind in 0..3u8,
        of in 0..2usize,
        by_zone in any::<bool>(),
        max_skew in 1..3i64,
    ) {
        let (apps, nodes) = (["web", "db"], nodes());
        let topology = if by_zone { "zone" } else { "host" };
        let spec = match kind {
            0 => near(term(apps[of], topology)),
            1 => far(term(apps[of], topology)),
            _ => spread(apps[of], topology, json!({"maxSkew": max_skew})),
        };
        let claim = pod(apps[own], spec);
        let pods: Vec<(&str, Claim)> = there.iter().map(|(at, app, says)| {
            let spec = if *says == 0 { far(term("web", "zone")) } else { json!({}) };
            (nodes[*at].name.as_str(), pod(apps[*app], spec))
        }).collect();
        let relations = relate(&claim, &nodes, &pods);
        let value = |at: usize, key: &str| nodes[at].labels.get(key);
        let count = |wanted: &String| there.iter()
            .filter(|(at, app, _)| *app == of && value(*at, topology) == Some(wanted)).count() as i64;
        for (at, node) in nodes.iter().enumerate() {
            let mine = value(at, topology);
            let has_near = mine.is_some_and(|mine| count(mine) > 0);
            let allows = match kind {
                0 => {
                    let is_first = own == of && (0..4).all(|at| value(at, topology).is_none_or(|value| count(value) == 0));
                    has_near || (mine.is_some() && is_first)
                }
                1 => !has_near,
                _ => mine.is_some_and(|mine| {
                    let least = (0..4).filter_map(|at| value(at, topology)).map(&count).min().unwrap();
                    count(mine) + i64::from(own == of) - least <= max_skew
                }),
            };
            let is_unwanted = own == 0 && there.iter()
                .any(|(other, _, says)| *says == 0 && value(at, "zone").is_some() && value(*other, "zone") == value(at, "zone"));
            prop_assert_eq!(relations.refusal(&Profile::default(), &claim, node).is_none(), allows && !is_unwanted, "{}", node.name);
        }
        // What is counted in and out again leaves no trace.
        let mut after = relations.clone();
        for by in [-1, 1] {
            for (at, other) in &pods {
                let node = nodes.iter().find(|node| node.name == *at).unwrap();
                after.count(&claim, node, other, &namespaces(), by);
            }
        }
        for node in &nodes {
            prop_assert_eq!(after.refusal(&Profile::default(), &claim, node), relations.refusal(&Profile::default(), &claim, node));
        }
    }
}
