//! Prints where the applied Services answer.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use anyhow::Result;
use k8s_openapi::api::core::v1::Service;
use kube::{Api, Client};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

use super::apply::Applied;

/// How long a connection to a virtual address may take: it is on this machine.
const CONNECT_DEADLINE: Duration = Duration::from_secs(1);

/// How long a Service may stay without anybody behind it, until its address is printed all the same.
const SERVED_DEADLINE: Duration = Duration::from_secs(2);
/// A connection to nobody is closed at once.
const CLOSED_WITHIN: Duration = Duration::from_millis(50);
/// Nobody can watch what the proxy has heard.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

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
                until_served(address).await;
                println!("{} answers on http://{}", object.label, shown(address));
            }
            if let Some(node_port) = port.node_port.and_then(|port| u16::try_from(port).ok()) {
                let address = SocketAddr::from((Ipv4Addr::LOCALHOST, node_port));
                until_served(address).await;
                println!("{} answers on http://{address}", object.label);
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

/// The pods are ready, and the proxy hears of it: until then it takes connections only to close them.
async fn until_served(address: SocketAddr) {
    let deadline = tokio::time::Instant::now() + SERVED_DEADLINE;
    while tokio::time::Instant::now() < deadline {
        let closed = async {
            let mut stream = TcpStream::connect(address).await.ok()?;
            let mut byte = [0];
            // A server waits for a request; whatever ends the connection before is nobody.
            stream.read(&mut byte).await.ok().filter(|read| *read > 0)
        };
        if !matches!(tokio::time::timeout(CLOSED_WITHIN, closed).await, Ok(None)) {
            return;
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

/// A URL needs no `:80`.
fn shown(address: SocketAddr) -> String {
    match (address, address.port()) {
        (SocketAddr::V4(address), 80) => address.ip().to_string(),
        (address, _) => address.to_string(),
    }
}
