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
