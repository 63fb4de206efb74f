//! Applies one manifest as `kubectl apply` does on the client's side.
//!
//! The last applied state is kept in kubectl's own annotation, so that both can
//! be used on the same object.

use anyhow::{Context, Result};
use kube::api::{DynamicObject, Patch, PatchParams, PostParams};
use kube::core::GroupVersionKind;
use kube::discovery::{ApiResource, Scope, pinned_kind};
use kube::{Api, Client, ResourceExt};
use serde_json::{Map, Value, json};

const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// An object that was applied.
#[derive(Debug, Clone)]
pub struct Applied {
    /// `deployment.apps/hello`, as kubectl prints it.
    pub label: String,
    /// The object's kind.
    pub kind: String,
    /// Empty for cluster-scoped kinds.
    pub namespace: String,
    /// The object's name.
    pub name: String,
    /// What that changed.
    pub outcome: Outcome,
}

/// What applying changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    Created,
    Configured,
    Unchanged,
}

impl Outcome {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Configured => "configured",
            Self::Unchanged => "unchanged",
        }
    }
}

/// Creates the object, or changes it into what the manifest says.
pub async fn apply(client: &Client, manifest: &Value) -> Result<Applied> {
    let named = describe(manifest);
    apply_named(client, manifest).await.with_context(|| format!("cannot apply {named}"))
}

async fn apply_named(client: &Client, manifest: &Value) -> Result<Applied> {
    let version = manifest["apiVersion"].as_str().unwrap_or_default();
    let kind = manifest["kind"].as_str().unwrap_or_default();
    let (group, version) = version.split_once('/').unwrap_or(("", version));
    let kind = GroupVersionKind::gvk(group, version, kind);
    let (resource, capabilities) = pinned_kind(client, &kind).await?;
    let api = match capabilities.scope {
        Scope::Cluster => Api::all_with(client.clone(), &resource),
        Scope::Namespaced => {
            let namespace = manifest["metadata"]["namespace"].as_str().unwrap_or("default");
            Api::namespaced_with(client.clone(), namespace, &resource)
        }
    };
    let (object, outcome) = create_or_patch(&api, manifest).await?;
    let name = object.name_any();
    Ok(Applied {
        label: label(&resource, &name),
        kind: resource.kind,
        namespace: object.namespace().unwrap_or_default(),
        name,
        outcome,
    })
}

async fn create_or_patch(
    api: &Api<DynamicObject>,
    manifest: &Value,
) -> Result<(DynamicObject, Outcome)> {
    let mut manifest = manifest.clone();
    let recorded = serde_json::to_string(&manifest)?;
    manifest["metadata"]["annotations"][LAST_APPLIED] = json!(recorded);
    let name = manifest["metadata"]["name"].as_str().unwrap_or_default().to_owned();
    let live = if name.is_empty() { None } else { api.get_opt(&name).await? };
    let Some(live) = live else {
        let object: DynamicObject = serde_json::from_value(manifest)?;
        return Ok((api.create(&PostParams::default(), &object).await?, Outcome::Created));
    };
    let live = serde_json::to_value(&live)?;
    let last = live["metadata"]["annotations"][LAST_APPLIED].as_str();
    let last = last.and_then(|last| serde_json::from_str(last).ok()).unwrap_or(Value::Null);
    let Some(patch) = three_way(&last, &manifest, &live) else {
        return Ok((serde_json::from_value(live)?, Outcome::Unchanged));
    };
    let after = api.patch(&name, &PatchParams::default(), &Patch::Merge(patch)).await?;
    let same = is_same(live, serde_json::to_value(&after)?);
    Ok((after, if same { Outcome::Unchanged } else { Outcome::Configured }))
}

/// Whether the patch changed nothing. Controllers may write the status in between, which moves
/// the resource version and is none of ours.
fn is_same(mut before: Value, mut after: Value) -> bool {
    for object in [&mut before, &mut after] {
        let Some(object) = object.as_object_mut() else { continue };
        object.remove("status");
        if let Some(meta) = object.get_mut("metadata").and_then(Value::as_object_mut) {
            meta.remove("resourceVersion");
            meta.remove("managedFields");
        }
    }
    before == after
}

/// The JSON merge patch that brings `live` to `new`, and removes what `last` had and `new` has not.
/// `None` when nothing differs.
fn three_way(last: &Value, new: &Value, live: &Value) -> Option<Value> {
    let (Value::Object(new), Value::Object(live)) = (new, live) else {
        return (new != live).then(|| new.clone());
    };
    let mut patch = Map::new();
    for (key, value) in new {
        match live.get(key) {
            None => drop(patch.insert(key.clone(), value.clone())),
            Some(current) => {
                let last = last.get(key).unwrap_or(&Value::Null);
                if let Some(difference) = three_way(last, value, current) {
                    patch.insert(key.clone(), difference);
                }
            }
        }
    }
    for key in last.as_object().into_iter().flat_map(Map::keys) {
        // The annotation is ours, and no manifest names it.
        if !new.contains_key(key) && live.contains_key(key) {
            patch.insert(key.clone(), Value::Null);
        }
    }
    (!patch.is_empty()).then_some(Value::Object(patch))
}

fn label(resource: &ApiResource, name: &str) -> String {
    let kind = resource.kind.to_ascii_lowercase();
    if resource.group.is_empty() {
        format!("{kind}/{name}")
    } else {
        format!("{kind}.{}/{name}", resource.group)
    }
}

fn describe(manifest: &Value) -> String {
    let kind = manifest["kind"].as_str().unwrap_or("object");
    let name = manifest["metadata"]["name"].as_str().unwrap_or("without a name");
    format!("{kind} {name:?}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_patch_adds_changes_and_removes_only_what_the_manifests_said() {
        let check = |last: Value, new: Value, live: Value, expected: Option<Value>| {
            assert_eq!(three_way(&last, &new, &live), expected);
        };
        let live = json!({ "spec": { "replicas": 3, "paused": true, "defaulted": 1 } });
        let new = json!({ "spec": { "replicas": 3 } });
        check(new.clone(), new.clone(), live.clone(), None);
        check(
            json!({ "spec": { "replicas": 2, "paused": true } }),
            json!({ "spec": { "replicas": 4, "added": [1] } }),
            live,
            Some(json!({ "spec": { "replicas": 4, "added": [1], "paused": null } })),
        );
        check(json!({ "a": 1 }), json!({}), json!({}), None);
    }

    #[test]
    fn a_status_written_in_between_is_no_change_of_ours() {
        let object = |version: &str, replicas: i32, ready: i32| {
            json!({
                "metadata": { "name": "hello", "resourceVersion": version },
                "spec": { "replicas": replicas },
                "status": { "readyReplicas": ready },
            })
        };
        assert!(is_same(object("5", 1, 0), object("6", 1, 1)));
        assert!(!is_same(object("5", 1, 0), object("6", 2, 0)));
    }
}
