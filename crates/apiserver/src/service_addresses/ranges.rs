//! `ServiceCIDR`s: the ranges that people add, as upstream's controller keeps them
//! (`pkg/controller/servicecidrs/servicecidrs_controller.go`).
//!
//! A new one gets a finalizer, gives addresses from then on, and is then said to be `Ready`. One that is deleted gives none any more, and
//! goes when every address in it is free or lies in another range.

use std::sync::Arc;
use std::time::Duration;

use coracle_store::{Gone, Range};
use http::{Request, header};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::{Cidr, ServiceAddresses, objects};
use crate::object::{finalizers, is_deleting, meta, now};
use crate::rules::service_cidr::DEFAULT;
use crate::server::Server;

const CIDRS: &str = "servicecidrs.networking.k8s.io";
const ADDRESSES: &str = "ipaddresses.networking.k8s.io";
const FINALIZER: &str = "networking.k8s.io/service-cidr-finalizer";
/// The wait after a pass that wrote, should somebody write against us.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(5), Duration::from_secs(60));

impl ServiceAddresses {
    /// Gives addresses out of these from now on.
    pub(super) fn set_ranges(&self, ranges: Vec<Cidr>) {
        self.taken.lock().ranges = ranges;
    }

    /// The server's own range, and those of others that are held; those that are deleted are not.
    pub(super) fn held_ranges(&self) -> Vec<Cidr> {
        let stored = objects::decoded(&self.store, CIDRS);
        let own_goes = stored.iter().any(|cidr| meta(cidr, "name") == DEFAULT && is_deleting(cidr));
        let mut ranges: Vec<Cidr> = (!own_goes).then_some(self.range).into_iter().collect();
        for cidr in stored.iter().filter(|cidr| is_held(cidr) && !is_deleting(cidr)) {
            ranges.extend(ranges_of(cidr).into_iter().filter(|range| *range != self.range));
        }
        ranges
    }

    /// Whether an address lies in one of these ranges, and in none of the others.
    pub(super) fn needs(&self, these: &[Cidr], others: &[Cidr]) -> bool {
        let lies_in = |ranges: &[Cidr], address| ranges.iter().any(|range| range.contains(address));
        // Who reserves an address has written no object yet, and an object may have been made by hand.
        let reserved: Vec<_> = self.taken.lock().addresses.iter().copied().collect();
        reserved
            .into_iter()
            .chain(objects::all(&self.store))
            .any(|address| lies_in(these, address) && !lies_in(others, address))
    }
}

/// Follows the objects until the server ends.
pub(crate) async fn keep(server: Arc<Server>, client: kube::Client, ends: CancellationToken) {
    objects::repair(&server.store).await;
    let mut backoff = BACKOFF.0;
    loop {
        let after = server.store.revision();
        let watches =
            [CIDRS, ADDRESSES].map(|resource| server.store.watch(&Range::all(resource), after));
        let [Ok(mut cidrs), Ok(mut addresses)] = watches else { return };
        let outcome = reconcile(&server, &client).await;
        if outcome == Outcome::Failed {
            tokio::select! {
                () = tokio::time::sleep(backoff) => (),
                () = ends.cancelled() => return,
            }
            backoff = (backoff * 2).min(BACKOFF.1);
            continue;
        }
        backoff = BACKOFF.0;
        let changed = tokio::select! {
            changed = cidrs.next() => changed,
            // Only who waits for addresses to become free looks at them.
            changed = addresses.next(), if outcome == Outcome::Waits => changed,
            () = ends.cancelled() => return,
        };
        if matches!(changed, Err(Gone::Closed)) {
            return;
        }
    }
}

/// What came of a pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    /// All is as it should be, or will be when what was written is seen.
    Settled,
    /// Some range is deleted, and still used.
    Waits,
    /// A write was refused: once more.
    Failed,
}

async fn reconcile(server: &Server, client: &kube::Client) -> Outcome {
    let addresses = &server.addresses;
    let ranges = addresses.held_ranges();
    addresses.set_ranges(ranges.clone());
    let mut outcome = Outcome::Settled;
    for cidr in objects::decoded(&server.store, CIDRS) {
        // No address is given out of a deleted range since the line above.
        let is_needed = is_deleting(&cidr) && addresses.needs(&ranges_of(&cidr), &ranges);
        if is_needed && outcome == Outcome::Settled {
            outcome = Outcome::Waits;
        }
        let Some((path, patch)) = plan(&cidr, is_needed) else { continue };
        if let Err(error) = write(client, &cidr, path, patch).await {
            tracing::debug!(%error, "a ServiceCIDR was not written");
            outcome = Outcome::Failed;
        }
    }
    outcome
}

