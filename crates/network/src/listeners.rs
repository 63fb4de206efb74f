//! Listens on virtual addresses and node ports, and passes connections on.

use std::collections::{BTreeSet, HashMap};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use coracle_api::services::{ServicePort, ServiceTable, Services};
use coracle_reconcile::Tasks;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use crate::{Deliver, Options};

/// Connections that one listener carries at once. Each holds two file descriptors; beyond it new ones wait in the backlog.
const CONNECTIONS: usize = 8192;
/// How long one endpoint may take to accept.
const CONNECT_DEADLINE: Duration = Duration::from_secs(5);
/// How many endpoints a connection is offered to before the client is refused.
const OFFERS: usize = 4;
/// Ports below this need a privilege on most systems.
const PRIVILEGED: u16 = 1024;
/// Where a privileged port is published instead when we lack that privilege.
const UNPRIVILEGED_OFFSET: u16 = 10_000;
/// A pause after a failed `accept` (out of file descriptors), so that the loop does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Where a virtual address listens instead when its port needs a privilege that we lack.
pub fn unprivileged(address: SocketAddr) -> Option<SocketAddr> {
    let port = address.port();
    (port < PRIVILEGED).then(|| SocketAddr::new(address.ip(), port + UNPRIVILEGED_OFFSET))
}

/// The listeners of one proxy.
pub(crate) struct Listeners<'a> {
    tasks: &'a Tasks,
    table: Arc<ServiceTable>,
    deliver: Deliver,
    node_addresses: Vec<IpAddr>,
    open: HashMap<Door, CancellationToken>,
}

/// One place to listen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Door {
    /// A Service's virtual address.
    Virtual(SocketAddr),
    /// A node port on one of the node's addresses.
    Node(SocketAddr),
}

impl<'a> Listeners<'a> {
    pub(crate) fn new(tasks: &'a Tasks, options: &Options) -> Self {
        Self {
            tasks,
            table: Arc::clone(&options.table),
            deliver: Arc::clone(&options.deliver),
            node_addresses: options.node_addresses.clone(),
            open: HashMap::new(),
        }
    }

    /// Opens and closes what differs between the snapshot and what is open.
    pub(crate) async fn follow(&mut self, services: &Services) {
        let wanted: BTreeSet<Door> = services
            .by_address
            .keys()
            .map(|address| Door::Virtual(*address))
            .chain(services.by_node_port.keys().flat_map(|port| {
                self.node_addresses.iter().map(|ip| Door::Node(SocketAddr::new(*ip, *port)))
            }))
            .collect();
        self.open.retain(|door, stop| {
            let keep = wanted.contains(door);
            if !keep {
                stop.cancel();
            }
            keep
        });
        for door in wanted {
            if !self.open.contains_key(&door) {
                self.open(door).await;
            }
        }
    }

    async fn open(&mut self, door: Door) {
        let stop = self.tasks.token().child_token();
        match listen(door).await {
            // Guests reach the Service all the same.
            Err(error) => warn!(?door, %error, "cannot listen for a service"),
            Ok(listener) => {
                let doorman = Doorman {
                    door,
                    table: Arc::clone(&self.table),
                    deliver: Arc::clone(&self.deliver),
                    room: Arc::new(Semaphore::new(CONNECTIONS)),
                    tasks: self.tasks.clone(),
                };
                let stopped = stop.clone();
                self.tasks.spawn("service listener", async move {
                    stopped.run_until_cancelled(doorman.accept(listener)).await;
                });
            }
        }
        // A door that could not be opened stays in the books: it is tried again when its Service is made anew.
        self.open.insert(door, stop);
    }
}

async fn listen(door: Door) -> io::Result<TcpListener> {
    let address = match door {
        Door::Virtual(address) | Door::Node(address) => address,
    };
    match TcpListener::bind(address).await {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            let Some(instead) = unprivileged(address) else { return Err(error) };
            info!(%address, %instead, "the port needs a privilege, listening beside it");
            TcpListener::bind(instead).await
        }
        outcome => outcome,
    }
}

/// Serves one door.
struct Doorman {
    door: Door,
    table: Arc<ServiceTable>,
    deliver: Deliver,
    room: Arc<Semaphore>,
    tasks: Tasks,
}

impl Doorman {
    async fn accept(self, listener: TcpListener) {
        loop {
            let Ok(place) = Arc::clone(&self.room).acquire_owned().await else { return };
            let (client, peer) = match listener.accept().await {
                Ok(accepted) => accepted,
                Err(error) => {
                    warn!(door = ?self.door, %error, "cannot accept a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            let Some(port) = self.port() else { continue };
            let deliver = Arc::clone(&self.deliver);
            self.tasks.spawn("service connection", async move {
                carry(client, peer, &port, &deliver).await;
                drop(place);
            });
        }
    }

    /// The port as the newest snapshot has it.
    fn port(&self) -> Option<Arc<ServicePort>> {
        let services = self.table.current();
        match self.door {
            Door::Virtual(address) => services.by_address.get(&address).cloned(),
            Door::Node(address) => services.by_node_port.get(&address.port()).cloned(),
        }
    }
}

/// Offers the connection to endpoints until one takes it, then carries bytes both ways.
async fn carry(mut client: TcpStream, peer: SocketAddr, port: &ServicePort, deliver: &Deliver) {
    let _ = client.set_nodelay(true);
    for _ in 0..OFFERS {
        let Some(endpoint) = port.pick(peer.ip(), Instant::now()) else { break };
        client = match deliver(endpoint, client) {
            Ok(()) => return,
            Err(back) => back,
        };
        match tokio::time::timeout(CONNECT_DEADLINE, TcpStream::connect(endpoint)).await {
            Ok(Ok(mut server)) => {
                let _ = server.set_nodelay(true);
                if let Err(error) = tokio::io::copy_bidirectional(&mut client, &mut server).await {
                    debug!(service = port.name, %endpoint, %error, "a connection broke off");
                }
                return;
            }
            Ok(Err(error)) => debug!(service = port.name, %endpoint, %error, "an endpoint refused"),
            Err(_) => debug!(service = port.name, %endpoint, "an endpoint did not accept in time"),
        }
    }
    // Nobody took it. A reset tells the client at once, as the kernel's REJECT would.
    let _ = client.set_zero_linger();
}
