//! Seats: how many requests of each priority level run at once, and the queues of those that wait.
//!
//! A level has its nominal seats, a part of which it lends. What all levels lend is one pool: a level that has used its own seats
//! takes from there, as far as its borrowing limit allows; a lender takes the lent part of its own seats from there, too, and comes
//! before borrowers when a seat becomes free.
//!
//! Before a level that is full, requests wait in queues: a flow is dealt a hand of them, and joins the shortest, so that a flow that
//! floods its hand leaves others with a queue of theirs. Queues take turns. A request takes as many seats as it is wide
//! (`width.rs`): a list of many objects takes several. Where we differ from upstream: turns are counted, not the time that requests
//! take; and a write is as wide as any request however many watch, because its event is put into one ring that all of them read.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use parking_lot::Mutex;
use serde_json::Value;
use smallvec::SmallVec;
use tokio::sync::oneshot;

use crate::limits;
use crate::object::{meta, text};

/// What a `PriorityLevelConfiguration` says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct LevelSpec {
    pub(super) name: String,
    pub(super) is_exempt: bool,
    shares: u64,
    lendable_percent: u64,
    /// No limit without it.
    borrowing_limit_percent: Option<u64>,
    /// `None` rejects who finds no seat.
    queuing: Option<Queuing>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Queuing {
    queues: usize,
    hand_size: usize,
    length_limit: usize,
}

impl LevelSpec {
    pub(super) fn read(object: &Value) -> Self {
        let is_exempt = text(object, "/spec/type") == "Exempt";
        let own = &object["spec"][if is_exempt { "exempt" } else { "limited" }];
        let number = |pointer: &str| own.pointer(pointer).and_then(Value::as_u64);
        let size = |field: &str, most: usize| {
            let number = number(&format!("/limitResponse/queuing/{field}")).unwrap_or(1);
            usize::try_from(number).unwrap_or(most).clamp(1, most)
        };
        let queuing = Queuing {
            queues: size("queues", limits::QUEUES_OF_A_LEVEL),
            hand_size: size("handSize", limits::QUEUES_OF_A_FLOW),
            length_limit: size("queueLengthLimit", limits::REQUESTS_QUEUED),
        };
        Self {
            name: meta(object, "name").to_owned(),
            is_exempt,
            shares: number("/nominalConcurrencyShares").unwrap_or(if is_exempt { 0 } else { 30 }),
            lendable_percent: number("/lendablePercent").unwrap_or(0),
            borrowing_limit_percent: number("/borrowingLimitPercent"),
            queuing: (text(own, "/limitResponse/type") == "Queue").then_some(queuing),
        }
    }
}

/// Why a request did not get a seat.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refusal {
    /// The level has no queues.
    Full,
    /// The flow's queues are full.
    QueueFull,
    /// It waited as long as it may.
    TimedOut,
}

/// The numbers of a level at this moment.
pub(crate) struct Load {
    pub(crate) level: String,
    pub(crate) nominal: usize,
    pub(crate) executing: usize,
    /// The seats of those that run.
    pub(crate) seated: usize,
    pub(crate) waiting: usize,
}

/// A request that waits.
pub(super) struct Queued {
    pub(super) level: String,
    pub(super) schema: String,
    pub(super) queue: usize,
    pub(super) place: usize,
    pub(super) distinguisher: String,
    pub(super) arrived: Timestamp,
    pub(super) seats: usize,
}

/// Of all levels.
pub(super) struct Seats {
    state: Mutex<State>,
    /// How long a request waits in a queue.
    queue_timeout: Duration,
}

struct State {
    levels: Vec<Level>,
    /// How many seats all levels lend together.
    pool: usize,
    /// Requests that wait, of all levels.
    waiting: usize,
    next_id: u64,
}

struct Level {
    /// `None` once it is no longer configured; its place is taken by another level when nobody runs or waits there.
    name: Option<String>,
    is_exempt: bool,
    nominal: usize,
    /// The nominal seats that it does not lend.
    reserved: usize,
    /// What it may have with what it borrows.
    most: usize,
    queuing: Option<Queuing>,
    /// Requests that run, and the seats that they have.
    executing: usize,
    seated: usize,
    waiting: usize,
    queues: Vec<VecDeque<Waiter>>,
    /// Whose turn it is.
    next_queue: usize,
}

