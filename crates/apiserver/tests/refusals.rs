//! Every family of endpoints refuses each kind of wrong request.

mod harness;

use std::net::SocketAddr;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use coracle_apiserver::identity::User;
use coracle_apiserver::pki::{CertifiedPem, Pki, Sans};
use harness::{Harness, config_map};
use http::{Method, Request, header};
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsConnector;
use tokio_util::sync::CancellationToken;

/// A path of each family, and a body that it would take.
fn families() -> Vec<(&'static str, Method, &'static str)> {
    let get = Method::GET;
    vec![
        ("discovery", get.clone(), "/apis"),
        ("metrics", get.clone(), "/metrics"),
        ("openapi", get.clone(), "/openapi/v2"),
        ("list", get.clone(), "/api/v1/namespaces/shop/configmaps"),
        ("watch", get.clone(), "/api/v1/namespaces/shop/configmaps?watch=true"),
        ("get", get.clone(), "/api/v1/namespaces/shop/configmaps/m"),
        ("create", Method::POST, "/api/v1/namespaces/shop/configmaps"),
        ("update", Method::PUT, "/api/v1/namespaces/shop/configmaps/m"),
        ("patch", Method::PATCH, "/api/v1/namespaces/shop/configmaps/m"),
        ("delete", Method::DELETE, "/api/v1/namespaces/shop/configmaps/m"),
        ("deletecollection", Method::DELETE, "/api/v1/namespaces/shop/configmaps"),
        ("cluster", Method::POST, "/api/v1/namespaces"),
        ("status", Method::PUT, "/apis/apps/v1/namespaces/shop/deployments/d/status"),
        ("scale", Method::PUT, "/apis/apps/v1/namespaces/shop/deployments/d/scale"),
        ("token", Method::POST, "/api/v1/namespaces/shop/serviceaccounts/default/token"),
        ("eviction", Method::POST, "/api/v1/namespaces/shop/pods/p/eviction"),
        ("binding", Method::POST, "/api/v1/namespaces/shop/pods/p/binding"),
        ("log", get.clone(), "/api/v1/namespaces/shop/pods/p/log"),
        ("proxy", get, "/api/v1/namespaces/shop/pods/p/proxy/"),
        (
            "approval",
            Method::PUT,
            "/apis/certificates.k8s.io/v1/certificatesigningrequests/c/approval",
        ),
        ("review", Method::POST, "/apis/authentication.k8s.io/v1/tokenreviews"),
        ("rbac", Method::POST, "/apis/rbac.authorization.k8s.io/v1/clusterroles"),
        ("definition", Method::POST, "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"),
    ]
}

/// Who asks, and what with.
struct Caller<'a> {
    own: Option<&'a CertifiedPem>,
    token: Option<&'a str>,
}

struct Served {
    server: Harness,
    address: SocketAddr,
    shutdown: CancellationToken,
    serving: tokio::task::JoinHandle<()>,
}

impl Served {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = Harness::start_in(tempfile::tempdir().unwrap(), address).await;
        for namespace in ["shop", "bank"] {
            server.namespace(namespace).await;
        }
        let maps = "/api/v1/namespaces/shop/configmaps";
        server.post(maps, config_map("m", json!({}))).await.expect(201);
        let shutdown = CancellationToken::new();
        let (api, stop) = (server.api.clone(), shutdown.clone());
        let serving = tokio::spawn(async move { api.serve(listener, stop).await.unwrap() });
        Self { server, address, shutdown, serving }
    }

    /// The code and the Status of the answer.
    async fn ask(
        &self,
        caller: &Caller<'_>,
        method: &Method,
        path: &str,
        content_type: &str,
        body: Vec<u8>,
    ) -> (u16, Value) {
        let pki = &self.server.pki;
        let mut tls = match caller.own {
            Some(own) => pki.client_config(own).unwrap(),
            None => pki.anonymous_client_config().unwrap(),
        };
        Arc::make_mut(&mut tls).alpn_protocols.clear();
        let stream = TcpStream::connect(self.address).await.unwrap();
        let name = rustls::pki_types::ServerName::try_from("127.0.0.1").unwrap();
        let stream = TlsConnector::from(tls).connect(name, stream).await.unwrap();
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
        let connection = tokio::spawn(connection);
        let mut request = Request::builder().method(method).uri(path).header("host", "api");
        if !content_type.is_empty() {
            request = request.header(header::CONTENT_TYPE, content_type);
        }
        if let Some(token) = caller.token {
            request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
        }
        let body = Full::new(bytes::Bytes::from(body));
        let answer = sender.send_request(request.body(body).unwrap()).await.unwrap();
        let code = answer.status().as_u16();
        let bytes = answer.into_body().collect().await.unwrap().to_bytes();
        connection.abort();
        (code, serde_json::from_slice(&bytes).unwrap_or_default())
    }
}

