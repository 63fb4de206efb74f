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
    let clippy = ["clippy", "--locked", "--workspace"];
    let strict = ["--", "--deny", "warnings"];
    shell::run("cargo", &[&clippy[..], &strict].concat())?;
    // A test that cannot go on says where by panicking, and a table of cases may be long.
    let tests = ["--all-targets"];
    let lenient = ["--allow", "clippy::unwrap_used", "--allow", "clippy::too_many_lines"];
    shell::run("cargo", &[&clippy[..], &tests, &strict, &lenient].concat())
}
