//! How pods begin, go on, and end.

use super::*;

#[test]
fn init_containers_run_one_by_one_before_the_others() {
    let cluster = with_guests();
    let note = |name: &str, words: &str| {
        with(
            probe(name, words),
            "volumeMounts",
            json!([{ "name": "notes", "mountPath": "/notes" }]),
        )
    };
    apply(
        &cluster,
        "ordered",
        json!({
            "restartPolicy": "Never",
            "initContainers": [
                note("first", "sleep 300 ls /notes write /notes/first x"),
                note("second", "sleep 300 ls /notes write /notes/second x"),
            ],
            "containers": [note("main", "ls /notes")],
            "volumes": [{ "name": "notes", "emptyDir": {} }],
        }),
    );
    cluster.until("the init containers are shown in the list", |cluster| {
        cluster.kubectl(&["get", "pod", "ordered"]).contains("Init:1/2")
    });
    let pod = until_phase(&cluster, "ordered", "Succeeded");
    for name in ["first", "second", "main"] {
        assert_eq!(status(&pod, name)["state"]["terminated"]["reason"], "Completed", "{name}");
    }
    assert_eq!(cluster.kubectl(&["logs", "ordered", "-c", "first"]), "ls \nwrite done\n");
    assert_eq!(cluster.kubectl(&["logs", "ordered", "-c", "second"]), "ls first\nwrite done\n");
    assert_eq!(cluster.kubectl(&["logs", "ordered"]), "ls first second\n");
    let listed = cluster.kubectl(&["get", "pod", "ordered"]);
    assert!(listed.contains("0/1") && listed.contains("Completed"), "{listed}");
}

#[test]
fn a_failing_init_container_holds_the_pod_back_or_fails_it() {
    let cluster = with_guests();
    let spec = |policy: &str| {
        json!({
            "restartPolicy": policy,
            "initContainers": [probe("broken", "print sorry exit 1")],
            "containers": [probe("main", "print never")],
        })
    };
    apply(&cluster, "gives-up", spec("Never"));
    let pod = until_phase(&cluster, "gives-up", "Failed");
    assert_eq!(status(&pod, "broken")["state"]["terminated"]["exitCode"], 1);
    assert_eq!(status(&pod, "main")["state"]["waiting"]["reason"], "PodInitializing");
    assert_eq!(condition(&pod, "Initialized")["status"], "False");
    let incomplete = "containers with incomplete status: [broken]";
    assert_eq!(condition(&pod, "Initialized")["message"], incomplete);
    let listed = cluster.kubectl(&["get", "pod", "gives-up"]);
    assert!(listed.contains("Init:Error"), "{listed}");

    apply(&cluster, "tries-on", spec("Always"));
    let pod = until(&cluster, "tries-on", "it backs off", |pod| {
        status(pod, "broken")["state"]["waiting"]["reason"] == "CrashLoopBackOff"
    });
    assert_eq!(pod["status"]["phase"], "Pending");
    assert!(status(&pod, "broken")["restartCount"].as_i64() >= Some(1));
    let listed = cluster.kubectl(&["get", "pod", "tries-on"]);
    assert!(listed.contains("Init:CrashLoopBackOff"), "{listed}");
    let refused = cluster.kubectl_refused(&["logs", "tries-on", "-c", "main"]);
    let waits = "container \"main\" in pod \"tries-on\" is waiting to start: PodInitializing";
    assert!(refused.contains(waits), "{refused}");
}

