//! Random walks of a Deployment: templates change, pods start and break, statuses lag. At no moment are there more pods
//! than the surge allows, or fewer that serve than have to; where pods broke, it does not get worse.

use std::collections::HashMap;
use std::sync::Arc;

use jiff::SignedDuration;
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use proptest::prelude::*;
use serde_json::json;

use super::{decide, deployment, now};
use crate::deployment::rollout::{Limits, replicas};
use crate::deployment::status::is_complete;

/// A ReplicaSet's pods.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
struct Pods {
    /// All of them.
    there: i32,
    serving: i32,
    /// Those that served and broke.
    broken: i32,
}

/// One thing that may happen.
#[derive(Debug, Clone)]
enum Event {
    /// The Deployment is looked at.
    Reconcile,
    /// A set's controller makes it as large as it should be, and writes its status.
    Resize(usize),
    /// Some pods of a set become ready; its status does not say so yet.
    Start(usize, i32),
    /// Some pods of a set break, and its status says so.
    Break(usize, i32),
    /// A set's controller writes its status.
    Report(usize),
    /// Another template is applied.
    Change(i32),
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        8 => Just(Event::Reconcile),
        6 => (0..4usize).prop_map(Event::Resize),
        6 => (0..4usize, 1..5i32).prop_map(|(set, count)| Event::Start(set, count)),
        2 => (0..4usize, 1..3i32).prop_map(|(set, count)| Event::Break(set, count)),
        6 => (0..4usize).prop_map(Event::Report),
        2 => (1..4i32).prop_map(Event::Change),
    ]
}

/// A Deployment and its sets, without an API between them.
struct Walk {
    deployment: Deployment,
    sets: Vec<Arc<ReplicaSet>>,
    pods: HashMap<String, Pods>,
}

impl Walk {
    fn new(desired: i32, surge: i32, unavailable: i32) -> Self {
        let strategy =
            json!({ "rollingUpdate": { "maxSurge": surge, "maxUnavailable": unavailable } });
        let deployment =
            deployment(json!({ "spec": { "replicas": desired, "strategy": strategy } }));
        let mut walk = Self { deployment, sets: Vec::new(), pods: HashMap::new() };
        walk.settle();
        walk
    }

    fn apply(&mut self, event: &Event) {
        match event {
            Event::Reconcile => self.reconcile(),
            Event::Resize(index) => self.resize(*index),
            Event::Start(index, count) => self.start(*index, *count),
            Event::Break(index, count) => self.break_some(*index, *count),
            Event::Report(index) => self.report(*index),
            Event::Change(image) => {
                let template = &mut self.deployment.spec.template;
                template.spec.as_mut().unwrap().containers[0].image = Some(image.to_string());
            }
        }
    }

    fn reconcile(&mut self) {
        let plan = decide(&self.deployment, &self.sets, &[]);
        if let Some(mut created) = plan.create {
            created.metadata.uid = created.metadata.name.clone();
            let age = SignedDuration::from_secs(i64::try_from(self.sets.len()).unwrap());
            created.metadata.creation_timestamp = Some(Time(now() + age));
            self.sets.push(Arc::new(created));
        }
        for (before, after) in plan.updates {
            let place =
                self.sets.iter().position(|set| set.metadata.uid == before.metadata.uid).unwrap();
            self.sets[place] = after;
        }
        self.deployment.status = Some(plan.status);
    }

    fn pods(&mut self, index: usize) -> Option<(i32, &mut Pods)> {
        let set = self.sets.get(index)?;
        let pods = self.pods.entry(set.metadata.uid.clone()?).or_default();
        Some((replicas(set), pods))
    }

    fn resize(&mut self, index: usize) {
        let Some((wanted, pods)) = self.pods(index) else { return };
        // What never served is deleted first, and then what broke.
        let surplus = (pods.there - wanted).max(0);
        let starting = pods.there - pods.serving - pods.broken;
        pods.there = wanted;
        pods.broken -= (surplus - starting).clamp(0, pods.broken);
        pods.serving = pods.serving.min(wanted - pods.broken);
        self.report(index);
    }

