//! `FlowSchema` and `PriorityLevelConfiguration`.

use serde_json::{Value, json};

use crate::rules::json::{Read, default, default_zero, object, with};
use crate::rules::{Rules, generic};

pub static SCHEMA: Rules = Rules {
    default: |schema| default_zero(object(schema, "spec"), "matchingPrecedence", 1000),
    prepare_create: |schema| generic::start_status(schema, json!({})),
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
