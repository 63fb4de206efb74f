//! What pods find in their volumes.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use coracle_tests::{Cluster, Output, test_guest};
use serde_json::{Value, json};

fn with_probe() -> Cluster {
    let cluster = Cluster::start();
    cluster.import(&test_guest("probe"), "probe.wasm");
    cluster
}

/// A container that does what the words say.
fn container(name: &str, words: &str, mounts: Value) -> Value {
    let words: Vec<&str> = words.split(' ').collect();
    json!({ "name": name, "image": "probe.wasm", "imagePullPolicy": "IfNotPresent", "args": words, "volumeMounts": mounts })
}

fn apply(cluster: &Cluster, name: &str, spec: Value) {
    let mut spec = spec;
    if spec["restartPolicy"].is_null() {
        spec["restartPolicy"] = json!("Never");
    }
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": { "name": name, "labels": { "app": name, "tier": "back" }, "annotations": { "note": "\"one\"\ntwo" } },
        "spec": spec,
    });
    cluster.apply(&pod.to_string());
}

/// What the pod printed until it succeeded.
#[track_caller]
fn printed(cluster: &Cluster, name: &str, spec: Value) -> String {
    apply(cluster, name, spec);
    let pod = format!("pod/{name}");
    let waited = cluster.try_kubectl(&[
        "wait",
        "--for=jsonpath={.status.phase}=Succeeded",
        &pod,
        "--timeout=30s",
    ]);
    assert_eq!(waited.code, Some(0), "{waited:?}\n{}", cluster.kubectl(&["describe", &pod]));
    cluster.kubectl(&["logs", name, "--all-containers"])
}

/// Where a pod's volume is on the host: what may hold secrets is in memory.
fn on_host(cluster: &Cluster, pod: &str, plugin: &str, volume: &str) -> PathBuf {
    let uid = cluster.json(&["pod", pod])["metadata"]["uid"].as_str().unwrap().to_owned();
    let kubelet = cluster.data_dir().join("kubelet");
    let memory = kubelet.join("memory");
    // Without a tmpfs of some size, as in many containers, all of them are on disk.
    let base = if plugin != "configmap" && memory.exists() { memory } else { kubelet };
    let volumes = base.join("pods").join(uid).join("volumes");
    volumes.join(format!("kubernetes.io~{plugin}")).join(volume)
}

fn mode(file: PathBuf) -> u32 {
    fs::metadata(&file)
        .unwrap_or_else(|error| panic!("{}: {error}", file.display()))
        .permissions()
        .mode()
        & 0o777
}

fn make_config(cluster: &Cluster) {
    cluster.apply(
        r#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"config"},"data":{"one":"first","two":"second"},"binaryData":{"raw":"AAEC"}}"#,
    );
    cluster.apply(
        r#"{"apiVersion":"v1","kind":"Secret","metadata":{"name":"secret"},"data":{"key":"aHVzaA=="}}"#,
    );
}

#[test]
fn config_maps_and_secrets_are_files() {
    let cluster = with_probe();
    make_config(&cluster);
    let text = printed(
        &cluster,
        "files",
        json!({
            "containers": [container("c", "ls /all ls /some read /all/one read /some/deep/2 read /secret/key read /all/absent",
                json!([{ "name": "all", "mountPath": "/all" }, { "name": "some", "mountPath": "/some" }, { "name": "secret", "mountPath": "/secret" }]))],
            "volumes": [
                { "name": "all", "configMap": { "name": "config" } },
                { "name": "some", "configMap": { "name": "config", "items": [{ "key": "two", "path": "deep/2", "mode": 0o400 }] } },
                { "name": "secret", "secret": { "secretName": "secret", "defaultMode": 0o600 } },
            ],
        }),
    );
    let lines: Vec<&str> = text.lines().collect();
    assert!(lines[0].ends_with("one raw two"), "{text}");
    assert!(lines[1].ends_with("deep"), "{text}");
    assert_eq!(
        lines[2..],
        ["read first", "read second", "read hush", "read failed: NotFound"],
        "{text}"
    );
}

