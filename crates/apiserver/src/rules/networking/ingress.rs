//! What an `Ingress` may say (`pkg/apis/networking/validation/validation.go`).

use std::net::IpAddr;

use coracle_api::names;
use coracle_api::status::{FieldErrors, Path};
use serde_json::Value;

use crate::rules::json::Read;

/// Parts of a path by which one host could be mistaken for another.
const BAD_SEQUENCES: [&str; 5] = ["//", "/./", "/../", "%2f", "%2F"];
const BAD_SUFFIXES: [&str; 2] = ["/..", "/."];

/// How classes were named before there was a field for it.
const CLASS_ANNOTATION: &str = "kubernetes.io/ingress.class";

/// Checks an `Ingress`.
pub fn validate(ingress: &Value, errors: &mut FieldErrors) {
    let (spec, path) = (&ingress["spec"], Path::new("spec"));
    if spec["rules"].size() == 0 && !spec["defaultBackend"].is_set() {
        let detail = "either `defaultBackend` or `rules` must be specified";
        errors.invalid(&path, spec["rules"].clone(), detail);
    }
    if spec["defaultBackend"].is_set() {
        backend(&spec["defaultBackend"], &path.child("defaultBackend"), errors);
    }
    for (index, rule) in spec["rules"].items().iter().enumerate() {
        let at = path.child("rules").index(index);
        host(rule["host"].text(), &at.child("host"), errors);
        if rule["http"].is_set() {
            paths(&rule["http"]["paths"], &at.child("http").child("paths"), errors);
        }
    }
    for (index, tls) in spec["tls"].items().iter().enumerate() {
        let secret = tls["secretName"].text();
        if !secret.is_empty() {
            let at = path.child("tls").index(index).child("secretName");
            errors.invalid_each(at, secret, names::dns_subdomain(secret));
        }
        let at = path.child("tls").index(index).child("hosts");
        for (index, name) in tls["hosts"].items().iter().enumerate() {
            errors.invalid_each(at.index(index), name.text(), dns_or_wildcard(name.text()));
        }
    }
    let class = spec["ingressClassName"].text();
    if !class.is_empty() {
        errors.invalid_each(path.child("ingressClassName"), class, names::dns_subdomain(class));
    }
    let metadata = &ingress["metadata"];
    let annotation = &metadata["annotations"][CLASS_ANNOTATION];
    if metadata["resourceVersion"].text().is_empty()
        && annotation.is_set()
        && spec["ingressClassName"].is_set()
        && annotation.text() != class
    {
        let at = Path::new("annotations").child(CLASS_ANNOTATION);
        let detail = "must match `ingressClassName` when both are specified";
        errors.invalid(at, annotation.clone(), detail);
    }
}

fn dns_or_wildcard(name: &str) -> Vec<String> {
    if name.contains('*') {
        names::wildcard_dns_subdomain(name)
    } else {
        names::dns_subdomain(name)
    }
}

fn host(host: &str, path: &Path, errors: &mut FieldErrors) {
    if host.is_empty() {
        return;
    }
    if host.parse::<IpAddr>().is_ok() {
        errors.invalid(path, host, "must be a DNS name, not an IP address");
    }
    errors.invalid_each(path, host, dns_or_wildcard(host));
}

fn paths(paths: &Value, path: &Path, errors: &mut FieldErrors) {
    if paths.size() == 0 {
        errors.required(path, "");
    }
    for (index, entry) in paths.items().iter().enumerate() {
        let at = path.index(index);
        one_path(entry, &at, errors);
        backend(&entry["backend"], &at.child("backend"), errors);
    }
}

fn one_path(entry: &Value, at: &Path, errors: &mut FieldErrors) {
    let text = entry["path"].text();
    match entry["pathType"].text() {
        "" => errors.required(at.child("pathType"), "pathType must be specified"),
        "Exact" | "Prefix" => {
            if !text.starts_with('/') {
                errors.invalid(at.child("path"), text, "must be an absolute path");
            }
            for bad in BAD_SEQUENCES.into_iter().filter(|bad| text.contains(bad)) {
                errors.invalid(at.child("path"), text, format!("must not contain '{bad}'"));
            }
            for bad in BAD_SUFFIXES.into_iter().filter(|bad| text.ends_with(bad)) {
                errors.invalid(at.child("path"), text, format!("cannot end with '{bad}'"));
            }
        }
        "ImplementationSpecific" => {
            if !text.is_empty() && !text.starts_with('/') {
                errors.invalid(at.child("path"), text, "must be an absolute path");
            }
        }
        other => errors.not_supported(
            at.child("pathType"),
            other,
            &["Exact", "ImplementationSpecific", "Prefix"],
        ),
    }
}

fn backend(backend: &Value, path: &Path, errors: &mut FieldErrors) {
    let (service, resource) = (&backend["service"], &backend["resource"]);
    if service.is_set() && resource.is_set() {
        errors.invalid(path, "", "cannot set both resource and service backends");
        return;
    }
    if resource.is_set() {
        for field in ["kind", "name"] {
            if resource[field].text().is_empty() {
                errors.required(path.child("resource").child(field), "");
            }
        }
        return;
    }
    if !service.is_set() {
        errors.required(path, "port name or number is required");
        return;
    }
    let at = path.child("service");
    match service["name"].text() {
        "" => errors.required(at.child("name"), ""),
        name => errors.invalid_each(at.child("name"), name, names::dns_1035_label(name)),
    }
    let (name, number) = (service["port"]["name"].text(), &service["port"]["number"]);
    let port = at.child("port");
    match (name.is_empty(), number.int() != 0) {
        (true, false) => errors.required(path, "port name or number is required"),
        (false, true) => errors.invalid(path, "", "cannot set both port name & port number"),
        (false, false) => errors.invalid_each(port.child("name"), name, names::port_name(name)),
        (true, true) => {
            for message in names::port_number(number.int()) {
                errors.invalid(port.child("number"), number.clone(), message);
            }
        }
    }
}
