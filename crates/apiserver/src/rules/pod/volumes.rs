//! The volumes of a pod.

use coracle_api::names;
use coracle_api::quantity::Quantity;
use coracle_api::status::{FieldErrors, Path};
use serde_json::Value;

use crate::rules::checks::{one_of, required, unique};
use crate::rules::claim;
use crate::rules::csi::driver_name;
use crate::rules::json::Read;
use crate::rules::pod::environment;

const MODES: &str = "must be a number between 0 and 0777 (octal), both inclusive";
/// The shortest life of a projected token: ten minutes.
const TOKEN_MIN_SECONDS: i64 = 600;
const TOKEN_MAX_SECONDS: i64 = 1 << 32;

/// Checks the volumes, and returns those that mounts may name.
pub fn validate<'v>(volumes: &'v Value, path: &Path, errors: &mut FieldErrors) -> Vec<&'v Value> {
    let mut seen = Vec::new();
    for (index, volume) in volumes.items().iter().enumerate() {
        let at = path.index(index);
        source(volume, &at, errors);
        let name = volume["name"].text();
        if name.is_empty() {
            errors.required(at.child("name"), "");
        } else {
            errors.invalid_each(at.child("name"), name, names::dns_label(name));
        }
        unique(&mut seen, name, at.child("name"), errors);
    }
    volumes.items().iter().collect()
}

fn source(volume: &Value, path: &Path, errors: &mut FieldErrors) {
    let mut sources =
        volume.entries().filter(|(field, source)| *field != "name" && source.is_set());
    let Some((kind, source)) = sources.next() else {
        errors.required(path, "must specify a volume type");
        return;
    };
    for (field, _) in sources {
        errors.forbidden(path.child(field), "may not specify more than 1 volume type");
    }
    validate_source(kind, source, &path.child(kind), errors);
}

/// Checks one source of a volume; a `PersistentVolume` has some of the same.
pub fn validate_source(kind: &str, source: &Value, path: &Path, errors: &mut FieldErrors) {
    match kind {
        "emptyDir" => {
            let limit = &source["sizeLimit"];
            if limit.is_set() && Quantity::from_value(limit).is_ok_and(|limit| limit.is_negative())
            {
                errors.forbidden(
                    path.child("sizeLimit"),
                    "SizeLimit field must be a valid resource quantity",
                );
            }
        }
        "hostPath" => {
            required(&source["path"], path.child("path"), errors);
            no_backsteps(source["path"].text(), path.child("path"), errors);
            let types = [
                "",
                "BlockDevice",
                "CharDevice",
                "Directory",
                "DirectoryOrCreate",
                "File",
                "FileOrCreate",
                "Socket",
            ];
            one_of(&source["type"], &types, path.child("type"), errors);
        }
        "secret" => {
            required(&source["secretName"], path.child("secretName"), errors);
            modes_and_items(source, path, errors);
        }
        "configMap" => {
            required(&source["name"], path.child("name"), errors);
            modes_and_items(source, path, errors);
        }
        "persistentVolumeClaim" => required(&source["claimName"], path.child("claimName"), errors),
        "downwardAPI" => {
            mode(&source["defaultMode"], path.child("defaultMode"), errors);
            downward(source, path, errors);
        }
        "projected" => projected(source, path, errors),
        "nfs" => {
            required(&source["server"], path.child("server"), errors);
            required(&source["path"], path.child("path"), errors);
            if !source["path"].text().starts_with('/') && !source["path"].text().is_empty() {
                errors.invalid(
                    path.child("path"),
                    source["path"].clone(),
                    "must be an absolute path",
                );
            }
        }
        "csi" => csi(source, path, errors),
        "ephemeral" => ephemeral(source, path, errors),
        "image" => {
            required(&source["reference"], path.child("reference"), errors);
            one_of(
                &source["pullPolicy"],
                &["Always", "IfNotPresent", "Never"],
                path.child("pullPolicy"),
                errors,
            );
        }
        _ => of_others(kind, source, path, errors),
    }
}

fn csi(source: &Value, path: &Path, errors: &mut FieldErrors) {
    driver_name(&source["driver"], &path.child("driver"), errors);
    let secret = &source["nodePublishSecretRef"];
    if secret.is_set() {
        required(&secret["name"], path.child("nodePublishSecretRef").child("name"), errors);
    }
}

/// What the sources of others' storage must say.
const REQUIRED: [(&str, &[&str]); 15] = [
    ("awsElasticBlockStore", &["volumeID"]),
    ("azureDisk", &["diskName", "diskURI"]),
    ("azureFile", &["secretName", "shareName"]),
    ("cephfs", &["monitors"]),
    ("cinder", &["volumeID"]),
    ("flexVolume", &["driver"]),
    ("gcePersistentDisk", &["pdName"]),
    ("gitRepo", &["repository"]),
    ("glusterfs", &["endpoints", "path"]),
    ("iscsi", &["targetPortal", "iqn"]),
    ("local", &["path"]),
    ("photonPersistentDisk", &["pdID"]),
    ("portworxVolume", &["volumeID"]),
    ("rbd", &["monitors", "image"]),
    ("vsphereVolume", &["volumePath"]),
];

