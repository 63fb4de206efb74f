//! Deployment: rolls its ReplicaSets from one template to the next.
//!
//! `plan.rs` puts the decision together from `revision.rs` (which set is the new one, and its annotations),
//! `rollout.rs` (how many replicas each set gets) and `status.rs` (what the status says).
//! Rolling back is not here: `kubectl rollout undo` patches the template, and its old set becomes the new one.
//!
//! Upstream: `pkg/controller/deployment`. Where it writes in several steps, ours decides once and writes
//! each object at most once in a pass.

mod plan;
mod revision;
mod rollout;
mod status;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::Arc;

use coracle_reconcile::{Change, Next, ObjectKey, Queue, Recorder};
use k8s_openapi::api::apps::v1::{Deployment, DeploymentStatus, ReplicaSet};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::ResourceExt;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use serde_json::json;

use crate::api::{
    Attempting, Unfinished, is_already_exists, is_namespace_terminating, is_not_found, message,
};
use crate::context::Context;
use crate::ownership::{claim, controller_key, controller_of, selects, settle};
use crate::pod::Pod;
use crate::pods::is_over;
use plan::{Observed, Plan, plan};

/// Deployments that are worked on at once; upstream's `--concurrent-deployment-syncs` is 5.
const WORKERS: usize = 16;

/// Starts the controller.
pub(crate) fn start(ctx: &Arc<Context>) {
    let queue = Queue::new();
    follow_deployments(ctx, &queue);
    follow_sets(ctx, &queue);
    follow_pods(ctx, &queue);
    let recorder = ctx.recorder("deployment-controller");
    let controller = Arc::new(Controller { ctx: Arc::clone(ctx), recorder });
    ctx.work(&queue, "deployment", WORKERS, move |key| {
        let controller = Arc::clone(&controller);
        async move { controller.reconcile(&key).await }
    });
}

fn follow_deployments(ctx: &Arc<Context>, queue: &Queue) {
    let queue = queue.clone();
    ctx.mirrors.deployments.on_change(move |change| {
        if let Change::Applied { new, .. } = change {
            queue.add(ObjectKey::of(new.as_ref()));
        }
    });
}

/// A set's change concerns the Deployment that controls it, the one that did, and those that might adopt it.
fn follow_sets(ctx: &Arc<Context>, queue: &Queue) {
    let queue = queue.clone();
    let deployments = ctx.mirrors.deployments.clone();
    ctx.mirrors.replica_sets.on_change(move |change| {
        let (before, set) = match change {
            Change::Applied { old, new } => (old.as_ref(), new),
            Change::Deleted(last) => (None, last),
        };
        let controller = controller_key::<Deployment>(&set.metadata);
        if let Some(before) =
            before.and_then(|before| controller_key::<Deployment>(&before.metadata))
            && Some(&before) != controller.as_ref()
        {
            queue.add(before);
        }
        if let Some(key) = controller {
            queue.add(key);
        } else if controller_of(&set.metadata).is_none() {
            for deployment in
                deployments.in_namespace(set.metadata.namespace.as_deref().unwrap_or_default())
            {
                if selects(&deployment.spec.selector, set.metadata.labels.as_ref()) {
                    queue.add(ObjectKey::of(deployment.as_ref()));
                }
            }
        }
    });
}

/// The strategy `Recreate` waits for the last old pod to be gone, which no ReplicaSet's status tells.
fn follow_pods(ctx: &Arc<Context>, queue: &Queue) {
    let queue = queue.clone();
    let (sets, deployments) = (ctx.mirrors.replica_sets.clone(), ctx.mirrors.deployments.clone());
    ctx.mirrors.pods.on_change(move |change| {
        let ended = match change {
            Change::Deleted(_) => true,
            Change::Applied { old, new } => {
                is_over(new) && old.as_ref().is_some_and(|old| !is_over(old))
            }
        };
        if !ended {
            return;
        }
        let Some(set) =
            controller_key::<ReplicaSet>(&change.object().metadata).and_then(|key| sets.get(&key))
        else {
            return;
        };
        let Some(key) = controller_key::<Deployment>(&set.metadata) else { return };
        if deployments.get(&key).is_some_and(|deployment| rollout::is_recreate(&deployment)) {
            queue.add(key);
        }
    });
}

