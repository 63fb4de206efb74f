//! What the binary decides about the engine.

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;

use coracle_api::services::ServiceTable;
use coracle_runtime::LogLimits;

/// How one engine is set up.
pub struct Options {
    /// Images and compiled modules live below it.
    pub data_dir: PathBuf,
    /// Where pods get their addresses from.
    pub pod_net: PodNet,
    /// The address of pods that share the node's own (`hostNetwork`).
    pub node_address: IpAddr,
    /// Names and virtual addresses, as guests see them.
    pub services: Arc<ServiceTable>,
    /// How many modules are compiled at once. Each takes a core, and memory of some fifty times its size.
    pub compile_parallelism: usize,
    /// How many threads run guests that serve HTTP, and as many again run the others.
    pub workers: usize,
    /// How much of each container's output is kept.
    pub log_limits: LogLimits,
}

impl Options {
    /// The usual choices for this machine.
    pub fn new(data_dir: PathBuf, pod_net: PodNet, services: Arc<ServiceTable>) -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Self {
            data_dir,
            pod_net,
            node_address: IpAddr::V4(Ipv4Addr::LOCALHOST),
            services,
            // A core is left to what runs already.
            compile_parallelism: (cores - 1).max(1),
            workers: cores,
            log_limits: LogLimits::default(),
        }
    }
}

/// The net that pods' addresses come from, `127.16.0.0/16`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PodNet {
    base: u32,
    prefix: u8,
}

/// Why text is not a net for pods.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{0:?} is not an IPv4 net of at least 8 addresses, such as 127.16.0.0/16")]
pub struct PodNetError(String);

impl PodNet {
    /// A net by its first address and the length of its prefix. Bits after the prefix are dropped.
    pub fn new(base: Ipv4Addr, prefix: u8) -> Result<Self, PodNetError> {
        if !(8..=29).contains(&prefix) {
            return Err(PodNetError(format!("{base}/{prefix}")));
        }
        Ok(Self { base: u32::from(base) & (u32::MAX << (32 - prefix)), prefix })
    }

    /// True when the address belongs to the net.
    pub fn contains(self, address: IpAddr) -> bool {
        match address {
            IpAddr::V4(address) => {
                u32::from(address) & (u32::MAX << (32 - self.prefix)) == self.base
            }
            IpAddr::V6(_) => false,
        }
    }

    /// How many pods have room: neither the net's first two addresses nor its last are given out.
    pub fn capacity(self) -> u32 {
        (1 << (32 - self.prefix)) - 3
    }

    /// The address of a pod by its place, counted from 0.
    pub(crate) fn address(self, place: u32) -> Ipv4Addr {
        Ipv4Addr::from(self.base + 2 + place)
    }

    /// The place of a pod's address.
    pub(crate) fn place(self, address: Ipv4Addr) -> u32 {
        u32::from(address) - self.base - 2
    }
}

impl FromStr for PodNet {
    type Err = PodNetError;

    fn from_str(text: &str) -> Result<Self, PodNetError> {
        let malformed = || PodNetError(text.to_owned());
        let (base, prefix) = text.split_once('/').ok_or_else(malformed)?;
        let base = base.parse().map_err(|_| malformed())?;
        Self::new(base, prefix.parse().map_err(|_| malformed())?).map_err(|_| malformed())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_net_keeps_its_first_two_and_its_last_address() {
        let net: PodNet = "127.16.3.0/29".parse().unwrap();
        assert_eq!(net.capacity(), 5);
        assert_eq!(net.address(0), Ipv4Addr::new(127, 16, 3, 2));
        assert_eq!(net.address(4), Ipv4Addr::new(127, 16, 3, 6));
        assert_eq!(net.place(net.address(3)), 3);
        assert!(net.contains("127.16.3.7".parse().unwrap()));
        assert!(!net.contains("127.16.3.8".parse().unwrap()));
    }

    #[test]
    fn nonsense_is_refused() {
        for text in ["", "10.0.0.0", "10.0.0.0/31", "10.0.0.0/7", "x/16", "::/64"] {
            assert_eq!(text.parse::<PodNet>(), Err(PodNetError(text.to_owned())));
        }
    }
}
