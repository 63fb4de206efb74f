//! `StorageVersionMigration`.

use coracle_api::names;
use coracle_api::status::Path;

use crate::rules::Rules;
use crate::rules::checks::{immutable, required};
use crate::rules::json::Read;

pub static RULES: Rules = Rules {
    validate: |migration, errors| {
        let (resource, path) =
            (&migration["spec"]["resource"], Path::new("spec").child("resource"));
        let group = resource["group"].text();
        if !group.is_empty() {
            errors.invalid_each(path.child("group"), group, names::dns_subdomain(group));
        }
        required(&resource["resource"], path.child("resource"), errors);
    },
    validate_update: |new, old, errors| immutable(&new["spec"], &old["spec"], "spec", errors),
    ..Rules::GENERIC
};
