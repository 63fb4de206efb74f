//! Controller references: who controls an object, and what its controller may adopt or has to release.
//!
//! Upstream: `pkg/controller/controller_ref_manager.go`.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::sync::Arc;

use coracle_reconcile::{Change, Mirror, ObjectKey, Queue};
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta, OwnerReference};
use kube::Resource;
use kube::api::{Patch, PatchParams};
use parking_lot::Mutex;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::api::{Attempting, Unfinished, is_not_found};
use crate::context::Context;

/// The reference to the object's controller.
pub(crate) fn controller_of(meta: &ObjectMeta) -> Option<&OwnerReference> {
    meta.owner_references
        .as_deref()
        .unwrap_or_default()
        .iter()
        .find(|owner| owner.controller == Some(true))
}

/// The key of the object's controller, if it is of kind `K`.
pub(crate) fn controller_key<K: Resource<DynamicType = ()>>(
    meta: &ObjectMeta,
) -> Option<ObjectKey> {
    let owner = controller_of(meta)?;
    let group = owner.api_version.split_once('/').map_or("", |(group, _)| group);
    (owner.kind == K::kind(&()) && group == K::group(&()))
        .then(|| ObjectKey::new(meta.namespace.clone().unwrap_or_default(), owner.name.clone()))
}

/// A reference that makes `owner` the controller of what bears it.
pub(crate) fn controlled_by<K: Resource<DynamicType = ()>>(owner: &K) -> OwnerReference {
    OwnerReference {
        api_version: K::api_version(&()).into_owned(),
        kind: K::kind(&()).into_owned(),
        name: owner.meta().name.clone().unwrap_or_default(),
        uid: owner.meta().uid.clone().unwrap_or_default(),
        controller: Some(true),
        block_owner_deletion: Some(true),
    }
}

/// Whether `selector` selects something that has these labels. An empty selector selects everything.
pub(crate) fn selects(selector: &LabelSelector, labels: Option<&BTreeMap<String, String>>) -> bool {
    let value = |key: &str| labels.and_then(|labels| labels.get(key));
    let wanted = selector.match_labels.iter().flatten();
    let mut expressions = selector.match_expressions.iter().flatten();
    wanted.into_iter().all(|(key, wanted)| value(key) == Some(wanted))
        && expressions.all(|expression| {
            let found = value(&expression.key);
            let listed = found.is_some_and(|found| {
                expression.values.iter().flatten().any(|value| value == found)
            });
            match expression.operator.as_str() {
                "In" => listed,
                "NotIn" => !listed,
                "Exists" => found.is_some(),
                "DoesNotExist" => found.is_none(),
                _ => false,
            }
        })
}

/// What a controller's selector and references say about objects.
#[derive(Debug)]
pub(crate) struct Claim<K> {
    /// Controlled by it and selected.
    pub keep: Vec<Arc<K>>,
    /// Selected, and controlled by nobody.
    pub adopt: Vec<Arc<K>>,
    /// Controlled by it, and no longer selected.
    pub release: Vec<Arc<K>>,
}

/// Decides which of `candidates` belong to `owner`.
pub(crate) fn claim<O, K>(
    owner: &O,
    selector: &LabelSelector,
    candidates: impl IntoIterator<Item = Arc<K>>,
) -> Claim<K>
where
    O: Resource,
    K: Resource,
{
    let mut claim = Claim { keep: Vec::new(), adopt: Vec::new(), release: Vec::new() };
    let owner_is_going = owner.meta().deletion_timestamp.is_some();
    for object in candidates {
        let meta = object.meta();
        let selected = selects(selector, meta.labels.as_ref());
        match controller_of(meta) {
            Some(controller) if Some(&controller.uid) != owner.meta().uid.as_ref() => (),
            Some(_) if selected => claim.keep.push(object),
            // An owner that is going leaves its references to the garbage collector.
            Some(_) if owner_is_going => (),
            Some(_) => claim.release.push(object),
            None if selected && !owner_is_going && meta.deletion_timestamp.is_none() => {
                claim.adopt.push(object)
            }
            None => (),
        }
    }
    claim
}

/// Adopts and releases; answers what the owner has afterwards.
pub(crate) async fn settle<O, K>(
    ctx: &Context,
    owner: &O,
    mirror: &Mirror<K>,
    claim: Claim<K>,
) -> Result<Vec<Arc<K>>, Unfinished>
where
    O: Resource<Scope = NamespaceResourceScope, DynamicType = ()>
        + Clone
        + DeserializeOwned
        + Debug,
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>
        + Clone
        + DeserializeOwned
        + Debug
        + Send
        + Sync
        + 'static,
{
    settle_marking(ctx, owner, mirror, claim, None).await
}

