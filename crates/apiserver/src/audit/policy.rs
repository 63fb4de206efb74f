//! Which requests are recorded, and how much of them: upstream's `audit.k8s.io/v1` Policy.
//!
//! As <https://github.com/kubernetes/kubernetes/blob/master/staging/src/k8s.io/apiserver/pkg/audit/policy/checker.go>.

use serde::Deserialize;

use super::AuditError;
use crate::identity::User;
use crate::request_info::RequestInfo;

/// How much of a request is recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
pub(super) enum Level {
    /// Nothing.
    None,
    /// Who did what, and what came of it.
    Metadata,
    /// And what was sent.
    Request,
    /// And what was answered.
    RequestResponse,
}

impl Level {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::None => "None",
            Self::Metadata => "Metadata",
            Self::Request => "Request",
            Self::RequestResponse => "RequestResponse",
        }
    }
}

/// When something is recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub(super) enum Stage {
    /// The request came.
    RequestReceived,
    /// The head of an answer that goes on was sent.
    ResponseStarted,
    /// The answer is over.
    ResponseComplete,
    /// A handler gave up.
    Panic,
}

impl Stage {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::RequestReceived => "RequestReceived",
            Self::ResponseStarted => "ResponseStarted",
            Self::ResponseComplete => "ResponseComplete",
            Self::Panic => "Panic",
        }
    }
}

/// The file.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Policy {
    api_version: String,
    kind: String,
    #[serde(default)]
    #[expect(dead_code, reason = "an object has metadata; a policy's says nothing to us")]
    metadata: serde_json::Value,
    #[serde(default)]
    omit_stages: Vec<Stage>,
    #[serde(default)]
    omit_managed_fields: bool,
    rules: Vec<Rule>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Rule {
    level: Level,
    #[serde(default)]
    users: Vec<String>,
    #[serde(default)]
    user_groups: Vec<String>,
    #[serde(default)]
    verbs: Vec<String>,
    #[serde(default)]
    resources: Vec<GroupResources>,
    #[serde(default)]
    namespaces: Vec<String>,
    #[serde(default, rename = "nonResourceURLs")]
    non_resource_urls: Vec<String>,
    #[serde(default)]
    omit_stages: Vec<Stage>,
    omit_managed_fields: Option<bool>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct GroupResources {
    #[serde(default)]
    group: String,
    #[serde(default)]
    resources: Vec<String>,
    #[serde(default)]
    resource_names: Vec<String>,
}

/// What is recorded of one request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Wanted {
    pub(super) level: Level,
    pub(super) omitted: Vec<Stage>,
    pub(super) omit_managed_fields: bool,
}

impl Policy {
    /// Reads the file.
    pub(super) fn parse(text: &str) -> Result<Self, AuditError> {
        let wrong = |why: String| AuditError::Policy(why);
        let policy: Self = serde_yaml::from_str(text).map_err(|error| wrong(error.to_string()))?;
        if policy.kind != "Policy" || policy.api_version != "audit.k8s.io/v1" {
            return Err(wrong(format!("it is {} of {}", policy.kind, policy.api_version)));
        }
        if policy.rules.is_empty() {
            return Err(wrong("rules: must not be empty".to_owned()));
        }
        for (index, rule) in policy.rules.iter().enumerate() {
            let about_resources = !rule.resources.is_empty() || !rule.namespaces.is_empty();
            if about_resources && !rule.non_resource_urls.is_empty() {
                return Err(wrong(format!(
                    "rules[{index}].nonResourceURLs: rules cannot apply to both regular resources and non-resource URLs"
                )));
            }
        }
        Ok(policy)
    }

    /// What is recorded of this request; the first rule that fits says it.
    pub(super) fn wanted(&self, user: &User, info: &RequestInfo, path: &str) -> Wanted {
        let fitting = self.rules.iter().find(|rule| rule.fits(user, info, path));
        let Some(rule) = fitting else {
            return Wanted { level: Level::None, omitted: Vec::new(), omit_managed_fields: false };
        };
        Wanted {
            level: rule.level,
            omitted: self.omit_stages.iter().chain(&rule.omit_stages).copied().collect(),
            omit_managed_fields: rule.omit_managed_fields.unwrap_or(self.omit_managed_fields),
        }
    }
}

