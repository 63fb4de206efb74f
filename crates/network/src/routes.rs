//! From Services and EndpointSlices to one snapshot of names, addresses and ports. Pure.
//!
//! Which endpoints count follows kube-proxy (pkg/proxy/topology.go): the ready
//! ones, and when there are none, those that still serve while they terminate.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use coracle_api::services::{ServiceName, ServicePort, Services};
use k8s_openapi::api::core::v1::{Service, ServicePort as PortSpec};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointSlice};

/// Upstream's default for `sessionAffinityConfig.clientIP.timeoutSeconds`: three hours.
const AFFINITY_DEFAULT: Duration = Duration::from_secs(10_800);
/// The label that ties a slice to its Service.
const SERVICE_LABEL: &str = "kubernetes.io/service-name";

/// The snapshot for these objects. `previous` hands over each port's turn and its clients' choices.
pub fn compile(
    services: &[Arc<Service>],
    slices: &[Arc<EndpointSlice>],
    previous: &Services,
) -> Services {
    let mut by_service: HashMap<(&str, &str), Vec<&EndpointSlice>> = HashMap::new();
    for slice in slices {
        let labels = slice.metadata.labels.as_ref();
        if let Some(name) = labels.and_then(|labels| labels.get(SERVICE_LABEL)) {
            let namespace = slice.metadata.namespace.as_deref().unwrap_or_default();
            by_service.entry((namespace, name)).or_default().push(slice);
        }
    }
    let mut snapshot = Services::default();
    for service in services {
        let namespace = service.metadata.namespace.as_deref().unwrap_or_default();
        let name = service.metadata.name.as_deref().unwrap_or_default();
        let slices = by_service.get(&(namespace, name)).map_or(&[][..], Vec::as_slice);
        add(&mut snapshot, namespace, name, service, slices, previous);
    }
    snapshot
}

fn add(
    snapshot: &mut Services,
    namespace: &str,
    name: &str,
    service: &Service,
    slices: &[&EndpointSlice],
    previous: &Services,
) {
    let Some(spec) = &service.spec else { return };
    let key = (namespace.to_owned(), name.to_owned());
    if spec.type_.as_deref() == Some("ExternalName") {
        let target = spec.external_name.clone().unwrap_or_default();
        snapshot.by_name.insert(key, ServiceName::External(target));
        return;
    }
    let virtual_ips: Vec<IpAddr> = match &spec.cluster_ips {
        Some(ips) if !ips.is_empty() => ips.iter().filter_map(|ip| ip.parse().ok()).collect(),
        _ => spec.cluster_ip.iter().filter_map(|ip| ip.parse().ok()).collect(),
    };
    if virtual_ips.is_empty() {
        snapshot.by_name.insert(key, ServiceName::Headless(ready_addresses(slices)));
        for (hostname, ip) in ready_hostnames(slices) {
            let key = (namespace.to_owned(), name.to_owned(), hostname);
            snapshot.by_hostname.entry(key).or_default().push(ip);
        }
        return;
    }
    let affinity = affinity(service);
    for port in spec.ports.iter().flatten().filter(|port| is_tcp(port)) {
        let endpoints = endpoints(port, slices);
        let label = match port.name.as_deref() {
            Some(port_name) => format!("{namespace}/{name}:{port_name}"),
            None => format!("{namespace}/{name}"),
        };
        let Ok(number) = u16::try_from(port.port) else { continue };
        let first = virtual_ips.first().map(|ip| SocketAddr::new(*ip, number));
        let before = first.and_then(|address| previous.by_address.get(&address));
        let before = before.filter(|before| before.name == label).map(Arc::as_ref);
        let compiled = Arc::new(ServicePort::new(label, endpoints, affinity, before));
        for ip in &virtual_ips {
            snapshot.by_address.insert(SocketAddr::new(*ip, number), Arc::clone(&compiled));
        }
        let node_port = port.node_port.and_then(|port| u16::try_from(port).ok());
        if let Some(node_port) = node_port.filter(|port| *port != 0) {
            snapshot.by_node_port.insert(node_port, compiled);
        }
    }
    snapshot.by_name.insert(key, ServiceName::Virtual(virtual_ips));
}

fn affinity(service: &Service) -> Option<Duration> {
    let spec = service.spec.as_ref()?;
    if spec.session_affinity.as_deref() != Some("ClientIP") {
        return None;
    }
    let config = spec.session_affinity_config.as_ref().and_then(|config| config.client_ip.as_ref());
    let seconds = config.and_then(|config| config.timeout_seconds);
    Some(
        seconds
            .and_then(|seconds| u64::try_from(seconds).ok())
            .map_or(AFFINITY_DEFAULT, Duration::from_secs),
    )
}

fn is_tcp(port: &PortSpec) -> bool {
    matches!(port.protocol.as_deref(), None | Some("TCP"))
}

