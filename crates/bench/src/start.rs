//! `start`: how long `coracle server` takes from exec until /readyz says ok, over TLS.

use std::fs;

use anyhow::Result;

use crate::Settings;
use crate::cluster::{Cluster, data_dir};
use crate::report::{Report, few_times};

/// Starts of each sort.
const RUNS: usize = 10;

pub async fn run(settings: &Settings, report: &mut Report) -> Result<()> {
    let mut new = Vec::new();
    let mut existing = Vec::new();
    for _ in 0..RUNS {
        let data_dir = data_dir(&settings.lasting_folder()?);
        fs::create_dir(&data_dir)?;
        for durations in [&mut new, &mut existing] {
            let (cluster, duration) = Cluster::start(settings, &data_dir).await?;
            durations.push(duration);
            cluster.stop().await?;
        }
    }
    report.add("start", "exec to /readyz, new data directory", few_times(new), "250 ms");
    report.add("start", "exec to /readyz, existing data directory", few_times(existing), "100 ms");
    Ok(())
}