#[test]
fn a_sidecar_starts_first_stays_and_ends_last() {
    let cluster = with_guests();
    let sidecar =
        with(probe("helper", "print helping sleep 600000"), "restartPolicy", json!("Always"));
    apply(
        &cluster,
        "helped",
        json!({
            "restartPolicy": "Never",
            "initContainers": [sidecar, probe("then", "print prepared")],
            "containers": [probe("main", "print working sleep 1000")],
        }),
    );
    let pod = until_ready(&cluster, "helped");
    assert!(status(&pod, "helper")["state"]["running"].is_object(), "{pod}");
    let listed = cluster.kubectl(&["get", "pod", "helped"]);
    assert!(listed.contains("2/2") && listed.contains("Running"), "{listed}");
    let pod = until_phase(&cluster, "helped", "Succeeded");
    let begun = |name: &str| {
        status(&pod, name)["state"]["terminated"]["startedAt"].as_str().unwrap().to_owned()
    };
    assert!(begun("helper") <= begun("then") && begun("then") <= begun("main"));
    assert_eq!(status(&pod, "main")["state"]["terminated"]["exitCode"], 0);
    assert_eq!(status(&pod, "helper")["state"]["terminated"]["exitCode"], 143, "it was stopped");
}

#[test]
fn a_sidecar_that_ends_is_started_again() {
    let cluster = with_guests();
    let sidecar = with(probe("helper", "sleep 200"), "restartPolicy", json!("Always"));
    apply(
        &cluster,
        "helped",
        json!({ "initContainers": [sidecar], "containers": [web("main", 8080)] }),
    );
    until(&cluster, "helped", "the sidecar was started again", |pod| {
        status(pod, "helper")["restartCount"].as_i64() >= Some(1)
    });
    let pod = cluster.json(&["pod", "helped"]);
    assert_eq!(status(&pod, "main")["restartCount"], 0);
}

// ---- how they are asked how they are

#[test]
fn an_exit_code_means_what_the_restart_policy_says() {
    let cluster = Cluster::start();
    for code in [0, 1, 3] {
        cluster.import_text(&guests::exits(code), &format!("exit-{code}.wasm"));
    }
    let name = |policy: &str, code: u8| format!("{}-{code}", policy.to_lowercase());
    for policy in ["Never", "OnFailure", "Always"] {
        for code in [0, 1, 3] {
            let image = format!("exit-{code}.wasm");
            let container =
                json!({ "name": "c", "image": image, "imagePullPolicy": "IfNotPresent" });
            apply(
                &cluster,
                &name(policy, code),
                json!({ "restartPolicy": policy, "containers": [container] }),
            );
        }
    }
    let ends = |policy: &str, code: u8, phase: &str, reason: &str| {
        let pod = until_phase(&cluster, &name(policy, code), phase);
        let ended = &status(&pod, "c")["state"]["terminated"];
        assert_eq!((&ended["exitCode"], &ended["reason"]), (&json!(code), &json!(reason)));
        assert_eq!(status(&pod, "c")["restartCount"], 0);
    };
    ends("Never", 0, "Succeeded", "Completed");
    ends("Never", 1, "Failed", "Error");
    ends("Never", 3, "Failed", "Error");
    ends("OnFailure", 0, "Succeeded", "Completed");
    let restarts = |policy: &str, code: u8, reason: &str| {
        let pod = until(&cluster, &name(policy, code), "it is started again", |pod| {
            status(pod, "c")["restartCount"].as_i64() >= Some(1)
                && status(pod, "c")["state"]["waiting"]["reason"] == "CrashLoopBackOff"
        });
        let ended = &status(&pod, "c")["lastState"]["terminated"];
        assert_eq!((&ended["exitCode"], &ended["reason"]), (&json!(code), &json!(reason)));
        assert_eq!(pod["status"]["phase"], "Running");
    };
    restarts("OnFailure", 1, "Error");
    restarts("OnFailure", 3, "Error");
    restarts("Always", 0, "Completed");
    restarts("Always", 3, "Error");
    let listed = cluster.kubectl(&["get", "pods"]);
    let shows = |pod: &str, word: &str| {
        let line = listed.lines().find(|line| line.starts_with(pod)).unwrap_or_default();
        assert!(line.contains(word), "{word}: {listed}");
    };
    shows("never-0", "Completed");
    shows("never-3", "Error");
    shows("always-1", "CrashLoopBackOff");
}

