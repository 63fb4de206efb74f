//! The words of a schedule: five fields, names for common ones, and waits as Go writes them.

use jiff::SignedDuration;
use jiff::civil::Date;

/// A field of a schedule: its bounds and the names its numbers have.
struct Field {
    min: u32,
    max: u32,
    names: &'static [&'static str],
}

const MONTHS: &[&str] =
    &["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
const DAYS: &[&str] = &["sun", "mon", "tue", "wed", "thu", "fri", "sat"];

/// Minute, hour, day of month, month, day of week.
const FIELDS: [Field; 5] = [
    Field { min: 0, max: 59, names: &[] },
    Field { min: 0, max: 23, names: &[] },
    Field { min: 1, max: 31, names: &[] },
    Field { min: 1, max: 12, names: MONTHS },
    Field { min: 0, max: 6, names: DAYS },
];

/// Which minutes, hours, days and months fit: a bit a number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Fields {
    minutes: u64,
    hours: u64,
    days: u64,
    months: u64,
    weekdays: u64,
    /// One of the fields of days names all: then the other one decides.
    any_day: bool,
}

/// What one field, or an item of it, says.
#[derive(Debug, Clone, Copy, Default)]
struct Set {
    bits: u64,
    /// It says `*`, and so chooses nothing.
    open: bool,
}

impl Fields {
    /// Reads five fields, or a word such as `@hourly`.
    pub fn parse(schedule: &str) -> Result<Self, String> {
        if schedule.is_empty() {
            return Err("empty spec string".to_owned());
        }
        let schedule = match schedule {
            "@yearly" | "@annually" => "0 0 1 1 *",
            "@monthly" => "0 0 1 * *",
            "@weekly" => "0 0 * * 0",
            "@daily" | "@midnight" => "0 0 * * *",
            "@hourly" => "0 * * * *",
            word if word.starts_with('@') => {
                return Err(format!("unrecognized descriptor: {word}"));
            }
            fields => fields,
        };
        let parts: Vec<&str> = schedule.split_whitespace().collect();
        let [minutes, hours, days, months, weekdays] = parts[..] else {
            let (found, shown) = (parts.len(), parts.join(" "));
            return Err(format!("expected exactly 5 fields, found {found}: [{shown}]"));
        };
        let [minute, hour, day, month, weekday] = &FIELDS;
        let (minutes, hours) = (field(minutes, minute)?, field(hours, hour)?);
        let (days, months) = (field(days, day)?, field(months, month)?);
        let weekdays = field(weekdays, weekday)?;
        Ok(Self {
            minutes: minutes.bits,
            hours: hours.bits,
            days: days.bits,
            months: months.bits,
            weekdays: weekdays.bits,
            any_day: days.open || weekdays.open,
        })
    }

    pub fn has_month(&self, month: i8) -> bool {
        has(self.months, month)
    }

    /// Either the day of the month or the day of the week, when both were chosen.
    pub fn has_day(&self, date: Date) -> bool {
        let by_month = has(self.days, date.day());
        let by_week = has(self.weekdays, date.weekday().to_sunday_zero_offset());
        if self.any_day { by_month && by_week } else { by_month || by_week }
    }

    pub fn has_hour(&self, hour: i8) -> bool {
        has(self.hours, hour)
    }

    /// How many minutes after this one the next fitting one of its hour comes, or the next hour; `None` if it fits.
    pub fn minutes_until(&self, minute: i8) -> Option<i64> {
        let later = self.minutes >> u32::try_from(minute).unwrap_or(0);
        let left = 60 - i64::from(minute);
        let wait = i64::from(later.trailing_zeros()).min(left);
        (wait > 0).then_some(wait)
    }
}

fn has(bits: u64, number: i8) -> bool {
    u32::try_from(number).is_ok_and(|number| bits >> number & 1 == 1)
}

/// Items with commas between them.
fn field(text: &str, field: &Field) -> Result<Set, String> {
    let mut all = Set::default();
    for item in text.split(',').filter(|item| !item.is_empty()) {
        let found = range(item, field)?;
        all = Set { bits: all.bits | found.bits, open: all.open || found.open };
    }
    Ok(all)
}

