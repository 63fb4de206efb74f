//! The scheduler against an API of pods, nodes, bindings and Events that lives in memory.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use coracle_scheduler::{Options, run};
use futures::StreamExt;
use futures::channel::mpsc;
use http::{Method, Request, Response};
use http_body::Frame;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, StreamBody};
use kube::client::Body;
use serde_json::{Value, json};
use std::sync::Mutex;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

type Answer = UnsyncBoxBody<Bytes, Infallible>;

#[derive(Default)]
struct Api {
    state: Mutex<State>,
    calls: AtomicUsize,
    most_calls: AtomicUsize,
}

#[derive(Default)]
struct State {
    revision: u64,
    /// By resource, then by name.
    objects: BTreeMap<&'static str, BTreeMap<String, Value>>,
    watchers: Vec<(&'static str, mpsc::UnboundedSender<Value>)>,
    bindings: Vec<(String, String)>,
    events: Vec<String>,
    /// The bindings that are answered with a conflict first.
    conflicts: usize,
}

impl State {
    fn put(&mut self, resource: &'static str, mut object: Value) -> Value {
        self.revision += 1;
        object["metadata"]["resourceVersion"] = json!(self.revision.to_string());
        let name = object["metadata"]["name"].as_str().unwrap().to_owned();
        let old = self.objects.entry(resource).or_default().insert(name, object.clone());
        let kind = if old.is_some() { "MODIFIED" } else { "ADDED" };
        self.tell(resource, json!({"type": kind, "object": object}));
        object
    }

    fn remove(&mut self, resource: &'static str, name: &str) {
        self.revision += 1;
        let mut object = self.objects.get_mut(resource).unwrap().remove(name).unwrap();
        object["metadata"]["resourceVersion"] = json!(self.revision.to_string());
        self.tell(resource, json!({"type": "DELETED", "object": object}));
    }

    fn tell(&mut self, resource: &str, event: Value) {
        self.watchers.retain(|(of, watcher)| {
            *of != resource || watcher.unbounded_send(event.clone()).is_ok()
        });
    }
}

impl Api {
    fn put(&self, resource: &'static str, object: Value) {
        self.state.lock().unwrap().put(resource, object);
    }

