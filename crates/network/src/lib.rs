//! Gives each Service its virtual address and spreads connections over ready endpoints.
//!
//! Start at [`run`]: Services and EndpointSlices come in through the API,
//! [`routes`] turns them into one snapshot (pure), the snapshot goes into the
//! shared [`ServiceTable`], and [`listeners`] listens where the snapshot says.
//!
//! Always true: a connection is offered to another endpoint when the first one
//! refuses it, so an endpoint that has just ended costs nobody a request.
//! Deliberately absent: UDP and SCTP, which need packets, not streams.

mod listeners;
mod routes;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use coracle_api::services::{ServiceTable, Services};
use coracle_reconcile::{Mirror, NotSynced, Tasks};
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::Client;
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

pub use listeners::unprivileged;

/// Takes a connection to a server that lives in this process, or hands it back.
pub type Deliver = Arc<dyn Fn(SocketAddr, TcpStream) -> Result<(), TcpStream> + Send + Sync>;

/// What the proxy needs to know.
pub struct Options {
    /// Where everybody in this process looks virtual addresses up.
    pub table: Arc<ServiceTable>,
    /// The node's addresses, on which node ports listen.
    pub node_addresses: Vec<IpAddr>,
    /// The short way to servers of this process.
    pub deliver: Deliver,
}

/// Why the proxy cannot start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The API did not answer the first lists.
    #[error("cannot learn the cluster's services")]
    NotSynced(#[from] NotSynced),
}

/// Keeps the table and the listeners as the API says until `shutdown`.
///
/// # Errors
/// When the API does not answer the first lists within their deadline.
pub async fn run(
    client: Client,
    options: Options,
    shutdown: CancellationToken,
) -> Result<(), Error> {
    let tasks = Tasks::new(shutdown);
    let mut listeners = listeners::Listeners::new(&tasks, &options);
    let outcome = follow(&tasks, &client, &options.table, async |services| {
        listeners.follow(services).await;
    })
    .await;
    tasks.shutdown().await;
    outcome
}

/// Keeps only the table as the API says, for a kubelet whose guests look virtual addresses up in it.
///
/// # Errors
/// When the API does not answer the first lists within their deadline.
pub async fn follow_table(
    client: Client,
    table: Arc<ServiceTable>,
    shutdown: CancellationToken,
) -> Result<(), Error> {
    let tasks = Tasks::new(shutdown);
    let outcome = follow(&tasks, &client, &table, async |_| ()).await;
    tasks.shutdown().await;
    outcome
}

/// Makes a new snapshot for each change, and lets `act` act on it.
async fn follow(
    tasks: &Tasks,
    client: &Client,
    table: &ServiceTable,
    mut act: impl AsyncFnMut(&Services),
) -> Result<(), Error> {
    let services: Mirror<Service> = Mirror::all(tasks, client);
    let slices: Mirror<EndpointSlice> = Mirror::all(tasks, client);
    let changed = Arc::new(Notify::new());
    let on_service = Arc::clone(&changed);
    services.on_change(move |_| on_service.notify_one());
    let on_slice = Arc::clone(&changed);
    slices.on_change(move |_| on_slice.notify_one());
    services.synced().await?;
    slices.synced().await?;
    loop {
        // Changes that arrive while a snapshot is made are all in the next one.
        let next = routes::compile(&services.list(), &slices.list(), &table.current());
        table.replace(next);
        act(&table.current()).await;
        if tasks.token().run_until_cancelled(changed.notified()).await.is_none() {
            return Ok(());
        }
    }
}
