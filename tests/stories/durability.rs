//! A machine that is killed at any moment loses no acknowledged write.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use coracle_tests::{Cluster, examples, get};

#[test]
fn what_was_acknowledged_survives_a_kill() {
    let mut cluster = Cluster::start();
    let mut acknowledged = BTreeSet::new();
    for round in 0..4 {
        let deadline = Instant::now() + Duration::from_millis(400 * (round + 1));
        let mut number = 0;
        while Instant::now() < deadline {
            let name = format!("round-{round}-{number}");
            cluster.kubectl(&["create", "configmap", &name, "--from-literal=a=b"]);
            acknowledged.insert(name);
            number += 1;
        }
        cluster.kill();
        cluster.run();
        let names = cluster.kubectl(&["get", "configmaps", "-o", "name"]);
        let there: BTreeSet<String> = names
            .lines()
            .filter_map(|line| line.strip_prefix("configmap/"))
            .map(str::to_owned)
            .collect();
        let lost: Vec<_> = acknowledged.difference(&there).collect();
        assert!(lost.is_empty(), "lost: {lost:?}");
    }
    assert!(acknowledged.len() > 4);
}

#[test]
fn pods_run_again_after_a_kill_and_after_a_stop() {
    let mut cluster = Cluster::start();
    cluster.import(&examples("hello").join("hello.wasm"), "hello.wasm");
    cluster.kubectl(&["apply", "-f", examples("hello").to_str().unwrap()]);
    cluster.kubectl(&["rollout", "status", "deployment/hello", "--timeout=60s"]);
    let pods = cluster.kubectl(&["get", "pods", "-o", "name"]);
    for killed in [true, false] {
        if killed {
            cluster.kill();
        } else {
            assert_eq!(cluster.stop(), Some(0), "{}", cluster.log());
        }
        cluster.run();
        let service = cluster.json(&["service", "hello"]);
        let port = service["spec"]["ports"][0]["nodePort"].as_u64().unwrap();
        let address = ([127, 0, 0, 1], u16::try_from(port).unwrap()).into();
        cluster.until("the service answers again", |_| {
            get(address, "/").is_ok_and(|answer| answer.status == 200)
        });
        cluster.kubectl(&["rollout", "status", "deployment/hello", "--timeout=60s"]);
        // The same pods, started again; not new ones.
        assert_eq!(cluster.kubectl(&["get", "pods", "-o", "name"]), pods);
    }
}

#[test]
fn a_second_server_on_the_same_state_is_refused() {
    let cluster = Cluster::start();
    let output = cluster.coracle(&["server", "--secure-port", "0"]);
    assert_ne!(output.code, Some(0));
    assert!(output.stderr.contains("is another coracle running"), "{output:?}");
    cluster.kubectl(&["get", "nodes"]);
}
