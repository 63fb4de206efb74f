use super::*;

use proptest::prelude::*;
use serde_json::{Value, json};

fn node(name: &str, cpu: i64, pods: &[Arc<Pod>]) -> Node {
    let status = json!({"allocatable": {"cpu": cpu.to_string(), "memory": "64Gi", "pods": "110"}});
    let value = json!({"metadata": {"name": name}, "status": status});
    let mut node = Node::of(&serde_json::from_value(value).unwrap());
    pods.iter().for_each(|pod| node.add(&pod.claim));
    node
}

fn pod(name: &str, cpu: i64, priority: i32, more: Value) -> Arc<Pod> {
    let requests = json!({"requests": {"cpu": cpu.to_string()}});
    let mut value = json!({
        "metadata": {"name": name, "namespace": "default", "uid": name, "labels": {"app": name}},
        "spec": {"priority": priority, "containers": [{"name": "c", "resources": requests}]},
    });
    json_patch::merge(&mut value, &more);
    Arc::new(serde_json::from_value(value).unwrap())
}

fn started(name: &str, priority: i32, hour: u8) -> Arc<Pod> {
    let time = format!("2026-01-01T{hour:02}:00:00Z");
    pod(name, 1, priority, json!({"status": {"startTime": time}}))
}

fn budget(app: &str, allowed: i32) -> Budget {
    let value = json!({
        "metadata": {"name": app, "namespace": "default"},
        "spec": {"selector": {"matchLabels": {"app": app}}},
        "status": {"disruptionsAllowed": allowed, "currentHealthy": 0, "desiredHealthy": 0,
            "expectedPods": 0},
    });
    Budget::of(&serde_json::from_value(value).unwrap()).unwrap()
}

/// Nobody says anything about others.
fn alone() -> (&'static Relations, &'static Namespaces) {
    static ALONE: std::sync::LazyLock<(Relations, Namespaces)> =
        std::sync::LazyLock::new(Default::default);
    (&ALONE.0, &ALONE.1)
}

/// Who is evicted where for a pod that asks for this much CPU with this priority: `node: victims`, or why nobody is.
fn check(
    (cpu, priority): (i64, i32),
    nodes: &[(&str, i64, Vec<Arc<Pod>>)],
    budgets: &[Budget],
    expected: &str,
) {
    let real: Vec<_> = nodes.iter().map(|(name, cpu, pods)| node(name, *cpu, pods)).collect();
    let pods_on = |name: &str| {
        nodes.iter().find(|(node, _, _)| *node == name).map(|(_, _, pods)| pods.clone()).unwrap()
    };
    let claim = pod("preemptor", cpu, priority, json!({})).claim.clone();
    let told = match make_room(&Profile::default(), &claim, alone(), real.iter(), pods_on, budgets)
    {
        Ok(candidate) => {
            let names = candidate.victims.iter().map(|pod| pod.metadata.name.clone().unwrap());
            format!("{}: {}", candidate.node, names.collect::<Vec<_>>().join(" "))
        }
        Err(reasons) => format!("{reasons:?}"),
    };
    assert_eq!(told, expected);
}

