use std::collections::HashSet;

use super::*;

#[test]
fn names_are_unique_within_a_group_version() {
    let mut seen = HashSet::new();
    for kind in all() {
        for name in [kind.plural, kind.kind].iter().chain(kind.short_names) {
            assert!(
                seen.insert((kind.api_version, *name)),
                "{} {name} occurs twice",
                kind.api_version
            );
        }
    }
}

#[test]
fn rows_are_well_formed_and_in_order() {
    for pair in all().windows(2) {
        if pair[0].api_version == pair[1].api_version {
            let paths = |kind: &Kind| kind.kind.to_owned();
            // Upstream sorts discovery by path; kinds that begin alike differ in their plurals' endings only.
            assert!(
                pair[0].plural < pair[1].plural || paths(&pair[0]) < paths(&pair[1]),
                "{}",
                pair[1].plural
            );
        }
    }
    for kind in all() {
        assert_eq!(kind.list_kind, format!("{}List", kind.kind));
        assert_eq!(kind.api_version, api_version(kind.group, kind.version));
        assert_eq!(kind.singular, kind.kind.to_lowercase());
        assert!(kind.verbs.is_sorted(), "{}", kind.kind);
        assert!(
            kind.subresources.is_sorted_by_key(|subresource| subresource.name),
            "{}",
            kind.kind
        );
        assert_eq!(kind.is_stored(), kind.allows("watch"), "{}", kind.kind);
        if kind.is_stored() {
            assert!(kind.stored_as().is_some(), "{}", kind.kind);
        }
    }
}

#[test]
fn kinds_are_found_by_every_name() {
    let deployment = by_resource("apps", "v1", "deployments").unwrap();
    assert_eq!(by_kind("apps", "v1", "Deployment"), Some(deployment));
    assert_eq!(by_api_version("apps/v1", "Deployment"), Some(deployment));
    assert_eq!(by_group_resource("apps", "deployments"), Some(deployment));
    assert_eq!(by_resource("", "v1", "deployments"), None);
    assert_eq!(by_resource("apps", "v1", "deploy"), None);
    assert_eq!(
        (deployment.resource(), deployment.group_kind()),
        ("deployments.apps".into(), "Deployment.apps".into())
    );
    assert_eq!(deployment.root_path(), "/apis/apps/v1");
    let scale = deployment.subresource("scale").unwrap();
    assert_eq!((scale.api_version().as_str(), scale.kind), ("autoscaling/v1", "Scale"));
    assert!(scale.allows("patch") && !scale.allows("delete"));
    let pod = by_kind("", "v1", "Pod").unwrap();
    assert_eq!((pod.resource().as_str(), pod.root_path().as_str()), ("pods", "/api/v1"));
    assert_eq!(
        pod.subresource("eviction").map(|found| found.api_version()),
        Some("policy/v1".to_owned())
    );
    assert_eq!(
        by_kind("authorization.k8s.io", "v1", "SubjectAccessReview").and_then(Kind::stored_as),
        None
    );
}

#[test]
fn api_versions_come_apart_and_together() {
    for (written, group, version) in [("v1", "", "v1"), ("apps/v1", "apps", "v1")] {
        assert_eq!(split_api_version(written), (group, version));
        assert_eq!(api_version(group, version), written);
    }
    assert_eq!(group_versions().first().map(|first| first.api_version), Some("v1"));
    assert_eq!(group_versions().len(), 23);
}
