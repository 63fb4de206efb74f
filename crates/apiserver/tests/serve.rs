//! The server's socket: who is let in over TLS, what is too much, and how it ends.

mod harness;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use coracle_apiserver::identity::User;
use futures::StreamExt as _;
use harness::{Harness, config_map, next, pod};
use http::{HeaderValue, Request};
use http_body_util::Full;
use hyper_util::rt::TokioIo;
use kube::config::{KubeConfigOptions, Kubeconfig};
use serde_json::json;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_util::sync::CancellationToken;

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

/// The harness with its socket open.
struct Served {
    server: Harness,
    address: SocketAddr,
    shutdown: CancellationToken,
    serving: JoinHandle<()>,
}

impl Served {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = Harness::start_in(tempfile::tempdir().unwrap(), address).await;
        let shutdown = CancellationToken::new();
        let (api, stop) = (server.api.clone(), shutdown.clone());
        let serving = tokio::spawn(async move { api.serve(listener, stop).await.unwrap() });
        Self { server, address, shutdown, serving }
    }

    fn kubeconfig(&self, user: &User) -> String {
        self.server.pki.kubeconfig(&format!("https://{}", self.address), user).unwrap()
    }

    async fn client(&self, user: &User) -> kube::Client {
        let file = Kubeconfig::from_yaml(&self.kubeconfig(user)).unwrap();
        let config = kube::Config::from_custom_kubeconfig(file, &KubeConfigOptions::default())
            .await
            .unwrap();
        kube::Client::try_from(config).unwrap()
    }
}

fn admin() -> User {
    User::new("admin", &["system:masters"])
}

#[tokio::test]
async fn certificates_say_who_asks_and_roles_what_they_may() {
    let served = Served::start().await;
    let client = served.client(&admin()).await;
    let get = |path: &str| Request::get(path.to_owned()).body(Vec::new()).unwrap();
    harness::send(&client, get(MAPS)).await.expect(200);
    let nobody = served.client(&User::new("alice", &[])).await;
    let message = harness::send(&nobody, get(MAPS)).await.refused(403, "Forbidden");
    assert_eq!(
        message,
        "configmaps is forbidden: User \"alice\" cannot list resource \"configmaps\" in API group \"\" in the namespace \"default\""
    );
    let message = harness::send(&nobody, get("/metrics")).await.refused(403, "Forbidden");
    assert!(message.contains("User \"alice\" cannot get path \"/metrics\""), "{message}");
    harness::send(&nobody, get("/version")).await.expect(200);
}

