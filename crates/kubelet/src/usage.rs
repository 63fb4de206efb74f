//! `GET /stats/summary`: what containers use. Upstream's Summary API, as far as an engine can tell.
//!
//! A rate takes two looks at a counter. Nobody looks while nobody asks: the first look is that of the last answer or, when it
//! was too long ago to say what goes on now, one that is taken a moment before the second.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse as _, Response};
use coracle_runtime::{ContainerId, Usage};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};
use tokio::sync::Mutex;
use tokio::time::Instant;

use crate::machine;
use crate::record::whole_seconds;
use crate::server::Api;

/// The shortest time over which a rate is measured: guests are billed by the tick, of which this has hundreds. Whoever
/// asks again within it gets the same answer.
const SHORTEST: Duration = Duration::from_secs(1);
/// The longest: a rate of more than a minute says little of now.
const LONGEST: Duration = Duration::from_secs(60);

/// The last look at what is used.
#[derive(Default)]
pub(crate) struct Usages(Mutex<Option<Answered>>);

struct Answered {
    look: Look,
    answer: Bytes,
}

/// Counters at one moment.
struct Look {
    at: Instant,
    node_cpu_nanoseconds: Option<u64>,
    containers: HashMap<ContainerId, Usage>,
}

/// A pod's running containers, by name.
struct Running {
    pod: Arc<Pod>,
    containers: Vec<(String, ContainerId)>,
}

/// Answers what the node and its pods use.
pub(crate) async fn summary(State(api): State<Arc<Api>>) -> Response {
    let json = [(header::CONTENT_TYPE, "application/json")];
    // One at a time: others wait for its answer, and get it.
    let mut last = api.usages.0.lock().await;
    if let Some(answered) = last.as_ref().filter(|last| last.look.at.elapsed() < SHORTEST) {
        return (json, answered.answer.clone()).into_response();
    }
    let pods = running(&api);
    let before = match last.take().map(|last| last.look).filter(|look| look.says_of(&pods)) {
        Some(look) => look,
        None => {
            let look = look(&api, &pods).await;
            tokio::time::sleep(SHORTEST).await;
            look
        }
    };
    let now = look(&api, &pods).await;
    let node = json!({
        "nodeName": api.ctx.node_name,
        "cpu": now.cpu_since(&before, now.node_cpu_nanoseconds, before.node_cpu_nanoseconds),
        "memory": memory_stats(machine::memory_used_bytes()),
    });
    let pods: Vec<Value> = pods.iter().map(|pod| pod.stats(&before, &now)).collect();
    let answer = Bytes::from(json!({ "node": node, "pods": pods }).to_string());
    *last = Some(Answered { look: now, answer: answer.clone() });
    (json, answer).into_response()
}

fn running(api: &Api) -> Vec<Running> {
    let of_pod = |pod: Arc<Pod>| {
        let snapshot = api.pods.snapshot(pod.metadata.uid.as_deref()?)?;
        let views = &snapshot.borrow().containers;
        let running = views.iter().filter(|(_, view)| view.running);
        let containers = running.filter_map(|(name, view)| Some((name.clone(), view.id.clone()?)));
        Some(Running { containers: containers.collect(), pod })
    };
    api.mirror.list().into_iter().filter_map(of_pod).collect()
}

async fn look(api: &Api, pods: &[Running]) -> Look {
    let mut containers = HashMap::new();
    for (_, id) in pods.iter().flat_map(|pod| &pod.containers) {
        if let Some(usage) = api.ctx.runtime.usage(id).await {
            containers.insert(id.clone(), usage);
        }
    }
    let node_cpu_nanoseconds = machine::cpu_used_nanoseconds();
    Look { at: Instant::now(), node_cpu_nanoseconds, containers }
}

impl Look {
    /// Whether rates from here to now would tell of all these pods.
    fn says_of(&self, pods: &[Running]) -> bool {
        let mut ids = pods.iter().flat_map(|pod| &pod.containers);
        self.at.elapsed() <= LONGEST && ids.all(|(_, id)| self.containers.contains_key(id))
    }

