//! The kinds that are served at the moment: the built-in ones, and those that established definitions make.

use std::collections::HashMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use coracle_api::kinds::{self, Custom, GroupVersion, Kind, Storage, Subresource};
use parking_lot::Mutex;
use serde_json::Value;
use tokio::sync::watch;

use super::conversion::Conversion;
use super::definition::{Cell, Definition};
use crate::extension::Extensions;

/// Which kinds there are; read by every request without a lock.
pub(crate) struct Registry {
    current: ArcSwap<Snapshot>,
    /// Calls the webhooks that convert between versions.
    extensions: Option<Extensions>,
    /// What is never freed, to be used again.
    kept: Mutex<Kept>,
    /// Tells the number of the current kinds.
    changes: watch::Sender<u64>,
}

/// The kinds at one moment.
pub(crate) struct Snapshot {
    /// Grows with each change.
    pub(crate) number: u64,
    custom: Vec<&'static Kind>,
    by_path: HashMap<(&'static str, &'static str, &'static str), &'static Kind>,
    group_versions: Vec<GroupVersion>,
}

#[derive(Default)]
struct Kept {
    /// By all that a kind says.
    kinds: HashMap<String, &'static Kind>,
    /// By group, version and plural name.
    cells: HashMap<(String, String, String), &'static Cell>,
}

impl Default for Registry {
    fn default() -> Self {
        Self {
            current: ArcSwap::from_pointee(Snapshot::new(0, Vec::new())),
            extensions: None,
            kept: Mutex::default(),
            changes: watch::Sender::new(0),
        }
    }
}

impl Registry {
    /// No custom kinds yet; objects of those to come are converted by webhooks that this client calls.
    pub(crate) fn new(extensions: Extensions) -> Self {
        Self { extensions: Some(extensions), ..Self::default() }
    }

    /// The kinds as they are now.
    pub(crate) fn snapshot(&self) -> Arc<Snapshot> {
        self.current.load_full()
    }

    /// The kind that `plural` means in a path.
    pub(crate) fn by_resource(
        &self,
        group: &str,
        version: &str,
        plural: &str,
    ) -> Option<&'static Kind> {
        kinds::by_resource(group, version, plural)
            .or_else(|| self.current.load().by_path.get(&(group, version, plural)).copied())
    }

    /// Follows the number of the current kinds.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// From now on these are the custom kinds.
    pub(super) fn replace(&self, mut custom: Vec<&'static Kind>) {
        custom.sort_by_key(|kind| (kind.group, version_rank(kind.version), kind.plural));
        let current = self.current.load();
        if current.custom != custom {
            self.current.store(Arc::new(Snapshot::new(current.number + 1, custom)));
            self.changes.send_replace(current.number + 1);
        }
    }

    /// The kinds of an established definition, one for each served version; what is known about them is replaced at once.
    pub(super) fn kinds_of(&self, definition: &Value) -> Vec<&'static Kind> {
        let versions = definition["spec"]["versions"].as_array().into_iter().flatten();
        let served = versions.filter(|version| version["served"] == true);
        let conversion = Arc::new(Conversion::read(definition, self.extensions.clone()));
        let mut kept = self.kept.lock();
        served.map(|version| kept.kind(definition, version, &conversion)).collect()
    }

    /// The kind in whose version objects of a definition are stored, whether it is served or not.
    pub(super) fn stored_kind_of(&self, definition: &Value) -> Option<&'static Kind> {
        let mut versions = definition["spec"]["versions"].as_array()?.iter();
        let stored = versions.find(|version| version["storage"] == true)?;
        let conversion = Arc::new(Conversion::read(definition, self.extensions.clone()));
        Some(self.kept.lock().kind(definition, stored, &conversion))
    }

    /// Tells readers that something about the kinds changed that is not in the kinds themselves.
    pub(super) fn touch(&self) {
        let current = self.current.load();
        self.current.store(Arc::new(Snapshot::new(current.number + 1, current.custom.clone())));
    }
}

impl Snapshot {
    fn new(number: u64, custom: Vec<&'static Kind>) -> Self {
        let mut group_versions = kinds::group_versions().to_vec();
        for kind in &custom {
            if !group_versions.contains(&kind.group_version()) {
                group_versions.push(kind.group_version());
            }
        }
        let by_path =
            custom.iter().map(|kind| ((kind.group, kind.version, kind.plural), *kind)).collect();
        Self { number, custom, by_path, group_versions }
    }

    /// Every kind: first the built-in ones.
    pub(crate) fn all(&self) -> impl Iterator<Item = &'static Kind> {
        kinds::all().iter().chain(self.custom.iter().copied())
    }

    /// The custom kinds alone.
    pub(crate) fn custom(&self) -> &[&'static Kind] {
        &self.custom
    }

    /// The group-versions in discovery order.
    pub(crate) fn group_versions(&self) -> &[GroupVersion] {
        &self.group_versions
    }
}

