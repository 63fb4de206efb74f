//! What a container's environment is made of.

use super::*;

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
