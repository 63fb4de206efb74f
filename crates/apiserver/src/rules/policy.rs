//! `PodDisruptionBudget` and `PriorityClass`.

use serde_json::json;

use crate::rules::json::default;
use crate::rules::{Rules, generic};

pub static DISRUPTION_BUDGET: Rules = Rules {
    prepare_create: |budget| {
        let status = json!({"disruptionsAllowed": 0, "currentHealthy": 0, "desiredHealthy": 0, "expectedPods": 0});
        generic::start_status(budget, status);
    },
    ..Rules::GENERIC
};

pub static PRIORITY_CLASS: Rules = Rules {
    default: |class| default(class, "preemptionPolicy", "PreemptLowerPriority"),
    ..Rules::GENERIC
};
