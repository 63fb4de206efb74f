//! Keeps the served kinds as the definitions in the store want them, and takes care of the definitions' own life.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use coracle_api::kinds::{self, Kind};
use coracle_api::status::Status;
use coracle_store::{Gone, Object, Range, Revision, WriteError};
use futures::{FutureExt as _, StreamExt as _};
use http::{Method, Request, header};
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::conditions::{self, CLEANUP, is_established, plan};
use crate::deletion::{self, DeleteOptions, Step};
use crate::object::{self, finalizers, is_deleting, meta};
use crate::server::Server;
use crate::{limits, storage};

/// How long to wait before a failed cleanup is tried again.
const RETRY: std::time::Duration = std::time::Duration::from_secs(1);

/// What is known of the definitions.
#[derive(Default)]
pub(crate) struct Upkeep {
    known: BTreeMap<String, Known>,
}

struct Known {
    revision: Revision,
    /// Names, group and status: all but the versions, which are large.
    brief: Value,
    kinds: Vec<&'static Kind>,
    /// The version in which objects are stored, served or not; none before there can be any.
    stored: Option<&'static Kind>,
}

impl Upkeep {
    /// Brings the registry to the state of the store, and the definitions' status to what it should be.
    pub(crate) async fn reconcile(&mut self, server: &Server) {
        let Some(kind) = definitions() else { return };
        let Ok(listing) = server.store.list(&storage::range(kind, ""), None, None, None) else {
            return;
        };
        let there: HashSet<&str> = listing.objects.iter().map(|object| &*object.key.name).collect();
        self.known.retain(|name, _| there.contains(name.as_str()));
        for object in &listing.objects {
            self.observe(server, object);
        }
        // The names of one may be free because of another: each is judged in the order of their creation.
        let mut waiting: Vec<(String, String)> = self
            .known
            .values()
            .map(|known| {
                (
                    meta(&known.brief, "creationTimestamp").to_owned(),
                    meta(&known.brief, "name").to_owned(),
                )
            })
            .collect();
        waiting.sort();
        let mut writes = Vec::new();
        for (_, name) in waiting {
            let Some(known) = self.known.get(&name) else { continue };
            let others = self.known.values().map(|other| &other.brief);
            if let Some(status) = plan(&known.brief, others, &object::now()) {
                writes.push((name.clone(), status.clone()));
                self.accept(server, kind, &name, status);
            }
        }
        // First they are served, then they are said to be.
        self.publish(server);
        for (name, status) in writes {
            write_status(server, kind, &name, status).await;
        }
    }

    fn observe(&mut self, server: &Server, object: &Object) {
        let name = object.key.name.to_string();
        if self.known.get(&name).is_some_and(|known| known.revision == object.revision) {
            return;
        }
        let Ok(mut definition) = storage::decode(object) else { return };
        let kinds = kinds_of(server, &definition);
        let stored = stored_kind(server, &definition);
        server.kinds.touch();
        definition["spec"]["versions"] = Value::Null;
        self.known
            .insert(name, Known { revision: object.revision, brief: definition, kinds, stored });
    }

    /// The definition has this status from now on, although it is not written yet.
    fn accept(&mut self, server: &Server, kind: &'static Kind, name: &str, status: Value) {
        let Some(known) = self.known.get_mut(name) else { return };
        known.brief["status"] = status.clone();
        let stored = server.store.get(&storage::key(kind, "", name));
        if let Some(Ok(mut definition)) = stored.map(|object| storage::decode(&object)) {
            definition["status"] = status;
            known.kinds = kinds_of(server, &definition);
            known.stored = stored_kind(server, &definition);
        }
    }

    fn publish(&self, server: &Server) {
        let kinds = self.known.values().flat_map(|known| known.kinds.iter().copied()).collect();
        server.kinds.replace(kinds);
    }

    /// Follows the definitions until the server ends.
    pub(crate) async fn run(
        mut self,
        server: Arc<Server>,
        client: kube::Client,
        ends: CancellationToken,
    ) {
        let Some(kind) = definitions() else { return };
        let range = storage::range(kind, "");
        let mut cleanups = Cleanups::default();
        while let Ok(mut watch) = server.store.watch(&range, server.store.revision()) {
            loop {
                self.reconcile(&server).await;
                cleanups.start(&self, &server, &client);
                let event = tokio::select! {
                    event = watch.next() => event,
                    Some(done) = cleanups.tasks.join_next() => {
                        cleanups.finished(done.ok());
                        continue;
                    }
                    () = ends.cancelled() => return,
                };
                match event {
                    Ok(_) => (),
                    Err(Gone::Compacted { .. }) => break,
                    Err(Gone::Closed) => return,
                }
            }
        }
    }
}

fn definitions() -> Option<&'static Kind> {
    kinds::by_kind("apiextensions.k8s.io", "v1", "CustomResourceDefinition")
}

fn kinds_of(server: &Server, definition: &Value) -> Vec<&'static Kind> {
    if is_established(definition) { server.kinds.kinds_of(definition) } else { Vec::new() }
}

fn stored_kind(server: &Server, definition: &Value) -> Option<&'static Kind> {
    if is_established(definition) { server.kinds.stored_kind_of(definition) } else { None }
}

/// Writes a status; when somebody was faster, their write is an event that brings us back.
async fn write_status(server: &Server, kind: &'static Kind, name: &str, status: Value) {
    let key = storage::key(kind, "", name);
    let Some(current) = server.store.get(&key) else { return };
    let Ok(mut definition) = storage::decode(&current) else { return };
    definition["status"] = status;
    let value = storage::encode(kind, &definition);
    match server.store.update(key, current.revision, value).await {
        Ok(_) | Err(WriteError::Conflict { .. }) => (),
        Err(error) => tracing::warn!(%error, name, "the status of a definition was not written"),
    }
}

