//! The rows of the table of kinds.

use super::{GroupVersion, Kind, Storage, Subresource};

/// What a stored kind usually bears.
const ALL_VERBS: &[&str] =
    &["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"];
/// A collection that upstream does not let anybody delete at once.
const NO_COLLECTION: &[&str] = &["create", "delete", "get", "list", "patch", "update", "watch"];
const PROXY: &[&str] = &["create", "delete", "get", "patch", "update"];
const CHANGE: &[&str] = &["get", "patch", "update"];
const CREATE: &[&str] = &["create"];
const CREATE_GET: &[&str] = &["create", "get"];
const GET: &[&str] = &["get"];
const GET_LIST: &[&str] = &["get", "list"];
const UPDATE: &[&str] = &["update"];

const CORE_V1: GroupVersion = GroupVersion { group: "", version: "v1", api_version: "v1" };
const APIREGISTRATION_V1: GroupVersion = GroupVersion {
    group: "apiregistration.k8s.io",
    version: "v1",
    api_version: "apiregistration.k8s.io/v1",
};
const APPS_V1: GroupVersion = GroupVersion { group: "apps", version: "v1", api_version: "apps/v1" };
const EVENTS_V1: GroupVersion =
    GroupVersion { group: "events.k8s.io", version: "v1", api_version: "events.k8s.io/v1" };
const AUTHENTICATION_V1: GroupVersion = GroupVersion {
    group: "authentication.k8s.io",
    version: "v1",
    api_version: "authentication.k8s.io/v1",
};
const AUTHORIZATION_V1: GroupVersion = GroupVersion {
    group: "authorization.k8s.io",
    version: "v1",
    api_version: "authorization.k8s.io/v1",
};
const AUTOSCALING_V2: GroupVersion =
    GroupVersion { group: "autoscaling", version: "v2", api_version: "autoscaling/v2" };
const AUTOSCALING_V1: GroupVersion =
    GroupVersion { group: "autoscaling", version: "v1", api_version: "autoscaling/v1" };
const BATCH_V1: GroupVersion =
    GroupVersion { group: "batch", version: "v1", api_version: "batch/v1" };
const CERTIFICATES_V1: GroupVersion = GroupVersion {
    group: "certificates.k8s.io",
    version: "v1",
    api_version: "certificates.k8s.io/v1",
};
const NETWORKING_V1: GroupVersion =
    GroupVersion { group: "networking.k8s.io", version: "v1", api_version: "networking.k8s.io/v1" };
const POLICY_V1: GroupVersion =
    GroupVersion { group: "policy", version: "v1", api_version: "policy/v1" };
const RBAC_V1: GroupVersion = GroupVersion {
    group: "rbac.authorization.k8s.io",
    version: "v1",
    api_version: "rbac.authorization.k8s.io/v1",
};
const STORAGE_V1: GroupVersion =
    GroupVersion { group: "storage.k8s.io", version: "v1", api_version: "storage.k8s.io/v1" };
const ADMISSIONREGISTRATION_V1: GroupVersion = GroupVersion {
    group: "admissionregistration.k8s.io",
    version: "v1",
    api_version: "admissionregistration.k8s.io/v1",
};
const APIEXTENSIONS_V1: GroupVersion = GroupVersion {
    group: "apiextensions.k8s.io",
    version: "v1",
    api_version: "apiextensions.k8s.io/v1",
};
const SCHEDULING_V1: GroupVersion =
    GroupVersion { group: "scheduling.k8s.io", version: "v1", api_version: "scheduling.k8s.io/v1" };
const COORDINATION_V1: GroupVersion = GroupVersion {
    group: "coordination.k8s.io",
    version: "v1",
    api_version: "coordination.k8s.io/v1",
};
const NODE_V1: GroupVersion =
    GroupVersion { group: "node.k8s.io", version: "v1", api_version: "node.k8s.io/v1" };
const DISCOVERY_V1: GroupVersion =
    GroupVersion { group: "discovery.k8s.io", version: "v1", api_version: "discovery.k8s.io/v1" };
