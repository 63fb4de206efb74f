//! ResourceQuotas: how much of everything a namespace may hold.
//!
//! Start at [`Quotas::reserve`], which admission asks, then `usage.rs` (what an object counts for), `limit.rs` (what a quota limits)
//! and `status.rs` (what is shown).
//!
//! What is always true: what the store holds and what has been admitted but not written yet is within every quota. Upstream keeps the
//! balance in the quotas' status, which a controller corrects now and then. Here admission counts the stored objects themselves, each
//! measured once per revision, so that the balance cannot drift; an admitted write is reserved for in memory until its outcome is
//! known. The status only shows the result.

mod limit;
mod status;
mod usage;

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use coracle_api::kinds::Kind;
use coracle_api::pods::Resources;
use coracle_api::quantity::Quantity;
use coracle_store::{Object, Range, Revision, Store, WriteError};
use k8s_openapi::api::core::v1::{Pod, ResourceQuota};
use parking_lot::Mutex;
use serde::Deserialize as _;
use serde_json::Value;

use crate::custom_resources::Registry;
use limit::{Limit, missing_of_pod};
pub(crate) use status::keep_status;
use usage::{Measured, measure};

const RESOURCE: &str = "resourcequotas";

/// Who holds what, and who is about to.
pub(crate) struct Quotas {
    store: Store,
    kinds: Arc<Registry>,
    ledger: Mutex<Ledger>,
}

/// What each object of a collection was measured as, and at which revision.
type MeasuredByName = HashMap<Arc<str>, (Revision, Arc<Measured>)>;

#[derive(Default)]
struct Ledger {
    /// Writes that were admitted and are not settled.
    reserved: HashMap<u64, Reservation>,
    last_id: u64,
    /// What was measured before, by resource and namespace; only of namespaces that have quotas.
    measured: HashMap<(String, String), MeasuredByName>,
}

struct Reservation {
    resource: String,
    namespace: String,
    name: String,
    measured: Arc<Measured>,
}

/// One write, as quotas see it.
pub(crate) struct Write<'a> {
    pub kind: &'static Kind,
    pub namespace: &'a str,
    pub name: &'a str,
    pub new: &'a Value,
    /// What is there now, if it is an update.
    pub old: Option<&'a Value>,
    pub dry_run: bool,
}

/// What an admitted write takes of quotas, until its outcome is known.
#[derive(Default)]
pub struct Reserved(Option<(Arc<Quotas>, u64)>);

impl Reserved {
    /// Awaits the write. The reservation lasts as long as the write does, even if nobody waits for it any more: a client that hangs
    /// up ends its request, but not the write.
    pub(crate) async fn hold(
        self,
        write: impl Future<Output = Result<Arc<Object>, WriteError>> + Send + 'static,
    ) -> Result<Arc<Object>, WriteError> {
        if self.0.is_none() {
            return write.await;
        }
        let task = tokio::spawn(async move {
            let written = write.await;
            drop(self);
            written
        });
        task.await.unwrap_or(Err(WriteError::Closed))
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        if let Some((quotas, id)) = self.0.take() {
            quotas.ledger.lock().reserved.remove(&id);
        }
    }
}

impl Quotas {
    /// Over what the store holds, of the kinds that are served.
    pub fn new(store: Store, kinds: Arc<Registry>) -> Self {
        Self { store, kinds, ledger: Mutex::default() }
    }

    /// Takes what the write needs, or tells which quota that would exceed, in upstream's words.
    pub fn reserve(self: &Arc<Self>, write: &Write<'_>) -> Result<Reserved, String> {
        if !usage::is_counted(write.kind) {
            return Ok(Reserved::default());
        }
        let limits = self.limits(write.namespace);
        if limits.is_empty() {
            return Ok(Reserved::default());
        }
        let new = Arc::new(measure(write.kind, write.new));
        let old = write.old.map(|old| measure(write.kind, old));
        // One lock over looking and taking: who comes second sees what the first one took.
        let mut ledger = self.ledger.lock();
        let mut takes = false;
        for limit in &limits {
            takes |= self.check(&mut ledger, limit, write, &new, old.as_ref())?;
        }
        if !takes || write.dry_run {
            return Ok(Reserved::default());
        }
        ledger.last_id += 1;
        let id = ledger.last_id;
        let reservation = Reservation {
            resource: write.kind.resource(),
            namespace: write.namespace.to_owned(),
            name: write.name.to_owned(),
            measured: new,
        };
        ledger.reserved.insert(id, reservation);
        Ok(Reserved(Some((Arc::clone(self), id))))
    }

