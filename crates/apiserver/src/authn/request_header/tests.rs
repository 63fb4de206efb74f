use http::HeaderValue;
use rustls::pki_types::pem::PemObject as _;

use super::*;
use crate::authn::tests::{Fixture, fixture};
use crate::authn::{Peer, Unauthenticated};
use crate::pki::{CertifiedPem, Sans};

fn headers(all: &[(&str, &str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in all {
        let name: HeaderName = name.parse().unwrap();
        headers.append(name, HeaderValue::from_str(value).unwrap());
    }
    headers
}

impl Fixture {
    /// Other proxies are believed than our own.
    fn behind(mut self, flags: &RequestHeaderFlags) -> Self {
        self.authenticator.proxies = RequestHeaders::new(&self.pki, flags).unwrap();
        self
    }

    fn ask(&self, own: &CertifiedPem, all: &[(&str, &str)]) -> Result<User, Unauthenticated> {
        let der = CertificateDer::from_pem_slice(own.certificate.as_bytes()).unwrap();
        let peer: Option<Peer> = self.authenticator.peer(Some(&[der]));
        self.authenticator.authenticate(peer.as_ref(), &headers(all))
    }
}

fn other_pki() -> (tempfile::TempDir, Pki) {
    let dir = tempfile::tempdir().unwrap();
    let pki = Pki::open_or_create(dir.path(), &Sans::default()).unwrap();
    (dir, pki)
}

#[tokio::test]
async fn our_front_proxy_says_who_asks() {
    let fixture = fixture().await;
    let proxy = fixture.pki.front_proxy_certificate(FRONT_PROXY).unwrap();
    let said = [
        ("X-Remote-User", "alice"),
        ("X-Remote-Uid", "u-1"),
        ("X-Remote-Group", "dev"),
        ("X-Remote-Group", "ops, too"),
        ("X-Remote-Extra-Example.com%2fScope", "a"),
        ("X-Remote-Extra-Example.com%2fScope", "b"),
        ("Authorization", "Bearer wrong"),
    ];
    let user = fixture.ask(&proxy, &said).unwrap();
    assert_eq!((user.name.as_str(), user.uid.as_str()), ("alice", "u-1"));
    assert_eq!(user.groups, ["dev", "ops, too", "system:authenticated"]);
    assert_eq!(user.extra["example.com/scope"], ["a", "b"]);
    // Without a name the proxy is a client like any other, whom our CA for clients does not know.
    fixture.ask(&proxy, &[("X-Remote-Group", "dev")]).unwrap_err();
    fixture.ask(&proxy, &[("X-Remote-User", "")]).unwrap_err();
}

#[tokio::test]
async fn nobody_else_is_believed() {
    let fixture = fixture().await;
    let said = [("X-Remote-User", "root"), ("X-Remote-Group", "system:masters")];
    let alice = fixture.pki.client_certificate("alice", &[]).unwrap();
    assert_eq!(fixture.ask(&alice, &said).unwrap().name, "alice");
    // The name alone is worth nothing, nor is the authority.
    let pretender = fixture.pki.client_certificate(FRONT_PROXY, &[]).unwrap();
    assert_eq!(fixture.ask(&pretender, &said).unwrap().name, FRONT_PROXY);
    let misnamed = fixture.pki.front_proxy_certificate("other").unwrap();
    fixture.ask(&misnamed, &said).unwrap_err();
    let (_dir, other) = other_pki();
    fixture.ask(&other.front_proxy_certificate(FRONT_PROXY).unwrap(), &said).unwrap_err();
    let nobody = fixture.authenticator.authenticate(None, &headers(&said)).unwrap();
    assert_eq!(nobody, User::anonymous());
}

#[tokio::test]
async fn proxies_of_another_authority_use_its_headers() {
    let (_dir, other) = other_pki();
    let flags = RequestHeaderFlags {
        client_ca_pem: Some(other.front_proxy_ca_pem().to_owned()),
        allowed_names: vec!["gate".to_owned()],
        username_headers: vec!["X-Gate-User".to_owned(), " X-Remote-User ".to_owned()],
        group_headers: vec!["X-Gate-Group".to_owned()],
        extra_headers_prefix: vec![String::new(), "X-Gate-".to_owned()],
        ..RequestHeaderFlags::default()
    };
    let fixture = fixture().await.behind(&flags);
    let gate = other.front_proxy_certificate("gate").unwrap();
    let said = [("X-Remote-User", "bob"), ("X-Gate-User", "alice"), ("X-Gate-Group", "dev")];
    let user = fixture.ask(&gate, &said).unwrap();
    assert_eq!((user.name.as_str(), user.groups[0].as_str()), ("alice", "dev"));
    assert_eq!(fixture.ask(&gate, &said[..1]).unwrap().name, "bob");
    // Each name is good under its own authority alone.
    fixture.ask(&other.front_proxy_certificate(FRONT_PROXY).unwrap(), &said).unwrap_err();
    fixture.ask(&fixture.pki.front_proxy_certificate("gate").unwrap(), &said).unwrap_err();
    let ours = fixture.pki.front_proxy_certificate(FRONT_PROXY).unwrap();
    assert_eq!(fixture.ask(&ours, &said).unwrap().name, "alice");

    let published = fixture.authenticator.proxies().published();
    let of = |key: &str| published.iter().find(|(name, _)| *name == key).unwrap().1.clone();
    assert_eq!(of("requestheader-allowed-names"), r#"["front-proxy-client","gate"]"#);
    assert_eq!(of("requestheader-username-headers"), r#"["X-Gate-User","X-Remote-User"]"#);
    assert_eq!(of("requestheader-extra-headers-prefix"), r#"["X-Gate-"]"#);
    assert_eq!(of("requestheader-client-ca-file").matches("BEGIN CERTIFICATE").count(), 2);
    let any = RequestHeaderFlags { allowed_names: Vec::new(), ..flags };
    let any = fixture.behind(&any);
    assert_eq!(any.authenticator.proxies().published()[0].1, "[]");
    any.ask(&other.front_proxy_certificate("whoever").unwrap(), &said).unwrap();
}

#[tokio::test]
async fn what_proxies_say_is_taken_away() {
    let flags = RequestHeaderFlags {
        username_headers: vec!["X-Gate-User".to_owned()],
        ..RequestHeaderFlags::default()
    };
    let fixture = fixture().await.behind(&flags);
    let mut all = headers(&[
        ("X-Remote-User", "a"),
        ("X-Remote-Group", "b"),
        ("X-Remote-Group", "c"),
        ("X-Remote-Uid", "d"),
        ("X-Remote-Extra-Scopes", "e"),
        ("X-Gate-User", "f"),
        ("X-Remote-Control", "stays"),
    ]);
    fixture.authenticator.proxies().strip(&mut all);
    let left: Vec<&str> = all.keys().map(HeaderName::as_str).collect();
    assert_eq!(left, ["x-remote-control"]);
}
