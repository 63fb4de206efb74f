//! What a pod shares with its host: namespaces, the operating system, and what protects the host from it.

use coracle_api::names;
use coracle_api::status::{FieldErrors, Path};
use serde_json::Value;

use crate::rules::checks::required_one_of;
use crate::rules::json::Read;

/// Upstream's bounds for names of Windows users and profiles of `AppArmor`.
const LOCALHOST_PROFILE_BYTES: usize = 4095;
const HOST_NAME_BYTES: usize = 64;

/// Checks what a pod's spec says about its host.
pub fn validate(spec: &Value, path: &Path, errors: &mut FieldErrors) {
    user_namespace(spec, path, errors);
    host_name(spec, path, errors);
    let context = path.child("securityContext");
    app_armor(
        &spec["securityContext"]["appArmorProfile"],
        &context.child("appArmorProfile"),
        errors,
    );
    for list in ["initContainers", "containers", "ephemeralContainers"] {
        for (index, container) in spec[list].items().iter().enumerate() {
            let at = path.child(list).index(index).child("securityContext");
            let profile = &container["securityContext"]["appArmorProfile"];
            app_armor(profile, &at.child("appArmorProfile"), errors);
        }
    }
    match spec["os"]["name"].text() {
        "linux" => only_linux(spec, path, errors),
        "windows" => only_windows(spec, path, errors),
        _ => (),
    }
}

/// Users of a pod with its own user namespace are nobody on the host, so that it cannot have the host's other namespaces.
fn user_namespace(spec: &Value, path: &Path, errors: &mut FieldErrors) {
    if spec["hostUsers"] != false {
        return;
    }
    let at = path.child("hostUsers");
    for (field, shown) in
        [("hostNetwork", "hostNetwork"), ("hostPID", "HostPID"), ("hostIPC", "HostIPC")]
    {
        if spec[field].flag() {
            let detail = format!("when `hostUsers` is false, `{shown}` must be unset or false");
            errors.forbidden(&at, detail);
        }
    }
}

fn host_name(spec: &Value, path: &Path, errors: &mut FieldErrors) {
    let name = &spec["hostnameOverride"];
    if !name.is_set() {
        return;
    }
    let at = path.child("hostnameOverride");
    errors.invalid_each(&at, name.text(), names::dns_subdomain(name.text()));
    if name.text().len() > HOST_NAME_BYTES {
        errors.too_long(&at, HOST_NAME_BYTES);
    }
    if spec["setHostnameAsFQDN"].flag() {
        errors.forbidden(&at, "may not be specified when setHostnameAsFQDN is true");
    }
    if spec["hostNetwork"].flag() {
        errors.forbidden(&at, "may not be specified when hostNetwork is true");
    }
}

fn app_armor(profile: &Value, path: &Path, errors: &mut FieldErrors) {
    if !profile.is_set() {
        return;
    }
    let types = ["Localhost", "RuntimeDefault", "Unconfined"];
    let (local, at) = (&profile["localhostProfile"], path.child("localhostProfile"));
    if profile["type"].text().is_empty() {
        errors.required(path.child("type"), "type is required when appArmorProfile is set");
    } else {
        required_one_of(&profile["type"], &types, path.child("type"), errors);
    }
    if profile["type"] == "Localhost" {
        let name = local.text();
        // Absent is as empty.
        if name.trim().is_empty() {
            errors.required(at, "must be set when AppArmor type is Localhost");
        } else if name.trim() != name {
            errors.invalid(at, name, "must not be padded with whitespace");
        } else if name.len() > LOCALHOST_PROFILE_BYTES {
            errors.too_long(at, LOCALHOST_PROFILE_BYTES);
        }
    } else if local.is_set() {
        errors.invalid(at, local.clone(), "can only be set when AppArmor type is Localhost");
    }
}

/// What means nothing on Linux.
fn only_linux(spec: &Value, path: &Path, errors: &mut FieldErrors) {
    let detail = "windows options cannot be set for a linux pod";
    let at = path.child("securityContext").child("windowsOptions");
    if spec["securityContext"]["windowsOptions"].is_set() {
        errors.forbidden(at, detail);
    }
    each_container(spec, path, |container, at| {
        if container["securityContext"]["windowsOptions"].is_set() {
            errors.forbidden(at.child("windowsOptions"), detail);
        }
    });
}

/// What means nothing on Windows.
fn only_windows(spec: &Value, path: &Path, errors: &mut FieldErrors) {
    const DETAIL: &str = "cannot be set for a windows pod";
    let context = path.child("securityContext");
    for field in ["hostPID", "hostIPC"] {
        if spec[field].flag() {
            errors.forbidden(path.child(field), DETAIL);
        }
    }
    for field in ["hostUsers", "shareProcessNamespace"] {
        if spec[field].is_set() {
            errors.forbidden(path.child(field), DETAIL);
        }
    }
    let of_pods = [
        "appArmorProfile",
        "seLinuxOptions",
        "seccompProfile",
        "fsGroup",
        "fsGroupChangePolicy",
        "sysctls",
        "runAsUser",
        "runAsGroup",
        "supplementalGroups",
    ];
    for field in of_pods {
        let value = &spec["securityContext"][field];
        if value.is_set() && (!value.is_array() || value.size() > 0) {
            errors.forbidden(context.child(field), DETAIL);
        }
    }
    let of_containers = [
        "appArmorProfile",
        "seLinuxOptions",
        "seccompProfile",
        "capabilities",
        "readOnlyRootFilesystem",
        "privileged",
        "allowPrivilegeEscalation",
        "procMount",
        "runAsUser",
        "runAsGroup",
    ];
    each_container(spec, path, |container, at| {
        for field in of_containers {
            if container["securityContext"][field].is_set() {
                errors.forbidden(at.child(field), DETAIL);
            }
        }
    });
}

/// Calls with each container and the path of its security context.
fn each_container(spec: &Value, path: &Path, mut check: impl FnMut(&Value, &Path)) {
    for list in ["initContainers", "containers", "ephemeralContainers"] {
        for (index, container) in spec[list].items().iter().enumerate() {
            check(container, &path.child(list).index(index).child("securityContext"));
        }
    }
}
