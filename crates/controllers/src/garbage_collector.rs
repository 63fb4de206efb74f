//! Garbage collector: what has lost its last owner goes; what is deleted in the foreground waits for its
//! dependents; what is deleted as an orphan's owner lets them go.
//!
//! `graph.rs` knows who owns whom, over every deletable kind: from the controllers' own mirrors where there is
//! one, else from a mirror of metadata. `plan.rs` decides about one object. Here it is done.
//!
//! An owner that the graph does not know is asked for at the API before anything is deleted for its sake, and
//! every deletion bears the uid and resourceVersion on which it was decided.
//!
//! Upstream: `pkg/controller/garbagecollector`.

mod graph;
mod metadata;
mod monitors;
mod plan;

use std::collections::HashMap;
use std::sync::Arc;

use coracle_reconcile::{Next, ObjectKey, Recorder};
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::{DeleteParams, Patch, PatchParams, Preconditions, PropagationPolicy};
use serde_json::{Value, json};

pub(crate) use graph::{Gone, Graph};
use graph::{Node, View};
pub(crate) use metadata::{Metadata, api_of};
use monitors::Monitors;
use plan::{Owner, Step, plan};

use crate::api::{Attempting, Unfinished, is_conflict, is_not_found};
use crate::context::Context;
use crate::pods::at_once;

/// Objects that are looked at at once. Upstream's `--concurrent-gc-syncs` is 20; more of them share a commit.
const WORKERS: usize = 64;
/// Tries of one write against an object that keeps changing, before the queue's back-off takes over.
const TRIES: usize = 4;

/// Holds back the deletion of an owner until the dependents that block it are gone.
const FOREGROUND: &str = "foregroundDeletion";
/// Holds back the deletion of an owner until its dependents have forgotten it.
const ORPHAN: &str = "orphan";

/// Starts the controller.
pub(crate) fn start(ctx: &Arc<Context>) {
    let monitors = Arc::new(Monitors::new(ctx));
    let collector = Arc::new(Collector {
        ctx: Arc::clone(ctx),
        monitors: Arc::clone(&monitors),
        recorder: ctx.recorder("garbage-collector-controller"),
    });
    let tasks = ctx.tasks.clone();
    tasks.spawn("garbage-collector", async move {
        monitors.follow().await;
        let shared = Arc::clone(&collector);
        collector.ctx.work(collector.ctx.graph.queue(), "garbage-collector", WORKERS, move |key| {
            let collector = Arc::clone(&shared);
            async move { collector.reconcile(&key.name).await }
        });
    });
}

struct Collector {
    ctx: Arc<Context>,
    monitors: Arc<Monitors>,
    recorder: Recorder,
}

impl Collector {
    /// Looks at one object and does what it needs.
    async fn reconcile(&self, uid: &str) -> Result<Next, Unfinished> {
        let mut looked_up = HashMap::new();
        loop {
            let Some(view) = self.ctx.graph.view(uid) else { return Ok(Next::AwaitChange) };
            let owners: Vec<Owner> = view
                .owners
                .iter()
                .zip(&view.node.owners)
                .map(|(known, reference)| looked_up.get(&reference.uid).copied().unwrap_or(*known))
                .collect();
            let step = plan(&view.node, &owners, view.dependents);
            if step != Step::LookUp {
                self.act(view, &owners, step).await?;
                return Ok(Next::AwaitChange);
            }
            for (reference, owner) in view.node.owners.iter().zip(&owners) {
                if let Owner::Unknown { elsewhere } = *owner {
                    if elsewhere {
                        self.report_invalid_namespace(&view.node, reference);
                    }
                    looked_up
                        .insert(reference.uid.clone(), self.look_up(&view.node, reference).await?);
                }
            }
        }
    }

