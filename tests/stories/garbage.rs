//! What belongs together goes together, or not, as asked.

use coracle_tests::{Cluster, examples};

fn with_hello() -> Cluster {
    let cluster = Cluster::start();
    cluster.import(&examples("hello").join("hello.wasm"), "hello.wasm");
    cluster.kubectl(&["apply", "-f", examples("hello").to_str().unwrap()]);
    cluster.kubectl(&["rollout", "status", "deployment/hello", "--timeout=60s"]);
    cluster
}

fn names(cluster: &Cluster, kind: &str) -> String {
    cluster.kubectl(&["get", kind, "-l", "app=hello", "-o", "name"])
}

#[test]
fn deleting_in_the_background_takes_dependents_along() {
    let cluster = with_hello();
    cluster.kubectl(&["delete", "deployment", "hello", "--cascade=background"]);
    cluster.until("sets and pods are gone", |cluster| {
        names(cluster, "replicasets").is_empty() && names(cluster, "pods").is_empty()
    });
}

#[test]
fn deleting_in_the_foreground_waits_for_dependents() {
    let cluster = with_hello();
    cluster.kubectl(&["delete", "deployment", "hello", "--cascade=foreground", "--timeout=60s"]);
    assert_eq!(names(&cluster, "pods"), "");
    assert_eq!(names(&cluster, "replicasets"), "");
}

#[test]
fn orphans_stay_and_are_adopted_again() {
    let cluster = with_hello();
    let (sets, pods) = (names(&cluster, "replicasets"), names(&cluster, "pods"));
    cluster.kubectl(&["delete", "deployment", "hello", "--cascade=orphan"]);
    assert_eq!(names(&cluster, "replicasets"), sets);
    cluster.kubectl(&["apply", "-f", examples("hello").to_str().unwrap()]);
    cluster.kubectl(&["rollout", "status", "deployment/hello", "--timeout=60s"]);
    assert_eq!((names(&cluster, "replicasets"), names(&cluster, "pods")), (sets, pods));
}

#[test]
fn a_namespace_goes_with_all_that_is_in_it() {
    let cluster = Cluster::start();
    cluster.import(&examples("hello").join("hello.wasm"), "hello.wasm");
    cluster.kubectl(&["create", "namespace", "team"]);
    cluster.kubectl(&["-n", "team", "apply", "-f", examples("hello").to_str().unwrap()]);
    cluster.kubectl(&["-n", "team", "rollout", "status", "deployment/hello", "--timeout=60s"]);
    cluster.kubectl(&["delete", "namespace", "team", "--timeout=60s"]);
    let refused = cluster.kubectl_refused(&["-n", "team", "create", "configmap", "late"]);
    assert!(refused.contains("namespaces \"team\" not found"), "{refused}");
}

#[test]
fn a_pod_ends_within_its_grace_or_at_once_when_forced() {
    let cluster = with_hello();
    let pods = names(&cluster, "pods");
    let mut pods = pods.lines();
    let (first, second) = (pods.next().unwrap(), pods.next().unwrap());
    cluster.kubectl(&["delete", first, "--grace-period=5", "--timeout=30s"]);
    cluster.kubectl(&["delete", second, "--grace-period=0", "--force", "--timeout=30s"]);
    cluster.kubectl(&["rollout", "status", "deployment/hello", "--timeout=60s"]);
}
