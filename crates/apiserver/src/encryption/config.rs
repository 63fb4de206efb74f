//! The file: `EncryptionConfiguration` of `apiserver.config.k8s.io/v1`.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::Value;

use super::ciphers::{CIPHERS, Cipher};
use super::{Provider, Rule};

/// Why there is no encryption by this file.
#[derive(Debug, thiserror::Error)]
pub enum EncryptionError {
    /// It is no such file.
    #[error("cannot read the encryption configuration: {0}")]
    Unreadable(String),
    /// It wants what we cannot do, or what makes no sense.
    #[error("encryption configuration: {place}: {cause}")]
    Wrong {
        /// Which field.
        place: String,
        /// What is wrong with it.
        cause: String,
    },
    /// No key can be made.
    #[error("the system has no randomness for a key")]
    NoRandomness,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct File {
    api_version: String,
    kind: String,
    resources: Vec<Resources>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Resources {
    resources: Vec<String>,
    providers: Vec<serde_json::Map<String, Value>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Keys {
    keys: Vec<NamedKey>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NamedKey {
    name: String,
    secret: String,
}

/// Reads the file. Its errors never quote a key.
pub(super) fn parse(text: &str) -> Result<Vec<Rule>, EncryptionError> {
    let file: File = serde_yaml::from_str(text)
        .map_err(|error| EncryptionError::Unreadable(error.to_string()))?;
    if file.kind != "EncryptionConfiguration" || file.api_version != "apiserver.config.k8s.io/v1" {
        return Err(EncryptionError::Unreadable(format!(
            "it is {} of {}",
            file.kind, file.api_version
        )));
    }
    let rules = file.resources.into_iter().enumerate();
    rules.map(|(index, resources)| rule(&format!("resources[{index}]"), resources)).collect()
}

fn rule(place: &str, given: Resources) -> Result<Rule, EncryptionError> {
    if given.resources.is_empty() {
        return Err(wrong(format!("{place}.resources"), "must not be empty"));
    }
    let mut providers = Vec::new();
    for (index, provider) in given.providers.into_iter().enumerate() {
        let place = format!("{place}.providers[{index}]");
        let mut named = provider.into_iter();
        let (Some((name, value)), None) = (named.next(), named.next()) else {
            return Err(wrong(place, "must have exactly one provider"));
        };
        match name.as_str() {
            "identity" => providers.push(Provider::Identity),
            _ => {
                let Some(cipher) = CIPHERS.iter().find(|cipher| cipher.name == name) else {
                    let cause = format!(
                        "{name} is not supported here: aesgcm, aescbc, secretbox and identity are"
                    );
                    return Err(wrong(place, &cause));
                };
                providers.extend(keys(&format!("{place}.{name}"), cipher, value)?);
            }
        }
    }
    if providers.is_empty() {
        return Err(wrong(format!("{place}.providers"), "must not be empty"));
    }
    // Upstream writes the core group as `*.`, which is what is left of such a name without its group.
    Ok(Rule { resources: given.resources, providers })
}

fn keys(place: &str, cipher: &Cipher, given: Value) -> Result<Vec<Provider>, EncryptionError> {
    // The library's error could quote a key.
    let given: Keys =
        serde_json::from_value(given).map_err(|_| wrong(place.to_owned(), "must have keys"))?;
    if given.keys.is_empty() {
        return Err(wrong(format!("{place}.keys"), "must not be empty"));
    }
    let mut providers = Vec::new();
    for (index, key) in given.keys.iter().enumerate() {
        let place = format!("{place}.keys[{index}]");
        if key.name.is_empty() || key.name.contains(':') {
            return Err(wrong(format!("{place}.name"), "must not be empty or contain a colon"));
        }
        let secret = STANDARD
            .decode(&key.secret)
            .map_err(|_| wrong(format!("{place}.secret"), "must be base64 encoded"))?;
        let secret = cipher.secret(&secret).ok_or_else(|| {
            wrong(format!("{place}.secret"), &format!("must be a key of {}", cipher.key_bytes))
        })?;
        providers.push(Provider::Key { prefix: cipher.prefix(&key.name), secret });
    }
    Ok(providers)
}

fn wrong(place: String, cause: &str) -> EncryptionError {
    EncryptionError::Wrong { place, cause: cause.to_owned() }
}

/// A file with one key for Secrets.
pub(super) fn text(name: &str, secret: &str) -> String {
    format!(
        "# Encrypts Secrets on disk. Without this file they are lost: keep a copy apart from the data.\n\
         apiVersion: apiserver.config.k8s.io/v1\n\
         kind: EncryptionConfiguration\n\
         resources:\n\
         - resources: [secrets]\n\
         \x20 providers:\n\
         \x20 - aesgcm:\n\
         \x20     keys:\n\
         \x20     - name: {name}\n\
         \x20       secret: {secret}\n\
         \x20 - identity: {{}}\n"
    )
}
