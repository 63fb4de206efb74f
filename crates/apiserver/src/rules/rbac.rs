//! `Role`, `ClusterRole`, `RoleBinding`, `ClusterRoleBinding`.

use coracle_api::names;
use coracle_api::status::{FieldErrors, Path};
use serde_json::Value;

use crate::rules::Rules;
use crate::rules::checks::label_selector;
use crate::rules::json::{Read, default_zero, each, object};

const GROUP: &str = "rbac.authorization.k8s.io";

pub static ROLE: Rules = Rules {
    validate: |role, errors| {
        validate_rules(&role["rules"], Reach::Namespace, &Path::new("rules"), errors)
    },
    ..Rules::GENERIC
};

pub static CLUSTER_ROLE: Rules = Rules {
    validate: |role, errors| {
        validate_rules(&role["rules"], Reach::Cluster, &Path::new("rules"), errors);
        let path = Path::new("aggregationRule").child("clusterRoleSelectors");
        for (index, selector) in
            role["aggregationRule"]["clusterRoleSelectors"].items().iter().enumerate()
        {
            label_selector(selector, &path.index(index), errors);
        }
        if role["aggregationRule"].is_set()
            && role["aggregationRule"]["clusterRoleSelectors"].size() == 0
        {
            errors.required(
                path,
                "at least one clusterRoleSelector required if aggregationRule is non-nil",
            );
        }
    },
    ..Rules::GENERIC
};

pub static ROLE_BINDING: Rules = Rules {
    default: default_binding,
    validate: |binding, errors| validate_binding(binding, Reach::Namespace, errors),
    validate_update: same_role,
    ..Rules::GENERIC
};

pub static CLUSTER_ROLE_BINDING: Rules = Rules {
    default: default_binding,
    validate: |binding, errors| validate_binding(binding, Reach::Cluster, errors),
    validate_update: same_role,
    ..Rules::GENERIC
};

/// Where a role's rules hold.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Reach {
    Namespace,
    Cluster,
}

fn default_binding(binding: &mut Value) {
    default_zero(object(binding, "roleRef"), "apiGroup", GROUP);
    each(binding, "subjects", |subject| {
        if matches!(subject["kind"].text(), "User" | "Group") {
            default_zero(subject, "apiGroup", GROUP);
        }
    });
}

fn validate_rules(rules: &Value, reach: Reach, path: &Path, errors: &mut FieldErrors) {
    for (index, rule) in rules.items().iter().enumerate() {
        let at = path.index(index);
        if rule["verbs"].size() == 0 {
            errors.required(at.child("verbs"), "verbs must contain at least one value");
        }
        let urls = &rule["nonResourceURLs"];
        if urls.size() > 0 {
            let at = at.child("nonResourceURLs");
            if reach == Reach::Namespace {
                errors.invalid(
                    &at,
                    urls.clone(),
                    "namespaced rules cannot apply to non-resource URLs",
                );
            }
            if ["apiGroups", "resources", "resourceNames"]
                .iter()
                .any(|field| rule[*field].size() > 0)
            {
                errors.invalid(
                    at,
                    urls.clone(),
                    "rules cannot apply to both regular resources and non-resource URLs",
                );
            }
            continue;
        }
        if rule["apiGroups"].size() == 0 {
            errors.required(
                at.child("apiGroups"),
                "resource rules must supply at least one api group",
            );
        }
        if rule["resources"].size() == 0 {
            errors.required(
                at.child("resources"),
                "resource rules must supply at least one resource",
            );
        }
    }
}

fn validate_binding(binding: &Value, reach: Reach, errors: &mut FieldErrors) {
    let roles: &[&str] = match reach {
        Reach::Namespace => &["ClusterRole", "Role"],
        Reach::Cluster => &["ClusterRole"],
    };
    let (role, path) = (&binding["roleRef"], Path::new("roleRef"));
    if role["apiGroup"] != GROUP {
        errors.not_supported(path.child("apiGroup"), role["apiGroup"].text(), &[GROUP]);
    }
    if !roles.contains(&role["kind"].text()) {
        errors.not_supported(path.child("kind"), role["kind"].text(), roles);
    }
    match role["name"].text() {
        "" => errors.required(path.child("name"), ""),
        name => errors.invalid_each(path.child("name"), name, names::path_segment(name)),
    }
    for (index, subject) in binding["subjects"].items().iter().enumerate() {
        validate_subject(subject, reach, &Path::new("subjects").index(index), errors);
    }
}

fn validate_subject(subject: &Value, reach: Reach, path: &Path, errors: &mut FieldErrors) {
    let name = subject["name"].text();
    if name.is_empty() {
        errors.required(path.child("name"), "");
    }
    let group = subject["apiGroup"].text();
    match subject["kind"].text() {
        "ServiceAccount" => {
            if !name.is_empty() {
                errors.invalid_each(path.child("name"), name, names::dns_subdomain(name));
            }
            if !group.is_empty() {
                errors.not_supported(path.child("apiGroup"), group, &[""]);
            }
            // Within a namespace, an account without one is that namespace's.
            if reach == Reach::Cluster && subject["namespace"].text().is_empty() {
                errors.required(path.child("namespace"), "");
            }
        }
        "User" | "Group" => {
            if group != GROUP {
                errors.not_supported(path.child("apiGroup"), group, &[GROUP]);
            }
        }
        other => {
            errors.not_supported(path.child("kind"), other, &["ServiceAccount", "User", "Group"])
        }
    }
}

/// Whoever may change a binding's subjects need not be one who may grant another role.
fn same_role(new: &Value, old: &Value, errors: &mut FieldErrors) {
    if new["roleRef"] != old["roleRef"] {
        errors.invalid("roleRef", new["roleRef"].clone(), "cannot change roleRef");
    }
}
