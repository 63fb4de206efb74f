//! The quotas' status: what is used, kept current from the store's events.
//!
//! Upstream has a controller for it, which watches every kind there is. The store is here already, so nobody needs to hold copies of
//! all ConfigMaps and Secrets in order to count them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use coracle_api::kinds::Kind;
use coracle_api::pods::Resources;
use coracle_store::{Event, Gone, Range};
use futures::StreamExt as _;
use futures::stream::SelectAll;
use k8s_openapi::api::core::v1::{ResourceQuota, ResourceQuotaStatus};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Written;
use kube::Api;
use kube::api::PostParams;
use tokio_util::sync::CancellationToken;

use super::limit::Limit;
use super::usage::is_counted;
use super::{Quotas, RESOURCE};

/// Whose changes bring kinds that are not watched yet.
const DEFINITIONS: &str = "customresourcedefinitions.apiextensions.k8s.io";

/// How long events are gathered before the status is written: one write shows the work of many creates.
const GATHER: Duration = Duration::from_millis(20);

/// How long to wait before trying again when a status could not be written.
const RETRY: Duration = Duration::from_secs(1);

/// Keeps the status of all quotas current, until the server ends.
pub(crate) async fn keep_status(
    quotas: Arc<Quotas>,
    client: kube::Client,
    ends: CancellationToken,
) {
    let followed = async {
        // Whoever falls behind, or meets a quota about a kind that is not watched yet, starts again with everything.
        while !matches!(follow(&quotas, &client).await, Err(Gone::Closed)) {}
    };
    ends.run_until_cancelled(followed).await;
}

/// Watches quotas and what they count. Returns when other kinds have to be watched.
async fn follow(quotas: &Arc<Quotas>, client: &kube::Client) -> Result<(), Gone> {
    let revision = quotas.store.revision();
    let mut watched = BTreeMap::new();
    let mut dirty = BTreeSet::new();
    let listing = quotas.store.list(&Range::all(RESOURCE), None, None, None)?;
    for object in &listing.objects {
        dirty.insert(object.key.namespace.to_string());
        if let Ok(quota) = serde_json::from_slice(&object.bytes) {
            watched.extend(quotas.kinds_of(&Limit::of(&quota)));
        }
    }
    let mut events = SelectAll::new();
    for resource in [RESOURCE, DEFINITIONS] {
        events.push(quotas.store.watch(&Range::all(resource), revision)?);
    }
    let others =
        watched.keys().filter(|resource| ![RESOURCE, DEFINITIONS].contains(&resource.as_str()));
    for resource in others {
        events.push(quotas.store.watch(&Range::all(resource.as_str()), revision)?);
    }
    loop {
        let mut failed = BTreeSet::new();
        for namespace in std::mem::take(&mut dirty) {
            if let Err(error) = show(quotas, client, &namespace).await {
                tracing::debug!(namespace, %error, "a quota's status was not written");
                failed.insert(namespace);
            }
        }
        let event = if failed.is_empty() {
            events.next().await
        } else {
            dirty.extend(failed);
            tokio::time::timeout(RETRY, events.next()).await.unwrap_or(None)
        };
        let Some(event) = event else {
            // Nothing happened: it is time to try again.
            if dirty.is_empty() {
                return Err(Gone::Closed);
            } else {
                continue;
            };
        };
        let mut batch = vec![event?];
        let gathered = tokio::time::sleep(GATHER);
        tokio::pin!(gathered);
        while let Some(event) =
            tokio::select! { event = events.next() => event, () = &mut gathered => None }
        {
            batch.push(event?);
        }
        let resource_of = |event: &Event| event.object().key.resource.clone();
        if batch.iter().any(|event| &*resource_of(event) == DEFINITIONS)
            && quotas.all_limits()?.iter().any(|limit| quotas.needs_more(limit, &watched))
        {
            return Ok(());
        }
        for event in batch.iter().filter(|event| &*resource_of(event) != DEFINITIONS) {
            let object = event.object();
            dirty.insert(object.key.namespace.to_string());
            if &*object.key.resource == RESOURCE
                && let Ok(quota) = serde_json::from_slice(&object.bytes)
                && quotas.needs_more(&Limit::of(&quota), &watched)
            {
                return Ok(());
            }
        }
    }
}

impl Quotas {
    /// The kinds that a quota counts. A kind with several versions is one, because its objects are stored once.
    fn kinds_of(&self, limit: &Limit) -> BTreeMap<String, &'static Kind> {
        let snapshot = self.kinds.snapshot();
        let counted = snapshot.all().filter(|kind| is_counted(kind));
        let counted = counted.filter(|kind| !limit.names(kind).is_empty());
        counted.map(|kind| (kind.resource(), kind)).collect()
    }

    /// Whether the quota counts a kind that is not watched.
    fn needs_more(&self, limit: &Limit, watched: &BTreeMap<String, &'static Kind>) -> bool {
        self.kinds_of(limit).keys().any(|resource| !watched.contains_key(resource))
    }

    fn all_limits(&self) -> Result<Vec<Limit>, Gone> {
        let objects = self.store.list(&Range::all(RESOURCE), None, None, None)?.objects;
        let quotas = objects.iter().filter_map(|object| serde_json::from_slice(&object.bytes).ok());
        Ok(quotas.map(|quota| Limit::of(&quota)).collect())
    }
}

/// Writes the status of a namespace's quotas where it is not as it should be.
async fn show(quotas: &Arc<Quotas>, client: &kube::Client, namespace: &str) -> kube::Result<()> {
    let all = quotas.quotas(namespace);
    if all.is_empty() {
        quotas.forget(namespace);
    }
    for mut quota in all {
        let status = Some(status_of(quotas, namespace, &quota));
        if quota.status == status {
            continue;
        }
        quota.status = status;
        let name = quota.metadata.name.clone().unwrap_or_default();
        let api: Api<ResourceQuota> = Api::namespaced(client.clone(), namespace);
        match api.replace_status(&name, &PostParams::default(), &quota).await {
            Ok(_) => (),
            // It is gone, or changed meanwhile, of which there is an event.
            Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => (),
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn status_of(quotas: &Quotas, namespace: &str, quota: &ResourceQuota) -> ResourceQuotaStatus {
    let limit = Limit::of(quota);
    let mut used = Resources::new();
    let mut ledger = quotas.ledger.lock();
    for kind in quotas.kinds_of(&limit).into_values() {
        let names = limit.names(kind);
        used.extend(quotas.used(&mut ledger, &limit, kind, namespace, &names));
    }
    drop(ledger);
    let used = used.iter().map(|(name, amount)| (name.clone(), Written(amount.to_string())));
    ResourceQuotaStatus {
        hard: quota.spec.as_ref().and_then(|spec| spec.hard.clone()),
        used: Some(used.collect()),
    }
}
