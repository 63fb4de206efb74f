//! Secrets of type `kubernetes.io/service-account-token`: each gets a token of the account that it names, and goes with that account.
//!
//! Upstream: `pkg/controller/serviceaccount/tokens_controller.go`. There the token names no end and is verified against the Secret.
//! Here it is a token bound to the Secret, for the longest time there is: as there, whoever deletes the Secret revokes it.

use std::sync::Arc;

use coracle_reconcile::{Change, Next, ObjectKey, Queue};
use k8s_openapi::ByteString;
use k8s_openapi::api::authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{Secret, ServiceAccount};
use kube::api::{DeleteParams, PostParams, Preconditions};

use crate::api::{Attempting, Unfinished, is_conflict, is_not_found};
use crate::context::Context;

/// The type of such Secrets.
pub(crate) const TYPE: &str = "kubernetes.io/service-account-token";
const ACCOUNT_NAME: &str = "kubernetes.io/service-account.name";
const ACCOUNT_UID: &str = "kubernetes.io/service-account.uid";

/// 136 years, the longest that the API server gives.
const TOKEN_SECONDS: i64 = 1 << 32;

/// The work is two writes.
const WORKERS: usize = 4;

/// Starts the controller.
pub(crate) fn start(ctx: &Arc<Context>) {
    let queue = Queue::new();
    let secrets = queue.clone();
    ctx.mirrors.token_secrets.on_change(move |change| {
        if let Change::Applied { new, .. } = change {
            secrets.add(ObjectKey::of(new.as_ref()));
        }
    });
    let (accounts, known) = (queue.clone(), ctx.mirrors.token_secrets.clone());
    ctx.mirrors.service_accounts.on_change(move |change| {
        let account = change.object();
        let namespace = account.metadata.namespace.as_deref().unwrap_or_default();
        for secret in known.in_namespace(namespace) {
            if annotation(&secret, ACCOUNT_NAME) == account.metadata.name.as_deref() {
                accounts.add(ObjectKey::of(secret.as_ref()));
            }
        }
    });
    let ctx = Arc::clone(ctx);
    let shared = Arc::clone(&ctx);
    shared.work(&queue, "serviceaccount-token", WORKERS, move |key| {
        let ctx = Arc::clone(&ctx);
        async move { reconcile(&ctx, &key).await }
    });
}

/// What a Secret needs.
#[derive(Debug, PartialEq)]
enum Step {
    /// Nobody has such an account.
    Delete,
    /// A token of this account, and the rest beside it.
    Fill,
    /// The token is there; what stands beside it is not right.
    Restore,
    Settled,
}

async fn reconcile(ctx: &Context, key: &ObjectKey) -> Result<Next, Unfinished> {
    let Some(secret) = ctx.mirrors.token_secrets.get(key) else {
        return Ok(Next::AwaitChange);
    };
    let account = account_of(ctx, key, &secret).await?;
    let ca_pem = &ctx.options.cluster_ca_pem;
    let step = plan(&secret, account.as_deref(), ca_pem);
    let (Step::Fill | Step::Restore, Some(account)) = (&step, account) else {
        if step == Step::Delete {
            delete(ctx, key, &secret).await?;
        }
        return Ok(Next::AwaitChange);
    };
    let mut filled = filled(&secret, &account, ca_pem);
    if step == Step::Fill {
        let Some(token) = issue(ctx, key, &secret, &account).await? else {
            return Ok(Next::AwaitChange);
        };
        let data = filled.data.get_or_insert_default();
        data.insert("token".to_owned(), ByteString(token.into_bytes()));
    }
    match ctx
        .api::<Secret>(&key.namespace)
        .replace(&key.name, &PostParams::default(), &filled)
        .await
    {
        Ok(written) => ctx.mirrors.token_secrets.observe(written),
        Err(error) if is_not_found(&error) || is_conflict(&error) => (),
        refused => drop(refused.attempting(|| format!("fill secret {key}"))?),
    }
    Ok(Next::AwaitChange)
}

/// The account that the Secret names. The mirror may lag, and deleting for that would be wrong: the API knows.
async fn account_of(
    ctx: &Context,
    key: &ObjectKey,
    secret: &Secret,
) -> Result<Option<Arc<ServiceAccount>>, Unfinished> {
    let Some(name) = annotation(secret, ACCOUNT_NAME) else { return Ok(None) };
    let place = ObjectKey::new(key.namespace.clone(), name);
    if let Some(known) = ctx.mirrors.service_accounts.get(&place) {
        return Ok(Some(known));
    }
    let found = ctx.api::<ServiceAccount>(&key.namespace).get_opt(name).await;
    Ok(found.attempting(|| format!("read serviceaccount {place}"))?.map(Arc::new))
}

async fn delete(ctx: &Context, key: &ObjectKey, secret: &Secret) -> Result<(), Unfinished> {
    let preconditions = Preconditions {
        uid: secret.metadata.uid.clone(),
        resource_version: secret.metadata.resource_version.clone(),
    };
    let options = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::default() };
    match ctx.api::<Secret>(&key.namespace).delete(&key.name, &options).await {
        Err(error) if is_not_found(&error) || is_conflict(&error) => Ok(()),
        deleted => deleted.attempting(|| format!("delete secret {key}")).map(drop),
    }
}

