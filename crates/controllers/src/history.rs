//! ControllerRevisions: the templates that a StatefulSet or a DaemonSet has had, for `kubectl rollout history` and `undo`.
//!
//! Upstream: `pkg/controller/history/controller_history.go`. A template that comes back takes its old revision, under
//! the next number.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use coracle_reconcile::ObjectKey;
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::apps::v1::ControllerRevision;
use k8s_openapi::api::core::v1::PodTemplateSpec;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use k8s_openapi::apimachinery::pkg::runtime::RawExtension;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use kube::{Resource, ResourceExt};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::api::{Attempting, Unfinished, is_already_exists, is_not_found};
use crate::context::Context;
use crate::ownership::{claim, controlled_by, settle};
use crate::templates::{comparable, name_with, template_hash};

/// Hashes that are tried before a reconcile gives up: each is taken by another template already.
const MOST_COLLISIONS: i32 = 16;

/// A kind whose templates are recorded.
pub(crate) trait Versioned:
    Resource<DynamicType = (), Scope = NamespaceResourceScope>
    + Clone
    + std::fmt::Debug
    + DeserializeOwned
{
    /// The label under which a revision bears its hash.
    const HASH_LABEL: &'static str;

    /// Which revisions it may adopt.
    fn selector(&self) -> &LabelSelector;

    /// The template now.
    fn template(&self) -> &PodTemplateSpec;

    /// How many hashes turned out to be taken so far.
    fn collisions(&self) -> Option<i32>;

    /// What a revision bears for people to read.
    fn annotations_of_revision(&self) -> Option<BTreeMap<String, String>>;
}

/// The revision of the template that an owner has now.
pub(crate) struct Recorded {
    pub revision: Arc<ControllerRevision>,
    /// For the owner's status.
    pub collisions: Option<i32>,
}

/// How the owner's template becomes its newest revision.
#[derive(Debug)]
enum Step {
    /// It is that already.
    Newest(Arc<ControllerRevision>),
    /// It was one before: that gets this number.
    Renumber(Arc<ControllerRevision>, i64),
    /// It is new, and gets this number.
    Create(i64),
}

/// The owner's revisions, the oldest first; those that match its selector and have no controller are adopted.
pub(crate) async fn revisions<O: Versioned>(
    ctx: &Context,
    owner: &O,
) -> Result<Vec<Arc<ControllerRevision>>, Unfinished> {
    let mirror = &ctx.mirrors.controller_revisions;
    let mut candidates = mirror.owned_by(owner.meta().uid.as_deref().unwrap_or_default());
    let namespace = owner.meta().namespace.as_deref().unwrap_or_default();
    candidates.extend(ctx.orphans.controller_revisions.in_namespace(namespace));
    let claimed = claim(owner, owner.selector(), candidates);
    let mut revisions = settle(ctx, owner, mirror, claimed).await?;
    revisions.sort_by(|a, b| {
        let key = |revision: &ControllerRevision| {
            let made = revision.metadata.creation_timestamp.as_ref().map(|time| time.0);
            (revision.revision, made)
        };
        key(a).cmp(&key(b)).then_with(|| a.metadata.name.cmp(&b.metadata.name))
    });
    Ok(revisions)
}

/// Sees to it that the owner's template is its newest revision. `revisions` are those of [`revisions`].
pub(crate) async fn record<O: Versioned>(
    ctx: &Context,
    owner: &O,
    revisions: &[Arc<ControllerRevision>],
) -> Result<Recorded, Unfinished> {
    let collisions = owner.collisions();
    match step(owner.template(), revisions) {
        Step::Newest(revision) => Ok(Recorded { revision, collisions }),
        Step::Renumber(revision, number) => {
            let key = ObjectKey::of(revision.as_ref());
            let patch = json!({ "metadata": { "uid": revision.metadata.uid }, "revision": number });
            let api = ctx.api::<ControllerRevision>(&key.namespace);
            let patched = api.patch(&key.name, &PatchParams::default(), &Patch::Merge(patch)).await;
            let patched = patched.attempting(|| format!("renumber controllerrevision {key}"))?;
            ctx.mirrors.controller_revisions.observe(patched.clone());
            Ok(Recorded { revision: Arc::new(patched), collisions })
        }
        Step::Create(number) => create(ctx, owner, number).await,
    }
}

