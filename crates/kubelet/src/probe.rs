//! Probes as a pure state machine: what each result changes, and when to ask next.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, Probe};

/// Which of a container's probes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Kind {
    /// Holds the others back until it passes once.
    Startup,
    /// Decides whether the container gets traffic.
    Readiness,
    /// Decides whether it is restarted.
    Liveness,
}

impl Kind {
    /// As the Events say it.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Startup => "Startup",
            Self::Readiness => "Readiness",
            Self::Liveness => "Liveness",
        }
    }

    /// The container's probe of this kind.
    pub(crate) fn of(self, container: &Container) -> Option<&Probe> {
        match self {
            Self::Startup => container.startup_probe.as_ref(),
            Self::Readiness => container.readiness_probe.as_ref(),
            Self::Liveness => container.liveness_probe.as_ref(),
        }
    }
}

/// What a probe has settled on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It passed often enough.
    Pass,
    /// It failed often enough.
    Fail,
}

/// One probe of one running container.
#[derive(Debug, Clone)]
pub(crate) struct State {
    // What the last results in a row were, and how many.
    streak: Option<(Verdict, u32)>,
    settled: Option<Verdict>,
    next_at: Timestamp,
}

impl State {
    /// A probe of a container that has just started.
    pub(crate) fn new(kind: Kind, probe: &Probe, started_at: Timestamp) -> Self {
        let settled = match kind {
            // Nobody is sent to what has not answered; nobody is killed before it failed.
            Kind::Readiness => Some(Verdict::Fail),
            Kind::Liveness => Some(Verdict::Pass),
            Kind::Startup => None,
        };
        let delay = seconds(probe.initial_delay_seconds, 0);
        Self { streak: None, settled, next_at: started_at + delay }
    }

    /// When to ask next.
    pub(crate) fn next_at(&self) -> Timestamp {
        self.next_at
    }

    /// What it says now.
    pub(crate) fn settled(&self) -> Option<Verdict> {
        self.settled
    }

    /// Takes in a result. True when that changed what the probe says.
    pub(crate) fn record(&mut self, probe: &Probe, result: Verdict, asked_at: Timestamp) -> bool {
        self.next_at = asked_at + seconds(probe.period_seconds, 10);
        let count = match self.streak {
            Some((last, count)) if last == result => count.saturating_add(1),
            _ => 1,
        };
        self.streak = Some((result, count));
        let needed = match result {
            Verdict::Pass => probe.success_threshold.unwrap_or(1),
            Verdict::Fail => probe.failure_threshold.unwrap_or(3),
        };
        if i64::from(count) < i64::from(needed) || self.settled == Some(result) {
            return false;
        }
        self.settled = Some(result);
        true
    }
}

/// How long one try may take.
pub(crate) fn timeout(probe: &Probe) -> Duration {
    seconds(probe.timeout_seconds, 1)
}

fn seconds(set: Option<i32>, default: u64) -> Duration {
    Duration::from_secs(set.and_then(|set| u64::try_from(set).ok()).unwrap_or(default))
}

#[cfg(test)]
mod tests {
    use super::*;
    use Verdict::{Fail, Pass};

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_700_000_000 + second).unwrap()
    }

    fn check(kind: Kind, probe: serde_json::Value, results: &[(Verdict, Option<Verdict>)]) {
        let probe: Probe = serde_json::from_value(probe).unwrap();
        let mut state = State::new(kind, &probe, at(0));
        for (at_result, (result, expected)) in results.iter().enumerate() {
            state.record(&probe, *result, at(0));
            assert_eq!(state.settled(), *expected, "{kind:?}, result {at_result}");
        }
    }

    #[test]
    fn thresholds_count_results_in_a_row() {
        let ready = serde_json::json!({ "successThreshold": 2, "failureThreshold": 2 });
        check(
            Kind::Readiness,
            ready,
            &[
                (Pass, Some(Fail)),
                (Pass, Some(Pass)),
                (Fail, Some(Pass)),
                (Pass, Some(Pass)),
                (Fail, Some(Pass)),
                (Fail, Some(Fail)),
            ],
        );
        let live = serde_json::json!({});
        check(
            Kind::Liveness,
            live.clone(),
            &[
                (Fail, Some(Pass)),
                (Fail, Some(Pass)),
                (Pass, Some(Pass)),
                (Fail, Some(Pass)),
                (Fail, Some(Pass)),
                (Fail, Some(Fail)),
            ],
        );
        check(Kind::Startup, live, &[(Fail, None), (Fail, None), (Pass, Some(Pass))]);
    }

    #[test]
    fn it_waits_its_delay_and_then_its_period() {
        let probe: Probe = serde_json::from_value(
            serde_json::json!({ "initialDelaySeconds": 5, "periodSeconds": 3 }),
        )
        .unwrap();
        let mut state = State::new(Kind::Readiness, &probe, at(0));
        assert_eq!(state.next_at(), at(5));
        assert!(state.record(&probe, Pass, at(6)));
        assert_eq!(state.next_at(), at(9));
        assert!(!state.record(&probe, Pass, at(9)), "nothing new");
    }
}
