//! Bad input gets upstream's answer, and nothing is lost.

use coracle_tests::Cluster;

const DEPLOYMENT: &str = "apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 1
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec: {containers: [{name: c, image: web.wasm}]}
";

fn refused(cluster: &Cluster, manifest: &str, expected: &str) {
    let output = cluster.try_kubectl_with(&["create", "-f", "-"], manifest);
    assert_ne!(output.code, Some(0), "{manifest}");
    assert!(output.stderr.contains(expected), "{expected:?} in {output:#?}");
}

fn posted(cluster: &Cluster, body: &str, expected: &str) {
    let output = cluster.try_kubectl_with(
        &["create", "--raw", "/api/v1/namespaces/default/configmaps", "-f", "-"],
        body,
    );
    assert_ne!(output.code, Some(0), "{output:?}");
    assert!(output.stderr.contains(expected), "{expected:?} in {output:#?}");
}

#[test]
fn manifests_are_refused_with_field_path_and_message() {
    let cluster = Cluster::start();
    let check = |from: &str, to: &str, expected: &str| {
        assert!(DEPLOYMENT.contains(from), "{from}");
        refused(&cluster, &DEPLOYMENT.replace(from, to), expected);
    };
    check(
        "replicas: 1",
        "replicas: -1",
        "spec.replicas: Invalid value: -1: must be greater than or equal to 0",
    );
    check(
        "labels: {app: web}",
        "labels: {app: other}",
        "`selector` does not match template `labels`",
    );
    check("{name: web}", "{name: Web_1}", "a lowercase RFC 1123 subdomain must consist of");
    check("image: web.wasm", "image: ''", "spec.template.spec.containers[0].image: Required value");
    check("replicas: 1", "replicaz: 1", "unknown field \"spec.replicaz\"");
    check("replicas: 1", "replicas: one", "replicas");
    check("name: c,", "name: c, ports: [{containerPort: 70000}],", "must be between 1 and 65535");
    check(
        "{app: web}}\n  template",
        "{app: 'not valid!'}}\n  template",
        "a valid label must be an empty string or consist of",
    );
    assert_eq!(cluster.kubectl(&["get", "deployments", "-o", "name"]), "");
}

#[test]
fn broken_bodies_are_bad_requests() {
    let cluster = Cluster::start();
    posted(&cluster, "{\"apiVersion\": \"v1\", \"kind\": \"ConfigMap\"", "unexpected");
    posted(&cluster, "[]", "cannot");
    let deep = format!(
        "{{\"apiVersion\":\"v1\",\"kind\":\"ConfigMap\",\"data\":{}1{}}}",
        "{\"a\":".repeat(20_000),
        "}".repeat(20_000)
    );
    posted(&cluster, &deep, "");
    let large = format!(
        "{{\"apiVersion\":\"v1\",\"kind\":\"ConfigMap\",\"metadata\":{{\"name\":\"a\"}},\"data\":{{\"a\":\"{}\"}}}}",
        "x".repeat(4 << 20)
    );
    posted(&cluster, &large, "too large");
    let big = format!(
        "{{\"apiVersion\":\"v1\",\"kind\":\"ConfigMap\",\"metadata\":{{\"name\":\"a\"}},\"data\":{{\"a\":\"{}\"}}}}",
        "x".repeat(1_100_000)
    );
    posted(&cluster, &big, "Too long");
    assert_eq!(cluster.kubectl(&["get", "--raw", "/readyz"]), "ok");
}

#[test]
fn a_stale_write_is_a_conflict_and_changes_nothing() {
    let cluster = Cluster::start();
    cluster.kubectl(&["create", "configmap", "shared", "--from-literal=a=1"]);
    let stale = cluster.kubectl(&["get", "configmap", "shared", "-o", "yaml"]);
    cluster.kubectl(&["patch", "configmap", "shared", "-p", r#"{"data":{"a":"2"}}"#]);
    let output = cluster.try_kubectl_with(&["replace", "-f", "-"], &stale);
    assert!(
        output.stderr.contains(
            "the object has been modified; please apply your changes to the latest version"
        ),
        "{output:?}"
    );
    assert_eq!(cluster.json(&["configmap", "shared"])["data"]["a"], "2");
}

#[test]
fn what_is_not_there_and_what_is_there_already_is_said() {
    let cluster = Cluster::start();
    cluster.kubectl(&["create", "configmap", "one"]);
    let check = |arguments: &[&str], expected: &str| {
        let refused = cluster.kubectl_refused(arguments);
        assert!(refused.contains(expected), "{expected:?} in {refused}");
    };
    check(&["create", "configmap", "one"], "configmaps \"one\" already exists");
    check(&["get", "configmap", "two"], "configmaps \"two\" not found");
    check(&["get", "unicorns"], "the server doesn't have a resource type \"unicorns\"");
    check(&["-n", "nowhere", "create", "configmap", "a"], "namespaces \"nowhere\" not found");
    check(&["delete", "namespace", "default"], "this namespace may not be deleted");
    check(
        &["get", "pods", "--field-selector", "spec.nothing=1"],
        "field label not supported: spec.nothing",
    );
    check(&["get", "pods", "-l", "a in (b"], "");
}