const FLOWCONTROL_V1: GroupVersion = GroupVersion {
    group: "flowcontrol.apiserver.k8s.io",
    version: "v1",
    api_version: "flowcontrol.apiserver.k8s.io/v1",
};
const RESOURCE_V1: GroupVersion =
    GroupVersion { group: "resource.k8s.io", version: "v1", api_version: "resource.k8s.io/v1" };
const STORAGEMIGRATION_V1: GroupVersion = GroupVersion {
    group: "storagemigration.k8s.io",
    version: "v1",
    api_version: "storagemigration.k8s.io/v1",
};

/// A stored kind without subresources; a row overrides what differs.
macro_rules! cluster {
    ($group_version:ident, $kind:literal, $plural:literal, $singular:literal) => {
        Kind {
            group: $group_version.group,
            version: $group_version.version,
            api_version: $group_version.api_version,
            kind: $kind,
            list_kind: concat!($kind, "List"),
            plural: $plural,
            singular: $singular,
            short_names: &[],
            categories: &[],
            namespaced: false,
            verbs: ALL_VERBS,
            subresources: &[],
            storage: Storage::Own,
            custom: None,
        }
    };
}

macro_rules! namespaced {
    ($group_version:ident, $kind:literal, $plural:literal, $singular:literal) => {
        Kind { namespaced: true, ..cluster!($group_version, $kind, $plural, $singular) }
    };
}

macro_rules! sub {
    ($name:literal, $group_version:ident, $kind:literal, $verbs:ident) => {
        Subresource {
            name: $name,
            group: $group_version.group,
            version: $group_version.version,
            kind: $kind,
            verbs: $verbs,
        }
    };
}

macro_rules! status {
    ($group_version:ident, $kind:literal) => {
        sub!("status", $group_version, $kind, CHANGE)
    };
}

