//! Listens on virtual addresses and node ports, and passes connections on.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use coracle_api::services::{ServicePort, ServiceTable, Services};
use coracle_reconcile::Tasks;
use parking_lot::RwLock;
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

/// Where virtual addresses can be reached from the host.
#[derive(Default)]
pub struct Published {
    addresses: RwLock<BTreeMap<SocketAddr, Listening>>,
}

/// What became of listening on one virtual address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Listening {
    /// Connect there: the virtual address itself, or with an unprivileged port.
    On(SocketAddr),
    /// Nobody listens, and why. Guests reach the Service all the same.
    Failed(String),
}

impl Published {
    /// Where this virtual address is reached from the host, once the proxy knows it.
    pub fn address(&self, virtual_address: SocketAddr) -> Option<Listening> {
        self.addresses.read().get(&virtual_address).cloned()
    }
}

/// The listeners of one proxy.
pub(crate) struct Listeners<'a> {
    tasks: &'a Tasks,
    table: Arc<ServiceTable>,
    deliver: Deliver,
    node_addresses: Vec<IpAddr>,
    published: Arc<Published>,
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
            published: Arc::clone(&options.published),
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
        let published = &self.published;
        self.open.retain(|door, stop| {
            let keep = wanted.contains(door);
            if !keep {
                stop.cancel();
                if let Door::Virtual(address) = door {
                    published.addresses.write().remove(address);
                }
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
        let (bound, listening) = match listen(door).await {
            Ok((listener, address)) => (Some(listener), Listening::On(address)),
            Err(error) => {
                warn!(?door, %error, "cannot listen for a service");
                (None, Listening::Failed(error.to_string()))
            }
        };
        if let Door::Virtual(address) = door {
            self.published.addresses.write().insert(address, listening);
        }
        let stop = self.tasks.token().child_token();
        if let Some(listener) = bound {
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
        // A door that could not be opened stays in the books: it is tried again when its Service is made anew.
        self.open.insert(door, stop);
    }
}

async fn listen(door: Door) -> io::Result<(TcpListener, SocketAddr)> {
    let address = match door {
        Door::Virtual(address) | Door::Node(address) => address,
    };
    match TcpListener::bind(address).await {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied && address.port() < PRIVILEGED => {
            let instead = SocketAddr::new(address.ip(), address.port() + UNPRIVILEGED_OFFSET);
            info!(%address, %instead, "the port needs a privilege, listening beside it");
            Ok((TcpListener::bind(instead).await?, instead))
        }
        Err(error) => Err(error),
        Ok(listener) => Ok((listener, address)),
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
