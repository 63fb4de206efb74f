//! Removes pods that nobody else would: those of nodes that are gone, those that go and were never placed, those that
//! ended when there are too many of them, and those that hang on nodes which an administrator calls out of service.
//!
//! Upstream: `pkg/controller/podgc`, which looks through all pods every 20 seconds. Here pods are looked at when they
//! or their nodes change, and when their time is up.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use coracle_reconcile::{Change, Next, ObjectKey, Queue};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Node;
use kube::Api;
use kube::api::{DeleteParams, Preconditions};
use parking_lot::Mutex;
use tracing::info;

use crate::api::{Attempting, Unfinished, is_conflict, is_not_found};
use crate::context::Context;
use crate::pod::Pod;
use crate::pods::{PodControl, at_once, is_over};

/// Pods that are worked on at once.
const WORKERS: usize = 8;
/// Upstream's quarantine: a node may be away for a moment only, while it is made anew.
const QUARANTINE: Duration = Duration::from_secs(40);
/// Upstream's `--terminated-pod-gc-threshold`: so many pods that have ended are kept to be read.
const MOST_ENDED: usize = 12_500;
/// The taint by which an administrator says that a node is off and will not come back by itself.
const OUT_OF_SERVICE: &str = "node.kubernetes.io/out-of-service";

/// Starts the controller.
pub(crate) fn start(ctx: &Arc<Context>) {
    let queue = Queue::new();
    let recorder = ctx.recorder("pod-garbage-collector");
    let collector = Arc::new(Collector {
        ctx: Arc::clone(ctx),
        pods: PodControl { client: ctx.client.clone(), mirror: ctx.mirrors.pods.clone(), recorder },
        missing: Mutex::default(),
        ended: Mutex::default(),
    });
    let (it, changed) = (Arc::clone(&collector), queue.clone());
    ctx.mirrors.pods.on_change(move |change| it.look_at(change, &changed));
    let (it, changed) = (Arc::clone(&collector), queue.clone());
    ctx.mirrors.nodes.on_change(move |change| {
        let name = change.object().metadata.name.as_deref().unwrap_or_default();
        let concerns_pods = match change {
            Change::Applied { new, .. } => {
                it.missing.lock().remove(name);
                is_out_of_service(new)
            }
            Change::Deleted(_) => true,
        };
        if concerns_pods {
            it.ctx.placed.keys_on(name).into_iter().for_each(|key| changed.add(key));
        }
    });
    ctx.work(&queue, "pod-garbage-collector", WORKERS, move |key| {
        let collector = Arc::clone(&collector);
        async move { collector.reconcile(&key).await }
    });
}

struct Collector {
    ctx: Arc<Context>,
    pods: PodControl,
    /// Since when nodes that pods name have been missed: as many as there are such nodes.
    missing: Mutex<HashMap<String, Timestamp>>,
    ended: Mutex<Ended<MOST_ENDED>>,
}

/// The pods that have ended, the oldest first, and how many of them are kept.
#[derive(Default)]
struct Ended<const MOST: usize>(BTreeSet<(Option<Timestamp>, ObjectKey)>);

impl<const MOST: usize> Ended<MOST> {
    fn entry(pod: &Pod) -> (Option<Timestamp>, ObjectKey) {
        (pod.metadata.creation_timestamp.as_ref().map(|time| time.0), ObjectKey::of(pod))
    }

    /// Takes a pod in. Answers whether it is one too many.
    fn add(&mut self, pod: &Pod) -> bool {
        self.0.insert(Self::entry(pod)) && self.0.len() > MOST
    }

    fn forget(&mut self, pod: &Pod) {
        self.0.remove(&Self::entry(pod));
    }

    /// The oldest, as many as are too many.
    fn surplus(&self) -> Vec<ObjectKey> {
        let count = self.0.len().saturating_sub(MOST);
        self.0.iter().take(count).map(|(_, key)| key.clone()).collect()
    }
}

/// Why a pod is removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reason {
    NodeIsGone,
    NeverPlaced,
    OutOfService,
    TooManyEnded,
}

