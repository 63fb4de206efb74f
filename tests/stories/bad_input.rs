//! Bad input gets upstream's answer, and nothing is lost.

use coracle_tests::{Cluster, examples, guests};

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
    check("  selector: {matchLabels: {app: web}}\n", "", "* spec.selector: Required value");
    check("{matchLabels: {app: web}}\n", "{}\n", "empty selector is invalid for deployment");
    check("metadata: {name: web}", "metadata: {name: ''}", "name or generateName is required");
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

/// A pod that no node has room for, one that waits for a claim that nobody made, and a Job that never succeeds.
const HOPELESS: &str = "apiVersion: v1
kind: Pod
metadata: {name: large}
spec: {containers: [{name: c, image: hello.wasm, resources: {requests: {cpu: '1000'}}}]}
---
apiVersion: v1
kind: Pod
metadata: {name: elsewhere}
spec: {nodeSelector: {disk: none}, containers: [{name: c, image: hello.wasm}]}
---
apiVersion: v1
kind: Pod
metadata: {name: waiting}
spec:
  containers: [{name: c, image: hello.wasm}]
  volumes: [{name: data, persistentVolumeClaim: {claimName: absent}}]
---
apiVersion: batch/v1
kind: Job
metadata: {name: fails}
spec:
  backoffLimit: 0
  template: {spec: {restartPolicy: Never, containers: [{name: c, image: fails.wasm}]}}
---
apiVersion: batch/v1
kind: Job
metadata: {name: late}
spec:
  activeDeadlineSeconds: 1
  template: {spec: {restartPolicy: Never, containers: [{name: c, image: absent.wasm, imagePullPolicy: Never}]}}
";

#[test]
fn what_can_never_be_is_told_and_holds_up_nothing_else() {
    let cluster = Cluster::start();
    cluster.import(&examples("hello").join("hello.wasm"), "hello.wasm");
    cluster.import_text(&guests::exits(1), "fails.wasm");
    cluster.apply(HOPELESS);
    cluster.apply(&DEPLOYMENT.replace("web.wasm", "hello.wasm"));
    cluster.kubectl(&["rollout", "status", "deployment/web", "--timeout=60s"]);
    for (pod, why) in [
        ("large", "0/1 nodes are available: 1 Insufficient cpu."),
        (
            "elsewhere",
            "0/1 nodes are available: 1 node(s) didn't match Pod's node affinity/selector.",
        ),
        ("waiting", "0/1 nodes are available: persistentvolumeclaim \"absent\" not found."),
    ] {
        let condition = ["wait", "--for=condition=PodScheduled=False", "--timeout=60s"];
        cluster.kubectl(&[&condition[..], &[&format!("pod/{pod}")]].concat());
        let told = |cluster: &Cluster| cluster.kubectl(&["describe", "pod", pod]);
        cluster.until(why, |cluster| {
            let text = told(cluster);
            text.contains("FailedScheduling") && text.contains(why)
        });
        let conditions = cluster.json(&["pod", pod])["status"]["conditions"].clone();
        assert_eq!(conditions[0]["reason"], "Unschedulable", "{conditions}");
    }
    for (job, reason, message) in [
        ("fails", "BackoffLimitExceeded", "Job has reached the specified backoff limit"),
        ("late", "DeadlineExceeded", "Job was active longer than specified deadline"),
    ] {
        let job = format!("job/{job}");
        cluster.kubectl(&["wait", "--for=condition=Failed", &job, "--timeout=60s"]);
        let text = cluster.kubectl(&["describe", &job]);
        assert!(text.contains(reason) && text.contains(message), "{text}");
    }
}

/// Two objects that own each other.
#[test]
fn a_cycle_of_owners_goes_as_one() {
    let cluster = Cluster::start();
    let uid = |name: &str| {
        cluster.kubectl(&["create", "configmap", name]);
        cluster.json(&["configmap", name])["metadata"]["uid"].as_str().unwrap().to_owned()
    };
    let uids = [("one", uid("one")), ("two", uid("two"))];
    for (name, (owner, uid)) in [("one", &uids[1]), ("two", &uids[0])] {
        let owner = format!(
            r#"{{"metadata":{{"ownerReferences":[{{"apiVersion":"v1","kind":"ConfigMap","name":"{owner}","uid":"{uid}","blockOwnerDeletion":true}}]}}}}"#
        );
        cluster.kubectl(&["patch", "configmap", name, "-p", &owner]);
    }
    cluster.kubectl(&["delete", "configmap", "one", "--cascade=foreground", "--timeout=60s"]);
    cluster.until("the other is gone too", |cluster| {
        cluster.try_kubectl(&["get", "configmap", "two"]).code == Some(1)
    });
}
