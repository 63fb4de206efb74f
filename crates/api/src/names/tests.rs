use proptest::prelude::*;

use super::*;

fn check(rule: fn(&str) -> Vec<String>, good: &[&str], bad: &[&str]) {
    for value in good {
        assert_eq!(rule(value), Vec::<String>::new(), "{value:?} is good");
    }
    for value in bad {
        assert!(!rule(value).is_empty(), "{value:?} is bad");
    }
}

#[test]
fn each_rule_tells_good_from_bad() {
    let long = "a".repeat(254);
    let label = &long[..63];
    let longer_label = &long[..64];
    check(
        dns_label,
        &["a", "a-1", "0a", label],
        &["", "-a", "a-", "A", "a.b", "a_b", longer_label, "é", " a"],
    );
    check(
        dns_subdomain,
        &["a", "a.b-c.d", "1.2", &long[..253]],
        &["", ".a", "a.", "a..b", "A.b", "a/b", &long],
    );
    check(dns_1035_label, &["a", "a-1", label], &["", "1a", "-a", "a-", "a.b", longer_label]);
    check(wildcard_dns_subdomain, &["*.a", "*.foo.bar"], &["*", "a", "*.*.a", "*a.b", "*."]);
    check(
        qualified_name,
        &["a", "A.b_c-d", "example.com/Name", "1"],
        &["", "/", "a/", "/a", "a/b/c", "-a", "a-", "E.com/a", longer_label],
    );
    check(label_value, &["", "a", "A_1.b-c", label], &["-a", "a-", "a b", "a/b", longer_label]);
    check(path_segment, &["a", "system:node", "a b"], &[".", "..", "a/b", "a%b"]);
    check(
        config_key,
        &["a", "A.b_c-d", "...a"].map(|key| if key == "...a" { ".a" } else { key }),
        &["", ".", "..", "..a", "a/b", "é", &long],
    );
    check(environment_variable, &["A", "a.b-c", "1", "a b"], &["", "a=b", "é", "a\n"]);
    check(c_identifier, &["a", "_1", "A9"], &["", "1a", "a-b"]);
    check(port_name, &["http", "a-1"], &["", "1", "a--b", "-a", "a-", "A", "abcdefghijklmnop"]);
    check(percent, &["0%", "100%"], &["", "%", "1", "-1%", "1.5%"]);
    check(http_header, &["X-A"], &["", "a b", "a:"]);
    check(ip_address, &["10.0.0.1", "::1"], &["", "10.0.0", "10.0.0.256", "010.0.0.1", "::1/64"]);
    assert!(port_number(1).is_empty() && port_number(65535).is_empty());
    assert_eq!(port_number(0), ["must be between 1 and 65535, inclusive"]);
}

#[test]
fn messages_are_upstreams() {
    assert_eq!(
        dns_subdomain("A"),
        [
            "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start \
          and end with an alphanumeric character (e.g. 'example.com', regex used for validation is \
          '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')"
        ]
    );
    assert_eq!(
        dns_label("A"),
        [
            "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end \
          with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is \
          '[a-z0-9]([-a-z0-9]*[a-z0-9])?')"
        ]
    );
    assert_eq!(dns_label("a.b"), ["must not contain dots"]);
    assert_eq!(
        qualified_name("a b"),
        [
            "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an \
          alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is \
          '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')"
        ]
    );
    assert_eq!(qualified_name("/a"), ["prefix part must be non-empty"]);
    assert_eq!(label_value(&"a".repeat(64)), ["must be no more than 63 bytes"]);
    assert_eq!(config_key(".."), ["must not be '..'"]);
}

#[test]
fn generated_names_start_with_the_prefix_and_fit() {
    let name = generate("web-");
    assert!(name.starts_with("web-") && name.len() == 9 && dns_label(&name).is_empty(), "{name}");
    let long = generate(&"a".repeat(100));
    assert_eq!((long.len(), dns_label(&long)), (63, vec![]));
    assert!(as_prefix("web-", dns_label).is_empty());
    assert!(!as_prefix("Web-", dns_label).is_empty());
    assert_eq!(random_suffix(10).len(), 10);
    assert_eq!(safe_encode("0123456789"), safe_encode("0123456789"));
}

proptest! {
    #[test]
    fn labels_are_subdomains_and_label_values(name in "[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?") {
        prop_assert!(dns_label(&name).is_empty());
        prop_assert!(dns_subdomain(&name).is_empty());
        prop_assert!(label_value(&name).is_empty());
        let qualified = [name.as_str(), name.as_str()].join("/");
        prop_assert!(qualified_name(&qualified).is_empty());
    }

    #[test]
    fn no_text_makes_a_check_panic(text: String) {
        for check in [dns_label, dns_subdomain, dns_1035_label, wildcard_dns_subdomain, qualified_name, label_value, path_segment, config_key, environment_variable, port_name] {
            let _ = check(&text);
            let _ = as_prefix(&text, check);
        }
        let _ = generate(&text);
    }
}
