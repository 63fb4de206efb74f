//! The pod's status as the API shows it: a pure function of what the kubelet knows.
//!
//! The counterpart of upstream's `generateAPIPodStatus` (pkg/kubelet/kubelet_pods.go) and of pkg/kubelet/status.

use std::collections::BTreeMap;
use std::net::IpAddr;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    Container, ContainerState, ContainerStatus, HostIP, Pod, PodCondition, PodIP, PodSpec,
    PodStatus, VolumeMountStatus,
};
use serde_json::{Map, Value, json};

use crate::backoff::spelled;
use crate::plan::{Role, containers, restarts};
use crate::record::{Activity, Record, whole_seconds};

/// What the status is made of.
pub(crate) struct Facts<'a> {
    /// The pod as the API has it.
    pub(crate) pod: &'a Pod,
    /// Its containers.
    pub(crate) records: &'a BTreeMap<String, Record>,
    /// The pod's address once its sandbox stands.
    pub(crate) address: Option<IpAddr>,
    /// The node's address.
    pub(crate) node_ip: IpAddr,
    /// When this kubelet took the pod.
    pub(crate) started_at: Timestamp,
    /// True when the init containers have done their part.
    pub(crate) initialized: bool,
    /// True when nothing of the pod runs or will run.
    pub(crate) ended: bool,
    /// Why the pod failed as a whole.
    pub(crate) verdict: Option<&'a Verdict>,
    /// The scheme of container ids, `wasm`.
    pub(crate) scheme: &'a str,
    /// Now.
    pub(crate) now: Timestamp,
}

/// Why a pod failed as a whole: refused by the node, past its deadline.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Verdict {
    /// One word, `DeadlineExceeded`.
    pub(crate) reason: String,
    /// A sentence.
    pub(crate) message: String,
}

/// Makes the status that the API should have.
pub(crate) fn build(facts: &Facts<'_>) -> PodStatus {
    let default_spec = PodSpec::default();
    let spec = facts.pod.spec.as_ref().unwrap_or(&default_spec);
    let known = facts.pod.status.clone().unwrap_or_default();
    let mut status = PodStatus {
        phase: Some(phase(facts, spec).to_owned()),
        qos_class: known.qos_class.clone().or_else(|| Some(qos_class(spec).to_owned())),
        start_time: known.start_time.clone().or_else(|| Some(whole_seconds(facts.started_at))),
        host_ip: Some(facts.node_ip.to_string()),
        host_ips: Some(vec![HostIP { ip: facts.node_ip.to_string() }]),
        observed_generation: facts.pod.metadata.generation,
        init_container_statuses: container_statuses(facts, spec, |role| role != Role::Main),
        container_statuses: container_statuses(facts, spec, |role| role == Role::Main),
        ..PodStatus::default()
    };
    if let Some(statuses) = &mut status.container_statuses {
        // Upstream's order: the pod's containers by name, init containers as the spec has them.
        statuses.sort_by(|one, other| one.name.cmp(&other.name));
    }
    if let Some(verdict) = facts.verdict {
        status.reason = Some(verdict.reason.clone());
        status.message = Some(verdict.message.clone());
    }
    // A pod that ended keeps the address it had.
    let address = facts.address.map(|address| address.to_string()).or(known.pod_ip.clone());
    if let Some(ip) = address {
        status.pod_ips = Some(vec![PodIP { ip: ip.clone() }]);
        status.pod_ip = Some(ip);
    }
    status.conditions = Some(conditions(facts, spec, &status, &known));
    status
}

fn container_statuses(
    facts: &Facts<'_>,
    spec: &PodSpec,
    wanted: impl Fn(Role) -> bool,
) -> Option<Vec<ContainerStatus>> {
    let statuses: Vec<_> = containers(spec)
        .filter(|(role, _)| wanted(*role))
        .filter_map(|(role, container)| {
            Some(container_status(
                facts,
                spec,
                role,
                container,
                facts.records.get(&container.name)?,
            ))
        })
        .collect();
    Some(statuses).filter(|statuses| !statuses.is_empty())
}

