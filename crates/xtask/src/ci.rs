//! What CI runs, in the order in which a mistake is found cheapest.

use anyhow::Result;

use crate::shell;
use crate::{guests, tidy, tools};

/// Runs everything; the first failure ends it.
pub fn run() -> Result<()> {
    shell::run("cargo", &["fmt", "--all", "--check"])?;
    tidy::run()?;
    tools::run()?;
    guests::check_sources()?;
    shell::run("cargo", &["build", "--locked", "--workspace", "--all-targets"])?;
    shell::run("cargo", &["test", "--locked", "--workspace", "--no-fail-fast"])?;
    shell::run(
        "cargo",
        &["clippy", "--locked", "--workspace", "--all-targets", "--", "--deny", "warnings"],
    )
}