    /// Whether the write takes anything of this quota; an error if it takes too much.
    fn check(
        &self,
        ledger: &mut Ledger,
        limit: &Limit,
        write: &Write<'_>,
        new: &Measured,
        old: Option<&Measured>,
    ) -> Result<bool, String> {
        let names = limit.names(write.kind);
        if names.is_empty() || !limit.covers(new) {
            return Ok(false);
        }
        if write.kind.kind == "Pod"
            && let Ok(pod) = Pod::deserialize(write.new)
            && let Some(missing) = missing_of_pod(&names, &pod)
        {
            return Err(format!("failed quota: {}: {missing}", limit.name));
        }
        let before = old.filter(|old| limit.covers(old));
        let more = |name: &str| {
            let amount = |of: &Measured| of.usage.get(name).copied().unwrap_or_default();
            amount(new) - before.map(amount).unwrap_or_default()
        };
        let requested: Resources = names
            .iter()
            .map(|&name| (name.to_owned(), more(name)))
            .filter(|(_, amount)| *amount > Quantity::ZERO)
            .collect();
        if requested.is_empty() {
            return Ok(false);
        }
        let used = self.used(ledger, limit, write.kind, write.namespace, &names);
        let exceeded: BTreeSet<&str> = requested
            .iter()
            .filter(|(name, more)| used[name.as_str()] + **more > limit.hard[name.as_str()])
            .map(|(name, _)| name.as_str())
            .collect();
        if exceeded.is_empty() {
            return Ok(true);
        }
        let shown = |amounts: &Resources| {
            let each = exceeded.iter().map(|&name| format!("{name}={}", amounts[name]));
            each.collect::<Vec<_>>().join(",")
        };
        Err(format!(
            "exceeded quota: {}, requested: {}, used: {}, limited: {}",
            limit.name,
            shown(&requested),
            shown(&used),
            shown(&limit.hard)
        ))
    }

    /// How much the objects of a kind use of these names, with those that are about to be written.
    fn used(
        &self,
        ledger: &mut Ledger,
        limit: &Limit,
        kind: &'static Kind,
        namespace: &str,
        names: &BTreeSet<&str>,
    ) -> Resources {
        let resource = kind.resource();
        let listing =
            self.store.list(&Range::namespace(resource.as_str(), namespace), None, None, None);
        let objects = listing.map(|listing| listing.objects).unwrap_or_default();
        let place = (resource, namespace.to_owned());
        let mut known = ledger.measured.remove(&place).unwrap_or_default();
        let mut current: HashMap<Arc<str>, (Revision, Arc<Measured>)> =
            HashMap::with_capacity(objects.len());
        for object in &objects {
            let seen = known.remove(&object.key.name).filter(|(at, _)| *at == object.revision);
            let seen = seen.unwrap_or_else(|| (object.revision, Arc::new(read(kind, object))));
            current.insert(object.key.name.clone(), seen);
        }
        let reserved: HashMap<&str, &Arc<Measured>> = ledger
            .reserved
            .values()
            .filter(|one| one.resource == place.0 && one.namespace == namespace)
            .map(|one| (one.name.as_str(), &one.measured))
            .collect();
        let mut used: Resources =
            names.iter().map(|&name| (name.to_owned(), Quantity::ZERO)).collect();
        let new = reserved.keys().filter(|name| !current.contains_key(**name)).copied();
        for name in current.keys().map(AsRef::as_ref).chain(new).collect::<Vec<&str>>() {
            // An object that is about to change counts as the larger of its two states.
            let stored = current.get(name).map(|(_, measured)| measured);
            let states = stored.into_iter().chain(reserved.get(name).copied());
            let states: Vec<_> = states.filter(|measured| limit.covers(measured)).collect();
            for (name, sum) in &mut used {
                let amounts = states.iter().filter_map(|measured| measured.usage.get(name));
                *sum = *sum + amounts.max().copied().unwrap_or_default();
            }
        }
        ledger.measured.insert(place, current);
        used
    }

    fn quotas(&self, namespace: &str) -> Vec<ResourceQuota> {
        let listing = self.store.list(&Range::namespace(RESOURCE, namespace), None, None, None);
        let objects = listing.map(|listing| listing.objects).unwrap_or_default();
        objects.iter().filter_map(|object| serde_json::from_slice(&object.bytes).ok()).collect()
    }

    fn limits(&self, namespace: &str) -> Vec<Limit> {
        self.quotas(namespace).iter().map(Limit::of).collect()
    }

    /// Forgets what was measured in a namespace that has no quota any more.
    fn forget(&self, namespace: &str) {
        self.ledger.lock().measured.retain(|(_, of), _| of != namespace);
    }
}

fn read(kind: &Kind, object: &Object) -> Measured {
    serde_json::from_slice(&object.bytes)
        .map_or_else(|_| measure(kind, &Value::Null), |object| measure(kind, &object))
}

#[cfg(test)]
mod tests;
