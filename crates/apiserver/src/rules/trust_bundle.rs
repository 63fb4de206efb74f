//! `ClusterTrustBundle`: certificates that many may trust.

use coracle_api::names;
use coracle_api::status::{FieldErrors, Path};
use serde_json::Value;

use crate::rules::Rules;
use crate::rules::checks::immutable;
use crate::rules::json::Read;

/// As large as an object may be.
const BUNDLE_BYTES: usize = 1024 * 1024;

pub static RULES: Rules = Rules {
    validate: |bundle, errors| {
        let (spec, path) = (&bundle["spec"], Path::new("spec"));
        let name = bundle["metadata"]["name"].text();
        errors.invalid_each("metadata.name", name, name_for(spec["signerName"].text(), name));
        certificates(spec["trustBundle"].text(), &path.child("trustBundle"), errors);
    },
    validate_update: |new, old, errors| {
        let (new, old) = (&new["spec"]["signerName"], &old["spec"]["signerName"]);
        immutable(new, old, "spec.signerName", errors);
    },
    fields: |bundle| vec![("spec.signerName", bundle["spec"]["signerName"].text().to_owned())],
    ..Rules::GENERIC
};

/// What is wrong with the name of a bundle: that of a signer begins with the signer.
fn name_for(signer: &str, name: &str) -> Vec<String> {
    if signer.is_empty() {
        if name.contains(':') {
            let why = "ClusterTrustBundle without signer name must not have \":\" in its name";
            return vec![why.to_owned()];
        }
        return names::dns_subdomain(name);
    }
    let prefix = format!("{}:", signer.replace('/', ":"));
    match name.strip_prefix(&prefix) {
        Some(rest) => names::dns_subdomain(rest),
        None => vec![format!(
            "ClusterTrustBundle for signerName {signer} must be named with prefix {prefix}"
        )],
    }
}

fn certificates(text: &str, path: &Path, errors: &mut FieldErrors) {
    const SHOWN: &str = "<value omitted>";
    if text.len() > BUNDLE_BYTES {
        errors.too_long(path, BUNDLE_BYTES);
        return;
    }
    let blocks = || text.split("-----BEGIN ").skip(1);
    let mut found: Vec<Value> = Vec::new();
    for (index, block) in blocks().enumerate() {
        let body = block.strip_prefix("CERTIFICATE-----");
        let Some(body) = body.and_then(|body| body.split_once("-----END CERTIFICATE-----")) else {
            let why = format!("entry {index} has bad block type");
            errors.invalid(path, SHOWN, why);
            continue;
        };
        let plain: String = body.0.split_whitespace().collect();
        let certificate = Value::from(plain);
        if found.contains(&certificate) {
            errors.invalid(path, SHOWN, "duplicate trust anchor");
        }
        found.push(certificate);
    }
    if blocks().next().is_none() {
        errors.invalid(path, SHOWN, "at least one trust anchor must be provided");
    }
}
