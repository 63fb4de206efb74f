//! PEM, certificate requests and keys, as CertificateSigningRequests bring them.

use coracle_api::certificates::{Request, pem_blocks};

pub fn run(bytes: &[u8]) {
    let _ = pem_blocks(bytes);
    let _ = Request::from_pem(bytes);
    let _ = Request::from_der(bytes);
}

/// A real request, made by OpenSSL for `system:node:n` of `system:nodes` with two alternative names.
const REQUEST: &str = include_str!("../../seeds/request.pem");

pub fn seeds() -> Vec<Vec<u8>> {
    let mut seeds = super::texts(&[
        REQUEST,
        "-----BEGIN CERTIFICATE REQUEST-----\nX-Header: a\n\nAAAA\n-----END CERTIFICATE REQUEST-----\n",
    ]);
    let der = pem_blocks(REQUEST.as_bytes()).into_iter().map(|block| block.der);
    seeds.extend(der);
    seeds
}
