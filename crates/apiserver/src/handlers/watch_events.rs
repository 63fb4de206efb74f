//! The events of a watch, with their objects in the version that the watcher speaks.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use coracle_api::kinds::Kind;
use coracle_store::{Change, Event, Gone, Object, Revision, Watch};
use futures::Stream as _;
use futures::future::BoxFuture;

use super::list::gone_status;
use crate::answer::Answer;
use crate::{custom_resources, limits};

/// Where the events of one watch come from.
pub(super) enum Events {
    /// The store, as they are.
    Stored(Watch),
    /// The store, by way of a conversion webhook.
    Converted(Box<Converted>),
}

/// Events on their way through a webhook: while one question is asked no further event is taken.
pub(super) struct Converted {
    kind: &'static Kind,
    watch: Watch,
    ready: VecDeque<Arc<Event>>,
    asked: Option<BoxFuture<'static, Answer<Vec<Arc<Event>>>>>,
    /// Up to where everything was handed out when the last question was asked.
    reached: Revision,
}

impl Events {
    /// Follows `watch` for a watcher of this kind.
    pub(super) fn new(kind: &'static Kind, watch: Watch) -> Self {
        if custom_resources::is_by_webhook(kind) {
            let (reached, ready) = (watch.progress(), VecDeque::new());
            Self::Converted(Box::new(Converted { kind, watch, ready, asked: None, reached }))
        } else {
            Self::Stored(watch)
        }
    }

    /// The next event; an error is the last thing there is, and nothing at all when the store closes.
    pub(super) fn poll_next(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Option<Answer<Arc<Event>>>> {
        match self {
            Self::Stored(watch) => poll_stored(watch, context),
            Self::Converted(converted) => converted.poll_next(context),
        }
    }

    /// The revision up to which the watcher has missed nothing.
    pub(super) fn progress(&self) -> Revision {
        match self {
            Self::Stored(watch) => watch.progress(),
            Self::Converted(converted) => converted.progress(),
        }
    }
}

fn poll_stored(watch: &mut Watch, context: &mut Context<'_>) -> Poll<Option<Answer<Arc<Event>>>> {
    Pin::new(watch).poll_next(context).map(|event| match event? {
        Ok(event) => Some(Ok(event)),
        // A store that closes is the end of the stream, not an error of the client's.
        Err(Gone::Closed) => None,
        Err(gone) => Some(Err(gone_status(&gone))),
    })
}

impl Converted {
    fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Option<Answer<Arc<Event>>>> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Poll::Ready(Some(Ok(event)));
            }
            if let Some(asked) = &mut self.asked {
                let Poll::Ready(answered) = asked.as_mut().poll(context) else {
                    return Poll::Pending;
                };
                self.asked = None;
                match answered {
                    Ok(events) => self.ready.extend(events),
                    Err(status) => return Poll::Ready(Some(Err(status))),
                }
                continue;
            }
            self.reached = self.watch.progress();
            let mut events = Vec::new();
            while events.len() < limits::EVENTS_CONVERTED {
                match poll_stored(&mut self.watch, context) {
                    Poll::Ready(Some(Ok(event))) => events.push(event),
                    // What comes after the events is found again once they are through.
                    Poll::Ready(_) | Poll::Pending if !events.is_empty() => break,
                    Poll::Ready(end) => return Poll::Ready(end),
                    Poll::Pending => return Poll::Pending,
                }
            }
            self.asked = Some(Box::pin(converted(self.kind, events)));
        }
    }

    fn progress(&self) -> Revision {
        if self.ready.is_empty() && self.asked.is_none() {
            self.watch.progress()
        } else {
            self.reached
        }
    }
}

/// The same events about objects of this kind's version.
async fn converted(kind: &'static Kind, events: Vec<Arc<Event>>) -> Answer<Vec<Arc<Event>>> {
    let states =
        events.iter().flat_map(|event| event.previous().into_iter().chain([event.object()]));
    let states: Vec<Arc<Object>> = states.cloned().collect();
    let mut states = custom_resources::bring_all(kind, states).await?.into_iter();
    let mut converted = Vec::with_capacity(events.len());
    for event in &events {
        let previous = event.previous().and_then(|_| states.next());
        let Some(object) = states.next() else { break };
        let change = match (&event.change, previous) {
            (Change::Delete { .. }, Some(previous)) => Change::Delete { object, previous },
            (_, previous) => Change::Put { object, previous },
        };
        converted.push(Arc::new(Event { revision: event.revision, change }));
    }
    Ok(converted)
}
