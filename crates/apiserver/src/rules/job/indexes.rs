//! Lists of indexes, as upstream reads them (`validateIndexesFormat` in `pkg/apis/batch/validation/validation.go`).

/// The first and last of each part of a list such as `1,3-5,7`, in rising order and below the number of completions.
pub fn intervals(text: &str, completions: i64) -> Result<Vec<(i64, i64)>, String> {
    if text.is_empty() {
        return Ok(Vec::new());
    }
    let number = |part: &str| -> Result<i64, String> {
        let parsed = part.parse::<u32>().ok().filter(|_| !part.starts_with('+'));
        let index = parsed
            .map(i64::from)
            .ok_or_else(|| format!("cannot convert string to integer for index: {part:?}"))?;
        if index >= completions {
            return Err(format!("too large index: {part:?}"));
        }
        Ok(index)
    };
    let (mut found, mut last) = (Vec::new(), None);
    for interval in text.split(',') {
        let bounds: Vec<&str> = interval.split('-').collect();
        let (start, end) = match bounds[..] {
            [one] => (number(one)?, number(one)?),
            [start, end] => (number(start)?, number(end)?),
            _ => {
                return Err(format!(
                    "the fragment {interval:?} violates the requirement that an index interval can have at most two parts separated by '-'"
                ));
            }
        };
        if last.is_some_and(|last| last >= start) {
            return Err(format!(
                "non-increasing order, previous: {}, current: {start}",
                last.unwrap_or(0)
            ));
        }
        if bounds.len() == 2 && start >= end {
            return Err(format!("non-increasing order, previous: {start}, current: {end}"));
        }
        found.push((start, end));
        last = Some(end);
    }
    Ok(found)
}

/// An index that is in both of two lists.
pub fn shared(one: &[(i64, i64)], other: &[(i64, i64)]) -> Option<i64> {
    let overlaps = |(first, last): (i64, i64)| {
        let mut others = other.iter();
        let found = others.find(|(from, to)| first <= *to && *from <= last);
        found.map(|(from, _)| first.max(*from))
    };
    one.iter().copied().find_map(overlaps)
}
