//! PodDisruptionBudget: how many of its pods may be evicted now.
//!
//! Upstream: `pkg/controller/disruption/disruption.go`. The API server asks the status before it evicts.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use coracle_reconcile::{Change, Next, ObjectKey, Queue, Recorder};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::autoscaling::v2::CrossVersionObjectReference;
use k8s_openapi::api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{
    Condition, LabelSelectorRequirement, OwnerReference, Time,
};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::api::PostParams;

use crate::api::{Attempting, Unfinished, api_time, is_not_found};
use crate::context::Context;
use crate::horizontal_pod_autoscaler::scaled_size;
use crate::ownership::{controller_key, controller_of, selects};
use crate::pod::Pod;
use crate::pods::{is_over, is_ready};

/// Upstream has one worker; a budget is one read of mirrors and seldom a write.
const WORKERS: usize = 4;
/// An eviction that was allowed but did not come about is forgotten after this.
const FORGOTTEN_AFTER: SignedDuration = SignedDuration::from_mins(2);
const ALLOWED: &str = "DisruptionAllowed";

/// Starts the controller.
pub(crate) fn start(ctx: &Arc<Context>) {
    let queue = Queue::new();
    let changed = queue.clone();
    ctx.mirrors.budgets.on_change(move |change| {
        if let Change::Applied { new, .. } = change {
            changed.add(ObjectKey::of(new.as_ref()));
        }
    });
    let (changed, budgets) = (queue.clone(), ctx.mirrors.budgets.clone());
    ctx.mirrors.pods.on_change(move |change| {
        let queue_covering = |pod: &Pod| {
            let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
            for budget in budgets.in_namespace(namespace) {
                if covers(&budget, pod) {
                    changed.add(ObjectKey::of(budget.as_ref()));
                }
            }
        };
        queue_covering(change.object());
        if let Change::Applied { old: Some(old), new } = change
            && old.metadata.labels != new.metadata.labels
        {
            queue_covering(old);
        }
    });
    let recorder = ctx.recorder("controllermanager");
    let controller = Arc::new(Controller { ctx: Arc::clone(ctx), recorder });
    ctx.work(&queue, "disruption", WORKERS, move |key| {
        let controller = Arc::clone(&controller);
        async move { controller.reconcile(&key).await }
    });
}

struct Controller {
    ctx: Arc<Context>,
    recorder: Recorder,
}

impl Controller {
    async fn reconcile(&self, key: &ObjectKey) -> Result<Next, Unfinished> {
        let mirror = &self.ctx.mirrors.budgets;
        let Some(budget) = mirror.get(key) else { return Ok(Next::AwaitChange) };
        let pods = self.ctx.mirrors.pods.in_namespace(&key.namespace);
        let pods: Vec<Arc<Pod>> =
            pods.into_iter().filter(|pod| covers(&budget, pod) && !is_over(pod)).collect();
        if pods.is_empty() {
            self.recorder.normal(budget.as_ref(), "NoPods", "No matching pods found");
        }
        let scale =
            if needs_scale(&budget) { self.scale(&key.namespace, &pods).await } else { Ok(0) };
        if needs_scale(&budget) && pods.iter().any(|pod| controller_of(&pod.metadata).is_none()) {
            self.recorder.warning(budget.as_ref(), "UnmanagedPods", unmanaged(&budget));
        }
        if let Err(why) = &scale {
            let message = format!("Failed to calculate the number of expected pods: {why}");
            self.recorder.warning(budget.as_ref(), "CalculateExpectedPodCountFailed", message);
        }
        let (status, again) = plan(&budget, &pods, scale, self.ctx.now());
        if budget.status.as_ref() != Some(&status) {
            let mut shown = PodDisruptionBudget::clone(&budget);
            shown.status = Some(status);
            let api: kube::Api<PodDisruptionBudget> = self.ctx.api(&key.namespace);
            match api.replace_status(&key.name, &PostParams::default(), &shown).await {
                Err(error) if is_not_found(&error) => (),
                written => mirror
                    .observe(written.attempting(|| format!("write the status of budget {key}"))?),
            }
        }
        Ok(again.map_or(Next::AwaitChange, Next::After))
    }

