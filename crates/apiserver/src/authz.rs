//! May this user do this? RBAC, from the objects of the store.

use crate::identity::User;

/// What is asked, in the words of `SubjectAccessReview`.
#[derive(Debug, Clone)]
pub struct Attributes<'a> {
    /// Who asks.
    pub user: &'a User,
    /// `get`, `list`, `watch`, `create`, … or the lower-case HTTP method for a path.
    pub verb: &'a str,
    /// What it is done to.
    pub target: Target<'a>,
}

/// A resource, or a path that is none.
#[derive(Debug, Clone)]
pub enum Target<'a> {
    /// `/api` and `/apis` objects.
    Resource {
        /// The API group, empty for core.
        group: &'a str,
        /// `pods`.
        resource: &'a str,
        /// `log`, or empty.
        subresource: &'a str,
        /// Empty for all namespaces and cluster-scoped objects.
        namespace: &'a str,
        /// Empty for collections.
        name: &'a str,
    },
    /// `/healthz`, `/version`, `/metrics`.
    Path(&'a str),
}

/// The answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// Go ahead; says which binding allows it.
    Allow(String),
    /// No; the reason is for the log and for reviews.
    NoOpinion(String),
}
