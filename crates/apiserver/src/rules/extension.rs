//! `CustomResourceDefinition` and `APIService`: how the API is extended.

use serde_json::{Value, json};

use crate::rules::json::{Read, default, default_zero, object, set, with};
use crate::rules::{Rules, generic};

pub static DEFINITION: Rules = Rules {
    default: default_definition,
    prepare_create: |definition| {
        let stored = definition["spec"]["versions"].items().iter().filter(|version| version["storage"].flag());
        let stored: Vec<Value> = stored.map(|version| version["name"].clone()).collect();
        generic::start_status(definition, json!({"storedVersions": stored, "conditions": [], "acceptedNames": {"kind": "", "plural": ""}}));
    },
    ..Rules::GENERIC
};

pub static API_SERVICE: Rules = Rules {
    default: |service| {
        with(object(service, "spec"), "service", |reference| default(reference, "port", 443));
    },
    prepare_create: |service| {
        generic::start_status(service, json!({}));
        if !service["spec"]["service"].is_set() {
            let now = jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
            let condition = json!({
                "type": "Available",
                "status": "True",
                "lastTransitionTime": now,
                "reason": "Local",
                "message": "Local APIServices are always available",
            });
            set(object(service, "status"), "conditions", vec![condition]);
        }
    },
    ..Rules::GENERIC
};

fn default_definition(definition: &mut Value) {
    let spec = object(definition, "spec");
    let names = object(spec, "names");
    let kind = names["kind"].text().to_owned();
    if !kind.is_empty() {
        default_zero(names, "singular", kind.to_lowercase());
        default_zero(names, "listKind", format!("{kind}List"));
    }
    default(spec, "conversion", json!({"strategy": "None"}));
    with(spec, "conversion", |conversion| {
        with(conversion, "webhook", |webhook| {
            with(webhook, "clientConfig", |client| with(client, "service", |service| default(service, "port", 443)));
        });
    });
}
