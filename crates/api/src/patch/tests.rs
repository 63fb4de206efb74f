use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::schema::Schema;

fn type_of(group: &str, kind: &str) -> TypeId {
    Schema::get().kind_type(group, "v1", kind).unwrap()
}

fn strategic(kind: (&str, &str), original: &Value, patch: &Value) -> Result<Value, PatchError> {
    strategic_merge_patch(type_of(kind.0, kind.1), original, patch.to_string().as_bytes())
}

fn pod_spec(original: Value, patch: Value, expected: Value) {
    let merged =
        strategic(("", "Pod"), &json!({ "spec": original }), &json!({ "spec": patch })).unwrap();
    assert_eq!(merged["spec"], expected);
}

#[test]
fn lists_of_objects_are_merged_by_key() {
    pod_spec(
        json!({ "containers": [{ "name": "a", "image": "a:1", "env": [{ "name": "X", "value": "1" }] }, { "name": "b" }] }),
        json!({ "containers": [{ "name": "a", "image": "a:2", "env": [{ "name": "Y", "value": "2" }] }] }),
        json!({ "containers": [
            { "name": "a", "image": "a:2", "env": [{ "name": "Y", "value": "2" }, { "name": "X", "value": "1" }] },
            { "name": "b" }
        ] }),
    );
    pod_spec(
        json!({ "containers": [{ "name": "a" }] }),
        json!({ "containers": [{ "name": "b", "image": "b" }] }),
        json!({ "containers": [{ "name": "b", "image": "b" }, { "name": "a" }] }),
    );
}

#[test]
fn lists_without_a_strategy_are_replaced() {
    pod_spec(
        json!({ "containers": [{ "name": "a", "args": ["x", "y"] }], "tolerations": [{ "key": "a" }] }),
        json!({ "containers": [{ "name": "a", "args": ["z"] }], "tolerations": [{ "key": "b" }] }),
        json!({ "containers": [{ "name": "a", "args": ["z"] }], "tolerations": [{ "key": "b" }] }),
    );
}

#[test]
fn null_deletes_and_never_lands() {
    pod_spec(
        json!({ "nodeName": "n", "securityContext": { "runAsUser": 1, "runAsGroup": 2 } }),
        json!({ "nodeName": null, "securityContext": { "runAsUser": null }, "dnsConfig": { "options": null, "searches": ["a"] } }),
        json!({ "securityContext": { "runAsGroup": 2 }, "dnsConfig": { "searches": ["a"] } }),
    );
}

#[test]
fn items_are_deleted_and_lists_replaced_by_directive() {
    let two = json!({ "containers": [{ "name": "a", "image": "a" }, { "name": "b" }] });
    pod_spec(
        two.clone(),
        json!({ "containers": [{ "name": "a", "$patch": "delete" }] }),
        json!({ "containers": [{ "name": "b" }] }),
    );
    pod_spec(
        two.clone(),
        json!({ "containers": [{ "$patch": "replace" }, { "name": "c", "image": "c" }] }),
        json!({ "containers": [{ "name": "c", "image": "c" }] }),
    );
    pod_spec(
        two.clone(),
        json!({ "containers": [{ "name": "a", "$patch": "replace" }] }),
        json!({ "containers": [] }),
    );
    pod_spec(
        json!({ "securityContext": { "runAsUser": 1 }, "hostIPC": true }),
        json!({ "securityContext": { "$patch": "replace", "runAsGroup": 3 } }),
        json!({ "securityContext": { "runAsGroup": 3 }, "hostIPC": true }),
    );
    pod_spec(
        json!({ "securityContext": { "runAsUser": 1 } }),
        json!({ "securityContext": { "$patch": "delete" } }),
        json!({ "securityContext": {} }),
    );
    pod_spec(
        json!({}),
        json!({ "containers": [{ "name": "a", "$patch": "delete" }, { "name": "b" }] }),
        json!({ "containers": [{ "name": "b" }] }),
    );
}

#[test]
fn element_order_is_followed_and_foreign_items_keep_their_place() {
    pod_spec(
        json!({ "containers": [{ "name": "a" }, { "name": "foreign" }, { "name": "b" }] }),
        json!({ "$setElementOrder/containers": [{ "name": "b" }, { "name": "a" }, { "name": "c" }],
                "containers": [{ "name": "c", "image": "c" }] }),
        json!({ "containers": [{ "name": "foreign" }, { "name": "b" }, { "name": "a" }, { "name": "c", "image": "c" }] }),
    );
    let original = json!({ "metadata": { "finalizers": ["a", "foreign", "b"] } });
    let patch = json!({ "metadata": {
        "$setElementOrder/finalizers": ["c", "b"],
        "$deleteFromPrimitiveList/finalizers": ["a"],
        "finalizers": ["c"]
    } });
    let merged = strategic(("", "Pod"), &original, &patch).unwrap();
    assert_eq!(merged["metadata"]["finalizers"], json!(["c", "foreign", "b"]));
}

