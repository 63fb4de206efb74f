//! Reads the text of the default roles. A line that it cannot read is a bug, which every test finds.

use serde_json::{Map, Value, json};

use super::{AUTOUPDATE, GROUP};
use crate::identity::User;

const READ: [&str; 3] = ["get", "list", "watch"];
const WRITE: [&str; 5] = ["create", "delete", "deletecollection", "patch", "update"];

/// The objects of a text.
pub(super) fn objects(text: &str) -> Vec<Value> {
    let mut objects: Vec<Value> = Vec::new();
    for line in text.lines().filter(|line| !line.trim().is_empty() && !line.starts_with('#')) {
        let mut words = line.split_whitespace();
        if line.starts_with(' ') {
            let role = objects.iter_mut().rev().find(|object| object.get("rules").is_some());
            let rules = role.and_then(|role| role["rules"].as_array_mut());
            rules.expect("a rule follows its role").push(rule(line));
            continue;
        }
        let first = words.next().expect("the line is not blank");
        let name = words.next().expect("every object has a name");
        match first {
            "role" => objects.push(role(name, words)),
            "bind" => objects.push(binding(name, words)),
            "controller" => {
                let role_name = format!("system:controller:{name}");
                let account = format!("sa:kube-system/{name}");
                let controllers = format!("user:{}", User::controller_manager().name);
                objects.push(binding(&role_name, ["to", &account, &controllers].into_iter()));
                // The role last: its rules follow.
                objects.push(role(&role_name, std::iter::empty()));
            }
            other => unreachable!("{other} begins no line of the default roles"),
        }
    }
    objects
}

fn role<'a>(name: &str, words: impl Iterator<Item = &'a str>) -> Value {
    let (namespace, name) = split(name);
    let mut object =
        object(if namespace.is_some() { "Role" } else { "ClusterRole" }, namespace, name);
    object["rules"] = json!([]);
    for word in words {
        match word.split_once('=') {
            Some(("label", label)) => {
                object["metadata"]["labels"][format!("{GROUP}/{label}")] = "true".into()
            }
            Some(("from", label)) => {
                let labels = Map::from_iter([(format!("{GROUP}/{label}"), Value::from("true"))]);
                object["aggregationRule"] =
                    json!({ "clusterRoleSelectors": [{ "matchLabels": labels }] });
            }
            _ => unreachable!("{word} says nothing about a role"),
        }
    }
    object
}

fn binding<'a>(name: &str, words: impl Iterator<Item = &'a str>) -> Value {
    let (namespace, binding_name) = split(name);
    let mut words = words.peekable();
    let role_name = words.next_if(|word| *word != "to").unwrap_or(name);
    let (role_namespace, role_name) = split(role_name);
    let kind = if namespace.is_some() { "RoleBinding" } else { "ClusterRoleBinding" };
    let mut object = object(kind, namespace, binding_name);
    let role_kind = if role_namespace.is_some() { "Role" } else { "ClusterRole" };
    object["roleRef"] = json!({ "apiGroup": GROUP, "kind": role_kind, "name": role_name });
    object["subjects"] = words.filter(|word| *word != "to").map(subject).collect();
    object
}

fn subject(word: &str) -> Value {
    match word.split_once(':') {
        Some(("sa", account)) => {
            let (namespace, name) = account.split_once('/').expect("an account has a namespace");
            json!({ "kind": "ServiceAccount", "name": name, "namespace": namespace })
        }
        Some(("user", name)) => json!({ "apiGroup": GROUP, "kind": "User", "name": name }),
        Some(("group", name)) => json!({ "apiGroup": GROUP, "kind": "Group", "name": name }),
        _ => unreachable!("{word} is nobody"),
    }
}

fn rule(line: &str) -> Value {
    let words: Vec<&str> = line.split_whitespace().collect();
    match words.as_slice() {
        ["events"] => json!({
            "apiGroups": ["", "events.k8s.io"],
            "resources": ["events"],
            "verbs": ["create", "patch", "update"],
        }),
        [verbs, "path", paths] => json!({ "nonResourceURLs": list(paths), "verbs": list(verbs) }),
        [verbs, groups, resources] => {
            json!({ "apiGroups": list(groups), "resources": list(resources), "verbs": list(verbs) })
        }
        [verbs, groups, resources, names] => json!({
            "apiGroups": list(groups),
            "resourceNames": list(names),
            "resources": list(resources),
            "verbs": list(verbs),
        }),
        _ => unreachable!("{line} is no rule"),
    }
}

/// The words of a list, sorted as upstream's are.
fn list(words: &str) -> Vec<&str> {
    let mut list: Vec<&str> = Vec::new();
    for word in words.split(',') {
        match word {
            "read" => list.extend(READ),
            "write" => list.extend(WRITE),
            "core" => list.push(""),
            word => list.push(word),
        }
    }
    list.sort_unstable();
    list.dedup();
    list
}

fn split(name: &str) -> (Option<&str>, &str) {
    name.split_once('/').map_or((None, name), |(namespace, name)| (Some(namespace), name))
}

fn object(kind: &str, namespace: Option<&str>, name: &str) -> Value {
    let mut object = json!({
        "apiVersion": format!("{GROUP}/v1"),
        "kind": kind,
        "metadata": {
            "name": name,
            "labels": { "kubernetes.io/bootstrapping": "rbac-defaults" },
            "annotations": { AUTOUPDATE: "true" },
        },
    });
    if let Some(namespace) = namespace {
        object["metadata"]["namespace"] = namespace.into();
    }
    object
}
