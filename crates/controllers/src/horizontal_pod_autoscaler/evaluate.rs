//! All metrics of one autoscaler: the largest number of pods that any of them asks for.
//!
//! Upstream: `computeReplicasForMetrics` in `pkg/controller/podautoscaler/horizontal.go`.

use std::collections::BTreeMap;

use coracle_api::quantity::Quantity;
use coracle_reconcile::ObjectKey;
use jiff::Timestamp;
use k8s_openapi::api::autoscaling::v2::{
    ContainerResourceMetricStatus, ExternalMetricSource, ExternalMetricStatus, HPAScalingRules,
    HorizontalPodAutoscaler, MetricIdentifier, MetricSpec, MetricStatus, MetricTarget,
    MetricValueStatus, ObjectMetricSource, ObjectMetricStatus, PodsMetricSource, PodsMetricStatus,
    ResourceMetricStatus,
};
use k8s_openapi::api::core::v1::{Pod, PodSpec};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Written;
use kube::ResourceExt;
use kube::api::ListParams;

use super::metrics::{Metrics, selector_text};
use super::replicas::{
    PodState, Proposal, TOLERANCE, Target, Tolerances, Usage, by_average, by_pods, by_value,
    ready_count,
};
use super::selectors::Selectors;
use super::target::{Scaled, kind_of};
use crate::api::message;
use crate::context::Context;

/// What the metrics ask for.
pub(super) struct Evaluation {
    pub replicas: i32,
    /// Which of them asks for that, in upstream's words.
    pub metric: String,
    pub statuses: Vec<MetricStatus>,
}

