//! StorageObjectInUseProtection and PersistentVolumeClaimResize: claims and volumes stay while they are used, and grow
//! only where their class says that they can.

use coracle_api::quantity::Quantity;
use coracle_api::status::Status;
use coracle_store::{Key, Store};
use serde_json::{Value, json};

use super::{AdmissionRequest, Operation, text};

/// Puts the finalizer on that the controllers take off once nobody uses the object.
pub(super) fn protect(request: &mut AdmissionRequest<'_>) {
    let finalizer = if request.is_core("PersistentVolumeClaim") {
        "kubernetes.io/pvc-protection"
    } else if request.is_core("PersistentVolume") {
        "kubernetes.io/pv-protection"
    } else {
        return;
    };
    if request.operation != Operation::Create {
        return;
    }
    match &mut request.object["metadata"]["finalizers"] {
        Value::Array(there) if there.iter().any(|found| found == finalizer) => (),
        Value::Array(there) => there.push(json!(finalizer)),
        absent => *absent = json!([finalizer]),
    }
}

/// Refuses to let a claim grow whose volume cannot.
pub(super) fn resize(store: &Store, request: &AdmissionRequest<'_>) -> Result<(), Status> {
    let Some(old) = request.old else { return Ok(()) };
    if request.operation != Operation::Update || !request.is_core("PersistentVolumeClaim") {
        return Ok(());
    }
    let size =
        |claim: &Value| Quantity::from_value(&claim["spec"]["resources"]["requests"]["storage"]);
    let (Ok(wanted), Ok(was)) = (size(request.object), size(old)) else { return Ok(()) };
    if wanted <= was {
        return Ok(());
    }
    if old["status"]["phase"] != "Bound" {
        return Err(request.forbidden("Only bound persistent volume claims can be expanded"));
    }
    let class = text(request.object, "/spec/storageClassName").unwrap_or_default();
    let class = store.get(&Key::new("storageclasses.storage.k8s.io", "", class));
    let class = class.and_then(|class| serde_json::from_slice::<Value>(&class.bytes).ok());
    if class.is_some_and(|class| class["allowVolumeExpansion"] == true) {
        return Ok(());
    }
    Err(request.forbidden(
        "only dynamically provisioned pvc can be resized and the storageclass that provisions the pvc must support resize",
    ))
}