#[test]
fn files_have_the_modes_that_the_volume_names() {
    let cluster = with_probe();
    make_config(&cluster);
    apply(
        &cluster,
        "modes",
        json!({
            "containers": [container("c", "print up sleep 600000", json!([{ "name": "all", "mountPath": "/all" }]))],
            "volumes": [
                { "name": "all", "configMap": { "name": "config" } },
                { "name": "some", "configMap": { "name": "config", "items": [{ "key": "one", "path": "1" }, { "key": "two", "path": "2", "mode": 0o400 }], "defaultMode": 0o640 } },
                { "name": "secret", "secret": { "secretName": "secret", "defaultMode": 0o600 } },
            ],
        }),
    );
    cluster.kubectl(&["wait", "--for=condition=Ready", "pod/modes", "--timeout=30s"]);
    let mode_of = |plugin: &str, volume: &str, file: &str| {
        mode(on_host(&cluster, "modes", plugin, volume).join(file))
    };
    assert_eq!(mode_of("configmap", "all", "one"), 0o644);
    assert_eq!(mode_of("configmap", "some", "1"), 0o640);
    assert_eq!(mode_of("configmap", "some", "2"), 0o400);
    assert_eq!(mode_of("secret", "secret", "key"), 0o600);
}

#[test]
fn a_pod_reads_about_itself_in_files() {
    let cluster = with_probe();
    let text = printed(
        &cluster,
        "itself",
        json!({
            "containers": [{
                "name": "c", "image": "probe.wasm", "imagePullPolicy": "IfNotPresent",
                "resources": { "limits": { "cpu": "500m", "memory": "64Mi" } },
                "args": ["read", "/me/name", "read", "/me/labels", "read", "/me/annotations", "read", "/me/cpu", "read", "/me/memory"],
                "volumeMounts": [{ "name": "me", "mountPath": "/me" }],
            }],
            "volumes": [{ "name": "me", "downwardAPI": { "items": [
                { "path": "name", "fieldRef": { "fieldPath": "metadata.name" } },
                { "path": "labels", "fieldRef": { "fieldPath": "metadata.labels" } },
                { "path": "annotations", "fieldRef": { "fieldPath": "metadata.annotations" } },
                { "path": "cpu", "resourceFieldRef": { "containerName": "c", "resource": "limits.cpu", "divisor": "1m" } },
                { "path": "memory", "resourceFieldRef": { "containerName": "c", "resource": "limits.memory", "divisor": "1Mi" } },
            ] } }],
        }),
    );
    for expected in [
        "read itself\n",
        "app=\"itself\"\ntier=\"back\"",
        "note=\"\\\"one\\\"\\ntwo\"",
        "read 500\n",
        "read 64\n",
    ] {
        assert!(text.contains(expected), "no {expected:?} in {text}");
    }
}

#[test]
fn a_projected_token_opens_the_api_with_the_pod_s_own_rights() {
    let cluster = with_probe();
    cluster.kubectl(&["create", "serviceaccount", "robot"]);
    cluster.kubectl(&["create", "configmap", "config", "--from-literal=one=first"]);
    apply(
        &cluster,
        "robot",
        json!({
            "serviceAccountName": "robot",
            "containers": [container("c", "read /var/run/secrets/kubernetes.io/serviceaccount/namespace print . read /var/run/secrets/kubernetes.io/serviceaccount/ca.crt read /own/one read /own/name read /own/token print . sleep 600000",
                json!([{ "name": "own", "mountPath": "/own", "readOnly": true }]))],
            "volumes": [{ "name": "own", "projected": { "sources": [
                { "serviceAccountToken": { "path": "token", "expirationSeconds": 600 } },
                { "configMap": { "name": "config" } },
                { "downwardAPI": { "items": [{ "path": "name", "fieldRef": { "fieldPath": "metadata.name" } }] } },
            ] } }],
        }),
    );
    cluster.kubectl(&["wait", "--for=condition=Ready", "pod/robot", "--timeout=30s"]);
    let mut text = String::new();
    cluster.until("the guest printed its token", |cluster| {
        text = cluster.kubectl(&["logs", "robot"]);
        text.contains("read ey")
    });
    assert!(text.starts_with("read default\n"), "{text}");
    assert!(text.contains("-----BEGIN CERTIFICATE-----"), "{text}");
    assert!(text.contains("read first\nread robot\n"), "{text}");
    let token = text.lines().find_map(|line| line.strip_prefix("read ey")).unwrap();
    let token = format!("ey{token}");
    let config = cluster.json_of(&["config", "view", "--raw", "-o", "json"]);
    let server = config["clusters"][0]["cluster"]["server"].as_str().unwrap().to_owned();
    let with_token = |arguments: &[&str]| {
        let mut command = cluster.bare_kubectl();
        command
            .args(["--server", &server, "--insecure-skip-tls-verify", "--token", &token])
            .args(arguments);
        Output::of(&mut command)
    };
    let who = with_token(&["auth", "whoami", "-o", "json"]);
    let who: Value = serde_json::from_str(&who.stdout).unwrap_or_else(|_| panic!("{who:?}"));
    assert_eq!(who["status"]["userInfo"]["username"], "system:serviceaccount:default:robot");
    assert_eq!(
        who["status"]["userInfo"]["extra"]["authentication.kubernetes.io/pod-name"],
        json!(["robot"])
    );

    let refused = with_token(&["get", "secrets"]);
    assert!(
        refused.stderr.contains(
            "User \"system:serviceaccount:default:robot\" cannot list resource \"secrets\""
        ),
        "{refused:?}"
    );
    cluster.kubectl(&[
        "create",
        "rolebinding",
        "robot",
        "--clusterrole=admin",
        "--serviceaccount=default:robot",
    ]);
    cluster.until("the right is granted", |_| with_token(&["get", "secrets"]).code == Some(0));

    // A token lives no longer than its pod.
    cluster.kubectl(&["delete", "pod", "robot", "--timeout=30s"]);
    let late = with_token(&["get", "secrets"]);
    assert!(late.code != Some(0) && late.stderr.contains("Unauthorized"), "{late:?}");
}

