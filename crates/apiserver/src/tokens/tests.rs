use jiff::SignedDuration;

use super::verify::Refused;
use super::*;
use crate::authz::tests::{delete, put, store};
use crate::pki::Sans;

pub(crate) async fn issuer() -> (tempfile::TempDir, Store, TokenIssuer) {
    let (dir, store) = store().await;
    let pki = Pki::open_or_create(&dir.path().join("pki"), &Sans::default()).unwrap();
    put(
        &store,
        "serviceaccounts",
        json!({ "metadata": { "namespace": "shop", "name": "bot", "uid": "sa-1" } }),
    )
    .await;
    let issuer = TokenIssuer::new(&pki, store.clone()).unwrap();
    (dir, store, issuer)
}

fn own() -> [String; 1] {
    [ISSUER.to_owned()]
}

fn pod(uid: &str) -> Value {
    json!({
        "metadata": { "namespace": "shop", "name": "web", "uid": uid },
        "spec": { "serviceAccountName": "bot", "nodeName": "n0" },
    })
}

pub(crate) fn token(issuer: &TokenIssuer, spec: Value) -> String {
    let answer = issuer.issue("shop", "bot", json!({ "spec": spec })).unwrap();
    answer["status"]["token"].as_str().unwrap().to_owned()
}

fn refusal(issuer: &TokenIssuer, spec: Value) -> (u16, String) {
    let status = issuer.issue("shop", "bot", json!({ "spec": spec })).unwrap_err();
    (status.code, status.message)
}

#[tokio::test]
async fn a_token_says_who_it_is_for_how_long_and_for_whom() {
    let (_dir, store, issuer) = issuer().await;
    put(&store, "pods", pod("pod-1")).await;
    put(&store, "nodes", json!({ "metadata": { "name": "n0", "uid": "node-1" } })).await;
    let now = Timestamp::now();
    let spec = json!({ "expirationSeconds": 700, "boundObjectRef": { "apiVersion": "v1", "kind": "Pod", "name": "web", "uid": "pod-1" } });
    let answer = issuer.issue_at("shop", "bot", json!({ "spec": spec }), now).unwrap();
    assert_eq!(answer["kind"], "TokenRequest");
    assert_eq!(answer["metadata"]["name"], "bot");
    assert_eq!(answer["spec"]["audiences"], json!([ISSUER]));
    let expires: Timestamp =
        answer["status"]["expirationTimestamp"].as_str().unwrap().parse().unwrap();
    assert_eq!(expires.as_second(), now.as_second() + 700);
    let verified = issuer.verify(answer["status"]["token"].as_str().unwrap(), &own(), now).unwrap();
    assert_eq!(verified.user.name, "system:serviceaccount:shop:bot");
    assert_eq!(verified.user.uid, "sa-1");
    assert!(
        verified.user.is_in("system:serviceaccounts:shop")
            && verified.user.is_in("system:authenticated")
    );
    let extra =
        |key: &str| verified.user.extra[&format!("authentication.kubernetes.io/{key}")][0].clone();
    assert_eq!(
        [extra("pod-name"), extra("pod-uid"), extra("node-name"), extra("node-uid")],
        ["web", "pod-1", "n0", "node-1"]
    );
    assert!(extra("credential-id").starts_with("JTI="));
}

#[tokio::test]
async fn a_token_ends_when_its_time_is_over() {
    let (_dir, _store, issuer) = issuer().await;
    let now = Timestamp::now();
    let answer = issuer.issue_at("shop", "bot", json!({}), now).unwrap();
    let token = answer["status"]["token"].as_str().unwrap();
    let after = |seconds| now + SignedDuration::from_secs(seconds);
    issuer.verify(token, &own(), after(3598)).unwrap();
    assert_eq!(issuer.verify(token, &own(), after(3600)).unwrap_err(), Refused::Expired);
    assert_eq!(issuer.verify(token, &own(), after(-10)).unwrap_err(), Refused::NotYet);
}

#[tokio::test]
async fn a_token_for_another_audience_is_refused() {
    let (_dir, _store, issuer) = issuer().await;
    let vault = token(&issuer, json!({ "audiences": ["vault", "bank"] }));
    let refused = issuer.verify(&vault, &own(), Timestamp::now()).unwrap_err();
    assert_eq!(
        refused.to_string(),
        r#"token audiences ["vault" "bank"] is invalid for the target audiences ["https://kubernetes.default.svc.cluster.local"]"#
    );
    let wanted = ["bank".to_owned(), "other".to_owned()];
    assert_eq!(issuer.verify(&vault, &wanted, Timestamp::now()).unwrap().audiences, ["bank"]);
}

