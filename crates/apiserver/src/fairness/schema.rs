//! Which flow a request belongs to: FlowSchemas, read once, and asked in the order of their precedence.

use std::hash::{BuildHasher as _, BuildHasherDefault, DefaultHasher};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use http::HeaderValue;
use serde_json::Value;

use crate::identity::{SERVICE_ACCOUNT_PREFIX, User};
use crate::object::{meta, strings, text};
use crate::request_info::RequestInfo;

/// A FlowSchema whose level exists.
pub(super) struct Schema {
    pub(super) name: Arc<str>,
    precedence: i64,
    rules: Vec<Rule>,
    distinguisher: Distinguisher,
    /// Where the level is among the others.
    pub(super) level: usize,
    pub(super) is_exempt: bool,
    pub(super) uid: HeaderValue,
    pub(super) level_uid: HeaderValue,
    pub(super) counts: Arc<Counts>,
}

/// What became of the requests of a schema; kept when the schema changes.
#[derive(Default)]
pub(super) struct Counts {
    pub(super) dispatched: AtomicU64,
    pub(super) rejected_for_length: AtomicU64,
    pub(super) rejected_for_time: AtomicU64,
    pub(super) rejected_at_once: AtomicU64,
}

/// What makes two requests of a schema belong to different flows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Distinguisher {
    Nothing,
    User,
    Namespace,
}

struct Rule {
    subjects: Vec<Subject>,
    resources: Vec<ResourceRule>,
    paths: Vec<PathRule>,
}

enum Subject {
    User(String),
    Group(String),
    ServiceAccount { namespace: String, name: String },
}

struct ResourceRule {
    verbs: Vec<String>,
    groups: Vec<String>,
    resources: Vec<String>,
    namespaces: Vec<String>,
    /// Whether requests without a namespace are meant, too.
    cluster_scope: bool,
}

struct PathRule {
    verbs: Vec<String>,
    paths: Vec<String>,
}

/// The level that a stored schema names.
pub(super) fn level_name(schema: &Value) -> &str {
    text(schema, "/spec/priorityLevelConfiguration/name")
}

impl Schema {
    pub(super) fn read(
        object: &Value,
        level: usize,
        (is_exempt, level_uid): (bool, HeaderValue),
        counts: Arc<Counts>,
    ) -> Self {
        let rules = object.pointer("/spec/rules").and_then(Value::as_array);
        Self {
            name: Arc::from(meta(object, "name")),
            precedence: object["spec"]["matchingPrecedence"].as_i64().unwrap_or_default(),
            rules: rules.into_iter().flatten().map(Rule::read).collect(),
            distinguisher: match text(object, "/spec/distinguisherMethod/type") {
                "ByUser" => Distinguisher::User,
                "ByNamespace" => Distinguisher::Namespace,
                _ => Distinguisher::Nothing,
            },
            level,
            is_exempt,
            uid: uid(object),
            level_uid,
            counts,
        }
    }

    /// By precedence, then by name: the first that matches counts.
    pub(super) fn order(&self) -> (i64, Arc<str>) {
        (self.precedence, self.name.clone())
    }

    pub(super) fn matches(&self, user: &User, info: &RequestInfo, path: &str) -> bool {
        self.rules.iter().any(|rule| rule.matches(user, info, path))
    }

    /// The flow, as a number from which its queues are dealt.
    pub(super) fn flow(&self, user: &User, info: &RequestInfo) -> u64 {
        let distinguisher = self.distinguisher(user, info);
        BuildHasherDefault::<DefaultHasher>::default().hash_one((&*self.name, distinguisher))
    }

    /// What tells the request's flow from others of the schema.
    pub(super) fn distinguisher<'a>(&self, user: &'a User, info: &'a RequestInfo) -> &'a str {
        match self.distinguisher {
            Distinguisher::Nothing => "",
            Distinguisher::User => &user.name,
            Distinguisher::Namespace => {
                info.resource.as_ref().map_or("", |resource| &resource.namespace)
            }
        }
    }
}

/// An object's UID as the value of a header; empty for what is not stored yet.
pub(super) fn uid(object: &Value) -> HeaderValue {
    HeaderValue::from_str(meta(object, "uid")).unwrap_or(HeaderValue::from_static(""))
}

impl Rule {
    fn read(rule: &Value) -> Self {
        let list = |field: &str| rule[field].as_array().into_iter().flatten();
        Self {
            subjects: list("subjects").filter_map(Subject::read).collect(),
            resources: list("resourceRules").map(ResourceRule::read).collect(),
            paths: list("nonResourceRules").map(PathRule::read).collect(),
        }
    }

    fn matches(&self, user: &User, info: &RequestInfo, path: &str) -> bool {
        if !self.subjects.iter().any(|subject| subject.is(user)) {
            return false;
        }
        match &info.resource {
            Some(_) => self.resources.iter().any(|rule| rule.matches(info)),
            None => self.paths.iter().any(|rule| rule.matches(info.verb, path)),
        }
    }
}

