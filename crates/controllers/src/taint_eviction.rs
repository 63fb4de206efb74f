//! Evicts pods from nodes whose `NoExecute` taints they do not tolerate, or not for so long.
//!
//! Upstream: `pkg/controller/tainteviction`. The time that a pod tolerates a taint for begins when this controller
//! first sees both, as upstream's does.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use coracle_api::nodes::covers;
use coracle_reconcile::{Change, Next, ObjectKey, Queue, Recorder};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, Taint, Toleration};
use parking_lot::Mutex;

use crate::api::{Attempting, Unfinished};
use crate::context::Context;
use crate::pod::Pod;
use crate::pods::{PodControl, is_over};

/// Pods that are worked on at once; upstream has 8 workers, and as many again to delete.
const WORKERS: usize = 16;
/// Upstream's name for the controller, which Events bear.
const CONTROLLER: &str = "taint-eviction-controller";
const EVENT: &str = "TaintManagerEviction";

/// Starts the controller.
pub(crate) fn start(ctx: &Arc<Context>) {
    let queue = Queue::new();
    let (it, changed) = (Arc::clone(ctx), queue.clone());
    ctx.mirrors.nodes.on_change(move |change| {
        let Change::Applied { old, new } = change else { return };
        let before = old.as_deref().map(evicting).unwrap_or_default();
        if before != evicting(new) {
            let name = new.metadata.name.as_deref().unwrap_or_default();
            it.placed.keys_on(name).into_iter().for_each(|key| changed.add(key));
        }
    });
    let controller = Arc::new(Controller::new(ctx));
    let (it, changed) = (Arc::clone(&controller), queue.clone());
    ctx.mirrors.pods.on_change(move |change| match change {
        Change::Applied { old, new } => {
            let is_placed = new.spec.node_name.is_some();
            let is_same = old.as_ref().is_some_and(|old| {
                old.spec.node_name == new.spec.node_name
                    && old.spec.tolerations == new.spec.tolerations
            });
            if is_placed && !is_same {
                changed.add(ObjectKey::of(new.as_ref()));
            }
        }
        Change::Deleted(last) => {
            it.tolerating.lock().remove(&ObjectKey::of(last.as_ref()));
        }
    });
    ctx.work(&queue, "taint-eviction", WORKERS, move |key| {
        let controller = Arc::clone(&controller);
        async move { controller.reconcile(&key).await }
    });
}

struct Controller {
    ctx: Arc<Context>,
    pods: PodControl,
    recorder: Recorder,
    /// Since when pods have tolerated what their nodes bear: as many as there are pods that will be evicted.
    tolerating: Mutex<HashMap<ObjectKey, (Option<String>, Timestamp)>>,
}

/// What taints mean to a pod.
#[derive(Debug, PartialEq)]
enum Verdict {
    /// It may stay.
    Stays,
    /// It may stay for so long.
    For(Duration),
    /// It has to go.
    Goes,
}

impl Controller {
    fn new(ctx: &Arc<Context>) -> Self {
        let recorder = ctx.recorder(CONTROLLER);
        Self {
            ctx: Arc::clone(ctx),
            pods: PodControl {
                client: ctx.client.clone(),
                mirror: ctx.mirrors.pods.clone(),
                recorder: recorder.clone(),
            },
            recorder,
            tolerating: Mutex::default(),
        }
    }

    async fn reconcile(&self, key: &ObjectKey) -> Result<Next, Unfinished> {
        let Some(pod) = self.ctx.mirrors.pods.get(key) else { return Ok(Next::AwaitChange) };
        let node = pod.spec.node_name.clone().unwrap_or_default();
        let node = self.ctx.mirrors.nodes.get(&ObjectKey::new("", node));
        let is_going = pod.metadata.deletion_timestamp.is_some();
        let Some(node) = node.filter(|_| !is_going) else { return Ok(Next::AwaitChange) };
        let verdict = verdict(&evicting(&node), &pod.spec.tolerations);
        let now = self.ctx.now();
        let left = match verdict {
            Verdict::Stays => {
                if self.tolerating.lock().remove(key).is_some() {
                    let told = format!("Cancelling deletion of Pod {key}");
                    self.recorder.normal(pod.as_ref(), EVENT, told);
                }
                return Ok(Next::AwaitChange);
            }
            Verdict::Goes => Duration::ZERO,
            Verdict::For(limit) => {
                let since = self.since(key, &pod, now);
                let tolerated = Duration::try_from(now.duration_since(since)).unwrap_or_default();
                limit.saturating_sub(tolerated)
            }
        };
        if !left.is_zero() {
            return Ok(Next::After(left));
        }
        self.evict(key, &pod, now).await?;
        self.tolerating.lock().remove(key);
        Ok(Next::AwaitChange)
    }

