//! Listens on virtual addresses and node ports, and passes connections on.

use std::collections::{BTreeSet, HashMap};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use coracle_api::services::{ServicePort, ServiceTable, Services};
use coracle_reconcile::Tasks;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use crate::{Deliver, NotTaken, Offer, Options};

/// Connections that one listener carries at once. Each holds two file descriptors; beyond it new ones wait in the backlog.
const CONNECTIONS: usize = 8192;
/// How long one endpoint may take to accept.
const CONNECT_DEADLINE: Duration = Duration::from_secs(5);
/// How many endpoints are dialled for one connection before its client is refused.
const DIALS: usize = 4;
/// How long a connection waits for newer endpoints when all that are known refuse it, and how often.
const NEWER_DEADLINE: Duration = Duration::from_secs(2);
const ROUNDS: usize = 4;
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
    /// Told whenever the table is new.
    refreshed: watch::Receiver<()>,
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
    pub(crate) fn new(tasks: &'a Tasks, options: &Options, refreshed: &watch::Sender<()>) -> Self {
        Self {
            tasks,
            table: Arc::clone(&options.table),
            deliver: Arc::clone(&options.deliver),
            refreshed: refreshed.subscribe(),
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
                    guide: Arc::new(Guide {
                        door,
                        table: Arc::clone(&self.table),
                        deliver: Arc::clone(&self.deliver),
                        refreshed: self.refreshed.clone(),
                    }),
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
    guide: Arc<Guide>,
    room: Arc<Semaphore>,
    tasks: Tasks,
}

/// Where connections of one door go.
struct Guide {
    door: Door,
    table: Arc<ServiceTable>,
    deliver: Deliver,
    refreshed: watch::Receiver<()>,
}

impl Doorman {
    async fn accept(self, listener: TcpListener) {
        loop {
            let Ok(place) = Arc::clone(&self.room).acquire_owned().await else { return };
            let (client, peer) = match listener.accept().await {
                Ok(accepted) => accepted,
                Err(error) => {
                    warn!(door = ?self.guide.door, %error, "cannot accept a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            let _ = client.set_nodelay(true);
            // Usually the first choice is a server of this process, and then there is nothing left to carry.
            let (client, first) = match self.guide.hand_over(client, peer.ip()) {
                Ok(()) => continue,
                Err(back) => back,
            };
            let guide = Arc::clone(&self.guide);
            self.tasks.spawn("service connection", async move {
                guide.carry(client, peer.ip(), first).await;
                drop(place);
            });
        }
    }
}

impl Guide {
    /// The port as the newest snapshot has it.
    fn port(&self) -> Option<Arc<ServicePort>> {
        let services = self.table.current();
        match self.door {
            Door::Virtual(address) => services.by_address.get(&address).cloned(),
            Door::Node(address) => services.by_node_port.get(&address.port()).cloned(),
        }
    }

    /// Offers the connection to the endpoint whose turn it is; gives it back with that endpoint.
    fn hand_over(
        &self,
        client: TcpStream,
        peer: IpAddr,
    ) -> Result<(), (TcpStream, Option<SocketAddr>)> {
        let picked = self.port().and_then(|port| port.pick(peer, Instant::now()));
        let Some(endpoint) = picked else { return Err((client, None)) };
        (self.deliver)(endpoint, client, Offer::ToStaying)
            .map_err(|(NotTaken::NotHere(back) | NotTaken::Ending(back))| (back, Some(endpoint)))
    }

    /// Finds somebody for a connection that its first choice did not take at once.
    async fn carry(&self, mut client: TcpStream, peer: IpAddr, mut first: Option<SocketAddr>) {
        let mut refreshed = self.refreshed.clone();
        refreshed.mark_unchanged();
        for _ in 0..ROUNDS {
            let Some(port) = self.port() else { break };
            let picked = first.take().or_else(|| port.pick(peer, Instant::now()));
            let Some(endpoint) = picked else { break };
            client = match self.offer(client, endpoint, &port).await {
                Ok(()) => return,
                Err(back) => back,
            };
            // All have ended, which the API is about to tell us, with those who follow them.
            if tokio::time::timeout(NEWER_DEADLINE, refreshed.changed()).await.is_err() {
                break;
            }
        }
        // Nobody took it. A reset tells the client at once, as the kernel's REJECT would.
        let _ = client.set_zero_linger();
    }

    /// Offers the connection to each endpoint, from `first` on, until one takes it, then carries bytes both ways.
    async fn offer(
        &self,
        mut client: TcpStream,
        first: SocketAddr,
        port: &ServicePort,
    ) -> Result<(), TcpStream> {
        let mut dials = 0;
        for endpoint in in_turn(&port.endpoints, first) {
            let mut server = match (self.deliver)(endpoint, client, Offer::ToStaying) {
                Ok(()) => return Ok(()),
                Err(NotTaken::Ending(back)) => {
                    client = back;
                    continue;
                }
                Err(NotTaken::NotHere(back)) => {
                    client = back;
                    if dials == DIALS {
                        continue;
                    }
                    dials += 1;
                    match dial(endpoint, &port.name).await {
                        Some(server) => server,
                        None => continue,
                    }
                }
            };
            if let Err(error) = tokio::io::copy_bidirectional(&mut client, &mut server).await {
                debug!(service = port.name, %endpoint, %error, "a connection broke off");
            }
            return Ok(());
        }
        for endpoint in in_turn(&port.endpoints, first) {
            client = match (self.deliver)(endpoint, client, Offer::ToAny) {
                Ok(()) => return Ok(()),
                Err(NotTaken::NotHere(back) | NotTaken::Ending(back)) => back,
            };
        }
        Err(client)
    }
}

/// All endpoints once, from `first` on. A snapshot without it is told from its beginning.
fn in_turn(endpoints: &[SocketAddr], first: SocketAddr) -> impl Iterator<Item = SocketAddr> {
    let start = endpoints.iter().position(|endpoint| *endpoint == first).unwrap_or(0);
    let (before, from) = endpoints.split_at(start);
    from.iter().chain(before).copied()
}

async fn dial(endpoint: SocketAddr, service: &str) -> Option<TcpStream> {
    match tokio::time::timeout(CONNECT_DEADLINE, TcpStream::connect(endpoint)).await {
        Ok(Ok(server)) => {
            let _ = server.set_nodelay(true);
            Some(server)
        }
        Ok(Err(error)) => {
            debug!(service, %endpoint, %error, "an endpoint refused");
            None
        }
        Err(_) => {
            debug!(service, %endpoint, "an endpoint did not accept in time");
            None
        }
    }
}

#[cfg(test)]
mod tests;
