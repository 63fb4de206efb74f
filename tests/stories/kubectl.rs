//! Every kubectl command that a user reaches for, with the newest kubectl and the one that is installed.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Stdio;

use coracle_tests::{Cluster, examples, kubectls};

/// Runs a story with each kubectl, on a cluster of its own with the example guests in its image store.
fn with_each_kubectl(story: impl Fn(&Cluster)) {
    for kubectl in kubectls() {
        let cluster = Cluster::start().with_kubectl(&kubectl);
        for name in ["hello", "batch", "tick"] {
            cluster.import(&examples(name).join(format!("{name}.wasm")), &format!("{name}.wasm"));
        }
        story(&cluster);
    }
}

/// Runs kubectl and checks that it prints each of these.
#[track_caller]
fn shows(cluster: &Cluster, command: &str, expected: &[&str]) -> String {
    let arguments: Vec<&str> = command.split(' ').collect();
    let text = cluster.kubectl(&arguments);
    for part in expected {
        assert!(text.contains(part), "kubectl {command} shows no {part:?}:\n{text}");
    }
    text
}

#[test]
fn objects_are_created_by_command() {
    with_each_kubectl(|cluster| {
        let check = |command: &str, expected: &str| shows(cluster, command, &[expected]);
        check("create namespace made", "namespace/made created");
        check("create configmap made --from-literal=a=b", "configmap/made created");
        check("create secret generic made --from-literal=a=b", "secret/made created");
        check("create serviceaccount made", "serviceaccount/made created");
        check("create token made", "ey");
        check(
            "create role made --verb=get --resource=pods",
            "role.rbac.authorization.k8s.io/made created",
        );
        check("create rolebinding made --role=made --serviceaccount=default:made", "created");
        check(
            "create deployment made --image=hello.wasm --port=8080",
            "deployment.apps/made created",
        );
        check("rollout status deployment/made --timeout=60s", "successfully rolled out");
        check("expose deployment made --port=80 --target-port=8080", "service/made exposed");
        check("create job made --image=batch.wasm", "job.batch/made created");
        check("wait --for=condition=complete job/made --timeout=60s", "condition met");
        let schedule = ["create", "cronjob", "made", "--image=tick.wasm", "--schedule=*/5 * * * *"];
        assert!(cluster.kubectl(&schedule).contains("cronjob.batch/made created"));
        check("run made --image=tick.wasm --restart=Never", "pod/made created");
        check(
            "wait --for=jsonpath={.status.phase}=Succeeded pod/made --timeout=60s",
            "condition met",
        );
        check("delete namespace made --timeout=60s", "deleted");
    });
}

#[test]
fn applying_again_changes_nothing() {
    with_each_kubectl(|cluster| {
        let folder = examples("hello");
        let folder = folder.to_str().unwrap();
        shows(cluster, &format!("apply -f {folder}"), &["deployment.apps/hello created"]);
        let again =
            shows(cluster, &format!("apply -f {folder}"), &["deployment.apps/hello unchanged"]);
        assert!(again.lines().all(|line| line.ends_with("unchanged")), "{again}");
        shows(cluster, &format!("diff -f {folder}"), &[]);
        shows(
            cluster,
            &format!("delete -f {folder} --timeout=60s"),
            &["service \"hello\" deleted"],
        );
    });
}

