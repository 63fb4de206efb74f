//! Entries of managers who wrote another version of a custom kind than the writer of now.
//!
//! What such a manager wants is told by paths of its own version. Whether a write takes something of it away is therefore judged there:
//! both states are converted to that version and compared in it, as upstream's structured-merge-diff does
//! (<https://github.com/kubernetes-sigs/structured-merge-diff/blob/master/merge/update.go>). An apply looks at the wishes of others
//! before there is a new state: for it they are told in its version, by what the object loses with those fields.

use std::collections::BTreeMap;

use coracle_api::apply::{Comparison, Entry, Managed, Manager, compare, without};
use coracle_api::kinds::{Kind, split_api_version};
use serde_json::Value;

use super::{LIST, Shape, out_of_reach, put, take};
use crate::answer::Answer;
use crate::call::Call;
use crate::change::Part;
use crate::custom_resources;
use crate::object::meta;

/// Whether an entry is of another version of this kind.
pub(super) fn is_elsewhere(kind: &Kind, api_version: &str) -> bool {
    kind.custom.is_some() && api_version != kind.api_version
}

/// Takes away from managers of other versions what a change of `old` into `new` takes from them.
pub(crate) async fn settle(
    call: &Call,
    kind: &'static Kind,
    part: Part,
    old: &Value,
    new: &mut Value,
) -> Answer<()> {
    let Some(mut managed) = elsewhere(kind, new) else { return Ok(()) };
    let entries = take(new);
    let mut differences: BTreeMap<String, Comparison> = BTreeMap::new();
    for entry in &mut managed.0 {
        let version = &entry.manager.api_version;
        // A version that is not served any longer has no paths that anybody could compare.
        let Some(other) = kind_of(call, kind, version) else { continue };
        if !is_elsewhere(kind, version) {
            continue;
        }
        if !differences.contains_key(version) {
            let before = converted(other, old).await?;
            let after = converted(other, new).await?;
            let difference = compare(Shape::of(other).type_ref(), &before, &after);
            let difference = difference.outside(&out_of_reach(other, part));
            differences.insert(version.clone(), difference);
        }
        let Some(difference) = differences.get(version) else { continue };
        let left = std::mem::take(&mut entry.fields);
        entry.fields = left.difference(&difference.taken()).difference(&difference.removed);
    }
    let is_same = entries.as_ref().and_then(Managed::read).is_some_and(|read| read == managed);
    put(new, if is_same { entries } else { managed.to_json() });
    Ok(())
}

/// Who wants what in an object, told in the version of one who applies.
pub(crate) struct Translated {
    /// Of which state of the object.
    revision: String,
    /// All entries; the fields of those of other versions as this one has them.
    pub(crate) managed: Managed,
    originals: Vec<Entry>,
}

impl Translated {
    /// None where all entries are in the version of the kind.
    pub(crate) async fn of(call: &Call, kind: &'static Kind, live: &Value) -> Answer<Option<Self>> {
        let Some(mut managed) = elsewhere(kind, live) else { return Ok(None) };
        let mut bare = live.clone();
        take(&mut bare);
        let mut originals = Vec::new();
        for entry in &mut managed.0 {
            let version = &entry.manager.api_version;
            let Some(other) = kind_of(call, kind, version) else { continue };
            if !is_elsewhere(kind, version) {
                continue;
            }
            originals.push(entry.clone());
            let theirs = converted(other, &bare).await?;
            let rest = without(Shape::of(other).type_ref(), &theirs, &entry.fields);
            // What cannot be converted in part is told by its own paths.
            if let Ok(rest) = converted(kind, &rest).await {
                let lost = compare(Shape::of(kind).type_ref(), &bare, &rest);
                entry.fields = lost.removed.union(&lost.modified);
            }
        }
        let revision = meta(live, "resourceVersion").to_owned();
        Ok(Some(Self { revision, managed, originals }))
    }

    /// Whether this is about that state.
    pub(crate) fn is_of(&self, live: &Value) -> bool {
        self.revision == meta(live, "resourceVersion")
    }

    /// The entries after an apply, those of other versions in their own words: [`settle`] takes from them what they lose.
    pub(crate) fn restore(&self, mut managed: Managed) -> Managed {
        for entry in &mut managed.0 {
            let is_it = |original: &&Entry| same(&original.manager, &entry.manager);
            if let Some(original) = self.originals.iter().find(is_it) {
                entry.fields = original.fields.clone();
            }
        }
        managed
    }
}

/// Whether both are one entry: a manager that applies has another one once it applies another version.
fn same(one: &Manager, other: &Manager) -> bool {
    one.is(other) && one.api_version == other.api_version
}

/// Whether an apply has to translate.
pub(crate) fn has_elsewhere(kind: &'static Kind, object: &Value) -> bool {
    elsewhere(kind, object).is_some()
}

/// The entries of an object, if there is one of another version.
fn elsewhere(kind: &'static Kind, object: &Value) -> Option<Managed> {
    let entries = object.pointer(LIST).filter(|_| kind.custom.is_some())?;
    let of_other = |entry: &Value| {
        entry["apiVersion"].as_str().is_some_and(|version| is_elsewhere(kind, version))
    };
    entries.as_array()?.iter().any(of_other).then(|| Managed::read(entries))?
}

/// The same kind in another version.
fn kind_of(call: &Call, kind: &'static Kind, api_version: &str) -> Option<&'static Kind> {
    let (group, version) = split_api_version(api_version);
    call.server.kinds.by_resource(group, version, kind.plural).filter(|_| group == kind.group)
}

async fn converted(kind: &'static Kind, object: &Value) -> Answer<Value> {
    if object["apiVersion"] == kind.api_version {
        return Ok(object.clone());
    }
    let mut bare = object.clone();
    take(&mut bare);
    custom_resources::convert(kind, bare).await
}
