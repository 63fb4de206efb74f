//! A chart is installed, upgraded, rolled back, tested and uninstalled.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use coracle_tests::{Cluster, Output, examples, get, helm};

/// Runs helm and answers what it printed.
#[track_caller]
fn run(cluster: &Cluster, arguments: &str) -> String {
    let chart = Path::new(env!("CARGO_MANIFEST_DIR")).join("charts/web");
    let arguments = arguments.replace("CHART", chart.to_str().unwrap());
    let mut command = Command::new(helm());
    command.arg("--kubeconfig").arg(cluster.kubeconfig()).args(arguments.split(' '));
    let output = Output::of(command.env("HOME", cluster.data_dir()));
    assert_eq!(output.code, Some(0), "helm {arguments}: {output:#?}\n{}", cluster.log());
    output.stdout
}

/// The life of a release; `more` says how helm applies.
fn check(more: &str) {
    let cluster = Cluster::start();
    for name in ["hello", "tick"] {
        cluster.import(&examples(name).join(format!("{name}.wasm")), &format!("{name}.wasm"));
    }
    let greeting = |cluster: &Cluster| {
        let service = cluster.json(&["service", "shop"]);
        let port = service["spec"]["ports"][0]["nodePort"].as_u64().unwrap();
        let address = SocketAddr::from(([127, 0, 0, 1], u16::try_from(port).unwrap()));
        get(address, "/").map(|answer| answer.body).unwrap_or_default()
    };
    let wait = format!("--wait --timeout 60s {more}");
    run(&cluster, &format!("install shop CHART {wait}"));
    cluster.until("the release answers", |it| greeting(it).contains("Hello from a chart"));

    run(&cluster, &format!("upgrade shop CHART --set greeting=Upgraded,replicas=2 {wait}"));
    assert_eq!(cluster.json(&["deployment", "shop"])["status"]["readyReplicas"], 2);
    cluster.until("the upgrade answers", |it| greeting(it).contains("Upgraded"));
    run(&cluster, "test shop --timeout 60s");

    run(&cluster, &format!("rollback shop 1 {wait}"));
    cluster.until("the rollback answers", |it| greeting(it).contains("Hello from a chart"));
    let history = run(&cluster, "history shop");
    assert!(history.contains("Rollback to 1"), "{history}");

    run(&cluster, "uninstall shop --wait --timeout 60s");
    assert!(
        cluster
            .kubectl(&[
                "get",
                "deployments,services",
                "-l",
                "app.kubernetes.io/managed-by=Helm",
                "-o",
                "name"
            ])
            .is_empty()
    );
    assert!(run(&cluster, "list -q").trim().is_empty());
}

#[test]
fn a_chart_lives_with_client_side_apply() {
    check("--server-side=false");
}

#[test]
fn a_chart_lives_with_server_side_apply() {
    check("--server-side=true");
}
