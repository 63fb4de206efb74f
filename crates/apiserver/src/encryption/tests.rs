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
    // The old key is not needed any more.
    let (rewritten, _) = once(directory.path(), encryption(&[("two", OTHER)])).await;
    assert_eq!(rewritten, 0);
}

#[tokio::test]
async fn what_was_not_encrypted_is_after_a_start() {
    let directory = tempfile::tempdir().unwrap();
    let (_, bytes) = once(directory.path(), encryption(&[("-", "")])).await;
    assert!(holds(&bytes, "sesame"));
    let (rewritten, _) = once(directory.path(), encryption(&[("one", KEY), ("-", "")])).await;
    assert_eq!(rewritten, 1);
    let (rewritten, _) = once(directory.path(), encryption(&[("one", KEY)])).await;
    assert_eq!(rewritten, 0);
}
