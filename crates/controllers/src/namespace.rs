//! Namespace: empties a namespace that is being deleted, and then lets it go.
//!
//! Upstream: `pkg/controller/namespace`. Its estimates and timers are replaced by the owner graph, which hears
//! when the last object of a kind is gone. Pods go first, so that nothing they use is taken from under them.

mod conditions;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use coracle_reconcile::{Change, Next, ObjectKey, Queue};
use k8s_openapi::api::core::v1::Namespace;
use kube::api::{DeleteParams, ListParams, PostParams};
use kube::{Api, ResourceExt};
use serde_json::json;

use crate::api::{Attempting, Unfinished, code, is_not_found, message};
use crate::context::Context;
use crate::discovery::{Served, ServedKind, discover};
use crate::garbage_collector::{Gone, Metadata, api_of};
use crate::pods::at_once;
use conditions::Findings;

/// Namespaces that are emptied at once; upstream's `--concurrent-namespace-syncs`.
const WORKERS: usize = 10;
/// The finalizer of `spec.finalizers` that stands for this controller.
const FINALIZER: &str = "kubernetes";
/// Objects read in one list.
const PAGE: u32 = 500;
/// How long the counts in conditions may be out of date while objects go one by one.
const RECOUNT: Duration = Duration::from_secs(1);

/// Starts the controller.
pub(crate) fn start(ctx: &Arc<Context>) {
    let queue = Queue::new();
    let namespaces = queue.clone();
    ctx.mirrors.namespaces.on_change(move |change| {
        if let Change::Applied { new, .. } = change
            && new.metadata.deletion_timestamp.is_some()
        {
            namespaces.add(ObjectKey::of(new.as_ref()));
        }
    });
    let emptied = queue.clone();
    let mirror = ctx.mirrors.namespaces.clone();
    ctx.graph.on_gone(move |namespace, gone| {
        let key = ObjectKey::new("", namespace);
        if mirror.get(&key).is_some_and(|namespace| namespace.metadata.deletion_timestamp.is_some())
        {
            match gone {
                Gone::Last => emptied.add(key),
                Gone::One => emptied.add_after(key, RECOUNT),
            }
        }
    });
    let ctx = Arc::clone(ctx);
    ctx.tasks.spawn("namespace", look_again_when_complete(Arc::clone(&ctx), queue.clone()));
    let shared = Arc::clone(&ctx);
    shared.work(&queue, "namespace", WORKERS, move |key| {
        let ctx = Arc::clone(&ctx);
        async move { reconcile(&ctx, &key).await }
    });
}

/// Nobody tells of objects that went before the graph knew them.
async fn look_again_when_complete(ctx: Arc<Context>, queue: Queue) {
    ctx.graph.complete().await;
    for namespace in ctx.mirrors.namespaces.list() {
        if namespace.metadata.deletion_timestamp.is_some() {
            queue.add(ObjectKey::of(namespace.as_ref()));
        }
    }
}

/// Deletes what a terminating namespace holds, and removes our finalizer when nothing is left.
async fn reconcile(ctx: &Context, key: &ObjectKey) -> Result<Next, Unfinished> {
    let Some(namespace) = ctx.mirrors.namespaces.get(key) else {
        return Ok(Next::AwaitChange);
    };
    let finalizers =
        namespace.spec.as_ref().and_then(|spec| spec.finalizers.as_deref()).unwrap_or_default();
    if namespace.metadata.deletion_timestamp.is_none()
        || !finalizers.iter().any(|name| name == FINALIZER)
    {
        return Ok(Next::AwaitChange);
    }
    let served = discover(&ctx.client).await;
    let findings = match served {
        Ok(served) => empty(ctx, &key.name, &served).await,
        Err(error) => Findings { undiscovered: Some(message(&error)), ..Findings::default() },
    };
    let namespace = write_conditions(ctx, &namespace, &findings).await?;
    if let Some(failure) = findings.failure() {
        return Err(Unfinished::Remaining(failure));
    }
    if findings.is_empty() {
        if let Some(namespace) = namespace {
            finalize(ctx, &namespace).await?;
        }
        return Ok(Next::AwaitChange);
    }
    // The graph tells when something is gone, of all kinds that can be watched.
    Ok(if findings.unwatched { Next::After(RECOUNT) } else { Next::AwaitChange })
}

/// Deletes everything in the namespace, pods before all else.
async fn empty(ctx: &Context, namespace: &str, served: &Served) -> Findings {
    let (pods, others): (Vec<&ServedKind>, Vec<&ServedKind>) =
        served.kinds.iter().filter(|kind| kind.namespaced).partition(|kind| kind.is("", "pods"));
    let mut findings = Findings { stale: served.stale.clone(), ..Findings::default() };
    empty_kinds(ctx, namespace, &pods, &mut findings).await;
    if findings.is_empty() && findings.failures.is_empty() {
        empty_kinds(ctx, namespace, &others, &mut findings).await;
    }
    findings
}

