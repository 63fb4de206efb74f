//! Webhook configurations.

use coracle_api::names;
use coracle_api::status::{FieldErrors, Path};
use serde_json::{Value, json};

use crate::expressions::MatchConditions;
use crate::extension;
use crate::rules::Rules;
use crate::rules::checks::{label_selector, one_of, required_one_of, unique};
use crate::rules::json::{Read, default, each, with};

/// How long the API server waits for a webhook.
const TIMEOUT_SECONDS: i64 = 10;

pub static VALIDATING: Rules = Rules {
    default: |configuration| each(configuration, "webhooks", default_webhook),
    validate: validate_webhooks,
    ..Rules::GENERIC
};

pub static MUTATING: Rules = Rules {
    default: |configuration| {
        each(configuration, "webhooks", |webhook| {
            default_webhook(webhook);
            default(webhook, "reinvocationPolicy", "Never");
        });
    },
    validate: validate_webhooks,
    ..Rules::GENERIC
};

fn default_webhook(webhook: &mut Value) {
    default(webhook, "failurePolicy", "Fail");
    default(webhook, "timeoutSeconds", TIMEOUT_SECONDS);
    default_match_fields(webhook);
    each(webhook, "rules", |rule| default(rule, "scope", "*"));
    with(webhook, "clientConfig", |client| {
        with(client, "service", |service| default(service, "port", 443))
    });
}

pub(super) fn default_match_fields(parent: &mut Value) {
    default(parent, "matchPolicy", "Equivalent");
    default(parent, "namespaceSelector", json!({}));
    default(parent, "objectSelector", json!({}));
}

fn validate_webhooks(configuration: &Value, errors: &mut FieldErrors) {
    let mut seen = Vec::new();
    for (index, webhook) in configuration["webhooks"].items().iter().enumerate() {
        let at = Path::new("webhooks").index(index);
        let name = webhook["name"].text();
        qualified(name, &at.child("name"), errors);
        unique(&mut seen, name, at.child("name"), errors);
        validate_webhook(webhook, &at, errors);
    }
}

/// Names of webhooks have at least three parts, so that their owner can be seen.
fn qualified(name: &str, path: &Path, errors: &mut FieldErrors) {
    if name.is_empty() {
        errors.required(path, "");
        return;
    }
    errors.invalid_each(path, name, names::dns_subdomain(name));
    if name.split('.').count() < 3 {
        errors.invalid(
            path,
            name,
            "should be a domain with at least three segments separated by dots",
        );
    }
}

fn validate_webhook(webhook: &Value, at: &Path, errors: &mut FieldErrors) {
    let versions = &webhook["admissionReviewVersions"];
    if versions.size() == 0 {
        errors.required(at.child("admissionReviewVersions"), "must specify one of v1, v1beta1");
    } else if !versions.items().iter().any(|version| matches!(version.text(), "v1" | "v1beta1")) {
        let detail = "must include at least one of v1, v1beta1";
        errors.invalid(at.child("admissionReviewVersions"), versions.clone(), detail);
    }
    for (index, rule) in webhook["rules"].items().iter().enumerate() {
        validate_rule(rule, &at.child("rules").index(index), errors);
    }
    one_of(&webhook["failurePolicy"], &["Fail", "Ignore"], at.child("failurePolicy"), errors);
    one_of(&webhook["matchPolicy"], &["Equivalent", "Exact"], at.child("matchPolicy"), errors);
    one_of(
        &webhook["reinvocationPolicy"],
        &["IfNeeded", "Never"],
        at.child("reinvocationPolicy"),
        errors,
    );
    required_one_of(
        &webhook["sideEffects"],
        &["None", "NoneOnDryRun"],
        at.child("sideEffects"),
        errors,
    );
    let seconds = &webhook["timeoutSeconds"];
    if seconds.is_set() && !(1..=30).contains(&seconds.int()) {
        let detail = "the timeout value must be between 1 and 30 seconds";
        errors.invalid(at.child("timeoutSeconds"), seconds.clone(), detail);
    }
    for field in ["namespaceSelector", "objectSelector"] {
        label_selector(&webhook[field], &at.child(field), errors);
    }
    client_config(&webhook["clientConfig"], &at.child("clientConfig"), errors);
    let conditions = at.child("matchConditions");
    MatchConditions::validate(&webhook["matchConditions"], false, &conditions, errors);
}

