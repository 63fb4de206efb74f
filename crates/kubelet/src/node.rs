//! This node in the API: its Node object, its Lease, and the conditions that say it is well.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::api::core::v1::{
    ContainerImage, DaemonEndpoint, Node, NodeAddress, NodeCondition, NodeDaemonEndpoints,
    NodeSpec, NodeStatus, NodeSystemInfo,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta, OwnerReference};
use kube::Api;
use kube::api::{Patch, PatchParams, PostParams};
use serde_json::{Value, json};
use tracing::{debug, info, warn};

use crate::context::Context;
use crate::machine::{self, Machine, Pressure};
use crate::node_events;
use crate::record::whole_seconds;

/// Upstream renews a node's lease at a quarter of its duration.
const RENEW_EVERY: Duration = Duration::from_secs(10);
/// Upstream's duration of a node's lease.
const LEASE_SECONDS: i32 = 40;
/// An unchanged status is written again after this time.
const REPORT_EVERY: Duration = Duration::from_secs(300);
/// The wait after a failed write.
const AGAIN: Duration = Duration::from_millis(500);
/// A node that stops does not wait longer for its last words to be heard.
const LEAVE: Duration = Duration::from_secs(5);
/// Upstream shows so many images of a node.
const IMAGES_SHOWN: usize = 50;
/// Where nodes' leases are.
const LEASES: &str = "kube-node-lease";
/// What this kubelet calls itself.
pub(crate) const VERSION: &str = "v1.37.0+coracle";

/// The node as it tells of itself.
pub(crate) struct NodeReporter {
    /// What the kubelet's parts share.
    pub(crate) ctx: Arc<Context>,
    /// The machine.
    pub(crate) machine: Machine,
    /// Labels beyond those every node has.
    pub(crate) labels: BTreeMap<String, String>,
    /// The addresses of this node's pods.
    pub(crate) pod_cidr: Option<String>,
    /// Where the kubelet's own API listens.
    pub(crate) port: u16,
}

impl NodeReporter {
    /// Registers the node, and tells of it from then on.
    pub(crate) async fn live(&self) {
        let node = self.register().await;
        node_events::tell_start(&self.ctx.recorder, &node);
        self.report(node).await;
    }

    /// Says that the node is not ready because it stops: nothing more should be sent here.
    pub(crate) async fn leave(&self) {
        let now = whole_seconds(Timestamp::now());
        // Upstream's words (pkg/kubelet/nodestatus).
        let condition = NodeCondition {
            type_: "Ready".to_owned(),
            status: "False".to_owned(),
            reason: Some("KubeletNotReady".to_owned()),
            message: Some("node is shutting down".to_owned()),
            last_heartbeat_time: Some(now.clone()),
            last_transition_time: Some(now),
        };
        let nodes: Api<Node> = Api::all(self.ctx.client.clone());
        let patch = Patch::Strategic(json!({ "status": { "conditions": [condition] } }));
        let parameters = PatchParams::default();
        let write = nodes.patch_status(&self.ctx.node_name, &parameters, &patch);
        match tokio::time::timeout(LEAVE, write).await {
            Ok(Ok(_)) => (),
            Ok(Err(error)) => warn!(node = self.ctx.node_name, %error, "node status not written"),
            Err(_) => warn!(node = self.ctx.node_name, "node status not written in time"),
        }
    }

    /// Makes the Node and its Lease exist and be current. Tries until that is so.
    async fn register(&self) -> Node {
        loop {
            match self.try_register().await {
                Ok(node) => {
                    info!(node = self.ctx.node_name, "node registered");
                    return node;
                }
                Err(error) => {
                    warn!(node = self.ctx.node_name, %error, "node not registered yet");
                    tokio::time::sleep(AGAIN).await;
                }
            }
        }
    }

