//! A real API server on a fresh store, spoken to as a client in memory speaks.
#![expect(dead_code, reason = "each test binary uses a part of it")]

use std::net::SocketAddr;
use std::sync::Arc;

use coracle_apiserver::identity::User;
use coracle_apiserver::pki::{Pki, Sans};
use coracle_apiserver::{ApiServer, Config, store_options};
use coracle_store::Store;
use futures::{Stream, StreamExt as _};
use http::{Method, Request};
use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

/// The server, what it stands on, and a client with all rights.
pub struct Harness {
    pub api: Arc<ApiServer>,
    pub pki: Arc<Pki>,
    pub store: Store,
    pub client: kube::Client,
    pub directory: tempfile::TempDir,
}

impl Harness {
    pub async fn start() -> Self {
        Self::start_in(tempfile::tempdir().unwrap(), SocketAddr::from(([127, 0, 0, 1], 6443))).await
    }

    pub async fn start_in(directory: tempfile::TempDir, advertise: SocketAddr) -> Self {
        let store = Store::open(store_options(directory.path().join("state.db"))).await.unwrap();
        let sans = Sans { names: Vec::new(), addresses: vec![advertise.ip()] };
        let pki = Arc::new(Pki::open_or_create(&directory.path().join("pki"), &sans).unwrap());
        let config = Config {
            store: store.clone(),
            pki: pki.clone(),
            advertise,
            service_cidr: "10.96.0.0/16".parse().unwrap(),
        };
        let api = ApiServer::start(config).await.unwrap();
        let client = api.client(User::new("admin", &["system:masters"]));
        Self { api, pki, store, client, directory }
    }

    /// Ends the server and starts another one on the same store.
    pub async fn restart(self) -> Self {
        let Self { api, store, directory, client, .. } = self;
        api.shutdown().await;
        drop(client);
        store.close().await;
        Self::start_in(directory, SocketAddr::from(([127, 0, 0, 1], 6443))).await
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.send(Method::GET, path, "", None).await
    }

    pub async fn post(&self, path: &str, body: Value) -> Answer {
        self.send(Method::POST, path, "application/json", Some(body)).await
    }

    pub async fn put(&self, path: &str, body: Value) -> Answer {
        self.send(Method::PUT, path, "application/json", Some(body)).await
    }

    pub async fn patch(&self, path: &str, format: &str, body: Value) -> Answer {
        self.send(Method::PATCH, path, &format!("application/{format}+json"), Some(body)).await
    }

    pub async fn delete(&self, path: &str, body: Value) -> Answer {
        self.send(Method::DELETE, path, "application/json", Some(body)).await
    }

    pub async fn send(
        &self,
        method: Method,
        path: &str,
        content_type: &str,
        body: Option<Value>,
    ) -> Answer {
        let mut request = Request::builder().method(method).uri(path);
        if !content_type.is_empty() {
            request = request.header("content-type", content_type);
        }
        let body = body.map(|body| body.to_string().into_bytes()).unwrap_or_default();
        send(&self.client, request.body(body).unwrap()).await
    }

    /// Starts a watch; each item is one event.
    pub async fn watch(&self, path: &str) -> impl Stream<Item = Value> + Unpin + use<> {
        watch_as(&self.client, path).await
    }

    /// A namespace of this name with the ServiceAccount that pods need.
    pub async fn namespace(&self, name: &str) {
        self.post("/api/v1/namespaces", json!({ "metadata": { "name": name } })).await.expect(201);
        let account = json!({ "metadata": { "name": "default" } });
        self.post(&format!("/api/v1/namespaces/{name}/serviceaccounts"), account).await.expect(201);
    }
}

/// A connection as the administrator to a server that listens at `address`.
pub async fn connect(server: &Harness, address: SocketAddr) -> TlsStream<TcpStream> {
    let own = server.pki.client_certificate("admin", &["system:masters"]).unwrap();
    let mut tls = Arc::unwrap_or_clone(server.pki.client_config(&own).unwrap());
    tls.alpn_protocols = vec![b"http/1.1".to_vec()];
    let stream = TcpStream::connect(address).await.unwrap();
    let name = rustls::pki_types::ServerName::from(address.ip());
    let connector = tokio_rustls::TlsConnector::from(Arc::new(tls));
    connector.connect(name, stream).await.unwrap()
}

