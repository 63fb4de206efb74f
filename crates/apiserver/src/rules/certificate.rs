//! `CertificateSigningRequest`: what may be asked for, and which conditions may come and go.
//!
//! As upstream's `pkg/apis/certificates/validation` and `pkg/registry/certificates/certificates/strategy.go`.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use coracle_api::certificates::{Request, pem_blocks};
use coracle_api::status::{FieldErrors, Path};
use serde_json::{Value, json};

use crate::object;
use crate::rules::json::{Read, set};
use crate::rules::{Rules, generic};

const USAGES: [&str; 23] = [
    "any",
    "cert sign",
    "client auth",
    "code signing",
    "content commitment",
    "crl sign",
    "data encipherment",
    "decipher only",
    "digital signature",
    "email protection",
    "encipher only",
    "ipsec end system",
    "ipsec tunnel",
    "ipsec user",
    "key agreement",
    "key encipherment",
    "microsoft sgc",
    "netscape sgc",
    "ocsp signing",
    "s/mime",
    "server auth",
    "signing",
    "timestamping",
];
/// The shortest life of a certificate: ten minutes.
const MIN_SECONDS: i64 = 600;

/// Conditions that end a request's way, or a part of it: they are true, or not there.
const FINAL: [&str; 3] = ["Approved", "Denied", "Failed"];
const LEGACY_UNKNOWN: &str = "kubernetes.io/legacy-unknown";

pub static RULES: Rules = Rules {
    prepare_create: |request| generic::start_status(request, json!({})),
    // What was requested, by whom, is fixed.
    prepare_update: |new, old| {
        generic::keep_status(new, old);
        generic::carry(new, old, "spec");
    },
    prepare_status_update: |new, old| {
        generic::take_status(new, old);
        date_conditions(new, old);
    },
    validate,
    validate_update: conditions_stay,
    validate_status_update: |new, old, errors| {
        validate(new, errors);
        conditions_stay(new, old, errors);
        approval_stays(new, old, errors);
        let certificate = |request: &Value| request["status"]["certificate"].text().to_owned();
        if !certificate(old).is_empty() && certificate(new) != certificate(old) {
            errors.forbidden(
                "status.certificate",
                "updates may not modify existing certificate content",
            );
        }
    },
    fields: |request| vec![("spec.signerName", request["spec"]["signerName"].text().to_owned())],
    ..Rules::GENERIC
};

/// The new state of a request whose `approval` was written: all but what was asked for and the certificate.
pub(crate) fn approve(wanted: &Value, old: &Value) -> Value {
    let mut new = wanted.clone();
    generic::carry(&mut new, old, "spec");
    if let Some(metadata) = new.get_mut("metadata") {
        generic::carry(metadata, &old["metadata"], "name");
    }
    if let Some(status) = new.get_mut("status") {
        generic::carry(status, &old["status"], "certificate");
    } else {
        set(&mut new, "status", json!({}));
        generic::carry(&mut new["status"], &old["status"], "certificate");
    }
    date_conditions(&mut new, old);
    new
}

/// Checks a write of `approval`.
pub(crate) fn validate_approval(new: &Value, old: &Value, errors: &mut FieldErrors) {
    validate(new, errors);
    conditions_stay(new, old, errors);
}

/// Dates the conditions whose times were left out; one that says what it said before keeps its time.
fn date_conditions(new: &mut Value, old: &Value) {
    let now = object::now();
    let Some(conditions) = new.pointer_mut("/status/conditions").and_then(Value::as_array_mut)
    else {
        return;
    };
    for condition in conditions {
        if condition["lastUpdateTime"].text().is_empty() {
            set(condition, "lastUpdateTime", now.as_str());
        }
        if condition["lastTransitionTime"].text().is_empty() {
            let same = old["status"]["conditions"].items().iter().find(|other| {
                other["type"] == condition["type"] && other["status"] == condition["status"]
            });
            let since = same.map(|other| other["lastTransitionTime"].text());
            let since = since.filter(|time| !time.is_empty()).unwrap_or(&now).to_owned();
            set(condition, "lastTransitionTime", since);
        }
    }
}

fn validate(request: &Value, errors: &mut FieldErrors) {
    let (spec, path) = (&request["spec"], Path::new("spec"));
    let asked = STANDARD.decode(spec["request"].text()).unwrap_or_default();
    if let Err(error) = Request::from_pem(&asked) {
        errors.invalid(path.child("request"), spec["request"].clone(), error.to_string());
    }
    if spec["usages"].size() == 0 {
        errors.required(path.child("usages"), "");
    }
    for (index, usage) in spec["usages"].items().iter().enumerate() {
        let place = path.child("usages").index(index);
        if !USAGES.contains(&usage.text()) {
            errors.not_supported(place.clone(), usage.clone(), &USAGES);
        }
        if spec["usages"].items()[..index].contains(usage) {
            errors.duplicate(place, usage.clone());
        }
    }
    let name = spec["signerName"].text();
    if name == LEGACY_UNKNOWN {
        errors.invalid(
            path.child("signerName"),
            name,
            "the legacy signerName is not allowed via this API version",
        );
    } else {
        signer(name, &path.child("signerName"), errors);
    }
    let seconds = &spec["expirationSeconds"];
    if seconds.is_set() && seconds.int() < MIN_SECONDS {
        errors.invalid(
            path.child("expirationSeconds"),
            seconds.clone(),
            "may not specify a duration less than 600 seconds (10 minutes)",
        );
    }
    conditions(&request["status"]["conditions"], errors);
    certificate(&request["status"]["certificate"], errors);
}

