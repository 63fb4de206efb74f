//! Tables of nodes, pods and what comes next.

use serde_json::{Value, json};

use super::super::by_node;
use super::super::fit::REVISION;
use super::*;

fn now() -> Timestamp {
    "2026-01-01T01:00:00Z".parse().unwrap()
}

fn set(rolling: &Value, spec: &Value) -> DaemonSet {
    let mut set = json!({
        "metadata": { "name": "logs", "namespace": "default", "uid": "me" },
        "spec": { "selector": {}, "template": {},
                  "updateStrategy": { "type": "RollingUpdate", "rollingUpdate": rolling } },
    });
    json_patch::merge(&mut set["spec"], spec);
    serde_json::from_value(set).unwrap()
}

/// Pods in words: "a ready new", "b pending old", "c going new", "d failed old", "e young new" (ready for ten seconds).
/// Each is younger than those before it.
fn pods(words: &[&str]) -> Vec<Arc<Pod>> {
    let pod = |(index, words): (usize, &&str)| {
        let words: Vec<_> = words.split(' ').collect();
        let (node, state, revision) = (words[0], words[1], words[2]);
        let seconds = if state == "young" { 10 } else { 600 };
        let since = now() - jiff::SignedDuration::from_secs(seconds);
        let is_ready = matches!(state, "ready" | "young" | "going");
        let phase = match state {
            "pending" => "Pending",
            "failed" => "Failed",
            "succeeded" => "Succeeded",
            _ => "Running",
        };
        let pod = json!({
            "metadata": { "name": format!("{node}{index}"), "uid": index.to_string(), "labels": { REVISION: revision },
                          "creationTimestamp": now() - jiff::SignedDuration::from_secs(900 - i64::try_from(index).unwrap()),
                          "deletionTimestamp": (state == "going").then_some("2026-01-01T00:59:00Z") },
            "spec": { "nodeName": node },
            "status": { "phase": phase, "conditions": [
                { "type": "Ready", "status": if is_ready { "True" } else { "False" }, "lastTransitionTime": since }] },
        });
        Arc::new(serde_json::from_value(pod).unwrap())
    };
    words.iter().enumerate().map(pod).collect()
}

/// Nodes in one word: "abC-" are a and b, which should run a pod, and c, which keeps one; x, y and z refuse.
fn nodes(word: &str) -> BTreeMap<String, Fit> {
    let fit = |letter: char| match letter {
        'x'..='z' => Fit::Refuses,
        'A'..='Z' => Fit::Keeps,
        _ => Fit::Runs,
    };
    word.chars().map(|it| (it.to_ascii_lowercase().to_string(), fit(it))).collect()
}

/// What comes next, in words: "+a" makes a pod there, "-a0" deletes one, "!a0" replaces one that has ended.
fn next(set: &DaemonSet, word: &str, words: &[&str], held: &[&str]) -> (String, Option<u64>) {
    let (nodes, pods) = (nodes(word), by_node(pods(words)));
    let held = held.iter().map(|node| ((*node).to_owned(), Duration::from_secs(7))).collect();
    let observed = Observed { set, hash: "new", nodes: &nodes, pods: &pods, held: &held };
    let plan = plan(&observed, now());
    let name = |pod: &Pod| pod.metadata.name.clone().unwrap();
    let steps = plan.steps.iter().map(|step| match step {
        Step::Create(node) => format!("+{node}"),
        Step::Delete(pod) => format!("-{}", name(pod)),
        Step::Replace { pod, .. } => format!("!{}", name(pod)),
    });
    (steps.collect::<Vec<_>>().join(" "), plan.recheck.map(|wait| wait.as_secs()))
}

fn check(rolling: &Value, word: &str, cases: &[(&[&str], &str)]) {
    let set = set(rolling, &json!({}));
    for (words, expected) in cases {
        assert_eq!(next(&set, word, words, &[]).0, *expected, "{rolling} {word} {words:?}");
    }
}

#[test]
fn each_node_that_fits_has_one_pod() {
    check(
        &json!({}),
        "abCx",
        &[
            (&[], "+a +b"),
            (&["a pending new"], "+b"),
            // The place is taken until it is gone.
            (&["a going new", "b ready new"], ""),
            (&["a ready new", "b ready new", "c ready new", "x ready new"], "-x3"),
            (&["a ready new", "b ready new", "x going new"], ""),
            (&["a ready new", "a ready new", "b ready new"], "-a1"),
            (&["a failed new", "b succeeded new"], "!a0 !b1"),
            // A pod of a node that is gone is the garbage collector's.
            (&["a ready new", "b ready new", "q ready new"], ""),
        ],
    );
}

