//! How pods live: what they are given, how they start, are asked how they are, and end.

mod environment;
mod limits;
mod lives;
mod network;
mod probes;

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