    async fn act(&self, view: View, owners: &[Owner], step: Step) -> Result<(), Unfinished> {
        let node = view.node;
        match step {
            Step::LookUp | Step::Nothing => Ok(()),
            Step::ReportOutOfReach => {
                for (reference, _) in
                    node.owners.iter().zip(owners).filter(|(_, owner)| **owner == Owner::OutOfReach)
                {
                    self.report_invalid_namespace(&node, reference);
                }
                Ok(())
            }
            Step::DropOwners => {
                let dropped: Vec<String> = (node.owners.iter().zip(owners))
                    .filter(|(_, owner)| **owner != Owner::Solid)
                    .map(|(reference, _)| reference.uid.clone())
                    .collect();
                self.amend(node, "remove owners of", |node| without_owners(node, &dropped)).await
            }
            Step::UnblockAndDelete => {
                self.amend(node.clone(), "unblock owners of", unblocked).await?;
                match self.ctx.graph.view(&node.uid) {
                    Some(view) => self.delete(&view.node, PropagationPolicy::Foreground).await,
                    None => Ok(()),
                }
            }
            Step::Delete(policy) => self.delete(&node, policy.into()).await,
            Step::FinishForeground => {
                self.amend(node, "finalize", |node| without_finalizer(node, FOREGROUND)).await
            }
            Step::Orphan => self.orphan_dependents(node).await,
        }
    }

    /// Asks the API whether the owner that a reference means is there.
    async fn look_up(&self, node: &Node, reference: &OwnerReference) -> Result<Owner, Unfinished> {
        let Some(kind) = self.monitors.kind(&reference.api_version, &reference.kind) else {
            // The kind may come back, and its objects with it.
            let what = format!("{} {} is not served", reference.api_version, reference.kind);
            return Err(Unfinished::Remaining(format!(
                "cannot look up an owner of {}: {what}",
                node.describe()
            )));
        };
        if kind.namespaced && node.key.namespace.is_empty() {
            return Ok(Owner::OutOfReach);
        }
        let namespace = kind.namespaced.then_some(node.key.namespace.as_str());
        let api = api_of(&self.ctx.client, &kind.resource, namespace);
        let found = api
            .get_opt(&reference.name)
            .await
            .attempting(|| format!("look up {} {}", reference.kind, reference.name))?;
        match found.filter(|found| found.metadata.uid.as_ref() == Some(&reference.uid)) {
            None => {
                self.ctx.graph.remember_absent(node, reference);
                Ok(Owner::Absent)
            }
            Some(found) if graph::is_waiting(&found.metadata) => Ok(Owner::Waiting),
            Some(_) => Ok(Owner::Solid),
        }
    }

    async fn delete(&self, node: &Node, policy: PropagationPolicy) -> Result<(), Unfinished> {
        let preconditions = Preconditions {
            uid: Some(node.uid.to_string()),
            resource_version: Some(node.version.to_string()),
        };
        let params = DeleteParams {
            propagation_policy: Some(policy),
            preconditions: Some(preconditions),
            ..DeleteParams::default()
        };
        let api = self.api(node);
        match api.delete(&node.key.name, &params).await {
            Ok(answer) => match answer.left() {
                Some(going) => self.ctx.graph.applied(&node.kind, &going.metadata),
                None => self.ctx.graph.removed(&node.uid),
            },
            Err(error) if is_not_found(&error) => self.ctx.graph.removed(&node.uid),
            Err(error) => {
                if is_conflict(&error) {
                    // It changed since: the next try decides on its new state.
                    self.refresh(node).await?;
                }
                return Err(error).attempting(|| format!("delete {}", node.describe()));
            }
        }
        Ok(())
    }

    /// Makes every dependent forget the object, and then lets it go.
    async fn orphan_dependents(&self, node: Node) -> Result<(), Unfinished> {
        let owner = [node.uid.to_string()];
        let dependents = self.ctx.graph.dependents(&node.uid);
        at_once(dependents, |dependent| {
            self.amend(dependent, "orphan", |dependent| without_owners(dependent, &owner))
        })
        .await?;
        self.amend(node, "finalize", |node| without_finalizer(node, ORPHAN)).await
    }

