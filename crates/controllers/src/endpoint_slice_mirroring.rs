//! EndpointSlice mirroring: what people wrote into Endpoints of Services without a selector, as EndpointSlices.
//!
//! Upstream: `pkg/controller/endpointslicemirroring`. One slice for each subset and address family; its name comes from
//! both, so that a repeated creation collides instead of doubling.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use coracle_reconcile::{Next, ObjectKey, Queue, Recorder};
use k8s_openapi::api::core::v1::{EndpointAddress, EndpointSubset, Endpoints, Service};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions, EndpointPort, EndpointSlice};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Api;
use kube::api::{DeleteParams, PostParams};

use crate::api::{Attempting, Unfinished, is_namespace_terminating, is_not_found};
use crate::context::Context;
use crate::ownership::{controlled_by, controller_of};

/// Services that are worked on at once; upstream's `--mirroring-concurrent-service-endpoint-syncs`.
const WORKERS: usize = 5;
/// Upstream's `--mirroring-max-endpoints-per-subset`.
const PER_SUBSET: usize = 1000;
const SERVICE_LABEL: &str = "kubernetes.io/service-name";
const MANAGER_LABEL: &str = "endpointslice.kubernetes.io/managed-by";
const MANAGER: &str = "endpointslicemirroring-controller.k8s.io";
/// On Endpoints of which somebody else makes slices.
const SKIP_LABEL: &str = "endpointslice.kubernetes.io/skip-mirror";
/// On Endpoints that the Endpoints controller makes; their Services have slices of their own.
const ENDPOINTS_MANAGER_LABEL: &str = "endpoints.kubernetes.io/managed-by";
const LEADER_ANNOTATION: &str = "control-plane.alpha.kubernetes.io/leader";
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// Starts the controller.
pub(crate) fn start(ctx: &Arc<Context>) {
    let queue = Queue::new();
    let changed = queue.clone();
    ctx.mirrors.endpoints.on_change(move |change| {
        changed.add(ObjectKey::of(change.object().as_ref()));
    });
    let changed = queue.clone();
    ctx.mirrors.services.on_change(move |change| {
        changed.add(ObjectKey::of(change.object().as_ref()));
    });
    let changed = queue.clone();
    ctx.mirrors.endpoint_slices.on_change(move |change| {
        let slice = change.object();
        if is_ours(slice)
            && let Some(service) = label(slice, SERVICE_LABEL)
        {
            let namespace = slice.metadata.namespace.clone().unwrap_or_default();
            changed.add(ObjectKey::new(namespace, service));
        }
    });
    let shared = Arc::clone(ctx);
    let recorder = ctx.recorder("endpoint-slice-mirroring-controller");
    ctx.work(&queue, "endpointslicemirroring", WORKERS, move |key| {
        let (ctx, recorder) = (Arc::clone(&shared), recorder.clone());
        async move { reconcile(&ctx, &recorder, &key).await }
    });
}

async fn reconcile(
    ctx: &Context,
    recorder: &Recorder,
    key: &ObjectKey,
) -> Result<Next, Unfinished> {
    let mirrors = &ctx.mirrors;
    let service = mirrors.services.get(key);
    let endpoints = mirrors.endpoints.get(key);
    let there: Vec<Arc<EndpointSlice>> = mirrors.endpoint_slices.in_namespace(&key.namespace);
    let of_service = |slice: &&Arc<EndpointSlice>| label(slice, SERVICE_LABEL) == Some(&key.name);
    let there = there.iter().filter(|slice| is_ours(slice)).filter(of_service).cloned().collect();
    let steps = plan(service.as_deref(), endpoints.as_deref(), there);
    let is_changed = !steps.is_empty();
    for step in steps {
        act(ctx, &key.namespace, step).await?;
    }
    if let Some(endpoints) = endpoints.filter(|_| is_changed) {
        let skipped = skipped(&endpoints);
        if skipped > 0 {
            let told = format!(
                "A max of {PER_SUBSET} addresses can be mirrored to EndpointSlices per Endpoints subset. \
                 {skipped} addresses were skipped"
            );
            recorder.warning(endpoints.as_ref(), "TooManyAddressesToMirror", told);
        }
    }
    Ok(Next::AwaitChange)
}

async fn act(ctx: &Context, namespace: &str, step: Step) -> Result<(), Unfinished> {
    let api: Api<EndpointSlice> = ctx.api(namespace);
    let mirror = &ctx.mirrors.endpoint_slices;
    match step {
        Step::Create(slice) => match api.create(&PostParams::default(), &slice).await {
            Err(error) if is_namespace_terminating(&error) => (),
            created => mirror.observe(created.attempting(|| "create a mirrored slice".to_owned())?),
        },
        Step::Update(slice) => {
            let name = slice.metadata.name.clone().unwrap_or_default();
            let updated = api.replace(&name, &PostParams::default(), &slice).await;
            mirror.observe(updated.attempting(|| format!("update mirrored slice {name}"))?);
        }
        Step::Delete(slice) => {
            let name = slice.metadata.name.clone().unwrap_or_default();
            match api.delete(&name, &DeleteParams::default()).await {
                Err(error) if !is_not_found(&error) => {
                    return Err(error).attempting(|| format!("delete mirrored slice {name}"));
                }
                _ => mirror.observe_gone(&slice),
            }
        }
    }
    Ok(())
}

