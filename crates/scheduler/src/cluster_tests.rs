use super::*;

use proptest::prelude::*;
use proptest::sample::Index;
use serde_json::{Value, json};

use crate::owners::ReplicaSetSelector;

fn node(name: &str, cpu: &str) -> ApiNode {
    let value = json!({"metadata": {"name": name}, "status": {"allocatable": {"cpu": cpu, "memory": "8Gi", "pods": "100"}}});
    serde_json::from_value(value).unwrap()
}

fn pod_with(name: &str, cpu: &str, more: Value) -> Arc<Pod> {
    let mut value = json!({
        "metadata": {"name": name, "namespace": "default", "uid": name},
        "spec": {"containers": [{"name": "c", "resources": {"requests": {"cpu": cpu}}}]},
    });
    json_patch::merge(&mut value, &more);
    Arc::new(serde_json::from_value(value).unwrap())
}

fn pod(name: &str, cpu: &str) -> Arc<Pod> {
    pod_with(name, cpu, json!({}))
}

fn on(name: &str, cpu: &str, node: &str) -> Arc<Pod> {
    pod_with(name, cpu, json!({"spec": {"nodeName": node}}))
}

/// Lets the scheduler decide all it can: `pod -> node`, `pod: reason`.
fn decisions(cluster: &mut Cluster, now: Instant) -> Vec<String> {
    let mut decisions = Vec::new();
    while let Some(Decision { uid, act, nominated, .. }) = cluster.next(now) {
        decisions.push(match act {
            Act::Bind(node) => format!("{uid} -> {node}"),
            Act::ReportMisfit(_) => format!("{uid} waits"),
            Act::Preempt(_, victims) => {
                let victims: Vec<_> =
                    victims.iter().filter_map(|pod| pod.metadata.name.clone()).collect();
                format!("{uid} preempts {} on {}", victims.join(" "), nominated.unwrap())
            }
            Act::ReportGates => format!("{uid} is gated"),
        });
    }
    decisions
}

struct Story {
    cluster: Cluster,
    now: Instant,
}

impl Story {
    fn new() -> Story {
        Story { cluster: Cluster::new([Profile::default()]), now: Instant::now() }
    }

    fn check(&mut self, expected: &[&str]) {
        assert_eq!(decisions(&mut self.cluster, self.now), expected);
    }
}

#[test]
fn decisions_count_before_the_api_knows() {
    let mut story = Story::new();
    story.cluster.node_applied(&node("n", "2"));
    for name in ["a", "b", "c"] {
        story.cluster.pod_applied(&pod(name, "1"));
    }
    story.check(&["a -> n", "b -> n", "c waits"]);
    // The watch confirms; nothing is counted twice.
    story.cluster.pod_applied(&on("a", "1", "n"));
    story.cluster.pod_applied(&on("b", "1", "n"));
    story.check(&[]);
    story.cluster.pod_deleted(&on("a", "1", "n"));
    story.check(&["c -> n"]);
}

#[test]
fn priority_comes_first_then_age() {
    let mut story = Story::new();
    for (name, priority) in [("a", 0), ("b", 10), ("c", 10), ("d", 100)] {
        story.cluster.pod_applied(&pod_with(name, "1", json!({"spec": {"priority": priority}})));
    }
    story.check(&["d waits", "b waits", "c waits", "a waits"]);
    story.cluster.node_applied(&node("n", "3"));
    story.check(&["d -> n", "b -> n", "c -> n"]);
}

#[test]
fn only_relevant_changes_wake_a_pod() {
    let mut story = Story::new();
    story.cluster.node_applied(&node("n", "1"));
    story.cluster.pod_applied(&pod("big", "2"));
    story.check(&["big waits"]);
    // A heartbeat, another pod's end, a node that is too small, our own report: nothing that helps.
    story.cluster.node_applied(&node("n", "1"));
    story.cluster.pod_applied(&on("other", "1", "n"));
    story.cluster.pod_deleted(&on("other", "1", "n"));
    story.cluster.node_applied(&node("small", "1500m"));
    story.cluster.pod_applied(&pod_with("big", "2", json!({"status": {"conditions": []}})));
    story.check(&[]);
    story.cluster.node_applied(&node("n", "2"));
    story.check(&["big -> n"]);
}

