use serde_json::json;

use super::super::tests::{Fixture, fixture, pod, write};
use super::*;
use crate::authz::tests::put;

async fn labelled(labels: Value) -> Fixture {
    let fixture = fixture().await;
    let namespace = json!({ "metadata": { "name": "shop", "labels": labels } });
    put(&fixture.store, "namespaces", namespace).await;
    fixture
}

fn check(standard: &str, spec: Value, expected: &str) {
    let namespace = json!({ "metadata": { "labels": {
        "pod-security.kubernetes.io/enforce": standard.split(':').next().unwrap(),
        "pod-security.kubernetes.io/enforce-version": standard.split(':').nth(1).unwrap(),
    } } });
    let (policy, wrong) = Policy::read(&namespace);
    assert_eq!(wrong, []);
    assert_eq!(policy.enforce.to_string(), standard);
    let pod: Template = serde_json::from_value(pod(spec)).unwrap();
    let found = checks::violations(policy.enforce, &pod.metadata, &pod.spec.unwrap());
    assert_eq!(checks::details(&found), expected);
}

fn hardened(more: Value) -> Value {
    let mut spec = json!({
        "securityContext": { "runAsNonRoot": true, "seccompProfile": { "type": "RuntimeDefault" } },
        "containers": [{ "name": "c", "securityContext": { "allowPrivilegeEscalation": false, "capabilities": { "drop": ["ALL"] } } }],
    });
    spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    spec
}

#[test]
fn the_restricted_level_wants_hardened_pods() {
    check("restricted:latest", hardened(json!({})), "");
    check(
        "restricted:latest",
        json!({}),
        r#"allowPrivilegeEscalation != false (container "c" must set securityContext.allowPrivilegeEscalation=false), unrestricted capabilities (container "c" must set securityContext.capabilities.drop=["ALL"]), runAsNonRoot != true (pod or container "c" must set securityContext.runAsNonRoot=true), seccompProfile (pod or container "c" must set securityContext.seccompProfile.type to "RuntimeDefault" or "Localhost")"#,
    );
    check("restricted:v1.7", json!({ "securityContext": { "runAsNonRoot": true } }), "");
    check(
        "restricted:latest",
        hardened(
            json!({ "volumes": [{ "name": "h", "hostPath": { "path": "/" } }, { "name": "n", "nfs": { "server": "s", "path": "/" } }, { "name": "e", "emptyDir": {} }] }),
        ),
        r#"restricted volume types (volumes "h", "n" use restricted volume types "hostPath", "nfs")"#,
    );
    check(
        "restricted:latest",
        hardened(
            json!({ "securityContext": { "runAsNonRoot": false, "runAsUser": 0, "seccompProfile": { "type": "Unconfined" } } }),
        ),
        r#"runAsNonRoot != true (pod must not set securityContext.runAsNonRoot=false), runAsUser=0 (pod must not set runAsUser=0), seccompProfile (pod must not set securityContext.seccompProfile.type to "Unconfined")"#,
    );
    let mut windows = hardened(json!({ "os": { "name": "windows" } }));
    windows["containers"] = json!([{ "name": "c" }]);
    check("restricted:latest", windows, "");
}

#[test]
fn the_baseline_forbids_what_gives_a_pod_its_node() {
    check("baseline:latest", json!({}), "");
    check(
        "baseline:latest",
        json!({ "hostNetwork": true, "hostPID": true, "volumes": [{ "name": "h", "hostPath": { "path": "/" } }] }),
        r#"host namespaces (hostNetwork=true, hostPID=true), hostPath volumes (volume "h")"#,
    );
    check(
        "baseline:latest",
        json!({ "initContainers": [{ "name": "i", "securityContext": { "privileged": true } }], "containers": [{
            "name": "c", "ports": [{ "containerPort": 80, "hostPort": 80 }, { "containerPort": 81, "hostPort": 81 }],
            "securityContext": { "privileged": true, "procMount": "Unmasked", "capabilities": { "add": ["NET_RAW", "CHOWN"] } },
        }] }),
        r#"non-default capabilities (container "c" must not include "NET_RAW" in securityContext.capabilities.add), hostPort (container "c" uses hostPorts 80, 81), privileged (containers "i", "c" must not set securityContext.privileged=true), procMount (container "c" must not set securityContext.procMount to "Unmasked")"#,
    );
    check(
        "baseline:latest",
        json!({ "securityContext": {
            "seLinuxOptions": { "type": "other_t", "user": "u" }, "sysctls": [{ "name": "kernel.msgmax", "value": "1" }, { "name": "net.ipv4.tcp_rmem", "value": "1" }],
            "windowsOptions": { "hostProcess": true }, "appArmorProfile": { "type": "Unconfined" },
        } }),
        r#"forbidden AppArmor profile (pod must not set AppArmor profile type to "Unconfined"), seLinuxOptions (pod set forbidden securityContext.seLinuxOptions: type "other_t"; user may not be set), forbidden sysctls (kernel.msgmax), hostProcess (pod must not set securityContext.windowsOptions.hostProcess=true)"#,
    );
    let sysctl = json!({ "securityContext": { "sysctls": [{ "name": "net.ipv4.tcp_rmem", "value": "1" }] } });
    check("baseline:v1.31", sysctl, "forbidden sysctls (net.ipv4.tcp_rmem)");
    let probe = json!({ "containers": [{ "name": "c", "livenessProbe": { "httpGet": { "host": "elsewhere", "port": 80 } } }] });
    check("baseline:v1.33", probe.clone(), "");
    check(
        "baseline:latest",
        probe,
        r#"probe or lifecycle host (container "c" uses probe or lifecycle host "elsewhere")"#,
    );
}

