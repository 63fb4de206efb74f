//! The owner of a component's background work.

use std::future::Future;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{Instrument, debug_span, warn};

/// How long a component's tasks get to end after they were told to: longer than any single API call may take.
const SHUTDOWN_DEADLINE: Duration = Duration::from_secs(15);

/// Spawns tasks, tells them to stop, and awaits them.
#[derive(Debug, Clone)]
pub struct Tasks {
    token: CancellationToken,
    tracker: TaskTracker,
}

impl Tasks {
    /// Tasks that stop when `token` is cancelled.
    pub fn new(token: CancellationToken) -> Self {
        Self { token, tracker: TaskTracker::new() }
    }

    /// Cancelled when the tasks must stop.
    pub fn token(&self) -> &CancellationToken {
        &self.token
    }

    /// Runs `work` until it ends or the tasks are told to stop, whichever is first.
    pub fn spawn<F>(&self, name: &'static str, work: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let token = self.token.clone();
        let work = async move {
            token.run_until_cancelled(work).await;
        };
        self.tracker.spawn(work.instrument(debug_span!("task", name)));
    }

    /// Runs `work` to its own end: it watches [`Tasks::token`] itself because it has something to finish.
    pub fn spawn_to_end<F>(&self, name: &'static str, work: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.tracker.spawn(work.instrument(debug_span!("task", name)));
    }

    /// What `work` gives, or nothing when the tasks were told to stop before it was done.
    ///
    /// # Errors
    /// Those of `work`, but none of a stop: what fails while everything ends is not news.
    pub async fn until_stopped<T, E>(
        &self,
        work: impl Future<Output = Result<T, E>>,
    ) -> Result<Option<T>, E> {
        match self.token.run_until_cancelled(work).await {
            Some(Err(error)) if !self.token.is_cancelled() => Err(error),
            Some(Ok(value)) => Ok(Some(value)),
            Some(Err(_)) | None => Ok(None),
        }
    }

    /// Waits until the token is cancelled, then until every task has ended.
    pub async fn finished(&self) {
        self.token.cancelled().await;
        self.tracker.close();
        if tokio::time::timeout(SHUTDOWN_DEADLINE, self.tracker.wait()).await.is_err() {
            warn!(tasks = self.tracker.len(), "tasks did not end in time");
        }
    }

    /// Tells every task to stop and awaits them.
    pub async fn shutdown(&self) {
        self.token.cancel();
        self.finished().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_error_that_a_stop_causes_is_not_told() {
        let tasks = Tasks::new(CancellationToken::new());
        assert_eq!(tasks.until_stopped(async { Ok::<_, &str>(1) }).await, Ok(Some(1)));
        assert_eq!(tasks.until_stopped(async { Err::<u8, _>("late") }).await, Err("late"));
        let stop = tasks.token().clone();
        let stopped_midway = async {
            stop.cancel();
            Err::<u8, _>("stopped")
        };
        assert_eq!(tasks.until_stopped(stopped_midway).await, Ok(None));
    }
}