/// [`settle`], and where the owner's objects bear a finalizer, what is adopted gets it, and what is released loses it.
pub(crate) async fn settle_marking<O, K>(
    ctx: &Context,
    owner: &O,
    mirror: &Mirror<K>,
    claim: Claim<K>,
    finalizer: Option<&str>,
) -> Result<Vec<Arc<K>>, Unfinished>
where
    O: Resource<Scope = NamespaceResourceScope, DynamicType = ()>
        + Clone
        + DeserializeOwned
        + Debug,
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>
        + Clone
        + DeserializeOwned
        + Debug
        + Send
        + Sync
        + 'static,
{
    let Claim { mut keep, adopt, release } = claim;
    for object in release {
        let uid = owner.meta().uid.as_deref();
        let mut owners = object.meta().owner_references.clone().unwrap_or_default();
        owners.retain(|reference| Some(reference.uid.as_str()) != uid);
        let mut patch = json!({ "ownerReferences": (!owners.is_empty()).then_some(owners) });
        if let Some(finalizer) = finalizer {
            let mut kept = object.meta().finalizers.clone().unwrap_or_default();
            kept.retain(|name| name != finalizer);
            patch["finalizers"] = json!(kept);
        }
        patch_metadata(ctx, mirror, object.as_ref(), patch, "release").await?;
    }
    if !adopt.is_empty() && is_alive(ctx, owner).await? {
        for object in adopt {
            let mut owners = object.meta().owner_references.clone().unwrap_or_default();
            owners.push(controlled_by(owner));
            let mut patch = json!({ "ownerReferences": owners });
            if let Some(finalizer) = finalizer {
                let mut all = object.meta().finalizers.clone().unwrap_or_default();
                if !all.iter().any(|name| name == finalizer) {
                    all.push(finalizer.to_owned());
                }
                patch["finalizers"] = json!(all);
            }
            keep.extend(patch_metadata(ctx, mirror, object.as_ref(), patch, "adopt").await?);
        }
    }
    Ok(keep)
}

/// Asks the API itself, because a mirror may not yet know that the owner is going or was replaced.
async fn is_alive<O>(ctx: &Context, owner: &O) -> Result<bool, Unfinished>
where
    O: Resource<Scope = NamespaceResourceScope, DynamicType = ()>
        + Clone
        + DeserializeOwned
        + Debug,
{
    let key = ObjectKey::of(owner);
    let live = ctx.api::<O>(&key.namespace).get_opt(&key.name).await;
    let live = live.attempting(|| format!("read {} {key} before it adopts", O::kind(&())))?;
    Ok(live.is_some_and(|live| {
        live.meta().uid == owner.meta().uid && live.meta().deletion_timestamp.is_none()
    }))
}

/// Writes a part of the metadata, unless the object changed meanwhile. `None` if it is gone.
async fn patch_metadata<K>(
    ctx: &Context,
    mirror: &Mirror<K>,
    object: &K,
    mut patch: Value,
    verb: &str,
) -> Result<Option<Arc<K>>, Unfinished>
where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>
        + Clone
        + DeserializeOwned
        + Debug
        + Send
        + Sync
        + 'static,
{
    let meta = object.meta();
    let key = ObjectKey::of(object);
    patch["uid"] = json!(meta.uid);
    patch["resourceVersion"] = json!(meta.resource_version);
    let patch = json!({ "metadata": patch });
    let patched = ctx
        .api::<K>(&key.namespace)
        .patch(&key.name, &PatchParams::default(), &Patch::Merge(patch))
        .await;
    match patched {
        Ok(new) => {
            mirror.observe(new.clone());
            Ok(Some(Arc::new(new)))
        }
        Err(error) if is_not_found(&error) => Ok(None),
        refused => refused.map(|_| None).attempting(|| format!("{verb} {} {key}", K::kind(&()))),
    }
}

/// Queues the owners that a child's change concerns: the one that controls it, the one that did, and those that might
/// adopt it because it has none and their `selects_it` says so.
pub(crate) fn follow_children<O, K>(
    children: &Mirror<K>,
    owners: &Mirror<O>,
    queue: &Queue,
    selects_it: impl Fn(&O, Option<&BTreeMap<String, String>>) -> bool + Send + Sync + 'static,
) where
    O: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + Sync + 'static,
    K: Resource + Clone + DeserializeOwned + Debug + Send + Sync + 'static,
{
    let (owners, queue) = (owners.clone(), queue.clone());
    children.on_change(move |change| {
        let (before, child) = match change {
            Change::Applied { old, new } => (old.as_ref(), new),
            Change::Deleted(last) => (None, last),
        };
        let meta = child.meta();
        let controller = controller_key::<O>(meta);
        let before = before.and_then(|before| controller_key::<O>(before.meta()));
        if let Some(before) = before.filter(|before| Some(before) != controller.as_ref()) {
            queue.add(before);
        }
        if let Some(key) = controller {
            queue.add(key);
        } else if controller_of(meta).is_none() {
            let candidates = owners.in_namespace(meta.namespace.as_deref().unwrap_or_default());
            let selecting =
                candidates.iter().filter(|owner| selects_it(owner, meta.labels.as_ref()));
            selecting.for_each(|owner| queue.add(ObjectKey::of(owner.as_ref())));
        }
    });
}

