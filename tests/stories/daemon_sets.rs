//! DaemonSets: a pod on each node, placed while no scheduler would do it.

use coracle_tests::{Cluster, examples};

/// No scheduler answers to the name that these pods ask for.
const MANIFEST: &str = "apiVersion: apps/v1
kind: DaemonSet
metadata: {name: logs}
spec:
  selector: {matchLabels: {app: logs}}
  template:
    metadata: {labels: {app: logs}}
    spec:
      schedulerName: nobody
      containers: [{name: c, image: hello.wasm, env: [{name: GREETING, value: one}]}]
---
apiVersion: v1
kind: Pod
metadata: {name: plain}
spec: {schedulerName: nobody, containers: [{name: c, image: hello.wasm}]}
";

#[test]
fn a_daemon_set_runs_without_a_scheduler_and_is_rolled_out_and_undone() {
    let cluster = Cluster::start();
    cluster.import(&examples("hello").join("hello.wasm"), "hello.wasm");
    cluster.apply(MANIFEST);
    let status = ["rollout", "status", "daemonset/logs", "--timeout=60s"];
    let done = "daemon set \"logs\" successfully rolled out";
    assert!(cluster.kubectl(&status).contains(done));
    let plain = cluster.json(&["pod", "plain"]);
    assert_eq!(plain["status"]["phase"], "Pending");
    assert_eq!(plain["spec"]["nodeName"], serde_json::Value::Null);

    cluster.kubectl(&["set", "env", "daemonset/logs", "GREETING=two"]);
    assert!(cluster.kubectl(&status).contains(done));
    let history = cluster.kubectl(&["rollout", "history", "daemonset/logs"]);
    let revisions: Vec<_> = history.lines().filter_map(|line| line.split(' ').next()).collect();
    assert_eq!(revisions[1..3], ["REVISION", "1"], "{history}");
    let second = ["rollout", "history", "daemonset/logs", "--revision=2"];
    assert!(cluster.kubectl(&second).contains("GREETING:\ttwo"));

    let undone = cluster.kubectl(&["rollout", "undo", "daemonset/logs"]);
    assert_eq!(undone.trim(), "daemonset.apps/logs rolled back");
    assert!(cluster.kubectl(&status).contains(done));
    let pods = cluster.json(&["pods", "-l", "app=logs"]);
    let pods = pods["items"].as_array().expect("a list");
    assert_eq!(pods.len(), 1, "{pods:#?}");
    assert_eq!(pods[0]["spec"]["containers"][0]["env"][0]["value"], "one");
    let events = cluster.kubectl(&["describe", "daemonset", "logs"]);
    assert!(events.contains("SuccessfulCreate") && events.contains("SuccessfulDelete"), "{events}");
}
