use proptest::prelude::*;

use super::*;

fn time(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn zone(name: &str) -> TimeZone {
    TimeZone::get(name).unwrap()
}

/// The times after the first one are these.
fn check(schedule: &str, zone_name: &str, times: &[&str]) {
    let parsed = Schedule::parse(schedule).unwrap();
    for pair in times.windows(2) {
        let next = parsed.next_after(time(pair[0]), &zone(zone_name));
        assert_eq!(next, Some(time(pair[1])), "{schedule} after {}", pair[0]);
    }
}

#[test]
fn times_follow_the_fields() {
    check("* * * * *", "UTC", &["2026-01-01T00:00:00Z", "2026-01-01T00:01:00Z"]);
    check("* * * * *", "UTC", &["2026-01-01T00:00:59.9Z", "2026-01-01T00:01:00Z"]);
    check("*/15 * * * *", "UTC", &["2026-01-01T00:14:59Z", "2026-01-01T00:15:00Z"]);
    check(
        "50/4 3 * * *",
        "UTC",
        &[
            "2026-01-01T03:51:00Z",
            "2026-01-01T03:54:00Z",
            "2026-01-01T03:58:00Z",
            "2026-01-02T03:50:00Z",
        ],
    );
    check(
        "30 6-16/4 * * 1-5",
        "UTC",
        &["2026-01-02T10:30:00Z", "2026-01-02T14:30:00Z", "2026-01-05T06:30:00Z"],
    );
    check(
        "0 0 1,15 FEB-mar ?",
        "UTC",
        &[
            "2026-01-01T00:00:00Z",
            "2026-02-01T00:00:00Z",
            "2026-02-15T00:00:00Z",
            "2026-03-01T00:00:00Z",
        ],
    );
    check("0 0 29 2 *", "UTC", &["2025-01-01T00:00:00Z", "2028-02-29T00:00:00Z"]);
    check("@hourly", "UTC", &["2026-01-01T00:00:01Z", "2026-01-01T01:00:00Z"]);
    check("@weekly", "UTC", &["2026-01-01T00:00:00Z", "2026-01-04T00:00:00Z"]);
    check("@yearly", "UTC", &["2026-01-01T00:00:00Z", "2027-01-01T00:00:00Z"]);
    check("@daily", "Europe/Berlin", &["2026-01-01T00:00:00Z", "2026-01-01T23:00:00Z"]);
    check("15 * * * *", "Asia/Kathmandu", &["2026-01-01T00:00:00Z", "2026-01-01T00:30:00Z"]);
    // Either the day of the month or the day of the week, but `*` leaves the choice to the other one.
    check(
        "0 0 13 * 5",
        "UTC",
        &["2026-02-10T00:00:00Z", "2026-02-13T00:00:00Z", "2026-02-20T00:00:00Z"],
    );
    check("0 0 */31 * 5", "UTC", &["2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z"]);
    check(
        "0 0 */1 * 5",
        "UTC",
        &["2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z", "2026-01-09T00:00:00Z"],
    );
}

#[test]
fn a_time_that_the_clocks_leave_out_is_left_out() {
    let zone = "America/New_York";
    // From 2 to 3 o'clock on 2026-03-08.
    check("30 2 * * *", zone, &["2026-03-07T07:30:00Z", "2026-03-09T06:30:00Z"]);
    check("*/30 * * * *", zone, &["2026-03-08T06:30:00Z", "2026-03-08T07:00:00Z"]);
    check("0 3 * * *", zone, &["2026-03-07T08:00:00Z", "2026-03-08T07:00:00Z"]);
    // Midnight itself is missing on 2026-09-06 in Santiago.
    check("0 0 * * *", "America/Santiago", &["2026-09-05T04:00:00Z", "2026-09-07T03:00:00Z"]);
    check("30 1 * * *", "America/Santiago", &["2026-09-05T05:30:00Z", "2026-09-06T04:30:00Z"]);
}

#[test]
fn a_time_that_the_clocks_repeat_comes_twice() {
    // From 2 back to 1 o'clock on 2026-11-01.
    let twice = [
        "2026-10-31T05:30:00Z",
        "2026-11-01T05:30:00Z",
        "2026-11-01T06:30:00Z",
        "2026-11-02T06:30:00Z",
    ];
    check("30 1 * * *", "America/New_York", &twice);
    check("0 2 * * *", "America/New_York", &["2026-10-31T06:00:00Z", "2026-11-01T07:00:00Z"]);
    // Half an hour only.
    check(
        "45 1 * * *",
        "Australia/Lord_Howe",
        &["2026-04-03T14:45:00Z", "2026-04-04T14:45:00Z", "2026-04-04T15:15:00Z"],
    );
}

#[test]
fn an_impossible_schedule_has_no_time() {
    for schedule in ["30 2 31 2 *", "0 0 31 4,6,9,11 *", "0 0 30 2 ?"] {
        let parsed = Schedule::parse(schedule).unwrap();
        let start = time("2026-01-01T00:00:00Z");
        assert_eq!(parsed.next_after(start, &TimeZone::UTC), None, "{schedule}");
        assert_eq!(parsed.newest(start, time("2026-02-01T00:00:00Z"), &TimeZone::UTC), None);
    }
}

#[test]
fn every_counts_from_the_time_before() {
    check(
        "@every 90m",
        "UTC",
        &["2026-01-01T00:10:00.5Z", "2026-01-01T01:40:00Z", "2026-01-01T03:10:00Z"],
    );
    let waits = |text: &str| {
        let start = time("2026-01-01T00:00:00Z");
        let next = Schedule::parse(text).unwrap().next_after(start, &TimeZone::UTC);
        next.map(|next| next.duration_since(start).as_secs())
    };
    for (text, seconds) in
        [("1h30m", 5400), ("1.5h", 5400), ("100ms", 1), ("-5m", 1), ("0", 1), ("+2m3s", 123)]
    {
        assert_eq!(waits(&format!("@every {text}")), Some(seconds), "{text}");
    }
    let schedule = Schedule::parse("@every 7m").unwrap();
    let newest =
        |until: &str| schedule.newest(time("2026-01-01T00:00:00Z"), time(until), &TimeZone::UTC);
    assert_eq!(newest("2026-01-01T00:06:59Z"), None);
    assert_eq!(newest("2026-01-01T00:30:00Z"), Some(time("2026-01-01T00:28:00Z")));
}

#[test]
fn nonsense_is_refused_in_upstreams_words() {
    let check = |schedule: &str, why: &str| {
        assert_eq!(Schedule::parse(schedule).unwrap_err(), why, "{schedule}");
    };
    check("", "empty spec string");
    check("* * * *", "expected exactly 5 fields, found 4: [* * * *]");
    check("* * * * * *", "expected exactly 5 fields, found 6: [* * * * * *]");
    check("60 * * * *", "end of range (60) above maximum (59): 60");
    check("* * 0 * *", "beginning of range (0) below minimum (1): 0");
    check("* 5-1 * * *", "beginning of range (5) beyond end of range (1): 5-1");
    check("*/0 * * * *", "step of range should be a positive number: */0");
    check("* * * * 7", "end of range (7) above maximum (6): 7");
    check("1-2-3 * * * *", "too many hyphens: 1-2-3");
    check("1/2/3 * * * *", "too many slashes: 1/2/3");
    check("x * * * *", "failed to parse int from x: strconv.Atoi: parsing \"x\": invalid syntax");
    check("@often", "unrecognized descriptor: @often");
    check("@every x", "failed to parse duration @every x: time: invalid duration \"x\"");
    check("@every 5", "failed to parse duration @every 5: time: missing unit in duration \"5\"");
    check(
        "@every 5d",
        "failed to parse duration @every 5d: time: unknown unit \"d\" in duration \"5d\"",
    );
}

proptest! {
    /// The next time fits, and none before it does: as somebody finds who looks at every minute.
    #[test]
    fn no_time_is_passed_over(
        minutes in "(\\*|[0-5]?[0-9]|\\*/(7|20))", hours in "(\\*|1?[0-9]|1-3)",
        days in "(\\*|[1-9]|\\*/2)", weekdays in "(\\*|[0-6])",
        name in prop_oneof![Just("UTC"), Just("America/New_York"), Just("Australia/Lord_Howe"), Just("America/Santiago")],
        start in 0..(366 * 24 * 60i64),
    ) {
        let schedule = Schedule::parse(&format!("{minutes} {hours} {days} * {weekdays}")).unwrap();
        let zone = zone(name);
        let start = time("2026-01-01T00:00:00Z") + SignedDuration::from_mins(start);
        let Kind::Fields(fields) = &schedule.0 else { unreachable!() };
        let fits = |at: Timestamp| {
            let shown = at.to_zoned(zone.clone());
            fields.has_day(shown.date()) && fields.has_hour(shown.hour()) && fields.minutes_until(shown.minute()).is_none()
        };
        let two_days = (1..2 * 24 * 60).map(|minute| start + SignedDuration::from_mins(minute));
        let expected: Vec<Timestamp> = two_days.filter(|at| fits(*at)).collect();
        let until = start + SignedDuration::from_mins(2 * 24 * 60 - 1);
        let next = schedule.next_after(start, &zone).filter(|next| *next <= until);
        prop_assert_eq!(next, expected.first().copied());
        prop_assert_eq!(schedule.newest(start, until, &zone), expected.last().copied());
    }

    /// Whatever is written there, reading it ends, and so does looking for a time.
    #[test]
    fn any_text_is_read_or_refused(text in "[-0-9*/,? @a-z.]{0,24}") {
        if let Ok(schedule) = Schedule::parse(&text) {
            schedule.next_after(time("2026-01-01T00:00:00Z"), &TimeZone::UTC);
        }
    }
}
