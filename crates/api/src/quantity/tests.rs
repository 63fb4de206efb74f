use proptest::prelude::*;

use super::*;

fn canonical(text: &str) -> String {
    text.parse::<Quantity>().unwrap_or_else(|error| panic!("{text}: {error}")).to_string()
}

#[test]
fn quantities_print_in_canonical_form() {
    // After upstream's quantity_test.go.
    let cases = [
        ("0", "0"),
        ("0n", "0"),
        ("0Ki", "0"),
        ("-0", "0"),
        ("0.0e5", "0"),
        ("1Ki", "1Ki"),
        ("8Ki", "8Ki"),
        ("7Mi", "7Mi"),
        ("1024Ki", "1Mi"),
        ("1024", "1024"),
        ("1536Mi", "1536Mi"),
        ("1.5Gi", "1536Mi"),
        ("1Ei", "1Ei"),
        ("0.5Ei", "512Pi"),
        ("1.1Ki", "1126400m"),
        ("0.5Mi", "512Ki"),
        ("0.5Ki", "512"),
        ("1000Ki", "1000Ki"),
        ("1m", "1m"),
        ("1000m", "1"),
        ("1500m", "1500m"),
        ("1.5", "1500m"),
        ("0.001k", "1"),
        ("2000k", "2M"),
        ("1k", "1k"),
        ("1000", "1k"),
        ("100", "100"),
        ("100u", "100u"),
        ("0.1n", "1n"),
        ("1.0000000001", "1000000001n"),
        ("5E", "5E"),
        ("0.5E", "500P"),
        ("1e3", "1e3"),
        ("1E6", "1e6"),
        ("10e-3", "10e-3"),
        ("1.5e0", "1500e-3"),
        ("100e6", "100e6"),
        ("1e-9", "1e-9"),
        ("12e2", "1200"),
        ("+1", "1"),
        ("-1.5Gi", "-1536Mi"),
        ("-1m", "-1m"),
        (".5", "500m"),
        ("5.", "5"),
        ("007", "7"),
        ("9223372036854775807", "9223372036854775807"),
        ("9223372036854775808", "9223372036854775807"),
        ("1000E", "9223372036854775807"),
        ("-1000E", "-9223372036854775807"),
        ("8Ei", "9223372036854775807"),
        ("1e100000", "9223372036854775807"),
        ("1e-100000", "1e-9"),
        ("0.0000000000000000000000000000000000000000000001", "1n"),
        ("100000000000000000000000000000000000000000000", "9223372036854775807"),
    ];
    for (text, expected) in cases {
        assert_eq!(canonical(text), expected, "{text}");
    }
}

#[test]
fn text_that_is_no_quantity_is_refused() {
    for text in [
        "",
        "-",
        "+",
        ".",
        "Ki",
        "m",
        "1.1.M",
        "1+1.0M",
        "0.1mi",
        "0.1am",
        "aoeu",
        ".5i",
        "1i",
        "-3.01i",
        "1 ",
        " 1",
        "1e",
        "0x10",
        "1Kii",
        "--1",
        "1e9999999999",
        "٣",
    ] {
        assert!(text.parse::<Quantity>().is_err(), "{text}");
    }
    let suffix = "1i".parse::<Quantity>().unwrap_err();
    assert_eq!(suffix.to_string(), "unable to parse quantity's suffix");
    assert_eq!("1x".parse::<Quantity>(), Err(QuantityError::Format));
}

#[test]
fn values_round_away_from_zero() {
    let quantity = |text: &str| text.parse::<Quantity>().unwrap();
    assert_eq!(quantity("1500m").value(), 2);
    assert_eq!(quantity("-1500m").value(), -2);
    assert_eq!(quantity("1u").milli_value(), 1);
    assert_eq!(quantity("0.5").milli_value(), 500);
    assert_eq!(quantity("1Gi").value(), 1 << 30);
    assert_eq!(quantity("1E").milli_value(), i64::MAX, "what does not fit is capped");
    assert!(quantity("1k") == quantity("1000") && quantity("1Ki") > quantity("1k"));
    assert!((quantity("1500m").as_f64() - 1.5).abs() < f64::EPSILON);
}

#[test]
fn sums_keep_the_notation_of_the_first_that_is_something() {
    let sum = |one: &str, other: &str| {
        (one.parse::<Quantity>().unwrap() + other.parse().unwrap()).to_string()
    };
    assert_eq!(sum("0", "1Gi"), "1Gi");
    assert_eq!(sum("512Mi", "512Mi"), "1Gi");
    assert_eq!(sum("100m", "1"), "1100m");
    assert_eq!((Quantity::from_milli(250) - Quantity::from_milli(1000)).to_string(), "-750m");
    let total: Quantity =
        ["1", "2", "500m"].iter().map(|text| text.parse::<Quantity>().unwrap()).sum();
    assert_eq!(total.to_string(), "3500m");
}

fn any_quantity() -> impl Strategy<Value = String> {
    let suffix = prop::sample::select(vec![
        "", "n", "u", "m", "k", "M", "G", "T", "P", "E", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei", "e3",
        "E-3", "e0", "e18",
    ]);
    ("[+-]?(0|[1-9][0-9]{0,20})(\\.[0-9]{0,22})?", suffix)
        .prop_map(|(number, suffix)| format!("{number}{suffix}"))
}

proptest! {
    #[test]
    fn the_canonical_form_means_the_same_and_is_stable(text in any_quantity()) {
        let quantity: Quantity = text.parse().unwrap();
        let printed = quantity.to_string();
        let again: Quantity = printed.parse().unwrap();
        prop_assert_eq!(quantity, again);
        prop_assert_eq!(printed, again.to_string());
    }

    #[test]
    fn addition_is_undone_by_subtraction(one in -1_000_000_000_i64..1_000_000_000, other in -1_000_000_000_i64..1_000_000_000) {
        let (one, other) = (Quantity::from_milli(one), Quantity::new(other, Format::BinarySi));
        prop_assert_eq!(one + other - other, one);
        prop_assert_eq!((one + other).milli_value(), one.milli_value() + other.milli_value());
        prop_assert_eq!(one < other, one - other < Quantity::ZERO);
    }

    #[test]
    fn decimals_agree_with_arithmetic(whole in 0_i64..1_000_000, thousandths in 0_i64..1000) {
        let quantity: Quantity = format!("{whole}.{thousandths:03}").parse().unwrap();
        prop_assert_eq!(quantity.milli_value(), whole * 1000 + thousandths);
    }

    #[test]
    fn no_text_makes_the_parser_panic(text: String) {
        let _ = text.parse::<Quantity>();
    }
}