/// The objects of a kind that nobody controls, by namespace.
///
/// Without it each reconcile would search its whole namespace for objects to adopt.
pub(crate) struct Orphans<K> {
    keys: Arc<Mutex<BTreeSet<ObjectKey>>>,
    mirror: Mirror<K>,
}

impl<K> Orphans<K>
where
    K: Resource + Clone + DeserializeOwned + Debug + Send + Sync + 'static,
{
    /// Keeps the index of a mirror.
    pub fn follow(mirror: &Mirror<K>) -> Self {
        let keys: Arc<Mutex<BTreeSet<ObjectKey>>> = Arc::default();
        let index = Arc::clone(&keys);
        mirror.on_change(move |change| {
            let key = ObjectKey::of(change.object().as_ref());
            let orphaned = match change {
                Change::Applied { new, .. } => controller_of(new.meta()).is_none(),
                Change::Deleted(_) => false,
            };
            if orphaned {
                index.lock().insert(key);
            } else {
                index.lock().remove(&key);
            }
        });
        Self { keys, mirror: mirror.clone() }
    }

    /// The orphans of one namespace.
    pub fn in_namespace(&self, namespace: &str) -> Vec<Arc<K>> {
        let keys: Vec<ObjectKey> = {
            let keys = self.keys.lock();
            let range = keys.range(ObjectKey::new(namespace, "")..);
            range.take_while(|key| key.namespace == namespace).cloned().collect()
        };
        keys.iter().filter_map(|key| self.mirror.get(key)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pod::Pod;
    use k8s_openapi::api::apps::v1::ReplicaSet;
    use serde_json::Value;

    fn set(going: bool) -> ReplicaSet {
        serde_json::from_value(json!({
            "metadata": { "name": "web", "namespace": "default", "uid": "me",
                          "deletionTimestamp": going.then_some("2026-01-01T00:00:00Z") },
            "spec": { "selector": { "matchLabels": { "app": "web" } } },
        }))
        .unwrap()
    }

    fn owned_by(uid: &str) -> Value {
        json!([{ "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "x", "uid": uid, "controller": true }])
    }

    /// One pod, and where the claim puts it.
    fn check(owner_is_going: bool, pod_metadata: Value, expected: &str) {
        let set = set(owner_is_going);
        let pod: Pod = serde_json::from_value(json!({ "metadata": pod_metadata })).unwrap();
        let claim = claim(&set, &set.spec.selector, [Arc::new(pod)]);
        let found = match (claim.keep.len(), claim.adopt.len(), claim.release.len()) {
            (1, 0, 0) => "keep",
            (0, 1, 0) => "adopt",
            (0, 0, 1) => "release",
            _ => "ignore",
        };
        assert_eq!(found, expected, "{pod_metadata}");
    }

    #[test]
    fn selector_and_controller_reference_decide_who_owns_a_pod() {
        let mine = || json!({ "app": "web" });
        let going = "2026-01-01T00:00:00Z";
        check(false, json!({ "labels": mine(), "ownerReferences": owned_by("me") }), "keep");
        check(
            false,
            json!({ "labels": { "app": "x" }, "ownerReferences": owned_by("me") }),
            "release",
        );
        check(false, json!({ "labels": mine(), "ownerReferences": owned_by("another") }), "ignore");
        check(false, json!({ "labels": mine() }), "adopt");
        check(false, json!({ "labels": { "app": "x" } }), "ignore");
        check(false, json!({ "labels": mine(), "deletionTimestamp": going }), "ignore");
        check(true, json!({ "labels": mine() }), "ignore");
        check(true, json!({ "labels": mine(), "ownerReferences": owned_by("me") }), "keep");
        check(
            true,
            json!({ "labels": { "app": "x" }, "ownerReferences": owned_by("me") }),
            "ignore",
        );
    }

    #[test]
    fn selectors_know_all_operators() {
        let labels: BTreeMap<String, String> = [("tier".to_owned(), "front".to_owned())].into();
        let check = |selector: Value, expected: bool| {
            let parsed: LabelSelector = serde_json::from_value(selector.clone()).unwrap();
            assert_eq!(selects(&parsed, Some(&labels)), expected, "{selector}");
        };
        check(json!({}), true);
        check(json!({ "matchLabels": { "tier": "front" } }), true);
        check(json!({ "matchLabels": { "tier": "back" } }), false);
        let expression = |key: &str, operator: &str, values: &[&str]| json!({ "matchExpressions": [{ "key": key, "operator": operator, "values": values }] });
        check(expression("tier", "In", &["front", "back"]), true);
        check(expression("tier", "In", &["back"]), false);
        check(expression("app", "In", &["web"]), false);
        check(expression("tier", "NotIn", &["back"]), true);
        check(expression("tier", "NotIn", &["front"]), false);
        check(expression("app", "NotIn", &["web"]), true);
        check(expression("tier", "Exists", &[]), true);
        check(expression("app", "Exists", &[]), false);
        check(expression("app", "DoesNotExist", &[]), true);
        check(expression("tier", "DoesNotExist", &[]), false);
    }
}