    async fn answer(self: Arc<Self>, request: Request<Body>) -> Response<Answer> {
        let calls = self.calls.fetch_add(1, Ordering::SeqCst) + 1;
        self.most_calls.fetch_max(calls, Ordering::SeqCst);
        // Others get their turn while this call is under way.
        tokio::task::yield_now().await;
        let (head, body) = request.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        let body = serde_json::from_slice(&body).unwrap_or(Value::Null);
        let path = head.uri.path();
        let path = path.trim_start_matches("/api/v1/").trim_start_matches("/apis/");
        let path: Vec<_> = path.split('/').collect();
        let is_watch = head.uri.query().is_some_and(|query| query.contains("watch=true"));
        let answer = match (&head.method, path.as_slice()) {
            (&Method::GET, ["nodes"]) => self.read("nodes", is_watch),
            (&Method::GET, [resource @ ("persistentvolumeclaims" | "persistentvolumes")])
            | (&Method::GET, ["storage.k8s.io", "v1", resource @ "storageclasses"]) => {
                let all = ["persistentvolumeclaims", "persistentvolumes", "storageclasses"];
                let resource = all.into_iter().find(|known| known == resource).unwrap();
                self.read(resource, is_watch)
            }
            (&Method::PATCH, ["namespaces", _, "persistentvolumeclaims", name]) => {
                let mut state = self.state.lock().unwrap();
                let mut claim = state.objects["persistentvolumeclaims"][*name].clone();
                json_patch::merge(&mut claim, &body);
                json_answer(200, &state.put("persistentvolumeclaims", claim))
            }
            (&Method::GET, ["namespaces"]) => self.read("namespaces", is_watch),
            (&Method::GET, ["services"]) => self.read("services", is_watch),
            (&Method::GET, ["replicationcontrollers"]) => {
                self.read("replicationcontrollers", is_watch)
            }
            (&Method::GET, ["apps", "v1", "replicasets"]) => self.read("replicasets", is_watch),
            (&Method::GET, ["apps", "v1", "statefulsets"]) => self.read("statefulsets", is_watch),
            (&Method::GET, ["pods"]) => self.read("pods", is_watch),
            (&Method::POST, ["namespaces", _, "pods", name, "binding"]) => self.bind(name, &body),
            (&Method::PATCH, ["namespaces", _, "pods", name, "status"]) => self.patch(name, &body),
            (&Method::GET, ["policy", "v1", "poddisruptionbudgets"]) => {
                self.read("poddisruptionbudgets", is_watch)
            }
            (&Method::DELETE, ["namespaces", _, "pods", name]) => self.delete(name, &body),
            (&Method::GET, ["coordination.k8s.io", .., "leases"]) => self.read("leases", is_watch),
            (&Method::POST, ["coordination.k8s.io", .., "leases"])
            | (&Method::PUT, ["coordination.k8s.io", .., "leases", _]) => {
                json_answer(200, &self.state.lock().unwrap().put("leases", body))
            }
            (&Method::POST, ["namespaces", "kube-system", "events"]) => json_answer(201, &body),
            (&Method::POST, ["namespaces", _, "events"]) => {
                let event =
                    ["type", "reason", "message"].map(|field| body[field].as_str().unwrap());
                self.state.lock().unwrap().events.push(event.join(": "));
                json_answer(201, &body)
            }
            other => panic!("the scheduler called {other:?}"),
        };
        self.calls.fetch_sub(1, Ordering::SeqCst);
        answer
    }

    fn read(&self, resource: &'static str, is_watch: bool) -> Response<Answer> {
        let mut state = self.state.lock().unwrap();
        if is_watch {
            let (watcher, events) = mpsc::unbounded();
            state.watchers.push((resource, watcher));
            let frames = events
                .map(|event| Ok::<_, Infallible>(Frame::data(Bytes::from(format!("{event}\n")))));
            return Response::new(StreamBody::new(frames).boxed_unsync());
        }
        let items: Vec<_> = state.objects.entry(resource).or_default().values().cloned().collect();
        let (group, kind) = match resource {
            "pods" => ("v1", "PodList"),
            "nodes" => ("v1", "NodeList"),
            "namespaces" => ("v1", "NamespaceList"),
            "persistentvolumeclaims" => ("v1", "PersistentVolumeClaimList"),
            "persistentvolumes" => ("v1", "PersistentVolumeList"),
            "storageclasses" => ("storage.k8s.io/v1", "StorageClassList"),
            "poddisruptionbudgets" => ("policy/v1", "PodDisruptionBudgetList"),
            "services" => ("v1", "ServiceList"),
            "replicationcontrollers" => ("v1", "ReplicationControllerList"),
            "replicasets" => ("apps/v1", "ReplicaSetList"),
            "statefulsets" => ("apps/v1", "StatefulSetList"),
            _ => ("coordination.k8s.io/v1", "LeaseList"),
        };
        let version = json!({"resourceVersion": state.revision.to_string()});
        json_answer(
            200,
            &json!({"apiVersion": group, "kind": kind, "metadata": version, "items": items}),
        )
    }