/// A webhook is called by its address or by its Service.
pub fn client_config(config: &Value, path: &Path, errors: &mut FieldErrors) {
    match (config["url"].is_set(), config["service"].is_set()) {
        (true, true) | (false, false) => {
            errors.required(path, "exactly one of url or service is required")
        }
        (true, false) => url(config["url"].text(), &path.child("url"), errors),
        (false, true) => service(&config["service"], &path.child("service"), errors),
    }
    let bundle = config["caBundle"].text();
    if !bundle.is_empty()
        && let Err(why) = extension::check_bundle(bundle)
    {
        errors.invalid(path.child("caBundle"), bundle, why);
    }
}

fn url(url: &str, at: &Path, errors: &mut FieldErrors) {
    const FORM: &str = "; desired format: https://host[/path]";
    let (scheme, rest) = url.split_once("://").unwrap_or(("", url));
    if scheme != "https" {
        errors.invalid(at, scheme, format!("'https' is the only allowed URL scheme{FORM}"));
    }
    let (rest, fragment) = rest.split_once('#').unwrap_or((rest, ""));
    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    let authority = rest.split('/').next().unwrap_or_default();
    let (user, host) = authority.rsplit_once('@').unwrap_or(("", authority));
    if host.is_empty() || scheme.is_empty() {
        errors.invalid(at, "", format!("host must be specified{FORM}"));
    }
    if !user.is_empty() {
        errors.invalid(at, user, "user information is not permitted in the URL");
    }
    if !fragment.is_empty() {
        errors.invalid(at, fragment, "fragments are not permitted in the URL");
    }
    if !query.is_empty() {
        errors.invalid(at, query, "query parameters are not permitted in the URL");
    }
}

fn service(service: &Value, at: &Path, errors: &mut FieldErrors) {
    for field in ["name", "namespace"] {
        if service[field].text().is_empty() {
            errors.required(at.child(field), format!("service {field} is required"));
        }
    }
    for message in names::port_number(service["port"].int()) {
        let detail = format!("port is not valid: {message}");
        errors.invalid(at.child("port"), service["port"].clone(), detail);
    }
    let (path, at) = (service["path"].text(), at.child("path"));
    let steps = match path {
        "" | "/" => return,
        "//" => return errors.invalid(at, path, "segment[0] may not be empty"),
        path => path.strip_prefix('/'),
    };
    if steps.is_none() {
        errors.invalid(&at, path, "must start with a '/'");
    }
    let steps = steps.unwrap_or(path);
    for (index, step) in steps.strip_suffix('/').unwrap_or(steps).split('/').enumerate() {
        if step.is_empty() {
            errors.invalid(&at, path, format!("segment[{index}] may not be empty"));
            continue;
        }
        for message in names::dns_subdomain(step) {
            errors.invalid(&at, path, format!("segment[{index}]: {message}"));
        }
    }
}

pub(super) fn validate_rule(rule: &Value, at: &Path, errors: &mut FieldErrors) {
    for field in ["operations", "apiGroups", "apiVersions", "resources"] {
        let items = rule[field].items();
        if items.is_empty() {
            errors.required(at.child(field), "");
        }
        if items.len() > 1 && items.iter().any(|item| item == "*") && field != "resources" {
            errors.invalid(
                at.child(field),
                rule[field].clone(),
                "if '*' is present, must not specify other values",
            );
        }
    }
    let operations = ["*", "CONNECT", "CREATE", "DELETE", "UPDATE"];
    for (index, operation) in rule["operations"].items().iter().enumerate() {
        one_of(operation, &operations, at.child("operations").index(index), errors);
    }
    one_of(&rule["scope"], &["*", "Cluster", "Namespaced"], at.child("scope"), errors);
}
