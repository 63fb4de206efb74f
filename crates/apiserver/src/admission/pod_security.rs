//! PodSecurity: what pods may do, as their namespace's labels `pod-security.kubernetes.io/…` have it.
//!
//! Start here: when something is judged, by which policy, and what follows. `policy.rs` reads the labels, and `checks.rs`
//! has the standards themselves. As upstream's
//! <https://github.com/kubernetes/kubernetes/tree/master/staging/src/k8s.io/pod-security-admission>.
//!
//! Absent on purpose: exemptions, which need upstream's configuration file; and audit annotations, until there is an audit log.

mod checks;
mod policy;

use std::collections::BTreeMap;

use coracle_api::status::{FieldErrors, Status, go_quote};
use coracle_store::Store;
use k8s_openapi::api::core::v1::{Pod, PodSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::Deserialize;
use serde_json::Value;

use super::{AdmissionRequest, Operation, in_namespace, read};
use crate::authn::stored;
use policy::{Level, Policy, Standard};

/// Pods that are looked at when a namespace becomes stricter; upstream's number.
const PODS_TO_CHECK: usize = 3000;

/// Refuses pods that the namespace's policy forbids, and warns of what it wants warnings of.
pub(super) fn validate(store: &Store, request: &AdmissionRequest<'_>) -> Result<(), Status> {
    if !matches!(request.operation, Operation::Create | Operation::Update) {
        return Ok(());
    }
    match (request.kind.group, request.kind.kind, request.subresource) {
        ("", "Namespace", "") => namespace(store, request),
        ("", "Pod", "" | "ephemeralcontainers" | "resize") => pod(store, request),
        (group, kind, "") => match template_path(group, kind) {
            Some(path) => template(store, request, path),
            None => Ok(()),
        },
        _ => Ok(()),
    }
}

/// Where a workload keeps the pod that it makes others after.
fn template_path(group: &str, kind: &str) -> Option<&'static str> {
    match (group, kind) {
        ("", "PodTemplate") => Some("/template"),
        ("", "ReplicationController")
        | ("apps", "ReplicaSet" | "Deployment" | "StatefulSet" | "DaemonSet")
        | ("batch", "Job") => Some("/spec/template"),
        ("batch", "CronJob") => Some("/spec/jobTemplate/spec/template"),
        _ => None,
    }
}

/// What the policies are about, of a pod or of a template.
#[derive(Deserialize)]
struct Template {
    #[serde(default)]
    metadata: ObjectMeta,
    spec: Option<PodSpec>,
}

fn pod(store: &Store, request: &AdmissionRequest<'_>) -> Result<(), Status> {
    let policy = policy_of(store, request.namespace);
    if policy == Policy::default() || !request.old.is_none_or(|old| matters(old, request.object)) {
        return Ok(());
    }
    let pod: Template = read(request.object)?;
    let Some(spec) = &pod.spec else { return Ok(()) };
    let found = checks::violations(policy.enforce, &pod.metadata, spec);
    if !found.is_empty() {
        let (standard, detail) = (go_quote(&policy.enforce.to_string()), checks::details(&found));
        return Err(request.forbidden(format!("violates PodSecurity {standard}: {detail}")));
    }
    warn(request, policy.warn, &pod.metadata, spec);
    Ok(())
}

/// Workloads are never refused: their pods will be. Their author is warned.
fn template(store: &Store, request: &AdmissionRequest<'_>, path: &str) -> Result<(), Status> {
    let policy = policy_of(store, request.namespace);
    let template = request.object.pointer(path).filter(|template| template.is_object());
    let Some(template) = template.filter(|_| policy.warn.level != Level::Privileged) else {
        return Ok(());
    };
    let template: Template = read(template)?;
    if let Some(spec) = &template.spec {
        warn(request, policy.warn, &template.metadata, spec);
    }
    Ok(())
}

fn warn(request: &AdmissionRequest<'_>, standard: Standard, metadata: &ObjectMeta, spec: &PodSpec) {
    let found = checks::violations(standard, metadata, spec);
    if !found.is_empty() {
        let (standard, detail) = (go_quote(&standard.to_string()), checks::details(&found));
        request.warnings.add(format!("would violate PodSecurity {standard}: {detail}"));
    }
}

