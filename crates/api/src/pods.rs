//! Small pure answers about pods that several components need.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, Pod, PodCondition, PodSpec, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Written;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use crate::quantity::{Format, Quantity};

/// Amounts by resource: `cpu`, `memory`, …
pub type Resources = BTreeMap<String, Quantity>;

/// `status.phase`, `Pending` if nobody has said yet.
pub fn phase(pod: &Pod) -> &str {
    pod.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or("Pending")
}

/// Whether the pod has run to its end: no container will start again.
pub fn is_terminated(pod: &Pod) -> bool {
    matches!(phase(pod), "Succeeded" | "Failed")
}

/// Whether the pod is on its way out.
pub fn is_deleting(pod: &Pod) -> bool {
    pod.metadata.deletion_timestamp.is_some()
}

/// Whether the pod counts as one of its owner's: neither at its end nor on its way out.
pub fn is_active(pod: &Pod) -> bool {
    !is_terminated(pod) && !is_deleting(pod)
}

/// The condition of this type.
pub fn condition<'a>(pod: &'a Pod, type_: &str) -> Option<&'a PodCondition> {
    pod.status.as_ref()?.conditions.as_ref()?.iter().find(|condition| condition.type_ == type_)
}

/// Whether the condition of this type is `True`.
pub fn has_condition(pod: &Pod, type_: &str) -> bool {
    condition(pod, type_).is_some_and(|condition| condition.status == "True")
}

/// Whether Services may send requests to the pod.
pub fn is_ready(pod: &Pod) -> bool {
    has_condition(pod, "Ready")
}

/// Since when the pod has been ready, if it is.
pub fn ready_since(pod: &Pod) -> Option<Timestamp> {
    let ready = condition(pod, "Ready").filter(|condition| condition.status == "True")?;
    ready.last_transition_time.as_ref().map(|time| time.0)
}

/// Whether the pod has been ready for so long that its owner counts it as available.
pub fn is_available(pod: &Pod, min_ready_seconds: i32, now: Timestamp) -> bool {
    if !is_ready(pod) {
        return false;
    }
    min_ready_seconds == 0
        || ready_since(pod).is_some_and(|since| {
            now.as_second() - since.as_second() >= i64::from(min_ready_seconds)
        })
}

/// Whether the scheduler has chosen a node.
pub fn is_bound(pod: &Pod) -> bool {
    node_name(pod).is_some()
}

/// The node that the scheduler has chosen.
pub fn node_name(pod: &Pod) -> Option<&str> {
    pod.spec.as_ref()?.node_name.as_deref().filter(|name| !name.is_empty())
}

/// The pod's addresses, the primary one first.
pub fn addresses(pod: &Pod) -> Vec<&str> {
    let Some(status) = &pod.status else { return Vec::new() };
    let listed: Vec<&str> = status.pod_ips.iter().flatten().map(|one| one.ip.as_str()).collect();
    if listed.is_empty() { status.pod_ip.as_deref().into_iter().collect() } else { listed }
}

/// The number that a Service's or probe's port means in this pod: itself, or the container port of that name.
pub fn port_number(pod: &Pod, port: &IntOrString, protocol: &str) -> Option<i32> {
    match port {
        IntOrString::Int(number) => Some(*number),
        IntOrString::String(name) => {
            let spec = pod.spec.as_ref()?;
            let sidecars =
                spec.init_containers.iter().flatten().filter(|container| is_sidecar(container));
            let ports = spec
                .containers
                .iter()
                .chain(sidecars)
                .filter_map(|container| container.ports.as_ref());
            ports
                .flatten()
                .find(|port| {
                    port.name.as_deref() == Some(name)
                        && port.protocol.as_deref().unwrap_or("TCP") == protocol
                })
                .map(|port| port.container_port)
        }
    }
}

/// Whether an init container goes on running beside the others.
pub fn is_sidecar(container: &Container) -> bool {
    container.restart_policy.as_deref() == Some("Always")
}

/// What the scheduler reserves for the pod; upstream's `PodRequests` in `component-helpers/resource`.
pub fn effective_requests(pod: &Pod) -> Resources {
    pod.spec.as_ref().map_or_else(Resources::new, |spec| {
        aggregate(spec, |resources| resources.requests.as_ref())
    })
}

/// The most that the pod may use; resources that some container may use without limit are absent for that container.
pub fn effective_limits(pod: &Pod) -> Resources {
    pod.spec
        .as_ref()
        .map_or_else(Resources::new, |spec| aggregate(spec, |resources| resources.limits.as_ref()))
}

type Select = fn(&ResourceRequirements) -> Option<&BTreeMap<String, Written>>;

