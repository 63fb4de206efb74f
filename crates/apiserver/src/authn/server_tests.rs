//! The whole door, over TLS: who gets in, and how the others are turned away.

use std::net::{Ipv4Addr, SocketAddr};

use http_body_util::BodyExt as _;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::*;
use crate::pki::{CertifiedPem, Sans};
use crate::{ApiServer, Cidr, Config, Extras};

/// An API server without a socket, over a fresh store.
pub(crate) async fn running() -> (tempfile::TempDir, Store, Arc<ApiServer>) {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 6443));
    let (dir, store, _, api) = started(address, Extras::default()).await;
    (dir, store, api)
}

async fn started(
    advertise: SocketAddr,
    extras: Extras,
) -> (tempfile::TempDir, Store, Arc<Pki>, Arc<ApiServer>) {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(crate::store_options(dir.path().join("state.db"))).await.unwrap();
    let pki = Arc::new(Pki::open_or_create(&dir.path().join("pki"), &Sans::default()).unwrap());
    let service_cidr = Cidr::new(Ipv4Addr::new(10, 96, 0, 0), 16);
    let config = Config { store: store.clone(), pki: pki.clone(), advertise, service_cidr };
    let api = ApiServer::start_with(config, extras).await.unwrap();
    (dir, store, pki, api)
}

struct Served {
    _dir: tempfile::TempDir,
    api: Arc<ApiServer>,
    pki: Arc<Pki>,
    address: SocketAddr,
    shutdown: CancellationToken,
    serving: tokio::task::JoinHandle<Result<(), PkiError>>,
}

impl Served {
    async fn new() -> Self {
        Self::with_extras(Extras::default()).await
    }

    async fn with_extras(extras: Extras) -> Self {
        let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (dir, _store, pki, api) = started(address, extras).await;
        let shutdown = CancellationToken::new();
        let serving = tokio::spawn({
            let (api, shutdown) = (api.clone(), shutdown.clone());
            async move { api.serve(listener, shutdown).await }
        });
        Self { _dir: dir, api, pki, address, shutdown, serving }
    }

    /// One GET over a connection of its own.
    async fn get(
        &self,
        tls: Arc<rustls::ClientConfig>,
        path: &str,
        token: Option<&str>,
    ) -> (u16, Value) {
        let bearer = token.map(|token| format!("Bearer {token}"));
        let headers: Vec<_> = bearer.iter().map(|it| ("authorization", it.as_str())).collect();
        self.get_with(tls, path, &headers).await
    }

    /// The same with these headers.
    async fn get_with(
        &self,
        tls: Arc<rustls::ClientConfig>,
        path: &str,
        headers: &[(&str, &str)],
    ) -> (u16, Value) {
        let stream = tokio::net::TcpStream::connect(self.address).await.unwrap();
        let name = rustls::pki_types::ServerName::try_from("localhost").unwrap();
        let stream = tokio_rustls::TlsConnector::from(tls).connect(name, stream).await.unwrap();
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
        let connection = tokio::spawn(connection);
        let mut request = http::Request::get(path).header("host", "localhost");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let response = sender.send_request(request.body(String::new()).unwrap()).await.unwrap();
        let status = response.status().as_u16();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        drop(sender);
        connection.await.unwrap().unwrap();
        (status, serde_json::from_slice(&body).unwrap_or_default())
    }

    fn with(&self, own: &CertifiedPem) -> Arc<rustls::ClientConfig> {
        self.pki.client_config(own).unwrap()
    }

    fn anonymous(&self) -> Arc<rustls::ClientConfig> {
        self.pki.anonymous_client_config().unwrap()
    }
}