#[test]
fn a_pod_past_its_deadline_fails() {
    let cluster = with_guests();
    apply(
        &cluster,
        "late",
        json!({ "activeDeadlineSeconds": 1, "containers": [probe("c", "sleep 600000")] }),
    );
    let pod = until_phase(&cluster, "late", "Failed");
    assert_eq!(pod["status"]["reason"], "DeadlineExceeded");
    let message = "Pod was active on the node longer than the specified deadline";
    assert_eq!(pod["status"]["message"], message);
    until(&cluster, "late", "the container has ended", |pod| {
        status(pod, "c")["state"]["terminated"].is_object()
    });
    let text = cluster.kubectl(&["describe", "pod", "late"]);
    assert!(text.contains("DeadlineExceeded") && text.contains(message), "{text}");
}

#[test]
fn a_server_finishes_its_answers_within_its_grace_and_not_beyond() {
    let cluster = with_guests();
    let ends = |name: &str, grace: u64, busy: u64| {
        let spec =
            json!({ "terminationGracePeriodSeconds": grace, "containers": [web("c", 8080)] });
        apply(&cluster, name, spec);
        let address = address(&until_ready(&cluster, name), 8080);
        let path = format!("/sleep?{}", busy * 1000);
        let asking = thread::spawn(move || get(address, &path));
        // It has the request once it has taken the connection.
        thread::sleep(Duration::from_millis(300));
        let began = Instant::now();
        cluster.kubectl(&["delete", "pod", name, "--timeout=30s"]);
        (asking.join().unwrap(), began.elapsed())
    };
    let (answer, took) = ends("patient", 20, 2);
    assert_eq!(answer.unwrap().body, "slept");
    assert!(took < Duration::from_secs(10), "{took:?}");
    let (answer, took) = ends("hasty", 1, 30);
    assert!(
        answer.is_err() || answer.as_ref().is_ok_and(|answer| answer.status != 200),
        "{answer:?}"
    );
    assert!(took < Duration::from_secs(8), "{took:?}");
}

#[test]
fn hooks_run_after_the_start_and_before_the_stop() {
    let cluster = with_guests();
    let hooked = |name: &str, lifecycle: Value| {
        let container = with(web("c", 8080), "lifecycle", lifecycle);
        apply(
            &cluster,
            name,
            json!({ "terminationGracePeriodSeconds": 5, "containers": [container] }),
        );
    };
    let call = |path: &str| json!({ "httpGet": { "port": 8080, "path": path } });
    hooked(
        "hooked",
        json!({ "postStart": call("/print?began"), "preStop": { "sleep": { "seconds": 1 } } }),
    );
    until_ready(&cluster, "hooked");
    cluster.until("the hook's line is there", |cluster| {
        cluster.kubectl(&["logs", "hooked"]) == "began\n"
    });
    let began = Instant::now();
    cluster.kubectl(&["delete", "pod", "hooked", "--timeout=30s"]);
    assert!(began.elapsed() >= Duration::from_secs(1), "{:?}", began.elapsed());

    hooked("broken", json!({ "postStart": call("/nothing") }));
    until_event(&cluster, "broken", "PostStartHook failed");
    until(&cluster, "broken", "it is started again", |pod| {
        status(pod, "c")["restartCount"].as_i64() >= Some(1)
    });
}

#[test]
fn a_pod_that_is_deleted_by_force_is_gone_at_once_and_leaves_nothing() {
    let cluster = with_guests();
    apply(&cluster, "forced", json!({ "containers": [web("c", 8080)] }));
    let pod = until_ready(&cluster, "forced");
    let uid = pod["metadata"]["uid"].as_str().unwrap();
    cluster.kubectl(&["delete", "pod", "forced", "--force", "--grace-period=0"]);
    assert!(cluster.kubectl_refused(&["get", "pod", "forced"]).contains("NotFound"));
    let address = address(&pod, 8080);
    cluster.until("nobody listens there", |_| get(address, "/").is_err());
    let folder = cluster.data_dir().join("kubelet/pods").join(uid);
    cluster.until("its files are gone", |_| !folder.exists());
}