/// Init containers run one after another, beside the sidecars started before them; then all containers run beside
/// all sidecars. The pod needs the largest of these sums, and its overhead.
fn aggregate(spec: &PodSpec, select: Select) -> Resources {
    let of = |container: &Container| {
        container.resources.as_ref().and_then(select).map(read).unwrap_or_default()
    };
    let mut running = Resources::new();
    for container in &spec.containers {
        add(&mut running, of(container));
    }
    let mut sidecars = Resources::new();
    let mut starting = Resources::new();
    for container in spec.init_containers.iter().flatten() {
        let mut now = of(container);
        if is_sidecar(container) {
            add(&mut running, now.clone());
            add(&mut sidecars, now);
            now = sidecars.clone();
        } else {
            add(&mut now, sidecars.clone());
        }
        raise(&mut starting, now);
    }
    raise(&mut running, starting);
    // What the pod says of itself as a whole counts, not what its containers add up to.
    if let Some(whole) = spec.resources.as_ref().and_then(select) {
        running.extend(read(whole));
    }
    if let Some(overhead) = &spec.overhead {
        add(&mut running, read(overhead));
    }
    running
}

/// Resource lists as amounts; what cannot be read was never admitted and counts as nothing.
pub fn read(written: &BTreeMap<String, Written>) -> Resources {
    written
        .iter()
        .filter_map(|(name, amount)| Some((name.clone(), amount.0.parse().ok()?)))
        .collect()
}

fn add(sum: &mut Resources, more: Resources) {
    for (name, amount) in more {
        let so_far = sum.entry(name).or_default();
        *so_far = *so_far + amount;
    }
}

fn raise(most: &mut Resources, other: Resources) {
    for (name, amount) in other {
        let so_far = most.entry(name).or_insert(amount);
        *so_far = (*so_far).max(amount);
    }
}

/// How a pod's promises about resources rank it when memory runs out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QualityOfService {
    /// Every container's requests equal its limits.
    Guaranteed,
    /// Some requests or limits.
    Burstable,
    /// None.
    BestEffort,
}

impl QualityOfService {
    /// As `status.qosClass` names it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Guaranteed => "Guaranteed",
            Self::Burstable => "Burstable",
            Self::BestEffort => "BestEffort",
        }
    }
}

/// The pod's class; only CPU and memory count.
pub fn quality_of_service(pod: &Pod) -> QualityOfService {
    let Some(spec) = &pod.spec else { return QualityOfService::BestEffort };
    let counted = |amounts: Option<&BTreeMap<String, Written>>| -> Resources {
        let mut amounts = amounts.map(read).unwrap_or_default();
        amounts.retain(|name, amount| {
            matches!(name.as_str(), "cpu" | "memory") && *amount > Quantity::ZERO
        });
        amounts
    };
    let whole = spec.resources.as_ref();
    let each: Vec<Option<&ResourceRequirements>> = match whole {
        Some(_) => vec![whole],
        None => {
            let all = spec.containers.iter().chain(spec.init_containers.iter().flatten());
            all.map(|container| container.resources.as_ref()).collect()
        }
    };
    let (mut guaranteed, mut nothing) = (true, true);
    for resources in each {
        let limits = counted(resources.and_then(|resources| resources.limits.as_ref()));
        let mut requests = counted(resources.and_then(|resources| resources.requests.as_ref()));
        nothing &= limits.is_empty() && requests.is_empty();
        for (name, limit) in &limits {
            requests.entry(name.clone()).or_insert(*limit);
        }
        guaranteed &= limits.len() == 2 && requests == limits;
    }
    match (nothing, guaranteed) {
        (true, _) => QualityOfService::BestEffort,
        (false, true) => QualityOfService::Guaranteed,
        (false, false) => QualityOfService::Burstable,
    }
}

/// Milli-CPUs in a list of resources, 0 if absent.
pub fn milli_cpu(resources: &Resources) -> i64 {
    resources.get("cpu").map_or(0, Quantity::milli_value)
}

