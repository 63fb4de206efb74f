//! StatefulSet: pods that keep their names and their claims, made and updated one after the other.
//!
//! `plan.rs` decides which pods come and go, `identity.rs` says what a pod's ordinal means, `claims.rs` keeps the
//! claims, `status.rs` counts. The revisions are in `history.rs`, as those of DaemonSets are.
//!
//! Upstream: `pkg/controller/statefulset`.

mod claims;
mod identity;
mod plan;
mod status;

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use coracle_reconcile::{Change, Next, ObjectKey, Queue, Recorder};
use k8s_openapi::api::apps::v1::{ControllerRevision, StatefulSet, StatefulSetStatus};
use k8s_openapi::api::core::v1::PodTemplateSpec;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::ResourceExt;
use serde_json::json;

use crate::api::{Attempting, Unfinished, is_already_exists, is_namespace_terminating, message};
use crate::context::Context;
use crate::history::{self, Recorded, Versioned};
use crate::ownership::{claim, follow_children, selects, settle};
use crate::pod::Pod;
use crate::pods::{PodControl, at_once, is_active, slow_start};
use identity::ordinal_of;
use plan::{Observed, Step, plan};

/// Sets that are worked on at once; upstream's `--concurrent-statefulset-syncs` is 5.
const WORKERS: usize = 16;
/// Upstream's name for the controller, which Events bear.
const CONTROLLER: &str = "statefulset-controller";

/// Starts the controller.
pub(crate) fn start(ctx: &Arc<Context>) {
    let queue = Queue::new();
    let sets = &ctx.mirrors.stateful_sets;
    let of_sets = queue.clone();
    sets.on_change(move |change| {
        if let Change::Applied { new, .. } = change {
            of_sets.add(ObjectKey::of(new.as_ref()));
        }
    });
    follow_children(&ctx.mirrors.pods, sets, &queue, |set, labels| selects(set.selector(), labels));
    let recorder = ctx.recorder(CONTROLLER);
    let controller =
        Arc::new(Controller { pods: ctx.pod_control(&recorder), ctx: Arc::clone(ctx), recorder });
    ctx.work(&queue, CONTROLLER, WORKERS, move |key| {
        let controller = Arc::clone(&controller);
        async move { controller.reconcile(&key).await }
    });
}

impl Versioned for StatefulSet {
    const HASH_LABEL: &'static str = "controller.kubernetes.io/hash";

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
}

/// The two revisions that pods may be made of.
struct Revisions {
    current: Arc<ControllerRevision>,
    update: Recorded,
}

impl Controller {
    /// Brings one StatefulSet a step further.
    async fn reconcile(&self, key: &ObjectKey) -> Result<Next, Unfinished> {
        let Some(set) = self.ctx.mirrors.stateful_sets.get(key) else {
            return Ok(Next::AwaitChange);
        };
        let known = history::revisions(&self.ctx, set.as_ref()).await?;
        let revisions = self.revisions(&set, &known).await?;
        let pods = self.claim_pods(&set).await?;
        let (current, update) =
            (revisions.current.name_any(), revisions.update.revision.name_any());
        let observe = |pods| Observed { set: &set, current: &current, update: &update, pods };
        let plan = plan(&observe(&pods), self.ctx.now());
        let acted = self.act(&set, &revisions, &pods, plan.steps).await;

        let pods = self.own_pods(&set);
        let collisions = revisions.update.collisions;
        let status = status::status(&observe(&pods), collisions, self.ctx.now());
        self.write_status(&set, status).await?;
        acted?;
        self.forget(&set, &revisions, &pods).await?;
        Ok(plan.recheck.map_or(Next::AwaitChange, Next::After))
    }

    /// The revision that the template has now, and the one that was rolled out last.
    async fn revisions(
        &self,
        set: &StatefulSet,
        known: &[Arc<ControllerRevision>],
    ) -> Result<Revisions, Unfinished> {
        let update = if set.metadata.deletion_timestamp.is_some() {
            // Nothing is made any more.
            match known.last() {
                Some(last) => Recorded { revision: Arc::clone(last), collisions: set.collisions() },
                None => history::record(&self.ctx, set, known).await?,
            }
        } else {
            history::record(&self.ctx, set, known).await?
        };
        let rolled_out = set.status.as_ref().and_then(|status| status.current_revision.as_ref());
        let current = known.iter().find(|known| known.metadata.name.as_ref() == rolled_out);
        let current = current.unwrap_or(&update.revision);
        Ok(Revisions { current: Arc::clone(current), update })
    }

    /// Only pods of the set's own names are its pods.
    async fn claim_pods(&self, set: &StatefulSet) -> Result<Vec<Arc<Pod>>, Unfinished> {
        let mirror = &self.ctx.mirrors.pods;
        let mut candidates = mirror.owned_by(set.metadata.uid.as_deref().unwrap_or_default());
        let namespace = set.metadata.namespace.as_deref().unwrap_or_default();
        let orphans = self.ctx.orphans.pods.in_namespace(namespace);
        candidates.extend(orphans.into_iter().filter(|pod| is_active(pod)));
        candidates.retain(|pod| ordinal_of(set, &pod.name_any()).is_some());
        settle(&self.ctx, set, mirror, claim(set, set.selector(), candidates)).await
    }

    fn own_pods(&self, set: &StatefulSet) -> Vec<Arc<Pod>> {
        let uid = set.metadata.uid.as_deref().unwrap_or_default();
        let mut pods = self.ctx.mirrors.pods.owned_by(uid);
        pods.retain(|pod| {
            selects(set.selector(), pod.metadata.labels.as_ref())
                && ordinal_of(set, &pod.name_any()).is_some()
        });
        pods
    }

