use super::*;

use serde_json::{Value, json};

fn node(name: &str) -> Node {
    let value = json!({"metadata": {"name": name, "labels": {"host": name}}});
    Node::of(&serde_json::from_value(value).unwrap())
}

fn on_host(name: &str) -> Value {
    json!({"required": {"nodeSelectorTerms": [
        {"matchExpressions": [{"key": "host", "operator": "In", "values": [name]}]}]}})
}

/// One late and one immediate class, one by hand, and a volume of each kind.
fn known() -> Volumes {
    let mut known = Volumes::default();
    let late = "WaitForFirstConsumer";
    for (name, mode, provisioner) in [
        ("late", late, "example.com/path"),
        ("now", "Immediate", "example.com/path"),
        ("by-hand", late, NO_PROVISIONER),
    ] {
        let class = json!({"metadata": {"name": name}, "volumeBindingMode": mode,
            "provisioner": provisioner});
        assert!(known.class_applied(&serde_json::from_value(class).unwrap()));
    }
    for (name, phase) in [("taken", "Bound"), ("free", "Available")] {
        let volume = json!({"metadata": {"name": name}, "status": {"phase": phase},
            "spec": {"storageClassName": "by-hand", "nodeAffinity": on_host("a")}});
        assert!(known.volume_applied(&serde_json::from_value(volume).unwrap()));
    }
    known
}

/// Which of the nodes `a` and `b` takes a pod with this claim, or what its owner is told.
fn check(claim: Value, expected: &str) {
    let mut known = known();
    let mut object = json!({"metadata": {"name": "data", "namespace": "default"}});
    json_patch::merge(&mut object, &claim);
    let object = serde_json::from_value(object).unwrap();
    assert!(known.claim_applied(&object));
    assert!(!known.claim_applied(&object), "nothing changed");
    told(&known, "data", expected);
}

fn told(known: &Volumes, claim: &str, expected: &str) {
    let spec = json!({"containers": [], "volumes": [
        {"name": "v", "persistentVolumeClaim": {"claimName": claim}}, {"name": "e", "emptyDir": {}}]});
    let mounts = Mount::all_of(&serde_json::from_value(spec).unwrap(), "pod");
    let demand = known.demand("default", &mounts);
    let nodes = ["a", "b"].map(node);
    let taking = nodes.iter().filter(|node| demand.refusal(node).is_none());
    let taking: Vec<_> = taking.map(|node| node.name.as_str()).collect();
    let told = match taking.is_empty() {
        true => demand.refusal(&nodes[1]).unwrap().reasons[0].to_string(),
        false => taking.join(" "),
    };
    assert_eq!(told, expected);
}

fn bound_to(volume: &str) -> Value {
    json!({"metadata": {"annotations": {BIND_COMPLETED: "yes"}}, "spec": {"volumeName": volume}})
}

#[test]
fn claims_allow_the_nodes_that_reach_their_volumes() {
    check(bound_to("taken"), "a");
    check(
        bound_to("lost"),
        "node(s) unavailable due to one or more pvc(s) bound to non-existent pv(s)",
    );
    check(json!({"spec": {"storageClassName": "late"}}), "a b");
    check(json!({"spec": {"storageClassName": "by-hand"}}), "a");
    let unbound = "pod has unbound immediate PersistentVolumeClaims";
    check(json!({"spec": {"storageClassName": "now"}}), unbound);
    check(json!({"spec": {"storageClassName": "absent"}}), unbound);
    check(json!({}), unbound);
    check(json!({"spec": {"storageClassName": "late", "volumeName": "taken"}}), unbound);
    let selected = json!({"metadata": {"annotations": {SELECTED_NODE: "b"}}});
    let mut claim = json!({"spec": {"storageClassName": "late"}});
    json_patch::merge(&mut claim, &selected);
    check(claim, "b");
    let leaving = json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}});
    check(leaving, "persistentvolumeclaim \"data\" is being deleted");
    told(&known(), "data", "persistentvolumeclaim \"data\" not found");
}

#[test]
fn claims_are_told_their_node_once() {
    let mut known = known();
    let claim = json!({"metadata": {"name": "data", "namespace": "default"},
        "spec": {"storageClassName": "late"}});
    known.claim_applied(&serde_json::from_value(claim).unwrap());
    let mounts = [Mount { claim: "data".to_owned(), is_ephemeral: false }];
    assert_eq!(known.demand("default", &mounts).undecided, ["data"]);
    known.select("default", "data", "b");
    assert!(known.demand("default", &mounts).undecided.is_empty());
    told(&known, "data", "b");
}

#[test]
fn a_class_may_let_volumes_be_made_for_some_nodes_only() {
    let mut known = known();
    let class = json!({"metadata": {"name": "here"}, "volumeBindingMode": "WaitForFirstConsumer",
        "provisioner": "example.com/path",
        "allowedTopologies": [{"matchLabelExpressions": [{"key": "host", "values": ["b", "c"]}]}]});
    assert!(known.class_applied(&serde_json::from_value(class).unwrap()));
    let claim = json!({"metadata": {"name": "data", "namespace": "default"},
        "spec": {"storageClassName": "here"}});
    assert!(known.claim_applied(&serde_json::from_value(claim).unwrap()));
    told(&known, "data", "b");
}
