//! The devices that a pod claims, and which container gets which.

use coracle_api::names;
use coracle_api::status::{FieldErrors, Path};
use serde_json::Value;

use crate::rules::checks::unique;
use crate::rules::json::Read;

/// Checks `resourceClaims` of a pod and the `resources.claims` of its containers.
pub fn validate(spec: &Value, path: &Path, errors: &mut FieldErrors) {
    let at = path.child("resourceClaims");
    let mut known = Vec::new();
    for (index, claim) in spec["resourceClaims"].items().iter().enumerate() {
        let at = at.index(index);
        match claim["name"].text() {
            "" => errors.required(at.child("name"), ""),
            name => errors.invalid_each(at.child("name"), name, names::dns_label(name)),
        }
        unique(&mut known, claim["name"].text(), at.child("name"), errors);
        source(claim, &at, errors);
    }
    for list in ["containers", "initContainers"] {
        for (index, container) in spec[list].items().iter().enumerate() {
            let at = path.child(list).index(index).child("resources").child("claims");
            used(&container["resources"]["claims"], &known, &at, errors);
        }
    }
}

fn source(claim: &Value, path: &Path, errors: &mut FieldErrors) {
    let fields = ["resourceClaimName", "resourceClaimTemplateName"];
    let given = fields.iter().filter(|field| claim[**field].is_set());
    match given.count() {
        0 => {
            let detail = "must specify one of: `resourceClaimName`, `resourceClaimTemplateName`";
            errors.invalid(path, claim.clone(), detail);
        }
        1 => (),
        _ => {
            let detail = "at most one of `resourceClaimName` or `resourceClaimTemplateName` may be specified";
            errors.invalid(path, claim.clone(), detail);
        }
    }
    for field in fields {
        if claim[field].is_set() {
            let name = claim[field].text();
            errors.invalid_each(path.child(field), name, names::dns_subdomain(name));
        }
    }
}

fn used(claims: &Value, known: &[&str], path: &Path, errors: &mut FieldErrors) {
    let mut seen: Vec<(&str, &str)> = Vec::new();
    for (index, claim) in claims.items().iter().enumerate() {
        let at = path.index(index);
        let (name, request) = (claim["name"].text(), claim["request"].text());
        if name.is_empty() {
            errors.required(at.child("name"), "");
            continue;
        }
        if seen.contains(&(name, request)) {
            errors.duplicate(&at, name);
        }
        seen.push((name, request));
        if !known.contains(&name) {
            errors.not_found(at, name);
        }
    }
}