    async fn act(
        &self,
        set: &StatefulSet,
        revisions: &Revisions,
        pods: &[Arc<Pod>],
        steps: Vec<Step>,
    ) -> Result<(), Unfinished> {
        if set.metadata.deletion_timestamp.is_none() {
            for pod in pods {
                let Some(ordinal) = ordinal_of(set, &pod.name_any()) else { continue };
                claims::assign(&self.ctx, set, pod, ordinal).await?;
                // A claim that was deleted before its pod was bound would be waited for without end.
                let is_wanted = identity::ordinals(set).contains(&ordinal);
                if is_wanted && crate::pods::phase(pod) == "Pending" && !plan::is_going(pod) {
                    claims::ensure(&self.ctx, &self.recorder, set, ordinal).await?;
                }
            }
        }
        let (creations, others): (Vec<_>, Vec<_>) =
            steps.into_iter().partition(|step| matches!(step, Step::Create { .. }));
        let changed = at_once(others, |step| self.change(set, step)).await;
        // Each attempt would be refused.
        if self.ctx.is_terminating(&set.metadata) {
            return changed;
        }
        let creations = &creations;
        let created = slow_start(creations.len(), |number| async move {
            match creations.get(number) {
                Some(Step::Create { ordinal, is_updated }) => {
                    let newer = &revisions.update.revision;
                    let revision = if *is_updated { newer } else { &revisions.current };
                    self.create(set, revision, *ordinal).await
                }
                _ => Ok(()),
            }
        });
        created.await.and(changed)
    }

    async fn change(&self, set: &StatefulSet, step: Step) -> Result<(), Unfinished> {
        let key = ObjectKey::of(set);
        match step {
            Step::Create { .. } => Ok(()),
            Step::Delete(pod) => self.delete(set, &pod).await,
            Step::Recreate(pod) => {
                let message = |phase: &str| {
                    format!("StatefulSet {key} is recreating {phase} Pod {}", pod.name_any())
                };
                if crate::pods::phase(&pod) == "Failed" {
                    self.recorder.warning(set, "RecreatingFailedPod", message("failed"));
                } else {
                    self.recorder.normal(set, "RecreatingTerminatedPod", message("terminated"));
                }
                self.delete(set, &pod).await
            }
            Step::Label { pod, ordinal } => {
                let labels: BTreeMap<_, _> = identity::labels(set, ordinal).into();
                self.pods.label(&pod, &json!(labels)).await
            }
        }
    }

    /// Makes a pod, after its claims.
    async fn create(
        &self,
        set: &StatefulSet,
        revision: &ControllerRevision,
        ordinal: i32,
    ) -> Result<(), Unfinished> {
        claims::ensure(&self.ctx, &self.recorder, set, ordinal).await?;
        let template = history::template_of(revision);
        let template = template.as_ref().unwrap_or_else(|| set.template());
        let pod = identity::pod(set, template, &revision.name_any(), ordinal);
        let told = format!("create Pod {} in StatefulSet {}", pod.name_any(), set.name_any());
        let error = match self.pods.post(&pod).await {
            Ok(_) => {
                self.recorder.normal(set, "SuccessfulCreate", format!("{told} successful"));
                return Ok(());
            }
            Err(error) if is_namespace_terminating(&error) => return Ok(()),
            Err(error) => error,
        };
        // A pod that has its name and is not its own may go; until then there is nothing to tell.
        if !is_already_exists(&error) {
            let told = format!("{told} failed error: {}", message(&error));
            self.recorder.warning(set, "FailedCreate", told);
        }
        Err(error).attempting(|| format!("create pod {}", ObjectKey::of(&pod)))
    }

    async fn delete(&self, set: &StatefulSet, pod: &Pod) -> Result<(), Unfinished> {
        let told = format!("delete Pod {} in StatefulSet {}", pod.name_any(), set.name_any());
        match self.pods.remove(pod).await {
            Ok(true) => {
                self.recorder.normal(set, "SuccessfulDelete", format!("{told} successful"));
                Ok(())
            }
            Ok(false) => Ok(()),
            Err(error) => {
                let told = format!("{told} failed error: {}", message(&error));
                self.recorder.warning(set, "FailedDelete", told);
                Err(error).attempting(|| format!("delete pod {}", ObjectKey::of(pod)))
            }
        }
    }

    async fn write_status(
        &self,
        set: &StatefulSet,
        status: StatefulSetStatus,
    ) -> Result<(), Unfinished> {
        if set.status.as_ref() == Some(&status) {
            return Ok(());
        }
        let desired = StatefulSet { status: Some(status), ..set.clone() };
        self.ctx.write_status(&self.ctx.mirrors.stateful_sets, &desired).await
    }

    /// Deletes revisions that nothing is of any more, beyond the set's limit.
    async fn forget(
        &self,
        set: &StatefulSet,
        revisions: &Revisions,
        pods: &[Arc<Pod>],
    ) -> Result<(), Unfinished> {
        let mut known = self
            .ctx
            .mirrors
            .controller_revisions
            .owned_by(set.metadata.uid.as_deref().unwrap_or_default());
        known.sort_by_key(|known| known.revision);
        let mut in_use: HashSet<String> =
            pods.iter().map(|pod| plan::revision(pod).to_owned()).collect();
        in_use.insert(revisions.current.name_any());
        in_use.insert(revisions.update.revision.name_any());
        let limit = set.spec.revision_history_limit;
        history::delete(&self.ctx, &history::surplus(&known, &in_use, limit)).await
    }
}