fn conditions(conditions: &Value, errors: &mut FieldErrors) {
    let path = Path::new("status").child("conditions");
    let mut seen: Vec<&str> = Vec::new();
    for (index, condition) in conditions.items().iter().enumerate() {
        let place = path.index(index);
        let kind = condition["type"].text();
        if kind.is_empty() {
            errors.required(place.child("type"), "");
        }
        let allowed: &[&str] =
            if FINAL.contains(&kind) { &["True"] } else { &["False", "True", "Unknown"] };
        match condition["status"].text() {
            "" => errors.required(place.child("status"), ""),
            status if !allowed.contains(&status) => {
                errors.not_supported(place.child("status"), status, allowed);
            }
            _ => (),
        }
        let opposite = match kind {
            "Approved" => "Denied",
            "Denied" => "Approved",
            _ => "",
        };
        if !opposite.is_empty() && seen.contains(&opposite) {
            errors.invalid(
                place.child("type"),
                kind,
                "Approved and Denied conditions are mutually exclusive",
            );
        }
        if seen.contains(&kind) {
            errors.duplicate(place.child("type"), kind);
        }
        seen.push(kind);
    }
}

/// What a signer wrote must be certificates and nothing else.
fn certificate(certificate: &Value, errors: &mut FieldErrors) {
    if certificate.text().is_empty() {
        return;
    }
    let text = STANDARD.decode(certificate.text()).unwrap_or_default();
    let blocks = pem_blocks(&text);
    let why = if let Some(other) = blocks.iter().find(|block| block.label != "CERTIFICATE") {
        format!(
            "only CERTIFICATE PEM blocks are allowed, found {}",
            coracle_api::status::go_quote(&other.label)
        )
    } else if blocks.iter().any(|block| block.has_headers) {
        "no PEM block headers are permitted".to_owned()
    } else if blocks.is_empty() {
        "must contain at least one CERTIFICATE PEM block".to_owned()
    } else if let Some(error) =
        blocks.iter().find_map(|block| x509_parser::parse_x509_certificate(&block.der).err())
    {
        error.to_string()
    } else {
        return;
    };
    errors.invalid("status.certificate", "<certificate data>", why);
}

/// Approved, denied and failed requests stay so.
fn conditions_stay(new: &Value, old: &Value, errors: &mut FieldErrors) {
    for kind in FINAL {
        if of_type(new, kind).len() < of_type(old, kind).len() {
            errors.forbidden(
                "status.conditions",
                format!("updates may not remove a condition of type {kind:?}"),
            );
        }
    }
}

/// Who writes `status` signs; who approves writes `approval`.
fn approval_stays(new: &Value, old: &Value, errors: &mut FieldErrors) {
    for kind in ["Approved", "Denied"] {
        let (before, after) = (of_type(old, kind), of_type(new, kind));
        let what = match before.len().cmp(&after.len()) {
            std::cmp::Ordering::Less => "add",
            std::cmp::Ordering::Equal if before != after => "modify",
            _ => continue,
        };
        errors.forbidden(
            "status.conditions",
            format!("updates may not {what} a condition of type {kind:?}"),
        );
    }
}

fn of_type<'a>(request: &'a Value, kind: &str) -> Vec<&'a Value> {
    let conditions = request["status"]["conditions"].items();
    conditions.iter().filter(|condition| condition["type"] == kind).collect()
}

/// A signer is named by a domain and a path.
pub(crate) fn signer(name: &str, path: &Path, errors: &mut FieldErrors) {
    if name.is_empty() {
        errors.required(path, "");
        return;
    }
    let (domain, rest) = match name.split('/').collect::<Vec<_>>()[..] {
        [domain, rest] => (domain, rest),
        _ => {
            errors.invalid(
                path,
                name,
                "must be a fully qualified domain and path of the form 'example.com/signer-name'",
            );
            return;
        }
    };
    let mut labels = |whole: &str, check: fn(&str) -> Vec<String>| {
        for label in whole.split('.') {
            for why in check(label) {
                errors.invalid(path, whole, format!("validating label {label:?}: {why}"));
            }
        }
    };
    labels(domain, coracle_api::names::dns_label);
    labels(rest, coracle_api::names::dns_subdomain);
    if !domain.contains('.') {
        errors.invalid(path, domain, "should be a domain with at least two segments");
    }
}
