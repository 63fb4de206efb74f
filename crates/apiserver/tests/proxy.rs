//! `proxy`: what reaches a pod, a service and a node, what comes back, and what is refused.

mod harness;

use std::net::SocketAddr;

use harness::{Answer, Harness, pod};
use http::Request;
use serde_json::json;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

const PODS: &str = "/api/v1/namespaces/work/pods";
const SERVICES: &str = "/api/v1/namespaces/work/services";

/// A server that says what it was asked; a few paths are special.
struct Backend {
    port: u16,
    task: JoinHandle<()>,
}

impl Backend {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let task = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                tokio::spawn(answer(stream));
            }
        });
        Self { port, task }
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Reads one request's head, and answers.
async fn answer(stream: TcpStream) {
    let mut stream = BufReader::new(stream);
    let mut head = String::new();
    while stream.read_line(&mut head).await.unwrap() > 2 {}
    let path = head.split(' ').nth(1).unwrap().to_owned();
    let text = match path.as_str() {
        "/moved" => {
            "HTTP/1.1 302 Found\r\nLocation: /there?a=b\r\nContent-Length: 0\r\n\r\n".to_owned()
        }
        "/page" => {
            let page = "<a href=\"/rewriteme\">test</a>";
            let length = page.len();
            format!(
                "HTTP/1.1 200 OK\r\nContent-Type: text/html; charset=utf-8\r\nAccess-Control-Allow-Origin: *\r\nContent-Length: {length}\r\n\r\n{page}"
            )
        }
        "/echo" => {
            let reply =
                "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n";
            stream.write_all(reply.as_bytes()).await.unwrap();
            let mut byte = [0];
            while stream.read(&mut byte).await.unwrap() == 1 {
                stream.write_all(&byte.map(|byte| byte.to_ascii_uppercase())).await.unwrap();
            }
            return;
        }
        _ => format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{head}", head.len()),
    };
    stream.write_all(text.as_bytes()).await.unwrap();
}

/// A pod and a service that lead to the backend.
async fn expose(server: &Harness, port: u16) {
    server.namespace("work").await;
    let mut web = pod("web");
    web["spec"]["containers"][0]["ports"] = json!([{ "name": "http", "containerPort": port }]);
    server.post(PODS, web).await.expect(201);
    let status = json!({ "metadata": { "name": "web" }, "status": { "podIP": "127.0.0.1" } });
    server.patch(&format!("{PODS}/web/status"), "merge-patch", status).await.expect(200);
    let service = json!({
        "metadata": { "name": "web" },
        "spec": { "ports": [{ "name": "a", "port": 80 }, { "name": "b", "port": 81 }] },
    });
    server.post(SERVICES, service).await.expect(201);
    let slice = json!({
        "metadata": { "name": "web-1", "labels": { "kubernetes.io/service-name": "web" } },
        "addressType": "IPv4",
        "endpoints": [
            { "addresses": ["127.0.0.2"], "conditions": { "ready": false } },
            { "addresses": ["127.0.0.1"], "conditions": { "ready": true } },
        ],
        "ports": [{ "name": "a", "port": port }],
    });
    let slices = "/apis/discovery.k8s.io/v1/namespaces/work/endpointslices";
    server.post(slices, slice).await.expect(201);
}

fn text(answer: &Answer) -> String {
    assert_eq!(answer.code, 200, "{}", String::from_utf8_lossy(&answer.bytes));
    String::from_utf8_lossy(&answer.bytes).to_ascii_lowercase()
}

#[tokio::test]
async fn requests_reach_pods_and_services_as_they_were_written() {
    let server = Harness::start().await;
    let backend = Backend::start().await;
    expose(&server, backend.port).await;
    for name in ["web".to_owned(), "web:http".to_owned(), format!("http:web:{}", backend.port)] {
        let seen = text(&server.get(&format!("{PODS}/{name}/proxy/a%2Fb//c/?q=%20")).await);
        assert!(seen.starts_with("get /a%2fb//c/?q=%20 http/1.1"), "{seen}");
        let own = format!("x-forwarded-uri: {PODS}/{name}/proxy/a%2fb//c/");
        assert!(seen.contains(&own.to_ascii_lowercase()), "{seen}");
    }
    for name in ["web:a", "web:80", "http:web:80"] {
        let seen = text(&server.get(&format!("{SERVICES}/{name}/proxy/x")).await);
        assert!(seen.starts_with("get /x http/1.1"), "{seen}");
    }
    for method in ["DELETE", "OPTIONS", "PATCH", "POST", "PUT", "HEAD"] {
        let request = Request::builder()
            .method(method)
            .uri(format!("{PODS}/web/proxy/some/path?method={method}"))
            .header("authorization", "Bearer secret")
            .header("x-mine", "kept")
            .body(b"body".to_vec())
            .unwrap();
        let answer = harness::send(&server.client, request).await;
        let seen = text(&answer);
        if method != "HEAD" {
            assert!(seen.contains("x-mine: kept") && !seen.contains("secret"), "{seen}");
        }
    }
}

