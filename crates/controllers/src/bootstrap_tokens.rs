//! Bootstrap tokens: each goes when its time is over.
//!
//! Upstream: `pkg/controller/bootstrap/tokencleaner.go`. Whoever authenticates looks at the time as well: this is tidiness.

use std::sync::Arc;

use coracle_reconcile::{Change, Next, ObjectKey, Queue};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{DeleteParams, Preconditions};

use crate::api::{Attempting, Unfinished, is_conflict, is_not_found};
use crate::context::Context;

/// The type of such Secrets.
pub(crate) const TYPE: &str = "bootstrap.kubernetes.io/token";
/// Where they are.
pub(crate) const NAMESPACE: &str = "kube-system";

/// Starts the controller.
pub(crate) fn start(ctx: &Arc<Context>) {
    let queue = Queue::new();
    let changed = queue.clone();
    ctx.mirrors.bootstrap_tokens.on_change(move |change| {
        if let Change::Applied { new, .. } = change {
            changed.add(ObjectKey::of(new.as_ref()));
        }
    });
    let ctx = Arc::clone(ctx);
    let shared = Arc::clone(&ctx);
    shared.work(&queue, "bootstrap-tokens", 1, move |key| {
        let ctx = Arc::clone(&ctx);
        async move { reconcile(&ctx, &key).await }
    });
}

async fn reconcile(ctx: &Context, key: &ObjectKey) -> Result<Next, Unfinished> {
    let Some(secret) = ctx.mirrors.bootstrap_tokens.get(key) else { return Ok(Next::AwaitChange) };
    let Some(end) = end(&secret) else { return Ok(Next::AwaitChange) };
    let now = ctx.now();
    if end > now {
        return Ok(Next::After(end.duration_since(now).unsigned_abs()));
    }
    let preconditions = Preconditions {
        uid: secret.metadata.uid.clone(),
        resource_version: secret.metadata.resource_version.clone(),
    };
    let options = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::default() };
    match ctx.api::<Secret>(&key.namespace).delete(&key.name, &options).await {
        Err(error) if is_not_found(&error) || is_conflict(&error) => (),
        deleted => drop(deleted.attempting(|| format!("delete secret {key}"))?),
    }
    Ok(Next::AwaitChange)
}

/// When the token's time is over; one without a time lasts. An unreadable time is over, as upstream has it. Pure.
fn end(secret: &Secret) -> Option<Timestamp> {
    let text = secret.data.as_ref()?.get("expiration")?;
    let text = std::str::from_utf8(&text.0).unwrap_or_default();
    Some(text.parse().unwrap_or(Timestamp::UNIX_EPOCH))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_lasts_until_its_expiration() {
        let check = |data: serde_json::Value, expected: Option<&str>| {
            let secret: Secret =
                serde_json::from_value(serde_json::json!({ "stringData": {}, "data": data }))
                    .unwrap();
            assert_eq!(end(&secret).map(|end| end.to_string()).as_deref(), expected);
        };
        check(serde_json::json!({}), None);
        // "2026-01-01T00:00:00Z" and "soon".
        let time = serde_json::json!({ "expiration": "MjAyNi0wMS0wMVQwMDowMDowMFo=" });
        check(time, Some("2026-01-01T00:00:00Z"));
        check(serde_json::json!({ "expiration": "c29vbg==" }), Some("1970-01-01T00:00:00Z"));
    }
}
