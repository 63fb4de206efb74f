//! The cluster itself: nodes, namespaces, leases, events.

use jiff::Timestamp;
use serde_json::Value;

use super::Columns;
use super::cells::{AGE, NAME, age, name, or, since, text};
use crate::rules::json::Read;

const ADDRESSES: &str = "List of addresses reachable to the node.";

pub static NODE: Columns = Columns {
    definitions: &[
        NAME,
        text("Status", "The status of the node"),
        text("Roles", "The roles of the node"),
        AGE,
        text("Version", "Kubelet Version reported by the node."),
        text("Internal-IP", ADDRESSES).wide(),
        text("External-IP", ADDRESSES).wide(),
        text("OS-Image", "OS Image reported by the node from /etc/os-release.").wide(),
        text("Kernel-Version", "Kernel Version reported by the node from 'uname -r'.").wide(),
        text(
            "Container-Runtime",
            "ContainerRuntime Version reported by the node through runtime remote API.",
        )
        .wide(),
    ],
    cells: |node, now| {
        let info = &node["status"]["nodeInfo"];
        vec![
            name(node),
            node_status(node).into(),
            or(&roles(node), "<none>"),
            age(node, now),
            info["kubeletVersion"].text().into(),
            address(node, "InternalIP"),
            address(node, "ExternalIP"),
            or(info["osImage"].text(), "<unknown>"),
            or(info["kernelVersion"].text(), "<unknown>"),
            or(info["containerRuntimeVersion"].text(), "<unknown>"),
        ]
    },
};

pub static NAMESPACE: Columns = Columns {
    definitions: &[NAME, text("Status", "The status of the namespace"), AGE],
    cells: |object, now| {
        vec![name(object), object["status"]["phase"].text().into(), age(object, now)]
    },
};

pub static LEASE: Columns = Columns {
    definitions: &[
        NAME,
        text("Holder", "holderIdentity contains the identity of the holder of a current lease."),
        AGE,
    ],
    cells: |lease, now| {
        vec![name(lease), lease["spec"]["holderIdentity"].text().into(), age(lease, now)]
    },
};

pub static RUNTIME_CLASS: Columns = Columns {
    definitions: &[
        NAME,
        text("Handler", "handler specifies the underlying runtime and configuration."),
        AGE,
    ],
    cells: |class, now| vec![name(class), class["handler"].text().into(), age(class, now)],
};

pub static COMPONENT_STATUS: Columns = Columns {
    definitions: &[
        NAME,
        text("Status", "Status of the component conditions"),
        text("Message", "Message of the component conditions"),
        text("Error", "Error of the component conditions"),
    ],
    cells: |component, _| {
        let healthy =
            component["conditions"].items().iter().find(|condition| condition["type"] == "Healthy");
        let status = match healthy.map(|condition| condition["status"].text()) {
            Some("True") => "Healthy",
            Some(_) => "Unhealthy",
            None => "Unknown",
        };
        let field = |field: &str| healthy.map_or("", |condition| condition[field].text()).into();
        vec![name(component), status.into(), field("message"), field("error")]
    },
};

pub static EVENT: Columns = Columns {
    definitions: &[
        text(
            "Last Seen",
            "The time at which the most recent occurrence of this event was recorded.",
        ),
        text(
            "Type",
            "Type of this event (Normal, Warning), new types could be added in the future",
        ),
        text(
            "Reason",
            "This should be a short, machine understandable string that gives the reason for the transition.",
        ),
        text("Object", "The object that this event is about."),
        text("Subobject", "If referring to a piece of an object, the field path of that piece.")
            .wide(),
        text(
            "Source",
            "The component reporting this event. Should be a short machine understandable string.",
        )
        .wide(),
        text("Message", "A human-readable description of the status of this operation."),
        text("First Seen", "The time at which the event was first recorded.").wide(),
        text("Count", "The number of times this event has occurred.").wide(),
        NAME.wide(),
    ],
    cells: event,
};

fn node_status(node: &Value) -> String {
    let ready =
        node["status"]["conditions"].items().iter().find(|condition| condition["type"] == "Ready");
    let status = match ready.map(|condition| condition["status"].text()) {
        Some("True") => "Ready",
        Some(_) => "NotReady",
        None => "Unknown",
    };
    if node["spec"]["unschedulable"].flag() {
        format!("{status},SchedulingDisabled")
    } else {
        status.to_owned()
    }
}

fn roles(node: &Value) -> String {
    let role = |(key, value): (&String, &Value)| match key.strip_prefix("node-role.kubernetes.io/")
    {
        Some(role) => Some(role.to_owned()),
        None if key == "kubernetes.io/role" => Some(value.text().to_owned()),
        None => None,
    };
    let mut roles: Vec<String> = node["metadata"]["labels"]
        .entries()
        .filter_map(role)
        .filter(|role| !role.is_empty())
        .collect();
    roles.sort_unstable();
    roles.dedup();
    roles.join(",")
}

fn address(node: &Value, kind: &str) -> Value {
    let address =
        node["status"]["addresses"].items().iter().find(|address| address["type"] == kind);
    or(address.map_or("", |address| address["address"].text()), "<none>")
}

/// The two groups of events name some fields differently.
fn event(event: &Value, now: Timestamp) -> Vec<Value> {
    let field = |names: [&str; 2]| {
        let [one, other] = names;
        if event[one].is_set() { &event[one] } else { &event[other] }
    };
    let object = field(["involvedObject", "regarding"]);
    let first = field(["firstTimestamp", "deprecatedFirstTimestamp"]);
    let first = since(if first.is_set() { first } else { &event["eventTime"] }, now);
    let last = field(["lastTimestamp", "deprecatedLastTimestamp"]);
    let last = if last.is_set() { since(last, now) } else { first.clone() };
    let series = &event["series"];
    let (last, count) = if series.is_set() {
        (since(&series["lastObservedTime"], now), series["count"].int())
    } else {
        (last, field(["count", "deprecatedCount"]).int().max(1))
    };
    let kind = object["kind"].text().to_lowercase();
    let target = match object["name"].text() {
        "" => kind,
        name => format!("{kind}/{name}"),
    };
    vec![
        last.into(),
        event["type"].text().into(),
        event["reason"].text().into(),
        target.into(),
        object["fieldPath"].text().into(),
        source(event, field(["source", "deprecatedSource"])).into(),
        field(["message", "note"]).text().trim().into(),
        first.into(),
        count.into(),
        name(event),
    ]
}

fn source(event: &Value, source: &Value) -> String {
    let first = |texts: &[&Value]| {
        texts
            .iter()
            .map(|text| text.text())
            .find(|text| !text.is_empty())
            .unwrap_or_default()
            .to_owned()
    };
    let component =
        first(&[&source["component"], &event["reportingComponent"], &event["reportingController"]]);
    match first(&[&source["host"], &event["reportingInstance"]]).as_str() {
        "" => component,
        instance => format!("{component}, {instance}"),
    }
}
