//! The one table of kinds: what each is called, which verbs it bears and which subresources it has.
//!
//! Discovery, routes, RBAC's bootstrap roles and the OpenAPI documents are all made from this table. The order is the
//! one in which upstream's discovery lists group-versions, and alphabetical within one.
//!
//! Kinds that are made at run time (CustomResourceDefinitions) are `Kind`s too: whoever makes them leaks the few
//! strings they consist of, so that every holder of a kind has a plain `&'static Kind`.

use std::collections::HashMap;
use std::sync::LazyLock;

mod table;

/// One kind of one group-version, as discovery shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kind {
    /// API group; empty for the core group.
    pub group: &'static str,
    /// Version, such as `v1`.
    pub version: &'static str,
    /// `group/version`, or `version` alone in the core group: what `apiVersion` says.
    pub api_version: &'static str,
    /// CamelCase name, such as `Deployment`.
    pub kind: &'static str,
    /// Name of the list, such as `DeploymentList`.
    pub list_kind: &'static str,
    /// Name in paths, such as `deployments`.
    pub plural: &'static str,
    /// Name that people may type, such as `deployment`.
    pub singular: &'static str,
    /// Abbreviations, such as `deploy`.
    pub short_names: &'static [&'static str],
    /// Groups of kinds that one word selects, such as `all`.
    pub categories: &'static [&'static str],
    /// Whether objects live in a namespace.
    pub namespaced: bool,
    /// Verbs in upstream's (alphabetical) order.
    pub verbs: &'static [&'static str],
    /// Subresources in alphabetical order.
    pub subresources: &'static [Subresource],
    /// Where its objects are.
    pub storage: Storage,
    /// What was made known at run time about a kind that is not in the table.
    pub custom: Option<Custom>,
}

/// What the maker of a kind keeps about it: only the maker knows its type.
#[derive(Clone, Copy)]
pub struct Custom(pub &'static (dyn std::any::Any + Send + Sync));

impl PartialEq for Custom {
    fn eq(&self, other: &Self) -> bool {
        std::ptr::addr_eq(self.0, other.0)
    }
}

impl Eq for Custom {}

impl std::fmt::Debug for Custom {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str("Custom")
    }
}

/// Where the objects of a kind are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Storage {
    /// In the store, under this kind's own name.
    Own,
    /// In the store as objects of another kind; this one is a view of them.
    View {
        /// Group of the stored kind.
        group: &'static str,
        /// Version of the stored kind.
        version: &'static str,
        /// Name of the stored kind.
        kind: &'static str,
    },
    /// Nowhere: a request that is answered and forgotten (reviews, bindings), or computed on each read.
    None,
}

/// One subresource of a kind; its own group, version and kind may differ from its parent's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Subresource {
    /// Last part of the path, such as `scale`.
    pub name: &'static str,
    /// Group of the body's kind.
    pub group: &'static str,
    /// Version of the body's kind.
    pub version: &'static str,
    /// Kind of the body.
    pub kind: &'static str,
    /// Verbs in alphabetical order.
    pub verbs: &'static [&'static str],
}

/// A group and a version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct GroupVersion {
    /// API group; empty for the core group.
    pub group: &'static str,
    /// Version, such as `v1`.
    pub version: &'static str,
    /// `group/version`, or `version` alone in the core group.
    pub api_version: &'static str,
}

impl Kind {
    /// The kind's name in the store, in RBAC messages and in `kubectl get`: `pods`, `deployments.apps`.
    pub fn resource(&self) -> String {
        if self.group.is_empty() {
            self.plural.to_owned()
        } else {
            format!("{}.{}", self.plural, self.group)
        }
    }

    /// `Pod`, `Deployment.apps`: how upstream names a kind in messages about invalid objects.
    pub fn group_kind(&self) -> String {
        if self.group.is_empty() {
            self.kind.to_owned()
        } else {
            format!("{}.{}", self.kind, self.group)
        }
    }

    /// Group and version together.
    pub const fn group_version(&self) -> GroupVersion {
        GroupVersion { group: self.group, version: self.version, api_version: self.api_version }
    }

