//! Runs the fuzz targets for a while each.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::shell;

/// Which targets, and for how long.
#[derive(clap::Args)]
pub struct Arguments {
    /// How long each target runs.
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// Decides all inputs: the same number makes the same ones.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// The targets; all when none is named.
    targets: Vec<String>,
}

/// Builds the driver and gives each target its time. A finding ends with the command that shows it again.
pub fn run(arguments: &Arguments) -> Result<()> {
    shell::run("cargo", &["build", "--locked", "-p", "coracle-fuzz"])?;
    let target = match std::env::var_os("CARGO_TARGET_DIR") {
        Some(directory) => PathBuf::from(directory),
        None => shell::root().join("target"),
    };
    let driver = target.join("debug/coracle-fuzz");
    let names = if arguments.targets.is_empty() {
        let listed = Command::new(&driver).arg("list").output();
        let listed = listed.with_context(|| format!("cannot run {}", driver.display()))?;
        String::from_utf8(listed.stdout)?.lines().map(str::to_owned).collect()
    } else {
        arguments.targets.clone()
    };
    let keep = target.join("fuzz");
    let mut found = Vec::new();
    for name in names {
        let mut command = Command::new(&driver);
        command.arg(&name).arg("--keep").arg(&keep);
        command.args(["--seconds", &arguments.seconds.to_string()]);
        command.args(["--seed", &arguments.seed.to_string()]);
        if shell::execute(&mut command).is_err() {
            let input = keep.join(&name);
            found.push(format!("{} {name} --input {}", driver.display(), input.display()));
        }
    }
    if !found.is_empty() {
        bail!("fuzzing found what these show again:\n  {}", found.join("\n  "));
    }
    Ok(())
}
