//! How pods live: what they are given, how they start, are asked how they are, and end.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use coracle_tests::{Cluster, get, guests, test_guest};
use serde_json::{Value, json};

fn with_guests() -> Cluster {
    let cluster = Cluster::start();
    for name in ["probe", "web"] {
        cluster.import(&test_guest(name), &format!("{name}.wasm"));
    }
    cluster
}

/// A container that does what the words say.
fn probe(name: &str, words: &str) -> Value {
    let words: Vec<&str> = words.split(' ').collect();
    json!({ "name": name, "image": "probe.wasm", "imagePullPolicy": "IfNotPresent", "args": words })
}

/// A container that answers HTTP.
fn web(name: &str, port: u16) -> Value {
    json!({ "name": name, "image": "web.wasm", "imagePullPolicy": "IfNotPresent", "ports": [{ "containerPort": port }] })
}

fn with(mut container: Value, name: &str, value: Value) -> Value {
    container[name] = value;
    container
}

fn manifest(name: &str, spec: Value) -> Value {
    json!({ "apiVersion": "v1", "kind": "Pod", "metadata": { "name": name, "labels": { "app": name } }, "spec": spec })
}

fn apply(cluster: &Cluster, name: &str, spec: Value) {
    cluster.apply(&manifest(name, spec).to_string());
}

#[track_caller]
fn until_phase(cluster: &Cluster, name: &str, phase: &str) -> Value {
    let condition = format!("--for=jsonpath={{.status.phase}}={phase}");
    let pod = format!("pod/{name}");
    let waited = cluster.try_kubectl(&["wait", &condition, &pod, "--timeout=40s"]);
    assert_eq!(waited.code, Some(0), "{waited:?}\n{}", cluster.kubectl(&["describe", &pod]));
    cluster.json(&["pod", name])
}

#[track_caller]
fn until_ready(cluster: &Cluster, name: &str) -> Value {
    let pod = format!("pod/{name}");
    let waited = cluster.try_kubectl(&["wait", "--for=condition=Ready", &pod, "--timeout=40s"]);
    assert_eq!(waited.code, Some(0), "{waited:?}\n{}", cluster.kubectl(&["describe", &pod]));
    cluster.json(&["pod", name])
}

/// Waits until the pod is as wished, and answers it.
#[track_caller]
fn until(cluster: &Cluster, name: &str, what: &str, wish: impl Fn(&Value) -> bool) -> Value {
    let mut pod = Value::Null;
    cluster.until(what, |cluster| {
        pod = cluster.json(&["pod", name]);
        wish(&pod)
    });
    pod
}

#[track_caller]
fn until_event(cluster: &Cluster, name: &str, text: &str) {
    let about = format!("pod/{name}");
    cluster.until(text, |cluster| cluster.kubectl(&["events", "--for", &about]).contains(text));
}

fn status<'a>(pod: &'a Value, container: &str) -> &'a Value {
    let list = |name: &str| pod["status"][name].as_array().into_iter().flatten();
    let mut all = list("containerStatuses").chain(list("initContainerStatuses"));
    all.find(|status| status["name"] == container).unwrap_or(&Value::Null)
}

fn condition<'a>(pod: &'a Value, name: &str) -> &'a Value {
    let mut all = pod["status"]["conditions"].as_array().into_iter().flatten();
    all.find(|condition| condition["type"] == name).unwrap_or(&Value::Null)
}

fn address(pod: &Value, port: u16) -> SocketAddr {
    SocketAddr::new(pod["status"]["podIP"].as_str().unwrap().parse().unwrap(), port)
}

/// Says to every probe how a container is, as the test decides.
struct Doctor {
    port: u16,
    well: Arc<AtomicBool>,
}

