//! What feeds the graph: one mirror for each deletable kind that the API serves.

use std::collections::HashMap;
use std::fmt::Debug;
use std::sync::{Arc, Weak};
use std::time::Duration;

use coracle_reconcile::{Change, Mirror, Next, ObjectKey, Queue, Selection, Tasks};
use kube::Resource;
use parking_lot::Mutex;
use serde::de::DeserializeOwned;
use tracing::warn;

use super::{Graph, api_of};
use crate::api::{Attempting, Unfinished};
use crate::context::Context;
use crate::discovery::{ServedKind, discover};

/// A kind, by group and plural name.
type Name = (String, String);

/// How long the collector waits for kinds whose server does not answer, before it works without them.
const PATIENCE: Duration = Duration::from_secs(60);

/// The kinds that are followed.
pub(super) struct Monitors {
    ctx: Weak<Context>,
    graph: Arc<Graph>,
    followed: Mutex<HashMap<Name, Monitor>>,
    /// Wants the API's kinds compared with those that are followed.
    refresh: Queue,
}

struct Monitor {
    kind: Arc<ServedKind>,
    /// The mirror that only the graph needs; `None` when the controllers have one.
    tasks: Option<Tasks>,
}

impl Monitors {
    pub fn new(ctx: &Arc<Context>) -> Self {
        Self {
            ctx: Arc::downgrade(ctx),
            graph: Arc::clone(&ctx.graph),
            followed: Mutex::default(),
            refresh: Queue::new(),
        }
    }

    /// Follows what the API serves, now and whenever that changes. Answers when all objects are known.
    pub async fn follow(self: &Arc<Self>) {
        let Some(ctx) = self.ctx.upgrade() else { return };
        let this = Arc::clone(self);
        ctx.work(&self.refresh, "garbage-collector-kinds", 1, move |_| {
            let this = Arc::clone(&this);
            async move { this.reconcile().await }
        });
        self.refresh.add(ObjectKey::new("", "kinds"));
        self.graph.complete().await;
    }

    /// The kind of an owner reference, in whatever version it is followed.
    pub fn kind(&self, api_version: &str, kind: &str) -> Option<Arc<ServedKind>> {
        let group = api_version.split_once('/').map_or("", |(group, _)| group);
        let followed = self.followed.lock();
        let mut kinds = followed.values().map(|monitor| &monitor.kind);
        kinds.find(|found| found.resource.group == group && found.resource.kind == kind).cloned()
    }

    async fn reconcile(&self) -> Result<Next, Unfinished> {
        let Some(ctx) = self.ctx.upgrade() else { return Ok(Next::AwaitChange) };
        let served =
            discover(&ctx.client).await.attempting(|| "discover what the API serves".to_owned())?;
        let wanted = |kind: &ServedKind| kind.allows("watch") && !kind.is_events();
        let kinds: HashMap<Name, ServedKind> =
            served.kinds.into_iter().filter(wanted).map(|kind| (name(&kind), kind)).collect();
        let gone: Vec<Monitor> = {
            let mut followed = self.followed.lock();
            // A server that does not answer may still have its objects: keep what is known of them.
            let stays = |name: &Name| kinds.contains_key(name) || !served.stale.is_empty();
            let gone: Vec<Name> = followed.keys().filter(|name| !stays(name)).cloned().collect();
            gone.iter().filter_map(|name| followed.remove(name)).collect()
        };
        for monitor in gone {
            if let Some(tasks) = &monitor.tasks {
                tasks.token().cancel();
            }
            self.graph.forget_kind(&monitor.kind);
        }
        let mut mirrors = Vec::new();
        for (name, kind) in kinds {
            if !self.followed.lock().contains_key(&name) {
                mirrors.extend(self.start(&ctx, name, kind));
            }
        }
        let synced = futures::future::join_all(mirrors.iter().map(Mirror::synced));
        match tokio::time::timeout(PATIENCE / 2, synced).await {
            Ok(outcomes) if outcomes.iter().all(Result::is_ok) => (),
            Ok(_) | Err(_) => {
                warn!("some kinds do not answer; their objects are not collected yet")
            }
        }
        self.graph.set_complete();
        Ok(Next::AwaitChange)
    }

    /// Feeds the graph with a kind: from the controllers' mirror, or else from one of its own, which it answers.
    fn start(
        &self,
        ctx: &Arc<Context>,
        name: Name,
        kind: ServedKind,
    ) -> Option<Mirror<super::Metadata>> {
        let kind = Arc::new(kind);
        if self.share(ctx, &kind) {
            self.followed.lock().insert(name, Monitor { kind, tasks: None });
            return None;
        }
        let tasks = Tasks::new(ctx.tasks.token().child_token());
        let mirror =
            Mirror::start(&tasks, api_of(&ctx.client, &kind.resource, None), Selection::default());
        feed(&self.graph, &mirror, &kind);
        if kind.is("apiextensions.k8s.io", "customresourcedefinitions")
            || kind.is("apiregistration.k8s.io", "apiservices")
        {
            let refresh = self.refresh.clone();
            mirror.on_change(move |_| refresh.add(ObjectKey::new("", "kinds")));
        }
        let ended = tasks.clone();
        ctx.tasks.spawn_to_end("garbage-collector-mirror", async move { ended.finished().await });
        self.followed.lock().insert(name, Monitor { kind, tasks: Some(tasks) });
        Some(mirror)
    }

    /// Whether the controllers mirror the kind anyway.
    fn share(&self, ctx: &Context, kind: &Arc<ServedKind>) -> bool {
        let mirrors = &ctx.mirrors;
        let graph = &self.graph;
        match (kind.resource.group.as_str(), kind.resource.plural.as_str()) {
            ("", "namespaces") => feed(graph, &mirrors.namespaces, kind),
            ("", "nodes") => feed(graph, &mirrors.nodes, kind),
            ("", "pods") => feed(graph, &mirrors.pods, kind),
            ("", "services") => feed(graph, &mirrors.services, kind),
            ("", "endpoints") => feed(graph, &mirrors.endpoints, kind),
            ("discovery.k8s.io", "endpointslices") => feed(graph, &mirrors.endpoint_slices, kind),
            ("apps", "replicasets") => feed(graph, &mirrors.replica_sets, kind),
            ("apps", "deployments") => feed(graph, &mirrors.deployments, kind),
            ("batch", "jobs") => feed(graph, &mirrors.jobs, kind),
            ("batch", "cronjobs") => feed(graph, &mirrors.cron_jobs, kind),
            _ => return false,
        }
        true
    }
}

fn name(kind: &ServedKind) -> Name {
    (kind.resource.group.clone(), kind.resource.plural.clone())
}

fn feed<K>(graph: &Arc<Graph>, mirror: &Mirror<K>, kind: &Arc<ServedKind>)
where
    K: Resource + Clone + DeserializeOwned + Debug + Send + Sync + 'static,
{
    // Weak, because the graph's own listeners hold mirrors.
    let (graph, kind) = (Arc::downgrade(graph), Arc::clone(kind));
    mirror.on_change(move |change| {
        let Some(graph) = graph.upgrade() else { return };
        match change {
            Change::Applied { old, new } => {
                // The same name again is another object.
                if let Some(old) = old.as_ref().filter(|old| old.meta().uid != new.meta().uid) {
                    graph.removed(old.meta().uid.as_deref().unwrap_or_default());
                }
                graph.applied(&kind, new.meta());
            }
            Change::Deleted(last) => graph.removed(last.meta().uid.as_deref().unwrap_or_default()),
        }
    });
}
