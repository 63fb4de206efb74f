//! A server that is killed at random moments while workloads are made, resized, rolled and deleted ends where one does
//! that nobody disturbs.

use std::collections::{BTreeMap, BTreeSet};
use std::thread;
use std::time::Duration;

use coracle_tests::{Cluster, examples};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::Value;

/// Names the moments of an earlier run, to have them again.
const SEED: &str = "CORACLE_SEED";
/// The longest that the server runs undisturbed, in milliseconds.
const LONGEST_LIFE: u64 = 700;
/// All that a workload consists of.
const KINDS: &str = "deployments.apps,replicasets.apps,statefulsets.apps,daemonsets.apps,\
                     replicationcontrollers,controllerrevisions.apps,pods";

/// What is asked for.
#[derive(Clone, Copy)]
struct Wish {
    replicas: u64,
    colour: &'static str,
    /// How many colours there were so far: each is a revision.
    colours: usize,
}

#[test]
fn workloads_end_as_wished_however_often_the_server_is_killed() {
    let seed = std::env::var(SEED).ok().and_then(|seed| seed.parse().ok());
    let seed = seed.unwrap_or_else(rand::random::<u32>);
    println!("{SEED}={seed}");
    let mut random = StdRng::seed_from_u64(seed.into());
    let mut cluster = Cluster::start();
    cluster.import(&examples("hello").join("hello.wasm"), "hello.wasm");
    for (replicas, colour, colours) in
        [(3, "red", 1), (6, "red", 1), (5, "blue", 2), (2, "blue", 2), (3, "red", 2)]
    {
        cluster.apply(&manifest(replicas, colour));
        kill_repeatedly(&mut cluster, &mut random);
        let wish = Wish { replicas, colour, colours };
        until(&cluster, |cluster| amiss(cluster, wish));
    }
    let names = ["deployment/web", "statefulset/db", "daemonset/logs", "rc/old"];
    cluster.kubectl(&[&["delete", "--wait=false"][..], &names].concat());
    kill_repeatedly(&mut cluster, &mut random);
    until(&cluster, |cluster| {
        items(cluster).iter().map(|left| format!("{} is left", name(left))).collect()
    });
}

/// Kills the server a few times: when it has worked for a while, and while it starts.
fn kill_repeatedly(cluster: &mut Cluster, random: &mut StdRng) {
    for _ in 0..random.random_range(1..=3) {
        // A power cut asks nobody whether something has been done.
        thread::sleep(Duration::from_millis(random.random_range(0..LONGEST_LIFE)));
        cluster.kill();
        cluster.launch();
    }
    thread::sleep(Duration::from_millis(random.random_range(0..LONGEST_LIFE)));
    cluster.kill();
    cluster.run();
}

fn manifest(replicas: u64, colour: &str) -> String {
    let kinds = [
        ("apps/v1", "Deployment", "web"),
        ("apps/v1", "StatefulSet", "db"),
        ("apps/v1", "DaemonSet", "logs"),
        ("v1", "ReplicationController", "old"),
    ];
    let manifests = kinds.map(|(version, kind, name)| {
        let own = match kind {
            "DaemonSet" => String::new(),
            "StatefulSet" => format!("replicas: {replicas}\n  serviceName: {name}"),
            _ => format!("replicas: {replicas}"),
        };
        let selector = match kind {
            "ReplicationController" => format!("{{app: {name}}}"),
            _ => format!("{{matchLabels: {{app: {name}}}}}"),
        };
        format!(
            "apiVersion: {version}
kind: {kind}
metadata: {{name: {name}}}
spec:
  {own}
  selector: {selector}
  template:
    metadata: {{labels: {{app: {name}}}}}
    spec: {{containers: [{{name: c, image: hello.wasm, env: [{{name: COLOUR, value: {colour}}}]}}]}}
"
        )
    });
    manifests.join("---\n")
}

/// Waits until nothing is amiss, and says what was if that does not happen.
#[track_caller]
fn until(cluster: &Cluster, amiss: impl Fn(&Cluster) -> Vec<String>) {
    let mut last = Vec::new();
    let wait = std::panic::AssertUnwindSafe(|| {
        cluster.until("all is as wished", |cluster| {
            last = amiss(cluster);
            last.is_empty()
        });
    });
    if let Err(panic) = std::panic::catch_unwind(wait) {
        println!("{last:#?}");
        std::panic::resume_unwind(panic);
    }
}