    /// How many pods those want who control these pods, or why nobody knows.
    async fn scale(&self, namespace: &str, pods: &[Arc<Pod>]) -> Result<i32, String> {
        let mut wanted: BTreeMap<String, i32> = BTreeMap::new();
        for pod in pods {
            // Without a controller a pod counts for nothing that could be wanted.
            let Some(controller) = controller_of(&pod.metadata) else { continue };
            if wanted.contains_key(&controller.uid) {
                continue;
            }
            let replicas = self.replicas(namespace, controller).await?;
            wanted.extend(replicas);
        }
        Ok(wanted.values().sum())
    }

    /// The uid and size of what scales a pod: the Deployment above a ReplicaSet.
    async fn replicas(
        &self,
        namespace: &str,
        owner: &OwnerReference,
    ) -> Result<Option<(String, i32)>, String> {
        let mirrors = &self.ctx.mirrors;
        let key = ObjectKey::new(namespace, owner.name.clone());
        let size = |replicas: Option<i32>| (owner.uid.clone(), replicas.unwrap_or(1));
        match owner.kind.as_str() {
            "ReplicaSet" => {
                let Some(set) = mirrors.replica_sets.get(&key) else { return Ok(None) };
                let above = controller_key::<Deployment>(&set.metadata);
                let above = above.and_then(|key| mirrors.deployments.get(&key));
                Ok(Some(match above {
                    Some(deployment) => (
                        deployment.metadata.uid.clone().unwrap_or_default(),
                        deployment.spec.replicas.unwrap_or(1),
                    ),
                    None => size(set.spec.replicas),
                }))
            }
            "StatefulSet" => {
                let found = mirrors.stateful_sets.get(&key);
                Ok(found.map(|set| size(set.spec.replicas)))
            }
            "ReplicationController" => {
                let found = mirrors.replication_controllers.get(&key);
                Ok(found.map(|set| size(set.spec.as_ref().and_then(|spec| spec.replicas))))
            }
            _ => {
                let target = CrossVersionObjectReference {
                    api_version: Some(owner.api_version.clone()),
                    kind: owner.kind.clone(),
                    name: owner.name.clone(),
                };
                let wanted = scaled_size(&self.ctx, namespace, &target).await?;
                Ok(wanted.map(|wanted| (owner.uid.clone(), wanted)))
            }
        }
    }
}

/// Upstream's warning about pods that nobody controls, who therefore cannot say how many there should be.
fn unmanaged(budget: &PodDisruptionBudget) -> String {
    let selector = budget.spec.as_ref().and_then(|spec| spec.selector.as_ref());
    let labels = selector.and_then(|selector| selector.match_labels.as_ref());
    let labels: String =
        labels.into_iter().flatten().map(|(key, value)| format!("{key}: {value},")).collect();
    let requirements = selector.and_then(|selector| selector.match_expressions.as_deref());
    let requirement = |it: &LabelSelectorRequirement| {
        let values = it.values.as_deref().unwrap_or_default().join(" ");
        let LabelSelectorRequirement { key, operator, .. } = it;
        format!("LabelSelectorRequirement{{Key:{key},Operator:{operator},Values:[{values}],}},")
    };
    let requirements: String = requirements.unwrap_or_default().iter().map(requirement).collect();
    format!(
        "Pods selected by this PodDisruptionBudget (selector: &LabelSelector{{MatchLabels:map[string]string{{{labels}}},\
         MatchExpressions:[]LabelSelectorRequirement{{{requirements}}},}}) were found to be unmanaged. As a result, the \
         status of the PDB cannot be calculated correctly, which may result in undefined behavior. To account for these \
         pods please set \".spec.minAvailable\" field of the PDB to an integer value."
    )
}

fn covers(budget: &PodDisruptionBudget, pod: &Pod) -> bool {
    let selector = budget.spec.as_ref().and_then(|spec| spec.selector.as_ref());
    selector.is_some_and(|selector| selects(selector, pod.metadata.labels.as_ref()))
}

/// Whether the budget speaks of a part of all that there should be.
fn needs_scale(budget: &PodDisruptionBudget) -> bool {
    let Some(spec) = &budget.spec else { return false };
    spec.max_unavailable.is_some() || matches!(spec.min_available, Some(IntOrString::String(_)))
}

