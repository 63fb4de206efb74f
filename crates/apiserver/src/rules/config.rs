//! `ConfigMap` and `Secret`.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use crate::rules::Rules;
use crate::rules::json::{Read, default_zero, object, set, unset};

pub static CONFIG_MAP: Rules = Rules { ..Rules::GENERIC };

pub static SECRET: Rules = Rules {
    default: |secret| {
        default_zero(secret, "type", "Opaque");
        encode_strings(secret);
    },
    fields: |secret| vec![("type", secret["type"].text().to_owned())],
    ..Rules::GENERIC
};

/// `stringData` is a way to write `data`, never stored.
fn encode_strings(secret: &mut Value) {
    let strings: Vec<(String, String)> =
        secret["stringData"].entries().map(|(key, text)| (key.clone(), STANDARD.encode(text.text()))).collect();
    unset(secret, "stringData");
    if strings.is_empty() {
        return;
    }
    let data = object(secret, "data");
    for (key, bytes) in strings {
        set(data, &key, bytes);
    }
}
