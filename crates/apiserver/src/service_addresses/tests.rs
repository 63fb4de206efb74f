use super::*;

/// Gives addresses of this range; the directory goes with the test.
async fn addresses(range: &str) -> (Arc<ServiceAddresses>, tempfile::TempDir) {
    let directory = tempfile::tempdir().unwrap();
    let options = crate::store_options(directory.path().join("state.db"));
    let store = Store::open(options).await.unwrap();
    (Arc::new(ServiceAddresses::load(range.parse().unwrap(), &store).unwrap()), directory)
}

fn service_kind() -> &'static Kind {
    coracle_api::kinds::by_kind("", "v1", "Service").unwrap()
}

#[tokio::test]
async fn every_service_gets_its_own_until_none_is_left() {
    let (addresses, _directory) = addresses("10.0.0.0/28").await;
    let mut seen = HashSet::new();
    for _ in 0..14 {
        let mut service = json!({ "metadata": { "name": "a" }, "spec": { "type": "ClusterIP" } });
        addresses.allocate(service_kind(), &mut service, None).unwrap().keep();
        assert!(seen.insert(service["spec"]["clusterIP"].as_str().unwrap().to_owned()));
    }
    let mut service = json!({ "metadata": { "name": "a" }, "spec": { "type": "ClusterIP" } });
    assert_eq!(addresses.allocate(service_kind(), &mut service, None).err().unwrap().code, 500);
    let gone = json!({ "spec": { "clusterIP": seen.iter().next().unwrap() } });
    addresses.leave(service_kind(), &gone).done().await;
    addresses.allocate(service_kind(), &mut service, None).unwrap().keep();
    assert_eq!(service["spec"]["clusterIP"], gone["spec"]["clusterIP"]);
}

#[tokio::test]
async fn what_is_not_stored_is_given_back() {
    let (addresses, _directory) = addresses("10.0.0.0/24").await;
    let wish = || {
        json!({ "metadata": { "name": "a" }, "spec": {
            "type": "NodePort", "clusterIP": "10.0.0.7", "ports": [{ "port": 80, "nodePort": 30007 }, { "port": 81 }],
        } })
    };
    drop(addresses.allocate(service_kind(), &mut wish(), None).unwrap());
    let mut stored = wish();
    addresses.allocate(service_kind(), &mut stored, None).unwrap().keep();
    assert!(NODE_PORTS.contains(
        &u16::try_from(stored["spec"]["ports"][1]["nodePort"].as_u64().unwrap()).unwrap()
    ));
    let refused = addresses.allocate(service_kind(), &mut wish(), None).err().unwrap();
    assert_eq!(refused.code, 422);
    assert!(
        refused
            .message
            .contains("failed to allocate IP 10.0.0.7: provided IP is already allocated"),
        "{refused}"
    );
    assert!(refused.message.contains("provided port is already allocated"), "{refused}");
    // The Service itself may keep what it has.
    let mut same = stored.clone();
    addresses.allocate(service_kind(), &mut same, Some(&stored)).unwrap().keep();
    assert_eq!(same, stored);
}

#[tokio::test]
async fn wishes_outside_the_ranges_are_refused() {
    let (addresses, _directory) = addresses("10.0.0.0/24").await;
    let mut wish = json!({ "metadata": { "name": "a" }, "spec": {
        "type": "NodePort", "clusterIP": "10.0.1.7", "ports": [{ "port": 80, "nodePort": 80 }],
    } });
    let refused = addresses.allocate(service_kind(), &mut wish, None).err().unwrap();
    assert!(
        refused.message.contains(
            "failed to allocate IP 10.0.1.7: the provided network does not match the current range"
        ),
        "{refused}"
    );
    assert!(refused.message.contains("The range of valid ports is 30000-32767"), "{refused}");
}

#[tokio::test]
async fn the_next_range_gives_when_the_first_is_full() {
    let (addresses, _directory) = addresses("10.0.0.0/30").await;
    addresses.set_ranges(vec!["10.0.0.0/30".parse().unwrap(), "10.1.0.0/30".parse().unwrap()]);
    let mut given = HashSet::new();
    for _ in 0..4 {
        let mut service = json!({ "metadata": { "name": "a" }, "spec": { "type": "ClusterIP" } });
        addresses.allocate(service_kind(), &mut service, None).unwrap().keep();
        given.insert(service["spec"]["clusterIP"].as_str().unwrap().to_owned());
    }
    let wanted = ["10.0.0.1", "10.0.0.2", "10.1.0.1", "10.1.0.2"];
    assert_eq!(given, wanted.map(str::to_owned).into());
    // What the first range has no room for is told to need the second.
    let second: Cidr = "10.1.0.0/30".parse().unwrap();
    assert!(addresses.needs(&[second], &["10.0.0.0/30".parse().unwrap()]));
    assert!(!addresses.needs(&[second], &["10.1.0.0/16".parse().unwrap()]));
    assert!(!addresses.needs(&["10.2.0.0/30".parse().unwrap()], &[]));
}

#[tokio::test]
async fn an_address_that_somebody_made_an_object_for_is_not_given() {
    let (addresses, _directory) = addresses("10.0.0.0/30").await;
    let mine = [Ipv4Addr::new(10, 0, 0, 1)];
    objects::write(&addresses.store, &mine, &("a".to_owned(), "b".to_owned())).await;
    let mut service = json!({ "metadata": { "name": "a" }, "spec": { "type": "ClusterIP" } });
    addresses.allocate(service_kind(), &mut service, None).unwrap().keep();
    assert_eq!(service["spec"]["clusterIP"], "10.0.0.2");
    // No Service has the other: the next start takes its object away.
    objects::repair(&addresses.store).await;
    assert!(!objects::exists(&addresses.store, mine[0]));
}