    /// Renews the lease and the status by their deadlines.
    async fn report(&self, mut node: Node) {
        let mut reported_at = Timestamp::now();
        let mut wait = Duration::ZERO;
        loop {
            tokio::time::sleep(wait).await;
            wait = RENEW_EVERY;
            if let Err(error) = self.renew_lease(&node).await {
                warn!(node = self.ctx.node_name, %error, "lease not renewed");
                wait = AGAIN;
            }
            match self.look().await {
                Ok(Some(found)) => {
                    node_events::tell_schedulable(&self.ctx.recorder, &node, &found);
                    node = found;
                }
                // Somebody deleted the Node while we live: we are still here.
                Ok(None) => node = self.register().await,
                Err(error) => {
                    warn!(node = self.ctx.node_name, %error, "node not read");
                    wait = AGAIN;
                }
            }
            let now = Timestamp::now();
            let status = self.status(&node, now).await;
            let due = Duration::try_from(now.duration_since(reported_at)).unwrap_or_default()
                >= REPORT_EVERY;
            if !due && !differs(node.status.as_ref(), &status) {
                continue;
            }
            match self.write_status(&node, &status).await {
                Ok(written) => {
                    node_events::tell_conditions(&self.ctx.recorder, &node, &status);
                    node = written;
                    reported_at = now;
                }
                Err(kube::Error::Api(answer)) if answer.code == 404 => {
                    // Somebody deleted the Node while we live: we are still here.
                    node = self.register().await;
                }
                Err(error) => {
                    warn!(node = self.ctx.node_name, %error, "node status not written");
                    wait = AGAIN;
                }
            }
        }
    }

    /// The Node as others left it: who did not hear of us for a while may have written that nothing is known of us.
    async fn look(&self) -> kube::Result<Option<Node>> {
        let nodes: Api<Node> = Api::all(self.ctx.client.clone());
        nodes.get_opt(&self.ctx.node_name).await
    }

    async fn try_register(&self) -> kube::Result<Node> {
        let nodes: Api<Node> = Api::all(self.ctx.client.clone());
        let labels = self.all_labels();
        let fresh = Node {
            metadata: ObjectMeta {
                name: Some(self.ctx.node_name.clone()),
                labels: Some(labels.clone()),
                ..ObjectMeta::default()
            },
            spec: Some(NodeSpec {
                pod_cidr: self.pod_cidr.clone(),
                pod_cidrs: self.pod_cidr.clone().map(|cidr| vec![cidr]),
                ..NodeSpec::default()
            }),
            status: None,
        };
        let found = match nodes.get_opt(&self.ctx.node_name).await? {
            Some(node) => node,
            None => nodes.create(&PostParams::default(), &fresh).await?,
        };
        let known = found.metadata.labels.clone().unwrap_or_default();
        if labels.iter().any(|(name, value)| known.get(name) != Some(value)) {
            let patch = json!({ "metadata": { "labels": labels } });
            nodes.patch(&self.ctx.node_name, &PatchParams::default(), &Patch::Merge(patch)).await?;
        }
        let status = self.status(&found, Timestamp::now()).await;
        let node = self.write_status(&found, &status).await?;
        node_events::tell_conditions(&self.ctx.recorder, &found, &status);
        self.renew_lease(&node).await?;
        Ok(node)
    }

    async fn write_status(&self, node: &Node, status: &NodeStatus) -> kube::Result<Node> {
        let nodes: Api<Node> = Api::all(self.ctx.client.clone());
        let patch = patch_of(node.status.as_ref(), status);
        nodes
            .patch_status(&self.ctx.node_name, &PatchParams::default(), &Patch::Strategic(patch))
            .await
    }

