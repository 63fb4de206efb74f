use proptest::prelude::*;
use serde_json::json;

use super::*;

fn matches(selector: &str, labels: &[(&str, &str)]) -> bool {
    let selector =
        LabelSelector::parse(selector).unwrap_or_else(|error| panic!("{selector}: {error}"));
    selector.matches(|key| labels.iter().find(|(name, _)| *name == key).map(|(_, value)| *value))
}

#[test]
fn labels_match_as_written() {
    let web = [("app", "web"), ("tier", "front"), ("size", "7"), ("empty", "")];
    let good = [
        "",
        "app",
        "app=web",
        "app==web",
        "app!=db",
        "app in (web,db)",
        "app in (web, db),tier",
        "!old",
        "other!=x",
        "app notin (db)",
        "other notin (x)",
        "size>6",
        "size<8",
        " app = web , tier = front ",
        "empty=",
        "empty in ()",
        "empty in (,x)",
        "empty in (x,)",
        "in notin (x)",
    ];
    let bad = [
        "app=db",
        "app!=web",
        "old",
        "!app",
        "app in (db)",
        "app notin (web,db)",
        "size>7",
        "size<7",
        "app>1",
        "other>1",
        "app=web,old",
        "other=",
    ];
    for selector in good {
        assert!(matches(selector, &web), "{selector}");
    }
    for selector in bad {
        assert!(!matches(selector, &web), "{selector}");
    }
}

#[test]
fn malformed_label_selectors_are_explained() {
    let cases = [
        (",", "found ',', expected: !, identifier, or 'end of string'"),
        ("a=b,", "found '', expected: identifier after ','"),
        ("a b", "found 'b', expected: in, notin, =, ==, !=, gt, lt"),
        ("a in", "found '', expected: '('"),
        ("a in (b", "found '', expected: ',' or ')'"),
        ("!", "found '', expected: identifier"),
        ("a=b c", "found 'c', expected: ',' or 'end of string'"),
        ("a==b=c", "found '=', expected: ',' or 'end of string'"),
        ("a>x", "the value must be an integer"),
        ("-a=b", "name part must consist of alphanumeric characters"),
        ("a=-b", "a valid label must be an empty string or consist of alphanumeric characters"),
    ];
    for (selector, words) in cases {
        let error = LabelSelector::parse(selector).expect_err(selector).to_string();
        assert!(
            error.starts_with("unable to parse requirement: ") && error.contains(words),
            "{selector}: {error}"
        );
    }
}

#[test]
fn selectors_of_objects_match_what_they_say() {
    let selector = json!({
        "matchLabels": { "app": "web" },
        "matchExpressions": [
            { "key": "tier", "operator": "In", "values": ["front", "back"] },
            { "key": "old", "operator": "DoesNotExist" }
        ]
    });
    let selector = LabelSelector::from_value(Some(&selector)).unwrap();
    assert!(selector.matches_labels(Some(&json!({ "app": "web", "tier": "back" }))));
    assert!(!selector.matches_labels(Some(&json!({ "app": "web", "tier": "back", "old": "" }))));
    assert!(!selector.matches_labels(None));
    assert_eq!(selector.to_string(), "app=web,tier in (back,front),!old");
    assert!(!LabelSelector::from_value(None).unwrap().matches_labels(Some(&json!({}))));
    assert!(LabelSelector::from_value(Some(&json!({}))).unwrap().is_everything());
    let wrong =
        json!({ "matchExpressions": [{ "key": "a", "operator": "Near", "values": ["b"] }] });
    let error = LabelSelector::from_value(Some(&wrong)).unwrap_err();
    assert_eq!(error.to_string(), "\"Near\" is not a valid label selector operator");
    assert!(
        LabelSelector::from_value(Some(
            &json!({ "matchExpressions": [{ "key": "a", "operator": "In" }] })
        ))
        .is_err()
    );
    assert_eq!(LabelSelector::from_map(Some(&json!({}))), LabelSelector::Nothing);
    assert!(
        LabelSelector::from_map(Some(&json!({ "a": "b" })))
            .matches_labels(Some(&json!({ "a": "b", "c": "d" })))
    );
}

