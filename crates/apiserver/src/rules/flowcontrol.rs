//! `FlowSchema` and `PriorityLevelConfiguration`.

use coracle_api::names;
use coracle_api::status::{FieldErrors, Path};
use serde_json::{Value, json};

use crate::rules::checks::{one_of, required, required_name, required_one_of};
use crate::rules::json::{Read, default, default_zero, object, with};
use crate::rules::{Rules, generic};

/// As upstream.
const MAX_PRECEDENCE: i64 = 10_000;
/// The one level that has no limits.
const EXEMPT: &str = "exempt";
const VERBS: [&str; 11] = [
    "create",
    "delete",
    "deletecollection",
    "get",
    "list",
    "patch",
    "post",
    "proxy",
    "put",
    "update",
    "watch",
];

pub static SCHEMA: Rules = Rules {
    default: |schema| default_zero(object(schema, "spec"), "matchingPrecedence", 1000),
    prepare_create: |schema| generic::start_status(schema, json!({})),
    validate: |schema, errors| {
        let (spec, path) = (&schema["spec"], Path::new("spec"));
        let precedence = spec["matchingPrecedence"].int();
        if !(1..=MAX_PRECEDENCE).contains(&precedence) {
            let detail = format!("must be between 1 and {MAX_PRECEDENCE}, inclusive");
            errors.invalid(path.child("matchingPrecedence"), precedence, detail);
        }
        if precedence == 1 && schema["metadata"]["name"] != EXEMPT {
            let detail = format!("only the schema named '{EXEMPT}' may have matchingPrecedence 1");
            errors.invalid(path.child("matchingPrecedence"), precedence, detail);
        }
        let level = &spec["priorityLevelConfiguration"]["name"];
        required_name(
            level,
            names::dns_subdomain,
            path.child("priorityLevelConfiguration").child("name"),
            errors,
        );
        let methods = ["ByNamespace", "ByUser"];
        let at = path.child("distinguisherMethod").child("type");
        one_of(&spec["distinguisherMethod"]["type"], &methods, at, errors);
        for (index, rules) in spec["rules"].items().iter().enumerate() {
            validate_rules(rules, &path.child("rules").index(index), errors);
        }
    },
    ..Rules::GENERIC
};

pub static PRIORITY_LEVEL: Rules = Rules {
    default: |level| {
        let spec = object(level, "spec");
        match spec["type"].text() {
            "Limited" => default_limited(object(spec, "limited")),
            "Exempt" => {
                let exempt = object(spec, "exempt");
                default(exempt, "nominalConcurrencyShares", 0);
                default(exempt, "lendablePercent", 0);
            }
            _ => (),
        }
    },
    prepare_create: |level| generic::start_status(level, json!({})),
    validate: |level, errors| {
        let (spec, path) = (&level["spec"], Path::new("spec"));
        required_one_of(&spec["type"], &["Exempt", "Limited"], path.child("type"), errors);
        if (spec["type"] == "Exempt") != (level["metadata"]["name"] == EXEMPT) {
            let detail = format!("type must be 'Exempt' if and only if `name` is '{EXEMPT}'");
            errors.invalid(path.child("type"), spec["type"].clone(), detail);
        }
        for (field, kind) in [("exempt", "Exempt"), ("limited", "Limited")] {
            let at = path.child(field);
            if spec[field].is_set() && spec["type"] != kind {
                errors.forbidden(&at, format!("must be nil if the type is not {kind}"));
            }
            shares(&spec[field], &at, errors);
        }
        if spec["type"] == "Limited" {
            let response = path.child("limited").child("limitResponse");
            limit_response(&spec["limited"]["limitResponse"], &response, errors);
        }
    },
    ..Rules::GENERIC
};

fn default_limited(limited: &mut Value) {
    default(limited, "nominalConcurrencyShares", 30);
    default(limited, "lendablePercent", 0);
    with(limited, "limitResponse", |response| {
        with(response, "queuing", |queuing| {
            default_zero(queuing, "queues", 64);
            default_zero(queuing, "handSize", 8);
            default_zero(queuing, "queueLengthLimit", 50);
        });
    });
}