#[test]
fn scalars_are_added_once_and_deleted_by_directive() {
    let original = json!({ "metadata": { "finalizers": ["a", "b"] } });
    let add = json!({ "metadata": { "finalizers": ["b", "c"] } });
    assert_eq!(
        strategic(("", "Pod"), &original, &add).unwrap()["metadata"]["finalizers"],
        json!(["a", "b", "c"])
    );
    let delete = json!({ "metadata": { "$deleteFromPrimitiveList/finalizers": ["a", "x"] } });
    assert_eq!(
        strategic(("", "Pod"), &original, &delete).unwrap()["metadata"]["finalizers"],
        json!(["b"])
    );
}

#[test]
fn retained_keys_are_all_that_stays() {
    let original = json!({ "spec": { "strategy": { "type": "RollingUpdate", "rollingUpdate": { "maxSurge": 1 } } } });
    let patch = json!({ "spec": { "strategy": { "$retainKeys": ["type"], "type": "Recreate" } } });
    let merged = strategic(("apps", "Deployment"), &original, &patch).unwrap();
    assert_eq!(merged["spec"]["strategy"], json!({ "type": "Recreate" }));
    let wrong =
        json!({ "spec": { "strategy": { "$retainKeys": ["rollingUpdate"], "type": "Recreate" } } });
    let error = strategic(("apps", "Deployment"), &original, &wrong).unwrap_err();
    assert_eq!(error, PatchError::Malformed("invalid patch format of retainKeys".to_owned()));
    pod_spec(
        json!({ "volumes": [{ "name": "v", "emptyDir": {} }] }),
        json!({ "volumes": [{ "name": "v", "$retainKeys": ["name", "hostPath"], "hostPath": { "path": "/x" } }] }),
        json!({ "volumes": [{ "name": "v", "hostPath": { "path": "/x" } }] }),
    );
}

#[test]
fn ports_of_services_are_merged_by_number() {
    let original =
        json!({ "spec": { "ports": [{ "port": 80, "protocol": "TCP", "nodePort": 30000 }] } });
    let patch =
        json!({ "spec": { "ports": [{ "port": 80, "targetPort": 8080 }, { "port": 443 }] } });
    let merged = strategic(("", "Service"), &original, &patch).unwrap();
    let expected = json!([{ "port": 80, "protocol": "TCP", "nodePort": 30000, "targetPort": 8080 }, { "port": 443 }]);
    assert_eq!(merged["spec"]["ports"], expected);
}

#[test]
fn malformed_strategic_patches_are_refused() {
    let original = json!({ "spec": { "containers": [{ "name": "a" }] } });
    let cases = [
        (json!({ "spec": { "containers": [{ "image": "x" }] } }), 422),
        (json!({ "spec": { "$patch": "explode" } }), 422),
        (json!({ "spec": { "$setElementOrder/containers": "x" } }), 400),
        (
            json!({ "spec": { "$setElementOrder/containers": [{ "name": "b" }], "containers": [{ "name": "a" }] } }),
            400,
        ),
        (json!([1]), 400),
    ];
    for (patch, code) in cases {
        let error = strategic(("", "Pod"), &original, &patch).expect_err("it must be refused");
        assert_eq!(error.status().code, code, "{patch}: {error}");
    }
}

#[test]
fn merge_patches_follow_the_rfc() {
    // The examples of RFC 7386, appendix A, whose patch is an object.
    let cases = [
        (json!({"a":"b"}), json!({"a":"c"}), json!({"a":"c"})),
        (json!({"a":"b"}), json!({"b":"c"}), json!({"a":"b","b":"c"})),
        (json!({"a":"b"}), json!({"a":null}), json!({})),
        (json!({"a":"b","b":"c"}), json!({"a":null}), json!({"b":"c"})),
        (json!({"a":["b"]}), json!({"a":"c"}), json!({"a":"c"})),
        (json!({"a":"c"}), json!({"a":["b"]}), json!({"a":["b"]})),
        (json!({"a":{"b":"c"}}), json!({"a":{"b":"d","c":null}}), json!({"a":{"b":"d"}})),
        (json!({"a":[{"b":"c"}]}), json!({"a":[1]}), json!({"a":[1]})),
        (json!({"e":null}), json!({"a":1}), json!({"e":null,"a":1})),
        (json!({}), json!({"a":{"bb":{"ccc":null}}}), json!({"a":{"bb":{}}})),
    ];
    for (original, patch, expected) in cases {
        assert_eq!(
            merge_patch(&original, patch.to_string().as_bytes()).unwrap(),
            expected,
            "{patch}"
        );
    }
    assert_eq!(merge_patch(&json!({}), b"[]").unwrap_err().status().message, "Invalid JSON Patch");
    assert_eq!(merge_patch(&json!({}), b"{").unwrap_err().status().code, 400);
}

