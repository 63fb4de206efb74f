//! `Role`, `ClusterRole`, `RoleBinding`, `ClusterRoleBinding`.

use serde_json::Value;

use crate::rules::Rules;
use crate::rules::json::{Read, default_zero, each, object};

const GROUP: &str = "rbac.authorization.k8s.io";

pub static ROLE: Rules = Rules { ..Rules::GENERIC };

pub static CLUSTER_ROLE: Rules = Rules { ..Rules::GENERIC };

pub static ROLE_BINDING: Rules = Rules { default: default_binding, ..Rules::GENERIC };

pub static CLUSTER_ROLE_BINDING: Rules = Rules { default: default_binding, ..Rules::GENERIC };

fn default_binding(binding: &mut Value) {
    default_zero(object(binding, "roleRef"), "apiGroup", GROUP);
    each(binding, "subjects", |subject| {
        if matches!(subject["kind"].text(), "User" | "Group") {
            default_zero(subject, "apiGroup", GROUP);
        }
    });
}