/// A token that lasts as long as the Secret; none if the account or the Secret went away meanwhile.
async fn issue(
    ctx: &Context,
    key: &ObjectKey,
    secret: &Secret,
    account: &ServiceAccount,
) -> Result<Option<String>, Unfinished> {
    let bound = BoundObjectReference {
        api_version: Some("v1".to_owned()),
        kind: Some("Secret".to_owned()),
        name: secret.metadata.name.clone(),
        uid: secret.metadata.uid.clone(),
    };
    let request = TokenRequest {
        spec: Some(TokenRequestSpec {
            bound_object_ref: Some(bound),
            expiration_seconds: Some(TOKEN_SECONDS),
            ..TokenRequestSpec::default()
        }),
        ..TokenRequest::default()
    };
    let name = account.metadata.name.as_deref().unwrap_or_default();
    let api = ctx.api::<ServiceAccount>(&key.namespace);
    match api.create_token_request(name, &PostParams::default(), &request).await {
        Ok(answered) => Ok(answered.status.and_then(|status| status.token)),
        Err(error) if is_not_found(&error) || is_conflict(&error) => Ok(None),
        Err(error) => Err(error)
            .attempting(|| format!("issue a token of serviceaccount {}/{name}", key.namespace)),
    }
}

/// Decides what the Secret needs. Pure.
fn plan(secret: &Secret, account: Option<&ServiceAccount>, ca_pem: &str) -> Step {
    if secret.metadata.deletion_timestamp.is_some() {
        return Step::Settled;
    }
    let Some(account) = account.filter(|account| is_meant(secret, account)) else {
        return Step::Delete;
    };
    let token = secret.data.as_ref().and_then(|data| data.get("token"));
    if token.is_none_or(|token| token.0.is_empty()) {
        return Step::Fill;
    }
    if filled(secret, account, ca_pem) == *secret { Step::Settled } else { Step::Restore }
}

/// A uid means that very account, not its namesake.
fn is_meant(secret: &Secret, account: &ServiceAccount) -> bool {
    let uid = annotation(secret, ACCOUNT_UID).filter(|uid| !uid.is_empty());
    uid.is_none_or(|uid| account.metadata.uid.as_deref() == Some(uid))
}

/// The Secret with everything but the token as it should be.
fn filled(secret: &Secret, account: &ServiceAccount, ca_pem: &str) -> Secret {
    let mut filled = secret.clone();
    let annotations = filled.metadata.annotations.get_or_insert_default();
    annotations.insert(ACCOUNT_UID.to_owned(), account.metadata.uid.clone().unwrap_or_default());
    let namespace = secret.metadata.namespace.clone().unwrap_or_default();
    let data = filled.data.get_or_insert_default();
    data.insert("ca.crt".to_owned(), ByteString(ca_pem.as_bytes().to_vec()));
    data.insert("namespace".to_owned(), ByteString(namespace.into_bytes()));
    filled
}

fn annotation<'a>(secret: &'a Secret, name: &str) -> Option<&'a str> {
    secret.metadata.annotations.as_ref()?.get(name).map(String::as_str)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    #[test]
    fn a_secret_is_filled_once_and_goes_with_its_account() {
        let account: ServiceAccount =
            serde_json::from_value(json!({ "metadata": { "name": "robot", "uid": "1" } })).unwrap();
        let secret = |annotations: Value, data: Value| -> Secret {
            let metadata = json!({ "name": "s", "namespace": "shop", "annotations": annotations });
            serde_json::from_value(json!({ "metadata": metadata, "data": data })).unwrap()
        };
        let named = || json!({ ACCOUNT_NAME: "robot" });
        let empty = secret(named(), json!({}));
        assert_eq!(plan(&empty, Some(&account), "PEM"), Step::Fill);
        assert_eq!(plan(&empty, None, "PEM"), Step::Delete);
        let token = secret(named(), json!({ "token": "eA==" }));
        assert_eq!(plan(&token, Some(&account), "PEM"), Step::Restore);
        let mut whole = filled(&token, &account, "PEM");
        assert_eq!(plan(&whole, Some(&account), "PEM"), Step::Settled);
        assert_eq!(annotation(&whole, ACCOUNT_UID), Some("1"));
        let data = whole.data.as_ref().unwrap();
        assert_eq!(data["namespace"].0, b"shop");
        assert_eq!(data["ca.crt"].0, b"PEM");
        assert_eq!(plan(&whole, Some(&account), "NEW"), Step::Restore);
        // A namesake that came later is another account.
        let later = json!({ "metadata": { "name": "robot", "uid": "2" } });
        let later: ServiceAccount = serde_json::from_value(later).unwrap();
        assert_eq!(plan(&whole, Some(&later), "PEM"), Step::Delete);
        whole.metadata.deletion_timestamp = Some(crate::api::api_time(jiff::Timestamp::UNIX_EPOCH));
        assert_eq!(plan(&whole, Some(&later), "PEM"), Step::Settled);
    }
}
