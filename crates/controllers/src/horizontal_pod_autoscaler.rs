//! HorizontalPodAutoscaler: gives what it scales as many pods as its metrics ask for.
//!
//! `metrics.rs` reads what extension servers measured, `replicas.rs` says how many pods that means, `behavior.rs` how
//! fast to go there. What is remembered between two looks is lost with this controller, as upstream.
//!
//! Upstream: `pkg/controller/podautoscaler/horizontal.go`. Nothing can be watched here, so each autoscaler is looked at
//! every 15 seconds, as upstream; a change of its spec is followed at once.

mod behavior;
mod evaluate;
mod metrics;
mod replicas;
mod selectors;
mod target;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use coracle_reconcile::{Change, Next, ObjectKey, Queue, Recorder};
use jiff::Timestamp;
use k8s_openapi::api::autoscaling::v2::{
    HorizontalPodAutoscaler, HorizontalPodAutoscalerCondition, HorizontalPodAutoscalerStatus,
    MetricStatus,
};
use parking_lot::Mutex;

use crate::api::{Unfinished, api_time, message};
use crate::context::Context;
use behavior::{Memory, Sizes, outcome};
use evaluate::Evaluation;
use selectors::Selectors;
use target::Scaled;
pub(crate) use target::scaled_size;

/// Autoscalers that are worked on at once; upstream's `--concurrent-horizontal-pod-autoscaler-syncs` is 5.
const WORKERS: usize = 5;
/// Upstream's `--horizontal-pod-autoscaler-sync-period`.
const PERIOD: Duration = Duration::from_secs(15);
/// Upstream's name for the controller, which Events bear.
const CONTROLLER: &str = "horizontal-pod-autoscaler";

/// Starts the controller.
pub(crate) fn start(ctx: &Arc<Context>) {
    let queue = Queue::new();
    let controller = Arc::new(Controller {
        ctx: Arc::clone(ctx),
        recorder: ctx.recorder(CONTROLLER),
        memories: Mutex::default(),
        selectors: Selectors::default(),
    });
    let (changed, followed) = (queue.clone(), Arc::clone(&controller));
    ctx.mirrors.autoscalers.on_change(move |change| match change {
        Change::Applied { old, new } => {
            // Its status is ours: only what the user changes is news.
            let generation = |of: &HorizontalPodAutoscaler| of.metadata.generation;
            if old.as_ref().is_none_or(|old| generation(old) != generation(new)) {
                changed.add(ObjectKey::of(new.as_ref()));
            }
        }
        Change::Deleted(last) => {
            let key = ObjectKey::of(last.as_ref());
            followed.memories.lock().remove(&key);
            followed.selectors.forget(&key);
        }
    });
    ctx.work(&queue, CONTROLLER, WORKERS, move |key| {
        let controller = Arc::clone(&controller);
        async move { controller.reconcile(&key).await }
    });
}

struct Controller {
    ctx: Arc<Context>,
    recorder: Recorder,
    memories: Mutex<HashMap<ObjectKey, Memory>>,
    selectors: Selectors,
}

/// The status as it grows during one look.
struct Draft {
    status: HorizontalPodAutoscalerStatus,
    now: Timestamp,
}

impl Draft {
    fn condition(&mut self, kind: &str, holds: bool, reason: &str, message: impl Into<String>) {
        let status = if holds { "True" } else { "False" };
        let conditions = self.status.conditions.get_or_insert_default();
        let found = conditions.iter_mut().find(|condition| condition.type_ == kind);
        let changed = found.as_ref().is_none_or(|found| found.status != status);
        let since = found.as_ref().and_then(|found| found.last_transition_time.clone());
        let condition = HorizontalPodAutoscalerCondition {
            type_: kind.to_owned(),
            status: status.to_owned(),
            reason: Some(reason.to_owned()),
            message: Some(message.into()),
            last_transition_time: if changed { Some(api_time(self.now)) } else { since },
            observed_generation: None,
        };
        match found {
            Some(found) => *found = condition,
            None => conditions.push(condition),
        }
    }

    fn sizes(&mut self, current: i32, desired: i32, metrics: Option<Vec<MetricStatus>>) {
        self.status.current_replicas = Some(current);
        self.status.desired_replicas = desired;
        self.status.current_metrics = metrics.filter(|metrics| !metrics.is_empty());
    }
}

impl Controller {
    async fn reconcile(&self, key: &ObjectKey) -> Result<Next, Unfinished> {
        let Some(scaler) = self.ctx.mirrors.autoscalers.get(key) else {
            return Ok(Next::AwaitChange);
        };
        if scaler.metadata.deletion_timestamp.is_some() {
            return Ok(Next::AwaitChange);
        }
        let mut draft =
            Draft { status: scaler.status.clone().unwrap_or_default(), now: self.ctx.now() };
        draft.status.observed_generation = scaler.metadata.generation;
        self.look(key, &scaler, &mut draft).await;
        // What fails is tried again at the next look, and not sooner.
        if let Err(error) = self.write_status(&scaler, draft.status).await {
            tracing::debug!(%key, %error, "autoscaler's status not written");
        }
        Ok(Next::After(PERIOD))
    }

