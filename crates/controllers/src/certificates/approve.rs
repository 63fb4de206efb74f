//! Which requests may be approved without a person: kubelets' for their client certificates.
//!
//! Upstream: `pkg/controller/certificates/approver/sarapprove.go`.

use coracle_api::certificates::Request;
use k8s_openapi::api::certificates::v1::CertificateSigningRequest;

use super::sign::{KUBELET_CLIENT, kubelet_client_fault};
use super::{condition, is_issued};

/// A right that suffices for approval.
#[derive(Debug, PartialEq)]
pub(super) struct Permission {
    /// `create` of this subresource of certificatesigningrequests.
    pub(super) subresource: &'static str,
    /// What the condition says.
    pub(super) message: &'static str,
}

/// What whoever asks needs one of; nothing when the request is decided, or no kubelet's. Pure.
pub(super) fn permissions(request: &CertificateSigningRequest) -> Vec<Permission> {
    let is_decided = ["Approved", "Denied"].iter().any(|kind| condition(request, kind).is_some());
    if is_decided || is_issued(request) || request.spec.signer_name != KUBELET_CLIENT {
        return Vec::new();
    }
    let Ok(asked) = Request::from_pem(&request.spec.request.0) else { return Vec::new() };
    let usages = request.spec.usages.as_deref().unwrap_or_default();
    if kubelet_client_fault(&asked, usages).is_some() {
        return Vec::new();
    }
    let mut permissions = Vec::new();
    if request.spec.username.as_deref() == Some(&asked.common_name) {
        permissions.push(Permission {
            subresource: "selfnodeclient",
            message: "Auto approving self kubelet client certificate after SubjectAccessReview.",
        });
    }
    permissions.push(Permission {
        subresource: "nodeclient",
        message: "Auto approving kubelet client certificate after SubjectAccessReview.",
    });
    permissions
}
