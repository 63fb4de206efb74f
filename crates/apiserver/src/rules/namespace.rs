//! `Namespace`.

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
    fields: |namespace| vec![("status.phase", namespace["status"]["phase"].text().to_owned())],
    ..Rules::GENERIC
};

fn label_with_name(namespace: &mut Value) {
    let name = namespace["metadata"]["name"].text().to_owned();
    if !name.is_empty() {
        set(object(object(namespace, "metadata"), "labels"), NAME_LABEL, name);
    }
}