impl Doctor {
    fn new(well: bool) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let well = Arc::new(AtomicBool::new(well));
        let says = Arc::clone(&well);
        // It ends with the test's process.
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let mut reader = BufReader::new(stream);
                let mut line = String::new();
                while reader.read_line(&mut line).is_ok_and(|read| read > 2) {
                    line.clear();
                }
                let status = if says.load(Ordering::SeqCst) { "200 OK" } else { "503 Sick" };
                let answer =
                    format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
                let _ = reader.into_inner().write_all(answer.as_bytes());
            }
        });
        Self { port, well }
    }

    fn says(&self, well: bool) {
        self.well.store(well, Ordering::SeqCst);
    }

    fn probe(&self, failures: u32) -> Value {
        json!({
            "httpGet": { "host": "127.0.0.1", "port": self.port, "path": "/how" },
            "periodSeconds": 1, "failureThreshold": failures,
        })
    }
}

// ---- what they are given

#[test]
fn the_environment_comes_from_every_source() {
    let cluster = with_guests();
    cluster.kubectl(&[
        "create",
        "configmap",
        "config",
        "--from-literal=one=first",
        "--from-literal=two=second",
    ]);
    cluster.kubectl(&["create", "secret", "generic", "secret", "--from-literal=key=hush"]);
    cluster.kubectl(&["create", "service", "clusterip", "db-main", "--tcp=5432:5432"]);
    let field = |name: &str, path: &str| json!({ "name": name, "valueFrom": { "fieldRef": { "fieldPath": path } } });
    let resource = |name: &str, resource: &str, divisor: &str| json!({ "name": name, "valueFrom": { "resourceFieldRef": { "resource": resource, "divisor": divisor } } });
    let container = json!({
        "name": "c", "image": "probe.wasm", "imagePullPolicy": "IfNotPresent",
        "command": ["/bin/$(PLAIN)"], "args": ["args", "env", "print", "$(JOINED) $$(PLAIN) $(ABSENT)"],
        "resources": { "limits": { "cpu": "1500m", "memory": "64Mi" }, "requests": { "cpu": "250m" } },
        "envFrom": [
            { "prefix": "CFG_", "configMapRef": { "name": "config" } },
            { "prefix": "SEC_", "secretRef": { "name": "secret" } },
            { "configMapRef": { "name": "nobody", "optional": true } },
        ],
        "env": [
            { "name": "PLAIN", "value": "plain" },
            { "name": "JOINED", "value": "$(PLAIN)-$(CFG_one)-$(LATER)" },
            { "name": "LATER", "value": "later" },
            { "name": "FROM_MAP", "valueFrom": { "configMapKeyRef": { "name": "config", "key": "two" } } },
            { "name": "FROM_SECRET", "valueFrom": { "secretKeyRef": { "name": "secret", "key": "key" } } },
            { "name": "MAYBE", "valueFrom": { "configMapKeyRef": { "name": "config", "key": "three", "optional": true } } },
            { "name": "MAYBE_SECRET", "valueFrom": { "secretKeyRef": { "name": "nobody", "key": "three", "optional": true } } },
            field("POD", "metadata.name"), field("NAMESPACE", "metadata.namespace"), field("UID_", "metadata.uid"),
            field("APP", "metadata.labels['app']"), field("NODE", "spec.nodeName"), field("IP", "status.podIP"),
            field("HOST", "status.hostIP"), field("ACCOUNT", "spec.serviceAccountName"),
            resource("CPU", "limits.cpu", "1m"), resource("CPU_WHOLE", "limits.cpu", "0"),
            resource("MEMORY", "limits.memory", "1Mi"), resource("ASKED", "requests.cpu", "1m"),
        ],
    });
    apply(&cluster, "given", json!({ "restartPolicy": "Never", "containers": [container] }));
    let pod = until_phase(&cluster, "given", "Succeeded");
    let text = cluster.kubectl(&["logs", "given"]);
    let mut lines = text.lines();
    assert_eq!(
        lines.next(),
        Some(
            r#"["/bin/plain", "args", "env", "print", "plain-first-$(LATER) $(PLAIN) $(ABSENT)"]"#
        )
    );
    let given: BTreeSet<&str> = lines.next().unwrap().split(' ').collect();
    let ip = pod["status"]["podIP"].as_str().unwrap();
    let uid = pod["metadata"]["uid"].as_str().unwrap();
    let db =
        cluster.json(&["service", "db-main"])["spec"]["clusterIP"].as_str().unwrap().to_owned();
    let api =
        cluster.json(&["service", "kubernetes"])["spec"]["clusterIP"].as_str().unwrap().to_owned();
    for expected in [
        "PLAIN=plain",
        "JOINED=plain-first-$(LATER)",
        "FROM_MAP=second",
        "FROM_SECRET=hush",
        "CFG_one=first",
        "CFG_two=second",
        "SEC_key=hush",
        "POD=given",
        "NAMESPACE=default",
        "APP=given",
        "NODE=node-0",
        "HOST=127.0.0.1",
        "ACCOUNT=default",
        "CPU=1500",
        "CPU_WHOLE=2",
        "MEMORY=64",
        "ASKED=250",
        "HOSTNAME=given",
        &format!("IP={ip}"),
        &format!("UID_={uid}"),
        &format!("DB_MAIN_SERVICE_HOST={db}"),
        "DB_MAIN_SERVICE_PORT=5432",
        &format!("DB_MAIN_PORT=tcp://{db}:5432"),
        &format!("KUBERNETES_SERVICE_HOST={api}"),
        "KUBERNETES_SERVICE_PORT=443",
    ] {
        assert!(given.contains(expected), "no {expected} in {given:#?}");
    }
    assert!(!given.iter().any(|variable| variable.starts_with("MAYBE")), "{given:?}");
    // What the server's own process has is nobody's business.
    assert!(
        !given
            .iter()
            .any(|variable| variable.starts_with("PATH=") || variable.starts_with("HOME="))
    );
}

