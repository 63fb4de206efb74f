//! A watcher: a position in a resource's ring of events, and nothing more.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures::Stream;
use tokio::sync::Notify;
use tokio::sync::futures::OwnedNotified;

use crate::error::Gone;
use crate::mirror::{Cursor, Mirror};
use crate::object::{Event, Range, Revision};

/// The events of a range after a revision, in order, each once.
///
/// It costs the writer nothing: a watcher that is slow reads later, and one that is too slow gets [`Gone`].
#[derive(Debug)]
pub struct Watch {
    mirror: Arc<Mirror>,
    range: Range,
    cursor: Cursor,
    changed: Arc<Notify>,
    /// Registered before the ring was last found empty, so that no event slips between the look and the wait.
    waiting: Option<Pin<Box<OwnedNotified>>>,
    ended: bool,
}

impl Watch {
    pub(crate) fn start(mirror: Arc<Mirror>, range: Range, after: Revision) -> Result<Watch, Gone> {
        let (cursor, changed) = mirror.watch(&range, after)?;
        Ok(Watch { mirror, range, cursor, changed, waiting: None, ended: false })
    }

    /// The next event; waits for it. Cancel-safe: an event is either returned or still to come.
    ///
    /// # Errors
    /// [`Gone::Compacted`] when events were dropped that this watcher has not seen; [`Gone::Closed`] at the end.
    pub async fn next(&mut self) -> Result<Arc<Event>, Gone> {
        std::future::poll_fn(|context| self.poll_event(context)).await
    }

    /// The next event if there is one now.
    ///
    /// # Errors
    /// As [`Watch::next`].
    pub fn try_next(&mut self) -> Result<Option<Arc<Event>>, Gone> {
        self.mirror.advance(&self.range, &mut self.cursor)
    }

    /// The revision up to which nothing was missed: what a bookmark may say.
    pub fn progress(&self) -> Revision {
        self.cursor.seen
    }

    fn poll_event(&mut self, context: &mut Context<'_>) -> Poll<Result<Arc<Event>, Gone>> {
        loop {
            if let Some(event) = self.try_next().transpose() {
                return Poll::Ready(event);
            }
            if let Some(waiting) = &mut self.waiting {
                match waiting.as_mut().poll(context) {
                    Poll::Pending => return Poll::Pending,
                    Poll::Ready(()) => self.waiting = None,
                }
            } else {
                let mut waiting = Box::pin(self.changed.clone().notified_owned());
                waiting.as_mut().enable();
                self.waiting = Some(waiting);
            }
        }
    }
}

/// Ends after the first error.
impl Stream for Watch {
    type Item = Result<Arc<Event>, Gone>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.ended {
            return Poll::Ready(None);
        }
        let polled = self.poll_event(context);
        self.ended = matches!(polled, Poll::Ready(Err(_)));
        polled.map(Some)
    }
}
