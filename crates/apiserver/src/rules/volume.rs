//! `PersistentVolume`.

use coracle_api::quantity::Quantity;
use coracle_api::status::{FieldErrors, Path};
use serde_json::{Value, json};

use crate::rules::checks::one_of;
use crate::rules::json::{Read, default, default_zero, object};
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
    validate_update: |new, old, errors| {
        if sources(&new["spec"])
            .map(|(_, source)| source)
            .ne(sources(&old["spec"]).map(|(_, source)| source))
        {
            errors.forbidden(
                "spec.persistentvolumesource",
                "spec.persistentvolumesource is immutable after creation",
            );
        }
        crate::rules::checks::immutable(
            &new["spec"]["volumeMode"],
            &old["spec"]["volumeMode"],
            "spec.volumeMode",
            errors,
        );
        let (affinity, before) = (&new["spec"]["nodeAffinity"], &old["spec"]["nodeAffinity"]);
        if before.is_set() {
            crate::rules::checks::immutable(affinity, before, "spec.nodeAffinity", errors);
        }
    },
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
    claim::access_modes(&spec["accessModes"], &path.child("accessModes"), errors);
    let capacity = path.child("capacity");
    match Quantity::from_value(&spec["capacity"]["storage"]) {
        Err(_) if spec["capacity"].size() == 0 => errors.required(&capacity, ""),
        Err(_) => errors.not_supported(&capacity, spec["capacity"].clone(), &["storage"]),
        Ok(size) if size <= Quantity::ZERO => {
            errors.invalid(capacity.key("storage"), size.to_string(), "must be greater than zero");
        }
        Ok(_) => (),
    }
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
    if spec["hostPath"]["path"] == "/" && spec["persistentVolumeReclaimPolicy"] == "Recycle" {
        errors.forbidden(
            path.child("persistentVolumeReclaimPolicy"),
            "may not be 'recycle' for a hostPath mount of '/'",
        );
    }
    one_of(&spec["volumeMode"], &["Block", "Filesystem"], path.child("volumeMode"), errors);
    if spec["csi"].is_set() {
        let at = path.child("csi").child("volumeHandle");
        crate::rules::checks::required(&spec["csi"]["volumeHandle"], at, errors);
    }
    if spec["local"].is_set() && !spec["nodeAffinity"].is_set() {
        errors.required("metadata.annotations", "Local volume requires node affinity");
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
