//! What becomes of pods on a node: stories over an API and an engine in memory.

mod support;

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use support::api::PODS;
use support::{DEADLINE, TestNode, condition};

fn serving() -> Value {
    json!({ "containers": [{ "name": "main", "image": "serve:1" }] })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bound_pod_becomes_ready_and_says_so() {
    let node = TestNode::start().await;
    node.pod("web", serving());
    let pod = node.until_ready("web").await;

    let status = &pod["status"];
    assert_eq!(status["phase"], "Running");
    assert_eq!(status["podIP"], "127.0.0.1");
    assert_eq!(status["hostIP"], "127.0.0.1");
    assert_eq!(status["qosClass"], "BestEffort");
    for name in
        ["PodScheduled", "PodReadyToStartContainers", "Initialized", "ContainersReady", "Ready"]
    {
        assert_eq!(condition(&pod, name), "True", "{name}");
    }
    let main = &status["containerStatuses"][0];
    assert!(main["containerID"].as_str().unwrap().starts_with("wasm://"));
    assert_eq!(
        (&main["ready"], &main["started"], &main["restartCount"]),
        (&json!(true), &json!(true), &json!(0))
    );
    assert_eq!(main["imageID"], "sha256:serve:1");
    assert!(main["state"]["running"]["startedAt"].is_string());
    assert!(
        node.event("web", "Pulled")
            .await
            .starts_with("Container image \"serve:1\" already present on machine")
    );
    node.event("web", "Started").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_pod_ends_and_leaves_nothing() {
    let mut node = TestNode::start().await;
    node.pod("web", json!({ "containers": [{ "name": "main", "image": "serve:1" }], "volumes": [{ "name": "v", "emptyDir": {} }] }));
    node.until_ready("web").await;
    assert!(node.data.path().join("pods/uid-web").exists());

    node.api.delete_pod("web", 30);
    node.api.until_gone(PODS, "web").await;
    node.event("web", "Killing").await;
    assert_eq!((node.engine.sandboxes(), node.engine.containers_known()), (0, 0));
    assert!(!node.data.path().join("pods/uid-web").exists());
    let logs = node.data.path().join("pods-logs");
    let deadline = Instant::now() + DEADLINE;
    while std::fs::read_dir(&logs).unwrap().count() > 0 {
        assert!(Instant::now() < deadline, "its logs stayed");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_s_pod_succeeds_or_fails() {
    let node = TestNode::start().await;
    node.pod("good", json!({ "restartPolicy": "Never", "containers": [{ "name": "main", "image": "exit-0:1" }] }));
    node.pod("bad", json!({ "restartPolicy": "Never", "containers": [{ "name": "main", "image": "exit-3:1" }] }));
    let good = node.until("good", |pod| pod["status"]["phase"] == "Succeeded").await;
    assert_eq!(
        good["status"]["containerStatuses"][0]["state"]["terminated"]["reason"],
        "Completed"
    );
    assert_eq!(condition(&good, "Ready"), "False");
    let bad = node.until("bad", |pod| pod["status"]["phase"] == "Failed").await;
    let ended = &bad["status"]["containerStatuses"][0]["state"]["terminated"];
    assert_eq!((&ended["exitCode"], &ended["reason"]), (&json!(3), &json!("Error")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_that_keeps_failing_is_restarted_and_then_backs_off() {
    let node = TestNode::start().await;
    node.pod("crash", json!({ "containers": [{ "name": "main", "image": "exit-1:1" }] }));
    let waits = |pod: &Value| {
        pod["status"]["containerStatuses"][0]["state"]["waiting"]["reason"] == "CrashLoopBackOff"
    };
    let pod = node.until("crash", waits).await;
    let main = &pod["status"]["containerStatuses"][0];
    assert_eq!(main["restartCount"], 1);
    assert_eq!(
        main["state"]["waiting"]["message"],
        "back-off 10s restarting failed container=main pod=crash_default(uid-crash)"
    );
    assert_eq!(main["lastState"]["terminated"]["exitCode"], 1);
    assert_eq!(pod["status"]["phase"], "Running");
    let message = node.event("crash", "BackOff").await;
    assert_eq!(
        message,
        "Back-off restarting failed container main in pod crash_default(uid-crash)"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn init_containers_run_one_after_the_other_and_sidecars_stay() {
    let node = TestNode::start().await;
    node.pod(
        "app",
        json!({
            "restartPolicy": "Never",
            "initContainers": [
                { "name": "first", "image": "exit-0:1" },
                { "name": "proxy", "image": "serve-proxy:1", "restartPolicy": "Always" },
                { "name": "second", "image": "serve-second:1" },
            ],
            "containers": [{ "name": "main", "image": "serve:1" }],
        }),
    );
    let pod = node
        .until("app", |pod| {
            pod["status"]["initContainerStatuses"][2]["state"]["running"].is_object()
        })
        .await;
    assert_eq!(pod["status"]["initContainerStatuses"][0]["state"]["terminated"]["exitCode"], 0);
    assert_eq!(
        pod["status"]["containerStatuses"][0]["state"]["waiting"]["reason"],
        "PodInitializing"
    );
    assert_eq!(
        (condition(&pod, "Initialized"), pod["status"]["phase"].as_str()),
        ("False", Some("Pending"))
    );

    node.engine.end("second", 0);
    node.until_ready("app").await;
    node.engine.end("main", 0);
    let pod = node.until("app", |pod| pod["status"]["phase"] == "Succeeded").await;
    assert!(
        pod["status"]["initContainerStatuses"][1]["state"]["terminated"].is_object(),
        "the sidecar was stopped"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_that_cannot_be_had_says_why() {
    let node = TestNode::start().await;
    node.pod("pull", json!({ "containers": [{ "name": "main", "image": "missing/app:1" }] }));
    let reason =
        |pod: &Value| pod["status"]["containerStatuses"][0]["state"]["waiting"]["reason"].clone();
    node.until("pull", |pod| reason(pod) == "ErrImagePull").await;
    let pod = node.until("pull", |pod| reason(pod) == "ImagePullBackOff").await;
    let message =
        pod["status"]["containerStatuses"][0]["state"]["waiting"]["message"].as_str().unwrap();
    assert!(message.starts_with("Back-off pulling image \"missing/app:1\": "), "{message}");
    assert_eq!(node.engine.pulls(), 1);

    node.pod("never", json!({ "containers": [{ "name": "main", "image": "missing/app:1", "imagePullPolicy": "Never" }] }));
    node.until("never", |pod| reason(pod) == "ErrImageNeverPull").await;

    node.pod("import", json!({ "containers": [{ "name": "main", "image": "import:1" }] }));
    let pod = node.until("import", |pod| reason(pod) == "CreateContainerError").await;
    let message = &pod["status"]["containerStatuses"][0]["state"]["waiting"]["message"];
    assert!(message.as_str().unwrap().contains("env::magic"));
}

#[tokio::test(flavor = "multi_thread")]
async fn env_and_volumes_wait_for_what_they_name_and_follow_it() {
    let node = TestNode::start().await;
    node.pod("conf", json!({
        "containers": [{
            "name": "main", "image": "serve:1",
            "env": [
                { "name": "MODE", "valueFrom": { "configMapKeyRef": { "name": "settings", "key": "mode" } } },
                { "name": "WHO", "valueFrom": { "fieldRef": { "fieldPath": "metadata.name" } } },
                { "name": "BOTH", "value": "$(WHO) is $(MODE)" },
            ],
            "args": ["--mode=$(MODE)"],
            "volumeMounts": [{ "name": "settings", "mountPath": "/settings" }, { "name": "token", "mountPath": "/token" }],
        }],
        "volumes": [
            { "name": "settings", "configMap": { "name": "settings" } },
            { "name": "token", "projected": { "sources": [{ "serviceAccountToken": { "path": "token" } }] } },
        ],
    }));
    assert_eq!(
        node.event("conf", "FailedMount").await,
        "MountVolume.SetUp failed for volume \"settings\" : configmap \"settings\" not found"
    );

    let maps = "/api/v1/namespaces/default/configmaps";
    let settings =
        |mode: &str| json!({ "metadata": { "name": "settings" }, "data": { "mode": mode } });
    node.api.put(maps, settings("calm"));
    node.until_ready("conf").await;
    let spec = node.engine.spec_of("main").unwrap();
    let value = |name: &str| {
        spec.env.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    };
    assert_eq!(
        (value("MODE"), value("BOTH"), value("HOSTNAME")),
        (Some("calm"), Some("conf is calm"), Some("conf"))
    );
    assert_eq!(spec.args, ["--mode=calm"]);
    let file = |path: &str, name: &str| {
        let mount = spec.mounts.iter().find(|mount| mount.container_path == path).unwrap();
        std::fs::read_to_string(mount.host_path.join(name)).unwrap()
    };
    assert_eq!(
        (file("/settings", "mode"), file("/token", "token")),
        ("calm".to_owned(), "a-token".to_owned())
    );

    node.api.put(maps, settings("wild"));
    let deadline = Instant::now() + DEADLINE;
    while file("/settings", "mode") != "wild" {
        assert!(Instant::now() < deadline, "the file did not follow");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_readiness_probe_decides_and_a_liveness_probe_restarts() {
    let node = TestNode::start().await;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let app = axum::Router::new().route("/ready", axum::routing::get(|| async { "yes" })).route(
        "/sick",
        axum::routing::get(|| async { axum::http::StatusCode::INTERNAL_SERVER_ERROR }),
    );
    let server = tokio::spawn(async move { axum::serve(listener, app).await });
    let probe = |path: &str| json!({ "httpGet": { "path": path, "port": "http" }, "periodSeconds": 1, "failureThreshold": 1 });
    let ports = json!([{ "name": "http", "containerPort": port }]);
    node.pod("well", json!({ "containers": [{ "name": "main", "image": "serve:1", "ports": ports, "readinessProbe": probe("/ready") }] }));
    node.until_ready("well").await;

    node.pod("busy", json!({ "containers": [{ "name": "main", "image": "serve:1", "ports": ports, "readinessProbe": probe("/sick") }] }));
    assert_eq!(
        node.event("busy", "Unhealthy").await,
        "Readiness probe failed: HTTP probe failed with statuscode: 500"
    );
    assert_eq!(condition(&node.until("busy", |_| true).await, "Ready"), "False");

    node.pod("sick", json!({ "containers": [{ "name": "main", "image": "serve:1", "ports": ports, "livenessProbe": probe("/sick") }] }));
    assert_eq!(
        node.event("sick", "Killing").await,
        "Container main failed liveness probe, will be restarted"
    );
    node.until("sick", |pod| {
        pod["status"]["containerStatuses"][0]["restartCount"].as_i64() >= Some(1)
    })
    .await;
    server.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restarted_node_runs_its_pods_again() {
    let mut node = TestNode::start().await;
    node.pod("web", serving());
    node.pod("done", json!({ "restartPolicy": "Never", "containers": [{ "name": "main", "image": "exit-0:1" }] }));
    node.pod(
        "once",
        json!({ "restartPolicy": "Never", "containers": [{ "name": "main", "image": "serve:1" }] }),
    );
    node.until_ready("web").await;
    node.until_ready("once").await;
    let done = node.until("done", |pod| pod["status"]["phase"] == "Succeeded").await;
    std::fs::create_dir_all(node.data.path().join("pods/uid-forgotten")).unwrap();

    node.stop().await;
    let left = node.api.get(PODS, "web").unwrap();
    let seen = (condition(&left, "Ready"), &left["status"]["phase"]);
    assert_eq!(seen, ("False", &json!("Running")), "{left}");
    let ended = &left["status"]["containerStatuses"][0]["state"]["terminated"];
    assert_eq!(ended["exitCode"], 143, "{left}");
    let host = node.api.get("/api/v1/nodes", "node-0").unwrap();
    assert_eq!(condition(&host, "Ready"), "False");

    node.restart().await;
    let again = |pod: &Value| {
        pod["status"]["containerStatuses"][0]["restartCount"] == 1
            && condition(pod, "Ready") == "True"
    };
    let web = node.until("web", again).await;
    assert_eq!(web["status"]["containerStatuses"][0]["lastState"]["terminated"]["reason"], "Error");
    let once = node.until("once", |pod| pod["status"]["phase"] == "Failed").await;
    assert_eq!(once["status"]["containerStatuses"][0]["state"]["terminated"]["exitCode"], 143);
    let still = node.until("done", |_| true).await;
    for part in ["phase", "containerStatuses"] {
        assert_eq!(still["status"][part], done["status"][part], "what had ended stays as it was");
    }
    assert!(!node.data.path().join("pods/uid-forgotten").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_died_is_ready_only_when_no_pod_is_shown_ready_that_is_not() {
    let mut node = TestNode::start().await;
    node.pod("web", serving());
    let mut web = node.until_ready("web").await;
    node.stop().await;
    // As if the last words had never been written; and now it cannot start.
    web["spec"]["containers"][0]["image"] = json!("missing:1");
    node.api.put(PODS, web);
    node.api.remove("/api/v1/nodes", "node-0");

    node.restart().await;
    let web = node.api.get(PODS, "web").unwrap();
    assert_eq!(condition(&web, "Ready"), "False");
    let ended =
        |pod: &Value| pod["status"]["containerStatuses"][0]["lastState"]["terminated"].clone();
    let web = node.until("web", |pod| ended(pod).is_object()).await;
    assert_eq!(ended(&web)["reason"], "ContainerStatusUnknown");
    assert_eq!(ended(&web)["exitCode"], 137);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_past_its_deadline_fails() {
    let node = TestNode::start().await;
    node.pod("late", json!({ "activeDeadlineSeconds": 1, "containers": [{ "name": "main", "image": "serve:1" }] }));
    node.until_ready("late").await;
    let late = node.until("late", |pod| pod["status"]["phase"] == "Failed").await;
    assert_eq!(late["status"]["reason"], "DeadlineExceeded");
    assert_eq!(
        late["status"]["message"],
        "Pod was active on the node longer than the specified deadline"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_fit_is_refused() {
    let node = TestNode::start().await;
    node.pod("big", json!({ "containers": [{ "name": "main", "image": "serve:1", "resources": { "requests": { "cpu": "5" } } }] }));
    let big = node.until("big", |pod| pod["status"]["phase"] == "Failed").await;
    assert_eq!(big["status"]["reason"], "OutOfcpu");
    node.event("big", "OutOfcpu").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_pods_become_ready_at_once() {
    let node = TestNode::start().await;
    for at in 0..1000 {
        node.pod(&format!("web-{at}"), serving());
    }
    for at in 0..1000 {
        node.until_ready(&format!("web-{at}")).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_node_tells_what_it_is() {
    let node = TestNode::start().await;
    let found = node.api.until("/api/v1/nodes", "node-0", |_| true).await;
    assert_eq!(found["status"]["nodeInfo"]["kubeletVersion"], "v1.37.0+coracle");
    assert_eq!(found["status"]["nodeInfo"]["containerRuntimeVersion"], "wasmtime://memory");
    assert_eq!(found["status"]["capacity"]["cpu"], "4");
    assert_eq!(found["metadata"]["labels"]["kubernetes.io/hostname"], "node-0");
    assert_eq!(found["metadata"]["labels"]["tier"], "test");
    let ready = found["status"]["conditions"]
        .as_array()
        .unwrap()
        .iter()
        .find(|one| one["type"] == "Ready")
        .unwrap();
    assert_eq!((&ready["status"], &ready["reason"]), (&json!("True"), &json!("KubeletReady")));
    let lease = node
        .api
        .until("/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases", "node-0", |_| true)
        .await;
    assert_eq!(lease["spec"]["holderIdentity"], "node-0");
    assert_eq!(lease["metadata"]["ownerReferences"][0]["kind"], "Node");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_forced_deletion_ends_what_runs() {
    let node = TestNode::start().await;
    node.pod("web", serving());
    node.until_ready("web").await;
    node.api.remove(PODS, "web");
    let deadline = Instant::now() + DEADLINE;
    while node.engine.sandboxes() > 0 {
        assert!(Instant::now() < deadline, "it still runs");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn logs_are_served_to_the_end_of_the_container() {
    let node = TestNode::start().await;
    node.pod("web", serving());
    node.until_ready("web").await;
    node.engine.print("main", "hello");
    assert_eq!(node.logs("web/main", "").await, (200, "hello\n".to_owned()));
    assert_eq!(
        node.logs("web/none", "").await,
        (404, "container \"none\" not found in pod \"web\"".to_owned())
    );
    assert_eq!(node.logs("none/main", "").await, (404, "pod \"none\" does not exist".to_owned()));
    let previous = node.logs("web/main", "?previous=true").await;
    assert_eq!(
        previous,
        (400, "previous terminated container \"main\" in pod \"web\" not found".to_owned())
    );

    let text = node
        .follow("web/main", |text| {
            if text == "hello\n" {
                node.engine.print("main", "bye");
                node.engine.end("main", 1);
            }
        })
        .await;
    assert_eq!(text, "hello\nbye\n");
    node.until("web", |pod| pod["status"]["containerStatuses"][0]["restartCount"] == 1).await;
    assert_eq!(node.logs("web/main", "?previous=true").await, (200, "hello\nbye\n".to_owned()));

    node.pod("pull", json!({ "containers": [{ "name": "main", "image": "missing/app:1" }] }));
    node.until("pull", |pod| {
        pod["status"]["containerStatuses"][0]["state"]["waiting"]["reason"] == "ErrImagePull"
    })
    .await;
    let waiting = node.logs("pull/main", "").await;
    assert_eq!(
        waiting,
        (
            400,
            "container \"main\" in pod \"pull\" is waiting to start: image can't be pulled"
                .to_owned()
        )
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_api_server_may_ask_for_logs() {
    let node = TestNode::start().await;
    assert!(node.connect_without_certificate().await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_image_restarts_its_container() {
    let node = TestNode::start().await;
    node.pod("web", serving());
    let mut pod = node.until_ready("web").await;
    pod["spec"]["containers"][0]["image"] = json!("serve:2");
    node.api.put(PODS, pod);
    let changed =
        |pod: &Value| pod["status"]["containerStatuses"][0]["imageID"] == "sha256:serve:2";
    // A change that takes milliseconds is told once: nobody sees the pod unready in between.
    let mut pod = node
        .until("web", |pod| {
            assert_eq!(condition(pod, "Ready"), "True", "{pod:#}");
            changed(pod)
        })
        .await;
    assert_eq!(pod["status"]["containerStatuses"][0]["restartCount"], 1);
    assert_eq!(
        node.event("web", "Killing").await,
        "Container main definition changed, will be restarted"
    );
    // An image that cannot be had is told, and another is tried at once.
    pod["spec"]["containers"][0]["image"] = json!("missing/app:1");
    node.api.put(PODS, pod);
    let mut pod = node.until("web", |pod| condition(pod, "Ready") == "False").await;
    pod["spec"]["containers"][0]["image"] = json!("serve:3");
    node.api.put(PODS, pod);
    node.until("web", |pod| condition(pod, "Ready") == "True").await;
}
