//! Measures what the README claims.

use std::path::PathBuf;
use std::process::Command;

use anyhow::Result;

use crate::shell;

/// What to measure.
#[derive(clap::Args)]
pub struct Arguments {
    /// The benchmarks to run: start, idle, pod, deployment, store, api, etcd, objects, list, watch, http, scheduler, fleet, rollouts, namespace, cronjobs; all when none is named.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    names: Vec<String>,
}

/// Builds the release binary, runs the named benchmarks and prints their medians as a Markdown table.
pub fn run(arguments: &Arguments) -> Result<()> {
    shell::run("cargo", &["build", "--release", "-p", "coracle", "-p", "coracle-bench"])?;
    let target = match std::env::var_os("CARGO_TARGET_DIR") {
        Some(directory) => PathBuf::from(directory),
        None => shell::root().join("target"),
    };
    shell::execute(Command::new(target.join("release/coracle-bench")).args(&arguments.names))
}
