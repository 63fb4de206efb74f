//! CertificateSigningRequests: kubelets' are approved, approved ones are signed with the cluster's CA, old ones go.
//!
//! Upstream: `pkg/controller/certificates/{approver,signer,cleaner}`. PodCertificateRequests are only cleaned up here:
//! their signers are others' programs.

mod approve;
mod clean;
mod sign;
#[cfg(test)]
mod tests;
mod x509;

use std::sync::Arc;

use coracle_reconcile::{Change, Next, ObjectKey, Queue};
use k8s_openapi::api::authorization::v1::{
    ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec,
};
use k8s_openapi::api::certificates::v1::{
    CertificateSigningRequest, CertificateSigningRequestCondition, PodCertificateRequest,
};
use kube::Api;
use kube::api::{DeleteParams, PostParams, Preconditions};

use crate::api::{Attempting, Unfinished, api_time, is_conflict, is_not_found};
use crate::context::Context;

pub use x509::{SigningCa, SigningCaError};

/// As upstream's `--concurrent-…` of these controllers.
const WORKERS: usize = 5;

/// Starts the controllers.
pub(crate) fn start(ctx: &Arc<Context>) {
    let queue = Queue::new();
    let requests = queue.clone();
    ctx.mirrors.certificate_requests.on_change(move |change| {
        if let Change::Applied { new, .. } = change {
            requests.add(ObjectKey::of(new.as_ref()));
        }
    });
    let (ctx, shared) = (Arc::clone(ctx), Arc::clone(ctx));
    let pods = Arc::clone(&ctx);
    shared.work(&queue, "certificates", WORKERS, move |key| {
        let ctx = Arc::clone(&ctx);
        async move { reconcile(&ctx, &key).await }
    });
    let queue = Queue::new();
    let requests = queue.clone();
    shared.mirrors.pod_certificate_requests.on_change(move |change| {
        if let Change::Applied { new, .. } = change {
            requests.add(ObjectKey::of(new.as_ref()));
        }
    });
    shared.work(&queue, "pod-certificates", WORKERS, move |key| {
        let ctx = Arc::clone(&pods);
        async move { clean_pod_request(&ctx, &key).await }
    });
}

async fn reconcile(ctx: &Context, key: &ObjectKey) -> Result<Next, Unfinished> {
    let Some(request) = ctx.mirrors.certificate_requests.get(key) else {
        return Ok(Next::AwaitChange);
    };
    let now = ctx.now();
    let end = clean::end(&request);
    if end.is_some_and(|end| end <= now) {
        delete(ctx, &request).await?;
        return Ok(Next::AwaitChange);
    }
    // A request that nobody wants is tried again only when it changes; until then it waits for its end.
    approve(ctx, &request).await?;
    sign(ctx, &request).await?;
    Ok(match end {
        Some(end) => Next::After(end.duration_since(now).unsigned_abs()),
        None => Next::AwaitChange,
    })
}

async fn approve(ctx: &Context, request: &CertificateSigningRequest) -> Result<(), Unfinished> {
    let mut tried = Vec::new();
    for permission in approve::permissions(request) {
        if !is_permitted(ctx, request, permission.subresource).await? {
            tried.push(permission.subresource);
            continue;
        }
        let mut approved = request.clone();
        push_condition(ctx, &mut approved, "Approved", "AutoApproved", permission.message);
        let name = request.metadata.name.as_deref().unwrap_or_default();
        let api = requests(ctx);
        let written =
            api.replace_subresource("approval", name, &PostParams::default(), &approved).await;
        return finish(ctx, written, || format!("approve certificatesigningrequest {name}"));
    }
    if tried.is_empty() {
        return Ok(());
    }
    // Rights may come: the queue tries again, later each time.
    Err(Unfinished::Remaining(format!(
        "recognized csr {:?} as {tried:?} but subject access review was not approved",
        request.metadata.name.as_deref().unwrap_or_default()
    )))
}

/// Whether whoever made the request may have such certificates without asking a person.
async fn is_permitted(
    ctx: &Context,
    request: &CertificateSigningRequest,
    subresource: &str,
) -> Result<bool, Unfinished> {
    let spec = &request.spec;
    let text = |value: &str| Some(value.to_owned());
    let review = SubjectAccessReview {
        spec: SubjectAccessReviewSpec {
            user: spec.username.clone(),
            uid: spec.uid.clone(),
            groups: spec.groups.clone(),
            extra: spec.extra.clone(),
            resource_attributes: Some(ResourceAttributes {
                group: text("certificates.k8s.io"),
                resource: text("certificatesigningrequests"),
                subresource: text(subresource),
                verb: text("create"),
                version: text("*"),
                ..ResourceAttributes::default()
            }),
            ..SubjectAccessReviewSpec::default()
        },
        ..SubjectAccessReview::default()
    };
    let reviews: Api<SubjectAccessReview> = Api::all(ctx.client.clone());
    let answer = reviews.create(&PostParams::default(), &review).await;
    let answer = answer.attempting(|| "review access".to_owned())?;
    Ok(answer.status.is_some_and(|status| status.allowed))
}

