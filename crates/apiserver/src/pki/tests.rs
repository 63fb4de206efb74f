use std::io::{Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;

use rustls::pki_types::ServerName;
use time::{Duration, OffsetDateTime};

use super::*;

fn open(dir: &Path) -> Pki {
    Pki::open_or_create(dir, &Sans::default()).unwrap()
}

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o777
}

/// Shakes hands in memory; gives what the server then knows of its client, or what either side refused.
fn handshake(
    client: Arc<rustls::ClientConfig>,
    server: Arc<rustls::ServerConfig>,
    name: &str,
) -> Result<usize, rustls::Error> {
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let mut client = rustls::ClientConnection::new(client, name).unwrap();
    let mut server = rustls::ServerConnection::new(server).unwrap();
    while client.is_handshaking() || server.is_handshaking() {
        let mut bytes = Vec::new();
        client.write_tls(&mut bytes).unwrap();
        server.read_tls(&mut bytes.as_slice()).unwrap();
        server.process_new_packets()?;
        let mut bytes = Vec::new();
        server.write_tls(&mut bytes).unwrap();
        client.read_tls(&mut bytes.as_slice()).unwrap();
        client.process_new_packets()?;
    }
    client.writer().write_all(b"hello").unwrap();
    let mut bytes = Vec::new();
    client.write_tls(&mut bytes).unwrap();
    server.read_tls(&mut bytes.as_slice()).unwrap();
    server.process_new_packets()?;
    let mut read = [0; 5];
    server.reader().read_exact(&mut read).unwrap();
    Ok(server.peer_certificates().map_or(0, <[_]>::len))
}

#[test]
fn secrets_are_for_their_owner_only_and_stay_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path().join("pki");
    let first = open(&dir);
    assert_eq!(mode(&dir), 0o700);
    let mut files: Vec<String> = std::fs::read_dir(&dir)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    files.sort();
    let (proxy_ca, proxy_key) = ("front-proxy-ca.crt", "front-proxy-ca.key");
    let ours =
        ["apiserver.crt", "apiserver.key", "ca.crt", "ca.key", proxy_ca, proxy_key, "sa.key"];
    assert_eq!(files, ours);
    for file in &files {
        assert_eq!(mode(&dir.join(file)), 0o600, "{file}");
    }
    let second = open(&dir);
    assert_eq!(first.ca_pem(), second.ca_pem());
    assert_eq!(first.serving.certificate, second.serving.certificate);
    assert_eq!(first.token_key().serialize_pem(), second.token_key().serialize_pem());
}

#[test]
fn loose_permissions_are_tightened() {
    let dir = tempfile::tempdir().unwrap();
    open(dir.path());
    std::fs::set_permissions(dir.path().join("ca.key"), std::fs::Permissions::from_mode(0o644))
        .unwrap();
    std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    open(dir.path());
    assert_eq!(mode(&dir.path().join("ca.key")), 0o600);
    assert_eq!(mode(dir.path()), 0o700);
}

#[test]
fn the_serving_certificate_is_renewed_for_new_names_and_before_it_expires() {
    let dir = tempfile::tempdir().unwrap();
    let first = open(dir.path());
    let sans = Sans {
        names: vec!["box.example".to_owned()],
        addresses: vec!["10.0.0.7".parse().unwrap()],
    };
    let second = Pki::open_or_create(dir.path(), &sans).unwrap();
    assert_ne!(first.serving.certificate, second.serving.certificate);
    let server = second.server_config("").unwrap();
    let client = second.anonymous_client_config().unwrap();
    for name in [
        "box.example",
        "10.0.0.7",
        "127.0.0.1",
        "localhost",
        "kubernetes.default.svc.cluster.local",
    ] {
        assert_eq!(handshake(client.clone(), server.clone(), name), Ok(0), "{name}");
    }
    handshake(client, first.server_config("").unwrap(), "box.example").unwrap_err();

    let soon = OffsetDateTime::now_utc() + Duration::days(RENEW_DAYS - 1);
    let expiring = issue::leaf(
        &second.issuer,
        &issue::Leaf::server("kube-apiserver", &[], all_sans(&sans)).until(soon),
    )
    .unwrap();
    files::write(&dir.path().join("apiserver.key"), &expiring.key).unwrap();
    files::write(&dir.path().join("apiserver.crt"), &expiring.certificate).unwrap();
    let third = Pki::open_or_create(dir.path(), &sans).unwrap();
    assert_ne!(third.serving.certificate, expiring.certificate);
}

