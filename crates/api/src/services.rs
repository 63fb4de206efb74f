//! What every Service's virtual address leads to, as one snapshot.
//!
//! `network` writes it from Services and EndpointSlices; the proxy and the
//! Wasm engine read it on each connection, so reading takes no lock.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use parking_lot::Mutex;

/// How many clients' choices one port with `sessionAffinity: ClientIP` remembers; beyond it the oldest are forgotten.
const AFFINITY_CLIENTS: usize = 10_000;

/// The current [`Services`], replaced as a whole when something changes.
#[derive(Default)]
pub struct ServiceTable {
    current: ArcSwap<Services>,
}

/// One snapshot: names to addresses, addresses to ports.
#[derive(Default)]
pub struct Services {
    /// By namespace and name.
    pub by_name: HashMap<(String, String), ServiceName>,
    /// The pods of headless Services that have names of their own: by namespace, Service and hostname.
    pub by_hostname: HashMap<(String, String, String), Vec<IpAddr>>,
    /// By virtual address and port (TCP).
    pub by_address: HashMap<SocketAddr, Arc<ServicePort>>,
    /// By the port opened on every node (TCP).
    pub by_node_port: HashMap<u16, Arc<ServicePort>>,
}

/// What a Service's DNS name means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ServiceName {
    /// The virtual address.
    Virtual(Vec<IpAddr>),
    /// A headless Service: the ready pods themselves.
    Headless(Vec<IpAddr>),
    /// Another DNS name.
    External(String),
}

/// One port of one Service.
pub struct ServicePort {
    /// `namespace/name:port-name`, for messages.
    pub name: String,
    /// Where connections go.
    pub endpoints: Vec<SocketAddr>,
    /// How long one client stays with one endpoint.
    pub affinity: Option<Duration>,
    /// Turn by turn.
    next: AtomicUsize,
    choices: Mutex<HashMap<IpAddr, (SocketAddr, Instant)>>,
}

/// The answer to "where does this address lead?"
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Destination {
    /// No Service has this address.
    NotAService,
    /// A Service has it, and nobody is ready: refuse the connection.
    NoEndpoints,
    /// Connect there.
    Endpoint(SocketAddr),
}

/// The answer to "what does this name mean?"
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Resolution {
    /// Not a name of this cluster: ask the host's resolver.
    NotInCluster,
    /// A name of this cluster that nobody has.
    Unknown,
    /// Its addresses; a headless Service may have none.
    Addresses(Vec<IpAddr>),
    /// An alias for another name.
    Alias(String),
}

impl ServicePort {
    /// A port whose turn starts at the first endpoint. `previous` hands over the clients' choices and the turn.
    pub fn new(
        name: String,
        endpoints: Vec<SocketAddr>,
        affinity: Option<Duration>,
        previous: Option<&ServicePort>,
    ) -> Self {
        let next = previous.map_or(0, |port| port.next.load(Ordering::Relaxed));
        let choices = previous.map(|port| port.choices.lock().clone()).unwrap_or_default();
        Self {
            name,
            endpoints,
            affinity,
            next: AtomicUsize::new(next),
            choices: Mutex::new(choices),
        }
    }

    /// Chooses an endpoint for a client; `now` is the instant that affinity is counted from.
    pub fn pick(&self, client: IpAddr, now: Instant) -> Option<SocketAddr> {
        let Some(stay) = self.affinity else {
            return self.take_turn();
        };
        let mut choices = self.choices.lock();
        if let Some((endpoint, since)) = choices.get_mut(&client)
            && now.duration_since(*since) < stay
            && self.endpoints.contains(endpoint)
        {
            *since = now;
            return Some(*endpoint);
        }
        let endpoint = self.take_turn()?;
        if choices.len() >= AFFINITY_CLIENTS {
            let oldest = choices.iter().min_by_key(|(_, (_, since))| *since).map(|(ip, _)| *ip);
            if let Some(oldest) = oldest {
                choices.remove(&oldest);
            }
        }
        choices.insert(client, (endpoint, now));
        Some(endpoint)
    }

    fn take_turn(&self) -> Option<SocketAddr> {
        if self.endpoints.is_empty() {
            return None;
        }
        let turn = self.next.fetch_add(1, Ordering::Relaxed);
        self.endpoints.get(turn % self.endpoints.len()).copied()
    }
}

impl ServiceTable {
    /// The snapshot of this moment.
    pub fn current(&self) -> Arc<Services> {
        self.current.load_full()
    }

    /// Makes `services` what everybody sees from now on.
    pub fn replace(&self, services: Services) {
        self.current.store(Arc::new(services));
    }

    /// Where a connection from `client` to `address` leads.
    pub fn destination(&self, address: SocketAddr, client: IpAddr) -> Destination {
        let services = self.current.load();
        match services.by_address.get(&address) {
            None => Destination::NotAService,
            Some(port) => port
                .pick(client, Instant::now())
                .map_or(Destination::NoEndpoints, Destination::Endpoint),
        }
    }

    /// What `host` means to a pod of `namespace`, as a pod's DNS search list has it: a Service by `name`,
    /// `name.namespace`, `name.namespace.svc` and `name.namespace.svc.cluster.local`, and a pod of a headless Service
    /// by its hostname before one of these.
    pub fn resolve(&self, host: &str, namespace: &str) -> Resolution {
        let host = host.trim_end_matches('.').to_ascii_lowercase();
        let short = host.strip_suffix(".svc.cluster.local").or_else(|| host.strip_suffix(".svc"));
        let services = self.current.load();
        if let Some(short) = short {
            return services.lookup(short.split('.')).unwrap_or(Resolution::Unknown);
        }
        let in_own_namespace = services.lookup(host.split('.').chain([namespace]));
        let elsewhere = || services.lookup(host.split('.'));
        in_own_namespace.or_else(elsewhere).unwrap_or(Resolution::NotInCluster)
    }
}

impl Services {
    /// The meaning of `service.namespace` or `hostname.service.namespace`.
    fn lookup<'a>(&self, parts: impl Iterator<Item = &'a str>) -> Option<Resolution> {
        // One more than the longest name tells that this is longer.
        let parts: Vec<&str> = parts.take(4).collect();
        match parts[..] {
            [name, namespace] => {
                let known = self.by_name.get(&(namespace.to_owned(), name.to_owned()))?;
                Some(match known {
                    ServiceName::Virtual(ips) | ServiceName::Headless(ips) => {
                        Resolution::Addresses(ips.clone())
                    }
                    ServiceName::External(name) => Resolution::Alias(name.clone()),
                })
            }
            [hostname, name, namespace] => {
                let key = (namespace.to_owned(), name.to_owned(), hostname.to_owned());
                self.by_hostname.get(&key).map(|ips| Resolution::Addresses(ips.clone()))
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests;
