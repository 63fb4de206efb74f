//! CertificateSigningRequests as clients meet them: who asks is noted, who approves and signs is checked.

mod harness;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use coracle_apiserver::identity::User;
use harness::{Answer, Harness, send};
use http::Request;
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair};
use serde_json::{Value, json};

const REQUESTS: &str = "/apis/certificates.k8s.io/v1/certificatesigningrequests";
const CLIENT: &str = "kubernetes.io/kube-apiserver-client";

fn pkcs10(name: &str, group: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::OrganizationName, group);
    params.distinguished_name.push(DnType::CommonName, name);
    params
}

fn request(group: &str) -> Value {
    let key = KeyPair::generate().unwrap();
    let pem = pkcs10("alice", group).serialize_request(&key).unwrap().pem().unwrap();
    json!({
        "metadata": { "name": "alice" },
        "spec": {
            "request": STANDARD.encode(pem), "signerName": CLIENT, "usages": ["client auth"],
            "username": "somebody else",
        },
    })
}

fn condition(kind: &str) -> Value {
    json!({ "type": kind, "status": "True", "reason": "Test" })
}

/// A user with these rights, and nothing else.
async fn user(server: &Harness, name: &str, rules: Value) -> kube::Client {
    let rbac = "/apis/rbac.authorization.k8s.io/v1";
    let role = json!({ "metadata": { "name": name }, "rules": rules });
    server.post(&format!("{rbac}/clusterroles"), role).await.expect(201);
    let binding = json!({
        "metadata": { "name": name },
        "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": name },
        "subjects": [{ "apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": name }],
    });
    server.post(&format!("{rbac}/clusterrolebindings"), binding).await.expect(201);
    server.api.client(User::new(name, &["dev"]))
}

async fn put(client: &kube::Client, path: &str, body: &Value) -> Answer {
    let request = Request::put(path).header("content-type", "application/json");
    send(client, request.body(body.to_string().into_bytes()).unwrap()).await
}

fn rule(resource: &str, verbs: &[&str], names: &[&str]) -> Value {
    json!({ "apiGroups": ["certificates.k8s.io"], "resources": [resource], "verbs": verbs, "resourceNames": names })
}

#[tokio::test]
async fn who_asks_is_noted_and_what_nobody_may_ask_is_refused() {
    let server = Harness::start().await;
    let rules = json!([rule("certificatesigningrequests", &["create"], &[])]);
    let bob = user(&server, "bob", rules).await;
    let create = async |body: Value| {
        let request = Request::post(REQUESTS).header("content-type", "application/json");
        send(&bob, request.body(body.to_string().into_bytes()).unwrap()).await
    };
    let made = create(request("dev")).await.expect(201);
    assert_eq!(made["spec"]["username"], "bob");
    assert_eq!(made["spec"]["groups"], json!(["dev", "system:authenticated"]));
    assert_eq!(made["status"], json!({}));
    let refused = create(request("system:masters")).await.refused(403, "Forbidden");
    assert!(
        refused.ends_with("use of kubernetes.io/kube-apiserver-client signer with system:masters group is not allowed"),
        "{refused}"
    );
    let mut wrong = request("dev");
    wrong["metadata"]["name"] = json!("wrong");
    wrong["spec"]["request"] = json!(STANDARD.encode("no PEM"));
    wrong["spec"]["usages"] = json!(["flying", "client auth", "client auth"]);
    wrong["spec"]["signerName"] = json!("nobody");
    wrong["spec"]["expirationSeconds"] = json!(599);
    let refused = create(wrong).await.refused(422, "Invalid");
    for part in [
        "PEM block type must be CERTIFICATE REQUEST",
        r#"spec.usages[0]: Unsupported value: "flying""#,
        r#"spec.usages[2]: Duplicate value: "client auth""#,
        "must be a fully qualified domain and path of the form 'example.com/signer-name'",
        "may not specify a duration less than 600 seconds (10 minutes)",
    ] {
        assert!(refused.contains(part), "{part} in {refused}");
    }
}

