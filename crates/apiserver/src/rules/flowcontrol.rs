//! `FlowSchema` and `PriorityLevelConfiguration`.

use coracle_api::names;
use coracle_api::status::{FieldErrors, Path};
use serde_json::{Value, json};

use crate::rules::checks::{required, unique};
use crate::rules::json::{Read, default, default_zero, object, with};
use crate::rules::{Rules, generic};

/// As upstream.
const MAX_PRECEDENCE: i64 = 10_000;
/// The one level that has no limits.
const EXEMPT: &str = "exempt";
const VERBS: [&str; 9] =
    ["create", "delete", "deletecollection", "get", "list", "patch", "proxy", "update", "watch"];
const MAX_QUEUES: i64 = 10_000_000;
/// Of these bits of a flow's hash its hand is dealt.
const MAX_HASH_BITS: f64 = 60.0;

pub static SCHEMA: Rules = Rules {
    default: |schema| default_zero(object(schema, "spec"), "matchingPrecedence", 1000),
    prepare_create: |schema| generic::start_status(schema, json!({})),
    validate: |schema, errors| {
        let (spec, path) = (&schema["spec"], Path::new("spec"));
        let precedence = spec["matchingPrecedence"].int();
        if precedence <= 0 {
            let detail = "must be a positive value";
            errors.invalid(path.child("matchingPrecedence"), precedence, detail);
        }
        if precedence > MAX_PRECEDENCE {
            let detail = format!("must not be greater than {MAX_PRECEDENCE}");
            errors.invalid(path.child("matchingPrecedence"), precedence, detail);
        }
        if precedence == 1 && schema["metadata"]["name"] != EXEMPT {
            let detail = format!("only the schema named '{EXEMPT}' may have matchingPrecedence 1");
            errors.invalid(path.child("matchingPrecedence"), precedence, detail);
        }
        let method = &spec["distinguisherMethod"];
        let methods = ["ByNamespace", "ByUser"];
        if method.is_set() && !methods.contains(&method["type"].text()) {
            let at = path.child("distinguisherMethod").child("type");
            errors.not_supported(at, method.clone(), &methods);
        }
        let at = path.child("priorityLevelConfiguration").child("name");
        match spec["priorityLevelConfiguration"]["name"].text() {
            "" => errors.required(at, "must reference a priority level"),
            level => errors.invalid_each(at, level, names::dns_subdomain(level)),
        }
        for (index, rules) in spec["rules"].items().iter().enumerate() {
            validate_rules(rules, &path.child("rules").index(index), errors);
        }
        fixed(schema, errors);
    },
    validate_status_update: |new, _, errors| typed_conditions(new, errors),
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
        if (spec["type"] == "Exempt") != (level["metadata"]["name"] == EXEMPT) {
            let detail = format!("type must be 'Exempt' if and only if name is '{EXEMPT}'");
            errors.invalid(path.child("type"), spec["type"].text(), detail);
        }
        let types = ["Exempt", "Limited"];
        if !types.contains(&spec["type"].text()) {
            errors.not_supported(path.child("type"), spec["type"].text(), &types);
        }
        for (field, kind) in [("exempt", "Exempt"), ("limited", "Limited")] {
            let at = path.child(field);
            if spec[field].is_set() && spec["type"] != kind {
                errors.forbidden(&at, format!("must be nil if the type is not {kind}"));
            }
            shares(&spec[field], &at, errors);
        }
        fixed(level, errors);
        if spec["type"] == "Limited" && !spec["limited"].is_set() {
            errors.required(path.child("limited"), "must not be empty when type is Limited");
        } else if spec["type"] == "Limited" {
            let response = path.child("limited").child("limitResponse");
            limit_response(&spec["limited"]["limitResponse"], &response, errors);
        }
    },
    validate_status_update: |new, _, errors| typed_conditions(new, errors),
    ..Rules::GENERIC
};

/// What every cluster must have cannot be bent: only the exempt level's shares can.
fn fixed(object: &Value, errors: &mut FieldErrors) {
    let name = object["metadata"]["name"].text();
    let kind = object["kind"].text();
    let mandatory = crate::fairness::mandatory(kind);
    let Some(wanted) = mandatory.iter().find(|wanted| wanted["metadata"]["name"] == name) else {
        return;
    };
    let mut spec = object["spec"].clone();
    if kind == "PriorityLevelConfiguration" && spec["exempt"].is_set() {
        generic::carry(&mut spec, &wanted["spec"], "exempt");
    }
    if !generic::same(&spec, &wanted["spec"]) {
        let detail = format!("spec of '{name}' must equal the fixed value");
        errors.invalid("spec", object["spec"].clone(), detail);
    }
}

