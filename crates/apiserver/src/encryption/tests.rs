use std::sync::Arc;

use coracle_store::{Cipher as _, Key};

use super::*;
use crate::store_options;

const KEY: &str = "k6Hg3rT1vO8mT2nB7xQ5zA9cD4eF6gH8iJ0kL2mN4oM=";
const OTHER: &str = "b0Hg3rT1vO8mT2nB7xQ5zA9cD4eF6gH8iJ0kL2mN4oM=";

/// Keys that write and read in this order; `-` is none.
fn encryption(providers: &[(&str, &str)]) -> Encryption {
    let providers: String = providers
        .iter()
        .map(|(name, key)| match *name {
            "-" => "  - identity: {}\n".to_owned(),
            name => {
                format!("  - aesgcm: {{ keys: [{{ name: {name}, secret: \"{key}\" }}] }}\n")
            }
        })
        .collect();
    Encryption::from_yaml(&format!(
        "apiVersion: apiserver.config.k8s.io/v1\nkind: EncryptionConfiguration\nresources:\n- resources: [secrets]\n  providers:\n{providers}"
    ))
    .unwrap()
}

fn key(resource: &str, name: &str) -> Key {
    Key::new(resource, "shop", name)
}

#[test]
fn what_is_sealed_opens_at_its_place_only() {
    let cipher = encryption(&[("one", KEY), ("-", "")]);
    let sealed = cipher.seal(&key("secrets", "a"), b"{plain}").unwrap().unwrap();
    assert!(sealed.starts_with(b"k8s:enc:aesgcm:v1:one:"));
    assert!(!sealed.windows(5).any(|window| window == b"plain"));
    assert_eq!(cipher.open(&key("secrets", "a"), &sealed).unwrap().unwrap(), b"{plain}");
    cipher.open(&key("secrets", "b"), &sealed).unwrap_err();
    let mut damaged = sealed.clone();
    *damaged.last_mut().unwrap() ^= 1;
    cipher.open(&key("secrets", "a"), &damaged).unwrap_err();
    cipher.open(&key("secrets", "a"), &sealed[..24]).unwrap_err();
    // Another key of that name, and none at all.
    encryption(&[("one", OTHER)]).open(&key("secrets", "a"), &sealed).unwrap_err();
    encryption(&[("two", OTHER), ("-", "")]).open(&key("secrets", "a"), &sealed).unwrap_err();
    // What is not listed stays as it is; what is not encrypted is read if somebody says so.
    assert_eq!(cipher.seal(&key("configmaps", "a"), b"{}").unwrap(), None);
    assert_eq!(cipher.open(&key("secrets", "a"), b"{}").unwrap(), None);
    encryption(&[("one", KEY)]).open(&key("secrets", "a"), b"{}").unwrap_err();
}

#[test]
fn every_cipher_opens_what_it_sealed() {
    let of = |cipher: &str| {
        let text = format!(
            "apiVersion: apiserver.config.k8s.io/v1\nkind: EncryptionConfiguration\nresources:\n- resources: [secrets]\n  providers:\n  - {cipher}: {{ keys: [{{ name: one, secret: \"{KEY}\" }}] }}\n"
        );
        Encryption::from_yaml(&text).unwrap()
    };
    let at = key("secrets", "a");
    for name in ["aesgcm", "aescbc", "secretbox"] {
        let cipher = of(name);
        let plain = b"{\"kind\":\"Secret\"}";
        let sealed = cipher.seal(&at, plain).unwrap().unwrap();
        let prefix = format!("k8s:enc:{name}:v1:one:");
        assert!(sealed.starts_with(prefix.as_bytes()));
        assert!(!holds(&sealed, "Secret"));
        assert_ne!(sealed, cipher.seal(&at, plain).unwrap().unwrap(), "a fresh nonce each time");
        assert_eq!(cipher.open(&at, &sealed).unwrap().unwrap(), plain);
        cipher.open(&at, &sealed[..prefix.len() + 20]).unwrap_err();
        for other in ["aesgcm", "aescbc", "secretbox"].into_iter().filter(|other| *other != name) {
            of(other).open(&at, &sealed).unwrap_err();
        }
    }
}

/// Made by `openssl enc -aes-256-cbc` with the key's bytes and an IV of sixteen bytes `i`.
#[test]
fn what_others_wrote_is_read() {
    let text = format!(
        "apiVersion: apiserver.config.k8s.io/v1\nkind: EncryptionConfiguration\nresources:\n- resources: [secrets]\n  providers:\n  - aescbc: {{ keys: [{{ name: one, secret: \"{KEY}\" }}] }}\n"
    );
    let cipher = Encryption::from_yaml(&text).unwrap();
    let sealed = [&b"k8s:enc:aescbc:v1:one:"[..], &[b'i'; 16], &STANDARD.decode(OPENSSL).unwrap()];
    let opened = cipher.open(&key("secrets", "a"), &sealed.concat()).unwrap().unwrap();
    assert_eq!(opened, b"{\"word\":\"open-sesame\"}");
}