/// The status that the budget should show, and when to look again because an eviction is forgotten then.
fn plan(
    budget: &PodDisruptionBudget,
    pods: &[Arc<Pod>],
    scale: Result<i32, String>,
    now: Timestamp,
) -> (PodDisruptionBudgetStatus, Option<Duration>) {
    let before = budget.status.clone().unwrap_or_default();
    let (disrupted, again) = still_disrupted(&before, pods, now);
    let shown = |is: &str, reason: &str, message: String| {
        Some(vec![condition(&before, budget, (is, reason, message), now)])
    };
    let scale = match scale {
        Ok(scale) => scale,
        Err(why) => {
            let status = PodDisruptionBudgetStatus {
                disruptions_allowed: Some(0),
                observed_generation: budget.metadata.generation,
                conditions: shown("False", "SyncFailed", why),
                ..before
            };
            return (status, again);
        }
    };
    let (expected, desired) = wanted(budget, i32::try_from(pods.len()).unwrap_or(i32::MAX), scale);
    let healthy = pods.iter().filter(|pod| {
        pod.metadata.deletion_timestamp.is_none()
            && is_ready(pod)
            && !disrupted.contains_key(pod.metadata.name.as_deref().unwrap_or_default())
    });
    let healthy = i32::try_from(healthy.count()).unwrap_or(i32::MAX);
    let allowed = if expected > 0 { (healthy - desired).max(0) } else { 0 };
    let (is, reason) =
        if allowed > 0 { ("True", "SufficientPods") } else { ("False", "InsufficientPods") };
    let status = PodDisruptionBudgetStatus {
        conditions: shown(is, reason, String::new()),
        current_healthy: Some(healthy),
        desired_healthy: Some(desired),
        disrupted_pods: (!disrupted.is_empty()).then_some(disrupted),
        disruptions_allowed: Some(allowed),
        expected_pods: Some(expected),
        observed_generation: budget.metadata.generation,
    };
    (status, again)
}

/// How many pods there should be, and how many of them healthy.
fn wanted(budget: &PodDisruptionBudget, found: i32, scale: i32) -> (i32, i32) {
    let Some(spec) = &budget.spec else { return (0, 0) };
    match (&spec.max_unavailable, &spec.min_available) {
        (Some(most), _) => (scale, (scale - part(most, scale)).max(0)),
        (None, Some(IntOrString::Int(least))) => (found, *least),
        (None, Some(least)) => (scale, part(least, scale)),
        (None, None) => (0, 0),
    }
}

/// A number, or so many hundredths of the whole, rounded up.
fn part(of: &IntOrString, whole: i32) -> i32 {
    match of {
        IntOrString::Int(number) => *number,
        IntOrString::String(text) => {
            let percent: i64 = text.trim_end_matches('%').parse().unwrap_or(0);
            let hundredths = percent.saturating_mul(i64::from(whole)).saturating_add(99);
            i32::try_from(hundredths.div_euclid(100)).unwrap_or(i32::MAX)
        }
    }
}

/// Evictions that were allowed and whose pods are not going yet, and when the first of them is forgotten.
fn still_disrupted(
    before: &PodDisruptionBudgetStatus,
    pods: &[Arc<Pod>],
    now: Timestamp,
) -> (BTreeMap<String, Time>, Option<Duration>) {
    let mut kept = BTreeMap::new();
    let mut again: Option<Duration> = None;
    for (name, since) in before.disrupted_pods.iter().flatten() {
        let there = pods.iter().any(|pod| {
            pod.metadata.name.as_deref() == Some(name) && pod.metadata.deletion_timestamp.is_none()
        });
        let left = FORGOTTEN_AFTER - now.duration_since(since.0);
        if there && left.is_positive() {
            let left = Duration::try_from(left).unwrap_or_default();
            again = Some(again.map_or(left, |earlier| earlier.min(left)));
            kept.insert(name.clone(), since.clone());
        }
    }
    (kept, again)
}

