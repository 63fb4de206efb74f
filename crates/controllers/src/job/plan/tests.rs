//! A Job's life, told as a small world in which every write succeeds.

use super::*;
use crate::job::FINALIZER;
use serde_json::{Value, json};

/// A Job, its pods, and a clock.
struct World {
    job: Job,
    pods: Vec<Arc<Pod>>,
    made: usize,
    now: Timestamp,
}

impl World {
    fn new(spec: Value) -> Self {
        let mut whole = json!({ "parallelism": 1, "backoffLimit": 6, "template":
            { "spec": { "restartPolicy": "Never", "containers": [{ "name": "c" }] } } });
        for (key, value) in spec.as_object().unwrap() {
            whole[key] = value.clone();
        }
        let job =
            json!({ "metadata": { "name": "sum", "namespace": "d", "uid": "j" }, "spec": whole });
        let now = "2026-01-01T00:00:00Z".parse().unwrap();
        Self { job: serde_json::from_value(job).unwrap(), pods: Vec::new(), made: 0, now }
    }

    fn change(&mut self, index: usize, change: impl FnOnce(&mut Pod)) {
        let mut pod = Pod::clone(&self.pods[index]);
        change(&mut pod);
        self.pods[index] = Arc::new(pod);
    }

    fn end(&mut self, index: usize, phase: &str) {
        let now = self.now.to_string();
        self.change(index, |pod| {
            pod.status = serde_json::from_value(json!({ "phase": phase, "containerStatuses": [{
                "name": "c", "ready": false, "restartCount": 0, "image": "i", "imageID": "",
                "state": { "terminated": { "exitCode": 0, "finishedAt": now } } }] }))
            .unwrap();
        });
    }

    fn pass(&mut self, seconds: i64) {
        self.now += jiff::SignedDuration::from_secs(seconds);
    }

    /// One reconcile.
    fn step(&mut self) -> Decision {
        let decision = plan(&self.job, &self.pods, self.now);
        self.job.status = Some(decision.status.clone());
        for counted in &decision.counted {
            let index = self.pods.iter().position(|pod| Arc::ptr_eq(pod, counted)).unwrap();
            self.change(index, |pod| pod.metadata.finalizers = None);
        }
        for index in &decision.create {
            self.made += 1;
            let mut pod: k8s_openapi::api::core::v1::Pod =
                serde_json::from_value(json!({ "metadata": {
                "name": format!("sum-{}", self.made), "uid": format!("p{}", self.made),
                "finalizers": [FINALIZER] }, "spec": { "containers": [] } }))
                .unwrap();
            if let Some(index) = index {
                indexes::give(&mut pod, &self.job, *index);
            }
            let pod = serde_json::to_value(pod).unwrap();
            self.pods.push(Arc::new(serde_json::from_value(pod).unwrap()));
        }
        let deleted: Vec<_> = decision.delete.iter().map(|pod| pod.metadata.uid.clone()).collect();
        self.pods.retain(|pod| !deleted.contains(&pod.metadata.uid));
        decision
    }

    fn settle(&mut self) {
        for _ in 0..20 {
            let before = (self.job.clone(), self.pods.clone());
            self.step();
            if before == (self.job.clone(), self.pods.clone()) {
                return;
            }
        }
        panic!("the job does not settle: {:?}", self.job.status);
    }

    fn active(&self) -> Vec<usize> {
        (0..self.pods.len()).filter(|index| is_active(&self.pods[*index])).collect()
    }

    fn status(&self) -> JobStatus {
        self.job.status.clone().unwrap()
    }

    fn conditions(&self) -> Vec<String> {
        let conditions = self.status().conditions.unwrap_or_default();
        let held = conditions.iter().filter(|condition| condition.status == "True");
        held.map(|it| format!("{}:{}", it.type_, it.reason.clone().unwrap_or_default())).collect()
    }
}

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
    let status = plan(&world.job, &world.pods, world.now).status;
    world.job.status = Some(status.clone());
    assert_eq!(plan(&world.job, &world.pods, world.now).status, status);
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
    let variable = &world.pods[0].spec.hostname;
    assert_eq!(variable.as_deref(), Some("sum-0"));
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
