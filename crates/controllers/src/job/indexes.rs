//! Completion indexes as the status writes them: `1,3-5`.

use std::fmt;

/// A set of indexes, kept as intervals: a Job may have a thousand million of them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Indexes {
    /// First and last, in rising order; between two of them at least one index is missing.
    intervals: Vec<(u32, u32)>,
}

impl Indexes {
    /// Reads `1,3-5`. What cannot be read, and what is not below `completions`, is left out.
    pub fn parse(text: &str, completions: u32) -> Self {
        let mut found = Self::default();
        for part in text.split(',').filter(|part| !part.is_empty()) {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let (Ok(first), Ok(last)) = (first.parse::<u32>(), last.parse::<u32>()) else {
                continue;
            };
            let last = last.min(completions.saturating_sub(1));
            if first < completions && first <= last {
                found.intervals.push((first, last));
            }
        }
        found.tidy();
        found
    }

    /// How many there are.
    pub fn count(&self) -> u32 {
        self.intervals.iter().map(|(first, last)| last - first + 1).sum()
    }

    /// There is none.
    pub fn is_empty(&self) -> bool {
        self.intervals.is_empty()
    }

    /// Whether it has this one.
    pub fn contains(&self, index: u32) -> bool {
        let after = self.intervals.partition_point(|(first, _)| *first <= index);
        after > 0 && self.intervals[after - 1].1 >= index
    }

    /// These and those.
    pub fn with(&self, others: &Self) -> Self {
        let mut both = self.clone();
        both.intervals.extend_from_slice(&others.intervals);
        both.tidy();
        both
    }

    /// How many are in both.
    pub fn shared_with(&self, others: &Self) -> u32 {
        let (mut ours, mut theirs) = (self.intervals.iter(), others.intervals.iter());
        let (mut one, mut other) = (ours.next(), theirs.next());
        let mut shared = 0;
        while let (Some((first, last)), Some((other_first, other_last))) = (one, other) {
            let (from, to) = (*first.max(other_first), *last.min(other_last));
            shared += (to + 1).saturating_sub(from);
            if last < other_last {
                one = ours.next();
            } else {
                other = theirs.next();
            }
        }
        shared
    }

    /// The first `count` of those below `completions` that it lacks.
    pub fn first_missing(&self, count: usize, completions: u32) -> Vec<u32> {
        let mut found = Vec::new();
        let mut candidate = 0;
        let end = (completions, completions);
        for (first, last) in self.intervals.iter().chain([&end]) {
            let open = candidate..(*first).min(completions);
            found.extend(open.take(count - found.len()));
            candidate = candidate.max(last.saturating_add(1));
        }
        found
    }

    /// Sorts the intervals and joins those that meet.
    fn tidy(&mut self) {
        self.intervals.sort_unstable();
        let mut joined: Vec<(u32, u32)> = Vec::with_capacity(self.intervals.len());
        for (first, last) in self.intervals.drain(..) {
            match joined.last_mut() {
                Some(known) if first <= known.1.saturating_add(1) => known.1 = known.1.max(last),
                _ => joined.push((first, last)),
            }
        }
        self.intervals = joined;
    }
}

impl FromIterator<u32> for Indexes {
    fn from_iter<I: IntoIterator<Item = u32>>(indexes: I) -> Self {
        let intervals = indexes.into_iter().map(|index| (index, index)).collect();
        let mut found = Self { intervals };
        found.tidy();
        found
    }
}

impl fmt::Display for Indexes {
    /// Writes `1,3-5`; upstream writes two neighbours as `1,2`.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, (first, last)) in self.intervals.iter().enumerate() {
            if position > 0 {
                write!(out, ",")?;
            }
            match last - first {
                0 => write!(out, "{first}")?,
                1 => write!(out, "{first},{last}")?,
                _ => write!(out, "{first}-{last}")?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn indexes_are_written_as_upstream_writes_them() {
        let check = |text: &str, completions: u32, expected: &str| {
            assert_eq!(Indexes::parse(text, completions).to_string(), expected, "{text}");
        };
        for text in ["", "0", "0-2", "1,3-5,7", "0,1"] {
            check(text, 10, text);
        }
        check("8-12,x,3", 10, "3,8,9");
        check("0-1", 10, "0,1");
        check("1,2,3", 10, "1-3");
        check("5-3", 10, "");
        check("0-999999999", 1_000_000_000, "0-999999999");
        check("0-4294967295", u32::MAX, "0-4294967294");
        check("1", 0, "");
    }

    proptest! {
        /// Intervals answer as a plain set of numbers would.
        #[test]
        fn intervals_are_a_set(
            one in prop::collection::btree_set(0..40u32, 0..20),
            other in prop::collection::btree_set(0..40u32, 0..20),
            count in 0..50usize, completions in 1..50u32,
        ) {
            let [a, b]: [Indexes; 2] = [&one, &other].map(|set| set.iter().copied().collect());
            let both: BTreeSet<u32> = one.union(&other).copied().collect();
            prop_assert_eq!(a.with(&b), both.iter().copied().collect());
            prop_assert_eq!(a.shared_with(&b) as usize, one.intersection(&other).count());
            prop_assert_eq!(a.count() as usize, one.len());
            prop_assert_eq!(a.is_empty(), one.is_empty());
            prop_assert_eq!(&Indexes::parse(&a.to_string(), 40), &a);
            for index in 0..40 {
                prop_assert_eq!(a.contains(index), one.contains(&index));
            }
            let missing: Vec<u32> =
                (0..completions).filter(|index| !one.contains(index)).take(count).collect();
            prop_assert_eq!(a.first_missing(count, completions), missing);
        }
    }
}
