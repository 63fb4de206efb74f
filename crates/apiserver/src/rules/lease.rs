//! `Lease`.

use coracle_api::names;
use coracle_api::status::Path;

use crate::rules::Rules;
use crate::rules::checks::{not_negative, positive};
use crate::rules::json::Read;

pub static RULES: Rules = Rules {
    validate: |lease, errors| {
        let (spec, path) = (&lease["spec"], Path::new("spec"));
        positive(&spec["leaseDurationSeconds"], path.child("leaseDurationSeconds"), errors);
        not_negative(&spec["leaseTransitions"], path.child("leaseTransitions"), errors);
        let strategy = spec["strategy"].text();
        // Upstream names the field twice.
        let at = path.child("strategy").child("strategy");
        if strategy.contains('/') {
            errors.invalid_each(at, strategy, names::qualified_name(strategy));
        } else if spec["strategy"].is_set() && strategy != "OldestEmulationVersion" {
            errors.not_supported(at, strategy, &["OldestEmulationVersion"]);
        }
        if !spec["preferredHolder"].text().is_empty() && spec["strategy"].text().is_empty() {
            let detail = "may only be specified if `strategy` is defined";
            errors.forbidden(path.child("preferredHolder"), detail);
        }
    },
    ..Rules::GENERIC
};
