//! `coracle up`: manifests and their modules, on a laptop.
//!
//! Uses the cluster that runs on the data directory, or starts one in this
//! process. Loads, applies, shows progress, prints addresses, follows logs.

mod addresses;
mod apply;
mod logs;
mod manifests;
mod progress;

use std::net::{IpAddr, Ipv4Addr};

use anyhow::{Context, Result};
use coracle_reconcile::Tasks;
use coracle_runtime_wasm::ImageStore;
use jiff::Timestamp;
use kube::Client;
use tokio_util::sync::CancellationToken;

use crate::cli;
use crate::cluster::{self, Cluster};
use crate::data_dir::DataDir;
use crate::shutdown;

/// Runs until Ctrl-C; a cluster that this process started ends with it, and keeps its state.
pub async fn run(options: cli::Up) -> Result<()> {
    let paths = [options.paths, options.files].concat();
    let manifests = manifests::read(&paths)?;
    let stop = shutdown::on_signal()?;
    let data_dir = DataDir::open(&options.data_dir)?;
    let target = Target::find_or_start(&data_dir, &stop).await?;
    let outcome = drive(&target, &data_dir, &manifests, &stop).await;
    target.leave().await?;
    outcome
}

/// The cluster that the manifests go to.
enum Target {
    /// Started by us, then: it ends with us.
    Ours(Box<Cluster>, Timestamp),
    /// Running already, in another process.
    Running(Client),
}

impl Target {
    async fn find_or_start(data_dir: &DataDir, stop: &CancellationToken) -> Result<Self> {
        if let Some(client) = cluster::running(data_dir).await {
            println!("using the cluster that runs on {}", data_dir.path().display());
            return Ok(Self::Running(client));
        }
        println!("starting a cluster on {}", data_dir.path().display());
        let options = cluster::Options {
            data_dir: data_dir.clone(),
            bind_address: IpAddr::V4(Ipv4Addr::LOCALHOST),
            port: cluster::Port::PreferablyStandard,
            datastore_endpoint: None,
            security: cli::Security::default(),
            node_name: None,
            scheduler: None,
        };
        let begun = Timestamp::now();
        let starting = Cluster::start(options);
        let cluster = stop.run_until_cancelled(starting).await.context("interrupted")??;
        Ok(Self::Ours(Box::new(cluster), begun))
    }

    fn client(&self) -> &Client {
        match self {
            Self::Ours(cluster, _) => cluster.client(),
            Self::Running(client) => client,
        }
    }

    async fn leave(self) -> Result<()> {
        match self {
            Self::Ours(cluster, _) => {
                println!("stopping the cluster; the same command finds its state again");
                cluster.stop().await
            }
            Self::Running(_) => Ok(()),
        }
    }
}

async fn drive(
    target: &Target,
    data_dir: &DataDir,
    manifests: &manifests::Manifests,
    stop: &CancellationToken,
) -> Result<()> {
    let kubeconfig = data_dir.kubeconfig();
    println!("kubectl --kubeconfig {} get all -A", kubeconfig.display());
    import(data_dir, manifests).await?;

    let mut applied = Vec::new();
    for object in &manifests.objects {
        let done = apply::apply(target.client(), object).await?;
        println!("{} {}", done.label, done.outcome.as_str());
        applied.push(done);
    }

    let tasks = Tasks::new(stop.child_token());
    let world = progress::World::open(&tasks, target.client(), &applied);
    let follow = async {
        if let Target::Ours(_, begun) = target {
            progress::until_node_lives(&tasks, target.client(), *begun).await?;
        }
        progress::until_ready(&world, &applied).await?;
        addresses::print(target.client(), &applied).await?;
        logs::follow(&tasks, target.client(), &world, &applied).await
    };
    let outcome = stop.run_until_cancelled(follow).await;
    tasks.shutdown().await;
    outcome.unwrap_or(Ok(()))
}

/// Loads the local modules into the image store, under the names that the manifests use.
async fn import(data_dir: &DataDir, manifests: &manifests::Manifests) -> Result<()> {
    let store = ImageStore::open(&data_dir.wasm())?;
    for (name, file) in &manifests.modules {
        let image =
            store.import(file, name).with_context(|| format!("cannot load {}", file.display()))?;
        println!("image {name} loaded ({} KiB)", image.size_bytes.div_ceil(1024));
    }
    Ok(())
}