#[tokio::test]
async fn too_large_too_deep_and_malformed_bodies_are_refused() {
    let served = Served::start().await;
    let client = served.client(&admin()).await;
    let post = |content_type: &str, body: Vec<u8>| {
        let request = Request::post(MAPS).header("content-type", content_type).body(body).unwrap();
        let client = client.clone();
        async move { harness::send(&client, request).await }
    };
    let mut large = config_map("a", json!({}));
    large["data"]["a"] = json!("x".repeat(4 * 1024 * 1024));
    let message = post("application/json", large.to_string().into_bytes())
        .await
        .refused(413, "RequestEntityTooLarge");
    assert_eq!(message, "Request entity too large: limit is 3145728");
    let deep = "[".repeat(100_000);
    post("application/json", deep.clone().into_bytes()).await.refused(400, "BadRequest");
    post("application/yaml", deep.into_bytes()).await.refused(400, "BadRequest");
    post("application/json", b"{\"metadata\":".to_vec()).await.refused(400, "BadRequest");
    post("application/yaml", b"a: b: c".to_vec()).await.refused(400, "BadRequest");
    post("application/vnd.kubernetes.protobuf", b"k8s\0garbage".to_vec())
        .await
        .refused(400, "BadRequest");
    post("text/plain", b"hello".to_vec()).await.refused(415, "UnsupportedMediaType");
    let yaml =
        b"apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: yaml\ndata:\n  a: b\n".to_vec();
    post("application/yaml", yaml).await.expect(201);
    let strict = Request::post(format!("{MAPS}?fieldValidation=Strict"))
        .header("content-type", "application/json")
        .body(br#"{"metadata":{"name":"s"},"dta":{}}"#.to_vec())
        .unwrap();
    let message = harness::send(&client, strict).await.refused(400, "BadRequest");
    assert!(message.contains("unknown field \"dta\""), "{message}");
    let warned = post("application/json", br#"{"metadata":{"name":"w"},"dta":{}}"#.to_vec()).await;
    assert_eq!(warned.headers["warning"], "299 - \"unknown field \\\"dta\\\"\"");
}

#[tokio::test]
async fn a_shutdown_ends_watches_and_connections() {
    let served = Served::start().await;
    let client = served.client(&admin()).await;
    let request =
        Request::get(format!("{MAPS}?watch=true")).body(kube::client::Body::empty()).unwrap();
    let response = client.send(request).await.unwrap();
    let mut body = http_body_util::BodyExt::into_data_stream(response.into_body());
    served.server.post(MAPS, config_map("a", json!({}))).await.expect(201);
    assert!(
        String::from_utf8(body.next().await.unwrap().unwrap().to_vec())
            .unwrap()
            .contains("\"ADDED\"")
    );
    served.shutdown.cancel();
    let ended =
        tokio::time::timeout(Duration::from_secs(10), body.next()).await.expect("the watch ends");
    assert!(ended.is_none(), "in good order");
    drop(client);
    tokio::time::timeout(Duration::from_secs(10), served.serving)
        .await
        .expect("the server ends")
        .unwrap();
    // Whoever needs no socket is still served: the node tells its last words after that.
    served.server.get(MAPS).await.expect(200);
    let mut watch = served.server.watch(&format!("{MAPS}?watch=true")).await;
    assert_eq!(harness::summary(&next(&mut watch).await), "ADDED a");
}

#[tokio::test]
async fn health_metrics_and_discovery_tell_what_is_served() {
    let server = Harness::start().await;
    let ready = server.get("/readyz?verbose").await;
    assert!(String::from_utf8(ready.bytes).unwrap().ends_with("readyz check passed\n"));
    assert_eq!(server.get("/livez/ping").await.bytes, b"ok");
    server.get("/livez/nothing").await.expect(404);
    assert_eq!(server.get("/version").await.expect(200)["minor"], "37");
    server.get(MAPS).await.expect(200);
    let metrics = String::from_utf8(server.get("/metrics").await.bytes).unwrap();
    let line = "apiserver_request_total{verb=\"list\",group=\"\",version=\"v1\",resource=\"configmaps\",subresource=\"\",\
                scope=\"namespace\",code=\"200\"} 1";
    assert!(metrics.contains(line), "{metrics}");

    let groups = server.get("/apis").await.expect(200);
    let mut names =
        groups["groups"].as_array().unwrap().iter().map(|group| group["name"].as_str().unwrap());
    assert!(names.any(|name| name == "apps"));
    let apps = server.get("/apis/apps/v1").await.expect(200);
    assert!(
        apps["resources"]
            .as_array()
            .unwrap()
            .iter()
            .any(|resource| resource["name"] == "deployments/scale")
    );
    let accept =
        "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json";
    let aggregated = Request::get("/apis").header("accept", accept).body(Vec::new()).unwrap();
    let aggregated = harness::send(&server.client, aggregated).await;
    let tag = aggregated.headers["etag"].clone();
    assert_eq!(aggregated.expect(200)["kind"], "APIGroupDiscoveryList");
    let again = Request::get("/apis")
        .header("accept", accept)
        .header("if-none-match", tag)
        .body(Vec::new())
        .unwrap();
    harness::send(&server.client, again).await.expect(304);
    let index = server.get("/openapi/v3").await.expect(200);
    let url = index["paths"]["apis/apps/v1"]["serverRelativeURL"].as_str().unwrap();
    assert!(
        server.get(url).await.expect(200)["components"]["schemas"]["io.k8s.api.apps.v1.Deployment"]
            .is_object()
    );
    server.get("/apis/nothing").await.expect(404);
    server.get("/api/v1/nothings").await.refused(404, "NotFound");
    server.post("/healthz/ping", json!({})).await.expect(200);
}

/// A pod `web` in the namespace `work`, on a node whose kubelet tells what it is asked for.
async fn web_on_a_node(server: &Harness) -> JoinHandle<()> {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let tls = server.pki.kubelet_server_config("n0", &["127.0.0.1".parse().unwrap()]).unwrap();
    let kubelet = tokio::spawn(fake_kubelet(listener, tls));
    server.namespace("work").await;
    let node = json!({
        "metadata": { "name": "n0" },
        "status": {
            "addresses": [{ "type": "InternalIP", "address": "127.0.0.1" }],
            "daemonEndpoints": { "kubeletEndpoint": { "Port": port } },
        },
    });
    server.post("/api/v1/nodes", json!({ "metadata": { "name": "n0" } })).await.expect(201);
    server.put("/api/v1/nodes/n0/status", node).await.expect(200);
    let mut web = pod("web");
    web["spec"]["nodeName"] = json!("n0");
    server.post("/api/v1/namespaces/work/pods", web).await.expect(201);
    kubelet
}

#[tokio::test]
async fn a_log_is_read_over_a_web_socket() {
    let served = Served::start().await;
    let (server, address) = (&served.server, served.address);
    let kubelet = web_on_a_node(server).await;
    let said = "asked for /containerLogs/work/web/main\n";
    for (protocol, expected) in [
        (None, said.to_owned()),
        (Some("binary.k8s.io"), said.to_owned()),
        (Some("base64.binary.k8s.io"), STANDARD.encode(said)),
    ] {
        let url = format!("ws://{address}/api/v1/namespaces/work/pods/web/log?container=main");
        let mut request = url.into_client_request().unwrap();
        if let Some(protocol) = protocol {
            let protocol = HeaderValue::from_static(protocol);
            request.headers_mut().insert("sec-websocket-protocol", protocol);
        }
        let stream = harness::connect(server, address).await;
        let (mut socket, answer) = tokio_tungstenite::client_async(request, stream).await.unwrap();
        let spoken = answer.headers().get("sec-websocket-protocol");
        assert_eq!(spoken.map(|name| name.to_str().unwrap()), protocol);
        let mut heard = Vec::new();
        while let Some(message) = socket.next().await {
            match message.unwrap() {
                Message::Close(_) => break,
                message => heard.extend(message.into_data()),
            }
        }
        assert_eq!(String::from_utf8(heard).unwrap(), expected, "{protocol:?}");
    }
    kubelet.abort();
    served.shutdown.cancel();
    served.serving.await.unwrap();
}

#[tokio::test]
async fn logs_come_from_the_kubelet_of_the_pods_node() {
    let server = Harness::start().await;
    let kubelet = web_on_a_node(&server).await;
    let pods = "/api/v1/namespaces/work/pods";
    let log = server.get(&format!("{pods}/web/log?tailLines=5&follow=false")).await;
    assert_eq!(
        String::from_utf8(log.bytes).unwrap(),
        "asked for /containerLogs/work/web/main?follow=false&tailLines=5\n"
    );
    let message =
        server.get(&format!("{pods}/web/log?container=other")).await.refused(400, "BadRequest");
    assert_eq!(message, "container other is not valid for pod web");
    server.get(&format!("{pods}/web/log?tailLines=-1")).await.refused(422, "Invalid");
    let message =
        server.get(&format!("{pods}/web/log?previous=true")).await.refused(400, "BadRequest");
    assert_eq!(message, "previous terminated container \"main\" in pod \"web\" not found");
    kubelet.abort();
}

/// Answers whoever has a client certificate, and says what was asked.
async fn fake_kubelet(listener: TcpListener, tls: Arc<rustls::ServerConfig>) {
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        let stream = tokio_rustls::TlsAcceptor::from(tls.clone()).accept(stream).await.unwrap();
        let service =
            hyper::service::service_fn(|request: Request<hyper::body::Incoming>| async move {
                let asked = request.uri().to_string();
                let (code, text) = if asked.contains("previous=true") {
                    (
                        400,
                        "previous terminated container \"main\" in pod \"web\" not found"
                            .to_owned(),
                    )
                } else {
                    (200, format!("asked for {asked}\n"))
                };
                http::Response::builder().status(code).body(Full::new(bytes::Bytes::from(text)))
            });
        tokio::spawn(
            hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service),
        );
    }
}

