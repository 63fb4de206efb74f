//! SIGNATURES DRAFT
//! May this user do this? RBAC, from the objects of the store.

use std::sync::Arc;

use coracle_api::status::Status;
use coracle_store::Store;
use tokio_util::sync::CancellationToken;

use crate::identity::User;

/// What is asked, in the words of `SubjectAccessReview`.
#[derive(Debug, Clone, Copy)]
pub struct Attributes<'a> {
    /// Who asks.
    pub user: &'a User,
    /// `get`, `list`, `watch`, `create`, … or the lower-case HTTP method for a path.
    pub verb: &'a str,
    /// What it is done to.
    pub target: Target<'a>,
}

/// A resource, or a path that is none.
#[derive(Debug, Clone, Copy)]
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

/// RBAC over the roles and bindings of the store, compiled and held in memory.
pub struct Authorizer;

impl Authorizer {
    /// Loads all roles and bindings. Call `follow` (spawned) to stay current.
    pub fn new(_store: &Store) -> Arc<Self> { Arc::new(Self) }
    /// Applies changes from the store until shutdown. Spawn it once; returns after shutdown.
    pub async fn follow(self: Arc<Self>, _shutdown: CancellationToken) {}
    /// Decides.
    pub fn authorize(&self, _attributes: &Attributes<'_>) -> Decision { Decision::NoOpinion(String::new()) }
    /// Decides; the refusal is the 403 that the client gets (`pods "x" is forbidden: User "a" cannot get resource …`).
    pub fn check(&self, _attributes: &Attributes<'_>) -> Result<(), Status> { Ok(()) }
}
