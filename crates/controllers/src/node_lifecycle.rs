//! Nodes: which of them are silent, and the taints that say how each is.
//!
//! `health.rs` judges what a node says of itself, `taints.rs` turns that into taints. A node is heard of when its Lease
//! is renewed or its status is reported; what counts is our clock when we hear it, not the node's. Nobody looks at nodes
//! on a fixed tick: each has a deadline, and is looked at when it is due.
//!
//! Where much fails at once pods are evicted slowly, or not at all: `zones.rs`.
//!
//! Upstream: `pkg/controller/nodelifecycle`.

mod health;
mod taints;
mod zones;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use coracle_reconcile::{Change, Next, ObjectKey, Queue, Recorder};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, Taint};
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, ResourceExt};
use parking_lot::Mutex;
use serde_json::json;

use crate::api::{Attempting, Unfinished, api_time, is_not_found};
use crate::context::Context;
use crate::pod::Pod;
use crate::pods::{at_once, is_ready};
use health::{Beats, Health, ready};
use zones::{Turn, Zones};

/// Where nodes' leases are.
pub(crate) const LEASES: &str = "kube-node-lease";
/// Nodes that are worked on at once: upstream has 8 workers.
const WORKERS: usize = 8;
/// Upstream's name for the controller, which Events bear.
const CONTROLLER: &str = "node-controller";

/// Starts the controller.
pub(crate) fn start(ctx: &Arc<Context>) {
    let queue = Queue::new();
    let controller = Arc::new(Controller {
        ctx: Arc::clone(ctx),
        recorder: ctx.recorder(CONTROLLER),
        heard: Mutex::default(),
        zones: Mutex::default(),
    });
    let (it, changed) = (Arc::clone(&controller), queue.clone());
    ctx.mirrors.nodes.on_change(move |change| it.hear_of(change, &changed));
    let it = Arc::clone(&controller);
    // A renewal needs no look: the deadline moves, and who looks when it was due sees that.
    ctx.mirrors.node_leases.on_change(move |change| {
        if let Change::Applied { new, .. } = change {
            let renewed = new.spec.as_ref().and_then(|spec| spec.renew_time.as_ref());
            it.beats_of(&new.name_any(), |beats, now| {
                beats.renewed(renewed.map(|time| time.0), now);
            });
        }
    });
    let (it, changed) = (Arc::clone(&controller), queue.clone());
    ctx.mirrors.pods.on_change(move |change| {
        if let Change::Applied { new, .. } = change
            && is_ready(new)
            && let Some(name) = &new.spec.node_name
        {
            let key = ObjectKey::new("", name.clone());
            let node = it.ctx.mirrors.nodes.get(&key);
            if node.is_some_and(|node| is_silent(&node)) {
                changed.add(key);
            }
        }
    });
    ctx.work(&queue, "node-lifecycle", WORKERS, move |key| {
        let controller = Arc::clone(&controller);
        async move { controller.reconcile(&key).await }
    });
}

struct Controller {
    ctx: Arc<Context>,
    recorder: Recorder,
    heard: Mutex<HashMap<String, Beats>>,
    zones: Mutex<Zones>,
}

impl Controller {
    fn hear_of(&self, change: &Change<Node>, queue: &Queue) {
        let name = change.object().name_any();
        let told = |what: &str| format!("Node {name} event: {what}");
        let is_news = match change {
            Change::Applied { old, new } => {
                if old.is_none() {
                    let told = told(&format!("Registered Node {name} in Controller"));
                    self.recorder.normal(new.as_ref(), "RegisteredNode", told);
                }
                let heartbeat = ready(new).and_then(|ready| ready.last_heartbeat_time.as_ref());
                self.beats_of(&name, |beats, now| {
                    beats.reported(heartbeat.map(|time| time.0), now);
                });
                queue.add(ObjectKey::of(new.as_ref()));
                self.zones.lock().note(old.as_deref(), Some(new))
            }
            Change::Deleted(last) => {
                let told = told(&format!("Removing Node {name} from Controller"));
                self.recorder.normal(last.as_ref(), "RemovingNode", told);
                self.heard.lock().remove(&name);
                self.zones.lock().note(Some(last), None)
            }
        };
        if is_news {
            let nodes = self.ctx.mirrors.nodes.list();
            let unwell = nodes.iter().filter(|node| !is_ready_node(node));
            unwell.for_each(|node| queue.add(ObjectKey::of(node.as_ref())));
        }
    }

    fn beats_of(&self, node: &str, tell: impl FnOnce(&mut Beats, Timestamp)) {
        let now = self.ctx.now();
        let mut heard = self.heard.lock();
        tell(heard.entry(node.to_owned()).or_insert_with(|| Beats::begin(now)), now);
    }