/// The budget's one condition: whether it allows a disruption, why, and what is wrong.
fn condition(
    before: &PodDisruptionBudgetStatus,
    budget: &PodDisruptionBudget,
    (status, reason, message): (&str, &str, String),
    now: Timestamp,
) -> Condition {
    let last = before.conditions.iter().flatten().find(|it| it.type_ == ALLOWED);
    let since = last.filter(|last| last.status == status);
    Condition {
        type_: ALLOWED.to_owned(),
        status: status.to_owned(),
        reason: reason.to_owned(),
        message,
        last_transition_time: since
            .map_or_else(|| api_time(now), |last| last.last_transition_time.clone()),
        observed_generation: budget.metadata.generation,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn budget(mut spec: Value, status: Value) -> PodDisruptionBudget {
        spec["selector"] = json!({ "matchLabels": { "app": "web" } });
        let metadata = json!({ "name": "b", "generation": 3 });
        serde_json::from_value(json!({ "metadata": metadata, "spec": spec, "status": status }))
            .unwrap()
    }

    fn pods(ready: usize, not_ready: usize) -> Vec<Arc<Pod>> {
        let pod = |index: usize| {
            let is = if index < ready { "True" } else { "False" };
            let pod = json!({
                "metadata": { "name": format!("web-{index}"), "labels": { "app": "web" } },
                "status": { "phase": "Running", "conditions": [{ "type": "Ready", "status": is }] },
            });
            Arc::new(serde_json::from_value(pod).unwrap())
        };
        (0..ready + not_ready).map(pod).collect()
    }

    #[test]
    fn a_budget_allows_what_is_healthy_beyond_what_must_be() {
        let check = |spec: Value,
                     ready: usize,
                     scale: i32,
                     (expected, desired, allowed): (i32, i32, i32)| {
            let (budget, pods) = (budget(spec.clone(), json!(null)), pods(ready, 1));
            let (status, _) = plan(&budget, &pods, Ok(scale), Timestamp::UNIX_EPOCH);
            let found = (status.expected_pods, status.desired_healthy, status.disruptions_allowed);
            assert_eq!(found, (Some(expected), Some(desired), Some(allowed)), "{spec}");
            assert_eq!(status.observed_generation, Some(3));
            assert_eq!(status.current_healthy, i32::try_from(ready).ok());
            let reason = &status.conditions.unwrap()[0].reason;
            assert_eq!(reason, if allowed > 0 { "SufficientPods" } else { "InsufficientPods" });
        };
        check(json!({ "minAvailable": 2 }), 3, 0, (4, 2, 1));
        check(json!({ "minAvailable": 4 }), 3, 0, (4, 4, 0));
        check(json!({ "minAvailable": "50%" }), 3, 5, (5, 3, 0));
        check(json!({ "minAvailable": "1%" }), 0, 0, (0, 0, 0));
        check(json!({ "maxUnavailable": 1 }), 3, 3, (3, 2, 1));
        check(json!({ "maxUnavailable": "34%" }), 9, 10, (10, 6, 3));
    }

    #[test]
    fn what_was_allowed_counts_as_gone_until_it_is_or_is_forgotten() {
        let status = json!({ "currentHealthy": 3, "desiredHealthy": 1, "disruptionsAllowed": 1, "expectedPods": 3,
            "disruptedPods": { "web-0": "2026-01-01T00:00:00Z", "gone": "2026-01-01T00:00:00Z" } });
        let budget = budget(json!({ "minAvailable": 1 }), status);
        let at = |time: &str| plan(&budget, &pods(3, 0), Ok(0), time.parse().unwrap());
        let (soon, again) = at("2026-01-01T00:01:00Z");
        assert_eq!((soon.disruptions_allowed, again), (Some(1), Some(Duration::from_secs(60))));
        assert_eq!(soon.disrupted_pods.unwrap().len(), 1);
        let (later, again) = at("2026-01-01T00:03:00Z");
        assert_eq!((later.disruptions_allowed, later.disrupted_pods, again), (Some(2), None, None));
    }

    #[test]
    fn pods_that_nobody_controls_are_told_of_with_the_selector() {
        let told = unmanaged(&budget(json!({ "maxUnavailable": 1 }), json!(null)));
        let selector = "(selector: &LabelSelector{MatchLabels:map[string]string{app: web,},MatchExpressions:[]LabelSelectorRequirement{},})";
        assert!(told.contains(selector), "{told}");
    }

    #[test]
    fn a_budget_over_pods_that_nobody_can_scale_allows_nothing() {
        let budget = budget(json!({ "maxUnavailable": 1 }), json!(null));
        let (status, _) = plan(&budget, &pods(2, 0), Err("no scale".into()), Timestamp::UNIX_EPOCH);
        let condition = &status.conditions.unwrap()[0];
        assert_eq!(
            (status.disruptions_allowed, condition.reason.as_str()),
            (Some(0), "SyncFailed")
        );
        assert_eq!(condition.message, "no scale");
    }
}