    fn bind(&self, name: &str, binding: &Value) -> Response<Answer> {
        let mut state = self.state.lock().unwrap();
        if state.conflicts > 0 {
            state.conflicts -= 1;
            let status = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": 409,
                "reason": "Conflict", "message": "told to refuse"});
            return json_answer(409, &status);
        }
        let mut pod = state.objects["pods"][name].clone();
        assert_eq!(binding["metadata"]["uid"], pod["metadata"]["uid"]);
        assert!(pod["spec"]["nodeName"].is_null(), "{name} is bound twice");
        pod["spec"]["nodeName"] = binding["target"]["name"].clone();
        let node = binding["target"]["name"].as_str().unwrap().to_owned();
        state.bindings.push((name.to_owned(), node));
        state.put("pods", pod);
        json_answer(
            201,
            &json!({"kind": "Status", "apiVersion": "v1", "status": "Success", "code": 201}),
        )
    }

    fn patch(&self, name: &str, patch: &Value) -> Response<Answer> {
        let mut state = self.state.lock().unwrap();
        let mut pod = state.objects["pods"][name].clone();
        for (field, value) in patch["status"].as_object().unwrap() {
            pod["status"][field] = value.clone();
        }
        let pod = state.put("pods", pod);
        json_answer(200, &pod)
    }

    /// As the real API, marks the pod and leaves it to its node to end it.
    fn delete(&self, name: &str, options: &Value) -> Response<Answer> {
        let mut state = self.state.lock().unwrap();
        let mut pod = state.objects["pods"][name].clone();
        assert_eq!(options["preconditions"]["uid"], pod["metadata"]["uid"]);
        pod["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
        let pod = state.put("pods", pod);
        json_answer(200, &pod)
    }

    /// Waits until this is so.
    async fn until(&self, what: &str, is_so: impl Fn(&State) -> bool) {
        let wait = async {
            while !is_so(&self.state.lock().unwrap()) {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), wait)
            .await
            .unwrap_or_else(|_| panic!("{what}"));
    }
}

fn json_answer(code: u16, body: &Value) -> Response<Answer> {
    Response::builder()
        .status(code)
        .body(http_body_util::Full::from(body.to_string()).boxed_unsync())
        .unwrap()
}

fn node(name: &str, cpu: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name},
        "status": {"allocatable": {"cpu": cpu, "memory": "64Gi", "pods": "2000"}}})
}

fn pod(name: &str, cpu: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "namespace": "default", "uid": format!("uid-{name}")},
        "spec": {"schedulerName": "default-scheduler",
            "containers": [{"name": "c", "resources": {"requests": {"cpu": cpu}}}]}})
}

