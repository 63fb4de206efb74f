//! Tables of cases for the plan; `walks.rs` has random walks of whole rollouts.

mod walks;

use std::collections::HashMap;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use serde_json::{Value, json};

use super::plan::{Observed, Plan, plan};
use super::revision::{DESIRED, MAXIMUM, REVISION};
use super::rollout::{Limits, replicas};

fn now() -> Timestamp {
    "2026-01-01T01:00:00Z".parse().unwrap()
}

/// A Deployment of image "3" with ten replicas, unless `extra` says otherwise.
fn deployment(extra: Value) -> Deployment {
    let mut deployment = json!({
        "metadata": { "name": "web", "namespace": "default", "uid": "d", "generation": 1 },
        "spec": {
            "replicas": 10, "selector": { "matchLabels": { "app": "web" } },
            "progressDeadlineSeconds": 600, "revisionHistoryLimit": 10,
            "strategy": { "type": "RollingUpdate", "rollingUpdate": { "maxSurge": 3, "maxUnavailable": 2 } },
            "template": { "metadata": { "labels": { "app": "web" } },
                          "spec": { "containers": [{ "name": "c", "image": "3" }] } },
        },
    });
    json_patch::merge(&mut deployment, &extra);
    serde_json::from_value(deployment).unwrap()
}

/// The set of an image, which is its revision too: wanted, there and available replicas.
fn set(image: i32, wanted: i32, there: i32, available: i32) -> Arc<ReplicaSet> {
    sized(image, wanted, there, available, 10, 13)
}

fn sized(
    image: i32,
    wanted: i32,
    there: i32,
    available: i32,
    desired: i32,
    most: i32,
) -> Arc<ReplicaSet> {
    let created = now() + SignedDuration::from_secs(image.into()) - SignedDuration::from_hours(1);
    Arc::new(
        serde_json::from_value(json!({
            "metadata": {
                "name": format!("web-{image}"), "namespace": "default", "uid": image.to_string(), "creationTimestamp": created,
                "annotations": { REVISION: image.to_string(), DESIRED: desired.to_string(), MAXIMUM: most.to_string() },
            },
            "spec": { "replicas": wanted, "selector": {}, "template": {
                "metadata": { "labels": { "app": "web", "pod-template-hash": image.to_string() } },
                "spec": { "containers": [{ "name": "c", "image": image.to_string() }] } } },
            "status": { "replicas": there, "readyReplicas": available, "availableReplicas": available },
        }))
        .unwrap(),
    )
}

fn decide(deployment: &Deployment, sets: &[Arc<ReplicaSet>], running: &[(&str, usize)]) -> Plan {
    let running_pods: HashMap<String, usize> =
        running.iter().map(|(uid, count)| ((*uid).to_owned(), *count)).collect();
    plan(&Observed { deployment, sets: sets.to_vec(), running_pods }, now())
}

/// What a plan does: "create 3", "2:10>8" for each scaled set, "delete 1".
fn actions(plan: &Plan) -> String {
    let mut actions = Vec::new();
    if let Some(created) = &plan.create {
        actions.push(format!("create {}", replicas(created)));
    }
    for (before, after) in &plan.updates {
        if replicas(before) != replicas(after) {
            let uid = after.metadata.uid.as_deref().unwrap();
            actions.push(format!("{uid}:{}>{}", replicas(before), replicas(after)));
        }
    }
    for set in &plan.deletions {
        actions.push(format!("delete {}", set.metadata.uid.as_deref().unwrap()));
    }
    actions.join(" ")
}

fn check(extra: Value, sets: &[Arc<ReplicaSet>], expected: &str) {
    let deployment = deployment(extra.clone());
    assert_eq!(actions(&decide(&deployment, sets, &[])), expected, "{extra} {sets:#?}");
}

