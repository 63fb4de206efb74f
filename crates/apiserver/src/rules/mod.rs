//! What each kind defaults, checks and protects: one file a kind, or a small family of kinds.
//!
//! Start reading at [`for_kind`]. Every function sees the whole object as JSON, decoded by schema: types are right, unknown
//! fields are gone, nulls too. As in Go's types, an absent field and an empty one mean the same unless a rule says otherwise.
//! `metadata` is the same for all kinds and is checked by [`metadata`].

use coracle_api::kinds::Kind;
use coracle_api::status::FieldErrors;
use serde_json::Value;

mod admission_policy;
mod autoscaler;
pub(crate) mod certificate;
pub(crate) mod checks;
mod claim;
mod config;
mod cronjob;
mod csi;
mod daemonset;
mod deployment;
mod device;
mod endpoints;
pub(crate) mod event;
mod extension;
mod flowcontrol;
mod generic;
mod job;
pub(crate) mod json;
mod lease;
mod limitrange;
pub mod metadata;
mod migration;
mod namespace;
mod networking;
mod node;
mod pod;
mod pod_certificate;
mod policy;
mod quantities;
mod quota;
mod rbac;
mod replicaset;
mod replicationcontroller;
mod revision;
mod runtimeclass;
mod service;
pub(crate) mod service_cidr;
mod statefulset;
mod storage;
mod trust_bundle;
mod volume;
pub(crate) mod webhook;
mod workload;

#[cfg(test)]
mod tests;

/// The rules of one kind. Every function sees the whole object, decoded and with known fields only.
pub struct Rules {
    /// Fills in what the user left out.
    pub default: fn(&mut Value),
    /// Clears what a creator may not set (status), and fills in what only the server knows; `metadata.uid` is set before.
    pub prepare_create: fn(&mut Value),
    /// Takes over from the old state what an update of the main resource may not change.
    pub prepare_update: fn(new: &mut Value, old: &Value),
    /// Takes over from the old state what an update of `status` may not change: all but status.
    pub prepare_status_update: fn(new: &mut Value, old: &Value),
    /// Checks an object, metadata apart. A new one has no `metadata.resourceVersion` yet, a changed one has the old.
    pub validate: fn(&Value, &mut FieldErrors),
    /// Checks a new state against the old one: immutable fields and transitions; `validate` runs as well.
    pub validate_update: fn(new: &Value, old: &Value, &mut FieldErrors),
    /// Checks a write of `status`.
    pub validate_status_update: fn(new: &Value, old: &Value, &mut FieldErrors),
    /// Checks what a subresource other than `status` wrote; `validate` runs as well.
    pub validate_part: fn(part: &str, new: &Value, old: &Value, &mut FieldErrors),
    /// Field selectors beyond `metadata.name` and `metadata.namespace`: every field the kind supports, empty ones too.
    pub fields: fn(&Value) -> Vec<(&'static str, String)>,
}

impl Rules {
    /// The rules of a kind of which nothing special is known: `status` is kept apart from the rest.
    pub const GENERIC: Rules = Rules {
        default: |_| (),
        prepare_create: generic::drop_status,
        prepare_update: generic::keep_status,
        prepare_status_update: generic::take_status,
        validate: |_, _| (),
        validate_update: |_, _, _| (),
        validate_status_update: |_, _, _| (),
        validate_part: |_, _, _, _| (),
        fields: |_| Vec::new(),
    };
}

static GENERIC: Rules = Rules::GENERIC;

/// The rules of a kind; kinds without their own get [`Rules::GENERIC`].
pub fn for_kind(kind: &Kind) -> &'static Rules {
    match kind.group {
        "" => core(kind.kind),
        "apps" => apps(kind.kind),
        _ => others(kind.group, kind.kind),
    }
}

fn core(kind: &str) -> &'static Rules {
    match kind {
        "Pod" => &pod::RULES,
        "PodTemplate" => &pod::TEMPLATE_RULES,
        "ReplicationController" => &replicationcontroller::RULES,
        "Service" => &service::RULES,
        "Endpoints" => &endpoints::ENDPOINTS,
        "ConfigMap" => &config::CONFIG_MAP,
        "Secret" => &config::SECRET,
        "Namespace" => &namespace::RULES,
        "Node" => &node::RULES,
        "PersistentVolume" => &volume::RULES,
        "PersistentVolumeClaim" => &claim::RULES,
        "LimitRange" => &limitrange::RULES,
        "ResourceQuota" => &quota::RULES,
        "Event" => &event::RULES,
        _ => &GENERIC,
    }
}

fn apps(kind: &str) -> &'static Rules {
    match kind {
        "Deployment" => &deployment::RULES,
        "ReplicaSet" => &replicaset::RULES,
        "StatefulSet" => &statefulset::RULES,
        "DaemonSet" => &daemonset::RULES,
        "ControllerRevision" => &revision::RULES,
        _ => &GENERIC,
    }
}

