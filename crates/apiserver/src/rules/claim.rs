//! `PersistentVolumeClaim`, and the templates of claims in other kinds.

use coracle_api::names;
use coracle_api::quantity::Quantity;
use coracle_api::status::{FieldErrors, Path};
use serde_json::{Value, json};

use crate::rules::checks::{
    IMMUTABLE, immutable, label_selector, one_of, quantity_not_negative, required,
};
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
    validate_status_update,
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
    let (source, reference) = (&spec["dataSource"], &spec["dataSourceRef"]);
    if !source.is_set() {
        return;
    }
    let shown = path.child("dataSource").to_string();
    let differ = |field: &str| source[field].text() != reference[field].text();
    if !reference["namespace"].text().is_empty() {
        let detail = "may not be specified when dataSourceRef.namespace is specified";
        errors.invalid(path, shown, detail);
    } else if reference.is_set() && ["apiGroup", "kind", "name"].into_iter().any(differ) {
        errors.invalid(path, shown, "must match dataSourceRef");
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
    if modes.size() == 0 {
        errors.required(path, "at least 1 access mode is required");
    }
    known_access_modes(modes, path, errors);
}

/// Checks those access modes that are given.
pub fn known_access_modes(modes: &Value, path: &Path, errors: &mut FieldErrors) {
    let supported = ["ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod"];
    for mode in modes.items() {
        one_of(mode, &supported, path, errors);
    }
    let others = |mode: &Value| supported.contains(&mode.text()) && mode != "ReadWriteOncePod";
    if modes.items().iter().any(|mode| mode == "ReadWriteOncePod")
        && modes.items().iter().any(others)
    {
        errors.forbidden(path, "may not use ReadWriteOncePod with other access modes");
    }
}

/// How a class was named before there was a field for it.
const CLASS_ANNOTATION: &str = "volume.beta.kubernetes.io/storage-class";

fn validate_update(claim: &Value, before: &Value, errors: &mut FieldErrors) {
    let (new, old) = (&claim["spec"], &before["spec"]);
    let mut munged = new.clone();
    // The binder names the volume, and admission may name a class where none was.
    if old["volumeName"].text().is_empty() {
        generic::carry(&mut munged, old, "volumeName");
    }
    class_update(claim, before, &mut munged, errors);
    if claim["status"]["phase"] == "Bound" {
        if munged["resources"]["requests"].is_set() {
            let requests = object(object(&mut munged, "resources"), "requests");
            generic::carry(requests, &old["resources"]["requests"], "storage");
        }
        if munged["volumeAttributesClassName"].is_set() {
            generic::carry(&mut munged, old, "volumeAttributesClassName");
        }
    }
    if !generic::same(&munged, old) {
        let detail = "spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims";
        errors.forbidden("spec", detail);
    }
    let size = |spec: &Value| Quantity::from_value(&spec["resources"]["requests"]["storage"]);
    // A claim whose growth failed may be made smaller again, but not as small as what it has.
    let has = Quantity::from_value(&before["status"]["capacity"]["storage"]);
    if let (Ok(wanted), Ok(was)) = (size(new), size(old))
        && wanted < was
        && wanted <= has.unwrap_or(Quantity::ZERO)
    {
        let detail = "field can not be less than status.capacity";
        errors.forbidden("spec.resources.requests.storage", detail);
    }
    immutable(&new["volumeMode"], &old["volumeMode"], "volumeMode", errors);
    let (class, was) = (&new["volumeAttributesClassName"], &old["volumeAttributesClassName"]);
    let what = if class.is_set() { "an empty string" } else { "nil" };
    if was.is_set() && !was.text().is_empty() && class.text().is_empty() {
        let detail = format!("update from non-nil value to {what} is forbidden");
        errors.forbidden("spec.volumeAttributesClassName", detail);
    }
}

/// A claim without class may get one, the one that its annotation names if it has such an annotation.
fn class_update(claim: &Value, before: &Value, munged: &mut Value, errors: &mut FieldErrors) {
    let annotation = |claim: &Value| claim["metadata"]["annotations"][CLASS_ANNOTATION].clone();
    let (is, was) = (annotation(claim), annotation(before));
    let class = &claim["spec"]["storageClassName"];
    let gets_class = class.is_set() && !before["spec"]["storageClassName"].is_set();
    let takes_annotation = gets_class && was.is_set() && *class == was;
    if gets_class && (!was.is_set() || takes_annotation) {
        generic::carry(munged, &before["spec"], "storageClassName");
    }
    let may_go = takes_annotation && !is.is_set();
    if is.text() != was.text() && !may_go {
        let at = Path::new("metadata").child("annotations").key(CLASS_ANNOTATION);
        errors.invalid(at, is.text(), IMMUTABLE);
    }
}

/// How far a change of a claim's size is.
const RESIZE_STATES: [&str; 5] = [
    "ControllerResizeInProgress",
    "ControllerResizeInfeasible",
    "NodeResizeInProgress",
    "NodeResizeInfeasible",
    "NodeResizePending",
];

fn validate_status_update(new: &Value, _old: &Value, errors: &mut FieldErrors) {
    let (status, path) = (&new["status"], Path::new("status"));
    if new["spec"]["accessModes"].size() == 0 {
        errors.required("Spec.accessModes", "");
    }
    for (name, quantity) in status["capacity"].entries() {
        quantity_not_negative(quantity, &path.child("capacity").key(name), errors);
    }
    let at = path.child("allocatedResourceStatus");
    for (name, state) in status["allocatedResourceStatuses"].entries() {
        resource_key(name, &at, errors);
        if !RESIZE_STATES.contains(&state.text()) {
            errors.not_supported(&at, name.as_str(), &RESIZE_STATES);
        }
    }
    let at = path.child("allocatedResources");
    for (name, quantity) in status["allocatedResources"].entries() {
        resource_key(name, &at, errors);
        quantity_not_negative(quantity, &at.key(name), errors);
    }
}

/// Storage, or something that has its own domain.
fn resource_key(name: &str, path: &Path, errors: &mut FieldErrors) {
    errors.invalid_each(path, name, names::qualified_name(name));
    if (!name.contains('/') || name.contains("kubernetes.io/")) && name != "storage" {
        errors.not_supported(path, name, &["storage"]);
    }
}