    /// A counter and its rate since `before`. The length of that time, which upstream's has no field for, is for our own API server.
    fn cpu_since(&self, before: &Self, counter: Option<u64>, earlier: Option<u64>) -> Value {
        let Some(counter) = counter else { return Value::Null };
        let mut stats = json!({ "time": now(), "usageCoreNanoSeconds": counter });
        if let Some(earlier) = earlier {
            let window = self.at.duration_since(before.at);
            stats["usageNanoCores"] = rate(counter.saturating_sub(earlier), window).into();
            stats["windowMilliseconds"] =
                u64::try_from(window.as_millis()).unwrap_or(u64::MAX).into();
        }
        stats
    }
}

impl Running {
    fn stats(&self, before: &Look, now: &Look) -> Value {
        let (mut cpu, mut memory) = (0_u64, 0_u64);
        let mut earlier = Some(0_u64);
        let mut containers = Vec::new();
        for (name, id) in &self.containers {
            let Some(usage) = now.containers.get(id) else { continue };
            let known = before.containers.get(id).map(|usage| usage.cpu_nanoseconds);
            cpu += usage.cpu_nanoseconds;
            memory += usage.memory_bytes;
            earlier = earlier.zip(known).map(|(sum, known)| sum + known);
            containers.push(json!({
                "name": name,
                "cpu": now.cpu_since(before, Some(usage.cpu_nanoseconds), known),
                "memory": memory_stats(usage.memory_bytes),
            }));
        }
        let (meta, status) = (&self.pod.metadata, self.pod.status.as_ref());
        json!({
            "podRef": { "name": meta.name, "namespace": meta.namespace, "uid": meta.uid },
            "startTime": status.and_then(|status| status.start_time.as_ref()),
            "containers": containers,
            "cpu": now.cpu_since(before, Some(cpu), earlier),
            "memory": memory_stats(memory),
        })
    }
}

/// Billionths of a core.
fn rate(nanoseconds: u64, window: Duration) -> u64 {
    let billionths = u128::from(nanoseconds) * 1_000_000_000 / window.as_nanos().max(1);
    u64::try_from(billionths).unwrap_or(u64::MAX)
}

fn memory_stats(bytes: u64) -> Value {
    json!({ "time": now(), "workingSetBytes": bytes, "usageBytes": bytes })
}

fn now() -> Value {
    json!(whole_seconds(Timestamp::now()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn look(at: Instant, containers: &[(&str, u64)]) -> Look {
        let usage = |cpu_nanoseconds| Usage { cpu_nanoseconds, memory_bytes: 1000 };
        let containers =
            containers.iter().map(|(id, cpu)| (ContainerId::new((*id).to_owned()), usage(*cpu)));
        Look { at, node_cpu_nanoseconds: None, containers: containers.collect() }
    }

    fn pod(containers: &[&str]) -> Running {
        let ids =
            containers.iter().map(|id| ((*id).to_owned(), ContainerId::new((*id).to_owned())));
        Running { pod: Arc::default(), containers: ids.collect() }
    }

    #[test]
    fn rates_are_those_between_two_looks() {
        let start = Instant::now();
        let before = look(start, &[("a", 1_000), ("b", 0)]);
        let now = look(start + Duration::from_secs(2), &[("a", 1_000_001_000), ("b", 500_000_000)]);
        let stats = pod(&["a", "b", "ended"]).stats(&before, &now);
        let nano_cores: Vec<&Value> = stats["containers"]
            .as_array()
            .unwrap()
            .iter()
            .map(|container| &container["cpu"]["usageNanoCores"])
            .collect();
        assert_eq!(nano_cores, [500_000_000, 250_000_000]);
        assert_eq!(stats["cpu"]["usageNanoCores"], 750_000_000);
        assert_eq!(stats["cpu"]["windowMilliseconds"], 2000);
        assert_eq!(stats["memory"]["workingSetBytes"], 2000);
    }

    #[test]
    fn a_container_that_was_not_looked_at_before_has_no_rate() {
        let start = Instant::now();
        let before = look(start, &[("a", 0)]);
        let now = look(start + Duration::from_secs(1), &[("a", 10), ("new", 10)]);
        let stats = pod(&["a", "new"]).stats(&before, &now);
        assert_eq!(stats["containers"][0]["cpu"]["usageNanoCores"], 10);
        assert_eq!(stats["containers"][1]["cpu"]["usageNanoCores"], Value::Null);
        assert_eq!(stats["cpu"]["usageNanoCores"], Value::Null);
        assert!(before.says_of(&[pod(&["a"])]) && !before.says_of(&[pod(&["a", "new"])]));
    }
}