/// One write.
#[derive(Debug)]
enum Step {
    Create(Box<EndpointSlice>),
    Update(Box<EndpointSlice>),
    Delete(Arc<EndpointSlice>),
}

/// The writes that make our slices what the Endpoints say; without Endpoints to mirror there are none.
fn plan(
    service: Option<&Service>,
    endpoints: Option<&Endpoints>,
    mut there: Vec<Arc<EndpointSlice>>,
) -> Vec<Step> {
    let mut steps = Vec::new();
    if let (Some(service), Some(endpoints)) = (service, endpoints)
        && is_mirrored(service, endpoints)
    {
        for wanted in slices(endpoints) {
            match there.iter().position(|slice| slice.metadata.name == wanted.metadata.name) {
                None => steps.push(Step::Create(Box::new(wanted))),
                Some(index) => steps.extend(update(&there.swap_remove(index), wanted)),
            }
        }
    }
    steps.extend(there.into_iter().map(Step::Delete));
    steps
}

fn update(there: &EndpointSlice, mut wanted: EndpointSlice) -> Option<Step> {
    let same = there.endpoints == wanted.endpoints
        && there.ports == wanted.ports
        && there.metadata.labels == wanted.metadata.labels
        && there.metadata.annotations.clone().unwrap_or_default()
            == wanted.metadata.annotations.clone().unwrap_or_default()
        && there.metadata.owner_references == wanted.metadata.owner_references;
    wanted.metadata.resource_version.clone_from(&there.metadata.resource_version);
    (!same).then(|| Step::Update(Box::new(wanted)))
}

/// Whether people look after the Endpoints, and nobody wants them left alone.
fn is_mirrored(service: &Service, endpoints: &Endpoints) -> bool {
    let selector = service.spec.as_ref().and_then(|spec| spec.selector.as_ref());
    let labels = endpoints.metadata.labels.as_ref();
    let has = |key: &str| labels.is_some_and(|labels| labels.contains_key(key));
    let skipped =
        labels.and_then(|labels| labels.get(SKIP_LABEL)).is_some_and(|skip| skip == "true");
    let annotations = endpoints.metadata.annotations.as_ref();
    let elects = annotations.is_some_and(|annotations| annotations.contains_key(LEADER_ANNOTATION));
    selector.is_none_or(BTreeMap::is_empty)
        && !skipped
        && !elects
        && !has(ENDPOINTS_MANAGER_LABEL)
        && controller_of(&endpoints.metadata).is_none()
        && endpoints.metadata.deletion_timestamp.is_none()
}

fn slices(endpoints: &Endpoints) -> Vec<EndpointSlice> {
    let subsets = endpoints.subsets.iter().flatten().enumerate();
    subsets
        .flat_map(|(index, subset)| {
            ["IPv4", "IPv6"].into_iter().filter_map(move |family| {
                let found = endpoints_of(subset, family);
                (!found.is_empty()).then(|| slice(endpoints, subset, index, family, found))
            })
        })
        .collect()
}

/// How many addresses are not shown.
fn skipped(endpoints: &Endpoints) -> usize {
    let subsets = endpoints.subsets.iter().flatten();
    let counts = subsets.flat_map(|subset| {
        ["IPv4", "IPv6"].map(|family| addresses_of(subset, family).skip(PER_SUBSET).count())
    });
    counts.sum()
}

fn endpoints_of(subset: &EndpointSubset, family: &str) -> Vec<Endpoint> {
    let chosen = addresses_of(subset, family).take(PER_SUBSET);
    chosen.map(|(address, ready)| endpoint(address, ready)).collect()
}

/// The addresses of one family, and whether they are ready.
fn addresses_of<'a>(
    subset: &'a EndpointSubset,
    family: &'a str,
) -> impl Iterator<Item = (&'a EndpointAddress, bool)> {
    let ready = subset.addresses.iter().flatten().map(|address| (address, true));
    let not_ready = subset.not_ready_addresses.iter().flatten().map(|address| (address, false));
    let of_family = move |address: &EndpointAddress| {
        address.ip.parse().is_ok_and(|ip: IpAddr| ip.is_ipv6() == (family == "IPv6"))
    };
    ready.chain(not_ready).filter(move |(address, _)| of_family(address))
}

fn endpoint(address: &EndpointAddress, ready: bool) -> Endpoint {
    Endpoint {
        addresses: vec![address.ip.clone()],
        conditions: Some(EndpointConditions { ready: Some(ready), ..Default::default() }),
        hostname: address.hostname.clone(),
        node_name: address.node_name.clone(),
        target_ref: address.target_ref.clone(),
        ..Endpoint::default()
    }
}