#[test]
fn a_new_image_restarts_the_container_in_its_pod() {
    let cluster = with_guests();
    cluster.import(&test_guest("web"), "web.wasm:2");
    apply(
        &cluster,
        "changed",
        json!({ "terminationGracePeriodSeconds": 1, "containers": [web("c", 8080)] }),
    );
    let before = until_ready(&cluster, "changed");
    cluster.kubectl(&["set", "image", "pod/changed", "c=web.wasm:2"]);
    let pod = until(&cluster, "changed", "it runs again", |pod| {
        status(pod, "c")["restartCount"] == 1 && condition(pod, "Ready")["status"] == "True"
    });
    assert_eq!(status(&pod, "c")["image"], "web.wasm:2");
    assert_eq!(pod["status"]["podIP"], before["status"]["podIP"], "the pod keeps its address");
    until_event(&cluster, "changed", "Container c definition changed, will be restarted");
}

#[test]
fn no_pod_is_shown_ready_that_does_not_answer_after_a_stop() {
    let mut cluster = with_guests();
    let note = json!([{ "name": "notes", "mountPath": "/notes" }]);
    let keeper = with(
        probe("keeper", "read /notes/note write /notes/note kept sleep 600000"),
        "volumeMounts",
        note,
    );
    let volumes = json!([{ "name": "notes", "emptyDir": {} }]);
    apply(&cluster, "stays", json!({ "containers": [web("c", 8080), keeper], "volumes": volumes }));
    let job = json!({ "restartPolicy": "Never", "containers": [probe("c", "sleep 600000")] });
    apply(&cluster, "once", job);
    until_ready(&cluster, "stays");
    until_ready(&cluster, "once");
    for round in 1..=2 {
        assert_eq!(cluster.stop(), Some(0), "{}", cluster.log());
        cluster.run();
        let pod = cluster.json(&["pod", "stays"]);
        if condition(&pod, "Ready")["status"] == "True" {
            assert_eq!(get(address(&pod, 8080), "/").unwrap().body, "hello\n");
        }
        let pod = until_ready(&cluster, "stays");
        assert_eq!(get(address(&pod, 8080), "/").unwrap().body, "hello\n");
        assert_eq!(status(&pod, "c")["restartCount"], round);
        assert_eq!(status(&pod, "c")["lastState"]["terminated"]["reason"], "Completed");
        cluster.until("its files are still there", |cluster| {
            cluster.kubectl(&["logs", "stays", "-c", "keeper"]).contains("read kept")
        });
    }
    let pod = until_phase(&cluster, "once", "Failed");
    assert_eq!(status(&pod, "c")["state"]["terminated"]["exitCode"], 143, "it ended with its node");
}

// ---- what they may use