fn container_status(
    facts: &Facts<'_>,
    spec: &PodSpec,
    role: Role,
    container: &Container,
    record: &Record,
) -> ContainerStatus {
    let initializing = spec.init_containers.as_ref().is_some_and(|init| !init.is_empty());
    let fallback = if initializing { "PodInitializing" } else { "ContainerCreating" };
    let meta = &facts.pod.metadata;
    let crash_message = |pause| {
        let name = meta.name.as_deref().unwrap_or_default();
        let namespace = meta.namespace.as_deref().unwrap_or_default();
        let uid = meta.uid.as_deref().unwrap_or_default();
        let pause = spelled(pause);
        format!(
            "back-off {pause} restarting failed container={} pod={name}_{namespace}({uid})",
            container.name
        )
    };
    let again = facts.verdict.is_none()
        && !facts.ended
        && matches!(record.activity, Activity::Exited { exit_code, .. } if restarts(spec, role, container, exit_code));
    let states = record.states(fallback, again, crash_message);
    let running = states.state.running.is_some();
    let completed_init = role == Role::Init
        && states.state.terminated.as_ref().is_some_and(|ended| ended.exit_code == 0);
    let shown_id = states.state.terminated.as_ref().and_then(|ended| ended.container_id.clone());
    let last_id = states.last.as_ref().and_then(|ended| ended.container_id.clone());
    let current_id =
        record.id.as_ref().filter(|_| running).map(|id| format!("{}://{id}", facts.scheme));
    let ran = record.attempts > 0;
    ContainerStatus {
        name: container.name.clone(),
        image: container.image.clone().unwrap_or_default(),
        image_id: if ran { record.image_digest.clone() } else { String::new() },
        container_id: current_id.or(shown_id).or(last_id),
        restart_count: record.restart_count(),
        ready: completed_init || (role != Role::Init && running && record.ready),
        started: Some(running && record.started),
        last_state: Some(ContainerState { terminated: states.last, ..ContainerState::default() }),
        state: Some(states.state),
        resources: container.resources.clone().filter(|_| running),
        allocated_resources: container
            .resources
            .as_ref()
            .and_then(|all| all.requests.clone())
            .filter(|_| running),
        volume_mounts: volume_mounts(container),
        ..ContainerStatus::default()
    }
}

fn volume_mounts(container: &Container) -> Option<Vec<VolumeMountStatus>> {
    let mounts = container.volume_mounts.as_ref().filter(|mounts| !mounts.is_empty())?;
    let shown = mounts.iter().map(|mount| VolumeMountStatus {
        name: mount.name.clone(),
        mount_path: mount.mount_path.clone(),
        read_only: mount.read_only.filter(|read_only| *read_only),
        recursive_read_only: mount
            .read_only
            .filter(|read_only| *read_only)
            .map(|_| "Disabled".to_owned()),
        volume_status: None,
    });
    Some(shown.collect())
}

