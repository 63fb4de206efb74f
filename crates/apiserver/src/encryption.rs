//! Objects encrypted at rest: upstream's `EncryptionConfiguration` file, and what is done by it.
//!
//! The first provider of a resource writes, all read. With `aesgcm` an object is bound to its place: what was moved to another
//! name cannot be decrypted there; the other ciphers of upstream's format (`ciphers.rs`) know no places. Objects that another than the first key wrote are written anew at start, so that a key
//! can be taken out of the file after one start with a newer one before it. In memory everything is readable.
//! Format on disk and in the file: <https://kubernetes.io/docs/tasks/administer-cluster/encrypt-data/>.

mod ciphers;
mod config;

use std::collections::BTreeSet;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use coracle_store::{Cipher, CipherError, Key, Store, WriteError};
use parking_lot::Mutex;
use ring::rand::{SecureRandom as _, SystemRandom};

use crate::storage;
use ciphers::Secret;

pub use config::EncryptionError;

/// What everything encrypted begins with, and no object does.
const MARK: &[u8] = b"k8s:enc:";
const KEY_BYTES: usize = 32;

/// Who encrypts what. Its keys are secrets: they are never shown.
pub struct Encryption {
    rules: Vec<Rule>,
    random: SystemRandom,
    /// What was read with another key than the one that writes, or with none.
    stale: Mutex<BTreeSet<Key>>,
}

impl std::fmt::Debug for Encryption {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Encryption").finish_non_exhaustive()
    }
}

/// Some resources, and who writes and reads them.
struct Rule {
    resources: Vec<String>,
    providers: Vec<Provider>,
}

enum Provider {
    /// As it is.
    Identity,
    /// One key: what all that it writes begins with, and how it writes.
    Key { prefix: String, secret: Secret },
}

impl Encryption {
    /// By the text of a configuration file.
    ///
    /// # Errors
    /// When it is none, or wants what we do not have.
    pub fn from_yaml(text: &str) -> Result<Self, EncryptionError> {
        Ok(Self {
            rules: config::parse(text)?,
            random: SystemRandom::new(),
            stale: Mutex::default(),
        })
    }

    /// The text of a configuration with a fresh key, which encrypts Secrets and reads what was not encrypted. A secret.
    ///
    /// # Errors
    /// When the system has no randomness.
    pub fn generate() -> Result<String, EncryptionError> {
        let mut key = [0u8; KEY_BYTES];
        SystemRandom::new().fill(&mut key).map_err(|_| EncryptionError::NoRandomness)?;
        Ok(config::text("key1", &STANDARD.encode(key)))
    }

    /// Writes what is not encrypted with the first key anew, and takes its old states off the disk. Call it once the
    /// store is open; answers how many objects were written.
    ///
    /// # Errors
    /// When the store refuses.
    pub async fn rewrite_stale(&self, store: &Store) -> Result<usize, WriteError> {
        let stale = std::mem::take(&mut *self.stale.lock());
        if stale.is_empty() {
            return Ok(0);
        }
        let mut written = 0;
        for key in stale {
            // Custom kinds are not known yet; theirs change with their next write.
            let Some(kind) = storage::kind_of(&key.resource) else { continue };
            let Some(object) = store.get(&key) else { continue };
            let Ok(decoded) = storage::decode(&object) else { continue };
            let value = storage::encode(kind, &decoded);
            match store.update(key, object.revision, value).await {
                Ok(_) => written += 1,
                // Somebody wrote it meanwhile, with the first key.
                Err(WriteError::Conflict { .. }) => (),
                Err(error) => return Err(error),
            }
        }
        store.compact(store.revision()).await?;
        store.scrub().await?;
        Ok(written)
    }

    fn providers(&self, resource: &str) -> &[Provider] {
        let rule = self.rules.iter().find(|rule| rule.covers(resource));
        rule.map_or(&[Provider::Identity], |rule| &rule.providers)
    }
}

impl Rule {
    /// The first rule that names a resource counts: by its name, `*.GROUP` or `*.*`.
    fn covers(&self, resource: &str) -> bool {
        let group = resource.split_once('.').map_or("", |(_, group)| group);
        self.resources
            .iter()
            .any(|name| name == resource || name == "*.*" || name.strip_prefix("*.") == Some(group))
    }
}

impl Cipher for Encryption {
    fn seal(&self, key: &Key, bytes: &[u8]) -> Result<Option<Vec<u8>>, CipherError> {
        let Some(Provider::Key { prefix, secret }) = self.providers(&key.resource).first() else {
            return Ok(None);
        };
        let sealed = secret.seal(&self.random, &place(key), bytes);
        let sealed = sealed.ok_or_else(|| error(key, "cannot be encrypted"))?;
        Ok(Some([prefix.as_bytes(), &sealed].concat()))
    }

    fn open(&self, key: &Key, bytes: &[u8]) -> Result<Option<Vec<u8>>, CipherError> {
        let providers = self.providers(&key.resource);
        let mut fits = false;
        for (index, provider) in providers.iter().enumerate() {
            let opened = match provider {
                Provider::Identity if bytes.starts_with(MARK) => continue,
                Provider::Identity => None,
                Provider::Key { prefix, secret } => {
                    let Some(rest) = bytes.strip_prefix(prefix.as_bytes()) else { continue };
                    fits = true;
                    match secret.open(&place(key), rest) {
                        Some(opened) => Some(opened),
                        None => continue,
                    }
                }
            };
            if index > 0 {
                self.stale.lock().insert(key.clone());
            }
            return Ok(opened);
        }
        Err(error(
            key,
            if fits {
                "is damaged, or was encrypted for another place or with another key of that name"
            } else {
                "no provider of the encryption configuration reads it"
            },
        ))
    }
}

/// The name that upstream gives the object in etcd.
fn place(key: &Key) -> String {
    format!("/registry/{key}")
}

fn error(key: &Key, cause: &str) -> CipherError {
    CipherError { object: key.to_string(), cause: cause.to_owned() }
}

#[cfg(test)]
mod tests;
