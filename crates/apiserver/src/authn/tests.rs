use coracle_store::Store;
use http::HeaderValue;
use jiff::SignedDuration;
use rustls::pki_types::pem::PemObject as _;
use serde_json::json;

use super::*;
use crate::authz::tests::{delete, put, store};
use crate::pki::Sans;

pub(crate) struct Fixture {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) store: Store,
    pub(crate) pki: Pki,
    pub(crate) tokens: Arc<TokenIssuer>,
    pub(crate) authenticator: Authenticator,
}

pub(crate) async fn fixture() -> Fixture {
    let (dir, store) = store().await;
    let pki = Pki::open_or_create(&dir.path().join("pki"), &Sans::default()).unwrap();
    put(&store, "serviceaccounts", json!({ "metadata": { "namespace": "shop", "name": "bot", "uid": "sa-1" } })).await;
    let tokens = Arc::new(TokenIssuer::new(&pki, store.clone()).unwrap());
    let authenticator = Authenticator::new(&pki, tokens.clone(), store.clone()).unwrap();
    Fixture { dir, store, pki, tokens, authenticator }
}

fn der(pem: &str) -> Vec<CertificateDer<'static>> {
    vec![CertificateDer::from_pem_slice(pem.as_bytes()).unwrap()]
}

fn bearer(token: &str) -> HeaderMap {
    HeaderMap::from_iter([(header::AUTHORIZATION, HeaderValue::from_str(&format!("Bearer {token}")).unwrap())])
}

impl Fixture {
    fn with_certificate(&self, pem: &str, headers: &HeaderMap, now: Timestamp) -> Result<User, Unauthenticated> {
        let peer = self.authenticator.peer(Some(&der(pem)));
        self.authenticator.authenticate_at(peer.as_ref(), headers, now)
    }

    pub(crate) fn token(&self, spec: serde_json::Value) -> String {
        crate::tokens::tests::token(&self.tokens, spec)
    }
}

#[tokio::test]
async fn no_credentials_are_nobody() {
    let fixture = fixture().await;
    let nobody = fixture.authenticator.authenticate(None, &HeaderMap::new()).unwrap();
    assert_eq!(nobody, User::anonymous());
    assert!(!nobody.is_in("system:authenticated"));
    assert!(fixture.authenticator.peer(None).is_none());
    assert!(fixture.authenticator.peer(Some(&[])).is_none());
    let basic = HeaderMap::from_iter([(header::AUTHORIZATION, HeaderValue::from_static("Basic YWRtaW46YWRtaW4="))]);
    assert_eq!(fixture.authenticator.authenticate(None, &basic).unwrap(), User::anonymous());
}

#[tokio::test]
async fn a_certificate_names_its_user_and_groups() {
    let fixture = fixture().await;
    let own = fixture.pki.client_certificate("alice", &["dev", "ops"]).unwrap();
    let user = fixture.with_certificate(&own.certificate, &HeaderMap::new(), Timestamp::now()).unwrap();
    assert_eq!(user.name, "alice");
    assert_eq!(user.groups, ["dev", "ops", "system:authenticated"]);
    assert!(user.extra["authentication.kubernetes.io/credential-id"][0].starts_with("X509SHA256="));
}

#[tokio::test]
async fn certificates_of_strangers_servers_and_the_past_are_refused() {
    let fixture = fixture().await;
    let now = Timestamp::now();
    let other_dir = tempfile::tempdir().unwrap();
    let other = Pki::open_or_create(other_dir.path(), &Sans::default()).unwrap();
    let stranger = other.client_certificate("alice", &["system:masters"]).unwrap();
    fixture.with_certificate(&stranger.certificate, &HeaderMap::new(), now).unwrap_err();
    let server = fixture.pki.serving_certificate("n0", &[]).unwrap();
    fixture.with_certificate(&server.certificate, &HeaderMap::new(), now).unwrap_err();
    let garbage = [CertificateDer::from(vec![1, 2, 3])];
    let peer = fixture.authenticator.peer(Some(&garbage));
    fixture.authenticator.authenticate(peer.as_ref(), &HeaderMap::new()).unwrap_err();
    // A connection may outlive the certificate that opened it.
    let own = fixture.pki.client_certificate("alice", &[]).unwrap();
    let in_a_year = now + SignedDuration::from_hours(366 * 24);
    let error = fixture.with_certificate(&own.certificate, &HeaderMap::new(), in_a_year).unwrap_err();
    assert_eq!(Status::from(error).code, 401);
}

#[tokio::test]
async fn a_valid_token_helps_beside_a_wrong_certificate_and_not_the_reverse() {
    let fixture = fixture().await;
    let other_dir = tempfile::tempdir().unwrap();
    let other = Pki::open_or_create(other_dir.path(), &Sans::default()).unwrap();
    let stranger = other.client_certificate("alice", &[]).unwrap().certificate;
    let token = fixture.token(json!({}));
    let now = Timestamp::now();
    assert_eq!(fixture.with_certificate(&stranger, &bearer(&token), now).unwrap().name, "system:serviceaccount:shop:bot");
    let own = fixture.pki.client_certificate("alice", &[]).unwrap().certificate;
    assert_eq!(fixture.with_certificate(&own, &bearer("wrong"), now).unwrap().name, "alice");
    fixture.with_certificate(&stranger, &bearer("wrong"), now).unwrap_err();
}

#[tokio::test]
async fn tokens_that_are_wrong_expired_or_for_others_are_refused() {
    let fixture = fixture().await;
    let ask = |token: &str, now| fixture.authenticator.authenticate_at(None, &bearer(token), now);
    let token = fixture.token(json!({}));
    let now = Timestamp::now();
    assert_eq!(ask(&token, now).unwrap().uid, "sa-1");
    let after = now + SignedDuration::from_secs(3601);
    assert_eq!(ask(&token, after).unwrap_err().to_string(), "service account token has expired");
    ask("garbage", now).unwrap_err();
    ask(&fixture.token(json!({ "audiences": ["vault"] })), now).unwrap_err();
    let mut lower = HeaderMap::new();
    lower.insert(header::AUTHORIZATION, HeaderValue::from_str(&format!("bearer  {token}")).unwrap());
    fixture.authenticator.authenticate(None, &lower).unwrap();
}

#[tokio::test]
async fn a_remembered_token_is_refused_as_soon_as_its_account_is_gone() {
    let fixture = fixture().await;
    let headers = bearer(&fixture.token(json!({})));
    fixture.authenticator.authenticate(None, &headers).unwrap();
    fixture.authenticator.authenticate(None, &headers).unwrap();
    assert_eq!(fixture.authenticator.cache.len(), 1);
    delete(&fixture.store, "serviceaccounts", "shop", "bot").await;
    fixture.authenticator.authenticate(None, &headers).unwrap_err();
    assert_eq!(fixture.authenticator.cache.len(), 0);
    fixture.authenticator.authenticate(None, &headers).unwrap_err();
    put(&fixture.store, "serviceaccounts", json!({ "metadata": { "namespace": "shop", "name": "bot", "uid": "sa-2" } })).await;
    fixture.authenticator.authenticate(None, &headers).unwrap_err();
}

#[tokio::test]
async fn a_refused_token_is_not_remembered() {
    let fixture = fixture().await;
    fixture.authenticator.authenticate(None, &bearer("x.y.z")).unwrap_err();
    assert_eq!(fixture.authenticator.cache.len(), 0);
    assert!(fixture.dir.path().exists());
}