/// What to write to the object next: the subresource, and a merge patch.
fn plan(cidr: &Value, is_needed: bool) -> Option<(&'static str, Value)> {
    let others: Vec<Value> = finalizers(cidr)
        .iter()
        .filter(|name| **name != FINALIZER)
        .map(|name| json!(name))
        .collect();
    let held_by = |finalizers: Vec<Value>| json!({ "metadata": { "finalizers": finalizers } });
    if is_deleting(cidr) {
        return match (is_held(cidr), is_needed) {
            (false, _) => None,
            (true, false) => Some(("", held_by(others))),
            (true, true) => {
                let why = "There are still IPAddresses referencing the ServiceCIDR, please remove them or create a new ServiceCIDR";
                condition(cidr, "False", "Terminating", why)
            }
        };
    }
    if !is_held(cidr) {
        let mut all = others;
        all.push(json!(FINALIZER));
        return Some(("", held_by(all)));
    }
    if is_ready(cidr) {
        None
    } else {
        condition(cidr, "True", "", "Kubernetes Service CIDR is ready")
    }
}

/// The condition to be written, unless it is there.
fn condition(
    cidr: &Value,
    status: &str,
    reason: &str,
    message: &str,
) -> Option<(&'static str, Value)> {
    if ready(cidr).is_some_and(|known| known["status"] == status) {
        return None;
    }
    let mut conditions: Vec<Value> =
        conditions(cidr).filter(|known| known["type"] != "Ready").cloned().collect();
    conditions.push(json!({
        "type": "Ready", "status": status, "reason": reason, "message": message,
        "lastTransitionTime": now(),
    }));
    Some(("/status", json!({ "status": { "conditions": conditions } })))
}

fn conditions(cidr: &Value) -> impl Iterator<Item = &Value> {
    cidr.pointer("/status/conditions").and_then(Value::as_array).into_iter().flatten()
}

fn ready(cidr: &Value) -> Option<&Value> {
    conditions(cidr).find(|condition| condition["type"] == "Ready")
}

fn is_held(cidr: &Value) -> bool {
    finalizers(cidr).iter().any(|name| name == FINALIZER)
}

fn is_ready(cidr: &Value) -> bool {
    ready(cidr).is_some_and(|condition| condition["status"] == "True")
}

/// The object's ranges of IPv4 addresses; we give no others.
fn ranges_of(cidr: &Value) -> Vec<Cidr> {
    let listed = cidr.pointer("/spec/cidrs").and_then(Value::as_array).into_iter().flatten();
    listed.filter_map(|range| range.as_str()?.parse().ok()).collect()
}

async fn write(
    client: &kube::Client,
    cidr: &Value,
    subresource: &str,
    mut patch: Value,
) -> Result<(), kube::Error> {
    // What was not seen is not written over.
    patch["metadata"]["resourceVersion"] = cidr["metadata"]["resourceVersion"].clone();
    let name = meta(cidr, "name");
    let path = format!("/apis/networking.k8s.io/v1/servicecidrs/{name}{subresource}");
    let request = Request::patch(path)
        .header(header::CONTENT_TYPE, "application/merge-patch+json")
        .body(patch.to_string().into_bytes())
        .map_err(kube::Error::HttpError)?;
    client.request::<Value>(request).await.map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_is_held_then_ready_and_goes_when_nobody_needs_it() {
        let mut cidr = json!({ "metadata": { "name": "a", "finalizers": ["x/y"] } });
        let (path, patch) = plan(&cidr, false).unwrap();
        assert_eq!((path, &patch["metadata"]["finalizers"]), ("", &json!(["x/y", FINALIZER])));
        cidr["metadata"]["finalizers"] = patch["metadata"]["finalizers"].clone();
        let (path, patch) = plan(&cidr, false).unwrap();
        assert_eq!(
            (path, &patch["status"]["conditions"][0]["status"]),
            ("/status", &json!("True"))
        );
        cidr["status"] = patch["status"].clone();
        assert_eq!(plan(&cidr, false), None);

        cidr["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
        let (path, patch) = plan(&cidr, true).unwrap();
        assert_eq!(path, "/status");
        assert_eq!(patch["status"]["conditions"][0]["reason"], "Terminating");
        cidr["status"] = patch["status"].clone();
        assert_eq!(plan(&cidr, true), None);
        let (path, patch) = plan(&cidr, false).unwrap();
        assert_eq!((path, &patch["metadata"]["finalizers"]), ("", &json!(["x/y"])));
        cidr["metadata"]["finalizers"] = json!(["x/y"]);
        assert_eq!(plan(&cidr, false), None);
    }
}