#[test]
fn a_rolling_update_stays_within_surge_and_unavailability() {
    let plain = || json!({});
    check(plain(), &[], "create 10");
    // A new template: as much as the surge allows, then one side after the other.
    check(plain(), &[set(2, 10, 10, 10)], "create 3 2:10>8");
    check(plain(), &[set(2, 8, 10, 10), set(3, 3, 0, 0)], "");
    check(plain(), &[set(2, 8, 8, 8), set(3, 3, 3, 0)], "3:3>5");
    check(plain(), &[set(2, 8, 8, 8), set(3, 5, 5, 0)], "");
    check(plain(), &[set(2, 8, 8, 8), set(3, 5, 5, 4)], "2:8>4");
    check(plain(), &[set(2, 1, 1, 1), set(3, 10, 10, 10)], "2:1>0");
    check(plain(), &[set(2, 0, 0, 0), set(3, 10, 10, 10)], "");
    // What does not serve goes first, oldest set first.
    check(plain(), &[set(1, 4, 4, 0), set(2, 6, 6, 6), set(3, 3, 3, 0)], "1:4>2");
    check(plain(), &[set(1, 2, 2, 0), set(2, 8, 8, 7), set(3, 3, 3, 3)], "1:2>0 2:8>5");
    // Roll-over: old sets make room for the newest.
    check(plain(), &[set(1, 8, 8, 8), set(2, 5, 5, 0)], "create 0 2:5>0");
    // An older set becomes the new one again.
    let back = json!({ "spec": { "template": { "spec": { "containers": [{ "name": "c", "image": "1" }] } } } });
    check(back, &[set(1, 0, 0, 0), set(2, 10, 10, 10)], "1:0>3");
    // A status that lags behind a scale-down does not count pods that are going.
    check(plain(), &[set(2, 8, 10, 10), set(3, 5, 5, 0)], "");
    check(json!({ "spec": { "replicas": 0 } }), &[sized(3, 0, 0, 0, 0, 3)], "");
}

#[test]
fn limits_come_from_numbers_and_percentages() {
    let check = |desired: i32, surge: Value, unavailable: Value, expected: (i32, i32)| {
        let strategy =
            json!({ "rollingUpdate": { "maxSurge": surge, "maxUnavailable": unavailable } });
        let limits = Limits::of(&deployment(
            json!({ "spec": { "replicas": desired, "strategy": strategy } }),
        ));
        assert_eq!((limits.surge, limits.unavailable), expected, "{desired} {surge} {unavailable}");
    };
    check(10, json!("25%"), json!("25%"), (3, 2));
    check(1, json!("25%"), json!("25%"), (1, 0));
    check(3, json!(null), json!(null), (1, 0));
    check(10, json!(0), json!(0), (0, 1));
    check(10, json!("0%"), json!("1%"), (0, 1));
    check(2, json!(1), json!(5), (1, 2));
    check(0, json!("50%"), json!(1), (0, 0));
    check(4, json!("100%"), json!("100%"), (4, 4));
}

#[test]
fn recreate_waits_for_the_last_old_pod() {
    let recreate = deployment(
        json!({ "spec": { "strategy": { "type": "Recreate", "rollingUpdate": null } } }),
    );
    let check = |sets: &[Arc<ReplicaSet>], running: &[(&str, usize)], expected: &str| {
        assert_eq!(actions(&decide(&recreate, sets, running)), expected);
    };
    check(&[], &[], "create 10");
    check(&[set(2, 10, 10, 10)], &[("2", 10)], "2:10>0");
    check(&[set(2, 0, 10, 10)], &[("2", 10)], "");
    check(&[set(2, 0, 0, 0)], &[("2", 1)], "");
    check(&[set(2, 0, 0, 0)], &[("2", 0)], "create 10");
    check(&[set(2, 0, 0, 0), set(3, 4, 4, 4)], &[], "3:4>10");
}