#[test]
fn objects_are_shown_in_every_form() {
    with_each_kubectl(|cluster| {
        cluster.kubectl(&["apply", "-f", examples("hello").to_str().unwrap()]);
        cluster.kubectl(&["rollout", "status", "deployment/hello", "--timeout=60s"]);
        shows(
            cluster,
            "get deployments",
            &["NAME", "READY", "UP-TO-DATE", "AVAILABLE", "AGE", "2/2"],
        );
        shows(
            cluster,
            "get pods -o wide",
            &["NOMINATED NODE", "READINESS GATES", "node-0", "Running"],
        );
        shows(cluster, "get deployment hello -o yaml", &["kind: Deployment", "replicas: 2"]);
        shows(cluster, "get deployment hello -o json", &["\"kind\": \"Deployment\""]);
        shows(cluster, "get pods -o jsonpath={.items[*].status.phase}", &["Running Running"]);
        shows(
            cluster,
            "get pods -o custom-columns=N:.metadata.name,P:.status.phase",
            &["N ", "Running"],
        );
        shows(cluster, "get pods -l app=hello --no-headers", &["hello-"]);
        shows(cluster, "get pods --field-selector status.phase=Running", &["hello-"]);
        let none = cluster.try_kubectl(&["get", "pods", "--field-selector", "status.phase=Failed"]);
        assert!(none.stderr.contains("No resources found"), "{none:?}");
        shows(
            cluster,
            "get all -A",
            &["service/kubernetes", "deployment.apps/hello", "replicaset.apps/hello-"],
        );
        shows(cluster, "get nodes -o wide", &["Ready", "wasmtime://48", "v1.37."]);
        shows(cluster, "get pods --sort-by=.metadata.name --chunk-size=1", &["hello-"]);
        shows(cluster, "get events", &["LAST SEEN", "SuccessfulCreate", "Scheduled"]);
        shows(cluster, "events --for deployment/hello", &["Scaled up replica set hello-"]);
        shows(cluster, "api-resources", &["deployments", "deploy", "apps/v1", "cronjobs", "cj"]);
        shows(cluster, "api-versions", &["apps/v1", "batch/v1", "rbac.authorization.k8s.io/v1"]);
        shows(cluster, "cluster-info", &["Kubernetes control plane", "is running at"]);
        shows(cluster, "version", &["Server Version: v1.37."]);
        shows(cluster, "explain deployment.spec.strategy", &["rollingUpdate", "FIELDS"]);
        shows(cluster, "auth whoami", &["system:admin", "system:masters"]);
        shows(cluster, "auth can-i create pods", &["yes"]);
        shows(cluster, "auth can-i --list", &["*.*", "[*]"]);
        let refused = cluster.try_kubectl(&[
            "auth",
            "can-i",
            "get",
            "secrets",
            "--as=system:serviceaccount:default:default",
        ]);
        assert_eq!((refused.stdout.trim(), refused.code), ("no", Some(1)));
    });
}

#[test]
fn every_kind_is_described() {
    with_each_kubectl(|cluster| {
        for example in ["hello", "batch", "tick"] {
            cluster.kubectl(&["apply", "-f", examples(example).to_str().unwrap()]);
        }
        cluster.kubectl(&["rollout", "status", "deployment/hello", "--timeout=60s"]);
        cluster.kubectl(&["wait", "--for=condition=complete", "job/batch", "--timeout=60s"]);
        shows(
            cluster,
            "describe deployment hello",
            &["2 available", "MinimumReplicasAvailable", "Events:", "Scaled up"],
        );
        shows(
            cluster,
            "describe replicaset -l app=hello",
            &["Controlled By:  Deployment/hello", "Created pod:"],
        );
        shows(
            cluster,
            "describe pods -l app=hello",
            &["Container ID:   wasm://", "Ready          ", "Started", "Scheduled"],
        );
        shows(cluster, "describe service hello", &["Type:", "NodePort", "Endpoints:"]);
        shows(cluster, "describe job batch", &["Succeeded", "Job completed"]);
        shows(cluster, "describe cronjob tick", &["Schedule:", "* * * * *"]);
        shows(cluster, "describe configmap hello", &["Data"]);
        shows(cluster, "describe secret hello", &["Type:  Opaque", "bytes"]);
        shows(
            cluster,
            "describe node node-0",
            &["Capacity:", "KubeletReady", "Allocated resources:", "Non-terminated Pods:"],
        );
        shows(cluster, "describe namespace default", &["Status:       Active"]);
        shows(cluster, "describe serviceaccount default", &["Name:"]);
        shows(cluster, "describe clusterrole view", &["Resources", "pods"]);
        shows(cluster, "describe clusterrolebinding cluster-admin", &["system:masters"]);
        shows(cluster, "describe endpointslices -l app=hello", &["AddressType:", "Ready:"]);
        shows(cluster, "describe endpoints hello", &["Subsets:"]);
        shows(cluster, "describe lease node-0 -n kube-node-lease", &["Holder Identity:"]);
        shows(cluster, "describe priorityclass system-node-critical", &["2000001000"]);
    });
}