/// The policy of a namespace. What its labels say wrongly counts as strict, as upstream has it.
fn policy_of(store: &Store, namespace: &str) -> Policy {
    let object = stored(store, "namespaces", "", namespace);
    let namespace = object.and_then(|object| serde_json::from_slice::<Value>(&object.bytes).ok());
    namespace.map(|namespace| Policy::read(&namespace).0).unwrap_or_default()
}

/// Whether an update changes anything that policies are about.
fn matters(old: &Value, new: &Value) -> bool {
    let annotations = |pod: &Value| -> BTreeMap<String, Value> {
        let annotations = pod.pointer("/metadata/annotations").and_then(Value::as_object);
        let ours = annotations.into_iter().flatten().filter(|(name, _)| {
            name.starts_with("seccomp.security.alpha.kubernetes.io/")
                || name.starts_with("container.seccomp.security.alpha.kubernetes.io/")
                || name.starts_with("container.apparmor.security.beta.kubernetes.io/")
        });
        ours.map(|(name, value)| (name.clone(), value.clone())).collect()
    };
    let containers = |pod: &Value| -> Vec<(Option<Value>, Option<Value>)> {
        let lists = ["initContainers", "containers", "ephemeralContainers"];
        let lists = lists.iter().filter_map(|list| pod.get("spec")?.get(list)?.as_array());
        let containers = lists.flatten();
        let seen = |container: &Value, field: &str| container.get(field).cloned();
        containers.map(|one| (seen(one, "image"), seen(one, "securityContext"))).collect()
    };
    annotations(old) != annotations(new) || containers(old) != containers(new)
}

/// Labels must be right when they are new; who makes a namespace stricter hears of the pods that are in it.
fn namespace(store: &Store, request: &AdmissionRequest<'_>) -> Result<(), Status> {
    let (new, wrong) = Policy::read(request.object);
    let (old, wrong_before) = request.old.map(Policy::read).unwrap_or_default();
    if !wrong.is_empty() && wrong != wrong_before {
        let mut errors = FieldErrors::new();
        for label in wrong {
            label.report(&mut errors);
        }
        return Err(Status::invalid(request.kind, request.shown_name(), &errors));
    }
    let relaxed =
        new.enforce.version == old.enforce.version && new.enforce.level <= old.enforce.level;
    if request.operation == Operation::Update
        && new.enforce != old.enforce
        && new.enforce.level != Level::Privileged
        && !relaxed
    {
        warn_of_pods(store, request, new.enforce);
    }
    Ok(())
}

fn warn_of_pods(store: &Store, request: &AdmissionRequest<'_>, standard: Standard) {
    let pods: Vec<Pod> = in_namespace(store, "pods", request.name);
    if pods.len() > PODS_TO_CHECK {
        request.warnings.add(format!(
            "new PodSecurity enforce level only checked against the first {PODS_TO_CHECK} of {} existing pods",
            pods.len()
        ));
    }
    // Pods come by name: the first one of each group stands for all.
    let mut groups: BTreeMap<String, (String, usize)> = BTreeMap::new();
    for pod in pods.iter().take(PODS_TO_CHECK) {
        let Some(spec) = &pod.spec else { continue };
        let found = checks::violations(standard, &pod.metadata, spec);
        if !found.is_empty() {
            let name = || pod.metadata.name.clone().unwrap_or_default();
            let group = groups.entry(checks::reasons(&found)).or_insert_with(|| (name(), 0));
            group.1 += 1;
        }
    }
    if groups.is_empty() {
        return;
    }
    request.warnings.add(format!(
        "existing pods in namespace {} violate the new PodSecurity enforce level {}",
        go_quote(request.name),
        go_quote(&standard.to_string())
    ));
    let mut lines: Vec<String> = groups
        .into_iter()
        .map(|(reasons, (name, pods))| match pods {
            1 => format!("{name}: {reasons}"),
            2 => format!("{name} (and 1 other pod): {reasons}"),
            _ => format!("{name} (and {} other pods): {reasons}", pods - 1),
        })
        .collect();
    lines.sort();
    for line in lines {
        request.warnings.add(line);
    }
}

#[cfg(test)]
mod tests;
