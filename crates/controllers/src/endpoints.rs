//! Endpoints: the older, flat view of who stands behind a Service.
//!
//! Upstream: `pkg/controller/endpoint/endpoints_controller.go`.

use std::collections::BTreeMap;
use std::sync::Arc;

use coracle_reconcile::{Next, ObjectKey, Queue, Recorder};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    EndpointAddress, EndpointPort, EndpointSubset, Endpoints, Service,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Api;
use kube::api::{DeleteParams, PostParams};

use crate::api::{
    Attempting, Unfinished, is_already_exists, is_namespace_terminating, is_not_found,
};
use crate::context::Context;
use crate::service_pods::{
    HEADLESS_LABEL, Member, TRIGGER_ANNOTATION, Target, follow, hostname, is_headless,
    is_unmanaged, members, publishes_not_ready, target_ref,
};

/// Services that are worked on at once; upstream's `--concurrent-endpoint-syncs`.
const WORKERS: usize = 5;
/// An object holds no more addresses than this; the slices hold all. Upstream's `maxCapacity`.
const CAPACITY: usize = 1000;
/// Says that there are more.
const OVER_CAPACITY: &str = "endpoints.kubernetes.io/over-capacity";
/// Says who writes the object.
const MANAGER_LABEL: &str = "endpoints.kubernetes.io/managed-by";
const MANAGER: &str = "endpoint-controller";

