//! `Node`.

use crate::rules::json::{Read, object, set};
use crate::rules::{Rules, generic};

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
    ..Rules::GENERIC
};
