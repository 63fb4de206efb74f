//! `Endpoints` and `EndpointSlice`.

use crate::rules::Rules;
use crate::rules::json::{default, default_zero, each};

pub static ENDPOINTS: Rules = Rules {
    default: |endpoints| {
        each(endpoints, "subsets", |subset| each(subset, "ports", |port| default_zero(port, "protocol", "TCP")));
    },
    ..Rules::GENERIC
};

pub static SLICE: Rules = Rules {
    default: |slice| {
        each(slice, "ports", |port| {
            default(port, "name", "");
            default(port, "protocol", "TCP");
        });
    },
    ..Rules::GENERIC
};