    async fn renew_lease(&self, node: &Node) -> kube::Result<()> {
        let leases: Api<Lease> = Api::namespaced(self.ctx.client.clone(), LEASES);
        let now = MicroTime(Timestamp::now());
        let patch = json!({ "spec": {
            "holderIdentity": self.ctx.node_name, "leaseDurationSeconds": LEASE_SECONDS, "renewTime": now,
        } });
        let renewed =
            leases.patch(&self.ctx.node_name, &PatchParams::default(), &Patch::Merge(patch)).await;
        match renewed {
            Err(kube::Error::Api(answer)) if answer.code == 404 => (),
            renewed => return renewed.map(drop),
        }
        debug!(node = self.ctx.node_name, "lease made");
        let lease = Lease {
            metadata: ObjectMeta {
                name: Some(self.ctx.node_name.clone()),
                namespace: Some(LEASES.to_owned()),
                // The lease goes with its node.
                owner_references: Some(vec![OwnerReference {
                    api_version: "v1".to_owned(),
                    kind: "Node".to_owned(),
                    name: self.ctx.node_name.clone(),
                    uid: node.metadata.uid.clone().unwrap_or_default(),
                    ..OwnerReference::default()
                }]),
                ..ObjectMeta::default()
            },
            spec: Some(LeaseSpec {
                holder_identity: Some(self.ctx.node_name.clone()),
                lease_duration_seconds: Some(LEASE_SECONDS),
                renew_time: Some(now),
                ..LeaseSpec::default()
            }),
        };
        leases.create(&PostParams::default(), &lease).await.map(drop)
    }

    fn all_labels(&self) -> BTreeMap<String, String> {
        let mut labels = self.labels.clone();
        let own = [
            ("kubernetes.io/hostname", self.ctx.node_name.as_str()),
            ("kubernetes.io/os", machine::operating_system()),
            ("kubernetes.io/arch", machine::architecture()),
            ("beta.kubernetes.io/os", machine::operating_system()),
            ("beta.kubernetes.io/arch", machine::architecture()),
        ];
        labels.extend(own.map(|(name, value)| (name.to_owned(), value.to_owned())));
        labels
    }

    async fn status(&self, node: &Node, now: Timestamp) -> NodeStatus {
        let known = node
            .status
            .as_ref()
            .and_then(|status| status.conditions.as_deref())
            .unwrap_or_default();
        let pressure = Pressure::look(&self.ctx.data_dir);
        let images = self.ctx.runtime.images().await.unwrap_or_default();
        let mut images: Vec<ContainerImage> = images
            .into_iter()
            .map(|image| ContainerImage {
                names: Some(image.references),
                size_bytes: i64::try_from(image.size_bytes).ok(),
            })
            .collect();
        images.sort_by_key(|image| std::cmp::Reverse(image.size_bytes));
        images.truncate(IMAGES_SHOWN);
        let amounts = self.amounts();
        let mut allocatable = amounts.clone();
        allocatable.extend(extended(node).map(|(name, amount)| (name.clone(), amount.clone())));
        NodeStatus {
            addresses: Some(vec![
                NodeAddress {
                    type_: "InternalIP".to_owned(),
                    address: self.ctx.node_ip.to_string(),
                },
                NodeAddress { type_: "Hostname".to_owned(), address: self.ctx.node_name.clone() },
            ]),
            capacity: Some(amounts),
            allocatable: Some(allocatable),
            conditions: Some(conditions(pressure, known, now)),
            daemon_endpoints: Some(NodeDaemonEndpoints {
                kubelet_endpoint: Some(DaemonEndpoint { port: i32::from(self.port) }),
            }),
            node_info: Some(self.info()),
            images: Some(images).filter(|images| !images.is_empty()),
            ..NodeStatus::default()
        }
    }

    fn amounts(&self) -> BTreeMap<String, Quantity> {
        let has = self.ctx.allocatable;
        let disk = machine::disk(&self.ctx.data_dir).map_or(0, |disk| disk.total_bytes / 1024);
        let cpu = if has.cpu_millis.is_multiple_of(1000) {
            (has.cpu_millis / 1000).to_string()
        } else {
            format!("{}m", has.cpu_millis)
        };
        let amounts = [
            ("cpu", cpu),
            ("memory", format!("{}Ki", has.memory_bytes / 1024)),
            ("pods", has.pods.to_string()),
            ("ephemeral-storage", format!("{disk}Ki")),
        ];
        amounts.into_iter().map(|(name, amount)| (name.to_owned(), Quantity(amount))).collect()
    }

