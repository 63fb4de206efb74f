//! A pod's address, and who serves on it.

use super::*;

#[test]
fn containers_of_a_pod_share_its_address_and_have_logs_of_their_own() {
    let cluster = with_guests();
    let mut admin = web("admin", 9090);
    admin["env"] = json!([{ "name": "WHO", "value": "admin" }]);
    apply(&cluster, "two", json!({ "containers": [web("main", 8080), admin] }));
    let pod = until_ready(&cluster, "two");
    assert_eq!(get(address(&pod, 8080), "/env?WHO").unwrap().body, "");
    assert_eq!(get(address(&pod, 9090), "/env?WHO").unwrap().body, "admin");
    for host in [pod["status"]["podIP"].as_str().unwrap(), "localhost", "127.0.0.1"] {
        let answer = get(address(&pod, 8080), &format!("/fetch?{host}:9090/env?WHO")).unwrap();
        assert_eq!(answer.body, "200 admin", "{host}");
    }
    get(address(&pod, 8080), "/print?from-main").unwrap();
    get(address(&pod, 9090), "/print?from-admin").unwrap();
    cluster.until("the lines are in the logs", |cluster| {
        let all = cluster.kubectl(&["logs", "two", "--all-containers"]);
        all.contains("from-main\n") && all.contains("from-admin\n")
    });
    assert_eq!(cluster.kubectl(&["logs", "two", "-c", "main"]), "from-main\n");
    assert_eq!(cluster.kubectl(&["logs", "two", "-c", "admin"]), "from-admin\n");
    let output = cluster.try_kubectl(&["logs", "two"]);
    assert_eq!(output.stdout, "from-main\n", "the first is the default: {output:?}");
    assert!(
        output.stderr.contains("Defaulted container \"main\" out of: main, admin"),
        "{output:?}"
    );
    let prefixed = cluster.kubectl(&["logs", "-l", "app=two", "--all-containers", "--prefix"]);
    assert!(
        prefixed.contains("[pod/two/main] from-main")
            && prefixed.contains("[pod/two/admin] from-admin"),
        "{prefixed}"
    );
    let refused = cluster.kubectl_refused(&["logs", "two", "-c", "nobody"]);
    assert!(refused.contains("container nobody is not valid for pod two"), "{refused}");
}

#[test]
fn two_servers_cannot_have_one_port() {
    let cluster = with_guests();
    apply(&cluster, "twins", json!({ "containers": [web("one", 8080), web("two", 8080)] }));
    let pod = until(&cluster, "twins", "one of them is refused", |pod| {
        ["one", "two"]
            .iter()
            .any(|name| status(pod, name)["state"]["waiting"]["reason"] == "CreateContainerError")
    });
    let listed = cluster.kubectl(&["get", "pod", "twins"]);
    assert!(listed.contains("1/2"), "{listed}");
    let ip = pod["status"]["podIP"].as_str().unwrap();
    until_event(&cluster, "twins", &format!("cannot listen on {ip}:8080"));
}

#[test]
fn guests_talk_over_sockets() {
    let cluster = with_guests();
    apply(
        &cluster,
        "listens",
        json!({ "restartPolicy": "Never", "containers": [with(probe("c", "listen 0.0.0.0:9000"), "ports", json!([{ "containerPort": 9000 }]))] }),
    );
    let pod = until_ready(&cluster, "listens");
    cluster.until("it listens", |cluster| {
        cluster.kubectl(&["logs", "listens"]).contains("listening on")
    });
    let target = address(&pod, 9000);
    apply(
        &cluster,
        "connects",
        json!({ "restartPolicy": "Never", "containers": [probe("c", &format!("connect {target}"))] }),
    );
    until_phase(&cluster, "connects", "Succeeded");
    assert_eq!(cluster.kubectl(&["logs", "connects"]), "connect hello from a guest\n");
    until_phase(&cluster, "listens", "Succeeded");
}

#[test]
fn a_pod_on_the_host_s_network_has_the_node_s_address() {
    let cluster = with_guests();
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let spec = json!({ "hostNetwork": true, "containers": [web("c", port)] });
    apply(&cluster, "host", spec);
    let pod = until_ready(&cluster, "host");
    assert_eq!(pod["status"]["podIP"], pod["status"]["hostIP"]);
    assert_eq!(pod["spec"]["containers"][0]["ports"][0]["hostPort"], port);
    assert_eq!(get(address(&pod, port), "/env?HOSTNAME").unwrap().body, "node-0");
}

#[test]
fn warm_instances_serve_as_many_requests_as_the_annotation_allows() {
    let cluster = with_guests();
    let serves = |name: &str, reuse: Option<&str>| {
        let mut pod = manifest(name, json!({ "containers": [web("c", 8080)] }));
        if let Some(reuse) = reuse {
            pod["metadata"]["annotations"] = json!({ "wasm.coracle.dev/instance-reuse": reuse });
        }
        cluster.apply(&pod.to_string());
    };
    let counts = |name: &str| {
        let address = address(&until_ready(&cluster, name), 8080);
        (0..6).map(|_| get(address, "/count").unwrap().body).collect::<Vec<_>>().join(" ")
    };
    serves("fresh", None);
    serves("warm", Some("3"));
    serves("wrong", Some("often"));
    assert_eq!(counts("fresh"), "0 0 0 0 0 0");
    assert_eq!(counts("warm"), "0 1 2 0 1 2");
    let address = address(&cluster.json(&["pod", "warm"]), 8080);
    assert_eq!(get(address, "/count").unwrap().body, "0");
    assert_eq!(get(address, "/trap").unwrap().status, 500);
    assert_eq!(get(address, "/count").unwrap().body, "0", "an instance that trapped is dropped");
    until_event(
        &cluster,
        "wrong",
        "annotation wasm.coracle.dev/instance-reuse is \"often\", and a number from 1 is expected",
    );
}

// ---- what is said of them