/// What is not as wished, in words.
fn amiss(cluster: &Cluster, wish: Wish) -> Vec<String> {
    let all = items(cluster);
    let mut amiss = orphans(&all);
    let of_kind = |kind: &'static str| all.iter().filter(move |object| object["kind"] == kind);
    let mut pods: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for pod in of_kind("Pod") {
        let owner = pod["metadata"]["ownerReferences"][0]["kind"].as_str().unwrap_or_default();
        pods.entry(owner).or_default().push(name(pod));
        amiss.extend(pod_amiss(pod, owner, wish).map(|what| format!("pod {} {what}", name(pod))));
    }
    let mut expect = |what: &str, found: usize, wanted: usize| {
        if found != wanted {
            amiss.push(format!("{found} {what} instead of {wanted}"));
        }
    };
    let replicas = usize::try_from(wish.replicas).unwrap();
    for (owner, wanted) in
        [("ReplicaSet", replicas), ("ReplicationController", replicas), ("DaemonSet", 1)]
    {
        expect(&format!("pods of the {owner}"), pods.get(owner).map_or(0, Vec::len), wanted);
    }
    let sets = of_kind("ReplicaSet").filter(|set| set["spec"]["replicas"] != 0);
    expect("replica sets with pods", sets.count(), 1);
    expect("replica sets", of_kind("ReplicaSet").count(), wish.colours);
    // One for each colour of the StatefulSet and of the DaemonSet.
    expect("revisions", of_kind("ControllerRevision").count(), 2 * wish.colours);
    let ordinals: Vec<_> = (0..replicas).map(|ordinal| format!("db-{ordinal}")).collect();
    if pods.get("StatefulSet").is_none_or(|found| *found != ordinals) {
        amiss.push(format!("pods of the StatefulSet: {:?}", pods.get("StatefulSet")));
    }
    for owner in ["Deployment", "StatefulSet", "DaemonSet", "ReplicationController"] {
        amiss.extend(of_kind(owner).filter_map(|owner| status_amiss(owner, wish)));
    }
    amiss
}

/// The objects whose owner is not there.
fn orphans(all: &[Value]) -> Vec<String> {
    let uids: BTreeSet<_> = all.iter().filter_map(|it| it["metadata"]["uid"].as_str()).collect();
    let orphans = all.iter().filter(|it| {
        let mut owners = it["metadata"]["ownerReferences"].as_array().into_iter().flatten();
        owners.any(|owner| !uids.contains(owner["uid"].as_str().unwrap_or_default()))
    });
    orphans.map(|orphan| format!("{} {} is an orphan", orphan["kind"], name(orphan))).collect()
}

fn pod_amiss(pod: &Value, owner: &str, wish: Wish) -> Option<&'static str> {
    let mut conditions = pod["status"]["conditions"].as_array().into_iter().flatten();
    let is_ready = conditions.any(|it| it["type"] == "Ready" && it["status"] == "True");
    // A ReplicationController leaves the pods that it has.
    let colour = &pod["spec"]["containers"][0]["env"][0]["value"];
    match owner {
        _ if !pod["metadata"]["deletionTimestamp"].is_null() => Some("is going"),
        _ if !is_ready => Some("is not ready"),
        "ReplicationController" => None,
        "" => Some("is nobody's"),
        _ => (colour != wish.colour).then_some("has the wrong colour"),
    }
}

/// Whether the status tells of something else than what was wished.
fn status_amiss(owner: &Value, wish: Wish) -> Option<String> {
    let status = &owner["status"];
    let fields: &[&str] = match owner["kind"].as_str() {
        Some("Deployment") => &["replicas", "readyReplicas", "updatedReplicas"],
        Some("StatefulSet") => &["replicas", "currentReplicas", "updatedReplicas"],
        Some("DaemonSet") => &["desiredNumberScheduled", "numberReady", "updatedNumberScheduled"],
        _ => &["replicas", "readyReplicas", "availableReplicas"],
    };
    let wanted = if owner["kind"] == "DaemonSet" { 1 } else { wish.replicas };
    let is_right = fields.iter().all(|field| status[field] == wanted)
        && status["observedGeneration"] == owner["metadata"]["generation"]
        && status["currentRevision"] == status["updateRevision"];
    (!is_right).then(|| format!("{}: {status}", name(owner)))
}

fn items(cluster: &Cluster) -> Vec<Value> {
    cluster.json(&[KINDS])["items"].as_array().cloned().unwrap_or_default()
}

fn name(object: &Value) -> &str {
    object["metadata"]["name"].as_str().unwrap_or_default()
}