/// Who is meant, and which of their requests.
fn validate_rules(rules: &Value, path: &Path, errors: &mut FieldErrors) {
    let subjects = path.child("subjects");
    if rules["subjects"].size() == 0 {
        errors.required(&subjects, "subjects must contain at least one value");
    }
    for (index, subject) in rules["subjects"].items().iter().enumerate() {
        validate_subject(subject, &subjects.index(index), errors);
    }
    if rules["resourceRules"].size() + rules["nonResourceRules"].size() == 0 {
        let detail = "at least one of resourceRules and nonResourceRules has to be non-empty";
        errors.required(path, detail);
    }
    for (index, rule) in rules["resourceRules"].items().iter().enumerate() {
        let at = path.child("resourceRules").index(index);
        verbs(&rule["verbs"], &at.child("verbs"), errors);
        let lists = [("apiGroups", "api group"), ("resources", "resource")];
        for (field, what) in lists {
            let missing = format!("resource rules must supply at least one {what}");
            stars_alone(&rule[field], &at.child(field), (&missing, what), errors);
        }
        if rule["namespaces"].size() > 0 {
            stars_alone(&rule["namespaces"], &at.child("namespaces"), ("", "namespace"), errors);
        } else if !rule["clusterScope"].flag() {
            let detail =
                "resource rules that are not cluster scoped must supply at least one namespace";
            errors.required(at.child("namespaces"), detail);
        }
    }
    for (index, rule) in rules["nonResourceRules"].items().iter().enumerate() {
        let at = path.child("nonResourceRules").index(index);
        verbs(&rule["verbs"], &at.child("verbs"), errors);
        let missing = "nonResourceURLs must contain at least one value";
        let words = (missing, "non-resource URL");
        stars_alone(&rule["nonResourceURLs"], &at.child("nonResourceURLs"), words, errors);
    }
}

fn validate_subject(subject: &Value, path: &Path, errors: &mut FieldErrors) {
    let kinds = [("ServiceAccount", "serviceAccount"), ("User", "user"), ("Group", "group")];
    let kind = subject["kind"].text();
    if !kinds.iter().any(|(known, _)| *known == kind) {
        let known = ["Group", "ServiceAccount", "User"];
        errors.not_supported(path.child("kind"), kind, &known);
        return;
    }
    for (known, field) in kinds {
        let (about, at) = (&subject[field], path.child(field));
        match (known == kind, about.is_set()) {
            (true, false) => {
                errors.required(at, format!("{field} is required when subject kind is '{known}'"));
            }
            (false, true) => {
                let detail = format!("{field} is forbidden when subject kind is not '{known}'");
                errors.forbidden(at, detail);
            }
            (true, true) => {
                required(&about["name"], at.child("name"), errors);
                if known == "ServiceAccount" {
                    required(&about["namespace"], at.child("namespace"), errors);
                }
            }
            (false, false) => (),
        }
    }
}

fn verbs(verbs: &Value, path: &Path, errors: &mut FieldErrors) {
    stars_alone(verbs, path, ("verbs must contain at least one value", "verb"), errors);
    for verb in verbs.items().iter().filter(|verb| *verb != "*" && !VERBS.contains(&verb.text())) {
        errors.not_supported(path, verb.clone(), &VERBS);
    }
}

/// Checks a list that must not be empty, and in which `*` stands alone.
fn stars_alone(list: &Value, path: &Path, words: (&str, &str), errors: &mut FieldErrors) {
    let (missing, what) = words;
    if list.size() == 0 {
        errors.required(path, missing);
    } else if list.size() > 1 && list.items().iter().any(|item| item == "*") {
        let detail = format!("if '*' is present, must not specify other {what}s");
        errors.invalid(path, list.clone(), detail);
    }
}

/// Checks how much of the server's room a level has.
fn shares(level: &Value, path: &Path, errors: &mut FieldErrors) {
    for (field, detail) in [
        ("nominalConcurrencyShares", "must be a non-negative integer"),
        ("borrowingLimitPercent", "if specified, must be a non-negative integer"),
    ] {
        if level[field].int() < 0 {
            errors.invalid(path.child(field), level[field].clone(), detail);
        }
    }
    if !(0..=100).contains(&level["lendablePercent"].int()) {
        let at = path.child("lendablePercent");
        errors.invalid(
            at,
            level["lendablePercent"].clone(),
            "must be between 0 and 100, inclusive",
        );
    }
}

/// Checks what becomes of requests for which there is no room.
fn limit_response(response: &Value, path: &Path, errors: &mut FieldErrors) {
    let (queuing, at) = (&response["queuing"], path.child("queuing"));
    match response["type"].text() {
        "Reject" if queuing.is_set() => {
            errors.forbidden(at, "must be nil if limited.limitResponse.type is not Limited");
        }
        "Reject" => (),
        "Queue" if !queuing.is_set() => {
            errors.required(at, "must not be empty if limited.limitResponse.type is Limited");
        }
        "Queue" => {
            for field in ["queueLengthLimit", "queues", "handSize"] {
                if queuing[field].int() <= 0 {
                    errors.invalid(at.child(field), queuing[field].int(), "must be positive");
                }
            }
            let (hand, queues) = (queuing["handSize"].int(), queuing["queues"].int());
            if hand > queues {
                let detail = format!("should not be greater than queues ({queues})");
                errors.invalid(at.child("handSize"), hand, detail);
            }
        }
        other => errors.not_supported(path.child("type"), other, &["Queue", "Reject"]),
    }
}