#[test]
fn a_finished_pod_gives_its_place_back() {
    let mut story = Story::new();
    story.cluster.node_applied(&node("n", "1"));
    story.cluster.pod_applied(&on("a", "1", "n"));
    story.cluster.pod_applied(&pod("b", "1"));
    story.check(&["b waits"]);
    let finished = json!({"spec": {"nodeName": "n"}, "status": {"phase": "Succeeded"}});
    story.cluster.pod_applied(&pod_with("a", "1", finished));
    story.check(&["b -> n"]);
}

#[test]
fn one_free_place_wakes_one_pod() {
    let mut story = Story::new();
    story.cluster.node_applied(&node("n", "1"));
    story.cluster.pod_applied(&on("first", "1", "n"));
    for index in 0..100 {
        story.cluster.pod_applied(&pod(&format!("pod-{index}"), "1"));
    }
    assert_eq!(decisions(&mut story.cluster, story.now).len(), 100);
    story.cluster.pod_deleted(&on("first", "1", "n"));
    story.check(&["pod-0 -> n"]);
}

#[test]
fn a_failed_binding_is_tried_again_after_a_while() {
    let mut story = Story::new();
    story.cluster.node_applied(&node("n", "1"));
    story.cluster.pod_applied(&pod("a", "1"));
    story.check(&["a -> n"]);
    for seconds in [1, 2, 4, 8, 10, 10] {
        story.cluster.bind_failed("a", story.now);
        story.check(&[]);
        assert_eq!(story.cluster.deadline(), Some(story.now + Duration::from_secs(seconds)));
        story.now += Duration::from_secs(seconds);
        story.check(&["a -> n"]);
    }
    // The watch says that it was bound after all.
    story.cluster.pod_applied(&on("a", "1", "n"));
    story.cluster.bind_failed("a", story.now);
    assert_eq!(story.cluster.deadline(), None);
    story.cluster.pod_applied(&pod("b", "1"));
    story.check(&["b waits"]);
}

#[test]
fn a_pod_deleted_while_it_is_bound_is_not_tried_again() {
    let mut story = Story::new();
    story.cluster.node_applied(&node("n", "1"));
    story.cluster.pod_applied(&pod("a", "1"));
    story.cluster.pod_applied(&pod("b", "1"));
    story.check(&["a -> n", "b waits"]);
    let deleted = json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}});
    story.cluster.pod_applied(&pod_with("a", "1", deleted));
    story.check(&[]);
    story.cluster.bind_failed("a", story.now);
    story.check(&["b -> n"]);
    assert_eq!(story.cluster.deadline(), None);
}

#[test]
fn gates_hold_a_pod_back() {
    let mut story = Story::new();
    story.cluster.node_applied(&node("n", "1"));
    let gated = json!({"spec": {"schedulingGates": [{"name": "example.com/gate"}]}});
    story.cluster.pod_applied(&pod_with("a", "1", gated));
    story.check(&["a is gated"]);
    story.cluster.pod_applied(&pod("a", "1"));
    story.check(&["a -> n"]);
}

#[test]
fn other_schedulers_pods_and_deleted_pods_are_left_alone() {
    let mut story = Story::new();
    story.cluster.node_applied(&node("n", "1"));
    story.cluster.pod_applied(&pod_with("a", "1", json!({"spec": {"schedulerName": "other"}})));
    let deleted = json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}});
    story.cluster.pod_applied(&pod_with("b", "1", deleted));
    story.check(&[]);
    // They count all the same once they are on a node.
    story.cluster.pod_applied(&pod_with(
        "a",
        "1",
        json!({"spec": {"schedulerName": "other", "nodeName": "n"}}),
    ));
    story.cluster.pod_applied(&pod("c", "1"));
    story.check(&["c waits"]);
}

#[test]
fn pods_on_a_node_count_when_it_is_seen_later() {
    let mut story = Story::new();
    story.cluster.pod_applied(&on("a", "1", "n"));
    story.cluster.node_applied(&node("n", "1"));
    story.cluster.pod_applied(&pod("b", "1"));
    story.check(&["b waits"]);
    story.cluster.node_deleted("n");
    story.cluster.node_applied(&node("n", "2"));
    story.check(&["b -> n"]);
}

#[test]
fn a_changed_pod_is_tried_again() {
    let mut story = Story::new();
    story.cluster.node_applied(&node("n", "1"));
    story.cluster.pod_applied(&pod("a", "2"));
    story.check(&["a waits"]);
    story.cluster.pod_applied(&pod("a", "1"));
    story.check(&["a -> n"]);
}

