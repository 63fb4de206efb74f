//! Where the servers of a Service are, from the API server's own objects.

use coracle_store::{Key, Range, Store};
use serde_json::Value;

use crate::object::text;

/// Why a service leads nowhere. The texts are those of upstream's service resolver.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Nowhere {
    #[error("service {0:?} not found")]
    UnknownService(String),
    #[error("no service port {port} found for service {name:?}")]
    UnknownPort { name: String, port: u16 },
    #[error("no endpoints available for service {0:?}")]
    NotReady(String),
}

/// Host and port of each ready endpoint behind this port of the service.
pub(crate) fn resolve(
    store: &Store,
    namespace: &str,
    name: &str,
    port: u16,
) -> Result<Vec<(String, u16)>, Nowhere> {
    let service = read(store, "services", namespace, name)
        .ok_or_else(|| Nowhere::UnknownService(name.to_owned()))?;
    if text(&service, "/spec/type") == "ExternalName" {
        return Ok(vec![(text(&service, "/spec/externalName").to_owned(), port)]);
    }
    let ports = service.pointer("/spec/ports").and_then(Value::as_array);
    let wanted = ports
        .into_iter()
        .flatten()
        .find(|declared| declared["port"] == port)
        .ok_or_else(|| Nowhere::UnknownPort { name: name.to_owned(), port })?;
    let port_name = wanted["name"].as_str().unwrap_or_default();
    let mut found = in_slices(store, namespace, name, port_name);
    if found.is_empty() {
        found = in_endpoints(store, namespace, name, port_name);
    }
    if found.is_empty() { Err(Nowhere::NotReady(name.to_owned())) } else { Ok(found) }
}

/// Whether anything says which endpoints the service has, ready or not.
pub(crate) fn are_known(store: &Store, namespace: &str, name: &str) -> bool {
    let range = Range::namespace("endpointslices.discovery.k8s.io", namespace);
    let listed = store.list(&range, None, None, None).map(|listing| listing.objects);
    let is_its = |label: Option<&str>| label == Some(name);
    listed
        .unwrap_or_default()
        .iter()
        .any(|slice| is_its(slice.attributes.label("kubernetes.io/service-name")))
        || store.get(&Key::new("endpoints", namespace, name)).is_some()
}

fn read(store: &Store, resource: &str, namespace: &str, name: &str) -> Option<Value> {
    let object = store.get(&Key::new(resource, namespace, name))?;
    serde_json::from_slice(&object.bytes).ok()
}

fn in_slices(store: &Store, namespace: &str, name: &str, port_name: &str) -> Vec<(String, u16)> {
    let range = Range::namespace("endpointslices.discovery.k8s.io", namespace);
    let listed = store.list(&range, None, None, None).map(|listing| listing.objects);
    let mut found = Vec::new();
    for object in listed.unwrap_or_default() {
        if object.attributes.label("kubernetes.io/service-name") != Some(name) {
            continue;
        }
        let slice: Value = serde_json::from_slice(&object.bytes).unwrap_or_default();
        let Some(port) = port_called(&slice["ports"], port_name) else { continue };
        for endpoint in slice["endpoints"].as_array().into_iter().flatten() {
            let ready = endpoint.pointer("/conditions/ready").and_then(Value::as_bool);
            let address = endpoint.pointer("/addresses/0").and_then(Value::as_str);
            if let Some(address) = address.filter(|_| ready != Some(false)) {
                found.push((address.to_owned(), port));
            }
        }
    }
    found
}

/// The older form, which people write by hand for services without a selector.
fn in_endpoints(store: &Store, namespace: &str, name: &str, port_name: &str) -> Vec<(String, u16)> {
    let endpoints = read(store, "endpoints", namespace, name).unwrap_or_default();
    let mut found = Vec::new();
    for subset in endpoints["subsets"].as_array().into_iter().flatten() {
        let Some(port) = port_called(&subset["ports"], port_name) else { continue };
        let addresses = subset["addresses"].as_array().into_iter().flatten();
        let addresses = addresses.filter_map(|address| address["ip"].as_str());
        found.extend(addresses.map(|address| (address.to_owned(), port)));
    }
    found
}

fn port_called(ports: &Value, name: &str) -> Option<u16> {
    let mut ports = ports.as_array()?.iter();
    let port = ports.find(|port| port["name"].as_str().unwrap_or_default() == name)?;
    u16::try_from(port["port"].as_u64()?).ok()
}
