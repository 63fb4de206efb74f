//! What the kubelet remembers of one container of one pod.

use std::time::Duration;

use coracle_runtime::ContainerId;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    ContainerState, ContainerStateRunning, ContainerStateTerminated, ContainerStateWaiting,
    ContainerStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::backoff::Backoff;
use crate::plan::Seen;

/// One container over all its attempts.
#[derive(Debug, Clone)]
pub(crate) struct Record {
    /// What it does now.
    pub(crate) activity: Activity,
    /// The attempt that runs or ran last.
    pub(crate) id: Option<ContainerId>,
    /// Ended attempts that the engine still remembers.
    pub(crate) leftover: Vec<ContainerId>,
    /// How many attempts were begun: the number of the next one.
    pub(crate) attempts: u32,
    /// The digest of the image that runs or ran last.
    pub(crate) image_digest: String,
    /// Why it waits, when it does.
    pub(crate) waiting: Option<Waiting>,
    /// How its last finished attempt ended.
    pub(crate) ended: Option<ContainerStateTerminated>,
    /// How the attempt before that ended.
    pub(crate) ended_before: Option<ContainerStateTerminated>,
    /// The pause before it is started again.
    pub(crate) backoff: Backoff,
    /// True once its startup probe has passed, or at once when it has none.
    pub(crate) started: bool,
    /// True while its readiness probe passes, or while it runs when it has none.
    pub(crate) ready: bool,
    /// Why it must be restarted.
    pub(crate) unhealthy: Option<Unhealthy>,
    /// Since when it is being replaced by one of another image.
    pub(crate) replaced_since: Option<Timestamp>,
}

/// What a container does now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Activity {
    /// Nothing yet; after a failed start it waits.
    Idle {
        /// When the next attempt is due.
        retry_at: Option<Timestamp>,
    },
    /// It is being started.
    Starting,
    /// It runs.
    Running {
        /// Since when.
        since: Timestamp,
    },
    /// It runs and was told to stop.
    Stopping {
        /// Since when it ran.
        since: Timestamp,
    },
    /// It ended.
    Exited {
        /// What it returned.
        exit_code: i32,
        /// When its back-off is over.
        restart_at: Timestamp,
        /// How long that is.
        pause: Duration,
    },
}

/// Why a container waits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Waiting {
    /// One word.
    pub(crate) reason: String,
    /// A sentence, or empty.
    pub(crate) message: String,
}

/// Why a running container must be restarted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Unhealthy {
    /// A probe failed too often.
    Probe {
        /// `liveness` or `startup`.
        probe: &'static str,
        /// The probe's own grace period, when it has one.
        grace: Option<Duration>,
    },
    /// Its image was changed.
    Changed,
}

impl Record {
    /// A container that never ran.
    pub(crate) fn new() -> Self {
        Self {
            activity: Activity::Idle { retry_at: None },
            id: None,
            leftover: Vec::new(),
            attempts: 0,
            image_digest: String::new(),
            waiting: None,
            ended: None,
            ended_before: None,
            backoff: Backoff::default(),
            started: false,
            ready: false,
            unhealthy: None,
            replaced_since: None,
        }
    }

    /// What the API remembers of a container that this kubelet did not start.
    ///
    /// A container that ran is lost: it counts as ended, with upstream's code and words for one that cannot be found.
    pub(crate) fn remembered(status: &ContainerStatus, now: Timestamp) -> Self {
        let mut record = Self::new();
        let state = status.state.clone().unwrap_or_default();
        let last = status.last_state.as_ref().and_then(|last| last.terminated.clone());
        record.image_digest.clone_from(&status.image_id);
        let ran = state.running.is_some() || state.terminated.is_some() || last.is_some();
        let restarts = u32::try_from(status.restart_count).unwrap_or(0);
        record.attempts = if ran { restarts + 1 } else { restarts };
        record.id = status
            .container_id
            .as_deref()
            .and_then(|id| id.split_once("://"))
            .map(|(_, id)| ContainerId::new(id));
        if let Some(running) = state.running {
            record.ended = Some(lost(&running, status.container_id.clone(), now));
            record.ended_before = last;
        } else if let Some(ended) = state.terminated {
            record.ended = Some(ended);
            record.ended_before = last;
        } else {
            record.ended = last;
        }
        if let Some(ended) = &record.ended {
            let exit_code = ended.exit_code;
            record.activity =
                Activity::Exited { exit_code, restart_at: now, pause: Duration::ZERO };
        }
        record
    }