struct Controller {
    ctx: Arc<Context>,
    recorder: Recorder,
}

impl Controller {
    /// Brings one Deployment a step further.
    async fn reconcile(&self, key: &ObjectKey) -> Result<Next, Unfinished> {
        let Some(deployment) = self.ctx.mirrors.deployments.get(key) else {
            return Ok(Next::AwaitChange);
        };
        if deployment.spec.selector == LabelSelector::default() {
            let why = "This deployment is selecting all pods. A non-empty selector is required.";
            self.recorder.warning(deployment.as_ref(), "SelectingAll", why);
            return Ok(Next::AwaitChange);
        }
        let sets = self.claim_sets(&deployment).await?;
        let running_pods = if rollout::is_recreate(&deployment) {
            self.running_pods(&sets)
        } else {
            HashMap::new()
        };
        let observed = Observed { deployment: &deployment, sets, running_pods };
        let mut plan = plan(&observed, self.ctx.now());

        let acted = self.act(&deployment, &mut plan).await;
        self.write_status(&deployment, plan.status, plan.revision).await?;
        acted?;
        Ok(plan.recheck.map_or(Next::AwaitChange, Next::After))
    }

    async fn claim_sets(
        &self,
        deployment: &Deployment,
    ) -> Result<Vec<Arc<ReplicaSet>>, Unfinished> {
        let mirror = &self.ctx.mirrors.replica_sets;
        let mut candidates =
            mirror.owned_by(deployment.metadata.uid.as_deref().unwrap_or_default());
        let namespace = deployment.metadata.namespace.as_deref().unwrap_or_default();
        candidates.extend(self.ctx.orphans.replica_sets.in_namespace(namespace));
        settle(
            &self.ctx,
            deployment,
            mirror,
            claim(deployment, &deployment.spec.selector, candidates),
        )
        .await
    }

    /// How many pods of each set may still run a container.
    fn running_pods(&self, sets: &[Arc<ReplicaSet>]) -> HashMap<String, usize> {
        let count = |uid: &str| {
            let pods: Vec<Arc<Pod>> = self.ctx.mirrors.pods.owned_by(uid);
            pods.iter().filter(|pod| !is_over(pod)).count()
        };
        let uids = sets.iter().filter_map(|set| set.metadata.uid.clone());
        uids.map(|uid| {
            let running = count(&uid);
            (uid, running)
        })
        .collect()
    }

    async fn act(&self, deployment: &Deployment, plan: &mut Plan) -> Result<(), Unfinished> {
        let api = self
            .ctx
            .api::<ReplicaSet>(deployment.metadata.namespace.as_deref().unwrap_or_default());
        if let Some(set) = plan.create.take() {
            self.create(deployment, set, plan).await?;
        }
        for (before, after) in &plan.updates {
            let updated = api.replace(&after.name_any(), &PostParams::default(), after).await;
            let updated = updated
                .attempting(|| format!("update replicaset {}", ObjectKey::of(after.as_ref())))?;
            self.ctx.mirrors.replica_sets.observe(updated);
            self.tell_scaling(
                deployment,
                &after.name_any(),
                rollout::replicas(before),
                rollout::replicas(after),
            );
        }
        for set in &plan.deletions {
            let this_state = Preconditions {
                uid: set.metadata.uid.clone(),
                resource_version: set.metadata.resource_version.clone(),
            };
            match api
                .delete(&set.name_any(), &DeleteParams::default().preconditions(this_state))
                .await
            {
                Err(error) if is_not_found(&error) => (),
                deleted => {
                    deleted.attempting(|| {
                        format!("delete replicaset {}", ObjectKey::of(set.as_ref()))
                    })?;
                }
            }
        }
        Ok(())
    }