#[tokio::test]
async fn an_enforced_standard_refuses_pods_and_lets_workloads_pass() {
    let fixture = labelled(json!({ "pod-security.kubernetes.io/enforce": "baseline", "pod-security.kubernetes.io/enforce-version": "v1.30" })).await;
    let refused = write("v1", "Pod").run(&fixture, pod(json!({ "hostIPC": true }))).await;
    let refused = refused.unwrap_err();
    assert_eq!(
        (refused.code, refused.message.as_str()),
        (
            403,
            r#"pods "web" is forbidden: violates PodSecurity "baseline:v1.30": host namespaces (hostIPC=true)"#
        )
    );
    let template = json!({ "metadata": { "namespace": "shop", "name": "d" }, "spec": { "template": pod(json!({ "hostIPC": true })) } });
    write("apps/v1", "Deployment").run(&fixture, template).await.unwrap();
    // What was let in stays, unless it changes in what policies are about.
    let running = pod(json!({ "hostIPC": true }));
    let mut relabelled = running.clone();
    relabelled["metadata"]["labels"] = json!({ "a": "b" });
    write("v1", "Pod").update(running.clone()).run(&fixture, relabelled).await.unwrap();
    let mut changed = running.clone();
    changed["spec"]["containers"][0]["image"] = json!("other");
    assert_eq!(
        write("v1", "Pod").update(running).run(&fixture, changed).await.unwrap_err().code,
        403
    );
}

#[tokio::test]
async fn a_warned_of_standard_only_warns() {
    let fixture = labelled(json!({ "pod-security.kubernetes.io/warn": "baseline" })).await;
    let warning = r#"would violate PodSecurity "baseline:latest": host namespaces (hostIPC=true)"#;
    let template = pod(json!({ "hostIPC": true }));
    for (api_version, kind, object) in [
        ("v1", "Pod", pod(json!({ "hostIPC": true }))),
        (
            "apps/v1",
            "Deployment",
            json!({ "metadata": { "namespace": "shop", "name": "d" }, "spec": { "template": template } }),
        ),
        (
            "batch/v1",
            "CronJob",
            json!({ "metadata": { "namespace": "shop", "name": "d" }, "spec": { "jobTemplate": { "spec": { "template": template } } } }),
        ),
    ] {
        let (result, warnings) = write(api_version, kind).run_heard(&fixture, object).await;
        result.unwrap();
        assert_eq!(warnings, [warning], "{kind}");
    }
}

#[tokio::test]
async fn labels_must_be_right_and_stricter_ones_tell_of_the_pods_inside() {
    let fixture = fixture().await;
    let namespace = |level: &str| json!({ "metadata": { "name": "shop", "labels": { "pod-security.kubernetes.io/enforce": level } } });
    let wrong = write("v1", "Namespace").run(&fixture, namespace("strict")).await.unwrap_err();
    assert_eq!(
        (wrong.code, wrong.message.as_str()),
        (
            422,
            r#"Namespace "shop" is invalid: metadata.labels[pod-security.kubernetes.io/enforce]: Invalid value: "strict": must be one of privileged, baseline, restricted"#
        )
    );
    for name in ["a", "b", "c"] {
        let spec = json!({ "containers": [], "hostNetwork": name != "c" });
        let pod = json!({ "metadata": { "namespace": "shop", "name": name }, "spec": spec });
        put(&fixture.store, "pods", pod).await;
    }
    let update = write("v1", "Namespace").update(namespace("privileged"));
    let (result, warnings) = update.run_heard(&fixture, namespace("baseline")).await;
    result.unwrap();
    assert_eq!(
        warnings,
        [
            r#"existing pods in namespace "shop" violate the new PodSecurity enforce level "baseline:latest""#,
            "a (and 1 other pod): host namespaces",
        ]
    );
}
