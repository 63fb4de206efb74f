//! EndpointSlice: who stands behind each Service, in slices of a hundred.
//!
//! Upstream: `staging/src/k8s.io/endpointslice/reconciler.go`. Slices have fixed
//! names, so that a repeated creation collides instead of doubling.

mod plan;

use std::sync::Arc;

use coracle_reconcile::{Change, Next, ObjectKey, Queue, Recorder};
use k8s_openapi::api::core::v1::{Node, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::Api;
use kube::api::{DeleteParams, PostParams, Preconditions};

use crate::api::{
    Attempting, Unfinished, is_already_exists, is_namespace_terminating, is_not_found,
};
use crate::context::Context;
use crate::ownership::controller_key;
use crate::service_pods::{follow, is_unmanaged, members, queue_selecting};
use plan::{Step, plan};

/// Services that are worked on at once; upstream's `--concurrent-service-endpoint-syncs`.
const WORKERS: usize = 5;

/// Starts the controller.
pub(crate) fn start(ctx: &Arc<Context>) {
    let queue = Queue::new();
    follow(ctx, &queue);
    let of_slices = queue.clone();
    ctx.mirrors.endpoint_slices.on_change(move |change| {
        if let Some(service) = controller_key::<Service>(&change.object().metadata) {
            of_slices.add(service);
        }
    });
    let (shared, of_nodes) = (Arc::clone(ctx), queue.clone());
    ctx.mirrors.nodes.on_change(move |change| {
        let before = match change {
            Change::Applied { old, .. } => old.as_deref().and_then(zone),
            Change::Deleted(last) => zone(last),
        };
        let now = match change {
            Change::Applied { new, .. } => zone(new),
            Change::Deleted(_) => None,
        };
        if before != now {
            let name = change.object().metadata.name.as_deref().unwrap_or_default();
            let services = &shared.mirrors.services;
            shared.placed.on(name).iter().for_each(|pod| queue_selecting(services, pod, &of_nodes));
        }
    });
    let recorder = ctx.recorder("endpoint-slice-controller");
    let controller = Arc::new(Controller { ctx: Arc::clone(ctx), recorder });
    ctx.work(&queue, "endpointslice", WORKERS, move |key| {
        let controller = Arc::clone(&controller);
        async move { controller.reconcile(&key).await }
    });
}

/// Where a node is.
fn zone(node: &Node) -> Option<String> {
    let zone = node.metadata.labels.as_ref()?.get("topology.kubernetes.io/zone")?;
    (!zone.is_empty()).then(|| zone.clone())
}

struct Controller {
    ctx: Arc<Context>,
    recorder: Recorder,
}

impl Controller {
    async fn reconcile(&self, key: &ObjectKey) -> Result<Next, Unfinished> {
        let mirrors = &self.ctx.mirrors;
        // Without its Service a slice is the garbage collector's business.
        let Some(service) = mirrors.services.get(key) else { return Ok(Next::AwaitChange) };
        if is_unmanaged(&service) || service.metadata.deletion_timestamp.is_some() {
            return Ok(Next::AwaitChange);
        }
        let uid = service.metadata.uid.as_deref().unwrap_or_default();
        let slices = mirrors.endpoint_slices.owned_by(uid);
        let members = members(&service, &mirrors.pods.in_namespace(&key.namespace));
        let zone_of = |node: &str| zone(mirrors.nodes.get(&ObjectKey::new("", node))?.as_ref());
        for step in plan(&service, &members, &zone_of, &slices, self.ctx.now()) {
            if let Err(error) = self.act(&service, step).await {
                let message = format!("Error updating Endpoint Slices for Service {key}: {error}");
                self.recorder.warning(service.as_ref(), "FailedToUpdateEndpointSlices", message);
                return Err(error);
            }
        }
        Ok(Next::AwaitChange)
    }

    async fn act(&self, service: &Service, step: Step) -> Result<(), Unfinished> {
        let namespace = service.metadata.namespace.as_deref().unwrap_or_default();
        let api: Api<EndpointSlice> = self.ctx.api(namespace);
        let mirror = &self.ctx.mirrors.endpoint_slices;
        match step {
            Step::Create(slice) => match api.create(&PostParams::default(), &slice).await {
                Ok(created) => mirror.observe(created),
                Err(error) if is_namespace_terminating(&error) => (),
                Err(error) if is_already_exists(&error) => {
                    // The mirror lags. With what is there the next look decides better.
                    let name = slice.metadata.name.as_deref().unwrap_or_default();
                    let there = api.get(name).await;
                    mirror.observe(there.attempting(|| format!("get endpoint slice {name}"))?);
                    return Err(Unfinished::Remaining(format!("endpoint slice {name} is there")));
                }
                Err(error) => {
                    return Err(error).attempting(|| "create an endpoint slice".to_owned());
                }
            },
            Step::Update(slice) => {
                let name = slice.metadata.name.clone().unwrap_or_default();
                let updated = api.replace(&name, &PostParams::default(), &slice).await;
                mirror.observe(updated.attempting(|| format!("update endpoint slice {name}"))?);
            }
            Step::Delete(slice) => {
                let name = slice.metadata.name.clone().unwrap_or_default();
                let this =
                    Preconditions { uid: slice.metadata.uid.clone(), resource_version: None };
                match api.delete(&name, &DeleteParams::default().preconditions(this)).await {
                    Ok(_) => mirror.observe_gone(&slice),
                    Err(error) if is_not_found(&error) => mirror.observe_gone(&slice),
                    Err(error) => {
                        return Err(error).attempting(|| format!("delete endpoint slice {name}"));
                    }
                }
            }
        }
        Ok(())
    }
}