#[tokio::test]
async fn approving_and_signing_need_the_signers_rights() {
    let server = Harness::start().await;
    let mut made = server.post(REQUESTS, request("dev")).await.expect(201);
    let (approval, status) =
        (format!("{REQUESTS}/alice/approval"), format!("{REQUESTS}/alice/status"));
    let both = &["certificatesigningrequests/approval", "certificatesigningrequests/status"];
    let write = |names: &[&str], verb: &str| {
        json!([
            { "apiGroups": ["certificates.k8s.io"], "resources": both, "verbs": ["update"] },
            rule("signers", &[verb], names),
        ])
    };
    let stranger = user(&server, "stranger", write(&["example.com/*"], "approve")).await;
    made["status"]["conditions"] = json!([condition("Approved")]);
    let refused = put(&stranger, &approval, &made).await.refused(403, "Forbidden");
    assert!(refused.contains(
        r#"user not permitted to approve requests with signerName "kubernetes.io/kube-apiserver-client""#
    ));
    let approver = user(&server, "approver", write(&["kubernetes.io/*"], "approve")).await;
    // Approval through `status` is nobody's right.
    let refused = server.put(&status, made.clone()).await.refused(422, "Invalid");
    assert!(refused.contains(r#"updates may not add a condition of type "Approved""#), "{refused}");
    let approved = put(&approver, &approval, &made).await.expect(200);
    assert!(approved["status"]["conditions"][0]["lastUpdateTime"].is_string());
    // The certificate is not the approver's business, and approval is for ever.
    let mut revoked = approved.clone();
    revoked["status"] = json!({ "certificate": STANDARD.encode("x") });
    let refused = put(&approver, &approval, &revoked).await.refused(422, "Invalid");
    assert!(refused.contains(r#"updates may not remove a condition of type "Approved""#));
    let mut both = approved.clone();
    both["status"]["conditions"] = json!([condition("Approved"), condition("Denied")]);
    let refused = put(&approver, &approval, &both).await.refused(422, "Invalid");
    assert!(refused.contains("Approved and Denied conditions are mutually exclusive"));
    let signer = user(&server, "signer", write(&[CLIENT], "sign")).await;
    let mut signed = approved.clone();
    signed["status"]["certificate"] = json!(STANDARD.encode(server.pki.ca_pem()));
    let refused = put(&approver, &status, &signed).await.refused(403, "Forbidden");
    assert!(refused.contains("user not permitted to sign requests with signerName"), "{refused}");
    let signed = put(&signer, &status, &signed).await.expect(200);
    let mut other = signed.clone();
    other["status"]["certificate"] = json!(STANDARD.encode(format!("\n{}", server.pki.ca_pem())));
    let refused = put(&signer, &status, &other).await.refused(422, "Invalid");
    assert!(refused.contains("updates may not modify existing certificate content"), "{refused}");
}

#[tokio::test]
async fn both_parts_take_annotations_and_conditions_along() {
    let server = Harness::start().await;
    server.post(REQUESTS, request("dev")).await.expect(201);
    for (part, kind, conditions) in [("approval", "ApprovalPatch", 1), ("status", "StatusPatch", 1)]
    {
        let patch = json!({
            "metadata": { "annotations": { part: "true" } },
            "status": { "conditions": [{ "type": kind, "status": "True", "reason": "e2e" }] },
        });
        let path = format!("{REQUESTS}/alice/{part}");
        let patched = server.patch(&path, "merge-patch", patch).await.expect(200);
        assert_eq!(patched["metadata"]["annotations"][part], "true");
        assert_eq!(patched["status"]["conditions"].as_array().unwrap().len(), conditions);
        assert_eq!(server.get(&path).await.expect(200)["metadata"]["name"], "alice");
    }
}

#[tokio::test]
async fn a_pods_certificate_is_asked_for_and_denied() {
    let server = Harness::start().await;
    server.namespace("shop").await;
    let requests = "/apis/certificates.k8s.io/v1/namespaces/shop/podcertificaterequests";
    let key = KeyPair::generate().unwrap();
    let stub = CertificateParams::default().serialize_request(&key).unwrap();
    let body = json!({ "metadata": { "name": "r" }, "spec": {
        "signerName": "example.com/signer", "podName": "p", "podUID": "1",
        "serviceAccountName": "default", "serviceAccountUID": "2", "nodeName": "n", "nodeUID": "3",
        "stubPKCS10Request": STANDARD.encode(stub.der()),
    } });
    let made = server.post(requests, body.clone()).await.expect(201);
    assert_eq!(made["spec"]["maxExpirationSeconds"], 86_400);
    let mut wrong = body;
    wrong["spec"]["stubPKCS10Request"] = json!("eA==");
    wrong["spec"]["maxExpirationSeconds"] = json!(1);
    let refused = server.post(requests, wrong).await.refused(422, "Invalid");
    assert!(refused.contains("must be in the range [3600, 7862400]"), "{refused}");
    let listed =
        server.get(&format!("{requests}?fieldSelector=spec.nodeName%3Dn")).await.expect(200);
    assert_eq!(listed["items"].as_array().unwrap().len(), 1);
    let mut denied = condition("Denied");
    denied["lastTransitionTime"] = json!("2026-01-01T00:00:00Z");
    denied["message"] = json!("no");
    let patch = json!({ "status": { "conditions": [denied] } });
    let path = format!("{requests}/r/status");
    let patched = server.patch(&path, "merge-patch", patch).await.expect(200);
    assert_eq!(patched["status"]["conditions"][0]["type"], "Denied");
    let patch = json!({ "status": { "conditions": [] } });
    server.patch(&path, "merge-patch", patch).await.expect(422);
}
