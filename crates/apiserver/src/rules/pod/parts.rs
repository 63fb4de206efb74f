//! What the subresources `ephemeralcontainers` and `resize` may change in a pod (`ValidatePodEphemeralContainersUpdate` and
//! `ValidatePodResize` in `pkg/apis/core/validation/validation.go`).

use coracle_api::status::{FieldErrors, Path};
use serde_json::Value;

use super::annotations::{MIRROR, validate_update as annotations};
use crate::rules::generic::{carry, same};
use crate::rules::json::{Read, object};
use crate::rules::pod::qos;

/// What can be changed while a pod runs.
const RESIZABLE: [&str; 2] = ["cpu", "memory"];
const ONLY_RESIZABLE: &str = "only cpu and memory resources are mutable";

/// Checks what a subresource wrote.
pub fn validate(part: &str, new: &Value, old: &Value, errors: &mut FieldErrors) {
    match part {
        "ephemeralcontainers" => ephemeral_containers(new, old, errors),
        "resize" => resize(new, old, errors),
        _ => (),
    }
}

/// Whoever looks into a pod adds containers; none is changed or taken away again.
fn ephemeral_containers(new: &Value, old: &Value, errors: &mut FieldErrors) {
    annotations(new, old, errors);
    if old["metadata"]["annotations"][MIRROR].is_set() {
        errors.forbidden(Path::root(), "static pods do not support ephemeral containers");
        return;
    }
    let path = Path::new("spec").child("ephemeralContainers");
    let containers = new["spec"]["ephemeralContainers"].items();
    for before in old["spec"]["ephemeralContainers"].items() {
        let name = before["name"].text();
        match containers.iter().find(|container| container["name"] == name) {
            None => {
                let detail = format!("existing ephemeral containers {name:?} may not be removed\n");
                errors.forbidden(&path, detail);
            }
            Some(container) if !same(container, before) => {
                let detail = format!("existing ephemeral containers {name:?} may not be changed\n");
                errors.forbidden(&path, detail);
            }
            Some(_) => (),
        }
    }
}

fn resize(new: &Value, old: &Value, errors: &mut FieldErrors) {
    if old["metadata"]["annotations"][MIRROR].is_set() {
        errors.forbidden(Path::root(), "static pods cannot be resized");
        return;
    }
    if old["spec"]["os"]["name"] == "windows" {
        errors.forbidden(Path::root(), "windows pods cannot be resized");
        return;
    }
    let path = Path::new("spec");
    let class = match old["status"]["qosClass"].text() {
        "" => qos::class(&old["spec"]),
        class => class,
    };
    if class != qos::class(&new["spec"]) {
        let detail = "Pod QOS Class may not change as a result of resizing";
        errors.invalid(&path, new["status"]["qosClass"].text(), detail);
    }
    if !node_resizes(old) {
        errors.forbidden(&path, "Pod running on node without support for resize");
    }
    nothing_removed(&new["spec"]["resources"], &old["spec"]["resources"], &path, errors);
    containers(new, old, "initContainers", &path, errors);
    containers(new, old, "containers", &path, errors);
    if errors.is_empty() && !same(&with_old_sizes(&new["spec"], &old["spec"]), &old["spec"]) {
        errors.forbidden(&path, ONLY_RESIZABLE);
    }
}

/// Whether the node tells what its containers have. As long as none runs, nobody knows.
fn node_resizes(pod: &Value) -> bool {
    let mut statuses = pod["status"]["containerStatuses"].items().iter();
    let running = statuses.find(|status| status["state"]["running"].is_set());
    running.is_none_or(|status| status["resources"].is_set())
}

fn containers(new: &Value, old: &Value, list: &str, path: &Path, errors: &mut FieldErrors) {
    let (news, olds) = (new["spec"][list].items(), old["spec"][list].items());
    for (index, (container, before)) in news.iter().zip(olds).enumerate() {
        let at = path.child(list).index(index);
        if list == "initContainers" && before["restartPolicy"] != "Always" {
            if !same(container, before) {
                errors.forbidden(path, "resources for non-sidecar init containers are immutable");
            }
            continue;
        }
        nothing_removed(&container["resources"], &before["resources"], &at, errors);
        let mut munged = container.clone();
        take_sizes(&mut munged, before);
        if !same(&munged, before) {
            let detail = if list == "containers" {
                ONLY_RESIZABLE
            } else {
                "only cpu and memory resources for sidecar containers are mutable"
            };
            errors.forbidden(path, detail);
        }
    }
}

fn nothing_removed(new: &Value, old: &Value, path: &Path, errors: &mut FieldErrors) {
    for (field, what) in [("requests", "resource requests"), ("limits", "resource limits")] {
        if old[field].entries().any(|(name, _)| !new[field][name.as_str()].is_set()) {
            let at = path.child("resources").child(field);
            errors.forbidden(at, format!("{what} cannot be removed"));
        }
    }
}

/// The new spec with the sizes of the old one.
fn with_old_sizes(new: &Value, old: &Value) -> Value {
    let mut munged = new.clone();
    for list in ["containers", "initContainers"] {
        let containers = munged.get_mut(list).and_then(Value::as_array_mut);
        for (container, before) in containers.into_iter().flatten().zip(old[list].items()) {
            take_sizes(container, before);
        }
    }
    take_sizes(&mut munged, old);
    munged
}

fn take_sizes(owner: &mut Value, before: &Value) {
    if !owner["resources"].is_set() {
        return;
    }
    for field in ["requests", "limits"] {
        let sizes = object(object(owner, "resources"), field);
        for name in RESIZABLE {
            carry(sizes, &before["resources"][field], name);
        }
    }
}
