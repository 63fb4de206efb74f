//! A Job's life in cases, and in random walks.

mod walks;
mod world;

use super::*;
use serde_json::{Value, json};
use world::World;

#[test]
fn completions_are_reached_within_the_parallelism() {
    let mut world = World::new(json!({ "completions": 5, "parallelism": 2 }));
    for _ in 0..5 {
        world.settle();
        assert!(world.active().len() <= 2);
        let first = world.active()[0];
        world.end(first, "Succeeded");
    }
    world.settle();
    assert_eq!(
        world.conditions(),
        ["SuccessCriteriaMet:CompletionsReached", "Complete:CompletionsReached"]
    );
    assert_eq!((world.status().succeeded, world.status().active, world.made), (Some(5), None, 5));
    assert!(world.status().completion_time.is_some());
}

#[test]
fn every_pod_counts_once_even_when_the_same_state_is_seen_twice() {
    let mut world = World::new(json!({ "completions": 3, "parallelism": 3 }));
    world.settle();
    world.end(0, "Succeeded");
    // The status is stored, the process dies, and the finalizer is still there.
    let status = plan(&world.job, &world.pods, None, world.now).status;
    world.job.status = Some(status.clone());
    assert_eq!(plan(&world.job, &world.pods, None, world.now).status, status);
    world.settle();
    assert_eq!(world.status().succeeded, Some(1));
    // A pod that was deleted after it was counted stays counted.
    world.pods.remove(0);
    world.settle();
    assert_eq!((world.status().succeeded, world.made), (Some(1), 3));
}

#[test]
fn failures_wait_double_and_end_the_job_at_the_limit() {
    let mut world = World::new(json!({ "completions": 1, "backoffLimit": 2 }));
    for wait in [10, 20] {
        world.settle();
        let first = world.active()[0];
        world.end(first, "Failed");
        world.settle();
        assert!(world.active().is_empty());
        let decision = world.step();
        assert_eq!(decision.next, Some(Duration::from_secs(wait)));
        world.pass(i64::try_from(wait).unwrap());
    }
    world.settle();
    let last = world.active()[0];
    world.end(last, "Failed");
    world.settle();
    assert_eq!(
        world.conditions(),
        ["FailureTarget:BackoffLimitExceeded", "Failed:BackoffLimitExceeded"]
    );
    assert_eq!(world.status().failed, Some(3));
}

#[test]
fn the_deadline_stops_what_runs() {
    let mut world = World::new(json!({ "completions": 1, "activeDeadlineSeconds": 30 }));
    world.settle();
    assert_eq!(world.step().next, Some(Duration::from_secs(30)));
    world.pass(30);
    world.settle();
    assert_eq!(world.conditions(), ["FailureTarget:DeadlineExceeded", "Failed:DeadlineExceeded"]);
    assert!(world.pods.is_empty());
}

#[test]
fn a_suspended_job_has_no_pods_and_its_clock_starts_again() {
    let mut world = World::new(json!({ "completions": 1, "activeDeadlineSeconds": 30 }));
    world.settle();
    world.job.spec.as_mut().unwrap().suspend = Some(true);
    world.settle();
    assert!(world.pods.is_empty());
    assert_eq!(world.conditions(), ["Suspended:JobSuspended"]);
    assert_eq!(world.status().start_time, None);
    world.pass(100);
    world.job.spec.as_mut().unwrap().suspend = Some(false);
    world.settle();
    assert_eq!(world.active().len(), 1);
    assert!(world.conditions().is_empty());
}

#[test]
fn each_index_completes_once() {
    let mut world =
        World::new(json!({ "completions": 3, "parallelism": 2, "completionMode": "Indexed" }));
    world.settle();
    let first = world.active()[0];
    world.end(first, "Failed");
    world.settle();
    world.pass(10);
    world.settle();
    while let Some(first) = world.active().first().copied() {
        world.end(first, "Succeeded");
        world.settle();
    }
    assert_eq!(world.status().completed_indexes.as_deref(), Some("0-2"));
    assert_eq!((world.status().succeeded, world.status().failed), (Some(3), Some(1)));
    assert_eq!(world.conditions().len(), 2);
    assert_eq!(world.pods[0].spec.hostname.as_deref(), Some("sum-0"));
}

#[test]
fn a_work_queue_ends_when_one_succeeded_and_the_rest_is_done() {
    let mut world = World::new(json!({ "parallelism": 2 }));
    world.settle();
    world.end(0, "Succeeded");
    world.settle();
    assert_eq!((world.active().len(), world.made), (1, 2));
    world.end(1, "Succeeded");
    world.settle();
    assert!(world.conditions().contains(&"Complete:CompletionsReached".to_owned()));
}

#[test]
fn less_parallelism_stops_pods_and_counts_them_neither_way() {
    let mut world = World::new(json!({ "completions": 5, "parallelism": 3 }));
    world.settle();
    world.job.spec.as_mut().unwrap().parallelism = Some(1);
    world.settle();
    assert_eq!((world.active().len(), world.status().failed), (1, None));
}