fn of_priority(name: &str, cpu: &str, priority: i32) -> Arc<Pod> {
    pod_with(name, cpu, json!({"spec": {"priority": priority}}))
}

fn of_priority_on(name: &str, cpu: &str, priority: i32, node: &str) -> Arc<Pod> {
    pod_with(name, cpu, json!({"spec": {"priority": priority, "nodeName": node}}))
}

#[test]
fn a_more_important_pod_takes_the_place_of_others_once_they_are_gone() {
    let mut story = Story::new();
    story.cluster.node_applied(&node("n", "3"));
    for (name, priority) in [("a", 1), ("b", 0), ("c", 2)] {
        story.cluster.pod_applied(&of_priority_on(name, "1", priority, "n"));
    }
    story.cluster.pod_applied(&of_priority("high", "2", 9));
    story.check(&["high preempts a b on n"]);
    // What is freed is kept for it: nobody less important takes it meanwhile, and nobody tries in vain.
    story.cluster.pod_applied(&of_priority("low", "1", 0));
    story.check(&["low waits"]);
    story.cluster.pod_deleted(&of_priority_on("a", "1", 1, "n"));
    story.check(&[]);
    story.cluster.pod_deleted(&of_priority_on("b", "1", 0, "n"));
    story.check(&["high -> n"]);
}

#[test]
fn a_preemptor_takes_what_comes_free_elsewhere() {
    let mut story = Story::new();
    story.cluster.node_applied(&node("n", "1"));
    story.cluster.pod_applied(&of_priority_on("a", "1", 0, "n"));
    story.cluster.pod_applied(&of_priority("high", "1", 9));
    story.check(&["high preempts a on n"]);
    story.cluster.pod_applied(&pod("low", "1"));
    story.check(&["low waits"]);
    story.cluster.node_applied(&node("m", "1"));
    story.check(&["high -> m"]);
    story.cluster.pod_deleted(&of_priority_on("a", "1", 0, "n"));
    story.check(&["low -> n"]);
}

#[test]
fn a_preemptor_that_goes_away_leaves_the_place_to_others() {
    let mut story = Story::new();
    story.cluster.node_applied(&node("n", "1"));
    story.cluster.pod_applied(&of_priority_on("a", "1", 0, "n"));
    story.cluster.pod_applied(&of_priority("high", "1", 9));
    story.cluster.pod_applied(&pod("low", "1"));
    story.check(&["high preempts a on n", "low waits"]);
    story.cluster.pod_deleted(&of_priority_on("a", "1", 0, "n"));
    story.cluster.pod_deleted(&of_priority("high", "1", 9));
    story.check(&["low -> n"]);
}

#[test]
fn the_most_important_of_two_preemptors_comes_first() {
    let mut story = Story::new();
    story.cluster.node_applied(&node("n", "1"));
    story.cluster.pod_applied(&of_priority_on("a", "1", 0, "n"));
    story.cluster.pod_applied(&of_priority("high", "1", 5));
    story.check(&["high preempts a on n"]);
    // The same victim: it need not be told twice. The other's nomination is over.
    story.cluster.pod_applied(&of_priority("higher", "1", 9));
    story.check(&["higher preempts  on n", "high waits"]);
    story.cluster.pod_deleted(&of_priority_on("a", "1", 0, "n"));
    story.check(&["higher -> n"]);
}

/// A node in a zone.
fn node_in(name: &str, zone: &str) -> ApiNode {
    let mut node = node(name, "8");
    let labels = [("kubernetes.io/hostname", name), ("topology.kubernetes.io/zone", zone)];
    let labels = labels.map(|(key, value)| (key.to_owned(), value.to_owned()));
    node.metadata.labels = Some(labels.into());
    node
}

