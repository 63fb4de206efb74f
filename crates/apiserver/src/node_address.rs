//! Where a node's kubelet listens.

use coracle_api::kinds;
use coracle_api::status::Status;
use coracle_store::Store;
use serde_json::Value;

use crate::answer::Answer;
use crate::storage;

/// The address and port of the kubelet: the node's internal address, or else its host name, as upstream prefers them.
pub(crate) fn kubelet(store: &Store, node: &str) -> Answer<(String, u16)> {
    let nodes = kinds::by_kind("", "v1", "Node").ok_or_else(Status::no_such_path)?;
    let found =
        store.get(&storage::key(nodes, "", node)).ok_or_else(|| Status::not_found(nodes, node))?;
    let found = storage::decode(&found)?;
    let port =
        found.pointer("/status/daemonEndpoints/kubeletEndpoint/Port").and_then(Value::as_u64);
    let port =
        port.and_then(|port| u16::try_from(port).ok()).filter(|&port| port != 0).unwrap_or(10250);
    let addresses = found
        .pointer("/status/addresses")
        .and_then(Value::as_array)
        .map(Vec::as_slice)
        .unwrap_or_default();
    let of_type = |wanted: &str| {
        let address = addresses
            .iter()
            .find(|address| address.get("type").is_some_and(|found| found == wanted))?;
        address.get("address")?.as_str()
    };
    ["InternalIP", "Hostname", "ExternalIP"]
        .iter()
        .find_map(|wanted| of_type(wanted))
        .map(|host| (host.to_owned(), port))
        .ok_or_else(|| {
            Status::internal(format!(
                "no preferred addresses found; known addresses: [] of node {node}"
            ))
        })
}