#[test]
fn a_pod_that_is_deleted_has_failed_and_its_successor_waits() {
    let mut world = World::new(json!({ "completions": 1 }));
    world.settle();
    world.delete(0);
    world.settle();
    assert_eq!((world.status().failed, world.pods.len()), (Some(1), 0));
    assert_eq!(world.step().next, Some(Duration::from_secs(10)));
    world.pass(10);
    world.settle();
    assert_eq!(world.active().len(), 1);
}

#[test]
fn with_the_replacement_policy_failed_a_pod_is_replaced_when_it_has_ended() {
    let mut world = World::new(json!({ "completions": 1, "podReplacementPolicy": "Failed" }));
    world.settle();
    world.delete(0);
    world.settle();
    let status = world.status();
    assert_eq!((status.active, status.terminating, status.failed), (None, Some(1), None));
    world.end(0, "Failed");
    world.settle();
    assert_eq!((world.status().failed, world.status().terminating), (Some(1), Some(0)));
    world.pass(10);
    world.settle();
    assert_eq!(world.active().len(), 1);
}

#[test]
fn what_still_runs_when_a_job_fails_has_failed_too() {
    let mut world = World::new(json!({ "completions": 3, "parallelism": 3, "backoffLimit": 0 }));
    world.settle();
    world.end(0, "Failed");
    let decision = world.step();
    assert_eq!((decision.stop.len(), decision.status.terminating), (2, Some(2)));
    assert_eq!(world.conditions(), ["FailureTarget:BackoffLimitExceeded"]);
    world.settle();
    assert_eq!(world.conditions().len(), 2);
    assert_eq!((world.status().failed, world.status().active), (Some(3), None));
}

fn failure_policy(rules: Value) -> Value {
    json!({ "rules": rules })
}

#[test]
fn a_failure_policy_fails_the_job_or_passes_over_a_failure() {
    let rules = failure_policy(json!([
        { "action": "FailJob", "onExitCodes": { "operator": "In", "values": [42] } },
        { "action": "Ignore", "onPodConditions": [{ "type": "DisruptionTarget", "status": "True" }] },
    ]));
    let spec =
        json!({ "completions": 2, "parallelism": 2, "backoffLimit": 0, "podFailurePolicy": rules });
    let mut world = World::new(spec);
    world.settle();
    world.change(0, |pod| {
        let status = json!({ "phase": "Failed", "conditions": [{ "type": "DisruptionTarget", "status": "True" }] });
        pod.status = serde_json::from_value(status).unwrap();
    });
    world.settle();
    world.pass(10);
    world.settle();
    assert_eq!((world.status().failed, world.active().len(), world.made), (None, 2, 3));
    let first = world.active()[0];
    world.end_with(first, "Failed", 42);
    world.settle();
    assert_eq!(world.conditions(), ["FailureTarget:PodFailurePolicy", "Failed:PodFailurePolicy"]);
    let message = world.status().conditions.unwrap()[0].message.clone().unwrap();
    let expected =
        "Container c for pod d/sum-2 failed with exit code 42 matching FailJob rule at index 0";
    assert_eq!(message, expected);
    // The other one was stopped, and has failed with the Job.
    assert_eq!((world.status().failed, world.active().len()), (Some(2), 0));
}

#[test]
fn an_index_that_fails_too_often_is_given_up_and_the_others_go_on() {
    let mut world = World::new(json!({ "completions": 2, "parallelism": 2, "backoffLimit": 100,
        "backoffLimitPerIndex": 1, "completionMode": "Indexed" }));
    world.settle();
    let first = world.at(0);
    world.end(first, "Failed");
    world.settle();
    // It stays until its successor is there, which waits.
    assert_eq!((world.status().failed, world.step().next), (None, Some(Duration::from_secs(10))));
    world.pass(10);
    world.settle();
    assert_eq!(world.status().failed, Some(1));
    let second = world.at(0);
    let told = world.pods[second].metadata.annotations.clone().unwrap();
    assert_eq!(told["batch.kubernetes.io/job-index-failure-count"], "1");
    world.end(second, "Failed");
    world.settle();
    assert_eq!(world.status().failed_indexes.as_deref(), Some("0"));
    assert_eq!((world.active().len(), world.status().failed), (1, Some(2)));
    let other = world.at(1);
    world.end(other, "Succeeded");
    world.settle();
    assert_eq!(world.conditions(), ["FailureTarget:FailedIndexes", "Failed:FailedIndexes"]);
    assert_eq!(world.status().completed_indexes.as_deref(), Some("1"));
}

