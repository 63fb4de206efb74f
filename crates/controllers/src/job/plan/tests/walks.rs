//! Random walks: pods end, are deleted, the Job is changed, and the controller dies between any two of its writes. In the
//! end each pod was counted once.

use std::collections::BTreeSet;
use std::sync::Arc;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::world::World;
use crate::job::condition::outcome;
use crate::job::index_pods::index_of;
use crate::pod::Pod;
use crate::pods::{is_terminating, phase};

/// One thing that may happen.
#[derive(Debug, Clone)]
enum Event {
    /// The Job is looked at.
    Reconcile,
    /// The same, and the controller dies after so many writes.
    Die(usize),
    Succeed(usize),
    Fail(usize),
    /// Somebody deletes a pod.
    Delete(usize),
    /// Minutes pass.
    Wait,
    Parallelism(i32),
    Suspend(bool),
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        6 => Just(Event::Reconcile),
        4 => (1..8usize).prop_map(Event::Die),
        4 => (0..6usize).prop_map(Event::Succeed),
        3 => (0..6usize).prop_map(Event::Fail),
        1 => (0..6usize).prop_map(Event::Delete),
        2 => Just(Event::Wait),
        1 => (0..5i32).prop_map(Event::Parallelism),
        1 => any::<bool>().prop_map(Event::Suspend),
    ]
}

fn happen(world: &mut World, event: &Event) {
    let nth = |world: &World, nth: usize| world.active().get(nth).copied();
    match event {
        Event::Reconcile => drop(world.step()),
        Event::Die(writes) => drop(world.step_up_to(*writes)),
        Event::Succeed(pod) => {
            nth(world, *pod).into_iter().for_each(|pod| world.end(pod, "Succeeded"));
        }
        Event::Fail(pod) => nth(world, *pod).into_iter().for_each(|pod| world.end(pod, "Failed")),
        Event::Delete(pod) => nth(world, *pod).into_iter().for_each(|pod| world.delete(pod)),
        Event::Wait => world.pass(700),
        Event::Parallelism(parallelism) => world.spec().parallelism = Some(*parallelism),
        Event::Suspend(suspend) => world.spec().suspend = Some(*suspend),
    }
}

/// What really became of the pods: those that succeeded, and those that failed or were deleted.
fn truth(world: &World) -> (Vec<Arc<Pod>>, Vec<Arc<Pod>>) {
    let all = world.pods.iter().chain(&world.gone);
    let counting = all.filter(|pod| !world.let_go.contains(pod.metadata.uid.as_ref().unwrap()));
    let ended = counting
        .filter(|pod| !phase(pod).is_empty() || pod.metadata.deletion_timestamp.is_some())
        .cloned();
    ended.partition(|pod| phase(pod) == "Succeeded")
}

/// What the status knows of: pods that are in its numbers or that it names.
fn known(world: &World) -> (usize, usize) {
    let status = world.status();
    let named = status.uncounted_terminated_pods.unwrap_or_default();
    let sum = |count: Option<i32>, named: Option<Vec<String>>| {
        usize::try_from(count.unwrap_or(0)).unwrap() + named.unwrap_or_default().len()
    };
    (sum(status.succeeded, named.succeeded), sum(status.failed, named.failed))
}

fn walk(spec: Value, events: &[Event]) -> World {
    let mut world = World::new(spec);
    for event in events {
        happen(&mut world, event);
        let (succeeded, failed) = truth(&world);
        let (known_succeeded, known_failed) = known(&world);
        assert!(known_succeeded <= succeeded.len(), "a success is counted twice");
        assert!(known_failed <= failed.len(), "a failure is counted twice");
    }
    world.spec().suspend = Some(false);
    world.spec().parallelism = Some(2);
    for _ in 0..100 {
        world.settle();
        if outcome(&world.job).is_some() {
            return world;
        }
        world.pass(700);
        world.active().into_iter().rev().for_each(|pod| world.end(pod, "Succeeded"));
        let going = |pod: &Arc<Pod>| is_terminating(pod);
        while let Some(pod) = world.pods.iter().position(going) {
            world.end(pod, "Failed");
        }
    }
    panic!("the job never ends: {:#?}", world.status());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn each_pod_is_counted_once(
        completions in prop::option::of(0..6i32),
        limit in prop_oneof![0..4i32, Just(100)],
        replacement in prop_oneof![Just("Failed"), Just("TerminatingOrFailed")],
        events in prop::collection::vec(event(), 0..60),
    ) {
        let world = walk(json!({ "completions": completions, "parallelism": 3,
            "backoffLimit": limit, "podReplacementPolicy": replacement }), &events);
        let (succeeded, failed) = truth(&world);
        prop_assert_eq!(known(&world), (succeeded.len(), failed.len()));
        let complete = world.conditions().contains(&"Complete:CompletionsReached".to_owned());
        if let Some(completions) = completions.filter(|_| complete) {
            prop_assert_eq!(world.status().succeeded.unwrap_or(0), completions);
        }
        prop_assert!(complete || failed.len() > usize::try_from(limit).unwrap());
    }

    #[test]
    fn each_index_is_counted_once(
        completions in 1..6i32,
        limit in prop::option::of(0..3i32),
        replacement in prop_oneof![Just("Failed"), Just("TerminatingOrFailed")],
        events in prop::collection::vec(event(), 0..60),
    ) {
        let world = walk(json!({ "completions": completions, "parallelism": 3, "backoffLimit": 100,
            "backoffLimitPerIndex": limit, "completionMode": "Indexed",
            "podReplacementPolicy": replacement }), &events);
        let (succeeded, failed) = truth(&world);
        let indexes: BTreeSet<u32> = succeeded.iter().filter_map(|pod| index_of(pod)).collect();
        prop_assert_eq!(known(&world), (indexes.len(), failed.len()));
        prop_assert_eq!(indexes.len(), succeeded.len(), "an index was done twice");
        let given_up = world.status().failed_indexes.filter(|text| !text.is_empty());
        prop_assert_eq!(given_up.is_some(), world.conditions().contains(&"Failed:FailedIndexes".to_owned()));
        prop_assert!(given_up.is_some() || indexes.len() == usize::try_from(completions).unwrap());
    }
}
