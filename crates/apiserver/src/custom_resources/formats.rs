//! The formats of strings that upstream checks in custom resources; others say something to people only.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use base64::Engine as _;

/// Whether the text has this format. Unknown formats fit everything.
pub(crate) fn is_valid(format: &str, text: &str) -> bool {
    match format {
        "date-time" | "datetime" => text.parse::<jiff::Timestamp>().is_ok(),
        "date" => is_date(text),
        "duration" => is_duration(text),
        "byte" => base64::prelude::BASE64_STANDARD.decode(text).is_ok(),
        "ipv4" => text.parse::<Ipv4Addr>().is_ok(),
        "ipv6" => text.parse::<Ipv6Addr>().is_ok(),
        "ip" => text.parse::<IpAddr>().is_ok(),
        "cidr" => is_cidr(text),
        "uuid" | "uuid3" | "uuid4" | "uuid5" => is_uuid(format, text),
        "mac" => is_mac(text),
        "email" => is_email(text),
        "hostname" => is_hostname(text),
        "uri" => is_uri(text),
        "hexcolor" => {
            let digits = text.strip_prefix('#').unwrap_or(text);
            matches!(digits.len(), 3 | 6) && digits.bytes().all(|byte| byte.is_ascii_hexdigit())
        }
        "bsonobjectid" => text.len() == 24 && text.bytes().all(|byte| byte.is_ascii_hexdigit()),
        "k8s-short-name" => coracle_api::names::dns_label(text).is_empty(),
        "k8s-long-name" => coracle_api::names::dns_subdomain(text).is_empty(),
        _ => true,
    }
}

fn is_date(text: &str) -> bool {
    text.len() == 10 && text.parse::<jiff::civil::Date>().is_ok()
}

/// A duration as Go writes it (`1h30m`), or with the words of days and weeks.
fn is_duration(text: &str) -> bool {
    let mut rest = text.trim_start_matches(['+', '-']);
    if rest == "0" {
        return true;
    }
    if rest.is_empty() {
        return false;
    }
    while !rest.is_empty() {
        let number = rest.find(|character: char| !character.is_ascii_digit() && character != '.');
        let Some(unit_at) = number.filter(|&at| at > 0) else { return false };
        let unit_and_rest = rest[unit_at..].trim_start();
        let end = unit_and_rest
            .find(|character: char| character.is_ascii_digit())
            .unwrap_or(unit_and_rest.len());
        let known = ["ns", "us", "µs", "ms", "s", "m", "h", "d", "w"];
        if !known.contains(&unit_and_rest[..end].trim()) {
            return false;
        }
        rest = &unit_and_rest[end..];
    }
    true
}

fn is_cidr(text: &str) -> bool {
    let Some((address, bits)) = text.split_once('/') else { return false };
    let max = match address.parse::<IpAddr>() {
        Ok(IpAddr::V4(_)) => 32,
        Ok(IpAddr::V6(_)) => 128,
        Err(_) => return false,
    };
    bits.parse::<u8>().is_ok_and(|bits| bits <= max)
}

fn is_uuid(format: &str, text: &str) -> bool {
    let Ok(uuid) = uuid::Uuid::try_parse(text) else { return false };
    match format.strip_prefix("uuid").and_then(|version| version.parse::<usize>().ok()) {
        Some(version) => uuid.get_version_num() == version,
        None => true,
    }
}

fn is_mac(text: &str) -> bool {
    let separator = if text.contains('-') { '-' } else { ':' };
    let parts: Vec<&str> = text.split(separator).collect();
    matches!(parts.len(), 6 | 8 | 20)
        && parts
            .iter()
            .all(|part| part.len() == 2 && part.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

fn is_email(text: &str) -> bool {
    text.rsplit_once('@').is_some_and(|(user, host)| {
        !user.is_empty() && !host.is_empty() && !text.contains(char::is_whitespace)
    })
}

fn is_hostname(text: &str) -> bool {
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    text.len() <= 255 && text.trim_end_matches('.').split('.').all(label)
}

/// An absolute address or path, as Go's `url.ParseRequestURI` takes it.
fn is_uri(text: &str) -> bool {
    if text.is_empty() || text.chars().any(|character| character.is_control() || character == ' ') {
        return false;
    }
    text.starts_with('/')
        || text.split_once(':').is_some_and(|(scheme, rest)| {
            scheme.starts_with(|first: char| first.is_ascii_alphabetic())
                && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte))
                && !rest.is_empty()
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_are_told_apart() {
        let good = [
            ("date-time", "2026-01-01T00:00:00Z"),
            ("date", "2026-01-31"),
            ("duration", "1h30m"),
            ("duration", "1.5s"),
            ("byte", "YQ=="),
            ("ipv4", "10.0.0.1"),
            ("ipv6", "::1"),
            ("cidr", "10.0.0.0/8"),
            ("uuid", "123e4567-e89b-12d3-a456-426614174000"),
            ("hostname", "a.example"),
            ("uri", "https://a.example/b"),
            ("email", "a@b.c"),
            ("mac", "00:11:22:33:44:55"),
            ("what", "ever"),
        ];
        for (format, text) in good {
            assert!(is_valid(format, text), "{format} {text}");
        }
        let bad = [
            ("date-time", "2026-01-01"),
            ("date", "2026-02-31"),
            ("duration", "1 parsec"),
            ("duration", ""),
            ("byte", "a"),
            ("ipv4", "::1"),
            ("ipv6", "1.2.3.4"),
            ("cidr", "10.0.0.0"),
            ("uuid", "1"),
            ("hostname", "-a"),
            ("uri", "a b"),
            ("email", "a"),
            ("mac", "00:11"),
        ];
        for (format, text) in bad {
            assert!(!is_valid(format, text), "{format} {text}");
        }
    }
}