#[test]
fn logs_are_read_in_all_forms() {
    with_each_kubectl(|cluster| {
        cluster.kubectl(&["apply", "-f", examples("hello").to_str().unwrap()]);
        cluster.kubectl(&["rollout", "status", "deployment/hello", "--timeout=60s"]);
        let service = cluster.json(&["service", "hello"]);
        let port =
            u16::try_from(service["spec"]["ports"][0]["nodePort"].as_u64().unwrap()).unwrap();
        for _ in 0..6 {
            coracle_tests::get(([127, 0, 0, 1], port).into(), "/").unwrap();
        }
        cluster.until("each pod has logged", |cluster| {
            cluster.kubectl(&["logs", "-l", "app=hello", "--tail=-1"]).lines().count() >= 6
        });
        let pods = cluster.kubectl(&["get", "pods", "-o", "name"]);
        let pod = pods.lines().next().unwrap();
        assert!(cluster.kubectl(&["logs", pod]).contains("GET /"));
        assert_eq!(cluster.kubectl(&["logs", pod, "--tail=1"]).lines().count(), 1);
        assert_eq!(cluster.kubectl(&["logs", pod, "--limit-bytes=3"]), "GET");
        let stamped = cluster.kubectl(&["logs", pod, "--timestamps", "-c", "hello", "--tail=1"]);
        assert!(stamped.starts_with("20") && stamped.contains("Z GET /"), "{stamped}");
        assert!(cluster.kubectl(&["logs", pod, "--since=1h"]).contains("GET /"));
        assert_eq!(cluster.kubectl(&["logs", pod, "--since-time=2999-01-01T00:00:00Z"]), "");
        assert!(cluster.kubectl(&["logs", "-l", "app=hello", "--prefix"]).contains("[pod/hello-"));
        let refused = cluster.kubectl_refused(&["logs", pod, "--previous"]);
        assert!(refused.contains("previous terminated container \"hello\" in pod"), "{refused}");
        let refused = cluster.kubectl_refused(&["logs", pod, "-c", "other"]);
        assert!(
            refused.contains("container other is not valid for pod")
                || refused.contains("container other"),
            "{refused}"
        );

        // Followed until the container ends, and then to the end.
        let follower =
            cluster.kubectl_command(&["logs", "-f", pod]).stdout(Stdio::piped()).spawn().unwrap();
        cluster.kubectl(&["delete", pod, "--timeout=60s"]);
        let output = follower.wait_with_output().unwrap();
        assert!(String::from_utf8_lossy(&output.stdout).contains("GET /"), "{output:?}");
    });
}

