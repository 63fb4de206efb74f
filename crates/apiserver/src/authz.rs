//! May this user do this? RBAC, from the objects of the store.
//!
//! The roles and bindings are held compiled, by subject. Before each answer the authorizer takes in what was written
//! since the last one, so that whoever was just granted a right has it at once, and whoever lost it has not.
//!
//! Semantics follow upstream's `plugin/pkg/auth/authorizer/rbac` and `pkg/registry/rbac/validation`:
//! <https://github.com/kubernetes/kubernetes/blob/master/plugin/pkg/auth/authorizer/rbac/rbac.go>.

mod aggregation;
mod escalation;
mod node;
mod rules;
mod table;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use coracle_api::selector::FieldTerm;
use coracle_api::status::{GroupResource, Status, go_quote};
use coracle_store::{Change, Gone, Range, Revision, Store, Watch};
use k8s_openapi::api::rbac::v1::PolicyRule;
use parking_lot::{Mutex, RwLock, RwLockReadGuard};

use crate::identity::{MASTERS, User};
use node::NodeAuthorizer;
use rules::Rule;
use table::Table;

pub use aggregation::{aggregate, follow_aggregation};
pub(crate) use escalation::check_write;

/// What RBAC is made of, as the store names it.
const RESOURCES: [&str; 4] = [
    "clusterroles.rbac.authorization.k8s.io",
    "clusterrolebindings.rbac.authorization.k8s.io",
    "roles.rbac.authorization.k8s.io",
    "rolebindings.rbac.authorization.k8s.io",
];

/// What is asked, in the words of `SubjectAccessReview`.
#[derive(Debug, Clone, Copy)]
pub struct Attributes<'a> {
    /// Who asks.
    pub user: &'a User,
    /// `get`, `list`, `watch`, `create`, … or the lower-case HTTP method for a path.
    pub verb: &'a str,
    /// What it is done to.
    pub target: Target<'a>,
    /// Which objects of a collection are meant, by their fields. What could not be read selects nothing that anybody may rely on.
    pub fields: &'a [FieldTerm],
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
    Allow(Arc<str>),
    /// No; the reason, often empty, is for the log and for reviews.
    NoOpinion(String),
}

impl Decision {
    /// Whether it is allowed.
    pub const fn is_allowed(&self) -> bool {
        matches!(self, Self::Allow(_))
    }
}

/// RBAC over the roles and bindings of the store.
pub struct Authorizer {
    store: Store,
    table: RwLock<Table>,
    feed: Mutex<Feed>,
    /// The table holds what was written up to this revision.
    applied: AtomicU64,
    superuser: Arc<str>,
    nodes: NodeAuthorizer,
}

/// The writes that the table has not seen.
struct Feed {
    watches: Vec<Watch>,
}

impl Authorizer {
    /// Over the roles and bindings of this store, those to come included.
    pub fn new(store: &Store) -> Arc<Self> {
        Arc::new(Self {
            store: store.clone(),
            table: RwLock::new(Table::default()),
            feed: Mutex::new(Feed { watches: Vec::new() }),
            applied: AtomicU64::new(u64::MAX),
            superuser: Arc::from(""),
            nodes: NodeAuthorizer::new(store.clone(), node_rules()),
        })
    }

    /// Decides.
    pub fn authorize(&self, attributes: &Attributes<'_>) -> Decision {
        if attributes.user.is_in(MASTERS) {
            return Decision::Allow(self.superuser.clone());
        }
        let Some(node) = attributes.user.node_name() else {
            return self.current().decide(attributes);
        };
        // As upstream's `--authorization-mode=Node,RBAC`.
        match self.nodes.decide(node, attributes) {
            Ok(()) => Decision::Allow(self.superuser.clone()),
            Err(why) => match self.current().decide(attributes) {
                Decision::NoOpinion(other) => {
                    let reasons = [why, other].into_iter().filter(|reason| !reason.is_empty());
                    Decision::NoOpinion(reasons.collect::<Vec<_>>().join("\n"))
                }
                allowed @ Decision::Allow(_) => allowed,
            },
        }
    }

    /// Decides; the refusal is the 403 that the client gets.
    pub fn check(&self, attributes: &Attributes<'_>) -> Result<(), Status> {
        match self.authorize(attributes) {
            Decision::Allow(_) => Ok(()),
            Decision::NoOpinion(reason) => Err(refusal(attributes, &reason)),
        }
    }

