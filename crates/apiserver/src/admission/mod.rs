//! What may change or refuse a write before it is validated and stored.
//!
//! A fixed chain of upstream's built-in plugins, in upstream's order
//! (<https://github.com/kubernetes/kubernetes/blob/master/pkg/kubeapiserver/options/plugins.go>): first those that may
//! change the object, then those that only judge it. Absent on purpose, with their places marked in the chain:
//! webhooks and policies; and TaintNodesByCondition, whose taint would
//! stay for ever where no node controller takes it away.

mod defaults;
mod lifecycle;
mod limit_ranger;
pub(crate) mod matching;
mod node_restriction;
mod pod_security;
mod priority;
mod resource_quota;
mod runtime_class;
mod service_account;
mod tolerations;

use std::sync::Arc;

use coracle_api::kinds::Kind;
use coracle_api::status::{GroupResource, Status};
use coracle_store::{Range, Store};
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::authz::{self, Authorizer};
use crate::identity::User;
use crate::quota::{Quotas, Reserved};
use crate::warnings::Warnings;

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
    /// Where to say what the client should know.
    pub warnings: &'a Warnings,
    /// True when nothing will be stored.
    pub dry_run: bool,
}

/// The built-in plugins.
pub struct Admission {
    store: Store,
    authorizer: Arc<Authorizer>,
    quotas: Arc<Quotas>,
}

impl Admission {
    /// Over what the plugins look at.
    pub fn new(store: Store, authorizer: Arc<Authorizer>) -> Self {
        let quotas = Arc::new(Quotas::new(store.clone()));
        Self { store, authorizer, quotas }
    }

    /// Who keeps count of what namespaces hold.
    pub(crate) fn quotas(&self) -> Arc<Quotas> {
        Arc::clone(&self.quotas)
    }

    /// The plugins that may change the object. Call it for creates and updates, with defaults filled in and before
    /// validation.
    pub async fn mutate(&self, request: &mut AdmissionRequest<'_>) -> Result<(), Status> {
        lifecycle::require_namespace(&self.store, request)?;
        limit_ranger::mutate(&self.store, request);
        service_account::mutate(&self.store, request).await?;
        priority::mutate(&self.store, request)?;
        tolerations::mutate(request);
        runtime_class::mutate(&self.store, request)?;
        defaults::storage_class(&self.store, request);
        defaults::ingress_class(&self.store, request);
        // Mutating policies and webhooks come here.
        Ok(())
    }

    /// The plugins that judge the final object. Call it after validation and before storing; for deletions as well.
    /// Keep the answer until the outcome of the write is known: it holds what the write takes of quotas.
    pub async fn validate(&self, request: &AdmissionRequest<'_>) -> Result<Reserved, Status> {
        lifecycle::protect_namespaces(request)?;
        limit_ranger::validate(&self.store, request)?;
        service_account::validate(request)?;
        node_restriction::validate(&self.store, request)?;
        pod_security::validate(&self.store, request)?;
        priority::validate(&self.store, request)?;
        runtime_class::validate(&self.store, request)?;
        self.refuse_escalation(request)?;
        // Validating policies and webhooks come here.
        resource_quota::reserve(&self.quotas, request)
    }

    /// No plugin upstream, but at the same place: nobody gives away rights that he has not.
    fn refuse_escalation(&self, request: &AdmissionRequest<'_>) -> Result<(), Status> {
        let written = matches!(request.operation, Operation::Create | Operation::Update);
        if !written
            || !request.subresource.is_empty()
            || request.kind.group != "rbac.authorization.k8s.io"
        {
            return Ok(());
        }
        authz::check_write(
            &self.authorizer,
            request.user,
            request.kind.plural,
            request.namespace,
            request.object,
            request.old,
        )
    }
}

impl AdmissionRequest<'_> {
    /// Whether this is about a kind of the core group itself, and not about a subresource.
    fn is_core(&self, kind: &str) -> bool {
        self.kind.group.is_empty() && self.kind.kind == kind && self.subresource.is_empty()
    }

    /// The 403 that a plugin answers with.
    fn forbidden(&self, why: impl std::fmt::Display) -> Status {
        Status::forbidden(GroupResource::from(self.kind), self.shown_name(), why)
    }

    /// The name, or what is known of it before it is generated.
    fn shown_name(&self) -> &str {
        let given = ["/metadata/name", "/metadata/generateName"]
            .into_iter()
            .filter_map(|place| text(self.object, place));
        std::iter::once(self.name).chain(given).find(|name| !name.is_empty()).unwrap_or("Unknown!")
    }
}

/// The text at this place.
fn text<'a>(object: &'a Value, pointer: &str) -> Option<&'a str> {
    object.pointer(pointer)?.as_str()
}

/// All objects of a resource that can be read as `T`.
fn all<T: DeserializeOwned>(store: &Store, resource: &str) -> Vec<T> {
    let listing = store.list(&Range::all(resource), None, None, None);
    let objects = listing.map(|listing| listing.objects).unwrap_or_default();
    objects.iter().filter_map(|object| serde_json::from_slice(&object.bytes).ok()).collect()
}

/// All objects of a resource in one namespace that can be read as `T`.
fn in_namespace<T: DeserializeOwned>(store: &Store, resource: &str, namespace: &str) -> Vec<T> {
    let listing = store.list(&Range::namespace(resource, namespace), None, None, None);
    let objects = listing.map(|listing| listing.objects).unwrap_or_default();
    objects.iter().filter_map(|object| serde_json::from_slice(&object.bytes).ok()).collect()
}

/// The object as a type. It is valid already: an error is a bug.
fn read<T: DeserializeOwned>(object: &Value) -> Result<T, Status> {
    T::deserialize(object).map_err(Status::internal)
}

/// Several reasons in one message, each once, as upstream joins them.
fn joined(reasons: Vec<String>) -> String {
    let mut each: Vec<String> = Vec::new();
    for reason in reasons {
        if !each.contains(&reason) {
            each.push(reason);
        }
    }
    if let [one] = each.as_slice() { one.clone() } else { format!("[{}]", each.join(", ")) }
}

#[cfg(test)]
mod tests;
