//! The columns that `kubectl get` shows, for each kind.
//!
//! Start reading at [`for_kind`]. Names, types and cells are upstream's (`pkg/printers/internalversion/printers.go`); the
//! cells of all columns are always sent, and kubectl leaves out those of higher priority unless asked for `-o wide`.

use coracle_api::kinds::Kind;
use jiff::Timestamp;
use serde_json::Value;

mod apps;
mod batch;
mod cells;
mod extension;
mod network;
mod nodes;
mod pods;
mod policy;
mod storage;
#[cfg(test)]
mod tests;

use cells::{CREATED_AT, NAME};

/// One column of a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Column {
    /// The column's name in mixed case; kubectl prints it in capitals.
    pub name: &'static str,
    /// An OpenAPI type: `string`, `integer`, `boolean` or `date`.
    pub kind: &'static str,
    /// An OpenAPI format: `name` for the object's name, or empty.
    pub format: &'static str,
    /// What the column tells.
    pub description: &'static str,
    /// 0: always shown; 1: shown with `-o wide`.
    pub priority: i32,
}

/// How long ago a moment was, as people say it.
pub(crate) fn human_age(then: Timestamp, now: Timestamp) -> String {
    cells::human(cells::seconds_between(then, now))
}

/// The table of one kind.
pub struct Columns {
    /// What the columns are.
    pub definitions: &'static [Column],
    /// One row: as many cells as definitions. Ages are counted to the given moment.
    pub cells: fn(&Value, Timestamp) -> Vec<Value>,
}

/// The table of a kind; kinds without their own show their name and the time of creation.
pub fn for_kind(kind: &Kind) -> &'static Columns {
    match kind.group {
        "" => core(kind.kind),
        "apps" => match kind.kind {
            "Deployment" => &apps::DEPLOYMENT,
            "ReplicaSet" => &apps::REPLICA_SET,
            "StatefulSet" => &apps::STATEFUL_SET,
            "DaemonSet" => &apps::DAEMON_SET,
            "ControllerRevision" => &apps::CONTROLLER_REVISION,
            _ => &GENERIC,
        },
        _ => others(kind.group, kind.kind),
    }
}

fn core(kind: &str) -> &'static Columns {
    match kind {
        "Pod" => &pods::POD,
        "PodTemplate" => &pods::TEMPLATE,
        "ReplicationController" => &apps::REPLICATION_CONTROLLER,
        "Service" => &network::SERVICE,
        "Endpoints" => &network::ENDPOINTS,
        "ConfigMap" => &policy::CONFIG_MAP,
        "Secret" => &policy::SECRET,
        "ServiceAccount" => &policy::SERVICE_ACCOUNT,
        "ResourceQuota" => &policy::RESOURCE_QUOTA,
        "Namespace" => &nodes::NAMESPACE,
        "Node" => &nodes::NODE,
        "Event" => &nodes::EVENT,
        "ComponentStatus" => &nodes::COMPONENT_STATUS,
        "PersistentVolume" => &storage::VOLUME,
        "PersistentVolumeClaim" => &storage::CLAIM,
        _ => &GENERIC,
    }
}

fn others(group: &str, kind: &str) -> &'static Columns {
    match (group, kind) {
        ("batch", "Job") => &batch::JOB,
        ("batch", "CronJob") => &batch::CRON_JOB,
        ("autoscaling", "HorizontalPodAutoscaler") => &batch::AUTOSCALER,
        ("autoscaling", "Scale") => &batch::SCALE,
        ("events.k8s.io", "Event") => &nodes::EVENT,
        ("coordination.k8s.io", "Lease") => &nodes::LEASE,
        ("node.k8s.io", "RuntimeClass") => &nodes::RUNTIME_CLASS,
        ("discovery.k8s.io", "EndpointSlice") => &network::ENDPOINT_SLICE,
        ("networking.k8s.io", "Ingress") => &network::INGRESS,
        ("networking.k8s.io", "IngressClass") => &network::INGRESS_CLASS,
        ("networking.k8s.io", "NetworkPolicy") => &network::NETWORK_POLICY,
        ("networking.k8s.io", "ServiceCIDR") => &network::SERVICE_CIDR,
        ("networking.k8s.io", "IPAddress") => &network::IP_ADDRESS,
        ("rbac.authorization.k8s.io", "RoleBinding" | "ClusterRoleBinding") => {
            &policy::ROLE_BINDING
        }
        ("policy", "PodDisruptionBudget") => &policy::DISRUPTION_BUDGET,
        ("scheduling.k8s.io", "PriorityClass") => &policy::PRIORITY_CLASS,
        ("storage.k8s.io", "StorageClass") => &storage::CLASS,
        ("storage.k8s.io", "VolumeAttributesClass") => &storage::ATTRIBUTES_CLASS,
        ("storage.k8s.io", "VolumeAttachment") => &storage::ATTACHMENT,
        ("storage.k8s.io", "CSINode") => &storage::CSI_NODE,
        ("storage.k8s.io", "CSIDriver") => &storage::CSI_DRIVER,
        ("storage.k8s.io", "CSIStorageCapacity") => &storage::CSI_CAPACITY,
        ("certificates.k8s.io", "CertificateSigningRequest") => &extension::SIGNING_REQUEST,
        ("certificates.k8s.io", "ClusterTrustBundle") => &extension::TRUST_BUNDLE,
        ("apiregistration.k8s.io", "APIService") => &extension::API_SERVICE,
        (
            "admissionregistration.k8s.io",
            "ValidatingWebhookConfiguration" | "MutatingWebhookConfiguration",
        ) => &extension::WEBHOOKS,
        ("admissionregistration.k8s.io", "ValidatingAdmissionPolicy") => {
            &extension::VALIDATING_POLICY
        }
        ("admissionregistration.k8s.io", "MutatingAdmissionPolicy") => &extension::MUTATING_POLICY,
        (
            "admissionregistration.k8s.io",
            "ValidatingAdmissionPolicyBinding" | "MutatingAdmissionPolicyBinding",
        ) => &extension::POLICY_BINDING,
        ("flowcontrol.apiserver.k8s.io", "FlowSchema") => &extension::FLOW_SCHEMA,
        ("flowcontrol.apiserver.k8s.io", "PriorityLevelConfiguration") => {
            &extension::PRIORITY_LEVEL
        }
        _ => &GENERIC,
    }
}

static GENERIC: Columns = Columns {
    definitions: &[NAME, CREATED_AT],
    cells: |object, _| {
        let metadata = &object["metadata"];
        vec![metadata["name"].clone(), metadata["creationTimestamp"].clone()]
    },
};