#[test]
fn too_many_failed_indexes_end_the_job() {
    let rules = failure_policy(json!([
        { "action": "FailIndex", "onExitCodes": { "operator": "In", "values": [3] } }]));
    let mut world = World::new(json!({ "completions": 5, "parallelism": 3, "backoffLimit": 100,
        "backoffLimitPerIndex": 9, "maxFailedIndexes": 1, "completionMode": "Indexed",
        "podFailurePolicy": rules, "podReplacementPolicy": "Failed" }));
    world.settle();
    for index in [0, 2] {
        let pod = world.at(index);
        world.end_with(pod, "Failed", 3);
        world.settle();
    }
    assert_eq!(world.status().failed_indexes.as_deref(), Some("0,2"));
    assert!(world.conditions().contains(&"FailureTarget:MaxFailedIndexesExceeded".to_owned()));
}

#[test]
fn a_success_policy_ends_the_job_early_and_stops_the_rest_uncounted() {
    let mut world =
        World::new(json!({ "completions": 4, "parallelism": 4, "completionMode": "Indexed",
        "successPolicy": { "rules": [{ "succeededIndexes": "1-3", "succeededCount": 1 }] } }));
    world.settle();
    let first = world.at(0);
    world.end(first, "Succeeded");
    world.settle();
    assert!(world.conditions().is_empty());
    let second = world.at(2);
    world.end(second, "Succeeded");
    world.settle();
    assert_eq!(world.conditions(), ["SuccessCriteriaMet:SuccessPolicy", "Complete:SuccessPolicy"]);
    let status = world.status();
    assert_eq!((status.completed_indexes.as_deref(), status.succeeded), (Some("0,2"), Some(2)));
    assert_eq!((status.failed, status.active, world.active().len()), (None, None, 0));
    assert_eq!(status.conditions.unwrap()[1].message.as_deref(), Some("Matched rules at index 0"));
}

#[test]
fn an_indexed_job_grows_and_shrinks() {
    let mut world =
        World::new(json!({ "completions": 3, "parallelism": 3, "completionMode": "Indexed" }));
    world.settle();
    let resize = |world: &mut World, size: i32| {
        world.spec().completions = Some(size);
        world.spec().parallelism = Some(size);
        world.settle();
    };
    let last = world.at(2);
    world.end(last, "Succeeded");
    world.settle();
    resize(&mut world, 5);
    assert_eq!((world.active().len(), world.status().succeeded), (4, Some(1)));
    resize(&mut world, 2);
    assert_eq!((world.active().len(), world.status().succeeded), (2, None));
    assert_eq!(world.status().failed, None);
    for index in [0, 1] {
        let pod = world.at(index);
        world.end(pod, "Succeeded");
    }
    world.settle();
    assert_eq!(world.status().completed_indexes.as_deref(), Some("0,1"));
    assert_eq!(world.conditions().len(), 2);
}

#[test]
fn of_two_pods_with_one_index_one_goes_uncounted() {
    let mut world =
        World::new(json!({ "completions": 2, "parallelism": 2, "completionMode": "Indexed" }));
    world.settle();
    let mut again = Pod::clone(&world.pods[0]);
    again.metadata.uid = Some("again".to_owned());
    world.pods.push(Arc::new(again));
    let decision = world.step();
    assert_eq!((decision.surplus.len(), decision.status.active), (1, Some(2)));
    world.settle();
    assert_eq!((world.active().len(), world.status().failed), (2, None));
}

#[test]
fn a_job_that_is_being_deleted_counts_what_ends_and_makes_nothing() {
    let mut world = World::new(json!({ "completions": 3, "parallelism": 2 }));
    world.settle();
    world.job.metadata.deletion_timestamp = Some(api_time(world.now));
    world.end(0, "Succeeded");
    world.settle();
    assert_eq!((world.status().succeeded, world.made), (Some(1), 2));
    // What still runs is held back no more, and nobody waits for how it ends.
    assert!(!world.pods.iter().any(|pod| bears_finalizer(pod)));
}

#[test]
fn restarts_in_place_count_against_the_limit() {
    let template =
        json!({ "spec": { "restartPolicy": "OnFailure", "containers": [{ "name": "c" }] } });
    let check = |limit: i32, restarts: i32, fails: bool| {
        let mut world =
            World::new(json!({ "completions": 1, "backoffLimit": limit, "template": template }));
        world.settle();
        world.change(0, |pod| {
            pod.status = serde_json::from_value(json!({ "phase": "Running",
                "containerStatuses": [{ "name": "c", "restartCount": restarts }] }))
            .unwrap();
        });
        world.settle();
        assert_eq!(!world.conditions().is_empty(), fails, "{limit} {restarts}");
    };
    check(0, 0, false);
    check(0, 1, true);
    check(2, 1, false);
    check(2, 2, true);
}

#[test]
fn many_pods_that_end_at_once_are_counted_in_parts() {
    let mut world = World::new(json!({ "completions": 1200, "parallelism": 1200 }));
    world.settle();
    assert_eq!(world.made, 1200);
    (0..1200).for_each(|pod| world.end(pod, "Succeeded"));
    assert_eq!(world.step().release.len(), 500);
    world.settle();
    assert_eq!((world.status().succeeded, world.conditions().len()), (Some(1200), 2));
}
