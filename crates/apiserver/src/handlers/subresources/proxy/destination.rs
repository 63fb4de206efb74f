//! Where a proxied request goes.

use std::net::IpAddr;

use coracle_api::status::Status;
use coracle_store::Range;
use serde_json::Value;

use crate::answer::Answer;
use crate::call::Call;
use crate::kubelet_client::Scheme;
use crate::object::text;
use crate::{node_address, storage};

/// Another side, and how it is spoken to.
#[derive(Debug)]
pub(super) struct Destination {
    pub(super) scheme: Scheme,
    pub(super) host: String,
    pub(super) port: u16,
}

/// Reads `NAME`, `NAME:PORT` or `SCHEME:NAME:PORT`, and finds what it means.
pub(super) fn find(call: &Call) -> Answer<Destination> {
    let asked = &call.target.name;
    let (scheme, name, port) = split_name(asked).ok_or_else(|| {
        Status::bad_request(format!("invalid {} request {asked:?}", call.kind.singular))
    })?;
    match call.kind.kind {
        "Node" => node(call, scheme, name, port),
        "Pod" => pod(call, scheme, name, port),
        "Service" => service(call, scheme, name, port),
        _ => Err(Status::method_not_served()),
    }
}

fn split_name(asked: &str) -> Option<(Scheme, &str, &str)> {
    let mut parts = asked.split(':');
    let (scheme, name, port) = match (parts.next()?, parts.next(), parts.next()) {
        (scheme, Some(name), Some(port)) => (scheme, name, port),
        (name, port, _) => ("", name, port.unwrap_or_default()),
    };
    let scheme = match scheme {
        "" | "http" => Scheme::Http,
        "https" => Scheme::UnverifiedHttps,
        _ => return None,
    };
    (!name.is_empty() && parts.next().is_none()).then_some((scheme, name, port))
}

/// The stored object of the call's kind with this name.
fn stored(call: &Call, name: &str) -> Answer<Value> {
    let key = storage::key(call.kind, call.namespace(), name);
    let object = call.server.store.get(&key).ok_or_else(|| Status::not_found(call.kind, name))?;
    storage::decode(&object)
}

fn list<'a>(object: &'a Value, pointer: &str) -> impl Iterator<Item = &'a Value> + use<'a> {
    object.pointer(pointer).and_then(Value::as_array).into_iter().flatten()
}

fn number(port: Option<&Value>) -> Option<u16> {
    u16::try_from(port?.as_u64()?).ok().filter(|port| *port != 0)
}

/// Nobody shall reach by our hands what an address in some object points at, but the cluster's own: whoever may write the object
/// could not go there.
fn check_address(host: &str) -> Answer<()> {
    let not_allowed = || Status::bad_request("address not allowed");
    let address: IpAddr = host.parse().map_err(|_| not_allowed())?;
    let is_link_local = match address {
        IpAddr::V4(address) => address.is_link_local() || address.is_broadcast(),
        IpAddr::V6(address) => address.is_unicast_link_local(),
    };
    if is_link_local || address.is_unspecified() || address.is_multicast() {
        return Err(not_allowed());
    }
    Ok(())
}

fn node(call: &Call, scheme: Scheme, name: &str, port: &str) -> Answer<Destination> {
    let (host, kubelet_port) = node_address::kubelet(&call.server.store, name)?;
    if port.is_empty() || port.parse() == Ok(kubelet_port) {
        return Ok(Destination { scheme: Scheme::KubeletHttps, host, port: kubelet_port });
    }
    check_address(&host)?;
    // What else listens on loopback is not the node's but this machine's.
    if host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback()) {
        return Err(Status::bad_request("address not allowed"));
    }
    let port = port.parse().map_err(|_| {
        Status::bad_request(format!(
            "invalid {} request {:?}",
            call.kind.singular, call.target.name
        ))
    })?;
    Ok(Destination { scheme, host, port })
}

