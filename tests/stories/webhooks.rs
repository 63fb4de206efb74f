//! Webhooks over TLS, by URL and by Service: what users' own programs add, refuse and convert, as kubectl shows it.

use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use base64::Engine as _;
use coracle_tests::{Cluster, Output, python};
use serde_json::{Value, json};

/// The program `tests/python/webhooks.py`, ended with the test.
struct WebhookServer {
    process: Child,
    port: u16,
    ca_bundle: String,
}

impl WebhookServer {
    fn start(cluster: &Cluster) -> Self {
        let (certificate, key) =
            (cluster.data_dir().join("hook.crt"), cluster.data_dir().join("hook.key"));
        let mut openssl = Command::new("openssl");
        openssl.args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]);
        openssl.args(["-nodes", "-days", "2", "-subj", "/CN=hook"]);
        openssl.args(["-addext", "subjectAltName=IP:127.0.0.1,DNS:hook.default.svc"]);
        // It is its own authority, and a server.
        openssl.args(["-addext", "basicConstraints=critical,CA:FALSE"]);
        let made = Output::of(openssl.arg("-out").arg(&certificate).arg("-keyout").arg(&key));
        assert_eq!(made.code, Some(0), "{made:?}");
        let mut process = python("webhooks.py")
            .args([&certificate, &key])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("python3 starts");
        let mut line = String::new();
        let stdout = process.stdout.take().expect("a pipe");
        BufReader::new(stdout).read_line(&mut line).expect("the port");
        let pem = fs::read(&certificate).expect("the certificate");
        let ca_bundle = base64::engine::general_purpose::STANDARD.encode(pem);
        Self { process, port: line.trim().parse().expect("a port"), ca_bundle }
    }

    /// Reached at its address.
    fn by_url(&self, path: &str) -> Value {
        json!({ "url": format!("https://127.0.0.1:{}{path}", self.port), "caBundle": self.ca_bundle })
    }

    /// Reached through the Service `hook`.
    fn by_service(&self, path: &str) -> Value {
        let service = json!({ "namespace": "default", "name": "hook", "path": path, "port": 443 });
        json!({ "service": service, "caBundle": self.ca_bundle })
    }

    /// A Service without a selector, and the address behind it.
    fn make_service(&self, cluster: &Cluster) {
        let port = self.port;
        cluster.apply(
            &json!({
                "apiVersion": "v1", "kind": "Service", "metadata": { "name": "hook" },
                "spec": { "ports": [{ "port": 443, "targetPort": port }] },
            })
            .to_string(),
        );
        cluster.apply(&json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
            "metadata": { "name": "hook-1", "labels": { "kubernetes.io/service-name": "hook" } },
            "addressType": "IPv4",
            "endpoints": [{ "addresses": ["127.0.0.1"], "conditions": { "ready": true } }],
            "ports": [{ "name": "", "port": port, "protocol": "TCP" }],
        }).to_string());
    }
}