#[tokio::test]
async fn what_comes_back_leads_through_the_proxy_again() {
    let server = Harness::start().await;
    let backend = Backend::start().await;
    expose(&server, backend.port).await;
    let own = format!("{PODS}/web/proxy");
    for method in [http::Method::GET, http::Method::HEAD] {
        let answer = server.send(method, &format!("{own}?a=b"), "", None).await;
        assert_eq!(answer.code, 301);
        assert_eq!(answer.headers["location"], format!("{own}/?a=b").as_str());
    }
    assert_eq!(server.post(&own, json!({})).await.code, 200, "only pages are moved");
    let moved = server.get(&format!("{own}/moved")).await;
    assert_eq!(moved.code, 302);
    assert_eq!(moved.headers["location"], format!("{own}/there?a=b").as_str());
    let page = server.get(&format!("{own}/page")).await;
    assert!(!page.headers.contains_key("access-control-allow-origin"));
    assert_eq!(text(&page), format!("<a href=\"{own}/rewriteme\">test</a>"));
}

#[tokio::test]
async fn who_cannot_be_reached_is_named() {
    let server = Harness::start().await;
    let closed = {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        listener.local_addr().unwrap().port()
    };
    expose(&server, closed).await;
    let refused =
        async |path: String, code: u16, reason: &str| server.get(&path).await.refused(code, reason);
    let message = refused(format!("{SERVICES}/web:b/proxy/"), 503, "ServiceUnavailable").await;
    assert_eq!(message, "no endpoints available for service \"web\"");
    let message = refused(format!("{SERVICES}/web:99/proxy/"), 503, "ServiceUnavailable").await;
    assert_eq!(message, "no service port 99 found for service \"web\"");
    let message = refused(format!("{SERVICES}/nobody/proxy/"), 404, "NotFound").await;
    assert_eq!(message, "services \"nobody\" not found");
    let message = refused(format!("{SERVICES}/ftp:web:80/proxy/"), 400, "BadRequest").await;
    assert_eq!(message, "invalid service request \"ftp:web:80\"");
    let message = refused(format!("{PODS}/web/proxy/"), 503, "ServiceUnavailable").await;
    assert_eq!(
        message,
        format!(
            "error trying to reach service: dial tcp 127.0.0.1:{closed}: connect: connection refused"
        )
    );
    server.post(PODS, pod("new")).await.expect(201);
    let message = refused(format!("{PODS}/new/proxy/"), 400, "BadRequest").await;
    assert_eq!(message, "address not allowed");
}

#[tokio::test]
async fn an_upgraded_connection_is_handed_on_until_the_server_ends() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address: SocketAddr = listener.local_addr().unwrap();
    let server = Harness::start_in(tempfile::tempdir().unwrap(), address).await;
    let stop = CancellationToken::new();
    let (api, ends) = (server.api.clone(), stop.clone());
    let serving = tokio::spawn(async move { api.serve(listener, ends).await.unwrap() });
    let backend = Backend::start().await;
    expose(&server, backend.port).await;

    let mut stream =
        harness::upgrade(&server, address, &format!("{PODS}/web/proxy/echo"), "echo").await;
    stream.write_all(b"ahoy").await.unwrap();
    let mut heard = [0; 4];
    stream.read_exact(&mut heard).await.unwrap();
    assert_eq!(&heard, b"AHOY");

    stop.cancel();
    let rest = tokio::time::timeout(std::time::Duration::from_secs(10), stream.read(&mut heard));
    // With or without TLS' goodbye.
    assert!(matches!(rest.await.expect("the tunnel ends"), Ok(0) | Err(_)));
    serving.await.unwrap();
    server.api.shutdown().await;
}
