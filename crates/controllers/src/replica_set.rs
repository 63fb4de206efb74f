//! ReplicaSet: as many pods of one template as wanted.
//!
//! Upstream: `pkg/controller/replicaset/replica_set.go`. In place of its expectations, the answers to our
//! own writes go into the mirror at once, so a lagging watch never makes us create or delete twice.

mod plan;
mod ranking;

use std::collections::HashMap;
use std::sync::Arc;

use coracle_reconcile::{Change, Next, ObjectKey, Queue};
use k8s_openapi::api::apps::v1::{ReplicaSet, ReplicaSetStatus};
use kube::ResourceExt;
use kube::api::PostParams;

use crate::api::{Attempting, Unfinished, is_not_found, message};
use crate::context::Context;
use crate::ownership::{claim, controller_key, controller_of, selects, settle};
use crate::pod::Pod;
use crate::pods::{PodControl, at_once, from_template, is_active, slow_start};
use plan::{Failure, Step, plan};

/// Sets that are worked on at once; upstream's `--concurrent-replicaset-syncs` is 5, with one thread each.
const WORKERS: usize = 16;

/// Starts the controller.
pub(crate) fn start(ctx: &Arc<Context>) {
    let queue = Queue::new();
    follow_sets(ctx, &queue);
    follow_pods(ctx, &queue);
    let controller = Arc::new(Controller {
        pods: PodControl {
            client: ctx.client.clone(),
            mirror: ctx.mirrors.pods.clone(),
            recorder: ctx.recorder("replicaset-controller"),
        },
        ctx: Arc::clone(ctx),
    });
    ctx.work(&queue, "replicaset", WORKERS, move |key| {
        let controller = Arc::clone(&controller);
        async move { controller.reconcile(&key).await }
    });
}

fn follow_sets(ctx: &Arc<Context>, queue: &Queue) {
    let queue = queue.clone();
    ctx.mirrors.replica_sets.on_change(move |change| {
        if let Change::Applied { new, .. } = change {
            queue.add(ObjectKey::of(new.as_ref()));
        }
    });
}

/// A pod's change concerns the set that controls it, the one that did, and those that might adopt it.
fn follow_pods(ctx: &Arc<Context>, queue: &Queue) {
    let queue = queue.clone();
    let sets = ctx.mirrors.replica_sets.clone();
    ctx.mirrors.pods.on_change(move |change| {
        let (before, pod) = match change {
            Change::Applied { old, new } => (old.as_ref(), new),
            Change::Deleted(last) => (None, last),
        };
        let controller = controller_key::<ReplicaSet>(&pod.metadata);
        if let Some(before) =
            before.and_then(|before| controller_key::<ReplicaSet>(&before.metadata))
            && Some(&before) != controller.as_ref()
        {
            queue.add(before);
        }
        if let Some(key) = controller {
            queue.add(key);
        } else if controller_of(&pod.metadata).is_none() {
            let selecting =
                sets.in_namespace(pod.metadata.namespace.as_deref().unwrap_or_default());
            for set in selecting {
                if selects(&set.spec.selector, pod.metadata.labels.as_ref()) {
                    queue.add(ObjectKey::of(set.as_ref()));
                }
            }
        }
    });
}

struct Controller {
    ctx: Arc<Context>,
    pods: PodControl,
}

impl Controller {
    /// Brings one ReplicaSet to its wanted size and says in its status what is there.
    async fn reconcile(&self, key: &ObjectKey) -> Result<Next, Unfinished> {
        let Some(set) = self.ctx.mirrors.replica_sets.get(key) else {
            return Ok(Next::AwaitChange);
        };
        let pods = self.claim_pods(&set).await?;
        let step = plan(&set, &pods, || self.related_pods(&set), self.ctx.now());
        let acted = self.act(&set, step).await;

        let pods = self.ctx.mirrors.pods.owned_by(set.metadata.uid.as_deref().unwrap_or_default());
        let now = self.ctx.now();
        let status = plan::status(&set, &pods, acted.as_ref().err(), now);
        self.write_status(&set, status).await?;
        match acted {
            Ok(()) => {
                Ok(plan::next_availability(&set, &pods, now).map_or(Next::AwaitChange, Next::After))
            }
            Err(failure) => Err(failure.into_unfinished(key)),
        }
    }

    async fn claim_pods(&self, set: &ReplicaSet) -> Result<Vec<Arc<Pod>>, Unfinished> {
        let mut candidates =
            self.ctx.mirrors.pods.owned_by(set.metadata.uid.as_deref().unwrap_or_default());
        let orphans = self
            .ctx
            .orphans
            .pods
            .in_namespace(set.metadata.namespace.as_deref().unwrap_or_default());
        // What is over or going is of no use to a set that looks for pods.
        candidates.extend(orphans.into_iter().filter(|pod| is_active(pod)));
        settle(&self.ctx, set, &self.ctx.mirrors.pods, claim(set, &set.spec.selector, candidates))
            .await
    }

    async fn act(&self, set: &ReplicaSet, step: Step) -> Result<(), Failure> {
        match step {
            Step::Settled => Ok(()),
            // Each attempt would be refused.
            Step::Grow(_) if self.ctx.is_terminating(&set.metadata) => Ok(()),
            Step::Grow(missing) => {
                let Some(template) = &set.spec.template else { return Ok(()) };
                let pod = from_template(template, set);
                let grown = slow_start(missing, |_| self.pods.create(set, &pod)).await;
                grown.map_err(|error| Failure::Create(message(&error)))
            }
            Step::Shrink(surplus) => {
                let shrunk =
                    at_once(surplus, |pod| async move { self.pods.delete(set, &pod).await }).await;
                shrunk.map_err(|error| Failure::Delete(message(&error)))
            }
        }
    }

    /// How many active pods of the same Deployment each node runs.
    fn related_pods(&self, set: &ReplicaSet) -> HashMap<String, usize> {
        let mut by_node = HashMap::new();
        let siblings = match controller_of(&set.metadata) {
            Some(controller) => self.ctx.mirrors.replica_sets.owned_by(&controller.uid),
            None => vec![Arc::new(set.clone())],
        };
        for sibling in siblings {
            for pod in
                self.ctx.mirrors.pods.owned_by(sibling.metadata.uid.as_deref().unwrap_or_default())
            {
                if is_active(&pod)
                    && let Some(node) = pod.spec.node_name.clone()
                {
                    *by_node.entry(node).or_default() += 1;
                }
            }
        }
        by_node
    }

    async fn write_status(
        &self,
        set: &ReplicaSet,
        status: ReplicaSetStatus,
    ) -> Result<(), Unfinished> {
        if set.status.as_ref() == Some(&status) {
            return Ok(());
        }
        let mut desired = set.clone();
        desired.status = Some(status);
        let api = self.ctx.api::<ReplicaSet>(set.metadata.namespace.as_deref().unwrap_or_default());
        match api.replace_status(&set.name_any(), &PostParams::default(), &desired).await {
            Ok(written) => self.ctx.mirrors.replica_sets.observe(written),
            Err(error) if is_not_found(&error) => (),
            refused => {
                refused.attempting(|| {
                    format!("write the status of replicaset {}", ObjectKey::of(set))
                })?;
            }
        }
        Ok(())
    }
}