impl Drop for WebhookServer {
    fn drop(&mut self) {
        // It may have ended by itself; then there is nothing to do.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn configuration(kind: &str, name: &str, client: &Value) -> String {
    json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": kind,
        "metadata": { "name": name },
        "webhooks": [{
            "name": format!("{name}.example.com"),
            "clientConfig": client,
            "rules": [{ "operations": ["CREATE", "UPDATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["configmaps"] }],
            "matchConditions": [{ "name": "not-ours", "expression": "object.metadata.name != 'kube-root-ca.crt'" }],
            "sideEffects": "None",
            "admissionReviewVersions": ["v1"],
            "timeoutSeconds": 10,
        }],
    })
    .to_string()
}

#[test]
fn webhooks_add_refuse_and_warn() {
    let cluster = Cluster::start();
    let server = WebhookServer::start(&cluster);
    server.make_service(&cluster);
    let by_url = server.by_url("/mutate");
    cluster.apply(&configuration("MutatingWebhookConfiguration", "mark", &by_url));
    let by_service = server.by_service("/validate");
    cluster.apply(&configuration("ValidatingWebhookConfiguration", "taste", &by_service));

    let made = cluster.try_kubectl(&["create", "configmap", "good", "--from-literal=taste=good"]);
    assert_eq!(made.code, Some(0), "{made:?}");
    assert!(made.stderr.contains("Warning: tasted"), "{made:?}");
    assert_eq!(cluster.json(&["configmap", "good"])["data"]["maker"], "system:admin");
    let refused =
        cluster.kubectl_refused(&["create", "configmap", "bad", "--from-literal=taste=bad"]);
    let why = "admission webhook \"taste.example.com\" denied the request: system:admin may not make bad maps";
    assert!(refused.contains(why), "{refused}");
    let patch = r#"{"data":{"taste":"bad"}}"#;
    let refused = cluster.kubectl_refused(&["patch", "configmap", "good", "-p", patch]);
    assert!(refused.contains(why), "{refused}");

    // Whom nobody answers for fails closed, and says whom it asked.
    drop(server);
    let refused = cluster.kubectl_refused(&["create", "configmap", "late", "--from-literal=a=b"]);
    assert!(refused.contains("failed calling webhook \"mark.example.com\""), "{refused}");
    cluster.kubectl(&[
        "delete",
        "mutatingwebhookconfiguration/mark",
        "validatingwebhookconfiguration/taste",
    ]);
    cluster.kubectl(&["create", "configmap", "late", "--from-literal=a=b"]);
}

#[test]
fn a_webhook_converts_what_each_client_reads() {
    let cluster = Cluster::start();
    let server = WebhookServer::start(&cluster);
    server.make_service(&cluster);
    let version = |name: &str, field: &str| {
        let mut properties = json!({});
        properties[field] = json!({ "type": "integer" });
        let path = format!(".{field}");
        json!({
            "name": name, "served": true, "storage": name == "v1",
            "schema": { "openAPIV3Schema": { "type": "object", "properties": properties } },
            "additionalPrinterColumns": [{ "name": "Rowed", "type": "integer", "jsonPath": path }],
        })
    };
    cluster.apply(&json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": { "name": "boats.sea.example.com" },
        "spec": {
            "group": "sea.example.com", "scope": "Namespaced",
            "names": { "plural": "boats", "singular": "boat", "kind": "Boat" },
            "conversion": { "strategy": "Webhook", "webhook": {
                "conversionReviewVersions": ["v1"], "clientConfig": server.by_service("/convert") } },
            "versions": [version("v1", "oars"), version("v2", "pairs")],
        },
    }).to_string());
    cluster.kubectl(&["wait", "--for=condition=Established", "crd/boats.sea.example.com"]);
    cluster.apply(
        r#"{"apiVersion":"sea.example.com/v1","kind":"Boat","metadata":{"name":"eight"},"oars":8}"#,
    );
    cluster.apply(
        r#"{"apiVersion":"sea.example.com/v2","kind":"Boat","metadata":{"name":"two"},"pairs":1}"#,
    );
    let rowed = |resource: &str| {
        let columns = "custom-columns=NAME:.metadata.name,OARS:.oars,PAIRS:.pairs";
        let shown = cluster.kubectl(&["get", resource, "-o", columns, "--no-headers"]);
        shown
            .lines()
            .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
            .collect::<Vec<_>>()
    };
    assert_eq!(rowed("boats.v1.sea.example.com"), ["eight 8 <none>", "two 2 <none>"]);
    assert_eq!(rowed("boats.v2.sea.example.com"), ["eight <none> 4", "two <none> 1"]);
    let patch = r#"{"pairs":3}"#;
    cluster.kubectl(&["patch", "boats.v2.sea.example.com", "eight", "--type=merge", "-p", patch]);
    assert_eq!(rowed("boats.v1.sea.example.com")[0], "eight 6 <none>");

    // What was converted stays readable; what is new cannot be.
    drop(server);
    let late =
        r#"{"apiVersion":"sea.example.com/v2","kind":"Boat","metadata":{"name":"late"},"pairs":1}"#;
    let refused = cluster.try_kubectl_with(&["create", "-f", "-"], late);
    assert_ne!(refused.code, Some(0), "{refused:?}");
    let why = "conversion webhook for sea.example.com/v2, Kind=Boat failed: Post \"https://hook.default.svc:443/convert";
    assert!(refused.stderr.contains(why), "{refused:?}");
}
