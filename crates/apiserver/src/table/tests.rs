//! Golden tables, as `kubectl get -o wide` prints them.

use coracle_api::kinds;
use serde_json::json;

use super::cells::human;
use super::*;
use crate::rules::json::Read;

const NOW: &str = "2026-11-23T12:00:00Z";

fn table(api_version: &str, kind: &str, objects: &[Value]) -> String {
    let columns = for_kind(kinds::by_api_version(api_version, kind).expect("a known kind"));
    let now: Timestamp = NOW.parse().expect("a moment");
    let mut lines = vec![
        columns
            .definitions
            .iter()
            .map(|column| column.name.to_uppercase())
            .collect::<Vec<_>>()
            .join(" | "),
    ];
    for object in objects {
        let cells = (columns.cells)(object, now);
        assert_eq!(cells.len(), columns.definitions.len(), "{kind}");
        let texts =
            cells.iter().map(|cell| cell.as_str().map_or_else(|| cell.to_string(), str::to_owned));
        lines.push(texts.collect::<Vec<_>>().join(" | "));
    }
    lines.join("\n")
}

fn named(name: &str, rest: Value) -> Value {
    let mut object = rest;
    object["metadata"]["name"] = json!(name);
    if !object["metadata"]["creationTimestamp"].is_set() {
        object["metadata"]["creationTimestamp"] = json!("2026-11-23T11:55:00Z");
    }
    object
}

fn pod(name: &str, containers: usize, status: Value) -> Value {
    let containers: Vec<Value> =
        (0..containers).map(|index| json!({"name": format!("c{index}")})).collect();
    named(name, json!({"spec": {"containers": containers, "nodeName": "node-0"}, "status": status}))
}

#[test]
fn pods_are_summed_up() {
    let running = json!({"name": "c0", "ready": true, "restartCount": 0, "state": {"running": {}}});
    let restarted = json!({
        "name": "c0", "ready": true, "restartCount": 2, "state": {"running": {}},
        "lastState": {"terminated": {"exitCode": 1, "finishedAt": "2026-11-23T11:55:00Z"}},
    });
    let crashing = json!({"name": "c0", "ready": false, "restartCount": 5, "state": {"waiting": {"reason": "CrashLoopBackOff"}}});
    let done = json!({"name": "c0", "ready": false, "restartCount": 0, "state": {"terminated": {"exitCode": 0, "reason": "Completed"}}});
    let failed = json!({"name": "c0", "ready": false, "restartCount": 0, "state": {"terminated": {"exitCode": 3}}});
    let mut deleting =
        pod("deleting", 1, json!({"phase": "Running", "containerStatuses": [running]}));
    deleting["metadata"]["deletionTimestamp"] = json!(NOW);
    let mut initializing = pod(
        "initializing",
        1,
        json!({"phase": "Pending", "initContainerStatuses": [{"name": "i", "state": {"running": {}}}]}),
    );
    initializing["spec"]["initContainers"] = json!([{"name": "i"}]);
    let mut sidecar = pod(
        "sidecar",
        1,
        json!({
            "phase": "Running",
            "conditions": [{"type": "Initialized", "status": "True"}],
            "initContainerStatuses": [{"name": "s", "ready": true, "started": true, "restartCount": 1, "state": {"running": {}}}],
            "containerStatuses": [running],
        }),
    );
    sidecar["spec"]["initContainers"] = json!([{"name": "s", "restartPolicy": "Always"}]);
    let mut gated = pod(
        "gated",
        1,
        json!({"phase": "Pending", "conditions": [{"type": "PodScheduled", "status": "False", "reason": "SchedulingGated"}]}),
    );
    gated["spec"]["readinessGates"] = json!([{"conditionType": "x"}]);
    let table = table(
        "v1",
        "Pod",
        &[
            pod("pending", 2, json!({"phase": "Pending"})),
            pod(
                "running",
                1,
                json!({"phase": "Running", "podIPs": [{"ip": "127.2.0.5"}], "containerStatuses": [running]}),
            ),
            pod("restarted", 1, json!({"phase": "Running", "containerStatuses": [restarted]})),
            pod("crashing", 1, json!({"phase": "Running", "containerStatuses": [crashing]})),
            pod("done", 1, json!({"phase": "Succeeded", "containerStatuses": [done]})),
            pod("failed", 1, json!({"phase": "Failed", "containerStatuses": [failed]})),
            pod("evicted", 1, json!({"phase": "Failed", "reason": "Evicted"})),
            deleting,
            initializing,
            sidecar,
            gated,
        ],
    );
    insta::assert_snapshot!("pods", table);
}

