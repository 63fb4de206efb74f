//! What may change or refuse a write before it is validated and stored.
//!
//! A fixed chain of upstream's built-in plugins, in upstream's order
//! (<https://github.com/kubernetes/kubernetes/blob/master/pkg/kubeapiserver/options/plugins.go>): first those that may
//! change the object, then those that only judge it. Absent on purpose: TaintNodesByCondition, whose taint would stay
//! for ever where no node controller takes it away.

mod certificates;
mod defaults;
mod device_access;
pub(crate) mod face;
mod lifecycle;
mod limit_ranger;
pub(crate) mod matching;
pub(crate) mod metrics;
mod node_restriction;
mod pod_security;
pub(crate) mod policies;
mod priority;
mod resource_quota;
mod runtime_class;
mod service_account;
mod storage_objects;
mod tolerations;
pub(crate) mod webhooks;

use std::sync::Arc;

use coracle_api::kinds::Kind;
use coracle_api::status::{GroupResource, Status};
use coracle_store::{Range, Store};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::annotations::Annotations;
use crate::authz::{self, Authorizer};
use crate::custom_resources::Registry;
use crate::deletion::DeleteOptions;
use crate::identity::User;
use crate::query::Query;
use crate::quota::{Quotas, Reserved};
use crate::warnings::Warnings;
use policies::{Policies, Rounds};
use webhooks::{Calls, Webhooks};

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
    /// The kind in the version in which the client wrote it, which may be another spelling of `kind`.
    pub requested: &'static Kind,
    /// What else the client said about the write.
    pub(crate) options: WriteOptions<'a>,
    /// Where to say what the audit log should know.
    pub annotations: &'a Annotations,
}

/// The options of a write, in the words of the client.
#[derive(Debug, Clone, Copy)]
pub(crate) enum WriteOptions<'a> {
    /// Those of a create, update or patch, which stand in the query.
    Query(&'a Query),
    /// Those of a deletion.
    Deletion(&'a DeleteOptions),
    /// None: connections have their options as object.
    None,
}

impl WriteOptions<'_> {
    /// `CreateOptions`, `UpdateOptions` or `DeleteOptions`; null when there are none.
    pub(crate) fn to_value(self, operation: Operation) -> Value {
        let query = match self {
            Self::Query(query) => query,
            Self::Deletion(options) => return options.to_value(),
            Self::None => return Value::Null,
        };
        let kind = if operation == Operation::Create { "CreateOptions" } else { "UpdateOptions" };
        let mut options = json!({ "kind": kind, "apiVersion": "meta.k8s.io/v1" });
        if query.dry_run().unwrap_or_default() {
            options["dryRun"] = json!(["All"]);
        }
        for field in ["fieldManager", "fieldValidation"] {
            if let Some(text) = query.get(field).filter(|text| !text.is_empty()) {
                options[field] = json!(text);
            }
        }
        options
    }
}

/// Whether admission made another object of what was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mutated {
    /// Beyond what the built-in plugins fill in: what was derived from it must be derived again.
    Anew,
    /// No.
    No,
}

/// The built-in plugins.
pub struct Admission {
    store: Store,
    authorizer: Arc<Authorizer>,
    quotas: Arc<Quotas>,
    /// Absent where only the built-in plugins are wanted.
    policies: Option<Policies>,
    /// As well.
    webhooks: Option<Webhooks>,
}

impl Admission {
    /// Over what the plugins look at.
    pub(crate) fn new(store: Store, authorizer: Arc<Authorizer>, kinds: Arc<Registry>) -> Self {
        let quotas = Arc::new(Quotas::new(store.clone(), kinds));
        Self { store, authorizer, quotas, policies: None, webhooks: None }
    }

    /// The same, with the webhooks that the cluster's users configure.
    pub(crate) fn with_webhooks(self, webhooks: Webhooks) -> Self {
        Self { webhooks: Some(webhooks), ..self }
    }

    /// The same, with the policies that the cluster's users configure.
    pub(crate) fn with_policies(self, policies: Policies) -> Self {
        Self { policies: Some(policies), ..self }
    }

    /// Who keeps count of what namespaces hold.
    pub(crate) fn quotas(&self) -> Arc<Quotas> {
        Arc::clone(&self.quotas)
    }

    /// All that may change the object. Call it for creates and updates, with defaults filled in and before validation.
    pub async fn mutate(&self, request: &mut AdmissionRequest<'_>) -> Result<Mutated, Status> {
        self.mutate_built_in(request).await?;
        self.mutate_by_users(request).await
    }

    /// What the cluster's users configured to change objects, alone: for deletions and connections.
    pub(crate) async fn mutate_by_users(
        &self,
        request: &mut AdmissionRequest<'_>,
    ) -> Result<Mutated, Status> {
        if request.is_inner() {
            return Ok(Mutated::No);
        }
        let (mut rounds, mut calls) = (Rounds::default(), Calls::default());
        let by_policies = match &self.policies {
            Some(policies) => policies.mutate(request, &mut rounds).await?,
            None => false,
        };
        let by_webhooks = match &self.webhooks {
            Some(webhooks) => webhooks.mutate(request, &mut calls).await?,
            None => false,
        };
        if !by_policies && !by_webhooks {
            return Ok(Mutated::No);
        }
        if matches!(request.operation, Operation::Create | Operation::Update) {
            // What was added, such as a container, wants its defaults as much as what the user wrote.
            self.mutate_built_in(request).await?;
        }
        if let Some(policies) = &self.policies
            && rounds.repeat(request.object)
        {
            policies.mutate(request, &mut rounds).await?;
        }
        if let Some(webhooks) = &self.webhooks {
            webhooks.mutate_again(request, calls).await?;
        }
        Ok(Mutated::Anew)
    }

    /// What the cluster's users configured to judge objects, alone.
    pub(crate) async fn validate_by_users(
        &self,
        request: &AdmissionRequest<'_>,
    ) -> Result<(), Status> {
        if request.is_inner() {
            return Ok(());
        }
        if let Some(policies) = &self.policies {
            policies.validate(request).await?;
        }
        match &self.webhooks {
            Some(webhooks) => webhooks.validate(request).await,
            None => Ok(()),
        }
    }

    async fn mutate_built_in(&self, request: &mut AdmissionRequest<'_>) -> Result<(), Status> {
        lifecycle::require_namespace(&self.store, request)?;
        limit_ranger::mutate(&self.store, request);
        service_account::mutate(&self.store, request).await?;
        priority::mutate(&self.store, request)?;
        tolerations::mutate(request);
        runtime_class::mutate(&self.store, request)?;
        defaults::storage_class(&self.store, request);
        storage_objects::protect(request);
        defaults::ingress_class(&self.store, request);
        certificates::mutate(request);
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
        device_access::validate(&self.store, request)?;
        storage_objects::resize(&self.store, request)?;
        certificates::validate(&self.authorizer, request)?;
        self.refuse_escalation(request)?;
        if let Some(policies) = &self.policies {
            policies.require_params(request)?;
        }
        self.validate_by_users(request).await?;
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
    /// Whether this is a write that another one, which was admitted already, stands for: the pod's part of a binding, and the
    /// deletion that an eviction asks for. The users' webhooks and policies have seen the other.
    fn is_inner(&self) -> bool {
        match self.operation {
            Operation::Update => self.subresource == "binding",
            Operation::Delete => self.subresource == "eviction",
            Operation::Create | Operation::Connect => false,
        }
    }

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
