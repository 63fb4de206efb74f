//! `metadata`, whose rules are the same for all kinds but for the form of the name
//! (`apimachinery/pkg/api/validation/objectmeta.go`).

use coracle_api::kinds::Kind;
use coracle_api::names;
use coracle_api::status::{FieldErrors, Path};
use serde_json::Value;

use crate::rules::checks::{IMMUTABLE, immutable, labels, not_negative};
use crate::rules::json::Read;

/// All keys and values of annotations together.
const ANNOTATIONS_MAX_BYTES: usize = 256 * 1024;

/// Checks the metadata of a new object. CORE has set name (from `generateName`) and namespace before.
pub fn validate(kind: &Kind, object: &Value, errors: &mut FieldErrors) {
    let metadata = &object["metadata"];
    let path = Path::new("metadata");
    let check = name_rule(kind);
    let prefix = metadata["generateName"].text();
    if !prefix.is_empty() {
        errors.invalid_each(path.child("generateName"), prefix, names::as_prefix(prefix, check));
    }
    match metadata["name"].text() {
        "" => errors.required(path.child("name"), "name or generateName is required"),
        name => errors.invalid_each(path.child("name"), name, check(name)),
    }
    let namespace = metadata["namespace"].text();
    if kind.namespaced && namespace.is_empty() {
        errors.required(path.child("namespace"), "");
    } else if kind.namespaced {
        errors.invalid_each(path.child("namespace"), namespace, names::dns_label(namespace));
    } else if !namespace.is_empty() {
        errors.forbidden(path.child("namespace"), "not allowed on this type");
    }
    validate_rest(metadata, &path, errors);
}

/// Checks the metadata of a changed object: what identifies it stays, what users own is checked again.
pub fn validate_update(_kind: &Kind, new: &Value, old: &Value, errors: &mut FieldErrors) {
    let (new, old) = (&new["metadata"], &old["metadata"]);
    let path = Path::new("metadata");
    no_new_finalizers_while_deleting(new, old, &path, errors);
    for field in ["name", "namespace", "uid", "creationTimestamp"] {
        immutable(&new[field], &old[field], path.child(field), errors);
    }
    for field in ["deletionTimestamp", "deletionGracePeriodSeconds"] {
        // A deletion may have begun meanwhile: a writer who does not know it takes nothing back.
        if new[field].is_set() && new[field] != old[field] {
            errors.invalid(path.child(field), new[field].clone(), IMMUTABLE);
        }
    }
    if new["generation"].int() < old["generation"].int() {
        errors.invalid(
            path.child("generation"),
            new["generation"].clone(),
            "must not be decremented",
        );
    }
    validate_rest(new, &path, errors);
}

/// How names of this kind are formed.
pub fn name_rule(kind: &Kind) -> fn(&str) -> Vec<String> {
    match (kind.group, kind.kind) {
        ("", "Namespace") => names::dns_label,
        ("", "Service") => names::dns_1035_label,
        ("rbac.authorization.k8s.io", _) | ("apiregistration.k8s.io", _) => names::path_segment,
        ("networking.k8s.io", "IPAddress") => names::ip_address,
        // A set's name and an ordinal are the host name of a pod.
        ("apps", "StatefulSet") => names::dns_label,
        // Requests are named as their makers like; bundles after their signer, whose name has other signs.
        ("certificates.k8s.io", "CertificateSigningRequest" | "ClusterTrustBundle") => {
            names::path_segment
        }
        // A pod template hash and an ordinal follow the name of a set; together they name pods.
        _ => names::dns_subdomain,
    }
}

fn validate_rest(metadata: &Value, path: &Path, errors: &mut FieldErrors) {
    not_negative(&metadata["generation"], path.child("generation"), errors);
    labels(&metadata["labels"], &path.child("labels"), errors);
    annotations(&metadata["annotations"], &path.child("annotations"), errors);
    owners(&metadata["ownerReferences"], &path.child("ownerReferences"), errors);
    finalizers(&metadata["finalizers"], &path.child("finalizers"), errors);
}

/// Keys of annotations are checked in lower case, so that they may have capitals in their prefix.
pub fn annotations(annotations: &Value, path: &Path, errors: &mut FieldErrors) {
    let mut bytes = 0;
    for (key, value) in annotations.entries() {
        errors.invalid_each(path, key, names::qualified_name(&key.to_lowercase()));
        bytes += key.len() + value.text().len();
    }
    if bytes > ANNOTATIONS_MAX_BYTES {
        errors.too_long(path, ANNOTATIONS_MAX_BYTES);
    }
}

fn owners(references: &Value, path: &Path, errors: &mut FieldErrors) {
    let mut controller: Option<&str> = None;
    for (index, reference) in references.items().iter().enumerate() {
        let at = path.index(index);
        let (_, version) = coracle_api::kinds::split_api_version(reference["apiVersion"].text());
        if version.is_empty() {
            errors.invalid(
                at.child("apiVersion"),
                reference["apiVersion"].text(),
                "version must not be empty",
            );
        }
        for field in ["kind", "name", "uid"] {
            if reference[field].text().is_empty() {
                errors.invalid(at.child(field), reference[field].text(), "must not be empty");
            }
        }
        if reference["kind"] == "Event" && reference["apiVersion"] == "v1" {
            errors.invalid(
                path,
                reference.clone(),
                "/v1, Kind=Event is disallowed from being an owner",
            );
        }
        if !reference["controller"].flag() {
            continue;
        }
        let name = reference["name"].text();
        match controller {
            None => controller = Some(name),
            Some(first) => {
                let detail = format!(
                    "Only one reference can have Controller set to true. Found \"true\" in references for {first} and {name}"
                );
                errors.invalid(path, references.clone(), detail);
            }
        }
    }
}

fn finalizers(finalizers: &Value, path: &Path, errors: &mut FieldErrors) {
    let has = |name: &str| finalizers.items().iter().any(|finalizer| finalizer == name);
    for finalizer in finalizers.items() {
        errors.invalid_each(path, finalizer.text(), names::qualified_name(finalizer.text()));
    }
    if has("orphan") && has("foregroundDeletion") {
        errors.invalid(
            path,
            finalizers.clone(),
            "finalizer orphan and foregroundDeletion cannot be both set",
        );
    }
}

fn no_new_finalizers_while_deleting(
    new: &Value,
    old: &Value,
    path: &Path,
    errors: &mut FieldErrors,
) {
    if !old["deletionTimestamp"].is_set() {
        return;
    }
    let mut extra: Vec<&str> = new["finalizers"]
        .items()
        .iter()
        .filter(|name| !old["finalizers"].items().contains(name))
        .map(Read::text)
        .collect();
    if !extra.is_empty() {
        extra.sort_unstable();
        let extra: Vec<String> = extra.into_iter().map(coracle_api::status::go_quote).collect();
        let detail = format!(
            "no new finalizers can be added if the object is being deleted, found new finalizers []string{{{}}}",
            extra.join(", ")
        );
        errors.forbidden(path.child("finalizers"), detail);
    }
}
