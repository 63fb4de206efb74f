use super::*;

fn endpoint(last: u8) -> SocketAddr {
    SocketAddr::from(([127, 0, 1, last], 8080))
}

fn client(last: u8) -> IpAddr {
    IpAddr::from([127, 0, 0, last])
}

fn port(count: u8, affinity: Option<Duration>, previous: Option<&ServicePort>) -> ServicePort {
    ServicePort::new(
        "default/web:http".to_owned(),
        (1..=count).map(endpoint).collect(),
        affinity,
        previous,
    )
}

#[test]
fn connections_take_turns() {
    let port = port(3, None, None);
    let now = Instant::now();
    let picked: Vec<_> = (0..6).map(|_| port.pick(client(1), now).unwrap()).collect();
    assert_eq!(picked, [1, 2, 3, 1, 2, 3].map(endpoint));
}

#[test]
fn a_new_snapshot_goes_on_with_the_turn() {
    let old = port(3, None, None);
    let now = Instant::now();
    old.pick(client(1), now);
    let new = port(3, None, Some(&old));
    assert_eq!(new.pick(client(1), now), Some(endpoint(2)));
}

#[test]
fn a_client_with_affinity_stays_until_its_time_is_over_or_its_endpoint_gone() {
    let stay = Duration::from_secs(60);
    let old = port(3, Some(stay), None);
    let start = Instant::now();
    let first = old.pick(client(1), start).unwrap();
    assert_ne!(old.pick(client(2), start), Some(first));
    assert_eq!(old.pick(client(1), start + Duration::from_secs(59)), Some(first));
    assert_eq!(
        old.pick(client(1), start + Duration::from_secs(118)),
        Some(first),
        "each connection renews the stay"
    );
    assert_ne!(old.pick(client(1), start + Duration::from_secs(178)), Some(first));
    let second = old.pick(client(2), start).unwrap();
    let new = ServicePort::new(String::new(), vec![endpoint(9)], Some(stay), Some(&old));
    assert_ne!(second, endpoint(9));
    assert_eq!(new.pick(client(2), start), Some(endpoint(9)));
}

#[test]
fn clients_beyond_the_bound_forget_the_oldest() {
    let port = port(2, Some(Duration::from_secs(60)), None);
    let start = Instant::now();
    for number in 0..u32::try_from(AFFINITY_CLIENTS).unwrap() + 10 {
        port.pick(IpAddr::from(number.to_be_bytes()), start + Duration::from_nanos(number.into()));
    }
    assert_eq!(port.choices.lock().len(), AFFINITY_CLIENTS);
}

fn table() -> ServiceTable {
    let mut services = Services::default();
    let key = |namespace: &str, name: &str| (namespace.to_owned(), name.to_owned());
    services.by_name.insert(key("default", "web"), ServiceName::Virtual(vec![client(10)]));
    services.by_name.insert(key("other", "db"), ServiceName::Headless(vec![]));
    services.by_name.insert(key("default", "out"), ServiceName::External("example.com".to_owned()));
    services.by_address.insert(SocketAddr::new(client(10), 80), Arc::new(port(1, None, None)));
    services.by_address.insert(SocketAddr::new(client(11), 80), Arc::new(port(0, None, None)));
    let table = ServiceTable::default();
    table.replace(services);
    table
}

#[test]
fn names_resolve_as_a_pods_search_list_does() {
    let table = table();
    let web = Resolution::Addresses(vec![client(10)]);
    for host in [
        "web",
        "WEB",
        "web.default",
        "web.default.svc",
        "web.default.svc.cluster.local",
        "web.default.svc.cluster.local.",
    ] {
        assert_eq!(table.resolve(host, "default"), web, "{host}");
    }
    assert_eq!(table.resolve("web", "other"), Resolution::NotInCluster);
    assert_eq!(table.resolve("db", "other"), Resolution::Addresses(vec![]));
    assert_eq!(table.resolve("out", "default"), Resolution::Alias("example.com".to_owned()));
    assert_eq!(table.resolve("nobody.default.svc", "default"), Resolution::Unknown);
    assert_eq!(table.resolve("example.com", "default"), Resolution::NotInCluster);
    assert_eq!(table.resolve("a.b.c.d", "default"), Resolution::NotInCluster);
}

#[test]
fn addresses_lead_to_endpoints() {
    let table = table();
    let to = |last, port| table.destination(SocketAddr::new(client(last), port), client(1));
    assert_eq!(to(10, 80), Destination::Endpoint(endpoint(1)));
    assert_eq!(to(11, 80), Destination::NoEndpoints);
    assert_eq!(to(10, 81), Destination::NotAService);
}
