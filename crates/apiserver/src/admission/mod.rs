//! What may change or refuse a write before it is validated and stored.

use coracle_api::kinds::Kind;
use serde_json::Value;

use crate::identity::User;

/// What is being done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// A new object.
    Create,
    /// Another state of an object.
    Update,
    /// The end of an object.
    Delete,
    /// exec, attach, proxy, port-forward.
    Connect,
}

/// One write on its way through the plugins.
pub struct AdmissionRequest<'a> {
    /// What is being done.
    pub operation: Operation,
    /// To which kind.
    pub kind: &'static Kind,
    /// `status`, `scale`, or empty.
    pub subresource: &'a str,
    /// Empty for cluster-scoped kinds.
    pub namespace: &'a str,
    /// Empty while a name is still to be generated.
    pub name: &'a str,
    /// The new state, which mutating plugins may change. Null for a deletion.
    pub object: &'a mut Value,
    /// The state before, for updates and deletions.
    pub old: Option<&'a Value>,
    /// Who asks.
    pub user: &'a User,
    /// True when nothing will be stored.
    pub dry_run: bool,
}

/// The built-in plugins, in upstream's order.
pub struct Admission;

impl Admission {
    /// Over what the plugins look at.
    pub fn new(_store: coracle_store::Store, _authorizer: std::sync::Arc<crate::authz::Authorizer>) -> Self { Self }
    /// Mutating plugins; before defaulting? No: after decoding and defaulting, before validation. Updates and creates only.
    pub async fn mutate(&self, _request: &mut AdmissionRequest<'_>) -> Result<(), coracle_api::status::Status> { Ok(()) }
    /// Validating plugins; after the object's own validation, before storing (deletions too).
    pub async fn validate(&self, _request: &AdmissionRequest<'_>) -> Result<(), coracle_api::status::Status> { Ok(()) }
}
