//! Cron schedules, as far as rules need them: whether one is well written, in the words of upstream's parser.

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

/// Checks a schedule of five fields, or a word such as `@hourly`.
pub fn parse(schedule: &str) -> Result<(), String> {
    if schedule.starts_with('@') {
        return descriptor(schedule);
    }
    let parts: Vec<&str> = schedule.split_whitespace().collect();
    if parts.len() != FIELDS.len() {
        return Err(format!(
            "expected exactly 5 fields, found {}: [{}]",
            parts.len(),
            parts.join(" ")
        ));
    }
    for (part, field) in parts.iter().zip(&FIELDS) {
        for range in part.split(',') {
            check_range(range, field)?;
        }
    }
    Ok(())
}

fn descriptor(word: &str) -> Result<(), String> {
    let words = ["@yearly", "@annually", "@monthly", "@weekly", "@daily", "@midnight", "@hourly"];
    if words.contains(&word) {
        return Ok(());
    }
    if let Some(duration) = word.strip_prefix("@every ") {
        let well_written = duration.starts_with(|first: char| first.is_ascii_digit())
            && duration.ends_with(['s', 'm', 'h'])
            && duration
                .chars()
                .all(|character| character.is_ascii_alphanumeric() || character == '.');
        let why =
            || format!("failed to parse duration {word}: time: invalid duration \"{duration}\"");
        return if well_written { Ok(()) } else { Err(why()) };
    }
    Err(format!("unrecognized descriptor: {word}"))
}

/// One item of a field: `*`, `5`, `1-5`, each with an optional `/step`.
fn check_range(text: &str, field: &Field) -> Result<(), String> {
    let mut steps = text.split('/');
    let (range, step) = (steps.next().unwrap_or_default(), steps.next());
    if steps.next().is_some() {
        return Err(format!("too many slashes: {text}"));
    }
    let mut bounds = range.split('-');
    let (low, high) = (bounds.next().unwrap_or_default(), bounds.next());
    if bounds.next().is_some() {
        return Err(format!("too many hyphens: {text}"));
    }
    let (start, end) = if matches!(low, "*" | "?") {
        (field.min, field.max)
    } else {
        let start = number(low, field)?;
        let end = match high {
            Some(high) => number(high, field)?,
            None if step.is_some() => field.max,
            None => start,
        };
        (start, end)
    };
    if step.map(plain_number).transpose()? == Some(0) {
        return Err(format!("step of range should be a positive number: {text}"));
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
    Ok(())
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
