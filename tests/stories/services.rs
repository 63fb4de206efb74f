//! Services: one address for many pods.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use coracle_tests::{Cluster, examples, get};

fn hello(replicas: u32) -> Cluster {
    let cluster = Cluster::start();
    for name in ["hello", "caller"] {
        cluster.import(&examples(name).join(format!("{name}.wasm")), &format!("{name}.wasm"));
    }
    cluster.kubectl(&["apply", "-f", examples("hello").to_str().unwrap()]);
    cluster.kubectl(&["scale", "deployment/hello", &format!("--replicas={replicas}")]);
    cluster.kubectl(&["rollout", "status", "deployment/hello", "--timeout=60s"]);
    cluster
}

fn virtual_address(cluster: &Cluster, name: &str) -> SocketAddr {
    let service = cluster.json(&["service", name]);
    let ip = service["spec"]["clusterIP"].as_str().unwrap();
    let port = service["spec"]["ports"][0]["port"].as_u64().unwrap();
    let port = u16::try_from(port).unwrap();
    let address = SocketAddr::new(ip.parse().unwrap(), port);
    // Without the privilege for low ports the proxy listens beside them.
    let beside = SocketAddr::new(address.ip(), port + 10_000);
    let mut found = address;
    cluster.until("the service answers", |_| {
        for candidate in [address, beside] {
            if get(candidate, "/healthz").is_ok_and(|answer| answer.status == 200) {
                found = candidate;
                return true;
            }
        }
        false
    });
    found
}

fn pod_of(body: &str) -> String {
    body.lines().find_map(|line| line.strip_prefix("pod: ")).unwrap_or(body).to_owned()
}

#[test]
fn connections_are_spread_over_the_ready_pods() {
    let cluster = hello(3);
    let address = virtual_address(&cluster, "hello");
    let pods: BTreeSet<String> = (0..9).map(|_| pod_of(&get(address, "/").unwrap().body)).collect();
    assert_eq!(pods.len(), 3, "{pods:?}");

    let node_port = cluster.json(&["service", "hello"])["spec"]["ports"][0]["nodePort"].clone();
    let node_port = u16::try_from(node_port.as_u64().unwrap()).unwrap();
    let answer = get(SocketAddr::from(([127, 0, 0, 1], node_port)), "/").unwrap();
    assert!(pods.contains(&pod_of(&answer.body)), "{answer:?}");
}

#[test]
fn a_client_stays_with_its_pod_when_the_service_says_so() {
    let cluster = hello(3);
    cluster.kubectl(&[
        "patch",
        "service",
        "hello",
        "-p",
        r#"{"spec":{"sessionAffinity":"ClientIP"}}"#,
    ]);
    let address = virtual_address(&cluster, "hello");
    cluster.until("the client stays", |_| {
        let pods: BTreeSet<String> =
            (0..9).map(|_| pod_of(&get(address, "/").unwrap().body)).collect();
        pods.len() == 1
    });
}

#[test]
fn a_guest_reaches_another_service_by_its_name() {
    let cluster = hello(1);
    cluster.kubectl(&["apply", "-f", examples("caller").to_str().unwrap()]);
    cluster.kubectl(&["rollout", "status", "deployment/caller", "--timeout=60s"]);
    let address = virtual_address(&cluster, "caller");
    let own = cluster.json(&["service", "hello"])["spec"]["clusterIP"].clone();
    let names =
        ["hello", "hello.default", "hello.default.svc.cluster.local", own.as_str().unwrap()];
    for name in names {
        cluster.kubectl(&["set", "env", "deployment/caller", &format!("SERVICE={name}")]);
        cluster.kubectl(&["rollout", "status", "deployment/caller", "--timeout=60s"]);
        cluster.until(&format!("{name} answers through the caller"), |_| {
            get(address, "/").is_ok_and(|answer| {
                answer.body.starts_with(name) && answer.body.contains("pod: hello-")
            })
        });
    }
}

#[test]
fn a_rolling_update_loses_no_request() {
    let cluster = hello(2);
    let address = virtual_address(&cluster, "hello");
    let stop = Arc::new(AtomicBool::new(false));
    let answered = Arc::new(AtomicUsize::new(0));
    let clients: Vec<_> = (0..4)
        .map(|_| {
            let (stop, answered) = (Arc::clone(&stop), Arc::clone(&answered));
            thread::spawn(move || {
                let mut lost = Vec::new();
                while !stop.load(Ordering::Relaxed) {
                    match get(address, "/") {
                        Ok(answer) if answer.status == 200 => {
                            answered.fetch_add(1, Ordering::Relaxed);
                        }
                        other => lost.push(format!("{other:?}")),
                    }
                }
                lost
            })
        })
        .collect();
    for round in 0..3 {
        // Not `rollout restart`: kubectl refuses a second one within a second.
        cluster.kubectl(&["set", "env", "deployment/hello", &format!("ROUND={round}")]);
        cluster.kubectl(&["rollout", "status", "deployment/hello", "--timeout=60s"]);
    }
    stop.store(true, Ordering::Relaxed);
    let lost: Vec<String> = clients.into_iter().flat_map(|client| client.join().unwrap()).collect();
    assert!(answered.load(Ordering::Relaxed) > 100);
    assert!(
        lost.is_empty(),
        "{} of {} lost: {lost:?}",
        lost.len(),
        answered.load(Ordering::Relaxed)
    );
}
