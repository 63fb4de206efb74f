use std::sync::atomic::{AtomicUsize, Ordering};

use axum::Router;
use axum::routing::get;
use jsonwebtoken::{EncodingKey, Header};
use rcgen::{KeyPair, PublicKeyData as _};
use serde_json::json;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::*;
use crate::pki::{Pki, Sans};

/// An issuer on this machine, over TLS.
struct Fake {
    url: String,
    ca: String,
    key: KeyPair,
    asked: Arc<AtomicUsize>,
    _directory: tempfile::TempDir,
}

impl Fake {
    async fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let sans = Sans { names: Vec::new(), addresses: vec![[127, 0, 0, 1].into()] };
        let pki = Pki::open_or_create(directory.path(), &sans).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("https://{}", listener.local_addr().unwrap());
        let key = KeyPair::generate().unwrap();
        let (x, y) = key.der_bytes()[1..].split_at(32);
        let encode = |part: &[u8]| URL_SAFE_NO_PAD.encode(part);
        let keys = json!({ "keys": [
            { "kty": "weird", "kid": "other" },
            { "kty": "EC", "crv": "P-256", "alg": "ES256", "use": "sig", "kid": "one", "x": encode(x), "y": encode(y) },
        ] });
        let asked = Arc::new(AtomicUsize::new(0));
        let count = asked.clone();
        let discovery = json!({ "issuer": url, "jwks_uri": format!("{url}/keys") });
        let router = Router::new()
            .route("/.well-known/openid-configuration", get(async move || discovery.to_string()))
            .route(
                "/keys",
                get(async move || {
                    count.fetch_add(1, Ordering::SeqCst);
                    keys.to_string()
                }),
            );
        let acceptor = TlsAcceptor::from(pki.server_config("").unwrap());
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, router) = (acceptor.clone(), router.clone());
                tokio::spawn(async move {
                    let Ok(stream) = acceptor.accept(stream).await else { return };
                    let service = hyper_util::service::TowerToHyperService::new(router);
                    let stream = hyper_util::rt::TokioIo::new(stream);
                    hyper::server::conn::http1::Builder::new()
                        .serve_connection(stream, service)
                        .await
                        .ok();
                });
            }
        });
        let ca = pki.ca_pem().to_owned();
        Self { url, ca, key, asked, _directory: directory }
    }

    fn token(&self, kid: &str, change: Value) -> String {
        let mut claims = json!({
            "iss": self.url, "aud": ["kubernetes"], "sub": "alice", "groups": ["dev"], "team": "a",
            "exp": Timestamp::now().as_second() + 600,
        });
        for (name, value) in change.as_object().unwrap() {
            claims[name] = value.clone();
        }
        let header = Header { kid: Some(kid.to_owned()), ..Header::new(Algorithm::ES256) };
        let key = EncodingKey::from_ec_pem(self.key.serialize_pem().as_bytes()).unwrap();
        jsonwebtoken::encode(&header, &claims, &key).unwrap()
    }

    fn oidc(&self) -> Arc<Oidc> {
        let file = json!({
            "apiVersion": "apiserver.config.k8s.io/v1", "kind": "AuthenticationConfiguration",
            "jwt": [{
                "issuer": { "url": self.url, "certificateAuthority": self.ca, "audiences": ["kubernetes", "other"], "audienceMatchPolicy": "MatchAny" },
                "claimMappings": { "username": { "claim": "sub", "prefix": "corp:" }, "groups": { "claim": "groups", "prefix": "corp:" } },
                "claimValidationRules": [{ "claim": "team", "requiredValue": "a" }],
            }],
        });
        Oidc::from_yaml(&file.to_string()).unwrap()
    }
}

async fn user(oidc: &Oidc, token: &str) -> Option<User> {
    oidc.prepare(token).await;
    oidc.user(token, Timestamp::now())
}

