//! A number of pods, given as such or as a percentage of others.
//!
//! Upstream: `GetScaledValueFromIntOrPercent` in `apimachinery/pkg/util/intstr`.

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

/// A share of a whole, in pods; a number is the same either way.
pub(crate) struct Share {
    pub rounded_up: i32,
    pub rounded_down: i32,
}

/// The share that `value` is of `total`. Negative ones and what is no percentage are nothing.
pub(crate) fn share(value: &IntOrString, total: i32) -> Share {
    match value {
        IntOrString::Int(number) => {
            Share { rounded_up: (*number).max(0), rounded_down: (*number).max(0) }
        }
        IntOrString::String(text) => {
            let percent: i64 =
                text.strip_suffix('%').and_then(|text| text.parse().ok()).unwrap_or(0).max(0);
            let product = percent.saturating_mul(i64::from(total));
            let fit = |number: i64| i32::try_from(number).unwrap_or(i32::MAX);
            let rounded_up = fit(product.saturating_add(99) / 100);
            Share { rounded_up, rounded_down: fit(product / 100) }
        }
    }
}