#[test]
fn no_more_are_evicted_than_must_be() {
    let there = vec![started("a", 1, 1), started("b", 0, 1), started("c", 5, 1)];
    check((1, 9), &[("n", 3, there.clone())], &[], "n: b");
    check((2, 9), &[("n", 3, there.clone())], &[], "n: a b");
    check((3, 9), &[("n", 3, there.clone())], &[], "n: c a b");
    // Equals are not evicted.
    check((3, 5), &[("n", 3, there.clone())], &[], r#"{"Insufficient cpu": 1}"#);
    check((1, 0), &[("n", 3, there.clone())], &[], &format!("{{{NO_VICTIMS:?}: 1}}"));
    check((4, 9), &[("n", 3, there)], &[], &format!("{{{NOT_HELPFUL:?}: 1}}"));
}

#[test]
fn of_equals_the_younger_goes() {
    let there = vec![started("old", 0, 1), started("young", 0, 2), started("older", 0, 0)];
    check((1, 9), &[("n", 3, there)], &[], "n: young");
    let there = vec![pod("waiting", 1, 0, json!({})), started("running", 0, 2)];
    check((1, 9), &[("n", 2, there)], &[], "n: waiting");
}

#[test]
fn budgets_are_kept_where_that_is_possible() {
    let there = vec![started("a", 1, 1), started("b", 0, 1)];
    check((1, 9), &[("n", 2, there.clone())], &[budget("b", 0)], "n: a");
    check((1, 9), &[("n", 2, there.clone())], &[budget("b", 1)], "n: b");
    check((2, 9), &[("n", 2, there.clone())], &[budget("b", 0)], "n: a b");
    // Rather somebody important elsewhere.
    let nodes = [("m", 1, vec![started("b", 0, 1)]), ("n", 1, vec![started("a", 8, 1)])];
    check((1, 9), &nodes, &[budget("b", 0)], "n: a");
    check((1, 9), &nodes, &[], "m: b");
}

#[test]
fn the_node_is_taken_where_it_costs_least() {
    // The least important of the most important victims.
    let nodes = [("m", 2, vec![started("a", 3, 1)]), ("n", 2, vec![started("b", 2, 1)])];
    check((2, 9), &nodes, &[], "n: b");
    // The smallest sum of priorities, and with it the fewest.
    let two = vec![started("a", 2, 1), started("b", 0, 1)];
    let nodes = [("m", 2, two), ("n", 2, vec![started("c", 2, 1), started("d", -1, 1)])];
    check((2, 9), &nodes, &[], "n: c d");
    let two = vec![started("a", 2, 1), started("b", 2, 1)];
    let nodes = [("m", 2, two), ("n", 2, vec![started("c", 2, 1)])];
    check((2, 9), &nodes, &[], "n: c");
    // Who has run the shortest.
    let nodes = [("m", 1, vec![started("a", 2, 1)]), ("n", 1, vec![started("b", 2, 2)])];
    check((1, 9), &nodes, &[], "n: b");
    // The first.
    let nodes = [("m", 1, vec![started("a", 2, 1)]), ("n", 1, vec![started("b", 2, 1)])];
    check((1, 9), &nodes, &[], "m: a");
}

proptest! {
    #[test]
    fn room_is_made_if_and_only_if_less_important_pods_hold_it(
        cpu in 1..6i64,
        priority in 0..4i32,
        nodes in prop::collection::vec((1..6i64, prop::collection::vec((1..4i64, 0..4i32), 0..5)), 1..5),
    ) {
        let pods: Vec<Vec<Arc<Pod>>> = nodes.iter().enumerate().map(|(index, (_, pods))| {
            let pods = pods.iter().enumerate();
            pods.map(|(place, (cpu, priority))| pod(&format!("pod-{index}-{place}"), *cpu, *priority, json!({}))).collect()
        }).collect();
        let real: Vec<_> = nodes.iter().enumerate()
            .map(|(index, (cpu, _))| node(&index.to_string(), *cpu, &pods[index])).collect();
        let claim = pod("preemptor", cpu, priority, json!({})).claim.clone();
        let free = |index: usize, counts: &dyn Fn(&str, i32) -> bool| {
            let used = pods[index].iter().filter(|pod| counts(pod.metadata.name.as_deref().unwrap(), pod.claim.priority));
            nodes[index].0 - used.map(|pod| pod.claim.requests.milli_cpu / 1000).sum::<i64>()
        };
        let helps = |index: usize| {
            pods[index].iter().any(|pod| pod.claim.priority < priority)
                && free(index, &|_, of| of >= priority) >= cpu
                && free(index, &|_, _| true) < cpu
        };
        let any = (0..nodes.len()).any(helps);
        match make_room(&Profile::default(), &claim, alone(), real.iter(), |name| pods[name.parse::<usize>().unwrap()].clone(), &[]) {
            Ok(candidate) => {
                let index: usize = candidate.node.parse().unwrap();
                prop_assert!(helps(index));
                let names: Vec<_> = candidate.victims.iter().map(|pod| pod.metadata.name.clone().unwrap()).collect();
                let victims = |name: &str| names.iter().any(|victim| victim == name);
                prop_assert!(candidate.victims.iter().all(|victim| victim.claim.priority < priority));
                prop_assert!(free(index, &|name, _| !victims(name)) >= cpu, "the pod fits afterwards");
                for spared in &names {
                    let without = |name: &str| victims(name) && name != spared;
                    prop_assert!(free(index, &|name, _| !without(name)) < cpu, "{spared} is evicted in vain");
                }
            }
            Err(_) => prop_assert!(!any, "room could be made"),
        }
    }
}
