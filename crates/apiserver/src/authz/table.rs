//! The roles and bindings, ready to be asked.

use std::collections::HashMap;
use std::sync::Arc;

use coracle_api::status::go_quote;
use coracle_store::Key;
use k8s_openapi::api::rbac::v1::PolicyRule;
use serde::Deserialize;
use tracing::error;

use super::rules::Rule;
use super::{Attributes, Decision, Target};
use crate::identity::{SERVICE_ACCOUNT_PREFIX, User};

/// All roles and bindings. The cluster's own stand under the empty namespace.
#[derive(Default)]
pub(super) struct Table {
    roles: HashMap<Box<str>, HashMap<Box<str>, Role>>,
    bindings: HashMap<Box<str>, Bindings>,
}

struct Role {
    compiled: Box<[Rule]>,
    rules: Arc<[PolicyRule]>,
}

/// The bindings of one namespace, by who they are for.
#[derive(Default)]
struct Bindings {
    users: HashMap<Box<str>, Vec<Grant>>,
    groups: HashMap<Box<str>, Vec<Grant>>,
    /// Who each binding is for, to find its grants again.
    by_name: HashMap<Box<str>, Vec<Holder>>,
}

#[derive(Clone)]
enum Holder {
    User(Box<str>),
    Group(Box<str>),
}

/// One subject of one binding.
struct Grant {
    binding: Arc<str>,
    role_namespace: Box<str>,
    role_name: Arc<str>,
    why: Arc<str>,
}

#[derive(Deserialize)]
struct StoredRole {
    #[serde(default)]
    rules: Option<Vec<PolicyRule>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct StoredBinding {
    role_ref: RoleRef,
    #[serde(default)]
    subjects: Option<Vec<Subject>>,
}

#[derive(Deserialize)]
struct RoleRef {
    kind: String,
    name: String,
}

#[derive(Deserialize)]
struct Subject {
    kind: String,
    name: String,
    #[serde(default)]
    namespace: Option<String>,
}

impl Table {
    /// Takes in a role or a binding.
    pub(super) fn put(&mut self, key: &Key, bytes: &[u8]) {
        self.remove(key);
        let taken =
            if is_role(key) { self.put_role(key, bytes) } else { self.put_binding(key, bytes) };
        if let Err(error) = taken {
            // Validation lets nothing in that does not parse. What is unreadable grants nothing.
            error!(%error, resource = %key.resource, namespace = %key.namespace, name = %key.name, "stored RBAC object is unreadable");
        }
    }

    /// Forgets a role or a binding.
    pub(super) fn remove(&mut self, key: &Key) {
        if is_role(key) {
            if let Some(roles) = self.roles.get_mut(&*key.namespace) {
                roles.remove(&*key.name);
                if roles.is_empty() {
                    self.roles.remove(&*key.namespace);
                }
            }
        } else if let Some(bindings) = self.bindings.get_mut(&*key.namespace) {
            bindings.remove(&key.name);
            if bindings.by_name.is_empty() {
                self.bindings.remove(&*key.namespace);
            }
        }
    }

    /// Whether any binding allows it.
    pub(super) fn decide(&self, attributes: &Attributes<'_>) -> Decision {
        let namespace = match attributes.target {
            Target::Resource { namespace, .. } => namespace,
            Target::Path(_) => "",
        };
        let mut missing = Vec::new();
        for grant in self.grants(attributes.user, namespace) {
            match self.compiled(&grant.role_namespace, &grant.role_name) {
                Some(rules) => {
                    if rules.iter().any(|rule| rule.allows(attributes.verb, &attributes.target)) {
                        return Decision::Allow(grant.why.clone());
                    }
                }
                None => missing.push(grant.missing_role()),
            }
        }
        if missing.is_empty() {
            return Decision::NoOpinion(String::new());
        }
        missing.dedup();
        Decision::NoOpinion(format!("RBAC: {}", in_brackets(&missing)))
    }

    /// All rules of this user, and the roles that are bound but not there.
    pub(super) fn rules_for(&self, user: &User, namespace: &str) -> (Vec<PolicyRule>, Vec<String>) {
        let mut rules = Vec::new();
        let mut missing = Vec::new();
        for grant in self.grants(user, namespace) {
            match self.role(&grant.role_namespace, &grant.role_name) {
                Some(found) => rules.extend(found.iter().cloned()),
                None => missing.push(grant.missing_role()),
            }
        }
        (rules, missing)
    }

    /// The rules of one role.
    pub(super) fn role(&self, namespace: &str, name: &str) -> Option<&Arc<[PolicyRule]>> {
        self.roles.get(namespace)?.get(name).map(|role| &role.rules)
    }

    fn compiled(&self, namespace: &str, name: &str) -> Option<&[Rule]> {
        self.roles.get(namespace)?.get(name).map(|role| &*role.compiled)
    }

