//! `metrics.k8s.io`: what kubelets say of their pods' use, as metrics-server would tell it.

mod harness;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use harness::{Answer, Harness, pod, send};
use http::Request;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

const ROOT: &str = "/apis/metrics.k8s.io/v1beta1";
const SERVICE: &str = "/apis/apiregistration.k8s.io/v1/apiservices/v1beta1.metrics.k8s.io";

/// Says on each connection what its pods use.
struct Kubelet {
    asked: Arc<AtomicUsize>,
    port: u16,
    task: JoinHandle<()>,
}

impl Kubelet {
    async fn start(server: &Harness, summary: Value) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let tls = server.pki.kubelet_server_config("n0", &["127.0.0.1".parse().unwrap()]).unwrap();
        let acceptor = tokio_rustls::TlsAcceptor::from(tls);
        let asked = Arc::new(AtomicUsize::new(0));
        let count = asked.clone();
        let task = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let mut stream = BufReader::new(acceptor.accept(stream).await.unwrap());
                let mut head = String::new();
                while stream.read_line(&mut head).await.unwrap() > 2 {}
                assert!(head.starts_with("GET /stats/summary HTTP/1.1"), "{head}");
                count.fetch_add(1, Ordering::SeqCst);
                let body = summary.to_string();
                let answer =
                    format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len());
                stream.write_all(answer.as_bytes()).await.unwrap();
                stream.shutdown().await.unwrap();
            }
        });
        Self { asked, port, task }
    }
}