/// Every built-in kind, in the order of upstream's discovery.
#[rustfmt::skip] // A table reads by rows.
pub(super) static KINDS: &[Kind] = &[
    Kind { verbs: CREATE, storage: Storage::None, ..namespaced!(CORE_V1, "Binding", "bindings", "binding") },
    Kind {
        short_names: &["cs"], verbs: GET_LIST, storage: Storage::None,
        ..cluster!(CORE_V1, "ComponentStatus", "componentstatuses", "componentstatus")
    },
    Kind { short_names: &["cm"], ..namespaced!(CORE_V1, "ConfigMap", "configmaps", "configmap") },
    Kind { short_names: &["ep"], ..namespaced!(CORE_V1, "Endpoints", "endpoints", "endpoints") },
    Kind { short_names: &["ev"], ..namespaced!(CORE_V1, "Event", "events", "event") },
    Kind { short_names: &["limits"], ..namespaced!(CORE_V1, "LimitRange", "limitranges", "limitrange") },
    Kind {
        short_names: &["ns"], verbs: NO_COLLECTION,
        subresources: &[sub!("finalize", CORE_V1, "Namespace", UPDATE), status!(CORE_V1, "Namespace")],
        ..cluster!(CORE_V1, "Namespace", "namespaces", "namespace")
    },
    Kind {
        short_names: &["no"],
        subresources: &[sub!("proxy", CORE_V1, "NodeProxyOptions", PROXY), status!(CORE_V1, "Node")],
        ..cluster!(CORE_V1, "Node", "nodes", "node")
    },
    Kind {
        short_names: &["pvc"], subresources: &[status!(CORE_V1, "PersistentVolumeClaim")],
        ..namespaced!(CORE_V1, "PersistentVolumeClaim", "persistentvolumeclaims", "persistentvolumeclaim")
    },
    Kind {
        short_names: &["pv"], subresources: &[status!(CORE_V1, "PersistentVolume")],
        ..cluster!(CORE_V1, "PersistentVolume", "persistentvolumes", "persistentvolume")
    },
    Kind {
        short_names: &["po"], categories: &["all"],
        subresources: &[
            sub!("attach", CORE_V1, "PodAttachOptions", CREATE_GET),
            sub!("binding", CORE_V1, "Binding", CREATE),
            sub!("ephemeralcontainers", CORE_V1, "Pod", CHANGE),
            sub!("eviction", POLICY_V1, "Eviction", CREATE),
            sub!("exec", CORE_V1, "PodExecOptions", CREATE_GET),
            sub!("log", CORE_V1, "Pod", GET),
            sub!("portforward", CORE_V1, "PodPortForwardOptions", CREATE_GET),
            sub!("proxy", CORE_V1, "PodProxyOptions", PROXY),
            sub!("resize", CORE_V1, "Pod", CHANGE),
            status!(CORE_V1, "Pod"),
        ],
        ..namespaced!(CORE_V1, "Pod", "pods", "pod")
    },
    namespaced!(CORE_V1, "PodTemplate", "podtemplates", "podtemplate"),
    Kind {
        short_names: &["rc"], categories: &["all"],
        subresources: &[sub!("scale", AUTOSCALING_V1, "Scale", CHANGE), status!(CORE_V1, "ReplicationController")],
        ..namespaced!(CORE_V1, "ReplicationController", "replicationcontrollers", "replicationcontroller")
    },
    Kind {
        short_names: &["quota"], subresources: &[status!(CORE_V1, "ResourceQuota")],
        ..namespaced!(CORE_V1, "ResourceQuota", "resourcequotas", "resourcequota")
    },
    namespaced!(CORE_V1, "Secret", "secrets", "secret"),
    Kind {
        short_names: &["sa"], subresources: &[sub!("token", AUTHENTICATION_V1, "TokenRequest", CREATE)],
        ..namespaced!(CORE_V1, "ServiceAccount", "serviceaccounts", "serviceaccount")
    },
    Kind {
        short_names: &["svc"], categories: &["all"],
        subresources: &[sub!("proxy", CORE_V1, "ServiceProxyOptions", PROXY), status!(CORE_V1, "Service")],
        ..namespaced!(CORE_V1, "Service", "services", "service")
    },
    Kind {
        categories: &["api-extensions"], subresources: &[status!(APIREGISTRATION_V1, "APIService")],
        ..cluster!(APIREGISTRATION_V1, "APIService", "apiservices", "apiservice")
    },
    namespaced!(APPS_V1, "ControllerRevision", "controllerrevisions", "controllerrevision"),
    Kind {
        short_names: &["ds"], categories: &["all"], subresources: &[status!(APPS_V1, "DaemonSet")],
        ..namespaced!(APPS_V1, "DaemonSet", "daemonsets", "daemonset")
    },
    Kind {
        short_names: &["deploy"], categories: &["all"],
        subresources: &[sub!("scale", AUTOSCALING_V1, "Scale", CHANGE), status!(APPS_V1, "Deployment")],
        ..namespaced!(APPS_V1, "Deployment", "deployments", "deployment")
    },
    Kind {
        short_names: &["rs"], categories: &["all"],
        subresources: &[sub!("scale", AUTOSCALING_V1, "Scale", CHANGE), status!(APPS_V1, "ReplicaSet")],
        ..namespaced!(APPS_V1, "ReplicaSet", "replicasets", "replicaset")
    },
    Kind {
        short_names: &["sts"], categories: &["all"],
        subresources: &[sub!("scale", AUTOSCALING_V1, "Scale", CHANGE), status!(APPS_V1, "StatefulSet")],
        ..namespaced!(APPS_V1, "StatefulSet", "statefulsets", "statefulset")
    },
    Kind {
        short_names: &["ev"], storage: Storage::View { group: "", version: "v1", kind: "Event" },
        ..namespaced!(EVENTS_V1, "Event", "events", "event")
    },
    Kind {
        verbs: CREATE, storage: Storage::None,
        ..cluster!(AUTHENTICATION_V1, "SelfSubjectReview", "selfsubjectreviews", "selfsubjectreview")
    },
    Kind {
        verbs: CREATE, storage: Storage::None,
        ..cluster!(AUTHENTICATION_V1, "TokenReview", "tokenreviews", "tokenreview")
    },
    Kind {
        verbs: CREATE, storage: Storage::None,
        ..namespaced!(AUTHORIZATION_V1, "LocalSubjectAccessReview", "localsubjectaccessreviews", "localsubjectaccessreview")
    },
    Kind {
        verbs: CREATE, storage: Storage::None,
        ..cluster!(AUTHORIZATION_V1, "SelfSubjectAccessReview", "selfsubjectaccessreviews", "selfsubjectaccessreview")
    },
    Kind {
        verbs: CREATE, storage: Storage::None,
        ..cluster!(AUTHORIZATION_V1, "SelfSubjectRulesReview", "selfsubjectrulesreviews", "selfsubjectrulesreview")
    },
    Kind {
        verbs: CREATE, storage: Storage::None,
        ..cluster!(AUTHORIZATION_V1, "SubjectAccessReview", "subjectaccessreviews", "subjectaccessreview")
    },
    Kind {
        short_names: &["hpa"], categories: &["all"], subresources: &[status!(AUTOSCALING_V2, "HorizontalPodAutoscaler")],
        ..namespaced!(AUTOSCALING_V2, "HorizontalPodAutoscaler", "horizontalpodautoscalers", "horizontalpodautoscaler")
    },
    Kind {
        short_names: &["hpa"], categories: &["all"], subresources: &[status!(AUTOSCALING_V1, "HorizontalPodAutoscaler")],
        storage: Storage::View { group: "autoscaling", version: "v2", kind: "HorizontalPodAutoscaler" },
        ..namespaced!(AUTOSCALING_V1, "HorizontalPodAutoscaler", "horizontalpodautoscalers", "horizontalpodautoscaler")
    },
    Kind {
        short_names: &["cj"], categories: &["all"], subresources: &[status!(BATCH_V1, "CronJob")],
        ..namespaced!(BATCH_V1, "CronJob", "cronjobs", "cronjob")
    },
    Kind {
        categories: &["all"], subresources: &[status!(BATCH_V1, "Job")],
        ..namespaced!(BATCH_V1, "Job", "jobs", "job")
    },
    Kind {
        short_names: &["csr"],
        subresources: &[sub!("approval", CERTIFICATES_V1, "CertificateSigningRequest", CHANGE), status!(CERTIFICATES_V1, "CertificateSigningRequest")],
        ..cluster!(CERTIFICATES_V1, "CertificateSigningRequest", "certificatesigningrequests", "certificatesigningrequest")
    },
    cluster!(CERTIFICATES_V1, "ClusterTrustBundle", "clustertrustbundles", "clustertrustbundle"),
    Kind {
        subresources: &[status!(CERTIFICATES_V1, "PodCertificateRequest")],
        ..namespaced!(CERTIFICATES_V1, "PodCertificateRequest", "podcertificaterequests", "podcertificaterequest")
    },
    cluster!(NETWORKING_V1, "IngressClass", "ingressclasses", "ingressclass"),
    Kind {
        short_names: &["ing"], subresources: &[status!(NETWORKING_V1, "Ingress")],
        ..namespaced!(NETWORKING_V1, "Ingress", "ingresses", "ingress")
    },
    Kind { short_names: &["ip"], ..cluster!(NETWORKING_V1, "IPAddress", "ipaddresses", "ipaddress") },
    Kind {
        short_names: &["netpol"],
        ..namespaced!(NETWORKING_V1, "NetworkPolicy", "networkpolicies", "networkpolicy")
    },
    Kind {
        subresources: &[status!(NETWORKING_V1, "ServiceCIDR")],
        ..cluster!(NETWORKING_V1, "ServiceCIDR", "servicecidrs", "servicecidr")
    },
    Kind {
        short_names: &["pdb"], subresources: &[status!(POLICY_V1, "PodDisruptionBudget")],
        ..namespaced!(POLICY_V1, "PodDisruptionBudget", "poddisruptionbudgets", "poddisruptionbudget")
    },
    cluster!(RBAC_V1, "ClusterRoleBinding", "clusterrolebindings", "clusterrolebinding"),
    cluster!(RBAC_V1, "ClusterRole", "clusterroles", "clusterrole"),
    namespaced!(RBAC_V1, "RoleBinding", "rolebindings", "rolebinding"),
    namespaced!(RBAC_V1, "Role", "roles", "role"),
    cluster!(STORAGE_V1, "CSIDriver", "csidrivers", "csidriver"),
    cluster!(STORAGE_V1, "CSINode", "csinodes", "csinode"),
    namespaced!(STORAGE_V1, "CSIStorageCapacity", "csistoragecapacities", "csistoragecapacity"),
    Kind { short_names: &["sc"], ..cluster!(STORAGE_V1, "StorageClass", "storageclasses", "storageclass") },
    Kind {
        subresources: &[status!(STORAGE_V1, "VolumeAttachment")],
        ..cluster!(STORAGE_V1, "VolumeAttachment", "volumeattachments", "volumeattachment")
    },
    Kind {
        short_names: &["vac"],
        ..cluster!(STORAGE_V1, "VolumeAttributesClass", "volumeattributesclasses", "volumeattributesclass")
    },
    Kind {
        categories: &["api-extensions"],
        ..cluster!(ADMISSIONREGISTRATION_V1, "MutatingAdmissionPolicy", "mutatingadmissionpolicies", "mutatingadmissionpolicy")
    },
    Kind {
        categories: &["api-extensions"],
        ..cluster!(ADMISSIONREGISTRATION_V1, "MutatingAdmissionPolicyBinding", "mutatingadmissionpolicybindings", "mutatingadmissionpolicybinding")
    },
    Kind {
        categories: &["api-extensions"],
        ..cluster!(ADMISSIONREGISTRATION_V1, "MutatingWebhookConfiguration", "mutatingwebhookconfigurations", "mutatingwebhookconfiguration")
    },
    Kind {
        categories: &["api-extensions"], subresources: &[status!(ADMISSIONREGISTRATION_V1, "ValidatingAdmissionPolicy")],
        ..cluster!(ADMISSIONREGISTRATION_V1, "ValidatingAdmissionPolicy", "validatingadmissionpolicies", "validatingadmissionpolicy")
    },
    Kind {
        categories: &["api-extensions"],
        ..cluster!(ADMISSIONREGISTRATION_V1, "ValidatingAdmissionPolicyBinding", "validatingadmissionpolicybindings", "validatingadmissionpolicybinding")
    },
    Kind {
        categories: &["api-extensions"],
        ..cluster!(ADMISSIONREGISTRATION_V1, "ValidatingWebhookConfiguration", "validatingwebhookconfigurations", "validatingwebhookconfiguration")
    },
    Kind {
        short_names: &["crd", "crds"], categories: &["api-extensions"], subresources: &[status!(APIEXTENSIONS_V1, "CustomResourceDefinition")],
        ..cluster!(APIEXTENSIONS_V1, "CustomResourceDefinition", "customresourcedefinitions", "customresourcedefinition")
    },
    Kind { short_names: &["pc"], ..cluster!(SCHEDULING_V1, "PriorityClass", "priorityclasses", "priorityclass") },
    namespaced!(COORDINATION_V1, "Lease", "leases", "lease"),
    cluster!(NODE_V1, "RuntimeClass", "runtimeclasses", "runtimeclass"),
    namespaced!(DISCOVERY_V1, "EndpointSlice", "endpointslices", "endpointslice"),
    Kind {
        subresources: &[status!(FLOWCONTROL_V1, "FlowSchema")],
        ..cluster!(FLOWCONTROL_V1, "FlowSchema", "flowschemas", "flowschema")
    },
    Kind {
        subresources: &[status!(FLOWCONTROL_V1, "PriorityLevelConfiguration")],
        ..cluster!(FLOWCONTROL_V1, "PriorityLevelConfiguration", "prioritylevelconfigurations", "prioritylevelconfiguration")
    },
    cluster!(RESOURCE_V1, "DeviceClass", "deviceclasses", "deviceclass"),
    Kind {
        subresources: &[status!(RESOURCE_V1, "DeviceTaintRule")],
        ..cluster!(RESOURCE_V1, "DeviceTaintRule", "devicetaintrules", "devicetaintrule")
    },
    Kind {
        subresources: &[status!(RESOURCE_V1, "ResourceClaim")],
        ..namespaced!(RESOURCE_V1, "ResourceClaim", "resourceclaims", "resourceclaim")
    },
    namespaced!(RESOURCE_V1, "ResourceClaimTemplate", "resourceclaimtemplates", "resourceclaimtemplate"),
    cluster!(RESOURCE_V1, "ResourceSlice", "resourceslices", "resourceslice"),
    Kind {
        subresources: &[status!(STORAGEMIGRATION_V1, "StorageVersionMigration")],
        ..cluster!(STORAGEMIGRATION_V1, "StorageVersionMigration", "storageversionmigrations", "storageversionmigration")
    },
];
