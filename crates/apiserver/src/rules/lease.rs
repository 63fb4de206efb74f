//! `Lease`.

use coracle_api::status::Path;

use crate::rules::Rules;
use crate::rules::checks::{not_negative, positive};

pub static RULES: Rules = Rules {
    validate: |lease, errors| {
        let (spec, path) = (&lease["spec"], Path::new("spec"));
        positive(&spec["leaseDurationSeconds"], path.child("leaseDurationSeconds"), errors);
        not_negative(&spec["leaseTransitions"], path.child("leaseTransitions"), errors);
    },
    ..Rules::GENERIC
};
