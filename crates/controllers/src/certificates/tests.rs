use base64::Engine as _;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, KeyPair, SanType,
};
use serde_json::{Value, json};

use super::{SigningCa, approve, clean, sign};
use coracle_api::certificates::{Request, pem_blocks};

fn pkcs10(name: &str, group: &str, sans: &[&str]) -> String {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::OrganizationName, group);
    params.distinguished_name.push(DnType::CommonName, name);
    for san in sans {
        params.subject_alt_names.push(SanType::DnsName((*san).try_into().unwrap()));
    }
    let key = KeyPair::generate().unwrap();
    params.serialize_request(&key).unwrap().pem().unwrap()
}

fn request(signer: &str, pem: &str, usages: &[&str], status: Value) -> CertificateSigningRequest {
    let encoded = base64::engine::general_purpose::STANDARD.encode(pem);
    serde_json::from_value(json!({
        "metadata": { "name": "r", "creationTimestamp": "2026-01-01T00:00:00Z" },
        "spec": { "signerName": signer, "request": encoded, "usages": usages, "username": "system:node:n1" },
        "status": status,
    }))
    .unwrap()
}

fn approved() -> Value {
    json!({ "conditions": [{ "type": "Approved", "status": "True", "lastUpdateTime": "2026-01-01T00:10:00Z" }] })
}

const CLIENT: [&str; 2] = ["client auth", "digital signature"];
const KUBELET: &str = "kubernetes.io/kube-apiserver-client-kubelet";

#[test]
fn only_kubelets_are_approved_without_a_person() {
    let tried = |signer: &str, pem: &str, usages: &[&str], status: Value| -> Vec<&str> {
        let permissions = approve::permissions(&request(signer, pem, usages, status));
        permissions.iter().map(|permission| permission.subresource).collect()
    };
    let own = pkcs10("system:node:n1", "system:nodes", &[]);
    let other = pkcs10("system:node:n2", "system:nodes", &[]);
    assert_eq!(tried(KUBELET, &own, &CLIENT, json!({})), ["selfnodeclient", "nodeclient"]);
    assert_eq!(tried(KUBELET, &other, &CLIENT, json!({})), ["nodeclient"]);
    let none: [&str; 0] = [];
    assert_eq!(tried(KUBELET, &own, &CLIENT, approved()), none);
    assert_eq!(tried("kubernetes.io/kube-apiserver-client", &own, &CLIENT, json!({})), none);
    assert_eq!(tried(KUBELET, &pkcs10("alice", "system:nodes", &[]), &CLIENT, json!({})), none);
    assert_eq!(tried(KUBELET, &pkcs10("system:node:n1", "x", &[]), &CLIENT, json!({})), none);
    let named = pkcs10("system:node:n1", "system:nodes", &["n1"]);
    assert_eq!(tried(KUBELET, &named, &CLIENT, json!({})), none);
    assert_eq!(tried(KUBELET, &own, &["server auth"], json!({})), none);
}

#[test]
fn a_signer_signs_what_keeps_its_rules_and_fails_the_rest() {
    let check = |signer: &str, pem: &str, usages: &[&str], expected: &str| {
        let found = match sign::plan(&request(signer, pem, usages, approved())) {
            sign::Step::Wait => "wait".to_owned(),
            sign::Step::Fail(why) => why,
            sign::Step::Sign(_) => "sign".to_owned(),
        };
        assert_eq!(found, expected);
    };
    let client = "kubernetes.io/kube-apiserver-client";
    let serving = "kubernetes.io/kubelet-serving";
    let alice = pkcs10("alice", "dev", &[]);
    check(client, &alice, &["client auth"], "sign");
    check(client, &alice, &["server auth"], "invalid usage for client certificate: server auth");
    check(
        client,
        &alice,
        &["digital signature"],
        "missing required usage for client certificate: client auth",
    );
    check("example.com/other", &alice, &["client auth"], "wait");
    check(serving, &alice, &["server auth"], "subject organization is not system:nodes");
    let node = pkcs10("system:node:n1", "system:nodes", &[]);
    check(serving, &node, &["server auth"], "DNS or IP subjectAltName is required");
    let named = pkcs10("system:node:n1", "system:nodes", &["n1"]);
    check(serving, &named, &["server auth", "digital signature"], "sign");
    check(
        serving,
        &named,
        &["client auth"],
        "usages did not match [digital signature key encipherment server auth]",
    );
    let pending = request(client, &alice, &["client auth"], json!({}));
    assert_eq!(sign::plan(&pending), sign::Step::Wait);
}

#[test]
fn a_certificate_says_what_was_asked_and_for_how_long() {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.not_after = time::OffsetDateTime::now_utc() + time::Duration::days(3650);
    let key = KeyPair::generate().unwrap();
    let certificate = params.self_signed(&key).unwrap();
    let ca = SigningCa::new(&certificate.pem(), &key.serialize_pem()).unwrap();
    let asked = Request::from_pem(pkcs10("alice", "dev", &["a.example"]).as_bytes()).unwrap();
    let now = Timestamp::from_second(Timestamp::now().as_second()).unwrap();
    let lives = |seconds: Option<i32>| {
        let usages = ["client auth".to_owned(), "digital signature".to_owned()];
        let pem = ca.sign(&asked, &usages, seconds, now).unwrap();
        let block = pem_blocks(pem.as_bytes()).remove(0);
        let (rest, read) = x509_parser::parse_x509_certificate(&block.der).unwrap();
        assert!(rest.is_empty());
        let (_, authority) = x509_parser::parse_x509_certificate(certificate.der()).unwrap();
        read.verify_signature(Some(authority.public_key())).unwrap();
        assert_eq!(read.subject().to_string(), "O=dev, CN=alice");
        assert_eq!(read.issuer(), authority.subject());
        assert!(!read.is_ca());
        let purposes = read.extended_key_usage().unwrap().unwrap().value;
        assert!(purposes.client_auth && !purposes.server_auth);
        assert!(read.key_usage().unwrap().unwrap().value.digital_signature());
        let names = &read.subject_alternative_name().unwrap().unwrap().value.general_names;
        assert_eq!(names.len(), 1);
        let end = Timestamp::from_second(read.validity().not_after.timestamp()).unwrap();
        end.duration_since(now)
    };
    let year = SignedDuration::from_hours(365 * 24) - SignedDuration::from_mins(5);
    assert_eq!(lives(None), year);
    assert_eq!(lives(Some(i32::MAX)), year);
    assert_eq!(lives(Some(3600)), SignedDuration::from_hours(1));
    assert_eq!(lives(Some(1)), SignedDuration::from_mins(10));
}

#[test]
fn requests_go_when_they_are_of_no_use() {
    let check = |status: Value, expected: &str| {
        let end = clean::end(&request(KUBELET, "", &[], status)).unwrap();
        assert_eq!(end.to_string(), expected);
    };
    check(json!({}), "2026-01-02T00:00:00Z");
    check(approved(), "2026-01-02T00:10:00Z");
    let mut issued = approved();
    issued["certificate"] = json!("eA==");
    check(issued, "2026-01-01T01:10:00Z");
    let denied = approved().to_string().replace("Approved", "Denied");
    check(serde_json::from_str(&denied).unwrap(), "2026-01-01T01:10:00Z");
}