    /// Whether the kind's main resource bears `verb`.
    pub fn allows(&self, verb: &str) -> bool {
        self.verbs.contains(&verb)
    }

    /// The subresource called `name`.
    pub fn subresource(&self, name: &str) -> Option<&'static Subresource> {
        self.subresources.iter().find(|subresource| subresource.name == name)
    }

    /// The kind whose objects the store holds for this one; `None` if nothing is stored.
    pub fn stored_as(&'static self) -> Option<&'static Kind> {
        match self.storage {
            Storage::Own => Some(self),
            Storage::View { group, version, kind } => by_kind(group, version, kind),
            Storage::None => None,
        }
    }

    /// Whether objects of this kind can be read back.
    pub const fn is_stored(&self) -> bool {
        !matches!(self.storage, Storage::None)
    }

    /// Where requests for the kind start: `/api/v1` or `/apis/apps/v1`.
    pub fn root_path(&self) -> String {
        root_path(self.group, self.version)
    }
}

impl Subresource {
    /// Whether the subresource bears `verb`.
    pub fn allows(&self, verb: &str) -> bool {
        self.verbs.contains(&verb)
    }

    /// What `apiVersion` says in its bodies.
    pub fn api_version(&self) -> String {
        api_version(self.group, self.version)
    }
}

/// Every built-in kind.
pub fn all() -> &'static [Kind] {
    table::KINDS
}

/// The built-in group-versions in discovery order.
pub fn group_versions() -> &'static [GroupVersion] {
    static GROUP_VERSIONS: LazyLock<Vec<GroupVersion>> = LazyLock::new(|| {
        let mut found: Vec<GroupVersion> = Vec::new();
        for kind in all() {
            if !found.contains(&kind.group_version()) {
                found.push(kind.group_version());
            }
        }
        found
    });
    &GROUP_VERSIONS
}

/// The kind that `plural` means in a path.
pub fn by_resource(group: &str, version: &str, plural: &str) -> Option<&'static Kind> {
    static BY_PLURAL: LazyLock<HashMap<&'static str, Vec<&'static Kind>>> =
        LazyLock::new(|| index(|kind| kind.plural));
    BY_PLURAL
        .get(plural)?
        .iter()
        .find(|kind| kind.group == group && kind.version == version)
        .copied()
}

/// The kind called `kind`; only kinds that have a path of their own (`Scale` has none).
pub fn by_kind(group: &str, version: &str, kind: &str) -> Option<&'static Kind> {
    static BY_KIND: LazyLock<HashMap<&'static str, Vec<&'static Kind>>> =
        LazyLock::new(|| index(|kind| kind.kind));
    BY_KIND
        .get(kind)?
        .iter()
        .find(|found| found.group == group && found.version == version)
        .copied()
}

/// The kind called `kind` in the group-version written as `api_version`.
pub fn by_api_version(api_version: &str, kind: &str) -> Option<&'static Kind> {
    let (group, version) = split_api_version(api_version);
    by_kind(group, version, kind)
}

/// The kind of a plural name in whatever version its group has.
pub fn by_group_resource(group: &str, plural: &str) -> Option<&'static Kind> {
    all().iter().find(|kind| kind.group == group && kind.plural == plural)
}

/// `v1` is `("", "v1")`, `apps/v1` is `("apps", "v1")`.
pub fn split_api_version(api_version: &str) -> (&str, &str) {
    api_version.split_once('/').unwrap_or(("", api_version))
}

/// `("", "v1")` is `v1`, `("apps", "v1")` is `apps/v1`.
pub fn api_version(group: &str, version: &str) -> String {
    if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") }
}

/// Where requests of a group-version start: `/api/v1` or `/apis/apps/v1`.
pub fn root_path(group: &str, version: &str) -> String {
    if group.is_empty() { format!("/api/{version}") } else { format!("/apis/{group}/{version}") }
}

fn index(name: fn(&Kind) -> &'static str) -> HashMap<&'static str, Vec<&'static Kind>> {
    let mut found: HashMap<&'static str, Vec<&'static Kind>> = HashMap::new();
    for kind in all() {
        found.entry(name(kind)).or_default().push(kind);
    }
    found
}

#[cfg(test)]
mod tests;