/// Starts a scheduler over this API.
fn start(api: &Arc<Api>) -> (CancellationToken, JoinHandle<()>) {
    let api = api.clone();
    let service = tower::service_fn(move |request| {
        let api = api.clone();
        async move { Ok::<_, Infallible>(api.answer(request).await) }
    });
    let client = kube::Client::new(service, "default");
    let shutdown = CancellationToken::new();
    let stop = shutdown.clone();
    let running = tokio::spawn(async move { run(client, Options::default(), stop).await.unwrap() });
    (shutdown, running)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_pods_are_bound_at_once_and_each_once() {
    let api = Arc::new(Api::default());
    for index in 0..10 {
        api.put("nodes", node(&format!("node-{index}"), "10"));
    }
    let (shutdown, running) = start(&api);
    let watched = |state: &State| BTreeSet::from_iter(state.watchers.iter().map(|(of, _)| *of));
    let wanted = BTreeSet::from([
        "leases",
        "namespaces",
        "nodes",
        "persistentvolumeclaims",
        "persistentvolumes",
        "poddisruptionbudgets",
        "pods",
        "replicasets",
        "replicationcontrollers",
        "services",
        "statefulsets",
        "storageclasses",
    ]);
    api.until("the watches begin", |state| watched(state) == wanted).await;
    let begin = Instant::now();
    for index in 0..1000 {
        api.put("pods", pod(&format!("pod-{index}"), "100m"));
    }
    api.until("all pods are bound", |state| state.bindings.len() == 1000).await;
    println!("1000 pods bound in {:?}", begin.elapsed());
    let mut loads: BTreeMap<String, usize> = BTreeMap::new();
    for (_, node) in &api.state.lock().unwrap().bindings {
        *loads.entry(node.clone()).or_default() += 1;
    }
    assert!(
        loads.values().all(|pods| *pods == 100),
        "all nodes are full and none is overfull: {loads:?}"
    );
    assert!(
        api.most_calls.load(Ordering::SeqCst) <= Options::default().calls + 4,
        "calls are bounded"
    );
    shutdown.cancel();
    running.await.unwrap();
}

#[tokio::test]
async fn a_pod_that_fits_nowhere_is_reported_and_bound_when_a_node_comes() {
    let api = Arc::new(Api::default());
    api.put("nodes", node("small", "1"));
    api.put("pods", pod("big", "2"));
    let (shutdown, running) = start(&api);
    let message = "0/1 nodes are available: 1 Insufficient cpu. no new claims to deallocate, preemption: 0/1 nodes are available: 1 Preemption is \
                   not helpful for scheduling.";
    let condition = |state: &State| state.objects["pods"]["big"]["status"]["conditions"][0].clone();
    api.until("the condition is written", |state| {
        let condition = condition(state);
        condition["type"] == "PodScheduled"
            && condition["status"] == "False"
            && condition["reason"] == "Unschedulable"
            && condition["message"] == message
    })
    .await;
    let event = format!("Warning: FailedScheduling: {message}");
    api.until("the Event is written", |state| state.events == [event.clone()]).await;
    api.put("nodes", node("large", "4"));
    api.until("the pod is bound", |state| {
        state.bindings == [("big".to_owned(), "large".to_owned())]
    })
    .await;
    let event = "Normal: Scheduled: Successfully assigned default/big to large";
    api.until("the Event is written", |state| {
        state.events.last().is_some_and(|last| last == event)
    })
    .await;
    shutdown.cancel();
    running.await.unwrap();
}

#[tokio::test]
async fn a_refused_binding_is_tried_again() {
    let api = Arc::new(Api::default());
    api.state.lock().unwrap().conflicts = 1;
    api.put("nodes", node("node", "1"));
    api.put("pods", pod("pod", "1"));
    let (shutdown, running) = start(&api);
    api.until("the pod is bound", |state| state.bindings.len() == 1).await;
    let refused = "Warning: FailedScheduling: binding rejected: running Bind plugin \"DefaultBinder\": told to refuse";
    api.until("both Events are written", |state| state.events.len() >= 2).await;
    assert_eq!(api.state.lock().unwrap().events[0], refused);
    shutdown.cancel();
    running.await.unwrap();
}

#[tokio::test]
async fn a_deleted_pod_makes_room_for_one_that_waits() {
    let api = Arc::new(Api::default());
    api.put("nodes", node("node", "1"));
    api.put("pods", pod("first", "1"));
    let (shutdown, running) = start(&api);
    api.until("the first is bound", |state| state.bindings.len() == 1).await;
    api.put("pods", pod("second", "1"));
    api.until("the second is refused", |state| {
        state.objects["pods"]["second"]["status"]["conditions"][0]["reason"] == "Unschedulable"
    })
    .await;
    api.state.lock().unwrap().remove("pods", "first");
    api.until("the second is bound", |state| state.bindings.len() == 2).await;
    shutdown.cancel();
    running.await.unwrap();
}

#[tokio::test]
async fn a_pod_makes_room_for_a_more_important_one() {
    let api = Arc::new(Api::default());
    api.put("nodes", node("node", "1"));
    api.put("pods", pod("low", "1"));
    let (shutdown, running) = start(&api);
    api.until("the first is bound", |state| state.bindings.len() == 1).await;
    let mut high = pod("high", "1");
    high["spec"]["priority"] = json!(1000);
    api.put("pods", high);
    api.until("the first is deleted", |state| {
        state.objects["pods"]["low"]["metadata"]["deletionTimestamp"].is_string()
    })
    .await;
    {
        let state = api.state.lock().unwrap();
        let condition = &state.objects["pods"]["low"]["status"]["conditions"][0];
        assert_eq!(condition["type"], "DisruptionTarget");
        assert_eq!(condition["status"], "True");
        assert_eq!(condition["reason"], "PreemptionByScheduler");
        assert_eq!(
            condition["message"],
            "default-scheduler: preempting to accommodate a higher priority pod"
        );
        let status = &state.objects["pods"]["high"]["status"];
        assert_eq!(status["nominatedNodeName"], "node");
        assert_eq!(
            status["conditions"][0]["message"],
            "0/1 nodes are available: 1 Insufficient cpu."
        );
    }
    let event = "Normal: Preempted: Preempted by pod uid-high on node node";
    api.until("the Event is written", |state| state.events.iter().any(|told| told == event)).await;
    api.state.lock().unwrap().remove("pods", "low");
    api.until("the second is bound", |state| state.bindings.len() == 2).await;
    shutdown.cancel();
    running.await.unwrap();
}

#[tokio::test]
async fn a_claim_is_told_its_node_before_the_pod_is_bound() {
    let api = Arc::new(Api::default());
    api.put("nodes", node("node", "1"));
    let mut pod = pod("pod", "1");
    pod["spec"]["volumes"] =
        json!([{"name": "data", "persistentVolumeClaim": {"claimName": "data"}}]);
    api.put("pods", pod);
    let (shutdown, running) = start(&api);
    let message = "0/1 nodes are available: persistentvolumeclaim \"data\" not found. no new claims to deallocate, preemption: 0/1 nodes are \
                   available: 1 Preemption is not helpful for scheduling.";
    api.until("the pod is refused", |state| {
        state.objects["pods"]["pod"]["status"]["conditions"][0]["message"] == message
    })
    .await;
    let class = json!({"apiVersion": "storage.k8s.io/v1", "kind": "StorageClass",
        "metadata": {"name": "late"}, "provisioner": "example.com/path",
        "volumeBindingMode": "WaitForFirstConsumer"});
    api.put("storageclasses", class);
    let claim = json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim",
        "metadata": {"name": "data", "namespace": "default"},
        "spec": {"storageClassName": "late"}});
    api.put("persistentvolumeclaims", claim);
    api.until("the pod is bound", |state| state.bindings.len() == 1).await;
    let claim = api.state.lock().unwrap().objects["persistentvolumeclaims"]["data"].clone();
    assert_eq!(claim["metadata"]["annotations"]["volume.kubernetes.io/selected-node"], "node");
    shutdown.cancel();
    running.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_scheduler_whose_lease_another_holds_stops() {
    let api = Arc::new(Api::default());
    api.put("nodes", node("node-0", "10"));
    let (shutdown, running) = start(&api);
    let holder = |state: &State| {
        let lease = state.objects.get("leases").and_then(|leases| leases.values().next());
        lease.map_or(Value::Null, |lease| lease["spec"]["holderIdentity"].clone())
    };
    api.until("it leads", |state| holder(state).is_string()).await;
    api.put("pods", pod("first", "1"));
    api.until("it binds", |state| state.bindings.len() == 1).await;
    let mut lease = api.state.lock().unwrap().objects["leases"].values().next().unwrap().clone();
    lease["spec"]["holderIdentity"] = json!("another");
    lease["spec"]["leaseDurationSeconds"] = json!(3600);
    api.put("leases", lease);
    // It sees that when it is to renew its lease; no real time passes here.
    tokio::time::sleep(Duration::from_secs(30)).await;
    api.put("pods", pod("second", "1"));
    tokio::time::sleep(Duration::from_secs(30)).await;
    {
        let state = api.state.lock().unwrap();
        assert_eq!(holder(&state), "another");
        assert_eq!(state.bindings.len(), 1, "{:?}", state.bindings);
    }
    shutdown.cancel();
    running.await.unwrap();
}