#[test]
fn objects_are_changed_by_command() {
    with_each_kubectl(|cluster| {
        let check = |command: &str, expected: &str| shows(cluster, command, &[expected]);
        cluster.kubectl(&["apply", "-f", examples("hello").to_str().unwrap()]);
        check("rollout status deployment/hello --timeout=60s", "successfully rolled out");
        check("label deployment/hello team=a", "labeled");
        check("label deployment/hello team=b --overwrite", "labeled");
        check("get deployment -l team=b -o name", "deployment.apps/hello");
        check("annotate deployment/hello note=hi", "annotated");
        check("scale deployment/hello --replicas=3", "scaled");
        check("rollout status deployment/hello --timeout=60s", "successfully rolled out");
        check("get deployment hello -o jsonpath={.status.readyReplicas}", "3");

        let strategic = r#"{"spec":{"template":{"spec":{"containers":[{"name":"hello","env":[{"name":"MORE","value":"1"}]}]}}}}"#;
        cluster.kubectl(&["patch", "deployment", "hello", "-p", strategic]);
        let names = check(
            "get deployment hello -o jsonpath={.spec.template.spec.containers[0].env[*].name}",
            "MORE",
        );
        assert!(names.contains("POD_NAME"), "a strategic merge keeps the other items: {names}");
        cluster.kubectl(&[
            "patch",
            "deployment",
            "hello",
            "--type=merge",
            "-p",
            r#"{"spec":{"replicas":1}}"#,
        ]);
        cluster.kubectl(&[
            "patch",
            "deployment",
            "hello",
            "--type=json",
            "-p",
            r#"[{"op":"replace","path":"/spec/replicas","value":2}]"#,
        ]);
        check("get deployment hello -o jsonpath={.spec.replicas}", "2");
        check("set image deployment/hello hello=hello.wasm:latest", "image updated");
        check("set env deployment/hello COLOR=blue", "env updated");
        check("rollout status deployment/hello --timeout=60s", "successfully rolled out");

        let editor = cluster.data_dir().join("editor");
        fs::write(&editor, "#!/bin/sh\nsed -i 's/note: hi/note: edited/' \"$1\"\n").unwrap();
        fs::set_permissions(&editor, fs::Permissions::from_mode(0o755)).unwrap();
        let mut edit = cluster.kubectl_command(&["edit", "deployment", "hello"]);
        let edited = coracle_tests::Output::of(edit.env("EDITOR", &editor));
        assert!(edited.stdout.contains("deployment.apps/hello edited"), "{edited:?}");
        check("get deployment hello -o jsonpath={.metadata.annotations.note}", "edited");
    });
}

#[test]
fn a_rollout_is_followed_paused_and_undone() {
    with_each_kubectl(|cluster| {
        let check = |command: &str, expected: &str| shows(cluster, command, &[expected]);
        cluster.kubectl(&["apply", "-f", examples("hello").to_str().unwrap()]);
        check("rollout status deployment/hello --timeout=60s", "successfully rolled out");
        check("rollout restart deployment/hello", "restarted");
        check("rollout status deployment/hello --timeout=60s", "successfully rolled out");
        check("rollout history deployment/hello", "2 ");
        check("rollout history deployment/hello --revision=1", "hello.wasm");
        check("rollout pause deployment/hello", "paused");
        check("set env deployment/hello PAUSED=1", "env updated");
        let sets = || cluster.kubectl(&["get", "replicasets", "-o", "name"]).lines().count();
        assert_eq!(sets(), 2, "a paused rollout makes no new set");
        check("rollout resume deployment/hello", "resumed");
        check("rollout status deployment/hello --timeout=60s", "successfully rolled out");
        assert_eq!(sets(), 3);
        check("rollout undo deployment/hello --to-revision=1", "rolled back");
        check("rollout status deployment/hello --timeout=60s", "successfully rolled out");
        check("rollout history deployment/hello", "4 ");
    });
}

#[test]
fn a_cordoned_node_takes_no_pods() {
    with_each_kubectl(|cluster| {
        shows(cluster, "cordon node-0", &["node/node-0 cordoned"]);
        shows(cluster, "get nodes", &["Ready,SchedulingDisabled"]);
        shows(cluster, "run waits --image=tick.wasm --restart=Never", &["created"]);
        shows(
            cluster,
            "wait --for=condition=PodScheduled=false pod/waits --timeout=30s",
            &["condition met"],
        );
        cluster.until("the event is there", |cluster| {
            let events = cluster.kubectl(&["events", "--for", "pod/waits"]);
            events.contains("0/1 nodes are available: 1 node(s) were unschedulable")
        });
        shows(cluster, "uncordon node-0", &["node/node-0 uncordoned"]);
        shows(
            cluster,
            "wait --for=jsonpath={.status.phase}=Succeeded pod/waits --timeout=30s",
            &["condition met"],
        );
    });
}

