//! Who may do what, from the first day.

use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use coracle_tests::{Cluster, Output};

#[test]
fn without_credentials_only_health_and_version_are_seen() {
    let cluster = Cluster::start();
    let config = cluster.json_of(&["config", "view", "--raw", "-o", "json"]);
    let server = config["clusters"][0]["cluster"]["server"].as_str().unwrap().to_owned();
    // kubectl asks for a user's name when it has none.
    let anonymous = |path: &str, more: &[&str]| {
        let url = format!("{server}{path}");
        let mut command = Command::new("curl");
        command.args(["--silent", "--insecure", "--write-out", "\n%{http_code}", &url]).args(more);
        Output::of(&mut command).stdout
    };
    for open in ["/version", "/healthz", "/livez", "/readyz"] {
        assert!(anonymous(open, &[]).ends_with("\n200"), "{open}");
    }
    for closed in ["/api/v1/secrets", "/apis/apps/v1/deployments", "/metrics", "/openapi/v2"] {
        let answer = anonymous(closed, &[]);
        assert!(answer.ends_with("\n403") && answer.contains("system:anonymous"), "{answer}");
    }
    let answer = anonymous("/version", &["--header", "Authorization: Bearer not-a-token"]);
    assert!(answer.ends_with("\n401") && answer.contains("Unauthorized"), "{answer}");
}

#[test]
fn a_service_account_has_the_rights_of_its_role_and_no_others() {
    let cluster = Cluster::start();
    cluster.kubectl(&["create", "namespace", "team"]);
    cluster.kubectl(&["-n", "team", "create", "serviceaccount", "reader"]);
    cluster.kubectl(&[
        "-n",
        "team",
        "create",
        "role",
        "reads",
        "--verb=get,list",
        "--resource=pods",
    ]);
    cluster.kubectl(&[
        "-n",
        "team",
        "create",
        "rolebinding",
        "reads",
        "--role=reads",
        "--serviceaccount=team:reader",
    ]);
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
        vec!["-n", "team", "delete", "pod", "any"],
        vec!["get", "nodes"],
    ] {
        let output = reader(&refused);
        assert_ne!(output.code, Some(0), "{refused:?}: {output:?}");
        assert!(
            output.stderr.contains("User \"system:serviceaccount:team:reader\" cannot"),
            "{output:?}"
        );
    }
    cluster.kubectl(&["-n", "team", "delete", "serviceaccount", "reader"]);
    let after = reader(&["-n", "team", "get", "pods"]);
    assert_ne!(after.code, Some(0), "a token of an account that is gone: {after:?}");
}

#[test]
fn secrets_of_the_cluster_are_for_their_owner_only() {
    let cluster = Cluster::start();
    let mode =
        |path: &std::path::Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&cluster.kubeconfig()), 0o600);
    assert_eq!(mode(&cluster.data_dir()), 0o700);
    for entry in std::fs::read_dir(cluster.data_dir().join("pki")).unwrap() {
        let path = entry.unwrap().path();
        assert_eq!(mode(&path) & 0o077, 0, "{}", path.display());
    }
}