/// One item of a field: `*`, `5`, `1-5`, each with an optional `/step`.
fn range(text: &str, field: &Field) -> Result<Set, String> {
    let mut steps = text.split('/');
    let (range, step) = (steps.next().unwrap_or_default(), steps.next());
    let mut bounds = range.split('-');
    let (low, high) = (bounds.next().unwrap_or_default(), bounds.next());
    let open = matches!(low, "*" | "?");
    let (start, end) = if open {
        (field.min, field.max)
    } else {
        let start = number(low, field)?;
        let end = match high {
            Some(high) => number(high, field)?,
            None if step.is_some() => field.max,
            None => start,
        };
        if bounds.next().is_some() {
            return Err(format!("too many hyphens: {text}"));
        }
        (start, end)
    };
    let by = step.map(plain_number).transpose()?.unwrap_or(1);
    if steps.next().is_some() {
        return Err(format!("too many slashes: {text}"));
    }
    if start < field.min {
        return Err(format!("beginning of range ({start}) below minimum ({}): {text}", field.min));
    }
    if end > field.max {
        return Err(format!("end of range ({end}) above maximum ({}): {text}", field.max));
    }
    if start > end {
        return Err(format!("beginning of range ({start}) beyond end of range ({end}): {text}"));
    }
    let by = usize::try_from(by).ok().filter(|by| *by > 0);
    let by = by.ok_or_else(|| format!("step of range should be a positive number: {text}"))?;
    let bits = (start..=end).step_by(by).fold(0, |bits, number| bits | 1 << number);
    Ok(Set { bits, open: open && by == 1 })
}

fn number(text: &str, field: &Field) -> Result<u32, String> {
    match field.names.iter().position(|name| name.eq_ignore_ascii_case(text)) {
        Some(position) => Ok(field.min + u32::try_from(position).unwrap_or_default()),
        None => plain_number(text),
    }
}

fn plain_number(text: &str) -> Result<u32, String> {
    if text.starts_with('-') && text[1..].parse::<u32>().is_ok() {
        return Err(format!("negative number ({text}) not allowed: {text}"));
    }
    text.parse().map_err(|_| {
        format!("failed to parse int from {text}: strconv.Atoi: parsing \"{text}\": invalid syntax")
    })
}

/// A wait as Go writes it, `1h30m`, in whole seconds and not less than one.
pub(super) fn duration(text: &str) -> Result<SignedDuration, String> {
    let invalid = || format!("time: invalid duration {text:?}");
    let (sign, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (-1.0, rest),
        None => (1.0, text.strip_prefix('+').unwrap_or(text)),
    };
    if rest.is_empty() {
        return Err(invalid());
    }
    let mut seconds = 0.0;
    while !rest.is_empty() && rest != "0" {
        let digits = rest.find(|letter: char| !letter.is_ascii_digit() && letter != '.');
        let (number, after) = rest.split_at(digits.unwrap_or(rest.len()));
        let number: f64 = number.parse().map_err(|_| invalid())?;
        let letters = after.find(|letter: char| letter.is_ascii_digit() || letter == '.');
        let (unit, next) = after.split_at(letters.unwrap_or(after.len()));
        let unit = match unit {
            "" => return Err(format!("time: missing unit in duration {text:?}")),
            "ns" => 1e-9,
            "us" | "µs" | "μs" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            unknown => return Err(format!("time: unknown unit {unknown:?} in duration {text:?}")),
        };
        seconds += number * unit;
        rest = next;
    }
    // Go counts nanoseconds in 64 bits.
    let whole =
        SignedDuration::try_from_secs_f64((sign * seconds).floor()).map_err(|_| invalid())?;
    if whole.as_secs() > i64::MAX / 1_000_000_000 {
        return Err(invalid());
    }
    Ok(whole.max(SignedDuration::from_secs(1)))
}
