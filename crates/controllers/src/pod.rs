//! What the controllers keep of a pod.

use k8s_openapi::api::core::v1::{self as api, Toleration};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use kube_derive::Resource;
use serde::{Deserialize, Deserializer};

/// A pod with the fields that controllers ask for, under the API's names for them. The others are passed over while it
/// is read: a cluster has many pods, and a whole one takes 20 KiB in memory.
#[derive(Debug, Clone, PartialEq, Deserialize, Resource)]
#[resource(inherit = "api::Pod")]
pub(crate) struct Pod {
    pub metadata: ObjectMeta,
    #[serde(default)]
    pub spec: PodSpec,
    #[serde(default)]
    pub status: PodStatus,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct PodSpec {
    pub node_name: Option<String>,
    pub hostname: Option<String>,
    pub subdomain: Option<String>,
    pub containers: Box<[Container]>,
    pub init_containers: Box<[Container]>,
    pub tolerations: Box<[Toleration]>,
    /// Only those that are claims: most pods have others, and none of these.
    #[serde(deserialize_with = "only_claims")]
    pub volumes: Box<[Volume]>,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Volume {
    pub name: String,
    pub persistent_volume_claim: Option<ClaimSource>,
    pub ephemeral: Option<Box<Ephemeral>>,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct ClaimSource {
    pub claim_name: String,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Ephemeral {
    pub volume_claim_template: Option<api::PersistentVolumeClaimTemplate>,
}

fn only_claims<'de, D: Deserializer<'de>>(from: D) -> Result<Box<[Volume]>, D::Error> {
    let mut volumes = Option::<Vec<Volume>>::deserialize(from)?.unwrap_or_default();
    volumes.retain(|volume| volume.persistent_volume_claim.is_some() || volume.ephemeral.is_some());
    Ok(volumes.into())
}

/// The names of the claims that the pod uses; a volume of its own has a claim that is named after both.
pub(crate) fn claim_names(pod: &Pod) -> impl Iterator<Item = String> {
    pod.spec.volumes.iter().map(|volume| match &volume.persistent_volume_claim {
        Some(source) => source.claim_name.clone(),
        None => ephemeral_claim_name(pod, volume),
    })
}

/// The name of the claim that is made for one volume of a pod.
pub(crate) fn ephemeral_claim_name(pod: &Pod, volume: &Volume) -> String {
    format!("{}-{}", pod.metadata.name.as_deref().unwrap_or_default(), volume.name)
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Container {
    pub restart_policy: Option<String>,
    pub ports: Box<[Port]>,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Port {
    pub name: Option<String>,
    pub protocol: Option<String>,
    pub container_port: i32,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct PodStatus {
    pub phase: Option<String>,
    #[serde(rename = "podIP")]
    pub pod_ip: Option<String>,
    pub conditions: Box<[Condition]>,
    pub container_statuses: Box<[ContainerStatus]>,
    pub init_container_statuses: Box<[ContainerStatus]>,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Condition {
    #[serde(rename = "type")]
    pub type_: String,
    pub status: String,
    pub last_transition_time: Option<Time>,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct ContainerStatus {
    pub name: Option<Box<str>>,
    pub restart_count: i32,
    pub state: Option<ContainerState>,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(crate) struct ContainerState {
    pub terminated: Option<Terminated>,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Terminated {
    pub exit_code: i32,
    pub finished_at: Option<Time>,
}