fn slice(
    endpoints: &Endpoints,
    subset: &EndpointSubset,
    index: usize,
    family: &str,
    found: Vec<Endpoint>,
) -> EndpointSlice {
    let name = endpoints.metadata.name.clone().unwrap_or_default();
    let mut labels = endpoints.metadata.labels.clone().unwrap_or_default();
    labels.insert(SERVICE_LABEL.to_owned(), name.clone());
    labels.insert(MANAGER_LABEL.to_owned(), MANAGER.to_owned());
    let mut annotations = endpoints.metadata.annotations.clone().unwrap_or_default();
    annotations.remove(LAST_APPLIED);
    let ports = subset.ports.iter().flatten().map(|port| EndpointPort {
        name: Some(port.name.clone().unwrap_or_default()),
        port: Some(port.port),
        protocol: Some(port.protocol.clone().unwrap_or_else(|| "TCP".to_owned())),
        app_protocol: port.app_protocol.clone(),
    });
    EndpointSlice {
        metadata: ObjectMeta {
            name: Some(format!("{name}-{index}-{}", family.to_lowercase())),
            namespace: endpoints.metadata.namespace.clone(),
            labels: Some(labels),
            annotations: Some(annotations),
            owner_references: Some(vec![controlled_by(endpoints)]),
            ..ObjectMeta::default()
        },
        address_type: family.to_owned(),
        ports: Some(ports.collect()),
        endpoints: Some(found),
    }
}

fn is_ours(slice: &EndpointSlice) -> bool {
    label(slice, MANAGER_LABEL).is_some_and(|manager| manager == MANAGER)
}

fn label<'a>(slice: &'a EndpointSlice, key: &str) -> Option<&'a String> {
    slice.metadata.labels.as_ref()?.get(key)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn service(selector: Value) -> Service {
        let service = json!({ "metadata": { "name": "db" }, "spec": { "selector": selector } });
        serde_json::from_value(service).unwrap()
    }

    fn endpoints(labels: Value) -> Endpoints {
        serde_json::from_value(json!({
            "metadata": { "name": "db", "namespace": "shop", "uid": "u", "labels": labels },
            "subsets": [{
                "addresses": [{ "ip": "10.1.2.3" }, { "ip": "fd00::1" }],
                "notReadyAddresses": [{ "ip": "10.1.2.4" }],
                "ports": [{ "name": "sql", "port": 5432, "protocol": "TCP" }],
            }],
        }))
        .unwrap()
    }

    fn shown(steps: &[Step]) -> Vec<String> {
        let show = |what: &str, slice: &EndpointSlice| {
            let endpoints = slice.endpoints.iter().flatten();
            let addresses: Vec<String> = endpoints.map(|it| it.addresses.join(",")).collect();
            let name = slice.metadata.name.as_deref().unwrap();
            format!("{what} {name} {}", addresses.join(" "))
        };
        steps
            .iter()
            .map(|step| match step {
                Step::Create(slice) => show("create", slice),
                Step::Update(slice) => show("update", slice),
                Step::Delete(slice) => show("delete", slice),
            })
            .collect()
    }

    #[test]
    fn each_family_of_a_subset_has_a_slice_that_follows_it() {
        let (service, mut endpoints) = (service(json!({})), endpoints(json!({})));
        let steps = plan(Some(&service), Some(&endpoints), Vec::new());
        let expected = ["create db-0-ipv4 10.1.2.3 10.1.2.4", "create db-0-ipv6 fd00::1"];
        assert_eq!(shown(&steps), expected);
        let there: Vec<Arc<EndpointSlice>> = slices(&endpoints).into_iter().map(Arc::new).collect();
        assert!(plan(Some(&service), Some(&endpoints), there.clone()).is_empty());
        let subset = &mut endpoints.subsets.as_mut().unwrap()[0];
        subset.addresses =
            Some(vec![EndpointAddress { ip: "10.9.9.9".into(), ..Default::default() }]);
        subset.not_ready_addresses = None;
        let steps = plan(Some(&service), Some(&endpoints), there.clone());
        assert_eq!(shown(&steps), ["update db-0-ipv4 10.9.9.9", "delete db-0-ipv6 fd00::1"]);
        assert_eq!(plan(Some(&service), None, there.clone()).len(), 2);
        assert_eq!(plan(None, Some(&endpoints), there).len(), 2);
    }

    #[test]
    fn endpoints_that_others_look_after_are_left_alone() {
        let check = |selector: Value, labels: Value, expected: bool| {
            let steps = plan(Some(&service(selector)), Some(&endpoints(labels)), Vec::new());
            assert_eq!(!steps.is_empty(), expected);
        };
        check(json!({}), json!({ "team": "a" }), true);
        check(json!({ "app": "db" }), json!({}), false);
        check(json!({}), json!({ "endpointslice.kubernetes.io/skip-mirror": "true" }), false);
        check(json!({}), json!({ "endpoints.kubernetes.io/managed-by": "x" }), false);
    }
}
