//! Nobody gives away rights that he has not.
//!
//! As upstream's `pkg/registry/rbac/*/policybased`: a role may only be written by who holds all its rules or has
//! `escalate` on it; a binding by who holds all rules of its role or has `bind` on that role.

use coracle_api::status::{GroupResource, Status, go_quote};
use k8s_openapi::api::rbac::v1::PolicyRule;
use serde_json::Value;

use super::table::in_brackets;
use super::{Attributes, Authorizer, Target, rules};
use crate::identity::{MASTERS, User};

const GROUP: &str = "rbac.authorization.k8s.io";

/// Refuses the write of a role or binding (`resource` is its plural name) that would give away more than the writer
/// has. Anything else is none of our business.
pub(crate) fn check_write(
    authorizer: &Authorizer,
    user: &User,
    resource: &str,
    namespace: &str,
    object: &Value,
    old: Option<&Value>,
) -> Result<(), Status> {
    if user.is_in(MASTERS) {
        return Ok(());
    }
    match resource {
        "roles" | "clusterroles" => check_role(authorizer, user, resource, namespace, object, old),
        "rolebindings" | "clusterrolebindings" => {
            check_binding(authorizer, user, resource, namespace, object, old)
        }
        _ => Ok(()),
    }
}

fn check_role(
    authorizer: &Authorizer,
    user: &User,
    resource: &str,
    namespace: &str,
    object: &Value,
    old: Option<&Value>,
) -> Result<(), Status> {
    if old.is_some_and(|old| is_same(old, object, &["rules", "aggregationRule"])) {
        return Ok(());
    }
    let name = name_of(object);
    if may(authorizer, user, "escalate", resource, namespace, name) {
        return Ok(());
    }
    let granted = rules_of(object)?;
    confirm(authorizer, user, resource, namespace, name, &granted)?;
    if object.get("aggregationRule").is_some_and(|rule| !rule.is_null()) {
        // What it will aggregate is not known yet, so only those may write it who have everything.
        confirm(authorizer, user, resource, namespace, name, &everything())?;
    }
    Ok(())
}

fn check_binding(
    authorizer: &Authorizer,
    user: &User,
    resource: &str,
    namespace: &str,
    object: &Value,
    old: Option<&Value>,
) -> Result<(), Status> {
    if old.is_some_and(|old| is_same(old, object, &["roleRef", "subjects"])) {
        return Ok(());
    }
    let role = object.pointer("/roleRef/name").and_then(Value::as_str).unwrap_or_default();
    let (role_resource, role_namespace) =
        match object.pointer("/roleRef/kind").and_then(Value::as_str) {
            Some("Role") => ("roles", namespace),
            _ => ("clusterroles", ""),
        };
    if may(authorizer, user, "bind", role_resource, namespace, role) {
        return Ok(());
    }
    let granted = authorizer.role_rules(role_namespace, role).ok_or_else(|| {
        Status::not_found(GroupResource { group: GROUP, resource: role_resource }, role)
    })?;
    confirm(authorizer, user, resource, namespace, name_of(object), &granted)
}

fn may(
    authorizer: &Authorizer,
    user: &User,
    verb: &str,
    resource: &str,
    namespace: &str,
    name: &str,
) -> bool {
    let target = Target::Resource { group: GROUP, resource, subresource: "", namespace, name };
    authorizer.authorize(&Attributes { user, verb, target, fields: &[] }).is_allowed()
}

/// Refuses when the user lacks any of these rules in the namespace.
fn confirm(
    authorizer: &Authorizer,
    user: &User,
    resource: &str,
    namespace: &str,
    name: &str,
    granted: &[PolicyRule],
) -> Result<(), Status> {
    let (owned, unresolved) = authorizer.rules_for(user, namespace);
    let missing = rules::compact(rules::missing(&owned, granted));
    if missing.is_empty() {
        return Ok(());
    }
    let mut lines: Vec<String> = missing.iter().map(compact_text).collect();
    lines.sort();
    lines.dedup();
    let mut message = format!(
        "user {} (groups={}) is attempting to grant RBAC permissions not currently held:\n{}",
        go_quote(&user.name),
        quoted(&user.groups),
        lines.join("\n")
    );
    if !unresolved.is_empty() {
        message = format!("{message}; resolution errors: {}", in_brackets(&unresolved));
    }
    Err(Status::forbidden(GroupResource { group: GROUP, resource }, name, message))
}

fn everything() -> [PolicyRule; 2] {
    let star = || Some(vec!["*".to_owned()]);
    [
        PolicyRule {
            verbs: vec!["*".to_owned()],
            api_groups: star(),
            resources: star(),
            ..PolicyRule::default()
        },
        PolicyRule {
            verbs: vec!["*".to_owned()],
            non_resource_urls: star(),
            ..PolicyRule::default()
        },
    ]
}

fn rules_of(role: &Value) -> Result<Vec<PolicyRule>, Status> {
    match role.get("rules") {
        None | Some(Value::Null) => Ok(Vec::new()),
        Some(rules) => serde_json::from_value(rules.clone())
            .map_err(|error| Status::bad_request(format!("rules: {error}"))),
    }
}

fn is_same(old: &Value, new: &Value, fields: &[&str]) -> bool {
    let field = |object: &Value, name: &str| {
        // An empty list, null and nothing say the same.
        object
            .get(name)
            .filter(|value| {
                !value.is_null() && value.as_array().is_none_or(|list| !list.is_empty())
            })
            .cloned()
    };
    fields.iter().all(|name| field(old, name) == field(new, name))
}

fn name_of(object: &Value) -> &str {
    object.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default()
}

/// `{APIGroups:[""], Resources:["pods"], Verbs:["get" "list"]}`.
fn compact_text(rule: &PolicyRule) -> String {
    let lists = [
        ("APIGroups", rule.api_groups.as_deref().unwrap_or_default()),
        ("Resources", rule.resources.as_deref().unwrap_or_default()),
        ("NonResourceURLs", rule.non_resource_urls.as_deref().unwrap_or_default()),
        ("ResourceNames", rule.resource_names.as_deref().unwrap_or_default()),
        ("Verbs", &rule.verbs),
    ];
    let parts: Vec<String> = lists
        .iter()
        .filter(|(_, words)| !words.is_empty())
        .map(|(name, words)| format!("{name}:{}", quoted(words)))
        .collect();
    format!("{{{}}}", parts.join(", "))
}

/// `["a" "b"]`, as Go prints a list of strings.
fn quoted(words: &[String]) -> String {
    let words: Vec<String> = words.iter().map(|word| go_quote(word)).collect();
    format!("[{}]", words.join(" "))
}