/// The same token, signed by the cluster's own key, and over since a moment ago.
fn expired(server: &Harness, token: &str) -> String {
    let key = std::fs::read(server.directory.path().join("pki/sa.key")).unwrap();
    let key = jsonwebtoken::EncodingKey::from_ec_pem(&key).unwrap();
    let claims = token.split('.').nth(1).unwrap();
    let mut claims: Value =
        serde_json::from_slice(&URL_SAFE_NO_PAD.decode(claims).unwrap()).unwrap();
    claims["exp"] = (jiff::Timestamp::now().as_second() - 1).into();
    let header = jsonwebtoken::Header::new(jsonwebtoken::Algorithm::ES256);
    jsonwebtoken::encode(&header, &claims, &key).unwrap()
}

/// A token of an account in `bank` that may do everything there.
async fn neighbour(server: &Harness) -> String {
    let rbac = "/apis/rbac.authorization.k8s.io/v1/namespaces/bank/rolebindings";
    let binding = json!({
        "metadata": { "name": "all" },
        "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin" },
        "subjects": [{ "kind": "ServiceAccount", "name": "default", "namespace": "bank" }],
    });
    server.post(rbac, binding).await.expect(201);
    let path = "/api/v1/namespaces/bank/serviceaccounts/default/token";
    let issued = server.post(path, json!({ "spec": {} })).await.expect(201);
    issued["status"]["token"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn every_family_refuses_who_may_not_ask() {
    let served = Served::start().await;
    let directory = tempfile::tempdir().unwrap();
    let other = Pki::open_or_create(directory.path(), &Sans::default()).unwrap();
    let stranger = other.client_certificate("root", &["system:masters"]).unwrap();
    let neighbour = neighbour(&served.server).await;
    // Signed by us, and revoked: its account is gone.
    let account = json!({ "metadata": { "name": "gone" } });
    let accounts = "/api/v1/namespaces/bank/serviceaccounts";
    served.server.post(accounts, account).await.expect(201);
    let issued = served.server.post(&format!("{accounts}/gone/token"), json!({ "spec": {} })).await;
    let revoked = issued.expect(201)["status"]["token"].as_str().unwrap().to_owned();
    served.server.delete(&format!("{accounts}/gone"), json!({})).await.expect(200);
    let expired = expired(&served.server, &neighbour);
    let nobody = Caller { own: None, token: None };
    for (family, method, path) in families() {
        let (code, status) = served.ask(&nobody, &method, path, "", Vec::new()).await;
        assert_eq!((code, &status["reason"]), (403, &json!("Forbidden")), "{family}: {status}");
        for caller in [
            Caller { own: Some(&stranger), token: None },
            Caller { own: None, token: Some("no-token") },
            Caller { own: None, token: Some(&revoked) },
            Caller { own: None, token: Some(&expired) },
        ] {
            let (code, status) = served.ask(&caller, &method, path, "", Vec::new()).await;
            let expected = (401, &json!("Unauthorized"));
            assert_eq!((code, &status["reason"]), expected, "{family}: {status}");
        }
        if family != "discovery" && family != "openapi" {
            let caller = Caller { own: None, token: Some(&neighbour) };
            let (code, status) = served.ask(&caller, &method, path, "", Vec::new()).await;
            let expected = (403, &json!("Forbidden"));
            assert_eq!((code, &status["reason"]), expected, "{family}: {status}");
        }
    }
    served.shutdown.cancel();
    served.serving.await.unwrap();
}

#[tokio::test]
async fn every_family_that_takes_a_body_refuses_what_is_too_large_or_of_another_kind() {
    let served = Served::start().await;
    let admin = User::new("root", &["system:masters"]);
    let own = served.server.pki.client_certificate(&admin.name, &["system:masters"]).unwrap();
    let caller = Caller { own: Some(&own), token: None };
    let deployment = json!({ "metadata": { "name": "d" }, "spec": {
        "selector": { "matchLabels": { "a": "b" } },
        "template": { "metadata": { "labels": { "a": "b" } }, "spec": { "containers": [{ "name": "c", "image": "i" }] } },
    } });
    let path = "/apis/apps/v1/namespaces/shop/deployments";
    served.server.post(path, deployment).await.expect(201);
    let writes = families()
        .into_iter()
        .filter(|(_, method, _)| matches!(*method, Method::POST | Method::PUT | Method::PATCH));
    for (family, method, path) in writes {
        let (code, status) =
            served.ask(&caller, &method, path, "text/plain", b"hello".to_vec()).await;
        let expected = (415, &json!("UnsupportedMediaType"));
        assert_eq!((code, &status["reason"]), expected, "{family}: {status}");
        let content_type =
            if family == "patch" { "application/merge-patch+json" } else { "application/json" };
        let large = format!("{{\"a\":\"{}\"}}", "x".repeat(4 << 20)).into_bytes();
        let (code, status) = served.ask(&caller, &method, path, content_type, large).await;
        let expected = (413, &json!("RequestEntityTooLarge"));
        assert_eq!((code, &status["reason"]), expected, "{family}: {status}");
    }
    served.shutdown.cancel();
    served.serving.await.unwrap();
}
