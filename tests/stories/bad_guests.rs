//! Guests that misbehave end as Kubernetes says, and everything else keeps running.

use coracle_tests::{Cluster, guests};
use serde_json::Value;

/// A pod of one container that is not started again.
fn pod(name: &str, resources: &str) -> String {
    format!(
        "apiVersion: v1
kind: Pod
metadata: {{name: {name}}}
spec:
  restartPolicy: Never
  terminationGracePeriodSeconds: 1
  containers: [{{name: c, image: {name}.wasm, imagePullPolicy: IfNotPresent, resources: {resources}}}]
"
    )
}

fn container(cluster: &Cluster, name: &str) -> Value {
    cluster.json(&["pod", name])["status"]["containerStatuses"][0].clone()
}

fn ends(cluster: &Cluster, name: &str, text: &str, resources: &str) -> Value {
    cluster.import_text(text, &format!("{name}.wasm"));
    cluster.apply(&pod(name, resources));
    cluster.kubectl(&[
        "wait",
        "--for=jsonpath={.status.phase}=Failed",
        &format!("pod/{name}"),
        "--timeout=60s",
    ]);
    container(cluster, name)["state"]["terminated"].clone()
}

fn waits(cluster: &Cluster, name: &str, bytes: Option<&[u8]>) -> Value {
    if let Some(bytes) = bytes {
        cluster.import_bytes(bytes, &format!("{name}.wasm"));
    }
    cluster.apply(&pod(name, "{}"));
    cluster.until(&format!("{name} waits for a reason"), |cluster| {
        let waiting = &container(cluster, name)["state"]["waiting"];
        waiting["reason"].as_str().is_some_and(|reason| reason != "ContainerCreating")
    });
    container(cluster, name)["state"]["waiting"].clone()
}

#[test]
fn a_guest_that_allocates_without_end_is_killed_for_it() {
    let cluster = Cluster::start();
    let ended = ends(&cluster, "allocates", guests::ALLOCATES, "{limits: {memory: 16Mi}}");
    assert_eq!(ended["reason"], "OOMKilled", "{ended}");
    assert_eq!(ended["exitCode"], 137);
}

#[test]
fn a_trap_is_told_with_its_backtrace() {
    let cluster = Cluster::start();
    let ended = ends(&cluster, "traps", guests::TRAPS, "{}");
    assert_eq!(ended["reason"], "Error", "{ended}");
    let message = ended["message"].as_str().unwrap();
    assert!(message.contains("integer divide by zero"), "{message}");
    assert!(message.contains("divide"), "the function is named: {message}");
    let events = cluster.kubectl(&["events", "--for", "pod/traps"]);
    assert!(events.contains("integer divide by zero"), "{events}");
}

#[test]
fn spinning_guests_leave_the_cluster_responsive_and_are_stopped() {
    let cluster = Cluster::start();
    for name in ["spin-a", "spin-b", "spin-c"] {
        cluster.import_text(guests::SPINS, &format!("{name}.wasm"));
        cluster.apply(&pod(name, "{}"));
        cluster.kubectl(&[
            "wait",
            "--for=jsonpath={.status.phase}=Running",
            &format!("pod/{name}"),
            "--timeout=30s",
        ]);
    }
    let began = std::time::Instant::now();
    cluster.kubectl(&["get", "pods"]);
    cluster.kubectl(&["create", "configmap", "while-they-spin", "--from-literal=a=b"]);
    assert!(began.elapsed().as_secs() < 10, "{:?}", began.elapsed());
    cluster.kubectl(&["delete", "pod", "spin-a", "spin-b", "spin-c", "--timeout=30s"]);
}

