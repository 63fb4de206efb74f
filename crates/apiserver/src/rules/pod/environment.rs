//! The environment of a container, and the fields of a pod that it can refer to.

use coracle_api::names;
use coracle_api::quantity::Quantity;
use coracle_api::status::{FieldErrors, Path};
use serde_json::Value;

use crate::rules::checks::required;
use crate::rules::json::Read;

/// Fields that a variable can take its value from.
const VARIABLE_FIELDS: [&str; 9] = [
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.serviceAccountName",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
];

/// Fields that a file of a volume can show.
pub const VOLUME_FIELDS: [&str; 5] = [
    "metadata.annotations",
    "metadata.labels",
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
];

/// Fields that exist, though neither a variable nor a file may show them.
const OTHER_FIELDS: [&str; 3] = ["spec.restartPolicy", "spec.schedulerName", "status.phase"];

const RESOURCES: [&str; 6] = [
    "limits.cpu",
    "limits.ephemeral-storage",
    "limits.memory",
    "requests.cpu",
    "requests.ephemeral-storage",
    "requests.memory",
];

/// Checks `env`.
pub fn variables(variables: &Value, path: &Path, errors: &mut FieldErrors) {
    for (index, variable) in variables.items().iter().enumerate() {
        let at = path.index(index);
        let name = variable["name"].text();
        if name.is_empty() {
            errors.required(at.child("name"), "");
        } else {
            errors.invalid_each(at.child("name"), name, names::environment_variable(name));
        }
        if variable["valueFrom"].is_set() {
            value_from(variable, &at.child("valueFrom"), errors);
        }
    }
}

fn value_from(variable: &Value, path: &Path, errors: &mut FieldErrors) {
    let source = &variable["valueFrom"];
    let mut sources = 0;
    for (kind, reference) in source.entries().filter(|(_, reference)| reference.is_set()) {
        sources += 1;
        let at = path.child(kind);
        match kind.as_str() {
            "fieldRef" => field_ref(reference, &VARIABLE_FIELDS, &at, errors),
            "resourceFieldRef" => resource_ref(reference, &at, errors),
            "configMapKeyRef" | "secretKeyRef" => key_ref(reference, &at, errors),
            "fileKeyRef" => {
                for field in ["volumeName", "path", "key"] {
                    required(&reference[field], at.child(field), errors);
                }
            }
            _ => (),
        }
    }
    if sources == 0 {
        let detail = "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`";
        errors.invalid(path, "", detail);
    } else if !variable["value"].text().is_empty() {
        errors.invalid(path, "", "may not be specified when `value` is not empty");
    } else if sources > 1 {
        errors.invalid(path, "", "may not have more than one field specified at a time");
    }
}

fn key_ref(reference: &Value, path: &Path, errors: &mut FieldErrors) {
    let name = reference["name"].text();
    errors.invalid_each(path.child("name"), name, names::dns_subdomain(name));
    match reference["key"].text() {
        "" => errors.required(path.child("key"), ""),
        key => errors.invalid_each(path.child("key"), key, names::config_key(key)),
    }
}

/// Checks a reference to a field of the pod.
pub fn field_ref(reference: &Value, allowed: &[&str], path: &Path, errors: &mut FieldErrors) {
    if reference["apiVersion"].text().is_empty() {
        errors.required(path.child("apiVersion"), "");
        return;
    }
    let field = reference["fieldPath"].text();
    if field.is_empty() {
        errors.required(path.child("fieldPath"), "");
        return;
    }
    if let Some((map, key)) = field.strip_suffix("']").and_then(|field| field.split_once("['")) {
        match map {
            "metadata.annotations" => {
                errors.invalid_each(path, key, names::qualified_name(&key.to_lowercase()))
            }
            "metadata.labels" => errors.invalid_each(path, key, names::qualified_name(key)),
            other => errors.invalid(path, other, "does not support subscript"),
        }
        return;
    }
    let known = VARIABLE_FIELDS.contains(&field)
        || VOLUME_FIELDS.contains(&field)
        || OTHER_FIELDS.contains(&field);
    if !known {
        let detail = format!("error converting fieldPath: field label not supported: {field}");
        errors.invalid(path.child("fieldPath"), field, detail);
    } else if !allowed.contains(&field) {
        errors.not_supported(path.child("fieldPath"), field, allowed);
    }
}

/// Checks a reference to a container's requests or limits.
pub fn resource_ref(reference: &Value, path: &Path, errors: &mut FieldErrors) {
    let resource = reference["resource"].text();
    let huge = ["limits.hugepages-", "requests.hugepages-"]
        .iter()
        .any(|prefix| resource.starts_with(prefix));
    if resource.is_empty() {
        errors.required(path.child("resource"), "");
    } else if !RESOURCES.contains(&resource) && !huge {
        errors.not_supported(path.child("resource"), resource, &RESOURCES);
    }
    let divisor = &reference["divisor"];
    if divisor.is_set() && Quantity::from_value(divisor).is_ok_and(|divisor| divisor.is_negative())
    {
        errors.invalid(
            path.child("divisor"),
            divisor.clone(),
            "must be greater than or equal to 0",
        );
    }
}

/// Checks `envFrom`.
pub fn sources(sources: &Value, path: &Path, errors: &mut FieldErrors) {
    for (index, source) in sources.items().iter().enumerate() {
        let at = path.index(index);
        let prefix = source["prefix"].text();
        if !prefix.is_empty() {
            errors.invalid_each(at.child("prefix"), prefix, names::environment_variable(prefix));
        }
        let given: Vec<&str> = ["configMapRef", "secretRef"]
            .into_iter()
            .filter(|kind| source[*kind].is_set())
            .collect();
        for kind in &given {
            match source[*kind]["name"].text() {
                "" => errors.required(at.child(kind).child("name"), ""),
                name => errors.invalid_each(
                    at.child(kind).child("name"),
                    name,
                    names::dns_subdomain(name),
                ),
            }
        }
        if given.is_empty() {
            errors.invalid(&at, "", "must specify one of: `configMapRef` or `secretRef`");
        } else if given.len() > 1 {
            errors.invalid(&at, "", "may not have more than one field specified at a time");
        }
    }
}
