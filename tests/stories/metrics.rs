//! What pods use is seen, and acted upon.

use coracle_tests::{Cluster, guests};

/// A Deployment whose pods compute for ever, as much as they may.
const SPINS: &str = "apiVersion: apps/v1
kind: Deployment
metadata: {name: spins}
spec:
  selector: {matchLabels: {app: spins}}
  template:
    metadata: {labels: {app: spins}}
    spec:
      terminationGracePeriodSeconds: 0
      containers:
      - {name: c, image: spins.wasm, resources: {requests: {cpu: 50m, memory: 16Mi}, limits: {cpu: 100m}}}
";

/// The thousandths of a core in a row of `kubectl top`.
fn milli_cores(row: &str) -> u32 {
    let cell = row.split_whitespace().find_map(|cell| cell.strip_suffix('m'));
    cell.and_then(|cell| cell.parse().ok()).unwrap_or_else(|| panic!("no amount in {row:?}"))
}

fn spinning() -> Cluster {
    let cluster = Cluster::start();
    cluster.import_text(guests::SPINS, "spins.wasm");
    cluster.apply(SPINS);
    cluster.kubectl(&["rollout", "status", "deployment/spins", "--timeout=60s"]);
    cluster
}

#[test]
fn top_shows_what_pods_and_nodes_use() {
    let cluster = spinning();
    // Half of what it may use, at least: this machine has other tests to run.
    let rows = cluster.kubectl(&["top", "pods", "--no-headers"]);
    let used = milli_cores(&rows);
    assert!(rows.starts_with("spins-") && (50..=150).contains(&used), "{rows}");
    let rows = cluster.kubectl(&["top", "pods", "--containers", "-l", "app=spins"]);
    assert!(rows.starts_with("POD ") && rows.contains(" c  "), "{rows}");
    let rows = cluster.kubectl(&["top", "pods", "-A", "--sum", "--sort-by=cpu"]);
    assert!(rows.contains("NAMESPACE") && rows.contains("________"), "{rows}");
    let rows = cluster.kubectl(&["top", "nodes"]);
    assert!(rows.contains("CPU(cores)") && rows.contains("node-0") && rows.contains('%'), "{rows}");
    let rows = cluster.kubectl(&["get", "podmetrics"]);
    assert!(rows.contains("WINDOW") && rows.contains("spins-"), "{rows}");
    let refused = cluster.kubectl_refused(&["top", "pod", "absent"]);
    assert!(
        refused.contains("podmetrics.metrics.k8s.io \"default/absent\" not found"),
        "{refused}"
    );
    let services = cluster.kubectl(&["get", "apiservice", "v1beta1.metrics.k8s.io"]);
    assert!(services.contains("Local") && services.contains("True"), "{services}");
    // Whoever may read pods may see what they use.
    let asked = ["auth", "can-i", "list", "pods.metrics.k8s.io", "--as=reader", "-n", "default"];
    cluster.kubectl(&["create", "rolebinding", "reader", "--clusterrole=view", "--user=reader"]);
    assert_eq!(cluster.kubectl(&asked).trim(), "yes");
}

#[test]
fn pods_that_compute_much_become_more() {
    let cluster = spinning();
    let scale = ["autoscale", "deployment", "spins", "--cpu=50%", "--min=1", "--max=3"];
    assert!(cluster.kubectl(&scale).contains("autoscaled"));
    cluster.kubectl(&[
        "wait",
        "--for=jsonpath={.status.readyReplicas}=3",
        "deployment/spins",
        "--timeout=120s",
    ]);
    let text = cluster.kubectl(&["describe", "hpa", "spins"]);
    for part in [
        "resource cpu on pods  (as a percentage of request):",
        "ScalingActive   True    ValidMetricFound",
        "the HPA was able to successfully calculate a replica count from cpu resource utilization (percentage of request)",
        "SuccessfulRescale",
        "cpu resource utilization (percentage of request) above target",
    ] {
        assert!(text.contains(part), "no {part:?} in {text}");
    }
}
