use std::collections::BTreeSet;

use super::*;

fn named(kind: &str, name: &str) -> Value {
    let found = objects()
        .into_iter()
        .find(|object| object["kind"] == kind && object["metadata"]["name"] == name);
    found.unwrap_or_else(|| panic!("no {kind} {name}"))
}

#[test]
fn every_object_is_there_once_and_bears_upstreams_marks() {
    let mut seen = BTreeSet::new();
    for object in objects() {
        let metadata = &object["metadata"];
        assert!(
            seen.insert((
                object["kind"].to_string(),
                metadata["namespace"].to_string(),
                metadata["name"].to_string()
            )),
            "{metadata}"
        );
        assert_eq!(object["apiVersion"], "rbac.authorization.k8s.io/v1");
        assert_eq!(
            metadata["labels"]["kubernetes.io/bootstrapping"], "rbac-defaults",
            "{metadata}"
        );
        assert_eq!(
            metadata["annotations"]["rbac.authorization.kubernetes.io/autoupdate"], "true",
            "{metadata}"
        );
        if object.get("roleRef").is_none() {
            assert!(!object["rules"].as_array().unwrap().is_empty(), "{metadata} has no rules");
        }
    }
    assert!(seen.len() > 120, "{}", seen.len());
}

#[test]
fn every_binding_names_a_role_that_is_there() {
    for binding in objects().iter().filter(|object| object.get("roleRef").is_some()) {
        let role = named(
            binding["roleRef"]["kind"].as_str().unwrap(),
            binding["roleRef"]["name"].as_str().unwrap(),
        );
        if role["kind"] == "Role" {
            assert!(
                objects().iter().any(|role| role["metadata"]["name"] == binding["roleRef"]["name"]
                    && role["metadata"]["namespace"] == binding["metadata"]["namespace"])
            );
        }
        assert!(!binding["subjects"].as_array().unwrap().is_empty());
    }
}

#[test]
fn admin_includes_edit_and_edit_includes_view() {
    let rules = |name: &str| named("ClusterRole", name)["rules"].as_array().unwrap().clone();
    for rule in rules("view") {
        assert!(rules("edit").contains(&rule));
    }
    for rule in rules("edit") {
        assert!(rules("admin").contains(&rule));
    }
    let secrets = |name: &str| {
        rules(name).iter().any(|rule| {
            rule["resources"].as_array().unwrap().iter().any(|resource| resource == "secrets")
        })
    };
    assert!(secrets("edit") && !secrets("view"));
}

#[test]
fn a_rule_reads_as_upstream_writes_it() {
    let dns = named("ClusterRole", "system:kube-dns");
    assert_eq!(
        dns["rules"],
        json!([{ "apiGroups": [""], "resources": ["endpoints", "services"], "verbs": ["list", "watch"] }])
    );
    assert_eq!(
        named("ClusterRoleBinding", "system:kube-dns")["subjects"],
        json!([{ "kind": "ServiceAccount", "name": "kube-dns", "namespace": "kube-system" }])
    );
    assert_eq!(
        named("ClusterRole", "cluster-admin")["rules"][1],
        json!({ "nonResourceURLs": ["*"], "verbs": ["*"] })
    );
    assert_eq!(
        named("ClusterRole", "edit")["aggregationRule"]["clusterRoleSelectors"][0]["matchLabels"]["rbac.authorization.k8s.io/aggregate-to-edit"],
        "true"
    );
    assert_eq!(
        named("ClusterRole", "view")["metadata"]["labels"]["rbac.authorization.k8s.io/aggregate-to-edit"],
        "true"
    );
}

#[test]
fn only_the_public_information_is_for_the_unauthenticated() {
    for binding in objects().iter().filter(|object| object.get("subjects").is_some()) {
        let anonymous = binding["subjects"].as_array().unwrap().iter().any(|subject| {
            subject["name"] == "system:unauthenticated" || subject["name"] == "system:anonymous"
        });
        assert_eq!(
            anonymous,
            binding["metadata"]["name"] == "system:public-info-viewer",
            "{binding}"
        );
    }
}

#[test]
fn reconciling_adds_what_is_missing_and_keeps_what_was_added() {
    let wanted = named("ClusterRole", "system:node-proxier");
    assert_eq!(reconcile(&wanted, None), Some(wanted.clone()));
    assert_eq!(reconcile(&wanted, Some(&wanted)), None);
    let mut existing = wanted.clone();
    existing["metadata"]["resourceVersion"] = "7".into();
    let own = json!({ "apiGroups": ["x"], "resources": ["y"], "verbs": ["get"] });
    existing["rules"] = json!([own]);
    existing["metadata"]["labels"] = json!({ "mine": "yes" });
    let merged = reconcile(&wanted, Some(&existing)).unwrap();
    assert_eq!(merged["metadata"]["resourceVersion"], "7");
    assert_eq!(
        merged["metadata"]["labels"],
        json!({ "mine": "yes", "kubernetes.io/bootstrapping": "rbac-defaults" })
    );
    let rules = merged["rules"].as_array().unwrap();
    assert!(rules.contains(&own));
    assert!(wanted["rules"].as_array().unwrap().iter().all(|rule| rules.contains(rule)));
    assert_eq!(reconcile(&wanted, Some(&merged)), None);
}

#[test]
fn reconciling_respects_the_annotation_and_other_peoples_bindings() {
    let wanted = named("ClusterRole", "view");
    let mut existing = wanted.clone();
    existing["aggregationRule"] = Value::Null;
    existing["metadata"]["annotations"]["rbac.authorization.kubernetes.io/autoupdate"] =
        "false".into();
    assert_eq!(reconcile(&wanted, Some(&existing)), None);
    let wanted = named("ClusterRoleBinding", "cluster-admin");
    let mut existing = wanted.clone();
    existing["subjects"] = json!([{ "apiGroup": GROUP, "kind": "User", "name": "root" }]);
    assert_eq!(
        reconcile(&wanted, Some(&existing)).unwrap()["subjects"].as_array().unwrap().len(),
        2
    );
    existing["roleRef"]["name"] = "view".into();
    assert_eq!(reconcile(&wanted, Some(&existing)), None);
}

#[test]
fn an_aggregating_role_keeps_its_rules_when_reconciled() {
    let wanted = named("ClusterRole", "admin");
    let mut existing = wanted.clone();
    existing["rules"] = json!([]);
    assert_eq!(reconcile(&wanted, Some(&existing)), None);
}