    /// Since when the pod has tolerated what it does: from now on, if nothing is known.
    fn since(&self, key: &ObjectKey, pod: &Pod, now: Timestamp) -> Timestamp {
        let mut tolerating = self.tolerating.lock();
        let known = tolerating.get(key).filter(|(uid, _)| *uid == pod.metadata.uid);
        let since = known.map_or(now, |(_, since)| *since);
        tolerating.insert(key.clone(), (pod.metadata.uid.clone(), since));
        since
    }

    async fn evict(&self, key: &ObjectKey, pod: &Pod, now: Timestamp) -> Result<(), Unfinished> {
        let attempt = || format!("evict pod {key} from a tainted node");
        self.recorder.normal(pod, EVENT, format!("Marking for deletion Pod {key}"));
        if !is_over(pod) {
            let why = ("DeletionByTaintManager", "Taint manager: deleting due to NoExecute taint");
            self.pods.disrupt(pod, why, None, now).await.attempting(attempt)?;
        }
        self.pods.remove(pod).await.attempting(attempt)?;
        Ok(())
    }
}

/// The node's taints that evict.
fn evicting(node: &Node) -> Vec<Taint> {
    let taints = node.spec.as_ref().and_then(|spec| spec.taints.as_deref()).unwrap_or_default();
    let mut evicting: Vec<Taint> =
        taints.iter().filter(|taint| taint.effect == "NoExecute").cloned().collect();
    // When they came is nothing to pods.
    evicting.iter_mut().for_each(|taint| taint.time_added = None);
    evicting
}

/// What the taints mean to a pod with these tolerations.
fn verdict(taints: &[Taint], tolerations: &[Toleration]) -> Verdict {
    let mut least = None;
    for taint in taints {
        // Upstream: the first one that covers it counts.
        let Some(toleration) = tolerations.iter().find(|it| covers(it, taint)) else {
            return Verdict::Goes;
        };
        if let Some(seconds) = toleration.toleration_seconds {
            least = Some(least.map_or(seconds, |least: i64| least.min(seconds)));
        }
    }
    match least {
        None | Some(i64::MAX) => Verdict::Stays,
        Some(seconds) => match u64::try_from(seconds) {
            Ok(0) | Err(_) => Verdict::Goes,
            Ok(seconds) => Verdict::For(Duration::from_secs(seconds)),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// Taints by key, tolerations as "key" or "key=seconds".
    fn check(taints: &[&str], tolerations: &[&str], expected: Verdict) {
        let node: Vec<_> =
            taints.iter().map(|key| json!({ "key": key, "effect": "NoExecute" })).collect();
        let node: Node =
            serde_json::from_value(json!({ "metadata": {}, "spec": { "taints": node } })).unwrap();
        let toleration = |words: &&str| {
            let (key, seconds) = words.split_once('=').unwrap_or((words, ""));
            Toleration {
                key: Some(key.to_owned()),
                operator: Some("Exists".to_owned()),
                toleration_seconds: seconds.parse().ok(),
                ..Toleration::default()
            }
        };
        let all: Vec<_> = tolerations.iter().map(toleration).collect();
        assert_eq!(verdict(&evicting(&node), &all), expected, "{taints:?} {tolerations:?}");
    }

    #[test]
    fn the_shortest_toleration_of_a_taint_counts() {
        let seconds = |seconds| Verdict::For(Duration::from_secs(seconds));
        check(&[], &[], Verdict::Stays);
        check(&["a"], &[], Verdict::Goes);
        check(&["a"], &["b"], Verdict::Goes);
        check(&["a"], &["a"], Verdict::Stays);
        check(&["a"], &["a=5"], seconds(5));
        check(&["a"], &["a=0"], Verdict::Goes);
        check(&["a"], &["a=-3"], Verdict::Goes);
        check(&["a", "b"], &["a=5"], Verdict::Goes);
        check(&["a", "b"], &["a=5", "b=3"], seconds(3));
        check(&["a", "b"], &["a", "b=3"], seconds(3));
        check(&["a"], &["a=5", "b=3"], seconds(5));
    }
}