#[test]
fn a_pod_that_wants_no_token_gets_none() {
    let cluster = with_probe();
    let text = printed(
        &cluster,
        "anonymous",
        json!({
            "automountServiceAccountToken": false,
            "containers": [container("c", "ls / ls /var/run/secrets/kubernetes.io/serviceaccount", json!([]))],
        }),
    );
    assert!(!text.contains("token"), "{text}");
}

#[test]
fn containers_of_a_pod_share_an_empty_directory() {
    let cluster = with_probe();
    let shared = json!([{ "name": "shared", "mountPath": "/data" }]);
    let elsewhere = json!([{ "name": "shared", "mountPath": "/seen" }]);
    let text = printed(
        &cluster,
        "shared",
        json!({
            "initContainers": [container("writer", "write /data/note hello ls /data", shared)],
            "containers": [
                container("reader", "read /seen/note write /seen/answer yes", elsewhere),
                container("stranger", "ls /data", json!([])),
            ],
            "volumes": [{ "name": "shared", "emptyDir": { "sizeLimit": "1Mi" } }],
        }),
    );
    assert!(text.contains("write done\nls note\n"), "{text}");
    assert!(text.contains("read hello\n"), "{text}");
    assert!(text.contains("ls failed"), "a container without the mount sees nothing: {text}");

    let folder = on_host(&cluster, "shared", "empty-dir", "shared");
    cluster.kubectl(&["delete", "pod", "shared", "--timeout=30s"]);
    assert!(!folder.exists(), "the directory goes with its pod");
}

#[test]
fn an_empty_directory_survives_a_restart_of_its_container() {
    let cluster = with_probe();
    apply(
        &cluster,
        "again",
        json!({
            "restartPolicy": "Always",
            "containers": [container("c", "read /data/note write /data/note before trap", json!([{ "name": "data", "mountPath": "/data" }]))],
            "volumes": [{ "name": "data", "emptyDir": {} }],
        }),
    );
    cluster.until("the second attempt has printed", |cluster| {
        let logs = cluster.try_kubectl(&["logs", "again"]);
        logs.stdout.contains("read before")
    });
    let first = cluster.kubectl(&["logs", "again", "--previous"]);
    assert!(first.contains("read failed: NotFound"), "{first}");
}

#[test]
fn a_part_of_a_volume_may_be_mounted_alone() {
    let cluster = with_probe();
    make_config(&cluster);
    let text = printed(
        &cluster,
        "parts",
        json!({
            "initContainers": [container("prepare", "write /data/note outside", json!([{ "name": "data", "mountPath": "/data" }]))],
            "containers": [{
                "name": "c", "image": "probe.wasm", "imagePullPolicy": "IfNotPresent",
                "env": [{ "name": "NAME", "valueFrom": { "fieldRef": { "fieldPath": "metadata.name" } } }],
                "args": ["ls", "/etc/app", "read", "/etc/app/settings", "write", "/own/note", "mine", "ls", "/own", "read", "/named/note"],
                "volumeMounts": [
                    { "name": "config", "mountPath": "/etc/app/settings", "subPath": "two" },
                    { "name": "data", "mountPath": "/own", "subPath": "made/here" },
                    { "name": "data", "mountPath": "/named", "subPathExpr": "by-$(NAME)" },
                ],
            }],
            "volumes": [
                { "name": "config", "configMap": { "name": "config" } },
                { "name": "data", "emptyDir": {} },
            ],
        }),
    );
    assert!(
        text.contains("ls settings\nread second\nwrite done\nls note\nread failed: NotFound\n"),
        "{text}"
    );
    let data = on_host(&cluster, "parts", "empty-dir", "data");
    assert!(!data.exists(), "an ended pod leaves nothing");
}