async fn sign(ctx: &Context, request: &CertificateSigningRequest) -> Result<(), Unfinished> {
    let Some(ca) = &ctx.options.signing_ca else { return Ok(()) };
    let mut answered = request.clone();
    match sign::plan(request) {
        sign::Step::Wait => return Ok(()),
        sign::Step::Fail(why) => {
            push_condition(ctx, &mut answered, "Failed", "SignerValidationFailure", &why);
        }
        sign::Step::Sign(asked) => {
            let usages = request.spec.usages.clone().unwrap_or_default();
            let certificate = ca
                .sign(&asked, &usages, request.spec.expiration_seconds, ctx.now())
                .map_err(|error| Unfinished::Remaining(error.to_string()))?;
            let status = answered.status.get_or_insert_default();
            status.certificate = Some(k8s_openapi::ByteString(certificate.into_bytes()));
        }
    }
    let name = request.metadata.name.as_deref().unwrap_or_default();
    let written = requests(ctx).replace_status(name, &PostParams::default(), &answered).await;
    finish(ctx, written, || format!("sign certificatesigningrequest {name}"))
}

fn requests(ctx: &Context) -> Api<CertificateSigningRequest> {
    Api::all(ctx.client.clone())
}

/// A request that changed meanwhile comes again.
fn finish(
    ctx: &Context,
    written: kube::Result<CertificateSigningRequest>,
    attempt: impl FnOnce() -> String,
) -> Result<(), Unfinished> {
    match written {
        Ok(written) => ctx.mirrors.certificate_requests.observe(written),
        Err(error) if is_not_found(&error) || is_conflict(&error) => (),
        refused => drop(refused.attempting(attempt)?),
    }
    Ok(())
}

fn push_condition(
    ctx: &Context,
    request: &mut CertificateSigningRequest,
    kind: &str,
    reason: &str,
    message: &str,
) {
    let now = api_time(ctx.now());
    let status = request.status.get_or_insert_default();
    status.conditions.get_or_insert_default().push(CertificateSigningRequestCondition {
        type_: kind.to_owned(),
        status: "True".to_owned(),
        reason: Some(reason.to_owned()),
        message: Some(message.to_owned()),
        last_update_time: Some(now.clone()),
        last_transition_time: Some(now),
    });
}

async fn delete(ctx: &Context, request: &CertificateSigningRequest) -> Result<(), Unfinished> {
    let name = request.metadata.name.as_deref().unwrap_or_default();
    let deleted = requests(ctx).delete(name, &this_very(request.metadata.uid.as_deref())).await;
    match deleted {
        Err(error) if is_not_found(&error) || is_conflict(&error) => Ok(()),
        deleted => {
            deleted.attempting(|| format!("delete certificatesigningrequest {name}")).map(drop)
        }
    }
}

async fn clean_pod_request(ctx: &Context, key: &ObjectKey) -> Result<Next, Unfinished> {
    let Some(request) = ctx.mirrors.pod_certificate_requests.get(key) else {
        return Ok(Next::AwaitChange);
    };
    let Some(end) = clean::pod_request_end(&request) else { return Ok(Next::AwaitChange) };
    let now = ctx.now();
    if end > now {
        return Ok(Next::After(end.duration_since(now).unsigned_abs()));
    }
    let api = ctx.api::<PodCertificateRequest>(&key.namespace);
    match api.delete(&key.name, &this_very(request.metadata.uid.as_deref())).await {
        Err(error) if is_not_found(&error) || is_conflict(&error) => (),
        deleted => drop(deleted.attempting(|| format!("delete podcertificaterequest {key}"))?),
    }
    Ok(Next::AwaitChange)
}

/// Not a namesake that came later.
fn this_very(uid: Option<&str>) -> DeleteParams {
    let preconditions = Preconditions { uid: uid.map(str::to_owned), ..Preconditions::default() };
    DeleteParams { preconditions: Some(preconditions), ..DeleteParams::default() }
}

/// The condition of this type that holds.
fn condition<'a>(
    request: &'a CertificateSigningRequest,
    kind: &str,
) -> Option<&'a CertificateSigningRequestCondition> {
    let status = request.status.as_ref()?;
    let conditions = status.conditions.as_deref().unwrap_or_default();
    conditions.iter().find(|condition| condition.type_ == kind && condition.status == "True")
}

/// Whether the certificate is there.
fn is_issued(request: &CertificateSigningRequest) -> bool {
    let status = request.status.as_ref();
    status
        .and_then(|status| status.certificate.as_ref())
        .is_some_and(|certificate| !certificate.0.is_empty())
}