#[tokio::test]
async fn a_token_dies_with_its_account_pod_secret_or_node() {
    let cases = [
        ("serviceaccounts", "shop", "bot", Value::Null),
        ("pods", "shop", "web", json!({ "apiVersion": "v1", "kind": "Pod", "name": "web" })),
        ("secrets", "shop", "key", json!({ "apiVersion": "v1", "kind": "Secret", "name": "key" })),
        ("nodes", "", "n0", json!({ "apiVersion": "v1", "kind": "Node", "name": "n0" })),
    ];
    for (resource, namespace, name, reference) in cases {
        let (_dir, store, issuer) = issuer().await;
        put(&store, "pods", pod("pod-1")).await;
        put(
            &store,
            "secrets",
            json!({ "metadata": { "namespace": "shop", "name": "key", "uid": "s-1" } }),
        )
        .await;
        put(&store, "nodes", json!({ "metadata": { "name": "n0", "uid": "n-1" } })).await;
        let token = token(&issuer, json!({ "boundObjectRef": reference }));
        let now = Timestamp::now();
        let mut verified = issuer.verify(&token, &own(), now).unwrap();
        verified.recheck(&store, now).unwrap();
        // Being deleted is not yet gone, for a while.
        let deleted = coracle_api::time::seconds(now);
        let mut dying = if resource == "pods" {
            pod("pod-1")
        } else {
            serde_json::from_slice(&stored(&store, resource, namespace, name).unwrap().bytes)
                .unwrap()
        };
        dying["metadata"]["deletionTimestamp"] = deleted.into();
        put(&store, resource, dying).await;
        verified.recheck(&store, now).unwrap();
        let later = now + SignedDuration::from_secs(70);
        assert!(matches!(verified.recheck(&store, later), Err(Refused::Revoked(_))), "{resource}");
        delete(&store, resource, namespace, name).await;
        assert!(matches!(verified.recheck(&store, now), Err(Refused::Revoked(_))), "{resource}");
        // One of the same name is another one.
        put(
            &store,
            resource,
            json!({ "metadata": { "namespace": namespace, "name": name, "uid": "new" } }),
        )
        .await;
        assert!(
            matches!(issuer.verify(&token, &own(), now), Err(Refused::Revoked(_))),
            "{resource}"
        );
    }
}