#[tokio::test]
async fn a_token_of_a_trusted_issuer_makes_a_user() {
    let fake = Fake::start().await;
    let oidc = fake.oidc();
    let alice = user(&oidc, &fake.token("one", json!({}))).await.unwrap();
    assert_eq!(alice.name, "corp:alice");
    assert_eq!(alice.groups, ["corp:dev", "system:authenticated"]);
    let now = Timestamp::now().as_second();
    for wrong in [
        json!({ "exp": now - 1 }),
        json!({ "nbf": now + 600 }),
        json!({ "aud": "bank" }),
        json!({ "iss": "https://example.com" }),
        json!({ "team": "b" }),
        json!({ "sub": "" }),
        json!({ "groups": 7 }),
    ] {
        assert_eq!(user(&oidc, &fake.token("one", wrong.clone())).await, None, "{wrong}");
    }
    let mut forged = fake.token("one", json!({}));
    forged.truncate(forged.len() - 4);
    forged.push_str("AAAA");
    assert_eq!(user(&oidc, &forged).await, None);
    // Keys that are not there are asked for once, and then not for a while.
    for kid in ["two", "three"] {
        assert_eq!(user(&oidc, &fake.token(kid, json!({}))).await, None);
    }
    assert_eq!(fake.asked.load(Ordering::SeqCst), 1);
    // An issuer behind another CA is not believed.
    let other = Fake::start().await;
    let stranger = Fake { ca: other.ca.clone(), ..fake };
    assert_eq!(user(&stranger.oidc(), &stranger.token("one", json!({}))).await, None);
}

#[tokio::test]
async fn the_flags_say_the_same_with_upstreams_defaults() {
    let fake = Fake::start().await;
    let mut flags = OidcFlags {
        issuer_url: fake.url.clone(),
        client_id: "kubernetes".to_owned(),
        ca_pem: Some(fake.ca.clone()),
        groups_claim: "groups".to_owned(),
        ..OidcFlags::default()
    };
    let token = fake.token("one", json!({ "groups": "dev", "email": "a@example.com" }));
    let alice = user(&Oidc::from_flags(&flags).unwrap(), &token).await.unwrap();
    assert_eq!(alice.name, format!("{}#alice", fake.url));
    assert_eq!(alice.groups, ["dev", "system:authenticated"]);
    flags.username_claim = "email".to_owned();
    let alice = user(&Oidc::from_flags(&flags).unwrap(), &token).await.unwrap();
    assert_eq!(alice.name, "a@example.com");
    let unsure = fake.token("one", json!({ "email": "a@example.com", "email_verified": false }));
    assert_eq!(user(&Oidc::from_flags(&flags).unwrap(), &unsure).await, None);
    flags.issuer_url = "http://example.com".to_owned();
    assert!(Oidc::from_flags(&flags).is_err());
}

/// A file with one issuer, changed by these members of it.
fn file(url: &str, changes: Value) -> Value {
    let mut jwt = json!({
        "issuer": { "url": url, "audiences": ["kubernetes"] },
        "claimMappings": { "username": { "claim": "sub", "prefix": "" } },
    });
    for (pointer, value) in changes.as_object().unwrap() {
        let (parent, field) = pointer.rsplit_once('/').unwrap();
        jwt.pointer_mut(parent).unwrap()[field] = value.clone();
    }
    json!({
        "apiVersion": "apiserver.config.k8s.io/v1", "kind": "AuthenticationConfiguration", "jwt": [jwt],
    })
}

#[tokio::test]
async fn expressions_make_a_user_of_claims() {
    let fake = Fake::start().await;
    let changes = json!({
        "/issuer/certificateAuthority": fake.ca,
        "/claimMappings/username": { "expression": "claims.email_verified ? 'corp:' + claims.email : ''" },
        "/claimMappings/groups": { "expression": "claims.roles.split(',')" },
        "/claimMappings/uid": { "expression": "claims.sub" },
        "/claimMappings/extra": [
            { "key": "example.com/tenant", "valueExpression": "claims.?tenant.orValue('')" },
            { "key": "example.com/places", "valueExpression": "claims.places" },
        ],
        "/claimValidationRules": [
            { "expression": "claims.exp - claims.iat <= 900", "message": "too long" },
            { "claim": "team", "requiredValue": "a" },
        ],
        "/userValidationRules": [{ "expression": "user.groups.all(group, !group.startsWith('system:'))", "message": "reserved" }],
    });
    let oidc = Oidc::from_yaml(&file(&fake.url, changes).to_string()).unwrap();
    let now = Timestamp::now().as_second();
    let claims = |change: Value| {
        let mut claims = json!({
            "email": "a@example.com", "email_verified": true, "roles": "dev,ops", "places": ["x", "y"], "iat": now,
        });
        for (name, value) in change.as_object().unwrap() {
            claims[name] = value.clone();
        }
        claims
    };
    let alice = user(&oidc, &fake.token("one", claims(json!({})))).await.unwrap();
    assert_eq!((alice.name.as_str(), alice.uid.as_str()), ("corp:a@example.com", "alice"));
    assert_eq!(alice.groups, ["dev", "ops", "system:authenticated"]);
    assert_eq!(alice.extra["example.com/places"], ["x", "y"]);
    assert!(!alice.extra.contains_key("example.com/tenant"), "what is empty is left out");
    for wrong in [
        json!({ "email_verified": false }),
        json!({ "email_verified": "yes" }),
        json!({ "roles": "dev,system:masters" }),
        json!({ "roles": 1 }),
        json!({ "roles": null }),
        json!({ "places": [1] }),
        json!({ "iat": now - 3600 }),
        json!({ "iat": "now" }),
        json!({ "sub": 5 }),
        json!({ "team": "b" }),
    ] {
        let token = fake.token("one", claims(wrong.clone()));
        assert_eq!(user(&oidc, &token).await, None, "{wrong}");
    }
}