    /// How many attempts came to run. One that is only being started may still fail, and has no log yet.
    pub(crate) fn begun(&self) -> u32 {
        let starting = self.activity == Activity::Starting;
        self.attempts.saturating_sub(u32::from(starting))
    }

    /// How often it was restarted.
    pub(crate) fn restart_count(&self) -> i32 {
        i32::try_from(self.begun().saturating_sub(1)).unwrap_or(i32::MAX)
    }

    /// What the plan needs to know.
    pub(crate) fn seen(&self) -> Seen {
        match &self.activity {
            Activity::Idle { retry_at } => Seen::Idle { retry_at: *retry_at },
            Activity::Starting => Seen::Starting,
            Activity::Running { .. } => {
                Seen::Running { started: self.started, unhealthy: self.unhealthy.is_some() }
            }
            Activity::Stopping { .. } => Seen::Stopping,
            Activity::Exited { exit_code, restart_at, .. } => {
                Seen::Exited { exit_code: *exit_code, restart_at: *restart_at }
            }
        }
    }

    /// It has another image now. One that runs is stopped; what failed under the old image says nothing of the new one.
    pub(crate) fn changed(&mut self, now: Timestamp) {
        self.backoff = Backoff::default();
        match &mut self.activity {
            Activity::Running { .. } => {
                self.unhealthy = Some(Unhealthy::Changed);
                self.replaced_since = Some(now);
            }
            Activity::Idle { retry_at: Some(due) } | Activity::Exited { restart_at: due, .. } => {
                *due = now;
            }
            Activity::Idle { retry_at: None } | Activity::Starting | Activity::Stopping { .. } => {}
        }
    }

    /// An attempt began.
    pub(crate) fn starting(&mut self, id: ContainerId) {
        self.activity = Activity::Starting;
        self.attempts += 1;
        self.id = Some(id);
        self.started = false;
        self.ready = false;
        self.unhealthy = None;
    }

    /// The attempt did not come to run.
    pub(crate) fn start_failed(&mut self, waiting: Waiting, retry_at: Timestamp) {
        self.attempts = self.attempts.saturating_sub(1);
        self.replaced_since = None;
        self.waiting = Some(waiting);
        self.activity = Activity::Idle { retry_at: Some(retry_at) };
    }

    /// The attempt was given up because the pod ends.
    pub(crate) fn start_abandoned(&mut self) {
        self.attempts = self.attempts.saturating_sub(1);
        self.waiting = None;
        self.activity = Activity::Idle { retry_at: None };
    }

    /// The attempt runs.
    pub(crate) fn running(&mut self, since: Timestamp) {
        self.waiting = None;
        self.replaced_since = None;
        self.activity = Activity::Running { since };
    }

    /// The attempt ended.
    pub(crate) fn exited(&mut self, terminated: ContainerStateTerminated, finished_at: Timestamp) {
        self.leftover.extend(self.id.clone());
        let pause = self.backoff.pause(finished_at);
        let restart_at = finished_at + pause;
        self.activity = Activity::Exited { exit_code: terminated.exit_code, restart_at, pause };
        self.ended_before = self.ended.take();
        self.ended = Some(terminated);
        self.waiting = None;
        self.started = false;
        self.ready = false;
        self.unhealthy = None;
    }

