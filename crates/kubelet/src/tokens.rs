//! The tokens of a pod's ServiceAccount, asked of the API and renewed before they expire.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::authentication::v1::{
    BoundObjectReference, TokenRequest as ApiRequest, TokenRequestSpec,
};
use k8s_openapi::api::core::v1::{Pod, ServiceAccount};
use kube::api::PostParams;
use kube::{Api, Client};

use crate::volumes::{TokenRequest, Tokens, token_requests};

/// Upstream renews a token at the latest after a day.
const LONGEST_USE: SignedDuration = SignedDuration::from_hours(24);

/// The tokens of one pod.
#[derive(Debug, Clone, Default)]
pub(crate) struct Held {
    tokens: BTreeMap<TokenRequest, Issued>,
}

#[derive(Debug, Clone)]
struct Issued {
    token: String,
    renew_at: Timestamp,
}

impl Held {
    /// Has a fresh token for each that the pod's volumes need.
    pub(crate) async fn renew(
        &mut self,
        client: &Client,
        pod: &Pod,
        now: Timestamp,
    ) -> Result<(), kube::Error> {
        for request in token_requests(pod) {
            if self.tokens.get(&request).is_some_and(|issued| issued.renew_at > now) {
                continue;
            }
            let issued = issue(client, pod, &request, now).await?;
            self.tokens.insert(request, issued);
        }
        Ok(())
    }

    /// The tokens themselves.
    pub(crate) fn tokens(&self) -> Tokens {
        self.tokens
            .iter()
            .map(|(request, issued)| (request.clone(), issued.token.clone()))
            .collect()
    }

    /// When the next one must be renewed.
    pub(crate) fn renew_at(&self) -> Option<Timestamp> {
        self.tokens.values().map(|issued| issued.renew_at).min()
    }
}

async fn issue(
    client: &Client,
    pod: &Pod,
    request: &TokenRequest,
    now: Timestamp,
) -> Result<Issued, kube::Error> {
    let account = pod.spec.as_ref().and_then(|spec| spec.service_account_name.as_deref());
    let account = account.filter(|name| !name.is_empty()).unwrap_or("default");
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    let body = ApiRequest {
        spec: Some(TokenRequestSpec {
            audiences: Some(request.audience.clone())
                .filter(|audience| !audience.is_empty())
                .map(|one| vec![one]),
            expiration_seconds: Some(request.seconds),
            bound_object_ref: Some(BoundObjectReference {
                api_version: Some("v1".to_owned()),
                kind: Some("Pod".to_owned()),
                name: pod.metadata.name.clone(),
                uid: pod.metadata.uid.clone(),
            }),
            ..TokenRequestSpec::default()
        }),
        ..ApiRequest::default()
    };
    let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), namespace);
    let answer: ApiRequest =
        accounts.create_subresource("token", account, &PostParams::default(), &body).await?;
    let status = answer.status.unwrap_or_default();
    let asked = now + SignedDuration::from_secs(request.seconds);
    let expires = status.expiration_timestamp.map_or(asked, |expires| expires.0);
    Ok(Issued { token: status.token.unwrap_or_default(), renew_at: renewal(now, expires) })
}

/// A token is renewed when four fifths of its life are over.
fn renewal(now: Timestamp, expires: Timestamp) -> Timestamp {
    let life = expires.duration_since(now);
    now + (life * 4 / 5).min(LONGEST_USE).max(SignedDuration::from_secs(1))
}