#[test]
fn the_pods_of_one_owner_are_spread_though_they_say_nothing() {
    // Node c is empty, and the others are half full: nothing but spread speaks for them.
    let place = |owners: &[Value], more: &Value| {
        let mut cluster = Cluster::new([Profile::default()]);
        for (name, zone) in [("a", "x"), ("b", "x"), ("c", "y")] {
            cluster.node_applied(&node_in(name, zone));
        }
        cluster.pod_applied(&on("large-a", "4", "a"));
        cluster.pod_applied(&on("large-b", "4", "b"));
        for owner in owners {
            match owner["kind"].as_str() {
                Some("Service") => {
                    let service = serde_json::from_value(owner.clone()).unwrap();
                    cluster.owners_changed(|owners| owners.service_applied(&service));
                }
                _ => {
                    let set: ReplicaSetSelector = serde_json::from_value(owner.clone()).unwrap();
                    cluster.owners_changed(|owners| owners.controller_applied(&set));
                }
            }
        }
        for number in 0..6 {
            cluster.pod_applied(&pod_with(&format!("pod-{number}"), "100m", more.clone()));
        }
        let mut taken: Vec<_> = decisions(&mut cluster, Instant::now())
            .iter()
            .filter_map(|decision| decision.split(" -> ").nth(1).map(str::to_owned))
            .collect();
        taken.sort();
        taken.join("")
    };
    let plain = json!({"metadata": {"labels": {"app": "web"}}});
    assert_eq!(place(&[], &plain), "cccccc");
    let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web", "namespace": "default"},
        "spec": {"selector": {"app": "web"}}});
    assert_eq!(place(std::slice::from_ref(&service), &plain), "aabccc");
    let set = json!({"apiVersion": "apps/v1", "kind": "ReplicaSet", "metadata": {"name": "web", "namespace": "default"},
        "spec": {"selector": {"matchLabels": {"app": "web"}}}});
    let mut owned = plain.clone();
    owned["metadata"]["ownerReferences"] = json!([{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web", "uid": "1", "controller": true}]);
    assert_eq!(place(std::slice::from_ref(&set), &owned), "aabccc");
    // Another's pods are none of their like.
    assert_eq!(place(&[set], &plain), "cccccc");
    // Who says how it is to be spread is not told otherwise.
    let mut outspoken = plain;
    outspoken["spec"]["topologySpreadConstraints"] = json!([{"topologyKey": "zone", "maxSkew": 1,
        "whenUnsatisfiable": "ScheduleAnyway", "labelSelector": {"matchLabels": {"app": "db"}}}]);
    assert_eq!(place(&[service], &outspoken), "cccccc");
}

#[test]
fn a_node_that_has_the_image_is_better() {
    let mut cluster = Cluster::new([Profile::default()]);
    let image = json!([{"names": ["c:latest"], "sizeBytes": 2_000_000_000u64}]);
    for name in ["a", "b"] {
        let mut node = node(name, "8");
        if name == "b" {
            let images = serde_json::from_value(image.clone()).unwrap();
            node.status.get_or_insert_default().images = Some(images);
        }
        cluster.node_applied(&node);
    }
    let named = |name: &str| {
        pod_with(name, "0", json!({"spec": {"containers": [{"name": "c", "image": "c"}]}}))
    };
    cluster.pod_applied(&named("first"));
    assert_eq!(decisions(&mut cluster, Instant::now()), ["first -> b"]);
    // Nobody has it any more.
    cluster.node_applied(&node("b", "8"));
    assert_eq!(cluster.images, HashMap::new());
    cluster.pod_applied(&named("second"));
    assert_eq!(decisions(&mut cluster, Instant::now()), ["second -> a"]);
}

#[test]
fn who_leaves_already_is_not_told_to() {
    let mut story = Story::new();
    story.cluster.node_applied(&node("a", "1"));
    let leaving = json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}, "spec": {"nodeName": "a"}});
    story.cluster.pod_applied(&pod_with("leaving", "1", leaving));
    story.cluster.pod_applied(&of_priority("high", "1", 9));
    story.check(&["high preempts  on a"]);
}

#[test]
fn a_failed_eviction_is_tried_again_after_a_while() {
    let mut story = Story::new();
    story.cluster.node_applied(&node("n", "1"));
    story.cluster.pod_applied(&of_priority_on("a", "1", 0, "n"));
    story.cluster.pod_applied(&of_priority("high", "1", 5));
    story.check(&["high preempts a on n"]);
    story.cluster.eviction_failed("a", "high", story.now);
    story.check(&[]);
    story.now += Duration::from_secs(1);
    story.check(&["high preempts a on n"]);
}

