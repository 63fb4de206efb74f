//! DefaultStorageClass and DefaultIngressClass: the class that the operator marked as the default one.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use coracle_store::Store;
use serde::Deserialize;

use super::{AdmissionRequest, Operation, all};

#[derive(Deserialize)]
struct Class {
    metadata: Metadata,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Metadata {
    name: String,
    #[serde(default)]
    creation_timestamp: Option<String>,
    #[serde(default)]
    annotations: Option<BTreeMap<String, String>>,
}

/// Names the default StorageClass in a new claim that names none.
pub(super) fn storage_class(store: &Store, request: &mut AdmissionRequest<'_>) {
    if request.operation != Operation::Create || !request.is_core("PersistentVolumeClaim") {
        return;
    }
    let annotated = annotation(request, "volume.beta.kubernetes.io/storage-class");
    // An empty name is a decision: no class.
    if annotated || !request.object["spec"]["storageClassName"].is_null() {
        return;
    }
    let marks = [
        "storageclass.kubernetes.io/is-default-class",
        "storageclass.beta.kubernetes.io/is-default-class",
    ];
    if let Some(class) = default_class(store, "storageclasses.storage.k8s.io", &marks) {
        request.object["spec"]["storageClassName"] = class.into();
    }
}

/// Names the default IngressClass in a new Ingress that names none.
pub(super) fn ingress_class(store: &Store, request: &mut AdmissionRequest<'_>) {
    let is_ingress = request.kind.group == "networking.k8s.io" && request.kind.kind == "Ingress";
    if request.operation != Operation::Create || !is_ingress || !request.subresource.is_empty() {
        return;
    }
    let annotated = annotation(request, "kubernetes.io/ingress.class");
    if annotated || !request.object["spec"]["ingressClassName"].is_null() {
        return;
    }
    let marks = ["ingressclass.kubernetes.io/is-default-class"];
    if let Some(class) = default_class(store, "ingressclasses.networking.k8s.io", &marks) {
        request.object["spec"]["ingressClassName"] = class.into();
    }
}

/// The marked class; of several the newest, then the first by name, as upstream.
fn default_class(store: &Store, resource: &str, marks: &[&str]) -> Option<String> {
    let is_default = |class: &Class| {
        class.metadata.annotations.as_ref().is_some_and(|annotations| {
            marks.iter().any(|&mark| annotations.get(mark).is_some_and(|value| value == "true"))
        })
    };
    all::<Class>(store, resource)
        .into_iter()
        .filter(is_default)
        .min_by_key(|class| {
            (Reverse(class.metadata.creation_timestamp.clone()), class.metadata.name.clone())
        })
        .map(|class| class.metadata.name)
}

fn annotation(request: &AdmissionRequest<'_>, name: &str) -> bool {
    request
        .object
        .pointer("/metadata/annotations")
        .is_some_and(|annotations| annotations.get(name).is_some())
}
