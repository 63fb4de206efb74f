//! `coracle-bench`: measures what the README claims. `cargo xtask bench` builds and runs it.
//!
//! Every benchmark starts what it measures (clusters, etcd, wasmtime) in a temporary directory and on free ports, ends
//! it by its process id, and is bounded in time and in count. A cluster is driven from outside, through its API over
//! TLS, as any client would; only `store` works in process. The load comes from the same machine: its share of the
//! processors is part of every figure.
//!
//! Start reading at [`run_one`]; [`cluster`] is the cluster under test, [`load`] how clients are kept busy.

mod cluster;
mod connection;
mod etcd;
mod fleet;
mod idle;
mod load;
mod pods;
mod process;
mod report;
mod requests;
mod scale;
mod serving;
mod start;
mod writes;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::{Parser, ValueEnum};
use tempfile::TempDir;

use crate::report::Report;

/// Measure what the README claims, and print one Markdown table.
#[derive(Parser)]
#[command(name = "coracle-bench")]
struct Arguments {
    /// What to measure; everything when nothing is named.
    #[arg(value_enum)]
    names: Vec<Name>,

    /// The binary under test [default: `coracle` beside this one].
    #[arg(long, value_name = "FILE")]
    coracle: Option<PathBuf>,

    /// Where temporary directories are made: the disk that is measured.
    #[arg(long, value_name = "DIR", default_value_os_t = std::env::temp_dir())]
    directory: PathBuf,

    /// The guest that pods run: a component that serves HTTP.
    #[arg(long, value_name = "FILE", default_value_os_t = default_guest())]
    guest: PathBuf,
}

/// The benchmarks, in the order of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Name {
    /// From the start of `coracle server` to /readyz.
    Start,
    /// Memory of an idle cluster.
    Idle,
    /// From a pod's creation to Ready.
    Pod,
    /// A Deployment of 1,000 pods.
    Deployment,
    /// Durable writes, in process.
    Store,
    /// Durable writes, through the API.
    Api,
    /// The same writes to etcd.
    Etcd,
    /// ConfigMaps created, read and updated by clients with tokens.
    Objects,
    /// Lists of 10,000 pods, and their memory.
    List,
    /// Writes that 1,000 and 10,000 watchers see.
    Watch,
    /// HTTP requests through a Service, beside `wasmtime serve`.
    Http,
    /// Pods bound to 5,000 fake nodes.
    Scheduler,
    /// A Deployment of 10,000 pods on fake nodes, and what it costs when nothing happens.
    Fleet,
    /// 1,000 Deployments rolled at once.
    Rollouts,
    /// A namespace of 10,000 objects deleted.
    Namespace,
    /// 10,000 CronJobs due in one minute.
    Cronjobs,
}

/// What every benchmark is given.
struct Settings {
    coracle: PathBuf,
    guest: PathBuf,
    /// On the disk that is measured; everything in it is removed at the end.
    root: TempDir,
}

fn main() -> ExitCode {
    match run(Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: Arguments) -> Result<()> {
    // Fails only when a provider is installed already, and then there is one.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let beside = || -> Result<PathBuf> { Ok(std::env::current_exe()?.with_file_name("coracle")) };
    let coracle = arguments.coracle.map_or_else(beside, Ok)?;
    let root = tempfile::Builder::new()
        .prefix("coracle-bench-")
        .tempdir_in(&arguments.directory)
        .with_context(|| {
        format!("cannot make a directory in {}", arguments.directory.display())
    })?;
    let settings = Settings { coracle, guest: arguments.guest, root };
    let named = !arguments.names.is_empty();
    let names = if named { arguments.names } else { Name::value_variants().to_vec() };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let mut report = Report::default();
    for name in &names {
        eprintln!("{}:", name.word());
        // What another one found is worth its lines, whatever happened to this one.
        if let Err(error) = runtime.block_on(run_one(*name, &settings, &mut report)) {
            report.failed(&name.word(), &error);
        }
    }
    let words: Vec<String> = names.iter().map(|name| name.word()).collect();
    report.print(if named { &words } else { &[] });
    report.into_result()
}

async fn run_one(name: Name, settings: &Settings, report: &mut Report) -> Result<()> {
    match name {
        Name::Start => start::run(settings, report).await,
        Name::Idle => idle::run(settings, report).await,
        Name::Pod => pods::one_after_another(settings, report).await,
        Name::Deployment => pods::deployment(settings, report).await,
        Name::Store => writes::store(settings, report).await,
        Name::Api => writes::api(settings, report).await,
        Name::Etcd => writes::etcd(settings, report).await,
        Name::Objects => requests::objects(settings, report).await,
        Name::List => requests::list(settings, report).await,
        Name::Watch => requests::watch(settings, report).await,
        Name::Http => serving::run(settings, report).await,
        Name::Scheduler => scale::scheduler(settings, report).await,
        Name::Fleet => scale::fleet(settings, report).await,
        Name::Rollouts => scale::rollouts(settings, report).await,
        Name::Namespace => scale::namespace(settings, report).await,
        Name::Cronjobs => scale::cron_jobs(settings, report).await,
    }
}

impl Name {
    fn word(self) -> String {
        self.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
    }
}

impl Settings {
    /// A new directory that is removed with the value: for few and big files.
    fn folder(&self) -> Result<TempDir> {
        tempfile::tempdir_in(&self.root).context("cannot make a directory")
    }

    /// A new directory that stays until everything is measured: for many small files. A file system that has just
    /// removed those of one cluster makes those of the next more slowly, and that is not what is measured.
    fn lasting_folder(&self) -> Result<PathBuf> {
        Ok(self.folder()?.keep())
    }
}

fn default_guest() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples/wasm/hello/hello.wasm"))
}
