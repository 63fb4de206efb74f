//! Where a container finds its volumes: mounts and devices.

use coracle_api::status::{FieldErrors, Path};
use serde_json::Value;

use crate::rules::checks::one_of;
use crate::rules::json::Read;
use crate::rules::pod::volumes;

/// Checks `volumeMounts` and `volumeDevices` of a container.
pub fn validate(container: &Value, volumes: &[&Value], path: &Path, errors: &mut FieldErrors) {
    mounts(container, volumes, &path.child("volumeMounts"), errors);
    devices(container, volumes, &path.child("volumeDevices"), errors);
}

fn mounts(container: &Value, volumes: &[&Value], path: &Path, errors: &mut FieldErrors) {
    let mut points: Vec<&str> = Vec::new();
    let devices = container["volumeDevices"].items();
    for (index, mount) in container["volumeMounts"].items().iter().enumerate() {
        let at = path.index(index);
        let (name, point) = (mount["name"].text(), mount["mountPath"].text());
        if name.is_empty() {
            errors.required(at.child("name"), "");
        }
        if !volumes.iter().any(|volume| volume["name"] == name) {
            errors.not_found(at.child("name"), name);
        }
        if point.is_empty() {
            errors.required(at.child("mountPath"), "");
        }
        if points.contains(&point) {
            errors.invalid(at.child("mountPath"), point, "must be unique");
        }
        points.push(point);
        if !name.is_empty() && devices.iter().any(|device| device["name"] == name) {
            errors.invalid(at.child("name"), name, "must not already exist in volumeDevices");
        }
        if devices.iter().any(|device| device["devicePath"] == point) {
            let detail = "must not already exist as a path in volumeDevices";
            errors.invalid(at.child("mountPath"), point, detail);
        }
        for field in ["subPath", "subPathExpr"] {
            volumes::descending(mount[field].text(), path.child(field), errors);
        }
        if !mount["subPath"].text().is_empty() && !mount["subPathExpr"].text().is_empty() {
            let detail = "subPathExpr and subPath are mutually exclusive";
            errors.invalid(at.child("subPathExpr"), mount["subPathExpr"].clone(), detail);
        }
        propagation(&mount["mountPropagation"], container, &at.child("mountPropagation"), errors);
        recursively_read_only(mount, &at.child("recursiveReadOnly"), errors);
    }
}

fn propagation(mode: &Value, container: &Value, path: &Path, errors: &mut FieldErrors) {
    if !mode.is_set() {
        return;
    }
    if mode == "Bidirectional" && !container["securityContext"]["privileged"].flag() {
        let detail = "Bidirectional mount propagation is available only to privileged containers";
        errors.forbidden(path, detail);
    }
    if !matches!(mode.text(), "Bidirectional" | "HostToContainer" | "None") {
        errors.not_supported(path, mode.clone(), &["Bidirectional", "HostToContainer", "None"]);
    }
}

fn recursively_read_only(mount: &Value, path: &Path, errors: &mut FieldErrors) {
    let mode = &mount["recursiveReadOnly"];
    if !mode.is_set() {
        return;
    }
    one_of(mode, &["Disabled", "Enabled", "IfPossible"], path, errors);
    if !matches!(mode.text(), "Enabled" | "IfPossible") {
        return;
    }
    if !mount["readOnly"].flag() {
        errors.forbidden(path, "may only be specified when readOnly is true");
    }
    if !matches!(mount["mountPropagation"].text(), "" | "None") {
        let detail = "may only be specified when mountPropagation is None or not specified";
        errors.forbidden(path, detail);
    }
}

fn devices(container: &Value, volumes: &[&Value], path: &Path, errors: &mut FieldErrors) {
    let (mut names, mut places): (Vec<&str>, Vec<&str>) = (Vec::new(), Vec::new());
    for (index, device) in container["volumeDevices"].items().iter().enumerate() {
        let at = path.index(index);
        let (name, place) = (device["name"].text(), device["devicePath"].text());
        match volumes.iter().find(|volume| volume["name"] == name) {
            _ if name.is_empty() => errors.required(at.child("name"), ""),
            Some(volume)
                if !volume["persistentVolumeClaim"].is_set() && !volume["ephemeral"].is_set() =>
            {
                let detail = "can only use volume source type of PersistentVolumeClaim or Ephemeral for block mode";
                errors.invalid(at.child("name"), name, detail);
            }
            Some(_) => (),
            None => errors.not_found(at.child("name"), name),
        }
        if names.contains(&name) {
            errors.invalid(at.child("name"), name, "must be unique");
        }
        names.push(name);
        if place.is_empty() {
            errors.required(at.child("devicePath"), "");
        } else if places.contains(&place) {
            errors.invalid(at.child("devicePath"), place, "must be unique");
        }
        places.push(place);
        if place.split('/').any(|part| part == "..") {
            errors.invalid(at.child("devicePath"), place, "must not contain '..'");
        }
    }
}
