//! `NetworkPolicy`, `Ingress`, `IngressClass`.

use serde_json::{Value, json};

use crate::rules::json::{Read, default, each, object, set, with};
use crate::rules::{Rules, generic};

pub static NETWORK_POLICY: Rules = Rules {
    default: |policy| {
        let spec = object(policy, "spec");
        object(spec, "podSelector");
        for list in ["ingress", "egress"] {
            each(spec, list, |rule: &mut Value| each(rule, "ports", |port| default(port, "protocol", "TCP")));
        }
        if spec["policyTypes"].size() == 0 {
            let types = if spec["egress"].size() > 0 { json!(["Ingress", "Egress"]) } else { json!(["Ingress"]) };
            set(spec, "policyTypes", types);
        }
    },
    ..Rules::GENERIC
};

pub static INGRESS: Rules = Rules {
    prepare_create: |ingress| generic::start_status(ingress, json!({"loadBalancer": {}})),
    ..Rules::GENERIC
};

pub static INGRESS_CLASS: Rules = Rules {
    default: |class| {
        let spec = object(class, "spec");
        with(spec, "parameters", |parameters| default(parameters, "scope", "Cluster"));
    },
    ..Rules::GENERIC
};
