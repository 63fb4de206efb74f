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
