//! `CertificateSigningRequest`.

use serde_json::json;

use crate::rules::json::Read;
use crate::rules::{Rules, generic};

pub static RULES: Rules = Rules {
    prepare_create: |request| generic::start_status(request, json!({})),
    // What was requested, by whom, is fixed.
    prepare_update: |new, old| {
        generic::keep_status(new, old);
        generic::carry(new, old, "spec");
    },
    fields: |request| vec![("spec.signerName", request["spec"]["signerName"].text().to_owned())],
    ..Rules::GENERIC
};