#[test]
fn what_is_read_only_cannot_be_written() {
    let cluster = with_probe();
    make_config(&cluster);
    let text = printed(
        &cluster,
        "careful",
        json!({
            "containers": [container("c", "write /config/one changed write /config/new x write /data/new x write /secret/key x read /config/one",
                json!([
                    { "name": "config", "mountPath": "/config" },
                    { "name": "data", "mountPath": "/data", "readOnly": true },
                    { "name": "secret", "mountPath": "/secret" },
                ]))],
            "volumes": [
                { "name": "config", "configMap": { "name": "config" } },
                { "name": "data", "emptyDir": {} },
                { "name": "secret", "secret": { "secretName": "secret" } },
            ],
        }),
    );
    let lines: Vec<&str> = text.lines().collect();
    assert!(lines[..4].iter().all(|line| line.starts_with("write failed")), "{text}");
    assert_eq!(lines[4], "read first", "{text}");
}

#[test]
fn a_running_guest_sees_changed_config_and_secrets() {
    let cluster = with_probe();
    make_config(&cluster);
    let look = "read /config/one read /secret/key read /fixed/one read /me/labels sleep 200";
    let words = vec![look; 200].join(" ");
    apply(
        &cluster,
        "watcher",
        json!({
            "containers": [container("c", &words, json!([
                { "name": "config", "mountPath": "/config" },
                { "name": "secret", "mountPath": "/secret" },
                { "name": "config", "mountPath": "/fixed/one", "subPath": "one" },
                { "name": "me", "mountPath": "/me" },
            ]))],
            "volumes": [
                { "name": "config", "configMap": { "name": "config" } },
                { "name": "secret", "secret": { "secretName": "secret" } },
                { "name": "me", "downwardAPI": { "items": [{ "path": "labels", "fieldRef": { "fieldPath": "metadata.labels['app']" } }] } },
            ],
        }),
    );
    cluster.kubectl(&["wait", "--for=condition=Ready", "pod/watcher", "--timeout=30s"]);
    let sees = |text: &str| {
        cluster.until(text, |cluster| {
            cluster.kubectl(&["logs", "watcher", "--tail=8"]).contains(text)
        });
    };
    sees("read first\nread hush\nread first\nread watcher\n");
    cluster.kubectl(&["patch", "configmap", "config", "-p", r#"{"data":{"one":"changed"}}"#]);
    cluster.kubectl(&["patch", "secret", "secret", "-p", r#"{"stringData":{"key":"louder"}}"#]);
    cluster.kubectl(&["label", "pod", "watcher", "--overwrite", "app=renamed"]);
    // A subPath stays as it was: upstream documents that too.
    sees("read changed\nread louder\nread first\nread renamed\n");
}

#[test]
fn a_volume_that_is_not_there_holds_the_pod_back_until_it_is() {
    let cluster = with_probe();
    apply(
        &cluster,
        "patient",
        json!({
            "containers": [container("c", "read /config/one ls /maybe",
                json!([{ "name": "config", "mountPath": "/config" }, { "name": "maybe", "mountPath": "/maybe" }]))],
            "volumes": [
                { "name": "config", "configMap": { "name": "late", "items": [{ "key": "one", "path": "one" }] } },
                { "name": "maybe", "secret": { "secretName": "never", "optional": true } },
            ],
        }),
    );
    let told = |text: &str| {
        cluster.until(text, |cluster| {
            cluster.kubectl(&["events", "--for", "pod/patient"]).contains(text)
        });
    };
    told("MountVolume.SetUp failed for volume \"config\" : configmap \"late\" not found");
    cluster.until("the pod says what it does", |cluster| {
        let listed = cluster.kubectl(&["get", "pod", "patient"]);
        listed.contains("0/1") && listed.contains("ContainerCreating")
    });

    cluster.kubectl(&["create", "configmap", "late", "--from-literal=other=x"]);
    told(
        "MountVolume.SetUp failed for volume \"config\" : configmap references non-existent config key: one",
    );
    cluster.kubectl(&["patch", "configmap", "late", "-p", r#"{"data":{"one":"at last"}}"#]);
    cluster.kubectl(&[
        "wait",
        "--for=jsonpath={.status.phase}=Succeeded",
        "pod/patient",
        "--timeout=30s",
    ]);
    let text = cluster.kubectl(&["logs", "patient"]);
    let (read, maybe) = text.split_once('\n').unwrap();
    assert_eq!(read, "read at last");
    let files = maybe.split(' ').skip(1).filter(|name| !name.starts_with(".."));
    assert_eq!(files.count(), 0, "what is optional may be empty: {maybe}");
}

#[test]
fn a_stateful_set_finds_its_files_again() {
    let cluster = with_probe();
    let words = ["read", "/data/note", "write", "/data/note", "kept", "sleep", "600000"];
    let claim = json!({ "metadata": { "name": "data" }, "spec": {
        "accessModes": ["ReadWriteOnce"], "resources": { "requests": { "storage": "1Mi" } } } });
    let container = json!({ "name": "c", "image": "probe.wasm", "imagePullPolicy": "IfNotPresent", "args": words,
        "volumeMounts": [{ "name": "data", "mountPath": "/data" }] });
    let set = json!({
        "apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": { "name": "db" },
        "spec": {
            "replicas": 1, "serviceName": "db", "selector": { "matchLabels": { "app": "db" } },
            "template": { "metadata": { "labels": { "app": "db" } },
                          "spec": { "terminationGracePeriodSeconds": 0, "containers": [container] } },
            "volumeClaimTemplates": [claim],
        },
    });
    cluster.apply(&set.to_string());
    cluster.kubectl(&["rollout", "status", "statefulset/db", "--timeout=60s"]);
    let written = |log: &str| log.contains("write done");
    cluster.until("the file is written", |cluster| written(&cluster.kubectl(&["logs", "db-0"])));
    let log = cluster.kubectl(&["logs", "db-0"]);
    assert!(log.contains("read failed: NotFound"), "{log}");

    cluster.kubectl(&["delete", "pod", "db-0", "--timeout=30s"]);
    cluster.until("another pod has written the file", |cluster| {
        written(&cluster.try_kubectl(&["logs", "db-0"]).stdout)
    });
    let log = cluster.kubectl(&["logs", "db-0"]);
    assert!(log.contains("read kept"), "{log}");

    let claim = cluster.json(&["pvc", "data-db-0"]);
    assert_eq!(claim["status"]["phase"], "Bound");
    let volume = claim["spec"]["volumeName"].as_str().unwrap().to_owned();
    let directory =
        cluster.json(&["pv", &volume])["spec"]["local"]["path"].as_str().unwrap().to_owned();
    assert_eq!(fs::read_to_string(PathBuf::from(&directory).join("note")).unwrap(), "kept");
    let grown = r#"{"spec":{"resources":{"requests":{"storage":"2Mi"}}}}"#;
    let refused = cluster.try_kubectl(&["patch", "pvc", "data-db-0", "-p", grown]);
    assert!(
        refused.stderr.contains("the storageclass that provisions the pvc must support resize"),
        "{refused:?}"
    );

    // The class says Delete: the directory goes with the claim.
    cluster.kubectl(&["delete", "statefulset", "db", "--timeout=30s"]);
    cluster.kubectl(&["wait", "--for=delete", "pod/db-0", "--timeout=30s"]);
    cluster.kubectl(&["delete", "pvc", "data-db-0", "--timeout=30s"]);
    cluster.kubectl(&["wait", "--for=delete", &format!("pv/{volume}"), "--timeout=30s"]);
    assert!(!PathBuf::from(directory).exists());
}

#[test]
fn a_pod_says_that_its_claim_is_missing() {
    let cluster = with_probe();
    let volume = json!([{ "name": "data", "persistentVolumeClaim": { "claimName": "absent" } }]);
    let spec = json!({ "containers": [container("c", "print up", json!([]))], "volumes": volume });
    apply(&cluster, "waits", spec);
    cluster.until("the failure is told", |cluster| {
        let told = cluster.kubectl(&["get", "events", "--field-selector=reason=FailedScheduling"]);
        told.contains("persistentvolumeclaim \"absent\" not found")
    });
    // It runs as soon as there is one.
    let claim = json!({ "apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": { "name": "absent" }, "spec": {
        "accessModes": ["ReadWriteOnce"], "resources": { "requests": { "storage": "1Mi" } } } });
    cluster.apply(&claim.to_string());
    let succeeded = "--for=jsonpath={.status.phase}=Succeeded";
    cluster.kubectl(&["wait", succeeded, "pod/waits", "--timeout=60s"]);
}