    /// Finds the right size and goes there; the draft says what came of it.
    async fn look(&self, key: &ObjectKey, scaler: &HorizontalPodAutoscaler, draft: &mut Draft) {
        let scaled =
            match Scaled::find(&self.ctx, &key.namespace, &scaler.spec.scale_target_ref).await {
                Ok(scaled) => scaled,
                Err(cause) => {
                    self.recorder.warning(scaler, "FailedGetScale", cause.clone());
                    let told = format!(
                        "the HPA controller was unable to get the target's current scale: {cause}"
                    );
                    return draft.condition("AbleToScale", false, "FailedGetScale", told);
                }
            };
        let able = "the HPA controller was able to get the target's current scale";
        draft.condition("AbleToScale", true, "SucceededGetScale", able);
        let current = scaled.wanted;
        self.remember(key, draft.now, |memory| {
            if memory.wishes.is_empty() {
                memory.wishes.push((draft.now, current));
            }
        });
        let (min, max) = (scaler.spec.min_replicas.unwrap_or(1), scaler.spec.max_replicas);
        let mut metrics = None;
        let (desired, reason) = if current == 0 && min != 0 {
            let told = "scaling is disabled since the replica count of the target is zero";
            draft.condition("ScalingActive", false, "ScalingDisabled", told);
            (current, String::new())
        } else if current > max {
            (max, "Current number of replicas above Spec.MaxReplicas".to_owned())
        } else if current < min {
            (min, "Current number of replicas below Spec.MinReplicas".to_owned())
        } else {
            let Some(found) = self.evaluate(key, scaler, &scaled, draft).await else { return };
            metrics = Some(found.statuses);
            let sizes = Sizes { current, wished: found.replicas, min, max };
            let reason = match found.replicas > current {
                true => format!("{} above target", found.metric),
                false => "All metrics below target".to_owned(),
            };
            (self.bound(key, scaler, sizes, draft), reason)
        };
        if desired == current {
            return draft.sizes(current, desired, metrics);
        }
        let is_rescaled = self.rescale(key, scaler, &scaled, (desired, &reason), draft).await;
        let reached = if is_rescaled { desired } else { current };
        draft.sizes(current, reached, metrics);
    }

    /// What the metrics ask for; nothing if they cannot be had.
    async fn evaluate(
        &self,
        key: &ObjectKey,
        scaler: &HorizontalPodAutoscaler,
        scaled: &Scaled,
        draft: &mut Draft,
    ) -> Option<Evaluation> {
        let found = evaluate::evaluate(&self.ctx, &self.selectors, key, scaler, scaled).await;
        for (reason, message) in &found.warnings {
            self.recorder.warning(scaler, reason, message.clone());
        }
        match found.outcome {
            Ok(evaluation) => {
                let told = format!(
                    "the HPA was able to successfully calculate a replica count from {}",
                    evaluation.metric
                );
                draft.condition("ScalingActive", true, "ValidMetricFound", told);
                Some(evaluation)
            }
            Err((reason, told, cause)) => {
                draft.condition("ScalingActive", false, reason, told);
                draft.status.current_replicas = Some(scaled.wanted);
                self.recorder.warning(scaler, "FailedComputeMetricsReplicas", cause);
                None
            }
        }
    }

    /// The size to go to now.
    fn bound(
        &self,
        key: &ObjectKey,
        scaler: &HorizontalPodAutoscaler,
        sizes: Sizes,
        draft: &mut Draft,
    ) -> i32 {
        let now = draft.now;
        let found = self.remember(key, now, |memory| {
            let found = outcome(sizes, scaler.spec.behavior.as_ref(), memory, now);
            memory.wishes.push((now, sizes.wished));
            found
        });
        draft.condition("AbleToScale", true, found.able.0, found.able.1);
        let (is_limited, (reason, told)) = found.limited;
        draft.condition("ScalingLimited", is_limited, reason, told);
        found.replicas
    }

    /// Whether the target has the size now.
    async fn rescale(
        &self,
        key: &ObjectKey,
        scaler: &HorizontalPodAutoscaler,
        scaled: &Scaled,
        (desired, reason): (i32, &str),
        draft: &mut Draft,
    ) -> bool {
        let outcome = scaled.resize(&self.ctx, desired).await;
        match &outcome {
            Ok(()) => {
                let told =
                    format!("the HPA controller was able to update the target scale to {desired}");
                draft.condition("AbleToScale", true, "SucceededRescale", told);
                let told = format!("New size: {desired}; reason: {reason}");
                self.recorder.normal(scaler, "SuccessfulRescale", told);
                draft.status.last_scale_time = Some(api_time(draft.now));
                let change = (draft.now, desired - scaled.wanted);
                self.remember(key, draft.now, |memory| memory.changes.push(change));
            }
            Err(error) => {
                let cause = message(error);
                let told = format!("New size: {desired}; reason: {reason}; error: {cause}");
                self.recorder.warning(scaler, "FailedRescale", told);
                let told =
                    format!("the HPA controller was unable to update the target scale: {cause}");
                draft.condition("AbleToScale", false, "FailedUpdateScale", told);
            }
        }
        outcome.is_ok()
    }

    fn remember<T>(
        &self,
        key: &ObjectKey,
        now: Timestamp,
        act: impl FnOnce(&mut Memory) -> T,
    ) -> T {
        let mut memories = self.memories.lock();
        let memory = memories.entry(key.clone()).or_default();
        memory.forget(now);
        act(memory)
    }

    async fn write_status(
        &self,
        scaler: &HorizontalPodAutoscaler,
        status: HorizontalPodAutoscalerStatus,
    ) -> Result<(), Unfinished> {
        if scaler.status.as_ref() == Some(&status) {
            return Ok(());
        }
        let wanted = HorizontalPodAutoscaler { status: Some(status), ..scaler.clone() };
        self.ctx.write_status(&self.ctx.mirrors.autoscalers, &wanted).await
    }
}