/// The real kubectl, which CI has; elsewhere there is nothing to try.
#[tokio::test]
async fn kubectl_drives_the_server() {
    let served = Served::start().await;
    let file = served.server.directory.path().join("kubeconfig");
    std::fs::write(&file, served.kubeconfig(&admin())).unwrap();
    let kubectl = async |arguments: &[&str]| {
        let output = tokio::process::Command::new("kubectl")
            .arg("--kubeconfig")
            .arg(&file)
            .args(arguments)
            .output()
            .await;
        output.map(|output| {
            let said = format!(
                "{}{}",
                String::from_utf8_lossy(&output.stdout),
                String::from_utf8_lossy(&output.stderr)
            );
            (output.status.success(), said)
        })
    };
    let Ok((works, said)) = kubectl(&["create", "configmap", "a", "--from-literal=x=y"]).await
    else {
        return;
    };
    assert!(works && said == "configmap/a created\n", "{said}");
    assert_eq!(
        kubectl(&["get", "configmap", "a", "-o", "jsonpath={.data.x}"]).await.unwrap().1,
        "y"
    );
    let (works, said) = kubectl(&["get", "namespaces"]).await.unwrap();
    assert!(works && said.lines().count() == 5 && said.contains("Active"), "{said}");
    let (works, said) = kubectl(&["delete", "configmap", "a", "--timeout=5s"]).await.unwrap();
    assert!(works && said.contains("configmap \"a\" deleted"), "{said}");
}