#[test]
fn a_failed_pod_waits_for_its_replacement() {
    let set = set(&json!({}), &json!({}));
    let failed = next(&set, "ab", &["a failed new", "b ready new"], &["a"]);
    assert_eq!(failed, (String::new(), Some(7)));
    let well = next(&set, "ab", &["a ready new", "b ready new"], &["a"]);
    assert_eq!(well, (String::new(), None));
    // One that has failed and is going leaves its place at once.
    let mut gone = pods(&["a failed new"]);
    Arc::make_mut(&mut gone[0]).metadata.deletion_timestamp = Some(crate::api::api_time(now()));
    assert!(by_node(gone).is_empty());
}

#[test]
fn an_update_takes_as_many_as_may_be_missing() {
    check(
        &json!({ "maxUnavailable": 1 }),
        "abc",
        &[
            (&["a ready old", "b ready old", "c ready old"], "-a0"),
            (&["a going old", "b ready old", "c ready old"], ""),
            (&["b ready old", "c ready old"], "+a"),
            (&["a pending new", "b ready old", "c ready old"], ""),
            (&["a ready new", "b ready old", "c ready old"], "-b1"),
            // Those that do not serve go at once.
            (&["a pending old", "b pending old", "c ready old"], "-a0 -b1 -c2"),
            (&["a pending new", "b pending old", "c ready old"], "-b1"),
            (&["a ready new", "b ready new", "c ready new"], ""),
        ],
    );
    check(
        &json!({ "maxUnavailable": "50%" }),
        "abc",
        &[(&["a ready old", "b ready old", "c ready old"], "-a0 -b1")],
    );
    let on_delete = json!({ "updateStrategy": { "type": "OnDelete", "rollingUpdate": null } });
    let set = set(&json!({}), &on_delete);
    assert_eq!(next(&set, "ab", &["a ready old"], &[]).0, "+b");
    assert_eq!(next(&set, "a", &["a ready old"], &[]).0, "");
}

#[test]
fn an_update_with_a_surplus_makes_the_newer_pod_first() {
    check(
        &json!({ "maxUnavailable": 0, "maxSurge": 1 }),
        "abc",
        &[
            (&["a ready old", "b ready old", "c ready old"], "+a"),
            (&["a ready old", "b ready old", "c ready old", "a pending new"], ""),
            (&["a ready old", "b ready old", "c ready old", "a ready new"], "-a0"),
            (&["a pending old", "b ready old", "c ready old", "a pending new"], "-a0"),
            (&["a ready new", "b ready old", "c ready old"], "+b"),
            // One that does not serve costs no surplus.
            (&["a pending old", "b ready old", "c ready old"], "+a +b"),
            (&["a ready old", "a ready old", "b ready new", "c ready new", "a pending new"], "-a1"),
        ],
    );
    check(
        &json!({ "maxUnavailable": 0, "maxSurge": 1 }),
        "aB",
        // The pod that would not be made any more goes when another serves in its stead.
        &[(&["a pending new", "b ready old"], ""), (&["a ready new", "b ready old"], "-b1")],
    );
}

#[test]
fn a_pod_counts_after_its_time() {
    let set = set(&json!({}), &json!({ "minReadySeconds": 30 }));
    let found = next(&set, "ab", &["a young new", "b ready old"], &[]);
    assert_eq!(found, (String::new(), Some(20)));
    let found = next(&set, "ab", &["a ready new", "b ready old"], &[]);
    assert_eq!(found, ("-b1".to_owned(), None));
}

#[test]
fn the_status_counts_nodes() {
    let set = set(&json!({}), &json!({}));
    let (nodes, held) = (nodes("abcDx"), BTreeMap::new());
    let words = [
        "a ready new",
        "a pending old",
        "b pending old",
        "d ready new",
        "x ready new",
        "q ready new",
    ];
    let pods = by_node(pods(&words));
    let observed = Observed { set: &set, hash: "new", nodes: &nodes, pods: &pods, held: &held };
    let status = super::super::status::status(&observed, Some(1), now());
    let expected = json!({
        "collisionCount": 1, "currentNumberScheduled": 2, "desiredNumberScheduled": 3,
        "numberAvailable": 1, "numberMisscheduled": 2, "numberReady": 1, "numberUnavailable": 2,
        "updatedNumberScheduled": 1,
    });
    assert_eq!(serde_json::to_value(status).unwrap(), expected);
}