struct Waiter {
    id: u64,
    seats: usize,
    schema: Arc<str>,
    distinguisher: Box<str>,
    arrived: Timestamp,
    turn: oneshot::Sender<()>,
}

/// What a request wants, and whose it is.
pub(super) struct Wish<'a> {
    /// Its queues are dealt by this number.
    pub(super) flow: u64,
    pub(super) seats: usize,
    /// Joins a queue of any length.
    pub(super) is_patient: bool,
    pub(super) schema: &'a Arc<str>,
    pub(super) distinguisher: &'a str,
}

/// What became of a wish at first.
pub(super) enum Asked<'a> {
    Seated(Seat<'a>),
    Queued(Waiting<'a>),
}

impl Seats {
    pub(super) fn new(queue_timeout: Duration) -> Self {
        let state = State { levels: Vec::new(), pool: 0, waiting: 0, next_id: 0 };
        Self { state: Mutex::new(state), queue_timeout }
    }

    /// Takes these levels and no others from now on; says where each is, in their order.
    pub(super) fn configure(&self, specs: &[LevelSpec], total: usize) -> Vec<usize> {
        let mut state = self.state.lock();
        for level in &mut state.levels {
            if level.name.as_ref().is_some_and(|name| specs.iter().all(|spec| spec.name != *name)) {
                level.retire();
            }
        }
        let shares: u64 = specs.iter().map(|spec| spec.shares).sum();
        let places = specs.iter().map(|spec| state.place(spec, total, shares.max(1))).collect();
        state.pool = state
            .levels
            .iter()
            .filter(|level| level.name.is_some())
            .map(|level| level.nominal - level.reserved)
            .sum();
        state.give_out();
        places
    }

    /// Takes seats, when there are enough, or a place in a queue.
    pub(super) fn ask(&self, level: usize, wish: &Wish<'_>) -> Result<Asked<'_>, Refusal> {
        let mut state = self.state.lock();
        let Some(found) = state.levels.get(level) else { return Err(Refusal::Full) };
        // However large the list: others of the level have room as well.
        let seats = if found.is_exempt { 1 } else { wish.seats.clamp(1, found.widest()) };
        if found.waiting == 0 && state.may_run(found, seats) {
            state.levels[level].seat(seats);
            return Ok(Asked::Seated(Seat { seats: self, level, width: seats }));
        }
        let (id, turn) = state.join(level, seats, wish)?;
        Ok(Asked::Queued(Waiting { seats: self, level, width: seats, id, turn, is_over: false }))
    }

    /// What goes on in each level.
    pub(super) fn loads(&self) -> Vec<Load> {
        let state = self.state.lock();
        let named = state.levels.iter().filter_map(|level| Some((level.name.clone()?, level)));
        let load = |(name, level): (String, &Level)| Load {
            level: name,
            nominal: level.nominal,
            executing: level.executing,
            seated: level.seated,
            waiting: level.waiting,
        };
        named.map(load).collect()
    }

    /// The name of the level at each place.
    pub(super) fn names(&self) -> Vec<Option<String>> {
        self.state.lock().levels.iter().map(|level| level.name.clone()).collect()
    }

    /// Who waits, of all levels: the level, the queue and the place there.
    pub(super) fn waiting(&self) -> Vec<Queued> {
        let state = self.state.lock();
        let mut all = Vec::new();
        for level in state.levels.iter().filter(|level| level.waiting > 0) {
            let name = level.name.clone().unwrap_or_default();
            for (queue, waiters) in level.queues.iter().enumerate() {
                all.extend(waiters.iter().enumerate().map(|(place, waiter)| Queued {
                    level: name.clone(),
                    schema: waiter.schema.to_string(),
                    queue,
                    place,
                    distinguisher: waiter.distinguisher.to_string(),
                    arrived: waiter.arrived,
                    seats: waiter.seats,
                }));
            }
        }
        all
    }

    /// How many wait in each queue, by level, and how many seats they want.
    pub(super) fn queues(&self) -> Vec<(String, Vec<(usize, usize)>)> {
        let state = self.state.lock();
        let named = state.levels.iter().filter_map(|level| Some((level.name.clone()?, level)));
        let count =
            |queue: &VecDeque<Waiter>| (queue.len(), queue.iter().map(|waiter| waiter.seats).sum());
        named.map(|(name, level)| (name, level.queues.iter().map(count).collect())).collect()
    }

    fn release(&self, level: usize, seats: usize) {
        let mut state = self.state.lock();
        state.levels[level].leave(seats);
        state.give_out();
    }
}

impl State {
    /// Puts a level where it was, or where there is place.
    fn place(&mut self, spec: &LevelSpec, total: usize, shares: u64) -> usize {
        let is_same = |level: &Level| level.name.as_ref() == Some(&spec.name);
        let is_free =
            |level: &Level| level.name.is_none() && level.executing == 0 && level.waiting == 0;
        let found = self.levels.iter().position(is_same);
        let place = found.or_else(|| self.levels.iter().position(is_free)).unwrap_or_else(|| {
            self.levels.push(Level::empty());
            self.levels.len() - 1
        });
        self.levels[place].take_on(spec, total, shares);
        place
    }

    /// Whether one more request of the level, of this width, may run. One that is wider than all that the level can have runs alone.
    fn may_run(&self, level: &Level, seats: usize) -> bool {
        if level.is_exempt || level.seated + seats <= level.reserved {
            return true;
        }
        let borrowed = |level: &Level| level.seated.saturating_sub(level.reserved);
        let all: usize = self.levels.iter().filter(|other| !other.is_exempt).map(borrowed).sum();
        let more = |seats: usize| {
            let wanted = (level.seated + seats).saturating_sub(level.reserved);
            level.seated + seats <= level.most && all + wanted - borrowed(level) <= self.pool
        };
        more(seats) || (level.seated == 0 && (level.reserved > 0 || more(1)))
    }

    /// Queues a request of this flow.
    fn join(
        &mut self,
        level: usize,
        seats: usize,
        wish: &Wish<'_>,
    ) -> Result<(u64, oneshot::Receiver<()>), Refusal> {
        let found = &mut self.levels[level];
        let Some(queuing) = found.queuing else { return Err(Refusal::Full) };
        let hand = deal(wish.flow, found.queues.len(), queuing.hand_size);
        let shortest = hand.into_iter().min_by_key(|queue| found.queues[*queue].len());
        let queue = shortest.map(|queue| &mut found.queues[queue]).ok_or(Refusal::Full)?;
        if !wish.is_patient && queue.len() >= queuing.length_limit {
            return Err(Refusal::QueueFull);
        }
        let (turn, receiver) = oneshot::channel();
        let id = self.next_id;
        self.next_id += 1;
        queue.push_back(Waiter {
            id,
            seats,
            schema: wish.schema.clone(),
            distinguisher: wish.distinguisher.into(),
            arrived: Timestamp::now(),
            turn,
        });
        found.waiting += 1;
        self.waiting += 1;
        Ok((id, receiver))
    }

    /// Lets those run for whom there are seats: levels below their nominal seats first.
    fn give_out(&mut self) {
        while self.waiting > 0 {
            let may_run = |level: &&usize| {
                let level = &self.levels[**level];
                level.turn().is_some_and(|queue| {
                    level.queues[queue]
                        .front()
                        .is_some_and(|first| self.may_run(level, first.seats))
                })
            };
            let places: Vec<usize> = (0..self.levels.len()).collect();
            let borrows = |place: &&usize| {
                let level = &self.levels[**place];
                (level.seated >= level.nominal, level.seated)
            };
            let Some(&place) = places.iter().filter(may_run).min_by_key(borrows) else { return };
            let level = &mut self.levels[place];
            let Some(waiter) = level.next() else { return };
            level.waiting -= 1;
            level.seat(waiter.seats);
            self.waiting -= 1;
            // Who gave up at this moment finds that it is not in the queue, and gives the seat back.
            waiter.turn.send(()).ok();
        }
    }
}

impl Level {
    fn empty() -> Self {
        Self {
            name: None,
            is_exempt: false,
            nominal: 0,
            reserved: 0,
            most: 0,
            queuing: None,
            executing: 0,
            seated: 0,
            waiting: 0,
            queues: Vec::new(),
            next_queue: 0,
        }
    }

    fn take_on(&mut self, spec: &LevelSpec, total: usize, shares: u64) {
        let total = total as u64;
        let seats = |number: u64| usize::try_from(number).unwrap_or(usize::MAX);
        let nominal = (total * spec.shares).div_ceil(shares);
        // Rounded as upstream rounds.
        let percent = |percent: u64| seats((nominal * percent + 50) / 100);
        self.name = Some(spec.name.clone());
        self.is_exempt = spec.is_exempt;
        self.nominal = seats(nominal);
        self.reserved = self.nominal.saturating_sub(percent(spec.lendable_percent));
        self.most = match spec.borrowing_limit_percent {
            Some(limit) => self.nominal.saturating_add(percent(limit)),
            None => usize::MAX,
        };
        self.queuing = spec.queuing;
        let queues = spec.queuing.map_or(self.queues.len(), |queuing| queuing.queues);
        let orphans: Vec<Waiter> =
            self.queues.drain(queues.min(self.queues.len())..).flatten().collect();
        self.queues.resize_with(queues, VecDeque::new);
        for (place, waiter) in orphans.into_iter().enumerate() {
            self.queues[place % queues].push_back(waiter);
        }
    }

    /// Goes on for those who are here, one after the other, and takes nobody else.
    fn retire(&mut self) {
        self.name = None;
        (self.nominal, self.reserved, self.most) = (1, 1, 1);
    }

    fn seat(&mut self, seats: usize) {
        self.executing += 1;
        self.seated += seats;
    }

    fn leave(&mut self, seats: usize) {
        self.executing -= 1;
        self.seated -= seats;
    }

    /// How many seats one request may take at most: as upstream, a sixth of the level's.
    fn widest(&self) -> usize {
        self.nominal.div_ceil(6).max(1)
    }

    /// The queue whose turn it is.
    fn turn(&self) -> Option<usize> {
        let queues = self.queues.len();
        let mut turns = (0..queues).map(|turn| (self.next_queue + turn) % queues);
        turns.find(|queue| !self.queues[*queue].is_empty())
    }

    /// The first of the queue whose turn it is.
    fn next(&mut self) -> Option<Waiter> {
        let queue = self.turn()?;
        self.next_queue = (queue + 1) % self.queues.len();
        self.queues[queue].pop_front()
    }
}

/// The queues that a flow may join: always the same ones, and hardly ever those of another flow.
fn deal(flow: u64, queues: usize, hand_size: usize) -> SmallVec<[usize; limits::QUEUES_OF_A_FLOW]> {
    let mut rest = flow;
    let mut hand: SmallVec<[usize; limits::QUEUES_OF_A_FLOW]> = SmallVec::new();
    for dealt in 0..hand_size.min(queues) {
        let left = (queues - dealt) as u64;
        let mut card = usize::try_from(rest % left).unwrap_or_default();
        rest /= left;
        // The card counts among those that are left: in order, each one dealt before it moves it on.
        let mut place = 0;
        while place < hand.len() && hand[place] <= card {
            card += 1;
            place += 1;
        }
        hand.insert(place, card);
    }
    hand
}

/// A request that waits for its turn; leaves the queue when nobody waits for it any longer.
pub(super) struct Waiting<'a> {
    seats: &'a Seats,
    level: usize,
    width: usize,
    id: u64,
    turn: oneshot::Receiver<()>,
    /// It has its seat.
    is_over: bool,
}

impl<'a> Waiting<'a> {
    /// Waits for its turn, as long as a request may.
    pub(super) async fn seated(mut self) -> Result<Seat<'a>, Refusal> {
        let waited = tokio::time::timeout(self.seats.queue_timeout, &mut self.turn).await;
        match waited {
            Ok(Ok(())) => {
                self.is_over = true;
                Ok(Seat { seats: self.seats, level: self.level, width: self.width })
            }
            _ => Err(Refusal::TimedOut),
        }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if self.is_over {
            return;
        }
        let mut state = self.seats.state.lock();
        let level = &mut state.levels[self.level];
        let mut has_left = false;
        for queue in &mut level.queues {
            if let Some(place) = queue.iter().position(|waiter| waiter.id == self.id) {
                queue.remove(place);
                has_left = true;
                break;
            }
        }
        if has_left {
            level.waiting -= 1;
            state.waiting -= 1;
        } else {
            level.leave(self.width);
            state.give_out();
        }
    }
}

/// The right to run: one seat or several, given back when dropped.
pub(crate) struct Seat<'a> {
    seats: &'a Seats,
    level: usize,
    width: usize,
}

impl Drop for Seat<'_> {
    fn drop(&mut self) {
        self.seats.release(self.level, self.width);
    }
}

#[cfg(test)]
mod tests;
