//! What the kubelets say of their nodes' use: asked when somebody wants to know, and remembered for a moment.

use std::collections::HashMap;
use std::sync::Arc;

use axum::body::Body;
use futures::StreamExt as _;
use http::Request;
use http_body_util::{BodyExt as _, Limited};
use serde::Deserialize;
use tokio::time::Instant;

use crate::kubelet_client::Scheme;
use crate::server::Server;
use crate::{limits, node_address};

/// Over how long upstream's kubelets, which do not say it, measure rates.
const USUAL_WINDOW_MILLISECONDS: u64 = 10_000;

/// What each node has said, as long as it is fresh: autoscalers of many workloads ask for the same nodes.
#[derive(Default)]
pub(crate) struct Usages {
    by_node: parking_lot::Mutex<HashMap<String, Arc<Slot>>>,
}

/// One asks at a time; others wait for what it gets.
type Slot = tokio::sync::Mutex<Option<(Instant, Arc<NodeUsage>)>>;

/// What a node and its pods use.
#[derive(Debug)]
pub(super) struct NodeUsage {
    pub(super) node: Option<Usage>,
    /// By uid, then each container.
    pub(super) pods: HashMap<String, Vec<(String, Usage)>>,
}

/// What a node or a container uses.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Usage {
    /// When that was.
    pub(super) at: String,
    /// Over how long the processor's use was measured.
    pub(super) window_milliseconds: u64,
    pub(super) cpu_nano_cores: u64,
    pub(super) memory_bytes: u64,
}

impl Usages {
    /// What these nodes use; those that do not answer in time are left out.
    pub(super) async fn of(
        &self,
        server: &Server,
        nodes: impl Iterator<Item = String>,
    ) -> HashMap<String, Arc<NodeUsage>> {
        let asked = nodes.map(|node| async move {
            let usage = self.of_one(server, &node).await?;
            Some((node, usage))
        });
        let answers = futures::stream::iter(asked).buffer_unordered(limits::KUBELETS_ASKED);
        answers.filter_map(std::future::ready).collect().await
    }

    async fn of_one(&self, server: &Server, node: &str) -> Option<Arc<NodeUsage>> {
        let slot = self.slot(node);
        let mut said = slot.lock().await;
        if let Some((at, usage)) = &*said
            && at.elapsed() < limits::USAGE_AGE
        {
            return Some(usage.clone());
        }
        let asked = tokio::time::timeout(limits::USAGE_TIMEOUT, ask(server, node)).await;
        match asked.unwrap_or_else(|_| Err("no answer in time".to_owned())) {
            Ok(usage) => {
                let usage = Arc::new(usage);
                *said = Some((Instant::now(), usage.clone()));
                Some(usage)
            }
            Err(cause) => {
                tracing::debug!(node, cause, "a node does not say what it uses");
                *said = None;
                None
            }
        }
    }

    fn slot(&self, node: &str) -> Arc<Slot> {
        let mut by_node = self.by_node.lock();
        if !by_node.contains_key(node) {
            // Nodes come and go: what nobody waits for and is not fresh any more would only be asked for again.
            by_node.retain(|_, slot| {
                let said = slot.try_lock();
                said.map_or(true, |said| {
                    said.as_ref().is_some_and(|(at, _)| at.elapsed() < limits::USAGE_AGE)
                })
            });
        }
        by_node.entry(node.to_owned()).or_default().clone()
    }
}

async fn ask(server: &Server, node: &str) -> Result<NodeUsage, String> {
    let (host, port) =
        node_address::kubelet(&server.store, node).map_err(|status| status.message)?;
    let request = Request::get("/stats/summary").body(Body::empty());
    let request = request.map_err(|error| error.to_string())?;
    let response = server.kubelets.send(Scheme::KubeletHttps, &host, port, request).await;
    let response = response.map_err(|error| error.to_string())?;
    if !response.status().is_success() {
        return Err(format!("it answers {}", response.status()));
    }
    let body = Limited::new(response.into_body(), limits::SUMMARY_BYTES).collect().await;
    let body = body.map_err(|error| error.to_string())?.to_bytes();
    let summary: Summary = serde_json::from_slice(&body).map_err(|error| error.to_string())?;
    Ok(summary.usage())
}

/// The parts of upstream's Summary API that matter here.
#[derive(Deserialize)]
struct Summary {
    node: Part,
    #[serde(default)]
    pods: Vec<PodPart>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct PodPart {
    pod_ref: PodReference,
    #[serde(default)]
    containers: Vec<Part>,
}

#[derive(Deserialize)]
struct PodReference {
    uid: String,
}

#[derive(Deserialize)]
struct Part {
    #[serde(default)]
    name: String,
    cpu: Option<Cpu>,
    memory: Option<Memory>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Cpu {
    time: String,
    usage_nano_cores: Option<u64>,
    window_milliseconds: Option<u64>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Memory {
    working_set_bytes: Option<u64>,
}

impl Summary {
    fn usage(self) -> NodeUsage {
        let pods = self.pods.into_iter().filter_map(|pod| {
            // All or nothing: a sum over some containers would be taken for the pod's.
            let containers: Option<Vec<(String, Usage)>> = pod
                .containers
                .into_iter()
                .map(|part| Some((part.name.clone(), part.usage()?)))
                .collect();
            let containers = containers.filter(|containers| !containers.is_empty())?;
            Some((pod.pod_ref.uid, containers))
        });
        NodeUsage { node: self.node.usage(), pods: pods.collect() }
    }
}

impl Part {
    fn usage(self) -> Option<Usage> {
        let cpu = self.cpu?;
        Some(Usage {
            at: cpu.time,
            window_milliseconds: cpu.window_milliseconds.unwrap_or(USUAL_WINDOW_MILLISECONDS),
            cpu_nano_cores: cpu.usage_nano_cores?,
            memory_bytes: self.memory?.working_set_bytes?,
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_pod_is_known_when_all_of_its_containers_are() {
        let part = |name: &str, cpu: Option<u64>| {
            json!({ "name": name, "cpu": { "time": "2026-01-01T00:00:00Z", "usageNanoCores": cpu },
                    "memory": { "workingSetBytes": 7 } })
        };
        let pod = |uid: &str, containers: serde_json::Value| json!({ "podRef": { "uid": uid }, "containers": containers });
        let summary: Summary = serde_json::from_value(json!({
            "node": { "nodeName": "n", "cpu": { "time": "2026-01-01T00:00:00Z" } },
            "pods": [
                pod("whole", json!([part("a", Some(5)), part("b", Some(0))])),
                pod("part", json!([part("a", Some(5)), part("b", None)])),
                pod("none", json!([])),
            ],
        }))
        .unwrap();
        let usage = summary.usage();
        assert_eq!(usage.node, None);
        assert_eq!(usage.pods.len(), 1);
        let expected = Usage {
            at: "2026-01-01T00:00:00Z".to_owned(),
            window_milliseconds: USUAL_WINDOW_MILLISECONDS,
            cpu_nano_cores: 5,
            memory_bytes: 7,
        };
        assert_eq!(usage.pods["whole"][0], ("a".to_owned(), expected));
    }
}