    /// Creates the new set. When another one has its name the next pass takes another hash.
    async fn create(
        &self,
        deployment: &Deployment,
        set: ReplicaSet,
        plan: &mut Plan,
    ) -> Result<(), Unfinished> {
        let key = ObjectKey::of(&set);
        let api = self.ctx.api::<ReplicaSet>(&key.namespace);
        let error = match api.create(&PostParams::default(), &set).await {
            Ok(created) => {
                self.ctx.mirrors.replica_sets.observe(created);
                self.tell_scaling(deployment, &key.name, 0, rollout::replicas(&set));
                return Ok(());
            }
            Err(error) => error,
        };
        if is_already_exists(&error) {
            let there = api.get(&key.name).await.attempting(|| format!("read replicaset {key}"))?;
            let ours = controller_of(&there.metadata)
                .is_some_and(|owner| Some(&owner.uid) == deployment.metadata.uid.as_ref());
            if ours && revision::runs_template_of(deployment, &there) {
                self.ctx.mirrors.replica_sets.observe(there);
            } else {
                // Another template has the same hash: the count goes into the next one.
                *plan = Plan::only_status(status::collided(deployment));
            }
            return Ok(());
        }
        if !is_namespace_terminating(&error) {
            let why =
                format!("Failed to create new replica set {:?}: {}", key.name, message(&error));
            *plan = Plan::only_status(status::creation_failed(deployment, &why, self.ctx.now()));
            self.recorder.warning(deployment, "ReplicaSetCreateError", why);
        } else {
            *plan = Plan::only_status(deployment.status.clone().unwrap_or_default());
        }
        Err(error).attempting(|| format!("create replicaset {key}"))
    }

    fn tell_scaling(&self, deployment: &Deployment, set: &str, before: i32, after: i32) {
        let direction = match after.cmp(&before) {
            std::cmp::Ordering::Greater => "up",
            std::cmp::Ordering::Less => "down",
            std::cmp::Ordering::Equal => return,
        };
        let message = format!("Scaled {direction} replica set {set} from {before} to {after}");
        self.recorder.normal(deployment, "ScalingReplicaSet", message);
    }

    /// Writes the status, and the revision of the new set as the Deployment's own.
    async fn write_status(
        &self,
        deployment: &Deployment,
        status: DeploymentStatus,
        revision: Option<String>,
    ) -> Result<(), Unfinished> {
        let revision = revision.filter(|revision| {
            revision::annotation(&deployment.metadata) != Some(revision.as_str())
        });
        if revision.is_none() && deployment.status.as_ref() == Some(&status) {
            return Ok(());
        }
        let key = ObjectKey::of(deployment);
        let api = self.ctx.api::<Deployment>(&key.namespace);
        let mut desired = deployment.clone();
        desired.status = Some(status);
        if let Some(revision) = &revision {
            desired.annotations_mut().insert(revision::REVISION.to_owned(), revision.clone());
        }
        let written = match api.replace_status(&key.name, &PostParams::default(), &desired).await {
            Err(error) if is_not_found(&error) => return Ok(()),
            written => written.attempting(|| format!("write the status of deployment {key}"))?,
        };
        let kept = revision.as_deref() == revision::annotation(&written.metadata);
        self.ctx.mirrors.deployments.observe(written);
        // Upstream's API takes annotations with a status; not every server does.
        if let Some(revision) = revision.filter(|_| !kept) {
            let patch =
                json!({ "metadata": { "annotations": { (revision::REVISION): revision } } });
            let patched = api.patch(&key.name, &PatchParams::default(), &Patch::Merge(patch)).await;
            let patched =
                patched.attempting(|| format!("write the revision of deployment {key}"))?;
            self.ctx.mirrors.deployments.observe(patched);
        }
        Ok(())
    }
}
