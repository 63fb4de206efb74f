//! Gives each Service its virtual address and spreads connections over ready endpoints.
//!
//! Start at [`run`]: Services and EndpointSlices come in through the API,
//! [`routes`] turns them into one snapshot (pure), the snapshot goes into the
//! shared [`ServiceTable`], and [`listeners`] listens where the snapshot says.
//!
//! Always true: a connection is offered to another endpoint when the first one
//! refuses it, and waits a moment for newer endpoints when all of them do, so
//! an endpoint that has just ended costs nobody a request.
//! Deliberately absent: UDP and SCTP, which need packets, not streams.

mod listeners;
mod routes;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use coracle_api::services::ServiceTable;
use coracle_reconcile::{Mirror, NotSynced, Tasks};
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::Client;
use tokio::net::TcpStream;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

pub use listeners::unprivileged;

/// Takes a connection to a server that lives in this process, or hands it back.
pub type Deliver = Arc<dyn Fn(SocketAddr, TcpStream, Offer) -> Result<(), NotTaken> + Send + Sync>;

/// Which servers a connection is offered to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Offer {
    /// Those that stay: there may be others to ask.
    ToStaying,
    /// Those that are about to end too: nobody else takes it.
    ToAny,
}

/// Why a server of this process did not take a connection.
#[derive(Debug)]
pub enum NotTaken {
    /// There is none at this address.
    NotHere(TcpStream),
    /// It is about to end, and takes only what nobody else does.
    Ending(TcpStream),
}

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
    let outcome = match tasks.until_stopped(Source::open(&tasks, &client)).await {
        Err(error) => Err(error),
        Ok(None) => Ok(()),
        Ok(Some(source)) => {
            let (refreshed, _) = watch::channel(());
            let mut listeners = listeners::Listeners::new(&tasks, &options, &refreshed);
            loop {
                source.refresh(&options.table);
                refreshed.send_replace(());
                listeners.follow(&options.table.current()).await;
                if source.until_changed(&tasks).await.is_stop() {
                    break Ok(());
                }
            }
        }
    };
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
    let outcome = match tasks.until_stopped(Source::open(&tasks, &client)).await {
        Err(error) => Err(error),
        Ok(None) => Ok(()),
        Ok(Some(source)) => loop {
            source.refresh(&table);
            if source.until_changed(&tasks).await.is_stop() {
                break Ok(());
            }
        },
    };
    tasks.shutdown().await;
    outcome
}

/// What the table is made of.
struct Source {
    services: Mirror<Service>,
    slices: Mirror<EndpointSlice>,
    changed: Arc<Notify>,
}

/// Why a wait ended.
enum Waited {
    Changed,
    Stopped,
}

impl Waited {
    fn is_stop(&self) -> bool {
        matches!(self, Self::Stopped)
    }
}

impl Source {
    async fn open(tasks: &Tasks, client: &Client) -> Result<Self, Error> {
        let services: Mirror<Service> = Mirror::all(tasks, client);
        let slices: Mirror<EndpointSlice> = Mirror::all(tasks, client);
        let changed = Arc::new(Notify::new());
        let on_service = Arc::clone(&changed);
        services.on_change(move |_| on_service.notify_one());
        let on_slice = Arc::clone(&changed);
        slices.on_change(move |_| on_slice.notify_one());
        services.synced().await?;
        slices.synced().await?;
        Ok(Self { services, slices, changed })
    }

    /// Puts a new snapshot into the table.
    fn refresh(&self, table: &ServiceTable) {
        let services = self.services.list();
        let slices = self.slices.list();
        table.replace(routes::compile(&services, &slices, &table.current()));
    }

    /// Changes that arrive while a snapshot is made are all in the next one.
    async fn until_changed(&self, tasks: &Tasks) -> Waited {
        match tasks.token().run_until_cancelled(self.changed.notified()).await {
            Some(()) => Waited::Changed,
            None => Waited::Stopped,
        }
    }
}
