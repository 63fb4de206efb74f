//! What operations answer, and what that changes.

use coracle_runtime::ContainerId;
use jiff::Timestamp;
use tracing::{debug, warn};

use super::{
    FORCED_GRACE, Ground, PREPARE_FIRST, PREPARE_LONGEST, Probing, STOP_AGAIN, Teardown, Worker,
};
use crate::operations::{self, Done, NotStarted, Prepared, Problem};
use crate::probe::{self, Kind};
use crate::record::Activity;

impl Worker {
    pub(super) fn finish(&mut self, done: Done, now: Timestamp) {
        match done {
            Done::Prepared(result) => self.prepared(result, now),
            Done::Refreshed(result) => self.refreshed(result, now),
            Done::Started { name, id, result } => self.started(&name, &id, result, now),
            Done::Stopped { name, result } => {
                if let Err(cause) = result {
                    warn!(pod = %self.uid, container = name, cause, "container not stopped");
                    let grace = self.stops.get(&name).copied().unwrap_or(FORCED_GRACE);
                    self.begin_stop(&name, grace, STOP_AGAIN);
                }
            }
            Done::Probed { name, id, kind, asked_at, result } => {
                self.take_probe(&name, &id, kind, asked_at, result)
            }
            Done::Written(result) => self.written(*result, now),
            Done::TornDown(Ok(())) => self.teardown = Teardown::Done,
            Done::TornDown(Err(cause)) => {
                warn!(pod = %self.uid, cause, "pod not removed from the node");
                self.teardown = Teardown::Failed { retry_at: now + STOP_AGAIN };
            }
            Done::Deleted(result) => {
                self.status.deleting = false;
                match result {
                    Ok(()) => self.status.deleted = true,
                    Err(error) => {
                        debug!(pod = %self.uid, %error, "deletion not confirmed");
                        self.write_again(now);
                    }
                }
            }
        }
    }

    fn prepared(&mut self, result: Result<Prepared, Problem>, now: Timestamp) {
        let wait = match &self.ground {
            Ground::Preparing { wait } => *wait,
            Ground::None { .. } | Ground::Ready(_) => PREPARE_FIRST,
        };
        match result {
            Ok(prepared) => self.ground = Ground::Ready(prepared),
            Err(problem) => {
                self.report(problem);
                // What was missing may have come while we looked.
                let retry_at = if self.refresh.wanted { now } else { now + wait };
                self.ground = Ground::None {
                    retry_at: Some(retry_at),
                    wait: (wait * 2).min(PREPARE_LONGEST),
                };
            }
        }
    }

    fn refreshed(&mut self, result: Result<Prepared, Problem>, now: Timestamp) {
        self.refresh.running = false;
        match result {
            Ok(prepared) => {
                self.ground = Ground::Ready(prepared);
                self.refresh.wait = PREPARE_FIRST;
                self.refresh.retry_at = None;
            }
            Err(problem) => {
                // The files stay as they are: a guest goes on with what it has.
                self.report(problem);
                self.refresh.wanted = true;
                self.refresh.retry_at = Some(now + self.refresh.wait);
                self.refresh.wait = (self.refresh.wait * 2).min(PREPARE_LONGEST);
            }
        }
    }

    fn report(&self, problem: Problem) {
        match problem {
            Problem::Abandoned => (),
            Problem::Failed { reason, message } => {
                self.ctx.recorder.warning(self.pod.as_ref(), reason, message)
            }
        }
    }

    fn started(
        &mut self,
        name: &str,
        id: &ContainerId,
        result: Result<operations::Started, NotStarted>,
        now: Timestamp,
    ) {
        let Some((_, container)) = self.container(name) else { return };
        let Some(record) =
            self.records.get_mut(name).filter(|record| record.id.as_ref() == Some(id))
        else {
            return;
        };
        match result {
            Ok(started) => {
                record.image_digest = started.image_digest;
                if record.activity != Activity::Starting {
                    // It has ended already, and its end was told before its start.
                    return;
                }
                record.running(now);
                record.started = container.startup_probe.is_none();
                record.ready = record.started && container.readiness_probe.is_none();
                for kind in [Kind::Startup, Kind::Readiness, Kind::Liveness] {
                    if let Some(probe) = kind.of(&container) {
                        let state = probe::State::new(kind, probe, now);
                        self.probes
                            .insert((name.to_owned(), kind), Probing { state, asking: false });
                    }
                }
            }
            Err(NotStarted::Abandoned) => {
                record.start_abandoned();
            }
            Err(NotStarted::Waiting(waiting, retry_at)) => record.start_failed(waiting, retry_at),
            Err(NotStarted::HookFailed) => {
                if record.activity == Activity::Starting {
                    // Its end is on its way; until then it counts as stopping.
                    record.activity = Activity::Stopping { since: now };
                }
            }
        }
    }
}