#[tokio::test]
async fn the_door_opens_to_the_known_and_turns_away_the_rest() {
    let served = Served::new().await;
    let secrets = "/api/v1/namespaces/default/secrets";
    let admin = served.pki.client_certificate("root", &["system:masters"]).unwrap();
    assert_eq!(served.get(served.with(&admin), secrets, None).await.0, 200);
    // Known, but without rights.
    let alice = served.pki.client_certificate("alice", &[]).unwrap();
    let (code, body) = served.get(served.with(&alice), secrets, None).await;
    assert_eq!((code, &body["reason"]), (403, &json!("Forbidden")));
    assert_eq!(
        body["message"],
        r#"secrets is forbidden: User "alice" cannot list resource "secrets" in API group "" in the namespace "default""#
    );
    // No credentials: health only.
    assert_eq!(served.get(served.anonymous(), "/livez", None).await.0, 200);
    let (code, body) = served.get(served.anonymous(), secrets, None).await;
    assert_eq!(code, 403);
    assert!(body["message"].as_str().unwrap().contains(r#"User "system:anonymous""#));
    assert_eq!(served.get(served.anonymous(), "/metrics", None).await.0, 403);
    // A certificate by another authority, sent although the server did not ask for one of that kind.
    let other_dir = tempfile::tempdir().unwrap();
    let other = Pki::open_or_create(other_dir.path(), &Sans::default()).unwrap();
    let stranger = other.client_certificate("root", &["system:masters"]).unwrap();
    for path in [secrets, "/livez", "/apis"] {
        let (code, body) = served.get(served.with(&stranger), path, None).await;
        assert_eq!((code, &body["reason"]), (401, &json!("Unauthorized")), "{path}");
    }
    served.shutdown.cancel();
    served.serving.await.unwrap().unwrap();
}

#[tokio::test]
async fn tokens_open_the_door_as_far_as_their_account_may() {
    let served = Served::new().await;
    let admin = served.api.client(User::admin());
    let post = async |path: &str, object: Value| {
        let request = http::Request::post(path)
            .header("content-type", "application/json")
            .body(object.to_string().into_bytes())
            .unwrap();
        admin.request::<Value>(request).await.unwrap()
    };
    post("/api/v1/namespaces/default/serviceaccounts", json!({ "metadata": { "name": "bot" } }))
        .await;
    let rbac = "/apis/rbac.authorization.k8s.io/v1/namespaces/default";
    post(&format!("{rbac}/roles"), json!({ "metadata": { "name": "r" }, "rules": [{ "apiGroups": [""], "resources": ["configmaps"], "verbs": ["list"] }] })).await;
    let subject = json!({ "kind": "ServiceAccount", "name": "bot", "namespace": "default" });
    post(&format!("{rbac}/rolebindings"), json!({ "metadata": { "name": "r" }, "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "r" }, "subjects": [subject] })).await;
    let issue = async |spec: Value| {
        let answer =
            post("/api/v1/namespaces/default/serviceaccounts/bot/token", json!({ "spec": spec }))
                .await;
        answer["status"]["token"].as_str().unwrap().to_owned()
    };
    let good = issue(json!({})).await;
    let get =
        async |path: &str, token: &str| served.get(served.anonymous(), path, Some(token)).await.0;
    assert_eq!(get("/api/v1/namespaces/default/configmaps", &good).await, 200);
    assert_eq!(get("/api/v1/namespaces/kube-system/configmaps", &good).await, 403);
    assert_eq!(get("/api/v1/namespaces/default/secrets", &good).await, 403);
    assert_eq!(get("/apis", &good).await, 200);
    let vault = issue(json!({ "audiences": ["vault"] })).await;
    for wrong in [vault.as_str(), "garbage", &good[..good.len() - 8]] {
        assert_eq!(get("/api/v1/namespaces/default/configmaps", wrong).await, 401);
        assert_eq!(get("/livez", wrong).await, 401);
    }
    let request = http::Request::delete("/api/v1/namespaces/default/serviceaccounts/bot")
        .body(Vec::new())
        .unwrap();
    admin.request::<Value>(request).await.unwrap();
    assert_eq!(get("/api/v1/namespaces/default/configmaps", &good).await, 401);
    served.shutdown.cancel();
    served.serving.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_front_proxy_asks_for_others_and_may_what_they_may() {
    let served = Served::new().await;
    let secrets = "/api/v1/namespaces/default/secrets";
    let proxy = served.with(&served.pki.front_proxy_certificate("front-proxy-client").unwrap());
    let master = [("x-remote-user", "root"), ("x-remote-group", "system:masters")];
    assert_eq!(served.get_with(proxy.clone(), secrets, &master).await.0, 200);
    let (code, body) = served.get_with(proxy.clone(), secrets, &[("x-remote-user", "alice")]).await;
    assert_eq!(code, 403);
    assert!(body["message"].as_str().unwrap().contains("User \"alice\""), "{body}");
    assert_eq!(served.get_with(proxy, secrets, &[]).await.0, 401);
    let alice = served.with(&served.pki.client_certificate("alice", &[]).unwrap());
    assert_eq!(served.get_with(alice, secrets, &master).await.0, 403);
    assert_eq!(served.get_with(served.anonymous(), secrets, &master).await.0, 403);
    served.shutdown.cancel();
    served.serving.await.unwrap().unwrap();
}

#[tokio::test]
async fn nobody_is_let_in_where_the_file_says_so_alone() {
    let file = json!({
        "apiVersion": "apiserver.config.k8s.io/v1", "kind": "AuthenticationConfiguration",
        "anonymous": { "enabled": true, "conditions": [{ "path": "/livez" }] },
    });
    let oidc = Some(Oidc::from_yaml(&file.to_string()).unwrap());
    let served = Served::with_extras(Extras { oidc, ..Extras::default() }).await;
    let nobody = served.anonymous();
    assert_eq!(served.get(nobody.clone(), "/livez", None).await.0, 200);
    let (code, body) = served.get(nobody.clone(), "/readyz", None).await;
    assert_eq!((code, &body["reason"]), (401, &json!("Unauthorized")));
    assert_eq!(served.get(nobody, "/livez/ping", None).await.0, 401);
    let alice = served.with(&served.pki.client_certificate("alice", &[]).unwrap());
    assert_eq!(served.get(alice, "/readyz", None).await.0, 200);
    served.shutdown.cancel();
    served.serving.await.unwrap().unwrap();
}
