//! What most kinds share: `status` belongs to controllers, the rest to users.

use serde_json::Value;

use crate::rules::json::{Read, is_zero, set, unset};

/// A creator may not set `status`.
pub fn drop_status(new: &mut Value) {
    unset(new, "status");
}

/// A creator may not set `status`: the object starts with this one.
pub fn start_status(new: &mut Value, status: Value) {
    set(new, "status", status);
}

/// An update of the main resource leaves `status` as it was.
pub fn keep_status(new: &mut Value, old: &Value) {
    carry(new, old, "status");
}

/// An update of `status` changes nothing else, but for some metadata that controllers may write along with it.
pub fn take_status(new: &mut Value, old: &Value) {
    let Some(object) = new.as_object_mut() else { return };
    object.retain(|name, _| !is_wanted(name));
    for (name, value) in old.entries() {
        if is_wanted(name) {
            object.insert(name.clone(), value.clone());
        }
    }
}

/// As [`take_status`], and labels stay as they were.
pub fn take_status_keep_labels(new: &mut Value, old: &Value) {
    take_status(new, old);
    if let Some(metadata) = new.get_mut("metadata") {
        carry(metadata, &old["metadata"], "labels");
    }
}

/// As [`take_status`], and the owners stay as they were.
pub fn take_status_keep_owners(new: &mut Value, old: &Value) {
    take_status(new, old);
    if let Some(metadata) = new.get_mut("metadata") {
        carry(metadata, &old["metadata"], "ownerReferences");
    }
}

/// Puts the old state of a field in the new object, or takes the field away if there was none.
pub fn carry(new: &mut Value, old: &Value, field: &str) {
    let Some(object) = new.as_object_mut() else { return };
    match old.get(field) {
        Some(value) => drop(object.insert(field.to_owned(), value.clone())),
        None => drop(object.remove(field)),
    }
}

/// Whether anything but metadata and status differs. That a pod was given a node is no change of what is wanted.
pub fn wanted_differs(new: &Value, old: &Value) -> bool {
    if old["kind"] == "Pod" && is_zero(&old["spec"]["nodeName"]) && new["spec"]["nodeName"].is_set()
    {
        let mut unbound = new.clone();
        carry(&mut unbound["spec"], &old["spec"], "nodeName");
        return wanted_differs(&unbound, old);
    }
    let differs = |one: &Value, other: &Value| {
        one.entries().any(|(name, value)| is_wanted(name) && !same(value, &other[name.as_str()]))
    };
    differs(new, old) || differs(old, new)
}

/// Whether two values mean the same: absent and empty do, as in upstream's semantic equality.
pub fn same(one: &Value, other: &Value) -> bool {
    match (one, other) {
        (Value::Object(ones), Value::Object(others)) => {
            ones.iter().all(|(name, value)| same(value, others.get(name).unwrap_or(&Value::Null)))
                && others
                    .iter()
                    .all(|(name, value)| ones.contains_key(name) || same(value, &Value::Null))
        }
        (Value::Array(ones), Value::Array(others)) => {
            ones.len() == others.len()
                && ones.iter().zip(others).all(|(one, other)| same(one, other))
        }
        (Value::Null, Value::Array(items)) | (Value::Array(items), Value::Null) => items.is_empty(),
        (Value::Null, Value::Object(entries)) | (Value::Object(entries), Value::Null) => {
            entries.is_empty()
        }
        (Value::Null, Value::String(text)) | (Value::String(text), Value::Null) => text.is_empty(),
        _ => one == other,
    }
}

/// Whether upstream's strategy for this kind sets `metadata.generation`.
pub fn has_generation(group: &str, kind: &str) -> bool {
    match group {
        "" => matches!(kind, "Pod" | "PodTemplate" | "ReplicationController"),
        "apps" => kind != "ControllerRevision",
        "batch" | "policy" | "flowcontrol.apiserver.k8s.io" | "apiextensions.k8s.io" => true,
        "admissionregistration.k8s.io" | "discovery.k8s.io" => true,
        "networking.k8s.io" => matches!(kind, "Ingress" | "NetworkPolicy" | "IngressClass"),
        "scheduling.k8s.io" => kind == "PriorityClass",
        "storage.k8s.io" => kind == "CSIDriver",
        "resource.k8s.io" => matches!(kind, "DeviceClass" | "ResourceSlice" | "DeviceTaintRule"),
        _ => false,
    }
}

fn is_wanted(field: &str) -> bool {
    !matches!(field, "status" | "metadata" | "apiVersion" | "kind")
}