    /// Patches an object's metadata as `change` wants it, against its newest state. `None` means that it is so already.
    async fn amend(
        &self,
        mut node: Node,
        verb: &str,
        change: impl Fn(&Node) -> Option<Value>,
    ) -> Result<(), Unfinished> {
        for _ in 0..TRIES {
            let Some(mut patch) = change(&node) else { return Ok(()) };
            patch["uid"] = json!(&*node.uid);
            patch["resourceVersion"] = json!(node.version.to_string());
            let patch = Patch::Merge(json!({ "metadata": patch }));
            match self.api(&node).patch(&node.key.name, &PatchParams::default(), &patch).await {
                Ok(amended) => {
                    self.ctx.graph.applied(&node.kind, &amended.metadata);
                    return Ok(());
                }
                Err(error) if is_not_found(&error) => {
                    self.ctx.graph.removed(&node.uid);
                    return Ok(());
                }
                Err(error) if is_conflict(&error) => match self.refresh(&node).await? {
                    Some(newer) => node = newer,
                    None => return Ok(()),
                },
                refused => {
                    return refused
                        .map(|_| ())
                        .attempting(|| format!("{verb} {}", node.describe()));
                }
            }
        }
        Err(Unfinished::Remaining(format!("cannot {verb} {}: it keeps changing", node.describe())))
    }

    /// Takes the object's state from the API. `None` if it is gone.
    async fn refresh(&self, node: &Node) -> Result<Option<Node>, Unfinished> {
        let live = self
            .api(node)
            .get_opt(&node.key.name)
            .await
            .attempting(|| format!("read {}", node.describe()))?;
        match live.filter(|live| live.metadata.uid.as_deref() == Some(&*node.uid)) {
            Some(live) => {
                self.ctx.graph.applied(&node.kind, &live.metadata);
                Ok(Node::of(&node.kind, &live.metadata))
            }
            None => {
                self.ctx.graph.removed(&node.uid);
                Ok(None)
            }
        }
    }

    fn api(&self, node: &Node) -> kube::Api<Metadata> {
        let namespace = node.kind.namespaced.then_some(node.key.namespace.as_str());
        api_of(&self.ctx.client, &node.kind.resource, namespace)
    }

    fn report_invalid_namespace(&self, node: &Node, owner: &OwnerReference) {
        let ObjectKey { namespace, name } = &node.key;
        let about = ObjectReference {
            api_version: Some(node.kind.resource.api_version.clone()),
            kind: Some(node.kind.resource.kind.clone()),
            namespace: Some(namespace.clone()).filter(|namespace| !namespace.is_empty()),
            name: Some(name.clone()),
            uid: Some(node.uid.to_string()),
            ..ObjectReference::default()
        };
        let OwnerReference { api_version, kind, name, uid, .. } = owner;
        let reference =
            format!("[{api_version}/{kind}, namespace: {namespace}, name: {name}, uid: {uid}]");
        let message = format!("ownerRef {reference} does not exist in namespace {namespace:?}");
        self.recorder.warning_ref(about, "OwnerRefInvalidNamespace", message);
    }
}

/// The metadata without some owners, if it has any of them.
fn without_owners(node: &Node, uids: &[String]) -> Option<Value> {
    let kept: Vec<&OwnerReference> =
        node.owners.iter().filter(|owner| !uids.contains(&owner.uid)).collect();
    (kept.len() < node.owners.len()).then(
        || json!({ "ownerReferences": if kept.is_empty() { Value::Null } else { json!(kept) } }),
    )
}

/// The metadata with owners that it does not block, if it blocks any.
fn unblocked(node: &Node) -> Option<Value> {
    let mut owners = node.owners.clone();
    let blocks = owners.iter().any(|owner| owner.block_owner_deletion == Some(true));
    owners.iter_mut().for_each(|owner| owner.block_owner_deletion = Some(false));
    blocks.then(|| json!({ "ownerReferences": owners }))
}

/// The metadata without a finalizer, if it has it.
fn without_finalizer(node: &Node, finalizer: &str) -> Option<Value> {
    let kept: Vec<&String> = node.finalizers.iter().filter(|name| *name != finalizer).collect();
    (kept.len() < node.finalizers.len())
        .then(|| json!({ "finalizers": if kept.is_empty() { Value::Null } else { json!(kept) } }))
}
