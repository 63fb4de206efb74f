//! Who may do what, as `kubectl auth` asks and arranges it.

use coracle_tests::{Cluster, kubectls};

const ROLES: &str = "\
apiVersion: v1
kind: Namespace
metadata: {name: quay}
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: porter, namespace: quay}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: porter, namespace: quay}
rules:
- {apiGroups: [''], resources: [configmaps], verbs: [get, list]}
- {apiGroups: [apps], resources: [deployments, deployments/scale], resourceNames: [web], verbs: [patch]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: porter, namespace: quay}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: porter}
subjects: [{kind: ServiceAccount, name: porter, namespace: quay}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: pilot}
rules: [{nonResourceURLs: [/metrics, /metrics/*], verbs: [get]}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: pilot}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: pilot}
subjects: [{kind: ServiceAccount, name: porter, namespace: quay}]
";

const PORTER: &str = "--as=system:serviceaccount:quay:porter";

fn with_each_kubectl(story: impl Fn(&Cluster)) {
    for kubectl in kubectls() {
        story(&Cluster::start().with_kubectl(&kubectl));
    }
}

/// Brings the roles into the state of a manifest, and answers what was done to each.
#[track_caller]
fn reconcile(cluster: &Cluster, options: &[&str], manifest: &str) -> String {
    let arguments = [&["auth", "reconcile", "-f", "-"], options].concat();
    let output = cluster.try_kubectl_with(&arguments, manifest);
    assert_eq!(output.code, Some(0), "{output:#?}");
    output.stdout
}

/// The rows of `kubectl auth can-i --list`, each as its words.
fn rights(cluster: &Cluster, options: &[&str]) -> Vec<String> {
    let arguments = [&["auth", "can-i", "--list", "--no-headers"], options].concat();
    let text = cluster.kubectl(&arguments);
    text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect()
}

#[track_caller]
fn may(cluster: &Cluster, question: &str, expected: &str) {
    let arguments: Vec<&str> = ["auth", "can-i"].into_iter().chain(question.split(' ')).collect();
    let output = cluster.try_kubectl(&arguments);
    assert_eq!(output.stdout.trim(), expected, "{question}: {output:?}");
    assert_eq!(output.code, Some(i32::from(expected != "yes")), "{question}: {output:?}");
}

#[test]
fn roles_are_reconciled() {
    with_each_kubectl(|cluster| {
        cluster.apply(ROLES);
        // What is there stays as it is.
        let done = reconcile(cluster, &[], ROLES);
        for name in ["role", "rolebinding", "clusterrole", "clusterrolebinding"] {
            let expected = format!("{name}.rbac.authorization.k8s.io/");
            assert!(done.contains(&expected) && done.contains("reconciled"), "{name}: {done}");
        }
        let before = cluster.json(&["role", "porter", "-n", "quay"]);

        // Missing rules and subjects come back, others stay.
        cluster.kubectl(&[
            "patch", "role", "porter", "-n", "quay", "--type=json", "-p",
            r#"[{"op":"replace","path":"/rules","value":[{"apiGroups":[""],"resources":["pods"],"verbs":["get"]}]}]"#,
        ]);
        cluster.kubectl(&[
            "patch", "rolebinding", "porter", "-n", "quay", "--type=json", "-p",
            r#"[{"op":"replace","path":"/subjects","value":[{"kind":"User","name":"jane","apiGroup":"rbac.authorization.k8s.io"}]}]"#,
        ]);
        may(cluster, &format!("list configmaps -n quay {PORTER}"), "no");
        reconcile(cluster, &[], ROLES);
        may(cluster, &format!("list configmaps -n quay {PORTER}"), "yes");
        may(cluster, "get pods -n quay --as=jane", "yes");

        // Unless they should not.
        reconcile(cluster, &["--remove-extra-permissions", "--remove-extra-subjects"], ROLES);
        may(cluster, "get pods -n quay --as=jane", "no");
        let after = cluster.json(&["role", "porter", "-n", "quay"]);
        assert_eq!(
            after["rules"].as_array().map(Vec::len),
            before["rules"].as_array().map(Vec::len)
        );

        // A binding to another role is made anew: its roleRef cannot be changed.
        let other = ROLES.replace("kind: Role, name: porter", "kind: ClusterRole, name: view");
        let uid = |cluster: &Cluster| {
            let binding = cluster.json(&["rolebinding", "porter", "-n", "quay"]);
            (binding["metadata"]["uid"].clone(), binding["roleRef"]["name"].clone())
        };
        let was = uid(cluster);
        reconcile(cluster, &[], &other);
        let is = uid(cluster);
        assert!(was.0 != is.0 && is.1 == "view", "{was:?} {is:?}");
    });
}

#[test]
fn everybody_learns_what_they_may() {
    with_each_kubectl(|cluster| {
        cluster.apply(ROLES);
        let rights = rights(cluster, &[PORTER, "-n", "quay"]);
        for row in [
            "configmaps [] [] [get list]",
            "deployments.apps [] [web] [patch]",
            "deployments.apps/scale [] [web] [patch]",
            "[/metrics/*] [] [get]",
            "[/metrics] [] [get]",
            "selfsubjectaccessreviews.authorization.k8s.io [] [] [create]",
            "selfsubjectrulesreviews.authorization.k8s.io [] [] [create]",
            "selfsubjectreviews.authentication.k8s.io [] [] [create]",
            "[/healthz] [] [get]",
            "[/api/*] [] [get]",
        ] {
            assert!(rights.iter().any(|right| right == row), "no {row:?} in {rights:#?}");
        }
        assert!(!rights.iter().any(|right| right.starts_with("secrets")), "{rights:#?}");

        may(cluster, &format!("list configmaps -n quay {PORTER}"), "yes");
        may(cluster, &format!("list configmaps {PORTER}"), "no");
        may(cluster, &format!("list configmaps -A {PORTER}"), "no");
        may(cluster, &format!("patch deployments/web -n quay {PORTER}"), "yes");
        may(cluster, &format!("patch deployments/other -n quay {PORTER}"), "no");
        may(cluster, &format!("patch deployments/web --subresource=scale -n quay {PORTER}"), "yes");
        may(cluster, &format!("get /metrics/cadvisor {PORTER}"), "yes");
        may(cluster, &format!("get /logs {PORTER}"), "no");
    });
}

#[test]
fn nobody_gives_away_what_they_do_not_have() {
    let cluster = Cluster::start();
    cluster.apply(ROLES);
    cluster.kubectl(&[
        "create",
        "role",
        "chief",
        "-n",
        "quay",
        "--verb=get,list,create,update,patch,delete",
        "--resource=roles.rbac.authorization.k8s.io,rolebindings.rbac.authorization.k8s.io",
    ]);
    cluster.kubectl(&[
        "create",
        "rolebinding",
        "chief",
        "-n",
        "quay",
        "--role=chief",
        "--user=joe",
    ]);
    let as_joe = ["--as=joe", "-n", "quay"];
    let refused = cluster.kubectl_refused(
        &[&["create", "role", "more", "--verb=get", "--resource=secrets"], &as_joe[..]].concat(),
    );
    assert!(
        refused.contains("user \"joe\" (groups=[\"system:authenticated\"]) is attempting to grant RBAC permissions not currently held")
            && refused.contains("{APIGroups:[\"\"], Resources:[\"secrets\"], Verbs:[\"get\"]}"),
        "{refused}"
    );
    let refused = cluster.kubectl_refused(
        &[&["create", "rolebinding", "up", "--clusterrole=admin", "--user=joe"], &as_joe[..]]
            .concat(),
    );
    assert!(
        refused.contains("is attempting to grant RBAC permissions not currently held"),
        "{refused}"
    );
    // With the verbs `escalate` and `bind` they may.
    cluster.kubectl(&[
        "create",
        "clusterrole",
        "giver",
        "--verb=bind",
        "--resource=clusterroles.rbac.authorization.k8s.io",
    ]);
    cluster.kubectl(&[
        "create",
        "rolebinding",
        "giver",
        "-n",
        "quay",
        "--clusterrole=giver",
        "--user=joe",
    ]);
    cluster.kubectl(
        &[&["create", "rolebinding", "up", "--clusterrole=admin", "--user=joe"], &as_joe[..]]
            .concat(),
    );
}
