//! `StorageClass` and `VolumeAttributesClass`: what volumes people may ask for.

use coracle_api::names;
use coracle_api::status::{FieldErrors, Path};
use serde_json::Value;

use crate::rules::Rules;
use crate::rules::checks::{immutable, one_of, required_one_of, unique};
use crate::rules::generic::same;
use crate::rules::json::{Read, default};

/// As upstream: what a driver is told must fit an object.
const MAX_PARAMETERS: usize = 512;
const PARAMETERS_BYTES: usize = 256 * 1024;

pub static CLASS: Rules = Rules {
    default: |class| {
        default(class, "reclaimPolicy", "Delete");
        default(class, "volumeBindingMode", "Immediate");
    },
    validate: |class, errors| {
        provisioner(&class["provisioner"], "provisioner", errors);
        parameters(&class["parameters"], errors);
        one_of(&class["reclaimPolicy"], &["Delete", "Retain"], "reclaimPolicy", errors);
        let modes = ["Immediate", "WaitForFirstConsumer"];
        required_one_of(&class["volumeBindingMode"], &modes, "volumeBindingMode", errors);
        topologies(&class["allowedTopologies"], &Path::new("allowedTopologies"), errors);
    },
    validate_update: |new, old, errors| {
        for field in ["parameters", "provisioner", "reclaimPolicy"] {
            if !same(&new[field], &old[field]) {
                errors.forbidden(field, format!("updates to {field} are forbidden."));
            }
        }
        immutable(
            &new["volumeBindingMode"],
            &old["volumeBindingMode"],
            "volumeBindingMode",
            errors,
        );
    },
    ..Rules::GENERIC
};

pub static ATTRIBUTES_CLASS: Rules = Rules {
    validate: |class, errors| {
        provisioner(&class["driverName"], "driverName", errors);
        if class["parameters"].size() == 0 {
            errors.required("parameters", "must contain at least one attribute/value pair");
        }
        parameters(&class["parameters"], errors);
    },
    validate_update: |new, old, errors| {
        for field in ["driverName", "parameters"] {
            if !same(&new[field], &old[field]) {
                errors.forbidden(field, format!("updates to {field} are forbidden."));
            }
        }
    },
    ..Rules::GENERIC
};

fn provisioner(name: &Value, path: &str, errors: &mut FieldErrors) {
    let name = name.text();
    if name.is_empty() {
        errors.required(path, "");
    } else {
        errors.invalid_each(path, name, names::qualified_name(&name.to_lowercase()));
    }
}

fn parameters(parameters: &Value, errors: &mut FieldErrors) {
    if parameters.size() > MAX_PARAMETERS {
        errors.too_long("parameters", MAX_PARAMETERS);
        return;
    }
    let mut bytes = 0;
    for (key, value) in parameters.entries() {
        if key.is_empty() {
            errors.invalid("parameters", "", "field can not be empty.");
        }
        bytes += key.len() + value.text().len();
    }
    if bytes > PARAMETERS_BYTES {
        errors.too_long("parameters", PARAMETERS_BYTES);
    }
}

/// Checks in which places volumes of a class may be.
fn topologies(terms: &Value, path: &Path, errors: &mut FieldErrors) {
    let mut before: Vec<&Value> = Vec::new();
    for (index, term) in terms.items().iter().enumerate() {
        let at = path.index(index).child("matchLabelExpressions");
        let mut keys = Vec::new();
        for (index, expression) in term["matchLabelExpressions"].items().iter().enumerate() {
            let at = at.index(index);
            let key = expression["key"].text();
            if expression["values"].size() == 0 {
                errors.required(at.child("values"), "");
            }
            let mut values = Vec::new();
            for (index, value) in expression["values"].items().iter().enumerate() {
                unique(&mut values, value.text(), at.child("values").index(index), errors);
            }
            errors.invalid_each(at.child("key"), key, names::qualified_name(key));
            unique(&mut keys, key, at.child("key"), errors);
        }
        if before.contains(&term) {
            errors.duplicate(path.index(index).child("matchLabelExpressions"), "");
        }
        before.push(term);
    }
}
