//! Pods and their templates.

use coracle_api::time;
use jiff::Timestamp;
use serde_json::Value;

use super::Columns;
use super::cells::{AGE, NAME, age, containers, human, labels, name, or, seconds_between, text};
use crate::rules::json::Read;

/// The reason in a pod's status when its node is gone.
const NODE_LOST: &str = "NodeLost";

pub static POD: Columns = Columns {
    definitions: &[
        NAME,
        text("Ready", "The aggregate readiness state of this pod for accepting traffic."),
        text("Status", "The aggregate status of the containers in this pod."),
        text(
            "Restarts",
            "The number of times the containers in this pod have been restarted and when the last container in this pod has restarted.",
        ),
        AGE,
        text("IP", "podIP address allocated to the pod. Routable at least within the cluster. Empty if not yet allocated.").wide(),
        text("Node", "NodeName indicates in which node this pod is scheduled.").wide(),
        text("Nominated Node", "nominatedNodeName is set only when this pod preempts other pods on the node.").wide(),
        text("Readiness Gates", "If specified, all readiness gates will be evaluated for pod readiness.").wide(),
    ],
    cells: pod,
};

pub static TEMPLATE: Columns = Columns {
    definitions: &[
        NAME,
        text("Containers", "Names of each container in the template."),
        text("Images", "Images referenced by each container in the template."),
        text("Pod Labels", "The labels for the pod template."),
    ],
    cells: |object, _| {
        let [names, images] = containers(&object["template"]);
        vec![name(object), names, images, labels(&object["template"]["metadata"]["labels"])]
    },
};

fn pod(pod: &Value, now: Timestamp) -> Vec<Value> {
    let (spec, status) = (&pod["spec"], &pod["status"]);
    let summary = Summary::of(pod);
    let restarts = match summary.last_restart {
        Some(at) if summary.restarts != 0 => {
            format!("{} ({} ago)", summary.restarts, human(seconds_between(at, now)))
        }
        _ => summary.restarts.to_string(),
    };
    vec![
        name(pod),
        format!("{}/{}", summary.ready, summary.total).into(),
        summary.reason.into(),
        restarts.into(),
        age(pod, now),
        or(status["podIPs"].items().first().map_or("", |ip| ip["ip"].text()), "<none>"),
        or(spec["nodeName"].text(), "<none>"),
        or(status["nominatedNodeName"].text(), "<none>"),
        readiness_gates(pod),
    ]
}

fn readiness_gates(pod: &Value) -> Value {
    let gates = pod["spec"]["readinessGates"].items();
    if gates.is_empty() {
        return "<none>".into();
    }
    let passed = gates
        .iter()
        .filter(|gate| super::cells::is_true(pod, gate["conditionType"].text()))
        .count();
    format!("{passed}/{}", gates.len()).into()
}

/// What the containers of a pod come to.
struct Summary {
    reason: String,
    ready: usize,
    total: usize,
    restarts: i64,
    last_restart: Option<Timestamp>,
}

impl Summary {
    fn of(pod: &Value) -> Self {
        let (spec, status) = (&pod["spec"], &pod["status"]);
        let sidecars =
            spec["initContainers"].items().iter().filter(|container| is_sidecar(container)).count();
        let mut summary = Self {
            reason: or(status["reason"].text(), status["phase"].text()).text().to_owned(),
            ready: 0,
            total: spec["containers"].size() + sidecars,
            restarts: 0,
            last_restart: None,
        };
        let conditions = status["conditions"].items();
        if conditions.iter().any(|condition| {
            condition["type"] == "PodScheduled" && condition["reason"] == "SchedulingGated"
        }) {
            summary.reason = "SchedulingGated".to_owned();
        }
        let initializing = summary.add_init_containers(pod);
        if !initializing || super::cells::is_true(pod, "Initialized") {
            summary.add_containers(pod);
        }
        let deleting = pod["metadata"]["deletionTimestamp"].is_set();
        if deleting && status["reason"] == NODE_LOST {
            summary.reason = "Unknown".to_owned();
        } else if deleting && !matches!(status["phase"].text(), "Succeeded" | "Failed") {
            summary.reason = "Terminating".to_owned();
        }
        summary
    }

    /// Counts the init containers, and returns whether one of them is still at work or has failed.
    fn add_init_containers(&mut self, pod: &Value) -> bool {
        let specs = pod["spec"]["initContainers"].items();
        let mut sidecars = (0, None);
        for (index, container) in pod["status"]["initContainerStatuses"].items().iter().enumerate()
        {
            let sidecar =
                specs.iter().any(|spec| spec["name"] == container["name"] && is_sidecar(spec));
            self.add_restarts(container);
            if sidecar {
                sidecars = (
                    sidecars.0 + container["restartCount"].int(),
                    sidecars.1.max(last_end(container)),
                );
            }
            let (ended, waiting) =
                (&container["state"]["terminated"], container["state"]["waiting"]["reason"].text());
            if ended.is_set() && ended["exitCode"].int() == 0 {
                continue;
            }
            if sidecar && container["started"].flag() {
                self.ready += usize::from(container["ready"].flag());
                continue;
            }
            self.reason = if ended.is_set() {
                format!("Init:{}", end_reason(ended))
            } else if !waiting.is_empty() && waiting != "PodInitializing" {
                format!("Init:{waiting}")
            } else {
                format!("Init:{index}/{}", specs.len())
            };
            if !super::cells::is_true(pod, "Initialized") {
                return true;
            }
            break;
        }
        (self.restarts, self.last_restart) = sidecars;
        false
    }

    fn add_containers(&mut self, pod: &Value) {
        let mut running = false;
        for container in pod["status"]["containerStatuses"].items().iter().rev() {
            self.add_restarts(container);
            let state = &container["state"];
            let waiting = state["waiting"]["reason"].text();
            if !waiting.is_empty() {
                waiting.clone_into(&mut self.reason);
            } else if state["terminated"].is_set() {
                self.reason = end_reason(&state["terminated"]);
            } else if container["ready"].flag() && state["running"].is_set() {
                running = true;
                self.ready += 1;
            }
        }
        // One container has done its work, another goes on.
        if self.reason == "Completed" && running {
            self.reason =
                if super::cells::is_true(pod, "Ready") { "Running" } else { "NotReady" }.to_owned();
        }
    }

    fn add_restarts(&mut self, container: &Value) {
        self.restarts += container["restartCount"].int();
        self.last_restart = self.last_restart.max(last_end(container));
    }
}

fn is_sidecar(container: &Value) -> bool {
    container["restartPolicy"] == "Always"
}

fn last_end(container: &Value) -> Option<Timestamp> {
    time::parse(container["lastState"]["terminated"]["finishedAt"].text())
}

fn end_reason(ended: &Value) -> String {
    match (ended["reason"].text(), ended["signal"].int()) {
        ("", 0) => format!("ExitCode:{}", ended["exitCode"].int()),
        ("", signal) => format!("Signal:{signal}"),
        (reason, _) => reason.to_owned(),
    }
}