    fn info(&self) -> NodeSystemInfo {
        NodeSystemInfo {
            architecture: machine::architecture().to_owned(),
            boot_id: self.machine.boot_id.clone(),
            container_runtime_version: self.ctx.runtime.version(),
            kernel_version: self.machine.kernel.clone(),
            kube_proxy_version: String::new(),
            kubelet_version: VERSION.to_owned(),
            machine_id: self.machine.machine_id.clone(),
            operating_system: machine::operating_system().to_owned(),
            os_image: self.machine.os_image.clone(),
            system_uuid: self.machine.machine_id.clone(),
            ..NodeSystemInfo::default()
        }
    }
}

/// The resources that others advertise for the node in its capacity: what this machine knows nothing of, pods may use.
fn extended(node: &Node) -> impl Iterator<Item = (&String, &Quantity)> {
    let amounts = node.status.iter().flat_map(|status| status.capacity.iter().flatten());
    amounts.filter(|(name, _)| is_extended(name))
}

/// Upstream's `IsExtendedResourceName`: a name of somebody else's domain.
fn is_extended(name: &str) -> bool {
    name.contains('/') && !name.contains("kubernetes.io/") && !name.starts_with("requests.")
}

/// The status as a patch of what is known; what is not advertised any more is taken back.
fn patch_of(known: Option<&NodeStatus>, wanted: &NodeStatus) -> Value {
    let mut patch = json!({ "status": wanted });
    let offered = known.iter().flat_map(|status| status.allocatable.iter().flatten());
    for (name, _) in offered.filter(|(name, _)| is_extended(name)) {
        if !wanted.allocatable.as_ref().is_some_and(|amounts| amounts.contains_key(name)) {
            patch["status"]["allocatable"][name] = Value::Null;
        }
    }
    patch
}

fn conditions(pressure: Pressure, known: &[NodeCondition], now: Timestamp) -> Vec<NodeCondition> {
    let has = |bad: bool, good: &'static str, short: &'static str| if bad { short } else { good };
    let made = [
        (
            "MemoryPressure",
            pressure.memory,
            has(pressure.memory, "KubeletHasSufficientMemory", "KubeletHasInsufficientMemory"),
            has(
                pressure.memory,
                "kubelet has sufficient memory available",
                "kubelet has insufficient memory available",
            ),
        ),
        (
            "DiskPressure",
            pressure.disk,
            has(pressure.disk, "KubeletHasNoDiskPressure", "KubeletHasDiskPressure"),
            has(pressure.disk, "kubelet has no disk pressure", "kubelet has disk pressure"),
        ),
        ("PIDPressure", false, "KubeletHasSufficientPID", "kubelet has sufficient PID available"),
        ("Ready", true, "KubeletReady", "kubelet is posting ready status"),
    ];
    let condition = |(type_, status, reason, message): (&str, bool, &str, &str)| {
        let status = if status { "True" } else { "False" };
        let same = known.iter().find(|known| known.type_ == type_ && known.status == status);
        NodeCondition {
            type_: type_.to_owned(),
            status: status.to_owned(),
            reason: Some(reason.to_owned()),
            message: Some(message.to_owned()),
            last_heartbeat_time: Some(whole_seconds(now)),
            last_transition_time: same
                .and_then(|known| known.last_transition_time.clone())
                .or_else(|| Some(whole_seconds(now))),
        }
    };
    made.map(condition).into()
}