#[test]
fn describe_tells_all_of_a_pod() {
    let cluster = with_guests();
    cluster.kubectl(&["create", "configmap", "config", "--from-literal=one=first"]);
    let mut container = web("main", 8080);
    container["env"] = json!([
        { "name": "ONE", "valueFrom": { "configMapKeyRef": { "name": "config", "key": "one" } } },
        { "name": "POD", "valueFrom": { "fieldRef": { "fieldPath": "metadata.name" } } },
    ]);
    container["resources"] =
        json!({ "limits": { "memory": "64Mi" }, "requests": { "cpu": "10m" } });
    container["livenessProbe"] = json!({ "tcpSocket": { "port": 8080 } });
    container["readinessProbe"] =
        json!({ "httpGet": { "path": "/", "port": 8080 }, "periodSeconds": 1 });
    container["volumeMounts"] =
        json!([{ "name": "config", "mountPath": "/config", "readOnly": true }]);
    apply(
        &cluster,
        "told",
        json!({
            "initContainers": [probe("before", "print prepared")],
            "containers": [container],
            "volumes": [{ "name": "config", "configMap": { "name": "config" } }],
        }),
    );
    let pod = until_ready(&cluster, "told");
    let ip = pod["status"]["podIP"].as_str().unwrap();
    until_event(&cluster, "told", "Container started");
    let text = cluster.kubectl(&["describe", "pod", "told"]);
    let squeezed = text.split_whitespace().collect::<Vec<_>>().join(" ");
    for expected in [
        "Name: told Namespace: default Priority: 0 Service Account: default Node: node-0/127.0.0.1",
        "Labels: app=told",
        &format!("Status: Running IP: {ip} IPs: IP: {ip}"),
        "Init Containers: before: Container ID: wasm://",
        "Image: probe.wasm Image ID: sha256:",
        "State: Terminated Reason: Completed Exit Code: 0",
        "Containers: main: Container ID: wasm://",
        "Port: 8080/TCP Host Port: 0/TCP State: Running Started:",
        "Ready: True Restart Count: 0 Limits: memory: 64Mi Requests: cpu: 10m memory: 64Mi",
        "Liveness: tcp-socket :8080 delay=0s timeout=1s period=10s successThreshold=1 failureThreshold=3",
        "Readiness: http-get http://:8080/ delay=0s timeout=1s period=1s successThreshold=1 failureThreshold=3",
        "ONE: <set to the key 'one' of config map 'config'> Optional: false",
        "POD: told (v1:metadata.name)",
        "/config from config (ro)",
        "/var/run/secrets/kubernetes.io/serviceaccount from kube-api-access-",
        "PodReadyToStartContainers True Initialized True Ready True ContainersReady True PodScheduled True",
        "config: Type: ConfigMap (a volume populated by a ConfigMap) Name: config Optional: false",
        "TokenExpirationSeconds: 3607",
        "QoS Class: Burstable Node-Selectors: <none>",
        "Tolerations: node.kubernetes.io/not-ready:NoExecute op=Exists for 300s node.kubernetes.io/unreachable:NoExecute op=Exists for 300s",
        "Successfully assigned default/told to node-0",
        "Container image \"web.wasm\" already present on machine",
    ] {
        assert!(squeezed.contains(expected), "no {expected:?} in\n{text}");
    }
    let order = ["Scheduled", "Pulled", "Created", "Started"];
    let events = cluster.kubectl(&["events", "--for", "pod/told", "--no-headers"]);
    for reason in order {
        assert!(events.contains(reason), "no {reason}: {events}");
    }
}

#[test]
fn a_container_says_why_it_ends() {
    let cluster = with_guests();
    let check = |name: &str, words: &str, fields: Value, message: &str| {
        let mut container = probe("c", words);
        for (field, value) in fields.as_object().unwrap() {
            container[field] = value.clone();
        }
        apply(&cluster, name, json!({ "restartPolicy": "Never", "containers": [container] }));
        let pod = until(&cluster, name, "it is over", |pod| {
            ["Succeeded", "Failed"].iter().any(|phase| pod["status"]["phase"] == *phase)
        });
        let found = &status(&pod, "c")["state"]["terminated"]["message"];
        assert_eq!(found.as_str().unwrap_or_default(), message, "{name}: {pod:#}");
    };
    let own = "print hello write /dev/termination-log bye";
    let from_log = json!({ "terminationMessagePolicy": "FallbackToLogsOnError" });
    check("wrote", own, json!({}), "bye");
    check("wrote-and-failed", &format!("{own} exit 1"), from_log.clone(), "bye");
    let elsewhere = json!({ "terminationMessagePath": "/run/last/words" });
    check("wrote-elsewhere", "write /run/last/words bye", elsewhere, "bye");
    check("logged-and-failed", "print hello exit 1", from_log.clone(), "hello\n");
    check("logged-and-succeeded", "print hello", from_log, "");
    check("kept-quiet", "print hello exit 1", json!({}), "");
}