impl Kept {
    fn kind(
        &mut self,
        definition: &Value,
        version: &Value,
        conversion: &Arc<Conversion>,
    ) -> &'static Kind {
        let (spec, names) = (&definition["spec"], &definition["status"]["acceptedNames"]);
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let (group, version_name) = (text(&spec["group"]), text(&version["name"]));
        let place = (group.clone(), version_name.clone(), text(&names["plural"]));
        let read = Arc::new(Definition::read_version(definition, version, conversion));
        let (has_status, has_scale) = (read.has_status, read.scale.is_some());
        let cell = *self
            .cells
            .entry(place)
            .or_insert_with(|| Box::leak(Box::new(ArcSwap::new(read.clone()))));
        cell.store(read);
        let is_ending = definition["metadata"]["deletionTimestamp"].is_string();
        let said = format!(
            "{group}/{version_name} {names} {} {has_status} {has_scale} {is_ending}",
            spec["scope"]
        );
        self.kinds.entry(said).or_insert_with(|| {
            let subresources = subresources(&group, &version_name, names, has_status, has_scale);
            Box::leak(Box::new(Kind {
                api_version: leak(kinds::api_version(&group, &version_name)),
                group: leak(group),
                version: leak(version_name),
                kind: leak(text(&names["kind"])),
                list_kind: leak(text(&names["listKind"])),
                plural: leak(text(&names["plural"])),
                singular: leak(text(&names["singular"])),
                short_names: leak_list(&names["shortNames"]),
                categories: leak_list(&names["categories"]),
                namespaced: spec["scope"] == "Namespaced",
                verbs: if is_ending { ENDING_VERBS } else { VERBS },
                subresources: Box::leak(subresources.into_boxed_slice()),
                storage: Storage::Own,
                custom: Some(Custom(cell)),
            }))
        })
    }
}

const VERBS: &[&str] =
    &["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"];
/// While a definition is being deleted its objects can only go, or lose their finalizers.
const ENDING_VERBS: &[&str] =
    &["delete", "deletecollection", "get", "list", "patch", "update", "watch"];
const CHANGE: &[&str] = &["get", "patch", "update"];

fn subresources(
    group: &str,
    version: &str,
    names: &Value,
    has_status: bool,
    has_scale: bool,
) -> Vec<Subresource> {
    let mut subresources = Vec::new();
    if has_scale {
        subresources.push(Subresource {
            name: "scale",
            group: "autoscaling",
            version: "v1",
            kind: "Scale",
            verbs: CHANGE,
        });
    }
    if has_status {
        subresources.push(Subresource {
            name: "status",
            group: leak(group.to_owned()),
            version: leak(version.to_owned()),
            kind: leak(names["kind"].as_str().unwrap_or_default().to_owned()),
            verbs: CHANGE,
        });
    }
    subresources
}

fn leak(text: String) -> &'static str {
    text.leak()
}

fn leak_list(list: &Value) -> &'static [&'static str] {
    let list = list.as_array().into_iter().flatten().filter_map(Value::as_str);
    let list: Vec<&'static str> = list.map(|text| leak(text.to_owned())).collect();
    list.leak()
}

/// Sorts versions as upstream does: `v2` before `v1` before `v1beta2` before `v1alpha1`, and others last by name.
pub(crate) fn version_rank(version: &str) -> (std::cmp::Reverse<(u8, u64, u64)>, &str) {
    let rank = || {
        let rest = version.strip_prefix('v')?;
        let digits = rest.find(|character: char| !character.is_ascii_digit()).unwrap_or(rest.len());
        let major = rest[..digits].parse::<u64>().ok()?;
        let stage = &rest[digits..];
        if stage.is_empty() {
            return Some((3, major, 0));
        }
        let (stability, minor) = match stage.strip_prefix("beta") {
            Some(minor) => (2, minor),
            None => (1, stage.strip_prefix("alpha")?),
        };
        Some((stability, major, minor.parse().ok()?))
    };
    (std::cmp::Reverse(rank().unwrap_or((0, 0, 0))), version)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn versions_are_ranked() {
        let mut versions = ["v1alpha1", "foo", "v1", "v10", "v2beta1", "v1beta2", "v2"];
        versions.sort_by_key(|version| version_rank(version));
        assert_eq!(versions, ["v10", "v2", "v1", "v2beta1", "v1beta2", "v1alpha1", "foo"]);
    }

    #[test]
    fn equal_kinds_are_the_same_one() {
        let registry = Registry::default();
        let definition = |scope: &str, column: &str| {
            json!({ "metadata": { "name": "as.x.io", "generation": 1 }, "spec": { "group": "x.io", "scope": scope, "versions": [
                { "name": "v1", "served": true, "storage": true, "schema": { "openAPIV3Schema": { "type": "object" } },
                  "additionalPrinterColumns": [{ "name": column, "type": "string", "jsonPath": ".spec" }] }] },
                "status": { "acceptedNames": { "plural": "as", "singular": "a", "kind": "A", "listKind": "AList" } } })
        };
        let first = registry.kinds_of(&definition("Cluster", "One"))[0];
        let second = registry.kinds_of(&definition("Cluster", "Two"))[0];
        assert!(std::ptr::eq(first, second));
        assert_eq!(super::super::definition_of(first).unwrap().columns[0].name, "Two");
        registry.replace(vec![first]);
        assert!(
            registry.by_resource("x.io", "v1", "as").is_some()
                && registry.by_resource("", "v1", "pods").is_some()
        );
        registry.replace(Vec::new());
        assert!(registry.by_resource("x.io", "v1", "as").is_none());
    }
}
