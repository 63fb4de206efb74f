//! Cron schedules as `CronJob`s have them: how they are read, and which times they name.
//!
//! Upstream: `robfig/cron` v3. What differs from other crons, and holds here too: a time that a clock change leaves out
//! is left out, and one that it repeats comes twice; `*/2` in a field of days counts as a choice of days, `*` does not.

mod fields;

use std::time::Duration;

use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp, ToSpan, Zoned};

use fields::Fields;

/// A schedule without a time in so many years has none; upstream gives up there, too.
const LONGEST_WAIT_YEARS: i16 = 5;

/// A schedule that was understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Schedule(Kind);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Kind {
    /// Every minute that fits.
    Fields(Fields),
    /// `@every 90m`, counted from the time before.
    Every(SignedDuration),
}

impl Schedule {
    /// Reads five fields, `@hourly` and its like, or `@every 90m`.
    ///
    /// # Errors
    /// What is wrong with it, in the words of upstream's parser.
    pub fn parse(text: &str) -> Result<Self, String> {
        match text.strip_prefix("@every ") {
            Some(wait) => {
                let wait = fields::duration(wait)
                    .map_err(|why| format!("failed to parse duration {text}: {why}"))?;
                Ok(Self(Kind::Every(wait)))
            }
            None => Fields::parse(text).map(|fields| Self(Kind::Fields(fields))),
        }
    }

    /// The first time after `moment`; `None` if there is none within some years.
    pub fn next_after(&self, moment: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        match &self.0 {
            Kind::Fields(fields) => next_minute(fields, moment, zone),
            Kind::Every(wait) => whole_seconds(moment)?.checked_add(*wait).ok(),
        }
    }

    /// The last time after `since` and not after `until`.
    pub fn newest(&self, since: Timestamp, until: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        /// How far to look back first, and then: a long way is gone only for what comes seldom.
        const LOOK_BACK: [Duration; 4] = [
            Duration::from_secs(120),
            Duration::from_secs(2 * 3600),
            Duration::from_secs(2 * 24 * 3600),
            Duration::from_secs(62 * 24 * 3600),
        ];
        if let Kind::Every(wait) = &self.0 {
            let first = self.next_after(since, zone).filter(|first| *first <= until)?;
            let waits = until.duration_since(first).as_secs() / wait.as_secs().max(1);
            let passed = SignedDuration::from_secs(waits.checked_mul(wait.as_secs())?);
            return first.checked_add(passed).ok();
        }
        let from = LOOK_BACK.iter().filter_map(|back| until.checked_sub(*back).ok());
        let starts = from.take_while(|start| *start > since).chain([since]);
        for start in starts {
            let mut found = None;
            let mut cursor = start;
            while let Some(next) = self.next_after(cursor, zone).filter(|next| *next <= until) {
                (found, cursor) = (Some(next), next);
            }
            if found.is_some() {
                return found;
            }
        }
        None
    }
}

fn whole_seconds(moment: Timestamp) -> Option<Timestamp> {
    Timestamp::from_second(moment.as_second()).ok()
}

/// Goes forward by months, days, hours and minutes until all fields fit. Hours and minutes are real ones, so that each
/// minute that a clock shows twice is come by twice.
fn next_minute(fields: &Fields, moment: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
    let minute = Timestamp::from_second((moment.as_second().div_euclid(60) + 1) * 60).ok()?;
    let mut cursor = minute.to_zoned(zone.clone());
    let last_year = cursor.year().saturating_add(LONGEST_WAIT_YEARS);
    while cursor.year() <= last_year {
        cursor = if !fields.has_month(cursor.month()) {
            midnight(&cursor, cursor.date().last_of_month())?
        } else if !fields.has_day(cursor.date()) {
            midnight(&cursor, cursor.date())?
        } else if !fields.has_hour(cursor.hour()) {
            cursor.checked_add((60 - i64::from(cursor.minute())).minutes()).ok()?
        } else if let Some(wait) = fields.minutes_until(cursor.minute()) {
            cursor.checked_add(wait.minutes()).ok()?
        } else {
            return Some(cursor.timestamp());
        };
    }
    None
}

/// The first moment after a day.
fn midnight(cursor: &Zoned, day: jiff::civil::Date) -> Option<Zoned> {
    day.tomorrow().ok()?.to_zoned(cursor.time_zone().clone()).ok()
}

#[cfg(test)]
mod tests;
