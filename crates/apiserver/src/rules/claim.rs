//! `PersistentVolumeClaim`, and the templates of claims in other kinds.

use coracle_api::names;
use coracle_api::quantity::Quantity;
use coracle_api::status::{FieldErrors, Path};
use serde_json::{Value, json};

use crate::rules::checks::{label_selector, one_of, required};
use crate::rules::generic::{keep_status, start_status};
use crate::rules::json::{Read, default, default_zero, object, set};
use crate::rules::{Rules, generic};

pub static RULES: Rules = Rules {
    default: |claim| {
        default_spec(object(claim, "spec"));
        default_zero(object(claim, "status"), "phase", "Pending");
    },
    prepare_create: |claim| {
        start_status(claim, json!({"phase": "Pending"}));
        join_data_sources(object(claim, "spec"));
    },
    prepare_update: |new, old| {
        keep_status(new, old);
        join_data_sources(object(new, "spec"));
    },
    prepare_status_update: generic::take_status,
    validate: |claim, errors| validate_spec(&claim["spec"], &Path::new("spec"), errors),
    validate_update,
    ..Rules::GENERIC
};

/// The defaults of a claim's spec, wherever the claim stands.
pub fn default_spec(spec: &mut Value) {
    default(spec, "volumeMode", "Filesystem");
    object(spec, "resources");
}

/// The defaults of a claim in a list of templates (`StatefulSet`).
pub fn default_template(claim: &mut Value) {
    default_zero(claim, "apiVersion", "v1");
    default_zero(claim, "kind", "PersistentVolumeClaim");
    (RULES.default)(claim);
}

/// A claim's source has two fields, the older of them without namespace: one given, the other follows.
fn join_data_sources(spec: &mut Value) {
    let (source, reference) = (spec["dataSource"].clone(), spec["dataSourceRef"].clone());
    if source.is_set() && !reference.is_set() {
        set(spec, "dataSourceRef", source);
    } else if reference.is_set() && !source.is_set() && reference["namespace"].text().is_empty() {
        set(spec, "dataSource", reference);
    }
}

/// Checks a claim's spec, wherever the claim stands.
pub fn validate_spec(spec: &Value, path: &Path, errors: &mut FieldErrors) {
    access_modes(&spec["accessModes"], &path.child("accessModes"), errors);
    label_selector(&spec["selector"], &path.child("selector"), errors);
    let at = path.child("resources").key("storage");
    match Quantity::from_value(&spec["resources"]["requests"]["storage"]) {
        Err(_) => errors.required(at, ""),
        Ok(size) if size <= Quantity::ZERO => {
            errors.invalid(at, size.to_string(), "must be greater than zero")
        }
        Ok(_) => (),
    }
    let class = spec["storageClassName"].text();
    if !class.is_empty() {
        errors.invalid_each(path.child("storageClassName"), class, names::dns_subdomain(class));
    }
    one_of(&spec["volumeMode"], &["Block", "Filesystem"], path.child("volumeMode"), errors);
    let attributes = spec["volumeAttributesClassName"].text();
    if !attributes.is_empty() {
        let at = path.child("volumeAttributesClassName");
        errors.invalid_each(at, attributes, names::dns_subdomain(attributes));
    }
    for field in ["dataSource", "dataSourceRef"] {
        data_source(&spec[field], &path.child(field), errors);
    }
}

/// Checks what a claim is filled with.
fn data_source(source: &Value, path: &Path, errors: &mut FieldErrors) {
    if !source.is_set() {
        return;
    }
    for field in ["name", "kind"] {
        required(&source[field], path.child(field), errors);
    }
    let (group, kind) = (source["apiGroup"].text(), source["kind"].text());
    if group.is_empty() && kind != "PersistentVolumeClaim" {
        let detail = "must be 'PersistentVolumeClaim' when referencing the default apiGroup";
        errors.invalid(path, kind, detail);
    }
    if !group.is_empty() {
        errors.invalid_each(path.child("apiGroup"), group, names::dns_subdomain(group));
    }
    let namespace = source["namespace"].text();
    if !namespace.is_empty() {
        errors.invalid_each(path.child("namespace"), namespace, names::dns_label(namespace));
    }
}

/// Checks in which ways a volume may be mounted.
pub fn access_modes(modes: &Value, path: &Path, errors: &mut FieldErrors) {
    let supported = ["ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod"];
    if modes.size() == 0 {
        errors.required(path, "at least 1 access mode is required");
    }
    for mode in modes.items() {
        one_of(mode, &supported, path, errors);
    }
    if modes.size() > 1 && modes.items().iter().any(|mode| mode == "ReadWriteOncePod") {
        errors.forbidden(path, "may not use ReadWriteOncePod with other access modes");
    }
}

fn validate_update(new: &Value, old: &Value, errors: &mut FieldErrors) {
    let mut munged = new["spec"].clone();
    let (wanted, before) = (
        &new["spec"]["resources"]["requests"]["storage"],
        &old["spec"]["resources"]["requests"]["storage"],
    );
    if new["status"]["phase"] == "Bound" || old["status"]["phase"] == "Bound" {
        generic::carry(&mut munged, &old["spec"], "resources");
        generic::carry(&mut munged, &old["spec"], "volumeAttributesClassName");
    }
    // The binder names the volume, and admission may name a class where none was.
    for field in ["volumeName", "storageClassName"] {
        if old["spec"][field].text().is_empty() {
            generic::carry(&mut munged, &old["spec"], field);
        }
    }
    if !generic::same(&munged, &old["spec"]) {
        let detail = "spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims";
        errors.forbidden("spec", detail);
        return;
    }
    let sizes = (
        Quantity::from_value(wanted),
        Quantity::from_value(before),
        Quantity::from_value(&old["status"]["capacity"]["storage"]),
    );
    if let (Ok(wanted), Ok(before), Ok(actual)) = sizes
        && wanted < before
        && wanted < actual
    {
        errors.forbidden(
            "spec.resources.requests.storage",
            "field can not be less than status.capacity",
        );
    }
}