    /// What was given to the user and his groups: first in the whole cluster, then in the namespace.
    fn grants<'a>(&'a self, user: &'a User, namespace: &'a str) -> impl Iterator<Item = &'a Grant> {
        let cluster = self.bindings.get("");
        let local = if namespace.is_empty() { None } else { self.bindings.get(namespace) };
        cluster.into_iter().chain(local).flat_map(|bindings| {
            let own = bindings.users.get(user.name.as_str());
            let shared = user.groups.iter().filter_map(|group| bindings.groups.get(group.as_str()));
            own.into_iter().chain(shared).flatten()
        })
    }

    fn put_role(&mut self, key: &Key, bytes: &[u8]) -> Result<(), serde_json::Error> {
        let rules = serde_json::from_slice::<StoredRole>(bytes)?.rules.unwrap_or_default();
        let role = Role { compiled: rules.iter().map(Rule::new).collect(), rules: rules.into() };
        self.roles.entry((*key.namespace).into()).or_default().insert((*key.name).into(), role);
        Ok(())
    }

    fn put_binding(&mut self, key: &Key, bytes: &[u8]) -> Result<(), serde_json::Error> {
        let stored = serde_json::from_slice::<StoredBinding>(bytes)?;
        let binding: Arc<str> = (*key.name).into();
        let role_name: Arc<str> = stored.role_ref.name.as_str().into();
        // A RoleBinding may name a ClusterRole: then its rules hold in the binding's namespace only.
        let role_namespace = if stored.role_ref.kind == "Role" { &*key.namespace } else { "" };
        let bindings = self.bindings.entry((*key.namespace).into()).or_default();
        let mut holders = Vec::new();
        for subject in stored.subjects.unwrap_or_default() {
            let Some(holder) = holder(&subject, &key.namespace) else {
                continue;
            };
            let grants = match &holder {
                Holder::User(name) => bindings.users.entry(name.clone()).or_default(),
                Holder::Group(name) => bindings.groups.entry(name.clone()).or_default(),
            };
            grants.push(Grant {
                binding: binding.clone(),
                role_namespace: role_namespace.into(),
                role_name: role_name.clone(),
                why: describe(key, &stored.role_ref, &subject).into(),
            });
            holders.push(holder);
        }
        bindings.by_name.insert((*key.name).into(), holders);
        Ok(())
    }
}

impl Bindings {
    fn remove(&mut self, name: &str) {
        for holder in self.by_name.remove(name).unwrap_or_default() {
            let (grants, holder) = match holder {
                Holder::User(holder) => (&mut self.users, holder),
                Holder::Group(holder) => (&mut self.groups, holder),
            };
            if let Some(of_holder) = grants.get_mut(&holder) {
                of_holder.retain(|grant| &*grant.binding != name);
                if of_holder.is_empty() {
                    grants.remove(&holder);
                }
            }
        }
    }
}

impl Grant {
    fn missing_role(&self) -> String {
        let kind = if self.role_namespace.is_empty() { "clusterrole" } else { "role" };
        format!("{kind}.rbac.authorization.k8s.io {} not found", go_quote(&self.role_name))
    }
}

fn is_role(key: &Key) -> bool {
    key.resource.starts_with("roles.") || key.resource.starts_with("clusterroles.")
}

/// Whom the subject means. An account without a namespace is of the binding's; in a ClusterRoleBinding it is nobody.
fn holder(subject: &Subject, binding_namespace: &str) -> Option<Holder> {
    match subject.kind.as_str() {
        "User" => Some(Holder::User(subject.name.as_str().into())),
        "Group" => Some(Holder::Group(subject.name.as_str().into())),
        "ServiceAccount" => {
            let namespace = subject.namespace.as_deref().filter(|namespace| !namespace.is_empty());
            let namespace =
                namespace.or((!binding_namespace.is_empty()).then_some(binding_namespace))?;
            Some(Holder::User(
                format!("{SERVICE_ACCOUNT_PREFIX}{namespace}:{}", subject.name).into(),
            ))
        }
        _ => None,
    }
}

/// Why somebody may: upstream shows this in `SubjectAccessReview` and audit logs.
fn describe(key: &Key, role: &RoleRef, subject: &Subject) -> String {
    let binding = if key.namespace.is_empty() {
        format!("ClusterRoleBinding {}", go_quote(&key.name))
    } else {
        format!("RoleBinding {}", go_quote(&format!("{}/{}", key.name, key.namespace)))
    };
    let whom = match (subject.kind.as_str(), &subject.namespace) {
        ("ServiceAccount", namespace) => {
            let namespace = namespace.as_deref().unwrap_or(&key.namespace);
            format!("ServiceAccount {}", go_quote(&format!("{}/{namespace}", subject.name)))
        }
        (kind, _) => format!("{kind} {}", go_quote(&subject.name)),
    };
    format!("RBAC: allowed by {binding} of {} {} to {whom}", role.kind, go_quote(&role.name))
}

/// One by itself, several in brackets, as upstream prints errors that belong together.
pub(super) fn in_brackets(messages: &[String]) -> String {
    match messages {
        [one] => one.clone(),
        several => format!("[{}]", several.join(", ")),
    }
}
