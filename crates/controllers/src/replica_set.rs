//! ReplicaSet and ReplicationController: as many pods of one template as wanted.
//!
//! Upstream: `pkg/controller/replicaset/replica_set.go`. In place of its expectations, the answers to our
//! own writes go into the mirror at once, so a lagging watch never makes us create or delete twice.

mod plan;
mod ranking;
mod replicated;

use std::collections::HashMap;
use std::marker::PhantomData;
use std::sync::Arc;

use coracle_reconcile::{Change, Next, ObjectKey, Queue};
use k8s_openapi::api::apps::v1::{ReplicaSet, ReplicaSetStatus};
use k8s_openapi::api::core::v1::ReplicationController;

use crate::api::{Unfinished, message};
use crate::context::Context;
use crate::ownership::{claim, controller_of, follow_children, selects, settle};
use crate::pod::Pod;
use crate::pods::{PodControl, at_once, from_template, is_active, slow_start};
use plan::{Failure, Step, plan};
use replicated::Replicated;

/// Sets that are worked on at once; upstream's `--concurrent-replicaset-syncs` is 5, with one thread each.
const WORKERS: usize = 16;

/// Starts the controllers of both kinds.
pub(crate) fn start(ctx: &Arc<Context>) {
    start_kind::<ReplicaSet>(ctx);
    start_kind::<ReplicationController>(ctx);
}

fn start_kind<S: Replicated>(ctx: &Arc<Context>) {
    let queue = Queue::new();
    follow_sets::<S>(ctx, &queue);
    let sets = S::mirror(&ctx.mirrors);
    follow_children(&ctx.mirrors.pods, sets, &queue, |set: &S, labels| {
        selects(&set.selector(), labels)
    });
    let controller = Arc::new(Controller::<S> {
        pods: ctx.pod_control(&ctx.recorder(S::CONTROLLER)),
        ctx: Arc::clone(ctx),
        kind: PhantomData,
    });
    ctx.work(&queue, S::CONTROLLER, WORKERS, move |key| {
        let controller = Arc::clone(&controller);
        async move { controller.reconcile(&key).await }
    });
}

fn follow_sets<S: Replicated>(ctx: &Arc<Context>, queue: &Queue) {
    let queue = queue.clone();
    S::mirror(&ctx.mirrors).on_change(move |change| {
        if let Change::Applied { new, .. } = change {
            queue.add(ObjectKey::of(new.as_ref()));
        }
    });
}

struct Controller<S> {
    ctx: Arc<Context>,
    pods: PodControl,
    kind: PhantomData<S>,
}

impl<S: Replicated> Controller<S> {
    /// Brings one set to its wanted size and says in its status what is there.
    async fn reconcile(&self, key: &ObjectKey) -> Result<Next, Unfinished> {
        let Some(set) = S::mirror(&self.ctx.mirrors).get(key) else {
            return Ok(Next::AwaitChange);
        };
        let pods = self.claim_pods(&set).await?;
        let step = plan(set.as_ref(), &pods, || self.related_pods(&set), self.ctx.now());
        let acted = self.act(&set, step).await;

        let pods = self.ctx.mirrors.pods.owned_by(set.meta().uid.as_deref().unwrap_or_default());
        let now = self.ctx.now();
        let status = plan::status(set.as_ref(), &pods, acted.as_ref().err(), now);
        self.write_status(&set, status).await?;
        match acted {
            Ok(()) => Ok(plan::next_availability(set.as_ref(), &pods, now)
                .map_or(Next::AwaitChange, Next::After)),
            Err(failure) => Err(failure.into_unfinished::<S>(key)),
        }
    }

    async fn claim_pods(&self, set: &S) -> Result<Vec<Arc<Pod>>, Unfinished> {
        let mut candidates =
            self.ctx.mirrors.pods.owned_by(set.meta().uid.as_deref().unwrap_or_default());
        let orphans =
            self.ctx.orphans.pods.in_namespace(set.meta().namespace.as_deref().unwrap_or_default());
        // What is over or going is of no use to a set that looks for pods.
        candidates.extend(orphans.into_iter().filter(|pod| is_active(pod)));
        settle(&self.ctx, set, &self.ctx.mirrors.pods, claim(set, &set.selector(), candidates))
            .await
    }

    async fn act(&self, set: &S, step: Step) -> Result<(), Failure> {
        match step {
            Step::Settled => Ok(()),
            // Each attempt would be refused.
            Step::Grow(_) if self.ctx.is_terminating(set.meta()) => Ok(()),
            Step::Grow(missing) => {
                let Some(template) = set.template() else { return Ok(()) };
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
    fn related_pods(&self, set: &S) -> HashMap<String, usize> {
        let mut by_node = HashMap::new();
        let siblings = match controller_of(set.meta()) {
            Some(controller) => S::mirror(&self.ctx.mirrors).owned_by(&controller.uid),
            None => vec![Arc::new(set.clone())],
        };
        for sibling in siblings {
            for pod in
                self.ctx.mirrors.pods.owned_by(sibling.meta().uid.as_deref().unwrap_or_default())
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

    async fn write_status(&self, set: &S, status: ReplicaSetStatus) -> Result<(), Unfinished> {
        let desired = set.saying(status);
        if desired.said() == set.said() {
            return Ok(());
        }
        self.ctx.write_status(S::mirror(&self.ctx.mirrors), &desired).await
    }
}