#[test]
fn what_the_environment_lacks_is_named_and_the_container_starts_once_it_is_there() {
    let cluster = with_guests();
    let lacks = |name: &str, source: Value, message: &str| {
        let container =
            with(probe("c", "env"), "env", json!([{ "name": "A", "valueFrom": source }]));
        apply(&cluster, name, json!({ "restartPolicy": "Never", "containers": [container] }));
        let pod = until(&cluster, name, message, |pod| {
            let waiting = &status(pod, "c")["state"]["waiting"];
            waiting["reason"] == "CreateContainerConfigError" && waiting["message"] == message
        });
        assert_eq!(pod["status"]["phase"], "Pending");
        let listed = cluster.kubectl(&["get", "pod", name]);
        assert!(
            listed.contains("0/1") && listed.contains("CreateContainerConfigError"),
            "{listed}"
        );
        until_event(&cluster, name, &format!("Error: {message}"));
    };
    lacks(
        "no-map",
        json!({ "configMapKeyRef": { "name": "late", "key": "k" } }),
        "configmap \"late\" not found",
    );
    lacks(
        "no-secret",
        json!({ "secretKeyRef": { "name": "late", "key": "k" } }),
        "secret \"late\" not found",
    );
    cluster.kubectl(&["create", "configmap", "late", "--from-literal=k=v"]);
    until_phase(&cluster, "no-map", "Succeeded");
    cluster.kubectl(&["create", "secret", "generic", "late", "--from-literal=k=v"]);
    until_phase(&cluster, "no-secret", "Succeeded");
    let missing = "couldn't find key absent in ConfigMap default/late";
    lacks("no-key", json!({ "configMapKeyRef": { "name": "late", "key": "absent" } }), missing);
    let missing = "couldn't find key absent in Secret default/late";
    lacks("no-secret-key", json!({ "secretKeyRef": { "name": "late", "key": "absent" } }), missing);
}

