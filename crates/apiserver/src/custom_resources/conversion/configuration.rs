//! What a definition may say about the conversion of its objects: `spec.conversion`, as upstream checks it.

use coracle_api::names;
use coracle_api::status::{FieldErrors, Path};
use serde_json::Value;

use crate::extension::ReviewVersion;
use crate::object::strings;
use crate::rules::webhook;

/// Checks `spec.conversion`. Paths name the fields of upstream's internal type, whichever version was written.
pub(in crate::custom_resources) fn validate(definition: &Value, errors: &mut FieldErrors) {
    let (spec, path) = (&definition["spec"], Path::new("spec").child("conversion"));
    let conversion = &spec["conversion"];
    match conversion["strategy"].as_str() {
        _ if conversion.is_null() => (),
        Some("Webhook") => {
            if spec["preserveUnknownFields"] == true {
                let detail = "must be None if spec.preserveUnknownFields is true";
                errors.invalid(path.child("strategy"), "Webhook", detail);
            }
            validate_webhook(&conversion["webhook"], &path, errors);
        }
        Some("None") => forbid_webhook(&conversion["webhook"], &path, errors),
        None | Some("") => {
            errors.required(path.child("strategy"), "");
            forbid_webhook(&conversion["webhook"], &path, errors);
        }
        Some(other) => {
            errors.not_supported(path.child("strategy"), other, &["None", "Webhook"]);
            forbid_webhook(&conversion["webhook"], &path, errors);
        }
    }
}

fn validate_webhook(hook: &Value, path: &Path, errors: &mut FieldErrors) {
    let at = path.child("webhookClientConfig");
    if hook["clientConfig"].is_object() {
        webhook::client_config(&hook["clientConfig"], &at, errors);
    } else {
        errors.required(at, "required when strategy is set to Webhook");
    }
    let (versions, at) =
        (strings(hook.get("conversionReviewVersions")), path.child("conversionReviewVersions"));
    if versions.is_empty() {
        return errors.required(at, "");
    }
    for (index, version) in versions.iter().enumerate() {
        if versions[..index].contains(version) {
            errors.invalid(at.index(index), version.as_str(), "duplicate version");
        } else {
            errors.invalid_each(at.index(index), version, names::dns_1035_label(version));
        }
    }
    if ReviewVersion::choose(&versions).is_none() {
        errors.invalid(at, versions, "must include at least one of v1, v1beta1");
    }
}

fn forbid_webhook(hook: &Value, path: &Path, errors: &mut FieldErrors) {
    const WHY: &str = "should not be set when strategy is not set to Webhook";
    if !hook["clientConfig"].is_null() {
        errors.forbidden(path.child("webhookClientConfig"), WHY);
    }
    if !strings(hook.get("conversionReviewVersions")).is_empty() {
        errors.forbidden(path.child("conversionReviewVersions"), WHY);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn check(conversion: Value) -> String {
        let mut errors = FieldErrors::new();
        validate(&json!({ "spec": { "conversion": conversion } }), &mut errors);
        errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn a_webhook_is_wanted_by_its_strategy_alone() {
        assert_eq!(check(Value::Null), "");
        assert_eq!(check(json!({ "strategy": "None" })), "");
        let url = json!({ "url": "https://h/p" });
        let good = json!({ "clientConfig": url, "conversionReviewVersions": ["v7", "v1"] });
        assert_eq!(check(json!({ "strategy": "Webhook", "webhook": good })), "");
        assert_eq!(
            check(json!({ "strategy": "None", "webhook": good })),
            "spec.conversion.webhookClientConfig: Forbidden: should not be set when strategy is not set to Webhook\n\
             spec.conversion.conversionReviewVersions: Forbidden: should not be set when strategy is not set to Webhook"
        );
        assert_eq!(
            check(json!({ "strategy": "Webhook" })),
            "spec.conversion.webhookClientConfig: Required value: required when strategy is set to Webhook\n\
             spec.conversion.conversionReviewVersions: Required value"
        );
        let unspoken = json!({ "clientConfig": url, "conversionReviewVersions": ["v7"] });
        let errors = check(json!({ "strategy": "Webhook", "webhook": unspoken }));
        assert!(errors.ends_with("must include at least one of v1, v1beta1"), "{errors}");
    }

    #[test]
    fn the_way_to_the_webhook_is_checked() {
        let check = |config: Value| {
            check(json!({ "strategy": "Webhook", "webhook": {
                "clientConfig": config, "conversionReviewVersions": ["v1"] } }))
        };
        for (config, why) in [
            (json!({}), "exactly one of url or service is required"),
            (json!({ "url": "http://h" }), "'https' is the only allowed URL scheme"),
            (json!({ "url": "https:///p" }), "host must be specified"),
            (json!({ "url": "https://u@h" }), "user information is not permitted in the URL"),
            (json!({ "url": "https://h/?a=b" }), "query parameters are not permitted in the URL"),
            (json!({ "url": "https://h/#a" }), "fragments are not permitted in the URL"),
            (json!({ "url": "https://h", "caBundle": "bm8=" }), "unable to load root certificates"),
            (
                json!({ "service": { "namespace": "n", "name": "s", "port": 443, "path": "p" } }),
                "must start with a '/'",
            ),
            (
                json!({ "service": { "namespace": "n", "name": "s", "port": 443, "path": "/a//b" } }),
                "segment[1] may not be empty",
            ),
        ] {
            let errors = check(config);
            assert!(errors.contains(why), "{errors}");
        }
    }
}