impl Collector {
    fn look_at(&self, change: &Change<Pod>, queue: &Queue) {
        let pod = change.object();
        let key = ObjectKey::of(pod.as_ref());
        if matches!(change, Change::Deleted(_)) {
            self.ended.lock().forget(pod);
            let node = pod.spec.node_name.as_deref().unwrap_or_default();
            if self.ctx.placed.keys_on(node).is_empty() {
                self.missing.lock().remove(node);
            }
            return;
        }
        if is_over(pod) && self.ended.lock().add(pod) {
            queue.add(too_many());
        }
        let is_going = pod.metadata.deletion_timestamp.is_some();
        match &pod.spec.node_name {
            None if is_going => queue.add(key),
            None => (),
            Some(node) => {
                let node = self.ctx.mirrors.nodes.get(&ObjectKey::new("", node.clone()));
                if node.is_none_or(|node| is_going && is_out_of_service(&node)) {
                    queue.add(key);
                }
            }
        }
    }

    async fn reconcile(&self, key: &ObjectKey) -> Result<Next, Unfinished> {
        if *key == too_many() {
            return self.remove_oldest().await;
        }
        let Some(pod) = self.ctx.mirrors.pods.get(key) else { return Ok(Next::AwaitChange) };
        let node = pod.spec.node_name.as_deref().filter(|node| !node.is_empty());
        let known = node.map(|node| ObjectKey::new("", node));
        let known = known.and_then(|key| self.ctx.mirrors.nodes.get(&key));
        if let (Some(node), None) = (node, &known) {
            let left = self.quarantine(node);
            if !left.is_zero() {
                return Ok(Next::After(left));
            }
            // A mirror may lag.
            let nodes: Api<Node> = Api::all(self.ctx.client.clone());
            let found = nodes.get_opt(node).await.attempting(|| format!("look for node {node}"))?;
            if found.is_some() {
                self.missing.lock().remove(node);
                return Ok(Next::AwaitChange);
            }
        }
        if let Some(reason) = reason(&pod, known.as_deref()) {
            self.remove(key, &pod, reason).await?;
        }
        Ok(Next::AwaitChange)
    }

    /// Removes what is too much of the pods that have ended.
    async fn remove_oldest(&self) -> Result<Next, Unfinished> {
        let oldest = self.ended.lock().surplus();
        let pods: Vec<Arc<Pod>> =
            oldest.iter().filter_map(|key| self.ctx.mirrors.pods.get(key)).collect();
        at_once(pods, |pod| async move {
            self.remove(&ObjectKey::of(pod.as_ref()), &pod, Reason::TooManyEnded).await
        })
        .await?;
        Ok(Next::AwaitChange)
    }

    /// How long the node has yet to come back.
    fn quarantine(&self, node: &str) -> Duration {
        let now = self.ctx.now();
        let since = *self.missing.lock().entry(node.to_owned()).or_insert(now);
        let missed = Duration::try_from(now.duration_since(since)).unwrap_or_default();
        QUARANTINE.saturating_sub(missed)
    }

    /// Marks the pod as failed if nobody knows how it ended, and deletes it at once.
    async fn remove(&self, key: &ObjectKey, pod: &Pod, reason: Reason) -> Result<(), Unfinished> {
        let attempt = || format!("remove pod {key}");
        info!(pod = %key, ?reason, "pod removed");
        if !is_over(pod) {
            let now = self.ctx.now();
            let marked = if reason == Reason::NodeIsGone {
                let why = ("DeletionByPodGC", "PodGC: node no longer exists");
                self.pods.disrupt(pod, why, Some("Failed"), now).await
            } else {
                self.pods.fail(pod).await
            };
            marked.attempting(attempt)?;
        }
        let this_pod = Preconditions { uid: pod.metadata.uid.clone(), resource_version: None };
        let params = DeleteParams::default().grace_period(0).preconditions(this_pod);
        match self.ctx.api::<Pod>(&key.namespace).delete(&key.name, &params).await {
            Err(error) if is_not_found(&error) || is_conflict(&error) => (),
            deleted => {
                // A finalizer may hold it.
                if let Some(going) = deleted.attempting(attempt)?.left() {
                    self.ctx.mirrors.pods.observe(going);
                    return Ok(());
                }
            }
        }
        self.ctx.mirrors.pods.observe_gone(pod);
        Ok(())
    }
}