/// The endpoints behind one port of a Service; slices name their ports as the Service does.
fn endpoints(port: &PortSpec, slices: &[&EndpointSlice]) -> Vec<SocketAddr> {
    let wanted = port.name.as_deref().unwrap_or_default();
    let mut ready = Vec::new();
    let mut terminating = Vec::new();
    for slice in slices {
        let number = slice.ports.iter().flatten().find_map(|port| {
            let name = port.name.as_deref().unwrap_or_default();
            (name == wanted).then_some(port.port).flatten()
        });
        let Some(number) = number.and_then(|number| u16::try_from(number).ok()) else { continue };
        for endpoint in slice.endpoints.iter().flatten() {
            let addresses = addresses(endpoint).map(|ip| SocketAddr::new(ip, number));
            match standing(endpoint) {
                Standing::Ready => ready.extend(addresses),
                Standing::ServesWhileTerminating => terminating.extend(addresses),
                Standing::Out => (),
            }
        }
    }
    let mut chosen = if ready.is_empty() { terminating } else { ready };
    chosen.sort_unstable();
    chosen.dedup();
    chosen
}

fn ready<'a>(slices: &'a [&EndpointSlice]) -> impl Iterator<Item = &'a Endpoint> {
    let endpoints = slices.iter().flat_map(|slice| slice.endpoints.iter().flatten());
    endpoints.filter(|endpoint| matches!(standing(endpoint), Standing::Ready))
}

/// The names that pods have within their Service, as those of a StatefulSet do, and what they mean.
fn ready_hostnames(slices: &[&EndpointSlice]) -> Vec<(String, IpAddr)> {
    let named = ready(slices).filter_map(|endpoint| Some((endpoint.hostname.as_ref()?, endpoint)));
    let each = |(name, endpoint): (&String, &Endpoint)| {
        addresses(endpoint).map(|ip| (name.clone(), ip)).collect::<Vec<_>>()
    };
    named.flat_map(each).collect()
}

fn ready_addresses(slices: &[&EndpointSlice]) -> Vec<IpAddr> {
    let mut chosen: Vec<IpAddr> = ready(slices).flat_map(addresses).collect();
    chosen.sort_unstable();
    chosen.dedup();
    chosen
}

fn addresses(endpoint: &Endpoint) -> impl Iterator<Item = IpAddr> {
    endpoint.addresses.iter().filter_map(|address| address.parse().ok())
}

enum Standing {
    Ready,
    ServesWhileTerminating,
    Out,
}

