//! `CertificateSigningRequest`.

use coracle_api::status::{FieldErrors, Path};
use serde_json::{Value, json};

use crate::rules::checks::one_of;
use crate::rules::json::Read;
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

pub static RULES: Rules = Rules {
    prepare_create: |request| generic::start_status(request, json!({})),
    // What was requested, by whom, is fixed.
    prepare_update: |new, old| {
        generic::keep_status(new, old);
        generic::carry(new, old, "spec");
    },
    validate,
    fields: |request| vec![("spec.signerName", request["spec"]["signerName"].text().to_owned())],
    ..Rules::GENERIC
};

fn validate(request: &Value, errors: &mut FieldErrors) {
    let (spec, path) = (&request["spec"], Path::new("spec"));
    if spec["request"].text().is_empty() {
        errors.invalid(path.child("request"), "", "PEM block type must be CERTIFICATE REQUEST");
    }
    if spec["usages"].size() == 0 {
        errors.required(path.child("usages"), "usages is required");
    }
    for (index, usage) in spec["usages"].items().iter().enumerate() {
        one_of(usage, &USAGES, path.child("usages").index(index), errors);
    }
    signer(spec["signerName"].text(), &path.child("signerName"), errors);
    let seconds = &spec["expirationSeconds"];
    if seconds.is_set() && seconds.int() < MIN_SECONDS {
        errors.invalid(
            path.child("expirationSeconds"),
            seconds.clone(),
            "may not specify a duration less than 600 seconds (10 minutes)",
        );
    }
}

/// A signer is named by a domain and a path.
fn signer(name: &str, path: &Path, errors: &mut FieldErrors) {
    if name.is_empty() {
        errors.required(path, "");
        return;
    }
    let Some((domain, rest)) = name.split_once('/') else {
        errors.invalid(
            path,
            name,
            "must be a fully qualified domain and path of the form 'example.com/signer-name'",
        );
        return;
    };
    errors.invalid_each(path, domain, coracle_api::names::dns_subdomain(domain));
    if !domain.contains('.') {
        errors.invalid(
            path,
            domain,
            "should be a domain with at least two segments separated by dots",
        );
    }
    for part in rest.split('.') {
        errors.invalid_each(path, part, coracle_api::names::dns_subdomain(part));
    }
}
