//! `CustomResourceDefinition` and `APIService`: how the API is extended.

use coracle_api::names;
use coracle_api::status::{FieldErrors, Path};
use serde_json::{Value, json};

use crate::custom_resources;
use crate::rules::checks::{immutable, required, required_one_of, unique};
use crate::rules::json::{Read, default, default_zero, object, set, with};
use crate::rules::{Rules, generic};

pub static DEFINITION: Rules = Rules {
    default: default_definition,
    prepare_create: |definition| {
        let stored = definition["spec"]["versions"]
            .items()
            .iter()
            .filter(|version| version["storage"].flag());
        let stored: Vec<Value> = stored.map(|version| version["name"].clone()).collect();
        generic::start_status(
            definition,
            json!({"storedVersions": stored, "conditions": [], "acceptedNames": {"kind": "", "plural": ""}}),
        );
    },
    prepare_update: |new, old| {
        generic::keep_status(new, old);
        remember_stored_version(new);
    },
    validate: |definition, errors| {
        validate_definition(definition, errors);
        custom_resources::validate_definition(definition, errors);
    },
    validate_update: |new, old, errors| {
        custom_resources::validate_definition_update(new, errors);
        for path in ["group", "scope"] {
            immutable(
                &new["spec"][path],
                &old["spec"][path],
                Path::new("spec").child(path),
                errors,
            );
        }
        for path in ["plural", "kind"] {
            let (new, old) = (&new["spec"]["names"][path], &old["spec"]["names"][path]);
            immutable(new, old, Path::new("spec").child("names").child(path), errors);
        }
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
    validate: validate_api_service,
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
            with(webhook, "clientConfig", |client| {
                with(client, "service", |service| default(service, "port", 443))
            });
        });
    });
}

/// Objects may now be stored in the version that is the stored one from now on.
fn remember_stored_version(definition: &mut Value) {
    let stored =
        definition["spec"]["versions"].items().iter().find(|version| version["storage"].flag());
    let Some(name) = stored.map(|version| version["name"].clone()) else { return };
    let status = object(definition, "status");
    let mut versions = status["storedVersions"].items().to_vec();
    if !versions.contains(&name) {
        versions.push(name);
        set(status, "storedVersions", versions);
    }
}

fn validate_definition(definition: &Value, errors: &mut FieldErrors) {
    let (spec, path) = (&definition["spec"], Path::new("spec"));
    let (group, plural) = (spec["group"].text(), spec["names"]["plural"].text());
    let want = format!("{plural}.{group}");
    let name = definition["metadata"]["name"].text();
    if name != want {
        errors.invalid("metadata.name", name, "must be spec.names.plural+\".\"+spec.group");
    }
    if group.is_empty() {
        errors.required(path.child("group"), "");
    } else {
        errors.invalid_each(path.child("group"), group, names::dns_subdomain(group));
        if !group.contains('.') {
            errors.invalid(path.child("group"), group, "should be a domain with at least one dot");
        }
    }
    required_one_of(&spec["scope"], &["Cluster", "Namespaced"], path.child("scope"), errors);
    for field in ["plural", "singular", "kind", "listKind"] {
        let (name, at) = (spec["names"][field].text(), path.child("names").child(field));
        if name.is_empty() {
            errors.required(&at, "");
        } else {
            errors.invalid_each(at, name, names::dns_1035_label(&name.to_lowercase()));
        }
    }
    validate_versions(spec["versions"].items(), &path.child("versions"), errors);
}

fn validate_versions(versions: &[Value], path: &Path, errors: &mut FieldErrors) {
    let mut seen = Vec::new();
    for (index, version) in versions.iter().enumerate() {
        let (name, at) = (version["name"].text(), path.index(index));
        errors.invalid_each(at.child("name"), name, names::dns_1035_label(name));
        unique(&mut seen, name, at.child("name"), errors);
        if !version["schema"]["openAPIV3Schema"].is_set() {
            errors.required(at.child("schema").child("openAPIV3Schema"), "schemas are required");
        }
    }
    if versions.is_empty() {
        errors.required(path, "must have at least one version");
    } else if versions.iter().filter(|version| version["storage"].flag()).count() != 1 {
        errors.invalid(
            path,
            Value::from(versions),
            "must have exactly one version marked as storage version",
        );
    }
}

fn validate_api_service(service: &Value, errors: &mut FieldErrors) {
    let (spec, path) = (&service["spec"], Path::new("spec"));
    let (group, version) = (spec["group"].text(), spec["version"].text());
    let name = service["metadata"]["name"].text();
    let want = format!("{version}.{group}");
    if name != want {
        errors.invalid(
            "metadata.name",
            name,
            format!("must be `spec.version+\".\"+spec.group`: \"{want}\""),
        );
    }
    if !group.is_empty() {
        errors.invalid_each(path.child("group"), group, names::dns_subdomain(group));
    }
    errors.invalid_each(path.child("version"), version, names::dns_1035_label(version));
    for field in ["groupPriorityMinimum", "versionPriority"] {
        let max = if field == "groupPriorityMinimum" { 20_000 } else { 1000 };
        if !(1..=max).contains(&spec[field].int()) {
            errors.invalid(
                path.child(field),
                spec[field].int(),
                format!("must be positive and less than {max}"),
            );
        }
    }
    if !spec["service"].is_set() {
        return;
    }
    let at = path.child("service");
    for field in ["namespace", "name"] {
        required(&spec["service"][field], at.child(field), errors);
    }
    if spec["insecureSkipTLSVerify"].flag() && !spec["caBundle"].text().is_empty() {
        let detail = "may not be true if caBundle is present";
        errors.invalid(path.child("insecureSkipTLSVerify"), true, detail);
    }
}