#[test]
fn json_patches_follow_the_rfc() {
    let original = json!({ "a": { "b/c": [1, 2, 3], "d~": "x" } });
    let good = [
        (
            json!([{ "op": "add", "path": "/a/b~1c/-", "value": 4 }]),
            json!({ "a": { "b/c": [1, 2, 3, 4], "d~": "x" } }),
        ),
        (
            json!([{ "op": "add", "path": "/a/b~1c/0", "value": 0 }]),
            json!({ "a": { "b/c": [0, 1, 2, 3], "d~": "x" } }),
        ),
        (json!([{ "op": "remove", "path": "/a/d~0" }]), json!({ "a": { "b/c": [1, 2, 3] } })),
        // Counted from the end, as upstream's library does.
        (
            json!([{ "op": "remove", "path": "/a/b~1c/-1" }, { "op": "replace", "path": "/a/b~1c/-2", "value": 9 }]),
            json!({ "a": { "b/c": [9, 2], "d~": "x" } }),
        ),
        (
            json!([{ "op": "add", "path": "/a/b~1c/-1", "value": 4 }]),
            json!({ "a": { "b/c": [1, 2, 3, 4], "d~": "x" } }),
        ),
        (
            json!([{ "op": "replace", "path": "/a/b~1c/1", "value": null }]),
            json!({ "a": { "b/c": [1, null, 3], "d~": "x" } }),
        ),
        (
            json!([{ "op": "move", "from": "/a/d~0", "path": "/e" }]),
            json!({ "a": { "b/c": [1, 2, 3] }, "e": "x" }),
        ),
        (
            json!([{ "op": "copy", "from": "/a/d~0", "path": "/e" }]),
            json!({ "a": { "b/c": [1, 2, 3], "d~": "x" }, "e": "x" }),
        ),
        (
            json!([{ "op": "test", "path": "/a/d~0", "value": "x" }, { "op": "test", "path": "/z", "value": null }]),
            original.clone(),
        ),
    ];
    for (patch, expected) in good {
        assert_eq!(
            json_patch(&original, patch.to_string().as_bytes()).unwrap(),
            expected,
            "{patch}"
        );
    }
    let bad = [
        (
            json!([{ "op": "test", "path": "/a/d~0", "value": "y" }]),
            422,
            "testing value /a/d~0 failed: test failed",
        ),
        (
            json!([{ "op": "remove", "path": "/x" }]),
            422,
            "error in remove for path: '/x': Unable to remove nonexistent key: x: missing value",
        ),
        (
            json!([{ "op": "replace", "path": "/x", "value": 1 }]),
            422,
            "replace operation does not apply: doc is missing key: /x: missing value",
        ),
        (
            json!([{ "op": "add", "path": "/x/y", "value": 1 }]),
            422,
            "add operation does not apply: doc is missing path: \"/x/y\": missing value",
        ),
        (
            json!([{ "op": "add", "path": "/a/b~1c/9", "value": 1 }]),
            422,
            "error in add for path: '/a/b~1c/9': Unable to access invalid index: 9: invalid index referenced",
        ),
        (
            json!([{ "op": "remove", "path": "/a/b~1c/-4" }]),
            422,
            "error in remove for path: '/a/b~1c/-4': Unable to access invalid index: -4: invalid index referenced",
        ),
        (
            json!([{ "op": "add", "path": "/a/b~1c/x", "value": 1 }]),
            422,
            "error in add for path: '/a/b~1c/x': strconv.Atoi: parsing \"x\": invalid syntax",
        ),
        (
            json!([{ "op": "copy", "from": "/a/z", "path": "/e" }]),
            422,
            "error in copy for from: '/a/z': unable to get nonexistent key: z: missing value",
        ),
        (json!([{ "op": "add", "path": "/a" }]), 400, "value"),
        (json!({ "op": "add" }), 400, "Patch"),
        (json!([{ "op": "paint", "path": "/a" }]), 422, "Unexpected kind: paint"),
    ];
    for (patch, code, words) in bad {
        let error =
            json_patch(&original, patch.to_string().as_bytes()).expect_err("it must be refused");
        assert!(
            error.status().code == code && error.to_string().contains(words),
            "{patch}: {error}"
        );
    }
}