#[tokio::test]
async fn changed_and_foreign_tokens_are_refused() {
    let (_dir, _store, issuer) = issuer().await;
    let good = token(&issuer, json!({}));
    let parts: Vec<&str> = good.split('.').collect();
    let forged_claims = URL_SAFE_NO_PAD.encode(
        String::from_utf8(URL_SAFE_NO_PAD.decode(parts[1]).unwrap())
            .unwrap()
            .replace("shop", "bank"),
    );
    let no_algorithm = URL_SAFE_NO_PAD.encode(r#"{"alg":"none"}"#);
    let hmac = jsonwebtoken::encode(
        &Header::new(Algorithm::HS256),
        &json!({ "iss": ISSUER, "exp": 9_999_999_999_i64, "sub": "system:serviceaccount:shop:bot", "kubernetes.io": { "namespace": "shop", "serviceaccount": { "name": "bot", "uid": "sa-1" } } }),
        &jsonwebtoken::EncodingKey::from_secret(issuer.jwks().to_string().as_bytes()),
    )
    .unwrap();
    let (_other_dir, _other_store, other) = self::issuer().await;
    let bad = [
        format!("{}.{forged_claims}.{}", parts[0], parts[2]),
        format!("{no_algorithm}.{}.", parts[1]),
        format!("{}.{}.", parts[0], parts[1]),
        hmac,
        token(&other, json!({})),
        "garbage".to_owned(),
        "a.b.c".to_owned(),
        String::new(),
    ];
    for token in bad {
        assert_eq!(
            issuer.verify(&token, &own(), Timestamp::now()).unwrap_err(),
            Refused::Unknown,
            "{token}"
        );
    }
}

#[tokio::test]
async fn a_token_of_ours_that_is_no_account_token_is_refused() {
    let (_dir, _store, issuer) = issuer().await;
    let claims = |sub: &str, iss: &str| Claims {
        aud: Audiences::One(ISSUER.to_owned()),
        exp: Timestamp::now().as_second() + 100,
        iat: 0,
        iss: iss.to_owned(),
        jti: String::new(),
        kubernetes: Bound {
            namespace: "shop".to_owned(),
            serviceaccount: Named { name: "bot".to_owned(), uid: "sa-1".to_owned() },
            ..Bound::default()
        },
        nbf: 0,
        sub: sub.to_owned(),
    };
    let verify = |claims: &Claims| {
        issuer
            .verify(&issuer.sign(claims).unwrap(), &own(), Timestamp::now())
            .map(|verified| verified.user.name)
    };
    assert_eq!(
        verify(&claims("system:serviceaccount:shop:bot", ISSUER)),
        Ok("system:serviceaccount:shop:bot".to_owned())
    );
    assert_eq!(verify(&claims("system:serviceaccount:bank:bot", ISSUER)), Err(Refused::Unknown));
    assert_eq!(verify(&claims("system:admin", ISSUER)), Err(Refused::Unknown));
    assert_eq!(
        verify(&claims("system:serviceaccount:shop:bot", "https://elsewhere")),
        Err(Refused::Unknown)
    );
}

#[tokio::test]
async fn bad_requests_get_upstreams_words() {
    let (_dir, store, issuer) = issuer().await;
    assert_eq!(
        refusal(&issuer, json!({ "expirationSeconds": 599 })),
        (422, r#"TokenRequest.authentication.k8s.io "" is invalid: spec.expirationSeconds: Invalid value: 599: may not specify a duration less than 10 minutes"#.to_owned())
    );
    assert_eq!(
        refusal(&issuer, json!({ "expirationSeconds": 4_294_967_297_i64 })),
        (422, r#"TokenRequest.authentication.k8s.io "" is invalid: spec.expirationSeconds: Invalid value: 4294967297: may not specify a duration larger than 2^32 seconds"#.to_owned())
    );
    let pod_reference = |uid: &str| json!({ "boundObjectRef": { "apiVersion": "v1", "kind": "Pod", "name": "web", "uid": uid } });
    assert_eq!(refusal(&issuer, pod_reference("")), (404, r#"pods "web" not found"#.to_owned()));
    put(&store, "pods", pod("pod-1")).await;
    let (code, message) = refusal(&issuer, pod_reference("pod-0"));
    assert_eq!(code, 409);
    assert!(message.starts_with(r#"Operation cannot be fulfilled on Pod "web": the UID in the bound object reference (pod-0) does not match the UID in record."#), "{message}");
    let mut other = pod("pod-1");
    other["spec"]["serviceAccountName"] = "default".into();
    put(&store, "pods", other).await;
    assert_eq!(
        refusal(&issuer, pod_reference("")),
        (400, r#"cannot bind token for serviceaccount "bot" to pod running with different serviceaccount name."#.to_owned())
    );
    assert_eq!(
        refusal(
            &issuer,
            json!({ "boundObjectRef": { "apiVersion": "v1", "kind": "ConfigMap", "name": "x" } })
        )
        .0,
        400
    );
    let status = issuer.issue("shop", "nobody", json!({ "spec": {} })).unwrap_err();
    assert_eq!(
        (status.code, status.message.as_str()),
        (404, r#"serviceaccounts "nobody" not found"#)
    );
    assert_eq!(
        issuer.issue("shop", "bot", json!({ "metadata": { "name": "other" } })).unwrap_err().code,
        400
    );
}

#[tokio::test]
async fn anybody_can_verify_our_tokens_with_the_published_key() {
    let (_dir, _store, issuer) = issuer().await;
    let jwks: jsonwebtoken::jwk::JwkSet = serde_json::from_value(issuer.jwks()).unwrap();
    let token = token(&issuer, json!({}));
    let header = jsonwebtoken::decode_header(&token).unwrap();
    let key = jwks.find(header.kid.as_deref().unwrap()).unwrap();
    let mut validation = jsonwebtoken::Validation::new(Algorithm::ES256);
    validation.set_audience(&[ISSUER]);
    let claims =
        jsonwebtoken::decode::<Value>(&token, &DecodingKey::from_jwk(key).unwrap(), &validation)
            .unwrap()
            .claims;
    assert_eq!(claims["sub"], "system:serviceaccount:shop:bot");
    let configuration = issuer.openid_configuration("https://127.0.0.1:6443");
    assert_eq!(configuration["issuer"], claims["iss"]);
    assert_eq!(configuration["jwks_uri"], "https://127.0.0.1:6443/openid/v1/jwks");
}