// ---- how they start

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
fn only_ready_pods_are_endpoints() {
    let cluster = with_guests();
    let doctor = Doctor::new(false);
    let container = with(web("c", 8080), "readinessProbe", doctor.probe(1));
    apply(&cluster, "patient", json!({ "containers": [container] }));
    cluster.kubectl(&["expose", "pod", "patient", "--port=80", "--target-port=8080"]);
    until_event(
        &cluster,
        "patient",
        "Readiness probe failed: HTTP probe failed with statuscode: 503",
    );
    let pod = cluster.json(&["pod", "patient"]);
    assert_eq!(condition(&pod, "Ready")["status"], "False");
    assert_eq!(condition(&pod, "Ready")["reason"], "ContainersNotReady");
    assert_eq!(condition(&pod, "Ready")["message"], "containers with unready status: [c]");
    assert!(status(&pod, "c")["state"]["running"].is_object(), "it is not restarted for that");
    let addresses =
        |cluster: &Cluster| cluster.json(&["endpoints", "patient"])["subsets"][0].clone();
    assert!(addresses(&cluster)["addresses"].is_null());
    cluster.until("it is known to be unready", |cluster| {
        addresses(cluster)["notReadyAddresses"].is_array()
    });

    doctor.says(true);
    until_ready(&cluster, "patient");
    cluster.until("it is an endpoint", |cluster| addresses(cluster)["addresses"].is_array());
    let slices = cluster.json(&["endpointslices", "-l", "kubernetes.io/service-name=patient"]);
    assert_eq!(slices["items"][0]["endpoints"][0]["conditions"]["ready"], true);

    doctor.says(false);
    cluster
        .until("it is no endpoint any more", |cluster| addresses(cluster)["addresses"].is_null());
    assert_eq!(status(&cluster.json(&["pod", "patient"]), "c")["restartCount"], 0);
}

#[test]
fn readiness_is_asked_by_http_and_by_tcp() {
    let cluster = with_guests();
    let ask = |name: &str, probe: Value| {
        let mut container = with(web("c", 8080), "readinessProbe", probe);
        container["ports"][0]["name"] = json!("http");
        apply(&cluster, name, json!({ "containers": [container] }));
    };
    ask("by-http", json!({ "httpGet": { "path": "/env?x", "port": "http" }, "periodSeconds": 1 }));
    ask("by-tcp", json!({ "tcpSocket": { "port": 8080 }, "periodSeconds": 1 }));
    ask("by-wrong-port", json!({ "tcpSocket": { "port": 8081 }, "periodSeconds": 1 }));
    ask(
        "by-wrong-path",
        json!({ "httpGet": { "path": "/nothing", "port": 8080 }, "periodSeconds": 1 }),
    );
    until_ready(&cluster, "by-http");
    until_ready(&cluster, "by-tcp");
    until_event(&cluster, "by-wrong-port", "connect: connection refused");
    until_event(
        &cluster,
        "by-wrong-path",
        "Readiness probe failed: HTTP probe failed with statuscode: 500",
    );
}

#[test]
fn a_container_that_is_not_alive_is_restarted() {
    let cluster = with_guests();
    let doctor = Doctor::new(true);
    let container = with(web("c", 8080), "livenessProbe", doctor.probe(2));
    apply(
        &cluster,
        "sick",
        json!({ "terminationGracePeriodSeconds": 1, "containers": [container] }),
    );
    until_ready(&cluster, "sick");
    doctor.says(false);
    let restarted = |count: i64| {
        until(&cluster, "sick", "it was restarted", |pod| {
            status(pod, "c")["restartCount"].as_i64() >= Some(count)
        })
    };
    restarted(1);
    doctor.says(true);
    until_event(&cluster, "sick", "Liveness probe failed: HTTP probe failed with statuscode: 503");
    until_event(&cluster, "sick", "Container c failed liveness probe, will be restarted");
    let pod = until_ready(&cluster, "sick");
    assert_eq!(status(&pod, "c")["restartCount"], 1);
    assert_eq!(get(address(&pod, 8080), "/").unwrap().body, "hello\n");
}

