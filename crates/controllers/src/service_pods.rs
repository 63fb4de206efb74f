//! Which pods stand behind a Service, and on which ports: what EndpointSlice and Endpoints share.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use coracle_reconcile::{Change, Mirror, ObjectKey, Queue};
use k8s_openapi::api::core::v1::{ObjectReference, Service, ServicePort};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use crate::context::Context;
use crate::pod::Pod;
use crate::pods::{is_over, is_ready};

/// The label that says a Service has no virtual address.
pub(crate) const HEADLESS_LABEL: &str = "service.kubernetes.io/headless";

/// When the last change that the object shows came about.
pub(crate) const TRIGGER_ANNOTATION: &str = "endpoints.kubernetes.io/last-change-trigger-time";

/// One port of a pod that a Service leads to. The order is the one in which slices list them.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Target {
    /// The Service port's name; empty when it has none.
    pub name: String,
    /// `TCP`, `UDP` or `SCTP`.
    pub protocol: String,
    /// The number on the pod.
    pub port: i32,
    /// The Service port's application protocol.
    pub app_protocol: Option<String>,
}

/// A pod that stands behind a Service.
#[derive(Debug, Clone)]
pub(crate) struct Member {
    pub pod: Arc<Pod>,
    pub address: IpAddr,
    pub targets: Vec<Target>,
    /// It answers its readiness probe.
    pub serving: bool,
    /// It was told to end.
    pub terminating: bool,
}

/// The pods that a Service selects and that have an address, in the order of their names.
pub(crate) fn members(service: &Service, pods: &[Arc<Pod>]) -> Vec<Member> {
    let Some(spec) = &service.spec else { return Vec::new() };
    let Some(selector) = spec.selector.as_ref().filter(|selector| !selector.is_empty()) else {
        return Vec::new();
    };
    let selected = pods.iter().filter(|pod| has_labels(pod, selector) && !is_over(pod));
    selected
        .filter_map(|pod| {
            let address = pod.status.pod_ip.as_deref()?.parse().ok()?;
            let ports = spec.ports.as_deref().unwrap_or_default();
            Some(Member {
                pod: Arc::clone(pod),
                address,
                targets: ports.iter().filter_map(|port| target(port, pod)).collect(),
                serving: is_ready(pod),
                terminating: pod.metadata.deletion_timestamp.is_some(),
            })
        })
        .collect()
}

/// Whether somebody else looks after the endpoints: a Service without a selector, or one that is only a name.
pub(crate) fn is_unmanaged(service: &Service) -> bool {
    let Some(spec) = &service.spec else { return true };
    spec.selector.as_ref().is_none_or(BTreeMap::is_empty)
        || spec.type_.as_deref() == Some("ExternalName")
}

/// Whether the Service has no virtual address.
pub(crate) fn is_headless(service: &Service) -> bool {
    let cluster_ip = service.spec.as_ref().and_then(|spec| spec.cluster_ip.as_deref());
    matches!(cluster_ip, Some("None"))
}

/// Whether pods count before they are ready.
pub(crate) fn publishes_not_ready(service: &Service) -> bool {
    let spec = service.spec.as_ref();
    spec.and_then(|spec| spec.publish_not_ready_addresses).unwrap_or(false)
}

/// The pod's own name for itself under the Service, for DNS: set when its subdomain is the Service.
pub(crate) fn hostname(pod: &Pod, service: &Service) -> Option<String> {
    let spec = &pod.spec;
    let same = spec.subdomain.is_some() && spec.subdomain == service.metadata.name;
    spec.hostname.clone().filter(|hostname| same && !hostname.is_empty())
}

/// The reference from an endpoint to its pod.
pub(crate) fn target_ref(pod: &Pod) -> ObjectReference {
    ObjectReference {
        kind: Some("Pod".to_owned()),
        name: pod.metadata.name.clone(),
        namespace: pod.metadata.namespace.clone(),
        uid: pod.metadata.uid.clone(),
        ..ObjectReference::default()
    }
}

/// Queues the Services that a change of a Service or of a pod concerns.
pub(crate) fn follow(ctx: &Context, queue: &Queue) {
    let of_services = queue.clone();
    ctx.mirrors.services.on_change(move |change| {
        of_services.add(ObjectKey::of(change.object().as_ref()));
    });
    let of_pods = queue.clone();
    let services = ctx.mirrors.services.clone();
    ctx.mirrors.pods.on_change(move |change| match change {
        Change::Applied { old: Some(old), new } => {
            if concerns_services(old, new) {
                queue_selecting(&services, old, &of_pods);
                queue_selecting(&services, new, &of_pods);
            }
        }
        Change::Applied { old: None, new } => queue_selecting(&services, new, &of_pods),
        Change::Deleted(last) => queue_selecting(&services, last, &of_pods),
    });
}

/// Whether anything that endpoints show differs between two states of a pod.
fn concerns_services(old: &Pod, new: &Pod) -> bool {
    is_ready(old) != is_ready(new)
        || is_over(old) != is_over(new)
        || old.metadata.deletion_timestamp != new.metadata.deletion_timestamp
        || old.metadata.labels != new.metadata.labels
        || old.status.pod_ip != new.status.pod_ip
}

/// Queues the Services that select the pod.
pub(crate) fn queue_selecting(services: &Mirror<Service>, pod: &Pod, queue: &Queue) {
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    for service in services.in_namespace(namespace) {
        let selector = service.spec.as_ref().and_then(|spec| spec.selector.as_ref());
        if selector.is_some_and(|selector| !selector.is_empty() && has_labels(pod, selector)) {
            queue.add(ObjectKey::of(service.as_ref()));
        }
    }
}

fn has_labels(pod: &Pod, selector: &BTreeMap<String, String>) -> bool {
    let labels = pod.metadata.labels.as_ref();
    let value = |key: &str| labels.and_then(|labels| labels.get(key));
    selector.iter().all(|(key, wanted)| value(key) == Some(wanted))
}

/// The pod's port that a Service port leads to; a name that no container of the pod has leads nowhere.
fn target(port: &ServicePort, pod: &Pod) -> Option<Target> {
    let protocol = port.protocol.clone().unwrap_or_else(|| "TCP".to_owned());
    let number = match port.target_port.as_ref() {
        None => port.port,
        Some(IntOrString::Int(0)) => port.port,
        Some(IntOrString::Int(number)) => *number,
        Some(IntOrString::String(name)) => named_port(pod, name, &protocol)?,
    };
    Some(Target {
        name: port.name.clone().unwrap_or_default(),
        protocol,
        port: number,
        app_protocol: port.app_protocol.clone(),
    })
}

fn named_port(pod: &Pod, name: &str, protocol: &str) -> Option<i32> {
    let sidecars = pod.spec.init_containers.iter();
    let sidecars =
        sidecars.filter(|container| container.restart_policy.as_deref() == Some("Always"));
    let mut ports = pod.spec.containers.iter().chain(sidecars).flat_map(|it| &it.ports);
    let found = ports.find(|port| {
        port.name.as_deref() == Some(name) && port.protocol.as_deref().unwrap_or("TCP") == protocol
    });
    found.map(|port| port.container_port)
}