/// The word for the whole pod.
fn phase(facts: &Facts<'_>, spec: &PodSpec) -> &'static str {
    if facts.verdict.is_some() {
        return "Failed";
    }
    let mut failed = false;
    let mut alive = false;
    let mut never_ran = false;
    for (role, container) in containers(spec) {
        let Some(record) = facts.records.get(&container.name) else { continue };
        match (&record.activity, &record.ended) {
            (Activity::Exited { exit_code, .. }, _) => {
                failed |= role != Role::Sidecar && *exit_code != 0
            }
            (Activity::Running { .. } | Activity::Stopping { .. }, _) => {
                alive |= role == Role::Main
            }
            (Activity::Idle { .. } | Activity::Starting, Some(_)) => alive |= role == Role::Main,
            (Activity::Idle { .. } | Activity::Starting, None) => never_ran |= role == Role::Main,
        }
    }
    match (facts.ended, facts.initialized) {
        // A pod that was deleted before its containers ran did not succeed.
        (true, _) if failed || never_ran || alive => "Failed",
        (true, _) => "Succeeded",
        (false, true) if never_ran && !alive => "Pending",
        (false, true) => "Running",
        (false, false) => "Pending",
    }
}

fn conditions(
    facts: &Facts<'_>,
    spec: &PodSpec,
    status: &PodStatus,
    known: &PodStatus,
) -> Vec<PodCondition> {
    let phase = status.phase.as_deref().unwrap_or_default();
    let before = known.conditions.as_deref().unwrap_or_default();
    let containers_ready = containers_ready(phase, spec, status);
    let made = [
        Condition::of("PodReadyToStartContainers", facts.address.is_some() && !facts.ended),
        initialized(phase, spec, facts, status),
        ready(phase, spec, &containers_ready, before),
        containers_ready,
        // It has come to a node, whoever chose that.
        Condition::of("PodScheduled", true),
    ];
    let mut all: Vec<PodCondition> =
        made.into_iter().map(|condition| condition.settle(before, facts)).collect();
    let others = before.iter().filter(|known| !all.iter().any(|made| made.type_ == known.type_));
    let others: Vec<_> = others.cloned().collect();
    all.extend(others);
    all
}

struct Condition {
    type_: &'static str,
    status: bool,
    reason: Option<String>,
    message: Option<String>,
}

impl Condition {
    fn of(type_: &'static str, status: bool) -> Self {
        Self { type_, status, reason: None, message: None }
    }

    fn because(mut self, reason: &str, message: String) -> Self {
        self.reason = Some(reason.to_owned());
        self.message = Some(message).filter(|message| !message.is_empty());
        self
    }

    /// Keeps the time of the last change while the status is the same.
    fn settle(self, before: &[PodCondition], facts: &Facts<'_>) -> PodCondition {
        let status = if self.status { "True" } else { "False" };
        let same = before.iter().find(|known| known.type_ == self.type_ && known.status == status);
        let since = same.and_then(|known| known.last_transition_time.clone());
        PodCondition {
            type_: self.type_.to_owned(),
            status: status.to_owned(),
            reason: self.reason,
            message: self.message,
            last_transition_time: since.or_else(|| Some(whole_seconds(facts.now))),
            last_probe_time: None,
            observed_generation: facts.pod.metadata.generation,
        }
    }
}

fn initialized(phase: &str, spec: &PodSpec, facts: &Facts<'_>, status: &PodStatus) -> Condition {
    if phase == "Succeeded" {
        return Condition::of("Initialized", true).because("PodCompleted", String::new());
    }
    let incomplete: Vec<&str> = status
        .init_container_statuses
        .iter()
        .flatten()
        .filter(|status| {
            !(status.ready || is_sidecar(spec, &status.name) && status.started == Some(true))
        })
        .map(|status| status.name.as_str())
        .collect();
    if facts.initialized || incomplete.is_empty() {
        return Condition::of("Initialized", true);
    }
    let message = format!("containers with incomplete status: [{}]", incomplete.join(" "));
    Condition::of("Initialized", false).because("ContainersNotInitialized", message)
}

fn containers_ready(phase: &str, spec: &PodSpec, status: &PodStatus) -> Condition {
    let condition = Condition::of("ContainersReady", false);
    match phase {
        "Succeeded" => return condition.because("PodCompleted", String::new()),
        "Failed" => return condition.because("PodFailed", String::new()),
        _ => (),
    }
    let mains = status.container_statuses.iter().flatten();
    let inits = status.init_container_statuses.iter().flatten();
    let unready: Vec<&str> = inits
        .filter(|status| is_sidecar(spec, &status.name))
        .chain(mains)
        .filter(|status| !status.ready)
        .map(|status| status.name.as_str())
        .collect();
    if unready.is_empty() {
        return Condition::of("ContainersReady", true);
    }
    let message = format!("containers with unready status: [{}]", unready.join(" "));
    condition.because("ContainersNotReady", message)
}

fn is_sidecar(spec: &PodSpec, name: &str) -> bool {
    containers(spec).any(|(role, container)| role == Role::Sidecar && container.name == name)
}

fn ready(
    phase: &str,
    spec: &PodSpec,
    containers: &Condition,
    before: &[PodCondition],
) -> Condition {
    if !containers.status {
        let mut condition = Condition::of("Ready", false);
        condition.reason.clone_from(&containers.reason);
        condition.message.clone_from(&containers.message);
        return condition;
    }
    debug_assert!(!matches!(phase, "Succeeded" | "Failed"), "an ended pod is never ready");
    for gate in spec.readiness_gates.iter().flatten() {
        let gate = &gate.condition_type;
        let known = before.iter().find(|known| known.type_ == *gate);
        let problem = match known {
            None => {
                format!("corresponding condition of pod readiness gate \"{gate}\" does not exist.")
            }
            Some(known) if known.status != "True" => {
                format!(
                    "the status of pod readiness gate \"{gate}\" is not \"True\", but {}",
                    known.status
                )
            }
            Some(_) => continue,
        };
        return Condition::of("Ready", false).because("ReadinessGatesNotReady", problem);
    }
    Condition::of("Ready", true)
}

/// Upstream's quality-of-service class (pkg/apis/core/v1/helper/qos).
pub(crate) fn qos_class(spec: &PodSpec) -> &'static str {
    let (mut any, mut guaranteed) = (false, true);
    for (_, container) in containers(spec) {
        let resources = container.resources.as_ref();
        let requests = resources.and_then(|all| all.requests.as_ref());
        let limits = resources.and_then(|all| all.limits.as_ref());
        for name in ["cpu", "memory"] {
            let limit = limits.and_then(|limits| limits.get(name));
            let request = requests.and_then(|requests| requests.get(name));
            any |= limit.is_some() || request.is_some();
            guaranteed &= limit.is_some() && request.is_none_or(|request| Some(request) == limit);
        }
    }
    match (any, guaranteed) {
        (false, _) => "BestEffort",
        (true, true) => "Guaranteed",
        (true, false) => "Burstable",
    }
}