/// Bytes of memory in a list of resources, 0 if absent.
pub fn memory_bytes(resources: &Resources) -> i64 {
    resources.get("memory").copied().unwrap_or(Quantity::new(0, Format::BinarySi)).value()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn pod(spec: Value, status: Value) -> Pod {
        serde_json::from_value(
            json!({ "metadata": { "name": "p" }, "spec": spec, "status": status }),
        )
        .unwrap()
    }

    fn container(name: &str, cpu: &str, memory: &str) -> Value {
        json!({ "name": name, "resources": { "requests": { "cpu": cpu, "memory": memory } } })
    }

    fn requests(spec: Value) -> (i64, i64) {
        let found = effective_requests(&pod(spec, json!({})));
        (milli_cpu(&found), memory_bytes(&found))
    }

    const MEBI: i64 = 1024 * 1024;

    #[test]
    fn containers_add_up_and_init_containers_count_by_the_largest() {
        let two = json!([container("a", "100m", "64Mi"), container("b", "0.2", "64Mi")]);
        assert_eq!(requests(json!({ "containers": two })), (300, 128 * MEBI));
        let init = json!([container("i", "250m", "1Gi"), container("j", "1", "1Mi")]);
        assert_eq!(
            requests(json!({ "containers": two, "initContainers": init })),
            (1000, 1024 * MEBI)
        );
        assert_eq!(
            requests(json!({ "containers": two, "overhead": { "cpu": "50m" } })),
            (350, 128 * MEBI)
        );
        let whole = json!({ "requests": { "cpu": "2" } });
        assert_eq!(requests(json!({ "containers": two, "resources": whole })), (2000, 128 * MEBI));
        assert_eq!(requests(json!({ "containers": [{ "name": "a" }] })), (0, 0));
    }

    #[test]
    fn sidecars_run_beside_everything_after_them() {
        let mut sidecar = container("s", "200m", "1Mi");
        sidecar["restartPolicy"] = "Always".into();
        let main = json!([container("a", "100m", "1Mi")]);
        let before = json!([container("i", "500m", "1Mi"), sidecar]);
        assert_eq!(requests(json!({ "containers": main, "initContainers": before })).0, 500);
        let after = json!([sidecar, container("i", "500m", "1Mi")]);
        assert_eq!(requests(json!({ "containers": main, "initContainers": after })).0, 700);
    }

    #[test]
    fn quality_of_service_follows_requests_and_limits() {
        let check = |resources: Value, expected: &str| {
            let one =
                pod(json!({ "containers": [{ "name": "a", "resources": resources }] }), json!({}));
            assert_eq!(quality_of_service(&one).as_str(), expected, "{resources}");
        };
        check(json!({}), "BestEffort");
        check(json!({ "requests": { "example.com/gpu": "1" } }), "BestEffort");
        check(json!({ "requests": { "cpu": "1" } }), "Burstable");
        check(json!({ "limits": { "cpu": "1" } }), "Burstable");
        check(json!({ "limits": { "cpu": "1", "memory": "1Gi" } }), "Guaranteed");
        check(
            json!({ "limits": { "cpu": "1", "memory": "1Gi" }, "requests": { "cpu": "1000m", "memory": "1024Mi" } }),
            "Guaranteed",
        );
        check(
            json!({ "limits": { "cpu": "1", "memory": "1Gi" }, "requests": { "cpu": "500m" } }),
            "Burstable",
        );
    }

    #[test]
    fn availability_needs_time_since_readiness() {
        let ready = json!({ "conditions": [{ "type": "Ready", "status": "True", "lastTransitionTime": "2026-11-23T06:00:00Z" }] });
        let one = pod(json!({ "containers": [] }), ready);
        let at = |text: &str| text.parse::<Timestamp>().unwrap();
        assert!(is_ready(&one));
        assert!(is_available(&one, 0, at("2026-11-23T06:00:00Z")));
        assert!(!is_available(&one, 10, at("2026-11-23T06:00:09Z")));
        assert!(is_available(&one, 10, at("2026-11-23T06:00:10Z")));
        assert!(!is_available(
            &pod(json!({ "containers": [] }), json!({})),
            0,
            at("2026-11-23T06:00:00Z")
        ));
    }

    #[test]
    fn phases_decide_what_is_active() {
        let with_phase = |phase: &str| pod(json!({ "containers": [] }), json!({ "phase": phase }));
        assert!(is_active(&with_phase("Running")) && is_active(&with_phase("Pending")));
        assert!(is_terminated(&with_phase("Failed")) && !is_active(&with_phase("Succeeded")));
        let mut deleting = with_phase("Running");
        deleting.metadata.deletion_timestamp =
            Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(Timestamp::UNIX_EPOCH));
        assert!(is_deleting(&deleting) && !is_active(&deleting));
    }

    #[test]
    fn named_ports_are_found_by_name_and_protocol() {
        let ports = json!([{ "name": "http", "containerPort": 8080 }, { "name": "dns", "containerPort": 53, "protocol": "UDP" }]);
        let one = pod(
            json!({ "containers": [{ "name": "a", "ports": ports }] }),
            json!({ "podIPs": [{ "ip": "127.1.0.2" }] }),
        );
        let named = |name: &str| IntOrString::String(name.to_owned());
        assert_eq!(port_number(&one, &named("http"), "TCP"), Some(8080));
        assert_eq!(port_number(&one, &named("dns"), "TCP"), None);
        assert_eq!(port_number(&one, &named("dns"), "UDP"), Some(53));
        assert_eq!(port_number(&one, &IntOrString::Int(9), "TCP"), Some(9));
        assert_eq!(addresses(&one), ["127.1.0.2"]);
        assert!(!is_bound(&one));
    }
}
