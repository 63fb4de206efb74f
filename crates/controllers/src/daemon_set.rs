//! DaemonSet: one pod on each node that it fits, updated node by node.
//!
//! `fit.rs` says what a node means to a set and makes the pods, `plan.rs` decides which pods come and go, `status.rs`
//! counts, `backoff.rs` remembers which failed pods were replaced just now. The revisions are in `history.rs`.
//!
//! Upstream: `pkg/controller/daemon`. In one thing we differ on purpose: pods are made with `spec.nodeName`, so that
//! they are placed and run while no scheduler does. Upstream leaves that to the scheduler, and says where by a node
//! affinity; ours have that too, for who reads it.

mod backoff;
mod fit;
mod plan;
mod status;

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use coracle_reconcile::{Change, Mirror, Next, ObjectKey, Queue, Recorder};
use k8s_openapi::api::apps::v1::{ControllerRevision, DaemonSet, DaemonSetStatus};
use k8s_openapi::api::core::v1::{Node, PodTemplateSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::ResourceExt;
use serde_json::json;

use crate::api::{Attempting, Unfinished};
use crate::context::Context;
use crate::history::{self, Recorded, Versioned};
use crate::ownership::{claim, follow_children, selects, settle};
use crate::pod::Pod;
use crate::pods::{PodControl, at_once, is_active, is_over, slow_start};
use backoff::Backoff;
use fit::{Fit, Requirements};
use plan::{Observed, Step, plan};

/// Sets that are worked on at once; upstream's `--concurrent-daemonset-syncs` is 2.
const WORKERS: usize = 8;
/// Upstream's name for the controller, which Events bear.
const CONTROLLER: &str = "daemonset-controller";
/// What upstream calls the number of the template, in a DaemonSet's annotations.
const GENERATION: &str = "deprecated.daemonset.template.generation";

/// Starts the controller.
pub(crate) fn start(ctx: &Arc<Context>) {
    let queue = Queue::new();
    let sets = &ctx.mirrors.daemon_sets;
    let of_sets = queue.clone();
    sets.on_change(move |change| of_sets.add(ObjectKey::of(change.object().as_ref())));
    follow_children(&ctx.mirrors.pods, sets, &queue, |set, labels| selects(set.selector(), labels));
    follow_nodes(&ctx.mirrors.nodes, sets, &queue);
    let recorder = ctx.recorder(CONTROLLER);
    let controller = Arc::new(Controller {
        pods: ctx.pod_control(&recorder),
        ctx: Arc::clone(ctx),
        recorder,
        backoff: Backoff::default(),
    });
    ctx.work(&queue, CONTROLLER, WORKERS, move |key| {
        let controller = Arc::clone(&controller);
        async move { controller.reconcile(&key).await }
    });
}

/// Queues the sets to which a node begins or ceases to mean something.
fn follow_nodes(nodes: &Mirror<Node>, sets: &Mirror<DaemonSet>, queue: &Queue) {
    let (sets, queue) = (sets.clone(), queue.clone());
    nodes.on_change(move |change| {
        let (before, now) = match change {
            Change::Applied { old, new } => (old.as_ref(), Some(new)),
            Change::Deleted(last) => (Some(last), None),
        };
        // Most changes are a kubelet that tells how it is.
        if let (Some(before), Some(now)) = (before, now)
            && before.metadata.labels == now.metadata.labels
            && before.spec == now.spec
        {
            return;
        }
        for set in sets.list() {
            let requirements = Requirements::of(&set);
            let fit = |node: Option<&Arc<Node>>| node.map(|node| requirements.fit(node));
            if fit(before) != fit(now) {
                queue.add(ObjectKey::of(set.as_ref()));
            }
        }
    });
}

impl Versioned for DaemonSet {
    const HASH_LABEL: &'static str = fit::REVISION;

    fn selector(&self) -> &LabelSelector {
        &self.spec.selector
    }

    fn template(&self) -> &PodTemplateSpec {
        &self.spec.template
    }

    fn collisions(&self) -> Option<i32> {
        self.status.as_ref().and_then(|status| status.collision_count)
    }

    fn annotations_of_revision(&self) -> Option<BTreeMap<String, String>> {
        self.metadata.annotations.clone()
    }
}

struct Controller {
    ctx: Arc<Context>,
    pods: PodControl,
    recorder: Recorder,
    backoff: Backoff,
}

/// A set's pods by the node that they are on.
type ByNode = BTreeMap<String, Vec<Arc<Pod>>>;

impl Controller {
    /// Brings one DaemonSet a step further.
    async fn reconcile(&self, key: &ObjectKey) -> Result<Next, Unfinished> {
        let Some(set) = self.ctx.mirrors.daemon_sets.get(key) else {
            self.backoff.forget(key);
            return Ok(Next::AwaitChange);
        };
        if *set.selector() == LabelSelector::default() {
            let told = "This daemon set is selecting all pods. A non-empty selector is required.";
            self.recorder.warning(set.as_ref(), "SelectingAll", told);
            return Ok(Next::AwaitChange);
        }
        // What it had may be gone or orphaned already, so that nothing true can be said of it.
        if set.metadata.deletion_timestamp.is_some() {
            return Ok(Next::AwaitChange);
        }
        let known = history::revisions(&self.ctx, set.as_ref()).await?;
        let recorded = history::record(&self.ctx, set.as_ref(), &known).await?;
        let hash = fit::hash_of(&recorded.revision.metadata).to_owned();
        self.merge(&set, &recorded, &known).await?;
        let nodes = self.nodes(&set);
        let pods = by_node(self.claim_pods(&set).await?);
        let held = self.backoff.held(&set, self.ctx.now());
        let observe = |pods| Observed { set: &set, hash: &hash, nodes: &nodes, pods, held: &held };
        let plan = plan(&observe(&pods), self.ctx.now());
        let acted = self.act(&set, &hash, plan.steps).await;

        let owned = self.own_pods(&set);
        let status =
            status::status(&observe(&by_node(owned.clone())), recorded.collisions, self.ctx.now());
        self.write_status(&set, status).await?;
        acted?;
        self.forget(&set, &recorded, &owned).await?;
        Ok(plan.recheck.map_or(Next::AwaitChange, Next::After))
    }

    /// Of several revisions of the template one stays: pods of the others become pods of it, and are not made again.
    async fn merge(
        &self,
        set: &DaemonSet,
        recorded: &Recorded,
        known: &[Arc<ControllerRevision>],
    ) -> Result<(), Unfinished> {
        let duplicates = history::duplicates(&recorded.revision, known);
        if duplicates.is_empty() {
            return Ok(());
        }
        let hash = fit::hash_of(&recorded.revision.metadata);
        let replaced: HashSet<&str> =
            duplicates.iter().map(|duplicate| fit::hash_of(&duplicate.metadata)).collect();
        for pod in self.own_pods(set) {
            let of = fit::hash_of(&pod.metadata);
            if of != hash && replaced.contains(of) {
                let labels = json!({ fit::REVISION: hash });
                self.pods.label(&pod, &labels).await?;
            }
        }
        history::delete(&self.ctx, &duplicates).await
    }

    /// What each node means to the set.
    fn nodes(&self, set: &DaemonSet) -> BTreeMap<String, Fit> {
        let requirements = Requirements::of(set);
        let nodes = self.ctx.mirrors.nodes.list();
        nodes.iter().map(|node| (node.name_any(), requirements.fit(node))).collect()
    }

    async fn claim_pods(&self, set: &DaemonSet) -> Result<Vec<Arc<Pod>>, Unfinished> {
        let mirror = &self.ctx.mirrors.pods;
        let mut candidates = mirror.owned_by(set.metadata.uid.as_deref().unwrap_or_default());
        let namespace = set.metadata.namespace.as_deref().unwrap_or_default();
        let orphans = self.ctx.orphans.pods.in_namespace(namespace);
        candidates.extend(orphans.into_iter().filter(|pod| is_active(pod)));
        settle(&self.ctx, set, mirror, claim(set, set.selector(), candidates)).await
    }

    fn own_pods(&self, set: &DaemonSet) -> Vec<Arc<Pod>> {
        let uid = set.metadata.uid.as_deref().unwrap_or_default();
        let mut pods = self.ctx.mirrors.pods.owned_by(uid);
        pods.retain(|pod| selects(set.selector(), pod.metadata.labels.as_ref()));
        pods
    }

    async fn act(&self, set: &DaemonSet, hash: &str, steps: Vec<Step>) -> Result<(), Unfinished> {
        let (creations, others): (Vec<_>, Vec<_>) =
            steps.into_iter().partition(|step| matches!(step, Step::Create(_)));
        // Each attempt would be refused.
        let created = if self.ctx.is_terminating(&set.metadata) {
            Ok(())
        } else {
            let template = fit::template(set, hash);
            let (creations, template) = (&creations, &template);
            let created = slow_start(creations.len(), |number| async move {
                let Some(Step::Create(node)) = creations.get(number) else { return Ok(()) };
                let pod = fit::pod(set, template, node);
                self.pods.create(set, &pod).await.attempting(|| {
                    format!("create a pod of daemonset {} on {node}", ObjectKey::of(set))
                })
            });
            created.await
        };
        created.and(at_once(others, |step| self.remove(set, step)).await)
    }

    async fn remove(&self, set: &DaemonSet, step: Step) -> Result<(), Unfinished> {
        let pod = match step {
            Step::Create(_) => return Ok(()),
            Step::Delete(pod) => pod,
            Step::Replace { pod, node } => {
                let key = ObjectKey::of(pod.as_ref());
                if crate::pods::phase(&pod) == "Failed" {
                    self.backoff.replaced(set, &node, self.ctx.now());
                    let told = format!(
                        "Found failed daemon pod {key} on node {node}, will try to kill it"
                    );
                    self.recorder.warning(set, "FailedDaemonPod", told);
                } else {
                    let told = format!(
                        "Found succeeded daemon pod {key} on node {node}, will try to delete it"
                    );
                    self.recorder.normal(set, "SucceededDaemonPod", told);
                }
                pod
            }
        };
        let deleted = self.pods.delete(set, &pod).await;
        deleted.attempting(|| format!("delete pod {}", ObjectKey::of(pod.as_ref())))
    }

    async fn write_status(
        &self,
        set: &DaemonSet,
        status: DaemonSetStatus,
    ) -> Result<(), Unfinished> {
        if set.status.as_ref() == Some(&status) {
            return Ok(());
        }
        let desired = DaemonSet { status: Some(status), ..set.clone() };
        self.ctx.write_status(&self.ctx.mirrors.daemon_sets, &desired).await
    }

    /// Deletes revisions that no pod is of any more, beyond the set's limit.
    async fn forget(
        &self,
        set: &DaemonSet,
        recorded: &Recorded,
        pods: &[Arc<Pod>],
    ) -> Result<(), Unfinished> {
        let uid = set.metadata.uid.as_deref().unwrap_or_default();
        let mut known = self.ctx.mirrors.controller_revisions.owned_by(uid);
        known.sort_by_key(|known| known.revision);
        let hashes: HashSet<&str> = pods.iter().map(|pod| fit::hash_of(&pod.metadata)).collect();
        let is_used = |revision: &ControllerRevision| {
            revision.metadata.name == recorded.revision.metadata.name
                || hashes.contains(fit::hash_of(&revision.metadata))
        };
        let in_use =
            known.iter().filter(|known| is_used(known)).map(|known| known.name_any()).collect();
        let limit = set.spec.revision_history_limit;
        history::delete(&self.ctx, &history::surplus(&known, &in_use, limit)).await
    }
}

/// The pods by node; those that have ended and are going make way for others.
fn by_node(pods: Vec<Arc<Pod>>) -> ByNode {
    let mut by_node = ByNode::new();
    for pod in pods {
        let makes_way = is_over(&pod) && pod.metadata.deletion_timestamp.is_some();
        if let Some(node) = pod.spec.node_name.clone().filter(|_| !makes_way) {
            by_node.entry(node).or_default().push(pod);
        }
    }
    for pods in by_node.values_mut() {
        pods.sort_by(|a, b| {
            let made = |pod: &Pod| pod.metadata.creation_timestamp.as_ref().map(|time| time.0);
            made(a).cmp(&made(b)).then_with(|| a.metadata.name.cmp(&b.metadata.name))
        });
    }
    by_node
}