#[test]
fn json_patches_are_bounded() {
    let doubling = json!([{ "op": "copy", "from": "/a", "path": "/a/x" }]);
    let steps: Vec<Value> = std::iter::repeat_n(doubling[0].clone(), 40).collect();
    let error = json_patch(&json!({ "a": { "x": {} } }), json!(steps).to_string().as_bytes());
    // Each copy nests the object into itself: the growth is linear here, and must be cut off when it is not.
    assert!(error.is_ok());
    let wide: Vec<Value> =
        (0..40).map(|n| json!({ "op": "copy", "from": "", "path": format!("/k{n}") })).collect();
    let error = json_patch(&json!({ "a": "x".repeat(1000) }), json!(wide).to_string().as_bytes())
        .unwrap_err();
    assert_eq!(error.status().code, 413);
    let many: Vec<Value> = (0..10_001).map(|_| json!({ "op": "test", "path": "/z" })).collect();
    assert_eq!(
        json_patch(&json!({}), json!(many).to_string().as_bytes()).unwrap_err().status().code,
        413
    );
}

/// A pod's spec with containers from a small set of names, so that patches meet what is there.
fn any_spec() -> impl Strategy<Value = Value> {
    let name = prop::sample::subsequence(vec!["a", "b", "c", "d"], 0..=4).prop_shuffle();
    (name, prop::option::of(0..3i32), prop::collection::vec(prop::option::of(0..3u8), 4)).prop_map(|(names, user, images)| {
        let containers: Vec<Value> = names
            .iter()
            .zip(images)
            .map(|(name, image)| match image {
                Some(image) => json!({ "name": name, "image": format!("i{image}"), "env": [{ "name": format!("E{image}") }] }),
                None => json!({ "name": name }),
            })
            .collect();
        let mut spec = json!({ "containers": containers });
        if let Some(user) = user {
            spec["securityContext"] = json!({ "runAsUser": user });
        }
        json!({ "spec": spec })
    })
}

fn names(pod: &Value) -> Vec<String> {
    let containers = pod["spec"]["containers"].as_array();
    containers
        .into_iter()
        .flatten()
        .map(|item| item["name"].as_str().unwrap_or_default().to_owned())
        .collect()
}

proptest! {
    #[test]
    fn a_strategic_patch_changes_nothing_the_second_time(original in any_spec(), patch in any_spec()) {
        let once = strategic(("", "Pod"), &original, &patch).unwrap();
        let twice = strategic(("", "Pod"), &once, &patch).unwrap();
        prop_assert_eq!(once, twice);
    }

    #[test]
    fn a_strategic_patch_keeps_every_item_and_adds_its_own(original in any_spec(), patch in any_spec()) {
        let merged = strategic(("", "Pod"), &original, &patch).unwrap();
        let mut wanted = names(&original);
        wanted.extend(names(&patch));
        wanted.sort();
        wanted.dedup();
        let mut found = names(&merged);
        let in_patch_order: Vec<String> = found.iter().filter(|name| names(&patch).contains(name)).cloned().collect();
        prop_assert_eq!(in_patch_order, names(&patch));
        found.sort();
        prop_assert_eq!(found, wanted);
    }

    #[test]
    fn an_empty_patch_changes_nothing(original in any_spec()) {
        prop_assert_eq!(&strategic(("", "Pod"), &original, &json!({})).unwrap(), &original);
        prop_assert_eq!(&merge_patch(&original, b"{}").unwrap(), &original);
        prop_assert_eq!(&json_patch(&original, b"[]").unwrap(), &original);
    }

    #[test]
    fn a_patch_of_the_object_onto_nothing_is_the_object(original in any_spec()) {
        prop_assert_eq!(&strategic(("", "Pod"), &json!({}), &original).unwrap(), &original);
        prop_assert_eq!(&merge_patch(&json!({}), original.to_string().as_bytes()).unwrap(), &original);
    }

    #[test]
    fn a_merge_patch_changes_nothing_the_second_time(original in any_spec(), patch in any_spec()) {
        let patch = patch.to_string();
        let once = merge_patch(&original, patch.as_bytes()).unwrap();
        prop_assert_eq!(&merge_patch(&once, patch.as_bytes()).unwrap(), &once);
    }
}
