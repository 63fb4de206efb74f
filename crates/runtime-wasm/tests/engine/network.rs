//! Guests reach the cluster by its names and addresses, and not the host's own.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use coracle_api::services::{ServiceName, ServicePort, Services};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;

use crate::support::{Pod, engine, stop};

/// Virtual addresses of Services: nobody listens there.
const VIRTUAL: &str = "127.99.0.10";

fn publish(endpoint: SocketAddr) {
    let virtual_ip: IpAddr = VIRTUAL.parse().unwrap();
    let mut services = Services::default();
    let name = ("tests".to_owned(), "web".to_owned());
    services.by_name.insert(name, ServiceName::Virtual(vec![virtual_ip]));
    for (port, endpoints) in [(80, vec![endpoint]), (81, vec![])] {
        let port_entry = ServicePort::new("tests/web".to_owned(), endpoints, None, None);
        services.by_address.insert(SocketAddr::new(virtual_ip, port), Arc::new(port_entry));
    }
    engine().services.replace(services);
}

#[tokio::test]
async fn services_are_reached_by_name_and_by_address() {
    let (server, client) = (Pod::new().await, Pod::new().await);
    let (serving, calling) = (server.spec("web", &[]), client.spec("web", &[]));
    server.start(&serving).await.unwrap();
    client.start(&calling).await.unwrap();
    publish(server.at(8080));
    for host in ["web", "web.tests", "web.tests.svc", "web.tests.svc.cluster.local:80", VIRTUAL] {
        let answer = client.get(&format!("/fetch?{host}/large?3")).await;
        assert_eq!(answer, (200, "200 yyy".to_owned()), "{host}");
    }
    let refused = client.get("/fetch?web:81/").await.1;
    assert!(refused.contains("ConnectionRefused"), "{refused}");
    let unknown = client.get("/fetch?nobody.tests.svc/").await.1;
    assert!(unknown.contains("DnsError"), "{unknown}");

    let script = ["resolve", "web", "resolve", "nobody.tests.svc", "resolve", "localhost"];
    let ended = client.probe(&script).await;
    let own = format!("resolve {}", client.address);
    assert_eq!(ended.lines[0], format!("resolve {VIRTUAL}"));
    assert!(ended.lines[1].contains("name-unresolvable"), "{}", ended.lines[1]);
    assert_eq!(ended.lines[2], own);
    stop(&serving, Duration::ZERO).await;
    stop(&calling, Duration::ZERO).await;
}

#[tokio::test]
async fn a_guest_listens_on_its_pods_address_and_others_connect() {
    let (server, client) = (Pod::new().await, Pod::new().await);
    let listening = server.spec("probe", &["listen", "0.0.0.0:9000"]);
    server.start(&listening).await.unwrap();
    let target = server.at(9000).to_string();
    let began = Instant::now();
    let answer = loop {
        // Until it listens.
        let answer = client.probe(&["connect", &target]).await.lines.concat();
        if !answer.contains("connection-refused") || began.elapsed() > Duration::from_secs(30) {
            break answer;
        }
    };
    assert_eq!(answer, "connect hello from a guest");
    let ended = crate::support::end(&listening).await;
    assert!(ended.lines[0].contains("port: 9000"), "{:?}", ended.lines);
    assert_eq!(ended.lines[1], "listen Ok(())");
}

#[tokio::test]
async fn the_hosts_loopback_is_out_of_reach() {
    let host = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let other = TcpListener::bind("127.0.0.2:0").await.unwrap();
    let (port, other_port) =
        (host.local_addr().unwrap().port(), other.local_addr().unwrap().port());
    let served = tokio::spawn(async move {
        loop {
            let (mut stream, _) = tokio::select! {
                stream = host.accept() => stream.unwrap(),
                stream = other.accept() => stream.unwrap(),
            };
            stream.write_all(b"the host's secret").await.unwrap();
        }
    });
    let targets = [format!("127.0.0.1:{port}"), format!("127.0.0.2:{other_port}")];
    let ended = Pod::new().await.probe(&["connect", &targets[0], "connect", &targets[1]]).await;
    assert!(
        ended.lines.iter().all(|line| line.contains("connection-refused")),
        "{:?}",
        ended.lines
    );
    let ended = Pod::new().await.probe(&["listen", "127.0.0.2:9001"]).await;
    assert!(ended.lines.concat().contains("address-not-bindable"), "{:?}", ended.lines);
    served.abort();
}