/// Decides what becomes of the template.
fn step(template: &PodTemplateSpec, revisions: &[Arc<ControllerRevision>]) -> Step {
    let wanted = data(template);
    let next = revisions.iter().filter_map(|known| known.revision).max().unwrap_or(0) + 1;
    let Some(same) = revisions.iter().rfind(|known| known.data.0 == wanted) else {
        return Step::Create(next);
    };
    if same.revision == Some(next - 1) {
        Step::Newest(Arc::clone(same))
    } else {
        Step::Renumber(Arc::clone(same), next)
    }
}

/// The other revisions of the same template: somebody made them, or two copies of us did at once.
pub(crate) fn duplicates(
    recorded: &ControllerRevision,
    revisions: &[Arc<ControllerRevision>],
) -> Vec<Arc<ControllerRevision>> {
    let is_other = |known: &&Arc<ControllerRevision>| {
        known.metadata.uid != recorded.metadata.uid && known.data.0 == recorded.data.0
    };
    revisions.iter().filter(is_other).cloned().collect()
}

/// Creates a revision; a name that another template has taken is passed over.
async fn create<O: Versioned>(
    ctx: &Context,
    owner: &O,
    number: i64,
) -> Result<Recorded, Unfinished> {
    let mut collisions = owner.collisions();
    loop {
        let revision = made(owner, number, collisions);
        let key = ObjectKey::of(&revision);
        let api = ctx.api::<ControllerRevision>(&key.namespace);
        let attempt = || format!("create controllerrevision {key}");
        let error = match api.create(&PostParams::default(), &revision).await {
            Ok(created) => {
                ctx.mirrors.controller_revisions.observe(created.clone());
                return Ok(Recorded { revision: Arc::new(created), collisions });
            }
            Err(error) => error,
        };
        if !is_already_exists(&error) || collisions.unwrap_or(0) >= MOST_COLLISIONS {
            return Err(error).attempting(attempt);
        }
        let there = api.get(&key.name).await.attempting(attempt)?;
        let ours =
            there.owner_references().iter().any(|it| Some(&it.uid) == owner.meta().uid.as_ref());
        if ours && there.data.0 == revision.data.0 {
            return Ok(Recorded { revision: Arc::new(there), collisions });
        }
        collisions = Some(collisions.unwrap_or(0) + 1);
    }
}

fn made<O: Versioned>(owner: &O, number: i64, collisions: Option<i32>) -> ControllerRevision {
    let template = owner.template();
    let hash = template_hash(template, collisions);
    let meta = template.metadata.as_ref();
    let mut labels = meta.and_then(|meta| meta.labels.clone()).unwrap_or_default();
    labels.insert(O::HASH_LABEL.to_owned(), hash.clone());
    ControllerRevision {
        metadata: ObjectMeta {
            name: Some(name_with(owner.meta().name.as_deref().unwrap_or_default(), &hash)),
            namespace: owner.meta().namespace.clone(),
            labels: Some(labels),
            annotations: owner.annotations_of_revision(),
            owner_references: Some(vec![controlled_by(owner)]),
            ..ObjectMeta::default()
        },
        data: RawExtension(data(template)),
        revision: Some(number),
    }
}

/// What a revision keeps: a patch that makes the template what it was.
fn data(template: &PodTemplateSpec) -> Value {
    let mut template = comparable(template);
    if let Value::Object(fields) = &mut template {
        fields.insert("$patch".to_owned(), json!("replace"));
    }
    json!({ "spec": { "template": template } })
}

/// The template that a revision keeps.
pub(crate) fn template_of(revision: &ControllerRevision) -> Option<PodTemplateSpec> {
    let mut template = revision.data.0.pointer("/spec/template")?.clone();
    if let Value::Object(fields) = &mut template {
        fields.remove("$patch");
    }
    serde_json::from_value(template).ok()
}