    /// The rules that this user has in the namespace, those of the whole cluster included; and what could not be
    /// resolved.
    pub fn rules_for(&self, user: &User, namespace: &str) -> (Vec<PolicyRule>, Vec<String>) {
        self.current().rules_for(user, namespace)
    }

    /// The rules of a role; None when there is no such role. `namespace` is empty for a ClusterRole.
    pub(crate) fn role_rules(&self, namespace: &str, name: &str) -> Option<Vec<PolicyRule>> {
        self.current().role(namespace, name).map(|role| role.to_vec())
    }

    /// The table with everything that is in the store now.
    fn current(&self) -> RwLockReadGuard<'_, Table> {
        let revision = self.store.revision().get();
        let applied = self.applied.load(Ordering::Acquire);
        if applied == u64::MAX || applied < revision {
            self.catch_up(revision);
        }
        self.table.read()
    }

    fn catch_up(&self, revision: u64) {
        let mut feed = self.feed.lock();
        let applied = self.applied.load(Ordering::Acquire);
        if applied != u64::MAX && applied >= revision {
            return; // Somebody else did it while we waited.
        }
        if feed.watches.is_empty() || self.take_in(&mut feed).is_err() {
            self.reload(&mut feed);
        }
        self.applied.store(revision, Ordering::Release);
    }

    /// Applies the writes that the watches saw.
    fn take_in(&self, feed: &mut Feed) -> Result<(), Gone> {
        for watch in &mut feed.watches {
            loop {
                match watch.try_next() {
                    Ok(Some(event)) => {
                        let object = event.object();
                        let mut table = self.table.write();
                        match &event.change {
                            Change::Put { .. } => table.put(&object.key, &object.bytes),
                            Change::Delete { .. } => table.remove(&object.key),
                        }
                    }
                    // A closed store changes no more: what we know stays right.
                    Ok(None) | Err(Gone::Closed) => break,
                    Err(gone @ Gone::Compacted { .. }) => return Err(gone),
                }
            }
        }
        Ok(())
    }

    /// Reads everything, at the start and when the watches fell behind.
    fn reload(&self, feed: &mut Feed) {
        let mut table = Table::default();
        feed.watches.clear();
        for resource in RESOURCES {
            let range = Range::all(resource);
            let Ok(listing) = self.store.list(&range, None, None, None) else {
                continue; // Closed: there is nothing to follow.
            };
            for object in &listing.objects {
                table.put(&object.key, &object.bytes);
            }
            feed.watches.extend(self.store.watch(&range, listing.revision));
        }
        *self.table.write() = table;
    }

    /// Up to which revision the answers are current; for tests and metrics.
    pub fn applied(&self) -> Revision {
        Revision::new(self.applied.load(Ordering::Acquire))
    }
}

/// What every kubelet may do to what belongs to no node: the rules of a role that nobody needs to be bound to.
fn node_rules() -> Vec<Rule> {
    let objects = crate::rbac_bootstrap::objects();
    let role = objects.iter().find(|object| {
        object["kind"] == "ClusterRole" && object["metadata"]["name"] == "system:node"
    });
    let rules = role.and_then(|role| serde_json::from_value(role["rules"].clone()).ok());
    let rules: Vec<PolicyRule> = rules.unwrap_or_default();
    rules.iter().map(Rule::new).collect()
}

/// The 403 for who may not, in upstream's words.
fn refusal(attributes: &Attributes<'_>, reason: &str) -> Status {
    let user = go_quote(&attributes.user.name);
    let verb = attributes.verb;
    let (about, name, mut message) = match attributes.target {
        Target::Path(path) => (
            GroupResource { group: "", resource: "" },
            "",
            format!("User {user} cannot {verb} path {}", go_quote(path)),
        ),
        Target::Resource { group, resource, subresource, namespace, name } => {
            let full = if subresource.is_empty() {
                resource.to_owned()
            } else {
                format!("{resource}/{subresource}")
            };
            let scope = if namespace.is_empty() {
                "at the cluster scope".to_owned()
            } else {
                format!("in the namespace {}", go_quote(namespace))
            };
            let message = format!(
                "User {user} cannot {verb} resource {} in API group {} {scope}",
                go_quote(&full),
                go_quote(group)
            );
            (GroupResource { group, resource }, name, message)
        }
    };
    if !reason.is_empty() {
        message = format!("{message}: {reason}");
    }
    Status::forbidden(about, name, escape(&message))
}

/// A browser may show the refusal as HTML: upstream takes the teeth out of it as well.
fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
pub(crate) mod tests;
