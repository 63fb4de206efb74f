//! `ConfigMap` and `Secret`.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use coracle_api::names;
use coracle_api::status::{FieldErrors, Path};
use serde_json::Value;

use crate::rules::Rules;
use crate::rules::checks::{immutable, required};
use crate::rules::generic::same;
use crate::rules::json::{Read, default_zero, object, set, unset};

/// A mebibyte: every node that uses the object holds it in memory.
const MAX_BYTES: usize = 1024 * 1024;

pub static CONFIG_MAP: Rules = Rules {
    validate: |map, errors| {
        let mut bytes = 0;
        for (key, text) in map["data"].entries() {
            validate_key(key, "data", errors);
            if map["binaryData"].get(key).is_some() {
                errors.invalid(
                    Path::new("data").key(key),
                    key.as_str(),
                    "duplicate of key present in binaryData",
                );
            }
            bytes += text.text().len();
        }
        for (key, content) in map["binaryData"].entries() {
            validate_key(key, "binaryData", errors);
            bytes += decoded_bytes(content.text());
        }
        // The whole object is too long; upstream writes the empty path in this way.
        validate_size(bytes, "[]", errors);
    },
    validate_update: |new, old, errors| {
        immutable_once_said(new, old, &["data", "binaryData"], errors)
    },
    ..Rules::GENERIC
};

pub static SECRET: Rules = Rules {
    default: |secret| {
        default_zero(secret, "type", "Opaque");
        encode_strings(secret);
    },
    validate: validate_secret,
    validate_update: |new, old, errors| {
        immutable(&new["type"], &old["type"], "type", errors);
        immutable_once_said(new, old, &["data"], errors);
    },
    fields: |secret| vec![("type", secret["type"].text().to_owned())],
    ..Rules::GENERIC
};

/// `stringData` is a way to write `data`, never stored.
fn encode_strings(secret: &mut Value) {
    let strings: Vec<(String, String)> = secret["stringData"]
        .entries()
        .map(|(key, text)| (key.clone(), STANDARD.encode(text.text())))
        .collect();
    unset(secret, "stringData");
    if strings.is_empty() {
        return;
    }
    let data = object(secret, "data");
    for (key, bytes) in strings {
        set(data, &key, bytes);
    }
}

fn validate_key(key: &str, field: &str, errors: &mut FieldErrors) {
    errors.invalid_each(Path::new(field).key(key), key, names::config_key(key));
}

fn validate_size(bytes: usize, path: &str, errors: &mut FieldErrors) {
    if bytes > MAX_BYTES {
        errors.too_long(path, MAX_BYTES);
    }
}

fn decoded_bytes(base64: &str) -> usize {
    base64.len() / 4 * 3
        - base64.bytes().rev().take_while(|byte| *byte == b'=').count().min(base64.len() / 4 * 3)
}

fn validate_secret(secret: &Value, errors: &mut FieldErrors) {
    let mut bytes = 0;
    for (key, content) in secret["data"].entries() {
        validate_key(key, "data", errors);
        bytes += decoded_bytes(content.text());
    }
    validate_size(bytes, "data", errors);
    let data = Path::new("data");
    let needs = |keys: &[&str], errors: &mut FieldErrors| {
        for key in keys {
            if !secret["data"][*key].is_set() {
                errors.required(data.key(key), "");
            }
        }
    };
    match secret["type"].text() {
        "kubernetes.io/service-account-token" => {
            let annotation = "kubernetes.io/service-account.name";
            if secret["metadata"]["annotations"][annotation].text().is_empty() {
                errors.required(Path::from("metadata.annotations").key(annotation), "");
            }
        }
        "kubernetes.io/dockercfg" => validate_docker(secret, ".dockercfg", errors),
        "kubernetes.io/dockerconfigjson" => validate_docker(secret, ".dockerconfigjson", errors),
        "kubernetes.io/basic-auth" => {
            let has = |key: &str| secret["data"][key].is_set();
            if !has("username") && !has("password") {
                needs(&["username", "password"], errors);
            }
        }
        "kubernetes.io/ssh-auth" => {
            required(&secret["data"]["ssh-privatekey"], data.key("ssh-privatekey"), errors);
        }
        "kubernetes.io/tls" => needs(&["tls.crt", "tls.key"], errors),
        _ => (),
    }
}

fn validate_docker(secret: &Value, key: &str, errors: &mut FieldErrors) {
    let path = Path::new("data").key(key);
    let Some(content) = secret["data"][key].as_str() else {
        errors.required(path, "");
        return;
    };
    let json = STANDARD.decode(content).map_err(|error| error.to_string());
    let parsed = json
        .and_then(|json| serde_json::from_slice::<Value>(&json).map_err(|error| error.to_string()));
    if let Err(why) = parsed {
        errors.invalid(path, "<secret contents redacted>", why);
    }
}

/// Who said that an object stays as it is can rely on it.
fn immutable_once_said(new: &Value, old: &Value, fields: &[&str], errors: &mut FieldErrors) {
    const DETAIL: &str = "field is immutable when `immutable` is set";
    if !old["immutable"].flag() {
        return;
    }
    if !new["immutable"].flag() {
        errors.forbidden("immutable", DETAIL);
    }
    for field in fields {
        if !same(&new[*field], &old[*field]) {
            errors.forbidden(*field, DETAIL);
        }
    }
}
