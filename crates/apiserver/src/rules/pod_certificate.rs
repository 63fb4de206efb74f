//! `PodCertificateRequest`: a kubelet's request for a certificate of one of its pods.
//!
//! As upstream's `pkg/apis/certificates/validation`.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use coracle_api::certificates::{Request, pem_blocks};
use coracle_api::names;
use coracle_api::status::{FieldErrors, Path};
use serde_json::{Value, json};

use super::certificate::signer;
use crate::rules::checks::{immutable, required_name};
use crate::rules::json::{Read, default, object};
use crate::rules::{Rules, generic};

/// A day, if nobody says.
const DEFAULT_SECONDS: i64 = 86_400;
const MIN_SECONDS: i64 = 3600;
/// What upstream's own signers give at most, and all others.
const MAX_SECONDS: (i64, i64) = (86_400, 7_862_400);
const MAX_UID_BYTES: usize = 128;
const MAX_REQUEST_BYTES: usize = 10 << 10;
const OUTCOMES: [&str; 3] = ["Denied", "Failed", "Issued"];
/// What comes with the certificate, and not without it.
const ISSUED_FIELDS: [&str; 4] = ["certificateChain", "notBefore", "beginRefreshAt", "notAfter"];

pub static RULES: Rules = Rules {
    default: |request| default(object(request, "spec"), "maxExpirationSeconds", DEFAULT_SECONDS),
    prepare_create: |request| generic::start_status(request, json!({})),
    validate,
    validate_update: |new, old, errors| immutable(&new["spec"], &old["spec"], "spec", errors),
    validate_status_update,
    fields: |request| {
        let spec = &request["spec"];
        ["spec.signerName", "spec.podName", "spec.nodeName"]
            .into_iter()
            .zip(["signerName", "podName", "nodeName"])
            .map(|(path, field)| (path, spec[field].text().to_owned()))
            .collect()
    },
    ..Rules::GENERIC
};

fn validate(request: &Value, errors: &mut FieldErrors) {
    let (spec, path) = (&request["spec"], Path::new("spec"));
    signer(spec["signerName"].text(), &path.child("signerName"), errors);
    for field in ["podName", "serviceAccountName", "nodeName"] {
        required_name(&spec[field], names::dns_subdomain, path.child(field), errors);
    }
    for field in ["podUID", "serviceAccountUID", "nodeUID"] {
        let uid = spec[field].text();
        if uid.is_empty() {
            errors.required(path.child(field), "must not be empty");
        } else if uid.len() > MAX_UID_BYTES {
            errors.too_long(path.child(field), MAX_UID_BYTES);
        }
    }
    let is_ours = spec["signerName"].text().starts_with("kubernetes.io/");
    let most = if is_ours { MAX_SECONDS.0 } else { MAX_SECONDS.1 };
    let seconds = &spec["maxExpirationSeconds"];
    if !(MIN_SECONDS..=most).contains(&seconds.int()) {
        errors.invalid(
            path.child("maxExpirationSeconds"),
            seconds.clone(),
            format!("must be in the range [{MIN_SECONDS}, {most}]"),
        );
    }
    let stub = STANDARD.decode(spec["stubPKCS10Request"].text()).unwrap_or_default();
    let place = path.child("stubPKCS10Request");
    if stub.len() > MAX_REQUEST_BYTES {
        errors.too_long(place, MAX_REQUEST_BYTES);
    } else if let Err(error) = Request::from_der(&stub) {
        errors.invalid(place, "<value omitted>", error.to_string());
    }
    let annotations = &spec["unverifiedUserAnnotations"];
    for (name, _) in annotations.entries() {
        let place = path.child("unverifiedUserAnnotations");
        if name.contains('/') {
            errors.invalid_each(place, name, names::qualified_name(&name.to_lowercase()));
        } else {
            errors.invalid(place, name.as_str(), "must be domain-prefixed");
        }
    }
}

fn validate_status_update(new: &Value, old: &Value, errors: &mut FieldErrors) {
    let path = Path::new("status");
    let mut outcome = None;
    for (index, condition) in new["status"]["conditions"].items().iter().enumerate() {
        let place = path.child("conditions").index(index);
        let kind = condition["type"].text();
        if !OUTCOMES.contains(&kind) {
            errors.not_supported(place.child("type"), kind, &OUTCOMES);
            continue;
        }
        if outcome.replace(kind).is_some() {
            let why =
                r#"There may be at most one condition with type "Issued", "Denied", or "Failed""#;
            errors.invalid(place.child("type"), kind, why);
        }
        if condition["status"] != "True" {
            errors.not_supported(place.child("status"), condition["status"].clone(), &["True"]);
        }
    }
    for (index, condition) in old["status"]["conditions"].items().iter().enumerate() {
        let kept =
            new["status"]["conditions"].items().iter().any(|new| new["type"] == condition["type"]);
        if !kept {
            errors.invalid(
                path.child("conditions").index(index),
                condition.clone(),
                "immutable after PodCertificateRequest is issued, denied, or failed",
            );
        }
    }
    for field in ISSUED_FIELDS {
        let (value, before) = (&new["status"][field], &old["status"][field]);
        if before.is_set() {
            immutable(value, before, path.child(field), errors);
        } else if outcome == Some("Issued") && !value.is_set() {
            errors.required(path.child(field), "must be set when the request is issued");
        } else if outcome != Some("Issued") && value.is_set() && !value.text().is_empty() {
            errors.invalid(
                path.child(field),
                value.clone(),
                "must be empty unless the request is issued",
            );
        }
    }
    chain(&new["status"]["certificateChain"], &path.child("certificateChain"), errors);
}

fn chain(chain: &Value, path: &Path, errors: &mut FieldErrors) {
    if chain.text().is_empty() {
        return;
    }
    let blocks = pem_blocks(chain.text().as_bytes());
    let readable = |der: &[u8]| x509_parser::parse_x509_certificate(der).is_ok();
    if blocks.is_empty() || blocks.iter().any(|block| block.label != "CERTIFICATE") {
        errors.invalid(path, "<value omitted>", "must consist of CERTIFICATE PEM blocks");
    } else if !blocks.iter().all(|block| readable(&block.der)) {
        errors.invalid(path, "<value omitted>", "does not parse as X.509");
    }
}
