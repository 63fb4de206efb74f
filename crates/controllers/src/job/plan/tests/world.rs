//! A Job, its pods and a clock: every write succeeds, until the controller dies between two of them.

use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::batch::v1::{Job, JobStatus};
use serde_json::{Value, json};

use crate::job::backoff::Record;
use crate::job::condition::outcome;
use crate::job::index_pods;
use crate::job::plan::{Decision, plan};
use crate::job::{FINALIZER, bears_finalizer};
use crate::pod::Pod;
use crate::pods::{is_active, is_over};

pub struct World {
    pub job: Job,
    pub pods: Vec<Arc<Pod>>,
    pub now: Timestamp,
    /// How many pods were ever made.
    pub made: usize,
    /// Pods that were let go while they ran, and not as failed: whatever becomes of them counts for nothing.
    pub let_go: Vec<String>,
    /// The last known state of pods that are gone.
    pub gone: Vec<Arc<Pod>>,
    /// What the controller remembers; nothing after it died.
    record: Option<Record>,
}

impl World {
    pub fn new(spec: Value) -> Self {
        let mut whole = json!({ "parallelism": 1, "backoffLimit": 6, "template":
            { "spec": { "restartPolicy": "Never", "containers": [{ "name": "c" }] } } });
        for (key, value) in spec.as_object().unwrap() {
            whole[key] = value.clone();
        }
        let job =
            json!({ "metadata": { "name": "sum", "namespace": "d", "uid": "j" }, "spec": whole });
        Self {
            job: serde_json::from_value(job).unwrap(),
            pods: Vec::new(),
            now: "2026-01-01T00:00:00Z".parse().unwrap(),
            made: 0,
            let_go: Vec::new(),
            gone: Vec::new(),
            record: None,
        }
    }

    pub fn change(&mut self, index: usize, change: impl FnOnce(&mut Pod)) {
        let mut pod = Pod::clone(&self.pods[index]);
        change(&mut pod);
        self.pods[index] = Arc::new(pod);
        self.sweep();
    }

    /// The node says how a pod ended.
    pub fn end(&mut self, index: usize, phase: &str) {
        let code = i32::from(phase == "Failed");
        self.end_with(index, phase, code);
    }

    pub fn end_with(&mut self, index: usize, phase: &str, code: i32) {
        let now = self.now.to_string();
        self.change(index, |pod| {
            pod.status = serde_json::from_value(json!({ "phase": phase, "containerStatuses": [{
                "name": "c", "restartCount": 0,
                "state": { "terminated": { "exitCode": code, "finishedAt": now } } }] }))
            .unwrap();
        });
    }

    /// Somebody deletes a pod; it stays while it bears a finalizer.
    pub fn delete(&mut self, index: usize) {
        let now = self.now;
        self.change(index, |pod| {
            let meta = &mut pod.metadata;
            meta.deletion_timestamp
                .get_or_insert(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(now));
        });
    }

    pub fn pass(&mut self, seconds: i64) {
        self.now += jiff::SignedDuration::from_secs(seconds);
    }

    /// One reconcile.
    pub fn step(&mut self) -> Decision {
        self.step_up_to(usize::MAX)
    }

    /// One reconcile, in which the controller dies after so many writes.
    pub fn step_up_to(&mut self, mut writes: usize) -> Decision {
        if outcome(&self.job).is_some() {
            (0..self.pods.len()).rev().for_each(|index| self.free(index));
            return Decision::default();
        }
        let decision = plan(&self.job, &self.pods, self.record, self.now);
        let mut may_write = || {
            writes = writes.saturating_sub(1);
            writes > 0
        };
        self.record = None;
        for pod in &decision.surplus {
            if !may_write() {
                return decision;
            }
            self.let_go.extend(pod.metadata.uid.clone().filter(|_| bears_finalizer(pod)));
            self.find(pod).into_iter().for_each(|index| self.free(index));
        }
        for pod in decision.surplus.iter().chain(&decision.stop) {
            if !may_write() {
                return decision;
            }
            self.find(pod).into_iter().for_each(|index| self.delete(index));
        }
        for place in &decision.create {
            if !may_write() {
                return decision;
            }
            self.make(*place);
        }
        if !may_write() {
            return decision;
        }
        self.job.status = Some(decision.status.clone());
        self.record = Some(decision.record);
        let named = decision.status.uncounted_terminated_pods.clone().unwrap_or_default();
        let named = named.failed.unwrap_or_default();
        for pod in &decision.release {
            if !may_write() {
                self.record = None;
                return decision;
            }
            let uid = pod.metadata.uid.clone().filter(|uid| !named.contains(uid));
            self.let_go.extend(uid.filter(|_| !is_over(pod)));
            self.find(pod).into_iter().for_each(|index| self.free(index));
        }
        decision
    }

    fn make(&mut self, place: Option<index_pods::Place>) {
        self.made += 1;
        let mut pod: k8s_openapi::api::core::v1::Pod = serde_json::from_value(json!({
            "metadata": { "name": format!("sum-{}", self.made), "uid": format!("p{}", self.made),
                "namespace": "d", "finalizers": [FINALIZER],
                "creationTimestamp": self.now.to_string() },
            "spec": { "containers": [] } }))
        .unwrap();
        if let Some(place) = place {
            index_pods::give(&mut pod, &self.job, place);
        }
        let pod = serde_json::to_value(pod).unwrap();
        self.pods.push(Arc::new(serde_json::from_value(pod).unwrap()));
    }

    fn find(&self, pod: &Pod) -> Option<usize> {
        self.pods.iter().position(|known| known.metadata.uid == pod.metadata.uid)
    }

    fn free(&mut self, index: usize) {
        self.change(index, |pod| pod.metadata.finalizers = None);
    }

    /// Pods that were deleted and that nothing holds are gone.
    fn sweep(&mut self) {
        let held = |pod: &Arc<Pod>| {
            pod.metadata.deletion_timestamp.is_none() || pod.metadata.finalizers.is_some()
        };
        let (there, gone): (Vec<_>, Vec<_>) = self.pods.drain(..).partition(held);
        self.pods = there;
        self.gone.extend(gone);
    }

    /// Reconciles until nothing changes any more.
    pub fn settle(&mut self) {
        for _ in 0..40 {
            let before = (self.job.clone(), self.pods.clone());
            self.step();
            if before == (self.job.clone(), self.pods.clone()) {
                return;
            }
        }
        panic!("the job does not settle: {:#?}", self.job.status);
    }

    pub fn active(&self) -> Vec<usize> {
        (0..self.pods.len()).filter(|index| is_active(&self.pods[*index])).collect()
    }

    /// Where the active pod of an index is.
    pub fn at(&self, index: u32) -> usize {
        let mut active = self.active().into_iter();
        active.find(|pod| index_pods::index_of(&self.pods[*pod]) == Some(index)).unwrap()
    }

    pub fn spec(&mut self) -> &mut k8s_openapi::api::batch::v1::JobSpec {
        self.job.spec.as_mut().unwrap()
    }

    pub fn status(&self) -> JobStatus {
        self.job.status.clone().unwrap_or_default()
    }

    /// Those that hold, as `Type:Reason`.
    pub fn conditions(&self) -> Vec<String> {
        let conditions = self.status().conditions.unwrap_or_default();
        let held = conditions.iter().filter(|condition| condition.status == "True");
        held.map(|it| format!("{}:{}", it.type_, it.reason.clone().unwrap_or_default())).collect()
    }
}
