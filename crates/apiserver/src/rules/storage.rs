//! `StorageClass`, `CSIDriver` and their kin.

use coracle_api::names;
use serde_json::json;

use crate::rules::Rules;
use crate::rules::checks::{immutable, one_of, required_one_of};
use crate::rules::generic::same;
use crate::rules::json::{Read, default, default_zero, object};

pub static CLASS: Rules = Rules {
    default: |class| {
        default(class, "reclaimPolicy", "Delete");
        default(class, "volumeBindingMode", "Immediate");
    },
    validate: |class, errors| {
        let provisioner = class["provisioner"].text();
        if provisioner.is_empty() {
            errors.required("provisioner", "");
        } else {
            errors.invalid_each(
                "provisioner",
                provisioner,
                names::qualified_name(&provisioner.to_lowercase()),
            );
        }
        one_of(&class["reclaimPolicy"], &["Delete", "Retain"], "reclaimPolicy", errors);
        let modes = ["Immediate", "WaitForFirstConsumer"];
        required_one_of(&class["volumeBindingMode"], &modes, "volumeBindingMode", errors);
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

pub static CSI_DRIVER: Rules = Rules {
    default: |driver| {
        let spec = object(driver, "spec");
        default(spec, "attachRequired", true);
        for field in ["podInfoOnMount", "storageCapacity", "requiresRepublish", "seLinuxMount"] {
            default(spec, field, false);
        }
        default(spec, "fsGroupPolicy", "ReadWriteOnceWithFSType");
        default_zero(spec, "volumeLifecycleModes", json!(["Persistent"]));
    },
    ..Rules::GENERIC
};
