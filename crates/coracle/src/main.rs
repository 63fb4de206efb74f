//! Coracle: a Kubernetes that one person can carry. `coracle --help` lists what it does.
//!
//! The binary wires the parts and holds no logic of its own: [`cluster`] starts a
//! whole cluster in this process, [`component`] one part of one, [`up`] is for
//! the laptop.

mod cli;
mod cluster;
mod component;
mod data_dir;
mod image;
mod server;
mod shutdown;
mod up;

use std::process::ExitCode;

use clap::Parser;
use mimalloc::MiMalloc;
use tracing_subscriber::EnvFilter;

use crate::cli::{Arguments, Command};

#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> ExitCode {
    let small_pages = keep_pages_small();
    let arguments = Arguments::parse();
    start_logging(&arguments);
    if let Err(error) = small_pages {
        tracing::debug!(%error, "huge pages stay on");
    }
    // Fails only when a provider is installed already, and then there is one.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("error: cannot start the async runtime: {error}");
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(run(arguments.command)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Up(options) => up::run(options).await,
        Command::Server(options) => server::run(options).await,
        Command::Apiserver(options) => component::apiserver(options).await,
        Command::ControllerManager(options) => component::controller_manager(options).await,
        Command::Scheduler(options) => component::scheduler(options).await,
        Command::Proxy(options) => component::proxy(options).await,
        Command::Kubelet(options) => component::kubelet(options).await,
        Command::Image { command } => image::run(command).await,
    }
}

/// Where the kernel gives everybody huge pages, an idle cluster would hold half as much memory again: most of what it
/// touches is small and far apart. What is touched before this stays huge.
fn keep_pages_small() -> std::io::Result<()> {
    Ok(rustix::thread::disable_transparent_huge_pages(true)?)
}

/// Logs go to stderr: what is asked for goes to stdout.
fn start_logging(arguments: &Arguments) {
    let default = arguments.log_level();
    let filter = EnvFilter::try_from_env("CORACLE_LOG").unwrap_or_else(|_| EnvFilter::new(default));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).compact().init();
}