fn of_others(kind: &str, source: &Value, path: &Path, errors: &mut FieldErrors) {
    let fields = REQUIRED.iter().find(|(known, _)| *known == kind);
    for field in fields.into_iter().flat_map(|(_, fields)| *fields) {
        required(&source[*field], path.child(field), errors);
    }
    for field in ["partition", "lun"] {
        let number = &source[field];
        if number.is_number() && !(0..=255).contains(&number.int()) {
            let detail = names::in_range(number.int(), 0, 255).concat();
            errors.invalid(path.child(field), number.clone(), detail);
        }
    }
    if kind == "local" {
        no_backsteps(source["path"].text(), path.child("path"), errors);
    }
}

fn ephemeral(source: &Value, path: &Path, errors: &mut FieldErrors) {
    let at = path.child("volumeClaimTemplate");
    if source["volumeClaimTemplate"].is_set() {
        claim::validate_spec(&source["volumeClaimTemplate"]["spec"], &at.child("spec"), errors);
    } else {
        errors.required(at, "");
    }
}

fn modes_and_items(source: &Value, path: &Path, errors: &mut FieldErrors) {
    mode(&source["defaultMode"], path.child("defaultMode"), errors);
    items(source, path, errors);
}

fn items(source: &Value, path: &Path, errors: &mut FieldErrors) {
    for (index, item) in source["items"].items().iter().enumerate() {
        let at = path.child("items").index(index);
        required(&item["key"], at.child("key"), errors);
        required(&item["path"], at.child("path"), errors);
        relative(item["path"].text(), at.child("path"), errors);
        mode(&item["mode"], at.child("mode"), errors);
    }
}

fn mode(mode: &Value, path: Path, errors: &mut FieldErrors) {
    if mode.is_set() && !(0..=0o777).contains(&mode.int()) {
        errors.invalid(path, mode.clone(), MODES);
    }
}

fn downward(source: &Value, path: &Path, errors: &mut FieldErrors) {
    for (index, item) in source["items"].items().iter().enumerate() {
        let at = path.child("items").index(index);
        required(&item["path"], at.child("path"), errors);
        relative(item["path"].text(), at.child("path"), errors);
        let (field, resource) = (&item["fieldRef"], &item["resourceFieldRef"]);
        if field.is_set() {
            environment::field_ref(
                field,
                &environment::VOLUME_FIELDS,
                &at.child("fieldRef"),
                errors,
            );
            if resource.is_set() {
                errors.invalid(
                    path,
                    "resource",
                    "fieldRef and resourceFieldRef can not be specified simultaneously",
                );
            }
        } else if resource.is_set() {
            required(
                &resource["containerName"],
                at.child("resourceFieldRef").child("containerName"),
                errors,
            );
            environment::resource_ref(resource, &at.child("resourceFieldRef"), errors);
        } else {
            errors.required(path, "one of fieldRef and resourceFieldRef is required");
        }
        mode(&item["mode"], at.child("mode"), errors);
    }
}

fn projected(source: &Value, path: &Path, errors: &mut FieldErrors) {
    mode(&source["defaultMode"], path.child("defaultMode"), errors);
    let mut paths: Vec<&str> = Vec::new();
    for (index, entry) in source["sources"].items().iter().enumerate() {
        let at = path.child("sources").index(index);
        let mut kinds = entry.entries().filter(|(_, value)| value.is_set());
        let Some((kind, projection)) = kinds.next() else {
            errors.required(&at, "must specify a volume type");
            continue;
        };
        for (other, _) in kinds {
            errors.forbidden(at.child(other), "may not specify more than 1 volume type");
        }
        let at = at.child(kind);
        match kind.as_str() {
            "secret" | "configMap" => {
                required(&projection["name"], at.child("name"), errors);
                items(projection, &at, errors);
            }
            "downwardAPI" => downward(projection, &at, errors),
            "serviceAccountToken" => token(projection, &at, errors),
            "clusterTrustBundle" => required(&projection["path"], at.child("path"), errors),
            _ => (),
        }
        let listed = projection["items"].items().iter().map(|item| item["path"].text());
        for target in listed.chain(projection["path"].as_str()) {
            if paths.contains(&target) {
                errors.invalid(
                    path.child("sources").index(index),
                    target,
                    "conflicting duplicate paths",
                );
            }
            paths.push(target);
        }
    }
}

fn token(token: &Value, path: &Path, errors: &mut FieldErrors) {
    let seconds = &token["expirationSeconds"];
    if seconds.is_set() && seconds.int() < TOKEN_MIN_SECONDS {
        errors.invalid(
            path.child("expirationSeconds"),
            seconds.clone(),
            "may not specify a duration less than 10 minutes",
        );
    }
    if seconds.int() > TOKEN_MAX_SECONDS {
        let detail = "may not specify a duration larger than 2^32 seconds";
        errors.invalid(path.child("expirationSeconds"), seconds.clone(), detail);
    }
    required(&token["path"], path.child("path"), errors);
    relative(token["path"].text(), path.child("path"), errors);
}

/// A path within the volume that does not climb out of it.
fn relative(target: &str, path: Path, errors: &mut FieldErrors) {
    descending(target, path.clone(), errors);
    if target.starts_with("..") && !target.starts_with("../") {
        errors.invalid(path, target, "must not start with '..'");
    }
}

/// A path below some other.
pub fn descending(target: &str, path: Path, errors: &mut FieldErrors) {
    if target.starts_with('/') {
        errors.invalid(&path, target, "must be a relative path");
    }
    no_backsteps(target, path, errors);
}

fn no_backsteps(target: &str, path: Path, errors: &mut FieldErrors) {
    if target.split('/').any(|part| part == "..") {
        errors.invalid(path, target, "must not contain '..'");
    }
}
