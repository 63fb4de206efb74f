//! Whoever applies on the server shares objects with others: nobody loses a field unasked.

use coracle_tests::{Cluster, kubectls};

const DEPLOYMENT: &str = "\
apiVersion: apps/v1
kind: Deployment
metadata:
  name: web
  labels: {team: blue, tier: front}
spec:
  replicas: 0
  selector:
    matchLabels: {app: web}
  template:
    metadata:
      labels: {app: web}
    spec:
      containers:
      - name: main
        image: hello.wasm
        env:
        - {name: A, value: one}
";

#[track_caller]
fn apply(cluster: &Cluster, options: &str, manifest: &str, expected: &str) {
    let mut arguments = vec!["apply", "-f", "-"];
    arguments.extend(options.split_whitespace());
    let output = cluster.try_kubectl_with(&arguments, manifest);
    let said = format!("{}{}", output.stdout, output.stderr);
    assert!(said.contains(expected), "kubectl apply {options} says no {expected:?}:\n{said}");
}

#[track_caller]
fn field(cluster: &Cluster, path: &str) -> String {
    cluster.kubectl(&["get", "deployment", "web", "-o", &format!("jsonpath={{{path}}}")])
}

fn with_each_kubectl(story: impl Fn(&Cluster)) {
    for kubectl in kubectls() {
        story(&Cluster::start().with_kubectl(&kubectl));
    }
}

#[test]
fn two_appliers_share_an_object() {
    with_each_kubectl(|cluster| {
        apply(cluster, "--server-side", DEPLOYMENT, "deployment.apps/web serverside-applied");
        let other =
            DEPLOYMENT.replace("value: one", "value: two").replace("replicas: 0", "replicas: 3");
        let options = "--server-side --field-manager=ci";
        apply(
            cluster,
            options,
            &other,
            "Apply failed with 2 conflicts: conflicts with \"kubectl\":\n- .spec.replicas\n- .spec.template.spec.containers[name=\"main\"].env[name=\"A\"].value",
        );
        assert_eq!(field(cluster, ".spec.replicas"), "0");

        // What both agree about is both's; what one drops stays for the other.
        apply(cluster, options, DEPLOYMENT, "serverside-applied");
        let less = DEPLOYMENT.replace("team: blue, ", "");
        apply(cluster, "--server-side", &less, "serverside-applied");
        assert_eq!(field(cluster, ".metadata.labels"), r#"{"team":"blue","tier":"front"}"#);
        apply(cluster, options, &less, "serverside-applied");
        assert_eq!(field(cluster, ".metadata.labels"), r#"{"tier":"front"}"#);

        apply(
            cluster,
            "--server-side --field-manager=ci --force-conflicts",
            &other,
            "serverside-applied",
        );
        let env = ".spec.template.spec.containers[0].env[0].value";
        assert_eq!(field(cluster, env), "two");
        let mine = DEPLOYMENT.replace("  replicas: 0\n", "").replace("value: one", "value: two");
        apply(cluster, "--server-side", &mine, "serverside-applied");
        assert_eq!(field(cluster, ".spec.replicas"), "3");
    });
}

#[test]
fn a_scaled_deployment_keeps_its_scale() {
    with_each_kubectl(|cluster| {
        apply(cluster, "--server-side", DEPLOYMENT, "serverside-applied");
        cluster.kubectl(&["scale", "deployment/web", "--replicas=2"]);
        apply(
            cluster,
            "--server-side",
            DEPLOYMENT,
            "Apply failed with 1 conflict: conflict with \"kubectl\" with subresource \"scale\" using apps/v1: .spec.replicas",
        );
        let without = DEPLOYMENT.replace("  replicas: 0\n", "");
        apply(cluster, "--server-side", &without, "serverside-applied");
        assert_eq!(field(cluster, ".spec.replicas"), "2");
    });
}

#[test]
fn an_object_of_client_side_apply_is_taken_over() {
    with_each_kubectl(|cluster| {
        apply(cluster, "", DEPLOYMENT, "deployment.apps/web created");
        let shown = cluster.kubectl(&["get", "deployment", "web", "-o", "yaml"]);
        assert!(!shown.contains("managedFields"), "{shown}");
        let shown =
            cluster.kubectl(&["get", "deployment", "web", "-o", "yaml", "--show-managed-fields"]);
        assert!(shown.contains("manager: kubectl-client-side-apply"), "{shown}");

        let changed = DEPLOYMENT.replace("value: one", "value: two").replace("team: blue, ", "");
        apply(cluster, "--server-side", &changed, "serverside-applied");
        assert_eq!(field(cluster, ".spec.template.spec.containers[0].env[0].value"), "two");
        assert_eq!(field(cluster, ".metadata.labels"), r#"{"tier":"front"}"#);
        let shown =
            cluster.kubectl(&["get", "deployment", "web", "-o", "yaml", "--show-managed-fields"]);
        assert!(!shown.contains("manager: kubectl-client-side-apply"), "{shown}");
        assert!(shown.contains("operation: Apply"), "{shown}");

        apply(
            cluster,
            "--server-side --dry-run=server",
            DEPLOYMENT,
            "serverside-applied (server dry run)",
        );
        let difference = cluster.try_kubectl_with(&["diff", "--server-side", "-f", "-"], &changed);
        assert!(difference.code == Some(0) && difference.stdout.is_empty(), "{difference:?}");
        apply(
            cluster,
            "--server-side",
            &changed.replace("env:", "enw:"),
            "field not declared in schema",
        );
    });
}