#[test]
fn a_gigabyte_of_output_is_rotated_and_hurts_nobody() {
    let cluster = Cluster::start();
    cluster.import_text(guests::PRINTS, "prints.wasm");
    cluster.apply(&pod("prints", "{}"));
    cluster.kubectl(&[
        "wait",
        "--for=jsonpath={.status.phase}=Running",
        "pod/prints",
        "--timeout=30s",
    ]);
    cluster.kubectl(&["get", "nodes"]);
    cluster.kubectl(&[
        "wait",
        "--for=jsonpath={.status.phase}=Succeeded",
        "pod/prints",
        "--timeout=60s",
    ]);
    let line = cluster.kubectl(&["logs", "prints", "--tail=1"]);
    assert_eq!(line.trim().len(), 1023);
    let bytes = folder_bytes(&cluster.data_dir().join("kubelet"));
    assert!(bytes < 100 << 20, "{bytes} bytes of logs are kept");
}

fn folder_bytes(folder: &std::path::Path) -> u64 {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .map(|entry| match entry.file_type() {
            Ok(kind) if kind.is_dir() => folder_bytes(&entry.path()),
            _ => entry.metadata().map_or(0, |meta| meta.len()),
        })
        .sum()
}

#[test]
fn a_guest_sees_no_file_that_it_was_not_granted() {
    let cluster = Cluster::start();
    let ended = ends(&cluster, "opens", guests::OPENS, "{}");
    // 8 is EBADF: there is no directory at all. 63 (EPERM) and 76 (ENOTCAPABLE) are refusals too.
    let code = ended["exitCode"].as_i64().unwrap();
    assert!([8, 63, 76].contains(&code), "{ended}");
}

#[test]
fn what_is_no_module_is_refused_with_its_reason() {
    let cluster = Cluster::start();
    let whole = guests::module(guests::SPINS);
    let check = |name: &str, bytes: Option<&[u8]>, reason: &str, message: &str| {
        let waiting = waits(&cluster, name, bytes);
        assert_eq!(waiting["reason"], reason, "{name}: {waiting}");
        assert!(waiting["message"].as_str().unwrap().contains(message), "{name}: {waiting}");
    };
    check("truncated", Some(&whole[..whole.len() / 2]), "CreateContainerError", "truncated.wasm");
    check("empty", Some(b""), "CreateContainerError", "empty.wasm");
    check(
        "imports",
        Some(&guests::module(guests::IMPORTS)),
        "CreateContainerError",
        "env::launch_missiles",
    );
    cluster.kubectl(&["get", "--raw", "/readyz"]);
}

#[test]
fn an_image_that_nobody_has_backs_off() {
    let cluster = Cluster::start();
    let manifest = pod("absent", "{}").replace("absent.wasm", "127.0.0.1:1/absent:1");
    cluster.apply(&manifest);
    cluster.until("the pull backs off", |cluster| {
        container(cluster, "absent")["state"]["waiting"]["reason"] == "ImagePullBackOff"
    });
    let events = cluster.kubectl(&["events", "--for", "pod/absent"]);
    assert!(events.contains("Failed to pull image \"127.0.0.1:1/absent:1\""), "{events}");
    assert!(events.contains("Error: ErrImagePull"), "{events}");
}

#[test]
fn a_container_that_fails_is_started_again_and_its_last_log_is_kept() {
    let cluster = Cluster::start();
    cluster.import_text(guests::TRAPS, "again.wasm");
    cluster.apply(&pod("again", "{}").replace("Never", "Always"));
    cluster.until("it was started again and waits", |cluster| {
        let status = container(cluster, "again");
        status["restartCount"].as_i64().unwrap_or(0) >= 1
            && status["state"]["waiting"]["reason"] == "CrashLoopBackOff"
    });
    let status = container(&cluster, "again");
    assert_eq!(status["lastState"]["terminated"]["reason"], "Error");
    let message = status["state"]["waiting"]["message"].as_str().unwrap();
    assert!(
        message.starts_with("back-off ") && message.contains("restarting failed container=c"),
        "{message}"
    );
    cluster.kubectl(&["logs", "again", "--previous"]);
}
