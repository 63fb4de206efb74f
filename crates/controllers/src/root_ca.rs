//! Publishes the cluster's CA as ConfigMap `kube-root-ca.crt` in every namespace, so that pods can verify the API.
//!
//! Upstream: `pkg/controller/certificates/rootcacertpublisher`.

use std::collections::BTreeMap;
use std::sync::Arc;

use coracle_reconcile::{Change, Next, ObjectKey, Queue};
use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::PostParams;

use crate::api::{
    Attempting, Unfinished, is_already_exists, is_namespace_terminating, is_not_found,
};
use crate::context::Context;
use crate::service_account::is_active;

/// The ConfigMap's name.
pub(crate) const NAME: &str = "kube-root-ca.crt";
/// Its one key.
const KEY: &str = "ca.crt";
const DESCRIPTION: &str = "kubernetes.io/description";
const DESCRIPTION_TEXT: &str = "Contains a CA bundle that can be used to verify the kube-apiserver when using internal \
    endpoints such as the internal service IP or kubernetes.default.svc. No other usage is guaranteed across \
    distributions of Kubernetes clusters.";

/// The work is one write.
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
    let maps = queue.clone();
    ctx.mirrors.root_cas.on_change(move |change| {
        let namespace = change.object().metadata.namespace.clone();
        maps.add(ObjectKey::new("", namespace.unwrap_or_default()));
    });
    let ctx = Arc::clone(ctx);
    let shared = Arc::clone(&ctx);
    shared.work(&queue, "root-ca", WORKERS, move |namespace| {
        let ctx = Arc::clone(&ctx);
        async move { reconcile(&ctx, &namespace).await }
    });
}

/// What to do for one namespace.
#[derive(Debug, PartialEq)]
enum Step {
    Create(ConfigMap),
    Restore(ConfigMap),
    Settled,
}

/// Makes the namespace's ConfigMap as it should be.
async fn reconcile(ctx: &Context, key: &ObjectKey) -> Result<Next, Unfinished> {
    let known = ctx.mirrors.root_cas.get(&ObjectKey::new(key.name.clone(), NAME));
    let step = plan(
        ctx.mirrors.namespaces.get(key).as_deref(),
        known.as_deref(),
        &ctx.options.cluster_ca_pem,
    );
    let api = ctx.api::<ConfigMap>(&key.name);
    let written = match step {
        Step::Settled => return Ok(Next::AwaitChange),
        Step::Create(map) => api.create(&PostParams::default(), &map).await,
        Step::Restore(map) => api.replace(NAME, &PostParams::default(), &map).await,
    };
    match written {
        Ok(written) => ctx.mirrors.root_cas.observe(written),
        Err(error)
            if is_already_exists(&error)
                || is_namespace_terminating(&error)
                || is_not_found(&error) => {}
        refused => {
            refused.attempting(|| format!("publish configmap {}/{NAME}", key.name))?;
        }
    }
    Ok(Next::AwaitChange)
}

/// Decides what the namespace's ConfigMap needs.
fn plan(namespace: Option<&Namespace>, known: Option<&ConfigMap>, ca_pem: &str) -> Step {
    let Some(namespace) = namespace.filter(|namespace| is_active(namespace)) else {
        return Step::Settled;
    };
    let data = BTreeMap::from([(KEY.to_owned(), ca_pem.to_owned())]);
    let Some(known) = known else {
        return Step::Create(ConfigMap {
            metadata: ObjectMeta {
                name: Some(NAME.to_owned()),
                namespace: namespace.metadata.name.clone(),
                annotations: Some([(DESCRIPTION.to_owned(), DESCRIPTION_TEXT.to_owned())].into()),
                ..ObjectMeta::default()
            },
            data: Some(data),
            ..ConfigMap::default()
        });
    };
    let described =
        known.metadata.annotations.as_ref().and_then(|annotations| annotations.get(DESCRIPTION));
    if known.data.as_ref() == Some(&data) && described.is_some_and(|text| !text.is_empty()) {
        return Step::Settled;
    }
    let mut restored = known.clone();
    restored.data = Some(data);
    let annotations = restored.metadata.annotations.get_or_insert_default();
    annotations.insert(DESCRIPTION.to_owned(), DESCRIPTION_TEXT.to_owned());
    Step::Restore(restored)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    #[test]
    fn the_ca_is_published_and_restored() {
        let check = |namespace: Value, known: Option<Value>, expected: &str| {
            let namespace: Namespace = serde_json::from_value(namespace).unwrap();
            let known: Option<ConfigMap> =
                known.map(|value| serde_json::from_value(value).unwrap());
            let (found, map) = match plan(Some(&namespace), known.as_ref(), "PEM") {
                Step::Create(map) => ("create", Some(map)),
                Step::Restore(map) => ("restore", Some(map)),
                Step::Settled => ("settled", None),
            };
            assert_eq!(found, expected);
            if let Some(map) = map {
                assert_eq!(map.data, Some([("ca.crt".to_owned(), "PEM".to_owned())].into()));
                assert_eq!(plan(Some(&namespace), Some(&map), "PEM"), Step::Settled);
            }
        };
        let active = || json!({ "metadata": { "name": "a" } });
        check(active(), None, "create");
        check(active(), Some(json!({ "metadata": {}, "data": { "ca.crt": "PEM" } })), "restore");
        check(
            active(),
            Some(
                json!({ "metadata": { "annotations": { DESCRIPTION: "x" } }, "data": { "ca.crt": "other" } }),
            ),
            "restore",
        );
        check(
            active(),
            Some(
                json!({ "metadata": { "annotations": { DESCRIPTION: "x" } }, "data": { "ca.crt": "PEM", "more": "x" } }),
            ),
            "restore",
        );
        check(
            active(),
            Some(
                json!({ "metadata": { "annotations": { DESCRIPTION: "x" } }, "data": { "ca.crt": "PEM" } }),
            ),
            "settled",
        );
        check(
            json!({ "metadata": { "name": "a", "deletionTimestamp": "2026-01-01T00:00:00Z" } }),
            None,
            "settled",
        );
    }
}