#[test]
fn a_startup_probe_holds_the_other_probes_back() {
    let cluster = with_guests();
    let (startup, liveness) = (Doctor::new(false), Doctor::new(false));
    let mut container = with(web("c", 8080), "startupProbe", startup.probe(60));
    container["livenessProbe"] = liveness.probe(1);
    apply(
        &cluster,
        "slow",
        json!({ "terminationGracePeriodSeconds": 1, "containers": [container] }),
    );
    until_event(&cluster, "slow", "Startup probe failed: HTTP probe failed with statuscode: 503");
    let pod = cluster.json(&["pod", "slow"]);
    assert_eq!(
        (&status(&pod, "c")["started"], &status(&pod, "c")["restartCount"]),
        (&json!(false), &json!(0))
    );
    assert_eq!(condition(&pod, "Ready")["status"], "False");
    liveness.says(true);
    startup.says(true);
    let pod = until_ready(&cluster, "slow");
    assert_eq!(
        (&status(&pod, "c")["started"], &status(&pod, "c")["restartCount"]),
        (&json!(true), &json!(0))
    );

    let never = Doctor::new(false);
    let container = with(web("c", 8080), "startupProbe", never.probe(2));
    apply(
        &cluster,
        "never",
        json!({ "terminationGracePeriodSeconds": 1, "containers": [container] }),
    );
    until_event(&cluster, "never", "Container c failed startup probe, will be restarted");
}

// ---- how they end

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
fn a_cpu_limit_is_kept() {
    let cluster = Cluster::start();
    cluster.import_text(guests::SPINS, "spins.wasm");
    let used = |cluster: &Cluster| cpu_seconds(cluster.pid());
    let over = |seconds: u64| {
        let (began, before) = (Instant::now(), used(&cluster));
        thread::sleep(Duration::from_secs(seconds));
        (used(&cluster) - before) / began.elapsed().as_secs_f64()
    };
    let container = json!({
        "name": "c", "image": "spins.wasm", "imagePullPolicy": "IfNotPresent",
        "resources": { "limits": { "cpu": "200m" } },
    });
    apply(
        &cluster,
        "spins",
        json!({ "terminationGracePeriodSeconds": 0, "containers": [container] }),
    );
    until_ready(&cluster, "spins");
    thread::sleep(Duration::from_secs(1));
    let busy = over(4);
    cluster.kubectl(&["delete", "pod", "spins", "--timeout=30s"]);
    let idle = over(2);
    let guest = busy - idle;
    assert!(
        (0.18..=0.22).contains(&guest),
        "{guest} of a processor is used, and 0.2 is the limit (idle {idle})"
    );
}

/// What the process has used of the processors.
fn cpu_seconds(pid: u32) -> f64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = text.rsplit_once(')').unwrap().1.split_whitespace().collect();
    let ticks: f64 = fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap();
    // Linux counts a hundred a second on every machine that we run on.
    ticks / 100.0
}

#[test]
fn a_container_out_of_memory_is_killed_and_started_again() {
    let cluster = Cluster::start();
    cluster.import_text(guests::ALLOCATES, "allocates.wasm");
    let container = json!({
        "name": "c", "image": "allocates.wasm", "imagePullPolicy": "IfNotPresent",
        "resources": { "limits": { "memory": "16Mi" } },
    });
    apply(&cluster, "greedy", json!({ "containers": [container] }));
    let pod = until(&cluster, "greedy", "it was started again", |pod| {
        status(pod, "c")["restartCount"].as_i64() >= Some(1)
            && status(pod, "c")["lastState"]["terminated"]["reason"] == "OOMKilled"
    });
    assert_eq!(status(&pod, "c")["lastState"]["terminated"]["exitCode"], 137);
    let description = cluster.kubectl(&["describe", "pod", "greedy"]);
    assert!(description.contains("OOMKilled"), "{description}");
}

#[test]
fn a_server_out_of_memory_is_killed_and_started_again() {
    let cluster = with_guests();
    let container = with(web("c", 8080), "resources", json!({ "limits": { "memory": "32Mi" } }));
    apply(&cluster, "greedy", json!({ "containers": [container] }));
    let address = address(&until_ready(&cluster, "greedy"), 8080);
    assert_eq!(get(address, "/allocate?4").unwrap().body, "4");
    let answer = get(address, "/allocate?64");
    assert!(
        answer.is_err() || answer.as_ref().is_ok_and(|answer| answer.status >= 500),
        "{answer:?}"
    );
    let pod = until(&cluster, "greedy", "it was killed for it", |pod| {
        status(pod, "c")["lastState"]["terminated"]["reason"] == "OOMKilled"
    });
    assert!(status(&pod, "c")["restartCount"].as_i64() >= Some(1));
    let pod = until_ready(&cluster, "greedy");
    assert_eq!(get(SocketAddr::new(address.ip(), 8080), "/").unwrap().body, "hello\n", "{pod}");
}

