//! `http`: requests a second through a Service's virtual address to one pod, beside `wasmtime serve` with the same guest.
//!
//! Both serve the same component with the same environment and write down what it prints; `wrk` asks both in the same
//! way. Fresh means a new instance a request, reused that an instance answers many.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Output;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use http::Method;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::process::Command;
use tokio::time::{sleep, timeout};

use crate::Settings;
use crate::cluster::Cluster;
use crate::etcd::free_address;
use crate::pods::pod_template;
use crate::process::Process;
use crate::report::{Figure, Report, rate};

const CONNECTIONS: &str = "32";
const SECONDS: &str = "10";
/// Runs of wrk, of which the median counts.
const RUNS: usize = 3;
/// Requests that a reused instance answers.
const REUSE: &str = "1000";
const REUSE_ANNOTATION: &str = "wasm.coracle.dev/instance-reuse";
/// What the guest shows, the same on both sides.
const ENVIRONMENT: [(&str, &str); 2] = [("POD_NAME", "bench"), ("POD_NAMESPACE", "default")];
const PORT: u16 = 8080;
/// How often a starting server is asked, and for how long.
const LOOK: Duration = Duration::from_millis(20);
const DEADLINE: Duration = Duration::from_secs(60);

/// How long an instance lives.
#[derive(Clone, Copy)]
enum Instances {
    Fresh,
    Reused,
}

pub async fn run(settings: &Settings, report: &mut Report) -> Result<()> {
    if version_of("wrk").await.is_none() {
        bail!("wrk is needed to ask with: apt-get install wrk");
    }
    let wasmtime = version_of("wasmtime").await;
    for instances in [Instances::Fresh, Instances::Reused] {
        let figure = through_a_service(settings, instances).await?;
        let what = format!("through a Service to one pod, {}", instances.words());
        report.add("http", &what, figure, "> wasmtime serve");
        if let Some(version) = &wasmtime {
            let figure = through_wasmtime(settings, instances).await?;
            report.add("http", &format!("{version} serve, {}", instances.words()), figure, "");
        }
    }
    if wasmtime.is_none() {
        report.note("No `wasmtime` to compare with: `cargo install wasmtime-cli@48.0.8` gets it.");
    }
    Ok(())
}

async fn through_a_service(settings: &Settings, instances: Instances) -> Result<Figure> {
    let cluster = Cluster::prepared(settings).await?;
    let mut pod = pod_template();
    pod["apiVersion"] = "v1".into();
    pod["kind"] = "Pod".into();
    pod["metadata"] = json!({ "name": "bench", "labels": { "app": "bench" } });
    if let Instances::Reused = instances {
        pod["metadata"]["annotations"] = json!({ (REUSE_ANNOTATION): REUSE });
    }
    let variables = ENVIRONMENT.map(|(name, value)| json!({ "name": name, "value": value }));
    pod["spec"]["containers"][0]["env"] = variables.into_iter().collect();
    cluster.json(Method::POST, "/api/v1/namespaces/default/pods", Some(&pod)).await?;
    let service = json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": { "name": "bench" },
        "spec": { "selector": { "app": "bench" }, "ports": [{ "port": PORT }] },
    });
    let path = "/api/v1/namespaces/default/services";
    let service = cluster.json(Method::POST, path, Some(&service)).await?;
    let address = service["spec"]["clusterIP"].as_str().context("no virtual address")?;
    let address = SocketAddr::new(address.parse()?, PORT);
    until_it_answers(address).await?;
    let figure = ask(address).await?;
    cluster.kill().await?;
    Ok(figure)
}

async fn through_wasmtime(settings: &Settings, instances: Instances) -> Result<Figure> {
    let folder = settings.folder()?;
    let address = free_address()?;
    let reuse = match instances {
        Instances::Fresh => "1",
        Instances::Reused => REUSE,
    };
    let mut command = Command::new("wasmtime");
    command.args(["serve", "-Scli", "--addr", &address.to_string()]);
    command.args(["--max-instance-reuse-count", reuse]);
    for (name, value) in ENVIRONMENT {
        command.args(["--env", &format!("{name}={value}")]);
    }
    command.arg(&settings.guest);
    let process = Process::start(&mut command, &log_of(folder.path()))?;
    until_it_answers(address).await?;
    let figure = ask(address).await?;
    process.kill().await?;
    Ok(figure)
}

fn log_of(folder: &Path) -> std::path::PathBuf {
    folder.join("wasmtime.log")
}

async fn until_it_answers(address: SocketAddr) -> Result<()> {
    let asking = async {
        while !matches!(get(address).await, Ok(true)) {
            sleep(LOOK).await;
        }
    };
    timeout(DEADLINE, asking).await.with_context(|| format!("{address} does not answer"))
}

/// One request; true when it is answered with 200.
async fn get(address: SocketAddr) -> Result<bool> {
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(b"GET / HTTP/1.1\r\nhost: bench\r\nconnection: close\r\n\r\n").await?;
    let mut answer = Vec::new();
    timeout(DEADLINE, stream.read_to_end(&mut answer)).await??;
    Ok(answer.starts_with(b"HTTP/1.1 200"))
}

/// The median of some runs of wrk, after a short one that does not count.
async fn ask(address: SocketAddr) -> Result<Figure> {
    wrk(address, "2").await?;
    let mut runs = Vec::new();
    for _ in 0..RUNS {
        runs.push(wrk(address, SECONDS).await?);
    }
    runs.sort_by(|one, other| one.0.total_cmp(&other.0));
    let (per_second, p99) = runs.swap_remove(RUNS / 2);
    Ok(Figure { median: rate(per_second), p99: Some(p99) })
}

async fn wrk(address: SocketAddr, seconds: &str) -> Result<(f64, String)> {
    let output = Command::new("wrk")
        .args(["--threads", "2", "--connections", CONNECTIONS, "--latency", "--duration", seconds])
        .arg(format!("http://{address}/"))
        .kill_on_drop(true)
        .output()
        .await?;
    read_wrk(&output)
}

fn read_wrk(output: &Output) -> Result<(f64, String)> {
    let text = String::from_utf8_lossy(&output.stdout);
    let after = |name: &str| text.lines().find_map(|line| line.trim().strip_prefix(name));
    for trouble in ["Non-2xx or 3xx responses:", "Socket errors:"] {
        if let Some(count) = after(trouble) {
            bail!("wrk saw trouble: {trouble}{count}");
        }
    }
    let rate =
        after("Requests/sec:").with_context(|| format!("wrk says: {text}"))?.trim().parse()?;
    let p99 = after("99%").map(str::trim).unwrap_or_default();
    let digits = p99.trim_end_matches(char::is_alphabetic);
    Ok((rate, format!("{digits} {}", &p99[digits.len()..])))
}

/// What a program says its version is, when it is there.
async fn version_of(program: &str) -> Option<String> {
    let output = Command::new(program).arg("--version").kill_on_drop(true).output().await.ok()?;
    let text = String::from_utf8_lossy(&output.stdout);
    let words: Vec<&str> = text.split_whitespace().take(2).collect();
    Some(words.join(" "))
}

impl Instances {
    fn words(self) -> &'static str {
        match self {
            Instances::Fresh => "fresh instances",
            Instances::Reused => "reused instances",
        }
    }
}
