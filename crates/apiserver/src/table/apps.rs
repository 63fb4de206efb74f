//! The controllers of pods.

use serde_json::Value;

use super::Columns;
use super::cells::{
    AGE, CONTAINERS, IMAGES, NAME, age, containers, integer, labels, name, selector, text,
};
use crate::rules::json::Read;

const SELECTOR: super::Column = text("Selector", "Label selector for pods.").wide();

pub static DEPLOYMENT: Columns = Columns {
    definitions: &[
        NAME,
        text("Ready", "Number of the pod with ready state"),
        text(
            "Up-to-date",
            "Total number of non-terminated pods targeted by this deployment that have the desired template spec.",
        ),
        text(
            "Available",
            "Total number of available pods (ready for at least minReadySeconds) targeted by this deployment.",
        ),
        AGE,
        CONTAINERS,
        IMAGES,
        SELECTOR,
    ],
    cells: |object, now| {
        let (spec, status) = (&object["spec"], &object["status"]);
        let [names, images] = containers(&spec["template"]);
        vec![
            name(object),
            ready_of(object),
            status["updatedReplicas"].int().into(),
            status["availableReplicas"].int().into(),
            age(object, now),
            names,
            images,
            selector(&spec["selector"]),
        ]
    },
};

pub static REPLICA_SET: Columns = Columns {
    definitions: &[
        NAME,
        integer("Desired", "Replicas is the number of desired replicas."),
        integer("Current", "Replicas is the most recently observed number of replicas."),
        integer("Ready", "The number of ready replicas for this replica set."),
        AGE,
        CONTAINERS,
        IMAGES,
        SELECTOR,
    ],
    cells: |object, now| {
        let mut row = replicas(object, now);
        row.push(selector(&object["spec"]["selector"]));
        row
    },
};

pub static REPLICATION_CONTROLLER: Columns = Columns {
    definitions: REPLICA_SET.definitions,
    cells: |object, now| {
        let mut row = replicas(object, now);
        row.push(labels(&object["spec"]["selector"]));
        row
    },
};

pub static STATEFUL_SET: Columns = Columns {
    definitions: &[
        NAME,
        text("Ready", "Number of the pod with ready state"),
        AGE,
        CONTAINERS,
        IMAGES,
    ],
    cells: |object, now| {
        let [names, images] = containers(&object["spec"]["template"]);
        vec![name(object), ready_of(object), age(object, now), names, images]
    },
};

pub static DAEMON_SET: Columns = Columns {
    definitions: &[
        NAME,
        integer("Desired", "The total number of nodes that should be running the daemon pod."),
        integer(
            "Current",
            "The number of nodes that are running at least 1 daemon pod and are supposed to run it.",
        ),
        integer(
            "Ready",
            "The number of nodes that should be running the daemon pod and have one of it ready.",
        ),
        integer("Up-to-date", "The total number of nodes that are running updated daemon pod"),
        integer(
            "Available",
            "The number of nodes that should be running the daemon pod and have one of it available.",
        ),
        text(
            "Node Selector",
            "NodeSelector is a selector which must be true for the pod to fit on a node.",
        ),
        AGE,
        CONTAINERS,
        IMAGES,
        SELECTOR,
    ],
    cells: |object, now| {
        let (spec, status) = (&object["spec"], &object["status"]);
        let [names, images] = containers(&spec["template"]);
        vec![
            name(object),
            status["desiredNumberScheduled"].int().into(),
            status["currentNumberScheduled"].int().into(),
            status["numberReady"].int().into(),
            status["updatedNumberScheduled"].int().into(),
            status["numberAvailable"].int().into(),
            labels(&spec["template"]["spec"]["nodeSelector"]),
            age(object, now),
            names,
            images,
            selector(&spec["selector"]),
        ]
    },
};

pub static CONTROLLER_REVISION: Columns = Columns {
    definitions: &[
        NAME,
        text("Controller", "Controller of the object"),
        text("Revision", "Revision indicates the revision of the state represented by Data."),
        AGE,
    ],
    cells: |object, now| {
        let owners = object["metadata"]["ownerReferences"].items();
        let controller = owners.iter().find(|owner| owner["controller"].flag()).map(|owner| {
            let kind = match owner["apiVersion"].text().split_once('/') {
                Some((group, _)) => format!("{}.{group}", owner["kind"].text()),
                None => owner["kind"].text().to_owned(),
            };
            format!("{}/{}", kind.to_lowercase(), owner["name"].text())
        });
        let controller = controller.unwrap_or_else(|| "<none>".to_owned());
        vec![name(object), controller.into(), object["revision"].int().into(), age(object, now)]
    },
};

fn ready_of(object: &Value) -> Value {
    format!("{}/{}", object["status"]["readyReplicas"].int(), object["spec"]["replicas"].int())
        .into()
}

fn replicas(object: &Value, now: jiff::Timestamp) -> Vec<Value> {
    let (spec, status) = (&object["spec"], &object["status"]);
    let [names, images] = containers(&spec["template"]);
    vec![
        name(object),
        spec["replicas"].int().into(),
        status["replicas"].int().into(),
        status["readyReplicas"].int().into(),
        age(object, now),
        names,
        images,
    ]
}