#[test]
fn nominations_outlive_the_scheduler() {
    let mut story = Story::new();
    story.cluster.node_applied(&node("n", "1"));
    let leaving = json!({
        "metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"},
        "spec": {"nodeName": "n"},
        "status": {"conditions": [
            {"type": "DisruptionTarget", "status": "True", "reason": "PreemptionByScheduler"}]},
    });
    story.cluster.pod_applied(&pod_with("a", "1", leaving));
    let nominated = json!({"spec": {"priority": 9}, "status": {"nominatedNodeName": "n"}});
    story.cluster.pod_applied(&pod_with("high", "1", nominated));
    story.cluster.pod_applied(&pod("low", "1"));
    story.check(&["high waits", "low waits"]);
    story.cluster.pod_deleted(&on("a", "1", "n"));
    story.check(&["high -> n"]);
}

/// Something that happens around the scheduler.
#[derive(Debug, Clone)]
enum Happening {
    Node {
        node: u8,
        cpu: u8,
        is_cordoned: bool,
    },
    NodeGone {
        node: u8,
    },
    Pod {
        cpu: u8,
        priority: i32,
        says: u8,
    },
    PodGone {
        pod: Index,
    },
    /// The scheduler gets to decide this often.
    Decide {
        times: u8,
    },
    /// The API answers a binding, well or not.
    Answer {
        pod: Index,
        is_bound: bool,
    },
}

fn happening() -> impl Strategy<Value = Happening> {
    prop_oneof![
        3 => (0..4u8, 0..6u8, prop::bool::weighted(0.2)).prop_map(|(node, cpu, is_cordoned)| Happening::Node { node, cpu, is_cordoned }),
        1 => (0..4u8).prop_map(|node| Happening::NodeGone { node }),
        8 => (1..5u8, 0..3i32, 0..12u8).prop_map(|(cpu, priority, says)| Happening::Pod { cpu, priority, says }),
        3 => any::<Index>().prop_map(|pod| Happening::PodGone { pod }),
        6 => (1..6u8).prop_map(|times| Happening::Decide { times }),
        4 => (any::<Index>(), prop::bool::weighted(0.8)).prop_map(|(pod, is_bound)| Happening::Answer { pod, is_bound }),
    ]
}

/// What a pod says about others, in a few ways.
fn about_others(says: u8) -> Value {
    let app = if says.is_multiple_of(2) { "a" } else { "b" };
    let topology = if says.is_multiple_of(4) { "zone" } else { "kubernetes.io/hostname" };
    let labels = json!({"matchLabels": {"app": app}});
    let term = json!({"requiredDuringSchedulingIgnoredDuringExecution": [
        {"topologyKey": topology, "labelSelector": labels}]});
    let spec = match says {
        0 | 1 => json!({"affinity": {"podAntiAffinity": term}}),
        2 | 3 => json!({"affinity": {"podAffinity": term}}),
        4 | 5 => json!({"topologySpreadConstraints": [{"topologyKey": topology, "maxSkew": 1,
            "whenUnsatisfiable": "DoNotSchedule", "labelSelector": labels}]}),
        _ => json!({}),
    };
    json!({"metadata": {"labels": {"app": app}}, "spec": spec})
}

/// What is true of the world: each pod's CPU and node.
#[derive(Default)]
struct World {
    pods: Vec<(String, u8, Value)>,
    binding: Vec<(String, String)>,
    created: usize,
}

impl World {
    fn decide(&mut self, cluster: &mut Cluster, now: Instant) -> bool {
        let Some(Decision { uid, act, .. }) = cluster.next(now) else { return false };
        match act {
            Act::Bind(node) => self.binding.push((uid, node)),
            Act::Preempt(_, victims) => victims.iter().for_each(|victim| {
                self.pods.retain(|(name, _, _)| Some(name) != victim.metadata.uid.as_ref());
                self.binding.retain(|(name, _)| Some(name) != victim.metadata.uid.as_ref());
                cluster.pod_deleted(victim);
            }),
            Act::ReportMisfit(_) | Act::ReportGates => (),
        }
        true
    }

