//! What compaction may delete, and when. Pure: time comes in.
//!
//! A row is superfluous once the state at the oldest kept revision does not need it: a later row at or before that
//! revision supersedes it, or it is a deletion. The store knows its superfluous rows by number, so compaction needs
//! no query to find them. They are deleted in the order in which they were superseded: an object's states go before
//! its deletion does, so that a process that dies half-way brings nothing back to life.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::object::{Change, Event, Revision};
use crate::options::Limits;

/// How many times in `history_age` automatic compaction runs: history is kept for up to 1/16 longer than asked.
const ROUNDS: u32 = 16;

/// After the database refused a compaction, wait this long: nothing hurts but the room it takes.
const PUT_OFF: Duration = Duration::from_secs(10);

/// The superfluous rows, and the past by time.
#[derive(Debug)]
pub(crate) struct History {
    /// In the order of `by`.
    garbage: VecDeque<Garbage>,
    /// When which revision was the present one, sparsely, in order.
    marks: VecDeque<(Instant, Revision)>,
    /// Up to where history is to be forgotten.
    target: Revision,
    /// Up to where the database has forgotten it.
    compacted: Revision,
    put_off_until: Option<Instant>,
}

#[derive(Debug, Clone, Copy)]
struct Garbage {
    /// The write that makes the row superfluous.
    by: Revision,
    row: Revision,
}

/// When compaction has something to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Due {
    Now,
    At(Instant),
    Never,
}

/// One bounded step of compaction.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Slice {
    pub(crate) before: Revision,
    pub(crate) superseded: Vec<Revision>,
}

impl History {
    pub(crate) fn new(compacted: Revision) -> History {
        History {
            garbage: VecDeque::new(),
            marks: VecDeque::new(),
            target: compacted,
            compacted,
            put_off_until: None,
        }
    }

    /// Notes what durable writes supersede.
    pub(crate) fn record(&mut self, events: &[Arc<Event>], now: Instant, limits: &Limits) {
        for event in events {
            self.supersede(event);
        }
        let Some(last) = events.last().map(|event| event.revision) else {
            return;
        };
        if self.marks.back().is_none_or(|(marked, _)| now >= *marked + limits.history_age / ROUNDS)
        {
            self.marks.push_back((now, last));
        }
        // The slack makes it run now and then, and not with each write.
        let most = limits.history_revisions + limits.history_revisions / u64::from(ROUNDS);
        if last.get() - self.target.get() > most {
            self.request(Revision::new(last.get() - limits.history_revisions));
        }
    }

    /// Notes what one write supersedes.
    pub(crate) fn supersede(&mut self, event: &Event) {
        let by = event.revision;
        if let Some(previous) = event.previous() {
            self.garbage.push_back(Garbage { by, row: previous.revision });
        }
        if matches!(event.change, Change::Delete { .. }) {
            self.garbage.push_back(Garbage { by, row: by });
        }
    }

    /// Wants everything before this revision, which must be past, forgotten.
    pub(crate) fn request(&mut self, before: Revision) {
        self.target = self.target.max(before);
        self.put_off_until = None;
    }

    /// When to take the next slice.
    pub(crate) fn due(&self, limits: &Limits) -> Due {
        if !self.is_settled() {
            return self.put_off_until.map_or(Due::Now, Due::At);
        }
        self.marks.front().map_or(Due::Never, |(marked, _)| Due::At(*marked + limits.history_age))
    }

    /// The next step, if one is due.
    pub(crate) fn slice(&mut self, now: Instant, limits: &Limits) -> Option<Slice> {
        while let Some((_, revision)) =
            self.marks.pop_front_if(|(marked, _)| *marked + limits.history_age <= now)
        {
            self.target = self.target.max(revision);
        }
        if self.is_settled() || self.put_off_until.is_some_and(|until| now < until) {
            return None;
        }
        let due = self.garbage.iter().take_while(|garbage| garbage.by <= self.target);
        let superseded = due.take(limits.compaction_slice).map(|garbage| garbage.row).collect();
        Some(Slice { before: self.target, superseded })
    }

    /// Notes that a slice is done.
    pub(crate) fn deleted(&mut self, slice: &Slice) {
        self.compacted = slice.before;
        self.garbage.drain(..slice.superseded.len());
    }