impl Drop for Kubelet {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn used(name: &str, nano_cores: u64, bytes: u64) -> Value {
    json!({
        "name": name,
        "cpu": { "time": "2026-01-01T00:00:00Z", "usageNanoCores": nano_cores, "windowMilliseconds": 1500 },
        "memory": { "time": "2026-01-01T00:00:00Z", "workingSetBytes": bytes },
    })
}

/// Two running pods on a node, one of them with two containers, one that nothing is known of, and one that waits.
async fn start() -> (Harness, Kubelet) {
    let server = Harness::start().await;
    server.namespace("work").await;
    let mut uids = Vec::new();
    for (name, phase) in
        [("one", "Running"), ("two", "Running"), ("new", "Running"), ("waits", "Pending")]
    {
        let mut pod = pod(name);
        pod["metadata"]["labels"] = json!({ "app": name });
        pod["spec"]["nodeName"] = json!("n0");
        let path = "/api/v1/namespaces/work/pods";
        let made = server.post(path, pod).await.expect(201);
        uids.push(made["metadata"]["uid"].clone());
        let status = json!({ "status": { "phase": phase } });
        server.patch(&format!("{path}/{name}/status"), "merge-patch", status).await.expect(200);
    }
    let of = |uid: &Value, containers: Value| json!({ "podRef": { "uid": uid }, "containers": containers });
    let summary = json!({
        "node": used("", 2_000_000_000, 3 << 30),
        "pods": [
            of(&uids[0], json!([used("a", 250_000_000, 10 << 20), used("b", 7, 1)])),
            of(&uids[1], json!([used("main", 0, 0)])),
        ],
    });
    let kubelet = Kubelet::start(&server, summary).await;
    let node = json!({
        "metadata": { "name": "n0", "labels": { "size": "small" } },
        "status": { "addresses": [{ "type": "InternalIP", "address": "127.0.0.1" }],
                    "daemonEndpoints": { "kubeletEndpoint": { "Port": kubelet.port } } },
    });
    server.post("/api/v1/nodes", node).await.expect(201);
    until_served(&server, true).await;
    (server, kubelet)
}

/// Waits until discovery has the group, or has it no more.
async fn until_served(server: &Harness, wanted: bool) {
    let served = async || {
        let groups = server.get("/apis").await.expect(200);
        groups["groups"].as_array().unwrap().iter().any(|group| group["name"] == "metrics.k8s.io")
    };
    let wait = async {
        while served().await != wanted {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(30), wait).await.expect("in time");
}

#[tokio::test]
async fn pods_that_run_are_told_with_what_their_containers_use() {
    let (server, kubelet) = start().await;
    let list = server.get(&format!("{ROOT}/pods")).await.expect(200);
    assert_eq!(
        (&list["kind"], harness::names(&list)),
        (&"PodMetricsList".into(), vec!["one".to_owned(), "two".to_owned()])
    );
    let mut one = list["items"][0].clone();
    assert!(one["metadata"]["creationTimestamp"].is_string());
    one["metadata"].as_object_mut().unwrap().remove("creationTimestamp");
    let expected = json!({
        "kind": "PodMetrics", "apiVersion": "metrics.k8s.io/v1beta1",
        "metadata": { "name": "one", "namespace": "work", "labels": { "app": "one" } },
        "timestamp": "2026-01-01T00:00:00Z", "window": "1.5s",
        "containers": [
            { "name": "a", "usage": { "cpu": "250m", "memory": "10Mi" } },
            { "name": "b", "usage": { "cpu": "7n", "memory": "1" } },
        ],
    });
    assert_eq!(one, expected);

    let list = server.get(&format!("{ROOT}/namespaces/work/pods?labelSelector=app%3Dtwo")).await;
    assert_eq!(harness::names(&list.expect(200)), ["two"]);
    let list = server.get(&format!("{ROOT}/namespaces/default/pods")).await.expect(200);
    assert_eq!(list["items"], json!([]));
    let two = server.get(&format!("{ROOT}/namespaces/work/pods/two")).await.expect(200);
    assert_eq!(two["containers"][0]["usage"], json!({ "cpu": "0", "memory": "0" }));
    for name in ["waits", "absent"] {
        let path = format!("{ROOT}/namespaces/work/pods/{name}");
        let message = server.get(&path).await.refused(404, "NotFound");
        assert_eq!(message, format!("podmetrics.metrics.k8s.io \"work/{name}\" not found"));
    }
    // All of it within a few moments: the kubelet was asked once.
    assert_eq!(kubelet.asked.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn nodes_are_told_in_every_form() {
    let (server, _kubelet) = start().await;
    let node = server.get(&format!("{ROOT}/nodes/n0")).await.expect(200);
    assert_eq!(
        (&node["kind"], &node["usage"]),
        (&"NodeMetrics".into(), &json!({ "cpu": "2", "memory": "3Gi" }))
    );
    assert_eq!(node["metadata"]["labels"], json!({ "size": "small" }));
    let absent = server.get(&format!("{ROOT}/nodes/n1")).await.refused(404, "NotFound");
    assert_eq!(absent, "nodemetrics.metrics.k8s.io \"n1\" not found");

    let table = Request::get(format!("{ROOT}/namespaces/work/pods"))
        .header("accept", "application/json;as=Table;v=v1;g=meta.k8s.io,application/json");
    let table = send(&server.client, table.body(Vec::new()).unwrap()).await.expect(200);
    let columns = table["columnDefinitions"].as_array().unwrap().iter();
    let columns: Vec<&str> = columns.map(|column| column["name"].as_str().unwrap()).collect();
    assert_eq!(columns, ["Name", "cpu", "memory", "Window"]);
    assert_eq!(table["rows"][0]["cells"], json!(["one", "250000007n", "10485761", "1.5s"]));

    let resources = server.get(ROOT).await.expect(200);
    assert_eq!(resources["resources"][1]["kind"], "PodMetrics");
    let watched: Answer = server.get(&format!("{ROOT}/nodes?watch=true")).await;
    watched.refused(405, "MethodNotAllowed");
    server.get(&format!("{ROOT}/deployments")).await.refused(404, "NotFound");
}

#[tokio::test]
async fn whoever_installs_another_server_is_asked_instead() {
    let (server, _kubelet) = start().await;
    let ours = server.get(SERVICE).await.expect(200);
    assert_eq!(ours["spec"]["groupPriorityMinimum"], 100);
    assert_eq!(ours["status"]["conditions"][0]["reason"], "Local");
    let service = json!({ "spec": { "insecureSkipTLSVerify": true,
        "service": { "namespace": "kube-system", "name": "metrics-server" } } });
    server.patch(SERVICE, "merge-patch", service).await.expect(200);
    let asked = async || server.get(&format!("{ROOT}/nodes")).await.code;
    let wait = async {
        while asked().await != 503 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(30), wait).await.expect("in time");
    server
        .patch(
            SERVICE,
            "merge-patch",
            json!({ "spec": { "service": null, "insecureSkipTLSVerify": null } }),
        )
        .await
        .expect(200);
    let wait = async {
        while asked().await != 200 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(30), wait).await.expect("in time");
    server.delete(SERVICE, json!({})).await.expect(200);
    until_served(&server, false).await;
    server.get(&format!("{ROOT}/nodes")).await.expect(404);
}