impl Rule {
    fn fits(&self, user: &User, info: &RequestInfo, path: &str) -> bool {
        let has = |list: &[String], word: &str| list.iter().any(|own| own == word);
        if !(self.users.is_empty() || has(&self.users, &user.name))
            || !(self.user_groups.is_empty()
                || user.groups.iter().any(|group| has(&self.user_groups, group)))
            || !(self.verbs.is_empty() || has(&self.verbs, info.verb))
        {
            return false;
        }
        if !self.namespaces.is_empty() || !self.resources.is_empty() {
            let Some(target) = &info.resource else { return false };
            return (self.namespaces.is_empty() || has(&self.namespaces, &target.namespace))
                && (self.resources.is_empty()
                    || self.resources.iter().any(|resources| resources.fits(target)));
        }
        if !self.non_resource_urls.is_empty() {
            return info.resource.is_none()
                && self.non_resource_urls.iter().any(|pattern| match pattern.strip_suffix('*') {
                    Some(prefix) => path.starts_with(prefix),
                    None => pattern == path,
                });
        }
        true
    }
}

impl GroupResources {
    fn fits(&self, target: &crate::request_info::ResourcePath) -> bool {
        if self.group != target.group {
            return false;
        }
        if self.resources.is_empty() {
            return true;
        }
        if !self.resource_names.is_empty() && !self.resource_names.contains(&target.name) {
            return false;
        }
        self.resources.iter().any(|pattern| match pattern.split_once('/') {
            None if pattern == "*" => true,
            None => *pattern == target.resource && target.subresource.is_empty(),
            Some((main, part)) => {
                (main == "*" || main == target.resource)
                    && !target.subresource.is_empty()
                    && (part == "*" || part == target.subresource)
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use http::Method;

    use super::*;

    const POLICY: &str = r#"
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
- level: None
  users: [system:kube-proxy]
  verbs: [watch]
  resources: [{ group: "", resources: [endpoints, services] }]
- level: None
  userGroups: [system:authenticated]
  nonResourceURLs: ["/api*", /version]
- level: Request
  resources: [{ group: "", resources: [configmaps] }]
  namespaces: [kube-system]
- level: RequestResponse
  resources: [{ group: "", resources: [pods, "pods/*"] }]
  omitStages: [ResponseStarted]
- level: Request
  resources: [{ group: "", resources: [secrets], resourceNames: [mine] }]
- level: Metadata
  resources: [{ group: "" }]
"#;

    fn check(user: &str, method: Method, path: &str, expected: Level) {
        let policy = Policy::parse(POLICY).unwrap();
        let (path, watching) = path.split_once('?').map_or((path, false), |(path, _)| (path, true));
        let info = RequestInfo::read(&method, path, watching, "");
        assert_eq!(policy.wanted(&User::new(user, &[]), &info, path).level, expected, "{path}");
    }

    #[test]
    fn the_first_rule_that_fits_decides() {
        let core = "/api/v1/namespaces";
        check("system:kube-proxy", Method::GET, "/api/v1/services?watch", Level::None);
        check("alice", Method::GET, "/api/v1/services?watch", Level::Metadata);
        check("alice", Method::GET, "/version", Level::None);
        check("alice", Method::GET, "/apis", Level::None);
        check("alice", Method::GET, "/metrics", Level::None);
        check("alice", Method::PUT, &format!("{core}/kube-system/configmaps/a"), Level::Request);
        check("alice", Method::PUT, &format!("{core}/shop/configmaps/a"), Level::Metadata);
        check("alice", Method::PUT, &format!("{core}/shop/pods/a"), Level::RequestResponse);
        check("alice", Method::PUT, &format!("{core}/shop/pods/a/status"), Level::RequestResponse);
        check("alice", Method::GET, &format!("{core}/shop/secrets/mine"), Level::Request);
        check("alice", Method::GET, &format!("{core}/shop/secrets/other"), Level::Metadata);
        check("alice", Method::GET, "/apis/apps/v1/namespaces/shop/deployments", Level::None);
    }

    #[test]
    fn a_wrong_policy_is_refused() {
        for text in [
            "kind: Pod",
            "apiVersion: audit.k8s.io/v1\nkind: Policy\nrules: []",
            "apiVersion: audit.k8s.io/v1\nkind: Policy\nrules: [{ level: Loud }]",
            "apiVersion: audit.k8s.io/v1\nkind: Policy\nrules: [{ level: None, colour: red }]",
            "apiVersion: audit.k8s.io/v1\nkind: Policy\nrules: [{ level: None, namespaces: [a], nonResourceURLs: [/] }]",
        ] {
            Policy::parse(text).unwrap_err();
        }
    }
}