/// What stands in the queue for all the pods that have ended. No pod has this key.
fn too_many() -> ObjectKey {
    ObjectKey::new("", "")
}

/// Why the pod should be removed, by what is known of its node.
fn reason(pod: &Pod, node: Option<&Node>) -> Option<Reason> {
    let is_going = pod.metadata.deletion_timestamp.is_some();
    let is_placed = pod.spec.node_name.as_deref().is_some_and(|node| !node.is_empty());
    match node {
        None if is_placed => Some(Reason::NodeIsGone),
        None => is_going.then_some(Reason::NeverPlaced),
        Some(node) => (is_going && is_out_of_service(node)).then_some(Reason::OutOfService),
    }
}

/// The node is not ready, and somebody says that it will stay so.
fn is_out_of_service(node: &Node) -> bool {
    let conditions = node.status.as_ref().and_then(|status| status.conditions.as_deref());
    let ready = conditions.unwrap_or_default().iter().find(|it| it.type_ == "Ready");
    let taints = node.spec.as_ref().and_then(|spec| spec.taints.as_deref()).unwrap_or_default();
    ready.is_some_and(|ready| ready.status != "True")
        && taints.iter().any(|taint| taint.key == OUT_OF_SERVICE)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    #[test]
    fn of_pods_that_have_ended_the_newest_are_kept() {
        let pod = |name: &str, second: u32| -> Pod {
            let made = format!("2026-01-01T00:00:{second:02}Z");
            serde_json::from_value(json!({
                "metadata": { "namespace": "n", "name": name, "creationTimestamp": made }, "spec": {},
            }))
            .unwrap()
        };
        let names = |ended: &Ended<2>| -> Vec<String> {
            ended.surplus().into_iter().map(|key| key.name).collect()
        };
        let mut ended = Ended::<2>::default();
        assert!(!ended.add(&pod("newest", 9)) && !ended.add(&pod("old", 2)));
        assert!(!ended.add(&pod("old", 2)), "a pod is told of more than once");
        assert!(names(&ended).is_empty());
        assert!(ended.add(&pod("oldest", 1)) && ended.add(&pod("new", 8)));
        assert_eq!(names(&ended), ["oldest", "old"]);
        ended.forget(&pod("oldest", 1));
        assert_eq!(names(&ended), ["old"], "what is gone is no longer too much");
    }

    #[test]
    fn a_pods_end_and_its_node_decide() {
        let pod = |node: Value, going: bool| -> Pod {
            let deleted = going.then_some("2026-01-01T00:00:00Z");
            serde_json::from_value(
                json!({ "metadata": { "deletionTimestamp": deleted }, "spec": { "nodeName": node } }),
            )
            .unwrap()
        };
        let node = |ready: &str, taint: &str| -> Node {
            serde_json::from_value(json!({
                "metadata": {}, "spec": { "taints": [{ "key": taint, "effect": "NoExecute" }] },
                "status": { "conditions": [{ "type": "Ready", "status": ready }] },
            }))
            .unwrap()
        };
        assert_eq!(reason(&pod(Value::Null, false), None), None);
        assert_eq!(reason(&pod(Value::Null, true), None), Some(Reason::NeverPlaced));
        assert_eq!(reason(&pod(json!("a"), false), None), Some(Reason::NodeIsGone));
        let off = node("Unknown", OUT_OF_SERVICE);
        assert_eq!(reason(&pod(json!("a"), false), Some(&off)), None);
        assert_eq!(reason(&pod(json!("a"), true), Some(&off)), Some(Reason::OutOfService));
        assert_eq!(reason(&pod(json!("a"), true), Some(&node("Unknown", "other"))), None);
        assert_eq!(reason(&pod(json!("a"), true), Some(&node("True", OUT_OF_SERVICE))), None);
    }
}
