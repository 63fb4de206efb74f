//! Readiness, liveness and startup, and what follows from them.

use super::*;

#[test]
fn only_ready_pods_are_endpoints() {
    let cluster = with_guests();
    let doctor = Doctor::new(false);
    let container = with(web("c", 8080), "readinessProbe", doctor.probe(1));
    apply(&cluster, "patient", json!({ "containers": [container] }));
    cluster.kubectl(&["expose", "pod", "patient", "--port=80", "--target-port=8080"]);
    until_event(
        &cluster,
        "patient",
        "Readiness probe failed: HTTP probe failed with statuscode: 503",
    );
    let pod = cluster.json(&["pod", "patient"]);
    assert_eq!(condition(&pod, "Ready")["status"], "False");
    assert_eq!(condition(&pod, "Ready")["reason"], "ContainersNotReady");
    assert_eq!(condition(&pod, "Ready")["message"], "containers with unready status: [c]");
    assert!(status(&pod, "c")["state"]["running"].is_object(), "it is not restarted for that");
    let addresses =
        |cluster: &Cluster| cluster.json(&["endpoints", "patient"])["subsets"][0].clone();
    assert!(addresses(&cluster)["addresses"].is_null());
    cluster.until("it is known to be unready", |cluster| {
        addresses(cluster)["notReadyAddresses"].is_array()
    });

    doctor.says(true);
    until_ready(&cluster, "patient");
    cluster.until("it is an endpoint", |cluster| addresses(cluster)["addresses"].is_array());
    let slices = cluster.json(&["endpointslices", "-l", "kubernetes.io/service-name=patient"]);
    assert_eq!(slices["items"][0]["endpoints"][0]["conditions"]["ready"], true);

    doctor.says(false);
    cluster
        .until("it is no endpoint any more", |cluster| addresses(cluster)["addresses"].is_null());
    assert_eq!(status(&cluster.json(&["pod", "patient"]), "c")["restartCount"], 0);
}

#[test]
fn readiness_is_asked_by_http_and_by_tcp() {
    let cluster = with_guests();
    let ask = |name: &str, probe: Value| {
        let mut container = with(web("c", 8080), "readinessProbe", probe);
        container["ports"][0]["name"] = json!("http");
        apply(&cluster, name, json!({ "containers": [container] }));
    };
    ask("by-http", json!({ "httpGet": { "path": "/env?x", "port": "http" }, "periodSeconds": 1 }));
    ask("by-tcp", json!({ "tcpSocket": { "port": 8080 }, "periodSeconds": 1 }));
    ask("by-wrong-port", json!({ "tcpSocket": { "port": 8081 }, "periodSeconds": 1 }));
    ask(
        "by-wrong-path",
        json!({ "httpGet": { "path": "/nothing", "port": 8080 }, "periodSeconds": 1 }),
    );
    until_ready(&cluster, "by-http");
    until_ready(&cluster, "by-tcp");
    until_event(&cluster, "by-wrong-port", "connect: connection refused");
    until_event(
        &cluster,
        "by-wrong-path",
        "Readiness probe failed: HTTP probe failed with statuscode: 500",
    );
}

#[test]
fn a_container_that_is_not_alive_is_restarted() {
    let cluster = with_guests();
    let doctor = Doctor::new(true);
    let container = with(web("c", 8080), "livenessProbe", doctor.probe(2));
    apply(
        &cluster,
        "sick",
        json!({ "terminationGracePeriodSeconds": 1, "containers": [container] }),
    );
    until_ready(&cluster, "sick");
    doctor.says(false);
    let restarted = |count: i64| {
        until(&cluster, "sick", "it was restarted", |pod| {
            status(pod, "c")["restartCount"].as_i64() >= Some(count)
        })
    };
    restarted(1);
    doctor.says(true);
    until_event(&cluster, "sick", "Liveness probe failed: HTTP probe failed with statuscode: 503");
    until_event(&cluster, "sick", "Container c failed liveness probe, will be restarted");
    let pod = until_ready(&cluster, "sick");
    assert_eq!(status(&pod, "c")["restartCount"], 1);
    assert_eq!(get(address(&pod, 8080), "/").unwrap().body, "hello\n");
}

#[test]
fn a_startup_probe_holds_the_other_probes_back() {
    let cluster = with_guests();
    let (startup, liveness) = (Doctor::new(false), Doctor::new(false));
    let mut container = with(web("c", 8080), "startupProbe", startup.probe(60));
    container["livenessProbe"] = liveness.probe(1);
    apply(
        &cluster,
        "slow",
        json!({ "terminationGracePeriodSeconds": 1, "containers": [container] }),
    );
    until_event(&cluster, "slow", "Startup probe failed: HTTP probe failed with statuscode: 503");
    let pod = cluster.json(&["pod", "slow"]);
    assert_eq!(
        (&status(&pod, "c")["started"], &status(&pod, "c")["restartCount"]),
        (&json!(false), &json!(0))
    );
    assert_eq!(condition(&pod, "Ready")["status"], "False");
    liveness.says(true);
    startup.says(true);
    let pod = until_ready(&cluster, "slow");
    assert_eq!(
        (&status(&pod, "c")["started"], &status(&pod, "c")["restartCount"]),
        (&json!(true), &json!(0))
    );

    let never = Doctor::new(false);
    let container = with(web("c", 8080), "startupProbe", never.probe(2));
    apply(
        &cluster,
        "never",
        json!({ "terminationGracePeriodSeconds": 1, "containers": [container] }),
    );
    until_event(&cluster, "never", "Container c failed startup probe, will be restarted");
}

// ---- how they end
