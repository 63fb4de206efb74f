use super::*;

use proptest::prelude::*;
use serde_json::{Value, json};

fn node(value: Value) -> Node {
    let mut object = json!({"metadata": {"name": "node-0"}, "status": {"allocatable": {"cpu": "2", "memory": "4Gi", "pods": "10"}}});
    json_patch::merge(&mut object, &value);
    Node::of(&serde_json::from_value(object).unwrap())
}

fn claim(spec: Value) -> Claim {
    let mut spec = spec;
    if spec.get("containers").is_none() {
        spec["containers"] = json!([{"name": "c"}]);
    }
    Claim::of(&serde_json::from_value(json!({"spec": spec})).unwrap())
}

fn asks(cpu: &str, memory: &str) -> Value {
    json!({"containers": [{"name": "c", "resources": {"requests": {"cpu": cpu, "memory": memory}}}]})
}

/// Where a pod goes, or what its owner is told.
fn check(spec: Value, nodes: &[Node], expected: &str) {
    let placed =
        match place(&Profile::default(), &claim(spec), &Relations::default(), nodes, usize::MAX) {
            Placement::Node(name) => name,
            Placement::Nowhere(misfit) => misfit.to_string(),
        };
    assert_eq!(placed, expected);
}

const NO_VICTIMS: &str = "no new claims to deallocate, preemption: 0/1 nodes are available: 1 No preemption victims found for incoming pod.";
const NOT_HELPFUL: &str = "no new claims to deallocate, preemption: 0/1 nodes are available: 1 Preemption is not helpful for scheduling.";

#[test]
fn a_pod_goes_where_it_fits() {
    check(json!({}), &[node(json!({}))], "node-0");
    check(asks("2", "4Gi"), &[node(json!({}))], "node-0");
}

#[test]
fn the_message_is_worded_as_upstream_words_it() {
    check(json!({}), &[], "no nodes available to schedule pods");
    let mut busy = node(json!({}));
    busy.add(&claim(asks("1500m", "1Gi")));
    let message = format!("0/1 nodes are available: 1 Insufficient cpu. {NO_VICTIMS}");
    check(asks("1", "1Gi"), &[busy.clone()], &message);
    let message = format!(
        "0/1 nodes are available: 1 Insufficient cpu, 1 Insufficient memory. {NOT_HELPFUL}"
    );
    check(asks("3", "8Gi"), &[busy], &message);
    let message = format!("0/1 nodes are available: 1 node(s) were unschedulable. {NOT_HELPFUL}");
    check(json!({}), &[node(json!({"spec": {"unschedulable": true}}))], &message);
    let tainted =
        node(json!({"spec": {"taints": [{"key": "k", "value": "v", "effect": "NoSchedule"}]}}));
    let message =
        format!("0/1 nodes are available: 1 node(s) had untolerated taint(s). {NOT_HELPFUL}");
    check(json!({}), &[tainted], &message);
    let message = format!(
        "0/1 nodes are available: 1 node(s) didn't match Pod's node affinity/selector. {NOT_HELPFUL}"
    );
    check(json!({"nodeSelector": {"disk": "ssd"}}), &[node(json!({}))], &message);
    let message = format!("0/1 nodes are available: 1 Too many pods. {NO_VICTIMS}");
    check(json!({}), &[node(json!({"status": {"allocatable": {"pods": "0"}}}))], &message);
    let wants =
        json!({"containers": [{"name": "c", "resources": {"requests": {"example.com/gpu": "1"}}}]});
    let message = format!("0/1 nodes are available: 1 Insufficient example.com/gpu. {NOT_HELPFUL}");
    check(wants, &[node(json!({}))], &message);
}

#[test]
fn different_reasons_are_counted_and_sorted() {
    let cordoned = node(json!({"metadata": {"name": "a"}, "spec": {"unschedulable": true}}));
    let mut full = node(json!({"metadata": {"name": "b"}}));
    full.add(&claim(asks("2", "1Gi")));
    let mut full_too = node(json!({"metadata": {"name": "c"}}));
    full_too.add(&claim(asks("2", "1Gi")));
    let nodes = [cordoned, full, full_too];
    check(
        asks("1", "1Gi"),
        &nodes,
        "0/3 nodes are available: 1 node(s) were unschedulable, 2 Insufficient cpu. no new claims to deallocate, preemption: 0/3 nodes are \
         available: 1 Preemption is not helpful for scheduling, 2 No preemption victims found for incoming pod.",
    );
    let mut never = asks("1", "1Gi");
    never["preemptionPolicy"] = json!("Never");
    check(
        never,
        &nodes,
        "0/3 nodes are available: 1 node(s) were unschedulable, 2 Insufficient cpu. no new claims to deallocate, preemption: not eligible due to \
         preemptionPolicy=Never.",
    );
}