/// What came of it: a size, or the condition's reason and message and the Event's message.
pub(super) struct Evaluated {
    pub outcome: Result<Evaluation, (&'static str, String, String)>,
    /// Reasons and messages of Events.
    pub warnings: Vec<(&'static str, String)>,
}

/// What one metric asks for.
struct Asked {
    replicas: i32,
    name: String,
    status: MetricStatus,
}

/// Where one look is at.
struct Look<'a> {
    ctx: &'a Context,
    metrics: Metrics<'a>,
    scaled: &'a Scaled,
    tolerances: Tolerances,
    /// The target's pods, or why they are not known.
    pods: Result<Vec<Pod>, String>,
    now: Timestamp,
}

/// Asks all metrics.
pub(super) async fn evaluate(
    ctx: &Context,
    selectors: &Selectors,
    key: &ObjectKey,
    scaler: &HorizontalPodAutoscaler,
    scaled: &Scaled,
) -> Evaluated {
    if scaled.selector.is_empty() {
        let cause = "selector is required".to_owned();
        let told = "the HPA target's scale is missing a selector".to_owned();
        let warnings = vec![("SelectorRequired", cause.clone())];
        return Evaluated { outcome: Err(("InvalidSelector", told, cause)), warnings };
    }
    if let Err((reason, cause)) = selectors.check(ctx, key, &scaled.selector) {
        let warnings = vec![(reason, cause.clone())];
        return Evaluated { outcome: Err((reason, cause.clone(), cause)), warnings };
    }
    let tolerance = |rules: Option<&HPAScalingRules>| {
        let tolerance = rules.and_then(|rules| rules.tolerance.as_ref());
        let tolerance = tolerance.and_then(|written| written.0.parse::<Quantity>().ok());
        tolerance.map_or(TOLERANCE, |quantity| quantity.as_f64())
    };
    let behavior = scaler.spec.behavior.as_ref();
    let pods = ctx.api::<Pod>(&key.namespace);
    let pods = pods.list(&ListParams::default().labels(&scaled.selector)).await;
    let now = ctx.now();
    let look = Look {
        ctx,
        metrics: Metrics { client: &ctx.client, namespace: &key.namespace, now },
        scaled,
        tolerances: Tolerances {
            down: tolerance(behavior.and_then(|behavior| behavior.scale_down.as_ref())),
            up: tolerance(behavior.and_then(|behavior| behavior.scale_up.as_ref())),
        },
        pods: pods.map(|list| list.items).map_err(|error| {
            format!("unable to get pods while calculating replica count: {}", message(&error))
        }),
        now,
    };
    let specs = scaler.spec.metrics.as_deref().unwrap_or_default();
    let (mut asked, mut failures, mut warnings) = (Vec::new(), Vec::new(), Vec::new());
    for spec in specs {
        match look.ask(spec).await {
            Ok(found) => asked.push(found),
            Err((kind, cause)) => {
                let reason = reason_of(&spec.type_);
                warnings.push((reason, cause.clone()));
                failures.push((reason, kind, cause));
            }
        }
    }
    Evaluated { outcome: choose(asked, failures, specs.len(), scaled.wanted), warnings }
}

/// The largest wish; but where one is not known, the others cannot make it smaller.
fn choose(
    asked: Vec<Asked>,
    failures: Vec<(&'static str, String, String)>,
    count: usize,
    current: i32,
) -> Result<Evaluation, (&'static str, String, String)> {
    let (mut replicas, mut metric, mut statuses) = (0, String::new(), Vec::new());
    for one in asked {
        if statuses.is_empty() || one.replicas > replicas {
            (replicas, metric) = (one.replicas, one.name);
        }
        statuses.push(one.status);
    }
    let failed = failures.len();
    match failures.into_iter().next() {
        Some((reason, kind, cause)) if statuses.is_empty() || replicas < current => {
            let told = format!("the HPA was unable to compute the replica count: {cause}");
            let event = format!(
                "invalid metrics ({failed} invalid out of {count}), first error is: failed to get {kind} metric value: {cause}"
            );
            Err((reason, told, event))
        }
        _ => Ok(Evaluation { replicas, metric, statuses }),
    }
}

fn reason_of(kind: &str) -> &'static str {
    match kind {
        "Object" => "FailedGetObjectMetric",
        "Pods" => "FailedGetPodsMetric",
        "Resource" => "FailedGetResourceMetric",
        "ContainerResource" => "FailedGetContainerResourceMetric",
        "External" => "FailedGetExternalMetric",
        _ => "InvalidMetricSourceType",
    }
}

/// What kind of metric failed, in upstream's words, and why.
type Failure = (String, String);

impl Look<'_> {
    async fn ask(&self, spec: &MetricSpec) -> Result<Asked, Failure> {
        let named = |kind: &str| {
            let kind = kind.to_owned();
            move |cause: String| (kind, cause)
        };
        if let Some(source) = &spec.resource {
            let (proposal, name) = self
                .resource(&source.name, None, &source.target)
                .await
                .map_err(named(&format!("{} resource", source.name)))?;
            let current = value_status(proposal.usage);
            let resource = Some(ResourceMetricStatus { name: source.name.clone(), current });
            let status = MetricStatus { resource, ..status_of(spec) };
            return Ok(Asked { replicas: proposal.replicas, name, status });
        }
        if let Some(source) = &spec.container_resource {
            let (proposal, name) = self
                .resource(&source.name, Some(&source.container), &source.target)
                .await
                .map_err(named(&format!("{} container", source.name)))?;
            let container_resource = Some(ContainerResourceMetricStatus {
                name: source.name.clone(),
                container: source.container.clone(),
                current: value_status(proposal.usage),
            });
            let status = MetricStatus { container_resource, ..status_of(spec) };
            return Ok(Asked { replicas: proposal.replicas, name, status });
        }
        if let Some(source) = &spec.pods {
            return self.pods_metric(spec, source).await.map_err(named("pods"));
        }
        if let Some(source) = &spec.object {
            return self.object(spec, source).await.map_err(named("object"));
        }
        if let Some(source) = &spec.external {
            let kind = format!("{} external", source.metric.name);
            return self.external(spec, source).await.map_err(named(&kind));
        }
        let kind = &spec.type_;
        Err((kind.clone(), format!("unknown metric source type \"{kind}\"")))
    }

    fn pods(&self) -> Result<(&[Pod], Vec<PodState>), String> {
        let pods = self.pods.as_deref().map_err(Clone::clone)?;
        Ok((pods, pods.iter().map(state).collect()))
    }

    async fn resource(
        &self,
        resource: &str,
        container: Option<&str>,
        target: &MetricTarget,
    ) -> Result<(Proposal, String), String> {
        let (what, average) = (resource, milli(target.average_value.as_ref()));
        let failed = |cause: String| {
            let measure = if average.is_some() { "usage" } else { "utilization" };
            format!("failed to get {what} {measure}: {cause}")
        };
        let samples = self.metrics.resource(resource, container, &self.scaled.selector).await;
        let samples = samples.map_err(failed)?;
        let (pods, states) = self.pods().map_err(failed)?;
        let requests;
        let (target, name) = match (average, target.average_utilization) {
            (Some(milli_value), _) => {
                (Target::Average { milli_value }, format!("{resource} resource"))
            }
            (None, Some(percent)) => {
                requests = all_requests(pods, resource, container).map_err(failed)?;
                let part = if container.is_some() { "container resource" } else { "resource" };
                let name = format!("{resource} {part} utilization (percentage of request)");
                (Target::Utilization { percent, requests: &requests }, name)
            }
            (None, None) => {
                return Err("invalid resource metric source: neither an average utilization target nor an average value (usage) target was set".to_owned());
            }
        };
        let (current, is_cpu) = (self.scaled.wanted, resource == "cpu");
        let found = by_pods(&states, samples, target, current, is_cpu, self.tolerances, self.now);
        Ok((found.map_err(failed)?, name))
    }