    /// Waits before the next slice.
    pub(crate) fn put_off(&mut self, now: Instant) {
        self.put_off_until = Some(now + PUT_OFF);
    }

    /// Whether nothing is left to do before time passes.
    pub(crate) fn is_settled(&self) -> bool {
        self.target == self.compacted
            && self.garbage.front().is_none_or(|garbage| garbage.by > self.target)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::object::{Attributes, Key, Object};

    fn revision(number: u64) -> Revision {
        Revision::new(number)
    }

    fn object(number: u64) -> Arc<Object> {
        Arc::new(Object {
            key: Key::new("pods", "a", "b"),
            revision: revision(number),
            created_revision: revision(1),
            bytes: bytes::Bytes::new(),
            attributes: Attributes::default(),
        })
    }

    /// An update at this revision of what was written just before.
    fn update(number: u64) -> Arc<Event> {
        let change = Change::Put {
            object: object(number),
            previous: (number > 1).then(|| object(number - 1)),
        };
        Arc::new(Event { revision: revision(number), change })
    }

    fn deletion(number: u64) -> Arc<Event> {
        let change = Change::Delete { object: object(number), previous: object(number - 1) };
        Arc::new(Event { revision: revision(number), change })
    }

    fn slices(history: &mut History, now: Instant, limits: &Limits) -> Vec<(u64, Vec<u64>)> {
        let mut slices = Vec::new();
        while let Some(slice) = history.slice(now, limits) {
            history.deleted(&slice);
            slices
                .push((slice.before.get(), slice.superseded.iter().map(|row| row.get()).collect()));
        }
        slices
    }

    #[test]
    fn states_go_before_the_deletion_in_bounded_slices() {
        let limits = Limits { compaction_slice: 2, ..Limits::default() };
        let (mut history, now) = (History::new(Revision::ZERO), Instant::now());
        history.record(&[update(1), update(2), update(3), deletion(4), update(5)], now, &limits);
        assert_eq!(slices(&mut history, now, &limits), []);
        history.request(revision(4));
        assert_eq!(history.due(&limits), Due::Now);
        assert_eq!(slices(&mut history, now, &limits), [(4, vec![1, 2]), (4, vec![3, 4])]);
        assert!(history.is_settled());
    }

    #[test]
    fn history_is_kept_for_its_age_and_then_forgotten() {
        let limits = Limits { history_age: Duration::from_secs(160), ..Limits::default() };
        let (mut history, start) = (History::new(Revision::ZERO), Instant::now());
        assert_eq!(history.due(&limits), Due::Never);
        let at = |seconds| start + Duration::from_secs(seconds);
        history.record(&[update(1)], at(0), &limits);
        history.record(&[update(2)], at(9), &limits);
        history.record(&[update(3)], at(10), &limits);
        assert_eq!(history.due(&limits), Due::At(at(160)));
        assert_eq!(slices(&mut history, at(159), &limits), []);
        assert_eq!(slices(&mut history, at(160), &limits), [(1, vec![])]);
        assert_eq!(history.due(&limits), Due::At(at(170)));
        assert_eq!(slices(&mut history, at(170), &limits), [(3, vec![1, 2])]);
        assert_eq!(history.due(&limits), Due::Never);
    }

    #[test]
    fn more_revisions_than_the_most_are_forgotten_before_their_age() {
        let limits = Limits { history_revisions: 32, ..Limits::default() };
        let (mut history, now) = (History::new(Revision::ZERO), Instant::now());
        (1..=34).for_each(|number| history.record(&[update(number)], now, &limits));
        assert_eq!(slices(&mut history, now, &limits), []);
        history.record(&[update(35)], now, &limits);
        assert_eq!(slices(&mut history, now, &limits), [(3, vec![1, 2])]);
    }

    #[test]
    fn what_was_refused_is_tried_again_later() {
        let limits = Limits::default();
        let (mut history, now) = (History::new(Revision::ZERO), Instant::now());
        history.record(&[update(1), update(2)], now, &limits);
        history.request(revision(2));
        history.put_off(now);
        assert_eq!(history.slice(now, &limits), None);
        assert_eq!(history.due(&limits), Due::At(now + PUT_OFF));
        assert_eq!(slices(&mut history, now + PUT_OFF, &limits), [(2, vec![1])]);
    }
}
