//! Prints where the applied Services answer.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::Result;
use k8s_openapi::api::core::v1::Service;
use kube::{Api, Client};
use tokio::net::TcpStream;

use super::apply::Applied;

/// How long a connection to a virtual address may take: it is on this machine.
const CONNECT_DEADLINE: Duration = Duration::from_secs(1);

/// Prints one line for each TCP port of each Service.
pub async fn print(client: &Client, applied: &[Applied]) -> Result<()> {
    for object in applied.iter().filter(|object| object.kind == "Service") {
        let services: Api<Service> = Api::namespaced(client.clone(), &object.namespace);
        let service = services.get(&object.name).await?;
        let Some(spec) = service.spec else { continue };
        let virtual_ip = spec.cluster_ip.as_deref().and_then(|ip| ip.parse::<IpAddr>().ok());
        for port in spec.ports.into_iter().flatten() {
            let Ok(number) = u16::try_from(port.port) else { continue };
            if let Some(ip) = virtual_ip
                && let Some(address) = reachable(SocketAddr::new(ip, number)).await
            {
                println!("{} answers on http://{}", object.label, shown(address));
            }
            if let Some(node_port) = port.node_port {
                println!("{} answers on http://127.0.0.1:{node_port}", object.label);
            }
        }
    }
    Ok(())
}

/// The address itself, or the one beside it that the proxy takes without the privilege for low ports.
async fn reachable(address: SocketAddr) -> Option<SocketAddr> {
    for candidate in [Some(address), coracle_network::unprivileged(address)].into_iter().flatten() {
        let connect = TcpStream::connect(candidate);
        if let Ok(Ok(_)) = tokio::time::timeout(CONNECT_DEADLINE, connect).await {
            return Some(candidate);
        }
    }
    None
}

/// A URL needs no `:80`.
fn shown(address: SocketAddr) -> String {
    match (address, address.port()) {
        (SocketAddr::V4(address), 80) => address.ip().to_string(),
        (address, _) => address.to_string(),
    }
}
