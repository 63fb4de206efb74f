//! Webhook configurations and admission policies.

use serde_json::{Value, json};

use crate::rules::Rules;
use crate::rules::json::{default, each, object, with};

/// How long the API server waits for a webhook.
const TIMEOUT_SECONDS: i64 = 10;

pub static VALIDATING: Rules =
    Rules { default: |configuration| each(configuration, "webhooks", default_webhook), ..Rules::GENERIC };

pub static MUTATING: Rules = Rules {
    default: |configuration| {
        each(configuration, "webhooks", |webhook| {
            default_webhook(webhook);
            default(webhook, "reinvocationPolicy", "Never");
        });
    },
    ..Rules::GENERIC
};

pub static POLICY: Rules = Rules {
    default: |policy| {
        let spec = object(policy, "spec");
        default(spec, "failurePolicy", "Fail");
        with(spec, "matchConstraints", default_match);
    },
    ..Rules::GENERIC
};

pub static POLICY_BINDING: Rules = Rules {
    default: |binding| with(object(binding, "spec"), "matchResources", default_match),
    ..Rules::GENERIC
};

fn default_webhook(webhook: &mut Value) {
    default(webhook, "failurePolicy", "Fail");
    default(webhook, "timeoutSeconds", TIMEOUT_SECONDS);
    default_match_fields(webhook);
    each(webhook, "rules", |rule| default(rule, "scope", "*"));
    with(webhook, "clientConfig", |client| with(client, "service", |service| default(service, "port", 443)));
}

fn default_match(resources: &mut Value) {
    default_match_fields(resources);
    for list in ["resourceRules", "excludeResourceRules"] {
        each(resources, list, |rule| default(rule, "scope", "*"));
    }
}

fn default_match_fields(parent: &mut Value) {
    default(parent, "matchPolicy", "Equivalent");
    default(parent, "namespaceSelector", json!({}));
    default(parent, "objectSelector", json!({}));
}
