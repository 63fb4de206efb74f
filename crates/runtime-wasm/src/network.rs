//! The network as one pod's guests see it.
//!
//! Names of the cluster and virtual addresses mean what [`ServiceTable`] says at that moment. The pod's loopback is the
//! pod's own address: the host's loopback, where its databases listen, is out of reach. This is the one place that
//! decides where a guest may connect to; network policy will be asked here.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use coracle_api::services::{Destination, Resolution, ServiceTable};
use coracle_runtime::PodIdentity;
use parking_lot::Mutex;
use tokio::net::{TcpSocket, TcpStream};

use crate::options::PodNet;

/// An alias may lead to an alias, but not for ever.
const ALIASES_MAX: usize = 8;

/// The addresses of the pods' net, handed out one by one.
pub(crate) struct Addresses {
    net: PodNet,
    state: Mutex<AddressState>,
}

#[derive(Default)]
struct AddressState {
    /// By address, the pod that has it.
    taken: HashMap<Ipv4Addr, String>,
    /// Where the search begins: an address is used again as late as possible.
    next: u32,
}

/// One pod's view.
pub(crate) struct PodNetwork {
    services: Arc<ServiceTable>,
    net: PodNet,
    namespace: String,
    address: IpAddr,
    host_network: bool,
}

/// Why a guest's connection was not tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unreachable {
    /// A Service without ready endpoints, or nobody's address.
    Refused,
}

/// What a guest's name for a host means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Meaning {
    /// These addresses.
    Addresses(Vec<IpAddr>),
    /// A name outside of the cluster, for the host's resolver.
    Outside(String),
    /// Nobody has this name.
    Unknown,
}

impl Addresses {
    pub(crate) fn new(net: PodNet) -> Self {
        Self { net, state: Mutex::default() }
    }

    /// A free address for a pod, or `None` when all are taken.
    pub(crate) fn take(&self, pod_uid: &str) -> Option<Ipv4Addr> {
        let mut state = self.state.lock();
        let capacity = self.net.capacity();
        let place = (0..capacity)
            .map(|offset| (state.next + offset) % capacity)
            .find(|place| !state.taken.contains_key(&self.net.address(*place)))?;
        let address = self.net.address(place);
        state.taken.insert(address, pod_uid.to_owned());
        state.next = place + 1;
        Some(address)
    }

    /// Gives a pod's address back.
    pub(crate) fn give_back(&self, address: Ipv4Addr) {
        debug_assert!(self.net.place(address) < self.net.capacity(), "an address of ours");
        self.state.lock().taken.remove(&address);
    }
}

impl PodNetwork {
    pub(crate) fn new(
        services: Arc<ServiceTable>,
        net: PodNet,
        pod: &PodIdentity,
        address: IpAddr,
        host_network: bool,
    ) -> Self {
        Self { services, net, namespace: pod.namespace.clone(), address, host_network }
    }

    /// The pod's own address.
    pub(crate) fn address(&self) -> IpAddr {
        self.address
    }

    /// Where a connection to an address really goes.
    pub(crate) fn destination(&self, address: SocketAddr) -> Result<SocketAddr, Unreachable> {
        match self.services.destination(address, self.address) {
            Destination::Endpoint(endpoint) => return Ok(endpoint),
            Destination::NoEndpoints => return Err(Unreachable::Refused),
            Destination::NotAService => (),
        }
        let ip = address.ip().to_canonical();
        if self.host_network || !ip.is_loopback() || self.net.contains(ip) {
            Ok(address)
        } else if ip == Ipv4Addr::LOCALHOST || ip.is_ipv6() {
            Ok(SocketAddr::new(self.address, address.port()))
        } else {
            Err(Unreachable::Refused)
        }
    }

    /// Which address a guest listens on when it asks for this one; `None` when it is not the pod's.
    pub(crate) fn own(&self, address: SocketAddr) -> Option<SocketAddr> {
        let ip = address.ip();
        if self.host_network {
            return Some(address);
        }
        let own = ip.is_unspecified() || ip == Ipv4Addr::LOCALHOST || ip == self.address;
        (own && ip.is_ipv4()).then(|| SocketAddr::new(self.address, address.port()))
    }

    /// True when datagrams may go to this address.
    pub(crate) fn may_send(&self, address: SocketAddr) -> bool {
        let ip = address.ip().to_canonical();
        self.host_network || !ip.is_loopback() || self.net.contains(ip)
    }

    /// What a host's name or address means to the pod.
    pub(crate) fn meaning(&self, host: &str) -> Meaning {
        let mut host = host.to_owned();
        for _ in 0..ALIASES_MAX {
            if let Ok(ip) = host.trim_start_matches('[').trim_end_matches(']').parse() {
                return Meaning::Addresses(vec![ip]);
            }
            if host.eq_ignore_ascii_case("localhost") {
                return Meaning::Addresses(vec![self.address]);
            }
            match self.services.resolve(&host, &self.namespace) {
                Resolution::Addresses(addresses) if addresses.is_empty() => {
                    return Meaning::Unknown;
                }
                Resolution::Addresses(addresses) => return Meaning::Addresses(addresses),
                Resolution::Alias(name) => host = name,
                Resolution::Unknown => return Meaning::Unknown,
                Resolution::NotInCluster => return Meaning::Outside(host),
            }
        }
        Meaning::Unknown
    }

