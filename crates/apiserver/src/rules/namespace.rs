//! `Namespace`.

use coracle_api::names;
use coracle_api::status::{FieldErrors, Path};
use serde_json::{Value, json};

use crate::rules::json::{Read, object, set};
use crate::rules::{Rules, generic};

/// The label by which selectors find a namespace by name; only the server writes it.
const NAME_LABEL: &str = "kubernetes.io/metadata.name";
/// Holds a namespace back until all that it contains is gone.
const FINALIZER: &str = "kubernetes";

pub static RULES: Rules = Rules {
    default: |namespace| {
        label_with_name(namespace);
        object(namespace, "spec");
    },
    prepare_create: |namespace| {
        label_with_name(namespace);
        generic::start_status(namespace, json!({"phase": "Active"}));
        let spec = object(namespace, "spec");
        let mut finalizers = spec["finalizers"].items().to_vec();
        if !finalizers.iter().any(|finalizer| finalizer == FINALIZER) {
            finalizers.push(FINALIZER.into());
        }
        set(spec, "finalizers", finalizers);
    },
    prepare_update: |new, old| {
        label_with_name(new);
        generic::keep_status(new, old);
        generic::carry(object(new, "spec"), &old["spec"], "finalizers");
    },
    prepare_status_update: generic::take_status,
    validate: |namespace, errors| {
        for finalizer in namespace["spec"]["finalizers"].items() {
            validate_finalizer(finalizer.text(), &Path::new("spec").child("finalizers"), errors);
        }
    },
    validate_status_update: |new, _, errors| {
        let (phase, path) = (&new["status"]["phase"], Path::new("status").child("Phase"));
        let (want, detail) = if new["metadata"]["deletionTimestamp"].is_set() {
            ("Terminating", "may only be 'Terminating' if `deletionTimestamp` is not empty")
        } else {
            ("Active", "may only be 'Active' if `deletionTimestamp` is empty")
        };
        if phase != want {
            errors.invalid(path, phase.text(), detail);
        }
    },
    validate_part: |_, new, _, errors| {
        let path = Path::new("spec").child("finalizers");
        for (index, finalizer) in new["spec"]["finalizers"].items().iter().enumerate() {
            validate_finalizer(finalizer.text(), &path.index(index), errors);
        }
    },
    fields: |namespace| vec![("status.phase", namespace["status"]["phase"].text().to_owned())],
    ..Rules::GENERIC
};

/// What holds a namespace back has a domain in its name, but for the ones that everybody knows.
fn validate_finalizer(name: &str, path: &Path, errors: &mut FieldErrors) {
    errors.invalid_each(path, name, names::qualified_name(name));
    let is_known = matches!(name, FINALIZER | "orphan" | "foregroundDeletion");
    if !name.contains('/') && !is_known {
        let detail = "name is neither a standard finalizer name nor is it fully qualified";
        errors.invalid(path, name, detail);
    }
}

fn label_with_name(namespace: &mut Value) {
    let name = namespace["metadata"]["name"].text().to_owned();
    if !name.is_empty() {
        set(object(object(namespace, "metadata"), "labels"), NAME_LABEL, name);
    }
}
