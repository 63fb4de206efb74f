//! Who may do what, from the first day.

use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use coracle_tests::{Cluster, Output};

#[test]
fn without_credentials_only_health_and_version_are_seen() {
    let cluster = Cluster::start();
    let config = cluster.json_of(&["config", "view", "--raw", "-o", "json"]);
    let server = config["clusters"][0]["cluster"]["server"].as_str().unwrap().to_owned();
    let anonymous = |arguments: &[&str]| {
        let mut command: Command = cluster.bare_kubectl();
        command.args(["--server", &server, "--insecure-skip-tls-verify"]).args(arguments);
        Output::of(&mut command)
    };
    assert_eq!(anonymous(&["get", "--raw", "/version"]).code, Some(0));
    assert_eq!(anonymous(&["get", "--raw", "/readyz"]).code, Some(0));
    let refused = anonymous(&["get", "--raw", "/api/v1/secrets"]);
    assert!(refused.stderr.contains("forbidden") || refused.stderr.contains("Forbidden"), "{refused:?}");
    let wrong = anonymous(&["--token", "not-a-token", "get", "--raw", "/version"]);
    assert!(wrong.stderr.contains("Unauthorized") || wrong.stderr.contains("logged in"), "{wrong:?}");
}

#[test]
fn a_service_account_has_the_rights_of_its_role_and_no_others() {
    let cluster = Cluster::start();
    cluster.kubectl(&["create", "namespace", "team"]);
    cluster.kubectl(&["-n", "team", "create", "serviceaccount", "reader"]);
    cluster.kubectl(&["-n", "team", "create", "role", "reads", "--verb=get,list", "--resource=pods"]);
    cluster.kubectl(&["-n", "team", "create", "rolebinding", "reads", "--role=reads", "--serviceaccount=team:reader"]);
    let token = cluster.kubectl(&["-n", "team", "create", "token", "reader"]);
    let token = token.trim();
    let config = cluster.json_of(&["config", "view", "--raw", "-o", "json"]);
    let server = config["clusters"][0]["cluster"]["server"].as_str().unwrap().to_owned();
    let reader = |arguments: &[&str]| {
        let mut command = cluster.bare_kubectl();
        command.args(["--server", &server, "--insecure-skip-tls-verify", "--token", token]);
        Output::of(command.args(arguments))
    };
    assert_eq!(reader(&["-n", "team", "get", "pods"]).code, Some(0));
    let whoami = reader(&["auth", "whoami", "-o", "jsonpath={.status.userInfo.username}"]);
    assert_eq!(whoami.stdout, "system:serviceaccount:team:reader", "{whoami:?}");
    for refused in [
        vec!["-n", "default", "get", "pods"],
        vec!["-n", "team", "get", "secrets"],
        vec!["-n", "team", "delete", "pods", "--all"],
        vec!["get", "nodes"],
    ] {
        let output = reader(&refused);
        assert_ne!(output.code, Some(0), "{refused:?}: {output:?}");
        assert!(output.stderr.contains("User \"system:serviceaccount:team:reader\" cannot"), "{output:?}");
    }
    cluster.kubectl(&["-n", "team", "delete", "serviceaccount", "reader"]);
    let after = reader(&["-n", "team", "get", "pods"]);
    assert_ne!(after.code, Some(0), "a token of an account that is gone: {after:?}");
}

#[test]
fn secrets_of_the_cluster_are_for_their_owner_only() {
    let cluster = Cluster::start();
    let mode = |path: &std::path::Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&cluster.kubeconfig()), 0o600);
    assert_eq!(mode(&cluster.data_dir()), 0o700);
    for entry in std::fs::read_dir(cluster.data_dir().join("pki")).unwrap() {
        let path = entry.unwrap().path();
        assert_eq!(mode(&path) & 0o077, 0, "{}", path.display());
    }
}
