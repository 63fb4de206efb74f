//! Which slices a Service needs. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::{
    Endpoint, EndpointConditions, EndpointHints, EndpointPort, EndpointSlice, ForNode, ForZone,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::ownership::controlled_by;
use crate::service_pods::{
    HEADLESS_LABEL, Member, TRIGGER_ANNOTATION, Target, hostname, is_headless, publishes_not_ready,
    target_ref,
};

/// Upstream's `--max-endpoints-per-slice`.
const PER_SLICE: usize = 100;
/// Ties a slice to its Service.
const SERVICE_LABEL: &str = "kubernetes.io/service-name";
/// Says who writes the slice.
const MANAGER_LABEL: &str = "endpointslice.kubernetes.io/managed-by";
const MANAGER: &str = "endpointslice-controller.k8s.io";

/// One write.
#[derive(Debug)]
pub(super) enum Step {
    Create(Box<EndpointSlice>),
    Update(Box<EndpointSlice>),
    Delete(Arc<EndpointSlice>),
}

/// Slices that show the same ports of pods of the same address family.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Group {
    family: &'static str,
    ports: Vec<(String, String, i32, Option<String>)>,
}

/// The zone that a node is in, by the node's name.
pub(super) type ZoneOf<'a> = &'a dyn Fn(&str) -> Option<String>;

/// The writes that bring `slices` to what `members` are. Endpoints stay in the slice they are in.
pub(super) fn plan(
    service: &Service,
    members: &[Member],
    zone_of: ZoneOf<'_>,
    slices: &[Arc<EndpointSlice>],
    now: Timestamp,
) -> Vec<Step> {
    let mut wanted: BTreeMap<Group, Vec<Endpoint>> = BTreeMap::new();
    for member in members {
        let family = if member.address.is_ipv4() { "IPv4" } else { "IPv6" };
        let group = Group { family, ports: member.targets.iter().map(identity).collect() };
        wanted.entry(group).or_default().push(endpoint(service, member, zone_of));
    }
    if wanted.is_empty() {
        // A Service that nobody stands behind has one slice that says so.
        wanted.insert(Group { family: "IPv4", ports: Vec::new() }, Vec::new());
    }
    let mut steps = Vec::new();
    for slice in slices {
        if !wanted.contains_key(&group_of(slice)) {
            steps.push(Step::Delete(Arc::clone(slice)));
        }
    }
    for (group, endpoints) in wanted {
        let own = slices.iter().filter(|slice| group_of(slice) == group);
        plan_group(service, &group, endpoints, own.cloned().collect(), now, &mut steps);
    }
    // What is missing comes first: an endpoint shown twice for a moment is better than none.
    steps.sort_by_key(|step| matches!(step, Step::Delete(_)));
    steps
}

fn plan_group(
    service: &Service,
    group: &Group,
    endpoints: Vec<Endpoint>,
    mut slices: Vec<Arc<EndpointSlice>>,
    now: Timestamp,
    steps: &mut Vec<Step>,
) {
    slices.sort_by(|a, b| a.metadata.name.cmp(&b.metadata.name));
    let mut left: BTreeMap<String, Endpoint> =
        endpoints.into_iter().map(|endpoint| (address(&endpoint), endpoint)).collect();
    let mut kept: Vec<Vec<Endpoint>> = slices
        .iter()
        .map(|slice| {
            let shown = slice.endpoints.iter().flatten();
            shown.filter_map(|endpoint| left.remove(&address(endpoint))).collect()
        })
        .collect();
    let mut left = left.into_values();
    for endpoints in &mut kept {
        endpoints.extend(left.by_ref().take(PER_SLICE.saturating_sub(endpoints.len())));
    }
    let nobody = kept.iter().all(Vec::is_empty) && left.len() == 0;
    let mut taken: BTreeSet<String> =
        slices.iter().filter_map(|slice| slice.metadata.name.clone()).collect();
    for (index, (slice, endpoints)) in slices.iter().zip(kept).enumerate() {
        if endpoints.is_empty() && !(nobody && index == 0) {
            steps.push(Step::Delete(Arc::clone(slice)));
            continue;
        }
        let mut next = shape(service, group, endpoints);
        if !differs(slice, &next) {
            continue;
        }
        next.metadata.name.clone_from(&slice.metadata.name);
        next.metadata.resource_version.clone_from(&slice.metadata.resource_version);
        stamp(&mut next, now);
        steps.push(Step::Update(Box::new(next)));
    }
    let rest: Vec<Endpoint> = left.collect();
    let mut rest = rest.chunks(PER_SLICE).map(<[Endpoint]>::to_vec).collect::<Vec<_>>();
    if nobody && slices.is_empty() {
        rest.push(Vec::new());
    }
    for endpoints in rest {
        let mut next = shape(service, group, endpoints);
        let name = free_name(service, group, &taken);
        taken.insert(name.clone());
        next.metadata.name = Some(name);
        stamp(&mut next, now);
        steps.push(Step::Create(Box::new(next)));
    }
}

