//! ServiceAccount: every active namespace has one called `default`.
//!
//! Upstream: `pkg/controller/serviceaccount/serviceaccounts_controller.go`.

use std::sync::Arc;

use coracle_reconcile::{Change, Next, ObjectKey, Queue};
use k8s_openapi::api::core::v1::{Namespace, ServiceAccount};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::PostParams;

use crate::api::{
    Attempting, Unfinished, is_already_exists, is_namespace_terminating, is_not_found,
};
use crate::context::Context;

/// The account that every namespace has.
pub(crate) const NAME: &str = "default";

/// Upstream's number of workers is 1; the work is one write.
const WORKERS: usize = 4;

/// Starts the controller.
pub(crate) fn start(ctx: &Arc<Context>) {
    let queue = Queue::new();
    let namespaces = queue.clone();
    ctx.mirrors.namespaces.on_change(move |change| {
        if let Change::Applied { new, .. } = change {
            namespaces.add(ObjectKey::of(new.as_ref()));
        }
    });
    let accounts = queue.clone();
    ctx.mirrors.service_accounts.on_change(move |change| {
        if let Change::Deleted(last) = change {
            accounts.add(ObjectKey::new("", last.metadata.namespace.clone().unwrap_or_default()));
        }
    });
    let ctx = Arc::clone(ctx);
    let shared = Arc::clone(&ctx);
    shared.work(&queue, "serviceaccount", WORKERS, move |namespace| {
        let ctx = Arc::clone(&ctx);
        async move { reconcile(&ctx, &namespace).await }
    });
}

/// Creates the account that is missing.
async fn reconcile(ctx: &Context, key: &ObjectKey) -> Result<Next, Unfinished> {
    let account = ctx.mirrors.service_accounts.get(&ObjectKey::new(key.name.clone(), NAME));
    let Some(missing) = plan(ctx.mirrors.namespaces.get(key).as_deref(), account.as_deref()) else {
        return Ok(Next::AwaitChange);
    };
    match ctx.api::<ServiceAccount>(&key.name).create(&PostParams::default(), &missing).await {
        Ok(created) => ctx.mirrors.service_accounts.observe(created),
        Err(error)
            if is_already_exists(&error)
                || is_namespace_terminating(&error)
                || is_not_found(&error) => {}
        refused => {
            refused.attempting(|| format!("create serviceaccount {}/{NAME}", key.name))?;
        }
    }
    Ok(Next::AwaitChange)
}

/// Decides whether the namespace lacks its account.
fn plan(namespace: Option<&Namespace>, account: Option<&ServiceAccount>) -> Option<ServiceAccount> {
    let namespace = namespace.filter(|namespace| is_active(namespace))?;
    account.is_none().then(|| ServiceAccount {
        metadata: ObjectMeta {
            name: Some(NAME.to_owned()),
            namespace: namespace.metadata.name.clone(),
            ..ObjectMeta::default()
        },
        ..ServiceAccount::default()
    })
}

/// Whether things may still be made in the namespace.
pub(crate) fn is_active(namespace: &Namespace) -> bool {
    let phase = namespace.status.as_ref().and_then(|status| status.phase.as_deref());
    namespace.metadata.deletion_timestamp.is_none() && phase != Some("Terminating")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    #[test]
    fn an_active_namespace_without_account_gets_one() {
        let check = |namespace: Option<Value>, account: bool, expected: bool| {
            let namespace: Option<Namespace> =
                namespace.map(|value| serde_json::from_value(value).unwrap());
            let account = account.then(ServiceAccount::default);
            assert_eq!(plan(namespace.as_ref(), account.as_ref()).is_some(), expected);
        };
        let active = json!({ "metadata": { "name": "a" }, "status": { "phase": "Active" } });
        check(Some(active.clone()), false, true);
        check(Some(active), true, false);
        check(Some(json!({ "metadata": { "name": "new" } })), false, true);
        check(
            Some(
                json!({ "metadata": { "name": "a", "deletionTimestamp": "2026-01-01T00:00:00Z" } }),
            ),
            false,
            false,
        );
        check(
            Some(json!({ "metadata": { "name": "a" }, "status": { "phase": "Terminating" } })),
            false,
            false,
        );
        check(None, false, false);
    }
}