/// Conditions have a type each.
fn typed_conditions(object: &Value, errors: &mut FieldErrors) {
    let path = Path::new("status").child("conditions");
    let mut seen = Vec::new();
    for (index, condition) in object["status"]["conditions"].items().iter().enumerate() {
        let at = path.index(index).child("type");
        unique(&mut seen, condition["type"].text(), &at, errors);
        if condition["type"].text().is_empty() {
            errors.required(at, "must not be empty");
        }
    }
}

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
            namespaces(&rule["namespaces"], &at.child("namespaces"), errors);
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
        urls(&rule["nonResourceURLs"], &at.child("nonResourceURLs"), errors);
    }
}

fn namespaces(namespaces: &Value, path: &Path, errors: &mut FieldErrors) {
    if namespaces.items().iter().any(|name| name == "*") {
        return;
    }
    for (index, name) in namespaces.items().iter().enumerate() {
        for message in names::dns_label(name.text()) {
            let detail =
                format!("each member of this list must be '*' or a DNS-1123 label; {message}");
            errors.invalid(path.index(index), name.clone(), detail);
        }
    }
}

/// Paths, whose last part may be a star.
fn urls(urls: &Value, path: &Path, errors: &mut FieldErrors) {
    if urls.items().iter().any(|url| url == "*") {
        return;
    }
    for (index, url) in urls.items().iter().enumerate() {
        let text = url.text();
        let stars = text.matches('*').count();
        let wrong = match text {
            "/" => continue,
            "" => "must not be empty",
            _ if !text.starts_with('/') => "must start with slash",
            _ if text.contains(' ') => "must not contain white-space",
            _ if text.contains("//") => "must not contain double slash",
            _ if stars > 1 || (stars == 1 && !text.ends_with("/*")) => {
                "wildcard can only do suffix matching"
            }
            _ => continue,
        };
        errors.invalid(path.index(index), text, wrong);
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
                    service_account(about, &at, errors);
                }
            }
            (false, false) => (),
        }
    }
}

fn service_account(account: &Value, at: &Path, errors: &mut FieldErrors) {
    let name = account["name"].text();
    if !name.is_empty() && name != "*" {
        errors.invalid_each(at.child("name"), name, names::dns_subdomain(name));
    }
    let at = at.child("namespace");
    match account["namespace"].text() {
        "" => errors.required(at, "must specify namespace for service account"),
        namespace => errors.invalid_each(at, namespace, names::dns_label(namespace)),
    }
}

fn verbs(verbs: &Value, path: &Path, errors: &mut FieldErrors) {
    stars_alone(verbs, path, ("verbs must contain at least one value", "verb"), errors);
    let all = verbs.items();
    let is_known = |verb: &Value| VERBS.contains(&verb.text());
    if !all.iter().any(|verb| verb == "*") && !all.iter().all(is_known) {
        errors.not_supported(path, verbs.clone(), &VERBS);
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
            if queues > MAX_QUEUES {
                let detail = format!("must not be greater than {MAX_QUEUES}");
                errors.invalid(at.child("queues"), queues, detail);
            }
            if hand > queues {
                let detail = format!("should not be greater than queues ({queues})");
                errors.invalid(at.child("handSize"), hand, detail);
            } else if hand > 0 && entropy_bits(queues, hand) > MAX_HASH_BITS {
                let detail = format!(
                    "required entropy bits of deckSize {queues} and handSize {hand} should not be greater than {MAX_HASH_BITS}"
                );
                errors.invalid(at.child("handSize"), hand, detail);
            }
        }
        other => errors.not_supported(path.child("type"), other, &["Queue", "Reject"]),
    }
}

/// How many bits a hash must have to deal a hand of so many queues.
fn entropy_bits(queues: i64, hand: i64) -> f64 {
    /// Far more than any hash has bits.
    const MAX_HAND: i64 = 64;
    if hand > MAX_HAND {
        return f64::INFINITY;
    }
    #[expect(clippy::cast_precision_loss, reason = "queues are at most ten million")]
    let bits = (0..hand).map(|dealt| ((queues - dealt).max(1) as f64).log2()).sum::<f64>();
    bits.ceil()
}
