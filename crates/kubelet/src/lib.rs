//! Brings a node's pods to what the API wants: images, volumes, containers, probes, status, logs.
//!
//! Start at [`run`]. A pod's whole life is `worker.rs`: one task for each pod, whose pass reads as a list (look, stop,
//! remove, ensure, start, tell). What to do next is decided by `plan.rs`, a pure function; what the API is told, by
//! `status.rs`, another. What takes time is an operation (`operations.rs`) beside the pass.
//!
//! Always true: the kubelet sees only the pods of its own node, and only the ConfigMaps and Secrets that they name.
//! Nothing is looked at on a fixed tick: a pass runs because of the watch, of the engine, of an operation's end, or of
//! a deadline computed from the pod (a back-off, a probe, a token, `activeDeadlineSeconds`).
//!
//! Deliberately absent: exec, attach and port-forward (the Wasm engine has no processes to enter), static pods,
//! eviction under pressure, and engines: those are behind [`coracle_runtime::Runtime`].

mod admission;
mod amounts;
mod atomic;
mod backoff;
mod changes;
mod context;
mod env;
mod expansion;
mod fields;
mod grpc;
mod images;
mod local_volumes;
mod logs;
mod machine;
mod mailbox;
mod memory;
mod node;
mod node_events;
mod operations;
mod plan;
mod pods;
mod probe;
mod prober;
mod record;
mod server;
mod snapshot;
mod sources;
mod status;
mod tokens;
mod usage;
mod volumes;
mod worker;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use coracle_reconcile::{Mirror, NotSynced, Recorder, Selection, Tasks};
use coracle_runtime::Runtime;
use k8s_openapi::api::core::v1::Pod;
use kube::{Api, Client};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tracing::info;

use context::Context;

pub use amounts::Amounts;

/// How a node is set up.
pub struct Options {
    /// The node's name in the API.
    pub node_name: String,
    /// The address under which the API server reaches this kubelet.
    pub node_ip: IpAddr,
    /// Where pods' volumes and logs are.
    pub data_dir: PathBuf,
    /// What runs containers.
    pub runtime: Arc<dyn Runtime>,
    /// Where the kubelet's own API listens.
    pub listener: TcpListener,
    /// TLS of that API. It must demand the API server's client certificate: there is no other check.
    pub tls: Arc<rustls::ServerConfig>,
    /// What the node offers to pods; [`Options::machine_capacity`] says what the machine has.
    pub capacity: Amounts,
    /// Labels of the node beyond its name, system and architecture.
    pub labels: BTreeMap<String, String>,
    /// The addresses of this node's pods, for `spec.podCIDR`.
    pub pod_cidr: Option<String>,
    /// How long containers get to end when the node stops.
    pub shutdown_grace: Duration,
}

impl Options {
    /// All cores and memory of this machine, and 2000 pods: upstream's 110 bounds what processes and network ranges
    /// bear, and a Wasm pod is neither.
    pub fn machine_capacity() -> Amounts {
        machine::capacity()
    }
}

/// Why a kubelet did not run.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The data directory cannot be used.
    #[error("cannot make the directory {path}")]
    DataDir {
        /// Which.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// The kubelet's own API cannot be served.
    #[error("cannot tell where the kubelet's API listens")]
    Listener(#[source] std::io::Error),
    /// The API server did not answer in time.
    #[error("cannot learn which pods this node has")]
    NotSynced(#[from] NotSynced),
}

/// Runs the node's kubelet until `shutdown` is cancelled; then every container has been stopped and every task ended.
///
/// # Errors
/// When the node cannot begin. Afterwards trouble with the API or the engine is retried, never fatal.
pub async fn run(
    client: Client,
    options: Options,
    shutdown: CancellationToken,
) -> Result<(), Error> {
    let Options {
        node_name,
        node_ip,
        data_dir,
        runtime,
        listener,
        tls,
        capacity,
        labels,
        pod_cidr,
        shutdown_grace,
    } = options;
    for directory in [data_dir.join("pods"), data_dir.join("pods-logs")] {
        std::fs::create_dir_all(&directory)
            .map_err(|source| Error::DataDir { path: directory, source })?;
    }
    let port = listener.local_addr().map_err(Error::Listener)?.port();
    let tasks = Tasks::new(shutdown.child_token());
    let ctx = Arc::new(Context {
        scheme: scheme(&runtime.version()),
        recorder: Recorder::new(&tasks, client.clone(), "kubelet", Some(&node_name)),
        sources: sources::Sources::new(client.clone(), tasks.clone()),
        services: Mirror::all(&tasks, &client),
        images: images::Images::new(Arc::clone(&runtime)),
        status_turns: Semaphore::new(context::STATUS_WRITES),
        volume_turns: Semaphore::new(context::VOLUME_WRITES),
        shutdown_grace,
        shutdown: tasks.token().clone(),
        allocatable: capacity,
        memory: memory::MemoryDirectory::open(&data_dir),
        client,
        node_name,
        node_ip,
        data_dir,
        runtime,
    });
    let reporter = node::NodeReporter {
        ctx: Arc::clone(&ctx),
        machine: machine::Machine::look(),
        labels,
        pod_cidr,
        port,
    };
    let begun = begin(&ctx, &tasks, reporter, listener, tls).await;
    if begun.is_ok() {
        tasks.finished().await;
    } else {
        tasks.shutdown().await;
    }
    ctx.runtime.shutdown(shutdown_grace).await;
    info!(node = ctx.node_name, "kubelet ended");
    begun
}

async fn begin(
    ctx: &Arc<Context>,
    tasks: &Tasks,
    reporter: node::NodeReporter,
    listener: TcpListener,
    tls: Arc<rustls::ServerConfig>,
) -> Result<(), Error> {
    let selection =
        Selection { fields: Some(format!("spec.nodeName={}", ctx.node_name)), labels: None };
    let mirror: Mirror<Pod> = Mirror::start(tasks, Api::all(ctx.client.clone()), selection);
    let pods = pods::Pods::new(Arc::clone(ctx), tasks.clone());
    let api = server::Api {
        ctx: Arc::clone(ctx),
        mirror: mirror.clone(),
        pods: Arc::clone(&pods),
        usages: usage::Usages::default(),
        tasks: tasks.clone(),
    };
    let router = server::router(Arc::new(api));
    tasks.spawn("kubelet api", server::serve(listener, tls, router, tasks.clone()));
    let ready = async {
        // Pods' environments name Services: a pod that starts before they are known would miss some.
        ctx.services.synced().await?;
        mirror.synced().await?;
        pods.follow(&mirror).await;
        Ok::<(), Error>(())
    };
    if tasks.until_stopped(ready).await?.is_none() {
        return Ok(());
    }
    // Only now can the node keep what Ready promises.
    let stopping = tasks.token().clone();
    tasks.spawn_to_end("node", async move {
        stopping.run_until_cancelled(reporter.live()).await;
        reporter.leave().await;
    });
    // The handlers of the mirror hold the pods weakly: somebody must hold them until the end.
    tasks.spawn("pods", async move {
        let _pods = pods;
        std::future::pending::<()>().await;
    });
    Ok(())
}

/// What container ids begin with: an engine's name as Kubernetes would say it.
fn scheme(version: &str) -> String {
    match version.split_once("://").map_or(version, |(name, _)| name) {
        "wasmtime" => "wasm".to_owned(),
        other => other.to_owned(),
    }
}
