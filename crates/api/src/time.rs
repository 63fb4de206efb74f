//! The two forms in which the API writes times, and the only clock in this crate.

use jiff::Timestamp;
use jiff::fmt::strtime;

/// This moment, to the second: `2026-11-23T06:00:00Z`.
pub fn now() -> String {
    seconds(Timestamp::now())
}

/// This moment, to the microsecond: `2026-11-23T06:00:00.000000Z`.
pub fn now_micro() -> String {
    micros(Timestamp::now())
}

/// The form of `metav1.Time`.
pub fn seconds(at: Timestamp) -> String {
    // A constant format of a valid timestamp cannot fail; the fallback is the same moment in jiff's own RFC 3339.
    strtime::format("%Y-%m-%dT%H:%M:%SZ", at).unwrap_or_else(|_| at.to_string())
}

/// The form of `metav1.MicroTime`.
pub fn micros(at: Timestamp) -> String {
    strtime::format("%Y-%m-%dT%H:%M:%S.%6fZ", at).unwrap_or_else(|_| at.to_string())
}

/// Reads either form, and any other RFC 3339 time with an offset.
pub fn parse(text: &str) -> Option<Timestamp> {
    let (date, _) = text.split_once(['T', 't'])?;
    // RFC 3339 has four digits of year and no sign, while jiff also reads wider ISO 8601 years.
    if date.len() != 10 || text.contains('[') {
        return None;
    }
    text.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_in_both_forms_and_read_back() {
        let at = parse("2026-11-23T08:00:00.1234567+02:00").unwrap();
        assert_eq!(seconds(at), "2026-11-23T06:00:00Z");
        assert_eq!(micros(at), "2026-11-23T06:00:00.123456Z");
        assert_eq!(parse(&micros(at)).map(micros), Some(micros(at)));
        assert_eq!((now().len(), now_micro().len()), (20, 27));
        assert!(parse(&now()).is_some());
    }

    #[test]
    fn text_that_is_no_time_is_refused() {
        for text in [
            "",
            "today",
            "2026-11-23",
            "2026-11-23T06:00:00",
            "2026-13-01T00:00:00Z",
            "2026-11-23 06:00:00Z",
            "+002026-11-23T06:00:00Z",
            "2026-11-23T06:00:00+02:00[Europe/Berlin]",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
