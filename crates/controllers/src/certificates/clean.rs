//! When requests go: each soon after it is of no use.
//!
//! Upstream: `pkg/controller/certificates/cleaner`. It looks every ten minutes; here each request has its time.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::certificates::v1::{CertificateSigningRequest, PodCertificateRequest};

use super::{condition, is_issued};

/// A decided request is kept this long for whoever fetches the certificate.
const DECIDED: SignedDuration = SignedDuration::from_hours(1);
/// A request that nobody decides about, or signs.
const PENDING: SignedDuration = SignedDuration::from_hours(24);
const POD_REQUEST: SignedDuration = SignedDuration::from_mins(15);

/// When the request goes, as it is. Pure.
pub(super) fn end(request: &CertificateSigningRequest) -> Option<Timestamp> {
    let created = request.metadata.creation_timestamp.as_ref()?.0;
    let decided = |kind: &str| {
        let condition = condition(request, kind)?;
        Some(condition.last_update_time.as_ref().map_or(created, |time| time.0))
    };
    if let Some(since) = decided("Denied").or_else(|| decided("Failed")) {
        return since.checked_add(DECIDED).ok();
    }
    let Some(approved) = decided("Approved") else { return created.checked_add(PENDING).ok() };
    if !is_issued(request) {
        return approved.checked_add(PENDING).ok();
    }
    let kept = approved.checked_add(DECIDED).ok()?;
    Some(expiry(request).map_or(kept, |expiry| kept.min(expiry)))
}

/// When the issued certificate ends.
fn expiry(request: &CertificateSigningRequest) -> Option<Timestamp> {
    let certificate = request.status.as_ref()?.certificate.as_ref()?;
    let block = coracle_api::certificates::pem_blocks(&certificate.0).into_iter().next()?;
    let (_, parsed) = x509_parser::parse_x509_certificate(&block.der).ok()?;
    Timestamp::from_second(parsed.validity().not_after.timestamp()).ok()
}

/// When a pod's request goes. Pure.
pub(super) fn pod_request_end(request: &PodCertificateRequest) -> Option<Timestamp> {
    request.metadata.creation_timestamp.as_ref()?.0.checked_add(POD_REQUEST).ok()
}
