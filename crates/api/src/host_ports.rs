//! The ports that pods take on their nodes.

use k8s_openapi::api::core::v1::PodSpec;

/// A port that a pod takes on its node.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HostPort {
    /// `None` for all addresses of the node.
    pub address: Option<String>,
    /// `TCP`, `UDP` or `SCTP`.
    pub protocol: String,
    /// Its number.
    pub port: i32,
}

impl HostPort {
    /// Whether both cannot be open at once.
    pub fn conflicts(&self, other: &HostPort) -> bool {
        self.port == other.port
            && self.protocol == other.protocol
            && (self.address.is_none() || other.address.is_none() || self.address == other.address)
    }
}

/// The ports that a pod takes on its node, those of its sidecars too.
pub fn host_ports(spec: &PodSpec) -> Vec<HostPort> {
    let sidecars = spec.init_containers.iter().flatten();
    let sidecars = sidecars.filter(|init| init.restart_policy.as_deref() == Some("Always"));
    let ports = spec.containers.iter().chain(sidecars).flat_map(|c| c.ports.iter().flatten());
    let taken = ports.filter_map(|port| {
        Some(HostPort {
            address: port
                .host_ip
                .clone()
                .filter(|ip| !matches!(ip.as_str(), "" | "0.0.0.0" | "::")),
            protocol: port.protocol.clone().unwrap_or_else(|| "TCP".to_owned()),
            port: port.host_port.filter(|port| *port > 0)?,
        })
    });
    taken.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_conflict_on_the_same_address() {
        let port = |address: Option<&str>, protocol: &str, port| HostPort {
            address: address.map(str::to_owned),
            protocol: protocol.to_owned(),
            port,
        };
        let all = port(None, "TCP", 80);
        assert!(all.conflicts(&port(Some("10.0.0.1"), "TCP", 80)));
        assert!(!all.conflicts(&port(None, "UDP", 80)));
        assert!(!all.conflicts(&port(None, "TCP", 81)));
        assert!(!port(Some("10.0.0.1"), "TCP", 80).conflicts(&port(Some("10.0.0.2"), "TCP", 80)));
    }
}