#[test]
fn tolerations_open_cordoned_and_tainted_nodes() {
    let cordoned = node(
        json!({"spec": {"unschedulable": true, "taints": [{"key": UNSCHEDULABLE, "effect": "NoSchedule"}]}}),
    );
    let tolerant = json!({"tolerations": [{"key": UNSCHEDULABLE, "operator": "Exists", "effect": "NoSchedule"}]});
    check(tolerant, &[cordoned], "node-0");
}

#[test]
fn host_ports_are_taken_once() {
    let wants = |port: u16| json!({"containers": [{"name": "c", "ports": [{"containerPort": 1, "hostPort": port}]}]});
    let mut taken = node(json!({}));
    taken.add(&claim(wants(80)));
    let message = format!(
        "0/1 nodes are available: 1 node(s) didn't have free ports for the requested pod ports. {NO_VICTIMS}"
    );
    check(wants(80), &[taken.clone()], &message);
    check(wants(81), &[taken.clone()], "node-0");
    taken.remove(&claim(wants(80)));
    check(wants(80), &[taken], "node-0");
}

#[test]
fn of_fitting_nodes_the_best_is_taken() {
    let named = |name: &str, more: Value| {
        let mut value = json!({"metadata": {"name": name}});
        json_patch::merge(&mut value, &more);
        node(value)
    };
    // The emptier one; of equals the first.
    let mut used = named("a", json!({}));
    used.add(&claim(asks("1", "2Gi")));
    check(json!({}), &[used.clone(), named("b", json!({}))], "b");
    check(json!({}), &[named("b", json!({})), named("a", json!({}))], "a");
    // A preference counts for more than room.
    let preferring = json!({"affinity": {"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [
        {"weight": 1, "preference": {"matchExpressions": [{"key": "disk", "operator": "Exists"}]}}]}}});
    let labelled = {
        let mut node = named("a", json!({"metadata": {"labels": {"disk": "ssd"}}}));
        node.add(&claim(asks("1", "2Gi")));
        node
    };
    check(preferring, &[labelled, named("b", json!({}))], "a");
    // A node that would rather not is the last choice.
    let shy = named("a", json!({"spec": {"taints": [{"key": "k", "effect": "PreferNoSchedule"}]}}));
    check(json!({}), &[shy.clone(), used.clone()], "a");
    let mut other = used;
    other.name = "c".to_owned();
    check(json!({}), &[shy.clone(), other], "c");
    check(json!({}), &[shy], "a");
}

