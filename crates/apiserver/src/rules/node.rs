//! `Node`.

use coracle_api::status::Path;

use crate::rules::json::{Read, object, set};
use crate::rules::{Rules, generic, pod};

pub static RULES: Rules = Rules {
    default: |node| {
        let status = object(node, "status");
        if status["allocatable"].size() == 0 && status["capacity"].size() > 0 {
            let capacity = status["capacity"].clone();
            set(status, "allocatable", capacity);
        }
    },
    // A kubelet registers its node with a status.
    prepare_create: |_| (),
    prepare_update: generic::keep_status,
    fields: |node| vec![("spec.unschedulable", node["spec"]["unschedulable"].flag().to_string())],
    validate: |node, errors| {
        pod::scheduling::taints(&node["spec"]["taints"], &Path::new("spec").child("taints"), errors)
    },
    validate_update: |new, old, errors| {
        let (new, old, path) = (&new["spec"], &old["spec"], Path::new("spec"));
        if !old["providerID"].text().is_empty() && new["providerID"] != old["providerID"] {
            let detail = "node updates may not change providerID except from \"\" to valid";
            errors.forbidden(path.child("providerID"), detail);
        }
        if old["podCIDRs"].size() > 0 && !generic::same(&new["podCIDRs"], &old["podCIDRs"]) {
            let detail = "node updates may not change podCIDR except from \"\" to valid";
            errors.forbidden(path.child("podCIDRs"), detail);
        }
    },
    ..Rules::GENERIC
};