    async fn pods_metric(
        &self,
        spec: &MetricSpec,
        source: &PodsMetricSource,
    ) -> Result<Asked, String> {
        let metric = &source.metric.name;
        let selector = selector_text(source.metric.selector.as_ref())?;
        let samples = self.metrics.pods(metric, &selector, &self.scaled.selector).await?;
        let (_, states) = self.pods()?;
        let target = milli(source.target.average_value.as_ref()).unwrap_or_default();
        let target = Target::Average { milli_value: target };
        let current = self.scaled.wanted;
        let found = by_pods(&states, samples, target, current, false, self.tolerances, self.now)?;
        let pods = PodsMetricStatus {
            metric: source.metric.clone(),
            current: average_status(found.usage.milli_average),
        };
        let status = MetricStatus { pods: Some(pods), ..status_of(spec) };
        Ok(Asked { replicas: found.replicas, name: format!("pods metric {metric}"), status })
    }

    async fn object(
        &self,
        spec: &MetricSpec,
        source: &ObjectMetricSource,
    ) -> Result<Asked, String> {
        let metric = &source.metric.name;
        let kind = kind_of(self.ctx, &source.described_object).await?;
        let selector = selector_text(source.metric.selector.as_ref())?;
        let name = &source.described_object.name;
        let value = self.metrics.object(metric, &selector, &kind, name).await?;
        let (replicas, current) = self.shared(value, &source.target)?;
        let object = ObjectMetricStatus {
            metric: source.metric.clone(),
            described_object: source.described_object.clone(),
            current,
        };
        let status = MetricStatus { object: Some(object), ..status_of(spec) };
        Ok(Asked { replicas, name: format!("{} metric {metric}", kind.kind), status })
    }

    async fn external(
        &self,
        spec: &MetricSpec,
        source: &ExternalMetricSource,
    ) -> Result<Asked, String> {
        let MetricIdentifier { name: metric, selector } = &source.metric;
        let selector = selector_text(selector.as_ref())?;
        let value = self.metrics.external(metric, &selector).await;
        let value =
            value.map_err(|cause| format!("failed to get {metric} external metric: {cause}"))?;
        let (replicas, current) = self.shared(value, &source.target)?;
        let external = ExternalMetricStatus { metric: source.metric.clone(), current };
        let status = MetricStatus { external: Some(external), ..status_of(spec) };
        Ok(Asked { replicas, name: format!("external metric {metric}({selector})"), status })
    }

    /// What a value asks for that all pods share.
    fn shared(
        &self,
        value: i64,
        target: &MetricTarget,
    ) -> Result<(i32, MetricValueStatus), String> {
        let current = self.scaled.wanted;
        if let Some(average) = milli(target.average_value.as_ref()) {
            let has = self.scaled.has;
            let replicas = by_average(value, average, has, self.tolerances);
            return Ok((replicas, average_status(value / i64::from(has.max(1)))));
        }
        let Some(wanted) = milli(target.value.as_ref()) else {
            return Err(
                "invalid metric source: neither a value target nor an average value target was set"
                    .to_owned(),
            );
        };
        let ready = if current == 0 { 0 } else { ready_count(&self.pods()?.1)? };
        let replicas = by_value(value, wanted, current, ready, self.tolerances);
        Ok((
            replicas,
            MetricValueStatus { value: Some(written(value)), ..MetricValueStatus::default() },
        ))
    }
}

fn state(pod: &Pod) -> PodState {
    let status = pod.status.as_ref();
    let conditions = status.and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    let ready = conditions.iter().find(|condition| condition.type_ == "Ready");
    PodState {
        name: pod.name_any(),
        is_going: pod.metadata.deletion_timestamp.is_some(),
        phase: status.and_then(|status| status.phase.clone()).unwrap_or_default(),
        started: status.and_then(|status| status.start_time.as_ref()).map(|time| time.0),
        ready: ready.map(|ready| {
            let since = ready.last_transition_time.as_ref().map(|time| time.0);
            (ready.status == "True", since.unwrap_or(Timestamp::UNIX_EPOCH))
        }),
    }
}

