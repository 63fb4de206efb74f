//! `coracle server`: a whole cluster, until SIGTERM.

use anyhow::Result;
use tracing::info;

use crate::cli;
use crate::cluster::{Cluster, Options, Port};
use crate::component::scheduler_configuration;
use crate::data_dir::DataDir;
use crate::shutdown;

/// Runs the cluster until it is told to stop.
pub async fn run(options: cli::Server) -> Result<()> {
    let stop = shutdown::on_signal()?;
    let scheduling = options.scheduler_config.as_deref().map(scheduler_configuration);
    let cluster = Cluster::start(Options {
        data_dir: DataDir::open(&options.api.data_dir)?,
        bind_address: options.api.bind_address,
        port: Port::Exactly(options.api.secure_port),
        datastore_endpoint: options.api.datastore_endpoint,
        security: options.api.security,
        node_name: options.node_name,
        scheduler: scheduling.transpose()?,
    })
    .await?;
    stop.cancelled().await;
    info!("stopping");
    cluster.stop().await
}
