//! Where pods go, and what their owner is told when they go nowhere: by the kubectl that asks.

use coracle_tests::{Cluster, examples};
use serde_json::{Value, json};

/// A resource that nobody but these stories knows.
const DONGLE: &str = "example.com/dongle";

/// A cluster with a guest that runs until it is told to end.
fn with_guest(flags: &[&str]) -> Cluster {
    let cluster = Cluster::start_with(flags);
    cluster.import(&examples("hello").join("hello.wasm"), "hello.wasm");
    cluster
}

/// A pod whose spec says this besides its container, which asks for these resources.
fn pod(name: &str, requests: &Value, spec: Value) -> String {
    let mut pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": { "name": name, "labels": { "app": name } },
        "spec": spec,
    });
    let resources = json!({ "requests": requests, "limits": requests });
    pod["spec"]["containers"] =
        json!([{ "name": "c", "image": "hello.wasm", "resources": resources }]);
    pod["spec"]["terminationGracePeriodSeconds"] = json!(1);
    pod.to_string()
}

fn dongles(count: u32) -> Value {
    json!({ DONGLE: count.to_string() })
}

/// Advertises dongles as an administrator does, and waits until the kubelet offers them.
fn advertise(cluster: &Cluster, count: u32) {
    let patch = json!({ "status": { "capacity": { DONGLE: count.to_string() } } }).to_string();
    cluster.kubectl(&[
        "patch",
        "node/node-0",
        "--subresource=status",
        "--type=merge",
        "-p",
        &patch,
    ]);
    let offered = format!("--for=jsonpath={{.status.allocatable.example\\.com/dongle}}={count}");
    cluster.kubectl(&["wait", &offered, "node/node-0", "--timeout=60s"]);
}

fn until_ready(cluster: &Cluster, what: &str) {
    cluster.kubectl(&["wait", "--for=condition=Ready", what, "--timeout=60s"]);
}

/// What the pod's condition says of why it has no node.
fn told(cluster: &Cluster, name: &str) -> String {
    let waiting = "--for=condition=PodScheduled=False";
    cluster.kubectl(&["wait", waiting, &format!("pod/{name}"), "--timeout=60s"]);
    let pod = cluster.json(&["pod", name]);
    let conditions = pod["status"]["conditions"].as_array().unwrap();
    let condition = conditions.iter().find(|condition| condition["type"] == "PodScheduled");
    let condition = condition.unwrap();
    format!("{}: {}", condition["reason"].as_str().unwrap(), condition["message"].as_str().unwrap())
}

/// The messages of the Events of this reason about a pod, once there are any.
fn events(cluster: &Cluster, pod: &str, reason: &str) -> String {
    let about = format!("--field-selector=involvedObject.name={pod},reason={reason}");
    let message = "jsonpath={range .items[*]}{.source.component}: {.message}{'\\n'}{end}";
    let mut found = String::new();
    cluster.until(&format!("{reason} of {pod}"), |cluster| {
        found = cluster.kubectl(&["get", "events", &about, "-o", message]);
        !found.is_empty()
    });
    found
}

#[test]
fn a_pod_that_fits_nowhere_says_why_and_holds_nobody_up() {
    let cluster = with_guest(&[]);
    let nothing = json!({});
    let unhelpable = "no new claims to deallocate, preemption: 0/1 nodes are available: 1 Preemption is not helpful for \
                      scheduling.";
    cluster.apply(&pod("huge", &json!({ "cpu": "1000" }), json!({})));
    let message = format!("0/1 nodes are available: 1 Insufficient cpu. {unhelpable}");
    assert_eq!(told(&cluster, "huge"), format!("Unschedulable: {message}"));
    let line = format!("default-scheduler: {message}\n");
    assert_eq!(events(&cluster, "huge", "FailedScheduling"), line);
    cluster.apply(&pod("picky", &nothing, json!({ "nodeSelector": { "disk": "ssd" } })));
    let message = format!(
        "Unschedulable: 0/1 nodes are available: 1 node(s) didn't match Pod's node affinity/selector. {unhelpable}"
    );
    assert_eq!(told(&cluster, "picky"), message);
    cluster.apply(&pod(
        "gated",
        &nothing,
        json!({ "schedulingGates": [{ "name": "example.com/quota" }] }),
    ));
    let message = "SchedulingGated: Scheduling is blocked due to non-empty scheduling gates";
    assert_eq!(told(&cluster, "gated"), message);
    assert!(cluster.kubectl(&["get", "pod", "gated"]).contains("SchedulingGated"));
    // Others go on meanwhile.
    cluster.apply(&pod("modest", &nothing, json!({})));
    until_ready(&cluster, "pod/modest");
    let message = "default-scheduler: Successfully assigned default/modest to node-0\n";
    assert_eq!(events(&cluster, "modest", "Scheduled"), message);
    // What they wait for comes.
    cluster.kubectl(&["label", "node", "node-0", "disk=ssd"]);
    until_ready(&cluster, "pod/picky");
    let opened = json!([{ "op": "remove", "path": "/spec/schedulingGates/0" }]).to_string();
    cluster.kubectl(&["patch", "pod", "gated", "--type=json", "-p", &opened]);
    until_ready(&cluster, "pod/gated");
    // A taint keeps out who does not tolerate it, and what is there stays.
    cluster.kubectl(&["taint", "node", "node-0", "team=a:NoSchedule"]);
    cluster.apply(&pod("stranger", &nothing, json!({})));
    let message = format!(
        "Unschedulable: 0/1 nodes are available: 1 node(s) had untolerated taint(s). {unhelpable}"
    );
    assert_eq!(told(&cluster, "stranger"), message);
    let tolerations =
        json!([{ "key": "team", "operator": "Equal", "value": "a", "effect": "NoSchedule" }]);
    cluster.apply(&pod("friend", &nothing, json!({ "tolerations": tolerations })));
    until_ready(&cluster, "pod/friend");
    until_ready(&cluster, "pod/modest");
}

