//! `PersistentVolume`.

use coracle_api::names;
use coracle_api::quantity::Quantity;
use coracle_api::status::{FieldErrors, Path};
use serde_json::{Value, json};

use crate::rules::checks::{immutable, one_of, required};
use crate::rules::json::{Read, default, default_zero, object, unset, with};
use crate::rules::{Rules, claim, generic, pod};

pub static RULES: Rules = Rules {
    default: |volume| {
        default_zero(object(volume, "status"), "phase", "Pending");
        let spec = object(volume, "spec");
        default_zero(spec, "persistentVolumeReclaimPolicy", "Retain");
        default(spec, "volumeMode", "Filesystem");
        pod::defaults::volume_source(spec);
    },
    prepare_create: |volume| {
        let now = jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
        generic::start_status(volume, json!({"phase": "Pending", "lastPhaseTransitionTime": now}));
    },
    validate,
    validate_update,
    ..Rules::GENERIC
};

/// Fields of the spec that are no sources of the volume.
const OTHER_FIELDS: [&str; 9] = [
    "accessModes",
    "capacity",
    "claimRef",
    "mountOptions",
    "nodeAffinity",
    "persistentVolumeReclaimPolicy",
    "storageClassName",
    "volumeAttributesClassName",
    "volumeMode",
];

fn sources(spec: &Value) -> impl Iterator<Item = (&String, &Value)> {
    spec.entries()
        .filter(|(field, source)| !OTHER_FIELDS.contains(&field.as_str()) && source.is_set())
}

fn validate(volume: &Value, errors: &mut FieldErrors) {
    let (spec, path) = (&volume["spec"], Path::new("spec"));
    required(&spec["accessModes"], path.child("accessModes"), errors);
    claim::known_access_modes(&spec["accessModes"], &path.child("accessModes"), errors);
    capacity(&spec["capacity"], &path.child("capacity"), errors);
    let mut sources = sources(spec);
    match sources.next() {
        Some((kind, source)) => {
            pod::volumes::validate_source(kind, source, &path.child(kind), errors)
        }
        None => errors.required(&path, "must specify a volume type"),
    }
    for (kind, _) in sources {
        errors.forbidden(path.child(kind), "may not specify more than 1 volume type");
    }
    let policies = ["Delete", "Recycle", "Retain"];
    one_of(
        &spec["persistentVolumeReclaimPolicy"],
        &policies,
        path.child("persistentVolumeReclaimPolicy"),
        errors,
    );
    if is_root(spec["hostPath"]["path"].text())
        && spec["persistentVolumeReclaimPolicy"] == "Recycle"
    {
        errors.forbidden(
            path.child("persistentVolumeReclaimPolicy"),
            "may not be 'recycle' for a hostPath mount of '/'",
        );
    }
    one_of(&spec["volumeMode"], &["Block", "Filesystem"], path.child("volumeMode"), errors);
    if spec["csi"].is_set() {
        csi(&spec["csi"], &path.child("csi"), errors);
    }
    let class = spec["storageClassName"].text();
    if !class.is_empty() {
        errors.invalid_each(path.child("storageClassName"), class, names::dns_subdomain(class));
    }
    attributes_class(spec, &path, errors);
    if spec["local"].is_set() && !spec["nodeAffinity"].is_set() {
        errors.required(path.child("nodeAffinity"), "Local volume requires node affinity");
    }
    if spec["nodeAffinity"].is_set() && !spec["nodeAffinity"]["required"].is_set() {
        let at = path.child("nodeAffinity").child("required");
        errors.required(at, "must specify required node constraints");
    }
    if spec["nodeAffinity"]["required"].is_set() {
        let at = path.child("nodeAffinity").child("required");
        pod::scheduling::node_selector(&spec["nodeAffinity"]["required"], &at, errors);
    }
}

/// A volume has a size, and no other capacity.
fn capacity(capacity: &Value, path: &Path, errors: &mut FieldErrors) {
    if capacity.size() == 0 {
        errors.required(path, "");
    }
    if !capacity["storage"].is_set() || capacity.size() > 1 {
        errors.not_supported(path, capacity.clone(), &["storage"]);
    }
    for (name, quantity) in capacity.entries() {
        if Quantity::from_value(quantity).is_ok_and(|size| size <= Quantity::ZERO) {
            errors.invalid(path.key(name), quantity.clone(), "must be greater than zero");
        }
    }
}

/// Secrets of a driver, each by its full name.
fn csi(source: &Value, path: &Path, errors: &mut FieldErrors) {
    required(&source["volumeHandle"], path.child("volumeHandle"), errors);
    let secrets = [
        "controllerPublishSecretRef",
        "controllerExpandSecretRef",
        "nodePublishSecretRef",
        "nodeExpandSecretRef",
    ];
    for field in secrets.into_iter().filter(|field| source[*field].is_set()) {
        for part in ["name", "namespace"] {
            required(&source[field][part], path.child(field).child(part), errors);
        }
    }
}

fn attributes_class(spec: &Value, path: &Path, errors: &mut FieldErrors) {
    let class = &spec["volumeAttributesClassName"];
    if !class.is_set() {
        return;
    }
    let at = path.child("volumeAttributesClassName");
    if class.text().is_empty() {
        errors.required(at, "an empty string is disallowed");
    } else {
        errors.invalid_each(at, class.text(), names::dns_subdomain(class.text()));
    }
    if !spec["csi"].is_set() {
        let detail = "has to be specified when using volumeAttributesClassName";
        errors.required(path.child("csi"), detail);
    }
}

/// Whether the path is the root of the host, in whatever spelling.
fn is_root(path: &str) -> bool {
    path.starts_with('/') && path.split('/').all(|part| matches!(part, "" | "."))
}

/// Where a volume is does not change.
fn validate_update(new: &Value, old: &Value, errors: &mut FieldErrors) {
    let (mut new, old) = (new["spec"].clone(), &old["spec"]);
    // Who grows the volume may be told its secret later.
    if old["csi"].is_set() && !old["csi"]["controllerExpandSecretRef"].is_set() {
        with(&mut new, "csi", |csi| unset(csi, "controllerExpandSecretRef"));
    }
    if sources(&new).ne(sources(old)) {
        let detail = "spec.persistentvolumesource is immutable after creation";
        errors.forbidden("spec.persistentvolumesource", detail);
    }
    immutable(&new["volumeMode"], &old["volumeMode"], "volumeMode", errors);
    if old["nodeAffinity"].is_set() {
        immutable(&new["nodeAffinity"], &old["nodeAffinity"], "nodeAffinity", errors);
    }
    let class = "volumeAttributesClassName";
    if old[class].is_set() && !new[class].is_set() {
        let detail = "update from non-nil value to nil is forbidden";
        errors.forbidden(Path::new("spec").child(class), detail);
    }
}