/// The same, once the server has agreed to speak `protocol`.
pub async fn upgrade(
    server: &Harness,
    address: SocketAddr,
    path: &str,
    protocol: &str,
) -> BufReader<TlsStream<TcpStream>> {
    let mut stream = BufReader::new(connect(server, address).await);
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: keep-alive, Upgrade\r\nUpgrade: {protocol}\r\n\
         X-Remote-User: root\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut head = String::new();
    while stream.read_line(&mut head).await.unwrap() > 2 {}
    assert!(head.starts_with("HTTP/1.1 101 Switching Protocols"), "{head}");
    assert!(head.to_ascii_lowercase().contains(&format!("upgrade: {protocol}")), "{head}");
    stream
}

/// Starts a watch as this client; each item is one event.
pub async fn watch_as(
    client: &kube::Client,
    path: &str,
) -> impl Stream<Item = Value> + Unpin + use<> {
    watch_in_form(client, path, "application/json").await
}

/// Starts a watch whose events are JSON of the form that `accept` asks for.
pub async fn watch_in_form(
    client: &kube::Client,
    path: &str,
    accept: &str,
) -> impl Stream<Item = Value> + Unpin + use<> {
    let request = Request::get(path).header("accept", accept);
    let response = client.send(request.body(kube::client::Body::empty()).unwrap()).await.unwrap();
    assert_eq!(response.status(), 200, "{path}");
    let body = response.into_body().into_data_stream();
    let lines = futures::stream::unfold(
        (Box::pin(body), Vec::new()),
        |(mut body, mut pending)| async move {
            loop {
                if let Some(end) = pending.iter().position(|&byte| byte == b'\n') {
                    let line: Vec<u8> = pending.drain(..=end).collect();
                    return Some((serde_json::from_slice(&line).unwrap(), (body, pending)));
                }
                pending.extend_from_slice(&body.next().await?.unwrap());
            }
        },
    );
    Box::pin(lines)
}

/// Sends a request as this client.
pub async fn send(client: &kube::Client, request: Request<Vec<u8>>) -> Answer {
    let response = client.send(request.map(kube::client::Body::from)).await.unwrap();
    let (parts, body) = response.into_parts();
    let bytes = body.collect_bytes().await.unwrap();
    let body = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
    Answer { code: parts.status.as_u16(), headers: parts.headers, body, bytes: bytes.to_vec() }
}

/// The next event of a watch; fails the test when none comes.
pub async fn next(watch: &mut (impl Stream<Item = Value> + Unpin)) -> Value {
    let next = tokio::time::timeout(std::time::Duration::from_secs(30), watch.next()).await;
    next.expect("an event within ten seconds").expect("the watch goes on")
}

/// `ADDED name`.
pub fn summary(event: &Value) -> String {
    format!(
        "{} {}",
        event["type"].as_str().unwrap(),
        event["object"]["metadata"]["name"].as_str().unwrap_or("-")
    )
}

/// What came back.
#[derive(Debug)]
pub struct Answer {
    pub code: u16,
    pub headers: http::HeaderMap,
    pub body: Value,
    pub bytes: Vec<u8>,
}

impl Answer {
    /// The body, if the code is this one.
    #[track_caller]
    pub fn expect(self, code: u16) -> Value {
        assert_eq!(self.code, code, "{}", String::from_utf8_lossy(&self.bytes));
        self.body
    }

    /// The message of a refusal with this code and reason.
    #[track_caller]
    pub fn refused(self, code: u16, reason: &str) -> String {
        let body = self.expect(code);
        assert_eq!(body["reason"], reason, "{body}");
        body["message"].as_str().unwrap().to_owned()
    }
}

pub fn config_map(name: &str, labels: Value) -> Value {
    json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": name, "labels": labels }, "data": { "a": "b" } })
}

pub fn pod(name: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": { "name": name },
        "spec": { "containers": [{ "name": "main", "image": "hello:1" }] },
    })
}

pub fn names(list: &Value) -> Vec<String> {
    list["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|item| item["metadata"]["name"].as_str().unwrap().to_owned())
        .collect()
}
