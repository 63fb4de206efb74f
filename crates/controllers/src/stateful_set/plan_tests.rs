//! Tables of sets, pods and what comes next.

use serde_json::{Value, json};

use super::*;

fn now() -> Timestamp {
    "2026-01-01T01:00:00Z".parse().unwrap()
}

fn set(spec: Value) -> StatefulSet {
    let mut set = json!({
        "metadata": { "name": "db", "namespace": "default", "uid": "me" },
        "spec": { "replicas": 3, "selector": {}, "template": {} },
    });
    json_patch::merge(&mut set["spec"], &spec);
    serde_json::from_value(set).unwrap()
}

/// Pods in words: "0 ready new", "1 pending old", "2 going new", "3 failed old", "0 young new" (ready for ten seconds).
fn pods(words: &[&str]) -> Vec<Arc<Pod>> {
    words.iter().map(|words| Arc::new(pod(words))).collect()
}

fn pod(words: &str) -> Pod {
    let words: Vec<_> = words.split(' ').collect();
    let (ordinal, state, revision) = (words[0], words[1], words[2]);
    let name = format!("db-{ordinal}");
    let seconds = if state == "young" { 10 } else { 600 };
    let since = now() - jiff::SignedDuration::from_secs(seconds);
    let is_ready = matches!(state, "ready" | "young" | "going");
    let phase = match state {
        "pending" => "Pending",
        "failed" => "Failed",
        "succeeded" => "Succeeded",
        _ => "Running",
    };
    let mut labels: BTreeMap<String, String> =
        labels(&set(json!({})), ordinal.parse().unwrap()).into();
    labels.insert(REVISION.to_owned(), revision.to_owned());
    serde_json::from_value(json!({
        "metadata": { "name": name, "uid": name, "labels": labels,
                      "deletionTimestamp": (state == "going").then_some("2026-01-01T00:59:00Z") },
        "status": { "phase": phase, "conditions": [
            { "type": "Ready", "status": if is_ready { "True" } else { "False" },
              "lastTransitionTime": since }] },
    }))
    .unwrap()
}

/// What comes next, in words: "+1 new" makes a pod, "-2" deletes one, "!0" makes one again that has ended.
fn next(spec: &Value, words: &[&str]) -> String {
    let (set, pods) = (set(spec.clone()), pods(words));
    let observed = Observed { set: &set, current: "old", update: "new", pods: &pods };
    let steps = plan(&observed, now()).steps.into_iter().map(|step| match step {
        Step::Create { ordinal, is_updated } => {
            format!("+{ordinal} {}", if is_updated { "new" } else { "old" })
        }
        Step::Delete(pod) => format!("-{}", ordinal_of(&set, &pod.name_any()).unwrap()),
        Step::Recreate(pod) => format!("!{}", ordinal_of(&set, &pod.name_any()).unwrap()),
        Step::Label { ordinal, .. } => format!("label {ordinal}"),
    });
    steps.collect::<Vec<_>>().join(", ")
}

fn check(spec: &Value, cases: &[(&[&str], &str)]) {
    for (words, expected) in cases {
        assert_eq!(next(spec, words), *expected, "{spec} {words:?}");
    }
}

#[test]
fn an_ordered_set_grows_and_shrinks_one_by_one() {
    check(
        &json!({}),
        &[
            (&[], "+0 new"),
            (&["0 pending new"], ""),
            (&["0 running new"], ""),
            (&["0 ready new"], "+1 new"),
            (&["0 ready new", "2 ready new"], "+1 new"),
            (&["0 ready new", "1 going new", "2 ready new"], ""),
            (&["0 failed new", "1 ready new"], "!0"),
            (&["0 ready new", "1 succeeded new"], "!1"),
            (&["0 ready new", "1 ready new", "2 ready new"], ""),
            (&["0 ready new", "1 ready new", "2 ready new", "3 ready new", "4 ready new"], "-4"),
            (&["0 ready new", "1 ready new", "2 ready new", "3 ready new", "4 going new"], ""),
            (&["0 pending new", "1 ready new", "2 ready new", "3 ready new"], ""),
            // A pod that does not serve goes first of those that go, but not before one below that does not either.
            (&["0 ready new", "1 ready new", "2 ready new", "3 pending new"], "-3"),
            (&["0 ready new", "1 ready new", "2 ready new", "3 pending new", "4 pending new"], ""),
        ],
    );
    check(
        &json!({ "ordinals": { "start": 5 }, "replicas": 1 }),
        &[(&[], "+5 new"), (&["5 ready new", "0 ready new"], "-0")],
    );
    check(&json!({ "replicas": 0 }), &[(&["0 ready new", "1 ready new"], "-1")]);
}

