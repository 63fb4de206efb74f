//! Probes and lifecycle hooks.

use coracle_api::names;
use coracle_api::status::{FieldErrors, Path};
use serde_json::Value;

use crate::rules::checks::{NEGATIVE, not_negative, one_of, port_number_or_name, required};
use crate::rules::json::Read;

const MORE_THAN_ONE: &str = "may not specify more than 1 handler type";

/// Checks a probe, if there.
pub fn validate(name: &str, probe: &Value, path: &Path, errors: &mut FieldErrors) {
    if !probe.is_set() {
        return;
    }
    handler(probe, path, errors);
    for field in [
        "initialDelaySeconds",
        "timeoutSeconds",
        "periodSeconds",
        "successThreshold",
        "failureThreshold",
    ] {
        not_negative(&probe[field], path.child(field), errors);
    }
    let grace = &probe["terminationGracePeriodSeconds"];
    if name == "readinessProbe" {
        if grace.is_set() {
            errors.invalid(
                path.child("terminationGracePeriodSeconds"),
                grace.clone(),
                "must not be set for readinessProbes",
            );
        }
        return;
    }
    if grace.is_set() && grace.int() <= 0 {
        errors.invalid(
            path.child("terminationGracePeriodSeconds"),
            grace.clone(),
            "must be greater than 0",
        );
    }
    if probe["successThreshold"].int() != 1 {
        errors.invalid(
            path.child("successThreshold"),
            probe["successThreshold"].int(),
            "must be 1",
        );
    }
}

/// Checks what a probe or hook does: exactly one thing.
pub fn handler(handler: &Value, path: &Path, errors: &mut FieldErrors) {
    let mut handlers = 0;
    for kind in ["exec", "httpGet", "tcpSocket", "grpc", "sleep"] {
        let action = &handler[kind];
        if !action.is_set() {
            continue;
        }
        handlers += 1;
        let at = path.child(kind);
        if handlers > 1 {
            errors.forbidden(at, MORE_THAN_ONE);
            continue;
        }
        match kind {
            "exec" if action["command"].size() == 0 => errors.required(at.child("command"), ""),
            "httpGet" => http_get(action, &at, errors),
            "tcpSocket" | "grpc" => port_number_or_name(&action["port"], &at.child("port"), errors),
            "sleep" if action["seconds"].int() < 0 => {
                errors.invalid(at.child("seconds"), action["seconds"].clone(), NEGATIVE);
            }
            _ => (),
        }
    }
    if handlers == 0 {
        errors.required(path, "must specify a handler type");
    }
}

fn http_get(action: &Value, path: &Path, errors: &mut FieldErrors) {
    required(&action["path"], path.child("path"), errors);
    port_number_or_name(&action["port"], &path.child("port"), errors);
    one_of(&action["scheme"], &["HTTP", "HTTPS"], path.child("scheme"), errors);
    for header in action["httpHeaders"].items() {
        let name = header["name"].text();
        errors.invalid_each(path.child("httpHeaders"), name, names::http_header(name));
    }
}