    fn play(&mut self, cluster: &mut Cluster, now: &mut Instant, happening: &Happening) {
        match happening {
            Happening::Node { node: name, cpu, is_cordoned } => {
                let mut node = node(&format!("node-{name}"), &cpu.to_string());
                let host = ("kubernetes.io/hostname".to_owned(), name.to_string());
                let zone = ("zone".to_owned(), (name % 2).to_string());
                node.metadata.labels = Some([host, zone].into());
                node.spec.get_or_insert_default().unschedulable = Some(*is_cordoned);
                cluster.node_applied(&node);
            }
            Happening::NodeGone { node } => cluster.node_deleted(&format!("node-{node}")),
            Happening::Pod { cpu, priority, says } => {
                self.created += 1;
                let name = format!("pod-{}", self.created);
                let mut more = about_others(*says);
                more["spec"]["priority"] = json!(priority);
                cluster.pod_applied(&pod_with(&name, &cpu.to_string(), more.clone()));
                self.pods.push((name, *cpu, more));
            }
            Happening::PodGone { pod: index } if !self.pods.is_empty() => {
                let (name, cpu, _) = self.pods.remove(index.index(self.pods.len()));
                self.binding.retain(|(uid, _)| *uid != name);
                cluster.pod_deleted(&pod(&name, &cpu.to_string()));
            }
            Happening::Decide { times } => {
                for _ in 0..*times {
                    self.decide(cluster, *now);
                }
            }
            Happening::Answer { pod: index, is_bound } if !self.binding.is_empty() => {
                let (uid, node) = self.binding.remove(index.index(self.binding.len()));
                let (_, cpu, more) = self.pods.iter().find(|(name, _, _)| *name == uid).unwrap();
                let mut bound = more.clone();
                bound["spec"]["nodeName"] = json!(node);
                match is_bound {
                    true => cluster.pod_applied(&pod_with(&uid, &cpu.to_string(), bound)),
                    false => cluster.bind_failed(&uid, *now),
                }
            }
            Happening::PodGone { .. } | Happening::Answer { .. } => (),
        }
    }
}

proptest! {
    #[test]
    fn nobody_waits_for_a_place_that_is_free(happenings in prop::collection::vec(happening(), 1..80)) {
        let mut cluster = Cluster::new([Profile::default()]);
        let mut now = Instant::now();
        let mut world = World::default();
        for happening in &happenings {
            world.play(&mut cluster, &mut now, happening);
        }
        // Time passes, so that back-offs end, and the scheduler decides until nothing is left to decide.
        now += Duration::from_secs(60);
        while world.decide(&mut cluster, now) {}
        let parked: Vec<_> = cluster.queue.parked().map(|(uid, waiting)| (uid.clone(), waiting.clone())).collect();
        for (uid, waiting) in &parked {
            let by = Profile::default();
            let relations = cluster.relations(&by, &waiting.pod.claim);
            let mut nodes = cluster.nodes.values();
            let free = nodes.find(|node| fits(&by, &waiting.pod.claim, &relations, node));
            prop_assert!(free.is_none(), "{uid} waits though it fits {free:?}");
            prop_assert_eq!(cluster.nominations.of(uid), None, "{} waits for nobody", uid);
        }
        // What is remembered of the pods that are there is what they are.
        let claims: Vec<_> = parked.iter().map(|(_, waiting)| waiting.pod.claim.clone())
            .chain(cluster.placed.values().map(|placed| placed.pod.claim.clone())).collect();
        for claim in claims {
            let by = Profile::default();
            let fresh = cluster.count_neighbours(&by, &claim);
            let known = cluster.relations(&by, &claim).neighbours;
            for node in cluster.nodes.values() {
                prop_assert_eq!(known.refusal(&by, &claim, node), fresh.refusal(&by, &claim, node), "{}", node.name);
            }
            let nodes: Vec<_> = cluster.nodes.values().collect();
            prop_assert_eq!(known.evenness(&claim, &nodes), fresh.evenness(&claim, &nodes));
            prop_assert_eq!(known.attraction(&nodes), fresh.attraction(&nodes));
        }
        // Each node's load is that of its pods.
        for node in cluster.nodes.values() {
            let mut expected = Node { load: Default::default(), ..node.clone() };
            let there = cluster.placed.values().filter(|placed| placed.node == node.name);
            there.for_each(|placed| expected.add(&placed.pod.claim));
            prop_assert_eq!(&node.load, &expected.load);
        }
        // Every pod is accounted for.
        prop_assert!(world.pods.iter().all(|(uid, _, _)| cluster.placed.contains_key(uid) || cluster.queue.get(uid).is_some()));
        prop_assert_eq!(cluster.placed.len() + cluster.queue.parked().count(), world.pods.len());
    }
}
