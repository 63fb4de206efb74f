//! Programs under test: started, looked at, and ended by their process id.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};
use tokio::time::timeout;

/// How long a program gets to end after SIGTERM.
const GRACE: Duration = Duration::from_secs(30);

/// A program that runs; dropping it kills it.
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts a program whose output goes into this file.
    pub fn start(command: &mut Command, log: &Path) -> Result<Self> {
        let name = command.as_std().get_program().to_string_lossy().into_owned();
        let file = File::options().create(true).append(true).open(log)?;
        let child = command
            // Backtraces are captured on request paths when this is set, and nobody sets it in production.
            .env_remove("RUST_BACKTRACE")
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("cannot run {name}"))?;
        Ok(Self { name, child, log: log.to_path_buf() })
    }

    /// An error that says how it ended, if it did.
    pub fn check(&mut self) -> Result<()> {
        match self.child.try_wait()? {
            None => Ok(()),
            Some(status) => bail!("{} ended with {status}:\n{}", self.name, self.last_words()),
        }
    }

    /// Asks it to end, and waits until it did.
    pub async fn stop(mut self) -> Result<()> {
        kill_process(self.pid()?, Signal::TERM).context("cannot signal")?;
        let status = timeout(GRACE, self.child.wait()).await;
        let status = status
            .with_context(|| format!("{} does not end:\n{}", self.name, self.last_words()))??;
        if !status.success() {
            bail!("{} ended with {status}:\n{}", self.name, self.last_words());
        }
        Ok(())
    }

    /// Ends it at once: for when its last words cost time and tell nothing.
    pub async fn kill(mut self) -> Result<()> {
        Ok(self.child.kill().await?)
    }

    /// A field of `/proc/PID/status`, in bytes.
    pub fn memory_bytes(&self, field: &str) -> Result<u64> {
        let path = format!("/proc/{}/status", self.pid()?.as_raw_nonzero());
        let text = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
        let line = text.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
        let kib: Option<u64> =
            line.and_then(|line| line.trim().trim_end_matches(" kB").parse().ok());
        Ok(kib.with_context(|| format!("{path} has no {field}"))? * 1024)
    }

    /// The processor time it has used, its own and the kernel's for it.
    pub fn processor_time(&self) -> Result<Duration> {
        let path = format!("/proc/{}/stat", self.pid()?.as_raw_nonzero());
        let text = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
        // The name comes first, in parentheses, and may hold spaces; utime and stime are the 14th and 15th field.
        let fields = text.rsplit_once(')').map(|(_, fields)| fields.split_whitespace());
        let ticks = fields.into_iter().flatten().skip(11).take(2);
        let ticks: u64 = ticks.filter_map(|field| field.parse::<u64>().ok()).sum();
        let per_second = rustix::param::clock_ticks_per_second();
        Ok(Duration::from_millis(ticks * 1000 / per_second.max(1)))
    }

    fn pid(&self) -> Result<Pid> {
        let raw = self.child.id().and_then(|id| i32::try_from(id).ok());
        raw.and_then(Pid::from_raw).with_context(|| format!("{} has ended", self.name))
    }

    fn last_words(&self) -> String {
        let text = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(10)..].join("\n")
    }
}