#[test]
fn two_pods_cannot_have_one_port_of_a_node() {
    let cluster = with_guest(&[]);
    let open = |name: &str, address: &str, protocol: &str| {
        let mut pod: Value = serde_json::from_str(&pod(name, &json!({}), json!({}))).unwrap();
        pod["spec"]["containers"][0]["ports"] = json!([{ "containerPort": 8080, "hostPort": 54322,
            "hostIP": address, "protocol": protocol }]);
        cluster.apply(&pod.to_string());
    };
    let bound = |name: &str| {
        let bound = "--for=condition=PodScheduled";
        cluster.kubectl(&["wait", bound, &format!("pod/{name}"), "--timeout=60s"]);
    };
    open("all", "0.0.0.0", "TCP");
    bound("all");
    open("one", "127.0.0.1", "TCP");
    let message = "Unschedulable: 0/1 nodes are available: 1 node(s) didn't have free ports for the requested pod ports. no \
                   new claims to deallocate, preemption: 0/1 nodes are available: 1 No preemption victims found for \
                   incoming pod.";
    assert_eq!(told(&cluster, "one"), message);
    open("other", "127.0.0.1", "UDP");
    bound("other");
    cluster.kubectl(&["delete", "pod", "all", "--now"]);
    bound("one");
}

#[test]
fn a_more_important_pod_takes_the_place_of_another() {
    let cluster = with_guest(&[]);
    advertise(&cluster, 4);
    cluster.kubectl(&["create", "priorityclass", "low", "--value=1"]);
    cluster.kubectl(&["create", "priorityclass", "high", "--value=1000"]);
    let meek = ["create", "priorityclass", "meek", "--value=2000", "--preemption-policy=Never"];
    cluster.kubectl(&meek);
    // Somebody else wants to look at the victim before it goes.
    let mut victim: Value =
        serde_json::from_str(&pod("victim", &dongles(3), json!({ "priorityClassName": "low" })))
            .unwrap();
    victim["metadata"]["finalizers"] = json!(["example.com/look"]);
    cluster.apply(&victim.to_string());
    cluster.apply(&pod("spared", &dongles(1), json!({ "priorityClassName": "high" })));
    until_ready(&cluster, "pod/victim");
    until_ready(&cluster, "pod/spared");
    // Who may not preempt waits, however important.
    cluster.apply(&pod("meek", &dongles(2), json!({ "priorityClassName": "meek" })));
    let message = "Unschedulable: 0/1 nodes are available: 1 Insufficient example.com/dongle. no new claims to deallocate, \
                   preemption: not eligible due to preemptionPolicy=Never.";
    assert_eq!(told(&cluster, "meek"), message);
    cluster.kubectl(&["delete", "pod", "meek", "--now"]);
    cluster.apply(&pod("urgent", &dongles(3), json!({ "priorityClassName": "high" })));
    until_ready(&cluster, "pod/urgent");
    let victim = cluster.json(&["pod", "victim"]);
    let conditions = victim["status"]["conditions"].as_array().unwrap();
    let target =
        conditions.iter().find(|condition| condition["type"] == "DisruptionTarget").unwrap();
    assert_eq!(target["reason"], "PreemptionByScheduler");
    let message = "default-scheduler: preempting to accommodate a higher priority pod";
    assert_eq!(target["message"], message);
    let uid = cluster.json(&["pod", "urgent"])["metadata"]["uid"].as_str().unwrap().to_owned();
    let message = format!("default-scheduler: Preempted by pod {uid} on node node-0\n");
    assert_eq!(events(&cluster, "victim", "Preempted"), message);
    let free = json!({ "metadata": { "finalizers": null } }).to_string();
    cluster.kubectl(&["patch", "pod", "victim", "--type=merge", "-p", &free]);
    let urgent = cluster.json(&["pod", "urgent"]);
    assert_eq!(urgent["status"]["nominatedNodeName"], Value::Null, "{urgent:#}");
    until_ready(&cluster, "pod/spared");
    assert!(cluster.kubectl_refused(&["get", "pod", "victim"]).contains("not found"));
    // What the cluster needs comes before everything.
    let mut critical: Value = serde_json::from_str(&pod(
        "critical",
        &dongles(3),
        json!({ "priorityClassName": "system-cluster-critical" }),
    ))
    .unwrap();
    critical["metadata"]["namespace"] = json!("kube-system");
    cluster.apply(&critical.to_string());
    let ready =
        ["wait", "--for=condition=Ready", "pod/critical", "-n", "kube-system", "--timeout=60s"];
    cluster.kubectl(&ready);
    until_ready(&cluster, "pod/spared");
    assert!(cluster.kubectl_refused(&["get", "pod", "urgent"]).contains("not found"));
}