fn identity(target: &Target) -> (String, String, i32, Option<String>) {
    (target.name.clone(), target.protocol.clone(), target.port, target.app_protocol.clone())
}

fn group_of(slice: &EndpointSlice) -> Group {
    let ports = slice.ports.iter().flatten().map(|port| {
        (
            port.name.clone().unwrap_or_default(),
            port.protocol.clone().unwrap_or_else(|| "TCP".to_owned()),
            port.port.unwrap_or_default(),
            port.app_protocol.clone(),
        )
    });
    let family = if slice.address_type == "IPv6" { "IPv6" } else { "IPv4" };
    Group { family, ports: ports.collect() }
}

fn endpoint(service: &Service, member: &Member, zone_of: ZoneOf<'_>) -> Endpoint {
    let ready = publishes_not_ready(service) || (member.serving && !member.terminating);
    let node_name = member.pod.spec.node_name.clone();
    let zone = node_name.as_deref().and_then(zone_of);
    let hints = hints(service, node_name.as_deref(), zone.as_deref()).filter(|_| ready);
    Endpoint {
        addresses: vec![member.address.to_string()],
        conditions: Some(EndpointConditions {
            ready: Some(ready),
            serving: Some(member.serving),
            terminating: Some(member.terminating),
        }),
        hostname: hostname(&member.pod, service),
        node_name,
        zone,
        hints,
        target_ref: Some(target_ref(&member.pod)),
        ..Endpoint::default()
    }
}

/// Whom an endpoint is meant for, where the Service wants traffic to stay near.
///
/// Upstream: `staging/src/k8s.io/endpointslice/trafficdist`.
fn hints(service: &Service, node: Option<&str>, zone: Option<&str>) -> Option<EndpointHints> {
    let distribution = service.spec.as_ref()?.traffic_distribution.as_deref()?;
    let node = match distribution {
        "PreferClose" | "PreferSameZone" => None,
        "PreferSameNode" => node,
        _ => return None,
    };
    let hints = EndpointHints {
        for_zones: zone.map(|name| vec![ForZone { name: name.to_owned() }]),
        for_nodes: node.map(|name| vec![ForNode { name: name.to_owned() }]),
    };
    (hints != EndpointHints::default()).then_some(hints)
}

fn address(endpoint: &Endpoint) -> String {
    let pod = endpoint.target_ref.as_ref().and_then(|target| target.uid.as_deref());
    let first = endpoint.addresses.first().map(String::as_str);
    format!("{}/{}", first.unwrap_or_default(), pod.unwrap_or_default())
}

/// The slice without its name.
fn shape(service: &Service, group: &Group, endpoints: Vec<Endpoint>) -> EndpointSlice {
    let mut labels = service.metadata.labels.clone().unwrap_or_default();
    let name = service.metadata.name.clone().unwrap_or_default();
    labels.insert(SERVICE_LABEL.to_owned(), name);
    labels.insert(MANAGER_LABEL.to_owned(), MANAGER.to_owned());
    if is_headless(service) {
        labels.insert(HEADLESS_LABEL.to_owned(), String::new());
    } else {
        labels.remove(HEADLESS_LABEL);
    }
    let ports = group.ports.iter().map(|(name, protocol, port, app_protocol)| EndpointPort {
        name: Some(name.clone()),
        protocol: Some(protocol.clone()),
        port: Some(*port),
        app_protocol: app_protocol.clone(),
    });
    EndpointSlice {
        metadata: ObjectMeta {
            namespace: service.metadata.namespace.clone(),
            labels: Some(labels),
            owner_references: Some(vec![controlled_by(service)]),
            ..ObjectMeta::default()
        },
        address_type: group.family.to_owned(),
        ports: Some(ports.collect()),
        endpoints: Some(endpoints),
    }
}

