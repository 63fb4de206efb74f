//! Who asks for certificates, who may approve and sign them, and what nobody may ask for.
//!
//! Upstream's plugins CertificateApproval, CertificateSigning and CertificateSubjectRestriction, and what its strategy
//! notes about the author of a request:
//! <https://github.com/kubernetes/kubernetes/tree/master/plugin/pkg/admission/certificates>.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use coracle_api::certificates::Request;
use coracle_api::status::{Status, go_quote};
use serde_json::{Value, json};

use super::{AdmissionRequest, Operation, text};
use crate::authz::{Attributes, Authorizer, Target};
use crate::identity::MASTERS;

const GROUP: &str = "certificates.k8s.io";
const CLIENT_SIGNER: &str = "kubernetes.io/kube-apiserver-client";

/// Notes on a new request whose it is, whatever its author wrote there.
pub(super) fn mutate(request: &mut AdmissionRequest<'_>) {
    if !is(request, "CertificateSigningRequest", "") || request.operation != Operation::Create {
        return;
    }
    let Some(spec) = request.object.get_mut("spec").and_then(Value::as_object_mut) else { return };
    let user = request.user;
    let mut note = |field: &str, value: Value, is_known: bool| {
        if is_known {
            spec.insert(field.to_owned(), value);
        } else {
            spec.remove(field);
        }
    };
    note("username", json!(user.name), !user.name.is_empty());
    note("uid", json!(user.uid), !user.uid.is_empty());
    note("groups", json!(user.groups), !user.groups.is_empty());
    note("extra", json!(user.extra), !user.extra.is_empty());
}

/// Judges requests for certificates, their approval and their signature.
pub(super) fn validate(
    authorizer: &Authorizer,
    request: &AdmissionRequest<'_>,
) -> Result<(), Status> {
    if request.kind.group != GROUP {
        return Ok(());
    }
    let signer = request.old.unwrap_or(&*request.object);
    let signer = text(signer, "/spec/signerName").unwrap_or_default();
    match (request.kind.kind, request.subresource, request.operation) {
        ("CertificateSigningRequest", "", Operation::Create) => restrict_subject(request, signer),
        ("CertificateSigningRequest", "approval", Operation::Update) => {
            permit(authorizer, request, "approve", signer)
        }
        ("CertificateSigningRequest", "status", Operation::Update)
            if differs(request, "/status/certificate")
                || differs(request, "/status/conditions") =>
        {
            permit(authorizer, request, "sign", signer)
        }
        ("PodCertificateRequest", "status", Operation::Update) => {
            permit(authorizer, request, "sign", signer)
        }
        _ => Ok(()),
    }
}

fn is(request: &AdmissionRequest<'_>, kind: &str, subresource: &str) -> bool {
    request.kind.group == GROUP && request.kind.kind == kind && request.subresource == subresource
}

fn differs(request: &AdmissionRequest<'_>, place: &str) -> bool {
    let part = |object: &Value| {
        let part = object.pointer(place).filter(|part| !part.is_null());
        part.filter(|part| part.as_array().is_none_or(|list| !list.is_empty())).cloned()
    };
    request.old.is_some_and(|old| part(old) != part(request.object))
}

/// Whether the user has the verb on this signer, or on all of its domain.
fn permit(
    authorizer: &Authorizer,
    request: &AdmissionRequest<'_>,
    verb: &str,
    signer: &str,
) -> Result<(), Status> {
    let domain = signer.split('/').next().unwrap_or_default();
    let names = [signer.to_owned(), format!("{domain}/*")];
    let may = |name: &String| {
        let target = Target::Resource {
            group: GROUP,
            resource: "signers",
            subresource: "",
            namespace: "",
            name,
        };
        authorizer
            .authorize(&Attributes { user: request.user, verb, target, fields: &[] })
            .is_allowed()
    };
    if names.iter().any(may) {
        return Ok(());
    }
    Err(request.forbidden(format!(
        "user not permitted to {verb} requests with signerName {}",
        go_quote(signer)
    )))
}

/// A certificate for the group that may do everything could never be taken back.
fn restrict_subject(request: &AdmissionRequest<'_>, signer: &str) -> Result<(), Status> {
    if signer != CLIENT_SIGNER {
        return Ok(());
    }
    let asked = STANDARD.decode(text(request.object, "/spec/request").unwrap_or_default());
    let asked = asked.ok().and_then(|asked| Request::from_pem(&asked).ok());
    if asked.is_some_and(|asked| asked.organizations.iter().any(|group| group == MASTERS)) {
        return Err(request.forbidden(format!(
            "use of {CLIENT_SIGNER} signer with {MASTERS} group is not allowed"
        )));
    }
    Ok(())
}
