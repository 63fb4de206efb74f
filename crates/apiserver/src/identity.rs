//! Who is asking.

use std::collections::BTreeMap;

/// Members may do everything, before any rule is looked at.
pub const MASTERS: &str = "system:masters";
/// Everybody who showed valid credentials.
pub const AUTHENTICATED: &str = "system:authenticated";
/// Everybody who showed none.
pub const UNAUTHENTICATED: &str = "system:unauthenticated";
/// The kubelets.
pub const NODES: &str = "system:nodes";
/// What the name of a node's user starts with.
pub const NODE_PREFIX: &str = "system:node:";
/// What the name of a ServiceAccount's user starts with.
pub const SERVICE_ACCOUNT_PREFIX: &str = "system:serviceaccount:";
/// All ServiceAccounts.
pub const SERVICE_ACCOUNTS: &str = "system:serviceaccounts";

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
        if !groups.iter().any(|group| group == AUTHENTICATED) {
            groups.push(AUTHENTICATED.to_owned());
        }
        Self { name: name.into(), groups, ..Self::default() }
    }

    /// Whoever shows no credentials.
    pub fn anonymous() -> Self {
        Self {
            name: "system:anonymous".to_owned(),
            groups: vec![UNAUTHENTICATED.to_owned()],
            ..Self::default()
        }
    }

    /// The person who owns the cluster: the user of the administrator's kubeconfig.
    pub fn admin() -> Self {
        Self::new("system:admin", &[MASTERS])
    }

    /// The API server itself, when it writes its own bootstrap objects.
    pub fn apiserver() -> Self {
        Self::new("system:apiserver", &[MASTERS])
    }

    /// The API server as a client of the kubelets.
    pub fn kubelet_client() -> Self {
        Self::new("kube-apiserver-kubelet-client", &["system:kubelet-api-admins"])
    }

    /// The controllers.
    pub fn controller_manager() -> Self {
        Self::new("system:kube-controller-manager", &[])
    }

    /// Whoever keeps the rules of aggregated ClusterRoles right: `authz::follow_aggregation`.
    pub fn role_aggregation() -> Self {
        Self::service_account("kube-system", "clusterrole-aggregation-controller", "")
    }

    /// The scheduler.
    pub fn scheduler() -> Self {
        Self::new("system:kube-scheduler", &[])
    }

    /// The proxy of services.
    pub fn proxy() -> Self {
        Self::new("system:kube-proxy", &[])
    }

    /// The kubelet of one node.
    pub fn node(name: &str) -> Self {
        Self::new(format!("{NODE_PREFIX}{name}"), &[NODES])
    }

    /// A ServiceAccount, with the groups that it always has.
    pub fn service_account(namespace: &str, name: &str, uid: &str) -> Self {
        let mut user = Self::new(
            format!("{SERVICE_ACCOUNT_PREFIX}{namespace}:{name}"),
            &[SERVICE_ACCOUNTS, &format!("{SERVICE_ACCOUNTS}:{namespace}")],
        );
        user.uid = uid.to_owned();
        user
    }

    /// Whether the user is in this group.
    pub fn is_in(&self, group: &str) -> bool {
        self.groups.iter().any(|own| own == group)
    }

    /// The name of the node whose kubelet this is, if it is one.
    pub fn node_name(&self) -> Option<&str> {
        self.name.strip_prefix(NODE_PREFIX).filter(|_| self.is_in(NODES))
    }
}

/// Splits `system:serviceaccount:NAMESPACE:NAME` into namespace and name.
pub fn split_service_account(user: &str) -> Option<(&str, &str)> {
    user.strip_prefix(SERVICE_ACCOUNT_PREFIX)?.split_once(':').filter(|(namespace, name)| {
        !namespace.is_empty() && !name.is_empty() && !name.contains(':')
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_account_is_in_its_three_groups() {
        let user = User::service_account("shop", "builder", "u1");
        assert_eq!(user.name, "system:serviceaccount:shop:builder");
        assert_eq!(
            user.groups,
            ["system:serviceaccounts", "system:serviceaccounts:shop", "system:authenticated"]
        );
        assert_eq!(split_service_account(&user.name), Some(("shop", "builder")));
    }

    #[test]
    fn only_members_of_system_nodes_are_nodes() {
        assert_eq!(User::node("n0").node_name(), Some("n0"));
        assert_eq!(User::new("system:node:n0", &[]).node_name(), None);
        assert_eq!(User::admin().node_name(), None);
    }

    #[test]
    fn names_that_only_look_like_service_accounts_are_refused() {
        for name in [
            "system:serviceaccount:a",
            "system:serviceaccount::b",
            "system:serviceaccount:a:",
            "system:serviceaccount:a:b:c",
            "alice",
        ] {
            assert_eq!(split_service_account(name), None, "{name}");
        }
    }
}