#[test]
fn a_parallel_set_does_all_at_once() {
    check(
        &json!({ "podManagementPolicy": "Parallel" }),
        &[
            (&[], "+0 new, +1 new, +2 new"),
            (&["0 pending new", "2 failed new"], "+1 new, !2"),
            (
                &["0 ready new", "1 ready new", "2 ready new", "3 pending new", "4 ready new"],
                "-4, -3",
            ),
        ],
    );
}

#[test]
fn a_rolling_update_goes_from_the_highest_ordinal_down() {
    check(
        &json!({}),
        &[
            (&["0 ready old", "1 ready old", "2 ready old"], "-2"),
            (&["0 ready old", "1 ready old", "2 going old"], ""),
            (&["0 ready old", "1 ready old"], "+2 new"),
            (&["0 ready old", "1 ready old", "2 pending new"], ""),
            (&["0 ready old", "1 ready old", "2 ready new"], "-1"),
            // A broken pod of the older revision is replaced, one of the newer stops the rollout.
            (&["0 ready old", "1 pending old", "2 ready old"], "-1"),
            (&["0 ready old", "1 pending new", "2 ready old"], ""),
        ],
    );
    check(
        &json!({ "minReadySeconds": 30 }),
        &[(&["0 ready old", "1 ready old", "2 young new"], "")],
    );
    check(
        &json!({ "podManagementPolicy": "Parallel" }),
        &[
            (&["0 ready old", "1 ready old", "2 ready old"], "-2"),
            (&["0 pending old", "1 ready old", "2 ready old"], "-0"),
            (&["0 ready old", "1 ready old", "2 pending new"], ""),
        ],
    );
    let two = json!({ "updateStrategy": { "rollingUpdate": { "maxUnavailable": 2 } } });
    check(
        &two,
        &[
            (&["0 ready old", "1 ready old", "2 ready old"], "-2, -1"),
            (&["0 ready old", "1 ready old", "2 ready new"], "-1, -0"),
        ],
    );
}

#[test]
fn a_partition_keeps_the_older_revision_below_it() {
    let spec = json!({ "updateStrategy": { "type": "RollingUpdate", "rollingUpdate": { "partition": 2 } } });
    check(
        &spec,
        &[
            (&["0 ready old", "1 ready old", "2 ready old"], "-2"),
            (&["0 ready old", "1 ready old", "2 ready new"], ""),
            (&["0 ready old"], "+1 old"),
            (&["0 ready old", "1 ready old"], "+2 new"),
            (&["0 ready old", "1 pending old", "2 ready new"], ""),
        ],
    );
}

#[test]
fn on_delete_waits_for_somebody_to_delete() {
    let spec = json!({ "updateStrategy": { "type": "OnDelete" } });
    check(
        &spec,
        &[
            (&["0 ready old", "1 ready old", "2 ready old"], ""),
            (&["0 ready old", "1 ready old"], "+2 new"),
        ],
    );
}

#[test]
fn a_pod_that_is_young_is_looked_at_again_when_it_counts() {
    let set = set(json!({ "minReadySeconds": 30 }));
    let pods = pods(&["0 young new"]);
    let observed = Observed { set: &set, current: "new", update: "new", pods: &pods };
    assert_eq!(plan(&observed, now()).recheck, Some(Duration::from_secs(20)));
}

#[test]
fn a_set_that_goes_does_nothing_and_an_adopted_pod_gets_its_labels() {
    let mut going = set(json!({}));
    going.metadata.deletion_timestamp =
        serde_json::from_value(json!("2026-01-01T00:00:00Z")).unwrap();
    let observed = Observed { set: &going, current: "new", update: "new", pods: &[] };
    assert_eq!(plan(&observed, now()).steps, []);

    let set = set(json!({ "replicas": 1 }));
    let mut adopted = pod("0 ready new");
    adopted.metadata.labels = Some([(REVISION.to_owned(), "new".to_owned())].into());
    let pods = [Arc::new(adopted)];
    let observed = Observed { set: &set, current: "new", update: "new", pods: &pods };
    assert_eq!(
        plan(&observed, now()).steps,
        [Step::Label { pod: Arc::clone(&pods[0]), ordinal: 0 }]
    );
}