/// The strategic merge patch that turns the `known` status into the `wanted` one, or `None` when nothing differs.
///
/// It names only what changed, so that it never undoes another writer's condition.
pub(crate) fn patch(uid: &str, known: &PodStatus, wanted: &PodStatus) -> Option<Value> {
    let mut changes = Map::new();
    let known_fields = fields(known);
    let wanted_fields = fields(wanted);
    for (name, value) in &wanted_fields {
        if known_fields.get(name) != Some(value) && name != "conditions" {
            changes.insert(name.clone(), whole(name, value));
        }
    }
    for name in known_fields.keys() {
        // Only what we may have written ourselves is ours to remove.
        let ours = matches!(name.as_str(), "reason" | "message" | "podIP" | "podIPs");
        if ours && !wanted_fields.contains_key(name) {
            changes.insert(name.clone(), Value::Null);
        }
    }
    let before = known.conditions.as_deref().unwrap_or_default();
    let changed: Vec<Value> = wanted
        .conditions
        .iter()
        .flatten()
        .filter(|condition| !before.contains(condition))
        .map(|condition| condition_patch(condition, before))
        .collect();
    if !changed.is_empty() {
        changes.insert("conditions".to_owned(), Value::Array(changed));
    }
    if changes.is_empty() {
        return None;
    }
    Some(json!({ "metadata": { "uid": uid }, "status": changes }))
}

/// The value as it is to be, whatever was there: a merge would keep an address that the pod had before.
fn whole(field: &str, value: &Value) -> Value {
    match value {
        Value::Array(items) if matches!(field, "podIPs" | "hostIPs") => {
            std::iter::once(json!({ "$patch": "replace" })).chain(items.iter().cloned()).collect()
        }
        other => other.clone(),
    }
}