fn fields(selector: &str, values: &[(&str, &str)]) -> bool {
    let selector =
        FieldSelector::parse(selector).unwrap_or_else(|error| panic!("{selector}: {error}"));
    selector
        .matches(|field| values.iter().find(|(name, _)| *name == field).map(|(_, value)| *value))
}

#[test]
fn fields_match_as_written() {
    let pod = [("metadata.name", "a,b=c\\"), ("spec.nodeName", "node-0")];
    for good in [
        "",
        "spec.nodeName=node-0",
        "spec.nodeName==node-0",
        "spec.nodeName!=node-1",
        "status.phase=",
        "status.phase!=Running",
        "metadata.name=a\\,b\\=c\\\\",
        "spec.nodeName=node-0,metadata.name!=x",
    ] {
        assert!(fields(good, &pod), "{good}");
    }
    for bad in [
        "spec.nodeName=",
        "spec.nodeName!=node-0",
        "status.phase=Running",
        "spec.nodeName=node-0,metadata.name=x",
    ] {
        assert!(!fields(bad, &pod), "{bad}");
    }
    for malformed in ["spec.nodeName", "a=b=c", "a=\\x", "a=b\\"] {
        assert!(FieldSelector::parse(malformed).is_err(), "{malformed}");
    }
    let error = FieldSelector::parse("a=b,foo").unwrap_err();
    assert_eq!(error.to_string(), "invalid selector: 'a=b,foo'; can't understand 'foo'");
}

#[test]
fn exact_requirements_can_be_asked_for() {
    let selector = FieldSelector::parse("metadata.name=web,spec.nodeName!=x").unwrap();
    assert_eq!(selector.requires_exact("metadata.name"), Some("web"));
    assert_eq!(selector.requires_exact("spec.nodeName"), None);
    assert_eq!(selector.unsupported_field(|field| field == "metadata.name"), Some("spec.nodeName"));
}

fn any_requirement() -> impl Strategy<Value = Requirement> {
    let value = "([a-z0-9]([a-z0-9._-]{0,4}[a-z0-9])?)?";
    let values = prop::collection::btree_set(value, 1..4);
    let operator = prop_oneof![
        values.clone().prop_map(Operator::In),
        values.prop_map(Operator::NotIn),
        Just(Operator::Exists),
        Just(Operator::DoesNotExist),
        (0..100_i64).prop_map(Operator::GreaterThan),
        (0..100_i64).prop_map(Operator::LessThan),
    ];
    ("([a-z]{1,3}\\.io/)?[a-d]{1,2}", operator)
        .prop_map(|(key, operator)| Requirement { key, operator })
}

proptest! {
    #[test]
    fn a_printed_selector_reads_as_itself(requirements in prop::collection::vec(any_requirement(), 0..5)) {
        let mut sorted = requirements;
        sorted.sort_by(|one, other| one.key.cmp(&other.key));
        let selector = LabelSelector::All(sorted);
        prop_assert_eq!(LabelSelector::parse(&selector.to_string()).unwrap(), selector);
    }

    #[test]
    fn an_operator_and_its_opposite_never_agree(value in prop::option::of("[a-c]"), set in prop::collection::btree_set("[a-c]", 1..3)) {
        let requirement = |operator| Requirement { key: "k".to_owned(), operator };
        let value = value.as_deref();
        prop_assert_ne!(requirement(Operator::In(set.clone())).matches(value), requirement(Operator::NotIn(set)).matches(value));
        prop_assert_ne!(requirement(Operator::Exists).matches(value), requirement(Operator::DoesNotExist).matches(value));
    }

    #[test]
    fn a_printed_field_selector_reads_as_itself(terms in prop::collection::vec(("[a-z.]{1,5}", "[a-z,=!\\\\ ]{0,5}", any::<bool>()), 0..4)) {
        let terms = terms.into_iter().map(|(field, value, negated)| FieldTerm { field, value, negated }).collect();
        let selector = FieldSelector { terms };
        prop_assert_eq!(FieldSelector::parse(&selector.to_string()).unwrap(), selector);
    }

    #[test]
    fn no_text_makes_the_parsers_panic(text: String) {
        let _ = LabelSelector::parse(&text);
        let _ = FieldSelector::parse(&text);
    }
}
