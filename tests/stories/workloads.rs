//! Controllers that keep pods: ReplicationControllers and StatefulSets, by the kubectl that drives them.

use coracle_tests::{Cluster, examples};

fn with_guests() -> Cluster {
    let cluster = Cluster::start();
    for name in ["hello", "caller"] {
        cluster.import(&examples(name).join(format!("{name}.wasm")), &format!("{name}.wasm"));
    }
    cluster
}

const OLD: &str = "apiVersion: v1
kind: ReplicationController
metadata: {name: old}
spec:
  replicas: 2
  selector: {app: old}
  template:
    metadata: {labels: {app: old}}
    spec: {containers: [{name: c, image: hello.wasm}]}
";

#[test]
fn a_replication_controller_is_scaled_described_and_deleted() {
    let cluster = with_guests();
    cluster.apply(OLD);
    let ready = "--for=jsonpath={.status.readyReplicas}";
    cluster.kubectl(&["wait", &format!("{ready}=2"), "rc/old", "--timeout=60s"]);
    cluster.kubectl(&["scale", "rc/old", "--replicas=3", "--current-replicas=2"]);
    cluster.kubectl(&["wait", &format!("{ready}=3"), "rc/old", "--timeout=60s"]);
    let described = cluster.kubectl(&["describe", "rc/old"]);
    assert!(described.contains("Replicas:     3 current / 3 desired"), "{described}");
    assert!(described.contains("Pods Status:  3 Running / 0 Waiting"), "{described}");
    assert!(described.contains("SuccessfulCreate"), "{described}");
    cluster.kubectl(&["delete", "rc/old", "--cascade=orphan"]);
    let pods = cluster.kubectl(&["get", "pods", "-l", "app=old", "-o", "name"]);
    assert_eq!(pods.lines().count(), 3, "{pods}");
}

const DB: &str = "apiVersion: v1
kind: Service
metadata: {name: dbs}
spec:
  clusterIP: None
  selector: {app: db}
  ports: [{port: 8080}]
---
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: db}
spec:
  replicas: 3
  serviceName: dbs
  selector: {matchLabels: {app: db}}
  template:
    metadata: {labels: {app: db}}
    spec:
      containers:
        - name: c
          image: hello.wasm
          env:
            - {name: POD_NAME, valueFrom: {fieldRef: {fieldPath: metadata.name}}}
          readinessProbe: {httpGet: {path: /healthz, port: 8080}, periodSeconds: 1}
---
apiVersion: v1
kind: Pod
metadata: {name: caller}
spec:
  containers:
    - name: c
      image: caller.wasm
      env: [{name: SERVICE, value: 'db-1.dbs:8080'}]
";

#[test]
fn a_stateful_set_keeps_its_names_through_rollout_and_undo() {
    let cluster = with_guests();
    cluster.apply(DB);
    cluster.kubectl(&["rollout", "status", "statefulset/db", "--timeout=90s"]);
    let names = cluster.kubectl(&["get", "pods", "-l", "app=db", "-o", "name"]);
    assert_eq!(names, "pod/db-0\npod/db-1\npod/db-2\n");

    // One of them by its own name, as peers of a database call each other.
    cluster.kubectl(&["wait", "--for=condition=Ready", "pod/caller", "--timeout=60s"]);
    let through = "/api/v1/namespaces/default/pods/caller:8080/proxy/";
    let answer = cluster.kubectl(&["get", "--raw", through]);
    assert!(answer.contains("pod: db-1"), "{answer}");

    cluster.kubectl(&["set", "env", "statefulset/db", "COLOUR=blue"]);
    cluster.kubectl(&["rollout", "status", "statefulset/db", "--timeout=90s"]);
    let colour = "jsonpath={.items[*].spec.containers[0].env[?(@.name=='COLOUR')].value}";
    let colours = || cluster.kubectl(&["get", "pods", "-l", "app=db", "-o", colour]);
    assert_eq!(colours(), "blue blue blue");
    let history = cluster.kubectl(&["rollout", "history", "statefulset/db"]);
    assert_eq!(history.lines().filter(|line| line.starts_with(['1', '2'])).count(), 2, "{history}");
    cluster.kubectl(&["rollout", "undo", "statefulset/db"]);
    cluster.kubectl(&["rollout", "status", "statefulset/db", "--timeout=90s"]);
    assert_eq!(colours(), "");

    cluster.kubectl(&["scale", "statefulset/db", "--replicas=1"]);
    cluster.kubectl(&["wait", "--for=delete", "pod/db-1", "--timeout=60s"]);
    let names = cluster.kubectl(&["get", "pods", "-l", "app=db", "-o", "name"]);
    assert_eq!(names, "pod/db-0\n");
}

const WAITING: &str = "apiVersion: apps/v1
kind: StatefulSet
metadata: {name: waiting}
spec:
  serviceName: waiting
  selector: {matchLabels: {app: waiting}}
  template:
    metadata: {labels: {app: waiting}}
    spec:
      nodeSelector: {disk: none}
      containers: [{name: c, image: hello.wasm}]
  volumeClaimTemplates:
    - metadata: {name: data}
      spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Mi}}}
";

#[test]
fn a_claim_that_was_deleted_is_made_again_for_the_pod_that_waits() {
    let cluster = with_guests();
    cluster.apply(WAITING);
    let waits = "--for=jsonpath={.status.phase}=Pending";
    cluster.kubectl(&["wait", "--for=create", "pod/waiting-0", "--timeout=60s"]);
    cluster.kubectl(&["wait", waits, "pod/waiting-0", "--timeout=60s"]);
    let claim = ["pvc", "data-waiting-0"];
    let uid = cluster.json(&claim)["metadata"]["uid"].clone();
    cluster.kubectl(&["delete", "pvc", "data-waiting-0", "--timeout=60s"]);
    // Whatever changes of the pod makes its set look; that the claim is gone changes why it waits.
    cluster.until("the claim is another one", |cluster| {
        let found = cluster.try_kubectl(&["get", "-o", "json", claim[0], claim[1]]);
        found.code == Some(0) && !found.stdout.contains(uid.as_str().unwrap())
    });
}

/// A pod, and a StatefulSet whose pod wants the same port of the same node, which no scheduler is asked about.
const EVICTED: &str = "apiVersion: v1
kind: Pod
metadata: {name: first}
spec: {nodeName: node-0, containers: [{name: c, image: hello.wasm, ports: [{containerPort: 8080, hostPort: 21017}]}]}
---
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: evicted}
spec:
  serviceName: evicted
  selector: {matchLabels: {app: evicted}}
  template:
    metadata: {labels: {app: evicted}}
    spec:
      nodeName: node-0
      containers: [{name: c, image: hello.wasm, ports: [{containerPort: 8080, hostPort: 21017}]}]
";

#[test]
fn a_stateful_set_makes_its_pod_again_until_the_node_takes_it() {
    let cluster = with_guests();
    let (first, set) = EVICTED.split_once("---\n").unwrap();
    cluster.apply(first);
    cluster.kubectl(&["wait", "--for=condition=Ready", "pod/first", "--timeout=60s"]);
    cluster.apply(set);
    cluster.until("the pod was refused and made again", |cluster| {
        let described = cluster.kubectl(&["describe", "statefulset", "evicted"]);
        described.contains("recreating failed Pod evicted-0")
    });
    cluster.kubectl(&["delete", "pod", "first", "--timeout=60s"]);
    cluster.kubectl(&["rollout", "status", "statefulset/evicted", "--timeout=60s"]);
    let events = cluster.kubectl(&["get", "events", "-o", "wide"]);
    assert!(events.contains("NodePorts"), "{events}");
}