fn standing(endpoint: &Endpoint) -> Standing {
    let Some(conditions) = &endpoint.conditions else { return Standing::Ready };
    // The API says that an absent `ready` means true.
    if conditions.ready.unwrap_or(true) {
        return Standing::Ready;
    }
    match (conditions.serving, conditions.terminating) {
        (Some(true), Some(true)) => Standing::ServesWhileTerminating,
        _ => Standing::Out,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use coracle_api::services::{Destination, Resolution, ServiceTable};
    use serde_json::{Value, json};

    const VIRTUAL: &str = "127.17.0.9:80";

    fn service(spec: Value) -> Arc<Service> {
        let object = json!({ "metadata": { "namespace": "shop", "name": "web" }, "spec": spec });
        Arc::new(serde_json::from_value(object).expect("a Service"))
    }

    fn slice(endpoints: Value) -> Arc<EndpointSlice> {
        let object = json!({
            "metadata": { "namespace": "shop", "name": "web-x", "labels": { SERVICE_LABEL: "web" } },
            "addressType": "IPv4", "endpoints": endpoints, "ports": [{ "name": "", "port": 8080 }],
        });
        Arc::new(serde_json::from_value(object).expect("an EndpointSlice"))
    }

    fn endpoint(ip: &str, ready: bool, serving: bool, terminating: bool) -> Value {
        let conditions = json!({ "ready": ready, "serving": serving, "terminating": terminating });
        json!({ "addresses": [ip], "conditions": conditions })
    }

    fn table(spec: Value, endpoints: Value) -> ServiceTable {
        let table = ServiceTable::default();
        table.replace(compile(&[service(spec)], &[slice(endpoints)], &Services::default()));
        table
    }

    /// Connects `times` times to the Service and says where each connection led.
    fn check(table: &ServiceTable, times: usize) -> Vec<String> {
        let client = "127.0.0.1".parse().expect("an address");
        let connect = |_| match table.destination(VIRTUAL.parse().expect("an address"), client) {
            Destination::Endpoint(address) => address.to_string(),
            Destination::NoEndpoints => "refused".to_owned(),
            Destination::NotAService => "no service".to_owned(),
        };
        (0..times).map(connect).collect()
    }

    fn cluster_ip(extra: Value) -> Value {
        let mut spec = json!({ "clusterIP": "127.17.0.9", "clusterIPs": ["127.17.0.9"], "ports": [{ "port": 80 }] });
        let (Some(spec_map), Value::Object(extra)) = (spec.as_object_mut(), extra) else {
            return spec;
        };
        spec_map.extend(extra);
        spec
    }

    #[test]
    fn connections_take_turns_over_ready_endpoints_only() {
        let endpoints = json!([
            endpoint("127.16.0.2", true, true, false),
            endpoint("127.16.0.3", false, false, false),
            endpoint("127.16.0.4", true, true, false),
        ]);
        let table = table(cluster_ip(json!({})), endpoints);
        assert_eq!(check(&table, 3), ["127.16.0.2:8080", "127.16.0.4:8080", "127.16.0.2:8080"]);
    }

    #[test]
    fn terminating_endpoints_serve_when_nobody_else_does() {
        let endpoints = json!([
            endpoint("127.16.0.2", false, true, true),
            endpoint("127.16.0.3", false, false, true),
        ]);
        let table = table(cluster_ip(json!({})), endpoints);
        assert_eq!(check(&table, 2), ["127.16.0.2:8080", "127.16.0.2:8080"]);
    }

    #[test]
    fn a_service_without_endpoints_refuses() {
        assert_eq!(check(&table(cluster_ip(json!({})), json!([])), 1), ["refused"]);
    }

    #[test]
    fn a_client_with_affinity_stays_even_when_the_snapshot_changes() {
        let spec = cluster_ip(json!({ "sessionAffinity": "ClientIP" }));
        let two = json!([
            endpoint("127.16.0.2", true, true, false),
            endpoint("127.16.0.3", true, true, false)
        ]);
        let table = table(spec.clone(), two.clone());
        let first = check(&table, 2);
        assert_eq!(first[0], first[1]);
        table.replace(compile(&[service(spec)], &[slice(two)], &table.current()));
        assert_eq!(check(&table, 1)[0], first[0]);
    }

    #[test]
    fn names_resolve_as_a_pods_search_list_says() {
        let one = json!([endpoint("127.16.0.2", true, true, false)]);
        let table = table(cluster_ip(json!({})), one.clone());
        let found = Resolution::Addresses(vec!["127.17.0.9".parse().expect("an address")]);
        for host in ["web", "web.shop", "web.shop.svc", "web.shop.svc.cluster.local", "WEB.shop."] {
            assert_eq!(table.resolve(host, "shop"), found, "{host}");
        }
        assert_eq!(table.resolve("web", "other"), Resolution::NotInCluster);
        assert_eq!(table.resolve("none.shop.svc.cluster.local", "shop"), Resolution::Unknown);
        assert_eq!(table.resolve("example.com", "shop"), Resolution::NotInCluster);

        let headless = self::table(json!({ "clusterIP": "None", "ports": [{ "port": 80 }] }), one);
        let pods = Resolution::Addresses(vec!["127.16.0.2".parse().expect("an address")]);
        assert_eq!(headless.resolve("web.shop", "other"), pods);
        assert_eq!(headless.resolve("web-0.web.shop", "other"), Resolution::NotInCluster);
    }

    #[test]
    fn a_pod_of_a_headless_service_has_a_name_of_its_own() {
        let mut endpoints = json!([
            endpoint("127.16.0.2", true, true, false),
            endpoint("127.16.0.3", false, false, false),
        ]);
        endpoints[0]["hostname"] = json!("web-0");
        endpoints[1]["hostname"] = json!("web-1");
        let spec = json!({ "clusterIP": "None", "ports": [{ "port": 80 }] });
        let table = table(spec, endpoints);
        let pod = Resolution::Addresses(vec!["127.16.0.2".parse().expect("an address")]);
        for host in ["web-0.web.shop", "web-0.web.shop.svc", "web-0.web.shop.svc.cluster.local"] {
            assert_eq!(table.resolve(host, "other"), pod, "{host}");
        }
        assert_eq!(table.resolve("web-0.web", "shop"), pod);
        assert_eq!(table.resolve("web-0.web", "other"), Resolution::NotInCluster);
        assert_eq!(table.resolve("web-1.web.shop.svc", "shop"), Resolution::Unknown, "not ready");
    }

    #[test]
    fn a_node_port_leads_where_the_virtual_address_leads() {
        let spec =
            cluster_ip(json!({ "type": "NodePort", "ports": [{ "port": 80, "nodePort": 30080 }] }));
        let table = table(spec, json!([endpoint("127.16.0.2", true, true, false)]));
        let port = table.current().by_node_port.get(&30080).cloned().expect("the node port");
        assert_eq!(port.endpoints, ["127.16.0.2:8080".parse().expect("an address")]);
    }
}
