//! Volumes, claims and where they come from.

use serde_json::Value;

use super::Columns;
use super::cells::{AGE, NAME, age, boolean, integer, join, name, or, text};
use crate::rules::json::Read;

const DEFAULT_CLASS: [&str; 2] = [
    "storageclass.kubernetes.io/is-default-class",
    "storageclass.beta.kubernetes.io/is-default-class",
];

pub static VOLUME: Columns = Columns {
    definitions: &[
        NAME,
        text("Capacity", "capacity is the description of the persistent volume's resources and capacity."),
        text("Access Modes", "accessModes contains all ways the volume can be mounted."),
        text("Reclaim Policy", "persistentVolumeReclaimPolicy defines what happens to a persistent volume when released from its claim."),
        text("Status", "phase indicates if a volume is available, bound to a claim, or released by a claim."),
        text("Claim", "claimRef is part of a bi-directional binding between PersistentVolume and PersistentVolumeClaim."),
        text("StorageClass", "StorageClass of the pv"),
        text("VolumeAttributesClass", "VolumeAttributesClass of the pv"),
        text("Reason", "reason is a brief CamelCase string that describes any failure."),
        AGE,
        text("VolumeMode", "volumeMode defines if a volume is intended to be used with a formatted filesystem or to remain in raw block state.").wide(),
    ],
    cells: |volume, now| {
        let spec = &volume["spec"];
        let claim = &spec["claimRef"];
        let claim = if claim.is_set() { format!("{}/{}", claim["namespace"].text(), claim["name"].text()) } else { String::new() };
        vec![
            name(volume),
            or(spec["capacity"]["storage"].text(), "0"),
            access_modes(&spec["accessModes"]).into(),
            spec["persistentVolumeReclaimPolicy"].text().into(),
            phase(volume),
            claim.into(),
            spec["storageClassName"].text().into(),
            or(spec["volumeAttributesClassName"].text(), "<unset>"),
            volume["status"]["reason"].text().into(),
            age(volume, now),
            or(spec["volumeMode"].text(), "<unset>"),
        ]
    },
};

pub static CLAIM: Columns = Columns {
    definitions: &[
        NAME,
        text("Status", "phase represents the current phase of PersistentVolumeClaim."),
        text(
            "Volume",
            "volumeName is the binding reference to the PersistentVolume backing this claim.",
        ),
        text("Capacity", "capacity represents the actual resources of the underlying volume."),
        text(
            "Access Modes",
            "accessModes contains the actual access modes the volume backing the PVC has.",
        ),
        text("StorageClass", "StorageClass of the pvc"),
        text("VolumeAttributesClass", "VolumeAttributesClass of the pvc"),
        AGE,
        text("VolumeMode", "volumeMode defines what type of volume is required by the claim.")
            .wide(),
    ],
    cells: |claim, now| {
        let (spec, status) = (&claim["spec"], &claim["status"]);
        let volume = spec["volumeName"].text();
        let (capacity, modes) = if volume.is_empty() {
            (String::new(), String::new())
        } else {
            (
                or(status["capacity"]["storage"].text(), "0").text().to_owned(),
                access_modes(&status["accessModes"]),
            )
        };
        vec![
            name(claim),
            phase(claim),
            volume.into(),
            capacity.into(),
            modes.into(),
            spec["storageClassName"].text().into(),
            or(spec["volumeAttributesClassName"].text(), "<unset>"),
            age(claim, now),
            or(spec["volumeMode"].text(), "<unset>"),
        ]
    },
};

pub static CLASS: Columns = Columns {
    definitions: &[
        NAME,
        text("Provisioner", "provisioner indicates the type of the provisioner."),
        text(
            "ReclaimPolicy",
            "reclaimPolicy controls the reclaimPolicy for dynamically provisioned PersistentVolumes of this storage class.",
        ),
        text(
            "VolumeBindingMode",
            "volumeBindingMode indicates how PersistentVolumeClaims should be provisioned and bound.",
        ),
        text(
            "AllowVolumeExpansion",
            "allowVolumeExpansion shows whether the storage class allow volume expand.",
        ),
        AGE,
    ],
    cells: |class, now| {
        vec![
            name_with_default(class, &DEFAULT_CLASS),
            class["provisioner"].text().into(),
            or(class["reclaimPolicy"].text(), "Delete"),
            or(class["volumeBindingMode"].text(), "Immediate"),
            class["allowVolumeExpansion"].flag().into(),
            age(class, now),
        ]
    },
};