fn differs(slice: &EndpointSlice, next: &EndpointSlice) -> bool {
    let shown = slice.endpoints.as_deref().unwrap_or_default();
    shown != next.endpoints.as_deref().unwrap_or_default()
        || slice.metadata.labels != next.metadata.labels
        || slice.metadata.owner_references != next.metadata.owner_references
}

fn stamp(slice: &mut EndpointSlice, now: Timestamp) {
    let seconds = Timestamp::from_second(now.as_second()).unwrap_or(now);
    let annotations = slice.metadata.annotations.get_or_insert_default();
    annotations.insert(TRIGGER_ANNOTATION.to_owned(), seconds.to_string());
}

/// `web-x7k2p`: from the Service, the group and a number, so that the same slice gets the same name again.
fn free_name(service: &Service, group: &Group, taken: &BTreeSet<String>) -> String {
    const ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
    let base = service.metadata.name.as_deref().unwrap_or_default();
    let mut turn = 0_u32;
    loop {
        let mut hasher = DefaultHasher::new();
        (&service.metadata.uid, group, turn).hash(&mut hasher);
        let mut rest = hasher.finish();
        let suffix: String = (0..5)
            .map(|_| {
                let index = usize::try_from(rest % ALPHABET.len() as u64).unwrap_or_default();
                rest /= ALPHABET.len() as u64;
                char::from(ALPHABET[index])
            })
            .collect();
        let name = format!("{base}-{suffix}");
        if !taken.contains(&name) {
            return name;
        }
        turn += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pod::Pod;
    use crate::service_pods::members;
    use serde_json::{Value, json};

    fn service(extra: &Value) -> Service {
        let mut spec = json!({ "selector": { "app": "web" }, "clusterIP": "127.17.0.9",
            "ports": [{ "name": "http", "port": 80, "targetPort": "web" }] });
        for (key, value) in extra.as_object().unwrap() {
            spec[key] = value.clone();
        }
        serde_json::from_value(json!({ "spec": spec, "metadata":
            { "name": "web", "namespace": "shop", "uid": "u1", "labels": { "team": "a" } } }))
        .unwrap()
    }

    fn pod(number: usize, ready: bool, deleted: bool, port: u16) -> Arc<Pod> {
        let mut pod = json!({
            "metadata": { "name": format!("web-{number}"), "namespace": "shop",
                "uid": format!("p{number}"), "labels": { "app": "web" } },
            "spec": { "nodeName": "n0", "containers": [{ "name": "c",
                "ports": [{ "name": "web", "containerPort": port }] }] },
            "status": { "phase": "Running",
                "podIP": format!("127.16.{}.{}", number / 250, number % 250 + 2),
                "conditions": [{ "type": "Ready", "status": if ready { "True" } else { "False" } }] },
        });
        if deleted {
            pod["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
        }
        Arc::new(serde_json::from_value(pod).unwrap())
    }

    /// Plans again and again, as if each write had been stored, until nothing is left to do.
    fn settle(
        service: &Service,
        pods: &[Arc<Pod>],
        mut slices: Vec<Arc<EndpointSlice>>,
    ) -> (Vec<Arc<EndpointSlice>>, usize) {
        let mut writes = 0;
        for _ in 0..10 {
            let zone_of = |node: &str| (node == "n0").then(|| "west".to_owned());
            let members = members(service, pods);
            let steps = plan(service, &members, &zone_of, &slices, Timestamp::UNIX_EPOCH);
            if steps.is_empty() {
                return (slices, writes);
            }
            for step in steps {
                writes += 1;
                match step {
                    Step::Create(slice) => slices.push(Arc::from(slice)),
                    Step::Update(slice) => {
                        slices.retain(|old| old.metadata.name != slice.metadata.name);
                        slices.push(Arc::from(slice));
                    }
                    Step::Delete(slice) => {
                        slices.retain(|old| old.metadata.name != slice.metadata.name)
                    }
                }
            }
        }
        panic!("the plan does not settle");
    }

    fn shown(slices: &[Arc<EndpointSlice>]) -> Vec<String> {
        let endpoints = slices.iter().flat_map(|slice| slice.endpoints.iter().flatten());
        let mut shown: Vec<String> = endpoints
            .map(|endpoint| {
                let conditions = endpoint.conditions.clone().unwrap();
                let flag =
                    |value: Option<bool>, letter| if value == Some(true) { letter } else { '-' };
                let flags: String = [
                    flag(conditions.ready, 'r'),
                    flag(conditions.serving, 's'),
                    flag(conditions.terminating, 't'),
                ]
                .into_iter()
                .collect();
                format!("{} {flags}", endpoint.target_ref.clone().unwrap().name.unwrap())
            })
            .collect();
        shown.sort();
        shown
    }

    #[test]
    fn each_pod_is_shown_with_its_conditions() {
        let pods = [pod(0, true, false, 80), pod(1, false, false, 80), pod(2, true, true, 80)];
        let check = |extra: Value, expected: [&str; 3]| {
            let (slices, _) = settle(&service(&extra), &pods, Vec::new());
            assert_eq!(shown(&slices), expected);
        };
        check(json!({}), ["web-0 rs-", "web-1 ---", "web-2 -st"]);
        check(json!({ "publishNotReadyAddresses": true }), ["web-0 rs-", "web-1 r--", "web-2 rst"]);
    }

    #[test]
    fn endpoints_are_meant_for_those_near_them_where_the_service_wants_that() {
        let pods = [pod(0, true, false, 80), pod(1, false, false, 80)];
        let check = |distribution: Option<&str>, expected: Value| {
            let service = service(&json!({ "trafficDistribution": distribution }));
            let (slices, _) = settle(&service, &pods, Vec::new());
            let endpoints = slices[0].endpoints.clone().unwrap();
            assert_eq!(endpoints[0].zone.as_deref(), Some("west"));
            assert_eq!(serde_json::to_value(&endpoints[0].hints).unwrap(), expected);
            // Nobody should go to one that is not ready.
            assert_eq!(endpoints[1].hints, None);
        };
        let (zones, nodes) = (json!([{ "name": "west" }]), json!([{ "name": "n0" }]));
        check(None, Value::Null);
        check(Some("PreferClose"), json!({ "forZones": zones }));
        check(Some("PreferSameZone"), json!({ "forZones": zones }));
        check(Some("PreferSameNode"), json!({ "forZones": zones, "forNodes": nodes }));
    }

    #[test]
    fn a_service_without_pods_has_one_empty_slice_with_its_labels() {
        let (slices, writes) = settle(&service(&json!({})), &[], Vec::new());
        assert_eq!((slices.len(), writes), (1, 1));
        let labels = slices[0].metadata.labels.clone().unwrap();
        assert_eq!(labels[SERVICE_LABEL], "web");
        assert_eq!(labels["team"], "a");
    }

    #[test]
    fn pods_with_another_number_for_the_named_port_have_a_slice_of_their_own() {
        let pods = [pod(0, true, false, 80), pod(1, true, false, 81)];
        let (slices, _) = settle(&service(&json!({})), &pods, Vec::new());
        assert_eq!(slices.len(), 2);
        assert_eq!(shown(&slices).len(), 2);
    }

    #[test]
    fn slices_hold_a_hundred_and_one_change_writes_one_slice() {
        let mut pods: Vec<_> = (0..250).map(|number| pod(number, true, false, 80)).collect();
        let (slices, writes) = settle(&service(&json!({})), &pods, Vec::new());
        assert_eq!((slices.len(), writes), (3, 3));
        assert_eq!(shown(&slices).len(), 250);
        pods[7] = pod(7, false, false, 80);
        let (slices, writes) = settle(&service(&json!({})), &pods, slices);
        assert_eq!(writes, 1);
        pods.remove(200);
        let (slices, writes) = settle(&service(&json!({})), &pods, slices);
        assert_eq!((shown(&slices).len(), writes), (249, 1));
    }
}
