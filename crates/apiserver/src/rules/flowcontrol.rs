//! `FlowSchema` and `PriorityLevelConfiguration`.

use coracle_api::names;
use coracle_api::status::Path;
use serde_json::{Value, json};

use crate::rules::checks::{not_negative, one_of, required_name, required_one_of};
use crate::rules::json::{Read, default, default_zero, object, with};
use crate::rules::{Rules, generic};

/// As upstream.
const MAX_PRECEDENCE: i64 = 10_000;

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
        for (field, kind) in [("exempt", "Exempt"), ("limited", "Limited")] {
            if spec[field].is_set() && spec["type"] != kind {
                errors
                    .forbidden(path.child(field), format!("must be nil if the type is not {kind}"));
            }
            not_negative(
                &spec[field]["nominalConcurrencyShares"],
                path.child(field).child("nominalConcurrencyShares"),
                errors,
            );
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
