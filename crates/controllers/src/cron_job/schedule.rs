//! Times of a schedule, in its time zone.

use croner::Cron;
use croner::parser::{CronParser, Seconds, Year};
use jiff::tz::TimeZone;
use jiff::{Timestamp, Zoned};

/// Times looked at after a long pause. Upstream gives up counting at 100 and goes on from the newest.
const MISSED_COUNTED: usize = 100;

/// A schedule that was understood.
#[derive(Debug)]
pub(super) struct Schedule {
    cron: Cron,
    zone: TimeZone,
}

/// The times between two moments.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Missed {
    /// The newest, which is the one to start.
    pub newest: Timestamp,
    /// How many there were; stops counting at a hundred and one.
    pub count: usize,
}

impl Schedule {
    /// Reads the five fields, or `@hourly` and its like.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(schedule: &str, time_zone: Option<&str>) -> Result<Self, String> {
        let parser =
            CronParser::builder().seconds(Seconds::Disallowed).year(Year::Disallowed).build();
        let cron = parser.parse(schedule).map_err(|error| error.to_string())?;
        let zone = match time_zone {
            None => TimeZone::UTC,
            Some(name) => TimeZone::get(name).map_err(|_| format!("unknown time zone {name}"))?,
        };
        Ok(Self { cron, zone })
    }

    /// The first time after `moment`.
    pub fn next_after(&self, moment: Timestamp) -> Option<Timestamp> {
        let from = moment.to_zoned(self.zone.clone());
        self.cron.find_next_occurrence(&from, false).ok().map(|next: Zoned| next.timestamp())
    }

    /// The times after `after`, up to and with `until`.
    pub fn missed(&self, after: Timestamp, until: Timestamp) -> Option<Missed> {
        let newest = self.newest_until(until).filter(|newest| *newest > after)?;
        let mut count = 0;
        let mut cursor = after;
        while count <= MISSED_COUNTED {
            match self.next_after(cursor) {
                Some(next) if next <= until => {
                    count += 1;
                    cursor = next;
                }
                _ => break,
            }
        }
        Some(Missed { newest, count: count.max(1) })
    }

    fn newest_until(&self, until: Timestamp) -> Option<Timestamp> {
        let from = until.to_zoned(self.zone.clone());
        let found: Zoned = self.cron.find_previous_occurrence(&from, true).ok()?;
        Some(found.timestamp())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn time(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn times_follow_the_fields_and_the_zone() {
        let check = |schedule: &str, zone: Option<&str>, after: &str, expected: &str| {
            let schedule = Schedule::parse(schedule, zone).unwrap();
            assert_eq!(schedule.next_after(time(after)), Some(time(expected)));
        };
        check("* * * * *", None, "2026-01-01T00:00:00Z", "2026-01-01T00:01:00Z");
        check("*/15 * * * *", None, "2026-01-01T00:14:59Z", "2026-01-01T00:15:00Z");
        check("@hourly", None, "2026-01-01T00:00:01Z", "2026-01-01T01:00:00Z");
        check("@daily", Some("Europe/Berlin"), "2026-01-01T00:00:00Z", "2026-01-01T23:00:00Z");
        // Either the day of the month or the day of the week: the old cron's rule.
        check("0 0 13 * 5", None, "2026-02-10T00:00:00Z", "2026-02-13T00:00:00Z");
        check("0 0 13 * 5", None, "2026-02-14T00:00:00Z", "2026-02-20T00:00:00Z");
    }

    #[test]
    fn missed_times_are_counted_and_the_newest_is_named() {
        let schedule = Schedule::parse("*/10 * * * *", None).unwrap();
        let missed = schedule.missed(time("2026-01-01T00:00:00Z"), time("2026-01-01T00:35:00Z"));
        assert_eq!(missed, Some(Missed { newest: time("2026-01-01T00:30:00Z"), count: 3 }));
        let exact = schedule.missed(time("2026-01-01T00:00:00Z"), time("2026-01-01T00:10:00Z"));
        assert_eq!(exact, Some(Missed { newest: time("2026-01-01T00:10:00Z"), count: 1 }));
        assert_eq!(
            schedule.missed(time("2026-01-01T00:00:00Z"), time("2026-01-01T00:09:59Z")),
            None
        );
        let many = schedule.missed(time("2025-01-01T00:00:00Z"), time("2026-01-01T00:00:00Z"));
        assert_eq!(many.unwrap().count, MISSED_COUNTED + 1);
    }

    #[test]
    fn nonsense_is_refused() {
        for schedule in ["", "* * * *", "61 * * * *", "* * * * * *", "often"] {
            assert!(Schedule::parse(schedule, None).is_err(), "{schedule}");
        }
        assert!(Schedule::parse("* * * * *", Some("Mars/Olympus")).is_err());
    }
}