fn others(group: &str, kind: &str) -> &'static Rules {
    match (group, kind) {
        ("batch", "Job") => &job::RULES,
        ("batch", "CronJob") => &cronjob::RULES,
        ("autoscaling", "HorizontalPodAutoscaler") => &autoscaler::RULES,
        ("discovery.k8s.io", "EndpointSlice") => &endpoints::SLICE,
        ("events.k8s.io", "Event") => &event::RULES,
        ("coordination.k8s.io", "Lease") => &lease::RULES,
        ("node.k8s.io", "RuntimeClass") => &runtimeclass::RULES,
        ("networking.k8s.io", "NetworkPolicy") => &networking::NETWORK_POLICY,
        ("networking.k8s.io", "Ingress") => &networking::INGRESS,
        ("networking.k8s.io", "IngressClass") => &networking::INGRESS_CLASS,
        ("networking.k8s.io", "IPAddress") => &service_cidr::ADDRESS,
        ("networking.k8s.io", "ServiceCIDR") => &service_cidr::CIDR,
        ("rbac.authorization.k8s.io", "Role") => &rbac::ROLE,
        ("rbac.authorization.k8s.io", "ClusterRole") => &rbac::CLUSTER_ROLE,
        ("rbac.authorization.k8s.io", "RoleBinding") => &rbac::ROLE_BINDING,
        ("rbac.authorization.k8s.io", "ClusterRoleBinding") => &rbac::CLUSTER_ROLE_BINDING,
        ("storage.k8s.io", "StorageClass") => &storage::CLASS,
        ("storage.k8s.io", "VolumeAttributesClass") => &storage::ATTRIBUTES_CLASS,
        ("storage.k8s.io", "CSIDriver") => &csi::DRIVER,
        ("storage.k8s.io", "CSINode") => &csi::NODE,
        ("storage.k8s.io", "CSIStorageCapacity") => &csi::CAPACITY,
        ("storage.k8s.io", "VolumeAttachment") => &csi::ATTACHMENT,
        ("resource.k8s.io", "ResourceClaim") => &device::CLAIM,
        ("resource.k8s.io", "ResourceClaimTemplate") => &device::CLAIM_TEMPLATE,
        ("resource.k8s.io", "DeviceClass") => &device::CLASS,
        ("resource.k8s.io", "ResourceSlice") => &device::SLICE,
        ("resource.k8s.io", "DeviceTaintRule") => &device::TAINT_RULE,
        ("storagemigration.k8s.io", "StorageVersionMigration") => &migration::RULES,
        ("policy", "PodDisruptionBudget") => &policy::DISRUPTION_BUDGET,
        ("scheduling.k8s.io", "PriorityClass") => &policy::PRIORITY_CLASS,
        ("admissionregistration.k8s.io", "ValidatingWebhookConfiguration") => &webhook::VALIDATING,
        ("admissionregistration.k8s.io", "MutatingWebhookConfiguration") => &webhook::MUTATING,
        ("admissionregistration.k8s.io", "ValidatingAdmissionPolicy") => {
            &admission_policy::VALIDATING
        }
        ("admissionregistration.k8s.io", "MutatingAdmissionPolicy") => &admission_policy::MUTATING,
        (
            "admissionregistration.k8s.io",
            "ValidatingAdmissionPolicyBinding" | "MutatingAdmissionPolicyBinding",
        ) => &admission_policy::BINDING,
        ("apiextensions.k8s.io", "CustomResourceDefinition") => &extension::DEFINITION,
        ("apiregistration.k8s.io", "APIService") => &extension::API_SERVICE,
        ("flowcontrol.apiserver.k8s.io", "FlowSchema") => &flowcontrol::SCHEMA,
        ("flowcontrol.apiserver.k8s.io", "PriorityLevelConfiguration") => {
            &flowcontrol::PRIORITY_LEVEL
        }
        ("certificates.k8s.io", "CertificateSigningRequest") => &certificate::RULES,
        ("certificates.k8s.io", "PodCertificateRequest") => &pod_certificate::RULES,
        ("certificates.k8s.io", "ClusterTrustBundle") => &trust_bundle::RULES,
        _ => &GENERIC,
    }
}

/// Whether an update raises `metadata.generation`: the wanted state (all but metadata and status) changed.
///
/// Kinds for which upstream keeps no generation (`ConfigMap`, `Secret`, `Service`, …) answer no.
pub fn changes_generation(kind: &Kind, new: &Value, old: &Value) -> bool {
    has_generation(kind) && generic::wanted_differs(new, old)
}

/// Whether upstream numbers the wanted states of this kind in `metadata.generation`, starting from 1.
pub fn has_generation(kind: &Kind) -> bool {
    generic::has_generation(kind.group, kind.kind)
}