/// True when something changed that is more than the time of the look.
fn differs(known: Option<&NodeStatus>, wanted: &NodeStatus) -> bool {
    let Some(known) = known else { return true };
    let words = |status: &NodeStatus| {
        let own = ["MemoryPressure", "DiskPressure", "PIDPressure", "Ready"];
        let mut words: Vec<_> = status
            .conditions
            .iter()
            .flatten()
            .filter(|condition| own.contains(&condition.type_.as_str()))
            .map(|condition| {
                (condition.type_.clone(), condition.status.clone(), condition.reason.clone())
            })
            .collect();
        words.sort();
        words
    };
    // Others may have added resources that this machine knows nothing of.
    let has_capacity = || {
        let known = known.capacity.as_ref();
        let mut wanted = wanted.capacity.iter().flatten();
        wanted.all(|(name, amount)| known.and_then(|known| known.get(name)) == Some(amount))
    };
    let offered = |status: &NodeStatus| -> Vec<_> {
        let amounts = status.allocatable.iter().flatten();
        let amounts = amounts.filter(|(name, _)| is_extended(name));
        amounts.map(|(name, amount)| (name.clone(), amount.clone())).collect()
    };
    words(known) != words(wanted)
        || offered(known) != offered(wanted)
        || known.images != wanted.images
        || known.addresses != wanted.addresses
        || known.node_info != wanted.node_info
        || known.daemon_endpoints != wanted.daemon_endpoints
        || !has_capacity()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_700_000_000 + second).unwrap()
    }

    #[test]
    fn a_condition_keeps_the_time_of_its_last_change() {
        let calm = Pressure { memory: false, disk: false };
        let first = conditions(calm, &[], at(0));
        let again = conditions(calm, &first, at(60));
        assert!(
            again
                .iter()
                .all(|condition| condition.last_transition_time == Some(whole_seconds(at(0))))
        );
        assert!(
            again
                .iter()
                .all(|condition| condition.last_heartbeat_time == Some(whole_seconds(at(60))))
        );

        let full = conditions(Pressure { memory: false, disk: true }, &again, at(90));
        let disk = full.iter().find(|condition| condition.type_ == "DiskPressure").unwrap();
        assert_eq!(
            (disk.status.as_str(), disk.reason.as_deref()),
            ("True", Some("KubeletHasDiskPressure"))
        );
        assert_eq!(disk.last_transition_time, Some(whole_seconds(at(90))));

        let status =
            |conditions| NodeStatus { conditions: Some(conditions), ..NodeStatus::default() };
        assert!(
            !differs(Some(&status(first)), &status(again.clone())),
            "a heartbeat alone is no change"
        );
        assert!(differs(Some(&status(again)), &status(full)));
    }

    #[test]
    fn pods_may_use_what_others_advertise_for_the_node() {
        let amounts = |named: &[(&str, &str)]| {
            let named = named.iter();
            named
                .map(|(name, amount)| ((*name).to_owned(), Quantity((*amount).to_owned())))
                .collect()
        };
        let status = |capacity: &[(&str, &str)], allocatable: &[(&str, &str)]| NodeStatus {
            capacity: Some(amounts(capacity)),
            allocatable: Some(amounts(allocatable)),
            ..NodeStatus::default()
        };
        let dongles = ("example.com/dongle", "4");
        let known = status(&[("cpu", "2"), ("pods", "110"), dongles], &[("cpu", "2")]);
        let node = Node { status: Some(known.clone()), ..Node::default() };
        let names: Vec<_> = extended(&node).map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["example.com/dongle"]);
        let wanted = status(&[("cpu", "2")], &[("cpu", "2"), dongles]);
        assert!(differs(Some(&known), &wanted));
        assert!(!differs(Some(&wanted), &wanted));
        // They are taken back when nobody advertises them.
        let gone = status(&[("cpu", "2")], &[("cpu", "2")]);
        assert!(differs(Some(&wanted), &gone));
        let patch = patch_of(Some(&wanted), &gone);
        assert_eq!(patch["status"]["allocatable"], json!({"cpu": "2", "example.com/dongle": null}));
    }
}
