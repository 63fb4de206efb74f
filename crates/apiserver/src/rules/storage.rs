//! `StorageClass`, `CSIDriver` and their kin.

use serde_json::json;

use crate::rules::Rules;
use crate::rules::json::{default, default_zero, object};

pub static CLASS: Rules = Rules {
    default: |class| {
        default(class, "reclaimPolicy", "Delete");
        default(class, "volumeBindingMode", "Immediate");
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