fn pod(call: &Call, scheme: Scheme, name: &str, port: &str) -> Answer<Destination> {
    let pod = stored(call, name)?;
    let host = text(&pod, "/status/podIP").to_owned();
    check_address(&host)?;
    let mut declared =
        list(&pod, "/spec/containers").flat_map(|container| list(container, "/ports"));
    let found = match port.parse::<u16>() {
        Ok(number) => Some(number),
        // Without a port, the first one that there is.
        Err(_) if port.is_empty() => {
            declared.next().and_then(|port| number(port.get("containerPort")))
        }
        Err(_) => {
            let named =
                declared.find(|declared| declared.get("name").is_some_and(|name| name == port));
            let found = named.and_then(|port| number(port.get("containerPort")));
            let none = || Status::bad_request(format!("pod {name:?} has no port {port:?}"));
            Some(found.ok_or_else(none)?)
        }
    };
    let port = found.unwrap_or(if scheme == Scheme::Http { 80 } else { 443 });
    Ok(Destination { scheme, host, port })
}

/// A random ready endpoint of the service.
fn service(call: &Call, scheme: Scheme, name: &str, port: &str) -> Answer<Destination> {
    let service = stored(call, name)?;
    let port_name = service_port(&service, name, port)?;
    let none =
        || Status::service_unavailable(format!("no endpoints available for service {name:?}"));
    let range = Range::namespace("endpointslices.discovery.k8s.io", call.namespace());
    let listing = call.server.store.list(&range, None, None, None).map_err(|_| none())?;
    let is_of_service = |object: &&std::sync::Arc<coracle_store::Object>| {
        object.attributes.label("kubernetes.io/service-name") == Some(name)
    };
    let mut candidates = Vec::new();
    for object in listing.objects.iter().filter(is_of_service) {
        let slice = storage::decode(object)?;
        let is_wanted = |port: &&Value| {
            port.get("name").and_then(Value::as_str).unwrap_or_default() == port_name
        };
        let Some(port) = list(&slice, "/ports").find(is_wanted) else { continue };
        let Some(port) = number(port.get("port")) else { continue };
        let is_ready = |endpoint: &&Value| {
            endpoint.pointer("/conditions/ready").and_then(Value::as_bool).unwrap_or(true)
        };
        let ready = list(&slice, "/endpoints").filter(is_ready);
        let hosts = ready.filter_map(|endpoint| endpoint.pointer("/addresses/0")?.as_str());
        let allowed = hosts.filter(|host| check_address(host).is_ok());
        candidates.extend(allowed.map(|host| (host.to_owned(), port)));
    }
    if candidates.is_empty() {
        return Err(none());
    }
    let (host, port) = candidates.swap_remove(rand::random_range(0..candidates.len()));
    Ok(Destination { scheme, host, port })
}

/// The name that the port has in the slices. A service's only port needs no name to be found.
fn service_port(service: &Value, name: &str, port: &str) -> Answer<String> {
    let named = |declared: &Value| text(declared, "/name").to_owned();
    if let Ok(number) = port.parse::<i64>() {
        let found = list(service, "/spec/ports")
            .find(|declared| declared.get("port").and_then(Value::as_i64) == Some(number));
        return found.map(named).ok_or_else(|| {
            let none = format!("no service port {number} found for service {name:?}");
            Status::service_unavailable(none)
        });
    }
    let mut ports = list(service, "/spec/ports");
    match (ports.next(), ports.next()) {
        (Some(only), None) if port.is_empty() => Ok(named(only)),
        _ => Ok(port.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_may_have_a_scheme_and_a_port() {
        assert_eq!(split_name("web"), Some((Scheme::Http, "web", "")));
        assert_eq!(split_name("web:http"), Some((Scheme::Http, "web", "http")));
        assert_eq!(split_name("https:web:443"), Some((Scheme::UnverifiedHttps, "web", "443")));
        assert_eq!(split_name("http:web:"), Some((Scheme::Http, "web", "")));
        for wrong in ["", ":80", "ftp:web:21", "a:b:c:d"] {
            assert_eq!(split_name(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn addresses_of_nobodys_machine_are_refused() {
        for good in ["10.0.0.1", "127.17.0.1", "fd00::1"] {
            assert!(check_address(good).is_ok(), "{good}");
        }
        for bad in ["", "0.0.0.0", "169.254.169.254", "224.0.0.1", "fe80::1", "localhost"] {
            assert!(check_address(bad).is_err(), "{bad}");
        }
    }
}