/// Deletions of all objects of a definition, one task each.
#[derive(Default)]
struct Cleanups {
    tasks: JoinSet<String>,
    running: HashSet<String>,
}

impl Cleanups {
    fn start(&mut self, upkeep: &Upkeep, server: &Arc<Server>, client: &kube::Client) {
        for (name, known) in &upkeep.known {
            let waits = is_deleting(&known.brief)
                && finalizers(&known.brief).iter().any(|finalizer| finalizer == CLEANUP);
            if waits && self.running.insert(name.clone()) {
                let (server, client, name) = (server.clone(), client.clone(), name.clone());
                let kind = known.stored;
                self.tasks.spawn(async move {
                    if let Err(error) = clean_up(&server, &client, &name, kind).await {
                        tracing::warn!(%error, name, "the objects of a definition were not deleted");
                        tokio::time::sleep(RETRY).await;
                    }
                    name
                });
            }
        }
    }

    fn finished(&mut self, name: Option<String>) {
        if let Some(name) = name {
            self.running.remove(&name);
        }
    }
}

/// Deletes the objects, waits until the last of them is gone, and lets the definition go.
async fn clean_up(
    server: &Server,
    client: &kube::Client,
    name: &str,
    kind: Option<&'static Kind>,
) -> Result<(), Status> {
    let Some(definitions) = definitions() else { return Ok(()) };
    if let Some(kind) = kind {
        say(
            server,
            definitions,
            name,
            "True",
            "InstanceDeletionInProgress",
            "CustomResource deletion is in progress",
        )
        .await;
        let range = storage::range(kind, "");
        loop {
            let Ok(listing) = server.store.list(&range, None, None, None) else { return Ok(()) };
            if listing.objects.is_empty() {
                break;
            }
            if let Err(status) = delete_all(server, kind, &listing.objects).await {
                let message = format!("could not issue all deletes: {}", status.message);
                say(server, definitions, name, "True", "InstanceDeletionFailed", &message).await;
                return Err(status);
            }
            wait_for_a_deletion(server, &range, listing.revision).await;
        }
    }
    say(server, definitions, name, "False", "InstanceDeletionCompleted", "removed all instances")
        .await;
    let path = format!("{}/{}/{name}", definitions.root_path(), definitions.plural);
    let Some(current) = server.store.get(&storage::key(definitions, "", name)) else {
        return Ok(());
    };
    let Ok(definition) = storage::decode(&current) else { return Ok(()) };
    let rest: Vec<String> =
        finalizers(&definition).into_iter().filter(|finalizer| finalizer != CLEANUP).collect();
    let patch = json!({ "metadata": { "finalizers": rest, "resourceVersion": meta(&definition, "resourceVersion") } });
    let sent = send(client, Method::PATCH, &path, "application/merge-patch+json", &patch).await;
    sent.map_err(Status::internal)
}

/// Deletes what is there: past webhooks and rights, because it is the definition's deletion that was admitted. As upstream, objects
/// are seen in the version in which they are stored, served or not.
async fn delete_all(
    server: &Server,
    kind: &'static Kind,
    objects: &[Arc<Object>],
) -> Result<(), Status> {
    let deletions: Vec<_> =
        objects.iter().map(|object| delete(server, kind, object.clone()).boxed()).collect();
    let mut deletions = futures::stream::iter(deletions).buffered(limits::DELETIONS_AT_ONCE);
    while let Some(deleted) = deletions.next().await {
        deleted?;
    }
    Ok(())
}

async fn delete(server: &Server, kind: &'static Kind, object: Arc<Object>) -> Result<(), Status> {
    let (key, revision) = (object.key.clone(), object.revision);
    let name = key.name.clone();
    let current = super::decoded(kind, object).await?;
    let written = match deletion::plan(kind, &current, &DeleteOptions::default()) {
        Step::Wait => return Ok(()),
        Step::Mark(next) => {
            let value = storage::encode(kind, &*super::to_storage(kind, &next).await?);
            server.store.update(key, revision, value).await
        }
        Step::Remove(last) => {
            let value = storage::encode(kind, &*super::to_storage(kind, &last).await?);
            server.store.delete(key, revision, value).await
        }
    };
    match written {
        // Whoever was faster has made a change that brings us back.
        Ok(_) | Err(WriteError::Conflict { .. }) => Ok(()),
        Err(error) => Err(storage::write_failure(kind, &name, &error)),
    }
}

/// Returns when something in the range changed after this revision: finalizers take their time.
async fn wait_for_a_deletion(server: &Server, range: &Range, after: Revision) {
    if let Ok(mut watch) = server.store.watch(range, after) {
        // Whatever happens, the next look at the list tells.
        let _ = watch.next().await;
    }
}

async fn say(
    server: &Server,
    kind: &'static Kind,
    name: &str,
    status: &str,
    reason: &str,
    message: &str,
) {
    let Some(current) = server.store.get(&storage::key(kind, "", name)) else { return };
    let Ok(mut definition) = storage::decode(&current) else { return };
    conditions::set(&mut definition, "Terminating", status, reason, message, &object::now());
    write_status(server, kind, name, definition["status"].take()).await;
}

async fn send(
    client: &kube::Client,
    method: Method,
    path: &str,
    content_type: &str,
    body: &Value,
) -> Result<(), kube::Error> {
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header(header::CONTENT_TYPE, content_type)
        .body(body.to_string().into_bytes())
        .map_err(kube::Error::HttpError)?;
    match client.request::<Value>(request).await {
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        other => other.map(drop),
    }
}
