//! Who is asking.

use std::collections::BTreeMap;

/// An authenticated (or anonymous) user, as `authentication.k8s.io` has it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct User {
    /// `alice`, `system:serviceaccount:default:builder`, `system:node:n0`.
    pub name: String,
    /// Unique over time; empty when the authenticator knows none.
    pub uid: String,
    /// The groups, `system:authenticated` among them.
    pub groups: Vec<String>,
    /// What else the authenticator knows.
    pub extra: BTreeMap<String, Vec<String>>,
}

impl User {
    /// An authenticated user of these groups; `system:authenticated` is added.
    pub fn new(name: impl Into<String>, groups: &[&str]) -> Self {
        let mut groups: Vec<String> = groups.iter().map(|&group| group.to_owned()).collect();
        groups.push("system:authenticated".to_owned());
        Self { name: name.into(), groups, ..Self::default() }
    }

    /// Whoever shows no credentials.
    pub fn anonymous() -> Self {
        Self {
            name: "system:anonymous".to_owned(),
            groups: vec!["system:unauthenticated".to_owned()],
            ..Self::default()
        }
    }
}
