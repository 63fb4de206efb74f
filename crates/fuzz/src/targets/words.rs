//! Selectors, quantities, times and names: the small languages in fields and queries.

use coracle_api::quantity::Quantity;
use coracle_api::selector::{FieldSelector, LabelSelector};
use coracle_api::{names, time};
use serde_json::Value;

/// A selector can be asked about anything.
pub fn run_selectors(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Ok(selector) = LabelSelector::parse(text) {
        let _ = selector.matches(|key| (key.len() % 2 == 0).then_some("b"));
    }
    if let Ok(selector) = FieldSelector::parse(text) {
        let _ = selector.matches(|_| Some("a"));
        let _ = selector.unsupported_field(|field| field == "metadata.name");
    }
    if let Ok(value) = serde_json::from_str::<Value>(text) {
        let _ = LabelSelector::from_value(Some(&value));
        let _ = LabelSelector::from_map(Some(&value));
    }
}

/// The canonical form of a quantity is that of an equal quantity.
pub fn run_quantities(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Ok(quantity) = text.parse::<Quantity>() {
        let shown = quantity.to_string();
        let again: Quantity =
            shown.parse().unwrap_or_else(|_| panic!("{text:?} is shown as {shown:?}"));
        assert_eq!(again.to_string(), shown, "{text:?}");
        assert_eq!(again.value(), quantity.value(), "{text:?} {shown:?}");
        assert_eq!(again.milli_value(), quantity.milli_value(), "{text:?} {shown:?}");
    }
    if let Some(at) = time::parse(text) {
        let shown = time::micros(at);
        assert_eq!(time::parse(&shown).map(time::micros), Some(shown), "{text:?}");
    }
    for check in [
        names::dns_label,
        names::dns_subdomain,
        names::qualified_name,
        names::label_value,
        names::path_segment,
    ] {
        let _ = check(text);
    }
}

pub fn selector_seeds() -> Vec<Vec<u8>> {
    super::texts(&[
        "a=b,c!=d,e in (f, g),h notin (i),j,!k",
        "example.com/a==b, x in (), y>1,z<2",
        "metadata.name=a,spec.nodeName!=b,status.phase=Running",
        r"metadata.name=a\,b\=c\\",
        r#"{"matchLabels":{"a":"b"},"matchExpressions":[{"key":"k","operator":"NotIn","values":["v"]}]}"#,
    ])
}

pub fn quantity_seeds() -> Vec<Vec<u8>> {
    super::texts(&[
        "100m",
        "1.5Gi",
        "12e6",
        "-0.5",
        "1E",
        "1e-9",
        "9223372036854775807",
        "0.000000001",
        "1n",
        "1Ei",
        "+.5k",
        "1.",
        "2026-01-01T00:00:00Z",
        "2026-02-28T23:59:60.123456789+14:00",
        "a.b-c",
        "example.com/name",
    ])
}