/// As upstream's conformance test runs it: of four ReplicaSets each takes what the one before leaves, and then more.
#[test]
fn replica_sets_are_preempted_from_the_least_important_on() {
    let cluster = with_guest(&[]);
    advertise(&cluster, 10);
    let run = |number: u32, replicas: u32, each: u32| {
        let name = format!("p{number}");
        cluster.kubectl(&["create", "priorityclass", &name, &format!("--value={number}")]);
        let pod = pod(&name, &dongles(each), json!({ "priorityClassName": name }));
        let mut template: Value = serde_json::from_str(&pod).unwrap();
        for field in ["apiVersion", "kind"] {
            template.as_object_mut().unwrap().remove(field);
        }
        template["metadata"].as_object_mut().unwrap().remove("name");
        let labels = json!({ "app": name });
        let set = json!({ "apiVersion": "apps/v1", "kind": "ReplicaSet", "metadata": { "name": name },
            "spec": { "replicas": replicas, "selector": { "matchLabels": labels }, "template": template } });
        cluster.apply(&set.to_string());
    };
    let ready = |number: u32, pods: u32| {
        let condition = match pods {
            0 => "--for=jsonpath={.status.replicas}".to_owned(),
            pods => format!("--for=jsonpath={{.status.readyReplicas}}={pods}"),
        };
        cluster.kubectl(&["wait", &condition, &format!("rs/p{number}"), "--timeout=60s"]);
    };
    run(1, 5, 1);
    ready(1, 5);
    run(2, 4, 1);
    ready(2, 4);
    run(3, 4, 1);
    ready(3, 4);
    // One place was free, and three more are taken from the least important.
    ready(1, 2);
    ready(2, 4);
    run(4, 1, 3);
    ready(4, 1);
    // Two from the first and one from the second: nobody else must go.
    ready(2, 3);
    ready(3, 4);
    let running = cluster.kubectl(&[
        "get",
        "pods",
        "-l",
        "app=p1",
        "--field-selector=spec.nodeName=node-0",
        "-o",
        "name",
    ]);
    assert_eq!(running, "");
}

const PROFILES: &str = "apiVersion: kubescheduler.config.k8s.io/v1
kind: KubeSchedulerConfiguration
profiles:
- schedulerName: default-scheduler
- schedulerName: pool
  plugins:
    filter:
      disabled: [{name: TaintToleration}]
  pluginConfig:
  - name: NodeAffinity
    args:
      addedAffinity:
        requiredDuringSchedulingIgnoredDuringExecution:
          nodeSelectorTerms:
          - matchExpressions: [{key: pool, operator: In, values: [a]}]
";

#[test]
fn pods_are_placed_as_the_profile_of_their_scheduler_says() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("scheduler.yaml");
    std::fs::write(&file, PROFILES).unwrap();
    let cluster = with_guest(&["--scheduler-config", &file.to_string_lossy()]);
    cluster.apply(&pod("pooled", &json!({}), json!({ "schedulerName": "pool" })));
    let message = "Unschedulable: 0/1 nodes are available: 1 node(s) didn't match scheduler-enforced node affinity. no new \
                   claims to deallocate, preemption: 0/1 nodes are available: 1 Preemption is not helpful for scheduling.";
    assert_eq!(told(&cluster, "pooled"), message);
    assert!(events(&cluster, "pooled", "FailedScheduling").starts_with("pool: 0/1 nodes"));
    cluster.apply(&pod("anybody", &json!({}), json!({})));
    until_ready(&cluster, "pod/anybody");
    cluster.apply(&pod("foreign", &json!({}), json!({ "schedulerName": "somebody-else" })));
    cluster.kubectl(&["taint", "node", "node-0", "team=a:NoSchedule"]);
    cluster.kubectl(&["label", "node", "node-0", "pool=a"]);
    until_ready(&cluster, "pod/pooled");
    // What was left alone has neither a node nor a word about it.
    let foreign = cluster.json(&["pod", "foreign"]);
    assert_eq!(foreign["spec"]["nodeName"], Value::Null);
    assert_eq!(foreign["status"]["conditions"], Value::Null);
    std::fs::write(&file, "kind: Pod").unwrap();
    let refused = cluster.coracle(&["server", "--scheduler-config", &file.to_string_lossy()]);
    assert_ne!(refused.code, Some(0));
    assert!(refused.stderr.contains("cannot use"), "{refused:#?}");
}
