//! The node stops: the pod's containers end with it, and the API hears of that while somebody can still tell.

use std::time::Duration;

use futures::StreamExt;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::PodSpec;
use tracing::warn;

use super::{Alarm, Worker, sleep_until};
use crate::plan::{Goal, plan};

/// How long a pod may take to leave: less than `Tasks` waits for those that have something to finish.
const LEAVE: Duration = Duration::from_secs(13);
/// What containers get of that: the last write needs some too.
pub(super) const GRACE: Duration = Duration::from_secs(10);

impl Worker {
    /// Stops the pod's containers and writes how they ended. The pod itself stays: when the node comes back, so does it.
    pub(super) async fn leave(&mut self) {
        self.abandon.cancel();
        if tokio::time::timeout(LEAVE, self.until_left()).await.is_err() {
            warn!(pod = %self.uid, "pod did not end with its node in time");
        }
    }

    async fn until_left(&mut self) {
        loop {
            let mut alarm = Alarm::default();
            if self.leaving_pass(Timestamp::now(), &mut alarm) {
                return;
            }
            let mailbox = std::sync::Arc::clone(&self.mailbox);
            tokio::select! {
                () = mailbox.arrived() => (),
                Some(done) = self.operations.next() => self.finish(done, Timestamp::now()),
                () = sleep_until(alarm.0) => (),
            }
        }
    }

    /// True when nothing runs, and the API knows.
    fn leaving_pass(&mut self, now: Timestamp, alarm: &mut Alarm) -> bool {
        self.look();
        let seen =
            self.records.iter().map(|(name, record)| (name.clone(), record.seen())).collect();
        let plan =
            plan(self.pod.spec.as_ref().unwrap_or(&PodSpec::default()), Goal::End, &seen, now);
        self.stop(&plan.stop, Goal::End);
        if !plan.ended || self.status.writing.is_some() {
            return false;
        }
        if self.gone || self.over {
            return true;
        }
        if let Some(retry_at) = self.status.retry_at.filter(|retry_at| *retry_at > now) {
            alarm.at(Some(retry_at));
            return false;
        }
        self.write_status(plan.initialized, now, &mut Alarm::default());
        self.status.writing.is_none()
    }
}