    /// Sees to it that one node's conditions and taints, and its pods, show how it is.
    async fn reconcile(&self, key: &ObjectKey) -> Result<Next, Unfinished> {
        let Some(node) = self.ctx.mirrors.nodes.get(key) else { return Ok(Next::AwaitChange) };
        let now = self.ctx.now();
        let beats = self.heard.lock().get(&key.name).cloned();
        let health = beats.unwrap_or_else(|| Beats::begin(now)).health(&node, now);
        let (node, next) = match health {
            Health::Heard { wait } => (node, Next::After(wait)),
            Health::Silent => (self.call_silent(node, now).await?, Next::AwaitChange),
        };
        let (wanted, next) = self.wanted_taints(&node, now, next);
        if let Some(wanted) = wanted {
            self.taint(&node, &wanted).await?;
        }
        if is_silent(&node) {
            let pods = self.ctx.placed.on(&key.name);
            let serving = pods.into_iter().filter(|pod| is_ready(pod));
            at_once(serving, |pod| self.call_not_ready(pod, now)).await?;
        }
        Ok(next)
    }

    /// The taints that the node should have, if it has others, and when to look again at the latest.
    fn wanted_taints(&self, node: &Node, now: Timestamp, next: Next) -> (Option<Vec<Taint>>, Next) {
        let time = api_time(now);
        let spoke = ready(node).is_some();
        let mut zones = self.zones.lock();
        if spoke && !is_ready_node(node) && zones.is_all_dark() {
            return (taints::sparing_pods(node, time), next);
        }
        if !taints::begins_to_evict(node) {
            return (taints::wanted(node, time), next);
        }
        match zones.turn(node, now) {
            Turn::Now => (taints::wanted(node, time), next),
            Turn::After(wait) => (taints::without_evicting(node, time), sooner(next, wait)),
            // A change of the zone brings us back.
            Turn::No => (taints::without_evicting(node, time), next),
        }
    }

    /// Writes that nothing is known of the node any more. It may have spoken meanwhile; then the write is refused.
    async fn call_silent(&self, node: Arc<Node>, now: Timestamp) -> Result<Arc<Node>, Unfinished> {
        let Some(conditions) = health::unknown(&node, &api_time(now)) else { return Ok(node) };
        let name = node.name_any();
        let mut desired = Node::clone(&node);
        desired.status.get_or_insert_default().conditions = Some(conditions);
        let api: Api<Node> = Api::all(self.ctx.client.clone());
        match api.replace_status(&name, &PostParams::default(), &desired).await {
            Ok(written) => {
                if is_ready_node(&node) {
                    let told = format!("Node {name} status is now: NodeNotReady");
                    self.recorder.normal(node.as_ref(), "NodeNotReady", told);
                }
                self.ctx.mirrors.nodes.observe(written.clone());
                Ok(Arc::new(written))
            }
            Err(error) if is_not_found(&error) => Ok(node),
            Err(error) => Err(error).attempting(|| format!("call node {name} silent")),
        }
    }

    async fn taint(&self, node: &Node, taints: &[Taint]) -> Result<(), Unfinished> {
        let name = node.name_any();
        let patch = json!({
            "metadata": { "uid": node.metadata.uid, "resourceVersion": node.metadata.resource_version },
            "spec": { "taints": taints },
        });
        let api: Api<Node> = Api::all(self.ctx.client.clone());
        match api.patch(&name, &PatchParams::default(), &Patch::Merge(patch)).await {
            Ok(tainted) => self.ctx.mirrors.nodes.observe(tainted),
            Err(error) if is_not_found(&error) => (),
            refused => {
                refused.attempting(|| format!("taint node {name}"))?;
            }
        }
        Ok(())
    }

    /// Nobody should send requests to a pod of which nothing is heard.
    async fn call_not_ready(&self, pod: Arc<Pod>, now: Timestamp) -> Result<(), Unfinished> {
        let key = ObjectKey::of(pod.as_ref());
        let condition =
            json!({ "type": "Ready", "status": "False", "lastTransitionTime": api_time(now) });
        let patch = json!({ "metadata": { "uid": pod.metadata.uid }, "status": { "conditions": [condition] } });
        let api = self.ctx.api::<Pod>(&key.namespace);
        match api.patch_status(&key.name, &PatchParams::default(), &Patch::Strategic(patch)).await {
            Ok(written) => {
                self.recorder.warning(pod.as_ref(), "NodeNotReady", "Node is not ready");
                self.ctx.mirrors.pods.observe(written);
            }
            Err(error) if is_not_found(&error) => (),
            refused => {
                refused.attempting(|| format!("call pod {key} not ready"))?;
            }
        }
        Ok(())
    }
}

fn sooner(next: Next, wait: Duration) -> Next {
    match next {
        Next::After(other) => Next::After(other.min(wait)),
        Next::AwaitChange => Next::After(wait),
    }
}

fn is_ready_node(node: &Node) -> bool {
    ready(node).is_some_and(|ready| ready.status == "True")
}

/// Its kubelet does not speak for its pods. While it does, even of a node that is not ready, nobody else should.
fn is_silent(node: &Node) -> bool {
    ready(node).is_some_and(|ready| ready.status == "Unknown")
}