#[test]
fn scaling_keeps_the_proportions_of_a_rollout() {
    let to = |replicas: i32| json!({ "spec": { "replicas": replicas } });
    // One active set: it takes all.
    check(to(20), &[set(3, 10, 10, 10)], "3:10>20");
    check(to(0), &[set(3, 10, 10, 10)], "3:10>0");
    check(to(20), &[set(2, 10, 10, 10), set(3, 0, 0, 0)], "2:10>20");
    // Two: in proportion, the rest to the largest.
    check(to(20), &[set(2, 8, 8, 8), set(3, 5, 5, 0)], "2:8>14 3:5>9");
    check(to(5), &[set(2, 8, 8, 8), set(3, 5, 5, 0)], "2:8>5 3:5>3");
    check(to(0), &[set(2, 8, 8, 8), set(3, 5, 5, 0)], "2:8>0 3:5>0");
    // A paused Deployment scales and does not roll.
    let paused = |replicas: i32| json!({ "spec": { "replicas": replicas, "paused": true } });
    check(paused(10), &[set(2, 10, 10, 10)], "");
    check(paused(12), &[set(2, 10, 10, 10)], "2:10>12");
    check(paused(10), &[], "");
    check(json!({ "metadata": { "deletionTimestamp": now() } }), &[set(2, 4, 4, 4)], "");
}

#[test]
fn history_is_kept_up_to_its_limit_once_a_rollout_is_over() {
    let done = |limit: i32| {
        json!({ "spec": { "revisionHistoryLimit": limit }, "status": {
            "observedGeneration": 1, "replicas": 10, "updatedReplicas": 10, "availableReplicas": 10 } })
    };
    let sets = [set(1, 0, 0, 0), set(2, 0, 0, 0), set(3, 10, 10, 10)];
    check(done(2), &sets, "");
    check(done(1), &sets, "delete 1");
    check(done(0), &sets, "delete 1 delete 2");
    check(json!({ "spec": { "revisionHistoryLimit": 0 } }), &sets, "");
    check(done(0), &[set(1, 0, 1, 0), set(3, 10, 10, 10)], "");
}

#[test]
fn a_new_set_bears_hash_revision_and_sizes() {
    let deployment =
        deployment(json!({ "metadata": { "annotations": { "team": "blue", REVISION: "2" } } }));
    let plan = decide(&deployment, &[set(2, 10, 10, 10)], &[]);
    let created = plan.create.unwrap();
    let labels = created.metadata.labels.unwrap();
    let hash = labels.get("pod-template-hash").unwrap();
    assert_eq!(created.metadata.name.unwrap(), format!("web-{hash}"));
    let spec = created.spec;
    assert_eq!(spec.selector.match_labels.unwrap().get("pod-template-hash"), Some(hash));
    assert_eq!(
        spec.template.unwrap().metadata.unwrap().labels.unwrap().get("pod-template-hash"),
        Some(hash)
    );
    assert_eq!(
        json!(created.metadata.annotations),
        json!({ "team": "blue", REVISION: "3", DESIRED: "10", MAXIMUM: "13" })
    );
    assert_eq!(plan.revision.as_deref(), Some("3"));
    let owner = &created.metadata.owner_references.unwrap()[0];
    assert_eq!(
        (owner.kind.as_str(), owner.uid.as_str(), owner.controller),
        ("Deployment", "d", Some(true))
    );
}

/// The conditions after a pass, as "Type=Status Reason: message".
fn conditions(plan: &Plan) -> Vec<String> {
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    let all = plan.status.conditions.iter().flatten();
    all.map(|c| {
        format!("{}={} {}: {}", text(&c.type_), text(&c.status), text(&c.reason), text(&c.message))
    })
    .collect()
}

fn check_condition(extra: Value, sets: &[Arc<ReplicaSet>], expected: &str) {
    let found = conditions(&decide(&deployment(extra), sets, &[]));
    let of_type = expected.split('=').next().unwrap();
    let found: Vec<_> =
        found.into_iter().filter(|condition| condition.starts_with(of_type)).collect();
    assert_eq!(found, [expected]);
}