    fn start(&mut self, index: usize, count: i32) {
        if let Some((_, pods)) = self.pods(index) {
            let count = count.min(pods.there - pods.serving);
            pods.serving += count;
            pods.broken = pods.broken.min(pods.there - pods.serving);
        }
    }

    fn break_some(&mut self, index: usize, count: i32) {
        if let Some((_, pods)) = self.pods(index) {
            let count = count.min(pods.serving);
            pods.serving -= count;
            pods.broken += count;
        }
        self.report(index);
    }

    fn report(&mut self, index: usize) {
        let Some((_, pods)) = self.pods(index) else { return };
        let Pods { there, serving, .. } = *pods;
        let status = Arc::make_mut(&mut self.sets[index]).status.get_or_insert_default();
        status.replicas = there;
        status.ready_replicas = Some(serving);
        status.available_replicas = Some(serving);
    }

    /// Lets everything happen until nothing changes.
    fn settle(&mut self) {
        for _ in 0..100 {
            let before = (self.sets.clone(), self.deployment.status.clone());
            self.reconcile();
            for index in 0..self.sets.len() {
                self.resize(index);
                self.start(index, i32::MAX / 2);
                self.report(index);
            }
            if before == (self.sets.clone(), self.deployment.status.clone()) {
                return;
            }
        }
        panic!("the rollout does not come to an end");
    }

    /// How many serve, as a status tells, and no set is about to delete. Others may be taken for such that do not serve.
    fn serving_as_told(&self) -> i32 {
        let told = |set: &ReplicaSet| {
            let status = set.status.as_ref();
            status.and_then(|status| status.available_replicas).unwrap_or(0)
        };
        let known = |set: &Arc<ReplicaSet>| self.pods_of(set).serving.min(told(set));
        self.sets.iter().map(|set| known(set).min(replicas(set))).sum()
    }

    fn pods_of(&self, set: &ReplicaSet) -> Pods {
        let pods = set.metadata.uid.as_ref().and_then(|uid| self.pods.get(uid));
        pods.copied().unwrap_or_default()
    }

    fn totals(&self) -> Pods {
        let sum = |count: fn(&Pods) -> i32| self.pods.values().map(count).sum();
        Pods {
            there: sum(|pods| pods.there),
            serving: sum(|pods| pods.serving),
            broken: sum(|pods| pods.broken),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1024, ..ProptestConfig::default() })]

    #[test]
    fn no_rollout_leaves_its_limits_and_each_comes_to_its_end(
        desired in 0..12i32,
        surge in 0..5i32,
        unavailable in 0..5i32,
        events in proptest::collection::vec(event(), 0..120),
    ) {
        let mut walk = Walk::new(desired, surge, unavailable);
        let limits = Limits::of(&walk.deployment);
        let mut fewest = limits.fewest_available();
        for event in &events {
            walk.apply(event);
            let totals = walk.totals();
            prop_assert!(totals.there <= limits.most(), "{totals:?} after {event:?}");
            if let Event::Break(..) = event {
                fewest = fewest.min(walk.serving_as_told());
            }
            prop_assert!(totals.serving >= fewest, "{totals:?} below {fewest} after {event:?}");
            fewest = fewest.max(walk.serving_as_told().min(limits.fewest_available()));
        }
        walk.settle();
        let image = |spec: &k8s_openapi::api::core::v1::PodTemplateSpec| {
            spec.spec.as_ref().unwrap().containers[0].image.clone()
        };
        let wanted = image(&walk.deployment.spec.template);
        for set in &walk.sets {
            let runs = image(set.spec.template.as_ref().unwrap());
            let size = if runs == wanted { desired } else { 0 };
            prop_assert_eq!(replicas(set), size);
        }
        let status = walk.deployment.status.as_ref().unwrap();
        prop_assert!(is_complete(&walk.deployment, status));
    }
}
