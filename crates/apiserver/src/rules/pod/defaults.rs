//! What a pod, or the template of one, means where its author said nothing (`pkg/apis/core/v1/defaults.go`).

use serde_json::{Value, json};

use crate::rules::claim;
use crate::rules::json::{Read, default, default_zero, each, object, present, set, unset, with};

/// Read and write for the owner, read for the others: how files of a projected volume appear.
const FILE_MODE: i32 = 0o644;

/// The defaults of a pod itself.
pub fn pod(pod: &mut Value) {
    let spec = object(pod, "spec");
    spec_defaults(spec);
    for list in ["containers", "initContainers"] {
        each(spec, list, |container| with(container, "resources", limits_are_requests));
    }
    pod_level_requests(spec);
    default(spec, "enableServiceLinks", true);
    if spec["hostNetwork"].flag() {
        for list in ["containers", "initContainers"] {
            each(spec, list, |container| each(container, "ports", host_port));
        }
    }
}

/// The defaults of a template of pods, in the field `template` of `parent`.
pub fn template(parent: &mut Value) {
    let template = object(parent, "template");
    object(template, "metadata");
    spec_defaults(object(template, "spec"));
}

/// A service account has two names, one of them deprecated: they are kept the same.
pub fn service_account_names(spec: &mut Value) {
    let name = [&spec["serviceAccountName"], &spec["serviceAccount"]]
        .into_iter()
        .find(|name| !name.text().is_empty());
    if let Some(name) = name.cloned() {
        set(spec, "serviceAccountName", name.clone());
        set(spec, "serviceAccount", name);
    }
}

fn spec_defaults(spec: &mut Value) {
    default_zero(spec, "dnsPolicy", "ClusterFirst");
    default_zero(spec, "restartPolicy", "Always");
    default(spec, "securityContext", json!({}));
    default(spec, "terminationGracePeriodSeconds", 30);
    default_zero(spec, "schedulerName", "default-scheduler");
    service_account_names(spec);
    for list in ["containers", "initContainers", "ephemeralContainers"] {
        each(spec, list, container);
    }
    each(spec, "volumes", volume);
    // As Go's conversion does, flags of the host's namespaces that say no are left out.
    for flag in ["hostNetwork", "hostPID", "hostIPC"] {
        if spec[flag] == false {
            unset(spec, flag);
        }
    }
}

fn container(container: &mut Value) {
    default_zero(container, "terminationMessagePath", "/dev/termination-log");
    default_zero(container, "terminationMessagePolicy", "File");
    let policy = if is_latest(container["image"].text()) { "Always" } else { "IfNotPresent" };
    default_zero(container, "imagePullPolicy", policy);
    object(container, "resources");
    each(container, "ports", |port| default_zero(port, "protocol", "TCP"));
    each(container, "env", |variable| {
        with(variable, "valueFrom", |source| {
            with(source, "fieldRef", field_ref);
            with(source, "fileKeyRef", |file| default(file, "optional", false));
        });
    });
    for name in ["livenessProbe", "readinessProbe", "startupProbe"] {
        with(container, name, probe);
    }
    with(container, "lifecycle", |lifecycle| {
        for hook in ["postStart", "preStop"] {
            with(lifecycle, hook, |hook| with(hook, "httpGet", http_get));
        }
    });
}

/// An image named without tag and digest means `latest`, which may change and so is always pulled.
fn is_latest(image: &str) -> bool {
    if image.is_empty() || image.contains('@') {
        return false;
    }
    let name = image.rsplit('/').next().unwrap_or(image);
    match name.split_once(':') {
        Some((_, tag)) => tag == "latest",
        None => true,
    }
}

fn probe(probe: &mut Value) {
    default_zero(probe, "timeoutSeconds", 1);
    default_zero(probe, "periodSeconds", 10);
    default_zero(probe, "successThreshold", 1);
    default_zero(probe, "failureThreshold", 3);
    with(probe, "httpGet", http_get);
    with(probe, "grpc", |grpc| default(grpc, "service", ""));
}

fn http_get(action: &mut Value) {
    default_zero(action, "path", "/");
    default_zero(action, "scheme", "HTTP");
}

fn field_ref(reference: &mut Value) {
    default_zero(reference, "apiVersion", "v1");
}

fn limits_are_requests(resources: &mut Value) {
    let limits: Vec<(String, Value)> =
        resources["limits"].entries().map(|(k, v)| (k.clone(), v.clone())).collect();
    if limits.is_empty() {
        return;
    }
    let requests = object(resources, "requests");
    for (name, quantity) in limits {
        default(requests, &name, quantity);
    }
}

/// A pod's own limits become its own requests where no container requests the resource.
fn pod_level_requests(spec: &mut Value) {
    let limits: Vec<(String, Value)> =
        spec["resources"]["limits"].entries().map(|(k, v)| (k.clone(), v.clone())).collect();
    if limits.is_empty() {
        return;
    }
    let containers = || spec["containers"].items().iter().chain(spec["initContainers"].items());
    let unrequested = |name: &str| {
        containers().all(|container| !container["resources"]["requests"][name].is_set())
    };
    let missing: Vec<_> = limits.into_iter().filter(|(name, _)| unrequested(name)).collect();
    let requests = object(object(spec, "resources"), "requests");
    for (name, quantity) in missing {
        default(requests, &name, quantity);
    }
}

fn host_port(port: &mut Value) {
    let number = port["containerPort"].clone();
    default_zero(port, "hostPort", number);
}

fn volume(volume: &mut Value) {
    let has_source = volume.entries().any(|(field, source)| field != "name" && source.is_set());
    if !has_source {
        set(volume, "emptyDir", json!({}));
    }
    for name in ["secret", "configMap", "downwardAPI", "projected"] {
        with(volume, name, |source| default(source, "defaultMode", FILE_MODE));
    }
    with(volume, "downwardAPI", |source| {
        each(source, "items", |item| with(item, "fieldRef", field_ref))
    });
    with(volume, "projected", |source| {
        each(source, "sources", |source| {
            with(source, "serviceAccountToken", |token| default(token, "expirationSeconds", 3600));
            with(source, "downwardAPI", |source| {
                each(source, "items", |item| with(item, "fieldRef", field_ref))
            });
        });
    });
    with(volume, "ephemeral", |source| {
        if let Some(template) = present(source, "volumeClaimTemplate") {
            claim::default_spec(object(template, "spec"));
        }
    });
    volume_source(volume);
}

/// The defaults that a pod's volume and a `PersistentVolume` share.
pub fn volume_source(source: &mut Value) {
    with(source, "hostPath", |source| default(source, "type", ""));
    with(source, "iscsi", |source| default_zero(source, "iscsiInterface", "default"));
    with(source, "rbd", |source| {
        default_zero(source, "pool", "rbd");
        default_zero(source, "user", "admin");
        default_zero(source, "keyring", "/etc/ceph/keyring");
    });
    with(source, "scaleIO", |source| {
        default_zero(source, "storageMode", "ThinProvisioned");
        default_zero(source, "fsType", "xfs");
    });
    with(source, "azureDisk", |source| {
        default(source, "cachingMode", "ReadWrite");
        default(source, "kind", "Shared");
        default(source, "fsType", "ext4");
        default(source, "readOnly", false);
    });
}