#[test]
fn a_throttled_server_still_answers_everybody() {
    let cluster = with_guests();
    let container = with(web("c", 8080), "resources", json!({ "limits": { "cpu": "100m" } }));
    apply(
        &cluster,
        "slow",
        json!({ "terminationGracePeriodSeconds": 0, "containers": [container] }),
    );
    let address = address(&until_ready(&cluster, "slow"), 8080);
    let clients: Vec<_> =
        (0..8).map(|_| thread::spawn(move || get(address, "/").unwrap().body)).collect();
    for client in clients {
        assert_eq!(client.join().unwrap(), "hello\n");
    }
}

#[test]
fn what_wasm_cannot_do_is_refused_with_its_reason() {
    let cluster = with_guests();
    apply(&cluster, "plain", json!({ "containers": [web("c", 8080)] }));
    until_ready(&cluster, "plain");
    let refused = cluster.kubectl_refused(&["exec", "plain", "--", "ls"]);
    assert!(!refused.contains("panic") && !refused.is_empty(), "{refused}");
    let container = with(
        web("c", 8080),
        "readinessProbe",
        json!({ "exec": { "command": ["ls"] }, "periodSeconds": 1 }),
    );
    apply(&cluster, "asked", json!({ "containers": [container] }));
    until_event(
        &cluster,
        "asked",
        "this container's engine cannot run a command in it: use an httpGet, tcpSocket or grpc probe",
    );
}

// ---- what they share

#[test]
fn containers_of_a_pod_share_its_address_and_have_logs_of_their_own() {
    let cluster = with_guests();
    let mut admin = web("admin", 9090);
    admin["env"] = json!([{ "name": "WHO", "value": "admin" }]);
    apply(&cluster, "two", json!({ "containers": [web("main", 8080), admin] }));
    let pod = until_ready(&cluster, "two");
    assert_eq!(get(address(&pod, 8080), "/env?WHO").unwrap().body, "");
    assert_eq!(get(address(&pod, 9090), "/env?WHO").unwrap().body, "admin");
    for host in [pod["status"]["podIP"].as_str().unwrap(), "localhost", "127.0.0.1"] {
        let answer = get(address(&pod, 8080), &format!("/fetch?{host}:9090/env?WHO")).unwrap();
        assert_eq!(answer.body, "200 admin", "{host}");
    }
    get(address(&pod, 8080), "/print?from-main").unwrap();
    get(address(&pod, 9090), "/print?from-admin").unwrap();
    cluster.until("the lines are in the logs", |cluster| {
        let all = cluster.kubectl(&["logs", "two", "--all-containers"]);
        all.contains("from-main\n") && all.contains("from-admin\n")
    });
    assert_eq!(cluster.kubectl(&["logs", "two", "-c", "main"]), "from-main\n");
    assert_eq!(cluster.kubectl(&["logs", "two", "-c", "admin"]), "from-admin\n");
    let output = cluster.try_kubectl(&["logs", "two"]);
    assert_eq!(output.stdout, "from-main\n", "the first is the default: {output:?}");
    assert!(
        output.stderr.contains("Defaulted container \"main\" out of: main, admin"),
        "{output:?}"
    );
    let prefixed = cluster.kubectl(&["logs", "-l", "app=two", "--all-containers", "--prefix"]);
    assert!(
        prefixed.contains("[pod/two/main] from-main")
            && prefixed.contains("[pod/two/admin] from-admin"),
        "{prefixed}"
    );
    let refused = cluster.kubectl_refused(&["logs", "two", "-c", "nobody"]);
    assert!(refused.contains("container nobody is not valid for pod two"), "{refused}");
}