#[test]
fn workloads_are_summed_up() {
    let template = json!({"spec": {"containers": [{"name": "a", "image": "x:1"}, {"name": "b", "image": "y:2"}]}});
    let spec =
        json!({"replicas": 3, "selector": {"matchLabels": {"app": "web"}}, "template": template});
    let deployment = named(
        "web",
        json!({"spec": spec, "status": {"readyReplicas": 2, "updatedReplicas": 3, "availableReplicas": 2}}),
    );
    let set = named("web-1", json!({"spec": spec, "status": {"replicas": 3, "readyReplicas": 2}}));
    let daemon = named(
        "d",
        json!({"spec": spec, "status": {"desiredNumberScheduled": 2, "currentNumberScheduled": 1}}),
    );
    let job = |name: &str, status: Value| {
        named(
            name,
            json!({"spec": {"completions": 3, "template": template, "selector": {"matchLabels": {"j": "1"}}}, "status": status}),
        )
    };
    let jobs = [
        job("new", json!({})),
        job("running", json!({"startTime": "2026-11-23T11:59:00Z", "succeeded": 1})),
        job(
            "done",
            json!({"startTime": "2026-11-23T11:59:00Z", "completionTime": "2026-11-23T11:59:07Z", "succeeded": 3, "conditions": [{"type": "Complete", "status": "True"}]}),
        ),
    ];
    let cron = named(
        "c",
        json!({"spec": {"schedule": "* * * * *", "suspend": false, "jobTemplate": {"spec": {"template": template}}}, "status": {"active": [{}], "lastScheduleTime": "2026-11-23T11:59:30Z"}}),
    );
    let tables = [
        table("apps/v1", "Deployment", &[deployment]),
        table("apps/v1", "ReplicaSet", std::slice::from_ref(&set)),
        table("apps/v1", "StatefulSet", &[set]),
        table("apps/v1", "DaemonSet", &[daemon]),
        table("batch/v1", "Job", &jobs),
        table("batch/v1", "CronJob", &[cron]),
    ];
    insta::assert_snapshot!("workloads", tables.join("\n\n"));
}

#[test]
fn the_network_is_summed_up() {
    let service = |name: &str, spec: Value| named(name, json!({"spec": spec}));
    let services = [
        service(
            "web",
            json!({"type": "ClusterIP", "clusterIPs": ["127.3.0.9"], "ports": [{"port": 80, "protocol": "TCP"}], "selector": {"b": "2", "a": "1"}}),
        ),
        service(
            "node",
            json!({"type": "NodePort", "clusterIPs": ["127.3.0.8"], "ports": [{"port": 80, "nodePort": 30080, "protocol": "TCP"}]}),
        ),
        service(
            "lb",
            json!({"type": "LoadBalancer", "clusterIPs": ["127.3.0.7"], "ports": [{"port": 80, "protocol": "TCP"}]}),
        ),
        service("headless", json!({"type": "ClusterIP", "clusterIPs": ["None"]})),
        service("name", json!({"type": "ExternalName", "externalName": "example.com"})),
    ];
    let addresses: Vec<Value> =
        (1..=5).map(|last| json!({"ip": format!("127.2.0.{last}")})).collect();
    let endpoints =
        named("web", json!({"subsets": [{"addresses": addresses, "ports": [{"port": 8080}]}]}));
    let slice = named(
        "web-1",
        json!({"addressType": "IPv4", "ports": [{"name": "", "port": 8080}], "endpoints": [{"addresses": ["127.2.0.1"]}, {"addresses": ["127.2.0.2"]}]}),
    );
    let ingress = named(
        "i",
        json!({"spec": {"rules": [{"host": "a.example"}, {}], "tls": [{}]}, "status": {"loadBalancer": {"ingress": [{"ip": "10.0.0.1"}]}}}),
    );
    let tables = [
        table("v1", "Service", &services),
        table("v1", "Endpoints", &[endpoints, named("none", json!({}))]),
        table(
            "discovery.k8s.io/v1",
            "EndpointSlice",
            &[slice, named("none", json!({"addressType": "IPv4"}))],
        ),
        table("networking.k8s.io/v1", "Ingress", &[ingress]),
        table(
            "networking.k8s.io/v1",
            "NetworkPolicy",
            &[named("deny", json!({"spec": {"podSelector": {}}}))],
        ),
    ];
    insta::assert_snapshot!("network", tables.join("\n\n"));
}

