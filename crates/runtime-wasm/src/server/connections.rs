//! The connections of one server: how many there are, and when a server that is to end may close them.
//!
//! A client that hears of the end with an answer (`connection: close`) loses nothing, so each connection gets the time
//! for one more request. What is closed without an answer has been silent for a while, as Go's `http.Server` has it.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use http_body::{Body, Frame, SizeHint};
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

/// Connections that one container holds open; each costs some ten KiB.
const CONNECTIONS_MAX: usize = 10_000;

/// How long nobody may have come before a server that is to end closes its door: those who send here hear of its end
/// at about the same time, and one that still comes is served.
const QUIET: Duration = Duration::from_millis(300);

/// How long a connection that has been answered before may be silent: its client may be about to send more.
const IDLE: Duration = Duration::from_secs(1);

/// How long one may be silent that has sent nothing yet: whoever opens a connection means to use it.
const NEW: Duration = Duration::from_secs(5);

/// The doors of a server.
#[derive(Default)]
pub(super) struct Connections {
    state: Mutex<State>,
    /// Told when somebody came or went while the server ends.
    changed: Notify,
}

#[derive(Default)]
struct State {
    phase: Phase,
    open: usize,
    last_came: Option<Instant>,
}

#[derive(Default, Clone, Copy, PartialEq, Eq)]
enum Phase {
    #[default]
    Staying,
    Ending,
    Closed,
}

/// Who may come in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Who {
    /// One who can go elsewhere when the server is about to end.
    HasAChoice,
    /// One who has nowhere else to go.
    HasNone,
    /// One whom the server's own listener has accepted.
    IsIn,
}

/// Why one may not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refused {
    /// The server is about to end, or full.
    Ending,
    Closed,
}

/// The right to one connection, given back when dropped.
pub(super) struct Open(Arc<Connections>);

/// What happens on one connection: odd while a request is under way.
#[derive(Default, Clone)]
pub(super) struct Exchanges(Arc<AtomicU32>);

/// One request, from its head to the end of its answer.
pub(super) struct Exchange(Exchanges);

/// An answer's body that knows when it has been sent.
pub(super) struct Tracked<B> {
    body: B,
    _exchange: Exchange,
}

impl Connections {
    pub(super) fn enter(self: &Arc<Self>, who: Who) -> Result<Open, Refused> {
        let mut state = self.state.lock();
        match (state.phase, who) {
            (Phase::Closed, Who::HasAChoice | Who::HasNone) => return Err(Refused::Closed),
            (Phase::Ending, Who::HasAChoice) => return Err(Refused::Ending),
            (Phase::Closed | Phase::Ending, Who::IsIn)
            | (Phase::Ending, Who::HasNone)
            | (Phase::Staying, _) => (),
        }
        if state.open >= CONNECTIONS_MAX {
            return Err(Refused::Ending);
        }
        state.open += 1;
        if state.phase == Phase::Ending {
            state.last_came = Some(Instant::now());
        }
        Ok(Open(Arc::clone(self)))
    }

    /// From now on only those come in who have no choice.
    pub(super) fn begin_to_end(&self) {
        let mut state = self.state.lock();
        if state.phase == Phase::Staying {
            state.phase = Phase::Ending;
        }
    }

    /// Returns when all connections are gone and nobody has come for a while, `quiet` at most. Then it is closed.
    pub(super) async fn until_quiet(&self, quiet: Duration) {
        let quiet = QUIET.min(quiet);
        let began = Instant::now();
        loop {
            let changed = self.changed.notified();
            let wait = {
                let mut state = self.state.lock();
                let silent = state.last_came.unwrap_or(began).max(began).elapsed();
                if state.open == 0 && silent >= quiet {
                    state.phase = Phase::Closed;
                    return;
                }
                quiet.saturating_sub(silent)
            };
            // After the quiet only the end of the last connection is waited for.
            tokio::select! {
                () = changed => (),
                () = tokio::time::sleep(wait), if !wait.is_zero() => (),
            }
        }
    }

    /// Lets nobody in any more.
    pub(super) fn close(&self) {
        self.state.lock().phase = Phase::Closed;
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        let mut state = self.0.state.lock();
        state.open -= 1;
        if state.phase == Phase::Ending {
            // The one who waits looks at the whole.
            self.0.changed.notify_one();
        }
    }
}

impl Exchanges {
    pub(super) fn begin(&self) -> Exchange {
        self.0.fetch_add(1, Ordering::Relaxed);
        Exchange(self.clone())
    }

    /// Returns once the connection of a server that is to end has been silent for long enough to close it.
    pub(super) async fn until_silent(&self) {
        self.until_silent_for(NEW, IDLE).await;
    }

    /// Returns once nothing has happened for `time`, or a little more: one timer a connection, not one a request.
    pub(super) async fn until_unused(&self, time: Duration) {
        self.until_silent_for(time, time).await;
    }

    async fn until_silent_for(&self, new: Duration, used: Duration) {
        let mut seen = self.0.load(Ordering::Relaxed);
        loop {
            tokio::time::sleep(if seen == 0 { new } else { used }).await;
            let now = self.0.load(Ordering::Relaxed);
            if now == seen && now.is_multiple_of(2) {
                return;
            }
            seen = now;
        }
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        self.0.0.fetch_add(1, Ordering::Relaxed);
    }
}

impl<B> Tracked<B> {
    pub(super) fn new(body: B, exchange: Exchange) -> Self {
        Self { body, _exchange: exchange }
    }
}

impl<B: Body + Unpin> Body for Tracked<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
