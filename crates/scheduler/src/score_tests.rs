use super::*;

use serde_json::{Value, json};

use crate::profile::Strategy;

fn node(name: &str, more: &Value) -> Node {
    let mut value = json!({"metadata": {"name": name}, "status": {"allocatable": {"cpu": "4", "memory": "8Gi", "pods": "10"}}});
    json_patch::merge(&mut value, more);
    Node::of(&serde_json::from_value(value).unwrap())
}

fn asks(requests: &Value) -> Claim {
    let container = json!({"name": "c", "image": "web", "resources": {"requests": requests}});
    Claim::of(&serde_json::from_value(json!({"spec": {"containers": [container]}})).unwrap())
}

fn used(node: &Node, requests: &Value) -> Node {
    let mut node = node.clone();
    node.add(&asks(requests));
    node
}

/// Upstream's table for its default strategy and for packing: the part that is free, or used, of each resource.
#[test]
fn a_nodes_use_counts_as_the_profile_says() {
    let packing = Profile {
        strategy: Strategy { preference: Preference::MostAllocated, ..Profile::default().strategy },
        ..Profile::default()
    };
    let empty = node("a", &json!({}));
    let half = used(&empty, &json!({"cpu": "2", "memory": "4Gi"}));
    let cases = [
        (&empty, json!({"cpu": "1", "memory": "2Gi"}), 75, 25),
        (&half, json!({"cpu": "1", "memory": "2Gi"}), 25, 75),
        (&half, json!({"cpu": "2", "memory": "0"}), 25, 75),
        // What asks for nothing counts as a little: a tenth of a core and 200 MiB.
        (&empty, json!({}), 97, 2),
        // More than there is.
        (&half, json!({"cpu": "3", "memory": "5Gi"}), 0, 100),
    ];
    for (node, requests, least, most) in cases {
        let claim = asks(&requests);
        assert_eq!(usage(&Profile::default(), &claim, node), least, "least: {requests}");
        assert_eq!(usage(&packing, &claim, node), most, "most: {requests}");
    }
}

#[test]
fn a_use_is_scored_on_the_line_between_points() {
    let points = [(0, 0), (50, 100), (100, 20)];
    let cases = [(0, 0), (25, 50), (50, 100), (75, 60), (100, 20)];
    for (used, score) in cases {
        assert_eq!(by_use(&points, used), score, "{used} %");
    }
}

#[test]
fn even_use_is_better_unless_the_pod_asks_for_nothing() {
    let by = Profile::default();
    let empty = node("a", &json!({}));
    let cases = [
        (json!({"cpu": "1", "memory": "2Gi"}), 100),
        (json!({"cpu": "2", "memory": "0"}), 75),
        (json!({"cpu": "4", "memory": "0"}), 50),
        (json!({"cpu": "9", "memory": "0"}), 50),
    ];
    for (requests, score) in cases {
        assert_eq!(balance(&by, &asks(&requests), &empty), score, "{requests}");
    }
    // A resource that the node does not have is not used unevenly.
    let without = node("a", &json!({"status": {"allocatable": {"memory": null}}}));
    assert_eq!(balance(&by, &asks(&json!({"cpu": "2"})), &without), 100);
    let lopsided = used(&empty, &json!({"cpu": "4", "memory": "0"}));
    let totals = |claim: &Claim| {
        let only = Profile {
            weights: [(Plugin::NodeResourcesBalancedAllocation, 1)].into(),
            ..Profile::default()
        };
        total(&only, claim, &Relations::default(), &[&empty, &lopsided])
    };
    assert_eq!(totals(&asks(&json!({"memory": "1Gi"}))), [93, 56]);
    assert_eq!(totals(&asks(&json!({}))), [0, 0]);
}

#[test]
fn images_count_by_their_size_and_by_how_many_nodes_have_them() {
    let image =
        |size: i64| json!({"status": {"images": [{"names": ["web:latest"], "sizeBytes": size}]}});
    let mebibytes = |size: i64| image(size * 1024 * 1024);
    let claim = asks(&json!({}));
    assert_eq!(claim.images, ["web:latest"]);
    let cases = [(10, 1.0, 0), (1000, 1.0, 100), (5000, 1.0, 100), (1000, 0.5, 48), (512, 1.0, 50)];
    for (size, part, score) in cases {
        let node = node("a", &mebibytes(size));
        assert_eq!(images(&claim, &[part], &node), score, "{size} MiB on {part}");
    }
    assert_eq!(images(&claim, &[1.0], &node("b", &json!({}))), 0);
}