#[test]
fn the_cluster_is_summed_up() {
    let node = named(
        "node-0",
        json!({
            "metadata": {"labels": {"node-role.kubernetes.io/control-plane": ""}},
            "spec": {"unschedulable": true},
            "status": {
                "conditions": [{"type": "Ready", "status": "True"}],
                "addresses": [{"type": "InternalIP", "address": "10.0.0.5"}],
                "nodeInfo": {"kubeletVersion": "v1.37.1", "osImage": "Debian", "kernelVersion": "6.1", "containerRuntimeVersion": "wasmtime://48"},
            },
        }),
    );
    let event = named(
        "p.1",
        json!({
            "involvedObject": {"kind": "Pod", "name": "p", "fieldPath": "spec.containers{c}"},
            "reason": "Started", "type": "Normal", "message": "Started container c\n", "count": 3,
            "source": {"component": "kubelet", "host": "node-0"},
            "firstTimestamp": "2026-11-23T11:50:00Z", "lastTimestamp": "2026-11-23T11:59:00Z",
        }),
    );
    let modern = named(
        "p.2",
        json!({
            "involvedObject": {"kind": "Pod", "name": "p"},
            "reason": "Scheduled", "type": "Normal", "message": "ok", "eventTime": "2026-11-23T11:58:00.000000Z",
            "reportingComponent": "default-scheduler",
        }),
    );
    let tables = [
        table("v1", "Node", &[node]),
        table("v1", "Namespace", &[named("default", json!({"status": {"phase": "Active"}}))]),
        table("v1", "Event", &[event, modern]),
    ];
    insta::assert_snapshot!("cluster", tables.join("\n\n"));
}

#[test]
fn configuration_is_summed_up() {
    let binding = named(
        "b",
        json!({"roleRef": {"kind": "Role", "name": "r"}, "subjects": [{"kind": "User", "name": "jane"}, {"kind": "ServiceAccount", "namespace": "n", "name": "s"}]}),
    );
    let quota = named(
        "q",
        json!({"status": {"hard": {"pods": "10", "limits.cpu": "4", "requests.cpu": "2"}, "used": {"pods": "3"}}}),
    );
    let tables = [
        table("v1", "ConfigMap", &[named("c", json!({"data": {"a": "1", "b": "2"}}))]),
        table("v1", "Secret", &[named("s", json!({"type": "Opaque", "data": {"a": ""}}))]),
        table("v1", "ServiceAccount", &[named("default", json!({}))]),
        table("v1", "ResourceQuota", &[quota]),
        table("rbac.authorization.k8s.io/v1", "RoleBinding", &[binding]),
        table("rbac.authorization.k8s.io/v1", "ClusterRole", &[named("admin", json!({}))]),
        table(
            "coordination.k8s.io/v1",
            "Lease",
            &[named("l", json!({"spec": {"holderIdentity": "node-0"}}))],
        ),
        table(
            "policy/v1",
            "PodDisruptionBudget",
            &[named("p", json!({"spec": {"minAvailable": "50%"}}))],
        ),
        table(
            "v1",
            "PersistentVolumeClaim",
            &[named(
                "c",
                json!({"spec": {"storageClassName": "local"}, "status": {"phase": "Pending"}}),
            )],
        ),
        table(
            "storage.k8s.io/v1",
            "StorageClass",
            &[named(
                "local",
                json!({"metadata": {"annotations": {"storageclass.kubernetes.io/is-default-class": "true"}}, "provisioner": "p"}),
            )],
        ),
    ];
    insta::assert_snapshot!("configuration", tables.join("\n\n"));
}

#[test]
fn durations_are_said_as_upstream_says_them() {
    const MINUTE: i64 = 60;
    const HOUR: i64 = 3600;
    const DAY: i64 = 24 * HOUR;
    for (seconds, want) in [
        (-2, "<invalid>"),
        (-1, "0s"),
        (0, "0s"),
        (119, "119s"),
        (2 * MINUTE, "2m"),
        (2 * MINUTE + 1, "2m1s"),
        (10 * MINUTE + 59, "10m"),
        (3 * HOUR - 1, "179m"),
        (3 * HOUR, "3h"),
        (3 * HOUR + 5 * MINUTE, "3h5m"),
        (47 * HOUR, "47h"),
        (2 * DAY, "2d"),
        (2 * DAY + HOUR, "2d1h"),
        (8 * DAY + HOUR, "8d"),
        (2 * 365 * DAY, "2y"),
        (2 * 365 * DAY + DAY, "2y1d"),
        (9 * 365 * DAY, "9y"),
    ] {
        assert_eq!(human(seconds), want, "{seconds}");
    }
}

#[test]
fn every_kind_has_a_row_for_an_empty_object() {
    for kind in kinds::all() {
        table(kind.api_version, kind.kind, &[json!({})]);
    }
}