#[test]
fn files_that_make_no_sense_are_refused_with_their_place() {
    let refused = |changes: Value| {
        let file = file("https://issuer.example.com", changes).to_string();
        Oidc::from_yaml(&file).err().expect("refused").to_string()
    };
    let username = "jwt[0].claimMappings.username";
    for (changes, wanted) in [
        (
            json!({ "/issuer/url": "http://x" }),
            "jwt[0].issuer.url: Invalid value: \"http://x\": URL scheme must be https",
        ),
        (json!({ "/issuer/url": "" }), "jwt[0].issuer.url: Required value: URL is required"),
        (json!({ "/issuer/url": "https://a:b@x" }), "URL must not contain a username or password"),
        (
            json!({ "/issuer/discoveryURL": "https://issuer.example.com/" }),
            "discoveryURL must be different from URL",
        ),
        (
            json!({ "/issuer/audiences": [] }),
            "jwt[0].issuer.audiences: Required value: at least one jwt[0].issuer.audiences is required",
        ),
        (
            json!({ "/issuer/audiences": ["a", "b"] }),
            "audienceMatchPolicy must be MatchAny for multiple audiences",
        ),
        (
            json!({ "/claimMappings/username": { "claim": "sub" } }),
            "prefix is required when claim is set",
        ),
        (
            json!({ "/claimMappings/username": {} }),
            &*format!("{username}: Required value: claim or expression is required"),
        ),
        (
            json!({ "/claimMappings/username": { "claim": "a", "expression": "'a'" } }),
            "claim and expression can't both be set",
        ),
        (json!({ "/claimMappings/username": { "expression": "1" } }), "must evaluate to string"),
        (
            json!({ "/claimMappings/username": { "expression": "claims." } }),
            "compilation failed: ERROR: <input>:1:8",
        ),
        (
            json!({ "/claimMappings/username": { "expression": "claims.email" } }),
            "claims.email_verified must be used in",
        ),
        (
            json!({ "/claimMappings/groups": { "expression": "true" } }),
            "jwt[0].claimMappings.groups.expression: Invalid value: \"true\": must evaluate to one of [string",
        ),
        (
            json!({ "/claimMappings/extra": [{ "key": "Foo", "valueExpression": "'a'" }] }),
            "must be a domain-prefixed path",
        ),
        (
            json!({ "/claimMappings/extra": [{ "key": "a.k8s.io/b", "valueExpression": "'a'" }] }),
            "are reserved for Kubernetes use",
        ),
        (json!({ "/claimMappings/extra": [{ "key": "x.io/b" }] }), "valueExpression is required"),
        (
            json!({ "/claimValidationRules": [{ "expression": "'a'" }] }),
            "jwt[0].claimValidationRules[0].expression: Invalid value: \"'a'\": must evaluate to bool",
        ),
        (
            json!({ "/claimValidationRules": [{ "claim": "a", "message": "m" }] }),
            "message can't be set when claim is set",
        ),
        (
            json!({ "/userValidationRules": [{ "expression": "user.name == 'a'" }] }),
            "undefined field 'name'",
        ),
        (json!({ "/userValidationRules": [{}] }), "expression is required"),
    ] {
        let found = refused(changes.clone());
        assert!(found.contains(wanted), "{changes}: {found}");
    }
    let both = json!({
        "apiVersion": "apiserver.config.k8s.io/v1beta1", "kind": "AuthenticationConfiguration",
        "anonymous": { "enabled": false, "conditions": [{ "path": "/livez" }] },
    });
    let found = Oidc::from_yaml(&both.to_string()).err().expect("refused").to_string();
    assert!(found.contains("anonymous.conditions: Invalid value"), "{found}");
    assert!(found.contains("enabled should be set to true when conditions are defined"), "{found}");
}
