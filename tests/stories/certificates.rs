//! Who gets in, what is kept secret, and what is written down about it: certificates, Secrets on disk, the audit log.

use coracle_tests::Cluster;

/// What a user brings: made with the OpenSSL of whoever asks.
fn request_for(cluster: &Cluster, name: &str) -> Option<String> {
    let directory = cluster.data_dir();
    let key = directory.join(format!("{name}.key"));
    let made = std::process::Command::new("openssl")
        .args(["req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"])
        .args(["-subj", &format!("/O=dev/O=ops/CN={name}"), "-keyout"])
        .arg(key)
        .output()
        .ok()?;
    made.status.success().then(|| String::from_utf8_lossy(&made.stdout).into_owned())
}

#[test]
fn a_person_asks_for_a_certificate_and_an_administrator_approves_it() {
    let cluster = Cluster::start();
    let pem = request_for(&cluster, "alice").expect("openssl makes a request");
    for (name, decision) in [("alice", "approve"), ("alice-again", "deny")] {
        let encoded = {
            use base64::Engine as _;
            base64::engine::general_purpose::STANDARD.encode(&pem)
        };
        cluster.apply(&format!(
            "apiVersion: certificates.k8s.io/v1\nkind: CertificateSigningRequest\nmetadata: {{ name: {name} }}\n\
             spec: {{ request: {encoded}, signerName: kubernetes.io/kube-apiserver-client, usages: [client auth] }}\n"
        ));
        let said = cluster.kubectl(&["certificate", decision, name]);
        let done = if decision == "approve" { "approved" } else { "denied" };
        assert!(said.contains(done), "{said}");
    }
    cluster.until("the certificate is issued", |cluster| {
        cluster.kubectl(&["get", "csr", "alice"]).contains("Approved,Issued")
    });
    assert!(cluster.kubectl(&["get", "csr", "alice-again"]).contains("Denied"));
    // The certificate works, with both groups: no rights, but known by name.
    let certificate = cluster.kubectl(&[
        "get",
        "csr",
        "alice",
        "-o",
        "go-template={{.status.certificate | base64decode}}",
    ]);
    let directory = cluster.data_dir();
    std::fs::write(directory.join("alice.crt"), certificate).unwrap();
    let flag = |name: &str, file: &str| format!("--{name}={}", directory.join(file).display());
    let config = cluster.json_of(&["config", "view", "--raw", "-o", "json"]);
    let server = config["clusters"][0]["cluster"]["server"].as_str().unwrap().to_owned();
    let mut command = cluster.bare_kubectl();
    command.args(["--server", &server, "--insecure-skip-tls-verify"]);
    command.args([flag("client-certificate", "alice.crt"), flag("client-key", "alice.key")]);
    let who = coracle_tests::Output::of(command.args(["auth", "whoami", "-o", "json"]));
    let who: serde_json::Value = serde_json::from_str(&who.stdout).unwrap();
    let user = &who["status"]["userInfo"];
    assert_eq!(user["username"], "alice");
    assert_eq!(user["groups"], serde_json::json!(["dev", "ops", "system:authenticated"]));
}

#[test]
fn secrets_are_not_readable_on_disk() {
    let mut cluster = Cluster::start();
    cluster.kubectl(&["create", "secret", "generic", "s", "--from-literal=word=open-sesame"]);
    cluster.kubectl(&["create", "configmap", "c", "--from-literal=word=seen-by-all"]);
    cluster.kill();
    let mut disk = Vec::new();
    for file in std::fs::read_dir(cluster.data_dir()).unwrap() {
        let path = file.unwrap().path();
        if path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("state.")) {
            disk.extend(std::fs::read(path).unwrap());
        }
    }
    let holds = |text: &str| disk.windows(text.len()).any(|part| part == text.as_bytes());
    assert!(holds("seen-by-all"));
    // "open-sesame" in base64.
    assert!(!holds("b3Blbi1zZXNhbWU") && !holds("open-sesame"));
    cluster.run();
    let word =
        cluster.kubectl(&["get", "secret", "s", "-o", "go-template={{.data.word | base64decode}}"]);
    assert_eq!(word, "open-sesame");
}

#[test]
fn a_token_secret_is_filled_and_a_service_account_keeps_its_rights_with_it() {
    let cluster = Cluster::start();
    cluster.kubectl(&["create", "serviceaccount", "robot"]);
    cluster.apply(
        "apiVersion: v1\nkind: Secret\nmetadata:\n  name: robot-token\n  annotations: { kubernetes.io/service-account.name: robot }\ntype: kubernetes.io/service-account-token\n",
    );
    cluster.until("the token is there", |cluster| {
        let secret = cluster.json(&["secret", "robot-token"]);
        secret["data"]["token"].is_string()
    });
    cluster.kubectl(&["delete", "serviceaccount", "robot"]);
    cluster.until("the token is gone", |cluster| {
        cluster.kubectl(&["get", "secrets", "-o", "name"]).trim().is_empty()
    });
}

#[test]
fn the_audit_log_tells_who_read_what() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    let policy = "apiVersion: audit.k8s.io/v1\nkind: Policy\nomitStages: [RequestReceived]\nrules:\n\
                  - { level: Metadata, users: [system:admin], resources: [{ group: '', resources: [secrets] }] }\n\
                  - { level: None }\n";
    std::fs::write(path("policy.yaml"), policy).unwrap();
    let (policy, log) = (path("policy.yaml"), path("logs/audit.log"));
    let mut cluster =
        Cluster::start_with(&["--audit-policy-file", &policy, "--audit-log-path", &log]);
    cluster.kubectl(&["create", "secret", "generic", "s", "--from-literal=word=open-sesame"]);
    cluster.kubectl(&["get", "secret", "s"]);
    cluster.kubectl(&["get", "configmaps"]);
    assert_eq!(cluster.stop(), Some(0));
    let text = std::fs::read_to_string(log).unwrap();
    let events = text.lines().map(|line| serde_json::from_str(line).unwrap());
    let told: Vec<String> = events
        .map(|event: serde_json::Value| {
            let text =
                |pointer: &str| event.pointer(pointer).map(ToString::to_string).unwrap_or_default();
            [text("/verb"), text("/objectRef/name"), text("/responseStatus/code")].join(" ")
        })
        .collect();
    assert_eq!(told, [r#""create"  201"#, r#""get" "s" 200"#]);
    assert!(!text.contains("b3Blbi1zZXNhbWU"));
}
