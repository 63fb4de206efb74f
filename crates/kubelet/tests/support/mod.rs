//! A node with an engine in memory, beside an API in memory.

pub mod api;
pub mod engine;
mod tls;

use std::sync::Arc;
use std::time::Duration;

use coracle_kubelet::{Amounts, Options};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use api::{Api, PODS};
use engine::Engine;

/// How long anything that is waited for may take, on a machine that has much else to do.
pub const DEADLINE: Duration = Duration::from_secs(30);

/// One node that can be stopped and started again over the same data.
pub struct TestNode {
    pub api: Api,
    pub engine: Arc<Engine>,
    pub data: tempfile::TempDir,
    stop: CancellationToken,
    running: Option<JoinHandle<Result<(), coracle_kubelet::Error>>>,
    port: u16,
    tls: tls::Pair,
}

impl TestNode {
    pub async fn start() -> Self {
        let mut node = Self {
            api: Api::new(),
            engine: Engine::new(),
            data: tempfile::tempdir().unwrap(),
            stop: CancellationToken::new(),
            running: None,
            port: 0,
            tls: tls::Pair::new(),
        };
        node.begin().await;
        node
    }

    async fn begin(&mut self) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        self.port = listener.local_addr().unwrap().port();
        let options = Options {
            node_name: "node-0".to_owned(),
            node_ip: "127.0.0.1".parse().unwrap(),
            data_dir: self.data.path().to_owned(),
            runtime: Arc::<Engine>::clone(&self.engine),
            listener,
            tls: self.tls.server(),
            capacity: Amounts { cpu_millis: 4000, memory_bytes: 8 << 30, pods: 2000 },
            labels: [("tier".to_owned(), "test".to_owned())].into(),
            pod_cidr: None,
            shutdown_grace: Duration::from_secs(1),
        };
        self.stop = CancellationToken::new();
        self.running =
            Some(tokio::spawn(coracle_kubelet::run(self.api.client(), options, self.stop.clone())));
        self.api
            .until("/api/v1/nodes", "node-0", |node| node["status"]["nodeInfo"].is_object())
            .await;
    }

    /// Stops the kubelet and its engine, as the end of their process does.
    pub async fn stop(&mut self) {
        self.stop.cancel();
        let ended = tokio::time::timeout(DEADLINE, self.running.take().unwrap()).await;
        ended.expect("the kubelet did not end in time").unwrap().unwrap();
    }

    /// Starts it again, with an engine that knows nothing of before.
    pub async fn restart(&mut self) {
        self.engine = Engine::new();
        self.begin().await;
    }

    /// Asks the kubelet for a log as the API server does: the status code and the text.
    pub async fn logs(&self, container: &str, query: &str) -> (u16, String) {
        tls::get(
            self.port,
            self.tls.client(),
            &format!("/containerLogs/default/{container}{query}"),
        )
        .await
        .unwrap()
    }

    /// Follows a log to its end, telling `seen` all that has come each time more comes.
    pub async fn follow(&self, container: &str, seen: impl FnMut(&str)) -> String {
        let path = format!("/containerLogs/default/{container}?follow=true");
        let followed = tls::get_and(self.port, self.tls.client(), &path, seen);
        let followed = tokio::time::timeout(DEADLINE, followed).await;
        followed.expect("the follower did not end").unwrap().1
    }

    pub async fn connect_without_certificate(&self) -> Result<(u16, String), String> {
        tls::get(self.port, self.tls.stranger(), "/healthz").await
    }

    pub fn pod(&self, name: &str, spec: Value) {
        let mut spec = spec;
        spec["nodeName"] = json!("node-0");
        self.api.put(PODS, json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": { "name": name, "labels": { "app": name } },
            "spec": spec,
            "status": { "phase": "Pending", "conditions": [{ "type": "PodScheduled", "status": "True" }] },
        }));
    }

    pub async fn until(&self, name: &str, wish: impl Fn(&Value) -> bool) -> Value {
        self.api.until(PODS, name, wish).await
    }

    pub async fn until_ready(&self, name: &str) -> Value {
        self.until(name, |pod| condition(pod, "Ready") == "True").await
    }

    /// Waits until an Event with this reason is there, and answers its message.
    pub async fn event(&self, about: &str, reason: &str) -> String {
        let wait = async {
            loop {
                let events = self.api.list("/api/v1/namespaces/default/events");
                let found = events.iter().find(|event| {
                    event["involvedObject"]["name"] == about && event["reason"] == reason
                });
                if let Some(event) = found {
                    return event["message"].as_str().unwrap().to_owned();
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(DEADLINE, wait).await.expect("no such event")
    }
}

pub fn condition<'a>(pod: &'a Value, name: &str) -> &'a str {
    let conditions = pod["status"]["conditions"].as_array();
    let found = conditions.into_iter().flatten().find(|condition| condition["type"] == name);
    found.and_then(|condition| condition["status"].as_str()).unwrap_or_default()
}
