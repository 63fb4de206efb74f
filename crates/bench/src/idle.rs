//! `idle`: what a cluster without work keeps in memory.

use std::time::Duration;

use anyhow::Result;
use tokio::time::sleep;

use crate::Settings;
use crate::cluster::Cluster;
use crate::report::{Figure, Report};

/// Clusters that are looked at.
const RUNS: usize = 3;
/// Settled means that two looks, this far apart, see the same within a percent.
const LOOK: Duration = Duration::from_secs(5);
/// Looks after which it is taken as it is.
const LOOKS: usize = 12;

pub async fn run(settings: &Settings, report: &mut Report) -> Result<()> {
    let mut resident = Vec::new();
    let mut anonymous = Vec::new();
    for _ in 0..RUNS {
        let cluster = Cluster::prepared(settings).await?;
        resident.push(settled(&cluster).await?);
        anonymous.push(cluster.process().memory_bytes("RssAnon")?);
        cluster.stop().await?;
    }
    report.add("idle", "resident memory (VmRSS)", mebibytes(resident), "60 MiB");
    report.add("idle", "of it not backed by files (RssAnon)", mebibytes(anonymous), "");
    Ok(())
}

/// Waits until the memory of a cluster stays as it is, and answers it.
pub async fn settled(cluster: &Cluster) -> Result<u64> {
    let mut before = 0;
    for _ in 0..LOOKS {
        // Nothing tells when memory has settled: only time does.
        sleep(LOOK).await;
        let now = cluster.process().memory_bytes("VmRSS")?;
        if now.abs_diff(before) * 100 <= now {
            return Ok(now);
        }
        before = now;
    }
    Ok(before)
}

/// The median of some sizes.
pub fn mebibytes(mut bytes: Vec<u64>) -> Figure {
    bytes.sort_unstable();
    let median = bytes.get(bytes.len() / 2).copied().unwrap_or_default();
    Figure { median: format!("{:.1} MiB", median as f64 / f64::from(1 << 20)), p99: None }
}