/// Starts the controller.
pub(crate) fn start(ctx: &Arc<Context>) {
    let queue = Queue::new();
    follow(ctx, &queue);
    let of_endpoints = queue.clone();
    ctx.mirrors.endpoints.on_change(move |change| {
        of_endpoints.add(ObjectKey::of(change.object().as_ref()));
    });
    let recorder = ctx.recorder("endpoint-controller");
    let controller = Arc::new(Controller { ctx: Arc::clone(ctx), recorder });
    ctx.work(&queue, "endpoints", WORKERS, move |key| {
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
        let api: Api<Endpoints> = self.ctx.api(&key.namespace);
        let mirror = &self.ctx.mirrors.endpoints;
        let there = mirror.get(key);
        let Some(service) = self.ctx.mirrors.services.get(key) else {
            // Only what this controller made goes with the Service: others keep their own.
            if let Some(there) = there.filter(|there| is_ours(there)) {
                match api.delete(&key.name, &DeleteParams::default()).await {
                    Err(error) if !is_not_found(&error) => {
                        return Err(error).attempting(|| format!("delete endpoints {key}"));
                    }
                    _ => mirror.observe_gone(&there),
                }
            }
            return Ok(Next::AwaitChange);
        };
        if is_unmanaged(&service) {
            return Ok(Next::AwaitChange);
        }
        let members = members(&service, &self.ctx.mirrors.pods.in_namespace(&key.namespace));
        let Some(wanted) = plan(&service, &members, there.as_deref(), self.ctx.now()) else {
            return Ok(Next::AwaitChange);
        };
        let written = match there {
            None => api.create(&PostParams::default(), &wanted).await,
            Some(_) => api.replace(&key.name, &PostParams::default(), &wanted).await,
        };
        match written {
            Ok(written) => mirror.observe(written),
            Err(error) if is_namespace_terminating(&error) => (),
            Err(error) if is_already_exists(&error) => {
                let there = api.get(&key.name).await;
                mirror.observe(there.attempting(|| format!("get endpoints {key}"))?);
                return Err(Unfinished::Remaining(format!("endpoints {key} are there")));
            }
            Err(error) => {
                let message =
                    format!("Failed to update endpoint {key}: {}", crate::api::message(&error));
                self.recorder.warning(service.as_ref(), "FailedToUpdateEndpoint", message);
                return Err(error).attempting(|| format!("write endpoints {key}"));
            }
        }
        Ok(Next::AwaitChange)
    }
}

fn is_ours(endpoints: &Endpoints) -> bool {
    let labels = endpoints.metadata.labels.as_ref();
    labels.and_then(|labels| labels.get(MANAGER_LABEL)).is_some_and(|manager| manager == MANAGER)
}

/// The object that should be there, or `None` when it is.
fn plan(
    service: &Service,
    members: &[Member],
    there: Option<&Endpoints>,
    now: Timestamp,
) -> Option<Endpoints> {
    let mut labels = service.metadata.labels.clone().unwrap_or_default();
    labels.insert(MANAGER_LABEL.to_owned(), MANAGER.to_owned());
    if is_headless(service) {
        labels.insert(HEADLESS_LABEL.to_owned(), String::new());
    }
    let published = publishes_not_ready(service);
    let shown: Vec<&Member> =
        members.iter().filter(|member| published || !member.terminating).collect();
    let found = there.and_then(|there| there.metadata.annotations.clone()).unwrap_or_default();
    let mut annotations = found.clone();
    if shown.len() > CAPACITY {
        annotations.insert(OVER_CAPACITY.to_owned(), "truncated".to_owned());
    } else {
        annotations.remove(OVER_CAPACITY);
    }
    let subsets = subsets(service, &shown, published);
    let subsets = (!subsets.is_empty()).then_some(subsets);
    if let Some(there) = there
        && there.subsets.as_deref().unwrap_or_default() == subsets.as_deref().unwrap_or_default()
        && there.metadata.labels.as_ref() == Some(&labels)
        && annotations == found
    {
        return None;
    }
    let seconds = Timestamp::from_second(now.as_second()).unwrap_or(now);
    annotations.insert(TRIGGER_ANNOTATION.to_owned(), seconds.to_string());
    Some(Endpoints {
        metadata: ObjectMeta {
            name: service.metadata.name.clone(),
            namespace: service.metadata.namespace.clone(),
            labels: Some(labels),
            annotations: Some(annotations),
            resource_version: there.and_then(|there| there.metadata.resource_version.clone()),
            ..ObjectMeta::default()
        },
        subsets,
    })
}

/// Addresses with the same ports share a subset, as upstream's `RepackSubsets` packs them.
fn subsets(service: &Service, members: &[&Member], published: bool) -> Vec<EndpointSubset> {
    let mut by_ports: BTreeMap<Vec<Target>, (Vec<EndpointAddress>, Vec<EndpointAddress>)> =
        BTreeMap::new();
    let mut members: Vec<&&Member> = members.iter().collect();
    members.sort_by_key(|member| (!member.serving, member.address));
    for member in members.into_iter().take(CAPACITY) {
        let offers = service.spec.as_ref().is_some_and(|spec| spec.ports.is_some());
        // A port by a name that the pod has not leads nowhere.
        if member.targets.is_empty() && (offers || !is_headless(service)) {
            continue;
        }
        let (ready, not_ready) = by_ports.entry(member.targets.clone()).or_default();
        let side = if published || member.serving { ready } else { not_ready };
        side.push(address(service, member));
    }
    by_ports
        .into_iter()
        .map(|(targets, (ready, not_ready))| EndpointSubset {
            addresses: (!ready.is_empty()).then_some(ready),
            not_ready_addresses: (!not_ready.is_empty()).then_some(not_ready),
            ports: (!targets.is_empty()).then(|| targets.into_iter().map(port).collect()),
        })
        .collect()
}

fn address(service: &Service, member: &Member) -> EndpointAddress {
    EndpointAddress {
        ip: member.address.to_string(),
        hostname: hostname(&member.pod, service),
        node_name: member.pod.spec.node_name.clone(),
        target_ref: Some(target_ref(&member.pod)),
    }
}

fn port(target: Target) -> EndpointPort {
    EndpointPort {
        name: (!target.name.is_empty()).then_some(target.name),
        protocol: Some(target.protocol),
        port: target.port,
        app_protocol: target.app_protocol,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pod::Pod;
    use serde_json::{Value, json};

    fn service() -> Service {
        serde_json::from_value(json!({ "metadata": { "name": "web", "namespace": "shop" },
            "spec": { "selector": { "app": "web" }, "ports": [{ "port": 80 }] } }))
        .unwrap()
    }

    fn pod(number: u8, ready: &str, deleted: bool) -> Arc<Pod> {
        let mut pod = json!({
            "metadata": { "name": format!("web-{number}"), "labels": { "app": "web" } },
            "status": { "podIP": format!("127.16.0.{number}"),
                "conditions": [{ "type": "Ready", "status": ready }] },
        });
        if deleted {
            pod["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
        }
        Arc::new(serde_json::from_value(pod).unwrap())
    }

    #[test]
    fn ready_and_not_ready_pods_are_told_apart_and_leaving_ones_left_out() {
        let pods = [pod(2, "True", false), pod(3, "False", false), pod(4, "True", true)];
        let now = Timestamp::UNIX_EPOCH;
        let wanted = plan(&service(), &members(&service(), &pods), None, now).unwrap();
        let subsets: Value = serde_json::to_value(wanted.subsets.clone()).unwrap();
        assert_eq!(subsets[0]["addresses"][0]["ip"], "127.16.0.2");
        assert_eq!(subsets[0]["notReadyAddresses"][0]["ip"], "127.16.0.3");
        assert_eq!(subsets[0]["ports"], json!([{ "port": 80, "protocol": "TCP" }]));
        assert_eq!(subsets.as_array().unwrap().len(), 1);
        assert!(!subsets.to_string().contains("127.16.0.4"));
        assert!(plan(&service(), &members(&service(), &pods), Some(&wanted), now).is_none());
    }

    #[test]
    fn more_than_a_thousand_are_cut_off_and_that_is_said_while_it_is_so() {
        let address = |number: u32| format!("127.16.{}.{}", number / 250, number % 250 + 1);
        let pod = |number: u32| {
            let mut pod = Pod::clone(&pod(1, if number == 0 { "False" } else { "True" }, false));
            pod.status.pod_ip = Some(address(number));
            Arc::new(pod)
        };
        let mut pods: Vec<Arc<Pod>> = (0..=1000).map(pod).collect();
        let now = Timestamp::UNIX_EPOCH;
        let mut cut = plan(&service(), &members(&service(), &pods), None, now).unwrap();
        let subset = cut.subsets.clone().unwrap().remove(0);
        assert_eq!((subset.addresses.unwrap().len(), subset.not_ready_addresses), (1000, None));
        assert_eq!(cut.metadata.annotations.clone().unwrap()[OVER_CAPACITY], "truncated");
        cut.metadata.annotations.as_mut().unwrap().insert("mine".into(), "kept".into());
        pods.remove(0);
        let whole = plan(&service(), &members(&service(), &pods), Some(&cut), now).unwrap();
        let annotations = whole.metadata.annotations.unwrap();
        assert!(annotations.contains_key("mine") && !annotations.contains_key(OVER_CAPACITY));
    }
}
