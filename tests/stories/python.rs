//! The PyPI client `kubernetes` works unchanged: each story is a program of `tests/python`, run on a cluster of its own.

use coracle_tests::{Cluster, Output, python, test_guest};

/// Runs a program to its end; it fails by an exception.
#[track_caller]
fn check(cluster: &Cluster, program: &str) {
    let mut command = python(program);
    let output = Output::of(command.env("KUBECONFIG", cluster.kubeconfig()));
    assert_eq!(output.code, Some(0), "{program}:\n{}{}", output.stdout, output.stderr);
}

#[test]
fn python_programs_keep_objects() {
    check(&Cluster::start(), "objects.py");
}

#[test]
fn python_programs_watch() {
    check(&Cluster::start(), "watching.py");
}

#[test]
fn python_programs_keep_custom_resources() {
    check(&Cluster::start(), "custom_resources.py");
}

#[test]
fn python_programs_may_what_their_account_may() {
    check(&Cluster::start(), "access.py");
}

#[test]
fn python_programs_elect_a_leader() {
    check(&Cluster::start(), "leading.py");
}

#[test]
fn python_programs_run_pods() {
    let cluster = Cluster::start();
    cluster.import(&test_guest("probe"), "probe.wasm");
    check(&cluster, "pods.py");
}