/// What each pod requests, in one container or in all.
fn all_requests(
    pods: &[Pod],
    resource: &str,
    container: Option<&str>,
) -> Result<BTreeMap<String, i64>, String> {
    let mut requests = BTreeMap::new();
    for pod in pods {
        let name = pod.name_any();
        let Some(spec) = &pod.spec else { continue };
        let request = pod_request(spec, resource, container).map_err(|container| {
            format!("missing request for {resource} in container {container} of Pod {name}")
        })?;
        requests.insert(name, request);
    }
    Ok(requests)
}

/// What the pod requests; the container that requests nothing is the error.
fn pod_request(spec: &PodSpec, resource: &str, only: Option<&str>) -> Result<i64, String> {
    let whole = spec.resources.as_ref().and_then(|resources| resources.requests.as_ref());
    let whole = whole.and_then(|requests| milli(requests.get(resource)));
    if let Some(whole) = whole.filter(|_| only.is_none()) {
        return Ok(whole);
    }
    let sidecars = spec.init_containers.iter().flatten();
    let sidecars =
        sidecars.filter(|container| container.restart_policy.as_deref() == Some("Always"));
    let mut sum = 0_i64;
    for container in spec.containers.iter().chain(sidecars) {
        if only.is_some_and(|only| only != container.name) {
            continue;
        }
        let requests =
            container.resources.as_ref().and_then(|resources| resources.requests.as_ref());
        let request = requests.and_then(|requests| milli(requests.get(resource)));
        sum = sum.saturating_add(request.ok_or_else(|| container.name.clone())?);
    }
    Ok(sum)
}

fn milli(quantity: Option<&Written>) -> Option<i64> {
    let quantity: Quantity = quantity?.0.parse().ok()?;
    Some(quantity.milli_value())
}

fn written(milli: i64) -> Written {
    Written(match milli % 1000 {
        0 => (milli / 1000).to_string(),
        _ => format!("{milli}m"),
    })
}

fn status_of(spec: &MetricSpec) -> MetricStatus {
    MetricStatus { type_: spec.type_.clone(), ..MetricStatus::default() }
}

fn average_status(milli: i64) -> MetricValueStatus {
    MetricValueStatus { average_value: Some(written(milli)), ..MetricValueStatus::default() }
}

fn value_status(usage: Usage) -> MetricValueStatus {
    MetricValueStatus {
        average_utilization: usage.utilization,
        ..average_status(usage.milli_average)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn asked(replicas: i32) -> Asked {
        Asked { replicas, name: format!("metric {replicas}"), status: MetricStatus::default() }
    }

    #[test]
    fn the_largest_wish_counts() {
        let check = |wishes: &[i32], failures: usize, expected: Option<(i32, &str)>| {
            let asked = wishes.iter().map(|&replicas| asked(replicas)).collect();
            let failure = || ("FailedGetPodsMetric", "pods".to_owned(), "no".to_owned());
            let failures = std::iter::repeat_with(failure).take(failures).collect();
            let found = choose(asked, failures, 3, 4).ok();
            let found = found.as_ref().map(|found| (found.replicas, found.metric.as_str()));
            assert_eq!(found, expected, "{wishes:?}");
        };
        check(&[3, 7, 5], 0, Some((7, "metric 7")));
        check(&[3], 0, Some((3, "metric 3")));
        // It may grow by those that are known, but not shrink.
        check(&[7], 1, Some((7, "metric 7")));
        check(&[3], 1, None);
        check(&[], 1, None);
    }

    #[test]
    fn requests_are_summed_up() {
        let check = |only: Option<&str>, changes: Value, expected: Result<i64, &str>| {
            let container = |name: &str, cpu: &str| json!({ "name": name, "resources": { "requests": { "cpu": cpu } } });
            let mut sidecar = container("s", "50m");
            sidecar["restartPolicy"] = json!("Always");
            let mut spec = json!({
                "containers": [container("a", "100m"), container("b", "1")],
                "initContainers": [container("i", "5"), sidecar],
            });
            json_patch::merge(&mut spec, &changes);
            let spec: PodSpec = serde_json::from_value(spec).unwrap();
            assert_eq!(pod_request(&spec, "cpu", only), expected.map_err(ToOwned::to_owned));
        };
        check(None, json!({}), Ok(1150));
        check(Some("b"), json!({}), Ok(1000));
        check(None, json!({ "resources": { "requests": { "cpu": "2" } } }), Ok(2000));
        check(None, json!({ "containers": [{ "name": "a" }] }), Err("a"));
    }
}