    /// The state and the last state as the API shows them. `fallback` is why it waits when nothing else is known;
    /// `restarts` says whether an ended container will be started again.
    pub(crate) fn states(
        &self,
        fallback: &str,
        restarts: bool,
        crash_message: impl Fn(Duration) -> String,
    ) -> States {
        let ended = self.ended.clone();
        match &self.activity {
            Activity::Running { since } | Activity::Stopping { since } => States {
                state: ContainerState {
                    running: Some(ContainerStateRunning {
                        started_at: Some(whole_seconds(*since)),
                    }),
                    ..ContainerState::default()
                },
                last: ended,
            },
            Activity::Exited { pause, .. } if restarts && !pause.is_zero() => {
                States { state: waiting("CrashLoopBackOff", &crash_message(*pause)), last: ended }
            }
            Activity::Exited { .. } => States::ended(ended, self.ended_before.clone()),
            Activity::Idle { .. } | Activity::Starting => match (&self.waiting, &ended) {
                (Some(why), _) => States { state: waiting(&why.reason, &why.message), last: ended },
                (None, Some(_)) => States::ended(ended, self.ended_before.clone()),
                (None, None) => States { state: waiting(fallback, ""), last: None },
            },
        }
    }
}

/// A container's state and last state.
pub(crate) struct States {
    /// Now.
    pub(crate) state: ContainerState,
    /// Before.
    pub(crate) last: Option<ContainerStateTerminated>,
}

impl States {
    fn ended(
        ended: Option<ContainerStateTerminated>,
        before: Option<ContainerStateTerminated>,
    ) -> Self {
        Self {
            state: ContainerState { terminated: ended, ..ContainerState::default() },
            last: before,
        }
    }
}

fn waiting(reason: &str, message: &str) -> ContainerState {
    ContainerState {
        waiting: Some(ContainerStateWaiting {
            reason: Some(reason.to_owned()),
            message: Some(message.to_owned()).filter(|message| !message.is_empty()),
        }),
        ..ContainerState::default()
    }
}

fn lost(
    running: &ContainerStateRunning,
    id: Option<String>,
    now: Timestamp,
) -> ContainerStateTerminated {
    ContainerStateTerminated {
        container_id: id,
        exit_code: 137,
        reason: Some("ContainerStatusUnknown".to_owned()),
        message: Some("The container could not be located when the node was restarted".to_owned()),
        started_at: running.started_at.clone(),
        finished_at: Some(whole_seconds(now)),
        signal: None,
    }
}

/// A time as the API keeps it: to the second.
pub(crate) fn whole_seconds(at: Timestamp) -> Time {
    Time(Timestamp::from_second(at.as_second()).unwrap_or(at))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_restart_counts_once_it_came_to_run() {
        let now = Timestamp::now();
        let mut record = Record::new();
        record.starting(ContainerId::new("first"));
        assert_eq!((record.begun(), record.restart_count()), (0, 0));
        record.running(now);
        record.exited(ContainerStateTerminated::default(), now);
        assert_eq!((record.begun(), record.restart_count()), (1, 0));
        record.starting(ContainerId::new("second"));
        assert_eq!((record.begun(), record.restart_count()), (1, 0), "it may still fail");
        record.running(now);
        assert_eq!((record.begun(), record.restart_count()), (2, 1));
    }

    #[test]
    fn another_image_is_tried_at_once() {
        let now = Timestamp::now();
        let mut record = Record::new();
        record.backoff.lengthen(now);
        record.exited(ContainerStateTerminated::default(), now);
        assert!(matches!(record.seen(), Seen::Exited { restart_at, .. } if restart_at > now));
        record.changed(now);
        assert_eq!(record.seen(), Seen::Exited { exit_code: 0, restart_at: now });
        let waiting = Waiting { reason: "ImagePullBackOff".to_owned(), message: String::new() };
        record.start_failed(waiting, now + Duration::from_secs(10));
        record.changed(now);
        assert_eq!(record.seen(), Seen::Idle { retry_at: Some(now) });
        record.starting(ContainerId::new("it"));
        record.running(now);
        record.backoff.lengthen(now);
        record.changed(now);
        assert_eq!(record.seen(), Seen::Running { started: false, unhealthy: true });
        record.exited(ContainerStateTerminated::default(), now);
        assert_eq!(record.seen(), Seen::Exited { exit_code: 0, restart_at: now });
    }
}
