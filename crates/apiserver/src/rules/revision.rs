//! `ControllerRevision`.

use crate::rules::Rules;
use crate::rules::checks::{immutable, not_negative};
use crate::rules::json::Read;

pub static RULES: Rules = Rules {
    validate: |revision, errors| {
        if !revision["data"].is_set() {
            errors.required("data", "data is mandatory");
        }
        not_negative(&revision["revision"], "revision", errors);
    },
    validate_update: |new, old, errors| immutable(&new["data"], &old["data"], "data", errors),
    ..Rules::GENERIC
};