const OPENSSL: &str = "IGz5doTmLi3Ke9BLraZy2O6tCHokKrI+HmdCQQV0huE=";

#[test]
fn a_wrong_file_is_refused_and_no_key_is_quoted() {
    let check = |text: &str, part: &str| {
        let error = Encryption::from_yaml(text).unwrap_err().to_string();
        assert!(error.contains(part) && !error.contains("c2VjcmV0"), "{error}");
    };
    let file = |providers: &str| {
        format!(
            "apiVersion: apiserver.config.k8s.io/v1\nkind: EncryptionConfiguration\nresources: [{{ resources: [secrets], providers: [{providers}] }}]"
        )
    };
    check("kind: Pod", "cannot read");
    check(&file(""), "resources[0].providers: must not be empty");
    check(&file("{ rot13: {} }"), "rot13 is not supported here");
    check(&file("{ aesgcm: { keys: [] } }"), "keys: must not be empty");
    check(&file("{ aesgcm: { keys: [{ name: a, secret: c2VjcmV0 }] } }"), "16 or 32 bytes");
    check(&file("{ aesgcm: { keys: [{ name: a, secret: c2VjcmV0! }] } }"), "base64");
    check(&file("{ aescbc: { keys: [{ name: a, secret: c2VjcmV0 }] } }"), "16, 24 or 32 bytes");
    check(&file("{ secretbox: { keys: [{ name: a, secret: c2VjcmV0 }] } }"), "of 32 bytes");
    Encryption::from_yaml(&Encryption::generate().unwrap()).unwrap();
}

/// Writes a Secret (unless it is there), and answers what the files hold.
async fn once(directory: &std::path::Path, cipher: Encryption) -> (usize, Vec<u8>) {
    let cipher = Arc::new(cipher);
    let options = store_options(directory.join("state.db")).sealed_with(cipher.clone());
    let store = Store::open(options).await.unwrap();
    let rewritten = cipher.rewrite_stale(&store).await.unwrap();
    let kind = coracle_api::kinds::by_kind("", "v1", "Secret").unwrap();
    let object = serde_json::json!({
        "apiVersion": "v1", "kind": "Secret",
        "metadata": { "name": "s", "namespace": "shop" }, "data": { "word": "open-sesame" },
    });
    let at = storage::key(kind, "shop", "s");
    match store.get(&at) {
        Some(stored) => assert_eq!(storage::decode(&stored).unwrap()["data"], object["data"]),
        None => drop(store.create(at, storage::encode(kind, &object)).await.unwrap()),
    }
    store.close().await;
    let files = std::fs::read_dir(directory).unwrap();
    let all = files.map(|file| std::fs::read(file.unwrap().path()).unwrap()).collect::<Vec<_>>();
    (rewritten, all.concat())
}

fn holds(bytes: &[u8], text: &str) -> bool {
    bytes.windows(text.len()).any(|window| window == text.as_bytes())
}

#[tokio::test]
async fn the_disk_never_sees_the_secret_and_keys_are_changed_by_starting() {
    let directory = tempfile::tempdir().unwrap();
    let (rewritten, bytes) = once(directory.path(), encryption(&[("one", KEY), ("-", "")])).await;
    assert_eq!(rewritten, 0);
    assert!(holds(&bytes, "k8s:enc:aesgcm:v1:one:") && !holds(&bytes, "sesame"));
    let (rewritten, bytes) =
        once(directory.path(), encryption(&[("two", OTHER), ("one", KEY)])).await;
    assert_eq!(rewritten, 1);
    assert!(holds(&bytes, "k8s:enc:aesgcm:v1:two:") && !holds(&bytes, "sesame"));
    assert!(!holds(&bytes, "k8s:enc:aesgcm:v1:one:"), "what the old key wrote is gone");
    // The old key is not needed any more.
    let (rewritten, _) = once(directory.path(), encryption(&[("two", OTHER)])).await;
    assert_eq!(rewritten, 0);
}

#[tokio::test]
async fn what_was_not_encrypted_is_after_a_start() {
    let directory = tempfile::tempdir().unwrap();
    let (_, bytes) = once(directory.path(), encryption(&[("-", "")])).await;
    assert!(holds(&bytes, "sesame"));
    let (rewritten, bytes) = once(directory.path(), encryption(&[("one", KEY), ("-", "")])).await;
    assert_eq!(rewritten, 1);
    assert!(!holds(&bytes, "sesame"), "no free page has it either");
    let (rewritten, _) = once(directory.path(), encryption(&[("one", KEY)])).await;
    assert_eq!(rewritten, 0);
}