async fn empty_kinds(
    ctx: &Context,
    namespace: &str,
    kinds: &[&ServedKind],
    findings: &mut Findings,
) {
    let emptied =
        futures::future::join_all(kinds.iter().map(|kind| empty_kind(ctx, namespace, kind))).await;
    for (kind, left) in kinds.iter().zip(emptied) {
        match left {
            Ok(left) => findings.add(kind, &left),
            Err(error) => findings.failures.push(message(&error)),
        }
    }
}

/// Deletes the objects of one kind and answers which are left. A kind without objects costs one list.
async fn empty_kind(
    ctx: &Context,
    namespace: &str,
    kind: &ServedKind,
) -> kube::Result<Vec<Metadata>> {
    let api = api_of(&ctx.client, &kind.resource, Some(namespace));
    let there = list(&api).await?;
    let to_delete: Vec<&Metadata> =
        there.iter().filter(|object| object.metadata.deletion_timestamp.is_none()).collect();
    if to_delete.is_empty() {
        return Ok(there);
    }
    let background = DeleteParams::background();
    if kind.allows("deletecollection") {
        match api.delete_collection(&background, &ListParams::default()).await {
            Ok(_) => (),
            Err(error) if matches!(code(&error), Some(404 | 405)) => (),
            Err(error) => return Err(error),
        }
    } else {
        let names: Vec<String> = to_delete.into_iter().map(ResourceExt::name_any).collect();
        let (api, background) = (&api, &background);
        at_once(names, |name| async move {
            match api.delete(&name, background).await {
                Err(error) if !is_not_found(&error) => Err(error),
                Ok(_) | Err(_) => Ok(()),
            }
        })
        .await?;
    }
    list(&api).await
}

async fn list(api: &Api<Metadata>) -> kube::Result<Vec<Metadata>> {
    let mut params = ListParams::default().limit(PAGE);
    let mut found = Vec::new();
    loop {
        let page = match api.list(&params).await {
            // The kind went away after it was discovered.
            Err(error) if matches!(code(&error), Some(404 | 405)) => return Ok(found),
            page => page?,
        };
        found.extend(page.items);
        match page.metadata.continue_ {
            Some(token) if !token.is_empty() => params.continue_token = Some(token),
            _ => return Ok(found),
        }
    }
}

/// Says what is left. `None` if the namespace is gone.
async fn write_conditions(
    ctx: &Context,
    namespace: &Namespace,
    findings: &Findings,
) -> Result<Option<Namespace>, Unfinished> {
    let status = conditions::status(namespace, findings, ctx.now());
    if namespace.status.as_ref() == Some(&status) {
        return Ok(Some(namespace.clone()));
    }
    let name = namespace.name_any();
    let mut desired = namespace.clone();
    desired.status = Some(status);
    let api: Api<Namespace> = Api::all(ctx.client.clone());
    match api.replace_status(&name, &PostParams::default(), &desired).await {
        Ok(written) => {
            ctx.mirrors.namespaces.observe(written.clone());
            Ok(Some(written))
        }
        Err(error) if is_not_found(&error) => Ok(None),
        refused => refused.map(Some).attempting(|| format!("write the status of namespace {name}")),
    }
}

async fn finalize(ctx: &Context, namespace: &Namespace) -> Result<(), Unfinished> {
    let name = namespace.name_any();
    let mut finalizers =
        namespace.spec.as_ref().and_then(|spec| spec.finalizers.clone()).unwrap_or_default();
    finalizers.retain(|finalizer| finalizer != FINALIZER);
    let desired = json!({
        "apiVersion": "v1", "kind": "Namespace", "metadata": namespace.metadata, "spec": { "finalizers": finalizers },
    });
    let api: Api<Namespace> = Api::all(ctx.client.clone());
    match api.replace_subresource("finalize", &name, &PostParams::default(), &desired).await {
        Err(error) if is_not_found(&error) => Ok(()),
        finalized => finalized.map(|_| ()).attempting(|| format!("finalize namespace {name}")),
    }
}

/// Finalizers and how many objects wait for each.
fn finalizers(objects: &[Metadata]) -> BTreeMap<String, usize> {
    let mut found = BTreeMap::new();
    for finalizer in objects.iter().flat_map(|object| object.metadata.finalizers.iter().flatten()) {
        *found.entry(finalizer.clone()).or_default() += 1;
    }
    found
}