#[test]
fn conditions_bear_upstreams_reasons() {
    let available = "Available=True MinimumReplicasAvailable: Deployment has minimum availability.";
    let unavailable = "Available=False MinimumReplicasUnavailable: Deployment does not have minimum availability.";
    check_condition(json!({}), &[set(3, 10, 10, 8)], available);
    check_condition(json!({}), &[set(3, 10, 10, 7)], unavailable);

    let progressing = |reason: &str, status: &str, age: i64| {
        let since = now() - SignedDuration::from_secs(age);
        json!({ "status": { "observedGeneration": 1, "replicas": 10, "updatedReplicas": 10, "readyReplicas": 5, "availableReplicas": 5,
            "conditions": [{ "type": "Progressing", "status": status, "reason": reason, "message": "before",
                             "lastUpdateTime": since, "lastTransitionTime": since }] } })
    };
    check_condition(
        json!({ "spec": { "replicas": 10 } }),
        &[set(3, 10, 0, 0)],
        "Progressing=True FoundNewReplicaSet: Found new replica set \"web-3\"",
    );
    check_condition(
        progressing("NewReplicaSetCreated", "True", 5),
        &[set(3, 10, 10, 10)],
        "Progressing=True NewReplicaSetAvailable: ReplicaSet \"web-3\" has successfully progressed.",
    );
    check_condition(
        progressing("NewReplicaSetCreated", "True", 5),
        &[set(3, 10, 10, 6)],
        "Progressing=True ReplicaSetUpdated: ReplicaSet \"web-3\" is progressing.",
    );
    check_condition(
        progressing("ReplicaSetUpdated", "True", 599),
        &[set(3, 10, 10, 5)],
        "Progressing=True ReplicaSetUpdated: before",
    );
    check_condition(
        progressing("ReplicaSetUpdated", "True", 601),
        &[set(3, 10, 10, 5)],
        "Progressing=False ProgressDeadlineExceeded: ReplicaSet \"web-3\" has timed out progressing.",
    );
    check_condition(
        progressing("NewReplicaSetAvailable", "True", 601),
        &[set(3, 10, 10, 5)],
        "Progressing=True NewReplicaSetAvailable: before",
    );
    check_condition(
        progressing("ProgressDeadlineExceeded", "False", 10),
        &[set(3, 10, 10, 10)],
        "Progressing=True NewReplicaSetAvailable: ReplicaSet \"web-3\" has successfully progressed.",
    );

    let with = |mut status: Value, extra: Value| {
        json_patch::merge(&mut status, &extra);
        status
    };
    let paused = json!({ "spec": { "paused": true } });
    check_condition(
        with(progressing("ReplicaSetUpdated", "True", 5), paused.clone()),
        &[set(3, 10, 10, 5)],
        "Progressing=Unknown DeploymentPaused: Deployment is paused",
    );
    check_condition(
        with(progressing("ProgressDeadlineExceeded", "False", 5), paused),
        &[set(3, 10, 10, 5)],
        "Progressing=False ProgressDeadlineExceeded: before",
    );
    check_condition(
        progressing("DeploymentPaused", "Unknown", 5000),
        &[set(3, 10, 10, 5)],
        "Progressing=Unknown DeploymentResumed: Deployment is resumed",
    );

    let mut failing = set(3, 10, 0, 0).as_ref().clone();
    failing.status.as_mut().unwrap().conditions = serde_json::from_value(json!([
        { "type": "ReplicaFailure", "status": "True", "reason": "FailedCreate", "message": "exceeded quota" }])).unwrap();
    check_condition(
        json!({}),
        &[Arc::new(failing)],
        "ReplicaFailure=True FailedCreate: exceeded quota",
    );
}

#[test]
fn a_creation_starts_the_progress_deadline() {
    let plan = decide(&deployment(json!({})), &[], &[]);
    let created = plan.create.as_ref().unwrap().metadata.name.clone().unwrap();
    let expected =
        format!("Progressing=True NewReplicaSetCreated: Created new replica set {created:?}");
    assert!(conditions(&plan).contains(&expected), "{:?}", conditions(&plan));
    assert_eq!(plan.recheck.map(|wait| wait.as_secs()), Some(600));
    assert_eq!(plan.status.unavailable_replicas, Some(10));
}