    /// Opens a connection as the pod: to the first of the name's addresses that answers.
    pub(crate) async fn connect(&self, host: &str, port: u16) -> io::Result<TcpStream> {
        let addresses = match self.meaning(host) {
            Meaning::Addresses(addresses) => addresses,
            Meaning::Unknown => return Err(unknown_host(host)),
            Meaning::Outside(name) => {
                let found = tokio::net::lookup_host((name.as_str(), port)).await;
                found.map_err(|_| unknown_host(host))?.map(|address| address.ip()).collect()
            }
        };
        let mut last = unknown_host(host);
        for address in addresses {
            match self.dial(SocketAddr::new(address, port)).await {
                Ok(stream) => return Ok(stream),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    async fn dial(&self, address: SocketAddr) -> io::Result<TcpStream> {
        let target = self
            .destination(address)
            .map_err(|Unreachable::Refused| io::Error::from(io::ErrorKind::ConnectionRefused))?;
        let socket = if target.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        // Who is called sees the pod's address, where the system has it.
        if !self.host_network && target.ip().is_loopback() && target.ip().is_ipv4() {
            socket.bind(SocketAddr::new(self.address, 0))?;
        }
        let stream = socket.connect(target).await?;
        stream.set_nodelay(true)?;
        Ok(stream)
    }
}

fn unknown_host(host: &str) -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, format!("no such host: {host}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use coracle_api::services::{ServiceName, ServicePort, Services};

    fn network() -> PodNetwork {
        let mut services = Services::default();
        let virtual_ip: IpAddr = "127.17.0.10".parse().unwrap();
        let name = ("shop".to_owned(), "web".to_owned());
        services.by_name.insert(name, ServiceName::Virtual(vec![virtual_ip]));
        services
            .by_name
            .insert(("shop".into(), "alias".into()), ServiceName::External("web.shop.svc".into()));
        let endpoints = vec!["127.16.0.9:8080".parse().unwrap()];
        let port = ServicePort::new("shop/web".into(), endpoints, None, None);
        services.by_address.insert(SocketAddr::new(virtual_ip, 80), Arc::new(port));
        let port = ServicePort::new("shop/web".into(), vec![], None, None);
        services.by_address.insert(SocketAddr::new(virtual_ip, 81), Arc::new(port));
        let table = ServiceTable::default();
        table.replace(services);
        let pod = PodIdentity { namespace: "shop".into(), name: "p".into(), uid: "u".into() };
        let net = "127.16.0.0/16".parse().unwrap();
        PodNetwork::new(Arc::new(table), net, &pod, "127.16.0.5".parse().unwrap(), false)
    }

    #[test]
    fn connections_go_where_the_cluster_says() {
        let network = network();
        let goes = |address: &str| {
            network.destination(address.parse().unwrap()).ok().map(|target| target.to_string())
        };
        assert_eq!(goes("127.17.0.10:80").as_deref(), Some("127.16.0.9:8080"));
        assert_eq!(goes("127.17.0.10:81"), None);
        assert_eq!(goes("127.0.0.1:5432").as_deref(), Some("127.16.0.5:5432"));
        assert_eq!(goes("[::1]:5432").as_deref(), Some("127.16.0.5:5432"));
        assert_eq!(goes("[::ffff:127.0.0.2]:5432"), None);
        assert_eq!(goes("127.0.0.2:5432"), None);
        assert_eq!(goes("127.16.3.4:1").as_deref(), Some("127.16.3.4:1"));
        assert_eq!(goes("192.0.2.1:1").as_deref(), Some("192.0.2.1:1"));
    }

    #[test]
    fn names_mean_what_the_cluster_says() {
        let network = network();
        let web = Meaning::Addresses(vec!["127.17.0.10".parse().unwrap()]);
        for name in ["web", "web.shop", "web.shop.svc.cluster.local", "alias", "127.17.0.10"] {
            assert_eq!(network.meaning(name), web, "{name}");
        }
        assert_eq!(network.meaning("web.other.svc"), Meaning::Unknown);
        assert_eq!(network.meaning("example.org"), Meaning::Outside("example.org".into()));
        assert_eq!(network.meaning("localhost"), Meaning::Addresses(vec![network.address()]));
    }

    #[test]
    fn a_guest_listens_on_its_own_address_only() {
        let network = network();
        let own = |address: &str| network.own(address.parse().unwrap()).map(|own| own.to_string());
        assert_eq!(own("0.0.0.0:80").as_deref(), Some("127.16.0.5:80"));
        assert_eq!(own("127.0.0.1:80").as_deref(), Some("127.16.0.5:80"));
        assert_eq!(own("127.16.0.5:80").as_deref(), Some("127.16.0.5:80"));
        assert_eq!(own("127.16.0.6:80"), None);
        assert_eq!(own("192.0.2.1:80"), None);
    }

    #[test]
    fn addresses_are_used_again_as_late_as_possible() {
        let addresses = Addresses::new("127.16.0.0/29".parse().unwrap());
        let first = addresses.take("a").unwrap();
        assert_eq!(first, Ipv4Addr::new(127, 16, 0, 2));
        addresses.give_back(first);
        let taken: Vec<Ipv4Addr> = std::iter::from_fn(|| addresses.take("b")).collect();
        assert_eq!(taken.len(), 5);
        assert_eq!(taken.last(), Some(&first));
    }
}