#[test]
fn changes_are_watched() {
    with_each_kubectl(|cluster| {
        let mut watcher = cluster
            .kubectl_command(&["get", "configmaps", "-w", "-l", "watched=yes", "-o", "name"])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = std::io::BufReader::new(watcher.stdout.take().unwrap());
        cluster.kubectl(&["create", "configmap", "unseen"]);
        cluster.kubectl(&["create", "configmap", "seen"]);
        cluster.kubectl(&["label", "configmap", "seen", "watched=yes"]);
        let first = std::io::BufRead::lines(lines).next().unwrap().unwrap();
        assert_eq!(first, "configmap/seen");
        watcher.kill().unwrap();
        watcher.wait().unwrap();
    });
}

/// Pods with a directory of their own, one of every node's, and a budget that lets none of the first go.
const DRAINED: &str = "apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers: [{name: c, image: hello.wasm}]
      volumes: [{name: scratch, emptyDir: {}}]
---
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: every}
spec:
  selector: {matchLabels: {app: every}}
  template:
    metadata: {labels: {app: every}}
    spec: {containers: [{name: c, image: hello.wasm}]}
---
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata: {name: web}
spec: {minAvailable: 2, selector: {matchLabels: {app: web}}}
";

#[test]
fn a_node_is_drained_as_far_as_budgets_allow() {
    let cluster = Cluster::start();
    cluster.import(&examples("hello").join("hello.wasm"), "hello.wasm");
    cluster.apply(DRAINED);
    for object in ["deployment/web", "daemonset/every"] {
        cluster.kubectl(&["rollout", "status", object, "--timeout=60s"]);
    }
    let refused = cluster.kubectl_refused(&["drain", "node-0"]);
    for part in [
        "cannot delete DaemonSet-managed Pods (use --ignore-daemonsets to ignore): default/every-",
        "cannot delete Pods with local storage (use --delete-emptydir-data to override): default/web-",
    ] {
        assert!(refused.contains(part), "no {part:?} in {refused}");
    }
    let drain = ["drain", "node-0", "--ignore-daemonsets", "--delete-emptydir-data"];
    let refused = cluster.kubectl_refused(&[&drain[..], &["--timeout=2s"]].concat());
    let why = "Cannot evict pod as it would violate the pod's disruption budget.";
    assert!(refused.contains(why), "{refused}");
    shows(&cluster, "describe pdb web", &["Min available:  2", "Allowed disruptions:  0"]);
    cluster.until("the node tells that it takes no pods", |cluster| {
        let text = cluster.kubectl(&["describe", "node", "node-0"]);
        text.contains("Node node-0 status is now: NodeNotSchedulable")
    });

    cluster.kubectl(&["patch", "pdb", "web", "-p", "{\"spec\":{\"minAvailable\":0}}"]);
    cluster.kubectl(&["wait", "--for=jsonpath={.status.disruptionsAllowed}=2", "pdb/web"]);
    let drained = cluster.kubectl(&[&drain[..], &["--timeout=60s"]].concat());
    assert!(drained.contains("evicted") && drained.contains("node/node-0 drained"), "{drained}");
    let left = cluster.kubectl(&["get", "pods", "--field-selector=spec.nodeName=node-0"]);
    assert!(left.contains("every-") && !left.contains("web-"), "{left}");
    cluster.kubectl(&["uncordon", "node-0"]);
    cluster.kubectl(&["rollout", "status", "deployment/web", "--timeout=60s"]);
    shows(&cluster, "describe node node-0", &["Starting kubelet.", "NodeReady"]);
}