#[test]
fn a_serving_certificate_without_its_key_or_by_another_authority_is_made_again() {
    let dir = tempfile::tempdir().unwrap();
    let first = open(dir.path());
    std::fs::remove_file(dir.path().join("apiserver.key")).unwrap();
    let second = open(dir.path());
    assert_ne!(first.serving.certificate, second.serving.certificate);
    let other = tempfile::tempdir().unwrap();
    open(other.path());
    for file in ["apiserver.crt", "apiserver.key"] {
        std::fs::copy(other.path().join(file), dir.path().join(file)).unwrap();
    }
    let third = open(dir.path());
    assert_eq!(
        handshake(
            third.anonymous_client_config().unwrap(),
            third.server_config("").unwrap(),
            "localhost"
        ),
        Ok(0)
    );
}

#[test]
fn a_damaged_authority_is_an_error_and_never_replaced() {
    let dir = tempfile::tempdir().unwrap();
    open(dir.path());
    let key = std::fs::read(dir.path().join("ca.key")).unwrap();
    std::fs::remove_file(dir.path().join("ca.key")).unwrap();
    assert!(matches!(
        Pki::open_or_create(dir.path(), &Sans::default()),
        Err(PkiError::Damaged { .. })
    ));
    std::fs::write(dir.path().join("ca.key"), "garbage").unwrap();
    assert!(matches!(
        Pki::open_or_create(dir.path(), &Sans::default()),
        Err(PkiError::Damaged { .. })
    ));
    std::fs::write(dir.path().join("ca.key"), KeyPair::generate().unwrap().serialize_pem())
        .unwrap();
    assert!(matches!(
        Pki::open_or_create(dir.path(), &Sans::default()),
        Err(PkiError::Damaged { .. })
    ));
    std::fs::write(dir.path().join("ca.key"), key).unwrap();
    open(dir.path());
    std::fs::write(dir.path().join("ca.crt"), "garbage").unwrap();
    assert!(matches!(
        Pki::open_or_create(dir.path(), &Sans::default()),
        Err(PkiError::Damaged { .. })
    ));
}

#[test]
fn kubelet_and_api_server_verify_each_other() {
    let dir = tempfile::tempdir().unwrap();
    let pki = open(dir.path());
    let address: IpAddr = "127.0.0.1".parse().unwrap();
    let kubelet = pki.kubelet_server_config("n0", &[address]).unwrap();
    assert_eq!(
        handshake(pki.kubelet_client_config().unwrap(), kubelet.clone(), "127.0.0.1"),
        Ok(1)
    );
    assert_eq!(handshake(pki.kubelet_client_config().unwrap(), kubelet.clone(), "n0"), Ok(1));
    // No certificate, and a stranger's.
    handshake(pki.anonymous_client_config().unwrap(), kubelet.clone(), "127.0.0.1").unwrap_err();
    let other_dir = tempfile::tempdir().unwrap();
    let other = open(other_dir.path());
    let stranger = other.client_certificate("mallory", &["system:masters"]).unwrap();
    handshake(pki.client_config(&stranger).unwrap(), kubelet, "127.0.0.1").unwrap_err();
    // A kubelet of another cluster.
    let foreign = other.kubelet_server_config("n0", &[address]).unwrap();
    handshake(pki.kubelet_client_config().unwrap(), foreign, "127.0.0.1").unwrap_err();
}

#[test]
fn a_client_certificate_does_not_serve() {
    let dir = tempfile::tempdir().unwrap();
    let pki = open(dir.path());
    let client = pki.client_certificate("localhost", &[]).unwrap();
    let server = tls::server(&client, tls::asking_verifier(pki.ca_pem()).unwrap()).unwrap();
    handshake(pki.anonymous_client_config().unwrap(), server, "localhost").unwrap_err();
}

#[test]
fn a_kubeconfig_holds_everything_kubectl_needs() {
    let dir = tempfile::tempdir().unwrap();
    let pki = open(dir.path());
    let text = pki.kubeconfig("https://127.0.0.1:6443", &User::admin()).unwrap();
    let config: serde_json::Value = serde_yaml::from_str(&text).unwrap();
    assert_eq!(config["kind"], "Config");
    assert_eq!(config["clusters"][0]["cluster"]["server"], "https://127.0.0.1:6443");
    let decode = |value: &serde_json::Value| {
        String::from_utf8(STANDARD.decode(value.as_str().unwrap()).unwrap()).unwrap()
    };
    assert_eq!(
        decode(&config["clusters"][0]["cluster"]["certificate-authority-data"]),
        pki.ca_pem()
    );
    let user = &config["users"][0]["user"];
    let own = CertifiedPem {
        certificate: decode(&user["client-certificate-data"]),
        key: decode(&user["client-key-data"]),
    };
    assert_eq!(
        handshake(pki.client_config(&own).unwrap(), pki.server_config("").unwrap(), "localhost"),
        Ok(1)
    );
}

#[test]
fn more_groups_than_a_certificate_carries_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let pki = open(dir.path());
    pki.client_certificate("alice", &["a", "b"]).unwrap();
    assert!(matches!(
        pki.client_certificate("alice", &["a", "b", "c"]),
        Err(PkiError::TooManyGroups { groups: 3, .. })
    ));
}
