//! What most kinds share: `status` belongs to controllers, the rest to users.

use serde_json::Value;

/// A creator may not set `status`.
pub fn drop_status(new: &mut Value) {
    if let Some(object) = new.as_object_mut() {
        object.remove("status");
    }
}

/// An update of the main resource leaves `status` as it was.
pub fn keep_status(new: &mut Value, old: &Value) {
    carry(new, old, "status");
}

/// An update of `status` changes nothing else, but for some metadata that controllers may write along with it.
pub fn take_status(new: &mut Value, old: &Value) {
    let Some(object) = new.as_object_mut() else { return };
    object.retain(|name, _| matches!(name.as_str(), "status" | "metadata" | "apiVersion" | "kind"));
    for (name, value) in old.as_object().into_iter().flatten() {
        if !matches!(name.as_str(), "status" | "metadata" | "apiVersion" | "kind") {
            object.insert(name.clone(), value.clone());
        }
    }
}

/// Puts the old state of a top-level field in the new object, or takes the field away if there was none.
pub fn carry(new: &mut Value, old: &Value, field: &str) {
    let Some(object) = new.as_object_mut() else { return };
    match old.get(field) {
        Some(value) => drop(object.insert(field.to_owned(), value.clone())),
        None => drop(object.remove(field)),
    }
}

/// Whether anything but metadata and status differs.
pub fn wanted_differs(new: &Value, old: &Value) -> bool {
    let wanted = |object: &Value| -> Vec<(String, Value)> {
        let fields = object.as_object().into_iter().flatten();
        let fields = fields.filter(|(name, _)| !matches!(name.as_str(), "status" | "metadata" | "apiVersion" | "kind"));
        fields.map(|(name, value)| (name.clone(), value.clone())).collect()
    };
    wanted(new) != wanted(old)
}

/// Whether upstream's strategy for this kind sets `metadata.generation`.
pub fn has_generation(group: &str, kind: &str) -> bool {
    match group {
        "" => matches!(kind, "Pod" | "ReplicationController"),
        "apps" => kind != "ControllerRevision",
        "batch" | "networking.k8s.io" | "policy" | "flowcontrol.apiserver.k8s.io" | "apiextensions.k8s.io" => true,
        "admissionregistration.k8s.io" => true,
        "scheduling.k8s.io" => kind == "PriorityClass",
        "discovery.k8s.io" => true,
        _ => false,
    }
}