#[test]
fn required_affinity_is_one_of_its_terms() {
    let spec = json!({"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [
        {"matchExpressions": [{"key": "zone", "operator": "In", "values": ["x"]}]},
        {"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["b"]}]}]}}}});
    let in_zone = node(json!({"metadata": {"name": "a", "labels": {"zone": "x"}}}));
    let named = node(json!({"metadata": {"name": "b"}}));
    let neither = node(json!({"metadata": {"name": "c"}}));
    check(spec.clone(), &[in_zone, neither.clone()], "a");
    check(spec.clone(), &[named, neither.clone()], "b");
    let message = format!(
        "0/1 nodes are available: 1 node(s) didn't match Pod's node affinity/selector. {NOT_HELPFUL}"
    );
    check(spec, &[neither], &message);
}

/// A node and a pod in the fewest words, and whether they fit, in the most direct ones.
#[derive(Debug, Clone)]
struct SimpleNode {
    milli_cpu: i64,
    pods: Vec<SimplePod>,
    most_pods: usize,
    zone: Option<u8>,
    taint: Option<u8>,
    is_cordoned: bool,
}

#[derive(Debug, Clone)]
struct SimplePod {
    milli_cpu: i64,
    zone: Option<u8>,
    tolerates: Option<u8>,
    port: Option<u16>,
}

fn simple_fits(pod: &SimplePod, node: &SimpleNode) -> bool {
    let used: i64 = node.pods.iter().map(|pod| pod.milli_cpu).sum();
    let has_cpu = pod.milli_cpu == 0 || used + pod.milli_cpu <= node.milli_cpu;
    let has_place = node.pods.len() < node.most_pods;
    let has_port = pod.port.is_none() || node.pods.iter().all(|other| other.port != pod.port);
    let is_in_zone = pod.zone.is_none() || pod.zone == node.zone;
    let is_welcome = node.taint.is_none() || node.taint == pod.tolerates;
    has_cpu && has_place && has_port && is_in_zone && is_welcome && !node.is_cordoned
}

fn simple_claim(pod: &SimplePod) -> Claim {
    let ports: Vec<_> =
        pod.port.iter().map(|port| json!({"containerPort": 1, "hostPort": port})).collect();
    let mut container = json!({"name": "c", "ports": ports});
    if pod.milli_cpu > 0 {
        container["resources"] = json!({"requests": {"cpu": format!("{}m", pod.milli_cpu)}});
    }
    let mut spec = json!({"containers": [container]});
    if let Some(zone) = pod.zone {
        spec["nodeSelector"] = json!({"zone": zone.to_string()});
    }
    if let Some(key) = pod.tolerates {
        spec["tolerations"] = json!([{"key": key.to_string(), "operator": "Exists"}]);
    }
    claim(spec)
}

fn real_node(index: usize, simple: &SimpleNode) -> Node {
    let mut value = json!({
        "metadata": {"name": format!("node-{index}")},
        "spec": {"unschedulable": simple.is_cordoned},
        "status": {"allocatable": {"cpu": format!("{}m", simple.milli_cpu), "memory": "100Gi", "pods": simple.most_pods.to_string()}},
    });
    if let Some(zone) = simple.zone {
        value["metadata"]["labels"] = json!({"zone": zone.to_string()});
    }
    if let Some(key) = simple.taint {
        value["spec"]["taints"] = json!([{"key": key.to_string(), "effect": "NoSchedule"}]);
    }
    let mut node = node(value);
    simple.pods.iter().for_each(|pod| node.add(&simple_claim(pod)));
    node
}

prop_compose! {
    fn simple_pod()(
        milli_cpu in prop_oneof![Just(0), Just(500), Just(1000), 0..2000i64],
        zone in prop::option::weighted(0.3, 0..2u8),
        tolerates in prop::option::weighted(0.3, 0..2u8),
        port in prop::option::weighted(0.3, 80..82u16),
    ) -> SimplePod {
        SimplePod { milli_cpu, zone, tolerates, port }
    }
}

prop_compose! {
    fn simple_node()(
        milli_cpu in prop_oneof![Just(1000), 0..4000i64],
        pods in prop::collection::vec(simple_pod(), 0..4),
        most_pods in 1..6usize,
        zone in prop::option::of(0..2u8),
        taint in prop::option::weighted(0.3, 0..2u8),
        is_cordoned in prop::bool::weighted(0.1),
    ) -> SimpleNode {
        SimpleNode { milli_cpu, pods, most_pods, zone, taint, is_cordoned }
    }
}

proptest! {
    #[test]
    fn a_pod_is_placed_if_and_only_if_a_node_takes_it(
        pod in simple_pod(),
        nodes in prop::collection::vec(simple_node(), 0..6),
    ) {
        let real: Vec<_> = nodes.iter().enumerate().map(|(index, node)| real_node(index, node)).collect();
        let fitting: Vec<_> = (0..nodes.len()).filter(|index| simple_fits(&pod, &nodes[*index])).collect();
        let claim = simple_claim(&pod);
        match place(&Profile::default(), &claim, &Relations::default(), &real, usize::MAX) {
            Placement::Node(name) => {
                let index = real.iter().position(|node| node.name == name).unwrap();
                prop_assert!(fitting.contains(&index), "{name} does not fit");
                let candidates: Vec<_> = fitting.iter().map(|index| &real[*index]).collect();
                let scores = score::total(&Profile::default(), &claim, &Relations::default(), &candidates);
                let own = scores[fitting.iter().position(|fit| *fit == index).unwrap()];
                prop_assert!(scores.iter().all(|score| *score <= own), "a better node was passed over");
            }
            Placement::Nowhere(misfit) => {
                prop_assert_eq!(fitting, Vec::<usize>::new());
                prop_assert_eq!(misfit.nodes, nodes.len());
            }
        }
    }

    #[test]
    fn what_is_added_and_removed_leaves_no_load(node in simple_node(), pods in prop::collection::vec(simple_pod(), 0..6)) {
        let before = real_node(0, &node);
        let mut after = before.clone();
        let claims: Vec<_> = pods.iter().map(simple_claim).collect();
        claims.iter().for_each(|claim| after.add(claim));
        claims.iter().rev().for_each(|claim| after.remove(claim));
        let sorted = |mut node: Node| {
            node.load.host_ports.sort();
            node
        };
        prop_assert_eq!(sorted(after), sorted(before));
    }
}