#[test]
fn two_servers_cannot_have_one_port() {
    let cluster = with_guests();
    apply(&cluster, "twins", json!({ "containers": [web("one", 8080), web("two", 8080)] }));
    let pod = until(&cluster, "twins", "one of them is refused", |pod| {
        ["one", "two"]
            .iter()
            .any(|name| status(pod, name)["state"]["waiting"]["reason"] == "CreateContainerError")
    });
    let listed = cluster.kubectl(&["get", "pod", "twins"]);
    assert!(listed.contains("1/2"), "{listed}");
    let ip = pod["status"]["podIP"].as_str().unwrap();
    until_event(&cluster, "twins", &format!("cannot listen on {ip}:8080"));
}

#[test]
fn guests_talk_over_sockets() {
    let cluster = with_guests();
    apply(
        &cluster,
        "listens",
        json!({ "restartPolicy": "Never", "containers": [with(probe("c", "listen 0.0.0.0:9000"), "ports", json!([{ "containerPort": 9000 }]))] }),
    );
    let pod = until_ready(&cluster, "listens");
    cluster.until("it listens", |cluster| {
        cluster.kubectl(&["logs", "listens"]).contains("listening on")
    });
    let target = address(&pod, 9000);
    apply(
        &cluster,
        "connects",
        json!({ "restartPolicy": "Never", "containers": [probe("c", &format!("connect {target}"))] }),
    );
    until_phase(&cluster, "connects", "Succeeded");
    assert_eq!(cluster.kubectl(&["logs", "connects"]), "connect hello from a guest\n");
    until_phase(&cluster, "listens", "Succeeded");
}

#[test]
fn a_pod_on_the_host_s_network_has_the_node_s_address() {
    let cluster = with_guests();
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let spec = json!({ "hostNetwork": true, "containers": [web("c", port)] });
    apply(&cluster, "host", spec);
    let pod = until_ready(&cluster, "host");
    assert_eq!(pod["status"]["podIP"], pod["status"]["hostIP"]);
    assert_eq!(pod["spec"]["containers"][0]["ports"][0]["hostPort"], port);
    assert_eq!(get(address(&pod, port), "/env?HOSTNAME").unwrap().body, "node-0");
}

#[test]
fn warm_instances_serve_as_many_requests_as_the_annotation_allows() {
    let cluster = with_guests();
    let serves = |name: &str, reuse: Option<&str>| {
        let mut pod = manifest(name, json!({ "containers": [web("c", 8080)] }));
        if let Some(reuse) = reuse {
            pod["metadata"]["annotations"] = json!({ "wasm.coracle.dev/instance-reuse": reuse });
        }
        cluster.apply(&pod.to_string());
    };
    let counts = |name: &str| {
        let address = address(&until_ready(&cluster, name), 8080);
        (0..6).map(|_| get(address, "/count").unwrap().body).collect::<Vec<_>>().join(" ")
    };
    serves("fresh", None);
    serves("warm", Some("3"));
    serves("wrong", Some("often"));
    assert_eq!(counts("fresh"), "0 0 0 0 0 0");
    assert_eq!(counts("warm"), "0 1 2 0 1 2");
    let address = address(&cluster.json(&["pod", "warm"]), 8080);
    assert_eq!(get(address, "/count").unwrap().body, "0");
    assert_eq!(get(address, "/trap").unwrap().status, 500);
    assert_eq!(get(address, "/count").unwrap().body, "0", "an instance that trapped is dropped");
    until_event(
        &cluster,
        "wrong",
        "annotation wasm.coracle.dev/instance-reuse is \"often\", and a number from 1 is expected",
    );
}

// ---- what is said of them

#[test]
fn a_pod_s_class_follows_from_its_resources() {
    let cluster = with_guests();
    let class = |name: &str, resources: Value, expected: &str| {
        apply(
            &cluster,
            name,
            json!({ "containers": [with(web("c", 8080), "resources", resources)] }),
        );
        assert_eq!(cluster.json(&["pod", name])["status"]["qosClass"], expected);
    };
    class("best-effort", json!({}), "BestEffort");
    class("burstable", json!({ "requests": { "cpu": "10m" } }), "Burstable");
    class("guaranteed", json!({ "limits": { "cpu": "100m", "memory": "64Mi" } }), "Guaranteed");
}

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
