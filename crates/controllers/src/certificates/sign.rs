//! Which requests are signed: approved ones for upstream's signers, whose rules they must keep.
//!
//! Upstream: `pkg/controller/certificates/signer/signer.go` and `pkg/apis/certificates/helpers.go`.

use coracle_api::certificates::Request;
use k8s_openapi::api::certificates::v1::CertificateSigningRequest;

use super::{condition, is_issued};

/// Client certificates for anybody but kubelets and masters.
const CLIENT: &str = "kubernetes.io/kube-apiserver-client";
/// Client certificates of kubelets.
pub(super) const KUBELET_CLIENT: &str = "kubernetes.io/kube-apiserver-client-kubelet";
/// Serving certificates of kubelets.
const KUBELET_SERVING: &str = "kubernetes.io/kubelet-serving";
const NODES: &str = "system:nodes";
const NODE_PREFIX: &str = "system:node:";

/// What to do about a request.
#[derive(Debug, PartialEq)]
pub(super) enum Step {
    /// Not ours, or not yet.
    Wait,
    /// It breaks its signer's rules: this one.
    Fail(String),
    /// Sign what it asks for.
    Sign(Box<Request>),
}

/// Decides. Pure.
pub(super) fn plan(request: &CertificateSigningRequest) -> Step {
    let is_open = condition(request, "Approved").is_some()
        && condition(request, "Denied").is_none()
        && condition(request, "Failed").is_none()
        && !is_issued(request);
    if !is_open {
        return Step::Wait;
    }
    let fault: fn(&Request, &[String]) -> Option<String> = match request.spec.signer_name.as_str() {
        CLIENT => |_, usages| client_usages_fault(usages),
        KUBELET_CLIENT => kubelet_client_fault,
        KUBELET_SERVING => kubelet_serving_fault,
        _ => return Step::Wait,
    };
    let asked = match Request::from_pem(&request.spec.request.0) {
        Ok(asked) => asked,
        Err(error) => return Step::Fail(error.to_string()),
    };
    match fault(&asked, request.spec.usages.as_deref().unwrap_or_default()) {
        Some(why) => Step::Fail(why),
        None => Step::Sign(Box::new(asked)),
    }
}

fn client_usages_fault(usages: &[String]) -> Option<String> {
    let known = ["digital signature", "key encipherment", "client auth"];
    if let Some(other) = usages.iter().find(|usage| !known.contains(&usage.as_str())) {
        return Some(format!("invalid usage for client certificate: {other}"));
    }
    let has = usages.iter().any(|usage| usage == "client auth");
    (!has).then(|| "missing required usage for client certificate: client auth".to_owned())
}

/// Why the request is none for a kubelet's client certificate.
pub(super) fn kubelet_client_fault(asked: &Request, usages: &[String]) -> Option<String> {
    let why = if asked.organizations != [NODES] {
        "subject organization is not system:nodes"
    } else if !asked.dns_names.is_empty() {
        "DNS subjectAltNames are not allowed"
    } else if asked.emails > 0 {
        "Email subjectAltNames are not allowed"
    } else if asked.addresses > 0 {
        "IP subjectAltNames are not allowed"
    } else if asked.uris > 0 {
        "URI subjectAltNames are not allowed"
    } else if !asked.common_name.starts_with(NODE_PREFIX) {
        "subject common name does not begin with system:node:"
    } else {
        return usages_fault(usages, "client auth");
    };
    Some(why.to_owned())
}

fn kubelet_serving_fault(asked: &Request, usages: &[String]) -> Option<String> {
    let why = if asked.organizations != [NODES] {
        "subject organization is not system:nodes"
    } else if asked.dns_names.is_empty() && asked.addresses == 0 {
        "DNS or IP subjectAltName is required"
    } else if asked.emails > 0 {
        "Email subjectAltNames are not allowed"
    } else if asked.uris > 0 {
        "URI subjectAltNames are not allowed"
    } else if !asked.common_name.starts_with(NODE_PREFIX) {
        "subject common name does not begin with system:node:"
    } else {
        return usages_fault(usages, "server auth");
    };
    Some(why.to_owned())
}

/// Keys that are no RSA keys need no key encipherment.
fn usages_fault(usages: &[String], purpose: &str) -> Option<String> {
    let mut given: Vec<&str> = usages.iter().map(String::as_str).collect();
    given.sort_unstable();
    given.dedup();
    let mut full = vec!["digital signature", "key encipherment", purpose];
    full.sort_unstable();
    let short: Vec<&str> =
        full.iter().copied().filter(|usage| *usage != "key encipherment").collect();
    (given != full && given != short).then(|| format!("usages did not match [{}]", full.join(" ")))
}