pub static ATTRIBUTES_CLASS: Columns = Columns {
    definitions: &[NAME, text("DriverName", "Name of the CSI driver"), AGE],
    cells: |class, now| {
        let name = name_with_default(
            class,
            &["volumeattributesclass.alpha.kubernetes.io/is-default-class"],
        );
        vec![name, class["driverName"].text().into(), age(class, now)]
    },
};

pub static ATTACHMENT: Columns = Columns {
    definitions: &[
        NAME,
        text(
            "Attacher",
            "attacher indicates the name of the volume driver that MUST handle this request.",
        ),
        text("PV", "persistentVolumeName represents the name of the persistent volume to attach."),
        text("Node", "nodeName represents the node that the volume should be attached to."),
        boolean("Attached", "attached indicates the volume is successfully attached."),
        AGE,
    ],
    cells: |attachment, now| {
        let spec = &attachment["spec"];
        vec![
            name(attachment),
            spec["attacher"].text().into(),
            spec["source"]["persistentVolumeName"].text().into(),
            spec["nodeName"].text().into(),
            attachment["status"]["attached"].flag().into(),
            age(attachment, now),
        ]
    },
};

pub static CSI_NODE: Columns = Columns {
    definitions: &[
        NAME,
        integer("Drivers", "Drivers indicates the number of CSI drivers registered on the node"),
        AGE,
    ],
    cells: |node, now| vec![name(node), node["spec"]["drivers"].size().into(), age(node, now)],
};

pub static CSI_DRIVER: Columns = Columns {
    definitions: &[
        NAME,
        boolean(
            "AttachRequired",
            "attachRequired indicates this CSI volume driver requires an attach operation.",
        ),
        boolean(
            "PodInfoOnMount",
            "podInfoOnMount indicates this CSI volume driver requires additional pod information.",
        ),
        boolean(
            "StorageCapacity",
            "storageCapacity indicates that the CSI volume driver wants pod scheduling to consider the storage capacity.",
        ),
        text(
            "TokenRequests",
            "tokenRequests indicates the CSI driver needs pods' service account tokens.",
        ),
        boolean(
            "RequiresRepublish",
            "requiresRepublish indicates the CSI driver wants NodePublishVolume being periodically called.",
        ),
        text(
            "Modes",
            "volumeLifecycleModes defines what kind of volumes this CSI volume driver supports.",
        ),
        AGE,
    ],
    cells: |driver, now| {
        let spec = &driver["spec"];
        let tokens = &spec["tokenRequests"];
        let audiences = join(tokens.items().iter().map(|request| request["audience"].text()));
        vec![
            name(driver),
            (spec["attachRequired"] != false).into(),
            spec["podInfoOnMount"].flag().into(),
            spec["storageCapacity"].flag().into(),
            if tokens.is_set() { audiences.into() } else { "<unset>".into() },
            spec["requiresRepublish"].flag().into(),
            or(&join(spec["volumeLifecycleModes"].items().iter().map(Read::text)), "<none>"),
            age(driver, now),
        ]
    },
};

pub static CSI_CAPACITY: Columns = Columns {
    definitions: &[
        NAME,
        text(
            "StorageClassName",
            "storageClassName represents the name of the StorageClass that the reported capacity applies to.",
        ),
        text(
            "Capacity",
            "capacity is the value reported by the CSI driver in its GetCapacityResponse.",
        ),
    ],
    cells: |object, _| {
        vec![
            name(object),
            object["storageClassName"].text().into(),
            or(object["capacity"].text(), "<unset>"),
        ]
    },
};

fn phase(object: &Value) -> Value {
    if object["metadata"]["deletionTimestamp"].is_set() {
        "Terminating".into()
    } else {
        object["status"]["phase"].text().into()
    }
}

/// The modes in short, always in the same order.
fn access_modes(modes: &Value) -> String {
    let short = [
        ("ReadWriteOnce", "RWO"),
        ("ReadOnlyMany", "ROX"),
        ("ReadWriteMany", "RWX"),
        ("ReadWriteOncePod", "RWOP"),
    ];
    join(
        short
            .iter()
            .filter(|(mode, _)| modes.items().iter().any(|given| given == mode))
            .map(|(_, short)| *short),
    )
}

fn name_with_default(class: &Value, annotations: &[&str]) -> Value {
    let default = annotations
        .iter()
        .any(|annotation| class["metadata"]["annotations"][*annotation] == "true");
    let name = class["metadata"]["name"].text();
    if default { format!("{name} (default)").into() } else { name.into() }
}