fn condition_patch(condition: &PodCondition, before: &[PodCondition]) -> Value {
    let mut value = serde_json::to_value(condition).unwrap_or_default();
    let known = before.iter().find(|known| known.type_ == condition.type_);
    if let (Value::Object(fields), Some(known)) = (&mut value, known) {
        // A merge keeps what it does not name.
        if known.reason.is_some() && condition.reason.is_none() {
            fields.insert("reason".to_owned(), Value::Null);
        }
        if known.message.is_some() && condition.message.is_none() {
            fields.insert("message".to_owned(), Value::Null);
        }
    }
    value
}

fn fields(status: &PodStatus) -> Map<String, Value> {
    match serde_json::to_value(status) {
        Ok(Value::Object(fields)) => fields,
        Ok(_) | Err(_) => Map::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_700_000_000 + second).unwrap()
    }

    fn pod(spec: Value, status: Value) -> Pod {
        let meta = json!({ "name": "p", "namespace": "n", "uid": "u", "generation": 2 });
        serde_json::from_value(json!({ "metadata": meta, "spec": spec, "status": status })).unwrap()
    }

    fn facts<'a>(pod: &'a Pod, records: &'a BTreeMap<String, Record>) -> Facts<'a> {
        Facts {
            pod,
            records,
            address: None,
            node_ip: "10.0.0.1".parse().unwrap(),
            started_at: at(0),
            initialized: true,
            ended: false,
            verdict: None,
            scheme: "wasm",
            now: at(10),
        }
    }

    fn running(ready: bool) -> Record {
        let mut record = Record::new();
        record.starting(coracle_runtime::ContainerId::new("id"));
        record.running(at(5));
        record.started = true;
        record.ready = ready;
        record
    }

    fn ended(exit_code: i32) -> Record {
        let mut record = running(true);
        let terminated = serde_json::from_value(json!({ "exitCode": exit_code })).unwrap();
        record.exited(terminated, at(6));
        record
    }

    fn check(policy: &str, records: &[(&str, Record)], ended: bool, expected: &str) {
        let containers: Vec<Value> =
            records.iter().map(|(name, _)| json!({ "name": name })).collect();
        let pod = pod(json!({ "restartPolicy": policy, "containers": containers }), json!({}));
        let records =
            records.iter().map(|(name, record)| ((*name).to_owned(), record.clone())).collect();
        let mut facts = facts(&pod, &records);
        facts.ended = ended;
        assert_eq!(build(&facts).phase.as_deref(), Some(expected), "{policy} {records:?}");
    }

    #[test]
    fn the_phase_follows_the_containers() {
        check("Always", &[("a", Record::new())], false, "Pending");
        check("Always", &[("a", running(false))], false, "Running");
        check("Always", &[("a", running(true)), ("b", Record::new())], false, "Running");
        check("Always", &[("a", ended(1))], false, "Running");
        check("Never", &[("a", ended(0)), ("b", running(true))], false, "Running");
        check("Never", &[("a", ended(0)), ("b", ended(0))], true, "Succeeded");
        check("Never", &[("a", ended(0)), ("b", ended(2))], true, "Failed");
        check("Always", &[("a", Record::new())], true, "Failed");
    }

    #[test]
    fn conditions_say_what_is_not_ready() {
        let pod = pod(
            json!({ "containers": [{ "name": "a" }, { "name": "b" }], "readinessGates": [{ "conditionType": "lb" }] }),
            json!({ "conditions": [
                { "type": "PodScheduled", "status": "True", "lastTransitionTime": "2020-01-01T00:00:00Z" },
                { "type": "Ready", "status": "False", "lastTransitionTime": "2020-01-01T00:00:00Z" },
            ] }),
        );
        let condition = |status: &PodStatus, name: &str| {
            status
                .conditions
                .iter()
                .flatten()
                .find(|condition| condition.type_ == name)
                .cloned()
                .unwrap()
        };
        let mut records: BTreeMap<_, _> =
            [("a".to_owned(), running(true)), ("b".to_owned(), running(false))].into();
        let status = build(&facts(&pod, &records));
        let ready = condition(&status, "Ready");
        assert_eq!(ready.message.as_deref(), Some("containers with unready status: [b]"));
        assert_eq!(ready.reason.as_deref(), Some("ContainersNotReady"));
        assert_eq!(
            ready.last_transition_time.unwrap().0.to_string(),
            "2020-01-01T00:00:00Z",
            "it was so before"
        );
        assert_eq!(ready.observed_generation, Some(2));

        records.insert("b".to_owned(), running(true));
        let status = build(&facts(&pod, &records));
        assert_eq!(condition(&status, "ContainersReady").status, "True");
        let ready = condition(&status, "Ready");
        assert_eq!(ready.reason.as_deref(), Some("ReadinessGatesNotReady"));
        assert_eq!(
            ready.message.as_deref(),
            Some("corresponding condition of pod readiness gate \"lb\" does not exist.")
        );
    }

    #[test]
    fn a_patch_names_only_what_changed() {
        let pod = pod(
            json!({ "containers": [{ "name": "a" }] }),
            json!({ "reason": "Old", "conditions": [
                { "type": "PodScheduled", "status": "True" },
                { "type": "mine.example.com/x", "status": "True" },
                { "type": "Ready", "status": "False", "reason": "ContainersNotReady", "message": "m" },
            ] }),
        );
        let records = [("a".to_owned(), running(true))].into();
        let wanted = build(&facts(&pod, &records));
        let known = pod.status.clone().unwrap();
        let patch = super::patch("u", &known, &wanted).unwrap();
        assert_eq!(patch["metadata"]["uid"], "u");
        assert_eq!(patch["status"]["reason"], Value::Null);
        let conditions = patch["status"]["conditions"].as_array().unwrap();
        let ready = conditions.iter().find(|condition| condition["type"] == "Ready").unwrap();
        assert_eq!((&ready["status"], &ready["message"]), (&json!("True"), &Value::Null));
        let named = |name: &str| conditions.iter().find(|condition| condition["type"] == name);
        assert_eq!(named("mine.example.com/x"), None);
        let scheduled = named("PodScheduled").unwrap();
        assert_eq!(scheduled["observedGeneration"], 2, "it counts for the pod as it now is");
        assert_eq!(super::patch("u", &wanted, &wanted), None);
    }

    #[test]
    fn an_address_takes_the_place_of_the_one_before() {
        let status = |ip: &str| PodStatus {
            pod_ip: Some(ip.to_owned()),
            pod_ips: Some(vec![PodIP { ip: ip.to_owned() }]),
            ..PodStatus::default()
        };
        let patch = super::patch("u", &status("10.0.0.1"), &status("10.0.0.2")).unwrap();
        let wanted = json!([{ "$patch": "replace" }, { "ip": "10.0.0.2" }]);
        assert_eq!(patch["status"]["podIPs"], wanted);
    }

    #[test]
    fn the_class_of_service_is_upstreams() {
        let cases = [
            (json!({}), "BestEffort"),
            (json!({ "requests": { "cpu": "1" } }), "Burstable"),
            (json!({ "limits": { "cpu": "1", "memory": "1Gi" } }), "Guaranteed"),
            (
                json!({ "limits": { "cpu": "1", "memory": "1Gi" }, "requests": { "cpu": "500m" } }),
                "Burstable",
            ),
        ];
        for (resources, expected) in cases {
            let pod =
                pod(json!({ "containers": [{ "name": "a", "resources": resources }] }), json!({}));
            assert_eq!(qos_class(&pod.spec.unwrap()), expected);
        }
    }
}