impl Subject {
    fn read(subject: &Value) -> Option<Self> {
        let named = |pointer: &str| text(subject, pointer).to_owned();
        match text(subject, "/kind") {
            "User" => Some(Self::User(named("/user/name"))),
            "Group" => Some(Self::Group(named("/group/name"))),
            "ServiceAccount" => Some(Self::ServiceAccount {
                namespace: named("/serviceAccount/namespace"),
                name: named("/serviceAccount/name"),
            }),
            _ => None,
        }
    }

    fn is(&self, user: &User) -> bool {
        match self {
            Self::User(name) => name == "*" || *name == user.name,
            Self::Group(name) => name == "*" || user.groups.iter().any(|group| group == name),
            Self::ServiceAccount { namespace, name } => {
                let account = user.name.strip_prefix(SERVICE_ACCOUNT_PREFIX);
                account
                    .and_then(|account| account.split_once(':'))
                    .is_some_and(|found| found.0 == namespace && (name == "*" || found.1 == name))
            }
        }
    }
}

impl ResourceRule {
    fn read(rule: &Value) -> Self {
        Self {
            verbs: strings(rule.get("verbs")),
            groups: strings(rule.get("apiGroups")),
            resources: strings(rule.get("resources")),
            namespaces: strings(rule.get("namespaces")),
            cluster_scope: rule["clusterScope"] == true,
        }
    }

    fn matches(&self, info: &RequestInfo) -> bool {
        let Some(target) = &info.resource else { return false };
        let is_resource = |wanted: &String| match wanted.split_once('/') {
            Some((resource, sub)) => resource == target.resource && sub == target.subresource,
            None => wanted == "*" || (*wanted == target.resource && target.subresource.is_empty()),
        };
        holds(&self.verbs, info.verb)
            && holds(&self.groups, &target.group)
            && self.resources.iter().any(is_resource)
            && if target.namespace.is_empty() {
                self.cluster_scope
            } else {
                holds(&self.namespaces, &target.namespace)
            }
    }
}

impl PathRule {
    fn read(rule: &Value) -> Self {
        Self { verbs: strings(rule.get("verbs")), paths: strings(rule.get("nonResourceURLs")) }
    }

    fn matches(&self, verb: &str, path: &str) -> bool {
        let is_path = |wanted: &String| match wanted.strip_suffix('*') {
            Some(prefix) => wanted == "*" || (prefix.ends_with('/') && path.starts_with(prefix)),
            None => wanted == path,
        };
        holds(&self.verbs, verb) && self.paths.iter().any(is_path)
    }
}

fn holds(wanted: &[String], found: &str) -> bool {
    wanted.iter().any(|one| one == "*" || one == found)
}

#[cfg(test)]
mod tests {
    use http::Method;

    use super::*;
    use crate::fairness::defaults;

    /// Which of the default schemas takes the request.
    #[track_caller]
    fn check(user: &User, method: Method, path: &str, expected: &str) {
        let mut schemas: Vec<Schema> = defaults::objects()
            .iter()
            .filter(|object| object["kind"] == "FlowSchema")
            .map(|object| {
                Schema::read(object, 0, (false, HeaderValue::from_static("")), Arc::default())
            })
            .collect();
        schemas.sort_by_key(Schema::order);
        let info = RequestInfo::read(&method, path, false, "");
        let found = schemas.iter().find(|schema| schema.matches(user, &info, path));
        assert_eq!(&*found.unwrap().name, expected, "{} {path}", user.name);
    }

    #[test]
    fn upstreams_schemas_take_the_requests_they_are_for() {
        const PODS: &str = "/api/v1/namespaces/a/pods";
        const LEASE: &str = "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases/a";
        const ENDPOINTS: &str = "/api/v1/namespaces/a/endpoints/b";
        let node = User::new("system:node:n0", &["system:nodes"]);
        let manager = User::controller_manager();
        check(&User::admin(), Method::GET, PODS, "exempt");
        check(&User::new("alice", &[]), Method::GET, "/healthz", "probes");
        check(&User::anonymous(), Method::GET, "/readyz", "probes");
        check(&User::anonymous(), Method::GET, "/healthz/etcd", "global-default");
        check(&node, Method::PATCH, "/api/v1/nodes/n0/status", "system-node-high");
        check(&node, Method::PUT, LEASE, "system-node-high");
        check(&node, Method::GET, PODS, "system-nodes");
        check(&manager, Method::PUT, LEASE, "system-leader-election");
        check(&manager, Method::DELETE, LEASE, "kube-controller-manager");
        check(&manager, Method::PUT, ENDPOINTS, "endpoint-controller");
        check(&manager, Method::GET, PODS, "kube-controller-manager");
        check(&User::scheduler(), Method::POST, &format!("{PODS}/x/binding"), "kube-scheduler");
        let system = User::service_account("kube-system", "operator", "");
        check(&system, Method::GET, PODS, "kube-system-service-accounts");
        let account = User::service_account("a", "operator", "");
        check(&account, Method::GET, PODS, "service-accounts");
        check(&account, Method::GET, "/version", "service-accounts");
        check(&User::new("alice", &[]), Method::GET, PODS, "global-default");
        check(
            &User {
                name: "nobody".to_owned(),
                groups: vec!["system:authenticated".to_owned()],
                ..User::default()
            },
            Method::GET,
            PODS,
            "global-default",
        );
    }
}
