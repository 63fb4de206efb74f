//! `IPAddress` objects: whose an address is. Those of Services are the server's own, and follow the Services' writes.

use std::net::Ipv4Addr;

use coracle_api::kinds::{self, Kind};
use coracle_store::{Key, Range, Store, WriteError};
use serde_json::{Value, json};

use super::addresses_of;
use crate::object::{self, meta, text};
use crate::storage;

/// Upstream's label of who made the object, and what its allocator writes there.
const MANAGED_BY: &str = "ipaddress.kubernetes.io/managed-by";
const ALLOCATOR: &str = "ipallocator.k8s.io";
const FAMILY: &str = "ipaddress.kubernetes.io/ip-family";

fn kind() -> Option<&'static Kind> {
    kinds::by_kind("networking.k8s.io", "v1", "IPAddress")
}

fn key(kind: &'static Kind, address: Ipv4Addr) -> Key {
    storage::key(kind, "", &address.to_string())
}

/// Whether the address has an object, whoever made it.
pub(super) fn exists(store: &Store, address: Ipv4Addr) -> bool {
    kind().is_some_and(|kind| store.get(&key(kind, address)).is_some())
}

/// Says that the addresses are this Service's (its namespace and name).
pub(super) async fn write(store: &Store, addresses: &[Ipv4Addr], service: &(String, String)) {
    let Some(kind) = kind() else { return };
    for address in addresses {
        let object = json!({
            "apiVersion": kind.api_version,
            "kind": kind.kind,
            "metadata": {
                "name": address.to_string(),
                "uid": uuid::Uuid::new_v4().to_string(),
                "creationTimestamp": object::now(),
                "labels": { FAMILY: "IPv4", MANAGED_BY: ALLOCATOR },
            },
            "spec": { "parentRef": {
                "group": "", "resource": "services", "namespace": service.0, "name": service.1,
            } },
        });
        match store.create(key(kind, *address), storage::encode(kind, &object)).await {
            Ok(_) | Err(WriteError::Exists(_)) => (),
            // The Service has its address; the next start makes the object.
            Err(error) => tracing::warn!(%address, %error, "an IPAddress was not written"),
        }
    }
}

/// Says that nobody has the addresses.
pub(super) async fn remove(store: &Store, addresses: &[Ipv4Addr]) {
    let Some(kind) = kind() else { return };
    for address in addresses {
        let at = key(kind, *address);
        let Some(current) = store.get(&at) else { continue };
        let Ok(last) = storage::decode(&current) else { continue };
        let gone = store.delete(at, current.revision, storage::encode(kind, &last)).await;
        if let Err(error) = gone {
            tracing::warn!(%address, %error, "an IPAddress was not deleted");
        }
    }
}

/// Brings the objects to what the Services say: a server may have ended between two writes.
pub(super) async fn repair(store: &Store) {
    let Some(kind) = kind() else { return };
    let services = decoded(store, "services");
    for service in &services {
        let owner = (meta(service, "namespace").to_owned(), meta(service, "name").to_owned());
        let missing: Vec<Ipv4Addr> =
            addresses_of(service).into_iter().filter(|address| !exists(store, *address)).collect();
        write(store, &missing, &owner).await;
    }
    for object in decoded(store, &kind.resource()) {
        let ours = object["metadata"]["labels"][MANAGED_BY] == ALLOCATOR;
        let Ok(address) = meta(&object, "name").parse::<Ipv4Addr>() else { continue };
        let is_used = services.iter().any(|service| addresses_of(service).contains(&address));
        if ours && !is_used {
            remove(store, &[address]).await;
        }
    }
}

/// The addresses that have an object, and are not on their way out.
pub(super) fn all(store: &Store) -> Vec<Ipv4Addr> {
    let Some(kind) = kind() else { return Vec::new() };
    let objects = decoded(store, &kind.resource());
    let stays =
        objects.iter().filter(|object| text(object, "/metadata/deletionTimestamp").is_empty());
    stays.filter_map(|object| meta(object, "name").parse().ok()).collect()
}

/// All objects of a resource.
pub(super) fn decoded(store: &Store, resource: &str) -> Vec<Value> {
    let listing = store.list(&Range::all(resource), None, None, None);
    let objects = listing.map(|listing| listing.objects).unwrap_or_default();
    objects.iter().filter_map(|object| storage::decode(object).ok()).collect()
}