/// The revisions that are too many, the oldest first: of those that nothing uses only `limit` stay.
pub(crate) fn surplus(
    revisions: &[Arc<ControllerRevision>],
    in_use: &HashSet<String>,
    limit: Option<i32>,
) -> Vec<Arc<ControllerRevision>> {
    let limit = usize::try_from(limit.unwrap_or(10)).unwrap_or(0);
    let unused: Vec<_> =
        revisions.iter().filter(|revision| !in_use.contains(&revision.name_any())).collect();
    let surplus = unused.len().saturating_sub(limit);
    unused.into_iter().take(surplus).cloned().collect()
}

/// Deletes revisions; one that is gone already is no error.
pub(crate) async fn delete(
    ctx: &Context,
    revisions: &[Arc<ControllerRevision>],
) -> Result<(), Unfinished> {
    for revision in revisions {
        let key = ObjectKey::of(revision.as_ref());
        let this_one = Preconditions { uid: revision.metadata.uid.clone(), resource_version: None };
        let params = DeleteParams::default().preconditions(this_one);
        match ctx.api::<ControllerRevision>(&key.namespace).delete(&key.name, &params).await {
            Err(error) if is_not_found(&error) => (),
            deleted => {
                deleted.attempting(|| format!("delete controllerrevision {key}"))?;
            }
        }
        ctx.mirrors.controller_revisions.observe_gone(revision);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn template(image: &str) -> PodTemplateSpec {
        let containers = json!([{ "name": "c", "image": image, "env": [] }]);
        serde_json::from_value(json!({ "spec": { "containers": containers } })).unwrap()
    }

    fn revision(name: &str, number: i64, image: &str) -> Arc<ControllerRevision> {
        Arc::new(ControllerRevision {
            metadata: ObjectMeta { name: Some(name.to_owned()), ..ObjectMeta::default() },
            data: RawExtension(data(&template(image))),
            revision: Some(number),
        })
    }

    /// The step for a template, given revisions of these numbers and images.
    fn check(known: &[(i64, &str)], image: &str, expected: &str) {
        let known: Vec<_> =
            known.iter().map(|(number, image)| revision("r", *number, image)).collect();
        let found = match step(&template(image), &known) {
            Step::Newest(revision) => format!("newest {}", revision.revision.unwrap()),
            Step::Renumber(revision, number) => {
                format!("renumber {} to {number}", revision.revision.unwrap())
            }
            Step::Create(number) => format!("create {number}"),
        };
        assert_eq!(found, expected);
    }

    #[test]
    fn a_template_that_comes_back_takes_its_old_revision_under_the_next_number() {
        check(&[], "a", "create 1");
        check(&[(1, "a")], "a", "newest 1");
        check(&[(1, "a")], "b", "create 2");
        check(&[(1, "a"), (2, "b")], "a", "renumber 1 to 3");
        check(&[(2, "b"), (3, "a")], "a", "newest 3");
    }

    #[test]
    fn a_revision_keeps_the_whole_template() {
        let kept = revision("r", 1, "a");
        assert_eq!(kept.data.0["spec"]["template"]["$patch"], "replace");
        assert_eq!(comparable(&template_of(&kept).unwrap()), comparable(&template("a")));
    }

    #[test]
    fn of_the_revisions_that_nothing_uses_the_oldest_go() {
        let all: Vec<_> =
            (1..=4).map(|number| revision(&format!("r{number}"), number, "a")).collect();
        let check = |used: &[&str], limit: Option<i32>, expected: &[&str]| {
            let used = used.iter().map(|name| (*name).to_owned()).collect();
            let found: Vec<_> =
                surplus(&all, &used, limit).iter().map(|revision| revision.name_any()).collect();
            assert_eq!(found, expected);
        };
        check(&[], None, &[]);
        check(&["r4"], Some(2), &["r1"]);
        check(&["r1", "r4"], Some(1), &["r2"]);
        check(&["r1", "r4"], Some(0), &["r2", "r3"]);
    }
}
